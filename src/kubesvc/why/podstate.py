"""Why one Pod takes no traffic, read from its status, its events and its node (EP301 to EP319). Pure.

What makes a Pod Ready is the node agent's plan (`podstatus.plan_ready`) and what a Pod contributes is the controllers'
(`pod_endpoints`); here is only the way back from the result to the cause.
"""

from __future__ import annotations

import re

from kubesvc.api.ages import render_age
from kubesvc.api.container import Container, ContainerStatus, IntOrString, Probe
from kubesvc.api.deployment import DEPLOYMENT, Deployment
from kubesvc.api.event import Event
from kubesvc.api.node import NODE, Node
from kubesvc.api.pod import Pod
from kubesvc.api.replicaset import REPLICA_SET
from kubesvc.clock import parse_rfc3339
from kubesvc.controllers.podclaims import claim_names
from kubesvc.controllers.scheduler_plan import clash, host_ports, obstacles

from . import commands
from .commands import some
from .diagnosis import Finding
from .nearest import nearest
from .snapshot import Snapshot

PULL_REASONS = (
    "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
    "RegistryUnavailable",
)  # fmt: skip
CONFIG_REASONS = (
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError",
    "PreStartHookError",
)  # fmt: skip
FLAPS = 3
"""Fewer failed probes than these are no flapping."""
SPARSE = 1.6
"""A probe that fails at each turn fails about as often as there was time; one that succeeds at every other turn half as
often."""
SETTLING_SECONDS = 5.0
"""What a busy machine may take besides, until a Pod that has failed often enough is said not to be Ready."""
MOST_TOLD = 25
"""As many events about one Pod are told as they come; later ones are held back."""
VOLUMES = re.compile(r"persistent ?volume|pvc", re.IGNORECASE)
"""What a scheduler's words say when it is a Pod's volumes that are in the way."""
REFUSED = re.compile(r"connection refused|connect: connection", re.IGNORECASE)


def explain_pod(pod: Pod, snapshot: Snapshot) -> Finding | None:
    """Why a Pod is not an endpoint that takes new traffic; None if, for its own part, it is one. Worked out once for
    all Services that select it."""
    key = (pod.namespace, pod.name)
    if key not in snapshot.explained:
        snapshot.explained[key] = found_out(pod, snapshot)
    return snapshot.explained[key]


def found_out(pod: Pod, snapshot: Snapshot) -> Finding | None:
    """The same, worked out anew."""
    where = f"pod/{pod.name}"
    if pod.terminal:
        return ended(pod)
    if pod.terminating:
        return terminating(pod, snapshot)
    if not pod.spec.node_name:
        return not_scheduled(pod, snapshot)
    node = snapshot.nodes.get(pod.spec.node_name)
    if pod.ready and pod.ips:
        return None
    if node is not None and not node.ready:
        condition = node.status.condition("Ready")
        said = condition.message or condition.reason if condition else "it has no Ready condition"
        began = since(condition.last_transition_time if condition else None, snapshot)
        return Finding(
            "EP308",
            "broken",
            f"{where} is on node {node.name}, which is not ready{began}: {said}",
            commands.kubectl("", "describe", "node", node.name),
            False,
            (f"Ready of node {node.name}: {condition.status if condition else 'absent'}",),
        )
    if node is None and snapshot.knows(NODE) and snapshot.source != "manifests":
        return Finding(
            "EP317",
            "broken",
            f"{where} is bound to node {pod.spec.node_name}, which does not exist",
            commands.kubectl("", "get", "nodes"),
            False,
            (f"nodeName of {where}: {pod.spec.node_name}", f"nodes: {some(sorted(snapshot.nodes), 6) or 'none'}"),
        )
    return waiting(pod, snapshot) or unready(pod, snapshot)


def since(stamp: str | None, snapshot: Snapshot) -> str:
    """` since TIME (AGE ago)`, "" if the time is unknown."""
    if not stamp:
        return ""
    try:
        return f" since {stamp} ({render_age(max(0.0, snapshot.now - parse_rfc3339(stamp)))})"
    except ValueError:
        return ""


