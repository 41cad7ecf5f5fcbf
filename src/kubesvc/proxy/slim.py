"""What a proxy keeps of EndpointSlices and Services: the fields that traffic depends on, equal parts once.

Slices name each endpoint's Pod, zone and more, and Services carry annotations of any size; none of it changes where a
packet goes, and at half a million endpoints it is most of the memory. These have the names of the whole objects'
fields, and whoever reads one takes it for one; a field that is not here fails when it is read, rather than being
found empty. Who comes to need a field adds it here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, ClassVar

from msgspec import field
from msgspec.structs import force_setattr

from kubesvc.api.endpointslice import (
    ENDPOINT_SLICE,
    EndpointConditions,
    EndpointHints,
    EndpointSlice,
    EndpointSlicePort,
)
from kubesvc.api.meta import Struct, Typed
from kubesvc.api.service import SERVICE, Service, ServiceSpec, ServiceStatus
from kubesvc.client import Informer

from .metrics import TRIGGER_TIME
from .traffic import LABEL_HEADLESS, LABEL_PROXY_NAME, LABEL_SERVICE_NAME

if TYPE_CHECKING:
    from kubesvc.client import Client
    from kubesvc.clock import Clock, Random


class SlimEndpoint(Struct, frozen=True):
    addresses: tuple[str, ...] | None = None
    conditions: EndpointConditions | None = None
    node_name: str | None = None
    hints: EndpointHints | None = None


class SlimLabels(Struct, frozen=True):
    service: str = field(default="", name=LABEL_SERVICE_NAME)


class SlimAnnotations(Struct, frozen=True):
    trigger: str = field(default="", name=TRIGGER_TIME)


class SlimMeta(Struct, frozen=True):
    """Metadata of a slice with the one label and the one annotation that are read; asking for another is a mistake."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: SlimLabels | None = None
    annotations: SlimAnnotations | None = None

    creation_timestamp: ClassVar[None] = None
    owner_references: ClassVar[None] = None

    def label(self, key: str) -> str:
        if key != LABEL_SERVICE_NAME:
            raise KeyError(f"label {key}: not kept")
        return self.labels.service if self.labels else ""

    def annotation(self, key: str) -> str:
        if key != TRIGGER_TIME:
            raise KeyError(f"annotation {key}: not kept")
        return self.annotations.trigger if self.annotations else ""


class SlimSlice(Typed, frozen=True):
    metadata: SlimMeta = SlimMeta()  # type: ignore[assignment]
    address_type: str = ""
    endpoints: list[SlimEndpoint] | None = None
    ports: list[EndpointSlicePort] | None = None

    def __post_init__(self) -> None:
        """Endpoints have few different conditions, and run on few nodes."""
        force_setattr(self, "address_type", sys.intern(self.address_type))
        for endpoint in self.endpoints or ():
            conditions = endpoint.conditions
            if conditions is not None:
                kind = (conditions.ready, conditions.serving, conditions.terminating)
                force_setattr(endpoint, "conditions", CONDITIONS.setdefault(kind, conditions))
            if endpoint.node_name:
                force_setattr(endpoint, "node_name", sys.intern(endpoint.node_name))


class SlimServiceMeta(Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None

    creation_timestamp: ClassVar[None] = None
    owner_references: ClassVar[None] = None


class SlimService(Typed, frozen=True):
    metadata: SlimServiceMeta = SlimServiceMeta()  # type: ignore[assignment]
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


CONDITIONS: dict[tuple[bool | None, bool | None, bool | None], EndpointConditions] = {}
"""Each of the 27 there can be, once it was seen."""


def slices_of(client: Client, clock: Clock, random: Random) -> Informer[EndpointSlice]:
    """The cache of the slices that traffic follows; those of headless Services are not asked for (PROXY-9)."""
    selector = f"!{LABEL_HEADLESS}"
    return Informer(client, ENDPOINT_SLICE, label_selector=selector, clock=clock, random=random, decoded_as=SlimSlice)


def services_of(client: Client, clock: Clock, random: Random) -> Informer[Service]:
    """The cache of the Services that this proxy steers: not those of another, nor headless ones (PROXY-2, 6)."""
    return Informer(
        client,
        SERVICE,
        label_selector=f"!{LABEL_PROXY_NAME}",
        field_selector="spec.clusterIP!=None",
        clock=clock,
        random=random,
        decoded_as=SlimService,
    )
