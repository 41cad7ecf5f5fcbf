"""How a pod looks in a table (KCTL-11, KCTL-37 to 45), and the condition its row carries (KCTL-6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .container import ContainerStatus
from .kind import Cell, Column, Since
from .meta import Object

if TYPE_CHECKING:
    from .pod import Pod

NONE = "<none>"


class Summary:
    """What the columns Ready, Status and Restarts say, found in one walk over the statuses."""

    def __init__(self, pod: Pod) -> None:
        status = pod.status
        self.reason = status.reason or status.phase
        if any(c.type == "PodScheduled" and c.reason == "SchedulingGated" for c in status.conditions or ()):
            self.reason = "SchedulingGated"
        self.sidecars = {c.name for c in pod.spec.sidecars}
        self.total = len(pod.spec.containers or ()) + len(self.sidecars)
        self.ready = 0
        self.restarts = 0
        self.last_restart = ""
        self.sidecar_restarts = 0
        self.last_sidecar_restart = ""
        initializing = self.look_at_init(pod)
        initialized = any(c.type == "Initialized" and c.status == "True" for c in status.conditions or ())
        if not initializing or initialized:
            self.look_at_containers(pod)
        if pod.terminating:
            if status.reason == "NodeLost":
                self.reason = "Unknown"
            elif not pod.terminal:
                self.reason = "Terminating"

    def look_at_init(self, pod: Pod) -> bool:
        """KCTL-39: whether some init container is not done, which then gives the reason."""
        for i, container in enumerate(pod.status.init_container_statuses or ()):
            self.restarts += container.restart_count
            self.last_restart = max(self.last_restart, finished(container))
            sidecar = container.name in self.sidecars
            if sidecar:
                self.sidecar_restarts += container.restart_count
                self.last_sidecar_restart = max(self.last_sidecar_restart, finished(container))
            ended, waiting = container.state.terminated, container.state.waiting
            if ended is not None and ended.exit_code == 0:
                continue
            if sidecar and container.started:
                self.ready += container.ready
                continue
            if ended is not None:
                code = f"Signal:{ended.signal}" if ended.signal else f"ExitCode:{ended.exit_code}"
                self.reason = f"Init:{ended.reason or code}"
            elif waiting is not None and waiting.reason not in ("", "PodInitializing"):
                self.reason = f"Init:{waiting.reason}"
            else:
                self.reason = f"Init:{i}/{len(pod.spec.init_containers or ())}"
            return True
        return False

    def look_at_containers(self, pod: Pod) -> None:
        """KCTL-40, KCTL-41, KCTL-43."""
        self.restarts, self.last_restart = self.sidecar_restarts, self.last_sidecar_restart
        running, failure = False, ""
        for container in reversed(pod.status.container_statuses or ()):
            self.restarts += container.restart_count
            self.last_restart = max(self.last_restart, finished(container))
            ended, waiting = container.state.terminated, container.state.waiting
            if waiting is not None and waiting.reason:
                self.reason = waiting.reason
            elif ended is not None:
                code = f"Signal:{ended.signal}" if ended.signal else f"ExitCode:{ended.exit_code}"
                self.reason = ended.reason or code
                if ended.exit_code:
                    failure = self.reason
            elif container.ready and container.state.running is not None:
                running = True
                self.ready += 1
        if self.reason == "Completed" and running:
            self.reason = "Running" if pod.ready else failure or "NotReady"


def finished(container: ContainerStatus) -> str:
    """When it last ended, "" if it never did; texts of one form, so the later is the greater."""
    ended = container.last_state.terminated
    return (ended.finished_at or "") if ended is not None else ""


def restarts(pod: Pod) -> Cell | Since:
    found = Summary(pod)
    if found.restarts and found.last_restart:
        return Since(found.last_restart, before=f"{found.restarts} (", after=" ago)")
    return str(found.restarts)


def ready(pod: Pod) -> str:
    found = Summary(pod)
    return f"{found.ready}/{found.total}"


def readiness_gates(pod: Pod) -> str:
    gates = pod.spec.readiness_gates or ()
    if not gates:
        return NONE
    true = {c.type for c in pod.status.conditions or () if c.status == "True"}
    return f"{sum(g.condition_type in true for g in gates)}/{len(gates)}"


def first_ip(pod: Pod) -> str:
    return next((p.ip for p in pod.status.pod_ips or ()), "") or NONE


COLUMNS = (
    Column("Name", lambda p: p.name, format="name"),
    Column("Ready", ready),
    Column("Status", lambda p: Summary(p).reason),
    Column("Restarts", restarts),
    Column("Age", lambda p: Since(p.metadata.creation_timestamp)),
    Column("IP", first_ip, wide=True),
    Column("Node", lambda p: p.spec.node_name or NONE, wide=True),
    Column("Nominated Node", lambda p: p.status.nominated_node_name or NONE, wide=True),
    Column("Readiness Gates", readiness_gates, wide=True),
)


def row_conditions(pod: Pod) -> list[Object]:
    """Pods that ended say so (KCTL-6)."""
    texts = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}
    if pod.status.phase not in texts:
        return []
    phase = pod.status.phase
    return [{"type": "Completed", "status": "True", "reason": phase, "message": texts[phase]}]
