"""The loop: when it writes, what it writes, and what it does when things go wrong. In virtual time, on fakes."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest

from kubesvc.api.errors import Expired, NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import ENDPOINT_SLICE, NODE, SERVICE
from kubesvc.api.meta import Typed, typed
from kubesvc.api.node import Node
from kubesvc.api.servicecidr import SERVICE_CIDR, ServiceCIDR
from kubesvc.client import RawList, Unreachable, WatchEvent
from kubesvc.clock import LoopClock, run_virtual
from kubesvc.kernel.conntrack import FakeConntrack, Flow
from kubesvc.kernel.nft import FakeNft, NftError, Table
from kubesvc.kernel.nft.walk import Host, Packet, outcomes
from kubesvc.proxy import NftBackends, Proxy, ProxySettings
from kubesvc.proxy.nftables import affinity_lists
from kubesvc.proxy.sync import config_of
from kubesvc.proxy.traffic import plan_service

from .objects import ADDRESSES, HERE, A, B, C, place, ready, service, slice_of, vip
from .packets import AFFINITY, UDP_PORTS, UDP_SLICE

SETTINGS = ProxySettings(families=("IPv4",), health_port=0)
NODE_OBJECT = msgspec.convert(
    {
        "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1"}},
        "status": {"addresses": [{"type": "InternalIP", "address": ADDRESSES["IPv4"][HERE]}]},
    },
    Node,
)


class Cluster:
    """As much of a client as informers use: a list, and a watch that is fed by `put` and `remove`."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[tuple[str, str], Typed]] = {k.plural: {} for k in (SERVICE, ENDPOINT_SLICE, NODE)}
        self.queues: dict[str, asyncio.Queue[WatchEvent | Exception]] = {k: asyncio.Queue() for k in self.objects}
        self.selectors: dict[str, tuple[str, str]] = {}
        self.version = 1
        self.held: set[str] = set()
        """Kinds whose lists do not come yet."""
        self.away = False
        """Whether nobody answers."""

    async def list_raw(
        self, kind: Kind, namespace: str = "", *, label_selector: str = "", field_selector: str = "", **_: Any
    ) -> RawList:
        if kind.plural not in self.objects:
            raise NotFound("no such kind here")
        if self.away:
            raise Unreachable("nobody answers")
        self.selectors[kind.plural] = (label_selector, field_selector)
        while kind.plural in self.held:
            await asyncio.sleep(0.1)
        return RawList("1", [msgspec.json.encode(o) for o in self.objects[kind.plural].values()])

    async def watch(self, kind: Kind, namespace: str = "", **_: Any) -> AsyncIterator[WatchEvent]:
        while True:
            event = await self.queues[kind.plural].get()
            if isinstance(event, Exception):
                raise event
            yield event

    def put(self, kind: Kind, obj: Typed) -> None:
        known = self.objects[kind.plural]
        key = (obj.namespace, obj.name)
        self.version += 1
        stamped = msgspec.structs.replace(obj.metadata, resource_version=str(self.version))
        obj = msgspec.structs.replace(obj, metadata=stamped)
        event = WatchEvent("MODIFIED" if key in known else "ADDED", msgspec.json.encode(obj))
        known[key] = obj
        self.queues[kind.plural].put_nowait(event)

    def remove(self, kind: Kind, obj: Typed) -> None:
        del self.objects[kind.plural][obj.namespace, obj.name]
        self.queues[kind.plural].put_nowait(WatchEvent("DELETED", msgspec.json.encode(obj)))


class House:
    """A proxy on fakes."""

    def __init__(self, settings: ProxySettings = SETTINGS, conntrack: FakeConntrack | None = None) -> None:
        self.cluster, self.nft = Cluster(), FakeNft()
        clock = LoopClock(asyncio.get_running_loop())
        self.proxy = Proxy(
            self.cluster,  # type: ignore[arg-type]
            "n1",
            NftBackends(self.nft),
            clock,
            random.Random(1),
            settings,
            conntrack=conntrack,
        )
        self.cluster.objects["nodes"]["", "n1"] = NODE_OBJECT

    @property
    def table(self) -> Table:
        return self.nft.tables[2, "kubesvc"]

    def fates(self, to: str = vip("IPv4"), port: int = 80, protocol: int = 6) -> set[str]:
        packet = Packet("10.244.1.77", to, port, protocol)
        return {str(o) for o in outcomes(self.table, packet, Host(frozenset()))}


