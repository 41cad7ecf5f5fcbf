"""What must hold: at every moment of a history, and of the cluster it ends in once trouble has passed.

The expectations here are worked out from the stored Pods by a small model of their own, so that a mistake in a
controller's plan is not repeated in its check.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.kinds import (
    DAEMON_SET,
    DEPLOYMENT,
    IP_ADDRESS,
    JOB,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    SERVICE,
    STATEFUL_SET,
)
from kubesvc.api.meta import Object
from kubesvc.client import Informer
from kubesvc.dns import wire
from kubesvc.dns.responder import Responder
from kubesvc.dns.wire import Message, Question
from kubesvc.kernel.nft.walk import Host, Packet, outcomes
from kubesvc.store import Change

from .machines import MOST_ENDPOINTS
from .users import HANDMADE
from .world import World

CONTROLLER = "endpointslice-controller.k8s.io"
MIRROR = "endpointslicemirroring-controller.k8s.io"
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
NAMED = ("shop", "side")
"""The namespaces whose Services are looked at."""
PATIENCE_SECONDS = 1.0
"""Grace that publishing a removal may need at least."""


READ = (
    NAMESPACE, NODE, POD, SERVICE, ENDPOINTS, ENDPOINT_SLICE, DEPLOYMENT, REPLICA_SET, STATEFUL_SET, DAEMON_SET, JOB,
    IP_ADDRESS,
)  # fmt: skip


class Broken(AssertionError):
    """An invariant does not hold."""


def check(holds: object, text: str) -> None:
    if not holds:
        raise Broken(text)


class Expected(NamedTuple):
    """One endpoint as the slices of a Service should list it."""

    address: str
    ports: tuple[tuple[str, int, str], ...]
    ready: bool
    serving: bool
    terminating: bool
    node: str
    zone: str
    hostname: str
    pod: str
    uid: str


def ready_of(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def is_ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def family_of(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


def selects(service: Object) -> bool:
    spec = service["spec"]
    return bool(spec.get("selector")) and spec.get("type") != "ExternalName"


def ports_on(service: Object, pod: Object) -> tuple[tuple[str, int, str], ...]:
    """The Service's ports as this pod has them."""
    found = []
    for port in service["spec"].get("ports") or ():
        protocol = port.get("protocol", "TCP")
        target = port.get("targetPort") or port["port"]
        if isinstance(target, str):
            named = [
                p["containerPort"]
                for c in pod["spec"]["containers"]
                for p in c.get("ports") or ()
                if p.get("name") == target and p.get("protocol", "TCP") == protocol
            ]
            if not named:
                continue
            target = named[0]
        found.append((port.get("name", ""), target, protocol))
    return tuple(sorted(found))


