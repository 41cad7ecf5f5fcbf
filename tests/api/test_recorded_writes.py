"""Creates and updates of a real API server, replayed through the pure functions of the kinds.

What a server adds around them (uids, admission, the store) is stood in for by a few lines here; Services, Endpoints
and their kin have tests of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from kubesvc.api import fields, kinds
from kubesvc.api.kind import Kind, Situation
from kubesvc.api.meta import Object
from kubesvc.api.objectmeta import validate_metadata, validate_metadata_update
from tests.api import recordings

FILES = ("generic", "auth", "kubectl", "controllers", "dualstack")
ELSEWHERE = {kinds.SERVICE, kinds.ENDPOINTS, kinds.ENDPOINT_SLICE, kinds.IP_ADDRESS, kinds.SERVICE_CIDR}
NEEDS_MORE = frozenset(
    {
        # cases whose answer depends on other objects, on decoding or on authorization
        "field-validation", "field-validation-patch", "field-validation-duplicates", "auth-escalation",
        "sa-admission-pod",
    }
)  # fmt: skip
SERVER_METADATA = (
    "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation",
    "managedFields", "generateName",
)  # fmt: skip


class Write:
    """One recorded create, update or patch of a kind, and the object it found."""

    def __init__(self, case: str, number: int, kind: Kind, subresource: str, step: Object, old: Object | None) -> None:
        self.name = f"{case}-{number}-{step['request']['method']}-{kind.plural}{subresource and '/' + subresource}"
        self.kind = kind
        self.subresource = subresource
        self.request: Object = step["request"]
        self.status: int = step["response"]["status"]
        self.answer: Object = step["response"].get("body") or {}
        self.old = old


def recorded(file: str) -> Iterator[Write]:
    stored: dict[str, Object] = {}
    case, number = "", 0
    for step in recordings.steps(file):
        if "request" not in step or "status" not in step.get("response", {}):
            continue
        if step["case"] != case:
            case, number, stored = step["case"], 0, {}
        number += 1
        request = step["request"]
        found = recordings.target_of(request["path"])
        if found is None or found[0] in ELSEWHERE:
            continue
        kind, name, subresource = found
        answer = step["response"].get("body")
        key = f"{kind.plural}/{name or (request.get('body') or {}).get('metadata', {}).get('name', '')}"
        old = stored.get(key)
        if (
            request["method"] in ("POST", "PUT", "PATCH")
            and subresource in ("", "status")
            and step["response"]["status"] in (200, 201, 422)
            and isinstance(request.get("body"), dict)
            and case not in NEEDS_MORE
            and not request.get("query", {})
            and isinstance(answer, dict)
            and not ((answer.get("details") or {}).get("kind") or "").endswith("Options")
        ):
            yield Write(case, number, kind, subresource, step, copy.deepcopy(old))
        if isinstance(answer, dict) and answer.get("kind") == kind.name and step["response"]["status"] < 300:
            stored[key] = answer


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def merged_strategically(target: Any, patch: Any) -> Any:
    """Enough of it for the recordings: lists of things with names."""
    if isinstance(patch, list) and isinstance(target, list) and patch and all("name" in p for p in patch):
        new = {p["name"]: p for p in patch}
        return [merged_strategically(t, new[t["name"]]) if t.get("name") in new else t for t in target]
    if isinstance(patch, dict) and isinstance(target, dict):
        return {**target, **{k: merged_strategically(target.get(k), v) for k, v in patch.items()}}
    return patch


def admitted(kind: Kind, obj: Object) -> None:
    """What admission does in the server."""
    spec = obj.setdefault("spec", {}) if kind in (kinds.POD, kinds.NODE) else {}
    if kind is kinds.POD:
        keys = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
        spec["tolerations"] = spec.get("tolerations", []) + [
            {"key": k, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            for k in keys
            if not any(t.get("key") == k for t in spec.get("tolerations", []))
        ]
        spec.setdefault("priority", 0)
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    elif kind is kinds.NODE:
        taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
        spec["taints"] = [*spec.get("taints", []), taint]


def created(write: Write) -> tuple[Object, fields.Errors]:
    kind, obj = write.kind, copy.deepcopy(write.request["body"])
    meta = obj.setdefault("metadata", {})
    if kind.namespaced:
        meta.setdefault("namespace", "ns")
    meta["uid"] = "0"
    if meta.get("generateName") and not meta.get("name"):
        meta["name"] = f"{meta['generateName']}xxxxx"
    kind.default(obj)
    admitted(kind, obj)
    kind.prepare_create(obj)
    return obj, validate_metadata(obj, kind) + kind.validate(obj, Situation())


def updated(write: Write) -> tuple[Object, fields.Errors]:
    kind, old = write.kind, write.old
    assert old is not None
    body = copy.deepcopy(write.request["body"])
    if write.request["method"] == "PATCH":
        strategic = "strategic" in (write.request.get("headers") or {}).get("Content-Type", "")
        body = (merged_strategically if strategic else merged)(copy.deepcopy(old), body)
    new = copy.deepcopy(body)
    for field in ("uid", "creationTimestamp", "resourceVersion", "namespace", "generation"):
        if field in old["metadata"]:
            new["metadata"][field] = old["metadata"][field]
    kind.default(new)
    if write.subresource == "status":
        new = {**old, "metadata": new["metadata"], "status": new.get("status", {})}
        validate = kind.validate_status
    else:
        validate = kind.validate_update
        if kind.has_status and "status" in old:
            new["status"] = copy.deepcopy(old["status"])
    if kind.has_status and kind.name != "Scale":
        kind.prepare_update(new, old)
    return new, validate_metadata_update(new, old) + validate(new, old, Situation())


def bare(obj: Object) -> Object:
    """Without what a server owns."""
    result = copy.deepcopy(obj)
    meta = result.get("metadata", {})
    for field in (*SERVER_METADATA, "namespace"):
        meta.pop(field, None)
    if "generateName" in obj.get("metadata", {}):
        meta.pop("name", None)
    for label in ("topology.kubernetes.io/zone", "topology.kubernetes.io/region"):
        meta.get("labels", {}).pop(label, None)  # admission copies them from the node
    if obj.get("spec", {}).get("serviceAccountName") == "default":
        for name in ("serviceAccount", "serviceAccountName"):
            result["spec"].pop(name)  # admission chose it
    result.pop("kind", None)
    result.pop("apiVersion", None)
    return result


WRITES = [w for f in FILES for w in recorded(f) if w.request["method"] == "POST" or w.old is not None]


@pytest.mark.golden
@pytest.mark.skipif(not WRITES, reason=recordings.ABSENT)
@pytest.mark.parametrize("write", WRITES, ids=lambda w: w.name)
def test_recorded_write(write: Write) -> None:
    obj, errors = created(write) if write.request["method"] == "POST" else updated(write)
    if write.status == 422:
        name = write.answer["details"].get("name", "")
        refusal = fields.invalid_object(write.kind.group, write.kind.name, name, errors)
        assert refusal.message == write.answer["message"]
        assert refusal.status()["details"] == write.answer["details"]
    else:
        assert [str(e) for e in errors] == []
        assert bare(obj) == bare(write.answer)
