"""The `Runtime` that a container runtime stands behind: it makes sandboxes and containers, and has our networks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import msgspec

from kubesvc.api.container import Container
from kubesvc.api.pod import Pod
from kubesvc.clock import rfc3339
from kubesvc.kernel.cgroups import mounted, remove_trees
from kubesvc.kernel.mounts import Mount
from kubesvc.kernel.process import StartFailed, WatchedProcess, start_time

from ..images import Image, ImageProblem, full_name
from ..imagewait import Waiting, pod_logins, pulled_words
from ..limits import amount
from ..pulling import Told
from ..records import ContainerRecord, PodRecord
from ..registry import parse_reference
from ..runtime import CreateFailed
from . import wire
from .client import CALL_SECONDS, PULL_SECONDS, CriClient, RuntimeProblem
from .config import OWNER, PROPAGATION, plan_container, plan_sandbox
from .health import REMEDY, plan_troubles, shown_version
from .network import NetworkDoor, find_agents
from .output import RuntimeOutput
from .process import CriExecution, CriProcess
from .subpaths import bind_part, free_all
from .wire import Message

if TYPE_CHECKING:
    from ..containers import ContainerRunner
    from ..context import NodeContext

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
"""How often the runtime's health and the lengths of logs are looked at, as a kubelet does."""
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
SUBPATHS = "subpaths"
"""The directory in a node's state where parts of volumes are bound."""


