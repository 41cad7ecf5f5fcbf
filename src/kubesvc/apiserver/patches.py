"""Patches: JSON patch, merge patch and strategic merge patch, from bytes to the patched object (PATCH-1 to PATCH-10).

The patched object is read like a request body: unknown fields are dropped and told, wrong types refused (OPT-3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import msgspec

from kubesvc.api import fields, schema
from kubesvc.api.customdecode import check_type, shaped
from kubesvc.api.decode import Target, conform, right_kind, target_of
from kubesvc.api.errors import ApiError, BadRequest, Invalid, RequestTooLarge, UnsupportedMediaType
from kubesvc.api.exact import Walk, bare, is_object, items_of, read_json, repeated_keys, word
from kubesvc.api.gojson import type_word
from kubesvc.api.kind import Kind
from kubesvc.api.mergepatch import merge
from kubesvc.api.meta import Object, copied
from kubesvc.api.quick import quick_plain
from kubesvc.api.schema import Field
from kubesvc.api.structural import whole_numbers

from . import jsonpatch, strategic

PatchType = Literal["json", "merge", "strategic", "apply"]

MEDIA_TYPES: dict[str, PatchType] = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
"""PATCH-1; anything else is a 415."""

NO_STRATEGIC = (
    "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, "
    "application/merge-patch+json, application/apply-patch+yaml"
)
"""What is said of a strategic merge patch of a custom object, which knows no strategies."""

FAILED = "the server rejected our request due to an error in our request"
"""All that is said of a JSON patch that fails (PATCH-5)."""


class Patched(NamedTuple):
    """The patched object, decoded like a body (pruned, right types; not yet defaulted), and warning texts (OPT-3)."""

    obj: Object
    warnings: tuple[str, ...] = ()


def patch_object(
    live: Object, patch: bytes | Any, type: PatchType, target: Kind | Target, field_validation: str = "Warn"
) -> Patched:
    """Apply a json, merge or strategic patch (not "apply": see `kubesvc.apiserver.apply`) to the stored object.

    live:  as stored, with apiVersion, kind and managedFields; never changed
    patch: the request's body, or the decoded value of an in-process client

    Raises BadRequest (malformed), Invalid (fails, or its result is no object of the kind), RequestTooLarge (PATCH-5),
    ApiError 500 without reason (PATCH-7). What the patch does to name, uid, resourceVersion is for the caller to check,
    as for a PUT (PATCH-3, PATCH-4). For /scale pass the Scale as `live` and its Target.
    """
    patched = {"json": json_patch, "merge": merge_patch, "strategic": strategic_patch}[type]
    try:
        value, duplicates = read(patch, type)
        return patched(live, value, duplicates, target, field_validation)
    except RecursionError:
        raise BadRequest("exceeded max depth") from None


# Reading


def read(patch: bytes | Any, type: PatchType) -> tuple[Any, list[str]]:
    """A patch's value, and the texts of keys it gives twice; BadRequest if it is none."""
    prefix = "" if type == "strategic" else "error decoding patch: "
    if isinstance(patch, (bytes, bytearray, memoryview)):
        value, duplicates = read_bytes(bytes(patch), prefix)
    else:
        value, duplicates = copied(patch), []
    wanted, go = (list, "[]interface {}") if type == "json" else (dict, "map[string]interface {}")
    if value is None:
        return wanted(), duplicates
    if not isinstance(value, wanted):
        raise BadRequest(f"{prefix}json: cannot unmarshal {type_word(value)} into Go value of type {go}")
    return value, duplicates


def read_bytes(raw: bytes, prefix: str) -> tuple[Any, list[str]]:
    try:
        value = msgspec.json.decode(raw)
        if msgspec.json.encode(value).count(b'"') == raw.count(b'"') and b"\\u0022" not in raw:
            return value, []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        pairs = read_json(raw)
        return bare(pairs), repeated_keys(pairs)
    except ValueError as e:
        raise BadRequest(prefix + str(e)) from None
    except RecursionError:
        raise BadRequest(prefix + "exceeded max depth") from None


# The three kinds


