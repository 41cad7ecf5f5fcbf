"""Events: written in order, repeats counted up, floods held back, failures harmless (EVENT-1, EVENT-2)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, cast

from kubesvc.api.configmap import CONFIG_MAP, ConfigMap
from kubesvc.api.errors import Forbidden, NotFound
from kubesvc.api.meta import ObjectMeta
from kubesvc.api.node import NODE
from kubesvc.client.events import QUEUED, EventRecorder
from kubesvc.client.interface import Client, Unreachable
from kubesvc.clock import LoopClock, run_virtual


class Sink:
    """Takes events as the server would, and can refuse."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.managers: list[str] = []
        self.refuse: list[Exception] = []

    def as_manager(self, manager: str) -> Client:
        self.managers.append(manager)
        return cast(Client, self)

    async def create(self, kind: Any, obj: dict[str, Any], namespace: str) -> dict[str, Any]:
        if self.refuse:
            raise self.refuse.pop(0)
        self.events[obj["metadata"]["name"]] = obj
        return obj

    async def patch(self, kind: Any, name: str, namespace: str, patch: dict[str, Any], type: str) -> dict[str, Any]:
        if name not in self.events:
            raise NotFound("gone")
        self.events[name] |= patch
        return self.events[name]

    def said(self) -> list[tuple[str, int]]:
        return [(e["message"], e["count"]) for e in self.events.values()]


def config_map(version: str = "7") -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name="m", namespace="ns", uid="u", resource_version=version))


def story(act: Callable[[Sink, EventRecorder], Awaitable[None]]) -> None:
    async def main() -> None:
        sink = Sink()
        clock = LoopClock(asyncio.get_running_loop())
        recorder = EventRecorder(cast(Client, sink), "part", clock=clock, random=random.Random(1))
        task = asyncio.create_task(recorder.run())
        await act(sink, recorder)
        task.cancel()

    run_virtual(main())


def test_form_of_an_event() -> None:
    async def act(sink: Sink, recorder: EventRecorder) -> None:
        recorder.by("other").event(CONFIG_MAP, config_map(), "Warning", "Broken", "it broke")
        recorder.event(NODE, {"metadata": {"name": "n", "uid": "x"}}, "Normal", "Fine", "all well")
        await asyncio.sleep(1)
        first, second = sink.events.values()
        assert first["metadata"]["namespace"] == "ns" and first["metadata"]["name"].startswith("m.")
        assert first["involvedObject"] == {
            "kind": "ConfigMap", "namespace": "ns", "name": "m", "uid": "u", "apiVersion": "v1", "resourceVersion": "7",
        }  # fmt: skip
        assert {k: first[k] for k in ("reason", "message", "type", "count", "source", "reportingComponent")} == {
            "reason": "Broken", "message": "it broke", "type": "Warning", "count": 1,
            "source": {"component": "other"}, "reportingComponent": "other",
        }  # fmt: skip
        assert first["firstTimestamp"] == first["lastTimestamp"] == "2026-01-01T00:00:00Z"
        assert second["metadata"]["namespace"] == "default"
        assert "namespace" not in second["involvedObject"]
        assert sink.managers == ["other", "part"]

    story(act)


def test_repeat_is_counted_up_even_of_a_newer_object() -> None:
    async def act(sink: Sink, recorder: EventRecorder) -> None:
        for version in ("7", "8", "9"):
            recorder.event(CONFIG_MAP, config_map(version), "Warning", "Broken", "it broke")
            await asyncio.sleep(60)
        assert sink.said() == [("it broke", 3)]
        [event] = sink.events.values()
        assert event["lastTimestamp"] == "2026-01-01T00:02:00Z"
        sink.events.clear()  # an hour has passed
        recorder.event(CONFIG_MAP, config_map(), "Warning", "Broken", "it broke")
        await asyncio.sleep(1)
        assert sink.said() == [("it broke", 1)]

    story(act)


def test_flood_is_folded_and_held_back() -> None:
    async def act(sink: Sink, recorder: EventRecorder) -> None:
        for i in range(40):
            recorder.event(CONFIG_MAP, config_map(), "Warning", "Broken", f"number {i}")
        await asyncio.sleep(1)
        said = sink.said()
        assert sum(count for _, count in said) == 25
        assert [m for m, _ in said if not m.startswith("(combined")] == [f"number {i}" for i in range(9)]
        await asyncio.sleep(301)
        recorder.event(CONFIG_MAP, config_map(), "Warning", "Other", "something else")
        await asyncio.sleep(1)
        assert sink.said()[-1] == ("something else", 1)

    story(act)


def test_failures_and_full_queues_harm_nobody() -> None:
    async def act(sink: Sink, recorder: EventRecorder) -> None:
        sink.refuse = [Forbidden("no"), Unreachable("away"), RuntimeError("a bug")]
        for i in range(4):
            recorder.event(CONFIG_MAP, config_map(), "Normal", "Say", f"number {i}")
        await asyncio.sleep(1)
        assert sink.said() == [("number 3", 1)]
        for i in range(QUEUED + 10):
            recorder.event(NODE, {"metadata": {"name": str(i)}}, "Normal", "Say", "x" * 3000)
        await asyncio.sleep(1)
        assert len(sink.events) == QUEUED + 1
        assert all(len(e["message"]) <= 1024 for e in sink.events.values())

    story(act)
