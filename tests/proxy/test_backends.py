"""The loop on each backend's fake: changes arrive, strangers' changes are repaired, and what the kernel refuses is
found, set aside and told, while everybody else is served."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.kind import Kind
from kubesvc.api.kinds import ENDPOINT_SLICE, SERVICE
from kubesvc.clock import LoopClock, run_virtual
from kubesvc.kernel.iptables import FakeIptables, IptablesError, walk
from kubesvc.kernel.nft import FakeNft, NftError
from kubesvc.kernel.nft.fields import pack_address, pack_port
from kubesvc.kernel.nft.walk import Host, Packet, outcomes
from kubesvc.proxy import NftBackends, Proxy, ProxySettings
from kubesvc.proxy.backend import Backends, Refused
from kubesvc.proxy.iptables import endpoint_chain
from kubesvc.proxy.iptablesbackend import IptablesBackends
from kubesvc.proxy.isolation import Isolation
from kubesvc.proxy.traffic import PortTraffic, ServiceKey, ServicePortName, Target

from .objects import ADDRESSES, EXTERNALS, A, At, B, C, ready, service, slice_of, vip
from .test_sync import NODE_OBJECT, Cluster, running

MODES = ("nftables", "iptables")
POISON = "10.244.66.66"
SETTINGS = ProxySettings(families=("IPv4",), health_port=0, metrics_port=0)


class Recorder(Cluster):
    """A cluster that takes Events."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, str, str]] = []

    def as_manager(self, _: str) -> Recorder:
        return self

    async def create(self, kind: Kind, obj: dict[str, Any], namespace: str = "", **_: Any) -> dict[str, Any]:
        self.events.append((obj["involvedObject"]["name"], obj["reason"], obj["message"]))
        return obj


class House:
    """A proxy of one mode on its fake kernel."""

    def __init__(self, mode: str, told: ProxySettings = SETTINGS) -> None:
        self.mode = mode
        self.cluster, self.nft, self.iptables = Recorder(), FakeNft(), FakeIptables()
        self.refused: dict[str, dict[ServiceKey, str]] = {}
        backends: Backends = NftBackends(self.nft) if mode == "nftables" else IptablesBackends(self.iptables)
        clock = LoopClock(asyncio.get_running_loop())
        self.proxy = Proxy(
            self.cluster,  # type: ignore[arg-type]
            "n1",
            backends,
            clock,
            random.Random(1),
            told,
            refused=lambda family, services: self.refused.update({family: services}),
        )
        self.cluster.objects["nodes"]["", "n1"] = NODE_OBJECT

    def fates(self, number: int = 1, port: int = 80) -> set[str]:
        packet = Packet("10.244.1.77", vip("IPv4", number), port)
        found: Any
        if self.mode == "nftables":
            found = outcomes(self.nft.tables[2, "kubesvc"], packet, Host(frozenset()))
        else:
            found = walk.outcomes(self.iptables.tables["IPv4"], packet, Host(frozenset()))
        return {str(o) for o in found}

    def poison(self) -> None:
        """From now on the kernel refuses whatever leads to one address."""
        self.nft.poison = pack_address(POISON) + pack_port(8080)
        self.iptables.poison = POISON

    def heal(self) -> None:
        self.nft.poison = None
        self.iptables.poison = ""

    def break_in(self) -> None:
        """Somebody flushes everything."""
        self.nft.tables, self.nft.disturbed = {}, self.nft.disturbed + 1
        self.iptables.flush()

    def writes(self) -> int:
        return len(self.nft.log) + len(self.iptables.log)


def in_house(mode: str, test: Callable[[House], Coroutine[Any, Any, None]], told: ProxySettings = SETTINGS) -> None:
    async def main() -> None:
        house = House(mode, told)
        async with running(house.proxy):
            await test(house)

    run_virtual(main())


def to(*who: str) -> set[str]:
    return {f"to {ADDRESSES['IPv4'][w]}:8080" for w in who}


async def settle(seconds: float = 0.5) -> None:
    await asyncio.sleep(seconds)


@pytest.mark.parametrize("mode", MODES)
def test_follows(mode: str) -> None:
    """PROXY-10, 15, 20: by each backend."""

    async def test(house: House) -> None:
        house.cluster.put(SERVICE, service())
        await settle()
        assert house.fates() == {"reject tcp-reset"}
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A, B)))
        await settle()
        assert house.fates() == to(A, B)
        before = house.writes()
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A, B)))
        await settle()
        assert house.writes() == before
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(C)))
        await settle()
        assert house.fates() == to(C)
        house.cluster.remove(SERVICE, service())
        await settle()
        assert house.fates() <= {"drop", f"to {vip('IPv4')}:80"}, "PROXY-42 by nftables, passed by iptables"

    in_house(mode, test)


def test_the_node_is_told_that_it_starts() -> None:
    """PROXY-125."""

    async def test(house: House) -> None:
        await settle(5)
        assert house.cluster.events == [("n1", "Starting", "")]

    in_house("nftables", test)


