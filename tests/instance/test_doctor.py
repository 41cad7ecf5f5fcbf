"""What `kubesvc doctor` reads out of the reports that the nodes of running instances leave."""

from __future__ import annotations

import os
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from kubesvc.instance.doctor import Finding, crowded_nodes, refused_services, second_family
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.proxyreport import PROXY_REPORT, ProxyReport, write_report
from kubesvc.instance.record import InstanceRecord, NodeRecord, ProcessId, write_record
from kubesvc.kernel.room import REMEDY, Room

ME = ProcessId.of(os.getpid())
FULL = Room(100, 100, lost=3).sentence()
REPORT = ProxyReport("nftables", "it works", {"IPv4 shop/web": "an element is poison"}, FULL)


def instance(name: str, control: ProcessId | None, report: ProxyReport | None) -> None:
    paths = InstancePaths.of(name)
    node = paths.node("n1")
    node.mkdir(parents=True)
    write_record(
        paths.record, InstanceRecord(control=control, nodes=[NodeRecord("n1", "172.30.0.11", "10.244.1.0/24")])
    )
    if report is not None:
        write_report(node / PROXY_REPORT, report)


def test_troubles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of instances that run; one that has ended, is starting, or is well has none."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    instance("bad", ME, REPORT)
    instance("ended", ProcessId(1, 1), REPORT)
    instance("new", ME, None)
    instance("well", ME, ProxyReport("nftables", "it works"))
    assert crowded_nodes() == [Finding("bad n1", "limited", FULL, REMEDY)]
    remedy = "kubesvc why svc/web -n shop --name bad"
    assert refused_services() == [Finding("bad n1", "limited", "rules of IPv4 shop/web: an element is poison", remedy)]


def test_a_kernel_without_ipv6_takes_the_second_family_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel said stands in it; nothing else is missing for that."""
    refusal = b"Traceback\nNetlinkError: [Errno 13] address fd00::1/64 on br: Permission denied\n"
    monkeypatch.setattr("kubesvc.instance.doctor.inside", lambda program: CompletedProcess(program, 1, b"", refusal))
    found = second_family()
    assert found.verdict == "limited" and "IPv4 only: " in found.text and found.text.endswith("Permission denied")
    assert "ipv6.disable=1" in found.remedy
