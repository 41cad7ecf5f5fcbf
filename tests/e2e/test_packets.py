"""Ways a packet takes: from the host, from a Pod to itself and to others, and by name from inside a Pod."""

from __future__ import annotations

import http.client
import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from .harness import Instance, eventually, ready_pods

pytestmark = pytest.mark.e2e

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.60"


def echo_pod(name: str, node: str) -> dict[str, Any]:
    container = {
        "name": "c",
        "image": AGNHOST,
        "args": ["netexec", "--http-port=8080", "--udp-port=8081"],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
    }
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
    metadata = {"name": name, "labels": {"app": "packets", "pod": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def service(name: str, *ports: dict[str, Any], **spec: Any) -> dict[str, Any]:
    body = {"selector": {"app": "packets"}, "ports": list(ports)} | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": body}


STATIC_PORT = 30_000 + os.getpid() % 86
"""A node port of those that are given to nobody who does not ask for one; not that of another run of these tests."""
WEB = {"name": "web", "port": 80, "targetPort": 8080}
UDP = {"name": "udp", "port": 90, "protocol": "UDP", "targetPort": 8081}


@pytest.fixture(scope="module")
def pods(shared: Instance) -> Iterator[dict[str, str]]:
    """Two Pods on the first node and one on the second: name to address. Service `packets` selects all three."""
    shared.apply(echo_pod("near", "n1"), echo_pod("beside", "n1"), echo_pod("far", "n2"))
    shared.apply(service("packets", WEB, UDP, type="NodePort"))
    found = ready_pods(shared, "app=packets", 3)
    eventually(lambda: shared.curl("http://packets.default/hostname").returncode == 0)
    yield {p["metadata"]["name"]: p["status"]["podIP"] for p in found}
    shared.kubectl("delete", "service/packets", "pod/near", "pod/beside", "pod/far", "--now")


def within(instance: Instance, pod: str, *command: str) -> str:
    """What a command inside a Pod says."""
    return instance.kubectl("exec", pod, "--", *command)


def fetch(instance: Instance, pod: str, url: str) -> str:
    return within(instance, pod, "curl", "-sS", "-m", "20", url)


def node_port(instance: Instance, name: str, protocol: str) -> int:
    ports = instance.get("service", name)["spec"]["ports"]
    return int(next(p["nodePort"] for p in ports if p["protocol"] == protocol))


# -- from the host ----------------------------------------------------------------------------------------------------


def test_a_tcp_node_port_answers_on_the_hosts_loopback(shared: Instance, pods: dict[str, str]) -> None:
    url = f"http://{shared.record.loopback}:{node_port(shared, 'packets', 'TCP')}/hostname"

    def ask() -> str:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return str(answer.read().decode())
        except (OSError, http.client.HTTPException):  # the way in is opened, and closed again, as the Service is seen
            return ""

    assert {eventually(ask) for _ in range(30)} <= set(pods)


def test_a_udp_node_port_answers_on_the_hosts_loopback(shared: Instance, pods: dict[str, str]) -> None:
    address = (shared.record.loopback, node_port(shared, "packets", "UDP"))

    def ask() -> str:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as udp:
            udp.settimeout(2)
            udp.sendto(b"hostname", address)
            return udp.recv(512).decode()

    def patiently() -> str:
        try:
            return ask()
        except OSError:
            return ""

    assert eventually(patiently) in pods


def test_a_taken_port_is_an_event_and_a_line_of_status_and_never_a_failed_service(
    shared: Instance, pods: dict[str, str]
) -> None:
    loopback, port = shared.record.loopback, STATIC_PORT
    with closing(socket.create_server((loopback, port))):
        shared.apply(service("taken", WEB | {"nodePort": port}, type="NodePort"))

        def seen() -> list[Any]:
            events = shared.get("events", "--field-selector", "involvedObject.name=taken")["items"]
            return [e for e in events if e["type"] == "Warning" and str(port) in e["message"]]

        eventually(seen)
        line = f"node port {port}/TCP of Service default/taken does not answer on {loopback}"
        eventually(lambda: line in shared.run("status", "--name", shared.name).stdout)
        eventually(lambda: shared.curl(f"http://172.30.0.11:{port}/hostname").stdout in pods)
    shared.kubectl("delete", "service", "taken")
    eventually(lambda: line not in shared.run("status", "--name", shared.name).stdout)


# -- between Pods -----------------------------------------------------------------------------------------------------


def test_a_pod_reaches_itself_through_its_service(shared: Instance, pods: dict[str, str]) -> None:
    """CONF-8, hairpin: the packet leaves and comes back, masqueraded, so that the answer passes the node."""
    shared.apply(service("self", WEB, selector={"pod": "near"}))
    address = shared.get("service", "self")["spec"]["clusterIP"]
    eventually(lambda: shared.curl(f"http://{address}/hostname").stdout == "near")
    for _ in range(5):
        assert fetch(shared, "near", f"http://{address}/hostname") == "near"
    source = fetch(shared, "near", f"http://{address}/clientip").rpartition(":")[0]
    assert source != pods["near"]
    shared.kubectl("delete", "service", "self")


SOURCES = (
    # sentence, client, server
    ("a Pod of the same node", "near", "beside"),
    ("a Pod of another node", "near", "far"),
    ("the other way", "far", "near"),
)


@pytest.mark.parametrize(("sentence", "client", "server"), SOURCES, ids=[s[0] for s in SOURCES])
def test_a_cluster_ip_keeps_the_source_address_of_a_pod(
    shared: Instance, pods: dict[str, str], sentence: str, client: str, server: str
) -> None:
    name = f"from-{client}-to-{server}"
    shared.apply(service(name, WEB, selector={"pod": server}))
    address = shared.get("service", name)["spec"]["clusterIP"]
    eventually(lambda: shared.curl(f"http://{address}/hostname", node="n1").stdout == server)
    eventually(lambda: shared.curl(f"http://{address}/hostname", node="n2").stdout == server)
    assert fetch(shared, client, f"http://{address}/clientip").rpartition(":")[0] == pods[client]
    shared.kubectl("delete", "service", name)


BRIDGE_PATHS = "/proc/sys/net/bridge/bridge-nf-call-iptables"


def test_replies_pass_the_node_whatever_the_bridge_filter_says(shared: Instance, pods: dict[str, str]) -> None:
    """No bridge carries Pod traffic: off, on or not there at all, both Pods of one node answer through a ClusterIP."""
    there = shared.inside("test", "-e", BRIDGE_PATHS, check=False).returncode == 0
    settings = ("0", "1") if there else ("absent",)
    before = shared.inside("cat", BRIDGE_PATHS).stdout.strip() if there else ""
    address = shared.get("service", "packets")["spec"]["clusterIP"]
    links = json.loads(shared.inside("ip", "-j", "-d", "link").stdout)
    assert [i["ifname"] for i in links if i.get("linkinfo", {}).get("info_kind") == "bridge"] == []
    try:
        for setting in settings:
            if there:
                shared.inside("sh", "-c", f"echo {setting} > {BRIDGE_PATHS}")
            script = f"for i in $(seq 60); do curl -sS -m 20 http://{address}/hostname || exit 1; echo; done"
            assert set(within(shared, "near", "sh", "-c", script).split()) == set(pods), setting
    finally:
        if there:
            shared.inside("sh", "-c", f"echo {before} > {BRIDGE_PATHS}")


# -- names, as glibc looks them up inside a Pod -----------------------------------------------------------------------


def test_names_resolve_inside_a_pod(shared: Instance, pods: dict[str, str]) -> None:
    """CONF-5: short names by the search path, whole names, another namespace, and none for what does not exist."""
    shared.kubectl("create", "namespace", "elsewhere")
    shared.apply(service("headless", WEB, clusterIP="None"))
    other = service("packets", WEB, selector={"app": "none"})
    other["metadata"]["namespace"] = "elsewhere"
    shared.apply(other)
    here = shared.get("service", "packets")["spec"]["clusterIP"]
    there = shared.get("service", "packets", "-n", "elsewhere")["spec"]["clusterIP"]
    kubernetes = shared.get("service", "kubernetes")["spec"]["clusterIP"]
    names: tuple[tuple[str, set[str]], ...] = (
        ("packets", {here}),
        ("packets.default", {here}),
        ("packets.default.svc", {here}),
        ("packets.default.svc.cluster.local", {here}),
        ("packets.default.svc.cluster.local.", {here}),
        ("packets.elsewhere", {there}),
        ("kubernetes", {kubernetes}),
        ("headless", set(pods.values())),
        ("no-such-service", set()),
    )
    for client in ("near", "far"):
        for name, wanted in names:

            def look(client: str = client, name: str = name) -> set[str]:
                done = shared.try_kubectl("exec", client, "--", "getent", "ahostsv4", name)
                return {line.split()[0] for line in done.stdout.splitlines() if line.strip()}

            eventually(lambda look=look, wanted=wanted: look() == wanted)  # type: ignore[misc]
    resolver = within(shared, "near", "cat", "/etc/resolv.conf")
    dns = shared.get("service", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"]
    assert "search default.svc.cluster.local svc.cluster.local cluster.local" in resolver
    assert f"nameserver {dns}" in resolver and "options ndots:5" in resolver
    shared.kubectl("delete", "namespace", "elsewhere")
    shared.kubectl("delete", "service", "headless")


def test_the_walk_throughs_names_carry_connections(shared: Instance, pods: dict[str, str]) -> None:
    """`http://web-svc` and `external-database-service:5432`, asked from inside a Pod by these very names."""
    shared.apply(service("web-svc", WEB))
    shared.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "external-database-service"},
            "spec": {"ports": [{"port": 5432, "targetPort": 8080}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "external-database-service"},
            "subsets": [{"addresses": [{"ip": pods["far"]}], "ports": [{"port": 8080}]}],
        },
    )
    eventually(lambda: fetch(shared, "near", "http://web-svc/hostname") in pods)
    eventually(lambda: fetch(shared, "near", "http://external-database-service:5432/hostname") == "far")
    shared.kubectl("delete", "service/web-svc", "service/external-database-service")
