"""Hand-made Endpoints as slices: MIRROR-2 to MIRROR-12."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from kubesvc.api.endpoints import Endpoints
from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.meta import plain, typed
from kubesvc.api.service import Service
from kubesvc.controllers.mirroring_plan import mirrors, plan_mirror
from kubesvc.controllers.slice_plan import SlicePlan

from .builders import service


def endpoints(*subsets: Any, **meta: Any) -> Endpoints:
    whole = {"name": "web", "namespace": "ns", "uid": "e-uid", **meta}
    return typed({"metadata": whole, "subsets": list(subsets)}, Endpoints)


def subset(ready: Sequence[str] = (), not_ready: Sequence[str] = (), ports: Sequence[Any] = ({"port": 80},)) -> Any:
    return {
        "addresses": [{"ip": ip} for ip in ready],
        "notReadyAddresses": [{"ip": ip} for ip in not_ready],
        "ports": [{"protocol": "TCP", **p} for p in ports],
    }


def carried_out(plan: SlicePlan) -> list[EndpointSlice]:
    def named(s: EndpointSlice, name: str) -> EndpointSlice:
        return msgspec.structs.replace(s, metadata=msgspec.structs.replace(s.metadata, name=name, uid=f"u-{name}"))

    return [*plan.unchanged, *plan.update, *(named(s, f"n{i}") for i, s in enumerate(plan.create))]


def shown(slices: Sequence[EndpointSlice]) -> list[tuple[str, str, str]]:
    """Address type, endpoints (with ! if not ready), ports."""
    return sorted(
        (
            s.address_type,
            " ".join(sorted(e.address + ("" if e.ready else "!") for e in s.endpoints or ())),
            " ".join(f"{p.name}:{p.port}" for p in s.ports or ()),
        )
        for s in slices
    )


ONE, TWO, SIX = "10.0.0.1", "10.0.0.2", "fd00::1"

CASES: tuple[tuple[str, list[Any], list[tuple[str, str, str]]], ...] = (
    ("ready and not", [subset([ONE], [TWO])], [("IPv4", f"{ONE} {TWO}!", ":80")]),
    ("both families", [subset([ONE, SIX])], [("IPv4", ONE, ":80"), ("IPv6", SIX, ":80")]),
    ("equal ports become one slice (MIRROR-5)", [subset([ONE]), subset([TWO])], [("IPv4", f"{ONE} {TWO}", ":80")]),
    ("other ports, other slice", [subset([ONE]), subset([ONE], ports=[{"port": 81}])], [("IPv4", ONE, ":80 :81")]),
    ("twice: once", [subset([ONE, ONE])], [("IPv4", ONE, ":80")]),
    ("ready and not ready: not ready", [subset([ONE], [ONE])], [("IPv4", f"{ONE}!", ":80")]),
    ("no ports", [subset([ONE], ports=())], [("IPv4", ONE, "")]),
    ("canonical", [subset(["FD00:0::1"])], [("IPv6", SIX, ":80")]),
    ("no subsets: no slices (MIRROR-11)", [], []),
    ("not an address: skipped", [subset(["x.example", ONE])], [("IPv4", ONE, ":80")]),
)


@pytest.mark.parametrize(("name", "subsets", "expected"), CASES, ids=[c[0] for c in CASES])
def test_slices(name: str, subsets: list[Any], expected: list[tuple[str, str, str]]) -> None:
    plan = plan_mirror(endpoints(*subsets), [], 1000).plan
    assert shown(plan.create) == expected
    again = plan_mirror(endpoints(*subsets), carried_out(plan), 1000).plan
    assert again.writes == 0


def test_form() -> None:
    """MIRROR-7, MIRROR-9."""
    one = endpoints(
        {"addresses": [{"ip": ONE, "hostname": "h", "nodeName": "n", "targetRef": {"kind": "X", "name": "y"}}]},
        labels={"a": "b", "endpointslice.kubernetes.io/managed-by": "z"},
        annotations={
            "k": "v",
            "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z",
            "kubectl.kubernetes.io/last-applied-configuration": "{}",
        },
    )
    [s] = plan_mirror(one, [], 1000).plan.create
    assert plain(s) == {
        "metadata": {
            "generateName": "web-",
            "namespace": "ns",
            "labels": {
                "a": "b",
                "kubernetes.io/service-name": "web",
                "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
            },
            "annotations": {"k": "v"},
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Endpoints",
                    "name": "web",
                    "uid": "e-uid",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": [ONE],
                "conditions": {"ready": True},
                "hostname": "h",
                "targetRef": {"kind": "X", "name": "y"},
                "nodeName": "n",
            }
        ],
    }


def test_updates_in_place_and_drops_the_rest() -> None:
    """MIRROR-9, MIRROR-10: the first slice of a place is updated whole, without generateName."""
    before = carried_out(plan_mirror(endpoints(subset([ONE])), [], 1000).plan)
    twin = msgspec.structs.replace(before[0], metadata=msgspec.structs.replace(before[0].metadata, name="z", uid="u-z"))
    plan = plan_mirror(endpoints(subset([TWO])), [*before, twin], 1000).plan
    assert (len(plan.create), [s.name for s in plan.update], [s.name for s in plan.delete]) == (0, ["n0"], ["z"])
    assert plan.update[0].metadata.generate_name == ""
    moved = plan_mirror(endpoints(subset([ONE], ports=[{"port": 99}])), before, 1000).plan
    assert ([s.name for s in moved.update], moved.create, moved.delete) == (["n0"], [], [])  # recycled
    gone = plan_mirror(endpoints(), before, 1000).plan
    assert [s.name for s in gone.delete] == ["n0"]
    relabelled = plan_mirror(endpoints(subset([ONE]), labels={"x": "y"}), before, 1000).plan
    assert len(relabelled.update) == 1


def test_limits_and_what_is_left_out() -> None:
    """MIRROR-5, MIRROR-6, MIRROR-8: invalid ones do not count towards the maximum but among the skipped."""
    many = endpoints(subset([f"10.0.{i // 250}.{i % 250}" for i in range(1050)]))
    mirrored = plan_mirror(many, [], 1000)
    assert [len(s.endpoints or ()) for s in mirrored.plan.create] == [1000]
    assert (mirrored.invalid, mirrored.skipped) == (0, 50)
    mixed = plan_mirror(endpoints(subset(["0.x", ONE, TWO, "10.0.0.3"])), [], 2)
    assert (mixed.invalid, mixed.skipped) == (1, 2)


def test_nothing_is_made_while_being_deleted() -> None:
    """MIRROR-12."""
    dying = endpoints(subset([ONE]), deletionTimestamp="2026-01-01T00:00:00Z")
    assert plan_mirror(dying, [], 1000).plan.writes == 0


FREE = service(selector=None)
MIRRORS: tuple[tuple[str, Endpoints | None, Service | None, bool], ...] = (
    ("selectorless", endpoints(), FREE, True),
    ("ExternalName without selector too", endpoints(), service(selector=None, type="ExternalName"), True),
    ("with a selector", endpoints(), service(), False),
    ("no Service (MIRROR-4)", endpoints(), None, False),
    ("no Endpoints", None, FREE, False),
    ("skip-mirror true", endpoints(labels={"endpointslice.kubernetes.io/skip-mirror": "true"}), FREE, False),
    ("skip-mirror True", endpoints(labels={"endpointslice.kubernetes.io/skip-mirror": "True"}), FREE, True),
    ("leader", endpoints(annotations={"control-plane.alpha.kubernetes.io/leader": ""}), FREE, False),
    (
        "written by the endpoints controller",
        endpoints(labels={"endpoints.kubernetes.io/managed-by": "endpoint-controller"}),
        FREE,
        True,
    ),
)


@pytest.mark.parametrize(("name", "given", "web", "expected"), MIRRORS, ids=[m[0] for m in MIRRORS])
def test_mirrors(name: str, given: Endpoints | None, web: Service | None, expected: bool) -> None:
    """MIRROR-2, MIRROR-3."""
    assert mirrors(given, web) is expected
