"""A node's proxy: the caches it watches, and what a change in them asks of its address families.

One `FamilySync` per family does the work; `Proxy` watches for both.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Iterable
from typing import Any

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.node import NODE, Node
from kubesvc.api.service import SERVICE, Service
from kubesvc.api.servicecidr import SERVICE_CIDR, ServiceCIDR
from kubesvc.client import Client, EventRecorder, Informer
from kubesvc.clock import Clock, Random
from kubesvc.kernel.conntrack import Conntrack
from kubesvc.kernel.room import REMEDY, Crowding

from .backend import Backends, Mode, SyncReport
from .family import FamilySync, Listeners, World
from .health import Answer, FamilyHealth, listen, node_eligible, proxy_answer
from .metrics import FamilyState, ProxyMetrics
from .settings import ProxySettings
from .slim import services_of, slices_of
from .traffic import (
    LABEL_ZONE,
    Family,
    Place,
    ServiceKey,
    Target,
    canonical,
    is_of,
    service_of,
)

log = logging.getLogger(__name__)

HEALTH_RETRY_SECONDS = 5.0
NODE_PATIENCE_SECONDS = 30.0
"""How long a Node may be without addresses before that is worth a line (PROXY-123)."""

ROOM_SECONDS = 10.0
"""How often it is looked whether the kernel has room for connections: three small files."""
REASONS: dict[Crowding, str] = {"nearly full": "ConntrackNearlyFull", "full": "ConntrackFull"}


class Proxy:
    """The service proxy of one node.

    client:       any Kubernetes API that serves Services and EndpointSlices
    node_name:    as in Node.metadata.name and the nodeName of endpoints, to the letter (PROXY-124)
    backends:     how it steers packets, in the namespace whose traffic it is
    conntrack:    the connections of that namespace; with None stale UDP flows stay until they run out
    synced:       told of every sync that succeeded
    refused:      told of all Services of a family whose rules the kernel will not have, whenever that changes
    crowded:      told when the kernel runs out of room for connections, in a sentence, and "" when it has room again
    addresses_of: the interfaces' addresses, asked when node_port_addresses are CIDRs
    """

    def __init__(
        self,
        client: Client,
        node_name: str,
        backends: Backends,
        clock: Clock,
        random: Random,
        settings: ProxySettings | None = None,
        *,
        conntrack: Conntrack | None = None,
        addresses_of: Callable[[], Iterable[str]] = tuple,
        synced: Callable[[SyncReport], None] = lambda _: None,
        refused: Callable[[Family, dict[ServiceKey, str]], None] = lambda *_: None,
        crowded: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.node_name = node_name
        self.mode: Mode = backends.mode
        self.settings = settings or ProxySettings()
        self.addresses_of = addresses_of
        self.conntrack = conntrack
        self.crowded = crowded
        self.clock = clock
        self.events = EventRecorder(client, "kube-proxy", clock=clock, random=random)
        self.services = services_of(client, clock, random)
        self.slices = slices_of(client, clock, random)
        self.nodes: Informer[Node] = Informer(
            client, NODE, field_selector=f"metadata.name={node_name}", clock=clock, random=random
        )
        self.cidrs: Informer[ServiceCIDR] = Informer(client, SERVICE_CIDR, clock=clock, random=random)
        by_service = self.slices.index("service", lambda s: ["/".join(k)] if (k := service_of(s)) else [])
        self.world = World(
            self.services,
            lambda key: by_service.get("/".join(key)),
            Place(node_name),
            tuple(self.settings.service_cidrs),
        )

        def told(report: SyncReport) -> None:
            self.metrics.synced(report)
            synced(report)

        listeners = Listeners(self._trouble, told, refused)
        self.families = tuple(
            FamilySync(
                self.world, backends(family), conntrack, clock, self.settings, self.node_port_addresses, listeners
            )
            for family in self.settings.families
        )

        self.metrics = ProxyMetrics(
            self.mode,
            clock,
            lambda: {f.family: state_of(f) for f in self.families},
            config_of(self.settings, self.mode, node_name),
        )

    async def run(self) -> None:
        """Keep the rules in line until cancelled. Nothing is written before both caches hold their first lists
        (PROXY-119); at the end rules stay unless settings say otherwise (PROXY-120)."""
        self.services.on_change(self._service_changed)
        self.slices.on_change(self._slice_changed)
        self.nodes.on_change(lambda _, node: self._node_changed(node))
        self.cidrs.on_change(lambda *_: self._cidrs_changed())
        try:
            async with asyncio.TaskGroup() as group:
                for informer in (self.services, self.slices, self.nodes, self.cidrs):
                    group.create_task(informer.run())
                group.create_task(self.events.run())
                s = self.settings
                if s.health_port:
                    group.create_task(self._serve("health", s.health_address, s.health_port, self.health))
                if s.metrics_port:
                    group.create_task(self._serve("metrics", s.metrics_address, s.metrics_port, self.metrics.answer))
                self.events.event(NODE, self._me(), "Normal", "Starting", "")
                await self.services.synced.wait()
                await self.slices.synced.wait()
                await self.nodes.synced.wait()
                group.create_task(self._miss_addresses())
                if self.conntrack is not None:
                    group.create_task(self._watch_room(self.conntrack))
                for family in self.families:
                    group.create_task(family.run())
        finally:
            for family in self.families:
                family.health.close()
            if self.settings.cleanup:
                for family in self.families:
                    await family.clean_up()

    def _me(self) -> dict[str, Any]:
        """The Node as Events of the proxy name it, which is as upstream does (PROXY-125)."""
        return {"metadata": {"name": self.node_name, "uid": self.node_name}}

    async def _watch_room(self, conntrack: Conntrack) -> None:
        """Say when the kernel has no room for connections: rules are right then, and nobody gets through."""
        state: Crowding = ""
        before = None
        while (now := conntrack.room()) is not None:
            found = now.crowding(before)
            if found != state:
                text = now.sentence(before)
                if text:
                    log.warning("%s; next: %s", text, REMEDY)
                    self.events.event(NODE, self._me(), "Warning", REASONS[found], text)
                else:
                    log.info("the kernel's table of connections has room again")
                self.crowded(text)
            state, before = found, now
            await asyncio.sleep(ROOM_SECONDS)

    async def _miss_addresses(self) -> None:
        """Say so if the Node has no address for long. Rules do not wait for it: ClusterIPs need none, and node ports
        follow once it is known (PROXY-123)."""
        await asyncio.sleep(NODE_PATIENCE_SECONDS)
        if not self.world.place.addresses:
            log.warning(
                "node %s has no address after %d s: no node port is reached by a Node's address until it has one%s",
                self.node_name,
                NODE_PATIENCE_SECONDS,
                "" if self.nodes.get(("", self.node_name)) else "; the API has no such node",
            )

    async def _serve(self, what: str, address: str, port: int, answer: Callable[[str], Answer]) -> None:
        """Answer requests; while the port is taken, try again from time to time (PROXY-125)."""
        while True:
            try:
                server = await listen(address, port, answer)
                break
            except OSError as error:
                log.warning("no %s answers at port %d: %s", what, port, error.strerror)
                await asyncio.sleep(HEALTH_RETRY_SECONDS)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    def health(self, path: str) -> Answer:
        """What /healthz or /livez says now (PROXY-86 to 88)."""
        families: dict[str, FamilyHealth] = {}
        families |= {f.family: FamilyHealth(f.counters.last_sync_at, f.keeps_up()) for f in self.families}
        answer = proxy_answer(path, self.clock.now(), families, node_eligible(self.nodes.get(("", self.node_name))))
        self.metrics.asked(path, answer.status)
        return answer

    def _trouble(self, key: ServiceKey, reason: str, message: str) -> None:
        log.warning("Service %s/%s: %s", *key, message)
        if (service := self.services.get(key)) is not None:
            self.events.event(SERVICE, service, "Warning", reason, message)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        service = new or old
        assert service is not None
        if old is not None and new is not None and (old.spec, old.status) == (new.spec, new.status):
            return
        self.metrics.service_changed(service.namespace, service.name)
        for family in self.families:
            family.touch((service.namespace, service.name))

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if old is not None and new is not None and _content(old) == _content(new):
            return
        if (moved := new or old) is not None:
            self.metrics.slice_changed(moved, deleted=new is None)
        keys = dict.fromkeys(key for s in (old, new) if s is not None and (key := service_of(s)))
        for family in self.families:
            for key in keys:
                family.touch(key)

    def _node_changed(self, node: Node | None) -> None:
        place = place_of(self.node_name, node)
        if place != self.world.place:
            log.info("node %s: zone %r, addresses %s", place.node, place.zone, ", ".join(place.addresses) or "none")
            self.world.place = place
            for family in self.families:
                family.touch_everything()

    def _cidrs_changed(self) -> None:
        known = (c for cidr in self.cidrs.values() for c in cidr.spec.cidrs or ())
        cidrs = tuple(dict.fromkeys((*self.settings.service_cidrs, *known)))
        if cidrs != self.world.service_cidrs:
            self.world.service_cidrs = cidrs
            for family in self.families:
                family.touch_everything()  # PROXY-107

    def node_port_addresses(self, family: Family) -> tuple[str, ...] | None:
        """Where node ports are reached in a family (PROXY-67 to 70); None: at every address but loopback."""
        chosen = self.settings.node_port_addresses
        if chosen == "default":
            chosen = () if self.mode == "iptables" else "primary"
        if self.mode == "iptables" and chosen != "primary" and match_all(family, chosen):
            return None
        if chosen == "primary":
            return tuple(a for a in self.world.place.addresses if is_of(family, a))[:1]
        return addresses_within(family, self.addresses_of(), chosen)


def state_of(family: FamilySync) -> FamilyState:
    """How a family stands, for metrics."""
    backend, counters = family.backend, family.counters
    ports = (port for ports in backend.ports.values() for port in ports)
    return FamilyState(counters.failures, ports, counters.partial_failures, backend.rule_counts())


def config_of(settings: ProxySettings, mode: Mode, node_name: str) -> dict[str, Any]:
    """What a proxy was told, under the names of upstream's configuration file; /configz shows it (PROXY-90)."""
    chosen = settings.node_port_addresses
    masquerade = {"masqueradeAll": settings.masquerade_all, "masqueradeBit": settings.masquerade_bit}
    syncing = {"syncPeriod": f"{settings.retry_seconds:g}s", "minSyncPeriod": f"{settings.min_sync_seconds:g}s"}
    prefix = settings.pod_interface.endswith("*")
    detector = "NodeCIDR" if settings.node_cidrs else "ClusterCIDR"
    if settings.pod_interface:
        detector = "InterfaceNamePrefix" if prefix else "BridgeInterface"
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "hostnameOverride": node_name,
        "clusterCIDR": "" if settings.node_cidrs else ",".join(settings.cluster_cidrs),
        "detectLocalMode": detector,
        "detectLocal": {
            "bridgeInterface": "" if prefix else settings.pod_interface,
            "interfaceNamePrefix": settings.pod_interface.removesuffix("*") if prefix else "",
        },
        "nodePortAddresses": list(() if chosen == "default" else (chosen,) if isinstance(chosen, str) else chosen),
        "healthzBindAddress": _bound(settings.health_address, settings.health_port),
        "metricsBindAddress": _bound(settings.metrics_address, settings.metrics_port),
        mode: {**masquerade, **syncing},
    }


