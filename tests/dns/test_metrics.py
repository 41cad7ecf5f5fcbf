"""What the server counts, in a form that Prometheus' own tool accepts; its side ports; and floods from one source."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import dns.exception
import dns.message
import dns.query
import msgspec
import pytest

from kubesvc.clock import rfc3339_micro
from kubesvc.dns import DnsServer
from kubesvc.dns.durations import BOUNDS, Durations
from kubesvc.dns.listeners import AT_ONCE, SHARE, WAITING_SHARE, TcpListener, UdpListener, bound_socket
from kubesvc.dns.metrics import DnsMetrics, Programming
from kubesvc.dns.records import Zone
from kubesvc.dns.responder import Answered, Responder
from tests.freeports import free_port

from .cluster import HTTP, SHOP, ListWatchClient, endpoint, endpoint_slice, headless, service, snapshot_of
from .test_server import S, serving, udp

PROMTOOL = Path(__file__).resolve().parents[2] / ".peers" / "usr" / "bin" / "promtool"


def asked(to: Responder, name: str, type_: str = "A", times: int = 1, *, tcp: bool = False) -> None:
    query = dns.message.make_query(name, type_).to_wire()
    for i in range(times):
        to.answer(i.to_bytes(2, "big") + query[2:], tcp)


def made() -> tuple[Responder, DnsMetrics]:
    to = Responder(snapshot_of(*SHOP), Zone())
    return to, DnsMetrics(to, Programming(0.0), "dns://:53", lambda: (7, 1), Durations(lambda: 0.0))


def test_kept_responses_count_as_well() -> None:
    to, metrics = made()
    asked(to, f"web.{S}", times=5)
    asked(to, f"nosuch.{S}", "AAAA", times=3, tcp=True)
    to.answer(b"\0\1\x28" + bytes(9))  # an opcode that nobody serves
    where = 'server="dns://:53",zone="cluster.local.",view=""'
    lines = metrics.text().splitlines()
    assert f'coredns_dns_requests_total{{{where},proto="udp",type="A"}} 5' in lines
    assert f'coredns_dns_requests_total{{{where},proto="tcp",type="AAAA"}} 3' in lines
    assert f'coredns_dns_responses_total{{{where},rcode="NOERROR",plugin="kubernetes"}} 5' in lines
    assert f'coredns_dns_responses_total{{{where},rcode="NXDOMAIN",plugin="kubernetes"}} 3' in lines
    assert f'coredns_dns_responses_total{{{where},rcode="NOTIMP",plugin="kubernetes"}} 1' in lines
    assert "kubesvc_dns_limited_total 7" in lines


def test_what_is_forgotten_stays_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubesvc.dns.responder.MOST_CACHED", 2)
    to, _ = made()
    for i in range(7):
        asked(to, f"n{i}.{S}", times=3)
    requests, responses = to.totals()
    assert sum(requests.values()) == sum(responses.values()) == 21


def test_what_a_change_makes_untrue_stays_counted() -> None:
    to, _ = made()
    for turn in range(5):
        asked(to, f"nosuch.{S}", times=3)
        to.snapshot.service_changed(None, service(f"other{turn}", ips=(f"10.96.7.{turn}",)), 1)
    requests, responses = to.totals()
    assert sum(requests.values()) == sum(responses.values()) == 15


def test_every_answer_is_timed() -> None:
    """By UDP and TCP, those of this server and those of others; what gets no answer is not counted."""

    class Slow:
        def answer(self, query: bytes, tcp: bool = False) -> Answered:
            if query == b"none":
                return None
            if query != b"later":
                return query

            async def later() -> bytes:
                moment[0] += 0.01
                return query

            return later

    moment = [0.0]  # what the clock says: only what waits takes its time

    async def main() -> None:
        durations = Durations(lambda: moment[0])
        udp_listener = UdpListener(bound_socket(socket.SOCK_DGRAM, "127.0.0.1", 0), Slow(), durations)
        tcp_listener = TcpListener(bound_socket(socket.SOCK_STREAM, "127.0.0.1", 0), Slow(), durations=durations)
        udp_listener.start()
        await tcp_listener.start()
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.setblocking(False)
            s.connect(udp_listener.sock.getsockname())
            for query in (b"now", b"none", b"later"):
                s.send(query)
            assert [await loop.sock_recv(s, 99) for _ in range(2)] == [b"now", b"later"]
        reader, writer = await asyncio.open_connection(*tcp_listener.sock.getsockname())
        for query in (b"now", b"later"):
            writer.write(len(query).to_bytes(2, "big") + query)
        assert await reader.readexactly(12) == b"\0\3now\0\5later"
        writer.close()
        udp_listener.close()
        await tcp_listener.close()
        assert sum(durations.counts) == 4 and durations.sum == pytest.approx(0.02)
        assert sum(durations.counts[: BOUNDS.index(0.008) + 1]) == 2, "two of them waited for ten milliseconds"

    asyncio.run(main())


def test_programming_time_by_kind_of_service() -> None:
    """DNS-57."""
    programming = Programming(1000.0)
    moved = endpoint_slice("a", "web", endpoint("10.244.0.1"), ports=(HTTP,))

    def stamped(at: float) -> Any:
        note = {"endpoints.kubernetes.io/last-change-trigger-time": rfc3339_micro(at)}
        return msgspec.structs.replace(moved, metadata=msgspec.structs.replace(moved.metadata, annotations=note))

    programming.observe(service("web", ips=("10.96.0.1",)), stamped(1000.5), 1001.0)
    programming.observe(headless("db", selector={"a": "b"}), stamped(1000.5), 1003.5)
    programming.observe(headless("ext"), stamped(1000.5), 1003.5)
    programming.observe(service("web", ips=("10.96.0.1",)), stamped(900.0), 1001.0)  # older than this server
    programming.observe(service("web", ips=("10.96.0.1",)), moved, 1001.0)  # says nothing
    name = "coredns_kubernetes_dns_programming_duration_seconds"
    text = "\n".join(programming.lines())
    assert f'{name}_count{{service_kind="cluster_ip"}} 1' in text
    assert f'{name}_sum{{service_kind="cluster_ip"}} 0.5' in text
    assert f'{name}_count{{service_kind="headless_with_selector"}} 1' in text
    assert f'{name}_count{{service_kind="headless_without_selector"}} 1' in text


def test_promtool_has_nothing_to_say() -> None:
    if not PROMTOOL.exists():
        pytest.skip("promtool is not there: tools/bootstrap.py fetches it")
    to, metrics = made()
    asked(to, f"web.{S}", times=5)
    check = [str(PROMTOOL), "check", "metrics"]
    said = subprocess.run(check, input=metrics.text(), capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")


async def get(port: int, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    heading, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(heading.split()[1]), body


def test_the_side_ports() -> None:
    """DNS-42: ready only when the lists are in; /health as soon as the process lives."""
    health, ready, metrics = free_port(), free_port(), free_port()

    async def body(server: DnsServer, _: ListWatchClient) -> None:
        await udp(server, f"web.{S}")
        assert await get(health, "/health") == (200, "OK")
        assert await get(ready, "/ready") == (200, "OK")
        assert (await get(health, "/nothing"))[0] == 404
        status, text = await get(metrics, "/metrics")
        assert status == 200
        assert "coredns_dns_requests_total" in text
        server.snapshot.synced = False
        assert await get(ready, "/ready") == (503, "kubernetes")

    serving(body, health_port=health, ready_port=ready, metrics_port=metrics)


# Floods.


class Flood:
    """A socket that has these datagrams waiting, and remembers who was answered."""

    def __init__(self, *sources: tuple[str, int]) -> None:
        self.queue = [(b"query", (source, 5000)) for source, count in sources for _ in range(count)]
        self.sent: list[str] = []

    def recvfrom(self, size: int) -> tuple[bytes, Any]:
        if not self.queue:
            raise BlockingIOError
        return self.queue.pop(0)

    def sendto(self, data: bytes, client: tuple[str, int]) -> None:
        self.sent.append(client[0])


class Echo:
    def answer(self, query: bytes, tcp: bool = False) -> Answered:
        return b"answer"


def drained(flood: Flood) -> UdpListener:
    listener = UdpListener(cast(socket.socket, flood), Echo())
    listener._drain()
    return listener


def test_one_source_alone_loses_nothing() -> None:
    flood = Flood(("10.0.0.1", 3 * AT_ONCE))
    listener = drained(flood)
    assert len(flood.sent) == AT_ONCE
    while flood.queue:
        listener._drain()
    assert len(flood.sent) == 3 * AT_ONCE
    assert listener.limited == 0


def test_a_flood_does_not_keep_others_from_their_answers() -> None:
    """The victim's datagrams, behind 900 of the flood, are answered in the same turn; the flood gets what is left."""
    flood = Flood(("10.0.0.1", 200), ("10.0.0.2", 3), ("10.0.0.1", 700))
    listener = drained(flood)
    assert flood.sent.count("10.0.0.2") == 3
    assert SHARE <= flood.sent.count("10.0.0.1") <= AT_ONCE
    assert not flood.queue
    assert listener.limited == 900 - flood.sent.count("10.0.0.1")