class State:
    """Everything stored, read at one moment."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.objects: dict[str, list[Object]] = {}

    async def read(self) -> State:
        for kind in READ:
            self.objects[kind.plural] = await self.world.all(kind)
        self.nodes = {n["metadata"]["name"]: n for n in self.objects["nodes"]}
        self.services = {key_of(s): s for s in self.objects["services"] if s["metadata"]["namespace"] in NAMED}
        self.endpoints = {key_of(e): e for e in self.objects["endpoints"]}
        self.uids = {o["metadata"]["uid"] for listed in self.objects.values() for o in listed}
        return self

    def slices(self, key: tuple[str, str]) -> list[Object]:
        return [s for s in self.objects["endpointslices"] if service_of(s) == key]

    def pods_of(self, service: Object) -> list[Object]:
        namespace, selector = service["metadata"]["namespace"], service["spec"].get("selector") or {}
        return [
            p
            for p in self.objects["pods"]
            if p["metadata"]["namespace"] == namespace
            and all((p["metadata"].get("labels") or {}).get(k) == v for k, v in selector.items())
        ]

    def expected(self, service: Object, family: str) -> list[Expected]:
        """The endpoints of a Service with a selector, by its Pods."""
        publish = bool(service["spec"].get("publishNotReadyAddresses"))
        found = []
        for pod in self.pods_of(service):
            meta, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
            addresses = [a["ip"] for a in status.get("podIPs") or () if family_of(a["ip"]) == family]
            node = spec.get("nodeName", "")
            if is_ended(pod) or not addresses or (node not in self.nodes and not publish):
                continue
            terminating = "deletionTimestamp" in meta
            named = spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]
            labels = (self.nodes.get(node) or {"metadata": {}})["metadata"].get("labels") or {}
            found.append(
                Expected(
                    addresses[0],
                    ports_on(service, pod),
                    publish or (ready_of(pod) and not terminating),
                    ready_of(pod),
                    terminating,
                    node,
                    labels.get("topology.kubernetes.io/zone", ""),
                    spec["hostname"] if named else "",
                    meta["name"],
                    meta["uid"],
                )
            )
        return sorted(found)


def key_of(obj: Object) -> tuple[str, str]:
    return (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def service_of(s: Object) -> tuple[str, str]:
    return (s["metadata"]["namespace"], (s["metadata"].get("labels") or {}).get(SERVICE_NAME, ""))


def managed_by(s: Object) -> str:
    return str((s["metadata"].get("labels") or {}).get(MANAGED_BY, ""))


def listed(s: Object) -> Iterator[Expected]:
    """The endpoints of one stored slice."""
    ports = tuple(
        sorted((p.get("name", ""), p.get("port") or 0, p.get("protocol", "TCP")) for p in s.get("ports") or ())
    )
    for e in s.get("endpoints") or ():
        c, target = e.get("conditions") or {}, e.get("targetRef") or {}
        yield Expected(
            e["addresses"][0],
            ports,
            c.get("ready") is not False,
            c.get("serving", c.get("ready")) is not False,
            bool(c.get("terminating")),
            e.get("nodeName") or "",
            e.get("zone") or "",
            e.get("hostname") or "",
            target.get("name", ""),
            target.get("uid", ""),
        )


# -------------------------------------------------------------------- after calm


async def check_calm(world: World) -> None:
    """Everything that must hold once trouble has passed and all is quiet."""
    state = await State(world).read()
    await check_caches(world)
    for key, service in state.services.items():
        check_slices(state, key, service)
        check_endpoints(state, key, service)
    check_leaks(state)
    check_workloads(state)
    check_sets(state)
    check_jobs(state)
    check_proxies(state)
    check_names(state)


async def check_caches(world: World) -> None:
    """Every cache of every part equals what the server stores."""
    assert world.server is not None
    for part in world.parts:
        for informer in part.informers():
            raws = await world.server.client.list_raw(
                informer.kind,
                informer.namespace,
                label_selector=informer.label_selector,
                field_selector=informer.field_selector,
            )
            stored = {key_of(o): o["metadata"]["resourceVersion"] for o in map(msgspec.json.decode, raws.items)}
            cached = {(o.namespace, o.name): o.metadata.resource_version for o in informer.values()}
            check(cached == stored, f"{part.name}: cache of {informer.kind.plural}: {difference(cached, stored)}")
            check(not informer.undecodable, f"{part.name}: {informer.kind.plural} that do not decode")


def difference(found: Mapping[Any, Any], wanted: Mapping[Any, Any]) -> str:
    lacking = {k: v for k, v in wanted.items() if found.get(k) != v}
    surplus = {k: v for k, v in found.items() if wanted.get(k) != v}
    return f"has {surplus}, should have {lacking}"


def check_slices(state: State, key: tuple[str, str], service: Object) -> None:
    """The slices of a Service list exactly its Pods, each once, in as many slices as fit."""
    name = "/".join(key)
    mine = [s for s in state.slices(key) if managed_by(s) == CONTROLLER]
    if not selects(service):
        if service["spec"].get("type") != "ExternalName" and not service["spec"].get("selector"):
            check_mirror(state, key)
        return
    mirrored = [key_of(s) for s in state.slices(key) if managed_by(s) == MIRROR]
    check(not mirrored, f"Service {name} has slices of its own, and {mirrored} mirrored beside them")
    families = tuple(service["spec"]["ipFamilies"])
    check(
        {s["addressType"] for s in mine} == set(families),
        f"Service {name}: slices of {sorted({s['addressType'] for s in mine})}, families {families}",
    )
    for family in families:
        slices = [s for s in mine if s["addressType"] == family]
        found = sorted(e for s in slices for e in listed(s))
        wanted = state.expected(service, family)
        check(found == wanted, f"{family} slices of {name}: {unlike(found, wanted)}")
        check(len({(e.address, e.ports, e.pod) for e in found}) == len(found), f"slices of {name}: one twice: {found}")
        for s in slices:
            size = len(s.get("endpoints") or ())
            check(size <= MOST_ENDPOINTS, f"slice {key_of(s)} has {size} endpoints")
            check(
                size or len(slices) == 1 or s["metadata"]["name"] in state.world.emptied,
                f"slice {key_of(s)} is empty beside {len(slices) - 1} others",
            )
            owners = [o["uid"] for o in s["metadata"].get("ownerReferences") or ()]
            check(owners == [service["metadata"]["uid"]], f"slice {key_of(s)} belongs to {owners}")


def unlike(found: Iterable[Any], wanted: Iterable[Any]) -> str:
    found, wanted = list(found), list(wanted)
    surplus = [e for e in found if e not in wanted]
    lacking = [e for e in wanted if e not in found]
    return f"has {surplus}, lacks {lacking}; {len(found)} found, {len(wanted)} wanted"


def check_mirror(state: State, key: tuple[str, str]) -> None:
    """Slices of a Service without selector are what its Endpoints say, made by hand or left by a leader that had not
    heard of the selector's end (MIRROR)."""
    mirrored = [s for s in state.slices(key) if managed_by(s) == MIRROR]
    found = sorted((e.address, port, e.ready) for s in mirrored for e in listed(s) for port in e.ports)
    wanted = sorted(listed_in(state.endpoints.get(key, {})))
    check(found == wanted, f"mirror of {'/'.join(key)}: {unlike(found, wanted)}")


