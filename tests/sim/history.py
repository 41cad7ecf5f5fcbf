"""One history from its seed: a cluster is made, trouble comes and passes, and everything is looked at."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import time
from dataclasses import dataclass

from kubesvc.api.kinds import POD
from kubesvc.clock import run_virtual
from kubesvc.controllers import endpoint_cache

from .fate import BLOWS, Fate
from .invariants import Broken, Ears, Watchman, ask_all, check, check_calm
from .story import Story
from .users import ACTS, SHOP, Users
from .world import World

STEADY_SECONDS = 680.0
"""How long nobody may write once all is calm: longer than any back-off that trouble left behind, and than the ten
minutes after which a rollout is late, by a clock that was a minute fast."""
MOST_CALM_SECONDS = 3000.0
MOST_PROCESSOR_SECONDS = 60
"""Histories take a second or two; one that takes this long is stuck."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a history ended. `broken` is empty if all promises were kept."""

    seed: int
    broken: str
    digest: str
    story: str
    seconds: float


def play(seed: int, *, aloud: bool = False, told: bool = False) -> Result:
    """Play one history from beginning to end.

    aloud: tell it as it happens
    told:  give its story also if all promises were kept
    """
    story = Story(seed, aloud=aloud)
    began = time.process_time()
    ears = Ears()
    logger = logging.getLogger("kubesvc")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(ears)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    broken = ""
    kept, endpoint_cache.MOST_KEPT = endpoint_cache.MOST_KEPT, random.Random(f"sim/{seed}/kept").choice((0, 5, 10_000))
    gc.disable()
    watchdog = signal.signal(signal.SIGPROF, endless)
    signal.setitimer(signal.ITIMER_PROF, MOST_PROCESSOR_SECONDS)
    try:
        run_virtual(live(seed, story, ears))
    except AssertionError as error:
        broken = str(error) or repr(error)
    except Exception as error:  # a part that died, or the simulation itself
        logging.getLogger("tests.sim").exception("seed %d", seed)
        broken = repr(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, watchdog)
        endpoint_cache.MOST_KEPT = kept
        gc.enable()
        gc.collect()
        logger.removeHandler(ears)
        logger.setLevel(level)
        logger.propagate = propagate
    return Result(seed, broken, story.digest, story.text() if broken or told else "", time.process_time() - began)


def endless(*_: object) -> None:
    raise AssertionError("it does not end: somebody works without letting time pass")


async def live(seed: int, story: Story, ears: Ears) -> None:
    world = World(seed, story)
    watchman = Watchman(world)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: ears.heard.append(context_text(context)))
    await world.start()
    try:
        users = Users(world)
        fate = Fate(world, users)
        await users.settle_in()
        await world.quiet(15.0, 120.0)
        story.tell("story", "all is set up")
        await trouble(world, users, fate, watchman)
        await calm(world, users, fate, watchman, ears)
    finally:
        await world.close()
    promised(watchman, ears)


async def trouble(world: World, users: Users, fate: Fate, watchman: Watchman) -> None:
    """Users go about their business while everything goes wrong."""
    r = world.random
    acts, blows = [a for n, a in ACTS for _ in range(n)], [b for n, b in BLOWS for _ in range(n)]
    for _ in range(r.randint(10, 24)):
        world.check_parts()
        watchman.watch_caches()
        if r.random() < 0.45:
            await r.choice(blows)(fate)
        else:
            await r.choice(acts)(users)
        ask_all(world)
        await asyncio.sleep(r.choice((0.0, 0.0, 0.02, 0.5, 2.0, 8.0)))


async def calm(world: World, users: Users, fate: Fate, watchman: Watchman, ears: Ears) -> None:
    """Trouble passes; then everything must be right, stay right, and be kept right by new controllers."""
    await fate.end()
    watchman.watch_caches()
    await users.put_right()
    if not await world.quiet(STEADY_SECONDS, MOST_CALM_SECONDS):
        raise Broken(f"somebody goes on writing: {world.last_written}")
    await users.sweep()
    check(await world.quiet(60.0, 600.0), f"no quiet after ended pods were swept away: {world.last_written}")
    promised(watchman, ears)
    await check_calm(world)
    await restarted(world)
    await quiet_day(world, users, watchman)
    promised(watchman, ears)


async def restarted(world: World) -> None:
    """New controllers over the same objects find nothing to write."""
    await world.controllers.stop()
    world.controllers.start()
    world.story.tell("story", "the controllers start anew")
    before = world.last_write
    await asyncio.sleep(60.0)
    world.check_parts()
    check(world.last_write == before, f"new controllers find something to write: {world.last_written}")


async def quiet_day(world: World, users: Users, watchman: Watchman) -> None:
    """Without any trouble, a pod's removal is published before it is gone, and all is right again soon."""
    watchman.strict = True
    world.story.tell("story", "an ordinary day")
    pods = [p for p in await world.all(POD, SHOP) if p["metadata"]["name"].startswith(("web", "db"))]
    for pod in pods[:2]:
        await asyncio.sleep(0.5)
        name = pod["metadata"]["name"]
        await users.act(f"deletes pod {name}", lambda c, name=name: c.delete(POD, name, SHOP, grace_seconds=3))  # type: ignore[misc]
    await users.scale()
    check(await world.quiet(60.0, 600.0), f"no quiet after an ordinary day: {world.last_written}")
    await check_calm(world)


def promised(watchman: Watchman, ears: Ears) -> None:
    check(not watchman.broken, "; ".join(watchman.broken[:5]))
    check(not ears.heard, "errors were logged: " + "\n".join(ears.heard[:3]))


def context_text(context: dict[str, object]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r}"
