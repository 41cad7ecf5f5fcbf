"""Each step of a lookup, and the reason given for it."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from kubesvc.dns import wire
from kubesvc.dns.explain import candidates, explain_name
from kubesvc.dns.records import Zone

from .cluster import SHOP, snapshot_of

SEARCH = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example")
ZONE = Zone()


def test_the_order_of_candidates() -> None:
    """DNS-67."""
    assert [name for name, _ in candidates("web", SEARCH[:2], 5)] == [
        "web.shop.svc.cluster.local.", "web.svc.cluster.local.", "web.",
    ]  # fmt: skip
    assert [name for name, _ in candidates("a.b", ("x", "."), 1)] == ["a.b.", "a.b.x."]
    assert candidates("a.b.", SEARCH, 5) == [("a.b.", "as given")]


class Case(NamedTuple):
    name: str
    type: int
    outcomes: str
    last: str
    reason: str


CASES = (
    Case("web", wire.A, "NOERROR", "A 10.96.1.2", "Service shop/web has the cluster address 10.96.1.2"),
    Case("web.shop", wire.A, "NXDOMAIN NOERROR", "A 10.96.1.2", "Service shop/web has the cluster address 10.96.1.2"),
    Case("web.shop.svc", wire.A, "NXDOMAIN NXDOMAIN NOERROR", "A 10.96.1.2", "Service shop/web has the cluster"),
    Case("www.example.com", wire.A, "NXDOMAIN NXDOMAIN NXDOMAIN ELSEWHERE", "", "not a cluster name"),
    Case("example.com.", wire.A, "ELSEWHERE", "", "not a cluster name"),
    Case("nosuch.shop.svc.cluster.local.", wire.A, "NXDOMAIN", "", "there is no Service shop/nosuch"),
    Case("web.nowhere.svc.cluster.local.", wire.A, "NXDOMAIN", "", "there is no namespace nowhere"),
    Case("nowhere.svc.cluster.local.", wire.A, "NXDOMAIN", "", "there is no namespace nowhere"),
    Case("shop.svc.cluster.local.", wire.A, "NODATA", "", "a namespace has no records of its own: shop"),
    Case(
        "web.shop.svc.cluster.local.", wire.AAAA, "NODATA", "", "Service shop/web has no AAAA record: its addresses are"
    ),
    Case("cold.shop.svc.cluster.local.", wire.A, "NXDOMAIN", "", "is headless and has no ready endpoint (0 of 1"),
    Case("bare.shop.svc.cluster.local.", wire.A, "NOERROR", "A 10.244.0.21", "is headless (1 of 1 endpoints ready)"),
    Case("x.db.shop.svc.cluster.local.", wire.A, "NXDOMAIN", "", "has no ready endpoint x ("),
    Case("_x._tcp.web.shop.svc.cluster.local.", wire.SRV, "NXDOMAIN", "", "Service shop/web has no port _x._tcp"),
    Case("out", wire.CNAME, "NOERROR", "CNAME www.example.com.", "is of type ExternalName: www.example.com"),
    Case("10-0-0-1.shop.pod.cluster.local.", wire.A, "NOERROR", "A 10.0.0.1", "a Pod's address, written with dashes"),
    Case("x.shop.pod.cluster.local.", wire.A, "NXDOMAIN", "", "no address of a Pod (Pod names are insecure)"),
    Case("x.nowhere.pod.cluster.local.", wire.A, "NXDOMAIN", "", "there is no namespace nowhere"),
    Case("cluster.local.", wire.NS, "NOERROR", "NS kube-dns.kube-system.svc.cluster.local.", "the zone itself"),
    Case("dns-version.cluster.local.", wire.TXT, "NOERROR", 'TXT "1.1.0"', "the zone itself"),
    Case("a.b.cluster.local.", wire.A, "NXDOMAIN", "", "below cluster.local there are names under svc and pod only"),
    Case("2.1.96.10.in-addr.arpa.", wire.PTR, "NOERROR", "PTR web.shop.svc.cluster.local.", "an address of a Service"),
    Case("cluster.local.", wire.AXFR, "REFUSED", "", "neither zone transfers"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name} {case.type}")
def test_steps(case: Case) -> None:
    steps = explain_name(case.name, case.type, SEARCH, 5, snapshot_of(*SHOP), ZONE)
    assert " ".join(step.outcome for step in steps) == case.outcomes
    assert ", ".join(steps[-1].records) == case.last
    assert case.reason in steps[-1].reason


def test_before_the_lists_are_in() -> None:
    snapshot = snapshot_of(*SHOP)
    snapshot.synced = False
    (step,) = explain_name("web", wire.A, SEARCH, 5, snapshot, ZONE)
    assert (step.outcome, step.reason) == ("SERVFAIL", "the server has not read the cluster's state yet")


def test_names_that_are_none() -> None:
    """The user's own is an error; one that only grew too long by a search entry is passed over."""
    with pytest.raises(ValueError, match="labels have 1 to 63 bytes"):
        explain_name("a..b.", wire.A, SEARCH, 5, snapshot_of(*SHOP), ZONE)
    long = ".".join(["a" * 60] * 4)
    steps = explain_name(long, wire.A, SEARCH, 5, snapshot_of(*SHOP), ZONE)
    assert [step.outcome for step in steps] == ["NOT ASKED"] * 4 + ["ELSEWHERE"]