def listed_in(endpoints: Object) -> Iterator[tuple[str, tuple[str, int, str], bool]]:
    """(address, port, ready) of every pair in an Endpoints."""
    for subset in endpoints.get("subsets") or ():
        for port in subset.get("ports") or ():
            number = (port.get("name", ""), port["port"], port.get("protocol", "TCP"))
            for ready, field in ((True, "addresses"), (False, "notReadyAddresses")):
                for address in subset.get(field) or ():
                    yield address["ip"], number, ready


def check_endpoints(state: State, key: tuple[str, str], service: Object) -> None:
    """Endpoints say what the slices of the primary family say, but for what terminates."""
    if not selects(service):
        return
    check(key in state.endpoints, f"Service {'/'.join(key)} has no Endpoints")
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    family = service["spec"]["ipFamilies"][0]
    slices = [s for s in state.slices(key) if managed_by(s) == CONTROLLER and s["addressType"] == family]
    wanted = sorted(
        (e.address, port, e.ready)
        for s in slices
        for e in listed(s)
        for port in e.ports
        if publish or not e.terminating
    )
    found = sorted(listed_in(state.endpoints[key]))
    check(found == wanted, f"Endpoints {'/'.join(key)}: {unlike(found, wanted)}")


def check_leaks(state: State) -> None:
    """Nothing is left of what is gone, and nothing waits for ever."""
    objects = state.objects
    everywhere = {key_of(s): s for s in objects["services"]}
    for s in objects["endpointslices"]:
        check(service_of(s) in everywhere, f"slice {key_of(s)} of a Service that is gone")
    for e in objects["endpoints"]:
        check(key_of(e) in everywhere, f"Endpoints {key_of(e)} of a Service that is gone")
    for plural, listed_objects in objects.items():
        for obj in listed_objects:
            meta = obj["metadata"]
            check("deletionTimestamp" not in meta, f"{plural} {key_of(obj)} is terminating for ever")
            owners = [o for o in meta.get("ownerReferences") or () if o["kind"] != "Node"]
            alive = [o for o in owners if o["uid"] in state.uids]
            check(not owners or alive, f"{plural} {key_of(obj)} outlives its owner {[o['name'] for o in owners]}")
    addresses = sorted(ip for s in objects["services"] for ip in s["spec"].get("clusterIPs") or () if ip != "None")
    held = sorted(a["metadata"]["name"] for a in objects["ipaddresses"])
    check(addresses == held, f"IPAddresses: {unlike(held, addresses)}")
    server = state.world.server
    assert server is not None
    ports = [p["nodePort"] for s in objects["services"] for p in s["spec"].get("ports") or () if p.get("nodePort")]
    check(len(ports) == len(set(ports)), f"a node port is given twice: {sorted(ports)}")
    for machine in state.world.machines:
        here = [p for p in objects["pods"] if p["spec"].get("nodeName") == machine.name]
        running = [p["metadata"]["uid"] for p in here]
        check(
            sorted(machine.workers) == sorted(running),
            f"{machine.name} runs {len(machine.workers)}, not {len(running)}",
        )
        used, shown = machine.used_addresses(), addresses_of(here)
        check(set(used) <= set(shown), f"{machine.name} leaks addresses: {unlike(used, shown)}")
        needed = addresses_of(p for p in here if not is_ended(p))
        check(set(needed) <= set(used), f"{machine.name} forgot addresses: {unlike(used, needed)}")
    for pod in objects["pods"]:
        node = pod["spec"].get("nodeName")
        check(node in state.nodes, f"pod {key_of(pod)} is on node {node}, which does not exist")
    ips = addresses_of(p for p in objects["pods"] if not is_ended(p))
    check(len(ips) == len(set(ips)), f"a pod address is given twice: {sorted(ips)}")