@asynccontextmanager
async def running(proxy: Proxy) -> AsyncIterator[None]:
    """A proxy at work, until the end of the block."""
    task = asyncio.create_task(proxy.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def in_house(
    test: Callable[[House], Coroutine[Any, Any, None]], settings: ProxySettings = SETTINGS, **more: Any
) -> None:
    async def main() -> None:
        house = House(settings, **more)
        async with running(house.proxy):
            await test(house)

    run_virtual(main())


def targets(*who: str) -> set[str]:
    return {f"to {ADDRESSES['IPv4'][w]}:8080" for w in who}


async def settle() -> None:
    await asyncio.sleep(0.5)


def test_follows_services_and_slices() -> None:
    async def test(house: House) -> None:
        await settle()
        house.cluster.put(SERVICE, service())
        await settle()
        assert house.fates() == {"reject tcp-reset"}, "PROXY-10: a Service without endpoints refuses"
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A, B)))
        await settle()
        assert house.fates() == targets(A, B)
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(C), suffix="y"))
        house.cluster.remove(ENDPOINT_SLICE, slice_of())
        await settle()
        assert house.fates() == targets(C), "PROXY-15, BUG-8"
        house.cluster.remove(SERVICE, service())
        await settle()
        assert house.fates() == {"drop"}, "PROXY-42: nobody owns the address any more"

    in_house(test)


def test_selectors() -> None:
    """PROXY-1, 3, 5."""

    async def test(house: House) -> None:
        await settle()
        assert house.cluster.selectors == {
            "services": ("!service.kubernetes.io/service-proxy-name", "spec.clusterIP!=None"),
            "endpointslices": ("!service.kubernetes.io/headless", ""),
            "nodes": ("", "metadata.name=n1"),
        }

    in_house(test)


@pytest.mark.parametrize("late", ["services", "endpointslices"])
def test_writes_nothing_before_both_lists_are_there(late: str) -> None:
    """PROXY-119, BUG-15."""

    async def test(house: House) -> None:
        house.cluster.held.add(late)
        house.cluster.put(SERVICE, service())
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        await asyncio.sleep(20)
        assert house.nft.log == []
        house.cluster.held.clear()
        await settle()
        assert house.fates() == targets(A)

    in_house(test)


def test_a_burst_is_few_transactions() -> None:
    """BUG-20: a hundred changes at once are written together, and the last of them is not lost."""

    async def test(house: House) -> None:
        house.cluster.put(SERVICE, service())
        await settle()
        before = len(house.nft.log)
        for turn in range(100):
            house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(*((A, B) if turn % 2 else (A,)))))
        await settle()
        assert house.fates() == targets(A, B)
        assert len(house.nft.log) - before <= 6

    in_house(test)


def test_the_same_again_writes_nothing() -> None:
    """PROXY-20."""

    async def test(house: House) -> None:
        house.cluster.put(SERVICE, service())
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        await settle()
        before = len(house.nft.log)
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        house.cluster.put(SERVICE, service(labels={"new": "label"}))
        await settle()
        assert len(house.nft.log) == before

    in_house(test)


def test_a_restart_finds_its_rules_and_leaves_them() -> None:
    """PROXY-119, 120: what is there already is not written again; what changed meanwhile is put right."""

    async def main() -> None:
        first = House()
        first.cluster.put(SERVICE, service())
        first.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A, B)))
        async with running(first.proxy):
            await settle()
        assert first.fates() == targets(A, B), "rules stay"
        second = House()
        second.nft.tables = first.nft.tables
        second.cluster.put(SERVICE, service())
        second.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A, C)))
        async with running(second.proxy):
            await settle()
            assert second.fates() == targets(A, C)
            assert len(second.nft.log) == 1

    run_virtual(main())


def test_cleanup_when_asked() -> None:
    """PROXY-120, 121, BUG-16."""

    async def main() -> None:
        for cleanup in (False, True):
            house = House(ProxySettings(families=("IPv4", "IPv6"), cleanup=cleanup, health_port=0))
            async with running(house.proxy):
                await settle()
                assert house.nft.tables
            assert bool(house.nft.tables) is not cleanup

    run_virtual(main())


def test_after_a_refusal_everything_is_put_right() -> None:
    """PROXY-106, BUG-18: what a failed sync wanted is not lost."""

    async def test(house: House) -> None:
        house.cluster.put(SERVICE, service())
        await settle()
        house.nft.fail_next = NftError(16, "busy")
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        await asyncio.sleep(0.1)
        assert house.fates() == {"reject tcp-reset"}
        (family,) = house.proxy.families
        assert family.pending_since is not None and family.counters.failures == 1, "PROXY-89"
        await asyncio.sleep(5)
        assert house.fates() == targets(A) and family.pending_since is None

    in_house(test)


