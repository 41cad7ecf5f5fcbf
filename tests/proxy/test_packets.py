"""The packet table against the pure decision and against the rendered rules."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.kernel.iptables import apply_restore, fresh_tables, walk
from kubesvc.kernel.nft import FakeNft
from kubesvc.kernel.nft.walk import Host, Outcome, Packet, outcomes
from kubesvc.proxy.decision import NewFlow, Surroundings, decide
from kubesvc.proxy.frame import FrameOptions
from kubesvc.proxy.iptables import IptablesRuleset
from kubesvc.proxy.nftables import Ruleset
from kubesvc.proxy.traffic import PROTOCOLS, Family

from .objects import ADDRESSES, ALSO_HERE, HERE, LOOPBACK, OUTSIDE, POD_CIDRS, SERVICE_CIDRS, A, B, C, ready, vip
from .packets import CASES, DROPPED, PASSED, REFUSED, Case, M, plain, planned, web

ROWS = [(case, family) for case in CASES for family in case.families]
PODS = (A, B, C, HERE)
NUMBERS = dict(zip(PROTOCOLS, (6, 17, 132), strict=True))


def row_id(row: object) -> str:
    return row.name if isinstance(row, Case) else str(row)


def options(family: Family) -> FrameOptions:
    return FrameOptions(family, pod_cidr=POD_CIDRS[family], service_cidrs=(SERVICE_CIDRS[family],))


def ruleset_of(case: Case, family: Family) -> Ruleset:
    ruleset = Ruleset(options(family), (ADDRESSES[family][HERE],))
    ruleset.change(planned(case, family))
    return ruleset


def iptables_of(case: Case, family: Family) -> IptablesRuleset:
    ruleset = IptablesRuleset(options(family), None)
    ruleset.change(planned(case, family))
    return ruleset


def packet_of(case: Case, family: Family) -> Packet:
    interface = "" if case.sender == HERE else "eth0"
    source = ADDRESSES[family][case.sender]
    return Packet(source, case.to(family), case.port, NUMBERS[case.protocol], interface=interface)


def host_of(family: Family) -> Host:
    return Host(frozenset((ADDRESSES[family][HERE], ALSO_HERE[family])))


def who(address: str, family: Family) -> str:
    return next(name for name, known in ADDRESSES[family].items() if known == address)


def named(address: str, family: Family) -> str:
    """Who has an address; PASSED if no endpoint does."""
    return next((name for name, known in ADDRESSES[family].items() if known == address and name in PODS), PASSED)


def fate_of(outcome: Outcome, family: Family) -> str:
    """The word of the packet table for what a walker found."""
    match outcome.verdict:
        case "accept":
            return named(outcome.destination, family) + (M if outcome.masqueraded else "")
        case "drop":
            return DROPPED
    return REFUSED


def surroundings(mode: str, family: Family) -> Surroundings:
    """What the decision depends on, as a backend sees it."""
    here, own = ADDRESSES[family][HERE], (ADDRESSES[family][HERE], ALSO_HERE[family], LOOPBACK[family])
    if mode == "iptables":
        return Surroundings(POD_CIDRS[family], own, own[: 3 if family == "IPv4" else 2], guarded=False)
    return Surroundings(POD_CIDRS[family], own, (here,), (SERVICE_CIDRS[family],))


@pytest.mark.parametrize("mode", ["nftables", "iptables"])
@pytest.mark.parametrize(("case", "family"), ROWS, ids=row_id)
def test_decision(case: Case, family: Family, mode: str) -> None:
    at = surroundings(mode, family)
    ports = [port for ports in planned(case, family).values() for port in ports]
    source, destination = ADDRESSES[family][case.sender], case.to(family)
    decision = decide(ports, NewFlow(source, destination, case.port, case.protocol), at)
    match decision.verdict:
        case "refuse":
            found = {REFUSED}
        case "drop":
            found = {DROPPED}
        case "pass":
            found = {named(destination, family)}
        case "endpoint":
            found = {who(t.address, family) + (M if decision.masquerades(t, source) else "") for t in decision.targets}
    assert found == case.fate_by(mode, family), decision.reason


@pytest.mark.parametrize(("case", "family"), ROWS, ids=row_id)
def test_rules(case: Case, family: Family) -> None:
    ruleset = ruleset_of(case, family)
    nft = FakeNft()
    for transaction in ruleset.repair(None):
        nft.run_now(transaction)
    table = nft.tables[ruleset.words.nfproto, "kubesvc"]
    packet = packet_of(case, family)
    found = outcomes(table, packet, host_of(family))
    assert {fate_of(outcome, family) for outcome in found} == case.fate_by("nftables", family)
    for outcome in found:
        if outcome.verdict.startswith("reject"):
            assert (outcome.verdict == "reject tcp-reset") == (case.protocol == "TCP")


@pytest.mark.parametrize(("case", "family"), ROWS, ids=row_id)
def test_iptables_rules(case: Case, family: Family) -> None:
    """Every endpoint is as likely as the others (PROXY-110)."""
    tables = apply_restore(fresh_tables(), iptables_of(case, family).whole(), family)
    found = walk.outcomes(tables, packet_of(case, family), host_of(family))
    for outcome in found:
        if outcome.verdict.startswith("reject"):
            assert (outcome.verdict == "reject tcp-reset") == (case.protocol == "TCP")
    assert {fate_of(outcome, family) for outcome in found} == case.fate_by("iptables", family)
    assert all(abs(chance - 1 / len(found)) < 1e-8 for chance in found.values())


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
    chains = IptablesRuleset(FrameOptions("IPv4", **told), None)
    chains.change(planned(Case("", plain(ready(B)), A, web, 80, frozenset()), "IPv4"))
    tables = apply_restore(fresh_tables(), chains.whole(), "IPv4")
    found_ = walk.outcomes(tables, packet, Host(frozenset()))
    assert {who(o.destination, "IPv4") + (M if o.masqueraded else "") for o in found_} == wanted, (
        f"iptables: {sentence}"
    )


def test_only_new_flows_are_judged() -> None:
    """PROXY-43: a packet of a flow that is already there passes, whatever became of its Service."""
    ruleset = Ruleset(options("IPv4"))
    ruleset.change(planned(Case("", plain(), A, web, 80, frozenset()), "IPv4"))
    late = Packet(ADDRESSES["IPv4"][A], vip("IPv4"), 80, new=False)
    assert [o.verdict for o in outcomes(ruleset.table(), late, Host(frozenset()))] == ["accept"]
