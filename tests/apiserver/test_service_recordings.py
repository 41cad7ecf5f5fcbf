"""Replays what a real API server answered about Services, Endpoints and slices, without a store or a network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.errors import ApiError
from kubesvc.api.kind import Kind, Since
from kubesvc.api.meta import typed
from kubesvc.api.selectors import parse_field_selector
from kubesvc.api.service import SERVICE

from .pure_server import NAMESPACE, PureServer

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
FILES = {
    "services.jsonl": ("10.96.0.0/16",),
    "endpoints.jsonl": ("10.96.0.0/16",),
    "dualstack.jsonl": ("10.96.0.0/16", "fd00:10:96::/112"),
}
PATH = re.compile(
    r"/(?:api/v1|apis/discovery\.k8s\.io/v1)/namespaces/<ns>/(services|endpoints|endpointslices)"
    r"(?:/([^/]+))?(?:/(status))?"
)
KINDS: dict[str, Kind] = {"services": SERVICE, "endpoints": ENDPOINTS, "endpointslices": ENDPOINT_SLICE}
PLACE = re.compile(r"<(?:[a-z0-9]+:(?:\d+|\*)|time|date|age|n|any)>")
ELSEWHERE = re.compile(
    r"resourceVersion should not be set|does not match the (name|namespace)|undeterminable|object has been modified"
    r"|cannot be handled|Precondition failed|ParseUint|fieldManager|DeleteOptions|CreateOptions|PatchOptions"
    r"|patch: Invalid value|json: |the server rejected|error decoding|strict decoding|namespaces "
)
"""Answers that are decided before or after what is replayed here."""


def table_of(step: Any) -> Any:
    """The recorded Table, None if the answer is none."""
    body = step["response"].get("body")
    return body if isinstance(body, dict) and body.get("kind") == "Table" else None


def cases() -> Iterator[Any]:
    for file in FILES:
        if not (GOLDEN / file).exists():
            reason = f"no recordings at {GOLDEN.name}/{file} beside the checkout"
            yield pytest.param(file, [], id=file, marks=pytest.mark.skip(reason=reason))
            continue
        found: dict[str, list[Any]] = {}
        for line in (GOLDEN / file).read_text().splitlines():
            step = json.loads(line)
            if "case" in step:
                found.setdefault(step["case"], []).append(step)
        for name, steps in found.items():
            if any(replayable(step) for step in steps):
                yield pytest.param(file, steps, id=name)


def replayable(step: Any) -> bool:
    request = step.get("request")
    if request is None or "repeat" in step or request["method"] not in ("POST", "PUT", "PATCH", "DELETE", "GET"):
        return False
    if not PATH.fullmatch(request["path"]) or "expect" in step or not isinstance(request.get("body", {}), dict):
        return False
    if request["method"] == "PATCH" and "application/merge-patch" not in str(request.get("headers")):
        return False
    match = PATH.fullmatch(request["path"])
    if request["method"] == "DELETE" and (request.get("body") or request.get("query") or not (match and match[2])):
        return False
    body = step["response"].get("body")
    message = str(body.get("message", "")) if isinstance(body, dict) else ""
    if request["method"] == "GET":
        return step["response"]["status"] == 200 and table_of(step) is not None
    return ELSEWHERE.search(message) is None


@pytest.mark.golden
@pytest.mark.parametrize(("file", "steps"), list(cases()))
def test_answers_are_those_of_the_real_server(file: str, steps: list[Any]) -> None:
    server = PureServer(*FILES[file])
    server.hold("10.96.0.1")
    known: dict[str, Any] = {"<ns>": NAMESPACE}
    for step in steps:
        if not replayable(step):
            if changes(step):
                break  # what follows builds on a write of another kind
            continue
        wanted = step["response"]
        status, body, warnings = answer(server, fill(step["request"], known))
        where = f"{step['case']} #{step['step']} {step.get('note', '')}"
        assert status == wanted["status"], f"{where}: {body}"
        if body is not None:
            ignored = {pointer.removeprefix("/body") for pointer in step.get("ignore", ())}
            recorded = recorded_table(table_of(step)) if table_of(step) else wanted.get("body")
            found = [d for d in differences(recorded, body, known) if d.partition(":")[0] not in ignored]
            assert found == [], where
        listed = (wanted.get("headers") or {}).get("Warning", [])
        assert said(listed) == [w for w in warnings if "Endpoints is deprecated" not in w], where


def table(server: PureServer, kind: Kind, name: str) -> Any:
    """The columns and the cells of the objects stored; ages are left to the clock."""
    found = [
        o for (k, _, n), o in sorted(server.objects.items(), key=lambda i: i[0][2]) if k is kind and name in ("", n)
    ]
    columns = [{"name": c.name, "type": c.type, "format": c.format, "priority": int(c.wide)} for c in kind.columns]
    cells = [[c.cell(typed(o, kind.type)) for c in kind.columns] for o in found]
    return {"columns": columns, "cells": [[None if isinstance(c, Since) else c for c in row] for row in cells]}


def changes(step: Any) -> bool:
    request = step.get("request") or {"method": "GET", "path": ""}
    done = (step.get("response") or {}).get("status", 0) < 300
    return bool(done and request["method"] != "GET" and PATH.match(request["path"]))


def said(header: Any) -> list[str]:
    """Texts of Warning headers, without the one that every request to Endpoints gets."""
    listed = [header] if isinstance(header, str) else header
    texts = [json.loads('"' + t + '"') for h in listed for t in re.findall(r'299 - "((?:[^"\\]|\\.)*)"', h)]
    return [t for t in texts if "Endpoints is deprecated" not in t]


def selected(request: Any) -> str:
    """The name that a field selector asks for."""
    selector = parse_field_selector((request.get("query") or {}).get("fieldSelector", ""))
    return selector.exact("metadata.name") or ""


def recorded_table(body: Any) -> Any:
    columns = [{k: c[k] for k in ("name", "type", "format", "priority")} for c in body["columnDefinitions"]]
    return {
        "columns": columns,
        "cells": [[None if c == "<age>" else c for c in row["cells"]] for row in body.get("rows") or ()],
    }


def answer(server: PureServer, request: Any) -> tuple[int, Any, list[str]]:
    match = PATH.fullmatch(request["path"].replace(f"/{NAMESPACE}/", "/<ns>/"))
    assert match is not None
    kind, name, subresource = KINDS[match[1]], match[2] or "", match[3] or ""
    query = request.get("query") or {}
    if request["method"] == "GET":
        return 200, table(server, kind, name or selected(request)), []
    existed = (kind, NAMESPACE, name) in server.objects
    try:
        body = server.run(
            request["method"], kind, name, request.get("body"), subresource, dry_run=query.get("dryRun") == "All"
        )
    except ApiError as error:
        return error.status_code, error.status(), []
    if request["method"] == "DELETE" and not kind.delete_returns_object:
        return 200, None, server.warnings
    created = request["method"] == "POST" or (request["method"] == "PUT" and not existed)
    return (201 if created else 200), body, server.warnings


def fill(value: Any, known: dict[str, Any]) -> Any:
    """The request with what its placeholders stand for."""
    if isinstance(value, dict):
        return {k: fill(v, known) for k, v in value.items()}
    if isinstance(value, list):
        return [fill(v, known) for v in value]
    if isinstance(value, str):
        if value in known:
            return known[value]
        for place, text in known.items():
            value = value.replace(place, str(text))
    return value


FREE = {"resourceVersion", "managedFields", "uid", "creationTimestamp"}


def differences(wanted: Any, found: Any, known: dict[str, Any], path: str = "") -> list[str]:
    """Where the answer is another than the recorded one; placeholders are bound as they are met."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        if wanted.get("kind") == "Status" and "details" not in path:
            wanted = {k: wanted.get(k) for k in ("message", "reason", "code", "details")}
            found = {k: found.get(k) for k in wanted}
            if (wanted["reason"] or "") in ("AlreadyExists", "NotFound"):
                wanted.pop("details"), found.pop("details")
        keys = [k for k in dict.fromkeys((*wanted, *found)) if not (path.endswith("metadata") and k in FREE)]
        return [d for k in keys for d in differences(wanted.get(k), found.get(k), known, f"{path}/{k}")]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = enumerate(zip(wanted, found, strict=True))
        return [d for i, (w, f) in pairs for d in differences(w, f, known, f"{path}/{i}")]
    if wanted == found or (isinstance(wanted, str) and bind(wanted, found, known)):
        return []
    return [f"{path}: recorded {wanted!r}, found {found!r}"]


def bind(wanted: str, found: Any, known: dict[str, Any]) -> bool:
    """Whether `found` is `wanted` with its placeholders filled in; new ones are remembered."""
    places = PLACE.findall(wanted)
    if places == [wanted] and wanted not in known:
        if found is None or found in known.values():
            return False
        known[wanted] = found
        return True
    text = str(fill(wanted, known))
    pattern = re.escape(text)
    for place in places:
        pattern = pattern.replace(re.escape(place), r"\S+?")
    return re.fullmatch(pattern, str(found), re.DOTALL) is not None