def ended(pod: Pod) -> Finding:
    """EP307."""
    said = pod.status.message or pod.status.reason
    ends = [s.state.terminated for s in pod.status.container_statuses or () if s.state.terminated]
    codes = ", ".join(f"exit code {e.exit_code}" for e in ends)
    what = said or codes or "no more is known"
    return Finding(
        "EP307",
        "broken",
        f"pod/{pod.name} has run to its end ({pod.status.phase}): {what}",
        commands.kubectl(pod.namespace, "logs", pod.name, "--all-containers"),
        False,
        (f"phase of pod/{pod.name}: {pod.status.phase}",),
    )


def terminating(pod: Pod, snapshot: Snapshot) -> Finding:
    """EP306."""
    held = f"; finalizers hold it: {', '.join(pod.metadata.finalizers)}" if pod.metadata.finalizers else ""
    return Finding(
        "EP306",
        "broken",
        f"pod/{pod.name} is being deleted; its time ends at {pod.metadata.deletion_timestamp}{held}",
        commands.kubectl(pod.namespace, "get", "pod", pod.name, "-o", "wide"),
        False,
        (f"deletionTimestamp of pod/{pod.name}: {pod.metadata.deletion_timestamp}",),
    )


def not_scheduled(pod: Pod, snapshot: Snapshot) -> Finding:
    """EP309, EP315, EP319: no node yet."""
    condition = pod.status.condition("PodScheduled")
    said = condition.message if condition and condition.status != "True" else ""
    failed = snapshot.events("Pod", pod, "FailedScheduling")
    said = said or (failed[-1].message if failed else "")
    seen = (f"PodScheduled of pod/{pod.name}: {said or 'no word'}",)
    describe = commands.kubectl(pod.namespace, "describe", "pod", pod.name)
    if pod.spec.scheduling_gates:
        gates = ", ".join(g.name for g in pod.spec.scheduling_gates)
        return Finding("EP319", "broken", f"pod/{pod.name} is held by scheduling gates: {gates}", describe, False, seen)
    if "free ports for the requested pod ports" in said:
        return taken_port(pod, snapshot, said, seen)
    claims = claim_names(pod)
    if claims and (not said or VOLUMES.search(said)):
        return without_volumes(pod, snapshot, claims, said, seen)
    repair = unblock(pod, snapshot)
    return Finding(
        "EP309",
        "broken",
        f"pod/{pod.name} cannot be scheduled: {said or 'no scheduler has taken it up'}",
        repair or describe,
        bool(repair),
        seen,
    )


def taken_port(pod: Pod, snapshot: Snapshot, said: str, seen: tuple[str, ...]) -> Finding:
    """EP315, with the Pods that have the ports, where those could be read."""
    holders = port_holders(pod, snapshot)
    if not holders:
        return Finding(
            "EP315", "broken", f"pod/{pod.name} finds no node on which its host ports are free: {said}",
            commands.kubectl(pod.namespace, "describe", "pod", pod.name), False, seen,
        )  # fmt: skip
    taken = [
        f"{port}/{protocol} of node {other.spec.node_name} is held by pod/{other.name}"
        + (f" in namespace {other.namespace}" if other.namespace != pod.namespace else "")
        for other, protocol, port in holders
    ]
    first = holders[0][0]
    return Finding(
        "EP315",
        "broken",
        f"pod/{pod.name} finds no node on which its host ports are free: {some(taken)}",
        commands.kubectl(first.namespace, "get", "pod", first.name, "-o", "wide"),
        False,
        (*seen, *(f"host port of pod/{o.name} on node {o.spec.node_name}: {n}/{p}" for o, p, n in holders[:3])),
    )


def port_holders(pod: Pod, snapshot: Snapshot) -> list[tuple[Pod, str, int]]:
    """The Pods that have a host port which this one wants, on nodes where nothing else is in its way: each with the
    protocol and the port, in order of nodes and names."""
    wanted = host_ports(pod)
    known = {(p.namespace, p.name): p for p in (*snapshot.neighbours, *snapshot.pods.values())}
    nodes = list(snapshot.nodes.values())
    closed = {n.name for n in nodes if obstacles(pod, n, (), nodes, {})}
    found = [
        (other, mine[1], mine[2])
        for other in known.values()
        if other.spec.node_name and other.spec.node_name not in closed and not other.terminal
        for mine in wanted
        if any(clash(mine, theirs) for theirs in host_ports(other))
    ]
    return sorted(found, key=lambda f: (f[0].spec.node_name, f[0].namespace, f[0].name, f[2]))


