"""The probes of one container: asked at their times, counted, and what follows from them (NODE-31 to NODE-55)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Literal, Protocol

from kubesvc.api.container import Container, Probe
from kubesvc.api.pod import Pod

from .context import NodeContext
from .probe_plan import (
    TITLES,
    TRIES,
    ProbeKind,
    ProbeState,
    after,
    first_state,
    first_wait,
    is_ready,
    is_started,
    kinds_of,
    period,
    probe_of,
    timeout,
)
from .probes import Outcome, try_probe
from .steering import steered_outcome

EARLY_TRIES_SECONDS = (0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2)
"""Pauses of the extra tries of a readiness or startup probe after the start (NODE-42); they stay within a second."""

MOST_DETAIL = 500
"""Characters of what a probe met that a timeline keeps."""


class Probed(Protocol):
    """What a prober needs of its container.

    address: where probes without a host of their own go
    execute: runs a command in the container: (exit code, None for a timeout; output)
    touch:   a verdict has changed, so the status may say something else
    failed:  a liveness or startup probe has failed for good: the container must be replaced
    """

    node: NodeContext
    container: Container

    @property
    def pod(self) -> Pod: ...
    @property
    def address(self) -> str: ...
    def execute(self, command: Sequence[str], timeout_seconds: float) -> Awaitable[tuple[int | None, bytes]]: ...
    def touch(self) -> None: ...
    def failed(self, kind: ProbeKind, probe: Probe) -> None: ...
    def event(self, severity: Literal["Normal", "Warning"], reason: str, message: str) -> None: ...


def said(now: ProbeState, outcome: Outcome) -> str:
    """A verdict in words: `failed 3 times, now after 12 ms: HTTP probe failed with statuscode: 500`. What a success was
    answered, a whole page perhaps, is of no interest to a timeline."""
    well = outcome.result in ("success", "warning")
    times = f" {now.row} times" if now.row > 1 else ""
    after_ms = f"{', now' if times else ''} after {outcome.seconds * 1000:.0f} ms" if outcome.seconds else ""
    detail = "" if outcome.result == "success" else outcome.detail[:MOST_DETAIL]
    return f"{'succeeded' if well else 'failed'}{times}{after_ms}" + (f": {detail}" if detail else "")


class Prober:
    """Asks the probes of one container, run by run."""

    def __init__(self, probed: Probed) -> None:
        self.probed = probed
        self.node = probed.node
        self.container = probed.container
        self.states: dict[ProbeKind, ProbeState] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.startup_done = asyncio.Event()
        self.started_at = 0.0
        self.adopted = False

    @property
    def started(self) -> bool:
        """`started` of the running container (NODE-22)."""
        return is_started(self.container, self.states.get("startup"))

    @property
    def ready(self) -> bool:
        """`ready` of the running container (NODE-22)."""
        return is_ready(self.container, self.started, self.states.get("readiness"))

    def begin(self, *, adopted: bool = False) -> None:
        """A run has begun, or one was taken over from an earlier agent: forget what the last run's probes found."""
        self.started_at = self.node.clock.monotonic()
        self.adopted = adopted
        self.states = {kind: first_state(kind) for kind in kinds_of(self.container)}
        self.startup_done.clear()

    def believe(self, *, started: bool, ready: bool) -> None:
        """What an earlier agent had found out about a run that goes on."""
        if started and "startup" in self.states:
            self.states["startup"] = ProbeState("startup", "success", "success", 1, done=True)
        if ready and "readiness" in self.states:
            self.states["readiness"] = ProbeState("readiness", "success", "success", 1)

    def start(self) -> None:
        """Ask from now on."""
        if self.container.startup_probe is None or self.started:
            self.startup_done.set()
        for kind in kinds_of(self.container):
            self.tasks.append(asyncio.create_task(self.probe(kind)))

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.tasks.clear()

    def end(self) -> None:
        """The run is over."""
        self.adopted = False
        self.states = {}

    def keep_readiness_only(self) -> None:
        """The Pod is being deleted: only readiness goes on being asked (NODE-44)."""
        self.stop()
        if self.container.readiness_probe is not None and self.started:
            self.tasks.append(asyncio.create_task(self.probe("readiness", again=True)))

    async def probe(self, kind: ProbeKind, again: bool = False) -> None:
        """Ask one probe again and again, as its fields say, until there is nothing more to ask."""
        probe = probe_of(self.container, kind)
        assert probe is not None
        if kind != "startup":
            await self.startup_done.wait()
        elif self.states["startup"].done:
            return
        loop = asyncio.get_running_loop()
        if self.adopted or again:
            await asyncio.sleep(self.node.random.random() * period(probe))  # NODE-45
        else:
            await asyncio.sleep(first_wait(probe, self.node.clock.monotonic() - self.started_at))
            if kind != "liveness" and probe.exec is None and await self.try_early(kind):
                return
        due = loop.time()
        while True:
            outcome = await self.ask(kind)
            if self.take(kind, outcome):
                return
            due = max(due + period(probe), loop.time())
            await asyncio.sleep(due - loop.time())

    async def try_early(self, kind: ProbeKind) -> bool:
        """Extra tries right after the start, whose failures count for nothing; True when the probe is done."""
        probe = probe_of(self.container, kind)
        assert probe is not None
        loop = asyncio.get_running_loop()
        until = loop.time() + min(1.0, period(probe))
        for pause in EARLY_TRIES_SECONDS:
            outcome = await self.ask(kind)
            if outcome.result in ("success", "warning"):
                done = self.take(kind, outcome)
                if not done:
                    await asyncio.sleep(period(probe))
                return done
            if loop.time() + pause >= until:
                break
            await asyncio.sleep(pause)
        return False

    async def ask(self, kind: ProbeKind) -> Outcome:
        """One try, repeated at once while it ends in an error (NODE-40)."""
        probe = probe_of(self.container, kind)
        assert probe is not None
        if kind == "readiness" and (forced := steered_outcome(self.probed.pod)) is not None:
            return forced
        agent = f"kube-probe/{short_version(self.node.settings.version)}"
        outcome = Outcome("error")
        loop = asyncio.get_running_loop()
        for _ in range(TRIES):
            began = loop.time()
            outcome = await try_probe(
                probe, self.container, self.probed.address, self.probed.execute, timeout(probe), agent
            )
            outcome = outcome._replace(seconds=loop.time() - began)
            if outcome.result != "error":
                break
        return outcome

    def take(self, kind: ProbeKind, outcome: Outcome) -> bool:
        """Count a result and do what follows from it; True when this probe asks no more."""
        probe = probe_of(self.container, kind)
        if probe is None or kind not in self.states:
            return True
        shown = {"success": "successful", "warning": "successful", "failure": "failed", "error": "unknown"}
        pod = self.probed.pod
        key = (TITLES[kind], shown[outcome.result], self.container.name, pod.name, pod.namespace)
        self.node.probe_results[key] = self.node.probe_results.get(key, 0) + 1
        before = self.states[kind]
        now = self.states[kind] = after(before, outcome.result, probe)
        if now.verdict != before.verdict or now.done != before.done:
            if (told := self.node.verdict_told) is not None:
                told(pod.namespace, pod.name, f"{TITLES[kind]} probe of {self.container.name}: {said(now, outcome)}")
            self.probed.touch()
        if outcome.result == "failure":
            self.probed.event("Warning", "Unhealthy", f"{TITLES[kind]} probe failed: {outcome.detail}")
        elif outcome.result == "warning":
            self.probed.event("Warning", "ProbeWarning", f"{TITLES[kind]} probe warning: {outcome.detail}")
        elif outcome.result == "error":
            self.probed.event(
                "Warning", "Unhealthy", f"{TITLES[kind]} probe errored and resulted in unknown state: {outcome.detail}"
            )
        if now.done:
            self.startup_done.set()
            return True
        if now.held:
            self.probed.failed(kind, probe)
            return True
        return False


def short_version(version: str) -> str:
    """`1.36` of `v1.36.0`, as probes name themselves."""
    return ".".join(version.lstrip("v").split(".")[:2])
