"""Pods as a runtime is told of them: sandboxes and containers as CRI messages, labelled as kubelets do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kubesvc.api.container import Container, ProfileSource
from kubesvc.api.pod import Pod
from kubesvc.api.quantity import NANO, parse

from ..environment import expand
from ..images import Image
from ..limits import container_limits
from ..podstatus import qos_class
from . import wire
from .wire import Message

POD_NAME, POD_NAMESPACE, POD_UID = "io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
OWNER = "kubesvc.dev/node"
"""The label that says whose a sandbox is: the state directory of its node's agent."""
SECCOMP_PROFILES = "/var/lib/kubelet/seccomp"
"""Where profiles lie that a Pod names (localhostProfile)."""
PERIOD_MICROSECONDS = 100_000
LEAST_QUOTA_MICROSECONDS = 1000
LEAST_SHARES = 2
MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
PROPAGATION = {"HostToContainer": wire.HOST_TO_CONTAINER, "Bidirectional": wire.BIDIRECTIONAL}
PROFILES = {"RuntimeDefault": wire.RUNTIME_DEFAULT, "Unconfined": wire.UNCONFINED, "Localhost": wire.LOCALHOST}


def every_container(pod: Pod) -> Iterable[Container]:
    spec = pod.spec
    return (*(spec.init_containers or ()), *(spec.containers or ()), *(spec.ephemeral_containers or ()))


def pod_labels(pod: Pod) -> dict[str, str]:
    return {POD_NAME: pod.name, POD_NAMESPACE: pod.namespace, POD_UID: pod.metadata.uid}


def namespaces(pod: Pod, network: int, target: str = "") -> Message:
    """Whose namespaces a container of the Pod has; `target`: the container among whose processes it shall be."""
    spec = pod.spec
    processes = wire.NODE if spec.host_pid else wire.POD if spec.share_process_namespace else wire.CONTAINER
    option: Message = {"network": network, "pid": processes, "ipc": wire.NODE if spec.host_ipc else wire.POD}
    if target and processes == wire.CONTAINER:
        option |= {"pid": wire.TARGET, "target_id": target}
    return option


def profile(source: ProfileSource | None, directory: str = "") -> Message:
    """A profile of seccomp or AppArmor; unconfined where none is asked for, as a kubelet has it."""
    kind = PROFILES.get(source.type, wire.UNCONFINED) if source is not None else wire.UNCONFINED
    if source is None or kind != wire.LOCALHOST:
        return {"profile_type": kind}
    name = source.localhost_profile or ""
    return {"profile_type": kind, "localhost_ref": f"{directory}/{name}" if directory else name}


def plan_sandbox(
    pod: Pod, *, attempt: int, hostname: str, log_directory: str, owner: str, network: int, cgroup_parent: str = ""
) -> Message:
    """A PodSandboxConfig. `network`: wire.POD, or wire.NODE for the runtime's own."""
    context = pod.spec.security_context
    security: Message = {
        "namespace_options": namespaces(pod, network),
        "privileged": any(
            c.security_context is not None and c.security_context.privileged for c in every_container(pod)
        ),
        "seccomp": {"profile_type": wire.RUNTIME_DEFAULT},
        "supplemental_groups": supplemental_groups(pod),
    }
    if context is not None and context.run_as_user is not None:
        security["run_as_user"] = {"value": context.run_as_user}
        if context.run_as_group is not None:
            security["run_as_group"] = {"value": context.run_as_group}
    meta = pod.metadata
    return {
        "metadata": {"name": pod.name, "uid": meta.uid, "namespace": pod.namespace, "attempt": attempt},
        "hostname": "" if network == wire.NODE else hostname,
        "log_directory": log_directory,
        "labels": {**(meta.labels or {}), **pod_labels(pod), OWNER: owner},
        "annotations": dict(meta.annotations or {}),
        "linux": {
            "cgroup_parent": cgroup_parent,
            "security_context": security,
            "sysctls": {s.name: s.value for s in (context.sysctls if context is not None else None) or ()},
        },
    }


def supplemental_groups(pod: Pod) -> list[int]:
    context = pod.spec.security_context
    if context is None:
        return []
    return [*(context.supplemental_groups or ()), *(() if context.fs_group is None else (context.fs_group,))]


