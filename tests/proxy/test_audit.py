"""Rules held against what the API says: right ones pass, whoever wrote them, and every planted fault is named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

from kubesvc.kernel.iptables import apply_restore, fresh_tables, parse_save
from kubesvc.proxy.audit import Sender, audit, fronts_of, is_proxy_chain, rules_of_chains, rules_of_table, senders_of
from kubesvc.proxy.decision import Surroundings
from kubesvc.proxy.takeover import plan_removal
from kubesvc.proxy.traffic import PortTraffic, ServicePortName, Target

from .test_rules import port, ruleset

AT = Surroundings(pod_cidr="10.244.0.0/16", own_addresses=("172.30.0.11",), node_addresses=("172.30.0.11",))
SENDERS = senders_of(AT.own_addresses, "10.244.0.0/16", 4)

BALANCED = port(
    name=ServicePortName("shop", "balanced", "", "TCP"),
    cluster_ip="10.96.0.8",
    node_port=30080,
    load_balancer_ips=("172.31.0.1",),
    source_ranges=("10.0.0.0/8",),
    external_local=True,
    local=(Target("10.244.1.2", 8080),),
)
EMPTY = port(name=ServicePortName("shop", "empty", "", "UDP"), cluster_ip="10.96.0.9", cluster=(), usable=False)
ELSEWHERE = port(
    name=ServicePortName("shop", "elsewhere", "", "TCP"), cluster_ip="10.96.0.10", internal_local=True, local=()
)
STICKY = port(name=ServicePortName("shop", "sticky", "", "TCP"), cluster_ip="10.96.0.11", affinity_seconds=60)
ALL = (port(), BALANCED, EMPTY, ELSEWHERE, STICKY)


def test_our_own_rules_pass() -> None:
    """Under every sender: from outside, from the node, from a Pod."""
    assert len(SENDERS) == 3
    assert audit(rules_of_table(ruleset("IPv4", *ALL).table(), "ours"), ALL, AT, SENDERS) == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("endpoint", "svc/web (shop) port http: 10.96.0.7:80/TCP from outside: should be to 10.244.1.2:8080, "
                     "to 10.244.1.3:8080; is to 10.244.1.2:8080, to 10.9.9.9:8080"),
        ("front", "10.96.0.7:80/TCP from outside: should be to 10.244.1.2:8080, to 10.244.1.3:8080; is refused"),
        ("verdict", "svc/elsewhere (shop): 10.96.0.10:80/TCP from outside: should be dropped; is refused"),
        ("extra", "10.96.9.9:80/TCP: the kernel has rules (to 10.244.1.2:8080, to 10.244.1.3:8080), and no Service has "
                  "this address and port"),
        ("ranges", "172.31.0.1:80/TCP from outside: should be dropped; is to 10.244.1.2:8080"),
    ],
)  # fmt: skip
def test_a_fault_is_named(fault: str, words: str) -> None:
    from kubesvc.kernel.nft.fields import pack_address, pack_port

    ports = (*ALL, port(cluster_ip="10.96.9.9", name=ServicePortName("shop", "gone", "", "TCP")))
    table = ruleset("IPv4", *(ports if fault == "extra" else ALL)).table()
    match fault:
        case "endpoint":
            held, old = table.elements["endpoints"], pack_address("10.244.1.3") + pack_port(8080)
            key = next(k for k, v in held.items() if v == old and k.startswith(pack_address("10.96.0.7")))
            held[key] = pack_address("10.9.9.9") + pack_port(8080)
        case "front":
            drop_front(table.elements["services"], "10.96.0.7")
        case "verdict":
            table.elements["no-endpoints"].clear()
        case "ranges":
            table.elements["filtered"].clear()
    found = audit(rules_of_table(table, "ours"), ALL, AT, SENDERS)
    assert any(words in str(d) for d in found), [str(d) for d in found]
    assert all("svc/sticky" not in str(d) for d in found), "what is right is not named"


def drop_front(elements: dict[bytes, Any], address: str) -> None:
    from kubesvc.kernel.nft.fields import pack_address

    for key in [k for k in elements if k.startswith(pack_address(address))]:
        del elements[key]


# kube-proxy's rules, as PROXY-91 to 99 and PROXY-108 to 112 lay them out.

NFT = """
table ip kube-proxy {
  set cluster-ips { type ipv4_addr; elements = { 10.96.0.7, 10.96.0.9 } }
  set nodeport-ips { type ipv4_addr; elements = { 172.30.0.11 } }
  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.9 . udp . 80 comment "shop/empty:" : goto reject-chain } }
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.7 . tcp . 80 : goto service-AAAAAAAA-shop/web/tcp/http,
                 10.96.0.11 . tcp . 80 : goto service-BBBBBBBB-shop/sticky/tcp/ } }
  map service-nodeports { type inet_proto . inet_service : verdict; }
  set affinity-X { type ipv4_addr; flags dynamic,timeout; timeout 1m; }
  chain reject-chain { reject; }
  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
  chain service-AAAAAAAA-shop/web/tcp/http {
    ip daddr 10.96.0.7 tcp dport 80 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
    meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.1.2 . 8080, 1 : 10.244.1.3 . 8080 }
  }
  chain endpoint-A { update @affinity-X { ip saddr }
    meta l4proto tcp dnat to 10.244.1.2:8080; }
  chain endpoint-B { meta l4proto tcp dnat to 10.244.1.3:8080; }
  chain service-BBBBBBBB-shop/sticky/tcp/ {
    ip saddr @affinity-X goto endpoint-A
    numgen random mod 2 vmap { 0 : goto endpoint-A, 1 : goto endpoint-B }
  }
  chain services {
    ip daddr 10.96.0.99 ip saddr != { 10.0.0.0/8, 192.0.2.0/24 } drop
    ip daddr . meta l4proto . th dport vmap @service-ips
    ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }
  chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
  chain masquerading {
    meta mark & 0x4000 == 0 return
    meta mark set meta mark xor 0x4000
    masquerade fully-random
  }
  chain filter-input { type filter hook input priority 0; ct state new jump service-endpoints-check; }
  chain filter-forward { type filter hook forward priority 0; ct state new jump service-endpoints-check; }
  chain filter-output { type filter hook output priority 0; ct state new jump service-endpoints-check; }
  chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
  chain nat-output { type nat hook output priority -100; jump services; }
  chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
}
table ip others {
  chain forward { type filter hook forward priority 0; }
}
"""

IPTABLES = """*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-BBBBBBBBBBBBBBBB - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:MINE - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -j MINE
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-SERVICES -d 10.96.0.7/32 -p tcp -m comment --comment "shop/web:http cluster IP" -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-SVC-AAAAAAAAAAAAAAAA ! -s 10.244.0.0/16 -d 10.96.0.7/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-AAAAAAAAAAAAAAAA -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SVC-AAAAAAAAAAAAAAAA -j KUBE-SEP-BBBBBBBBBBBBBBBB
-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -m tcp -j DNAT --to-destination 10.244.1.2:8080
-A KUBE-SEP-BBBBBBBBBBBBBBBB -p tcp -m tcp -j DNAT --to-destination 10.244.1.3:8080
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.9/32 -p udp -m comment --comment "shop/empty has no endpoints" -m udp --dport 80 -j REJECT --reject-with icmp-port-unreachable
COMMIT
"""  # noqa: E501


def of_chains(text: str, *ports: PortTraffic) -> list[str]:
    tables = parse_save(text, "IPv4", only=is_proxy_chain)
    inside = Sender("a Pod", "10.244.255.254", "veth0")
    return [str(d) for d in audit(rules_of_chains(tables, "theirs"), ports, AT, (SENDERS[0], inside))]


def test_kube_proxys_chains_pass() -> None:
    assert of_chains(IPTABLES, port(), EMPTY) == []


def test_a_fault_in_kube_proxys_chains_is_named() -> None:
    dead = IPTABLES.replace("10.244.1.3:8080", "10.244.1.99:8080")
    assert of_chains(dead, port(), EMPTY) == [
        f"svc/web (shop) port http: 10.96.0.7:80/TCP from {who}: should be to 10.244.1.2:8080, to 10.244.1.3:8080; "
        "is to 10.244.1.2:8080, to 10.244.1.99:8080"
        for who in ("outside", "a Pod")
    ]  # fmt: skip
    (gone,) = of_chains(IPTABLES, EMPTY)
    assert gone.startswith("10.96.0.7:80/TCP: the kernel has rules")


def test_taking_over_leaves_what_is_not_kube_proxys() -> None:
    """The node agent's chains, the user's, and their jumps stay."""
    before = apply_restore(fresh_tables(), IPTABLES, "IPv4")
    after = apply_restore(before, plan_removal(IPTABLES), "IPv4")
    assert [c for c in after["nat"].rules if not c.isupper() or c.startswith("KUBE-")] == ["KUBE-KUBELET-CANARY"]
    assert [c for c in after["filter"].rules if c.startswith("KUBE-")] == ["KUBE-FIREWALL"]
    assert len(after["nat"].rules["PREROUTING"]) == 1
    assert len(after["filter"].rules["INPUT"]) == 1
    assert after["nat"].rules["POSTROUTING"] == []
    assert plan_removal("*nat\n:INPUT ACCEPT [0:0]\nCOMMIT\n") == ""


SCRIPT = """
import asyncio, json, sys
sys.path[:0] = json.loads(sys.argv[1])
from kubesvc.kernel.iptables import KernelIptables
from kubesvc.kernel.nft import KernelNft
from kubesvc.proxy.audit import audit, rules_of_chains, rules_of_table
from kubesvc.proxy.takeover import find_foreign, remove
from tests.proxy.test_audit import AT, EMPTY, SENDERS, STICKY
from tests.proxy.test_rules import port