def test_a_change_brings_the_retry_forward() -> None:
    """PROXY-117."""

    async def test(house: House) -> None:
        house.cluster.put(SERVICE, service())
        await settle()
        for _ in range(6):
            house.nft.fail_next = NftError(16, "busy")
            house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
            house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(B)))
            await asyncio.sleep(0.05)
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(C)))
        await asyncio.sleep(0.1)
        assert house.fates() == targets(C)

    in_house(test)


def test_rules_that_somebody_removed_come_back() -> None:
    """A periodic look finds strangers' changes and repairs them."""

    async def test(house: House) -> None:
        house.cluster.put(SERVICE, service())
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        await settle()
        del house.nft.tables[2, "kubesvc"]
        house.nft.disturbed += 1
        await asyncio.sleep(61)
        assert house.fates() == targets(A)
        assert house.proxy.families[0].counters.repairs == 1
        before = len(house.nft.log)
        await asyncio.sleep(600)
        assert len(house.nft.log) == before, "nothing to repair, nothing written"

    in_house(test)


def test_node_ports_follow_the_nodes_address() -> None:
    """PROXY-67, 68: `primary`."""

    async def test(house: House) -> None:
        del house.cluster.objects["nodes"]["", "n1"]
        node_port = service(type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}])
        house.cluster.put(SERVICE, node_port)
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        await settle()
        here = ADDRESSES["IPv4"][HERE]
        assert house.fates(here, 30080) == {f"to {here}:30080"}
        house.cluster.put(NODE, NODE_OBJECT)
        await settle()
        assert {f.removesuffix(", masqueraded") for f in house.fates(here, 30080)} == targets(A)

    in_house(test)


def test_stale_udp_flows_are_forgotten_after_the_rules_are_written() -> None:
    """PROXY-72 to 76, BUG-14."""
    front = (vip("IPv4"), 53)
    dead = Flow("10.244.1.9", 1, *front, ADDRESSES["IPv4"][A], 8080)
    alive = Flow("10.244.1.9", 2, *front, ADDRESSES["IPv4"][B], 8080)
    other = Flow("10.244.1.9", 3, "8.8.8.8", 53, "8.8.8.8", 53)
    conntrack = FakeConntrack([dead, alive, other])

    async def test(house: House) -> None:
        house.cluster.put(SERVICE, service(ports=UDP_PORTS))
        await settle()
        assert conntrack.forgotten == [], "PROXY-75: no serving endpoint, nothing is touched"
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(B), ports=UDP_SLICE))
        await settle()
        assert conntrack.forgotten == [dead]

    in_house(test, conntrack=conntrack)


def test_records_of_a_leaving_endpoint_go_and_others_stay() -> None:
    """PROXY-61, BUG-13."""

    async def test(house: House) -> None:
        sticky = service(**AFFINITY)
        house.cluster.put(SERVICE, sticky)
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A, B)))
        await settle()
        (port,) = plan_service(sticky, [slice_of(endpoints=ready(A, B))], place(), "IPv4")
        ((name, allowed),) = affinity_lists([port])
        clients = {b"\n\0\0" + bytes((i,)): target for i, target in enumerate(sorted(allowed))}
        house.table.elements[name] = dict(clients)
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(B, C)))
        house.cluster.put(SERVICE, service("other", number=2))
        await settle()
        left = list(house.table.elements[name].values())
        assert left == [target for target in clients.values() if target.startswith(bytes((10, 244, 1, 3)))]

    in_house(test)


def test_a_family_without_services_gets_no_table() -> None:
    async def main() -> None:
        house = House(ProxySettings(service_cidrs=("10.96.0.0/16",), health_port=0))
        async with running(house.proxy):
            await settle()
            assert set(house.nft.tables) == {(2, "kubesvc")}
            house.cluster.put(SERVICE, service(family="IPv6"))
            await settle()
            assert set(house.nft.tables) == {(2, "kubesvc"), (10, "kubesvc")}

    run_virtual(main())


def test_a_headless_label_takes_the_endpoints_away() -> None:
    """PROXY-3, 4: its slices leave the watch, so the ClusterIP refuses until the label is gone."""

    async def test(house: House) -> None:
        house.cluster.put(SERVICE, service())
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        await settle()
        house.cluster.remove(ENDPOINT_SLICE, slice_of())
        await settle()
        assert house.fates() == {"reject tcp-reset"}
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        await settle()
        assert house.fates() == targets(A)

    in_house(test)


