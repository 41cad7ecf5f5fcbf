"""One Pod on this node, from acceptance to its last trace: sandbox, volumes, containers, status, end.

A worker owns its Pod's containers and writes its status. It is told of changes by `update` and `removed`, and it
never reads the API for its Pod. Cancelled, it leaves everything running for the next agent to adopt.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from kubesvc.api.container import (
    Container,
    ContainerState,
    ContainerStateTerminated,
    ContainerStatus,
)
from kubesvc.api.errors import ApiError, Conflict, Invalid, NotFound
from kubesvc.api.kinds import POD
from kubesvc.api.meta import typed
from kubesvc.api.pod import Pod
from kubesvc.client import Unreachable
from kubesvc.clock import parse_rfc3339, rfc3339
from kubesvc.kernel.mounts import Mount
from kubesvc.kernel.nft import NftError
from kubesvc.kernel.process import WatchedProcess, end_for_good

from .claims import ClaimProblem, NotMounted, as_directory, claim_name, fetch_volume
from .containers import ContainerRunner, Role
from .context import NodeContext
from .hostports import plan_host_ports
from .hostsfile import pod_fqdn, pod_hostname, render_host_network_hosts, render_hosts
from .ipam import Exhausted
from .limits import pod_limits
from .podstatus import Observed, ended, patch_of, plan_status
from .records import PodRecord
from .resolver import resolver_text
from .sandbox import Sandbox, sharing_of
from .volumes import (
    VolumeProblem,
    drop_volumes,
    fs_group,
    made_of_objects,
    make_volume,
    needed_objects,
    overfull,
    own_by_group,
    plan_files,
    readable,
    write_files,
)

log = logging.getLogger(__name__)

RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
ORPHAN_GRACE_SECONDS = 1.0
"""Grace of a Pod whose object vanished (NODE-71)."""
NETWORK_RETRY_SECONDS = 1.0
VOLUME_REFRESH_SECONDS = 30.0
EVICTION_GRACE_SECONDS = 1.0
RECONCILE_SECONDS = 10.0
SANDBOX_SECONDS = 10.0
"""A sandbox that was lost sooner than this is not made anew at once, but after NETWORK_RETRY_SECONDS."""


class PodWorker:
    """Runs one Pod. `run` ends when nothing of the Pod is left here."""

    def __init__(self, node: NodeContext, pod: Pod, record: PodRecord | None = None) -> None:
        self.node = node
        self.pod = pod
        self.uid = pod.metadata.uid
        self.known = record is not None
        self.record = record or PodRecord(uid=self.uid, namespace=pod.namespace, name=pod.name)
        self.runners: dict[str, ContainerRunner] = {}
        self.pause: WatchedProcess | None = None
        self.held_sandbox: Sandbox | None = None
        self.places: dict[str, Path] = {}
        self.files: list[Mount] = []
        self.resolver_environment: Mapping[str, str] = {}
        self.dirty = asyncio.Event()
        self.stop_wanted = asyncio.Event()
        self.over = asyncio.Event()
        """Set when the Pod is being deleted or its object is gone: nothing of it shall stay."""
        self.deadline_changed = asyncio.Event()
        self.deadline = 0.0
        self.gone = False
        self.stopped = False
        self.replacing = False
        """While the containers end because their sandbox is lost; they do not start again in it."""
        self.returning: dict[str, ContainerStatus] = {}
        """The containers that will then start in another, as they are shown meanwhile: the API takes no end with code 0
        for anything but the last one under some policies."""
        self.standing = asyncio.Event()
        """Set while a sandbox stands, as far as is known."""
        self.reason = self.message = ""
        self.wrote = asyncio.Condition()
        if pod.terminating:
            self.begin_deletion()

    # -- told from outside --------------------------------------------------------------------------------------------

    def update(self, pod: Pod) -> None:
        """The Pod's object has changed."""
        if newer(pod, self.pod):
            self.pod = pod
            self.add_ephemeral()
        if pod.terminating:
            self.begin_deletion()
        self.touch()

    def add_ephemeral(self) -> None:
        """Ephemeral containers come while the Pod runs, as `kubectl debug` adds them."""
        if not self.runners or self.stopping:
            return  # they are made with the others, or never
        for container in self.pod.spec.ephemeral_containers or ():
            if container.name not in self.runners:
                runner = self.runners[container.name] = ContainerRunner(self, container, "ephemeral")
                if any(r.task is not None for r in self.of_role("ordinary")):
                    self.start(runner)

    def removed(self) -> None:
        """The Pod's object is gone, by force or under another uid (NODE-71)."""
        self.gone = True
        self.shorten(ORPHAN_GRACE_SECONDS)
        self.over.set()
        self.stop_wanted.set()

    def begin_deletion(self) -> None:
        """It has a deletionTimestamp: stop within its grace; a later one may be shorter (NODE-62)."""
        grace = self.pod.metadata.deletion_grace_period_seconds
        self.shorten(float(30 if grace is None else grace))
        self.over.set()
        self.stop_wanted.set()

    def shorten(self, grace_seconds: float) -> None:
        until = self.node.clock.monotonic() + grace_seconds
        if not self.deadline or until < self.deadline - 0.5:
            self.deadline = until
            self.deadline_changed.set()

    # -- what containers see of it ------------------------------------------------------------------------------------

    @property
    def sandbox(self) -> Sandbox:
        assert self.held_sandbox is not None, "a container without a sandbox"
        return self.held_sandbox

    @property
    def sandbox_kept_apart(self) -> bool:
        return sharing_of(self.pod).processes == "container"

    @property
    def stopping(self) -> bool:
        return self.stop_wanted.is_set() or self.sandbox_gone

    @property
    def sandbox_gone(self) -> bool:
        """Whether the process that holds the namespaces has ended by itself."""
        return self.replacing or (self.standing.is_set() and self.pause is not None and self.pause.gone())

    def process_of(self, container: str) -> WatchedProcess | None:
        runner = self.runners.get(container)
        return runner.process if runner is not None else None

    def touch(self) -> None:
        self.dirty.set()

    def save(self) -> None:
        self.node.records.save(self.record)

    @property
    def directory(self) -> Path:
        return self.node.records.pod_directory(self.uid)

    # -- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(self.write_statuses()),
            asyncio.create_task(self.refresh_volumes()),
            asyncio.create_task(self.watch_sizes()),
        ]
        stop = asyncio.create_task(self.stop_wanted.wait())
        tasks.append(stop)
        try:
            if self.known:  # before anything else, so that what still runs is known even if it is to be ended
                adopted = await self.resume_sandbox()
                if not self.pod.terminal:
                    self.make_runners({s.name: s for s in self.all_statuses()}, adopted)
            if not self.pod.terminal:
                if self.pod.spec.active_deadline_seconds is not None:
                    tasks.append(asyncio.create_task(self.watch_deadline()))
                await self.live_on(stop)
            self.stopped = True
            await self.drop_sandbox()
            await self.write_status()
            await self.over.wait()
            self.touch()
            if not self.gone:
                await self.write_status()
            await asyncio.to_thread(drop_volumes, self.directory / "volumes")
            if not self.gone:
                await self.delete_object()
            self.node.records.remove(self.uid)
            self.node.forget(self.pod)
        finally:
            for runner in self.runners.values():
                for task in (runner.task, runner.kill_task):
                    if task is not None:
                        task.cancel()
            for task in tasks:
                task.cancel()
            if self.pause is not None:
                self.pause.close()

    async def live_on(self, stop: asyncio.Task[Any]) -> None:
        """Live, in a new sandbox where one is lost, until everything has ended for good or shall."""
        while True:
            life = asyncio.create_task(self.live())
            lost = asyncio.create_task(self.sandbox_lost())
            try:
                await asyncio.wait({life, lost, stop}, return_when=asyncio.FIRST_COMPLETED)
                if self.stop_wanted.is_set():
                    await self.end_containers(life, self.left)
                    return
                if life.done() or not await self.leave_sandbox(life):
                    return
            finally:
                life.cancel()
                lost.cancel()

    async def sandbox_lost(self) -> None:
        """Until the sandbox has ended, without anyone here having ended it."""
        await self.standing.wait()
        pause, began = self.pause, self.node.clock.monotonic()
        assert pause is not None
        await pause.wait()
        if self.node.clock.monotonic() - began < SANDBOX_SECONDS:
            await asyncio.sleep(NETWORK_RETRY_SECONDS)

    async def leave_sandbox(self, life: asyncio.Task[None]) -> bool:
        """End what ran in a lost sandbox as a deletion would; all that may run again then waits to be started anew,
        init containers included. False if nothing may (NODE-10, NODE-92)."""
        for runner in self.of_role("ordinary"):
            if runner.comes_back:
                self.returning[runner.name] = msgspec.structs.replace(runner.status, ready=False, started=False)
        if self.returning:
            self.sandbox_changed()
        self.replacing = True
        self.touch()
        try:
            await self.end_containers(life, lambda: self.own_grace)
            await self.drop_sandbox()
        finally:
            self.replacing = False
        for runner in list(self.runners.values()) if self.returning else ():
            if runner.name in self.returning or runner.init:
                again = self.make_runner(runner.role, runner.container, runner.status, False)
                self.runners[runner.name] = again
        found, self.returning = bool(self.returning), {}
        self.touch()
        return found

    def sandbox_changed(self) -> None:
        words = "Pod sandbox changed, it will be killed and re-created."
        self.node.events.pod(self.pod, "Normal", "SandboxChanged", words)

    async def live(self) -> None:
        """Bring everything up, then wait until all containers have ended for good."""
        delays = iter(RETRY_SECONDS)
        while True:
            try:
                await self.bring_up()
                return
            except ApiError as error:
                log.warning("pod %s/%s: %s", self.pod.namespace, self.pod.name, error)
            except Unreachable as error:
                log.info("pod %s/%s: %s", self.pod.namespace, self.pod.name, error)
            except Exception:
                log.exception("pod %s/%s", self.pod.namespace, self.pod.name)
            await asyncio.sleep(next(delays, RETRY_SECONDS[-1]))

    async def bring_up(self) -> None:
        if not self.record.start_time:
            self.record.start_time = self.pod.status.start_time or rfc3339(self.node.clock.now())
            self.save()
        if not self.runners:
            self.make_runners({s.name: s for s in self.all_statuses()}, False)
        self.touch()
        await self.make_volumes()
        if self.held_sandbox is None:
            await self.make_sandbox()
        await self.make_files()
        self.touch()
        running = any(r.running for r in self.runners.values() if r.role == "ordinary")
        if not running and not await self.run_init_containers():
            return
        for runner in self.of_role("sidecar"):
            self.start(runner)
        for runner in self.of_role("ordinary", "ephemeral"):
            self.start(runner)
            await runner.launched.wait()
        await self.wait_all(self.of_role("ordinary"))
        if self.sandbox_gone:
            await asyncio.Event().wait()  # their end is not for good; whoever replaces the sandbox cancels this
        for runner in reversed(self.of_role("sidecar")):  # they end when the work is done (NODE-7, NODE-69)
            self.stop_wanted.set()
            await self.end_runner(runner, float(runner.grace_seconds))

    def of_role(self, *roles: Role) -> list[ContainerRunner]:
        return [r for r in self.runners.values() if r.role in roles]

    def start(self, runner: ContainerRunner) -> None:
        if runner.task is None:
            runner.task = asyncio.create_task(runner.run())

    async def wait_all(self, runners: list[ContainerRunner]) -> None:
        """Until all have ended for good. Not gather: when this wait is cancelled they go on running."""
        tasks = [r.task for r in runners if r.task is not None]
        if tasks:
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error

    async def run_init_containers(self) -> bool:
        """One by one, each to its end; sidecars until they are started (NODE-29). False when one failed for good."""
        for runner in self.of_role("init", "sidecar"):
            if runner.completed:
                continue
            self.start(runner)
            if runner.role == "init":
                await self.wait_all([runner])
                if not runner.completed:
                    return False
            else:
                while not runner.started:
                    await asyncio.sleep(0.01)
        return True

    def make_runners(self, before: Mapping[str, ContainerStatus], adopted: bool) -> None:
        """A runner for each container; those of an earlier agent are adopted or taken for ended."""
        spec = self.pod.spec
        parts: list[tuple[Role, Container]] = [
            *(("sidecar" if c.sidecar else "init", c) for c in spec.init_containers or ()),
            *(("ordinary", c) for c in spec.containers or ()),
            *(("ephemeral", c) for c in spec.ephemeral_containers or ()),
        ]
        for role, container in parts:
            status = before.get(container.name)
            self.runners[container.name] = self.make_runner(role, container, status, adopted)

    def make_runner(
        self, role: Role, container: Container, status: ContainerStatus | None, adopted: bool
    ) -> ContainerRunner:
        runner = ContainerRunner(self, container, role, status)
        if status is None:
            return runner
        record = self.record.containers.get(container.name)
        noted = status.state.terminated is not None and record is not None and status.container_id == record.id
        if adopted and record is not None and not noted:
            process = self.node.runtime.adopt_process(record)
            if process is not None:
                runner.adopt(process, record, status)
                return runner
        end = status.state.terminated
        if end is not None and role == "init" and end.exit_code == 0 and adopted:
            runner.completed = True
            runner.state, runner.image_shown = status.state, status.image
            runner.container_id, runner.image_id = status.container_id, status.image_id
        elif status.state.running is not None:  # it ran when the node went away
            lost = ContainerStateTerminated(
                exit_code=137,
                reason="ContainerStatusUnknown",
                message="The container could not be located when the node came back",
                started_at=status.state.running.started_at,
                finished_at=rfc3339(self.node.clock.now()),
                container_id=status.container_id,
            )
            runner.last_state = ContainerState(terminated=lost)
            if not runner.will_restart(137):
                runner.state = ContainerState(terminated=lost)
            runner.attempt += 1
        elif end is not None:
            runner.last_state = status.state
            runner.attempt += 1
        elif status.last_state.terminated is not None:  # it waited for its next run
            runner.attempt += 1
        return runner

    def all_statuses(self) -> list[ContainerStatus]:
        status = self.pod.status
        parts = (status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses)
        return [s for part in parts for s in part or ()]

    # -- sandbox, volumes, files --------------------------------------------------------------------------------------

    async def resume_sandbox(self) -> bool:
        """Take over the sandbox that the record names, if it still stands; else remove what is left of it."""
        record = self.record
        if not record.pause_pid:
            return False
        self.pause = WatchedProcess.adopt(record.pause_pid, record.pause_start_time)
        if self.pause is not None:
            self.held_sandbox = Sandbox(
                pid=record.pause_pid,
                start_time=record.pause_start_time,
                ips=tuple(record.ips),
                device=record.device,
                host_network=self.pod.spec.host_network,
                sharing=sharing_of(self.pod),
            )
            await self.open_host_ports()
            self.standing.set()
            return True
        await self.drop_sandbox()
        self.sandbox_changed()
        return False

    async def make_sandbox(self) -> None:
        """Namespaces and network, tried until they stand (NODE-10, NODE-56)."""
        delays = iter(RETRY_SECONDS)
        host_network, sharing = self.pod.spec.host_network, sharing_of(self.pod)
        while not self.node.pools and not host_network:  # NODE-60
            if self.node.network_trouble:
                words = f"network is not ready: {self.node.network_trouble}"
                self.node.events.pod(self.pod, "Warning", "NetworkNotReady", words)
            await asyncio.sleep(NETWORK_RETRY_SECONDS)
        while True:
            try:
                await self.make_group()
                hostname = pod_hostname(self.pod, self.node.settings.node_name)
                if not host_network and not self.record.ips:
                    self.record.ips = [pool.allocate() for pool in self.node.pools]
                    self.save()
                self.pause = await self.node.runtime.start_sandbox(self.pod, self.record, hostname, self.save)
                ips = self.node.settings.node_addresses if host_network else tuple(self.record.ips)
                self.held_sandbox = Sandbox(
                    pid=self.pause.pid,
                    start_time=self.pause.start_time,
                    ips=ips,
                    device=self.record.device,
                    host_network=host_network,
                    sharing=sharing,
                )
                await self.open_host_ports()
                self.standing.set()
                return
            except (OSError, Exhausted, NftError) as error:
                words = f"Failed to create pod sandbox: {error}"
                self.node.events.pod(self.pod, "Warning", "FailedCreatePodSandBox", words)
                await self.drop_sandbox()
            await asyncio.sleep(next(delays, RETRY_SECONDS[-1]))

    async def open_host_ports(self) -> None:
        if self.node.host_ports is not None:
            await self.node.host_ports.keep(self.uid, plan_host_ports(self.pod, self.record.ips))

    async def make_group(self) -> None:
        """The Pod's control group, below which its containers' are made."""
        if self.node.groups is not None:
            limits = pod_limits(self.pod, self.node.settings.pod_pids_limit)
            await asyncio.to_thread(self.node.groups.make, self.uid, limits)

    async def drop_group(self) -> None:
        if self.node.groups is not None:
            stayed = await asyncio.to_thread(self.node.groups.remove, self.uid)
            if stayed:
                log.warning("control groups in use: %s", ", ".join(map(str, stayed)))

    async def drop_sandbox(self) -> None:
        """End the holding process, remove link and routes, give the addresses back."""
        pause, self.pause, self.held_sandbox = self.pause, None, None
        self.standing.clear()
        if self.node.host_ports is not None:
            with contextlib.suppress(NftError):
                await self.node.host_ports.drop(self.uid)
        for name, container in self.record.containers.items():
            left = WatchedProcess.adopt(container.pid, container.start_time)
            if left is not None:  # its own namespaces do not end with the sandbox
                await end_for_good(left, f"container {name}")
        if self.record.device:
            with contextlib.suppress(OSError):
                self.node.sandboxes.disconnect(self.record.device, self.record.ips)
        await self.node.runtime.end_sandbox(self.record)
        if pause is not None:
            pause.close()
        await self.drop_group()
        for ip in self.record.ips:
            for pool in self.node.pools:
                pool.release(ip)
        if self.record.pause_pid or self.record.ips:
            self.record.pause_pid = self.record.pause_start_time = 0
            self.record.device = ""
            self.record.ips = []
            self.save()
        self.touch()

    async def make_volumes(self) -> None:
        """All volumes of the Pod, tried until what they are made of exists."""
        delays = iter(RETRY_SECONDS)
        volumes = self.pod.spec.volumes or ()
        while volumes:
            at, step = "", "MountVolume.SetUp failed"
            try:
                material = await self.node.material(self.pod, self.record.ips, needed_objects(self.pod))
                group = fs_group(self.pod)
                if group is not None and (missing := self.node.ids.missing(0, 0, [group])):
                    raise VolumeProblem(missing)
                for volume in volumes:
                    at = volume.name
                    place, source, owned = self.directory / "volumes" / volume.name, volume, volume.host_path is None
                    if claim := claim_name(self.pod, volume):
                        running = self.held_sandbox is not None
                        behind = await fetch_volume(self.node.client, self.pod, claim, running=running)
                        at, owned = behind.name, behind.spec.local is not None
                        source = as_directory(volume, behind)
                    self.places[volume.name] = place = make_volume(source, self.pod, material, place)
                    if group is not None and owned:
                        own_by_group(place, group, read_only=made_of_objects(volume))
                return
            except ClaimProblem as error:
                words = (
                    f"Unable to attach or mount volumes: unmounted volumes=[{at}], unattached volumes=[], failed to "
                    f"process volumes=[{at}]: {error}"
                )
            except (VolumeProblem, OSError) as error:
                step = error.step if isinstance(error, NotMounted) else step
                words = f'{step} for volume "{at}" : {error}' if at else f"{step} for volume: {error}"
            self.node.events.pod(self.pod, "Warning", "FailedMount", words)
            await asyncio.sleep(next(delays, RETRY_SECONDS[-1]))

    async def refresh_volumes(self) -> None:
        """Bring changed ConfigMaps, Secrets and labels into the volumes, now and then."""
        while True:
            await asyncio.sleep(VOLUME_REFRESH_SECONDS * (0.5 + self.node.random.random()))
            if self.held_sandbox is None or self.stopping:
                continue
            changing = [v for v in self.pod.spec.volumes or () if made_of_objects(v)]
            if not changing:
                continue
            try:
                material = await self.node.material(self.pod, self.record.ips, needed_objects(self.pod))
                for volume in changing:
                    files = plan_files(volume, self.pod, material)
                    if files is not None and volume.name in self.places:
                        changed = write_files(self.places[volume.name], readable(files, fs_group(self.pod)))
                        if changed and (group := fs_group(self.pod)) is not None:
                            own_by_group(self.places[volume.name], group, read_only=True)
            except (VolumeProblem, OSError, ApiError, Unreachable) as error:
                log.info("pod %s/%s: volumes not refreshed: %s", self.pod.namespace, self.pod.name, error)

    async def watch_sizes(self) -> None:
        """Evict the Pod when a volume has outgrown its limit (NODE-73)."""
        bounded = [v for v in self.pod.spec.volumes or () if v.empty_dir is not None and v.empty_dir.size_limit]
        while bounded:
            await asyncio.sleep(self.node.settings.volume_look_seconds)
            words = await asyncio.to_thread(overfull, bounded, dict(self.places))
            if words and not self.stopping:
                self.reason, self.message = "Evicted", words
                self.node.events.pod(self.pod, "Warning", "Evicted", words)
                self.shorten(EVICTION_GRACE_SECONDS)
                self.stop_wanted.set()
                return

    async def make_files(self) -> None:
        """The Pod's /etc/hosts, /etc/hostname and /etc/resolv.conf (NODE-80 to NODE-82, DNS-58 to DNS-66)."""
        settings, spec = self.node.settings, self.pod.spec
        hostname = pod_hostname(self.pod, settings.node_name)
        if spec.host_network:
            try:
                node_file = Path("/etc/hosts").read_text(encoding="utf-8")
            except OSError:
                node_file = "127.0.0.1\tlocalhost\n"
            hosts = render_host_network_hosts(node_file, spec.host_aliases or ())
        else:
            fqdn = pod_fqdn(self.pod, settings.node_name, settings.cluster_domain)
            hosts = render_hosts(hostname, fqdn, self.sandbox.ips, spec.host_aliases or ())
        resolver, warnings = resolver_text(self.pod, settings)
        for warning in warnings:
            self.node.events.pod(self.pod, "Warning", warning.reason, warning.message)
            if warning.on_node:
                self.node.events.node("Warning", warning.reason, warning.on_node)
        self.resolver_environment = {"HOSTNAME": hostname}
        directory = self.directory / "etc"
        directory.mkdir(parents=True, exist_ok=True)
        self.files = []
        for name, text in (("hosts", hosts), ("hostname", hostname + "\n"), ("resolv.conf", resolver)):
            (directory / name).write_text(text, encoding="utf-8")
            self.files.append(Mount(str(directory / name), f"/etc/{name}"))

    # -- end ----------------------------------------------------------------------------------------------------------

    async def watch_deadline(self) -> None:
        """End the Pod when it has been active for too long (NODE-73)."""
        seconds = self.pod.spec.active_deadline_seconds
        while not self.record.start_time:
            await asyncio.sleep(0.01)
        began = parse_rfc3339(self.record.start_time)
        await asyncio.sleep(max(0.0, began + (seconds or 0) - self.node.clock.now()))
        self.reason = "DeadlineExceeded"
        self.message = "Pod was active on the node longer than the specified deadline"
        self.node.events.pod(self.pod, "Normal", "DeadlineExceeded", self.message)
        self.shorten(self.own_grace)
        self.stop_wanted.set()

    @property
    def own_grace(self) -> float:
        """The seconds that the Pod's own specification gives its containers to end."""
        grace = self.pod.spec.termination_grace_period_seconds
        return float(30 if grace is None else grace)

    async def end_containers(self, life: asyncio.Task[None], left: Callable[[], float]) -> None:
        """Stop everything that runs, sidecars last, all in the seconds that are left (NODE-65, NODE-69)."""
        life.cancel()
        await end_of(life)
        for runner in self.runners.values():
            if runner.running:
                runner.prober.keep_readiness_only()
            else:
                runner.prober.stop()
        hurry = asyncio.create_task(self.hurry_when_shortened())
        try:
            first = self.of_role("ordinary", "init", "ephemeral")
            await asyncio.gather(*(self.end_runner(r, left()) for r in first))
            for runner in reversed(self.of_role("sidecar")):
                await self.end_runner(runner, left())
        finally:
            hurry.cancel()

    def left(self) -> float:
        return max(0.0, self.deadline - self.node.clock.monotonic())

    async def hurry_when_shortened(self) -> None:
        """A later deletion gave less time: end what still runs when that is up."""
        self.deadline_changed.clear()
        await self.deadline_changed.wait()
        while (left := self.left()) > 0:
            await asyncio.sleep(left)
        await asyncio.sleep(2.0)
        for runner in self.runners.values():
            runner.hurry()

    async def end_runner(self, runner: ContainerRunner, grace_seconds: float) -> None:
        """End one container for good and wait until its end is noted."""
        task = runner.task
        if task is None and runner.process is not None:  # adopted, and not started on anything yet
            task = runner.task = asyncio.create_task(runner.run())
            await asyncio.sleep(0)
        if task is None:
            return
        if runner.process is None:
            task.cancel()
        else:
            await runner.terminate(grace_seconds, f"Stopping container {runner.name}")
        await end_of(task)

    # -- status -------------------------------------------------------------------------------------------------------

    def observed(self) -> Observed:
        settings = self.node.settings
        held = self.held_sandbox
        ips = held.ips if held is not None else tuple(self.pod.ips)  # NODE-59: kept until a new sandbox has others
        return Observed(
            statuses={r.name: self.returning.get(r.name) or r.status for r in self.runners.values()},
            ips=ips,
            host_ips=settings.node_addresses,
            networked=held is not None and not self.replacing,
            stopped=self.stopped and self.stop_wanted.is_set(),
            reason=self.reason,
            message=self.message,
            start_time=self.record.start_time or self.pod.status.start_time,
        )

    async def write_statuses(self) -> None:
        """Write the status whenever something it says has changed, and look again every few seconds (NODE-18)."""
        delays = iter(RETRY_SECONDS)
        while True:
            try:
                async with asyncio.timeout(RECONCILE_SECONDS):
                    await self.dirty.wait()
            except TimeoutError:
                pass
            try:
                await self.write_status()
                delays = iter(RETRY_SECONDS)
            except (ApiError, Unreachable) as error:
                log.info("status of pod %s/%s not written: %s", self.pod.namespace, self.pod.name, error)
                self.touch()
                await asyncio.sleep(next(delays, RETRY_SECONDS[-1]))

    async def write_status(self) -> None:
        """Write what has changed; nothing if nothing has. A Pod that is gone or was made anew is left alone."""
        async with self.wrote:
            self.dirty.clear()
            if self.gone or (not self.runners and not self.pod.terminal and not self.stopped):
                return
            if self.pod.terminal and not self.runners:
                return
            wanted = plan_status(self.pod, self.observed(), rfc3339(self.node.clock.now()))
            patch = patch_of(self.pod, wanted, None)
            if patch is None:
                return
            try:
                answer = await self.node.client.patch(
                    POD, self.pod.name, self.pod.namespace, patch, "strategic", subresource="status"
                )
            except (NotFound, Conflict, Invalid) as error:
                log.info("status of pod %s/%s refused: %s", self.pod.namespace, self.pod.name, error)
                if isinstance(error, NotFound):
                    self.removed()
                return
            fresh = typed(answer, Pod)
            if newer(fresh, self.pod):
                self.pod = fresh

    async def delete_object(self) -> None:
        """The last act: the object itself, with its uid as a precondition (NODE-70)."""
        delays = iter(RETRY_SECONDS)
        while not self.gone:
            try:
                await self.node.client.delete(POD, self.pod.name, self.pod.namespace, grace_seconds=0, uid=self.uid)
                return
            except (NotFound, Conflict):
                return
            except (ApiError, Unreachable) as error:
                log.info("pod %s/%s not deleted: %s", self.pod.namespace, self.pod.name, error)
            await asyncio.sleep(next(delays, RETRY_SECONDS[-1]))


def newer(pod: Pod, than: Pod) -> bool:
    """Whether one state of a Pod is not older than another of the same uid."""
    if pod.metadata.uid != than.metadata.uid:
        return False
    try:
        return int(pod.metadata.resource_version or 0) >= int(than.metadata.resource_version or 0)
    except ValueError:
        return True


__all__ = ["PodWorker", "ended", "newer"]


async def end_of(task: asyncio.Task[None]) -> None:
    """Wait until a task has ended, however. An end of whoever waits is not taken for the task's."""
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # it is known, and asked for by nobody else
