"""The feed: what it tells, how seldom, which Service it chooses, and how it counts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kubesvc.api.errors import Forbidden, TooManyRequests
from kubesvc.api.event import EVENT
from kubesvc.api.node import NODE
from kubesvc.api.pod import POD
from kubesvc.client import Unreachable
from kubesvc.clock import LoopClock, run_virtual
from kubesvc.web import model
from kubesvc.web.feed import MOST_PER_SECOND, Rates
from kubesvc.web.moves import MOST_SHOWN, Moves
from kubesvc.why.timeline import Moved
from tests.web.madeup import MadeUpFeed, pods
from tests.why import planted as p

READY = p.cluster(p.service(), *pods(3))
ONE_OUT = p.cluster(p.service(), *pods(3, {1: {"ready": False}}))
WEB = ("shop", "web")


def test_a_slow_watcher_is_told_less_often_and_ends_with_what_is_so() -> None:
    async def watch() -> list[dict[str, Any]]:
        feed = MadeUpFeed(READY)
        running = asyncio.create_task(feed.run())
        changes = feed.changes(WEB)
        told = [await anext(changes)]
        for turn in range(101):
            feed.show(ONE_OUT if turn % 2 == 0 else READY)
        told.append(await anext(changes))
        await changes.aclose()
        running.cancel()
        return told

    told = asyncio.run(watch())
    assert told[0]["whole"]
    assert told[1]["items"]["pod/web-1"].state == "out"


def test_a_watcher_is_told_at_most_sixty_times_a_second() -> None:
    async def watch() -> int:
        feed = MadeUpFeed(READY)
        loop = asyncio.get_running_loop()
        feed.clock = LoopClock(loop)
        feed.ready.set()

        async def change() -> None:
            for turn in range(120):
                feed.show(ONE_OUT if turn % 2 == 0 else READY)
                await asyncio.sleep(0.009)

        changing, count, changes = asyncio.create_task(change()), 0, feed.changes(WEB)
        while loop.time() < 1.0:
            await anext(changes)
            count += 1
        await changes.aclose()
        await changing
        return count

    assert MOST_PER_SECOND / 3 < run_virtual(watch()) <= MOST_PER_SECOND + 2


def test_nothing_is_kept_for_those_who_have_left() -> None:
    async def watch() -> MadeUpFeed:
        feed = MadeUpFeed(READY)
        feed.ready.set()
        for _ in range(3):
            changes = feed.changes(WEB)
            await anext(changes)
            await changes.aclose()
        return feed

    assert asyncio.run(watch()).shown == {}


@pytest.mark.parametrize(
    ("objects", "wanted"),
    [
        ([p.service(), p.pod(), p.service("api", clusterIP="10.96.0.8")], ("shop", "api")),
        ([p.service(), p.pod()], ("shop", "web")),
        ([], ("kube-system", "kube-dns")),
    ],
    ids=["the broken one first", "one of users before cluster DNS", "else what there is"],
)
def test_the_service_that_needs_a_look_is_chosen(objects: list[Any], wanted: tuple[str, str]) -> None:
    assert MadeUpFeed(p.cluster(*objects)).choose() == wanted


def test_no_service_at_all_is_no_error() -> None:
    async def watch() -> dict[str, Any]:
        feed = MadeUpFeed(p.cluster(dns=False))
        feed.ready.set()
        changes = feed.changes(None)
        first = await anext(changes)
        await changes.aclose()
        return first

    assert asyncio.run(watch())["key"] == ""


def test_a_service_that_goes_leaves_an_empty_picture() -> None:
    async def watch() -> dict[str, Any]:
        feed = MadeUpFeed(READY)
        feed.ready.set()
        changes = feed.changes(WEB)
        await anext(changes)
        feed.show(p.cluster())
        second = await anext(changes)
        await changes.aclose()
        return second

    told = asyncio.run(watch())
    assert "service" in told["itemsGone"] and told["servicesGone"] == ["shop/web"]


def test_an_export_holds_every_service() -> None:
    async def export() -> Mapping[str, Any]:
        feed = MadeUpFeed(p.cluster(p.service(), *pods(2), p.service("api", clusterIP="10.96.0.8")))
        feed.ready.set()
        return await feed.export()

    kept = asyncio.run(export())
    assert set(kept["pictures"]) == set(kept["services"]) == {"shop/web", "shop/api", "kube-system/kube-dns"}
    assert kept["key"] == "shop/api"


def test_an_object_that_is_too_odd_leaves_the_rest_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def watch() -> dict[str, Any]:
        feed = MadeUpFeed(READY)
        feed.ready.set()
        changes = feed.changes(WEB)
        await anext(changes)

        def fail(*_: object) -> None:
            raise TypeError("odd")

        monkeypatch.setattr("kubesvc.web.feed.diagnose_service", fail)
        monkeypatch.setattr("kubesvc.web.feed.model.picture_of", fail)
        feed.draw(WEB)
        assert feed.summary(READY.services[WEB], READY).status == "unknown"
        monkeypatch.undo()
        feed.show(ONE_OUT)
        told = await anext(changes)
        await changes.aclose()
        return told

    assert asyncio.run(watch())["items"]["pod/web-1"].state == "out"


class Refusing:
    """A server that refuses some kinds, one of them only at first."""

    def __init__(self) -> None:
        self.busy = 2

    async def list_raw(self, kind: Any, **_: Any) -> None:
        if kind.plural == "events":
            raise Forbidden("you may not")
        if kind.plural == "pods" and self.busy:
            self.busy -= 1
            raise TooManyRequests("later")


@pytest.mark.parametrize(("kind", "said"), [(EVENT, "not permitted"), (POD, ""), (NODE, "")])
def test_what_may_not_be_read_is_a_gap_and_what_is_late_is_not(kind: Any, said: str) -> None:
    async def ask() -> str:
        feed = MadeUpFeed(READY)
        feed.informers = SimpleNamespace(client=Refusing())  # type: ignore[assignment]
        return await feed.refusal(kind)

    told = run_virtual(ask())
    assert said in told and bool(told) == bool(said)


def test_a_cluster_that_does_not_answer_is_said_until_it_does() -> None:
    class Failing:
        up = False

        async def list_raw(self, *_: object, **__: object) -> None:
            if not self.up:
                raise Unreachable("gone")

    async def watch() -> list[str]:
        feed, client = MadeUpFeed(READY), Failing()
        feed.informers = SimpleNamespace(client=client)  # type: ignore[assignment]
        feed.ready.set()
        contact, changes, told = asyncio.create_task(feed.keep_contact()), feed.changes(WEB), []
        told.append((await anext(changes))["lost"])
        told.append((await anext(changes))["lost"])
        client.up = True
        told.append((await anext(changes))["lost"])
        contact.cancel()
        await changes.aclose()
        return told

    first, second, third = run_virtual(watch())
    assert (first, third) == ("", "") and "does not answer" in second


def test_a_cluster_that_is_away_for_a_moment_is_asked_again_and_one_that_stays_away_is_said() -> None:
    class Away:
        def __init__(self, times: int) -> None:
            self.times = times

        async def list_raw(self, *_: object, **__: object) -> None:
            self.times -= 1
            if self.times >= 0:
                raise Unreachable("gone")

    async def ask(times: int) -> str:
        feed = MadeUpFeed(READY)
        feed.informers = SimpleNamespace(client=Away(times))  # type: ignore[assignment]
        return await feed.refusal(POD)

    assert run_virtual(ask(2)) == ""
    with pytest.raises(Unreachable):
        run_virtual(ask(1000))


def test_nobody_asks_for_those_who_have_left() -> None:
    class Counting:
        asked = 0

        async def list_raw(self, *_: object, **__: object) -> None:
            self.asked += 1

    async def watch() -> tuple[int, int, int]:
        feed, client = MadeUpFeed(READY), Counting()
        feed.informers = SimpleNamespace(client=client)  # type: ignore[assignment]
        feed.ready.set()
        contact, counts = asyncio.create_task(feed.keep_contact()), []
        for _ in range(2):
            changes = feed.changes(WEB)
            await anext(changes)
            await asyncio.sleep(10)
            await changes.aclose()
            counts.append(client.asked)
            await asyncio.sleep(100)
        contact.cancel()
        return counts[0], counts[1], client.asked

    first, second, last = run_virtual(watch())
    assert 0 < first < second == last


def test_commands_ask_the_cluster_that_is_shown() -> None:
    """A page is read beside a shell whose kubectl may mean another cluster."""
    feed = MadeUpFeed(p.cluster(p.service(selector={"app": "wbe"}), p.pod()))
    feed.kubectl = "kubesvc kubectl --name t"
    _, diagnosis = feed.picture(WEB, feed.now.services[WEB], feed.now)
    assert diagnosis.command.startswith("kubesvc kubectl --name t -n shop patch service web ")
    out = MadeUpFeed(ONE_OUT)
    out.kubectl = feed.kubectl
    picture, _ = out.picture(WEB, out.now.services[WEB], out.now)
    commands = {getattr(i, "finding").command for i in picture.items.values() if getattr(i, "finding", None)}  # noqa: B009
    assert commands and all(c.startswith("kubesvc kubectl --name t ") for c in commands if c)


# ---------------------------------------------------------------- rates


def test_a_rate_settles_at_what_comes_and_fades_when_nothing_does() -> None:
    rates, total = Rates(), 100
    for tick in range(60):
        rates.take({"web-1": total}, tick * 0.25)
        total += 5
    assert rates.rates["web-1"] == pytest.approx(20, rel=0.05)
    for tick in range(60, 140):
        rates.take({"web-1": total}, tick * 0.25)
    assert rates.rates["web-1"] == 0.0


def test_a_counter_that_starts_again_is_no_negative_rate() -> None:
    rates = Rates()
    for at, total in ((0.0, 50), (1.0, 60), (2.0, 0), (3.0, 0)):
        rates.take({"web-1": total}, at)
        assert rates.rates.get("web-1", 0.0) >= 0
    rates.take({}, 4.0)
    assert rates.known == {} and rates.rates == {}


# ---------------------------------------------------------------- timeline


class Lines:
    def __init__(self) -> None:
        self.fresh: list[bytes] = []
        self.noted: dict[str, list[bytes]] = {}

    def moves(self) -> list[bytes]:
        found, self.fresh = self.fresh, []
        return found

    def hops(self) -> dict[str, list[bytes]]:
        found, self.noted = self.noted, {}
        return found


class Still:
    def now(self) -> float:
        return 1000.0

    def monotonic(self) -> float:
        return 1000.0


def moved(at: float, what: str = "joined", address: str = "10.244.1.2") -> Moved:
    return Moved(at, "shop", "web", what, address, "pod/web-1 is Ready", "web-1", "n1", at - 0.01)


def test_a_move_is_joined_with_hops_that_come_later() -> None:
    lines, encode = Lines(), msgspec.json.encode
    moves = Moves(Still(), lines)
    lines.fresh = [encode(moved(999.0)), b"{torn", b'{"at": "never"}']
    assert moves.read()
    (entry,) = moves.entries(WEB).values()
    assert "rulesMs" not in entry["hops"]
    lines.noted = {"n1": [encode({"at": 999.002, "hop": "rules", "key": "shop/web"}), b"no"]}
    assert moves.read()
    (entry,) = moves.entries(WEB).values()
    assert entry["hops"]["rulesMs"] == {"n1": pytest.approx(2.0, abs=0.1)}
    assert moves.rules_on(WEB) == ("n1",)
    assert not moves.read()


def test_of_each_service_the_newest_moves_are_kept() -> None:
    moves = Moves(Still(), Lines())
    for number in range(MOST_SHOWN * 2):
        moves.add(moved(float(number)))
    kept = list(moves.entries(WEB).values())
    assert len(kept) == MOST_SHOWN


def test_where_nobody_keeps_journals_moves_are_told_from_pictures() -> None:
    moves = Moves(Still(), None)
    before, after = (model.picture_of(s.services[WEB], s)[0] for s in (READY, ONE_OUT))
    moves.compare(WEB, None, before)
    assert moves.entries(WEB) == {}
    moves.compare(WEB, before, after)
    moves.compare(WEB, after, before)
    told = [(e["what"], e["pod"], e["address"]) for e in moves.entries(WEB).values()]
    assert sorted(told) == [("joined", "web-1", "10.244.2.2"), ("left", "web-1", "10.244.2.2")]
    assert all(e["cause"] for e in moves.entries(WEB).values())
