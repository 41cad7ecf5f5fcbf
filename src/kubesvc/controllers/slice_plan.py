"""Packing endpoints into slices while rewriting as few of them as possible (SLICE-16 to SLICE-34).

Everything here is pure, total and deterministic. `plan_slices` packs one address type of one Service; `recycled` turns
creates into updates of slices that would be deleted. Hints are laid over a plan by `topology`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from kubesvc.api.endpointslice import (
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
    Endpoint,
    EndpointSlice,
    EndpointSlicePort,
)
from kubesvc.api.meta import ObjectMeta, OwnerReference
from kubesvc.api.names import dns_subdomain
from kubesvc.api.service import Service

from .pod_endpoints import Port, Ports, needs_headless_label
from .trigger_time import LAST_CHANGE_TRIGGER_TIME

MANAGED_BY = "endpointslice-controller.k8s.io"
HEADLESS_LABEL = "service.kubernetes.io/headless"
RESERVED_LABELS = frozenset({SERVICE_NAME_LABEL, MANAGED_BY_LABEL, HEADLESS_LABEL})

Identity = tuple[tuple[str, ...], str, str, str]
"""Addresses, hostname, and namespace and name of the target (SLICE-18)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What all slices of one owner and address type have in common besides endpoints and ports."""

    address_type: str
    namespace: str
    generate_name: str
    owner: OwnerReference
    labels: Mapping[str, str]


@dataclass(slots=True)
class SlicePlan:
    """Slices to create (without a name), to update, to delete, and those that stay as they are.

    A slice to update without resourceVersion replaces whatever has its name (SLICE-26).
    """

    create: list[EndpointSlice] = field(default_factory=list)
    update: list[EndpointSlice] = field(default_factory=list)
    delete: list[EndpointSlice] = field(default_factory=list)
    unchanged: list[EndpointSlice] = field(default_factory=list)
    added: int = 0
    removed: int = 0
    """How many endpoints come and go by it."""

    @property
    def writes(self) -> int:
        return len(self.create) + len(self.update) + len(self.delete)

    def add(self, other: SlicePlan) -> None:
        self.create += other.create
        self.update += other.update
        self.delete += other.delete
        self.unchanged += other.unchanged
        self.added += other.added
        self.removed += other.removed


def identity(endpoint: Endpoint) -> Identity:
    """What makes two endpoints the same one, whatever their state (SLICE-18)."""
    listed = endpoint.addresses or ()
    target = endpoint.target_ref
    return (
        tuple(listed) if len(listed) < 2 else tuple(sorted(listed)),
        endpoint.hostname or "",
        target.namespace if target else "",
        target.name if target else "",
    )


def same_state(a: Endpoint, b: Endpoint) -> bool:
    """Whether two endpoints of one identity agree in all that is compared; hints are not (SLICE-18)."""
    return (
        a.conditions == b.conditions
        and a.target_ref == b.target_ref
        and (a.node_name or None) == (b.node_name or None)
        and (a.zone or None) == (b.zone or None)
    )


def service_frame(service: Service, address_type: str) -> Frame:
    """The frame of a Service's slices (SLICE-30 to SLICE-32)."""
    labels = {k: v for k, v in (service.metadata.labels or {}).items() if k not in RESERVED_LABELS}
    labels[SERVICE_NAME_LABEL] = service.name
    labels[MANAGED_BY_LABEL] = MANAGED_BY
    if needs_headless_label(service):
        labels[HEADLESS_LABEL] = ""
    owner = OwnerReference(
        api_version="v1",
        kind="Service",
        name=service.name,
        uid=service.metadata.uid,
        controller=True,
        block_owner_deletion=True,
    )
    return Frame(address_type, service.namespace, name_prefix(service.name), owner, labels)


def name_prefix(name: str) -> str:
    """`<name>-`, or the bare name where the dash makes no valid prefix (SLICE-30)."""
    dashed = f"{name}-"
    return dashed if not dns_subdomain(dashed + "x") else name