def refused(value: str, why: str) -> Invalid:
    """The 422 of a patch whose result is no good: it names no object (PATCH-4)."""
    return fields.invalid_object("", "", "", [fields.invalid("patch", value, why)])


def json_patch(live: Object, operations: Any, duplicates: list[str], target: Kind | Target, validation: str) -> Patched:
    if len(operations) > jsonpatch.MAX_OPERATIONS:
        raise RequestTooLarge(
            "Request entity too large: The allowed maximum operations in a JSON patch is "
            f"{jsonpatch.MAX_OPERATIONS}, got {len(operations)}"
        )
    try:
        patched = jsonpatch.apply(live, operations)
    except (jsonpatch.PatchFailed, RecursionError):
        raise Invalid(FAILED) from None
    return conclude(patched, duplicates, target, validation, lambda: document(patched, live))


def merge_patch(live: Object, patch: Any, duplicates: list[str], target: Kind | Target, validation: str) -> Patched:
    patched = merge(live, patch)
    return conclude(patched, duplicates, target, validation, lambda: document(patched, live))


def strategic_patch(live: Object, patch: Any, duplicates: list[str], target: Kind | Target, validation: str) -> Patched:
    if isinstance(target, Kind) and target.custom is not None:
        raise UnsupportedMediaType(NO_STRATEGIC)
    name = target.schema if target.schema in schema.section(1) else ""
    try:
        patched = strategic.merge(copied_along(live, patch), patch, name)
    except strategic.BadStrategicPatch as e:
        if e.client:
            raise BadRequest(str(e)) from None
        raise ApiError(str(e)) from None
    return conclude(patched, duplicates, target, validation, lambda: strategic.spell(patch), FromMap())


def copied_along(live: Any, patch: Any) -> Any:
    """The live value with copies of whatever a strategic patch may change in place, and the rest shared."""
    if isinstance(live, dict):
        out = dict(live)
        if isinstance(patch, dict):
            for key in patch:
                name = key.rpartition("/")[2] if key.startswith("$") else key
                if name in out:
                    out[name] = copied_along(out[name], patch[key])
        return out
    if isinstance(live, list):
        return [dict(v) if isinstance(v, dict) else v for v in live] if flat(live) else copied(live)
    return live


def flat(items: list[Any]) -> bool:
    """Whether items hold nothing that could be changed in place."""
    return not any(isinstance(v, list) or (isinstance(v, dict) and any(map(nested, v.values()))) for v in items)


def nested(value: Any) -> bool:
    return isinstance(value, (dict, list))


class FromMap(Walk):
    """Wrong types in the words of a strategic merge patch's result, which Go reads from a map and not from JSON."""

    def mismatch(self, value: Any, field: Field, owner: str, stack: str) -> str:
        if field.type in ("array", "object", "map"):
            found = {"object": "map", "array": "slice", "number": "int64"}.get(word(value), word(value))
            kind, colon = {"array": ("slice", ""), "object": ("struct", ":")}.get(field.type, ("map", ""))
            return f"cannot restore {kind} from{colon} {found}"
        if field.format == "byte":
            return f"cannot restore slice from {word(value)}"
        go = {"boolean": "bool", "number": "float64", "integer": field.format or "int64"}.get(field.type, "string")
        return f"unrecognized type: {go}"


def conclude_custom(
    patched: Any, duplicates: list[str], kind: Kind, validation: str, shown: Callable[[], str]
) -> Patched:
    """As `conclude` for a custom kind."""
    if not isinstance(patched, dict):
        raise refused(
            shown(), f"json: cannot unmarshal {word(patched)} into Go value of type map[string]interface {{}}"
        )
    copied = whole_numbers(msgspec.json.decode(msgspec.json.encode(patched)))
    for name in ("kind", "apiVersion"):
        if not isinstance(copied.get(name), str) or not copied[name]:
            raise refused(
                shown(),
                f"Object '{name[0].upper() if name == 'kind' else 'a'}{name[1:]}' is missing in "
                f"'{msgspec.json.encode(copied).decode()}'",
            )
    check_type(copied, kind, b"")
    try:
        obj, unknown = shaped(copied, kind)
    except ValueError as e:
        raise refused(shown(), str(e)) from None
    strict = [*duplicates, *unknown]
    if strict and validation == "Strict":
        raise refused(shown(), f"strict decoding error: {', '.join(strict)}")
    return Patched(obj, () if validation == "Ignore" else tuple(strict))


