"""One container of a Pod: pulled, started, probed, stopped, started again (NODE-19 to 30, NODE-65 to 68)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
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
)
from kubesvc.api.pod import Pod
from kubesvc.clock import rfc3339
from kubesvc.kernel.cgroups import Group
from kubesvc.kernel.mounts import Mount, RootPlan, is_below, plan_steps
from kubesvc.kernel.namespaces import nsexec_command
from kubesvc.kernel.nsexec import FAILED
from kubesvc.kernel.process import Spawn, StartFailed, WatchedProcess, session_processes

from .attach import ContainerInput, Terminal
from .context import NodeContext
from .environment import MissingSource, expand, needed_sources, plan_environment
from .images import Image, ImageProblem, full_name, python_binds
from .limits import container_limits, needed_controllers, rlimits
from .logs import LogFile, LogPipe
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
from .probes import Outcome, http_headers, http_url, probe_http, try_probe
from .records import ContainerRecord, PodRecord
from .restart_plan import BackOff, advance, back_off_message, restarts, wait_seconds
from .sandbox import Sandbox
from .settings import NodeSettings
from .steering import steered, steered_outcome
from .volumes import VolumeProblem, plan_mounts

log = logging.getLogger(__name__)

Role = Literal["init", "sidecar", "ordinary", "ephemeral"]

STOP_SECONDS = 2.0
"""A container has at least so long between its stop signal and SIGKILL (NODE-66)."""
EARLY_TRIES_SECONDS = (0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.25, 0.4)
"""Pauses of the extra tries of a readiness or startup probe after the start (NODE-42); they stay within a second."""
MESSAGE_BYTES = 4096
LOG_MESSAGE_BYTES = 2048
LOG_MESSAGE_LINES = 80
CONFIG_RETRY_SECONDS = 2.0
CONFIG_EVENT_SECONDS = 10.0
"""A container that cannot be configured is looked at often, and said to be so as often as a kubelet would."""
SHOWN_SECONDS = 1.0
"""How long an ended container is shown as terminated before it is shown as waiting for its back-off."""
DEFAULT_CAPABILITIES = 0xA80425FB
"""What container engines leave to root: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap."""
CAPABILITY_NAMES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]


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


def capability_mask(container: Container) -> int | None:
    """Which capabilities a container keeps; None for all."""
    context = container.security_context
    if context is not None and context.privileged:
        return None
    mask, every = DEFAULT_CAPABILITIES, (1 << len(CAPABILITY_NAMES)) - 1
    wanted = context.capabilities if context is not None else None
    if wanted is None:
        return mask
    for name in wanted.drop or ():
        mask &= 0 if name.upper() == "ALL" else ~capability_bit(name)
    for name in wanted.add or ():
        mask |= every if name.upper() == "ALL" else capability_bit(name)
    return mask


def capability_bit(name: str) -> int:
    short = name.upper().removeprefix("CAP_")
    return 1 << CAPABILITY_NAMES.index(short) if short in CAPABILITY_NAMES else 0


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
        self.environment: dict[str, str] = {}
        self.process: WatchedProcess | None = None
        self.finished_at = 0.0
        self.adopted = False
        self.started_at = 0.0
        self.back_off: BackOff | None = None
        self.probes: dict[ProbeKind, ProbeState] = {}
        self.probe_tasks: list[asyncio.Task[None]] = []
        self.log_file: LogFile | None = None
        self.pipes: list[LogPipe] = []
        self.input: ContainerInput | None = None
        self.launched = asyncio.Event()
        """Set once the first attempt to start it is over, well or badly."""
        self.startup_done = asyncio.Event()
        self.completed = False
        self.task: asyncio.Task[None] | None = None
        self.kill_task: asyncio.Task[None] | None = None
        self.user: tuple[int, int] = (0, 0)
        self.group = Group()

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
    def running(self) -> bool:
        return self.process is not None

    @property
    def started(self) -> bool:
        return self.running and is_started(self.container, self.probes.get("startup"))

    @property
    def ready(self) -> bool:
        if self.role == "init":
            return self.completed
        if self.container.readiness_probe is None and steered(self.view.pod) == "off":
            return False
        return self.running and is_ready(self.container, self.started, self.probes.get("readiness"))

    @property
    def status(self) -> ContainerStatus:
        """NODE-19 to NODE-22."""
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
                if self.process is None and not await self.start():
                    pass  # it ended before it began; decided below like any other end
                if self.process is not None:
                    await self.attend(self.process)
                end = self.state.terminated
                assert end is not None
                if self.view.stopping or not self.will_restart(end.exit_code):
                    self.completed = end.exit_code == 0
                    self.view.touch()
                    return
                await self.back_off_after(end)
                self.attempt += 1
        finally:
            self.launched.set()
            self.stop_probes()
            if self.process is not None:
                self.process.close()
            for pipe in self.pipes:
                pipe.close()
            if self.input is not None:
                self.input.close()
            if self.log_file is not None:
                self.log_file.close()

    def will_restart(self, exit_code: int) -> bool:
        if self.role == "ephemeral":
            return False
        policy = self.view.pod.spec.restart_policy
        return restarts(policy, self.container, exit_code, init=self.role == "init")

    async def back_off_after(self, end: ContainerStateTerminated) -> None:
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
        environment, mounts = await self.configure(self.image)
        self.environment = environment
        try:
            self.process = await self.launch(self.image, environment, mounts)
            await self.post_start()
        except (StartFailed, OSError) as error:
            self.start_failed(str(error))
            return False
        finally:
            self.launched.set()
        return True

    async def pull(self) -> Image:
        """The image, waited for with back-off while nothing stands for it (NODE-28)."""
        name, policy = self.container.image, self.container.image_pull_policy
        back_off: BackOff | None = None
        while True:
            try:
                image = self.node.image(name)
                break
            except ImageProblem as error:
                self.launched.set()
                if error.reason == "InvalidImageName":
                    self.wait_for("InvalidImageName", str(error))
                    self.event("Warning", "InspectFailed", str(error))
                    await asyncio.sleep(CONFIG_RETRY_SECONDS * 5)
                    continue
                if policy == "Never":
                    words = f'Container image "{name}" is not present with pull policy of Never'
                    self.wait_for("ErrImageNeverPull", words)
                    self.event("Warning", "ErrImageNeverPull", words)
                    await asyncio.sleep(CONFIG_RETRY_SECONDS * 5)
                    continue
                if back_off is None:
                    self.event("Normal", "Pulling", f'Pulling image "{name}"')
                self.event("Warning", "Failed", f'Failed to pull image "{name}": {error}')
                self.event("Warning", "Failed", "Error: ErrImagePull")
                self.wait_for("ErrImagePull", str(error))
                cap = self.node.settings.image_back_off_cap_seconds
                back_off = advance(back_off, self.node.clock.monotonic(), cap)
                await asyncio.sleep(min(SHOWN_SECONDS, back_off.seconds))
                words = f'Back-off pulling image "{name}"'
                self.event("Normal", "BackOff", words)
                self.event("Warning", "Failed", "Error: ImagePullBackOff")
                self.wait_for("ImagePullBackOff", f"{words}: ErrImagePull: {error}")
                await asyncio.sleep(max(0.0, back_off.seconds - SHOWN_SECONDS))
        self.event("Normal", "Pulled", f'Container image "{name}" already present on machine')
        self.image_shown = full_name(name)
        self.image_id = image.identity
        if not image.identity:
            self.event("Normal", "StandIn", f'Image "{name}" is stood in for by {image.said}')
            self.image_id = f"kubesvc.standin/{image.said}"
        return image

    async def configure(self, image: Image) -> tuple[dict[str, str], list[Mount]]:
        """Environment and volume mounts, waited for while something they need does not exist (NODE-78)."""
        pod = self.view.pod
        volumes = {v.name: v for v in pod.spec.volumes or ()}
        said, said_at = "", 0.0
        while True:
            try:
                maps, secrets = await self.node.fetch(pod.namespace, *needed_sources(pod))
                sources = self.node.sources(pod, self.view.sandbox.ips, maps, secrets)
                base = {
                    "HOSTNAME": self.view.resolver_environment.get("HOSTNAME", pod.name),
                    "HOME": "/root",
                    **image.env,
                }
                environment = plan_environment(pod, self.container, sources, base)
                self.user = self.identity()
                return environment, plan_mounts(self.container, self.view.places, volumes, environment)
            except (MissingSource, VolumeProblem) as error:
                self.launched.set()
                self.wait_for("CreateContainerConfigError", str(error))
                now = self.node.clock.monotonic()
                if str(error) != said or now - said_at >= CONFIG_EVENT_SECONDS:
                    said, said_at = str(error), now
                    self.event("Warning", "Failed", f"Error: {error}")
            await asyncio.sleep(CONFIG_RETRY_SECONDS)

    def identity(self) -> tuple[int, int]:
        """(user, group) of the container; MissingSource where it must not be root and is, or cannot be who it shall."""
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
        strict = (context.run_as_non_root if context is not None else None) or (
            pod_context.run_as_non_root if pod_context is not None else None
        )
        if strict and not user:
            raise MissingSource("container has runAsNonRoot and image will run as root")
        missing = self.node.ids.missing(user or 0, group or 0, self.supplemental_groups())
        if missing:
            raise MissingSource(missing)
        return user or 0, group or 0

    async def launch(self, image: Image, environment: dict[str, str], mounts: Sequence[Mount]) -> WatchedProcess:
        """Start the process. StartFailed or OSError if it cannot be; what was made for it is gone then."""
        container, settings = self.container, self.node.settings
        command = [expand(word, environment) for word in container.command or ()]
        argv = image.argv(command, [expand(word, environment) for word in container.args or ()])
        if not argv:
            raise StartFailed("no command specified")
        self.next_id = f"kubesvc://{self.node.random.getrandbits(256):064x}"
        directory = self.directory
        directory.mkdir(parents=True, exist_ok=True)
        message_file = directory / f"{self.attempt}.termination"
        message_file.touch()
        message_file.chmod(0o666)
        room = directory / "root"
        room.mkdir(exist_ok=True)
        message_path = container.termination_message_path or "/dev/termination-log"
        context = container.security_context
        plan = RootPlan(
            base=image.directory or "/",
            overlay=self.node.overlay is not None,
            overlay_options=self.node.overlay or "",
            layer_bytes=settings.writable_layer_bytes,
            carried=() if image.directory else self.node.carried,
            hidden=() if image.directory else hidden_directories(settings),
            fresh=image.fresh,
            files=image.files,
            links=image.links,
            kept=image.binds if image.identity else (*image.binds, *python_binds()),
            workdir=container.working_dir or image.workdir if image.directory else "",
            mounts=[*self.files_besides(mounts), *mounts, Mount(str(message_file), message_path)],
            read_only=bool(context is not None and context.read_only_root_filesystem),
        )
        self.open_logs()
        outputs = [pipe.for_container() for pipe in self.pipes]
        stdin = self.open_input()
        sandbox = self.view.sandbox
        kinds, new, inside = sandbox.kinds, sandbox.new, sandbox.pid
        if container.target_container_name and new:  # kubectl debug --target: among that container's processes
            target = self.view.process_of(container.target_container_name)
            if target is None:
                raise StartFailed(f"target container {container.target_container_name!r} is not running")
            kinds, new, inside = (*kinds, "pid"), (), target.pid
        uid, gid = self.user
        spec = {
            "place": str(room),
            "uid": uid,
            "gid": gid,
            "groups": sorted({gid, *self.supplemental_groups()}),
            "capabilities": capability_mask(container),
            "no_new_privileges": bool(context is not None and context.allow_privilege_escalation is False),
            "terminal": container.tty,
            "limits": self.rlimits(),
        }
        self.group = await self.make_group()
        try:
            prepared = await self.node.spawner.prepare_container(
                Spawn(
                    argv=argv,
                    env=environment,
                    cwd=container.working_dir or image.workdir,
                    inside=inside,
                    kinds=kinds,
                    new=new,
                    stdin=stdin,
                    stdout=outputs[0],
                    stderr=outputs[-1],
                ),
                spec,
                plan_steps(plan),
            )
        finally:
            for fd in (*outputs, *(() if stdin is None else (stdin,))):
                os.close(fd)
        process = prepared.process
        try:
            self.group.add(process.pid)
        except OSError:
            prepared.close()
            raise
        self.view.record.containers[self.name] = ContainerRecord(
            name=self.name,
            id=self.next_id,
            attempt=self.attempt,
            pid=process.pid,
            start_time=process.start_time,
            started_at=rfc3339(self.node.clock.now()),
            image=self.image_shown,
            image_id=self.image_id,
            stop_signal=image.stop_signal,
        )
        self.view.save()
        self.event("Normal", "Created", "Container created")
        try:
            await prepared.go()
        except StartFailed as error:
            raise StartFailed(go_words(str(error), argv)) from None
        self.event("Normal", "Started", "Container started")
        self.begin()
        return process

    async def make_group(self) -> Group:
        """A fresh control group for one run; none where there are no control groups."""
        groups, pod = self.node.groups, self.view.pod
        if groups is None:
            return Group()
        path = f"{pod.metadata.uid}/{self.name}"
        controllers = needed_controllers(pod, self.node.settings.pod_pids_limit)
        await asyncio.to_thread(groups.remove, path)
        return await asyncio.to_thread(groups.make, path, container_limits(self.container), controllers)

    def rlimits(self) -> dict[int, tuple[int, int]]:
        held = self.node.groups.controllers if self.node.groups is not None else ()
        return rlimits(container_limits(self.container), self.node.settings.pod_pids_limit, held)

    def begin(self) -> None:
        """Show it as running and forget what the last run's probes found."""
        self.started_at = self.node.clock.monotonic()
        self.container_id, self.restart_count = self.next_id, self.attempt
        if self.state.terminated is not None:
            self.last_state = ContainerState(terminated=self.state.terminated)
        self.state = ContainerState(running=ContainerStateRunning(started_at=rfc3339(self.node.clock.now())))
        self.probes = {kind: first_state(kind) for kind in kinds_of(self.container)}
        self.startup_done.clear()
        self.view.touch()

    def adopt(self, process: WatchedProcess, record: ContainerRecord, before: ContainerStatus | None) -> None:
        """Take over a container that an earlier agent started and that still runs (NODE-45)."""
        self.process = process
        self.adopted = True
        self.container_id, self.image_shown, self.image_id = record.id, record.image, record.image_id
        self.restart_count = self.attempt = record.attempt
        self.started_at = self.node.clock.monotonic()
        self.state = ContainerState(running=ContainerStateRunning(started_at=record.started_at))
        self.probes = {kind: first_state(kind) for kind in kinds_of(self.container)}
        if before is not None and before.container_id == record.id:
            if before.started and "startup" in self.probes:
                self.probes["startup"] = ProbeState("startup", "success", "success", 1, done=True)
            if before.ready and "readiness" in self.probes:
                self.probes["readiness"] = ProbeState("readiness", "success", "success", 1)
        with contextlib.suppress(ImageProblem):
            self.image = self.node.image(self.container.image)
        with contextlib.suppress(MissingSource):
            self.user = self.identity()
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{process.pid}/environ").read_text(errors="replace")
            self.environment = dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair)
        if self.node.groups is not None:
            self.group = self.node.groups.find(f"{self.view.pod.metadata.uid}/{self.name}")
        self.open_logs()
        self.launched.set()

    @property
    def directory(self) -> Path:
        """Where what belongs to this container is kept, below the Pod's directory."""
        return self.node.records.pod_directory(self.view.pod.metadata.uid) / "containers" / self.name

    @property
    def log_path(self) -> Path:
        return self.directory / f"{self.attempt}.log"

    def open_logs(self) -> None:
        settings = self.node.settings
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_file = LogFile(self.log_path, self.node.clock, settings.log_file_bytes, settings.log_files)
        if self.container.tty and self.process is None:
            self.pipes = [Terminal(self.directory / f"{self.attempt}.tty", self.log_file)]
            return
        self.pipes = [
            LogPipe(self.directory / f"{self.attempt}.{stream}", stream, self.log_file)
            for stream in ("stdout", "stderr")
        ]

    @property
    def stdin_once(self) -> bool:
        return self.container.stdin_once

    def open_input(self) -> int | None:
        """The descriptor of a new run's stdin, None for one that has none; the caller closes it after the spawn."""
        if self.container.tty:
            terminal = self.pipes[0]
            self.input = ContainerInput(os.dup(terminal.fd)) if self.container.stdin else None
            return terminal.for_container()
        if not self.container.stdin:
            return None
        far, near = os.pipe()
        self.input = ContainerInput(near)
        return far

    def close_logs(self) -> None:
        if self.input is not None:
            self.input.close()
            self.input = None
        for pipe in self.pipes:
            pipe.drain()
            with contextlib.suppress(OSError):
                pipe.path.unlink()
        if self.log_file is not None:
            self.log_file.close()
        self.pipes = []
        for old in self.directory.glob("*.log*"):  # the present run and the one before are kept
            number = old.name.partition(".")[0]
            if number.isdigit() and int(number) < self.attempt - 1:
                old.unlink(missing_ok=True)

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
        """A container whose program could not start has ended at once."""
        now = rfc3339(self.node.clock.now())
        self.finished_at = self.node.clock.monotonic()
        self.close_logs()
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
        self.view.touch()

    # -- while it runs ------------------------------------------------------------------------------------------------

    async def attend(self, process: WatchedProcess) -> None:
        """Probe it until it ends, then say how it ended."""
        self.start_probes()
        self.view.touch()
        code = await process.wait()
        self.stop_probes()
        self.ended(process, code)

    def ended(self, process: WatchedProcess, code: int | None) -> None:
        """Take note of the end: state, log, termination message."""
        self.process = None
        self.adopted = False
        if not self.view.sandbox_kept_apart or self.container.target_container_name:
            end_rest(self.group, process.pid)
        self.finished_at = self.node.clock.monotonic()
        self.close_logs()
        running = self.state.running
        if code is None:  # an earlier agent's child, whose code nobody could collect
            exit_code, reason = 137, "ContainerStatusUnknown"
        else:
            exit_code = code if code >= 0 else 128 - code
            reason = "Completed" if exit_code == 0 else "Error"
            if exit_code and self.group.out_of_memory_kills():
                reason = "OOMKilled"
        self.state = ContainerState(
            terminated=ContainerStateTerminated(
                exit_code=exit_code,
                reason=reason,
                message=self.termination_message(exit_code),
                started_at=running.started_at if running is not None else None,
                finished_at=rfc3339(self.node.clock.now()),
                container_id=self.container_id,
            )
        )
        self.probes = {}
        self.view.touch()

    def termination_message(self, exit_code: int) -> str:
        """What the container left for the message (NODE-23)."""
        with contextlib.suppress(OSError), open(self.directory / f"{self.attempt}.termination", "rb") as file:
            if text := file.read(MESSAGE_BYTES).decode(errors="replace"):
                return text
        if exit_code and self.container.termination_message_policy == "FallbackToLogsOnError":
            with contextlib.suppress(OSError), open(self.log_path, "rb") as file:
                lines = [line.split(b" ", 3)[-1] for line in file.readlines()[-LOG_MESSAGE_LINES:]]
                return b"".join(lines)[-LOG_MESSAGE_BYTES:].decode(errors="replace")
        return ""

    # -- probes -------------------------------------------------------------------------------------------------------

    def start_probes(self) -> None:
        if self.role in ("init", "ephemeral"):
            return
        if self.container.startup_probe is None or self.started:
            self.startup_done.set()
        for kind in kinds_of(self.container):
            self.probe_tasks.append(asyncio.create_task(self.probe(kind)))

    def stop_probes(self) -> None:
        for task in self.probe_tasks:
            task.cancel()
        self.probe_tasks.clear()

    def keep_readiness_only(self) -> None:
        """The Pod is being deleted: only readiness goes on being asked (NODE-44)."""
        self.stop_probes()
        if self.process is not None and self.container.readiness_probe is not None and self.started:
            self.probe_tasks.append(asyncio.create_task(self.probe("readiness", again=True)))

    async def probe(self, kind: ProbeKind, again: bool = False) -> None:
        """Ask one probe again and again, as its fields say, until there is nothing more to ask."""
        probe = probe_of(self.container, kind)
        assert probe is not None
        if kind != "startup":
            await self.startup_done.wait()
        elif self.probes["startup"].done:
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
        if kind == "readiness" and (forced := steered_outcome(self.view.pod)) is not None:
            return forced
        host = next(iter(self.view.sandbox.ips), "127.0.0.1")
        agent = f"kube-probe/{short_version(self.node.settings.version)}"
        outcome = Outcome("error")
        for _ in range(TRIES):
            outcome = await try_probe(probe, self.container, host, self.execute, timeout(probe), agent)
            if outcome.result != "error":
                break
        return outcome

    def take(self, kind: ProbeKind, outcome: Outcome) -> bool:
        """Count a result and do what follows from it; True when this probe asks no more."""
        probe = probe_of(self.container, kind)
        if probe is None or kind not in self.probes:
            return True
        shown = {"success": "successful", "warning": "successful", "failure": "failed", "error": "unknown"}
        pod = self.view.pod
        key = (TITLES[kind], shown[outcome.result], self.name, pod.name, pod.namespace)
        self.node.probe_results[key] = self.node.probe_results.get(key, 0) + 1
        before = self.probes[kind]
        now = self.probes[kind] = after(before, outcome.result, probe)
        if now.verdict != before.verdict or now.done != before.done:
            self.view.touch()
        if outcome.result == "failure":
            self.event("Warning", "Unhealthy", f"{TITLES[kind]} probe failed: {outcome.detail}")
        elif outcome.result == "warning":
            self.event("Warning", "ProbeWarning", f"{TITLES[kind]} probe warning: {outcome.detail}")
        elif outcome.result == "error":
            self.event(
                "Warning", "Unhealthy", f"{TITLES[kind]} probe errored and resulted in unknown state: {outcome.detail}"
            )
        if now.done:
            self.startup_done.set()
            return True
        if now.held:
            grace = probe.termination_grace_period_seconds or self.grace_seconds
            words = f"Container {self.name} failed {kind} probe, will be restarted"
            self.kill_task = asyncio.create_task(self.terminate(float(grace), words))
            return True
        return False

    @property
    def grace_seconds(self) -> int:
        seconds = self.view.pod.spec.termination_grace_period_seconds
        return 30 if seconds is None else seconds

    async def execute(self, command: Sequence[str], timeout_seconds: float) -> tuple[int | None, bytes]:
        """Run a command in the container (NODE-52): (exit code, None for a timeout; output of both streams)."""
        process = self.process
        if process is None:
            raise OSError("container not running")
        known = {v.name: v.value for v in self.container.env or () if v.value_from is None}
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(write, True)
        try:
            try:
                child = await self.enter([expand(word, known) for word in command], stdout=write, stderr=write)
            finally:
                os.close(write)
            output = bytearray()
            loop = asyncio.get_running_loop()

            def on_output() -> None:
                try:
                    data = os.read(read, 1 << 16)
                except BlockingIOError:
                    return
                if not data:
                    loop.remove_reader(read)
                elif len(output) < 16384:
                    output.extend(data)

            loop.add_reader(read, on_output)
            code: int | None = None
            try:
                async with asyncio.timeout(timeout_seconds):
                    code = await child.wait()
                on_output()
            except TimeoutError:
                child.signal(signal.SIGKILL)
                await child.wait()
            finally:
                loop.remove_reader(read)
            if code is not None and code < 0:
                code = 128 - code
            if code == FAILED and output.startswith(b"nsexec: "):  # it did not get to the command
                raise OSError(go_words(f"exec: {output[8:].decode(errors='replace').strip()}", command))
            return code, bytes(output)
        finally:
            os.close(read)

    async def enter(
        self, command: Sequence[str], *, stdin: int | None = None, stdout: int | None = None, stderr: int | None = None
    ) -> WatchedProcess:
        """Start one more process in the running container. OSError if it cannot be started."""
        process = self.process
        if process is None:
            raise OSError(f'container not found ("{self.name}")')
        return await self.node.spawner.spawn(
            Spawn(
                argv=nsexec_command(*self.enter_flags(process), program=command),
                env=self.environment or {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
            )
        )

    def enter_flags(self, process: WatchedProcess) -> list[str]:
        """The flags of `nsexec` that make a further process be as the container's own: namespaces, control groups,
        user, capabilities, working directory."""
        flags = [word for kind in ("net", "uts", "ipc", "pid", "mnt") for word in (f"--{kind}", str(process.pid))]
        flags += ["--chdir", self.container.working_dir or (self.image.workdir if self.image else "/")]
        if self.group.directories:
            flags += ["--cgroup", ":".join(self.group.entrances)]
        uid, gid = self.user
        groups = sorted({gid, *self.supplemental_groups()})
        flags += ["--setgid", str(gid), "--groups", ",".join(map(str, groups))]
        mask = capability_mask(self.container)
        flags += ["--capabilities", str(mask)] if mask is not None and not uid else []
        return [*flags, "--setuid", str(uid)] if uid else flags

    # -- stop ---------------------------------------------------------------------------------------------------------

    async def terminate(self, grace_seconds: float, words: str) -> None:
        """Stop the running process: preStop hook, stop signal, SIGKILL when time is up (NODE-65 to NODE-67)."""
        process = self.process
        if process is None:
            return
        self.event("Normal", "Killing", words)
        clock = self.node.clock
        deadline = clock.monotonic() + grace_seconds
        hook = self.container.lifecycle.pre_stop if self.container.lifecycle is not None else None
        if hook is not None and grace_seconds > 0:
            try:
                async with asyncio.timeout(grace_seconds):
                    await self.run_hook(hook)
            except TimeoutError:
                pass
            except HookFailed:
                self.event("Warning", "FailedPreStopHook", "PreStopHook failed")
        process.signal(self.stop_signal)
        seconds = max(STOP_SECONDS, deadline - clock.monotonic())
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            process.signal(signal.SIGKILL)
            await process.wait()

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

    async def run_hook(self, hook: LifecycleHandler) -> None:
        """Do what a hook says (NODE-68). HookFailed if it fails."""
        if hook.sleep is not None:
            await asyncio.sleep(hook.sleep.seconds)
        elif hook.exec is not None:
            try:
                code, _ = await self.execute(hook.exec.command or (), 24 * 3600.0)
            except OSError as error:
                raise HookFailed(str(error)) from None
            if code:
                raise HookFailed(f"exit code {code}")
        elif hook.http_get is not None:
            host = next(iter(self.view.sandbox.ips), "127.0.0.1")
            url = http_url(hook.http_get, self.container, host)
            agent = f"kube-lifecycle/{short_version(self.node.settings.version)}"
            outcome = await probe_http(url or "", http_headers(hook.http_get), agent)
            if outcome.result == "failure" and url and url.startswith("https:"):
                outcome = await probe_http("http:" + url[6:], http_headers(hook.http_get), agent)
            if outcome.result == "failure":
                raise HookFailed(outcome.detail)

    async def post_start(self) -> None:
        """The hook after the start; its failure ends the container (NODE-67)."""
        hook = self.container.lifecycle.post_start if self.container.lifecycle is not None else None
        if hook is None or self.process is None:
            return
        try:
            await self.run_hook(hook)
        except HookFailed:
            self.event("Warning", "FailedPostStartHook", "PostStartHook failed")
            await self.terminate(float(self.grace_seconds), "FailedPostStartHook")


def end_rest(group: Group, session: int) -> None:
    """End what a container leaves behind that shares its processes with others: whoever is in its control group, and
    where there is none, in its session."""
    for _ in range(ROUNDS):
        left = [pid for pid in group.processes() if pid] or ([] if group.directories else session_processes(session))
        if not left:
            return
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


ROUNDS = 10


class HookFailed(Exception):
    """A lifecycle hook did not do its work."""


def hidden_directories(settings: NodeSettings) -> list[str]:
    """What a container sees empty: what the settings say, and the agent's own state."""
    state = str(settings.state_dir)
    return [*settings.hidden_paths, *([] if any(is_below(state, p) for p in settings.hidden_paths) else [state])]


def short_version(version: str) -> str:
    """`1.36` of `v1.36.0`, as probes name themselves."""
    return ".".join(version.lstrip("v").split(".")[:2])


def go_words(words: str, argv: Sequence[str]) -> str:
    """A failed start in the words that users know."""
    step, _, reason = words.partition(": ")
    if step == "exec" and reason.startswith("No such file"):
        where = "stat" if "/" in argv[0] else "exec"
        if where == "stat":
            return f'exec: "{argv[0]}": stat {argv[0]}: no such file or directory'
        return f'exec: "{argv[0]}": executable file not found in $PATH'
    if step == "exec":
        return f'exec: "{argv[0]}": {reason.lower()}'
    return words