def without_volumes(pod: Pod, snapshot: Snapshot, claims: list[str], said: str, seen: tuple[str, ...]) -> Finding:
    """EP309 of a Pod whose claims, or the volumes behind them, keep it from every node; with what was last told of the
    claims, where that was read."""
    named = [name for name in claims if f'"{name}"' in said] or claims
    which = f"claim{'s' if len(named) > 1 else ''} {', '.join(named)}"
    told = [e for name in named for e in snapshot.events_named("PersistentVolumeClaim", pod.namespace, name)]
    if troubles := [e for e in told if e.type == "Warning" or e.reason == "FailedBinding"]:
        seen = (*seen, f"{troubles[-1].reason} of pvc/{troubles[-1].involved_object.name}: {troubles[-1].message}")
        said = f"{said.rstrip('.')}; {troubles[-1].message}" if said else troubles[-1].message
    why = said or "no scheduler has taken it up, or the volume is still being made"
    return Finding(
        "EP309",
        "broken",
        f"pod/{pod.name} cannot be scheduled, because of its {which}: {why}",
        commands.kubectl(pod.namespace, "describe", "pvc", *named),
        False,
        seen,
    )


def unblock(pod: Pod, snapshot: Snapshot) -> str:
    """The command that opens a node to the Pod, where one obstacle alone keeps every node closed."""
    nodes = [snapshot.nodes[n] for n in sorted(snapshot.nodes)]
    if not nodes:
        return ""
    open_nodes = [n for n in nodes if not n.spec.unschedulable]
    if not open_nodes:
        return commands.kubectl("", "uncordon", nodes[0].name)
    wanted = pod.spec.node_selector or {}

    def lacks(node: Node) -> dict[str, str]:
        return {k: v for k, v in wanted.items() if node.metadata.label(k) != v}

    best = min(open_nodes, key=lambda n: len(lacks(n)))
    if lacks(best):
        return commands.kubectl(
            "", "label", "node", best.name, *(f"{k}={v}" for k, v in sorted(lacks(best).items())), "--overwrite"
        )
    return ""


def statuses(pod: Pod) -> list[ContainerStatus]:
    return [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]


def waiting(pod: Pod, snapshot: Snapshot) -> Finding | None:
    """A container that cannot start: EP310 to EP313; or no address: EP305."""
    for status in statuses(pod):
        state = status.state.waiting
        if state is None:
            continue
        what = f"container {status.name} of pod/{pod.name}"
        seen = (f"{what}: {state.reason}{': ' + state.message if state.message else ''}",)
        if state.reason in PULL_REASONS:
            image = next((c.image for c in all_containers(pod) if c.name == status.name), status.image)
            undo = rollback(pod, snapshot)
            return Finding(
                "EP310",
                "broken",
                f"{what} waits for its image {image}: {state.message or state.reason}",
                undo or commands.kubectl(pod.namespace, "describe", "pod", pod.name),
                bool(undo),
                seen,
            )
        if state.reason == "CrashLoopBackOff":
            end = status.last_state.terminated
            how = f"exit code {end.exit_code}{', ' + end.reason if end.reason else ''}" if end else "no end is known"
            times, killed = commands.count(status.restart_count, "restart"), killed_by_probe(pod, status.name, snapshot)
            return Finding(
                "EP311",
                "broken",
                f"{what} {'is ended' if killed else 'crashes'} again and again{killed} ({times}, last: {how})",
                commands.kubectl(pod.namespace, "logs", pod.name, "-c", status.name, "--previous"),
                False,
                seen,
            )
        if state.reason in CONFIG_REASONS:
            return Finding(
                "EP312",
                "broken",
                f"{what} cannot be made: {state.message or state.reason}",
                commands.kubectl(pod.namespace, "describe", "pod", pod.name),
                False,
                seen,
            )
    for status in pod.status.init_container_statuses or ():
        sidecar = any(c.name == status.name for c in pod.spec.sidecars)
        done = status.state.terminated is not None and status.state.terminated.exit_code == 0
        if not done and not (sidecar and status.started):
            state_text = "is running" if status.state.running else "has not come to its end"
            return Finding(
                "EP313",
                "broken",
                f"init container {status.name} of pod/{pod.name} {state_text}, and the application waits for it",
                commands.kubectl(pod.namespace, "logs", pod.name, "-c", status.name),
                False,
                (f"init container {status.name}: not finished",),
            )
    if not pod.ips:
        failed = [e for e in snapshot.events("Pod", pod) if e.type == "Warning"]
        said = f": {failed[-1].message}" if failed else ""
        return Finding(
            "EP305",
            "broken",
            f"pod/{pod.name} has no IP address yet{said}",
            commands.kubectl(pod.namespace, "describe", "pod", pod.name),
            False,
            (f"podIP of pod/{pod.name}: none, phase {pod.status.phase or 'unknown'}",),
        )
    return None


