"""The Node's own object and Lease: made at the start, kept up while the agent lives (NODE-83, NODE-84, NODE-93)."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubesvc.api.errors import AlreadyExists, ApiError, Conflict, NotFound
from kubesvc.api.kinds import LEASE, NODE
from kubesvc.api.meta import Object
from kubesvc.client import Client, Unreachable, loudness
from kubesvc.clock import Clock, rfc3339, rfc3339_micro

from .settings import NodeSettings

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
AGENT_PORT = 10250
GOOD = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)
FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""The inode of the process namespace that the kernel begins with."""
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def read_boot_id(node_name: str) -> str:
    """The machine's; in a process namespace of its own a node boots with the process that holds it, its ground."""
    machine = read_text("/proc/sys/kernel/random/boot_id")
    try:
        first = os.stat("/proc/self/ns/pid").st_ino == FIRST_PID_NAMESPACE
    except OSError:
        return machine
    if first or not machine:
        return machine
    began = read_text("/proc/1/stat").rpartition(")")[2].split()[19:20]  # clock ticks after the machine's boot
    return str(uuid.uuid5(uuid.UUID(machine), "/".join((node_name, *began))))


def read_capacity(settings: NodeSettings) -> dict[str, str]:
    """What this machine has to give, as quantities."""
    memory_kib = 0
    for line in read_text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            memory_kib = int(line.split()[1])
    disk = os.statvfs(settings.state_dir if settings.state_dir.exists() else "/")
    return {
        "cpu": str(os.cpu_count() or 1),
        "ephemeral-storage": f"{disk.f_blocks * disk.f_frsize // 1024}Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": f"{memory_kib}Ki",
        "pods": str(settings.max_pods),
    }


def read_system(settings: NodeSettings) -> Object:
    release = {}
    for line in read_text("/etc/os-release").splitlines():
        name, _, value = line.partition("=")
        release[name] = value.strip('"')
    machine = read_text("/etc/machine-id")
    return {
        "machineID": machine,
        "systemUUID": machine,
        "bootID": read_boot_id(settings.node_name),
        "kernelVersion": platform.release(),
        "osImage": release.get("PRETTY_NAME", "Linux"),
        "containerRuntimeVersion": "kubesvc://0.1.0",
        "kubeletVersion": settings.version,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": MACHINES.get(platform.machine(), platform.machine()),
    }


def node_labels(settings: NodeSettings) -> dict[str, str]:
    machine = MACHINES.get(platform.machine(), platform.machine())
    labels = {
        "beta.kubernetes.io/arch": machine,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine,
        "kubernetes.io/hostname": settings.node_name,
        "kubernetes.io/os": "linux",
    }
    if settings.zone:
        labels["topology.kubernetes.io/zone"] = settings.zone
    if settings.region:
        labels["topology.kubernetes.io/region"] = settings.region
    return labels | dict(settings.labels)


def plan_node(settings: NodeSettings) -> Object:
    """The Node as it is first made."""
    spec: Object = {}
    if settings.pod_cidrs:
        spec = {"podCIDR": settings.pod_cidrs[0], "podCIDRs": list(settings.pod_cidrs)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": settings.node_name,
            "labels": node_labels(settings),
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": spec,
    }


def plan_node_status(
    settings: NodeSettings, capacity: dict[str, str], system: Object, before: Object, now: str, trouble: str = ""
) -> Object:
    """The status the Node ought to have; conditions keep the time of their last change (NODE-84). With `trouble`, why
    it cannot run Pods, it is not ready."""
    old = {c.get("type"): c for c in before.get("conditions") or ()}
    conditions = []
    for kind, status, reason, message in GOOD:
        if kind == "Ready" and trouble:
            status, reason, message = "False", "KubeletNotReady", trouble
        known = old.get(kind) or {}
        changed = known.get("lastTransitionTime") if known.get("status") == status else None
        conditions.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": now,
                "lastTransitionTime": changed or now,
            }
        )
    addresses = [{"type": "InternalIP", "address": a} for a in settings.node_addresses]
    return {
        "addresses": [*addresses, {"type": "Hostname", "address": settings.node_name}],
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": conditions,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": AGENT_PORT}},
        "nodeInfo": system,
    }


