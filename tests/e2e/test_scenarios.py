"""The library of broken scenarios, end to end: `why` names the planted cause first, and what it suggests, executed,
repairs it. Most of them share one instance, each in namespaces of its own, many at a time; those that plant the absence
of a controller share two without nodes, and what only nodes of another mode can meet has an instance of that mode."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Iterator, Sequence

import pytest

from kubesvc.api.errors import ApiError
from kubesvc.cli.cluster import open_cluster
from kubesvc.cli.staging import Stage, StageFailed
from kubesvc.client import Unreachable
from kubesvc.why.causes import BY_CODE
from kubesvc.why.scenarios import BY_NAME, SCENARIOS, Scenario

from .harness import Instance, running_instance

pytestmark = pytest.mark.e2e

AT_ONCE = 10
RARE = frozenset({"cut-off-node", "old-name"})
"""They stand still for seconds each, and cannot be played beside others: long runs only."""
SLICELESS = ("endpointslice-controller",)
OTHERS = ("deployment-controller", "endpoints-controller", "endpointslice-mirroring-controller", "cluster-dns")


def test_every_cause_has_a_scenario() -> None:
    assert {s.code for s in SCENARIOS} == set(BY_CODE)
    assert len(BY_NAME) == len(SCENARIOS)
    assert {w for s in SCENARIOS for w in s.without} <= {*SLICELESS, *OTHERS}


async def play(instance: Instance, scenarios: Sequence[Scenario]) -> dict[str, str]:
    """Start, diagnose, repair and remove each; what went wrong by name, "" for nothing."""
    args = argparse.Namespace(
        kubeconfig=str(instance.root / "kubeconfig"), context=None, name=None, namespace=""
    )  # fmt: skip
    cluster = open_cluster(args, "kubesvc-scenario")
    stage, gate = Stage(cluster), asyncio.Semaphore(AT_ONCE)
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
    found: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:

        def on(instance: Instance, scenarios: Sequence[Scenario]) -> None:
            patch.setenv("XDG_STATE_HOME", str(instance.home))  # where the commands of repairs look for instances
            found.update(asyncio.run(play(instance, scenarios)))

        memory = ("--store", "memory")
        networks = ("--service-cluster-ip-range", "10.96.0.0/16,fd00:96::/112")
        with running_instance("--nodes", "2", "--zones", "a,b", *networks, *memory) as instance:
            on(instance, [s for s in SCENARIOS if not s.needs and s.name not in RARE])
        less = ",".join(["*", *(f"-{c}" for c in OTHERS)])
        with running_instance("--nodes", "0", "--simulated-nodes", "1", *memory, "--controllers", less) as instance:
            on(instance, [s for s in SCENARIOS if s.without and set(s.without) <= set(OTHERS)])
        with running_instance("--nodes", "1", *memory, "--proxy-mode", "userspace") as instance:
            on(instance, [s for s in SCENARIOS if s.mode == "userspace"])
        yield found


@pytest.mark.parametrize(
    "scenario",
    [s for s in SCENARIOS if s.without != SLICELESS and s.name not in RARE],
    ids=lambda s: f"{s.code} {s.name}",
)
def test_why_names_it_first_and_it_can_be_repaired(played: dict[str, str], scenario: Scenario) -> None:
    assert played[scenario.name] == ""


@pytest.mark.soak
def test_nodes_that_are_cut_off(machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """EP614 and EP707."""
    with running_instance("--nodes", "2", "--store", "memory") as instance:
        monkeypatch.setenv("XDG_STATE_HOME", str(instance.home))
        found = asyncio.run(play(instance, [BY_NAME[name] for name in sorted(RARE)]))
    assert set(found.values()) == {""}


@pytest.mark.soak
def test_slices_that_nobody_writes(machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """EP506 takes its time: slices may lag for a while before that is a finding."""
    less = ",".join(["*", *(f"-{c}" for c in SLICELESS)])
    with running_instance("--nodes", "0", "--store", "memory", "--controllers", less) as instance:
        monkeypatch.setenv("XDG_STATE_HOME", str(instance.home))
        found = asyncio.run(play(instance, [s for s in SCENARIOS if s.without == SLICELESS]))
    assert set(found.values()) == {""}


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