def killed_by_probe(pod: Pod, name: str, snapshot: Snapshot) -> str:
    """` because its liveness probe (...) fails: ...` of a container that is started anew for that, else ""."""
    container = next((c for c in all_containers(pod) if c.name == name), None)
    probe = container.liveness_probe if container is not None else None
    event = last_unhealthy(pod, "Liveness", snapshot, name)
    if probe is None or event is None:
        return ""
    return f" because its liveness probe ({probe_text(probe)}) fails: {result_of(event)}"


def all_containers(pod: Pod) -> list[Container]:
    return [*(pod.spec.init_containers or ()), *(pod.spec.containers or ())]


def rollback(pod: Pod, snapshot: Snapshot) -> str:
    """The command that undoes the rollout, if the Deployment had another revision with other images."""
    above = snapshot.owner(pod)
    if above is None or not isinstance(above[1], Deployment):
        return ""
    current = pod.metadata.controller

    def images(spec_containers: list[Container] | None) -> list[str]:
        return [c.image for c in spec_containers or ()]

    for r in snapshot.replica_sets(above[1]):
        if (
            current
            and r.name != current.name
            and images(r.spec.template.spec.containers) != images(pod.spec.containers)
        ):
            return commands.kubectl(pod.namespace, "rollout", "undo", f"deployment/{above[1].name}")
    return ""


def unready(pod: Pod, snapshot: Snapshot) -> Finding:
    """The Pod has an address and its containers are there, but it is not Ready."""
    condition = pod.status.condition("Ready")
    began = since(condition.last_transition_time if condition else None, snapshot)
    for container in pod.spec.containers or ():
        status = next((s for s in pod.status.container_statuses or () if s.name == container.name), None)
        if status is None or status.ready or status.state.running is None:
            continue
        kind = "Startup" if container.startup_probe is not None and not status.started else "Readiness"
        probe = container.startup_probe if kind == "Startup" else container.readiness_probe
        if probe is not None:
            return failing_probe(pod, container, probe, kind, began, snapshot)
    gates = unset_gates(pod)
    containers = pod.status.condition("ContainersReady")
    if gates and (containers is None or containers.status == "True"):
        conditions = [{"type": g, "status": "True"} for g in gates]
        patch = {"status": {"conditions": conditions}}
        return Finding(
            "EP302",
            "broken",
            f"pod/{pod.name} runs but is not Ready{began}: its readiness gate {', '.join(gates)} is not set to True",
            commands.kubectl(
                pod.namespace, "patch", "pod", pod.name, "--subresource=status", "-p", commands.compact(patch)
            ),
            True,
            (f"Ready of pod/{pod.name}: {condition.message if condition else 'absent'}",),
        )
    said = (condition.message or condition.reason) if condition else "no Ready condition"
    return Finding(
        "EP316",
        "broken",
        f"pod/{pod.name} is not Ready{began}: {said or 'no reason given'}",
        commands.kubectl(pod.namespace, "describe", "pod", pod.name),
        False,
        (f"Ready of pod/{pod.name}: {condition.status if condition else 'absent'}",),
    )