def is_owned(endpoint_slice: EndpointSlice, uid: str) -> bool:
    """Whether this very object owns the slice (SLICE-19)."""
    return any(o.uid == uid for o in endpoint_slice.metadata.owner_references or ())


def group_of(endpoint_slice: EndpointSlice) -> Ports:
    """The port group of a stored slice; absent and empty are the same (SLICE-16)."""
    return tuple(
        sorted(
            Port(p.name or "", -1 if p.port is None else p.port, p.protocol or "TCP", p.app_protocol or "")
            for p in endpoint_slice.ports or ()
        )
    )


def slice_ports(ports: Ports) -> list[EndpointSlicePort]:
    return [
        EndpointSlicePort(name=p.name, port=p.port, protocol=p.protocol, app_protocol=p.app_protocol or None)
        for p in ports
    ]


def plan_slices(
    frame: Frame,
    desired: Mapping[Ports, Mapping[Identity, Endpoint]],
    existing: Sequence[EndpointSlice],
    limit: int,
) -> SlicePlan:
    """Place every desired endpoint in one slice of its port group (SLICE-19 to SLICE-25).

    desired:  endpoints by port group and identity; empty groups do not count
    existing: the Service's own slices of this address type as the cache has them, any order; never mutated
    limit:    most endpoints in a slice, a count (1..1000); outside it, ValueError

    Without any endpoint the plan leads to exactly one empty slice, the placeholder.
    """
    if not 1 <= limit <= 1000:
        raise ValueError(f"limit: {limit}: must be from 1 to 1000 endpoints")
    plan = SlicePlan()
    groups: dict[Ports, list[EndpointSlice]] = {}
    for s in sorted(existing, key=lambda s: s.name):
        if is_owned(s, frame.owner.uid):
            groups.setdefault(group_of(s), []).append(s)
        else:
            plan.delete.append(s)
    for ports in sorted(desired):
        if desired[ports]:
            plan.add(plan_group(frame, ports, desired[ports], groups.pop(ports, ()), limit))
    for unwanted in groups.values():
        plan.delete += unwanted
        plan.removed += sum(len(s.endpoints or ()) for s in unwanted)
    if not plan.create and len(plan.delete) == len(existing):
        keep_placeholder(frame, plan)
    return plan


def keep_placeholder(frame: Frame, plan: SlicePlan) -> None:
    """All slices are to go and none to come: there must be one empty one (SLICE-25)."""
    if len(plan.delete) == 1 and is_placeholder(frame, plan.delete[0]):
        plan.unchanged.append(plan.delete.pop())
    else:
        plan.create.append(new_slice(frame, (), ()))


def is_placeholder(frame: Frame, s: EndpointSlice) -> bool:
    """Whether a slice is the empty one that would be made now; its name and annotations do not matter."""
    return (
        not s.endpoints
        and not s.ports
        and (s.metadata.labels or {}) == frame.labels
        and s.namespace == frame.namespace
        and s.metadata.owner_references == [frame.owner]
    )


def plan_group(
    frame: Frame,
    ports: Ports,
    desired: Mapping[Identity, Endpoint],
    existing: Sequence[EndpointSlice],
    limit: int,
) -> SlicePlan:
    """Pack the endpoints of one port group: keep, then refill, then one home for the rest, then new slices."""
    plan = SlicePlan()
    homeless = dict(desired)
    unchanged: list[EndpointSlice] = []
    changed: list[tuple[EndpointSlice, list[Endpoint]]] = []
    for s in existing:  # step 1 (SLICE-21)
        kept, same = keep_desired(s.endpoints or (), homeless)
        plan.removed += len(s.endpoints or ()) - len(kept)
        if same and unreserved(s.metadata.labels) == unreserved(frame.labels):
            unchanged.append(s)
        elif kept or same:
            changed.append((s, kept))
        else:
            plan.delete.append(s)
    newcomers = list(homeless.values())
    plan.added = len(newcomers)
    changed.sort(key=lambda entry: (-len(entry[1]), entry[0].name))
    for _, kept in changed:  # step 2 (SLICE-22)
        pour(newcomers, kept, limit)
    while newcomers:  # step 3 (SLICE-23)
        home = home_for(len(newcomers), unchanged, limit)
        content = list(home.endpoints or ()) if home else []
        pour(newcomers, content, limit)
        if home is None:
            plan.create.append(new_slice(frame, ports, content))
        else:
            unchanged.remove(home)
            changed.append((home, content))
    plan.update += [changed_slice(frame, s, content) for s, content in changed]
    plan.unchanged += unchanged
    return plan