def addresses_of(pods: Iterable[Object]) -> list[str]:
    return sorted(a["ip"] for p in pods for a in (p.get("status") or {}).get("podIPs") or ())


def check_workloads(state: State) -> None:
    """Deployments have the pods they want, of their newest template, and say so."""
    objects = state.objects
    for deployment in objects["deployments"]:
        wanted, status = deployment["spec"]["replicas"], deployment.get("status") or {}
        name = key_of(deployment)
        sets = [r for r in objects["replicasets"] if owned_by(r, deployment)]
        pods = [p for p in objects["pods"] for r in sets if owned_by(p, r) and not is_ended(p)]
        check(
            status.get("observedGeneration") == deployment["metadata"]["generation"], f"Deployment {name} is not seen"
        )
        check(
            status.get("replicas", 0) == len(pods),
            f"Deployment {name} says {status.get('replicas', 0)} not {len(pods)}",
        )
        check(len(pods) >= min(wanted, 1) * 1 if wanted else not pods, f"Deployment {name} has {len(pods)} of {wanted}")
        ready = sum(1 for p in pods if ready_of(p))
        check(
            status.get("readyReplicas", 0) == ready,
            f"Deployment {name}: ready {status.get('readyReplicas', 0)}, {ready}",
        )
        for r in sets:
            have = [p for p in objects["pods"] if owned_by(p, r) and not is_ended(p)]
            check(
                r["spec"]["replicas"] == len(have), f"ReplicaSet {key_of(r)} has {len(have)} of {r['spec']['replicas']}"
            )


def check_sets(state: State) -> None:
    """StatefulSets have their names in order, DaemonSets one pod on each node that takes pods."""
    pods = state.objects["pods"]
    for s in state.objects["statefulsets"]:
        name, wanted = s["metadata"]["name"], s["spec"]["replicas"]
        mine = {p["metadata"]["name"]: p for p in pods if owned_by(p, s)}
        numbers = {int(n.removeprefix(f"{name}-")): p for n, p in mine.items()}
        well = all(ready_of(p) for p in mine.values())
        ordered = s["spec"].get("podManagementPolicy") != "Parallel"
        # in order: nothing is made, and nothing taken away, behind one that is not ready
        first_ill = min((n for n, p in numbers.items() if not ready_of(p)), default=wanted) if ordered else wanted
        lacking = [n for n in range(min(wanted, first_ill)) if n not in numbers]
        check(not lacking, f"StatefulSet {name} of {wanted} has {sorted(mine)}")
        beyond = [n for n in numbers if n >= wanted]
        check(not beyond or (ordered and not well), f"StatefulSet {name} of {wanted} has {sorted(mine)}")
        if well:
            revisions = {p["metadata"]["labels"]["controller-revision-hash"] for p in mine.values()}
            check(revisions <= {s["status"]["updateRevision"]}, f"StatefulSet {name} stopped half way: {revisions}")
        check(s["status"].get("replicas", 0) == len(mine), f"StatefulSet {name} says {s['status']}")
    for d in state.objects["daemonsets"]:
        mine_by_node = sorted((p["spec"].get("nodeName") or "") for p in pods if owned_by(p, d) and not is_ended(p))
        takers = sorted(n for n, node in state.nodes.items() if not (node.get("spec") or {}).get("taints"))
        check(mine_by_node == takers, f"DaemonSet {d['metadata']['name']} is on {mine_by_node}, should be on {takers}")


