"""Whatever the cluster, the verdict agrees with what controllers write and proxies do (their plans are the oracle)."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.proxy.traffic import Place, plan_service
from kubesvc.why.answer import diagnose, diagnose_all
from kubesvc.why.render import plain_diagnosis, render_text
from kubesvc.why.subject import parse_subject

from .planted import CHANGED, SHOP, cluster, pod, service

LABELS = st.fixed_dictionaries(
    {"app": st.sampled_from(["web", "wbe", "db"])}, optional={"tier": st.sampled_from(["web", "db"])}
)
PORTS = st.lists(st.sampled_from([8080, "http", "htpt", "dns"]), min_size=1, max_size=2, unique=True)


@st.composite
def pods(draw: st.DrawFn) -> list[Any]:
    found = []
    for number in range(draw(st.integers(0, 4))):
        terminating = {"deletionTimestamp": CHANGED} if draw(st.booleans()) else {}
        protocol = draw(st.sampled_from(["TCP", "UDP"]))
        declared = ({"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": protocol})
        found.append(
            pod(
                f"p{number}",
                draw(LABELS),
                ready=draw(st.booleans()),
                phase=draw(st.sampled_from(["Running", "Running", "Pending", "Failed"])),
                node=draw(st.sampled_from(["n1", "n2", "n9"])),
                ip=draw(st.sampled_from([f"10.244.1.{number + 2}", "", f"fd00::{number + 2}"])),
                ports=declared[: draw(st.integers(0, 2))],
                metadata=terminating,
            )
        )
    return found


@settings(max_examples=300, deadline=None)
@given(LABELS, PORTS, pods(), st.booleans())
def test_it_routes_exactly_if_every_port_has_an_endpoint(
    selector: dict[str, str], targets: list[Any], some_pods: list[Any], publish: bool
) -> None:
    ports = [{"name": f"p{i}", "port": 80 + i, "targetPort": t} for i, t in enumerate(targets)]
    asked = service(selector=selector, ports=ports, publishNotReadyAddresses=publish)
    snapshot = cluster(asked, *some_pods)
    found = diagnose(parse_subject(["svc/web"]), snapshot, SHOP)
    typed = snapshot.services[(SHOP, "web")]
    planned = plan_service(typed, snapshot.slices.get((SHOP, "web"), ()), Place(""), "IPv4")
    works = bool(planned) and all(p.usable for p in planned)
    assert (found.status != "broken") == works, render_text(found)
    assert found.status == "broken" or found.status in ("healthy", "degraded", "unknown")
    if found.status == "broken":
        assert found.code, "a broken Service has a cause"
    assert diagnose(parse_subject(["svc/web"]), snapshot, SHOP) == found
    assert plain_diagnosis(found)["verdict"] == found.verdict


@settings(max_examples=100, deadline=None)
@given(pods())
def test_every_pod_can_be_asked_about(some_pods: list[Any]) -> None:
    snapshot = cluster(service(), *some_pods)
    for namespace, name in snapshot.pods:
        found = diagnose(parse_subject([f"pod/{name}"]), snapshot, namespace)
        assert found.status in ("healthy", "broken")
        assert (found.status == "broken") == bool(found.findings)
    assert [d.subject for d in diagnose_all(snapshot)]
