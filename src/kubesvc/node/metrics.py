"""What a node's agent tells monitoring, in the text form that Prometheus reads (NODE-55). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kubesvc.client.metrics import braces

ProbeKey = tuple[str, str, str, str, str]
"""Probe type, result, container, Pod, namespace."""


class NodeState(NamedTuple):
    """Of one node: how many Pods have a sandbox, and how many containers are in each state."""

    name: str
    pods: int
    containers: Mapping[str, int]


def sample(name: str, labels: Mapping[str, str], value: float) -> str:
    return f"{name}{braces(labels.items())} {value:g}\n"


def render_probes(results: Mapping[ProbeKey, int], uids: Mapping[tuple[str, str], str]) -> str:
    """The page `/metrics/probes`. uids: of the node's Pods, by namespace and name."""
    lines = [
        "# HELP prober_probe_total [BETA] Cumulative number of a liveness, readiness or startup probe for a container "
        "by result.\n",
        "# TYPE prober_probe_total counter\n",
    ]
    for (kind, result, container, pod, namespace), count in sorted(results.items()):
        labels = {
            "container": container,
            "namespace": namespace,
            "pod": pod,
            "pod_uid": uids.get((namespace, pod), ""),
            "probe_type": kind,
            "result": result,
        }
        lines.append(sample("prober_probe_total", labels, count))
    return "".join(lines)


def render_node(state: NodeState) -> str:
    """The page `/metrics`."""
    lines = [
        "# HELP kubelet_node_name [ALPHA] The node's name. The count is always 1.\n",
        "# TYPE kubelet_node_name gauge\n",
        sample("kubelet_node_name", {"node": state.name}, 1),
        "# HELP kubelet_running_containers [ALPHA] Number of containers currently running\n",
        "# TYPE kubelet_running_containers gauge\n",
    ]
    lines += [
        sample("kubelet_running_containers", {"container_state": name}, count)
        for name, count in sorted(state.containers.items())
    ]
    lines += [
        "# HELP kubelet_running_pods [ALPHA] Number of pods that have a running pod sandbox\n",
        "# TYPE kubelet_running_pods gauge\n",
        sample("kubelet_running_pods", {}, state.pods),
    ]
    return "".join(lines)
