"""What the status of a Pod says, from the states of its containers (NODE-1 to NODE-23, NODE-56 to NODE-59). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kubesvc.api.container import Container, ContainerStateTerminated, ContainerStatus
from kubesvc.api.meta import Condition, Object
from kubesvc.api.pod import Pod

from .restart_plan import restarts

READY_TO_START = "PodReadyToStartContainers"
INITIALIZED = "Initialized"
READY = "Ready"
CONTAINERS_READY = "ContainersReady"
SCHEDULED = "PodScheduled"
OWNED = (READY_TO_START, INITIALIZED, READY, CONTAINERS_READY, SCHEDULED)
"""The conditions that are the agent's, in the order it writes them; all others are preserved (NODE-16)."""
TERMINAL = ("Succeeded", "Failed")


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What the agent sees of one Pod.

    statuses:   by container name, as `container_status` made them; one that is missing is unknown
    ips:        the Pod's addresses, primary first; empty until the sandbox has its network (NODE-56)
    host_ips:   the node's
    networked:  the sandbox stands and its network is configured (NODE-10)
    stopped:    the Pod is being deleted or has failed as a whole, and no container runs or will run again
    reason, message: of the Pod as a whole, such as DeadlineExceeded; with them it counts as failed once stopped
    start_time: when the agent accepted the Pod, RFC 3339
    """

    statuses: Mapping[str, ContainerStatus] = field(default_factory=dict)
    ips: Sequence[str] = ()
    host_ips: Sequence[str] = ()
    networked: bool = False
    stopped: bool = False
    reason: str = ""
    message: str = ""
    start_time: str | None = None


def ordinary(pod: Pod) -> list[Container]:
    return list(pod.spec.containers or ())


def init_containers(pod: Pod) -> list[Container]:
    return list(pod.spec.init_containers or ())


def plan_phase(pod: Pod, seen: Observed) -> str:
    """Pending, Running, Succeeded or Failed (NODE-1 to NODE-7)."""
    if pod.terminal:
        return pod.status.phase  # NODE-5
    if seen.reason and seen.stopped:
        return "Failed"
    policy = pod.spec.restart_policy or "Always"
    pending_init = failed_init = False
    for container in init_containers(pod):
        status = seen.statuses.get(container.name)
        if container.sidecar:
            pending_init |= status is None or not (status.started or ended(status))
        elif status is None or status.state.running is not None:
            pending_init = True
        else:
            end = status.state.terminated or status.last_state.terminated
            if end is not None and end.exit_code != 0:
                failed_init |= not restarts(policy, container, end.exit_code, init=True)
                pending_init = True
            elif status.state.terminated is None:
                pending_init = True
    if failed_init:
        return "Failed"
    counts = {"running": 0, "waiting": 0, "stopped": 0, "succeeded": 0, "unknown": 0}
    returning = False
    for container in ordinary(pod):
        status = seen.statuses.get(container.name)
        end = ended(status) if status is not None else None
        if status is None:
            counts["unknown"] += 1
        elif status.state.running is not None:
            counts["running"] += 1
        elif end is not None:  # NODE-6: waiting after an end counts as stopped
            counts["stopped"] += 1
            counts["succeeded"] += end.exit_code == 0 and status.state.terminated is not None
            returning |= status.state.terminated is None or restarts(policy, container, end.exit_code)
        else:
            counts["waiting"] += 1
    if seen.stopped and (counts["stopped"] or not pending_init):
        if counts["running"]:
            return "Running"
        codes = [end.exit_code for s in seen.statuses.values() if (end := ended(s)) is not None and is_ordinary(pod, s)]
        never_ran = counts["waiting"] + counts["unknown"]
        return "Failed" if never_ran or any(codes) else "Succeeded"  # NODE-4
    if pending_init or counts["waiting"]:
        return "Failed" if seen.stopped else "Pending"
    if counts["running"] and not counts["unknown"]:
        return "Running"
    if counts["stopped"] and not counts["unknown"]:
        if returning:
            return "Running"
        return "Succeeded" if counts["succeeded"] == counts["stopped"] else "Failed"
    return "Pending"


def is_ordinary(pod: Pod, status: ContainerStatus) -> bool:
    return any(c.name == status.name for c in ordinary(pod))


def ended(status: ContainerStatus) -> ContainerStateTerminated | None:
    """The end of the present run, or of the one before if the container waits to run again."""
    if status.state.terminated is not None:
        return status.state.terminated
    return status.last_state.terminated if status.state.running is None else None


def listed(names: Sequence[str]) -> str:
    return f"[{' '.join(names)}]"


def plan_containers_ready(pod: Pod, seen: Observed, phase: str) -> tuple[str, str, str]:
    """(status, reason, message) of ContainersReady (NODE-12, NODE-14, NODE-17)."""
    if not seen.statuses:
        return "False", "UnknownContainerStatuses", ""
    if phase in TERMINAL:
        return "False", "PodCompleted" if phase == "Succeeded" else "PodFailed", ""
    wanted = [c for c in init_containers(pod) if c.sidecar] + ordinary(pod)
    unknown = [c.name for c in wanted if c.name not in seen.statuses]
    unready = [c.name for c in wanted if c.name in seen.statuses and not seen.statuses[c.name].ready]
    texts = []
    if unknown:
        texts.append(f"containers with unknown status: {listed(unknown)}")
    if unready:
        texts.append(f"containers with unready status: {listed(unready)}")
    if texts:
        return "False", "ContainersNotReady", ", ".join(texts)
    return "True", "", ""


def plan_ready(pod: Pod, containers_ready: tuple[str, str, str]) -> tuple[str, str, str]:
    """(status, reason, message) of Ready (NODE-13, NODE-14)."""
    if containers_ready[0] != "True":
        return containers_ready
    texts = []
    for gate in pod.spec.readiness_gates or ():
        name = gate.condition_type
        condition = pod.status.condition(name)
        if condition is None:
            texts.append(f'corresponding condition of pod readiness gate "{name}" does not exist.')
        elif condition.status != "True":
            texts.append(f'the status of pod readiness gate "{name}" is not "True", but {condition.status}')
    return ("False", "ReadinessGatesNotReady", ", ".join(texts)) if texts else ("True", "", "")


def plan_initialized(pod: Pod, seen: Observed, phase: str) -> tuple[str, str, str]:
    """(status, reason, message) of Initialized (NODE-11, NODE-17)."""
    if phase == "Succeeded":
        return "True", "PodCompleted", ""
    waiting_for = init_containers(pod)
    if not waiting_for:
        return "True", "", ""
    if not seen.statuses:
        return "False", "UnknownContainerStatuses", ""
    if any(has_started(seen.statuses.get(c.name)) for c in ordinary(pod)):
        return "True", "", ""
    unknown, incomplete = [], []
    for container in waiting_for:
        status = seen.statuses.get(container.name)
        if status is None:
            unknown.append(container.name)
        elif container.sidecar:
            if not status.started:
                incomplete.append(container.name)
        elif not status.ready:
            incomplete.append(container.name)
    texts = []
    if unknown:
        texts.append(f"containers with unknown status: {listed(unknown)}")
    if incomplete:
        texts.append(f"containers with incomplete status: {listed(incomplete)}")
    return ("False", "ContainersNotInitialized", ", ".join(texts)) if texts else ("True", "", "")


def has_started(status: ContainerStatus | None) -> bool:
    """Whether a container is running or has ever run."""
    return status is not None and (status.state.running is not None or ended(status) is not None)


def plan_conditions(pod: Pod, seen: Observed, phase: str, now: str) -> list[Condition]:
    """The five conditions of the agent, in their order, each with the time of its last change (NODE-9 to NODE-17)."""
    containers_ready = plan_containers_ready(pod, seen, phase)
    found = {
        READY_TO_START: ("True" if seen.networked else "False", "", ""),
        INITIALIZED: plan_initialized(pod, seen, phase),
        READY: plan_ready(pod, containers_ready),
        CONTAINERS_READY: containers_ready,
        SCHEDULED: ("True", "", ""),
    }
    conditions = []
    for name in OWNED:
        status, reason, message = found[name]
        before = pod.status.condition(name)
        since = before.last_transition_time if before is not None and before.status == status else now
        conditions.append(
            Condition(
                type=name,
                status=status,
                reason=reason,
                message=message,
                last_transition_time=since or now,
                observed_generation=pod.metadata.generation or None,
            )
        )
    return conditions


def plan_status(pod: Pod, seen: Observed, now: str) -> Object:
    """The status that the agent wants, as plain values: its own conditions only, and all of its own fields.

    pod:  the Pod as last known, with the status last written
    now:  RFC 3339, for conditions that change
    """
    phase = plan_phase(pod, seen)
    status: Object = {
        "observedGeneration": pod.metadata.generation or None,
        "phase": phase,
        "conditions": [plain_condition(c) for c in plan_conditions(pod, seen, phase, now)],
        "reason": seen.reason or None,
        "message": seen.message or None,
        "startTime": seen.start_time or pod.status.start_time,
        "qosClass": pod.status.qos_class or qos_class(pod),
        "containerStatuses": plain_statuses(ordinary(pod), seen),
        "initContainerStatuses": plain_statuses(init_containers(pod), seen),
        "ephemeralContainerStatuses": plain_statuses(pod.spec.ephemeral_containers or (), seen),
    }
    if seen.host_ips:
        status["hostIP"] = seen.host_ips[0]
        status["hostIPs"] = [{"ip": ip} for ip in seen.host_ips]
    if seen.ips:
        status["podIP"] = seen.ips[0]
        status["podIPs"] = [{"ip": ip} for ip in seen.ips]
    return status


def plain_condition(condition: Condition) -> Object:
    """A condition with every field that the agent owns, so that a merge leaves nothing of an older one."""
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason or None,
        "message": condition.message or None,
        "lastProbeTime": None,
        "lastTransitionTime": condition.last_transition_time,
        "observedGeneration": condition.observed_generation,
    }


def plain_statuses(containers: Sequence[Container], seen: Observed) -> list[Object] | None:
    """The statuses of these containers that are known, in the order of the spec; None where there are none."""
    found = [plain_container_status(seen.statuses[c.name]) for c in containers if c.name in seen.statuses]
    return found or None


def plain_container_status(status: ContainerStatus) -> Object:
    """As the API prints it: what Go always writes is there though it is empty."""
    plain: Object = msgspec.to_builtins(status)
    plain.setdefault("state", {})
    plain.setdefault("lastState", {})
    for name, empty in (("ready", False), ("restartCount", 0), ("image", ""), ("imageID", "")):
        plain.setdefault(name, empty)
    for state in (plain["state"], plain["lastState"]):
        if "terminated" in state:
            state["terminated"].setdefault("exitCode", 0)
            state["terminated"].setdefault("startedAt", None)
            state["terminated"].setdefault("finishedAt", None)
    return plain


def qos_class(pod: Pod) -> str:
    """Guaranteed, Burstable or BestEffort by the containers' requests and limits."""
    containers = ordinary(pod) + init_containers(pod)
    guaranteed, any_set = True, False
    for container in containers:
        limits, requests = container.resources.limits or {}, container.resources.requests or {}
        for name in ("cpu", "memory"):
            limit, request = limits.get(name), requests.get(name, limits.get(name))
            any_set |= limit is not None or request is not None
            guaranteed &= limit is not None and str(limit) == str(request)
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def patch_of(pod: Pod, wanted: Object, written: Object | None) -> Object | None:
    """The strategic merge patch that makes the stored status `wanted`; None when it is so already (NODE-18).

    written:  what this agent wrote last, None after its start (then compared with the Pod as read)
    """
    before = written if written is not None else status_as_read(pod)
    changed: Object = {}
    for name, value in wanted.items():
        old = before.get(name)
        if value == old or (value is None and not old):
            continue
        if name == "conditions":
            old_conditions = {c["type"]: c for c in old or ()}
            value = [c for c in value if c != old_conditions.get(c["type"])]
            changed[f"$setElementOrder/{name}"] = [{"type": c["type"]} for c in wanted[name]]
        elif name == "podIPs" and old:
            value = [*value, *({"ip": o["ip"], "$patch": "delete"} for o in old if o not in value)]
        changed[name] = value
    return {"metadata": {"uid": pod.metadata.uid}, "status": changed} if changed else None


def status_as_read(pod: Pod) -> Object:
    """The stored status in the form of `plan_status`, for comparing."""
    status: Any = pod.status
    plain: Object = msgspec.to_builtins(status)
    plain["conditions"] = [plain_condition(c) for c in status.conditions or () if c.type in OWNED]
    for name, statuses in (
        ("containerStatuses", status.container_statuses),
        ("initContainerStatuses", status.init_container_statuses),
        ("ephemeralContainerStatuses", status.ephemeral_container_statuses),
    ):
        plain[name] = [plain_container_status(s) for s in statuses or ()] or None
    return plain
