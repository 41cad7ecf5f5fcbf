"""Informers: caches that follow a server through dropped watches, forgotten history and unreadable objects."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kubesvc.api.configmap import CONFIG_MAP, ConfigMap
from kubesvc.api.secret import SECRET
from kubesvc.client.informer import Informer, InformerFactory
from kubesvc.client.interface import Unreachable
from kubesvc.clock import LoopClock, run_virtual

from .scripted import ScriptedServer, refused


class Bench:
    """A server, an informer on its ConfigMaps, and what the handler was told."""

    def __init__(self) -> None:
        self.server = ScriptedServer()
        clock = LoopClock(asyncio.get_running_loop())
        self.informer: Informer[ConfigMap] = Informer(
            self.server.client, CONFIG_MAP, clock=clock, random=random.Random(1)
        )
        self.told: list[str] = []
        self.informer.on_change(self.handler)

    def handler(self, old: ConfigMap | None, new: ConfigMap | None) -> None:
        def show(c: ConfigMap | None) -> str:
            return "-" if c is None else f"{c.name}={(c.data or {}).get('v', '')}"

        self.told.append(f"{show(old)} -> {show(new)}")

    def told_now(self) -> list[str]:
        told, self.told = self.told, []
        return told


def bench(story: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        b = Bench()
        b.server.put("a", data={"v": "1"})
        b.server.put("b", data={"v": "1"})
        async with asyncio.TaskGroup() as group:
            task = group.create_task(b.informer.run())
            try:
                async with asyncio.timeout(3600):
                    await story(b)
            finally:
                task.cancel()

    run_virtual(main())


async def settled(seconds: float = 0.01) -> None:
    await asyncio.sleep(seconds)


def test_list_then_changes() -> None:
    async def story(b: Bench) -> None:
        await b.informer.synced.wait()
        assert b.told_now() == ["- -> a=1", "- -> b=1"]
        b.server.put("a", data={"v": "2"})
        b.server.put("c", data={"v": "1"})
        b.server.remove("b")
        await settled()
        assert b.told_now() == ["a=1 -> a=2", "- -> c=1", "b=1 -> -"]
        assert b.informer.keys() == [("ns", "a"), ("ns", "c")]
        found = b.informer.get(("ns", "a"))
        assert found is not None and found.data == {"v": "2"}

    bench(story)


def test_ended_watch_resumes_where_it_was() -> None:
    """WATCH-3, WATCH-9: no event missed or repeated, no new list; bookmarks move the place."""

    async def story(b: Bench) -> None:
        await b.informer.synced.wait()
        await settled()
        b.told_now()
        b.server.put("a", data={"v": "2"})
        await settled()
        b.server.bookmark()
        await settled(2)
        marked = str(b.server.revision)
        b.server.watch_failures = [Unreachable("cut")]
        b.server.drop()
        await settled(0.01)
        b.server.put("a", data={"v": "3"})  # while nobody watches
        await settled(5)
        assert b.told_now() == ["a=1 -> a=2", "a=2 -> a=3"]
        assert b.server.lists == [""]
        assert b.server.watches[1:] == [marked, marked]

    bench(story)


def test_forgotten_history_lists_again_and_tells_the_difference() -> None:
    """WATCH-10: 410 Expired; an object made anew under its name is gone and new."""

    async def story(b: Bench) -> None:
        await b.informer.synced.wait()
        await settled(2)
        b.told_now()
        b.server.put("a", data={"v": "9"})
        b.server.remove("b")
        b.server.put("c", data={"v": "1"})
        b.server.put("d", data={"v": "1"})
        b.server.forget()
        await settled(5)
        b.told_now()
        b.server.history.clear()
        b.server.drop()  # nothing may be sent of what follows
        b.server.remove("c")
        b.server.put("d", uid="another", data={"v": "2"})
        b.server.forget()
        await settled(5)
        assert sorted(b.told_now()) == sorted(["c=1 -> -", "d=1 -> -", "- -> d=2"])
        assert b.informer.keys() == [("ns", "a"), ("ns", "d")]

    bench(story)


def test_trouble_is_waited_out() -> None:
    async def story(b: Bench) -> None:
        b.server.list_failures = [Unreachable("refused"), refused(503), refused(403), RuntimeError("a bug")]
        started = asyncio.get_running_loop().time()
        await b.informer.synced.wait()
        assert 0.1 < asyncio.get_running_loop().time() - started < 5
        await settled(2)
        lists = len(b.server.lists)
        b.server.watch_failures = [Unreachable("cut")] * 20
        b.server.drop()
        await settled(1)
        b.told_now()
        b.server.put("a", data={"v": "2"})
        await settled(600)
        assert b.told_now() == ["a=1 -> a=2"]
        assert len(b.server.lists) == lists
        assert len(b.server.watches) < 40, "a failing watch must not be asked for without end"

    bench(story)


def test_unreadable_object_is_skipped_and_the_rest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def story(b: Bench) -> None:
        await b.informer.synced.wait()
        b.told_now()
        b.server.put("a", data="not a map")
        b.server.put("b", data={"v": "2"})
        await settled()
        assert b.told_now() == ["b=1 -> b=2"]
        b.server.put("c")
        b.server.forget()  # the list has it too: what we could read of it stays
        await settled(5)
        assert (b.informer.lists, b.told_now()) == (2, ["- -> c="])
        assert b.informer.keys() == [("ns", "a"), ("ns", "b"), ("ns", "c")]
        b.server.remove("a")
        await settled(5)
        assert b.told_now() == ["a=1 -> -"]

    with caplog.at_level(logging.ERROR):
        bench(story)
    assert "ns/a: skipped, it does not decode" in caplog.text


def test_failing_handler_does_not_stop_the_others() -> None:
    async def story(b: Bench) -> None:
        def broken(old: Any, new: Any) -> None:
            raise RuntimeError("a bug")

        seen: list[Any] = []
        b.informer.on_change(broken)
        b.informer.on_change(lambda old, new: seen.append(new))
        await b.informer.synced.wait()
        assert [s.name for s in seen] == ["a", "b"]

    bench(story)


def test_pages_and_late_handlers_and_repeats() -> None:
    async def story(b: Bench) -> None:
        for i in range(7):
            b.server.put(f"n{i}")
        b.server.page = 4
        b.server.repeat_last = True
        await b.informer.synced.wait()
        assert b.server.lists == ["", "4", "8"]
        late: list[str] = []
        b.informer.on_change(lambda old, new: late.append(f"{old and old.name} {new and new.name}"))
        assert len(late) == 9 and late[0] == "None a"
        b.told_now()
        b.server.put("a", data={"v": "2"})
        await settled()
        assert b.told_now() == ["a=1 -> a=2"]

    bench(story)


def test_index_follows_and_is_ordered() -> None:
    async def story(b: Bench) -> None:
        by_value = b.informer.index("v", lambda c: [(c.data or {}).get("v", "")])
        assert b.informer.index("v", lambda c: []) is by_value
        await b.informer.synced.wait()
        b.server.put("0", data={"v": "1"})
        b.server.put("a", data={"v": "2"})
        await settled()
        assert [c.name for c in by_value.get("1")] == ["0", "b"]
        assert by_value.keys("2") == [("ns", "a")]
        b.server.remove("b")
        b.server.remove("0")
        await settled()
        assert (by_value.get("1"), by_value.count("1"), by_value.values()) == ([], 0, ["2"])
        assert [c.name for c in b.informer.in_namespace("ns")] == ["a"]
        assert list(b.informer.in_namespace("other")) == []
        late = b.informer.index("name", lambda c: [c.name])
        assert [c.name for c in late.get("a")] == ["a"]

    bench(story)


def test_silent_watch_is_given_up() -> None:
    """A connection that died without a word is left some time after the watch should have ended."""

    async def story(b: Bench) -> None:
        await b.informer.synced.wait()
        await settled(1)
        assert len(b.server.watches) == 1
        await settled(700)
        assert len(b.server.watches) == 2

    bench(story)


def test_factory_shares_and_waits_for_what_was_asked() -> None:
    async def main() -> None:
        server = ScriptedServer()
        factory = InformerFactory(server.client, LoopClock(asyncio.get_running_loop()), random.Random(1))
        one, other = factory.tracked(), factory.tracked()
        maps = one.of(CONFIG_MAP)
        assert other.of(CONFIG_MAP) is maps
        secrets = other.of(SECRET, "ns")
        assert secrets is not other.of(SECRET)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(factory.run())
            await one.synced()
            await other.synced()
            late = factory.of(CONFIG_MAP, "late")
            await asyncio.wait_for(late.synced.wait(), 5)
            task.cancel()

    run_virtual(main())


@pytest.mark.parametrize("seed", range(12))
def test_cache_and_handlers_agree_with_the_server_after_trouble(seed: int) -> None:
    """Whatever was dropped, forgotten or refused on the way: what the cache holds, what indexes find, and what
    handlers were told add up to what the server has; and revisions never went back."""

    async def story(b: Bench) -> None:
        chance = random.Random(seed)
        told: dict[tuple[str, str], ConfigMap] = {}

        def follow(old: ConfigMap | None, new: ConfigMap | None) -> None:
            state = new or old
            assert state is not None
            key = (state.namespace, state.name)
            assert (old is not None) == (key in told), "added once, changed or removed only when there"
            if old is not None and new is not None:
                assert int(new.metadata.resource_version) > int(told[key].metadata.resource_version)
                assert new.metadata.uid == told[key].metadata.uid
            if new is not None:
                told[key] = new
            else:
                del told[key]

        b.informer.on_change(follow)
        by_value = b.informer.index("v", lambda c: [(c.data or {}).get("v", "")])
        for turn in range(150):
            name = chance.choice("abcdefgh")
            action = chance.random()
            if action < 0.55:
                uid = "" if ("ns", name) in b.server.objects else f"uid-{turn}"
                known = b.server.objects.get(("ns", name))
                uid = uid or str(known and known["metadata"]["uid"])
                b.server.put(name, uid=uid, data={"v": chance.choice("12")})
            elif action < 0.75 and ("ns", name) in b.server.objects:
                b.server.remove(name)
            elif action < 0.85:
                b.server.drop()
            elif action < 0.9:
                b.server.forget()
            elif action < 0.95:
                b.server.watch_failures.append(chance.choice([Unreachable("cut"), refused(500), refused(403)]))
            else:
                b.server.list_failures.append(chance.choice([Unreachable("cut"), refused(503)]))
            await settled(chance.choice([0.0, 0.001, 0.5, 3.0]))
        await settled(120)
        expected = {k: o["metadata"]["resourceVersion"] for k, o in b.server.objects.items()}
        assert {k: o.metadata.resource_version for k, o in told.items()} == expected
        assert {(o.namespace, o.name): o.metadata.resource_version for o in b.informer.values()} == expected
        for value in "12":
            names = sorted(k[1] for k, o in b.server.objects.items() if o["data"]["v"] == value)
            assert [o.name for o in by_value.get(value)] == names

    bench(story)
