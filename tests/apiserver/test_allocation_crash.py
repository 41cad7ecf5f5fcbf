"""A server that dies at any commit, done or not, neither gives an address or a port twice nor loses one.

The next server finds only what is stored. With an etcd of their own, guards of node ports are part of that.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.errors import ApiError
from kubesvc.api.kinds import IP_ADDRESS, SERVICE
from kubesvc.api.meta import Object
from kubesvc.apiserver.allocators import service_addresses, service_ports
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.repair import plan_address_repair, plan_port_repair
from kubesvc.apiserver.storage import decode
from kubesvc.clock import RealClock
from kubesvc.store import MemoryStore, Store, open_store

from ..sim.trouble import MortalStore
from ..store.etcdserver import shared_etcd
from .running import SETTINGS

SMALL = replace(SETTINGS, node_ports=(30000, 30005), service_ranges=("10.96.0.0/28", "fd00::/124"))
NAMES = ("a", "b", "c")
TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
STEP = st.one_of(
    st.tuples(st.just("create"), st.sampled_from(NAMES), st.sampled_from(TYPES), st.booleans()),
    st.tuples(st.just("change"), st.sampled_from(NAMES), st.sampled_from(TYPES), st.booleans()),
    st.tuples(st.just("delete"), st.sampled_from(NAMES), st.just(""), st.just(False)),
)
Step = tuple[str, str, str, bool]
prefixes = itertools.count()


def spec_of(type_: str, dual: bool) -> Object:
    if type_ == "ExternalName":
        return {"type": type_, "externalName": "example.org", "clusterIP": None, "clusterIPs": None, "ports": None}
    return {
        "type": type_,
        "ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}],
        "ipFamilyPolicy": "PreferDualStack" if dual else "SingleStack",
        "externalTrafficPolicy": "Local" if type_ == "LoadBalancer" else None,
    }


async def do(server: ApiServer, step: Step) -> None:
    """One step; that the API refuses it, or dies of it, is no failure."""
    what, name, type_, dual = step
    client = server.local
    try:
        if what == "create":
            body = {"metadata": {"name": name, "namespace": "default"}, "spec": spec_of(type_, dual)}
            await client.create(SERVICE, body, "default")
        elif what == "change":
            await client.patch(SERVICE, name, "default", {"spec": spec_of(type_, dual)}, "merge")
        else:
            await client.delete(SERVICE, name, "default")
    except ApiError:
        pass


def check(server: ApiServer, *, guarded: set[str] | None) -> None:
    """What is held is what Services use, each once; a repair would find nothing to do."""
    cache = server.cache
    services = [decode(i.value, i.revision) for i in cache.of(SERVICE).select()]
    addresses = [a for s in services for a in service_addresses(s["spec"])]
    ports = [p for s in services for p in dict.fromkeys(service_ports(s["spec"]))]
    assert len(addresses) == len(set(addresses)), "an address was given twice"
    assert len(ports) == len(set(ports)), "a port was given twice"
    assert {i.name for i in cache.of(IP_ADDRESS).select()} == set(addresses), "an address was lost"
    if guarded is not None:
        assert guarded == {str(port) for port in ports}, "a port's guard was lost"
    typed = [i.typed() for i in cache.of(SERVICE).select()]
    held = [i.typed() for i in cache.of(IP_ADDRESS).select()]
    later = server.clock.now() + 3600
    repair = plan_address_repair(typed, held, server.allocations.configured, later)  # type: ignore[arg-type]
    assert not repair.steps and not repair.complaints
    assert not plan_port_repair(typed, SMALL.node_ports).complaints  # type: ignore[arg-type]


async def live_and_die(
    open_: Callable[[], Awaitable[Store]], steps: list[Step], commits: int, after: bool, seed: int
) -> None:
    store = await open_()
    mortal = MortalStore(store)
    first = ApiServer(mortal, SMALL, RealClock(), random.Random(seed))
    await first.start()
    mortal.dies_in_commits, mortal.dies_after = commits, after
    await asyncio.gather(*(do(first, step) for step in steps[:2]))
    for step in steps[2:]:
        await do(first, step)
    for task in first._tasks:
        task.cancel()
    await asyncio.gather(*first._tasks, return_exceptions=True)
    first.cache.stop()
    store = await open_()
    second = ApiServer(store, SMALL, RealClock(), random.Random(seed))
    await second.start()

    async def guards() -> set[str] | None:
        found = (await store.scan("/guards/node-ports/")).entries
        return {e.key.rpartition("/")[2] for e in found} if store.shared else None

    check(second, guarded=await guards())
    for name in NAMES:  # the second gives on from there
        await do(second, ("create", name, "NodePort", True))
    await do(second, ("delete", NAMES[0], "", False))
    check(second, guarded=await guards())
    await second.stop(0)
    await store.close()


HISTORY = {
    "steps": st.lists(STEP, min_size=1, max_size=6),
    "commits": st.integers(0, 6),
    "after": st.booleans(),
    "seed": st.integers(0, 9),
}


def check_in_memory(steps: list[Step], commits: int, after: bool, seed: int) -> None:
    async def main() -> None:
        store = MemoryStore()

        async def open_() -> Store:
            return store

        await live_and_die(open_, steps, commits, after, seed)

    asyncio.run(main())


def check_in_etcd(steps: list[Step], commits: int, after: bool, seed: int) -> None:
    async def main() -> None:
        url = shared_etcd().url(f"crash-{next(prefixes)}")
        opened: list[Store] = []

        async def open_() -> Store:
            if opened:
                await opened.pop().close()
            store = open_store(url)
            await store.start()
            opened.append(store)
            return store

        await live_and_die(open_, steps, commits, after, seed)

    asyncio.run(main())


@settings(max_examples=25)
@given(**HISTORY)
def test_no_death_gives_or_loses_an_address(steps: list[Step], commits: int, after: bool, seed: int) -> None:
    check_in_memory(steps, commits, after, seed)


@settings(max_examples=4)
@given(**HISTORY)
def test_no_death_over_etcd_gives_or_loses_an_address_or_port(
    steps: list[Step], commits: int, after: bool, seed: int
) -> None:
    check_in_etcd(steps, commits, after, seed)


@pytest.mark.soak
@settings(max_examples=1000)
@given(**HISTORY)
def test_no_death_of_many_gives_or_loses_an_address(steps: list[Step], commits: int, after: bool, seed: int) -> None:
    check_in_memory(steps, commits, after, seed)


@pytest.mark.soak
@settings(max_examples=150)
@given(**HISTORY)
def test_no_death_of_many_over_etcd_gives_or_loses_an_address_or_port(
    steps: list[Step], commits: int, after: bool, seed: int
) -> None:
    check_in_etcd(steps, commits, after, seed)
