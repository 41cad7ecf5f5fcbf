"""Nodes: defaults, checks, what may change (NODE-1), columns (KCTL-15, KCTL-53)."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.kinds import NODE
from kubesvc.api.meta import Object
from tests.api.checking import created, defaulted, refusals, row, starts, update_refusals


def node(**spec: Any) -> Object:
    return {"metadata": {"name": "n"}, "spec": spec}


def test_status_is_printed_in_full() -> None:
    found = created(NODE, node())["status"]
    assert found["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 0}}
    assert set(found["nodeInfo"].values()) == {""}
    assert len(found["nodeInfo"]) == 10


def test_what_there_is_can_be_allocated() -> None:
    found = defaulted(NODE, {"status": {"capacity": {"cpu": 4, "memory": "8192Mi"}}})["status"]
    assert found["allocatable"] == found["capacity"] == {"cpu": "4", "memory": "8Gi"}


def test_ranges_are_kept_in_step() -> None:
    """NODE-1: podCIDR = podCIDRs[0]."""
    assert defaulted(NODE, node(podCIDR="10.0.0.0/24"))["spec"]["podCIDRs"] == ["10.0.0.0/24"]
    assert defaulted(NODE, node(podCIDRs=["10.0.0.0/24", "fd00::/64"]))["spec"]["podCIDR"] == "10.0.0.0/24"


ERRORS: tuple[tuple[str, Object, list[str]], ...] = (
    ("right", node(podCIDRs=["10.0.0.0/24", "fd00::/64"], taints=[{"key": "a", "effect": "NoSchedule"}]), []),
    ("two of one family", node(podCIDRs=["10.0.0.0/24", "10.0.1.0/24"]), [
        'spec.podCIDRs: Invalid value: ["10.0.0.0/24","10.0.1.0/24"]: may specify no more than one CIDR']),
    ("no range", node(podCIDR="x"), ['spec.podCIDRs[0]: Invalid value: "x"']),
    ("effect", node(taints=[{"key": "a", "effect": "Odd"}]), [
        'spec.taints[0].effect: Unsupported value: "Odd": supported values: "NoSchedule", "PreferNoSchedule", "No']),
    ("taint twice", node(taints=[{"key": "a", "effect": "NoExecute"}, {"key": "a", "value": "b",
     "effect": "NoExecute"}]),
     ['spec.taints[1]: Duplicate value: {"Key":"a","Value":"b","Effect":"NoExecute","TimeAdded":null}']),
)  # fmt: skip


@pytest.mark.parametrize(("name", "obj", "texts"), ERRORS, ids=lambda c: c if isinstance(c, str) else "")
def test_create(name: str, obj: Object, texts: list[str]) -> None:
    found = refusals(NODE, obj)
    assert starts(found, texts), found


CIDR = 'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid'
CHANGES: tuple[tuple[str, Object, Object, list[str]], ...] = (
    ("range is given", node(podCIDR="10.0.0.0/24"), node(), []),
    ("range changes", node(podCIDR="10.0.1.0/24"), node(podCIDR="10.0.0.0/24"), [CIDR]),
    ("range goes", node(), node(podCIDR="10.0.0.0/24"), [CIDR]),
    ("provider changes", node(providerID="b"), node(providerID="a"), ["spec.providerID: Forbidden"]),
    ("cordoned", node(unschedulable=True), node(), []),
)


@pytest.mark.parametrize(("name", "new", "old", "texts"), CHANGES, ids=lambda c: c if isinstance(c, str) else "")
def test_update(name: str, new: Object, old: Object, texts: list[str]) -> None:
    found = update_refusals(NODE, new, old)
    assert starts(found, texts), found


def test_columns() -> None:
    """KCTL-53: a condition that is not True is not ready; roles come from two sorts of labels."""
    labels = {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "infra", "node-role.kubernetes.io/": ""}
    ready = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    found = row(NODE, {"metadata": {"name": "n", "labels": labels}, "spec": {"unschedulable": True}} | ready)
    assert (found["Status"], found["Roles"]) == ("NotReady,SchedulingDisabled", "infra,worker")
    bare = row(NODE, node())
    assert (bare["Status"], bare["Roles"], bare["Internal-IP"], bare["OS-Image"]) == (
        "Unknown", "<none>", "<none>", "<unknown>",
    )  # fmt: skip
