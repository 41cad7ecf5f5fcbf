"""One container of a Pod: pulled, started, probed, stopped, started again (NODE-19 to 30, NODE-65 to 68)."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from kubesvc.api.container import (
    Container,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    LifecycleHandler,
    Probe,
)
from kubesvc.api.fields import quote
from kubesvc.api.pod import Pod
from kubesvc.clock import rfc3339
from kubesvc.kernel.mounts import Mount
from kubesvc.kernel.process import StartFailed, WatchedProcess

from .context import NodeContext
from .environment import MissingSource, needed_sources, plan_environment
from .execution import Execution
from .images import Image, full_name
from .imagewait import await_image
from .probe_plan import (
    ProbeKind,
)
from .prober import Prober, short_version
from .probes import http_headers, http_url, probe_http
from .records import ContainerRecord, PodRecord
from .restart_plan import BackOff, advance, back_off_message, restarts, wait_seconds
from .runtime import CreateFailed
from .sandbox import Sandbox
from .steering import steered
from .volumes import VolumeProblem, plan_mounts

log = logging.getLogger(__name__)

Role = Literal["init", "sidecar", "ordinary", "ephemeral"]

STOP_SECONDS = 2.0
"""A container has at least so long between its stop signal and SIGKILL (NODE-66)."""
CONFIG_RETRY_SECONDS = 2.0
CONFIG_EVENT_SECONDS = 10.0
"""A container that cannot be configured is looked at often, and said to be so as often as a kubelet would."""
SETTLE_SECONDS = 0.05
HOOK_SECONDS = 0.5
"""How long a hook is waited for when its container has ended: its processes have ended as well, or outlive it."""
SHOWN_SECONDS = 1.0
"""How long an ended container is shown as terminated before it is shown as waiting for its back-off."""


class PodView(Protocol):
    """What a container sees of its Pod's worker."""

    node: NodeContext
    pod: Pod
    record: PodRecord
    places: dict[str, Path]
    files: list[Mount]
    resolver_environment: Mapping[str, str]

    @property
    def sandbox(self) -> Sandbox: ...

    @property
    def stopping(self) -> bool: ...

    @property
    def sandbox_kept_apart(self) -> bool:
        """Whether each container is alone in its process namespace, and all of it ends with its first process."""
        ...

    def process_of(self, container: str) -> WatchedProcess | None:
        """The running process of another container of the Pod."""
        ...

    def touch(self) -> None:
        """Something that the status says has changed."""
        ...

    def save(self) -> None: ...