def keep_desired(endpoints: Sequence[Endpoint], homeless: dict[Identity, Endpoint]) -> tuple[list[Endpoint], bool]:
    """The desired ones among a slice's endpoints, in place, in their desired state, taken out of `homeless`; and
    whether that is just what the slice has already."""
    kept = []
    same = True
    for endpoint in endpoints:
        wanted = homeless.pop(identity(endpoint), None)
        if wanted is None:
            same = False
        else:
            kept.append(wanted)
            same = same and same_state(wanted, endpoint)
    return kept, same


def pour(source: list[Endpoint], into: list[Endpoint], limit: int) -> None:
    """Move endpoints from the front of `source` until `into` is full."""
    room = max(0, limit - len(into))
    into += source[:room]
    del source[:room]


def home_for(count: int, unchanged: Sequence[EndpointSlice], limit: int) -> EndpointSlice | None:
    """The unchanged slice that takes all `count` with the least room to spare (SLICE-23)."""
    if count >= limit:
        return None
    fitting = [s for s in unchanged if len(s.endpoints or ()) + count <= limit]
    return max(fitting, key=lambda s: len(s.endpoints or ()), default=None)


def unreserved(labels: Mapping[str, str] | None) -> dict[str, str]:
    return {k: v for k, v in (labels or {}).items() if k not in RESERVED_LABELS}


def new_slice(frame: Frame, ports: Ports, endpoints: Sequence[Endpoint]) -> EndpointSlice:
    """A slice that does not exist yet; the server gives it a name."""
    return EndpointSlice(
        metadata=ObjectMeta(
            generate_name=frame.generate_name,
            namespace=frame.namespace,
            labels=dict(frame.labels),
            owner_references=[frame.owner],
        ),
        address_type=frame.address_type,
        endpoints=list(endpoints) or None,
        ports=slice_ports(ports) or None,
    )


def changed_slice(frame: Frame, s: EndpointSlice, endpoints: list[Endpoint]) -> EndpointSlice:
    """An existing slice with new content and fresh labels."""
    meta = msgspec.structs.replace(s.metadata, labels=dict(frame.labels))
    return msgspec.structs.replace(s, metadata=meta, endpoints=endpoints or None)


def recycled(plan: SlicePlan, owner_uid: str) -> SlicePlan:
    """Creates take over the names of slices to delete, where the owner and the address type are ours (SLICE-26)."""
    create = list(plan.create)
    update = list(plan.update)
    delete = []
    for s in plan.delete:
        successor = next((c for c in reversed(create) if c.address_type == s.address_type), None)
        if successor is None or not is_owned(s, owner_uid):
            delete.append(s)
            continue
        create.remove(successor)
        meta = msgspec.structs.replace(successor.metadata, name=s.name)
        update.append(msgspec.structs.replace(successor, metadata=meta))
    return replace(plan, create=create, update=update, delete=delete)


def stamped(s: EndpointSlice, trigger_time: str) -> EndpointSlice:
    """With the trigger time set, or removed if there is none (SLICE-33)."""
    annotations = {k: v for k, v in (s.metadata.annotations or {}).items() if k != LAST_CHANGE_TRIGGER_TIME}
    if trigger_time:
        annotations[LAST_CHANGE_TRIGGER_TIME] = trigger_time
    return msgspec.structs.replace(s, metadata=msgspec.structs.replace(s.metadata, annotations=annotations or None))