async def main():
    nft, iptables = KernelNft(), KernelIptables() if sys.argv[2] == "yes" else None
    found = await find_foreign(nft, iptables)
    said = {}
    for f in found:
        rules = rules_of_table(f.table, str(f)) if f.table else rules_of_chains(f.chains, str(f))
        right = (port(), EMPTY, STICKY) if f.table else (port(), EMPTY)
        said[str(f)] = [[str(d) for d in audit(rules, ports, AT, SENDERS)] for ports in (right, (port(),))]
    await remove(found, nft, iptables)
    left = [str(f) for f in await find_foreign(nft, iptables)]
    others = await nft.read(2, "others")
    print(json.dumps({"said": said, "left": left, "others": others is not None}))

asyncio.run(main())
"""


@pytest.mark.e2e
def test_kube_proxys_rules_in_the_kernel() -> None:
    """Planted with the system's own programs in a namespace: read, found right, found wrong against another API, and
    removed without touching others'."""
    if shutil.which("nft") is None:
        pytest.skip("the program nft is not installed")
    iptables = "yes" if shutil.which("iptables-restore") else "no"
    plant = "nft -f - <<'END'\n" + NFT + "END\n"
    if iptables == "yes":
        plant += "iptables-restore <<'END'\n" + IPTABLES + "END\n"
    run = f'{plant}exec "{sys.executable}" -c "$1" "$2" {iptables}'
    done = subprocess.run(
        ["unshare", "-n", "sh", "-ec", run, "sh", SCRIPT, json.dumps(sys.path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    tables = ["nftables table `ip kube-proxy`"] + ["iptables chain KUBE-SERVICES (IPv4)"] * (iptables == "yes")
    assert list(answer["said"]) == tables
    for right, wrong in answer["said"].values():
        assert right == []
        assert any(d.startswith("10.96.0.9:80/UDP: the kernel has rules (refused)") for d in wrong), wrong
    assert answer["left"] == []
    assert answer["others"]


def test_fronts_are_named_once() -> None:
    assert fronts_of(BALANCED, AT) == [
        ("10.96.0.8", 80, "TCP"),
        ("172.31.0.1", 80, "TCP"),
        ("172.30.0.11", 30080, "TCP"),
    ]