def without_heartbeat(status: Object) -> Any:
    conditions = [{k: v for k, v in c.items() if k != "lastHeartbeatTime"} for c in status.get("conditions") or ()]
    return {
        **{k: status.get(k) for k in ("addresses", "capacity", "allocatable", "nodeInfo")},
        "conditions": conditions,
    }


class NodeKeeper:
    """Registers the Node and keeps its status and Lease fresh."""

    def __init__(self, client: Client, settings: NodeSettings, clock: Clock) -> None:
        self.client = client
        self.settings = settings
        self.clock = clock
        self.capacity = read_capacity(settings)
        self.system = read_system(settings)
        self.node: Object = {}
        self.reported = 0.0
        self.rebooted = False
        """Whether the Node was there and has another boot id now."""
        self.trouble: Callable[[], str] = str
        """Asked why no Pods can run here now, "" if they can."""

    async def register(self) -> Object:
        """Make the Node or take over the one that is there, with our labels; its present object."""
        name = self.settings.node_name
        wanted = plan_node(self.settings)
        try:
            self.node = await self.client.create(NODE, wanted)
        except AlreadyExists:
            patch: Object = {"metadata": {"labels": wanted["metadata"]["labels"]}}
            self.node = await self.client.patch(NODE, name, "", patch, "merge")
            if wanted["spec"] and not (self.node.get("spec") or {}).get("podCIDR"):
                self.node = await self.client.patch(NODE, name, "", {"spec": wanted["spec"]}, "merge")
        known = ((self.node.get("status") or {}).get("nodeInfo") or {}).get("bootID")
        self.rebooted = self.rebooted or (bool(known) and known != self.system["bootID"])
        await self.report(force=True)
        await self.renew()
        return self.node

    async def report(self, force: bool = False) -> None:
        """Write the status if it has changed, or has not been written for long (NODE-83)."""
        now = self.clock.now()
        before = self.node.get("status") or {}
        wanted = plan_node_status(self.settings, self.capacity, self.system, before, rfc3339(now), self.trouble())
        due = now - self.reported >= self.settings.status_report_seconds
        if not force and not due and without_heartbeat(wanted) == without_heartbeat(before):
            return
        # Addresses merge by their type, of which a node with two families has two: they are replaced as a whole.
        patch = {**wanted, "addresses": [*wanted["addresses"], {"$patch": "replace"}]}
        self.node = await self.client.patch(
            NODE, self.settings.node_name, "", {"status": patch}, "strategic", subresource="status"
        )
        self.reported = now

    async def renew(self) -> None:
        """Renew the Lease, or make it."""
        name = self.settings.node_name
        now = rfc3339_micro(self.clock.now())
        try:
            await self.client.patch(LEASE, name, LEASE_NAMESPACE, {"spec": {"renewTime": now}}, "merge")
        except NotFound:
            lease: Object = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": LEASE_NAMESPACE},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": self.settings.lease_seconds, "renewTime": now},
            }
            if uid := (self.node.get("metadata") or {}).get("uid"):
                owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
                lease["metadata"]["ownerReferences"] = [owner]
            try:
                await self.client.create(LEASE, lease, LEASE_NAMESPACE)
            except (AlreadyExists, NotFound):
                pass  # made meanwhile, or its namespace is not there yet: at the next turn

    async def run(self) -> None:
        """Keep both fresh until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.repeat(self.settings.lease_renew_seconds, "lease", self.renew))
            group.create_task(self.repeat(self.settings.status_seconds, "status", self.report))

    async def repeat(self, seconds: float, what: str, act: Any) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                if what == "status":
                    self.node = await self.client.get(NODE, self.settings.node_name)
                await act()
            except NotFound:
                try:
                    await self.register()
                except (ApiError, Unreachable) as error:
                    log.log(loudness(error), "node %s not registered: %s", self.settings.node_name, error)
            except Conflict:
                pass
            except (ApiError, Unreachable) as error:
                log.log(loudness(error), "%s of node %s not written: %s", what, self.settings.node_name, error)