def test_there_and_back_before_a_sync_writes_nothing() -> None:
    """PROXY-20, 21: what counts is the newest state against what is in force."""

    async def test(house: House) -> None:
        house.cluster.put(SERVICE, service())
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        await settle()
        before = len(house.nft.log)
        for who in ((A, B), (B,), (A, C), (A,)):
            house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(*who)))
        await settle()
        assert len(house.nft.log) == before and house.fates() == targets(A)

    in_house(test)


def test_a_node_without_addresses_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """PROXY-123: a line after 30 s; what needs no address of the Node does not wait for it."""

    async def test(house: House) -> None:
        house.cluster.objects["nodes"].clear()
        house.cluster.put(SERVICE, service())
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        await asyncio.sleep(29)
        assert house.fates() == targets(A) and "address" not in caplog.text
        await asyncio.sleep(2)
        assert "node n1 has no address after 30 s" in caplog.text and "no such node" in caplog.text

    in_house(test)
    caplog.clear()

    async def usual(_: House) -> None:
        await asyncio.sleep(40)
        assert "no address" not in caplog.text

    in_house(usual)


def test_a_service_range_more_is_guarded_at_once() -> None:
    """PROXY-42, 107: nobody's addresses in it are dropped, without waiting for a full sync that is due some time."""
    other = "10.97.0.9"

    def ranged(*cidrs: str) -> ServiceCIDR:
        return typed({"metadata": {"name": "more"}, "spec": {"cidrs": list(cidrs)}}, ServiceCIDR)

    async def test(house: House) -> None:
        house.cluster.objects["servicecidrs"] = {}
        house.cluster.queues["servicecidrs"] = asyncio.Queue()
        house.cluster.put(SERVICE, service())
        await settle()
        assert house.fates(other) == {f"to {other}:80"}
        house.cluster.put(SERVICE_CIDR, ranged("10.97.0.0/24"))
        await settle()
        assert house.fates(other) == {"drop"}
        house.cluster.remove(SERVICE_CIDR, ranged("10.97.0.0/24"))
        await settle()
        assert house.fates(other) == {f"to {other}:80"}

    in_house(test)


def test_what_it_was_told_is_shown_by_upstreams_names() -> None:
    """PROXY-90: /configz."""

    async def test(house: House) -> None:
        shown = json.loads(house.proxy.metrics.answer("/configz").body)["kubeproxy.config.k8s.io"]
        assert (shown["mode"], shown["hostnameOverride"], shown["clusterCIDR"]) == ("nftables", "n1", "10.244.0.0/16")
        assert shown["nodePortAddresses"] == [] and shown["detectLocalMode"] == "ClusterCIDR"
        assert shown["metricsBindAddress"] == "127.0.0.1:10249" and shown["healthzBindAddress"] == ""
        assert shown["nftables"]["masqueradeBit"] == 14

    in_house(test, ProxySettings(families=("IPv4",), health_port=0, metrics_port=10249))


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({"node_cidrs": True, "cluster_cidrs": ("10.244.1.0/24",)}, ("NodeCIDR", "", "", "")),
        ({"cluster_cidrs": ("10.244.0.0/16",)}, ("ClusterCIDR", "10.244.0.0/16", "", "")),
        ({"pod_interface": "veth*", "cluster_cidrs": ()}, ("InterfaceNamePrefix", "", "veth", "")),
        ({"pod_interface": "cni0", "cluster_cidrs": ()}, ("BridgeInterface", "", "", "cni0")),
    ],
)
def test_how_pods_are_told_is_shown(told: dict[str, Any], shown: tuple[str, ...]) -> None:
    """PROXY-52, 90: under the names of upstream's configuration."""
    config = config_of(ProxySettings(**told), "nftables", "n1")
    detect = config["detectLocal"]
    found = (config["detectLocalMode"], config["clusterCIDR"], detect["interfaceNamePrefix"], detect["bridgeInterface"])
    assert found == shown


def test_addresses_of_ipv6_are_shown_in_brackets() -> None:
    """PROXY-90: so that what is shown can be told again."""
    settings = ProxySettings(health_address="::", health_port=10256, metrics_address="::1", metrics_port=10249)
    config = config_of(settings, "nftables", "n1")
    assert (config["healthzBindAddress"], config["metricsBindAddress"]) == ("[::]:10256", "[::1]:10249")


