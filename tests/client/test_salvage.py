"""Objects with odd values at any path are read without them, and nothing else is lost."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.configmap import CONFIG_MAP, ConfigMap
from kubesvc.api.endpoints import Endpoints
from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.meta import Object, Typed
from kubesvc.api.node import Node
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service
from kubesvc.client.informer import Informer
from kubesvc.client.salvage import salvage
from kubesvc.clock import LoopClock, run_virtual

from .scripted import ScriptedServer

META: Object = {"name": "x", "namespace": "ns", "uid": "u", "resourceVersion": "7", "labels": {"app": "web", "b": "c"},
                "ownerReferences": [{"kind": "A", "name": "b", "uid": "c", "apiVersion": "v1"}]}  # fmt: skip
OBJECTS: tuple[tuple[type[Typed], Object], ...] = (
    (Pod, {
        "metadata": META,
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}],
                 "tolerations": [{"key": "k", "operator": "Exists"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                   "conditions": [{"type": "Ready", "status": "True"}]},
    }),
    (Service, {
        "metadata": META,
        "spec": {"selector": {"app": "web"}, "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "targetPort": "http"}]},
    }),
    (EndpointSlice, {
        "metadata": META,
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "zone": "a"}],
        "ports": [{"name": "", "port": 80}],
    }),
    (Endpoints, {"metadata": META, "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}),
    (Node, {
        "metadata": META,
        "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {"allocatable": {"cpu": "4"}, "conditions": [{"type": "Ready", "status": "True"}]},
    }),
)  # fmt: skip
ODD: tuple[Any, ...] = ({"a": {"b": []}}, [[1]], "text", 7, -1.5, True, [None, {}, 3], {"1": 2})


def paths(at: Any, trail: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a plain object."""
    items = at.items() if isinstance(at, dict) else enumerate(at) if isinstance(at, list) else ()
    for step, inner in items:
        yield (*trail, step)
        yield from paths(inner, (*trail, step))


def put(whole: Any, trail: tuple[Any, ...], value: Any) -> None:
    for step in trail[:-1]:
        whole = whole[step]
    whole[trail[-1]] = value


def text_of(trail: tuple[Any, ...]) -> str:
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in trail).lstrip(".")


PLACES = [(number, trail) for number, (_, plain) in enumerate(OBJECTS) for trail in paths(plain)]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from(ODD))
def test_one_odd_value_costs_that_value_alone(place: tuple[int, tuple[Any, ...]], value: Any) -> None:
    number, trail = place
    kind, plain = OBJECTS[number]
    odd = copy.deepcopy(plain)
    put(odd, trail, value)
    obj, lost = salvage(msgspec.json.encode(odd), kind)
    assert all(path.startswith(text_of(trail)) for path in lost), (lost, trail)
    for other in paths(plain):  # whatever does not lie at or above the odd place is as it was
        if other[: len(trail)] != trail and trail[: len(other)] != other:
            value_there: Any = plain
            for step in other:
                value_there = value_there[step]
            if not isinstance(value_there, dict | list):
                again: Any = odd
                for step in other:
                    again = again[step]
                assert again == value_there
    assert msgspec.convert(msgspec.to_builtins(obj), kind) == obj


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(OBJECTS) - 1), st.integers(0, 2**32), st.integers(2, 8))
def test_many_odd_values_are_taken_out_or_the_object_is_refused(number: int, seed: int, count: int) -> None:
    chance = random.Random(seed)
    kind, plain = OBJECTS[number]
    odd = copy.deepcopy(plain)
    for _ in range(count):
        put(odd, chance.choice(list(paths(odd))), copy.deepcopy(chance.choice(ODD)))
    try:
        salvage(msgspec.json.encode(odd), kind)
    except msgspec.MsgspecError:
        pass


def test_the_paths_name_what_was_lost() -> None:
    odd = copy.deepcopy(OBJECTS[0][1])
    odd["metadata"]["labels"]["b"] = 5
    odd["spec"]["containers"] += [{"name": "d", "ports": [{"containerPort": "x"}]}, 7]
    odd["spec"]["nodeName"] = ["n1"]
    odd["status"]["phase"] = "Dancing"
    odd["status"]["mood"] = "well"
    pod, lost = salvage(msgspec.json.encode(odd), Pod)
    assert sorted(lost) == [
        "metadata.labels.b", "spec.containers[1].ports[0].containerPort", "spec.containers[2]", "spec.nodeName",
    ]  # fmt: skip
    assert pod.metadata.labels == {"app": "web"} and [c.name for c in pod.spec.containers or ()] == ["c", "d"]
    assert pod.status.phase == "Dancing"


@pytest.mark.parametrize("raw", [b"", b"7", b"[]", b'{"metadata":', b"\xff\xfe", b'{"metadata": 7}x'])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        salvage(raw, ConfigMap)


def test_an_informer_keeps_odd_objects_and_tells_once() -> None:
    async def story() -> None:
        server, told = ScriptedServer(), []
        server.put("good", data={"a": "b"})
        server.put("odd", data={"a": "b", "c": 7})
        informer: Informer[ConfigMap] = Informer(
            server.client,
            CONFIG_MAP,
            clock=LoopClock(asyncio.get_running_loop()),
            random=random.Random(1),
            salvages=lambda kind, obj, lost: told.append((kind.name, obj.name, *lost)),
        )
        running = asyncio.create_task(informer.run())
        await informer.synced.wait()
        assert [c.data for c in informer.values()] == [{"a": "b"}, {"a": "b"}]
        server.put("odd", data={"a": "x", "c": 8})
        await asyncio.sleep(1)
        odd = informer.get(("ns", "odd"))
        assert odd is not None and odd.data == {"a": "x"}
        assert told == [("ConfigMap", "odd", "data.c")]
        server.put("odd", data=[])
        await asyncio.sleep(1)
        assert told[1:] == [("ConfigMap", "odd", "data")]
        server.remove("odd")
        await asyncio.sleep(1)
        assert len(informer) == 1 and not informer.undecodable
        running.cancel()
        await asyncio.wait([running])

    run_virtual(story())


def test_an_index_that_fails_stops_nothing() -> None:
    async def story() -> None:
        server = ScriptedServer()
        server.put("a")
        informer: Informer[ConfigMap] = Informer(
            server.client, CONFIG_MAP, clock=LoopClock(asyncio.get_running_loop()), random=random.Random(1)
        )
        index = informer.index("data", lambda c: [(c.data or {})["k"]])
        running = asyncio.create_task(informer.run())
        await informer.synced.wait()
        server.put("b", data={"k": "v"})
        await asyncio.sleep(1)
        assert len(informer) == 2 and index.keys("v") == [("ns", "b")] and informer.lists == 1
        running.cancel()
        await asyncio.wait([running])

    run_virtual(story())
