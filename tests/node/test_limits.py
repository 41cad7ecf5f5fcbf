"""What Pods and containers are held to, from their resources."""

from __future__ import annotations

import resource
from typing import Any

import pytest

from kubesvc.api.meta import typed
from kubesvc.api.pod import Pod
from kubesvc.kernel.cgroups import Limits
from kubesvc.node.limits import container_limits, needed_controllers, pod_limits, rlimits

MI = 1 << 20


def container(name: str = "c", requests: Any = None, **limits: str) -> dict[str, Any]:
    return {"name": name, "image": "x", "resources": {"limits": limits, "requests": requests or {}}}


def pod(*containers: dict[str, Any], init: list[dict[str, Any]] | None = None) -> Pod:
    return typed({"metadata": {"name": "p"}, "spec": {"containers": list(containers), "initContainers": init}}, Pod)


CONTAINERS = (
    ("none: no limits", container(), Limits()),
    ("memory and cpu", container(memory="64Mi", cpu="250m"), Limits(memory_bytes=64 * MI, cpus=0.25, cpu_shares=256)),
    ("a request alone is a weight", container(requests={"cpu": "1"}), Limits(cpu_shares=1024)),
    ("the request, not the limit, is the weight", container(requests={"cpu": "100m"}, cpu="1"),
     Limits(cpus=1.0, cpu_shares=102)),
    ("a limit of nothing is none", container(memory="0", cpu="0"), Limits(cpu_shares=2)),
    ("what is no quantity is none", container(memory="lots"), Limits()),
)  # fmt: skip


@pytest.mark.parametrize("case", CONTAINERS, ids=lambda case: case[0])
def test_container(case: tuple[str, dict[str, Any], Limits]) -> None:
    _, plain, expected = case
    assert container_limits((pod(plain).spec.containers or [])[0]) == expected


SIDECAR = {**container("s", memory="8Mi"), "restartPolicy": "Always"}
PODS = (
    ("the sum, where each has a limit", pod(container("a", memory="8Mi"), container("b", memory="16Mi")), 24 * MI),
    ("none, where one has none", pod(container("a", memory="8Mi"), container("b")), None),
    ("the largest init container, if it is more",
     pod(container("a", memory="8Mi"), init=[container("i", memory="32Mi"), container("j", memory="64Mi")]), 64 * MI),
    ("a sidecar runs beside the others", pod(container("a", memory="8Mi"), init=[SIDECAR]), 16 * MI),
)  # fmt: skip


@pytest.mark.parametrize("case", PODS, ids=lambda case: case[0])
def test_pod_memory(case: tuple[str, Pod, int | None]) -> None:
    _, given, expected = case
    limits = pod_limits(given, 1024)
    assert (limits.memory_bytes, limits.pids) == (expected, 1024)


def test_groups_exist_only_where_something_is_held() -> None:
    assert needed_controllers(pod(container()), 1024) == ("pids",)
    assert needed_controllers(pod(container(), container("b", memory="1Mi")), 1024) == ("memory", "pids")
    assert needed_controllers(pod(container(cpu="1")), None) == ("cpu",)


def test_rlimits_stand_in_for_what_is_not_held() -> None:
    limits = Limits(memory_bytes=64 * MI, cpus=1.0)
    assert rlimits(limits, 100, ("cpu", "memory", "pids")) == {}
    assert rlimits(limits, 100, ()) == {
        resource.RLIMIT_DATA: (64 * MI, 64 * MI),
        resource.RLIMIT_NPROC: (100, 100),
    }
    assert rlimits(Limits(), 100, ("pids",)) == {}
