"""The write conversations of a real server, replayed at the pure level: decoding, patches, apply, field managers.

The recordings stand beside the checkout where they exist; they are read, never copied. Allocation, admission and
strategy are not run here, so each step starts from the object that the real server answered with.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api import kinds
from kubesvc.api.decode import decode_body, decode_plain
from kubesvc.api.errors import ApiError
from kubesvc.api.kind import Kind
from kubesvc.apiserver.apply import apply_patch, update_managed_fields
from kubesvc.apiserver.patches import MEDIA_TYPES, patch_object

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
NOW = "2026-01-02T03:04:05Z"
PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[^/]+)(?:/namespaces/[^/]+)?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>status))?$"
)
Step = dict[str, Any]


def conversations() -> dict[str, list[Step]]:
    found: dict[str, list[Step]] = {}
    for file in sorted(GOLDEN.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            step = json.loads(line)
            if "case" in step:
                found.setdefault(step["case"], []).append(step)
    return found


CASES = conversations() if GOLDEN.is_dir() else {}
needs_golden = pytest.mark.skipif(not CASES, reason=f"no recordings at {GOLDEN}")


def filled(value: Any) -> Any:
    """The value with placeholders made into values of the right form."""
    text = json.dumps(value)
    text = text.replace("<time>", NOW).replace("<ns>", "ns").replace("<any>", "x")
    text = re.sub(r'"<port:\d+>"', "30000", text)
    text = re.sub(r"<port:\d+>", "30000", text)
    text = re.sub(r"<rv:(\d+)>", r"10\1", text)
    text = re.sub(r"<ip:(\d+)>", r"10.96.0.\1", text)
    text = re.sub(r"<uid:(\d+)>", r"00000000-0000-0000-0000-00000000000\1", text)
    return json.loads(text)


def kind_of(path: str) -> tuple[Kind, str, str] | None:
    match = PATH.match(path)
    if not match:
        return None
    kind = kinds.by_resource(match["group"] or "", match["version"], match["plural"])
    return (kind, match["name"] or "", match["sub"] or "") if kind else None


class World:
    """The stored objects of one conversation, by path; answers a write as far as the pure parts go."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}

    def write(self, kind: Kind, name: str, sub: str, step: Step) -> Any:
        request = step["request"]
        query = filled(request.get("query") or {})
        headers = request.get("headers") or {}
        media = headers.get("Content-Type", "application/json").split(";")[0]
        raw = request["text"].encode() if "text" in request else json.dumps(filled(request.get("body"))).encode()
        manager = query.get("fieldManager") or "golden"
        validation = query.get("fieldValidation") or "Warn"
        path = f"{kind.plural}/{name}"
        old = self.objects.get(path)
        if request["method"] == "PATCH" and media == "application/apply-patch+yaml":
            namespace = "ns" if kind.namespaced else ""
            force = query.get("force") in ("true", "1")
            return apply_patch(
                old, raw, kind, manager, NOW, name=name, namespace=namespace, force=force, subresource=sub,
                field_validation=validation,
            ).obj  # fmt: skip
        if request["method"] == "PATCH":
            new = patch_object(old or {}, raw, MEDIA_TYPES[media], kind, validation).obj
        else:
            new = decode_body(raw, media, kind, validation).obj
        kind.default(new)
        update_managed_fields(old if request["method"] != "POST" else None, new, kind, manager, NOW, subresource=sub)
        return new

    def remember(self, kind: Kind, answer: Any, ours: Any) -> None:
        stored = filled(answer)
        if isinstance(ours, dict):
            stored["metadata"]["managedFields"] = copy.deepcopy(ours["metadata"].get("managedFields"))
        self.objects[f"{kind.plural}/{stored['metadata']['name']}"] = stored


def steps() -> Iterator[tuple[str, Kind, str, str, Step]]:
    for case, conversation in CASES.items():
        for step in conversation:
            request = step.get("request") or {}
            found = kind_of(request.get("path", ""))
            if found and request["method"] in ("POST", "PUT", "PATCH") and "repeat" not in step:
                yield case, *found, step


def expected_failure(step: Step) -> bool:
    """Whether the recorded refusal is one that the pure parts find: a body, patch or apply that is no good."""
    body = step["response"].get("body")
    if not isinstance(body, dict) or body.get("kind") != "Status":
        return False
    words = (
        "cannot be handled as", "is unrecognized", "error decoding", "patch: Invalid", "typed patch object",
        "invalid object type", "Apply failed", "merge key", "unknown patch type", "managedFields must be nil",
    )  # fmt: skip
    return any(w in body.get("message", "") for w in words)


@needs_golden
@pytest.mark.golden
@pytest.mark.parametrize("case", sorted({c for c, *_ in steps()}) or ["none"])
def test_conversation(case: str) -> None:
    """Refusals in the recorded words, and owners exactly as recorded (OPT, PATCH, APPLY)."""
    world = World()
    for name_of_case, kind, name, sub, step in steps():
        if name_of_case != case:
            continue
        response, query = step["response"], step["request"].get("query") or {}
        if not 200 <= response["status"] < 300:
            if expected_failure(step):
                with pytest.raises(ApiError) as e:
                    world.write(kind, name, sub, step)
                assert spelled(e.value.status()) == spelled(filled(response["body"])), step["step"]
            continue
        if "dryRun" in query:
            continue
        answer = response["body"]
        if not isinstance(answer, dict) or answer.get("kind") != kind.name:
            continue
        ours = world.write(kind, name, sub, step)
        if step.get("managedFields"):
            wanted = filled(answer)["metadata"].get("managedFields")
            assert (ours["metadata"].get("managedFields") or None) == wanted, step["step"]
        world.remember(kind, answer, ours)


def spelled(status: Any) -> str:
    """A Status as text, its numbers of revisions and owners of the quoted document left out."""
    text = json.dumps(status, sort_keys=True)
    return re.sub(r'\\\\\\"resourceVersion\\\\\\":\\\\\\"\d+\\\\\\"', "", text)


@needs_golden
@pytest.mark.golden
def test_objects_of_a_real_server_survive_decoding() -> None:
    """Whatever a real server sent decodes without an unknown field, and a second time to the same."""
    seen = 0
    for conversation in CASES.values():
        for step in conversation:
            body = (step.get("response") or {}).get("body")
            if not isinstance(body, dict) or not isinstance(body.get("apiVersion"), str):
                continue
            kind = kinds.by_kind(body["apiVersion"], body.get("kind", ""))
            if kind is None:
                continue
            once = decode_plain(filled(body), kind)
            assert once.unknown == ()
            assert decode_plain(once.obj, kind).obj == once.obj
            seen += 1
    assert seen > 500