def check_jobs(state: State) -> None:
    """Jobs have ended one way or the other, and hold no pod back."""
    for job in state.objects["jobs"]:
        name, status = job["metadata"]["name"], job.get("status") or {}
        ends = [c["type"] for c in status.get("conditions") or () if c["type"] in ("Complete", "Failed")]
        check(len(ends) == 1, f"Job {name} has ended {ends}: {status}")
        if ends == ["Complete"]:
            done, wanted = status.get("succeeded", 0), job["spec"]["completions"]
            check(done >= wanted, f"Job {name} is complete with {done} of {wanted}")
        check(not status.get("active"), f"Job {name} has ended with {status.get('active')} active pods")
    for pod in state.objects["pods"]:
        held = "batch.kubernetes.io/job-tracking" in (pod["metadata"].get("finalizers") or ())
        check(not held, f"pod {key_of(pod)} is held for a Job that has ended or is gone")


def owned_by(obj: Object, owner: Object) -> bool:
    owners = obj["metadata"].get("ownerReferences") or ()
    return any(o.get("controller") and o["uid"] == owner["metadata"]["uid"] for o in owners)


# -------------------------------------------------------------------- packets and names


class Fronted(NamedTuple):
    """An endpoint behind one service port."""

    target: str
    ready: bool
    draining: bool
    node: str


def behind(state: State, key: tuple[str, str], service: Object, family: str, port: Object) -> list[Fronted]:
    """The endpoints of one service port: by Pods where there is a selector, else by the slices that there are."""
    if selects(service):
        found = state.expected(service, family)
    else:
        found = [e for s in state.slices(key) if s["addressType"] == family for e in listed(s)]
    name, protocol = port.get("name", ""), port.get("protocol", "TCP")
    fronted = []
    for e in found:
        for listed_name, number, listed_protocol in e.ports:
            if (listed_name, listed_protocol) == (name, protocol):
                address = f"{e.address}:{number}"
                fronted.append(Fronted(address, e.ready, e.serving and e.terminating, e.node))
    return fronted


def fates(fronted: list[Fronted], node: str, local: bool) -> set[str]:
    """What may become of a packet: addresses, `drop` or `reject`."""
    usable = [f for f in fronted if f.ready or f.draining]
    here = [f for f in fronted if not local or f.node == node]
    chosen = [f for f in here if f.ready] or [f for f in here if f.draining]
    if chosen:
        return {f.target for f in chosen}
    return {"drop"} if usable and local else {"reject"}


PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}


def check_proxies(state: State) -> None:
    """Every node sends every packet to a Service where it should go."""
    for proxy, machine in zip(state.world.proxies, state.world.machines, strict=True):
        addresses = frozenset(machine.settings.node_addresses)
        for key, service in state.services.items():
            spec = service["spec"]
            for ip in spec.get("clusterIPs") or ():
                if ip == "None":
                    continue
                family = family_of(ip)
                table = proxy.nft.tables.get((10 if family == "IPv6" else 2, proxy.settings.table))
                check(table is not None, f"{proxy.name} has no {family} table")
                assert table is not None
                pod, client = ("fd00:244::f00", "fd00:9::9") if family == "IPv6" else ("10.244.250.9", "198.51.100.9")
                own = next(a for a in machine.settings.node_addresses if family_of(a) == family)
                for port in spec.get("ports") or ():
                    fronted = behind(state, key, service, family, port)
                    protocol = port.get("protocol", "TCP")
                    packet = Packet(pod, ip, port["port"], PROTOCOLS[protocol])
                    wanted = fates(fronted, machine.name, spec.get("internalTrafficPolicy") == "Local")
                    exact = not spec.get("trafficDistribution")
                    compare(table, packet, addresses, wanted, f"{proxy.name}: {'/'.join(key)}: {packet}", exact)
                    if port.get("nodePort"):
                        packet = Packet(client, own, port["nodePort"], PROTOCOLS[protocol])
                        wanted = fates(fronted, machine.name, spec.get("externalTrafficPolicy") == "Local")
                        compare(table, packet, addresses, wanted, f"{proxy.name}: {'/'.join(key)}: {packet}", exact)


def compare(table: Any, packet: Packet, addresses: frozenset[str], wanted: set[str], what: str, exact: bool) -> None:
    found = set()
    for outcome in outcomes(table, packet, Host(addresses)):
        word = outcome.verdict.split()[0]
        found.add(f"{outcome.destination}:{outcome.port}" if word == "accept" else word)
    holds = found == wanted if exact else bool(found) and found <= wanted
    check(holds, f"{what}: goes to {sorted(found)}, should go to {sorted(wanted)}")


