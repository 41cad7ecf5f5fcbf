"""`kubesvc proxy` by itself, as on a node of somebody's cluster: in a network namespace that has its own rules, with an
API server that knows of no node but the one that is told to it. Every command of docs/proxy.md is run here."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .harness import Instance, eventually

pytestmark = [pytest.mark.e2e]

NODE, POD = "10.10.0.5", "10.244.1.7"
OBJECTS = """
apiVersion: v1
kind: Node
metadata: {name: n9}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  clusterIP: 10.96.7.7
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {clusterIP: 10.96.7.8, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.244.1.7], nodeName: n9}]
"""
FOREIGN = """
table ip kube-proxy {
    chain services { }
    chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
}
"""
SERVER = f"""
import socket
s = socket.create_server(("{POD}", 8080))
while True:
    s.accept()[0].close()
"""


@dataclass
class Alone(Instance):
    """An API server and whatever else, all in one namespace that is the node."""

    namespace: str = f"kp{secrets.token_hex(4)}"
    others: list[subprocess.Popen[str]] = field(default_factory=list)

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *super().command(*words)]

    def inside_node(self, *words: str, input: str = "") -> str:
        command = ["ip", "netns", "exec", self.namespace, *words]
        return subprocess.run(command, input=input, check=True, capture_output=True, text=True).stdout

    @property
    def target(self) -> tuple[str, ...]:
        return ("--kubeconfig", str(self.root / "kubeconfig"), "--node", "n9")

    def proxy(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`kubesvc proxy`, to its end."""
        return self.run("proxy", *self.target, *options, check=check)

    @contextlib.contextmanager
    def steering(self, *options: str) -> Iterator[Path]:
        """`kubesvc proxy` while it runs, ended as by Ctrl-C; yields the file with what it says."""
        said = self.home / f"said-{len(list(self.home.glob('said-*')))}"
        with said.open("w") as file:
            command = self.command("proxy", *self.target, *options)
            process = subprocess.Popen(command, stdout=file, stderr=file, text=True, env=self.environment())
        try:
            eventually(lambda: "proxy mode" in said.read_text())
            yield said
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 0, said.read_text()
        finally:
            process.kill()
            process.wait()

    def page(self, url: str) -> str:
        """A page, asked for in the node; "" if nobody answers."""
        command = ["ip", "netns", "exec", self.namespace, "curl", "-sS", "-m", "20", url]
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout

    def connects(self, address: str, port: int) -> str:
        """What becomes of a connection from the node: taken, refused or lost."""
        text = (
            "import socket, sys\n"
            f"try: socket.create_connection(('{address}', {port}), 0.5); print('taken')\n"
            "except ConnectionRefusedError: print('refused')\n"
            "except OSError: print('lost')\n"
        )
        return self.inside_node("python3", "-c", text).strip()


@pytest.fixture(scope="module")
def alone(machine: None) -> Iterator[Alone]:
    with tempfile.TemporaryDirectory(prefix="ks-", dir="/tmp") as home:
        made = Alone(Path(home))
        subprocess.run(["ip", "netns", "add", made.namespace], check=True)
        try:
            made.inside_node("ip", "link", "set", "lo", "up")
            for address in (NODE, POD):
                made.inside_node("ip", "address", "add", f"{address}/32", "dev", "lo")
            made.inside_node("ip", "route", "add", "default", "dev", "lo", "src", NODE)
            made.up("--nodes", "0", "--store", "memory")
            made.run("kubectl", "--name", made.name, "apply", "-f", "-", stdin=OBJECTS)
            status = {"status": {"addresses": [{"type": "InternalIP", "address": NODE}]}}
            patch = ("patch", "node", "n9", "--subresource", "status", "--type", "merge", "-p", json.dumps(status))
            made.run("kubectl", "--name", made.name, *patch)
            server = ["ip", "netns", "exec", made.namespace, "python3", "-c", SERVER]
            made.others.append(subprocess.Popen(server, text=True))
            eventually(lambda: made.connects(POD, 8080) == "taken")
            yield made
        finally:
            for process in made.others:
                process.kill()
                process.wait()
            if made.process is not None:
                made.interrupt()
            subprocess.run(["ip", "netns", "delete", made.namespace], check=False)


