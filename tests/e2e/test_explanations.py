"""What `trace`, `rules` and `resolve` say is what really happens; and independent resolvers agree with the DNS
specification's examples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .harness import Instance, eventually, ready_pods
from .test_packets import UDP, WEB, echo_pod, service

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def told(shared: Instance) -> Iterator[Instance]:
    """One Pod on each node, one of them with a name of its own; Service `told`, and `named` without an address."""
    pods = [echo_pod("told-1", "n1"), echo_pod("told-2", "n2")]
    for pod in pods:
        pod["metadata"]["labels"] = {"app": "told"}
    pods[0]["spec"] |= {"hostname": "one", "subdomain": "named"}
    shared.apply(*pods, service("told", WEB, UDP, selector={"app": "told"}, type="NodePort"))
    shared.apply(service("named", WEB, selector={"app": "told"}, clusterIP="None"))
    ready_pods(shared, "app=told", 2)
    url = "http://told.default/hostname"
    for node in ("n1", "n2"):  # each has rules and names of its own
        eventually(lambda node=node: shared.curl(url, node=node).returncode == 0)  # type: ignore[misc]
    yield shared
    shared.kubectl("delete", "service/told", "service/named", "pod/told-1", "pod/told-2", "--now")


def ask(instance: Instance, *words: str) -> tuple[int, Any]:
    done = instance.run(*words, "--name", instance.name, "--json", check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize(
    ("target", "more"),
    [
        pytest.param("svc/told:web", ("--from", "pod/told-1"), marks=pytest.mark.soak),
        ("svc/told:udp", ("--from", "pod/told-2")),
        pytest.param("172.30.0.12:{node port}", ("--from", "pod/told-1"), marks=pytest.mark.soak),
        pytest.param("svc/told:web", ("--from", "node/n2"), marks=pytest.mark.soak),
    ],
)
def test_a_real_connection_goes_where_trace_says(told: Instance, target: str, more: tuple[str, ...]) -> None:
    ports = told.get("service", "told")["spec"]["ports"]
    number = next(p["nodePort"] for p in ports if p["name"] == "web")
    status, said = ask(told, "trace", target.replace("{node port}", str(number)), *more, "--live")
    assert status == 0, said
    assert said["live"]["agrees"]
    assert said["live"]["result"] == ("sent" if target.endswith("udp") else "connected")
    assert [round(e["probability"], 2) for e in said["legs"][-1]["endpoints"]] == [0.5, 0.5]


@pytest.mark.soak
def test_refusals_and_drops_are_as_said(told: Instance) -> None:
    status, said = ask(told, "trace", "10.96.0.1:81", "--live")
    assert (status, said["verdict"], said["live"]["agrees"]) == (1, "refuse", True)
    status, said = ask(told, "trace", "10.96.255.250:80", "--from", "pod/told-1", "--live")
    assert (status, said["verdict"], said["live"]["agrees"]) == (1, "drop", True)


def test_rules_are_the_kernels(told: Instance) -> None:
    address = told.get("service", "told")["spec"]["clusterIP"]
    targets = {p["status"]["podIP"] for p in ready_pods(told, "app=told", 2)}

    def kernel() -> set[str]:
        status, said = ask(told, "rules", "svc/told", "--node", "n2")
        assert (status, said["source"], said["missing"]) == (0, "kernel", [])
        endpoints = [r["text"] for r in said["rules"] if r["text"].startswith(f"{address} . tcp . 80 . ")]
        return {text.split(" : ")[1].split(" . ")[0] for text in endpoints}

    eventually(lambda: kernel() == targets)


@pytest.mark.parametrize(
    "name",
    [
        "told",
        *(
            pytest.param(n, marks=pytest.mark.soak)
            for n in ("one", "told.default.svc", "one.named", "named", "no-such-name")
        ),
    ],
)
def test_resolve_says_what_glibc_finds(told: Instance, name: str) -> None:
    """`getent` inside the Pod is the judge."""
    done = told.try_kubectl("exec", "told-1", "--", "getent", "ahostsv4", name)
    found = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    status, said = ask(told, "resolve", name, "--from", "pod/told-1")
    records = {r.removeprefix("A ") for x in said["lookups"] for r in x["records"] if r.startswith("A ")}
    assert records == found
    assert (status == 0) == bool(found)


def test_dig_agrees_with_the_specification(told: Instance) -> None:
    """Sections 2.2 to 2.4 of the specification of DNS-based service discovery, by `dig` inside a Pod, over UDP and TCP,
    with the Pod's resolver and search path (DNS-50)."""
    pods = {p["metadata"]["name"]: p["status"]["podIP"] for p in ready_pods(told, "app=told", 2)}
    address = told.get("service", "told")["spec"]["clusterIP"]
    zone = "cluster.local."
    told_, named = f"told.default.svc.{zone}", f"named.default.svc.{zone}"
    other = pods["told-2"].replace(".", "-")
    cases: tuple[tuple[str, str, set[str]], ...] = (
        (told_, "A", {address}),
        (told_, "AAAA", set()),
        ("told", "A", {address}),
        ("told.default", "A", {address}),
        (f"_web._tcp.{told_}", "SRV", {f"80 {told_}"}),
        (f"_udp._udp.{told_}", "SRV", {f"90 {told_}"}),
        (named, "A", set(pods.values())),
        (f"one.{named}", "A", {pods["told-1"]}),
        (f"_web._tcp.{named}", "SRV", {f"8080 one.{named}", f"8080 {other}.{named}"}),
        (reverse(address), "PTR", {told_}),
        (f"dns-version.{zone}", "TXT", {'"1.1.0"'}),
    )

    def agrees(transport: str) -> bool:
        command = [f"{name} {type_}" for name, type_, _ in cases]
        words = ("+search", "+short", transport, *" ".join(command).split())
        said = told.try_kubectl("exec", "told-1", "--", "dig", *words).stdout
        wanted = set().union(*(answers for *_, answers in cases))
        # An SRV record's first two numbers, priority and weight, are no part of the examples.
        found = {" ".join(line.split()[2:]) if len(line.split()) == 4 else line for line in said.splitlines()}
        assert wanted <= found, f"{transport}: {wanted - found} are missing in {found}"
        assert said.splitlines().count(address) == 3, f"{transport}: in full and by the search path"
        return True

    for transport in ("+notcp", "+tcp"):  # a node's names follow the lists of endpoints
        eventually(lambda transport=transport: agrees(transport))  # type: ignore[misc]
    # The headless Service's endpoints have names of their own in the reverse zone too.
    back = ("exec", "told-2", "--", "dig", "+short", "-x", pods["told-1"])
    eventually(lambda: f"one.{named}" in told.try_kubectl(*back).stdout.split())


def reverse(address: str) -> str:
    return ".".join(reversed(address.split("."))) + ".in-addr.arpa."
