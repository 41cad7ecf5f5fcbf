"""Whatever is sent, the server answers in the API's words: no 5xx of its own, no traceback, no growth."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.apiserver.__main__ import make_certificate
from kubesvc.apiserver.apiserver import ApiServer

from .fuzzing import BASES, NAMESPACE, Answer, Fuzzer, RawClient, Request, base_object, places, put
from .running import SETTINGS, running

QUICK = 2000
SOAK = 200_000
ROUND = 2000
"""Requests between two clean-ups; memory is compared between rounds."""
GROWTH_BYTES = 24 << 20

UPSTREAM_500 = re.compile(
    r"strconv\.ParseUint|resourceVersion: Invalid value|resourceVersion should not be set"
    r"|Timeout: Too large resource version|target\.name: Required value|target\.kind: "
)
"""Requests of other verbs than PATCH that upstream answers with code 500 or 504; without a reason, or with Timeout."""
HOUSE_SETTINGS = replace(SETTINGS, history_events=200, anonymous_auth=True)


class Complaints(logging.Handler):
    """Everything logged as an error or with a traceback."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self.seen.append(self.format(record))


@contextlib.contextmanager
def listening() -> Iterator[Complaints]:
    gc.collect()  # what was left over by others, and would complain when it is found, is not ours
    complaints = Complaints()
    root = logging.getLogger()
    root.addHandler(complaints)
    try:
        yield complaints
    finally:
        root.removeHandler(complaints)


@contextlib.asynccontextmanager
async def target(*, tls: bool = False) -> AsyncIterator[tuple[ApiServer, RawClient]]:
    """A server with a namespace to play in, and a client."""
    with tempfile.TemporaryDirectory() as directory:
        async with running(HOUSE_SETTINGS) as server:
            if tls:
                certificate, key = make_certificate(Path(directory), "127.0.0.1")
                client = RawClient(port=await server.listen_tls("127.0.0.1", 0, certificate, key))
            else:
                path = str(Path(directory) / "api.sock")
                await server.listen_unix(path)
                client = RawClient(path)
            await prepare(client)
            try:
                yield server, client
            finally:
                client.close()


async def prepare(client: RawClient) -> None:
    """The namespace and one object of each kind, if they are missing."""
    json_type = [("Content-Type", "application/json")]
    namespace = json.dumps({"metadata": {"name": NAMESPACE}}).encode()
    await client.send(Request("POST", "/api/v1/namespaces", json_type, namespace))
    for plural, (kind, _) in BASES.items():
        await client.send(Request("DELETE", kind.path(NAMESPACE) + "?gracePeriodSeconds=0", json_type))
        for i in range(3):
            body = json.dumps(base_object(plural, f"f{i}")).encode()
            answer = await client.send(Request("POST", kind.path(NAMESPACE), json_type, body))
            assert answer.status in (201, 409), answer


def wrong_with(request: Request, answer: Answer) -> str:
    """What is wrong with an answer; "" if nothing."""
    if answer.status == 0:
        return "" if request.abandon or request.raw else "the connection closed without an answer"
    if answer.status < 400:
        return ""
    text = answer.body.decode("utf-8", "replace")
    if "Traceback" in text:
        return "a traceback"
    plain = answer.headers.get("content-type", "").startswith("text/plain")
    status: Any = {}
    if request.method == "HEAD" or (plain and text == "404 page not found\n"):
        return ""
    if answer.headers.get("content-type") == "application/json":
        status = json.loads(answer.body)
    elif answer.headers.get("content-type") == "application/yaml":
        import yaml

        status = yaml.safe_load(answer.body)
    if status.get("kind") != "Status" or status.get("status") != "Failure" or status.get("code") != answer.status:
        return "a refusal that is no Status"
    if answer.status >= 500 and answer.status != 503:
        without_reason = status.get("reason") in (None, "Timeout")
        patching = request.bytes().startswith(b"PATCH")  # upstream calls many bad patches failures of its own (PATCH-7)
        known = without_reason and (patching or UPSTREAM_500.search(status.get("message", "")))
        return "" if known else f"a {answer.status}"
    return ""


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def fuzz(seed: int, count: int, complaints: Complaints, *, tls: bool = False) -> Counter[int]:
    """Send so many requests; AssertionError with the request that was answered badly. The counts of statuses."""
    statuses: Counter[int] = Counter()
    requests = iter(Fuzzer(seed))
    sizes: list[int] = []
    loop_errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(str(context)))
    async with target(tls=tls) as (server, client):
        for number in range(count):
            request = next(requests)
            shown = f"seed {seed}, request {number} ({request.what}): {request.bytes()[:2000]!r}"
            try:
                answer = await client.send(request)
            except TimeoutError:
                raise AssertionError(f"no answer: {shown}") from None
            statuses[answer.status] += 1
            problem = wrong_with(request, answer)
            assert not problem, f"{problem}: {answer.body[:1000]!r}\n{shown}"
            assert not complaints.seen, f"{complaints.seen[0]}\n{shown}"
            if number % ROUND == ROUND - 1:
                await prepare(client)
                await server.compact()
                sizes.append(resident_bytes())
        ping = await client.send(Request("GET", "/readyz"))
        assert ping.status == 200 and ping.body == b"ok"
    assert not loop_errors, loop_errors[0]
    if len(sizes) > 20:
        early, late = max(sizes[5:10]), max(sizes[-5:])
        assert late - early < GROWTH_BYTES, f"grew from {early >> 20} to {late >> 20} MiB"
    return statuses


