"""Hostile, odd and too many objects: no crash, no stuck queue, the lists right for the rest, one Event that names what.

The plans take any typed value (properties); the controllers go on beside objects of another shape than they know.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, NamedTuple, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.endpoints import ENDPOINTS, Endpoints
from kubesvc.api.endpointslice import ENDPOINT_SLICE, EndpointSlice
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import EVENT, NODE, POD, SERVICE
from kubesvc.api.meta import Object, typed
from kubesvc.client.interface import Client, RawList, WatchEvent
from kubesvc.clock import LoopClock
from kubesvc.controllers import run_controllers
from kubesvc.controllers.endpoints_plan import desired_subsets, place_of, plan_endpoints
from kubesvc.controllers.mirroring_plan import plan_mirror
from kubesvc.controllers.pod_endpoints import facts_of
from kubesvc.controllers.slice_plan import plan_slices, recycled, service_frame

from .builders import desired, pod, service
from .house import MINE, House, in_house

# -------------------------------------------------------------------- plans

TEXT = st.sampled_from(["", "10.0.0.1", "010.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "not an ip", "\x00", "ü" * 300])
NAME = st.sampled_from(["", "http", "http", "x" * 300])


def some(**fields: Any) -> st.SearchStrategy[Object]:
    """Objects with any of these fields left out."""
    return st.fixed_dictionaries({}, optional=fields)


REFERENCE = some(kind=st.sampled_from(["Pod", "Node", ""]), namespace=NAME, name=NAME, uid=NAME)
ENDPOINT = some(
    addresses=st.none() | st.lists(TEXT, max_size=3),
    conditions=some(ready=st.none() | st.booleans(), serving=st.none() | st.booleans(), terminating=st.none()),
    hostname=st.none() | NAME,
    targetRef=st.none() | REFERENCE,
    nodeName=st.none() | NAME,
    zone=st.none() | NAME,
    hints=st.none() | some(forZones=st.none() | st.lists(some(name=NAME), max_size=2)),
)
PORT = some(name=st.none() | NAME, port=st.none() | st.integers(-5, 70000), protocol=st.none() | NAME)
OWNER = some(uid=st.sampled_from(["service-uid", "other", ""]), kind=NAME, name=NAME, apiVersion=NAME)
SLICE = some(
    metadata=some(
        name=NAME, namespace=st.just("ns"), uid=NAME, labels=st.none() | st.dictionaries(NAME, NAME, max_size=2),
        annotations=st.none() | st.dictionaries(NAME, NAME, max_size=2), ownerReferences=st.none() | st.lists(OWNER),
    ),
    addressType=st.sampled_from(["IPv4", "IPv6", "FQDN", "", "Future"]),
    endpoints=st.none() | st.lists(ENDPOINT, max_size=4),
    ports=st.none() | st.lists(PORT, max_size=3),
)  # fmt: skip
ADDRESS = some(ip=TEXT, hostname=NAME, nodeName=st.none() | NAME, targetRef=st.none() | REFERENCE)
SUBSET = some(
    addresses=st.none() | st.lists(ADDRESS, max_size=3),
    notReadyAddresses=st.none() | st.lists(ADDRESS, max_size=3),
    ports=st.none() | st.lists(some(name=NAME, port=st.integers(-5, 70000), protocol=NAME), max_size=2),
)
MADE = some(
    metadata=some(name=NAME, namespace=st.just("ns"), uid=NAME, annotations=st.none() | st.dictionaries(NAME, NAME)),
    subsets=st.none() | st.lists(SUBSET, max_size=3),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(SLICE, max_size=4), st.integers(0, 5), st.integers(1, 3))
def test_any_existing_slices_lead_to_the_wanted_list(found: list[Object], count: int, limit: int) -> None:
    """Whatever is there (SLICE-19 to SLICE-26): each wanted endpoint once, none else, and no slice too large."""
    existing = [typed(s, EndpointSlice) for s in found]
    wanted = desired(range(count))
    frame = service_frame(service(), "IPv4")
    plan = recycled(plan_slices(frame, wanted, existing, limit), "service-uid")
    after = [*plan.create, *plan.update, *plan.unchanged]
    listed = [e.target_ref.name for s in after for e in s.endpoints or () if e.target_ref is not None]
    assert sorted(listed) == [f"p{n:05}" for n in range(count)]


@settings(max_examples=150, deadline=None)
@given(MADE, st.lists(SLICE, max_size=3), st.integers(1, 3))
def test_any_endpoints_can_be_mirrored(made: Object, found: list[Object], most: int) -> None:
    """MIRROR-5 to MIRROR-10: valid addresses only, and no more of them than may be."""
    mirrored = plan_mirror(typed(made, Endpoints), [typed(s, EndpointSlice) for s in found], most)
    plan = mirrored.plan
    for s in (*plan.create, *plan.update):
        for endpoint in s.endpoints or ():
            assert endpoint.addresses and endpoint.addresses[0] in ("10.0.0.1", "10.0.0.1")


@settings(max_examples=100, deadline=None)
@given(st.none() | MADE, st.lists(st.lists(TEXT, max_size=3), max_size=4), st.booleans())
def test_any_endpoints_can_be_replaced_whatever_addresses_pods_have(
    made: Object | None, ips: list[list[str]], publish: bool
) -> None:
    """EP-7, EP-8: what is no address is passed over; the same address of two Pods stands there twice."""
    of = service(publishNotReadyAddresses=publish)
    pods = [pod(f"p{n}", ips=list(a)) for n, a in enumerate(ips)]
    places = [place_of(of, p, facts_of(p)) for p in pods]
    subsets = desired_subsets(of, zip(pods, places, strict=True))
    plan_endpoints(of, subsets, typed(made, Endpoints) if made is not None else None, "")
    listed = [a.ip for s in subsets for a in s.addresses or ()]
    assert set(listed) <= {"10.0.0.1"}


# -------------------------------------------------------------------- controllers


class Mangling:
    """A client of a server of the future: objects pass through `mangle` before controllers see them."""

    def __init__(self, inner: Client, mangle: Callable[[Kind, Object], None]) -> None:
        self.inner = inner
        self.mangle = mangle

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def as_manager(self, manager: str) -> Client:
        return cast(Client, Mangling(self.inner.as_manager(manager), self.mangle))

    def bent(self, kind: Kind, raw: bytes) -> bytes:
        obj = msgspec.json.decode(raw)
        self.mangle(kind, obj)
        return msgspec.json.encode(obj)

    async def list_raw(self, kind: Kind, *words: Any, **more: Any) -> RawList:
        found = await self.inner.list_raw(kind, *words, **more)
        return RawList(found.resource_version, [self.bent(kind, raw) for raw in found.items], found.continue_token)

    async def watch(self, kind: Kind, *words: Any, **more: Any) -> AsyncGenerator[WatchEvent, None]:
        async with aclosing(cast(Any, self.inner.watch(kind, *words, **more))) as events:
            async for event in events:
                bookmark = event.type == "BOOKMARK"
                yield event if bookmark else WatchEvent(event.type, self.bent(kind, event.object))


def from_the_future(kind: Kind, obj: Object) -> None:
    """Unknown fields and values everywhere, and on what is named `odd…` values of other types."""
    obj["future"] = {"any": ["thing"]}
    obj["metadata"]["mood"] = 7
    if kind is POD:
        obj["spec"]["restartPolicy"] = "Whenever"
        obj.setdefault("status", {}).setdefault("conditions", []).append({"type": "Levitating", "status": "Perhaps"})
    if kind is SERVICE:
        obj["spec"]["trafficDistribution"] = "PreferFriends"
        obj["spec"]["sessionAffinity"] = "Everlasting"
    if obj["metadata"]["name"].startswith("odd"):
        obj["metadata"]["annotations"] = ["no", "map"]
        obj["spec"]["affinity"] = "all of them"
        obj["spec"]["volumes"] = "these, which no controller reads"
        obj["spec"]["tolerations"] = {"a": 1}


def test_objects_of_a_future_version_are_read_as_far_as_they_go() -> None:
    async def story(house: House) -> None:
        client = cast(Client, Mangling(house.client, from_the_future))
        clock = LoopClock(asyncio.get_running_loop())
        running = asyncio.create_task(run_controllers(client, MINE, clock=clock, random=random.Random(1)))
        await house.service()
        await house.pod("odd", "10.1.0.1")
        await house.pod("even", "10.1.0.2")
        await house.settle(3)
        assert await house.shown() == [["10.1.0.1", "10.1.0.2"]]
        for _ in range(3):
            await house.status("odd", ready=False)
            await house.settle(1)
            await house.status("odd", ready=True)
            await house.settle(1)
        await house.status("odd", ready=False)
        await house.settle(3)
        assert await house.shown() == [["10.1.0.1!", "10.1.0.2"]]
        assert await house.endpoints() == [(["10.1.0.2"], ["10.1.0.1"])]
        odd = [e for e in await house.every(EVENT) if e["reason"] == "UnreadableField"]
        assert [(e["involvedObject"]["kind"], e["involvedObject"]["name"], e["count"]) for e in odd] == [
            ("Pod", "odd", 1)
        ]
        assert "metadata.annotations, spec.affinity, spec.tolerations" in odd[0]["message"]
        running.cancel()
        await asyncio.wait([running])

    in_house(story)


class Odd(NamedTuple):
    """Something in an object that nobody should have let pass, and what is to be said of it."""

    what: str
    kind: Kind
    name: str
    field: str
    bend: Callable[[Object], None]
    reason: str = "UnreadableField"


def put(*path: str, value: Any) -> Callable[[Object], None]:
    """Have this value stand at a path of maps."""

    def bend(obj: Object) -> None:
        for step in path[:-1]:
            obj = obj.setdefault(step, {})
        obj[path[-1]] = value

    return bend


HOSTILE = "\x00<script>" * 40
ODDITIES = (
    Odd("a Service whose ports are a text", SERVICE, "web", "spec.ports", put("spec", "ports", value=HOSTILE)),
    Odd("a Service whose selector is a list", SERVICE, "web", "spec.selector", put("spec", "selector", value=["app"])),
    Odd("a Pod whose conditions are a map", POD, "odd", "status.conditions", put("status", "conditions", value={})),
    Odd("a Pod whose labels are numbers", POD, "odd", "metadata.labels", put("metadata", "labels", value={"app": 1})),
    Odd("a Node whose taints are a number", NODE, "n1", "spec.taints", put("spec", "taints", value=7)),
    Odd("hand-made Endpoints with subsets of texts", ENDPOINTS, "byhand", "subsets", put("subsets", value=[HOSTILE])),
    Odd("a hand-made slice whose endpoints are a text", ENDPOINT_SLICE, "mine", "endpoints",
        put("endpoints", value="all")),
    Odd("a Pod with an address that is none", POD, "odd", 'status.podIPs[0].ip: "300.1.1.1"',
        put("status", "podIPs", value=[{"ip": "300.1.1.1"}]), "InvalidIPAddress"),
    Odd("a Pod with a name for an address", POD, "odd", 'status.podIPs[1].ip: "localhost"',
        put("status", "podIPs", value=[{"ip": "10.1.0.1"}, {"ip": "localhost"}]), "InvalidIPAddress"),
    Odd("hand-made Endpoints with addresses that are none", ENDPOINTS, "byhand", "1 invalid IP addresses",
        put("subsets", value=[{"addresses": [{"ip": "300.1.1.1"}], "ports": [{"port": 80}]}]), "InvalidIPAddress"),
)  # fmt: skip


@pytest.mark.parametrize("odd", ODDITIES, ids=lambda odd: odd.what)
def test_one_event_names_the_object_and_the_field(odd: Odd) -> None:
    """And the queue goes on: what is right of the rest is listed."""

    def bend(kind: Kind, obj: Object) -> None:
        if kind is odd.kind and obj["metadata"]["name"] == odd.name:
            odd.bend(obj)

    async def story(house: House) -> None:
        client = cast(Client, Mangling(house.client, bend))
        clock = LoopClock(asyncio.get_running_loop())
        running = asyncio.create_task(run_controllers(client, MINE, clock=clock, random=random.Random(1)))
        await house.service()
        await house.service("other")
        ports = [{"port": 80}]
        await house.client.create(SERVICE, {"metadata": {"name": "byhand"}, "spec": {"ports": ports}}, "ns")
        made = {"metadata": {"name": "byhand"}, "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": ports}]}
        await house.client.create(ENDPOINTS, made, "ns")
        labels = {"kubernetes.io/service-name": "byhand"}
        mine = {"metadata": {"name": "mine", "labels": labels}, "addressType": "IPv4", "endpoints": [], "ports": []}
        await house.client.create(ENDPOINT_SLICE, mine, "ns")
        await house.pod("odd", "10.1.0.1")
        await house.pod("even", "10.1.0.2")
        await house.settle(5)
        for turn in range(3):
            await house.status("even", ready=turn % 2 == 0)
            await house.settle(5)
        [listed] = await house.shown("other")
        assert "10.1.0.2" in listed, "the queue goes on"
        told = [e for e in await house.every(EVENT, "") if e["reason"] == odd.reason]
        assert [(e["involvedObject"]["kind"], e["involvedObject"]["name"]) for e in told] == [(odd.kind.name, odd.name)]
        assert odd.field in told[0]["message"]
        running.cancel()
        await asyncio.wait([running])

    in_house(story)


def test_a_service_that_selects_everything_and_one_that_selects_nothing() -> None:
    async def story(house: House) -> None:
        house.start()
        for n in range(4):
            await house.client.create(
                POD,
                {"metadata": {"name": f"q{n}", "labels": {"all": "yes", "n": str(n)}},
                 "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}},
                "ns",
            )  # fmt: skip
            await house.status(f"q{n}", ready=True, podIP=f"10.2.0.{n}", podIPs=[{"ip": f"10.2.0.{n}"}])
        await house.service("everything", selector={"all": "yes"})
        await house.service("nothing", selector={"all": "yes", "n": "none"})
        await house.settle(5)
        assert await house.shown("everything") == [[f"10.2.0.{n}" for n in range(4)]]
        assert await house.shown("nothing") == [[]]
        async with house.counting(ENDPOINT_SLICE, ENDPOINTS) as seen:
            await house.settle(30)
        assert seen == {"EndpointSlice": [], "Endpoints": []}

    in_house(story)


def test_two_pods_with_one_address_are_two_endpoints() -> None:
    async def story(house: House) -> None:
        house.start()
        await house.service()
        await house.pod("a", "10.1.0.1")
        await house.pod("b", "10.1.0.1")
        await house.settle(3)
        assert await house.shown() == [["10.1.0.1", "10.1.0.1"]]
        assert await house.endpoints() == [(["10.1.0.1", "10.1.0.1"], [])]
        await house.client.delete(POD, "a", "ns", grace_seconds=0)
        await house.settle(3)
        assert await house.shown() == [["10.1.0.1"]]

    in_house(story)


def test_a_storm_of_labels_ends_in_the_right_list_with_few_writes() -> None:
    """EP-3: each flip concerns the Service; writes are fewer than changes, and the last state wins."""

    async def story(house: House) -> None:
        house.start()
        await house.service()
        for n in range(5):
            await house.pod(f"p{n}", f"10.1.0.{n + 1}")
        await house.settle(3)
        async with house.counting(ENDPOINT_SLICE) as seen:
            for turn in range(40):
                for n in range(5):
                    labels = {"app": "web" if (turn + n) % 2 else "other", f"k{turn}": "v"}
                    await house.client.patch(POD, f"p{n}", "ns", {"metadata": {"labels": labels}}, "merge")
            await house.settle(20)
        assert await house.shown() == [["10.1.0.1", "10.1.0.3", "10.1.0.5"]]
        assert 1 <= len(seen["EndpointSlice"]) <= 200

    in_house(story)
