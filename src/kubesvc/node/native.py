"""Containers as processes of this node, started by the agent itself: the runtime that needs no other."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kubesvc.api.container import Container
from kubesvc.api.pod import Pod
from kubesvc.clock import rfc3339
from kubesvc.kernel.cgroups import Group
from kubesvc.kernel.mounts import Mount, RootPlan, is_below, plan_steps
from kubesvc.kernel.process import Spawn, StartFailed, WatchedProcess, end_for_good

from .capabilities import capability_mask
from .environment import MissingSource, expand
from .execution import Execution, go_words, read_environment
from .images import Image, ImageProblem, python_binds
from .imagewait import Waiting, find_or_pull
from .limits import container_limits, needed_controllers, rlimits
from .output import ContainerOutput
from .records import ContainerRecord, PodRecord
from .runtime import CreateFailed
from .sandbox import sharing_of
from .settings import NodeSettings

if TYPE_CHECKING:
    from .containers import ContainerRunner
    from .context import NodeContext


class NativeRuntime:
    """The `Runtime` whose sandboxes and containers are processes that this agent has started."""

    version = "kubesvc://0.1.0"
    trouble = ""

    def __init__(self, node: NodeContext) -> None:
        self.node = node

    async def open(self) -> None:
        """There is nobody to ask."""

    async def clean_up(self, known: Sequence[PodRecord]) -> None:
        """Nothing lives on that no record names."""

    async def close(self) -> None:
        """Nothing is held."""

    # -- sandboxes ----------------------------------------------------------------------------------------------------

    async def start_sandbox(
        self, pod: Pod, record: PodRecord, hostname: str, save: Callable[[], None]
    ) -> WatchedProcess:
        pause = await self.node.sandboxes.start(record.uid, sharing=sharing_of(pod), hostname=hostname)
        record.pause_pid, record.pause_start_time = pause.pid, pause.start_time
        save()
        if not pod.spec.host_network:
            record.device = await self.node.sandboxes.connect(record.uid, pause.pid, record.ips)
            save()
        return pause

    async def end_sandbox(self, record: PodRecord) -> None:
        pause = WatchedProcess.adopt(record.pause_pid, record.pause_start_time) if record.pause_pid else None
        if pause is not None:
            await end_for_good(pause, f"sandbox of pod {record.namespace}/{record.name}")

    # -- images -------------------------------------------------------------------------------------------------------

    async def find_image(self, waiting: Waiting) -> Image:
        return await find_or_pull(waiting)

    def first_environment(self, runner: ContainerRunner, image: Image) -> dict[str, str]:
        hostname = runner.view.resolver_environment.get("HOSTNAME", runner.pod.name)
        return {"HOSTNAME": hostname, "HOME": "/root", **image.env}

    # -- containers ---------------------------------------------------------------------------------------------------

    def output(self, directory: Path, container: Container) -> ContainerOutput:
        return ContainerOutput(directory, container, self.node.clock, self.node.settings)

    async def launch(
        self, runner: ContainerRunner, image: Image, environment: Mapping[str, str], mounts: Sequence[Mount]
    ) -> Execution:
        """Start the process. CreateFailed, StartFailed or OSError if it cannot; what was made for it is gone then."""
        container, settings = runner.container, self.node.settings
        command = [expand(word, environment) for word in container.command or ()]
        argv = image.argv(command, [expand(word, environment) for word in container.args or ()])
        if not argv:
            raise CreateFailed("no command specified")
        runner.next_id = f"kubesvc://{self.node.random.getrandbits(256):064x}"
        directory = runner.directory
        directory.mkdir(parents=True, exist_ok=True)
        runner.output.open(runner.attempt)
        message_file = runner.output.message_path
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
            workdir=container.working_dir or image.workdir,
            mounts=[*runner.files_besides(mounts), *mounts, Mount(str(message_file), message_path)],
            read_only=bool(context is not None and context.read_only_root_filesystem),
        )
        sandbox = runner.view.sandbox
        kinds, new, inside = sandbox.kinds, sandbox.new, sandbox.pid
        if container.target_container_name and new:  # kubectl debug --target: among that container's processes
            target = runner.view.process_of(container.target_container_name)
            if target is None:
                raise CreateFailed(f"target container {container.target_container_name!r} is not running")
            kinds, new, inside = (*kinds, "pid"), (), target.pid
        uid, gid = user = runner.identity()
        groups = sorted({gid, *runner.supplemental_groups()})
        group = await self.make_group(runner)
        outputs = [pipe.for_container() for pipe in runner.output.pipes]  # opened last: refusals above leave none
        stdin = runner.output.open_input()
        console = runner.output.open_console()
        spec = {
            "place": str(room),
            "uid": uid,
            "gid": gid,
            "groups": groups,
            "capabilities": capability_mask(container),
            "no_new_privileges": bool(context is not None and context.allow_privilege_escalation is False),
            "limits": self.rlimits(runner),
            "terminal": console,
        }
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
                    pass_fds=(console,) if console else (),
                ),
                spec,
                plan_steps(plan),
            )
        finally:
            for fd in (*outputs, *(() if stdin is None else (stdin,))):
                os.close(fd)
        process = prepared.process
        try:  # the kernel waits for all its processors there, and the container makes its root meanwhile
            await asyncio.to_thread(group.add, process.pid)
        except ProcessLookupError:
            pass  # it has failed already, and says why below
        except BaseException:
            prepared.close()
            raise
        runner.view.record.containers[runner.name] = ContainerRecord(
            name=runner.name,
            id=runner.next_id,
            attempt=runner.attempt,
            pid=process.pid,
            start_time=process.start_time,
            started_at=rfc3339(self.node.clock.now()),
            image=runner.image_shown,
            image_id=runner.image_id,
            stop_signal=image.stop_signal,
        )
        runner.view.save()
        runner.event("Normal", "Created", "Container created")
        try:
            await prepared.go()
        except StartFailed as error:
            raise StartFailed(go_words(str(error), argv, container.working_dir or image.workdir)) from None
        runner.output.take_terminal()
        runner.event("Normal", "Started", "Container started")
        runner.begin()
        return Execution(
            spawner=self.node.spawner,
            container=container,
            process=process,
            user=user,
            groups=groups,
            environment=environment,
            workdir=container.working_dir or image.workdir,
            group=group,
        )

    async def make_group(self, runner: ContainerRunner) -> Group:
        """A fresh control group for one run; none where there are no control groups."""
        groups, pod = self.node.groups, runner.view.pod
        if groups is None:
            return Group()
        path = f"{pod.metadata.uid}/{runner.name}"
        controllers = needed_controllers(pod, self.node.settings.pod_pids_limit)
        await asyncio.to_thread(groups.remove, path)
        return await asyncio.to_thread(groups.make, path, container_limits(runner.container), controllers)

    def rlimits(self, runner: ContainerRunner) -> dict[int, tuple[int, int]]:
        held = self.node.groups.controllers if self.node.groups is not None else ()
        return rlimits(container_limits(runner.container), self.node.settings.pod_pids_limit, held)

    def adopt_process(self, record: ContainerRecord) -> WatchedProcess | None:
        return WatchedProcess.adopt(record.pid, record.start_time)

    def adopt(self, runner: ContainerRunner, process: WatchedProcess) -> Execution:
        with contextlib.suppress(ImageProblem):
            runner.image = self.node.image(runner.container.image)
        run = Execution(spawner=self.node.spawner, container=runner.container, process=process)
        with contextlib.suppress(MissingSource, CreateFailed):
            run.user = runner.identity()
            run.groups = sorted({run.user[1], *runner.supplemental_groups()})
        with contextlib.suppress(OSError):
            run.environment = read_environment(process.pid)
        run.workdir = runner.container.working_dir or (runner.image.workdir if runner.image else "/")
        if self.node.groups is not None:
            run.group = self.node.groups.find(f"{runner.view.pod.metadata.uid}/{runner.name}")
        return run


def hidden_directories(settings: NodeSettings) -> list[str]:
    """What a container sees empty: what the settings say, and the agent's own state."""
    state = str(settings.state_dir)
    return [*settings.hidden_paths, *([] if any(is_below(state, p) for p in settings.hidden_paths) else [state])]
