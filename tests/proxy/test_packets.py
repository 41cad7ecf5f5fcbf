"""The packet table against the pure decision and against the rendered rules."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.kernel.nft import FakeNft
from kubesvc.kernel.nft.walk import Host, Packet, outcomes
from kubesvc.proxy.decision import NewFlow, Surroundings, decide
from kubesvc.proxy.frame import FrameOptions
from kubesvc.proxy.nftables import Ruleset
from kubesvc.proxy.traffic import PROTOCOLS, Family

from .objects import ADDRESSES, HERE, OUTSIDE, POD_CIDRS, SERVICE_CIDRS, A, B, ready, vip
from .packets import CASES, DROPPED, REFUSED, Case, M, plain, planned, web

ROWS = [(case, family) for case in CASES for family in case.families]
NUMBERS = dict(zip(PROTOCOLS, (6, 17, 132), strict=True))


def row_id(row: object) -> str:
    return row.name if isinstance(row, Case) else str(row)


def options(family: Family) -> FrameOptions:
    return FrameOptions(family, pod_cidr=POD_CIDRS[family], service_cidrs=(SERVICE_CIDRS[family],))


def ruleset_of(case: Case, family: Family) -> Ruleset:
    ruleset = Ruleset(options(family), (ADDRESSES[family][HERE],))
    ruleset.change(planned(case, family))
    return ruleset


def who(address: str, family: Family) -> str:
    return next(name for name, known in ADDRESSES[family].items() if known == address)


@pytest.mark.parametrize(("case", "family"), ROWS, ids=row_id)
def test_decision(case: Case, family: Family) -> None:
    node = ADDRESSES[family][HERE]
    at = Surroundings(POD_CIDRS[family], (node,), (node,), (SERVICE_CIDRS[family],))
    ports = [port for ports in planned(case, family).values() for port in ports]
    source, destination = ADDRESSES[family][case.sender], case.to(family)
    decision = decide(ports, NewFlow(source, destination, case.port, case.protocol), at)
    match decision.verdict:
        case "refuse":
            found = {REFUSED}
        case "drop":
            found = {DROPPED}
        case "pass":
            found = {who(destination, family)}
        case "endpoint":
            found = {who(t.address, family) + (M if decision.masquerades(t, source) else "") for t in decision.targets}
    assert found == case.fate, decision.reason


@pytest.mark.parametrize(("case", "family"), ROWS, ids=row_id)
def test_rules(case: Case, family: Family) -> None:
    ruleset = ruleset_of(case, family)
    nft = FakeNft()
    for transaction in ruleset.repair(None):
        nft.run_now(transaction)
    table = nft.tables[ruleset.words.nfproto, "kubesvc"]
    packet = Packet(
        ADDRESSES[family][case.sender],
        case.to(family),
        case.port,
        NUMBERS[case.protocol],
        interface="" if case.sender == HERE else "eth0",
    )
    host = Host(frozenset((ADDRESSES[family][HERE],)))
    found = set()
    for outcome in outcomes(table, packet, host):
        match outcome.verdict:
            case "accept":
                found.add(who(outcome.destination, family) + (M if outcome.masqueraded else ""))
            case "drop":
                found.add(DROPPED)
            case "reject tcp-reset":
                assert case.protocol == "TCP"
                found.add(REFUSED)
            case "reject icmp":
                assert case.protocol != "TCP"
                found.add(REFUSED)
    assert found == case.fate


DETECTORS: tuple[tuple[str, dict[str, Any], str, str, set[str]], ...] = (
    ("PROXY-53: with nobody able to tell pods, nothing is masqueraded", {}, OUTSIDE, "eth0", {B}),
    ("PROXY-54: everything is, when told so", {"masquerade_all": True}, A, "va", {B + M}),
    ("PROXY-52: by interface, a pod is one that comes in by it", {"pod_interface": "va"}, A, "va", {B}),
    ("PROXY-52: by interface, others are not", {"pod_interface": "va"}, A, "vb", {B + M}),
    ("PROXY-52: by the start of an interface's name", {"pod_interface": "v*"}, A, "vb", {B}),
    ("PROXY-52: by the start of a name, others are not", {"pod_interface": "v*"}, A, "eth0", {B + M}),
    ("PROXY-57: another bit of the mark", {"pod_cidr": "10.99.0.0/16", "masquerade_bit": 20}, A, "va", {B + M}),
)


@pytest.mark.parametrize(("sentence", "told", "sender", "interface", "wanted"), DETECTORS)
def test_detectors(sentence: str, told: dict[str, Any], sender: str, interface: str, wanted: set[str]) -> None:
    ruleset = Ruleset(FrameOptions("IPv4", **told))
    ruleset.change(planned(Case("", plain(ready(B)), A, web, 80, frozenset()), "IPv4"))
    packet = Packet(ADDRESSES["IPv4"][sender], vip("IPv4"), 80, interface=interface)
    found = outcomes(ruleset.table(), packet, Host(frozenset()))
    assert {who(o.destination, "IPv4") + (M if o.masqueraded else "") for o in found} == wanted, sentence


def test_only_new_flows_are_judged() -> None:
    """PROXY-43: a packet of a flow that is already there passes, whatever became of its Service."""
    ruleset = Ruleset(options("IPv4"))
    ruleset.change(planned(Case("", plain(), A, web, 80, frozenset()), "IPv4"))
    late = Packet(ADDRESSES["IPv4"][A], vip("IPv4"), 80, new=False)
    assert [o.verdict for o in outcomes(ruleset.table(), late, Host(frozenset()))] == ["accept"]
