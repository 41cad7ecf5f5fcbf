"""The rules of one Service in words, from the table as the renderer makes it; and in nft's own language."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest

from kubesvc.kernel.nft.text import table_lines, transaction_lines
from kubesvc.proxy.frame import FrameOptions
from kubesvc.proxy.nftables import Ruleset
from kubesvc.proxy.rules import lines_of, render
from kubesvc.proxy.traffic import Family, PortTraffic, ServicePortName, Target

from .objects import POD_CIDRS, SERVICE_CIDRS

KEY = ("shop", "web")


def port(family: Family = "IPv4", **more: object) -> PortTraffic:
    six = family == "IPv6"
    targets = tuple(Target(f"fd00:244::{n}" if six else f"10.244.1.{n}", 8080) for n in (2, 3))
    values: dict[str, object] = {
        "name": ServicePortName("shop", "web", "http", "TCP"),
        "port": 80,
        "cluster_ip": "fd00:96::7" if six else "10.96.0.7",
        "cluster": targets,
        "usable": True,
        **more,
    }
    return PortTraffic(**values)  # type: ignore[arg-type]


def ruleset(family: Family, *ports: PortTraffic) -> Ruleset:
    options = FrameOptions(family, pod_cidr=POD_CIDRS[family], service_cidrs=(SERVICE_CIDRS[family],))
    made = Ruleset(options, ("172.30.0.11",) if family == "IPv4" else ("fd00:172::11",))
    made.change({KEY: ports})
    return made


def said(*ports: PortTraffic, front: tuple[str, int, str] = ("10.96.0.7", 80, "TCP")) -> list[tuple[str, str]]:
    return [
        (line.place.removeprefix("ip kubesvc "), line.text)
        for line in lines_of([ruleset("IPv4", *ports).table()], [front])
    ]


def test_a_cluster_ip() -> None:
    assert said(port()) == [
        ("services", "10.96.0.7 . tcp . 80 : goto n2"),
        ("chain n2", "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints"),
        ("endpoints", "10.96.0.7 . tcp . 80 . 0 : 10.244.1.2 . 8080"),
        ("endpoints", "10.96.0.7 . tcp . 80 . 1 : 10.244.1.3 . 8080"),
        ("cluster-ips", "10.96.0.7"),
    ]


def test_without_endpoints_it_is_refused() -> None:
    lines = said(port(cluster=(), usable=False))
    assert ("no-endpoints", "10.96.0.7 . tcp . 80 : goto refuse") in lines


def test_a_balancer_with_source_ranges() -> None:
    lines = said(
        port(load_balancer_ips=("172.31.0.1",), source_ranges=("192.0.2.0/24",)), front=("172.31.0.1", 80, "TCP")
    )
    assert ("filtered", "172.31.0.1 . tcp . 80") in lines
    assert ("allowed", "172.31.0.1 . tcp . 80 . 192.0.2.0-192.0.2.255") in lines
    assert ("services", "172.31.0.1 . tcp . 80 : goto external") in lines


def test_affinity_shows_the_records_chain() -> None:
    text = render(lines_of([ruleset("IPv4", port(affinity_seconds=60)).table()], [("10.96.0.7", 80, "TCP")]))
    assert "first where this client went before" in text
    assert "sessionAffinity" in text


def test_a_missing_endpoint_is_said() -> None:
    table = ruleset("IPv4", port()).table()
    table.elements["endpoints"].popitem()
    assert any("is missing" in line.meaning for line in lines_of([table], [("10.96.0.7", 80, "TCP")]))


def test_a_front_that_nobody_has_says_nothing() -> None:
    assert said(port(), front=("10.96.0.8", 80, "TCP")) == []


def test_iptables_chains_are_followed() -> None:
    """PROXY-108 to 112: from the Service's rule to each endpoint, with the odds of each step."""
    from kubesvc.kernel.iptables import Tables, parse_save
    from kubesvc.proxy.audit import is_proxy_chain
    from kubesvc.proxy.rules import lines_of_chains

    from .test_audit import IPTABLES

    tables: dict[Family, Tables] = {"IPv4": parse_save(IPTABLES, "IPv4", only=is_proxy_chain)}
    lines = lines_of_chains(tables, [("10.96.0.7", 80, "TCP"), ("10.96.0.9", 80, "UDP"), ("10.96.0.9", 81, "UDP")])
    told = [(line.front, line.place.split()[-1], line.meaning) for line in lines]
    web = "10.96.0.7:80/TCP"
    assert told[:4] == [
        (web, "KUBE-SERVICES", "any endpoint of the Cluster list"),
        (web, "KUBE-SVC-AAAAAAAAAAAAAAAA", "the source will be rewritten"),
        (web, "KUBE-MARK-MASQ", "the packet is marked, so that its source will be rewritten"),
        (web, "KUBE-SVC-AAAAAAAAAAAAAAAA", "in 50.0 of 100 cases that come here, to one endpoint"),
    ]
    assert (web, "KUBE-SEP-BBBBBBBBBBBBBBBB", "to the endpoint 10.244.1.3:8080") in told
    assert [t for t in told if t[0] != web] == [
        ("10.96.0.9:80/UDP", "KUBE-SERVICES", "refused: no usable endpoint anywhere (PROXY-38)")
    ]


READ = """
import asyncio, json, sys
from kubesvc.kernel.nft import KernelNft
from kubesvc.kernel.nft.text import table_lines
nft = KernelNft()
print(json.dumps(list(table_lines(asyncio.run(nft.read(int(sys.argv[1]), "kubesvc"))))))
"""


@pytest.mark.e2e
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_nft_reads_what_is_printed(family: Family) -> None:
    """Everything that is printed, given to stock nft in a namespace of its own, makes the same table: sets, elements,
    chains, and as many rules, which nft may put differently (a /16 as two bytes). Affinity is left out for IPv6, where
    nft 1.0.6 itself fails an assertion."""
    if shutil.which("nft") is None:
        pytest.skip("the program nft is not installed")
    six = family == "IPv6"
    ports = (
        port(family, affinity_seconds=None if six else 60, node_port=30080, external_local=True),
        port(
            family,
            name=ServicePortName("shop", "db", "", "UDP"),
            cluster_ip="fd00:96::8" if six else "10.96.0.8",
            load_balancer_ips=("fd00:31::1" if six else "172.31.0.1",),
            source_ranges=("fd00::/16" if six else "10.0.0.0/8",),
        ),
    )
    made = ruleset(family, *ports)
    wished = made.table()
    text = "\n".join(line for t in made.repair(None) for line in transaction_lines(t, wished.sets)) + "\n"
    script = f'nft -f - && exec "{sys.executable}" -c "$1" {10 if six else 2}'
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", script, "sh", READ], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:2000]

    def comparable(lines: list[str]) -> list[str]:
        described = [line for line in lines if not line.startswith("\t\ttype")]  # in words of their own
        return sorted("a rule" if re.match("\t\t(?!element )", line) else line for line in described)

    assert comparable(json.loads(done.stdout)) == comparable(list(table_lines(wished)))