def test_syncs_keep_their_distance() -> None:
    """PROXY-115, 116: the first after a quiet time is at once, the next waits; what comes meanwhile goes together."""
    told = ProxySettings(families=("IPv4",), health_port=0, min_sync_seconds=1.0)

    async def test(house: House) -> None:
        house.cluster.put(SERVICE, service())
        await asyncio.sleep(5)
        (family,) = house.proxy.families
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        await asyncio.sleep(0.05)
        assert house.fates() == targets(A)
        syncs = family.counters.syncs
        for who in ((B,), (A, B), (C,)):
            house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(*who)))
            await asyncio.sleep(0.2)
        assert house.fates() == targets(A) and family.counters.syncs == syncs
        await asyncio.sleep(0.5)
        assert house.fates() == targets(C) and family.counters.syncs == syncs + 1

    in_house(test, told)


def test_rules_stay_while_the_api_is_away() -> None:
    """PROXY-122: and what happened meanwhile is taken in when it is back."""

    async def test(house: House) -> None:
        house.cluster.put(SERVICE, service())
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        await settle()
        before = len(house.nft.log)
        house.cluster.away = True
        for queue in house.cluster.queues.values():
            queue.put_nowait(Expired("too old resource version"))
        await asyncio.sleep(60)
        assert house.fates() == targets(A) and len(house.nft.log) == before
        house.cluster.objects["endpointslices"]["shop", "web-x"] = slice_of(endpoints=ready(B))
        house.cluster.away = False
        await asyncio.sleep(60)
        assert house.fates() == targets(B)

    in_house(test)


def test_connections_that_cannot_be_listed_are_passed_over() -> None:
    """PROXY-78: the round is skipped, the rules are in force all the same, and the next round does it."""

    class Broken(FakeConntrack):
        trouble: OSError | None = OSError(105, "No buffer space available")

        async def udp_flows(self, family: int) -> list[Flow]:
            if self.trouble:
                raise self.trouble
            return await super().udp_flows(family)

    dead = Flow("10.244.1.9", 1, vip("IPv4"), 53, ADDRESSES["IPv4"][A], 8080)
    conntrack = Broken([dead])

    async def test(house: House) -> None:
        house.cluster.put(SERVICE, service(ports=UDP_PORTS))
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(B), ports=UDP_SLICE))
        await settle()
        (family,) = house.proxy.families
        assert family.counters.failures == 0 and conntrack.forgotten == []
        assert house.fates(port=53, protocol=17) == targets(B)
        conntrack.trouble = None
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(B, C), ports=UDP_SLICE))
        await settle()
        assert conntrack.forgotten == [dead]

    in_house(test, conntrack=conntrack)


@pytest.mark.parametrize(
    ("sentence", "chosen", "wanted"),
    [
        ("primary", "primary", (ADDRESSES["IPv4"][HERE],)),
        ("the default of nftables is primary", "default", (ADDRESSES["IPv4"][HERE],)),
        ("ranges choose among the interfaces", ("192.0.2.0/24",), ("192.0.2.7",)),
        ("no range of the family leaves all", ("fd00::/8",), (ADDRESSES["IPv4"][HERE], "192.0.2.7")),
    ],
)
def test_node_port_addresses(sentence: str, chosen: Any, wanted: tuple[str, ...]) -> None:
    """PROXY-67 to 71: node ports, and health check node ports beside them."""

    async def main() -> None:
        cluster = Cluster()
        cluster.objects["nodes"]["", "n1"] = NODE_OBJECT
        told = ProxySettings(families=("IPv4",), health_port=0, node_port_addresses=chosen)
        proxy = Proxy(
            cluster,  # type: ignore[arg-type]
            "n1",
            NftBackends(FakeNft()),
            LoopClock(asyncio.get_running_loop()),
            random.Random(1),
            told,
            addresses_of=lambda: (ADDRESSES["IPv4"][HERE], "192.0.2.7", "127.0.0.1", "fd00::9"),
        )
        proxy.world.place = place()
        assert proxy.node_port_addresses("IPv4") == wanted, sentence
        assert proxy.families[0]._health_addresses() == wanted
        proxy.mode = "iptables"
        everywhere = chosen in ("default", ("fd00::/8",))
        assert (proxy.node_port_addresses("IPv4") is None) == everywhere, "PROXY-68, 69"
        assert not everywhere or proxy.families[0]._health_addresses() == ("0.0.0.0",), "PROXY-84"

    run_virtual(main())
