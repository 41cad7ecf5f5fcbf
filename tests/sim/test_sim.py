"""Histories by seed: a fresh handful each time, those that once broke, and that a seed is a history.

`make test` plays 200 more by `python -m tests.sim`, two at a time.

The seeds in `ONCE_BROKEN` are a record of what was found by playing; a change anywhere in the product changes what
happens in a history, so each mistake also has a row of its own beside the part that made it.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys

import pytest

from kubesvc.clock import run_virtual

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
)


@pytest.mark.parametrize(("seed", "what"), ONCE_BROKEN, ids=[str(s) for s, _ in ONCE_BROKEN])
def test_once_broken(seed: int, what: str) -> None:
    result = play(seed)
    assert not result.broken, f"make sim SEED={seed}: {result.broken} (once: {what})"


def test_fresh_histories() -> None:
    """Other ones each time; the failure names the seed."""
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
