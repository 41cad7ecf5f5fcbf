"""How far a Service has come: each stage, what is missing, and what cannot be seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.meta import Object
from kubesvc.why.routable import Stage, judge
from kubesvc.why.sight import Sight
from kubesvc.why.snapshot import Gap

from .planted import SHOP, cluster, pod, service

OPEN = {"10.244.1.2:8080": "open", "10.96.0.7:80": "open"}
RULES = {"10.96.0.7:80/TCP": ("10.244.1.2:8080",)}
WELL: tuple[Any, ...] = (Sight("n1", answers=OPEN, rules=RULES),)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Row:
    """One look: what is there and seen, the stage asked for, and the answer."""

    sentence: str
    stage: Stage
    done: bool
    text: str
    objects: tuple[Object, ...] = (service(), pod())
    sights: tuple[Any, ...] = ()
    knocked: dict[str, str] | None = None
    blind: bool = False


LATER = "2026-01-01T02:00:00Z"
LISTED = "listed: 10.244.1.2:8080"
ROWS = (
    Row("no Service", "listed", False, "it does not exist", ()),
    Row("no Pod is ready", "listed", False, "no ready endpoint is listed for port 80/TCP",
        (service(), pod(ready=False))),
    Row("one of two ports has nobody", "listed", False, "no ready endpoint is listed for port 81/TCP",
        (service(ports=[{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81, "targetPort": "x"}]),
         pod())),
    Row("listed suffices", "listed", True, LISTED),
    Row("those that end serve as long as nobody else does", "listed", True,
        f"{LISTED} (all of them terminating, none ready)",
        (service(), pod(metadata={"deletionTimestamp": LATER, "deletionGracePeriodSeconds": 30}))),
    Row("an alias never is", "listed", False, "it is an alias (ExternalName), which nothing lists and no rule leads to",
        ({**service(selector={}), "spec": {"type": "ExternalName", "externalName": "a.b"}},), blind=True),
    Row("programmed on the node that was seen", "programmed", True, f"{LISTED}; programmed on n1", sights=WELL),
    Row("rules that lag", "programmed", False, "the rules of node n1 do not lead there yet",
        sights=(Sight("n1", rules={"10.96.0.7:80/TCP": ()}),)),
    Row("one node lags", "routable", False, "the rules of node n2 do not lead there yet",
        sights=(*WELL, Sight("n2", rules={"10.96.0.7:80/TCP": ()}))),
    Row("a node whose process is stopped", "programmed", False, "the process of node n1 does not run",
        sights=(Sight("n1", "stopped", 7, rules=RULES),)),
    Row("rules that the kernel refused", "routable", False, "the kernel of node n1 does not take its rules: no",
        sights=(Sight("n1", refused="no"),)),
    Row("a node that a look was too slow for is none that works, and none whose rules are never read", "programmed",
        False, "node n2 could not be looked into: no whole answer within 5 s",
        sights=(*WELL, Sight("n2", unseen="no whole answer within 5 s"))),
    Row("headless, and the look was too slow", "routable", False,
        "listed: 10.244.1.2; nobody could look into node n1 (no whole answer within 5 s)",
        (service(clusterIP="None"), pod()), sights=(Sight("n1", unseen="no whole answer within 5 s"),)),
    Row("headless, and its node is off", "routable", False, "listed: 10.244.1.2; nobody could look into any node",
        (service(clusterIP="None"), pod()), sights=(Sight("n1", "gone", failure="off"),)),
    Row("a mode whose rules are not read", "programmed", False,
        "the rules of node n1 are not read in its mode; try --routable", sights=(Sight("n1"),), blind=True),
    Row("there connections tell", "routable", True, f"{LISTED}; programmed on n1; answers",
        sights=(Sight("n1", answers=OPEN),)),  # type: ignore[arg-type]
    Row("all of it", "routable", True, f"{LISTED}; programmed on n1; answers", sights=WELL),
    Row("the endpoint refuses", "routable", False, f"{LISTED}; programmed on n1; 10.244.1.2:8080 is refused",
        sights=(Sight("n1", answers={"10.244.1.2:8080": "refused"}, rules=RULES),)),
    Row("the ClusterIP does not answer", "routable", False,
        f"{LISTED}; programmed on n1; 10.96.0.7:80 does not answer from node n1",
        sights=(Sight("n1", answers={"10.244.1.2:8080": "open"}, rules=RULES),)),
    Row("nobody can look into nodes", "programmed", False,
        f"{LISTED}; whether it is programmed cannot be seen from here", blind=True),
    Row("but the address answers here", "routable", True, f"{LISTED}; 10.96.0.7:80 answers from here",
        knocked={"10.96.0.7:80": "open"}),
    Row("or it does not", "routable", False, f"{LISTED}; whether it is routable cannot be seen from here",
        knocked={"10.96.0.7:80": "silent"}, blind=True),
    Row("UDP only: nothing to try", "routable", True, f"{LISTED}; programmed on n1; no TCP port to try",
        (service(ports=[{"port": 80, "targetPort": 8080, "protocol": "UDP"}]), pod()),
        sights=(Sight("n1", rules={"10.96.0.7:80/UDP": ("10.244.1.2:8080",)}),)),
    Row("headless, its Pod answers", "routable", True, "listed: 10.244.1.2; answers",
        (service(clusterIP="None"), pod()), sights=(Sight("n1", answers={"10.244.1.2:8080": "open"}),)),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.sentence)
def test_how_far_it_is(row: Row) -> None:
    snapshot = cluster(*row.objects, sights=row.sights)
    found = judge(snapshot.services.get((SHOP, "web")), snapshot, row.stage, row.knocked)
    assert (found.done, found.text, found.blind) == (row.done, row.text, row.blind)


def test_without_permission_for_slices_nothing_is_claimed() -> None:
    snapshot = cluster(service(), pod(), gaps=(Gap(ENDPOINT_SLICE, "not permitted"),))
    found = judge(snapshot.services[(SHOP, "web")], snapshot, "listed")
    assert not found.done and found.blind
