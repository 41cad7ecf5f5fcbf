"""Pods without processes: each becomes what a small script says (NODE-116 to NODE-119)."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from kubesvc.api.container import ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus
from kubesvc.api.errors import ApiError, Conflict, Invalid, NotFound
from kubesvc.api.kinds import POD
from kubesvc.api.meta import typed
from kubesvc.api.pod import Pod
from kubesvc.client import Unreachable
from kubesvc.clock import rfc3339

from .context import NodeContext
from .ipam import Exhausted
from .podstatus import Observed, patch_of, plan_status

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
Step = tuple[str, float]


def parse_script(text: str) -> list[Step]:
    """A script as steps: `ready`, `unready`, `fail`, `succeed`, each with the seconds to wait before it, and `repeat`.

    Written `ready after 3s; unready after 10s; repeat`. "" is `ready`; `never` is no step at all. ValueError for
    anything else.
    """
    steps: list[Step] = []
    for part in (text or "ready").split(";"):
        words = part.split()
        if not words or words == ["never"]:
            continue
        if words[0] not in ("ready", "unready", "fail", "succeed", "repeat") or len(words) not in (1, 3):
            raise ValueError(
                f"{part.strip()!r}: must be ready, unready, fail, succeed, repeat or never, and `after 3s`"
            )
        seconds = 0.0
        if len(words) == 3:
            if words[1] != "after" or not words[2].endswith("s"):
                raise ValueError(f"{part.strip()!r}: must read `{words[0]} after 3s`")
            seconds = float(words[2][:-1])
        steps.append((words[0], seconds))
    return steps


class SimulatedPod:
    """One simulated Pod: status writes only."""

    def __init__(self, node: NodeContext, pod: Pod) -> None:
        self.node = node
        self.pod = pod
        self.gone = False
        self.deleted = asyncio.Event()
        self.ips: list[str] = [] if pod.terminal else list(pod.ips)
        for pool, ip in zip(node.pools, self.ips, strict=False):
            pool.take(ip)  # before any other pod is given an address
        self.start_time = pod.status.start_time or rfc3339(node.clock.now())
        if pod.terminating:
            self.deleted.set()

    def update(self, pod: Pod) -> None:
        self.pod = pod
        if pod.terminating:
            self.deleted.set()

    def removed(self) -> None:
        self.gone = True
        self.deleted.set()

    async def run(self) -> None:
        try:
            script = asyncio.create_task(self.follow_script())
            try:
                await self.deleted.wait()
            finally:
                script.cancel()
            if not self.gone:
                await self.finalise()
        finally:
            for pool, ip in zip(self.node.pools, self.ips, strict=False):
                pool.release(ip)

    async def follow_script(self) -> None:
        if self.pod.terminal:
            return
        try:
            steps = parse_script(self.pod.metadata.annotation(self.node.settings.simulated_script))
        except ValueError as error:
            self.node.events.pod(self.pod, "Warning", "Failed", f"Error: {error}")
            return
        try:
            self.ips = self.ips or [pool.allocate() for pool in self.node.pools]
        except Exhausted as error:
            self.node.events.pod(self.pod, "Warning", "FailedCreatePodSandBox", str(error))
            return
        if not steps or steps[0][1] > 0:
            await self.write("unready")
        while True:
            for word, seconds in steps:
                if seconds:
                    await asyncio.sleep(seconds)
                if word != "repeat":
                    await self.write(word)
            if ("repeat", 0.0) not in steps or not any(seconds for _, seconds in steps):
                return

    async def open_gates(self) -> None:
        """Make the condition of every readiness gate True, so that the Pod can be ready (NODE-116)."""
        closed = [
            gate.condition_type
            for gate in self.pod.spec.readiness_gates or ()
            if (found := self.pod.status.condition(gate.condition_type)) is None or found.status != "True"
        ]
        if closed:
            now = rfc3339(self.node.clock.now())
            conditions = [{"type": name, "status": "True", "lastTransitionTime": now} for name in closed]
            patch = {"metadata": {"uid": self.pod.metadata.uid}, "status": {"conditions": conditions}}
            answer = await self.node.client.patch(
                POD, self.pod.name, self.pod.namespace, patch, "strategic", subresource="status"
            )
            self.pod = typed(answer, Pod)

    async def write(self, word: str, stopped: bool = False) -> None:
        """Write the status that a step means, until the server takes it or finds it wrong. A pod that has run to its
        end stays as it is, whatever comes after in its script."""
        while not self.gone:
            if self.pod.terminal and not stopped:
                return
            if word == "ready":
                with contextlib.suppress(ApiError, Unreachable):  # the write below meets the same trouble and waits
                    await self.open_gates()
            wanted = plan_status(self.pod, self.observed(word, stopped), rfc3339(self.node.clock.now()))
            patch = patch_of(self.pod, wanted, None)
            if patch is None:
                return
            try:
                answer = await self.node.client.patch(
                    POD, self.pod.name, self.pod.namespace, patch, "strategic", subresource="status"
                )
                self.pod = typed(answer, Pod)
                return
            except (NotFound, Conflict):
                return
            except Invalid as error:  # and would be the next time
                log.warning("status of pod %s/%s refused: %s", self.pod.namespace, self.pod.name, error)
                return
            except (ApiError, Unreachable) as error:
                log.info("status of pod %s/%s not written: %s", self.pod.namespace, self.pod.name, error)
            await asyncio.sleep(RETRY_SECONDS)

    def observed(self, word: str, stopped: bool) -> Observed:
        now = rfc3339(self.node.clock.now())
        code = {"fail": 1, "succeed": 0}.get(word)
        if stopped:
            code = 0
        state = ContainerState(running=ContainerStateRunning(started_at=self.start_time))
        if code is not None:
            end = ContainerStateTerminated(
                exit_code=code, reason="Error" if code else "Completed", started_at=self.start_time, finished_at=now
            )
            state = ContainerState(terminated=end)
        statuses = {
            c.name: ContainerStatus(
                name=c.name,
                state=state,
                ready=word == "ready" and code is None,
                started=code is None,
                image=c.image,
                image_id=c.image,
                container_id=f"simulated://{self.pod.metadata.uid}/{c.name}",
            )
            for c in self.pod.spec.containers or ()
        }
        return Observed(
            statuses=statuses,
            ips=self.ips,
            host_ips=self.node.settings.node_addresses,
            networked=code is None,
            stopped=stopped,
            start_time=self.start_time,
        )

    async def finalise(self) -> None:
        """Stay terminating for as long as the annotation says, then go (NODE-119)."""
        text = self.pod.metadata.annotation(f"{self.node.settings.simulated_script}-stop-seconds")
        with contextlib.suppress(ValueError):
            await asyncio.sleep(min(float(text or 0), float(self.pod.metadata.deletion_grace_period_seconds or 0)))
        await self.write("unready", stopped=True)
        while not self.gone:
            try:
                uid = self.pod.metadata.uid
                await self.node.client.delete(POD, self.pod.name, self.pod.namespace, grace_seconds=0, uid=uid)
                return
            except (NotFound, Conflict):
                return
            except (ApiError, Unreachable) as error:
                log.info("pod %s/%s not deleted: %s", self.pod.namespace, self.pod.name, error)
            await asyncio.sleep(RETRY_SECONDS)
