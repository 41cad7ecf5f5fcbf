"""The library of broken scenarios, end to end: `why` names the planted cause first, and what it suggests, executed,
repairs it. They are played on several instances side by side: most on one, each in namespaces of its own, many at a
time; those that disturb a whole instance one by one on another; those that plant the absence of a controller, or need
another proxy mode, where it is so."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kubesvc.api.errors import ApiError
from kubesvc.cli.cluster import open_cluster
from kubesvc.cli.staging import Stage, StageFailed
from kubesvc.client import Unreachable
from kubesvc.why.causes import BY_CODE
from kubesvc.why.scenarios import BY_NAME, SCENARIOS, Scenario

from .harness import PATIENCE_SECONDS, Instance, running_instance

pytestmark = pytest.mark.e2e

AT_ONCE = 10
SLOW = frozenset({"nobody-listens", "nobody-there", "flapping"})
"""They begin first, since they take longest."""
DELICATE = frozenset({"old-flow"})
"""What is planted is swept away, as it should be, by the next change of any other Service's UDP port."""
SLICELESS = ("endpointslice-controller",)
OTHERS = ("deployment-controller", "endpoints-controller", "endpointslice-mirroring-controller", "cluster-dns")


def less(controllers: Sequence[str]) -> tuple[str, str]:
    """The option that leaves these controllers out."""
    return "--controllers", ",".join(["*", *(f"-{c}" for c in controllers)])


SIMULATED = ("--nodes", "0", "--simulated-nodes", "1")
GROUNDS: dict[str, tuple[tuple[str, ...], list[Scenario]]] = {
    "many": (
        ("--nodes", "2", "--zones", "a,b", "--service-cluster-ip-range", "10.96.0.0/16,fd00:96::/112"),
        sorted(
            (s for s in SCENARIOS if not s.needs and not s.alone and s.name not in DELICATE),
            key=lambda s: s.name not in SLOW,
        ),
    ),
    "disturbed": (("--nodes", "2"), [s for s in SCENARIOS if not s.needs and (s.alone or s.name in DELICATE)]),
    "sliceless": (
        (*SIMULATED, *less(SLICELESS)),
        [s for s in SCENARIOS if s.without == SLICELESS],
    ),
    "less": (
        (*SIMULATED, *less(OTHERS)),
        [s for s in SCENARIOS if s.without and set(s.without) <= set(OTHERS)],
    ),
    "userspace": (
        ("--nodes", "1", "--proxy-mode", "userspace"),
        [s for s in SCENARIOS if s.mode == "userspace"],
    ),
}
"""Where scenarios are played: an instance's name, its options, and what is played there."""


def test_every_cause_has_a_scenario() -> None:
    assert {s.code for s in SCENARIOS} == set(BY_CODE)
    assert len(BY_NAME) == len(SCENARIOS)
    played = sorted(s.name for _, scenarios in GROUNDS.values() for s in scenarios)
    assert played == sorted(BY_NAME), "each is played once"


async def play(instance: Instance, scenarios: Sequence[Scenario]) -> dict[str, str]:
    """Start, diagnose, repair and remove each; what went wrong by name, "" for nothing."""
    args = argparse.Namespace(
        kubeconfig=str(instance.root / "kubeconfig"), context=None, name=None, namespace=""
    )  # fmt: skip
    cluster = open_cluster(args, "kubesvc-scenario")
    stage, gate = Stage(cluster, patience_seconds=PATIENCE_SECONDS), asyncio.Semaphore(AT_ONCE)
    await stage.find_words()

    async def one(scenario: Scenario) -> str:
        async with gate:
            try:
                await stage.start(scenario)
                await stage.planted(scenario)
                await stage.repair(scenario)
                await stage.healed(scenario)
                await stage.stop(scenario)
            except (ApiError, StageFailed, Unreachable) as error:
                with contextlib.suppress(ApiError, Unreachable):
                    await stage.stop(scenario)
                return f"{error}\n{instance.logs()}"
        return ""

    try:
        found = await asyncio.gather(*(one(s) for s in scenarios if not s.alone))
        result = dict(zip((s.name for s in scenarios if not s.alone), found, strict=True))
        for s in scenarios:
            if s.alone:
                result[s.name] = await one(s)
        return result
    finally:
        await cluster.client.close()


@pytest.fixture(scope="module")
def played(machine: None) -> Iterator[dict[str, str]]:
    """How each scenario went."""
    del machine
    home = Path(tempfile.mkdtemp(prefix="ks-", dir="/tmp"))

    def on(ground: str) -> dict[str, str]:
        options, scenarios = GROUNDS[ground]
        with running_instance(*options, "--store", "memory", name=ground, home=home) as instance:
            return asyncio.run(play(instance, scenarios))

    try:
        with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(len(GROUNDS)) as threads:
            patch.setenv("XDG_STATE_HOME", str(home))  # where the commands of repairs look for instances
            yield {name: said for result in threads.map(on, GROUNDS) for name, said in result.items()}
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: f"{s.code} {s.name}")
def test_why_names_it_first_and_it_can_be_repaired(played: dict[str, str], scenario: Scenario) -> None:
    assert played[scenario.name] == ""


def test_by_hand(shared: Instance) -> None:
    """The commands as a learner types them."""
    words = ("scenario", "--name", shared.name)
    said = shared.run(*words, "start", "typo-value").stdout
    assert f"ask:   kubesvc why svc/web -n scenario-typo-value --name {shared.name}" in said
    broken = shared.run(*words, "check", "typo-value", check=False)
    assert broken.returncode == 1 and "EP101" in broken.stdout
    assert "routes to 1 Pod" in shared.run(*words, "fix", "typo-value").stdout
    assert shared.run(*words, "fix", "typo-value").stdout == "repaired already: svc/web routes to 1 Pod\n"
    assert shared.run(*words, "stop", "typo-value").stdout == "typo-value is removed\n"
