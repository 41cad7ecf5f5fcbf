"""What is said on a Service about its endpoints: the plan's tables, the controller over a server, and the selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.meta import typed
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service
from kubesvc.controllers import service_events_plan as plan
from kubesvc.controllers.registry import CONTROLLERS, load
from kubesvc.controllers.runner import BY_NAME_ONLY, select
from kubesvc.controllers.service_events_plan import Listed


def endpoint_slice(name: str, *entries: dict[str, Any]) -> EndpointSlice:
    return typed({"metadata": {"name": name}, "addressType": "IPv4", "endpoints": list(entries)}, EndpointSlice)


def of(address: str, pod: str = "", ready: bool = True) -> dict[str, Any]:
    ref = {"targetRef": {"kind": "Pod", "name": pod}} if pod else {}
    return {"addresses": [address], "conditions": {"ready": ready}, "nodeName": "n1", **ref}


def pod(ready: bool = True, **more: Any) -> Pod:
    said = {"type": "Ready", "status": "True" if ready else "False", "message": "containers with unready status: [c]"}
    meta = {"name": "web-1", "labels": {"app": "web"}, **more.pop("meta", {})}
    status = {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [said], **more}
    return typed({"metadata": meta, "spec": {}, "status": status}, Pod)


WEB = typed({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}}}, Service)
ONE, TWO = Listed("10.0.0.1", "web-1", "n1"), Listed("10.0.0.2", "web-2", "n1")


def test_ready_addresses_of_all_slices_each_once() -> None:
    found = plan.listed_in(
        [endpoint_slice("b", of("10.0.0.1", "web-1"), of("10.0.0.3", "web-3", ready=False)),
         endpoint_slice("a", of("10.0.0.2", "web-2"), of("10.0.0.1", "web-1"))]
    )  # fmt: skip
    assert list(found.values()) == [ONE, TWO]


def test_an_address_that_another_pod_has_now_left_and_joined() -> None:
    anew = Listed("10.0.0.1", "web-9")
    assert plan.moves({"10.0.0.1": ONE, "10.0.0.2": TWO}, {"10.0.0.1": anew, "10.0.0.2": TWO}) == ([anew], [ONE])


@dataclass(frozen=True)
class Left:
    """One row: the Pod as it is now, and the cause that is told."""

    sentence: str
    pod: Pod | None
    cause: str
    entry: Listed = ONE


LEFT = (
    Left("the Pod is gone", None, "pod/web-1 is gone"),
    Left("it is being deleted", pod(meta={"deletionTimestamp": "2026-01-01T00:00:00Z"}), "pod/web-1 is being deleted"),
    Left("it has ended", pod(phase="Failed"), "pod/web-1 has run to its end (Failed)"),
    Left("its label is gone", pod(meta={"labels": {"app": "x"}}), "pod/web-1 does not match the selector any more"),
    Left("its probe fails", pod(False), "pod/web-1 is not Ready: containers with unready status: [c]"),
    Left("it has another address", pod(podIPs=[{"ip": "10.0.0.9"}], podIP=""), "pod/web-1 has another address now"),
    Left("nothing of it changed", pod(), "pod/web-1 is not listed for the Service's ports any more"),
    Left("listed by hand", None, "taken off the list", Listed("192.0.2.1")),
)


@pytest.mark.parametrize("row", LEFT, ids=lambda row: row.sentence)
def test_why_an_address_left(row: Left) -> None:
    assert plan.why_left(row.entry, row.pod, WEB) == row.cause


CHANGES = (
    # sentence, the Service before, the change that is found
    ("made", None, "made"),
    ("another selector", {"selector": {"app": "wbe"}}, "selector"),
    ("other ports", {"selector": {"app": "web"}, "ports": [{"port": 81}]}, "ports"),
    ("unready ones too", {"selector": {"app": "web"}, "publishNotReadyAddresses": True}, "unready"),
    ("nothing for its endpoints", {"selector": {"app": "web"}, "sessionAffinity": "ClientIP"}, None),
)


@pytest.mark.parametrize(("sentence", "before", "change"), CHANGES, ids=[c[0] for c in CHANGES])
def test_what_a_new_version_of_a_service_changes(sentence: str, before: Any, change: str | None) -> None:
    old = typed({"metadata": {"name": "web"}, "spec": before}, Service) if before else None
    assert plan.change_of_service(old, WEB) == change


JOINED: tuple[tuple[plan.Change, Pod, str], ...] = (
    ("readiness", pod(), "pod/web-1 is Ready"),
    ("labels", pod(), "pod/web-1 has other labels, which the selector matches"),
    ("made", pod(), "svc/web was made and selects pod/web-1"),
    ("selector", pod(), "svc/web has another selector, which pod/web-1 matches"),
    ("ports", pod(), "svc/web has other ports, which pod/web-1 serves"),
    ("unready", pod(False), "pod/web-1 is listed though it is not Ready"),
)


@pytest.mark.parametrize(("change", "now", "cause"), JOINED, ids=[j[2] for j in JOINED])
def test_why_an_address_joined(change: plan.Change, now: Pod, cause: str) -> None:
    assert plan.why_joined(ONE, now, WEB, change) == cause
    assert plan.why_joined(Listed("192.0.2.1"), None, WEB, change) == "listed by hand"


def test_events_for_each_kind_of_change() -> None:
    first, second = [(ONE, "a")], [(TWO, "b")]
    filled, joined = plan.plan_events({}, {"x": ONE}, first, []), plan.plan_events({"y": TWO}, {"x": ONE}, first, [])
    emptied, left = plan.plan_events({"x": ONE}, {}, [], first), plan.plan_events({"x": ONE}, {"y": TWO}, [], second)
    reasons = [[(t.severity, t.reason) for t in told] for told in (filled, joined, emptied, left)]
    assert reasons == [
        [("Normal", "EndpointsFilled")], [("Normal", "EndpointJoined")], [("Warning", "NoEndpoints")],
        [("Normal", "EndpointLeft")],
    ]  # fmt: skip
    many = [(Listed(f"10.0.0.{i}"), "c") for i in range(9)]
    assert plan.plan_events({}, {"x": ONE}, many, [])[0].message.endswith("10.0.0.2 (c) and 6 more")


def test_a_star_does_not_mean_what_upstream_lacks() -> None:
    """So that `*` replays recordings of upstream, Events and all; asked for by name it runs."""
    assert not BY_NAME_ONLY & set(select(["*"], CONTROLLERS))
    assert not BY_NAME_ONLY & set(select(["-scheduler"], CONTROLLERS))
    assert set(select(["*", "service-events"], CONTROLLERS)) == set(CONTROLLERS)
    assert load("service-events").component == "service-events"


def test_the_journal_entry_is_one_line_of_json() -> None:
    moved = plan.Moved(1.5, "shop", "web", "left", "10.0.0.1", "pod/web-1 is gone", "web-1", "n1", 1.25, "7")
    raw = msgspec.json.encode(moved)
    assert b"\n" not in raw and msgspec.json.decode(raw, type=plan.Moved) == moved
