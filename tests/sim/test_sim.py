"""Histories by seed: those that once broke, in long runs fresh ones, and that a seed is a history.

`make test` plays 200 more by `python -m tests.sim`, two at a time.

The seeds in `ONCE_BROKEN` are a record of what was found by playing; a change anywhere in the product changes what
happens in a history, so each mistake also has a row of its own beside the part that made it.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from kubesvc.clock import run_virtual

from .__main__ import main
from .history import play

FRESH, SOAK = 3, 300

ONCE_BROKEN = (
    (14, "a slice that was given to another Service by its label kept its former owner waiting for ever"),
    (9, "a pod whose binding was cut off was never scheduled again"),
    (18, "a node with two families lost one of its addresses in its second status"),
    (5, "an agent that came back gave a new pod the address of one that was still there"),
    (28, "a ReplicaSet whose deletions were cut off waited for them for ever"),
    (26, "failures that events provoked put a Service off for a quarter of an hour"),
    (43, "virtual time stood still at the last bit of a rounded timer"),
    (21, "a ReplicaSet that was to come back for older deletions waited for ever for newer ones"),
    (101, "a rollout's deadline was put off by news that were no progress"),
    (80, "a new ReplicaSet that was larger than its Deployment, sized by a leader of old, stayed so"),
)


@pytest.mark.parametrize(("seed", "what"), ONCE_BROKEN, ids=[str(s) for s, _ in ONCE_BROKEN])
def test_once_broken(seed: int, what: str) -> None:
    result = play(seed)
    assert not result.broken, f"make sim SEED={seed}: {result.broken} (once: {what})"


@pytest.mark.soak
def test_fresh_histories() -> None:
    """Other ones each time; the failure names the seed. Where a change is judged, all histories are the same each time:
    what a fresh one finds was there before the change."""
    for seed in random.SystemRandom().sample(range(1_000_000), FRESH):
        result = play(seed)
        assert not result.broken, f"make sim SEED={seed}: {result.broken}"


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SOAK))
def test_many_histories(seed: int) -> None:
    result = play(seed)
    assert not result.broken, f"make sim SEED={seed}: {result.broken}"


def test_a_seed_is_a_history() -> None:
    """Every stored byte and every told word is the same, also in a process that hashes texts otherwise."""
    code = "from tests.sim.history import play; print(play(17).digest)"
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert told == {play(17).digest}


def test_a_replay_tells_a_readable_story(capsys: pytest.CaptureFixture[str]) -> None:
    """What users did, what befell the cluster, and what became of it, in virtual time."""
    assert main(["--seed", "3"]) == 0
    *story, end = capsys.readouterr().out.splitlines()
    assert "seed 3: all promises kept" in end
    times = [float(line.split()[0]) for line in story]
    assert times == sorted(times) and times[-1] > 400
    text = "\n".join(story)
    for told in (
        "user         ",
        "fate         ",
        "all is calm",
        "an ordinary day",
        " endpointslices ",
        ", ready True, ",
    ):
        assert told in text


class Sabotage(NamedTuple):
    """A mistake that a part could make, and what some history must say of it."""

    mistake: str
    where: str
    name: str
    spoilt: Callable[[Callable[..., Any]], Callable[..., Any]]
    said: str


def lossy(desired: Callable[..., Any]) -> Callable[..., Any]:
    """Forgets one endpoint of each group of more than one."""

    def spoilt(*words: Any) -> Any:
        groups = desired(*words)
        for group in groups.values():
            if len(group) > 1:
                group.popitem()
        return groups

    return spoilt


def hopeful(facts_of: Callable[..., Any]) -> Callable[..., Any]:
    """Takes every pod for ready."""
    return lambda pod: facts_of(pod)._replace(ready=True)


def restless(same_state: Callable[..., Any]) -> Callable[..., Any]:
    """Sees a difference where there is none."""
    return lambda *_: False


def deaf(take: Callable[..., Any]) -> Callable[..., Any]:
    """Does not hear of deletions."""
    return lambda self, type, raw: None if type == "DELETED" else take(self, type, raw)


def spread(mirrors: Callable[..., Any]) -> Callable[..., Any]:
    """Mirrors what has slices of its own."""
    return lambda endpoints, service: endpoints is not None and service is not None


SABOTAGE = (
    Sabotage("an endpoint is forgotten", "controllers.endpointslice", "desired", lossy, "lacks [Expected("),
    Sabotage("unready pods are published", "controllers.endpoint_cache", "facts_of", hopeful, "whose pod never was"),
    Sabotage("syncs always write", "controllers.slice_plan", "same_state", restless, "something to write"),
    Sabotage("caches miss deletions", "client.informer", "Informer._take", deaf, "cache of pods: has"),
    Sabotage("everything is mirrored", "controllers.mirroring", "mirrors", spread, "mirrored beside them"),
)


@pytest.mark.parametrize("sabotage", SABOTAGE, ids=lambda s: s.mistake)
def test_a_mistake_breaks_a_history(sabotage: Sabotage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promises can be broken: each mistake is found by one of a few histories."""
    place = importlib.import_module(f"kubesvc.{sabotage.where}")
    *above, name = sabotage.name.split(".")
    for step in above:
        place = getattr(place, step)
    monkeypatch.setattr(place, name, sabotage.spoilt(getattr(place, name)))
    broken = next((b for seed in (3, 4) if (b := play(seed).broken)), "")
    assert broken and sabotage.said in broken


def test_time_moves_for_who_waits_for_a_rounded_moment() -> None:
    """A wait that is repeated until a moment has come ends, though the loop runs timers a little early."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(420.0)
        end, turns = loop.time() + 1e-10, 0
        while loop.time() < end and turns < 100:
            turns += 1
            for _ in range(3):
                loop.call_soon(int)
            await asyncio.sleep((end - loop.time()) / 1.5)
        return turns

    assert run_virtual(main()) < 100