def unset_gates(pod: Pod) -> list[str]:
    names = [g.condition_type for g in pod.spec.readiness_gates or ()]
    return [n for n in names if (c := pod.status.condition(n)) is None or c.status != "True"]


def last_unhealthy(pod: Pod, kind: str, snapshot: Snapshot, container: str = "") -> Event | None:
    """The last failure of such a probe; of one container only, if it is named."""
    found = [
        e for e in snapshot.events("Pod", pod, "Unhealthy")
        if e.message.startswith(f"{kind} probe")
        and (not container or e.involved_object.field_path in ("", None, f"spec.containers{{{container}}}"))
    ]  # fmt: skip
    return found[-1] if found else None


def failing_probe(pod: Pod, container: Container, probe: Probe, kind: str, began: str, snapshot: Snapshot) -> Finding:
    """EP301, EP303, EP304: with the probe's last result and when it was."""
    event = last_unhealthy(pod, kind, snapshot)
    what = f"the {kind.lower()} probe of container {container.name} ({probe_text(probe)})"
    logs = commands.kubectl(pod.namespace, "logs", pod.name, "-c", container.name)
    seen = [f"{what}: every {probe.period_seconds or 10} s, fails after {probe.failure_threshold or 3}"]
    if event is None:
        said = "has not succeeded yet" if kind == "Startup" else "has not succeeded, and no result of it is known"
        code = "EP303" if kind == "Startup" else "EP301"
        return Finding(
            code, "broken", f"pod/{pod.name} runs but is not Ready{began}: {what} {said}", logs, False, tuple(seen)
        )
    result = result_of(event)
    seen.append(f"last result, {event.last_seen}: {result or 'no word'}")
    port = probe_port(probe)
    declared = [p.container_port for p in container.ports or ()]
    if port is not None and REFUSED.search(result) and resolved(port, container) not in declared:
        repair = correct_probe(pod, container, kind, probe, declared, snapshot)
        lists = f"; it declares {', '.join(map(str, declared))}" if declared else ""
        return Finding(
            "EP304",
            "broken",
            f"pod/{pod.name} runs but is not Ready{began}: {what} asks port {port}, which no container declares and "
            f"where nobody answers{lists}",
            repair or logs,
            bool(repair),
            tuple(seen),
        )
    if isinstance(port, str) and resolved(port, container) is None and not port.isdigit():
        repair = correct_probe(pod, container, kind, probe, declared, snapshot)
        names = [p.name for p in container.ports or () if p.name]
        meant = nearest(port, names) or (names[0] if len(names) == 1 else "")
        return Finding(
            "EP304",
            "broken",
            f"pod/{pod.name} runs but is not Ready{began}: {what} asks for the port named {port}, which the container "
            f"does not declare; " + (f"did you mean {meant}?" if meant else f"it declares {some(names) or 'no name'}"),
            repair or logs,
            bool(repair),
            tuple(seen),
        )
    code = "EP303" if kind == "Startup" else "EP301"
    text = (
        f"pod/{pod.name} runs but is not Ready{began}: {what} fails{f': {result}' if result else ', and says nothing'}"
    )
    return Finding(
        code, "broken", text + (flaps(pod, probe, event) if kind == "Readiness" else ""), logs, False, tuple(seen)
    )


def flaps(pod: Pod, probe: Probe, event: Event) -> str:
    """How often the probe failed, if it succeeded in between, else ""."""
    if not interrupted(pod, probe, event):
        return ""
    return f"; it failed {times_of(event)} times since {event.first_seen}, and succeeded in between"