def plan_container(
    pod: Pod,
    container: Container,
    *,
    image: Image,
    username: str,
    attempt: int,
    environment: Mapping[str, str],
    mounts: Sequence[Message],
    log_path: str,
    network: int,
    target: str = "",
    memory_bytes: int = 0,
) -> Message:
    """A ContainerConfig.

    username:      the user that the image names, where it names no number
    mounts:        Mount messages, those of volumes and of the Pod's own files
    log_path:      below the sandbox's log directory
    target:        id of the container among whose processes it shall be
    memory_bytes:  of the node, by which the first to be ended when it runs short is chosen
    """
    grace = pod.spec.termination_grace_period_seconds
    return {
        "metadata": {"name": container.name, "attempt": attempt},
        "image": {"image": image.identity, "user_specified_image": container.image},
        "command": [expand(word, environment) for word in container.command or ()],
        "args": [expand(word, environment) for word in container.args or ()],
        "working_dir": container.working_dir,
        "envs": [{"key": key, "value": value} for key, value in environment.items()],
        "mounts": list(mounts),
        "labels": {**pod_labels(pod), CONTAINER_NAME: container.name},
        "annotations": {
            "io.kubernetes.container.restartCount": str(attempt),
            "io.kubernetes.container.terminationMessagePath": container.termination_message_path,
            "io.kubernetes.container.terminationMessagePolicy": container.termination_message_policy,
            "io.kubernetes.pod.terminationGracePeriod": str(30 if grace is None else grace),
        },
        "log_path": log_path,
        "stdin": container.stdin,
        "stdin_once": container.stdin_once,
        "tty": container.tty,
        "linux": {
            "resources": plan_resources(pod, container, memory_bytes),
            "security_context": plan_security(pod, container, image, username, network, target),
        },
    }


def plan_security(pod: Pod, container: Container, image: Image, username: str, network: int, target: str) -> Message:
    """A LinuxContainerSecurityContext: the container's own settings before its Pod's before its image's."""
    own, common = container.security_context, pod.spec.security_context

    def chosen(name: str) -> object:
        for held in (own, common):
            value = getattr(held, name, None) if held is not None else None
            if value is not None:
                return value
        return None

    privileged = bool(own is not None and own.privileged)
    unmasked = privileged or (own is not None and own.proc_mount == "Unmasked")
    user, group = chosen("run_as_user"), chosen("run_as_group")
    seccomp, apparmor = chosen("seccomp_profile"), chosen("app_armor_profile")
    security: Message = {
        "privileged": privileged,
        "namespace_options": namespaces(pod, network, target),
        "readonly_rootfs": bool(own is not None and own.read_only_root_filesystem),
        "no_new_privs": bool(own is not None and own.allow_privilege_escalation is False),
        "supplemental_groups": supplemental_groups(pod),
        "masked_paths": [] if unmasked else list(MASKED_PATHS),
        "readonly_paths": [] if unmasked else list(READ_ONLY_PATHS),
        "seccomp": profile(seccomp if isinstance(seccomp, ProfileSource) else None, SECCOMP_PROFILES),
    }
    if isinstance(apparmor, ProfileSource):
        security["apparmor"] = profile(apparmor)
    if isinstance(user, int):
        security["run_as_user"] = {"value": user}
    elif username:
        security["run_as_username"] = username
    else:
        security["run_as_user"] = {"value": image.user or 0}
    if isinstance(group, int):
        security["run_as_group"] = {"value": group}
    if own is not None and own.capabilities is not None:
        add, drop = own.capabilities.add or (), own.capabilities.drop or ()
        security["capabilities"] = {"add_capabilities": list(add), "drop_capabilities": list(drop)}
    return security


def plan_resources(pod: Pod, container: Container, memory_bytes: int) -> Message:
    """LinuxContainerResources: what it is held to, and how soon it is ended when the node's memory runs short."""
    limits = container_limits(container)
    found: Message = {
        "cpu_shares": limits.cpu_shares if limits.cpu_shares is not None else LEAST_SHARES,
        "oom_score_adj": oom_score(pod, container, memory_bytes),
    }
    if limits.cpus is not None:
        quota = max(LEAST_QUOTA_MICROSECONDS, int(limits.cpus * PERIOD_MICROSECONDS))
        found |= {"cpu_period": PERIOD_MICROSECONDS, "cpu_quota": quota}
    if limits.memory_bytes is not None:
        found |= {"memory_limit_in_bytes": limits.memory_bytes, "memory_swap_limit_in_bytes": limits.memory_bytes}
    return found


def oom_score(pod: Pod, container: Container, memory_bytes: int) -> int:
    """The adjustment of the kernel's choice of whom to end, by quality of service as a kubelet has it."""
    quality = pod.status.qos_class or qos_class(pod)
    if quality == "Guaranteed":
        return -997
    if quality != "Burstable" or not memory_bytes:
        return 1000
    wanted = (container.resources.requests or {}).get("memory")
    try:
        asked = parse(wanted).nanos // NANO if wanted is not None else 0
    except ValueError:
        asked = 0
    return min(999, max(3, 1000 - 1000 * asked // memory_bytes))