class CriRuntime:
    """One node's use of a runtime."""

    def __init__(self, node: NodeContext, path: Path) -> None:
        self.node = node
        self.path = path
        self.client = CriClient(path)
        self.name = "cri"
        self.version = ""
        self.owner = str(node.settings.state_dir)
        self.trouble = ""
        """Why no Pods can run at the moment, as the Node's condition says it; "" if they can."""
        self.door: NetworkDoor | None = None
        self.same_network = False
        self.parent_group = ""
        self.outputs: WeakSet[RuntimeOutput] = WeakSet()
        self.watch: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Get to know the runtime; RuntimeProblem with what stands in the way."""
        version = await self.client.call("Version", {"version": "v1"}, 10.0)
        status = await self.client.call("Status", {"verbose": True}, 10.0)
        self.name = version["runtime_name"] or "cri"
        self.version = shown_version(version)
        if troubles := plan_troubles(status, self.path):
            raise RuntimeProblem("; ".join(troubles))
        agents, _ = find_agents(status)
        assert agents is not None, "a trouble else"
        self.same_network = await asyncio.to_thread(shares_network, self.path)
        if not takes_systemd_groups(status):
            self.parent_group = common_group(self.node)
            await asyncio.to_thread(self.record_groups)
        self.door = NetworkDoor(agents, self.owner, self.node.sandboxes)
        await self.door.start()
        self.watch = asyncio.create_task(self.look_after())

    def record_groups(self) -> None:
        """Note for whoever cleans up that the runtime makes the node's groups in every hierarchy there is."""
        groups = self.node.groups
        if groups is not None and self.parent_group:
            known = groups.record.read_text().splitlines() if groups.record.exists() else []
            more = [str(place) for place in group_places(self.parent_group) if str(place) not in known]
            groups.record.write_text("".join(f"{line}\n" for line in [*known, *more]))

    async def close(self) -> None:
        if self.watch is not None:
            self.watch.cancel()
        if self.door is not None:
            await self.door.close()
        await self.client.close()

    async def look_after(self) -> None:
        """Keep logs short, and know whether the runtime is well."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for output in list(self.outputs):
                try:
                    await output.rotate()
                except OSError as error:
                    log.warning("log %s not rotated: %s", output.log_path, error)
            try:
                status = await self.client.call("Status", {}, 10.0)
                self.trouble = "; ".join(plan_troubles(status, self.path))
            except RuntimeProblem as error:
                self.trouble = f"container runtime is down: {error}"

    async def clean_up(self, known: Sequence[PodRecord]) -> None:
        sandboxes = {record.sandbox for record in known}
        request = {"filter": {"label_selector": {OWNER: self.owner}}}
        for item in (await self.client.call("ListPodSandbox", request))["items"]:
            if item["id"] not in sandboxes:
                log.info("sandbox %s of %s is in no record: it is removed", item["id"], item["metadata"])
                await self.remove_sandbox(item["id"])
        for record in known:
            for container in record.containers.values():
                if not container.pid and container.id:  # the agent ended between its start and the record of it
                    container.pid = await self.pid_of("Container", id_of(container.id))
                    container.start_time = start_time(container.pid)

    # -- sandboxes ----------------------------------------------------------------------------------------------------

    def network_of(self, pod: Pod) -> int:
        """Whose network the runtime is told that a Pod has. A node in a network namespace of its own gives it to a
        hostNetwork Pod as if it were the Pod's."""
        return wire.NODE if pod.spec.host_network and self.same_network else wire.POD

    def sandbox_config(self, pod: Pod, record: PodRecord, hostname: str) -> Message:
        return plan_sandbox(
            pod,
            attempt=record.sandbox_attempt,
            hostname=hostname,
            log_directory=str(self.node.records.pod_directory(record.uid) / "containers"),
            owner=self.owner,
            network=self.network_of(pod),
            cgroup_parent=f"{self.parent_group}/{record.uid}" if self.parent_group else "",
        )

    async def start_sandbox(
        self, pod: Pod, record: PodRecord, hostname: str, save: Callable[[], None]
    ) -> WatchedProcess:
        assert self.door is not None
        record.sandbox_attempt += 1
        save()
        config = self.sandbox_config(pod, record, hostname)
        async with self.door.expect(record.uid, None if pod.spec.host_network else list(record.ips)):
            making = asyncio.create_task(self.client.call("RunPodSandbox", {"config": config}, 2 * CALL_SECONDS))
            try:
                answer = await asyncio.shield(making)
            except asyncio.CancelledError:  # the runtime may have made it all the same: whoever ends the Pod removes it
                with contextlib.suppress(RuntimeProblem):
                    record.sandbox = (await making)["pod_sandbox_id"]
                    record.device = self.door.wired(record.uid) or ""
                    save()
                raise
        record.sandbox = answer["pod_sandbox_id"]
        device = self.door.wired(record.uid)
        record.device = device or ""
        pid = await self.pid_of("PodSandbox", record.sandbox)
        record.pause_pid, record.pause_start_time = pid, start_time(pid)
        save()
        if device is None and self.network_of(pod) == wire.POD:
            raise RuntimeProblem(f"{self.name} called another network plugin than kubesvc's: {REMEDY}")
        process = WatchedProcess.adopt(pid, record.pause_start_time) if pid else None
        if process is None:
            raise RuntimeProblem(
                f"sandbox {record.sandbox} of {self.name} ended at once, or its process is not seen here"
            )
        return process

    async def end_sandbox(self, record: PodRecord) -> None:
        if record.sandbox:
            await self.remove_sandbox(record.sandbox)
            record.sandbox = ""
            if self.parent_group:
                await asyncio.to_thread(remove_trees, group_places(f"{self.parent_group}/{record.uid}"))
        await asyncio.to_thread(free_all, self.node.settings.state_dir / SUBPATHS / record.uid)

    async def remove_sandbox(self, id: str) -> None:
        """Stop and remove it, tried until the runtime has done so."""
        delays = iter(RETRY_SECONDS)
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            while True:
                try:
                    await self.client.call(method, {"pod_sandbox_id": id})
                    break
                except RuntimeProblem as error:
                    if error.code == "NOT_FOUND":
                        break
                    log.warning("%s of %s: %s", method, id, error)
                await asyncio.sleep(next(delays, RETRY_SECONDS[-1]))

    async def pid_of(self, kind: str, id: str) -> int:
        """The first process of a sandbox or container, 0 if it has none, or if the runtime does not tell."""
        return int((await self.info_of(kind, id)).get("pid") or 0)

    async def info_of(self, kind: str, id: str) -> Message:
        """What the runtime tells of a sandbox or container besides its status, in a form of its own."""
        key = "pod_sandbox_id" if kind == "PodSandbox" else "container_id"
        try:
            answer = await self.client.call(f"{kind}Status", {key: id, "verbose": True})
            found = msgspec.json.decode(answer["info"].get("info", "{}"), type=dict[str, Any])
            int(found.get("pid") or 0)
            return found
        except (RuntimeProblem, msgspec.MsgspecError, ValueError, TypeError) as error:
            log.warning("process of %s %s not known: %s", kind, id, error)
            return {}

    # -- images -------------------------------------------------------------------------------------------------------

    async def find_image(self, waiting: Waiting) -> Image:
        name, policy = waiting.container.image, waiting.container.image_pull_policy
        full = full_name(name)
        held = await self.held(name, full)
        if held is not None and (policy != "Always" or not self.node.settings.runtime_pulls):
            waiting.event("Normal", "Pulled", f'Container image "{name}" already present on machine')
            return held
        if policy == "Never":
            raise ImageProblem(
                "ErrImageNeverPull", f'Container image "{name}" is not present with pull policy of Never'
            )
        if not self.node.settings.runtime_pulls:
            how = "ctr -n k8s.io images import FILE" if self.name == "containerd" else "podman load -i FILE"
            words = f'image "{full}" is not in {self.name}, and nothing is pulled here; to put it there: {how}'
            raise ImageProblem("ErrImagePull", words)
        waiting.event("Normal", "Pulling", f'Pulling image "{name}"')
        waiting.late()
        began = self.node.clock.monotonic()
        try:
            await self.pull(waiting, full)
            held = await self.held(name, full)
        except RuntimeProblem as error:
            raise ImageProblem("ErrImagePull", str(error)) from None
        if held is None:
            raise ImageProblem("ErrImagePull", f'image "{full}" was removed as soon as it was pulled')
        seconds = self.node.clock.monotonic() - began
        told = Told(seconds=seconds, waited_seconds=seconds, size_bytes=await self.size_of(full))
        waiting.event("Normal", "Pulled", pulled_words(name, told))
        return held

    async def status_of(self, full: str) -> Message | None:
        try:
            found: Message | None = (await self.client.call("ImageStatus", {"image": {"image": full}}))["image"]
        except RuntimeProblem as error:
            raise ImageProblem("ImageInspectError", f'Failed to inspect image "{full}": {error}') from None
        return found

    async def size_of(self, full: str) -> int:
        status = await self.status_of(full)
        return status["size"] if status is not None else 0

    async def held(self, name: str, full: str) -> Image | None:
        """The image as the runtime has it now."""
        status = await self.status_of(full)
        if status is None or not status["id"]:
            return None
        username = status["username"]
        user = status["uid"]["value"] if status["uid"] is not None else None
        origin = next(iter(status["repo_digests"]), "")
        return Image(
            name=name, identity=status["id"], origin=origin, user=user, username=username, said=f"{self.name}'s image"
        )

    async def pull(self, waiting: Waiting, full: str) -> None:
        """By the Pod's pull secrets one after the other, or without a login. RuntimeProblem."""
        registry = parse_reference(full).registry
        # Without an address, which runtimes would hold against the registry's in forms of their own.
        tries: list[Message | None] = [
            {"username": login.user, "password": login.password}
            for login in await pod_logins(waiting)
            if login.registry == registry
        ]
        problem: RuntimeProblem | None = None
        for auth in tries or (None,):
            try:
                await self.client.call("PullImage", {"image": {"image": full}, "auth": auth}, PULL_SECONDS)
                return
            except RuntimeProblem as error:
                problem = error
        assert problem is not None
        raise problem

    def first_environment(self, runner: ContainerRunner, image: Image) -> dict[str, str]:
        """The runtime adds what the image says."""
        return {}

    # -- containers ---------------------------------------------------------------------------------------------------

    def output(self, directory: Path, container: Container) -> RuntimeOutput:
        node = self.node
        found = RuntimeOutput(directory, container, node.clock, node.settings, self.client, self.connect, node.random)
        self.outputs.add(found)
        return found

    async def connect(self, host: str, port: int) -> socket.socket:
        """A connection to an address that the runtime has named, in its network. OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        pid = await asyncio.to_thread(peer_of, self.path)
        raw = await self.node.spawner.call(lambda: socket.socket(family), inside=pid, kinds=("net",))
        raw.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(raw, (host, port))
        except OSError:
            raw.close()
            raise
        return raw

    async def launch(
        self, runner: ContainerRunner, image: Image, environment: Mapping[str, str], mounts: Sequence[Mount]
    ) -> CriExecution:
        pod, container, record = runner.pod, runner.container, runner.view.record
        output = runner.output
        assert isinstance(output, RuntimeOutput)
        before = record.containers.get(runner.name)
        if before is not None and before.id:
            with contextlib.suppress(RuntimeProblem):
                await self.client.call("RemoveContainer", {"container_id": id_of(before.id)})
        target = ""
        if container.target_container_name:
            held = record.containers.get(container.target_container_name)
            if held is None or runner.view.process_of(container.target_container_name) is None:
                raise CreateFailed(f"target container {container.target_container_name!r} is not running")
            target = id_of(held.id)
        output.open(runner.attempt)
        output.message_path.touch()
        output.message_path.chmod(0o666)
        hostname = runner.view.resolver_environment.get("HOSTNAME", pod.name)
        config = plan_container(
            pod,
            container,
            image=image,
            username=image.username,
            attempt=runner.attempt,
            environment=environment,
            mounts=await asyncio.to_thread(self.mounts, runner, mounts),
            log_path=f"{container.name}/{runner.attempt}.log",
            network=self.network_of(pod),
            target=target,
            memory_bytes=int(amount(self.node.allocatable, "memory") or 0),
        )
        request = {
            "pod_sandbox_id": record.sandbox,
            "config": config,
            "sandbox_config": self.sandbox_config(pod, record, hostname),
        }
        try:
            id = (await self.client.call("CreateContainer", request))["container_id"]
        except RuntimeProblem as error:
            raise CreateFailed(str(error)) from None
        try:
            runner.next_id = f"{self.name}://{id}"
            own = record.containers[runner.name] = ContainerRecord(
                name=runner.name,
                id=runner.next_id,
                attempt=runner.attempt,
                started_at=rfc3339(self.node.clock.now()),
                image=runner.image_shown,
                image_id=runner.image_id,
            )
            runner.view.save()
            runner.event("Normal", "Created", "Container created")
            await self.client.call("StartContainer", {"container_id": id})
        except RuntimeProblem as error:
            raise StartFailed(str(error)) from None
        runner.event("Normal", "Started", "Container started")
        info = await self.info_of("Container", id)
        process = CriProcess.of(self.client, id, int(info.get("pid") or 0))
        own.pid, own.start_time = process.pid, process.start_time
        runner.view.save()
        runner.begin()
        run = self.execution(runner, process)
        run.follow(info.get("runtimeSpec"))
        return run

    def execution(self, runner: ContainerRunner, process: CriProcess) -> CriExecution:
        lifecycle = runner.container.lifecycle
        run = CriExecution(
            spawner=self.node.spawner,
            container=runner.container,
            process=process,
            client=self.client,
            id=process.id,
            own_signal=bool(lifecycle is not None and lifecycle.stop_signal),
        )
        run.learn()
        assert isinstance(runner.output, RuntimeOutput)
        runner.output.id = process.id
        return run

    def mounts(self, runner: ContainerRunner, mounts: Sequence[Mount]) -> list[Message]:
        """Mount messages of a container: the Pod's files, its volumes, the file for its last words. Parts of volumes
        are bound to places of their own first. OSError."""
        container = runner.container
        spread = {m.mount_path: PROPAGATION.get(m.mount_propagation or "", 0) for m in container.volume_mounts or ()}
        message_path = container.termination_message_path or "/dev/termination-log"
        found: list[Message] = []
        for number, mount in enumerate(
            [*runner.files_besides(mounts), *mounts, Mount(str(runner.output.message_path), message_path)]
        ):
            source = mount.source
            if mount.below:
                place = self.node.settings.state_dir / SUBPATHS / runner.pod.metadata.uid / runner.name / str(number)
                bind_part(mount, place)
                source = str(place)
            found.append(
                {
                    "container_path": mount.target,
                    "host_path": source,
                    "readonly": mount.read_only,
                    "propagation": spread.get(mount.target, wire.PRIVATE),
                }
            )
        return found

    def adopt_process(self, record: ContainerRecord) -> WatchedProcess | None:
        """Also of one that has ended meanwhile, since the runtime knows how."""
        return CriProcess.of(self.client, id_of(record.id), record.pid, record.start_time) if record.id else None

    def adopt(self, runner: ContainerRunner, process: WatchedProcess) -> CriExecution:
        assert isinstance(process, CriProcess)
        return self.execution(runner, process)


def id_of(container_id: str) -> str:
    """The runtime's own id in `containerd://ID`."""
    return container_id.rpartition("//")[2]


