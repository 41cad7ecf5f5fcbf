"""What the proxy counts, under upstream's names, in a form that Prometheus' own tool accepts."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.meta import typed
from kubesvc.clock import LoopClock, run_virtual
from kubesvc.proxy.backend import Mode, RuleCount, SyncReport
from kubesvc.proxy.health import encode, listen
from kubesvc.proxy.metrics import TRIGGER_TIME, FamilyState, ProxyMetrics
from kubesvc.proxy.traffic import Family, PortTraffic, ServicePortName, Target

PROMTOOL = Path(__file__).resolve().parents[2] / ".peers" / "usr" / "bin" / "promtool"
NAME = ServicePortName("shop", "web", "http", "TCP")
LOCAL = PortTraffic(NAME, 80, "10.96.0.7", internal_local=True, usable=True, cluster=(Target("10.244.2.2", 80),))


def made(mode: Mode = "nftables") -> ProxyMetrics:
    clock = LoopClock(asyncio.get_running_loop())
    rules = [RuleCount("nat", 40, 3), RuleCount("filter", 12, 0)] if mode == "iptables" else []
    state: dict[Family, FamilyState] = {"IPv4": FamilyState(2, [LOCAL], 1, rules), "IPv6": FamilyState(0, [])}
    return ProxyMetrics(mode, clock, lambda: state, {"mode": mode})


def slice_at(trigger: str, family: str = "IPv4") -> EndpointSlice:
    meta = {"name": "web-1", "namespace": "shop", "annotations": {TRIGGER_TIME: trigger}}
    return typed({"metadata": meta, "addressType": family}, EndpointSlice)


def report(full: bool = False, seconds: float = 0.003, at: float = 0.0, forgotten: int = -1) -> SyncReport:
    return SyncReport("IPv4", full, 10.0, 10.0 + seconds, at, flows_forgotten=forgotten, flows_seconds=0.002)


def value(text: str, start: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith(start + " ")]
    return float(line.rsplit(" ", 1)[1])


def test_syncs_are_counted_whole_or_in_part() -> None:
    """PROXY-127 to 129."""

    async def story() -> None:
        metrics = made()
        metrics.synced(report(full=True, seconds=0.5, at=1000.5))
        metrics.synced(report(seconds=0.003, at=1001.0))
        text = metrics.text()
        family = '{ip_family="IPv4"}'
        assert value(text, f"kubeproxy_sync_proxy_rules_duration_seconds_count{family}") == 2
        assert value(text, f"kubeproxy_sync_full_proxy_rules_duration_seconds_count{family}") == 1
        assert value(text, f"kubeproxy_sync_partial_proxy_rules_duration_seconds_sum{family}") == pytest.approx(0.003)
        bucket = 'kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.004"}'
        assert value(text, bucket) == 1
        assert value(text, f"kubeproxy_sync_proxy_rules_last_timestamp_seconds{family}") == 1001.0
        assert 'le="16.384"' in text

    run_virtual(story())


def test_programming_time_is_from_the_trigger_to_the_rules() -> None:
    """PROXY-137: observed once per annotation at the next sync; those before the start, unreadable ones, and slices
    that go are not heeded."""

    async def story() -> None:
        metrics = made()
        start = metrics.started
        from kubesvc.clock import rfc3339_micro

        metrics.slice_changed(slice_at(rfc3339_micro(start + 5)), deleted=False)
        metrics.slice_changed(slice_at(rfc3339_micro(start - 5)), deleted=False)
        metrics.slice_changed(slice_at("nonsense"), deleted=False)
        metrics.slice_changed(slice_at(rfc3339_micro(start + 6)), deleted=True)
        metrics.slice_changed(slice_at(rfc3339_micro(start + 5), "IPv6"), deleted=False)
        metrics.synced(report(at=start + 7))
        metrics.synced(report(at=start + 9))
        text = metrics.text()
        name = "kubeproxy_network_programming_duration_seconds"
        assert value(text, f'{name}_count{{ip_family="IPv4"}}') == 1
        assert value(text, f'{name}_sum{{ip_family="IPv4"}}') == pytest.approx(2, abs=0.01)
        assert value(text, f'{name}_count{{ip_family="IPv6"}}') == 0

    run_virtual(story())


def test_changes_wait_until_every_family_has_synced() -> None:
    """PROXY-131."""

    async def story() -> None:
        metrics = made()
        metrics.service_changed("shop", "web")
        metrics.service_changed("shop", "web")
        metrics.slice_changed(slice_at(""), deleted=False)
        assert value(metrics.text(), "kubeproxy_sync_proxy_rules_service_changes_pending") == 1
        metrics.synced(report())
        assert value(metrics.text(), "kubeproxy_sync_proxy_rules_endpoint_changes_pending") == 1
        metrics.synced(SyncReport("IPv6", False, 0.0, 0.1, 0.0))
        assert value(metrics.text(), "kubeproxy_sync_proxy_rules_endpoint_changes_pending") == 0
        assert value(metrics.text(), "kubeproxy_sync_proxy_rules_service_changes_total") == 2

    run_virtual(story())


def test_what_is_dropped_failed_forgotten_and_asked() -> None:
    """PROXY-132, 133, 135, 136."""

    async def story() -> None:
        metrics = made()
        metrics.synced(report(forgotten=3))
        metrics.asked("/healthz", 503)
        metrics.asked("/other", 404)
        text = metrics.text()
        place = 'kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy='
        assert value(text, place + '"internal"}') == 1
        assert value(text, place + '"external"}') == 0
        assert value(text, 'kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"}') == 2
        assert value(text, 'kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv4"}') == 3
        assert value(text, 'kubeproxy_proxy_healthz_total{code="503"}') == 1
        assert "iptables" not in text
        assert "nftables" not in made("iptables").text()

    run_virtual(story())


def test_rules_of_iptables_are_counted_by_table() -> None:
    """PROXY-134: all of ours, those of the last sync, and which failures had only changes to write."""

    async def story() -> None:
        text = made("iptables").text()
        name, place = "kubeproxy_sync_proxy_rules_iptables_", 'ip_family="IPv4",table="nat"'
        assert value(text, f"{name}total{{{place}}}") == 40
        assert value(text, f"{name}last{{{place}}}") == 3
        assert value(text, f'{name}restore_failures_total{{ip_family="IPv4"}}') == 2
        assert value(text, f'{name}partial_restore_failures_total{{ip_family="IPv4"}}') == 1
        assert value(text, f'{name}partial_restore_failures_total{{ip_family="IPv6"}}') == 0

    run_virtual(story())


def test_network_programming_has_upstreams_buckets() -> None:
    """PROXY-130: 0.25, 0.5, each second to 59, each five to 115, each thirty to 300."""

    async def story() -> None:
        start = 'kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv4",le="'
        found = [line.removeprefix(start).split('"')[0] for line in made().text().splitlines() if start in line]
        seconds = [*range(1, 60), *range(60, 120, 5), *range(120, 301, 30)]
        assert found == ["0.25", "0.5", *map(str, seconds), "+Inf"]

    run_virtual(story())


@pytest.mark.parametrize("mode", ["nftables", "iptables", "userspace"])
def test_promtool_has_nothing_to_say(mode: Mode) -> None:
    if not PROMTOOL.exists():
        pytest.skip("promtool is not there: tools/bootstrap.py fetches it")

    async def text() -> str:
        metrics = made(mode)
        metrics.synced(report(full=True, forgotten=1))
        return metrics.text()

    said = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=run_virtual(text()), capture_output=True, text=True, check=False
    )
    # Upstream's own names break a custom of promtool's: gauges that end in _total.
    odd = ("no_local_endpoints_total", "iptables_total")
    complaints = [line for line in said.stderr.splitlines() if not any(f"{name} non-counter" in line for name in odd)]
    assert complaints == [], said.stderr
    assert said.returncode in (0, 3)


def test_the_port_answers_as_upstream_does() -> None:
    """PROXY-90."""

    async def story() -> None:
        metrics = made()
        server = await listen("127.0.0.1", 0, metrics.answer)
        port = server.sockets[0].getsockname()[1]

        async def get(path: str) -> tuple[int, str, str]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            whole = (await reader.read()).decode()
            writer.close()
            heading, _, body = whole.partition("\r\n\r\n")
            kind = next(line for line in heading.splitlines() if line.startswith("Content-Type: "))
            return int(heading.split()[1]), kind.removeprefix("Content-Type: "), body

        try:
            assert await get("/proxyMode") == (200, "text/plain; charset=utf-8", "nftables")
            assert (await get("/metrics/slis"))[::2] == (200, ""), "nobody has asked for health yet"
            assert (await get("/healthz"))[::2] == (200, "ok")
            assert (await get("/healthz/ping"))[::2] == (200, "ok")
            indicators = (await get("/metrics/slis"))[2]
            assert value(indicators, 'kubernetes_healthcheck{name="ping",type="healthz"}') == 1
            passed = 'kubernetes_healthchecks_total{name="ping",status="success",type="healthz"}'
            assert value(indicators, passed) == 1
            status, kind, config = await get("/configz")
            assert (status, kind) == (200, "application/json")
            assert json.loads(config) == {"kubeproxy.config.k8s.io": {"mode": "nftables"}}
            status, kind, body = await get("/metrics")
            assert status == 200
            assert kind.startswith("text/plain; version=0.0.4")
            assert "# TYPE kubeproxy_sync_proxy_rules_duration_seconds histogram" in body
            assert (await get("/nothing"))[0] == 404
        finally:
            server.close()

    asyncio.run(story())


def test_health_answers_stay_json() -> None:
    from kubesvc.proxy.health import Answer

    assert b"Content-Type: application/json\r\n" in encode(Answer(200, "{}"))