def _bound(address: str, port: int) -> str:
    """Where something is answered, "" if nowhere."""
    return str(Target(address, port)) if port else ""


def _content(s: EndpointSlice) -> object:
    """What of a slice matters to traffic (PROXY-20)."""
    return (s.address_type, s.endpoints, s.ports, s.metadata.label("kubernetes.io/service-name"))


def place_of(name: str, node: Node | None) -> Place:
    """Where a node stands, from its object: internal addresses before external ones."""
    if node is None:
        return Place(name)
    listed = node.status.addresses or ()
    addresses = [canonical(a.address) for t in ("InternalIP", "ExternalIP") for a in listed if a.type == t]
    return Place(name, node.metadata.label(LABEL_ZONE), tuple(dict.fromkeys(a for a in addresses if a)))


def match_all(family: Family, cidrs: Iterable[str]) -> bool:
    """Whether these CIDRs leave out no address of the family: none is of it, or one is /0 (PROXY-68)."""
    networks = [ipaddress.ip_network(c, strict=False) for c in cidrs if is_of(family, c)]
    return not networks or any(network.prefixlen == 0 for network in networks)


def addresses_within(family: Family, addresses: Iterable[str], cidrs: Iterable[str]) -> tuple[str, ...]:
    """The addresses of a family that lie in one of its CIDRs; all of them if no CIDR is of the family (PROXY-68).
    Loopback addresses never count (PROXY-70)."""
    networks = [ipaddress.ip_network(c, strict=False) for c in cidrs if is_of(family, c)]
    found = []
    for text in addresses:
        address = ipaddress.ip_address(text.partition("/")[0])
        if not is_of(family, str(address)) or address.is_loopback:
            continue
        if not networks or any(address in network for network in networks):
            found.append(str(address))
    return tuple(dict.fromkeys(found))