def peer_of(path: Path) -> int:
    """The process that listens on a unix socket. OSError."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(path))
        return int.from_bytes(asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")


def shares_network(path: Path) -> bool:
    """Whether the process behind a socket is in our network namespace."""
    try:
        return os.readlink(f"/proc/{peer_of(path)}/ns/net") == os.readlink("/proc/self/ns/net")
    except OSError:
        return False


def takes_systemd_groups(status: Message) -> bool:
    """Whether the runtime names control groups as systemd does, by a verbose Status answer."""
    text = "".join(status["info"].values()).lower().replace(" ", "")
    return '"systemdcgroup":true' in text or 'cgroup_manager="systemd"' in text


def group_places(path: str) -> list[Path]:
    """Where a group of this path from the root is, or would be, in each mounted hierarchy."""
    mounts = mounted(Path("/proc/self/mountinfo").read_text().splitlines())
    return [point / path.lstrip("/") for _, root, point, _ in mounts if root == "/"]


def common_group(node: NodeContext) -> str:
    """The group of the node's Pods by its path from the root; "" where it is not the same in all hierarchies."""
    if node.groups is None:
        return ""
    points = sorted((str(p) for _, _, p, _ in mounted(Path("/proc/self/mountinfo").read_text().splitlines())), key=len)
    found = set()
    for hierarchy in node.groups.hierarchies:
        point = next(p for p in reversed(points) if hierarchy.parent.is_relative_to(p))
        found.add(str(Path("/", hierarchy.parent.relative_to(point), node.groups.name)))
    return found.pop() if len(found) == 1 else ""