def test_failures_of_changes_alone_are_counted_apart() -> None:
    """PROXY-106, 134: and everything is written anew after one."""

    async def test(house: House) -> None:
        house.cluster.put(SERVICE, service())
        await settle()
        counters = house.proxy.families[0].counters
        full = counters.full_syncs
        house.iptables.fail_next = IptablesError("the lock is held", passing=True)
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        await settle(5)
        assert (counters.failures, counters.partial_failures) == (1, 1)
        assert counters.full_syncs == full + 1 and house.fates() == to(A)
        house.break_in()
        house.iptables.fail_next = IptablesError("the lock is held", passing=True)
        house.proxy.families[0].touch_everything()
        await settle(5)
        assert (counters.failures, counters.partial_failures) == (2, 1)
        text = house.proxy.metrics.text()
        assert 'sync_proxy_rules_iptables_total{ip_family="IPv4",table="nat"}' in text

    in_house("iptables", test)


@pytest.mark.parametrize("mode", MODES)
def test_a_flushed_ruleset_comes_back(mode: str) -> None:
    """PROXY-114: within one look, and nothing is written while nothing is wrong."""

    async def test(house: House) -> None:
        house.cluster.put(SERVICE, service())
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        await settle()
        before = house.writes()
        await settle(200)
        assert house.writes() == before
        house.break_in()
        await settle(61)
        assert house.fates() == to(A)
        assert house.proxy.families[0].counters.repairs == 1

    in_house(mode, test)


@pytest.mark.parametrize("mode", MODES)
def test_a_restart_finds_its_rules(mode: str) -> None:
    """PROXY-119, 120: nothing is written again; what changed meanwhile is, and what is no more goes."""

    async def main() -> None:
        first = House(mode)
        first.cluster.put(SERVICE, service())
        first.cluster.put(SERVICE, service("old", number=2))
        first.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        first.cluster.put(ENDPOINT_SLICE, slice_of("old", endpoints=ready(B)))
        async with running(first.proxy):
            await settle()
        for change in (False, True):
            second = House(mode)
            second.nft.tables, second.iptables.tables = first.nft.tables, first.iptables.tables
            second.cluster.put(SERVICE, service())
            second.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(C if change else A)))
            if not change:
                second.cluster.put(SERVICE, service("old", number=2))
                second.cluster.put(ENDPOINT_SLICE, slice_of("old", endpoints=ready(B)))
            async with running(second.proxy):
                await settle()
                assert (second.writes() > 0) == change
                assert second.fates() == to(C if change else A)
                chains = second.iptables.tables["IPv4"]["nat"].rules
                name = ServicePortName("shop", "old", "http", "TCP")
                assert mode == "nftables" or (
                    (endpoint_chain(name, Target(ADDRESSES["IPv4"][B], 8080)) in chains) is not change
                )

    run_virtual(main())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("when", ["at the start", "later"])
def test_a_service_that_the_kernel_refuses(mode: str, when: str) -> None:
    """All others have their rules, the culprit keeps what it had, is named in an Event once, and is tried again."""

    async def test(house: House) -> None:
        if when == "later":
            for number in range(1, 21):
                house.cluster.put(SERVICE, service(f"s{number}", number=number))
                house.cluster.put(ENDPOINT_SLICE, slice_of(f"s{number}", ready(A)))
            await settle()
        house.poison()
        for number in range(1, 21):
            house.cluster.put(SERVICE, service(f"s{number}", number=number))
            at = At(B, address=POISON) if number in (7, 13) else At(B)
            house.cluster.put(ENDPOINT_SLICE, slice_of(f"s{number}", [at]))
        await settle(5)
        for number in range(1, 21):
            if number not in (7, 13):
                assert house.fates(number) == to(B), number
            elif when == "later":
                assert house.fates(number) == to(A), "former rules stay whole"
        assert sorted(house.refused["IPv4"]) == [("shop", "s13"), ("shop", "s7")]
        (family,) = house.proxy.families
        assert family.pending_since is None, "nothing waits: the rest is in force"
        assert family.counters.refusals == 2
        told = [e for e in house.cluster.events if e[1] == "ProxyRulesRefused"]
        assert {name for name, *_ in told} == {"s7", "s13"} and all("poison" in m for *_, m in told)
        house.cluster.put(SERVICE, service("new", number=40))
        house.cluster.put(ENDPOINT_SLICE, slice_of("new", ready(C)))
        await settle()
        assert house.fates(40) == to(C)
        house.cluster.put(ENDPOINT_SLICE, slice_of("s7", ready(C)))
        await settle()
        assert house.fates(7) == to(C) and sorted(house.refused["IPv4"]) == [("shop", "s13")]
        house.heal()
        await settle(130)
        assert house.fates(13) == {f"to {POISON}:8080"} and house.refused["IPv4"] == {}

    in_house(mode, test)