class ContainerRunner:
    """Runs one container of one Pod until it will not run again. Its `status` is always what the API should say."""

    def __init__(self, view: PodView, container: Container, role: Role, before: ContainerStatus | None = None) -> None:
        self.view = view
        self.node = view.node
        self.container = container
        self.role: Role = role
        self.restart_count = before.restart_count if before is not None else 0
        self.last_state = before.last_state if before is not None else ContainerState()
        self.state = ContainerState(waiting=ContainerStateWaiting(reason=self.first_reason()))
        self.image_shown = container.image
        self.image_id = ""
        self.container_id = ""
        self.attempt = self.restart_count
        """The run that is going on or is being prepared; `restart_count` follows when it begins."""
        self.next_id = ""
        self.image: Image | None = None
        self.execution: Execution | None = None
        """The run that is going on."""
        self.finished_at = 0.0
        self.hook_trouble = ""
        """What the present run's postStart hook has failed with."""
        self.held: ContainerStatus | None = None
        """What is shown while the postStart hook is under way: a container is not called running before it is over."""
        self.back_off: BackOff | None = None
        self.prober = Prober(self)
        self.output = self.node.runtime.output(self.directory, container)
        self.launched = asyncio.Event()
        """Set once the first attempt to start it is over, well or badly."""
        self.completed = False
        self.task: asyncio.Task[None] | None = None
        self.kill_task: asyncio.Task[None] | None = None

    # -- what is shown ------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.container.name

    @property
    def init(self) -> bool:
        return self.role in ("init", "sidecar")

    def first_reason(self) -> str:
        """The waiting reason of a container that nothing was done for yet (NODE-19)."""
        return "PodInitializing" if self.view.pod.spec.init_containers else "ContainerCreating"

    @property
    def process(self) -> WatchedProcess | None:
        """The first process of the run that is going on."""
        return self.execution.process if self.execution is not None else None

    @property
    def running(self) -> bool:
        return self.execution is not None

    @property
    def started(self) -> bool:
        return self.running and self.held is None and self.prober.started

    @property
    def ready(self) -> bool:
        if self.role == "init":
            return self.completed
        if self.container.readiness_probe is None and steered(self.view.pod) == "off":
            return False
        return self.running and self.held is None and self.prober.ready

    @property
    def status(self) -> ContainerStatus:
        """NODE-19 to NODE-22."""
        if self.held is not None:
            return self.held
        return ContainerStatus(
            name=self.name,
            state=self.state,
            last_state=self.last_state,
            ready=self.ready,
            started=self.started,
            restart_count=self.restart_count,
            image=self.image_shown,
            image_id=self.image_id,
            container_id=self.container_id,
        )

    def wait_for(self, reason: str, message: str = "") -> None:
        """Show it as waiting; an end so far shown becomes the last state."""
        if self.state.terminated is not None:
            self.last_state = ContainerState(terminated=self.state.terminated)
        state = ContainerState(waiting=ContainerStateWaiting(reason=reason, message=message))
        if state != self.state:
            self.state = state
            self.view.touch()

    def event(self, severity: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self.node.events.pod(self.view.pod, severity, reason, message, self.name, self.init)

    # -- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until the container has ended and will not run again. Cancelled, it lets a running process run."""
        try:
            while True:
                if self.execution is None and not await self.start():
                    pass  # it ended before it began; decided below like any other end
                if self.execution is not None:
                    await self.attend(self.execution)
                end = self.state.terminated or self.last_state.terminated
                assert end is not None
                if end.exit_code == 128 + signal.SIGKILL and not self.view.sandbox_kept_apart:
                    await asyncio.sleep(SETTLE_SECONDS)  # all may have ended with the sandbox, which is told of last
                if self.view.stopping or not self.will_restart(end.exit_code):
                    self.state = ContainerState(terminated=end)
                    self.completed = end.exit_code == 0
                    self.view.touch()
                    return
                await self.wait_back_off()
                self.attempt += 1
        finally:
            self.launched.set()
            self.prober.stop()
            if self.execution is not None:
                self.execution.process.close()
            self.output.close()

    def will_restart(self, exit_code: int) -> bool:
        if self.role == "ephemeral":
            return False
        policy = self.view.pod.spec.restart_policy
        return restarts(policy, self.container, exit_code, init=self.role == "init")

    @property
    def comes_back(self) -> bool:
        """Whether it is to run again in a new sandbox."""
        end = self.state.terminated or self.last_state.terminated
        if self.running:
            return self.will_restart(128 + signal.SIGKILL)
        return self.role != "ephemeral" and (end is None or self.will_restart(end.exit_code))

    async def wait_back_off(self) -> None:
        """Wait as NODE-25 says; shown as CrashLoopBackOff (NODE-27)."""
        now = self.node.clock.monotonic()
        seconds = wait_seconds(self.back_off, self.finished_at, now)
        if seconds > 0 and self.back_off is not None:
            await asyncio.sleep(min(SHOWN_SECONDS, seconds))
            pod = self.view.pod
            words = back_off_message(self.back_off.seconds, self.name, pod.name, pod.namespace, pod.metadata.uid)
            self.wait_for("CrashLoopBackOff", words)
            place = f"pod {pod.name}_{pod.namespace}({pod.metadata.uid})"
            self.event("Warning", "BackOff", f"Back-off restarting failed container {self.name} in {place}")
            await asyncio.sleep(max(0.0, seconds - SHOWN_SECONDS))
        self.back_off = advance(
            self.back_off, self.node.clock.monotonic(), self.node.settings.crash_back_off_cap_seconds
        )

    # -- start --------------------------------------------------------------------------------------------------------

    async def start(self) -> bool:
        """Bring the container to run; waits and tries again for what may come. False when its start failed."""
        self.image = await self.pull()
        said, said_at = "", 0.0
        while True:
            try:
                environment, mounts = await self.configure(self.image)
                self.execution = await self.node.runtime.launch(self, self.image, environment, mounts)
                await self.post_start()
                return True
            except CreateFailed as error:
                self.output.end_run()
                self.wait_for("CreateContainerError", str(error))
                said, said_at = self.complain(str(error), said, said_at)
            except (StartFailed, OSError) as error:
                self.start_failed(str(error))
                return False
            finally:
                self.launched.set()
            await asyncio.sleep(CONFIG_RETRY_SECONDS)

    def complain(self, words: str, said: str, said_at: float) -> tuple[str, float]:
        """Tell what keeps the container from being made, unless just told; what was told last, and when."""
        now = self.node.clock.monotonic()
        if words == said and now - said_at < CONFIG_EVENT_SECONDS:
            return said, said_at
        self.event("Warning", "Failed", f"Error: {words}")
        return words, now

    async def pull(self) -> Image:
        """The image, waited for until there is one."""
        image = await await_image(self)
        self.image_shown = full_name(self.container.image)
        self.image_id = image.origin or image.identity or f"kubesvc.standin/{image.said}"
        return image

    def late(self) -> None:
        """The start takes longer than the containers after it wait."""
        self.launched.set()

    async def configure(self, image: Image) -> tuple[dict[str, str], list[Mount]]:
        """Environment and volume mounts, waited for while something they need does not exist (NODE-78)."""
        pod = self.view.pod
        volumes = {v.name: v for v in pod.spec.volumes or ()}
        said, said_at = "", 0.0
        while True:
            try:
                maps, secrets = await self.node.fetch(pod.namespace, *needed_sources(pod))
                sources = self.node.sources(pod, self.view.sandbox.ips, maps, secrets)
                base = self.node.runtime.first_environment(self, image)
                environment = plan_environment(pod, self.container, sources, base)
                self.identity()  # refuses now what it would refuse at the start
                return environment, plan_mounts(self.container, self.view.places, volumes, environment)
            except (MissingSource, VolumeProblem) as error:
                self.launched.set()
                self.wait_for("CreateContainerConfigError", str(error))
                said, said_at = self.complain(str(error), said, said_at)
            await asyncio.sleep(CONFIG_RETRY_SECONDS)

    def identity(self) -> tuple[int, int]:
        """(user, group) of the container; MissingSource where it must not be root and is, or cannot be who it shall;
        CreateFailed where its image does not know its user."""
        pod_context, context = self.view.pod.spec.security_context, self.container.security_context
        user = context.run_as_user if context is not None else None
        group = context.run_as_group if context is not None else None
        if user is None:
            user = pod_context.run_as_user if pod_context is not None else None
        if group is None:
            group = pod_context.run_as_group if pod_context is not None else None
        if user is None and self.image is not None:
            user = self.image.user
            group = self.image.group if group is None else group
        contexts = [c for c in (context, pod_context) if c is not None]
        numbered = any(c.run_as_user is not None for c in contexts)
        strict = next((c.run_as_non_root for c in contexts if c.run_as_non_root is not None), False)
        if strict:
            self.refuse_root(user, numbered)
        if not numbered and self.image is not None and self.image.user_trouble:
            raise CreateFailed(self.image.user_trouble)
        missing = self.node.ids.missing(user or 0, group or 0, self.supplemental_groups())
        if missing:
            raise MissingSource(missing)
        return user or 0, group or 0

    def refuse_root(self, user: int | None, numbered: bool) -> None:
        """MissingSource for a container that must not be root, and is or may be; numbered: the Pod says who it is."""
        if not user and numbered:
            raise MissingSource(f"container's runAsUser breaks non-root policy {self.place}")
        if not numbered and self.image is not None and self.image.username:
            named = f"image has non-numeric user ({self.image.username}), cannot verify user is non-root"
            raise MissingSource(f"container has runAsNonRoot and {named} {self.place}")
        if not user:
            raise MissingSource(f"container has runAsNonRoot and image will run as root {self.place}")

    @property
    def place(self) -> str:
        """Which container of which Pod, as refusals name it."""
        pod = self.view.pod
        return f'(pod: "{pod.name}_{pod.namespace}({pod.metadata.uid})", container: {self.name})'

    def begin(self) -> None:
        """Show it as running, unless a hook comes first, and forget what the last run's probes found."""
        if self.container.lifecycle is not None and self.container.lifecycle.post_start is not None:
            self.held = self.status
        self.container_id, self.restart_count = self.next_id, self.attempt
        if self.state.terminated is not None:
            self.last_state = ContainerState(terminated=self.state.terminated)
        record = self.view.record.containers.get(self.name)  # what it says is what an agent that adopts the run says
        started_at = record.started_at if record is not None else rfc3339(self.node.clock.now())
        self.state = ContainerState(running=ContainerStateRunning(started_at=started_at))
        self.prober.begin()
        self.view.touch()

    def adopt(self, process: WatchedProcess, record: ContainerRecord, before: ContainerStatus | None) -> None:
        """Take over a container that an earlier agent started and that still runs (NODE-45)."""
        self.container_id, self.image_shown, self.image_id = record.id, record.image, record.image_id
        self.restart_count = self.attempt = record.attempt
        self.state = ContainerState(running=ContainerStateRunning(started_at=record.started_at))
        self.prober.begin(adopted=True)
        if before is not None and before.container_id == record.id:
            self.prober.believe(started=bool(before.started), ready=before.ready)
        self.execution = self.node.runtime.adopt(self, process)
        self.output.open(self.attempt, running=True)
        self.launched.set()

    @property
    def directory(self) -> Path:
        """Where what belongs to this container is kept, below the Pod's directory."""
        return self.node.records.pod_directory(self.view.pod.metadata.uid) / "containers" / self.name

    def files_besides(self, mounts: Sequence[Mount]) -> list[Mount]:
        """The Pod's own files, but for those where the container mounts something itself (NODE-82)."""
        taken = {m.target for m in mounts}
        return [m for m in self.view.files if m.target not in taken]

    def supplemental_groups(self) -> list[int]:
        context = self.view.pod.spec.security_context
        if context is None:
            return []
        groups = list(context.supplemental_groups or ())
        return [*groups, context.fs_group] if context.fs_group is not None else groups

    def start_failed(self, words: str) -> None:
        """A container whose program could not start has ended at once; it waits where it will be tried again."""
        now = rfc3339(self.node.clock.now())
        self.finished_at = self.node.clock.monotonic()
        self.output.end_run()
        self.event("Warning", "Failed", f"Error: {words}")
        self.container_id, self.restart_count = self.next_id, self.attempt
        if self.state.terminated is not None:
            self.last_state = ContainerState(terminated=self.state.terminated)
        self.state = ContainerState(
            terminated=ContainerStateTerminated(
                exit_code=128,
                reason="StartError",
                message=words,
                started_at=now,
                finished_at=now,
                container_id=self.container_id,
            )
        )
        if self.will_restart(128) and not self.view.stopping:
            self.wait_for("RunContainerError", words)
        self.view.touch()

    # -- while it runs ------------------------------------------------------------------------------------------------

    async def attend(self, run: Execution) -> None:
        """Probe it until it ends, then say how it ended."""
        if self.role not in ("init", "ephemeral"):
            self.prober.start()
        self.view.touch()
        code = await run.process.wait()
        self.prober.stop()
        self.ended(run, code)

    def ended(self, run: Execution, code: int | None) -> None:
        """Take note of the end: state, log, termination message."""
        self.execution = None
        if not self.view.sandbox_kept_apart or self.container.target_container_name:
            run.end_rest()
        self.finished_at = self.node.clock.monotonic()
        self.output.end_run()
        running = self.state.running
        if code is None:  # an earlier agent's child, whose code nobody could collect
            exit_code, reason = 137, "ContainerStatusUnknown"
        else:
            exit_code = code if code >= 0 else 128 - code
            reason = "Completed" if exit_code == 0 else "Error"
            if exit_code and run.out_of_memory():
                reason = "OOMKilled"
        self.state = ContainerState(
            terminated=ContainerStateTerminated(
                exit_code=exit_code,
                reason=reason,
                message=self.output.termination_message(exit_code),
                started_at=running.started_at if running is not None else None,
                finished_at=rfc3339(self.node.clock.now()),
                container_id=self.container_id,
            )
        )
        trouble, self.hook_trouble = self.hook_trouble, ""
        if trouble and self.will_restart(exit_code) and not self.view.stopping:
            self.wait_for("PostStartHookError", trouble)
        self.prober.end()
        self.view.touch()

    @property
    def grace_seconds(self) -> int:
        seconds = self.view.pod.spec.termination_grace_period_seconds
        return 30 if seconds is None else seconds

    async def execute(self, command: Sequence[str], timeout_seconds: float) -> tuple[int | None, bytes]:
        """Run a command in the container: (exit code, None for a timeout; output). OSError if it does not run."""
        if self.execution is None:
            raise OSError("container not running")
        return await self.execution.execute(command, timeout_seconds)

    # -- for its prober -----------------------------------------------------------------------------------------------

    @property
    def pod(self) -> Pod:
        return self.view.pod

    @property
    def address(self) -> str:
        return next(iter(self.view.sandbox.ips), "127.0.0.1")

    def touch(self) -> None:
        self.view.touch()

    def failed(self, kind: ProbeKind, probe: Probe) -> None:
        """A liveness or startup probe failed too often: end the run, and another follows (NODE-41)."""
        grace = probe.termination_grace_period_seconds or self.grace_seconds
        words = f"Container {self.name} failed {kind} probe, will be restarted"
        self.kill_task = asyncio.create_task(self.terminate(float(grace), words))

    # -- stop ---------------------------------------------------------------------------------------------------------

    async def terminate(self, grace_seconds: float, words: str) -> None:
        """Stop the running process: preStop hook, stop signal, SIGKILL when time is up (NODE-65 to NODE-67)."""
        run = self.execution
        if run is None:
            return
        self.event("Normal", "Killing", words)
        clock = self.node.clock
        deadline = clock.monotonic() + grace_seconds
        hook = self.container.lifecycle.pre_stop if self.container.lifecycle is not None else None
        if hook is not None and grace_seconds > 0:
            try:
                async with asyncio.timeout(grace_seconds):
                    await self.run_hook_of(run, hook)
            except TimeoutError:
                pass
            except HookFailed:
                self.event("Warning", "FailedPreStopHook", "PreStopHook failed")

        def tell(trouble: str) -> None:
            log.error("pod %s/%s: %s", self.pod.namespace, self.pod.name, trouble)
            self.node.events.pod(self.pod, "Warning", "FailedKillPod", f"error killing pod: {trouble}")

        await run.stop(self.stop_signal, max(STOP_SECONDS, deadline - clock.monotonic()), tell)

    def hurry(self) -> None:
        """No more grace: end it now."""
        if self.process is not None:
            self.process.signal(signal.SIGKILL)

    @property
    def stop_signal(self) -> int:
        wanted = self.container.lifecycle.stop_signal if self.container.lifecycle is not None else None
        if wanted and wanted in signal.Signals.__members__:
            return signal.Signals[wanted]
        return self.image.stop_signal if self.image is not None else signal.SIGTERM

    async def run_hook_of(self, run: Execution, hook: LifecycleHandler) -> None:
        """Do what a hook says, no longer than the run lasts that it is for. HookFailed if it fails."""
        hooked, ended = asyncio.ensure_future(self.run_hook(hook)), asyncio.ensure_future(run.process.wait())
        try:
            await asyncio.wait({hooked, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not hooked.done():
                await asyncio.wait({hooked}, timeout=HOOK_SECONDS)
            if hooked.done():
                hooked.result()
        finally:
            for task in (hooked, ended):
                task.cancel()
            await asyncio.wait({hooked, ended})

    async def run_hook(self, hook: LifecycleHandler) -> None:
        """Do what a hook says (NODE-68). HookFailed if it fails."""
        if hook.sleep is not None:
            await asyncio.sleep(hook.sleep.seconds)
        elif hook.exec is not None:
            await self.run_exec_hook(hook.exec.command or ())
        elif hook.http_get is not None:
            url = http_url(hook.http_get, self.container, self.address)
            agent = f"kube-lifecycle/{short_version(self.node.settings.version)}"
            outcome = await probe_http(url or "", http_headers(hook.http_get), agent)
            if outcome.result == "failure" and url and url.startswith("https:"):
                outcome = await probe_http("http:" + url[6:], http_headers(hook.http_get), agent)
            if outcome.result == "failure":
                raise HookFailed(
                    f"HTTP lifecycle hook ({hook.http_get.path}) {self.hook_place} - error: {outcome.detail}"
                )

    async def run_exec_hook(self, command: Sequence[str]) -> None:
        output, line = b"", " ".join(command)
        try:
            code, output = await self.execute(command, 24 * 3600.0)
        except OSError as error:
            reason = str(error)
        else:
            if not code:
                return
            reason = f"command '{line}' exited with {code}: {output.decode(errors='replace')}"
        said = quote(output.decode(errors="replace"))
        raise HookFailed(f"Exec lifecycle hook ([{line}]) {self.hook_place} - error: {reason}, message: {said}")

    @property
    def hook_place(self) -> str:
        pod = self.view.pod
        return f'for Container "{self.name}" in Pod "{pod.name}_{pod.namespace}({pod.metadata.uid})" failed'

    async def post_start(self) -> None:
        """The hook after the start; its failure ends the container (NODE-67)."""
        hook = self.container.lifecycle.post_start if self.container.lifecycle is not None else None
        if hook is None or self.execution is None:
            return
        try:
            await self.run_hook_of(self.execution, hook)
        except HookFailed as error:
            self.event("Warning", "FailedPostStartHook", "PostStartHook failed")
            self.hook_trouble = str(error)
            await self.terminate(float(self.grace_seconds), "FailedPostStartHook")
        finally:
            self.held = None
            self.view.touch()


class HookFailed(Exception):
    """A lifecycle hook did not do its work."""