def run_fuzz(count: int, *, tls: bool = False) -> None:
    seed = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().getrandbits(32))
    print(f"fuzz seed {seed}: repeat with FUZZ_SEED={seed}", file=sys.stderr)
    with listening() as complaints:
        statuses = asyncio.run(fuzz(seed, count, complaints, tls=tls))
    print(f"fuzz answers: {dict(sorted(statuses.items()))}", file=sys.stderr)
    assert statuses[201] and statuses[400] and statuses[404] and statuses[422], "the fuzzer did not reach the server"


def test_a_quick_sample() -> None:
    run_fuzz(QUICK)


def test_a_quick_sample_over_tls() -> None:
    run_fuzz(QUICK // 5, tls=True)


@pytest.mark.soak
def test_the_full_count() -> None:
    run_fuzz(SOAK)


# ---------------------------------------------------------------- properties, which shrink what they find

PARAMETERS = ["labelSelector", "fieldSelector", "continue", "resourceVersion", "limit"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PLACES = st.sampled_from(sorted(BASES)).flatmap(
    lambda plural: st.tuples(st.just(plural), st.sampled_from(places(BASES[plural][0].schema)))
)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[asyncio.Runner, RawClient, Complaints]]:
    with listening() as complaints, asyncio.Runner() as runner:
        context = target()
        _, client = runner.run(context.__aenter__())
        yield runner, client, complaints
        runner.run(context.__aexit__(None, None, None))


Served = tuple[asyncio.Runner, RawClient, Complaints]


def ask(served: Served, request: Request) -> Answer:
    runner, client, complaints = served
    complaints.seen.clear()
    answer = runner.run(client.send(request))
    assert not wrong_with(request, answer), answer
    assert not complaints.seen, complaints.seen[0]
    return answer


@settings(max_examples=150)
@given(PLACES, VALUES)
def test_any_value_at_any_place(served: Served, at: Any, value: Any) -> None:
    plural, (place, _) = at
    obj = base_object(plural, "p")
    put(obj, place, value)
    kind = BASES[plural][0]
    body = json.dumps(obj).encode()
    ask(served, Request("POST", kind.path(NAMESPACE) + "?dryRun=All", [("Content-Type", "application/json")], body))
    ask(served, Request("PUT", kind.path(NAMESPACE, "f0"), [("Content-Type", "application/json")], body))


@settings(max_examples=150)
@given(PLACES, VALUES, st.sampled_from(["merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"]))
def test_any_patch_at_any_place(served: Served, at: Any, value: Any, form: str) -> None:
    plural, (place, _) = at
    kind = BASES[plural][0]
    patch: dict[str, Any] = {"apiVersion": kind.api_version, "kind": kind.name} if form.startswith("apply") else {}
    put(patch, place, value)
    path = kind.path(NAMESPACE, "f0") + "?fieldManager=x&dryRun=All"
    ask(served, Request("PATCH", path, [("Content-Type", f"application/{form}")], json.dumps(patch).encode()))


@settings(max_examples=150)
@given(st.binary(max_size=300), st.sampled_from(["json", "yaml", "vnd.kubernetes.protobuf"]))
def test_any_bytes_as_a_body(served: Served, body: bytes, form: str) -> None:
    if form.startswith("vnd"):
        body = b"k8s\x00" + body
    ask(served, Request("POST", BASES["pods"][0].path(NAMESPACE), [("Content-Type", f"application/{form}")], body))


@settings(max_examples=150)
@given(
    st.text(max_size=60), st.sampled_from(["labelSelector", "fieldSelector", "continue", "resourceVersion", "limit"])
)
def test_any_text_as_a_parameter(served: Served, text: str, name: str) -> None:
    from urllib.parse import quote

    ask(served, Request("GET", BASES["services"][0].path(NAMESPACE) + f"?{name}={quote(text, safe='')}"))
