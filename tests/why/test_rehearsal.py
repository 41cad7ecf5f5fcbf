"""A rollout under load: into which gap a lost request fell, and what is suggested against it."""

from __future__ import annotations

import asyncio
import json
import shlex
from dataclasses import dataclass

import pytest

from kubesvc.api.deployment import Deployment
from kubesvc.api.meta import Object, typed
from kubesvc.cli.load import Load, Order
from kubesvc.clock import RealClock
from kubesvc.why.rehearsal import LostRequest, PodLife, Rehearsal, classify, conclude, plain, render
from tests.freeports import free_port

OLD = PodLife("old", terminating=100.0, unlisted=100.010, programmed_out=100.020, gone=101.0)
NEW = PodLife("new", listed=99.0)


@dataclass(frozen=True)
class Row:
    """One lost request beside the Pods that were seen."""

    sentence: str
    lost: LostRequest
    pods: tuple[PodLife, ...]
    gap: str


ROWS = (
    Row("refused while the rules still led there", LostRequest(100.015, 100.016, "refused"), (OLD,), "rule lag"),
    Row("refused long after the rules had gone", LostRequest(100.5, 100.501, "refused"), (OLD,), "after terminating"),
    Row("the rules are not known: the slice counts", LostRequest(100.04, 100.05, "reset"),
        (PodLife("old", terminating=100.0, unlisted=100.010, gone=101.0),), "rule lag"),
    Row("an answer cut short while a Pod ended", LostRequest(99.9, 100.9, "cut"), (OLD,), "after terminating"),
    Row("refused just after a Pod was listed", LostRequest(99.1, 99.101, "refused"), (NEW,), "before ready"),
    Row("refused before anything was listed", LostRequest(98.0, 98.001, "refused"), (NEW,), "other"),
    Row("a new Pod that says 503", LostRequest(99.5, 99.6, "status 503"), (NEW,), "before ready"),
    Row("a Pod that is long known says 503", LostRequest(150.0, 150.1, "status 503"), (NEW,), "other"),
    Row("an ending Pod is blamed before a new one", LostRequest(100.001, 100.002, "refused"), (NEW, OLD), "rule lag"),
    Row("cut, and only a new Pod is there", LostRequest(99.5, 99.6, "cut"), (NEW,), "other"),
    Row("nobody came or went", LostRequest(100.0, 100.1, "silent"), (), "other"),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.sentence)
def test_gap_of_a_lost_request(row: Row) -> None:
    assert classify(row.lost, row.pods) == row.gap


def deployment(container: Object | None = None, **pod: object) -> Deployment:
    whole = {"name": "c", "ports": [{"containerPort": 8080}], **(container or {})}
    return typed(
        {
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"template": {"spec": {"containers": [whole], **pod}}},
        },
        Deployment,
    )


def result(found: Deployment, *lost: LostRequest) -> Rehearsal:
    return conclude(found, 1000, lost, len(lost), [OLD, NEW], 4.0)


def test_no_loss_suggests_nothing() -> None:
    found = result(deployment())
    assert found.suggestions == () and found.gaps == {}
    assert render(found).startswith("0 of 1000 requests were lost (0.00 %) while 1 Pod went and 1 came, in 4.0 s")


def test_rule_lag_suggests_a_wait_that_is_longer_than_the_lag() -> None:
    (suggestion,) = result(
        deployment(terminationGracePeriodSeconds=5), LostRequest(100.01, 100.01, "refused")
    ).suggestions
    words = shlex.split(suggestion.command)
    assert words[:6] == ["kubectl", "-n", "shop", "patch", "deployment", "web"]
    spec = json.loads(words[-1])["spec"]["template"]["spec"]
    wait = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["containers"][0]["name"] == "c" and wait == 3 and spec["terminationGracePeriodSeconds"] == 13


def test_a_pod_listed_too_early_suggests_a_probe_or_where_there_is_one_time() -> None:
    early = LostRequest(99.1, 99.2, "refused")
    (bare,) = result(deployment(), early).suggestions
    assert json.loads(shlex.split(bare.command)[-1])["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    (probed,) = result(deployment({"readinessProbe": {"tcpSocket": {"port": 8080}}}), early).suggestions
    assert json.loads(shlex.split(probed.command)[-1]) == {"spec": {"minReadySeconds": 5}}


def test_both_gaps_are_told_with_their_numbers() -> None:
    found = result(deployment(), LostRequest(99.1, 99.2, "refused"), LostRequest(100.01, 100.02, "reset"))
    told = plain(found)
    assert told["gaps"] == {"before ready": 1, "rule lag": 1} and told["met"] == {"refused": 1, "reset": 1}
    assert told["schema"] == "kubesvc.rehearse/v1" and len(told["suggestions"]) == 2
    assert told["lagMs"] == pytest.approx(20.0) and "1  rule lag: " in render(found)


ANSWERS: tuple[tuple[bytes, str], ...] = (
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
    (b"HTTP/1.1 404 Not Found\r\n\r\n", ""),
    (b"HTTP/1.1 503 Busy\r\n\r\n", "status 503"),
    (b"HTTP/1.1 20", "cut"),
    (b"", "cut"),
    (b"nonsense\r\n\r\n", "status ?"),
)


@pytest.mark.parametrize(("answer", "met"), ANSWERS, ids=lambda v: repr(v))
def test_what_a_request_meets(answer: bytes, met: str) -> None:
    async def ask() -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            return await Load(Order(address="127.0.0.1", port=port, patience=60), RealClock()).ask()
        finally:
            server.close()

    assert asyncio.run(ask()) == met


def test_a_port_where_nobody_listens_is_refused() -> None:
    async def ask() -> tuple[str, int]:
        load = Load(Order(address="127.0.0.1", port=free_port(), rps=50, patience=60), RealClock())
        stop = asyncio.Event()
        running = asyncio.ensure_future(load.run(stop))
        while not load.lost and not running.done():
            await asyncio.sleep(0.01)
        stop.set()
        outcome = await running
        return (outcome.lost[0].met, outcome.sent - outcome.lost_in_all)

    assert asyncio.run(ask()) == ("refused", 0)