def check_names(state: State) -> None:
    """DNS tells the addresses of every Service, from its memory of answers as well as anew."""
    responder = state.world.names.responder
    fresh = Responder(responder.snapshot, responder.zone)
    for key, service in state.services.items():
        spec = service["spec"]
        if spec.get("type") == "ExternalName":
            continue
        for family, type in (("IPv4", wire.A), ("IPv6", wire.AAAA)):
            if spec.get("clusterIP") == "None":
                families = spec.get("ipFamilies") or ()
                found = state.expected(service, family) if family in families else []
                wanted = {e.address for e in found if e.ready}
            else:
                wanted = {ip for ip in spec.get("clusterIPs") or () if family_of(ip) == family}
            for source in (responder, fresh):
                said = ask(source, key, type)
                check(said == wanted, f"DNS {'/'.join(key)}: says {sorted(said)}, should say {sorted(wanted)}")


def ask(responder: Responder, key: tuple[str, str], type: int) -> set[str]:
    name = wire.name_of(f"{key[1]}.{key[0]}.svc.cluster.local")
    query = wire.encode(Message(id=1, questions=(Question(name, type),)))
    answer = responder.answer(query, tcp=True)
    assert isinstance(answer, bytes)
    return {address_text(r.data) for r in wire.decode(answer).answers if r.type == type}


def address_text(data: object) -> str:
    import ipaddress

    return str(ipaddress.ip_address(data)) if isinstance(data, bytes) else str(data)


def ask_all(world: World) -> None:
    """Have DNS answer, so that it has answers in memory when things change."""
    if not world.names.responder.snapshot.synced:
        return
    for service in ("web", "db", "near", "byhand"):
        ask(world.names.responder, ("shop", service), wire.A)


# -------------------------------------------------------------------- at every moment


decoded: Callable[[bytes], Object] = lru_cache(512)(msgspec.json.decode)
"""A stored object, to be looked at only: what is replaced by a change was mostly seen when it came."""


