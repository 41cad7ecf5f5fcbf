"""Hand-made Endpoints as slices: which are mirrored, and what their slices should be (MIRROR-2 to MIRROR-12). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from kubesvc.api.endpoints import EndpointAddress, Endpoints, EndpointSubset
from kubesvc.api.endpointslice import (
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
    Endpoint,
    EndpointConditions,
    EndpointSlice,
)
from kubesvc.api.meta import OwnerReference
from kubesvc.api.service import Service

from .endpoints_plan import ports_in, repacked
from .pod_endpoints import Ports, canonical_address, port_set
from .slice_plan import (
    Frame,
    Identity,
    SlicePlan,
    group_of,
    identity,
    is_owned,
    name_prefix,
    new_slice,
    recycled,
    same_state,
)
from .trigger_time import LAST_CHANGE_TRIGGER_TIME

MANAGED_BY = "endpointslicemirroring-controller.k8s.io"
SKIP_LABEL = "endpointslice.kubernetes.io/skip-mirror"
LEADER_ANNOTATION = "control-plane.alpha.kubernetes.io/leader"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
NOT_COPIED = frozenset({LAST_CHANGE_TRIGGER_TIME, LAST_APPLIED})


@dataclass(frozen=True, slots=True)
class Mirrored:
    """The plan, and what had to be left out."""

    plan: SlicePlan
    invalid: int = 0
    """Addresses that are none."""
    skipped: int = 0
    """All addresses left out, those included."""


def mirrors(endpoints: Endpoints | None, service: Service | None) -> bool:
    """Whether these Endpoints are to be mirrored (MIRROR-2)."""
    return (
        endpoints is not None
        and service is not None
        and not service.spec.selector
        and endpoints.metadata.label(SKIP_LABEL) != "true"
        and LEADER_ANNOTATION not in (endpoints.metadata.annotations or {})
    )


def plan_mirror(endpoints: Endpoints, existing: Sequence[EndpointSlice], limit: int) -> Mirrored:
    """The writes that make the mirrored slices right (MIRROR-5 to MIRROR-12).

    existing: the slices with this controller's label for that name, any order
    limit:    most addresses of a subset that are mirrored
    """
    desired: dict[tuple[str, Ports], dict[Identity, Endpoint]] = {}
    invalid = skipped = 0
    for subset in repacked(endpoints.subsets or ()):
        ports = port_set(p for p in ports_in(subset) if p is not None)
        taken = 0
        listed = list(addresses_of(subset))
        for position, (address, ready) in enumerate(listed):
            if taken >= limit:
                skipped += len(listed) - position
                break
            found = canonical_address(address.ip)
            if found is None:
                invalid += 1
                skipped += 1
                continue
            endpoint = mirrored_endpoint(address, found[1], ready)
            desired.setdefault((found[0], ports), {})[identity(endpoint)] = endpoint
            taken += 1
    plan = plan_groups(endpoints, desired, existing)
    if endpoints.metadata.deletion_timestamp is not None:
        plan.create = []  # MIRROR-12
    return Mirrored(recycled(plan, endpoints.metadata.uid), invalid, skipped)


def addresses_of(subset: EndpointSubset) -> Iterator[tuple[EndpointAddress, bool]]:
    """Ready addresses first."""
    for address in subset.addresses or ():
        yield address, True
    for address in subset.not_ready_addresses or ():
        yield address, False


def mirrored_endpoint(address: EndpointAddress, ip: str, ready: bool) -> Endpoint:
    """MIRROR-7."""
    return Endpoint(
        addresses=[ip],
        conditions=EndpointConditions(ready=ready),
        hostname=address.hostname or None,
        target_ref=address.target_ref,
        node_name=address.node_name or None,
    )


def plan_groups(
    endpoints: Endpoints,
    desired: dict[tuple[str, Ports], dict[Identity, Endpoint]],
    existing: Sequence[EndpointSlice],
) -> SlicePlan:
    """One slice for each address family and port set (MIRROR-8, MIRROR-10)."""
    plan = SlicePlan()
    groups: dict[tuple[str, Ports], list[EndpointSlice]] = {}
    for s in sorted(existing, key=lambda s: s.name):
        groups.setdefault((s.address_type, group_of(s)), []).append(s)
    for place in sorted(desired):
        found = groups.pop(place, [])
        wanted = mirrored_slice(endpoints, *place, list(desired[place].values()))
        if not found:
            plan.create.append(wanted)
            continue
        first, *others = found
        plan.delete += others
        if is_right(first, wanted, endpoints.metadata.uid):
            plan.unchanged.append(first)
        else:
            meta = msgspec.structs.replace(wanted.metadata, name=first.name, generate_name="")
            plan.update.append(msgspec.structs.replace(wanted, metadata=meta))
    for unwanted in groups.values():
        plan.delete += unwanted
    return plan


def mirrored_slice(endpoints: Endpoints, address_type: str, ports: Ports, content: Sequence[Endpoint]) -> EndpointSlice:
    """MIRROR-9."""
    owner = OwnerReference(
        api_version="v1",
        kind="Endpoints",
        name=endpoints.name,
        uid=endpoints.metadata.uid,
        controller=True,
        block_owner_deletion=True,
    )
    labels = dict(endpoints.metadata.labels or {})
    labels[SERVICE_NAME_LABEL] = endpoints.name
    labels[MANAGED_BY_LABEL] = MANAGED_BY
    frame = Frame(address_type, endpoints.namespace, name_prefix(endpoints.name), owner, labels)
    s = new_slice(frame, ports, content)
    annotations = {k: v for k, v in (endpoints.metadata.annotations or {}).items() if k not in NOT_COPIED}
    return msgspec.structs.replace(s, metadata=msgspec.structs.replace(s.metadata, annotations=annotations or None))


def is_right(stored: EndpointSlice, wanted: EndpointSlice, owner_uid: str) -> bool:
    """Whether a write would bring nothing: endpoints as a set, labels, annotations and owner agree (MIRROR-10)."""
    have = {identity(e): e for e in stored.endpoints or ()}
    want = {identity(e): e for e in wanted.endpoints or ()}
    return (
        len(stored.endpoints or ()) == len(want)
        and have.keys() == want.keys()
        and all(same_state(have[i], want[i]) for i in want)
        and (stored.metadata.labels or {}) == (wanted.metadata.labels or {})
        and (stored.metadata.annotations or {}) == (wanted.metadata.annotations or {})
        and is_owned(stored, owner_uid)
    )