@pytest.mark.parametrize("mode", MODES)
def test_services_with_one_external_address(mode: str) -> None:
    """The first by name keeps it, the other is told once, and has it when the first is gone."""

    async def test(house: House) -> None:
        await settle(1)
        for name, number, who in (("beta", 2, B), ("alpha", 1, A)):
            house.cluster.put(SERVICE, service(name, number=number, externalIPs=[EXTERNALS["IPv4"]]))
            house.cluster.put(ENDPOINT_SLICE, slice_of(name, ready(who)))
            await settle()
        assert ends(house, EXTERNALS["IPv4"]) == to(A)
        house.cluster.put(ENDPOINT_SLICE, slice_of("beta", ready(C)))
        await settle()
        told = [(name, message) for name, reason, message in house.cluster.events if reason == "ProxyAddressTaken"]
        assert told == [("beta", "Port http wants an address and port that shop/alpha:http/TCP has, which keeps it")]
        house.cluster.remove(SERVICE, service("alpha", number=1))
        await settle()
        assert ends(house, EXTERNALS["IPv4"]) == to(C)
        (family,) = house.proxy.families
        assert family.conflicts == []

    in_house(mode, test)


def ends(house: House, address: str) -> set[str]:
    """Where a packet to port 80 of an address goes."""
    packet = Packet("10.244.1.77", address, 80)
    found: Any
    if house.mode == "nftables":
        found = outcomes(house.nft.tables[2, "kubesvc"], packet, Host(frozenset()))
    else:
        found = walk.outcomes(house.iptables.tables["IPv4"], packet, Host(frozenset()))
    return {str(o).removesuffix(", masqueraded") for o in found}


@pytest.mark.parametrize("mode", MODES)
def test_a_family_fails_alone(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PROXY-118."""

    async def test(house: House) -> None:
        refuse = {"nftables": NftError(95, "no such protocol"), "iptables": IptablesError("no ip6tables", passing=True)}

        async def run(*_: Any) -> int:
            raise refuse[mode]

        ip6 = house.proxy.families[1].backend
        monkeypatch.setattr(ip6, "load", run)
        monkeypatch.setattr(ip6, "change", run)
        house.cluster.put(SERVICE, service())
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        await settle(3)
        assert house.fates() == to(A)
        assert house.proxy.families[1].counters.failures > 1 and house.proxy.families[0].counters.failures == 0

    in_house(mode, test, ProxySettings(health_port=0, metrics_port=0))


class Picky:
    """A backend in memory that refuses plans of some Services, and may or may not say whose."""

    mode: Any = "nftables"
    family: Any = "IPv4"

    def __init__(self, bad: frozenset[int], *, blames: bool, falsely: bool) -> None:
        self.bad, self.blames, self.falsely = bad, blames, falsely
        self.ports: dict[ServiceKey, tuple[PortTraffic, ...]] = {}
        self.in_force: dict[ServiceKey, tuple[PortTraffic, ...]] = {}
        self.written = 0

    async def change(self, changes: Any) -> None:
        await self.load(changes)

    async def load(self, changes: Any) -> int:
        self.ports = {k: tuple(v) for k, v in (self.ports | dict(changes)).items() if v}
        culprits = [key for key, ports in self.ports.items() if ports[0].port in self.bad]
        if culprits:
            named = [next(iter(self.ports))] if self.falsely else culprits[:1]
            raise Refused("no", tuple(named) if self.blames else ())
        self.in_force = dict(self.ports)
        self.written += 1
        return 1


def plan(number: int) -> tuple[PortTraffic, ...]:
    return (PortTraffic(ServicePortName("ns", "s", "", "TCP"), number, "10.0.0.1"),) if number else ()


plans = st.dictionaries(st.sampled_from([("ns", f"s{i}") for i in range(12)]), st.integers(0, 20), max_size=12)


@settings(max_examples=150)
@given(st.lists(plans, max_size=5), st.frozensets(st.integers(1, 20)), st.booleans(), st.booleans(), st.booleans())
def test_exactly_the_culprits_are_set_aside(
    rounds: list[dict[ServiceKey, int]], bad: frozenset[int], blames: bool, falsely: bool, whole: bool
) -> None:
    """Whatever is changed, and whether or not the kernel names a Service, rightly or wrongly: the rest is in force."""

    async def main() -> None:
        backend = Picky(bad, blames=blames, falsely=falsely)
        isolation = Isolation(backend)  # type: ignore[arg-type]
        wanted: dict[ServiceKey, tuple[PortTraffic, ...]] = {}
        good: dict[ServiceKey, tuple[PortTraffic, ...]] = {}
        for numbers in rounds:
            changes = {key: plan(number) for key, number in numbers.items()}
            await (isolation.load(changes) if whole else isolation.change(changes))
            for key, ports in changes.items():
                wanted[key] = ports
                if not ports or ports[0].port not in bad:
                    good[key] = ports
            assert backend.in_force == {k: v for k, v in good.items() if v} == backend.ports
            assert {k: r.plan for k, r in isolation.refused.items()} == {
                k: v for k, v in wanted.items() if v and v[0].port in bad
            }

    asyncio.run(main())