def conclude(
    patched: Any,
    duplicates: list[str],
    kind: Kind | Target,
    validation: str,
    shown: Callable[[], str],
    walk: Walk | None = None,
) -> Patched:
    """The patched value read as an object of the target; `shown` prints what the 422 quotes."""
    if isinstance(kind, Kind) and kind.custom is not None:
        return conclude_custom(patched, duplicates, kind, validation, shown)
    target = target_of(kind)
    quick = right_kind(quick_plain(patched, target.schema), target)
    if quick is not None and not duplicates:
        return Patched(quick)
    walk = walk or Walk()
    try:
        if not is_object(patched):
            raise ValueError(f"json: cannot unmarshal {word(patched)} into Go value of type {target.name}")
        named = {k: v for k, v in items_of(patched) if k in ("apiVersion", "kind")}
        api_version, name = named.get("apiVersion") or "", named.get("kind") or ""
        if not isinstance(api_version, str) or not isinstance(name, str):
            raise ValueError("couldn't get version/kind; json parse error: apiVersion and kind must be strings")
        obj = conform(patched, api_version or target.api_version, name or target.name, target, walk)
    except ValueError as e:
        raise refused(shown(), str(e)) from None
    strict = [*duplicates, *walk.strict]
    if strict and validation == "Strict":
        raise refused(shown(), f"strict decoding error: {', '.join(strict)}")
    return Patched(obj, () if validation == "Ignore" else tuple(strict))


# How a document is quoted

ORDER: dict[str, tuple[str, ...]] = {
    "": ("kind", "apiVersion", "metadata", "spec", "status"),
    "metadata": (
        "name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation", "creationTimestamp",
        "deletionTimestamp", "deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers",
        "managedFields",
    ),
    "metadata.managedFields": (
        "manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1", "subresource",
    ),
    "metadata.ownerReferences": ("apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"),
}  # fmt: skip
"""Fields in the order in which Go prints them, by path; what is not listed keeps the order it has."""

SPEC_ORDER: dict[str, dict[str, tuple[str, ...]]] = {
    "Service": {
        "spec": (
            "ports", "selector", "clusterIP", "clusterIPs", "type", "externalIPs", "sessionAffinity", "loadBalancerIP",
            "loadBalancerSourceRanges", "externalName", "externalTrafficPolicy", "healthCheckNodePort",
            "publishNotReadyAddresses", "sessionAffinityConfig", "ipFamilies", "ipFamilyPolicy",
            "allocateLoadBalancerNodePorts", "loadBalancerClass", "internalTrafficPolicy", "trafficDistribution",
        ),
        "spec.ports": ("name", "protocol", "appProtocol", "port", "targetPort", "nodePort"),
    },
}  # fmt: skip


def document(patched: Any, live: Object) -> str:
    """A patched document as upstream quotes it: sorted keys where the patch went, Go's own order elsewhere."""
    orders = ORDER | SPEC_ORDER.get(str(live.get("kind")), {})
    return msgspec.json.encode(arranged(patched, live, "", orders)).decode()


def arranged(value: Any, before: Any, path: str, orders: dict[str, tuple[str, ...]]) -> Any:
    if isinstance(value, dict):
        touched = path == "" or value != before
        order = orders.get(path, ())
        rank = {k: i for i, k in enumerate(order)}
        names = sorted(value) if touched else sorted(value, key=lambda k: rank.get(k, len(rank)))
        below = before if isinstance(before, dict) else {}
        return {k: arranged(value[k], below.get(k), k if not path else f"{path}.{k}", orders) for k in names}
    if isinstance(value, list):
        old = before if isinstance(before, list) else []
        return [arranged(v, old[i] if i < len(old) else None, path, orders) for i, v in enumerate(value)]
    return value