class Watchman:
    """Looks at every change of the store and of every cache, and notes what must not be."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.broken: list[str] = []
        self.ever_ready: dict[str, None] = {}
        """uids of pods that have been ready at some time."""
        self.publishing: dict[tuple[str, str], None] = {}
        """Services that published addresses that were not ready at some time."""
        self.revision = 0
        self.addresses: dict[str, str] = {}
        """Service addresses in use, and by which uid."""
        self.watched: dict[int, None] = {}
        self.doomed: dict[str, None] = {}
        """uids of pods whose deletion began while there was no trouble."""
        self.shown: dict[str, dict[str, tuple[str, str]]] = {}
        """By pod uid, the slices that show it ready, and their Services."""
        self.selecting: dict[tuple[str, str], bool] = {}
        """Whether each Service selects its pods now: slices of one that does no more are left as they are (SLICE-8)."""
        self.strict = False
        """Whether no trouble excuses lateness now."""
        world.observers.append(self.stored)

    def note(self, text: str) -> None:
        self.world.story.tell("BROKEN", text)
        self.broken.append(text)

    def stored(self, changes: list[Change]) -> None:
        for change in changes:
            if change.revision < self.revision:
                self.note(f"revision {change.revision} after {self.revision}")
            self.revision = change.revision
            plural = change.key.split("/", 4)[3]
            if plural == "pods":
                self.pod(change)
            elif plural in ("endpointslices", "endpoints"):
                self.published(change)
            elif plural == "services":
                self.service(change)
        if any(c.key.split("/", 4)[3] == "services" for c in changes):
            held = {c.key.rpartition("/")[2] for c in changes if "/ipaddresses/" in c.key}
            for change in changes:
                self.allocated(change, held)

    def pod(self, change: Change) -> None:
        if change.value is None:
            return
        pod = decoded(change.value)
        meta = pod["metadata"]
        if ready_of(pod):
            self.ever_ready[meta["uid"]] = None
        if self.strict and "deletionTimestamp" in meta and meta["uid"] not in self.doomed:
            self.doomed[meta["uid"]] = None
            grace = max(meta.get("deletionGracePeriodSeconds") or 0, PATIENCE_SECONDS)
            asyncio.get_running_loop().call_later(grace, self.grace_ends, change.key, meta["uid"])

    def grace_ends(self, key: str, uid: str) -> None:
        """A pod's removal is published before its grace ends."""
        shown = [s for s, service in self.shown.get(uid, {}).items() if self.selecting.get(service)]
        if shown:
            self.note(f"the grace of pod {key} is over, and {shown} show it ready")

    def published(self, change: Change) -> None:
        """No address of a Pod that was never ready is published ready."""
        old = decoded(change.previous.value) if change.previous else {}
        new = decoded(change.value) if change.value is not None else {}
        for uid, _ in ready_in(old):
            self.shown.get(uid, {}).pop(change.key, None)
        obj = new or old
        plural = change.key.split("/", 4)[3]
        key = service_of(obj) if plural == "endpointslices" else key_of(obj)
        known = {uid for uid, _ in ready_in(old)}
        for uid, address in ready_in(new):
            if plural == "endpointslices" and key not in self.publishing:
                self.shown.setdefault(uid, {})[change.key] = key
            if uid not in self.ever_ready and key not in self.publishing and uid not in known:
                self.note(f"{change.key} shows {address} ready, whose pod never was")
        if new and plural == "endpointslices" and managed_by(new) == CONTROLLER:
            listed_pods = [e.pod for e in listed(new)]
            if len(listed_pods) != len(set(listed_pods)):
                self.note(f"{change.key} lists a pod twice")

    def service(self, change: Change) -> None:
        if change.value is not None:
            service = decoded(change.value)
            self.selecting[key_of(service)] = selects(service)
            if service["spec"].get("publishNotReadyAddresses"):
                self.publishing[key_of(service)] = None

    def allocated(self, change: Change, held: set[str]) -> None:
        """An address belongs to one Service, and has its IPAddress from the same revision on."""
        if change.key.split("/", 4)[3] != "services":
            return
        old = decoded(change.previous.value) if change.previous else {"spec": {}}
        before = [ip for ip in old["spec"].get("clusterIPs") or () if ip != "None"]
        new = decoded(change.value) if change.value is not None else {"spec": {}}
        after = [ip for ip in new["spec"].get("clusterIPs") or () if ip != "None"]
        for ip in before:
            if ip not in after:
                self.addresses.pop(ip, None)
        for ip in after:
            if ip in before:
                continue
            if ip in self.addresses:
                self.note(f"{change.key} gets {ip}, which Service {self.addresses[ip]} has")
            self.addresses[ip] = change.key
            if ip not in held:
                self.note(f"{change.key} gets {ip} without an IPAddress in the same transaction")

    # ---------------------------------------------------------------- caches

    def watch_caches(self) -> None:
        """Follow every cache there is now: no object goes back, none comes back from the dead."""
        for part in self.world.parts:
            for informer in part.informers():
                if id(informer) not in self.watched:
                    self.watched[id(informer)] = None
                    self.follow(part.name, informer)

    def follow(self, name: str, informer: Informer[Any]) -> None:
        dead: dict[str, int] = {}

        def changed(old: Any, new: Any) -> None:
            if new is None:
                if old is not None:
                    dead[old.metadata.uid] = int(old.metadata.resource_version)
                return
            revision = int(new.metadata.resource_version)
            if old is not None and revision <= int(old.metadata.resource_version):
                self.note(
                    f"{name}: {informer.kind.plural} {new.name} goes from {old.metadata.resource_version} to {revision}"
                )
            if revision <= dead.get(new.metadata.uid, 0):
                self.note(f"{name}: {informer.kind.plural} {new.name} comes back from the dead")

        informer.on_change(changed)
        self.keep = [*getattr(self, "keep", []), informer]  # so that ids stay theirs


def ready_in(obj: Object) -> Iterator[tuple[str, str]]:
    """(uid, address) of the pods that a slice or an Endpoints shows ready."""
    for e in obj.get("endpoints") or ():
        if (e.get("conditions") or {}).get("ready") and (uid := (e.get("targetRef") or {}).get("uid")):
            yield uid, e["addresses"][0]
    for subset in obj.get("subsets") or ():
        for a in subset.get("addresses") or ():
            if (uid := (a.get("targetRef") or {}).get("uid")) and not a["ip"].startswith(HANDMADE):
                yield uid, a["ip"]


class Ears(logging.Handler):
    """Errors that the product logs are broken promises: expected trouble is not an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if ": dropped after " in text:
            return  # as upstream does; the key comes back
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self.heard.append(text)