def test_one_source_cannot_take_all_places_of_those_who_wait() -> None:
    """A quarter of them at most, whatever it asks of other resolvers."""

    async def story() -> None:
        gate = asyncio.Event()

        class Slow:
            def answer(self, query: bytes, tcp: bool = False) -> Answered:
                async def later() -> bytes:
                    await gate.wait()
                    return b"answer"

                return later

        flood = Flood(("10.0.0.1", 900), ("10.0.0.2", 5))
        listener = UdpListener(cast(socket.socket, flood), Slow())
        while flood.queue:
            listener._drain()
        assert listener.waiting == {"10.0.0.1": WAITING_SHARE, "10.0.0.2": 5}
        gate.set()
        await asyncio.gather(*listener.tasks)
        assert listener.waiting == {}
        assert flood.sent.count("10.0.0.2") == 5

    asyncio.run(story())


# The command.


def test_negative_ttl_is_the_soas_minimum() -> None:
    """DNS-36, 37."""
    to = Responder(snapshot_of(*SHOP), Zone(ttl=30, negative_ttl=3))
    found = dns.message.from_wire(cast(bytes, to.answer(dns.message.make_query(f"nosuch.{S}", "A").to_wire())))
    (soa,) = found.authority
    assert (soa.ttl, soa[0].minimum) == (3, 3)
    found = dns.message.from_wire(cast(bytes, to.answer(dns.message.make_query(f"web.{S}", "A").to_wire())))
    assert found.answer[0].ttl == 30


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--address", "nonsense"), "--address nonsense: must be IP:PORT"),
        (("--upstream", "a.example"), "--upstream a.example: must be IP or IP:PORT"),
        (("--stub-domain", "corp.example"), "--stub-domain corp.example: must be DOMAIN=IP[:PORT]"),
        (("--ttl", "3601"), "must be from 0 to 3600 seconds"),
        (("--negative-ttl", "3601"), "must be from 0 to 3600 seconds"),
        (("--workers", "0"), "--workers 0: must be from 1 to 64"),
        (("--workers", "2", "--address", "127.0.0.1:0"), "needs a port that all can share"),
        (("--upstream", "127.0.0.1:5353"), "is this DNS server itself"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from kubesvc.cli import main

    assert main(["dns", *words]) == 64
    assert complaint in capsys.readouterr().err


@pytest.mark.e2e
def test_workers_share_the_port_and_are_started_again(tmp_path: Path) -> None:
    """Two workers against an API server of their own: all answers come, also after one was killed."""
    home = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    home.pop("KUBECONFIG", None)
    run = [sys.executable, "-m", "kubesvc"]
    up = [*run, "up", "--name", "w", "--nodes", "0", "--store", "memory", "--detach"]
    subprocess.run(up, env=home, check=True, capture_output=True, timeout=180)
    port = free_port()
    words = ["--name", "w", "--address", f"127.0.0.1:{port}", "--workers", "2", "--upstream", "none",
             "--health-port", "0", "--ready-port", "0", "--metrics-port", "0"]  # fmt: skip
    server = subprocess.Popen([*run, "dns", *words], env=home, stderr=subprocess.DEVNULL)
    query = dns.message.make_query("kubernetes.default.svc.cluster.local", "A")

    def ask() -> str:
        try:
            answer = dns.query.udp(query, "127.0.0.1", timeout=10, port=port)
            return str(answer.answer[0][0]) if answer.answer else ""
        except (OSError, dns.exception.Timeout):
            return ""

    def workers() -> list[int]:
        found = subprocess.run(["pgrep", "-P", str(server.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    try:
        deadline = time.monotonic() + 120
        while (len(workers()) < 2 or not all(ask() for _ in range(8))) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert {ask() for _ in range(20)} == {"10.96.0.1"}
        before = workers()
        os.kill(before[0], signal.SIGKILL)
        while len(set(workers()) - {before[0]}) < 2 or not all(ask() for _ in range(8)):
            assert time.monotonic() < deadline, "the killed worker was not replaced"
            time.sleep(0.2)
        assert {ask() for _ in range(20)} == {"10.96.0.1"}
    finally:
        server.terminate()
        left = server.wait(120)
        subprocess.run([*run, "down", "--name", "w"], env=home, check=True, capture_output=True, timeout=180)
    assert left == 0