def test_a_node_of_somebodys_cluster(alone: Alone) -> None:
    """Shown before it is written, written, asked, audited, repaired, left standing, removed (PROXY-90, 120, 121)."""
    shown = alone.proxy("--dry-run").stdout
    assert "add table ip kubesvc" in shown and f"{POD} . 8080" in shown
    assert alone.inside_node("nft", "list", "tables") == "", "nothing is written by looking"
    audit = alone.proxy("--audit", check=False)
    assert audit.returncode == 2 and "there are no rules to audit here" in audit.stderr
    other = alone.proxy("--dry-run", "--node", "n8", check=False)
    assert other.returncode == 2 and "no node 'n8' in the cluster; there are n9" in other.stderr
    with alone.steering() as said:
        assert "proxy mode nftables: the kernel takes our rules" in said.read_text()
        eventually(lambda: alone.connects("10.96.7.7", 80) == "taken")
        assert alone.connects(NODE, 30080) == "taken"
        assert alone.connects("10.96.7.8", 80) == "refused"
        eventually(lambda: '"healthy": true' in alone.page("http://127.0.0.1:10256/healthz"))
        eventually(lambda: alone.page("http://127.0.0.1:10249/proxyMode") == "nftables")
        counted = "kubeproxy_sync_proxy_rules_duration_seconds_count"
        eventually(lambda: counted in alone.page("http://127.0.0.1:10249/metrics"))
        assert "kubeproxy.config.k8s.io" in json.loads(alone.page("http://127.0.0.1:10249/configz"))
        assert alone.proxy("--audit").stdout.endswith("all as the API says\n")
        alone.inside_node("nft", "delete element ip kubesvc services { 10.96.7.7 . tcp . 80 }")
        audit = alone.proxy("--audit", "--json", check=False)
        assert audit.returncode == 1
        assert {d["front"].partition(":")[0] for d in json.loads(audit.stdout)["differences"]} == {"10.96.7.7"}
    assert alone.inside_node("nft", "list", "tables") == "table ip kubesvc\n", "rules outlive the proxy"
    assert alone.proxy("--dry-run").stdout.count("add element") == 1, "what is wrong by now, and no more"
    with alone.steering("--healthz-bind-address", "", "--metrics-bind-address", "127.0.0.1:10333", "--remove-at-end"):
        eventually(lambda: alone.connects("10.96.7.7", 80) == "taken")
        eventually(lambda: alone.page("http://127.0.0.1:10333/proxyMode") == "nftables")
        assert alone.page("http://127.0.0.1:10256/healthz") == ""
    assert alone.inside_node("nft", "list", "tables") == ""


def test_beside_kube_proxy(alone: Alone) -> None:
    """Where its rules are nothing is written, until they are to be taken over; in other modes too (PROXY-121)."""
    alone.inside_node("nft", "-f", "-", input=FOREIGN)
    refused = alone.proxy(check=False)
    assert refused.returncode == 1
    assert "nftables table `ip kube-proxy`" in refused.stderr and "--take-over" in refused.stderr
    audit = alone.proxy("--audit", check=False)
    assert audit.returncode == 1 and "10.96.7.7:80/TCP" in audit.stdout and "is left alone" in audit.stdout
    with alone.steering("--take-over") as said:
        eventually(lambda: "removed kube-proxy's nftables table `ip kube-proxy`" in said.read_text())
        assert alone.connects("10.96.7.7", 80) == "taken"
    alone.inside_node("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    with alone.steering("--proxy-mode", "iptables", "--nodeport-addresses", "10.10.0.0/16") as said:
        assert "proxy mode iptables: it was asked for" in said.read_text()
        eventually(lambda: "IPv4 only" in said.read_text())  # PROXY-126
        eventually(lambda: "kubesvc" not in alone.inside_node("nft", "list", "tables"))
        assert alone.connects("10.96.7.7", 80) == alone.connects(NODE, 30080) == "taken"
        assert alone.connects(POD, 30080) == "refused", "not one of the addresses that were chosen"
        counted = 'iptables_total{ip_family="IPv4",table="nat"}'
        eventually(lambda: counted in alone.page("http://127.0.0.1:10249/metrics"))
        assert alone.proxy("--audit", "--nodeport-addresses", "10.10.0.0/16").stdout.endswith("all as the API says\n")
    assert "removed the chains of iptables\n" in alone.run("proxy", "--cleanup").stdout
    assert "KUBE" not in alone.inside_node("iptables-save")
    assert alone.run("proxy", "--cleanup").stdout == "there are no rules of ours here\n"


def test_without_privilege(alone: Alone) -> None:
    """Services at loopback ports, which are listed (PROXY-38): what a socket can do, and nothing else."""
    listing = alone.home / "ports.json"
    with alone.steering("--proxy-mode", "userspace", "--service-ports", str(listing)) as said:

        def told(front: str) -> str:
            """The line of a front, once it is there."""
            return str(eventually(lambda: next((w for w in said.read_text().splitlines() if front in w), "")))

        line = told("10.96.7.7:80/TCP")
        assert line.startswith("default/web ") and " open at 127.0.0.1:" in line
        assert alone.connects("127.0.0.1", int(line.rpartition(":")[2])) == "taken"
        shown = told("10.96.7.8:80/TCP")
        assert " refusing at " in shown
        assert alone.connects("127.0.0.1", int(shown.rpartition(":")[2])) == "refused"
        assert "10.96.7.7:80" in listing.read_text()
