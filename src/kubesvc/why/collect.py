"""A snapshot of a running cluster, read over a Client: lists page by page, nothing written.

For one Service only what concerns it is read: its Pods by its selector, its slices by their label, events of those Pods
alone. More is read only if the selector finds nobody. A kind that may not be listed, or that the server does not have,
becomes a gap; the rest is read all the same.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from kubesvc.api.daemonset import DAEMON_SET
from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.endpointslice import ENDPOINT_SLICE, MANAGED_BY_LABEL, SERVICE_NAME_LABEL, EndpointSlice
from kubesvc.api.errors import ApiError, Forbidden, NotFound, Unauthorized
from kubesvc.api.event import EVENT
from kubesvc.api.kind import Kind
from kubesvc.api.meta import ObjectMeta, Struct, Typed
from kubesvc.api.namespace import NAMESPACE
from kubesvc.api.pod import POD, Pod, PodStatus
from kubesvc.api.service import SERVICE, Service
from kubesvc.client import Client
from kubesvc.clock import Clock
from kubesvc.controllers import mirroring_plan, slice_plan
from kubesvc.controllers.pod_endpoints import selects
from kubesvc.controllers.scheduler_plan import host_ports

from .commands import selector_text
from .naming import named_service
from .snapshot import READ, Gap, Skipped, Snapshot, snapshot_of
from .subject import Subject

PAGE = 500
"""Objects in one page of a list: keeps memory low on large clusters."""
AT_ONCE = 4
SYSTEM = "kube-system"
SYSTEM_KINDS = (SERVICE, ENDPOINT_SLICE, DAEMON_SET)
"""What is read of kube-system for every question: is DNS there, is it kube-proxy that does the work."""
MOST_PODS_WITH_EVENTS = 10
"""So many Pods that are not ready are asked about one by one; more would mostly say the same."""

MOST_PODS_BY_NAME = 20
"""Pods that slices by other hands name are asked for one by one, so many at most."""
MANAGERS = (slice_plan.MANAGED_BY, mirroring_plan.MANAGED_BY)

Found = tuple[Kind, Typed]


class SlimStatus(Struct, frozen=True):
    phase: str = ""


class SlimPod(Struct, frozen=True):
    """As much of a Pod as its labels are compared by: a tenth of its memory."""

    metadata: ObjectMeta = ObjectMeta()
    status: SlimStatus = SlimStatus()


@dataclass
class Reader:
    """Reads lists, a few at once, and remembers what was refused or broken."""

    client: Client
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    gaps: dict[Kind, Gap] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    refused: set[tuple[Kind, str]] = field(default_factory=set)
    """Kinds and namespaces, "" for all, that could not be listed, needed or not."""

    async def read(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        slim: bool = False,
        needed: bool = True,
    ) -> list[Found]:
        """All objects of a kind. One that cannot be decoded is skipped; a refusal is a gap, if the list is `needed`,
        and an empty list."""
        decoder: msgspec.json.Decoder[Typed] = msgspec.json.Decoder(SlimPod if slim else kind.type)
        found: list[Found] = []
        token = ""
        async with self.gate:
            while True:
                try:
                    page = await self.client.list_raw(
                        kind, namespace, limit=PAGE, continue_token=token, label_selector=labels, field_selector=fields
                    )
                except Unauthorized:
                    raise
                except ApiError as error:
                    self.refused.add((kind, namespace))
                    if needed:
                        self.gaps.setdefault(kind, Gap(kind, reason_of(error)))
                    return found
                for raw in page.items:
                    try:
                        obj = decoder.decode(raw)
                    except msgspec.MsgspecError as error:
                        self.skipped.append(Skipped(f"a {kind.name} of the cluster", str(error)))
                        continue
                    found.append((kind, fattened(obj) if isinstance(obj, SlimPod) else obj))
                token = page.continue_token
                if not token:
                    return found

    def snapshot(self, found: Sequence[Found], now: float, scope: str = "") -> Snapshot:
        order = {kind: i for i, kind in enumerate(READ)}
        gaps = tuple(sorted(self.gaps.values(), key=lambda g: order[g.kind]))
        return snapshot_of(found, now, gaps=gaps, skipped=tuple(self.skipped), scope=scope)


def fattened(slim: SlimPod) -> Pod:
    return Pod(metadata=slim.metadata, status=PodStatus(phase=slim.status.phase))


def reason_of(error: ApiError) -> str:
    if isinstance(error, Forbidden):
        return f"not permitted ({error.message})"
    if isinstance(error, NotFound):
        return "this server does not have it"
    return error.message


async def read_for(client: Client, clock: Clock, subject: Subject | None, namespace: str) -> Snapshot:
    """The snapshot for a subject with names in `namespace`; None means every Service of `namespace`, "" of the cluster.

    Raises Unreachable if the server cannot be reached, Unauthorized if it does not know who asks.
    """
    if subject is None and namespace:
        return await read_namespace(client, clock, namespace)
    if subject is None or subject.address or subject.name:
        return await read_everything(client, clock)
    if subject.pod:
        return await read_namespace(client, clock, namespace)
    return await read_service(client, clock, subject.service, namespace)


async def read_everything(client: Client, clock: Clock) -> Snapshot:
    reader = Reader(client)
    return reader.snapshot(await lists(reader, [(kind, "") for kind in READ]), clock.now())


async def read_namespace(client: Client, clock: Clock, namespace: str) -> Snapshot:
    reader = Reader(client)
    places = [(kind, namespace if kind.namespaced else "") for kind in READ if kind is not NAMESPACE]
    found = await lists(reader, places)
    neighbours = await port_holders(reader, [o for _, o in found if isinstance(o, Pod)])
    snapshot = reader.snapshot([*found, *await read_system(reader, namespace)], clock.now(), namespace)
    return dataclasses.replace(snapshot, neighbours=neighbours)


async def read_system(reader: Reader, namespace: str) -> list[Found]:
    """DNS and kube-proxy, unless kube-system is read anyway."""
    proxies = await reader.read(POD, SYSTEM, labels="k8s-app=kube-proxy", needed=False)
    if namespace == SYSTEM:
        return proxies
    found = await asyncio.gather(*(reader.read(kind, SYSTEM, needed=False) for kind in SYSTEM_KINDS))
    return [entry for listed in found for entry in listed] + proxies


async def lists(reader: Reader, places: Sequence[tuple[Kind, str]]) -> list[Found]:
    """Several whole lists. The first goes alone: it finds out whether the server is there, and who asks."""
    first = await reader.read(*places[0])
    others = await asyncio.gather(*(reader.read(kind, where) for kind, where in places[1:]))
    return [*first, *(entry for listed in others for entry in listed)]


async def read_service(client: Client, clock: Clock, name: str, namespace: str) -> Snapshot:
    """What concerns one Service."""
    reader = Reader(client)
    found = await reader.read(SERVICE, namespace)
    service = next((o for _, o in found if isinstance(o, Service) and o.name == name), None)
    if service is None:
        rest = await asyncio.gather(reader.read(SERVICE, needed=False), reader.read(NAMESPACE, needed=False))
        return reader.snapshot([*found, *rest[0], *rest[1]], clock.now())
    whole = [k for k in READ if k not in (SERVICE, POD, ENDPOINTS, ENDPOINT_SLICE, EVENT, NAMESPACE)]
    selector = selector_text(service.spec.selector) if selects(service) else ""
    parts = [reader.read(kind, namespace if kind.namespaced else "") for kind in whole]
    parts.append(reader.read(ENDPOINT_SLICE, namespace, labels=f"{SERVICE_NAME_LABEL}={name}"))
    parts.append(reader.read(ENDPOINTS, namespace, fields=f"metadata.name={name}"))
    parts.append(reader.read(EVENT, namespace, fields="reason=FailedCreate"))
    parts.append(reader.read(EVENT, namespace, fields="reason=Unhealthy"))
    if selector:
        parts.append(reader.read(POD, namespace, labels=selector))
    for listed in await asyncio.gather(*parts, read_system(reader, namespace)):
        found += listed
    pods = [o for kind, o in found if kind is POD and o.namespace == namespace]
    elsewhere: list[Pod] = []
    if selector and pods:
        found += await events_of(reader, [p for p in pods if isinstance(p, Pod) and not p.ready])
    elif selector:
        found += await reader.read(POD, namespace, slim=True)
        others = await reader.read(POD, labels=selector, needed=False)
        elsewhere = [o for _, o in others if isinstance(o, Pod) and o.namespace != namespace]
    elif not any(kind is ENDPOINT_SLICE and o.namespace == namespace for kind, o in found):
        found += await reader.read(ENDPOINT_SLICE, namespace)
        found += await reader.read(ENDPOINTS, namespace)
        found += await reader.read(POD, namespace, slim=True)
    there = named_service(service) if service.spec.type == "ExternalName" else None
    also: frozenset[str] = frozenset()
    if there is not None and there[0] not in (namespace, SYSTEM):
        found += await reader.read(SERVICE, there[0], needed=False)
        also = frozenset({there[0]} - {ns for kind, ns in reader.refused if kind is SERVICE})
    asked = named_only(found, namespace)
    found += await pods_by_name(reader, namespace, asked)
    neighbours = await port_holders(reader, [p for p in pods if isinstance(p, Pod)])
    snapshot = reader.snapshot(found, clock.now(), namespace)
    known = frozenset((namespace, n) for n in asked) if snapshot.knows(POD) else frozenset()
    return dataclasses.replace(
        snapshot, elsewhere=tuple(elsewhere), neighbours=neighbours, also=also, narrow=True, asked=known
    )


async def port_holders(reader: Reader, pods: Sequence[Pod]) -> tuple[Pod, ...]:
    """The Pods of the cluster that hold host ports, if one of these wants some and has no node yet; () otherwise, or
    where that may not be read."""
    if not any(host_ports(p) and not p.spec.node_name for p in pods):
        return ()
    found = await reader.read(POD, fields="spec.nodeName!=", needed=False)
    return tuple(o for _, o in found if isinstance(o, Pod) and host_ports(o))


def named_only(found: Sequence[Found], namespace: str) -> list[str]:
    """Pods that slices by other hands name and that were not read: a few of them."""
    read = {o.name for kind, o in found if kind is POD and o.namespace == namespace}
    slices = [o for kind, o in found if kind is ENDPOINT_SLICE and isinstance(o, EndpointSlice)]
    names = [
        e.target_ref.name
        for s in slices if s.namespace == namespace and s.metadata.label(MANAGED_BY_LABEL) not in MANAGERS
        for e in s.endpoints or () if e.target_ref and e.target_ref.kind == "Pod" and e.target_ref.name not in read
    ]  # fmt: skip
    return list(dict.fromkeys(names))[:MOST_PODS_BY_NAME]


async def pods_by_name(reader: Reader, namespace: str, names: Sequence[str]) -> list[Found]:
    """Those of these Pods that exist."""
    found = await asyncio.gather(*(reader.read(POD, namespace, fields=f"metadata.name={n}") for n in names))
    return [entry for listed in found for entry in listed]


async def events_of(reader: Reader, pods: Sequence[Pod]) -> list[Found]:
    """Events about some of these Pods, one by one."""
    fields = [f"involvedObject.kind=Pod,involvedObject.name={p.name}" for p in pods[:MOST_PODS_WITH_EVENTS]]
    namespace = pods[0].namespace if pods else ""
    found = await asyncio.gather(*(reader.read(EVENT, namespace, fields=text) for text in fields))
    return [entry for listed in found for entry in listed]
