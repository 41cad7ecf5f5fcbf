"""Requests made from the server's own OpenAPI documents by schemathesis: every operation, answered in the API's words,
and what is answered has the shape that the document promises."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import random
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS
from schemathesis.core.failures import Failure, FailureGroup

from kubesvc.apiserver.__main__ import make_certificate

from .fuzzing import Answer, Request
from .running import SETTINGS, running
from .test_fuzz import Complaints, listening, wrong_with

GROUPS = ("api/v1", "apis/discovery.k8s.io/v1", "apis/apps/v1")
QUICK, SOAK = 1, 150
"""Examples of each operation."""
TOKEN = "schemathesis"
NAMESPACE = "fuzz"
NAMES = ("a", "b", "kubernetes")
CONFORMANCE = [check for check in CHECKS.get_all() if check.__name__ == "response_schema_conformance"]
LASTING = ("watch", "follow")


http.client._MAXHEADERS = 1000  # type: ignore[attr-defined]
"""A body with a hundred unknown fields gets as many Warning headers, upstream too; Python's client takes no more."""


class Served:
    """A server in a thread of its own, over TLS, and a session that is its admin."""

    def __init__(self, url: str, certificate: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env, self.session.verify = False, certificate
        self.session.headers["Authorization"] = f"Bearer {TOKEN}"


async def serve(directory: str, found: list[str], up: threading.Event, down: threading.Event) -> None:
    certificate, key = make_certificate(Path(directory), "127.0.0.1")
    async with running(replace(SETTINGS, admin_token=TOKEN, history_events=200)) as server:
        port = await server.listen_tls("127.0.0.1", 0, certificate, key)
        found += [f"https://127.0.0.1:{port}", certificate]
        up.set()
        await asyncio.to_thread(down.wait)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    found: list[str] = []
    up, down = threading.Event(), threading.Event()
    with tempfile.TemporaryDirectory() as directory:
        thread = threading.Thread(target=lambda: asyncio.run(serve(directory, found, up, down)))
        thread.start()
        try:
            assert up.wait(120)
            yield Served(*found)
        finally:
            down.set()
            thread.join(120)


def tamed(case: Any, chance: random.Random) -> Any:
    """The case with a way to something that exists, more often than chance would have it, and an end."""
    for name in LASTING:
        case.query.pop(name, None)
    if "{namespace}" in case.path:
        case.path_parameters["namespace"] = NAMESPACE
    if "{name}" in case.path and not case.path.startswith("/api/v1/namespaces/{name}"):
        case.path_parameters["name"] = chance.choice(NAMES)
    if isinstance(case.body, dict) and chance.random() < 0.8:
        meta = case.body.get("metadata")
        meta = meta if isinstance(meta, dict) else {}
        case.body["metadata"] = {**meta, "name": case.path_parameters.get("name", chance.choice(NAMES))}
        for field in ("namespace", "uid", "resourceVersion"):
            case.body["metadata"].pop(field, None)
        for field in ("kind", "apiVersion"):
            case.body.pop(field, None)
    return case


NEEDED = ("limits",)
"""Lists that the documents ask for, and that are null in answers where nobody gave one."""


def without_nulls(value: Any) -> Any:
    """A decoded answer without nulls, which upstream's documents never mention and its answers hold, as ours do."""
    if isinstance(value, dict):
        found = {k: [] if k in NEEDED and v is None else v for k, v in value.items()}
        return {k: without_nulls(v) for k, v in found.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def try_case(served: Served, case: Any) -> int:
    """Send a case; its status. AssertionError with what is wrong with the answer."""
    answer = case.call(base_url=served.url, session=served.session, timeout=120, verify=served.session.verify)
    headers = {k.lower(): v[0] if isinstance(v, list) else v for k, v in answer.headers.items()}
    problem = wrong_with(Request(case.method, case.path), Answer(answer.status_code, headers, answer.content))
    if not problem and answer.status_code < 300 and headers.get("content-type") == "application/json":
        answer.content = json.dumps(without_nulls(json.loads(answer.content))).encode()
        try:
            case.validate_response(answer, checks=CONFORMANCE)
        except (Failure, FailureGroup) as failure:
            problem = f"an answer of another shape: {failure}"
    said = answer.content[:600].decode("utf-8", "replace")
    assert not problem, f"{problem}\n{case.as_curl_command()[:1500]}\n{answer.status_code} {said}"
    status: int = answer.status_code
    return status


def fuzz(served: Served, group: str, examples: int) -> Counter[int]:
    """Try every operation of a group's document."""
    namespace = {"metadata": {"name": NAMESPACE}}
    served.session.post(f"{served.url}/api/v1/namespaces", json=namespace)
    document = served.session.get(f"{served.url}/openapi/v3/{group}").json()
    schema = schemathesis.openapi.from_dict(document)
    statuses: Counter[int] = Counter()
    problems: list[str] = []
    chance = random.Random(group)
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]

        @settings(
            max_examples=examples, database=None, deadline=None, derandomize=True,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate],
        )  # fmt: skip
        @given(case=operation.as_strategy())
        def each(case: Any) -> None:
            try:
                statuses[try_case(served, tamed(case, chance))] += 1
            except AssertionError as error:
                problems.append(str(error))

        each()
    assert not problems, f"{len(problems)} answers:\n" + "\n\n".join(problems[:5])
    return statuses


def listen_and_fuzz(served: Served, group: str, examples: int) -> None:
    complaints: Complaints
    with listening() as complaints:
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        statuses = fuzz(served, group, examples)
    assert not complaints.seen, complaints.seen[0]
    assert sum(n for status, n in statuses.items() if status < 300) > 0, statuses
    assert len(statuses) > 2, json.dumps(statuses)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("group", GROUPS)
def test_each_operation(served: Served, group: str) -> None:
    listen_and_fuzz(served, group, QUICK)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("group", GROUPS)
def test_each_operation_many_times(served: Served, group: str) -> None:
    listen_and_fuzz(served, group, SOAK)