def interrupted(pod: Pod, probe: Probe | None, event: Event) -> bool:
    """Whether the failures that an event counts are more than one outage, such as every slow start has: then the probe
    would have had time to fail far more often. Of many failures a kubelet soon tells only one in five minutes; there,
    that they did not begin with the container has to do."""
    times = times_of(event)
    first, last = moment(event.first_seen), moment(event.last_seen)
    if times < FLAPS or first is None or last is None:
        return False
    pause = max(probe.period_seconds or 10, probe.timeout_seconds or 1) if probe is not None else 10
    condition = pod.status.condition("Ready")
    turned = moment(condition.last_transition_time) if condition else None
    if turned is not None:
        tries = (probe.failure_threshold or 3) if probe is not None else 3
        if pod.ready and first < turned < last:
            return True  # it became Ready, and failed again
        if not pod.ready and turned - first > 2 * tries * pause + SETTLING_SECONDS:
            return True  # it was Ready until long after the first failure
    if times > MOST_TOLD:
        starts = [moment(s.state.running.started_at) for s in pod.status.container_statuses or () if s.state.running]
        waited = (probe.initial_delay_seconds or 0) if probe is not None else 0
        return all(start is None or first - start > waited + 2 * pause for start in starts)
    return (last - first) / pause + 1 >= times * SPARSE


def moment(stamp: str | None) -> float | None:
    """Unix seconds; None for a time that is not known."""
    try:
        return parse_rfc3339(stamp) if stamp else None
    except ValueError:
        return None


def result_of(event: Event) -> str:
    """What a failed probe met, without the words before it; "" if it said nothing."""
    return event.message.partition(":")[2].strip()


def times_of(event: Event) -> int:
    return max(event.count, event.series.count if event.series else 0)


def probe_text(probe: Probe) -> str:
    """The probe in a few words."""
    if probe.http_get is not None:
        return f"GET {probe.http_get.path or '/'} on port {probe.http_get.port}"
    if probe.tcp_socket is not None:
        return f"TCP port {probe.tcp_socket.port}"
    if probe.grpc is not None:
        return f"gRPC port {probe.grpc.port}"
    return "exec " + " ".join(probe.exec.command or ()) if probe.exec is not None else "no handler"


def probe_port(probe: Probe) -> IntOrString | None:
    handler = probe.http_get or probe.tcp_socket or probe.grpc
    return handler.port if handler is not None else None


def resolved(port: IntOrString, container: Container) -> int | None:
    """The port's number; None for a name that the container does not declare."""
    if isinstance(port, int):
        return port
    return next((p.container_port for p in container.ports or () if p.name == port), None)


def correct_probe(
    pod: Pod, container: Container, kind: str, probe: Probe, declared: list[int], snapshot: Snapshot
) -> str:
    """The command that points the probe of the Pod's workload at the one declared port; "" if that is not clear."""
    above = snapshot.owner(pod)
    if len(declared) != 1 or above is None or above[0] is REPLICA_SET:
        return ""
    handler = next(
        (n for n, h in (("httpGet", probe.http_get), ("tcpSocket", probe.tcp_socket), ("grpc", probe.grpc)) if h), ""
    )
    position = next(i for i, c in enumerate(pod.spec.containers or ()) if c is container)
    field = "startupProbe" if kind == "Startup" else "readinessProbe"
    path = f"/spec/template/spec/containers/{position}/{field}/{handler}/port"
    kind_name = above[0].singular_name
    assert handler
    return commands.json_patch(pod.namespace, kind_name, above[1].name, ("replace", path, declared[0]))


def flapping(pod: Pod, snapshot: Snapshot) -> Finding | None:
    """EP314: the Pod is ready now, but its readiness probe failed several times lately."""
    event = last_unhealthy(pod, "Readiness", snapshot)
    if event is None or not pod.ready:
        return None
    if not interrupted(pod, readiness_of(pod, event), event):
        return None
    times, said = times_of(event), result_of(event)
    return Finding(
        "EP314",
        "warning",
        f"the readiness probe of pod/{pod.name} failed {times} times, the last time at {event.last_seen}"
        + (f": {said}" if said else ""),
        commands.kubectl(pod.namespace, "describe", "pod", pod.name),
        False,
        (f"first {event.first_seen}, last {event.last_seen}",),
    )


def readiness_of(pod: Pod, event: Event) -> Probe | None:
    """The readiness probe that an event is about; None if that is not known."""
    path = event.involved_object.field_path
    probed = [c for c in pod.spec.containers or () if c.readiness_probe is not None]
    named = [c for c in probed if path == f"spec.containers{{{c.name}}}"]
    return next((c.readiness_probe for c in (*named, *probed)), None)


__all__ = ["DEPLOYMENT", "explain_pod", "flapping", "since"]
