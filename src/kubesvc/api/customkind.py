"""From a CustomResourceDefinition to the kinds it stands for: one `Kind` for each of its versions. Pure.

All versions of a definition share one place in the store. What is stored names the version it was written under; a
`CustomForm` knows how its own version reads that. Conversion only rewrites apiVersion, and leaves out what the
schema of the version does not know.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec

from . import fields, jsonpath
from .checks import items, part
from .errors import InternalError
from .fields import Errors
from .kind import Cell, Column, Kind, Since, Situation, Subresource
from .meta import Object, ObjectMeta, Typed
from .names import STANDARD_FINALIZERS
from .rules import Ruled, has_rules
from .structural import Structural, fill, prune, special_errors
from .valuecheck import ABSENT, Check

VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
"""In the order in which upstream lists them for custom kinds."""
VERSION_NAME = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")
_encode = msgspec.json.Encoder().encode
SUBRESOURCE_VERBS = ("get", "patch", "update")


class CustomObject(Typed, frozen=True):
    """An object of a custom kind: its metadata, and all of it as plain content."""

    content: dict[str, Any] = {}


class CustomDecoder:
    """Reads stored bytes as a CustomObject."""

    def decode(self, value: bytes) -> CustomObject:
        content: Object = msgspec.json.decode(value)
        return CustomObject(metadata=msgspec.convert(content["metadata"], ObjectMeta), content=content)


class ScalePaths(msgspec.Struct, frozen=True):
    """Where a custom kind's /scale reads and writes. `selector` is "" where there is none."""

    spec: str
    status: str
    selector: str = ""


class CustomForm:
    """What a version of a definition says about its objects, beyond what every Kind has.

    schema:         its openAPIV3Schema
    stored_version: the version that new values are stored under
    stored_schema:  that version's schema
    """

    def __init__(
        self, definition: str, api_version: str, name: str, schema: Object, stored_version: str, stored_schema: Object
    ) -> None:
        self.definition = definition
        self.schema = schema
        self.api_version = api_version
        self.head = b'{"kind":"%s","apiVersion":"%s","metadata":{' % (name.encode(), api_version.encode())
        group = api_version.rpartition("/")[0]
        self.stored_api_version = f"{group}/{stored_version}"
        self.stored_head = self.head.replace(api_version.encode(), self.stored_api_version.encode(), 1)
        self.narrows = schema is not stored_schema and schema != stored_schema
        """Whether stored objects may hold what this version does not know."""
        self.scale: ScalePaths | None = None
        self.has_status = False
        self.terminating = False
        """Whether the definition is being deleted, so that no new objects are taken."""
        self.warning = ""
        """The warning of every request to a deprecated version."""
        self.decoder = CustomDecoder()
        self.webhook: Object | None = None
        """What converts between versions, where a webhook does."""
        self.converted: dict[bytes, bytes] = {}
        """Stored values of other versions, and what the webhook made of them for this one."""
        self.readers: Mapping[str, Callable[[Any], str]] = {}
        """What field selectors of any version of the definition read."""
        self.siblings: tuple[Kind, ...] = ()
        """The kinds of the other versions, in which these objects can be seen as well."""

    @cached_property
    def rules(self) -> Ruled | None:
        """The schema's rules, None if it has none."""
        return Ruled(self.schema, root=True) if has_rules(self.schema) else None

    @cached_property
    def structural(self) -> Structural:
        return Structural(self.schema)

    @cached_property
    def check(self) -> Check:
        return Check(self.schema)

    @cached_property
    def digest(self) -> bytes:
        """Changes with the schema."""
        return hashlib.sha256(_encode([self.schema, self.api_version])).digest()

    # ------------------------------------------------------------------ conversion by a webhook

    def foreign(self, value: bytes) -> bool:
        """Whether a stored value is in another version, so that the webhook must convert it."""
        return self.webhook is not None and not value.startswith(self.head)

    def remember(self, value: bytes, obj: Object) -> None:
        """Note what a stored value is in this version."""
        self.converted[value] = _encode({"kind": obj["kind"], "metadata": obj["metadata"], **obj})

    # ------------------------------------------------------------------ reading what is stored

    def seen(self, obj: Object) -> Object:
        """A stored object, decoded, as this version has it; in place."""
        if self.narrows:
            prune(obj, self.structural, "", [], root=True)
        obj["apiVersion"] = self.api_version
        return obj

    def refreshed(self, value: bytes) -> bytes:
        """A stored value that was perhaps written under another schema, as one written now: pruned, with defaults."""
        if self.foreign(value):
            return value
        obj = msgspec.json.decode(value)
        prune(obj, self.structural, "", [], root=True)
        fill(obj, self.structural)
        fresh = _encode(obj)
        return value if fresh == value else fresh

    def narrowed(self, value: bytes) -> bytes:
        """A stored value as this version has it: converted before, or without what this version does not know."""
        if self.foreign(value):
            if value not in self.converted:
                raise InternalError(f"Internal error occurred: an object of {self.definition} was not converted")
            return self.converted[value]
        if not self.narrows:
            return value
        obj = msgspec.json.decode(value)
        prune(obj, self.structural, "", [], root=True)
        return _encode(obj)

    # ------------------------------------------------------------------ judging what is written

    def default(self, obj: Object) -> None:
        fill(obj, self.structural)

    def prepare_create(self, obj: Object) -> None:
        if self.has_status:
            obj.pop("status", None)

    def changed(self, new: Object, old: Object) -> bool:
        """Whether metadata.generation grows."""
        left_out = ("metadata", "status") if self.has_status else ("metadata",)
        names = [*new, *(k for k in old if k not in new)]
        return any(new.get(n, ABSENT) != old.get(n, ABSENT) for n in names if n not in left_out)

    def errors(self, obj: Object, _: Situation) -> Errors:
        return self._errors(obj, ABSENT)

    def update_errors(self, new: Object, old: Object, _: Situation) -> Errors:
        return self._errors(new, old)

    def _errors(self, obj: Object, old: Any) -> Errors:
        found = self.check.errors(obj, old)
        if self.structural.special:
            known = set(map(str, special_errors(old, self.structural))) if old is not ABSENT else set()
            found += [e for e in special_errors(obj, self.structural) if str(e) not in known]
        if self.scale is not None:
            found += self._scale_errors(obj)
        return found

    def _scale_errors(self, obj: Object) -> Errors:
        assert self.scale is not None
        out: Errors = []
        for path in (self.scale.spec, self.scale.status):
            for found in jsonpath.find(path, obj):
                if not isinstance(found, int) or isinstance(found, bool):
                    continue
                if found < 0:
                    out.append(fields.invalid(path[1:], found, "should be a non-negative integer"))
                elif found > 2**31 - 1:
                    out.append(fields.invalid(path[1:], found, f"should be less than or equal to {2**31 - 1}"))
        return out

    def warn(self, new: Object, old: Object | None) -> Sequence[str]:
        known = ((old or {}).get("metadata") or {}).get("finalizers") or ()
        return [
            f"metadata.finalizers: {fields.quote(f)}: prefer a domain-qualified finalizer name including a path (/) to "
            "avoid accidental conflicts with other finalizer writers"
            for f in (new.get("metadata") or {}).get("finalizers") or ()
            if "/" not in f and f not in known and f not in STANDARD_FINALIZERS
        ]


# ---------------------------------------------------------------- kinds


def custom_kinds(definition: Object) -> tuple[Kind, ...]:
    """The kinds of a stored definition whose names are accepted, the stored version first, served or not."""
    spec = definition["spec"]
    versions = items(spec, "versions")
    stored = next((v for v in versions if v.get("storage")), None)
    if stored is None:
        return ()
    others = [v for v in versions if v is not stored]
    kinds = tuple(custom_kind(definition, v, stored) for v in (stored, *others))
    readers = {label: read for kind in kinds for label, read in kind.fields.items()}
    for kind in kinds:
        assert kind.custom is not None
        kind.custom.readers = readers
        kind.custom.siblings = tuple(k for k in kinds if k is not kind)
    return kinds


def schema_of(version: Object) -> Object:
    found = part(version, "schema").get("openAPIV3Schema")
    return found if isinstance(found, dict) else {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def definition_name(group: str, version: str, kind: str) -> str:
    """How OpenAPI documents call a custom kind: `com.example.v1.CronTab`."""
    return ".".join([*reversed(group.split(".")), version, kind])


def custom_kind(definition: Object, version: Object, stored: Object) -> Kind:
    spec = definition["spec"]
    accepted = part(part(definition, "status"), "acceptedNames")
    if not accepted.get("plural"):
        accepted = part(spec, "names")
    group, name = spec["group"], accepted["kind"]
    api_version = f"{group}/{version['name']}"
    form = CustomForm(
        definition["metadata"]["name"], api_version, name, schema_of(version), stored["name"], schema_of(stored)
    )
    conversion = part(spec, "conversion")
    if conversion.get("strategy") == "Webhook":
        form.webhook = part(conversion, "webhook")
    below = part(version, "subresources")
    subresources: list[Subresource] = []
    if "status" in below:
        form.has_status = True
        subresources.append(Subresource(name="status", verbs=SUBRESOURCE_VERBS))
    if scale := below.get("scale"):
        form.scale = ScalePaths(
            scale.get("specReplicasPath") or "",
            scale.get("statusReplicasPath") or "",
            scale.get("labelSelectorPath") or "",
        )
        subresources.append(
            Subresource(name="scale", verbs=SUBRESOURCE_VERBS, kind="Scale", group="autoscaling", version="v1")
        )
    if version.get("deprecated"):
        form.warning = version.get("deprecationWarning") or deprecation(spec, version, name)
    return Kind(
        group=group,
        version=version["name"],
        name=name,
        plural=accepted["plural"],
        namespaced=spec.get("scope") == "Namespaced",
        type=CustomObject,
        schema=definition_name(group, version["name"], name),
        custom=form,
        singular=accepted.get("singular") or name.lower(),
        short_names=tuple(accepted.get("shortNames") or ()),
        categories=tuple(accepted.get("categories") or ()),
        list_kind=accepted.get("listKind") or f"{name}List",
        verbs=VERBS,
        subresources=tuple(subresources),
        default=form.default,
        prepare_create=form.prepare_create,
        validate=form.errors,
        validate_update=form.update_errors,
        validate_status=form.update_errors,
        warn=form.warn,
        columns=columns_of(version),
        fields=selectable(version),
        has_status=form.has_status,
        generation=form.changed,
        unversioned_update=False,
    )


def deprecation(spec: Object, version: Object, kind: str) -> str:
    """What is said of a deprecated version whose author says nothing."""
    group = spec["group"]
    text = f"{group}/{version['name']} {kind} is deprecated"
    mine = version_key(version["name"])
    better = [
        v["name"]
        for v in items(spec, "versions")
        if v.get("served") and not v.get("deprecated") and version_key(v["name"]) < mine
    ]
    return f"{text}; use {group}/{min(better, key=version_key)} {kind}" if better else text


def version_key(name: str) -> tuple[Any, ...]:
    """Sorts versions as upstream prefers them: v2, v1, v1beta2, v1beta1, v1alpha1, then others by name."""
    found = VERSION_NAME.fullmatch(name)
    if not found:
        return (1, 0, 0, 0, name)
    rank = {None: 0, "beta": 1, "alpha": 2}[found[2]]
    return (0, rank, -int(found[1]), -int(found[3] or 0), name)


# ---------------------------------------------------------------- columns and fields


def columns_of(version: Object) -> tuple[Column, ...]:
    """The columns of Tables: the name, then what the author wants to see, or the age."""
    listed = items(version, "additionalPrinterColumns") or [
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    ]
    first = Column("Name", lambda o: o.name, format="name", description="The name of the object.")
    return (first, *(column_of(c) for c in listed))


def column_of(given: Object) -> Column:
    path, type_ = given.get("jsonPath") or "", given.get("type") or "string"
    described = given.get("description") or f"Custom resource definition column (in JSONPath format): {path}"
    return Column(
        given.get("name") or "",
        reader(path, type_),
        type=type_,
        format=given.get("format") or "",
        priority=given.get("priority") or 0,
        description=described,
    )


def reader(path: str, type_: str) -> Callable[[Any], Cell | Since]:
    def read(obj: CustomObject) -> Cell | Since:
        try:
            found = jsonpath.find(path, obj.content)
        except jsonpath.BadPath:
            return None
        if not found:
            return None
        value = found[0]
        if type_ == "string":
            return jsonpath.printed(value) if value is not None else "<nil>"
        return cell_of(value, type_)

    return read


def cell_of(value: Any, type_: str) -> Cell | Since:
    """A value as a cell of its column's type; None where it is of another."""
    if type_ == "date":
        if not isinstance(value, str):
            return None
        return Since(value) if is_time(value) else "<invalid>"
    if type_ == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if type_ == "integer" else value  # type: ignore[return-value]


def is_time(text: str) -> bool:
    """Whether a text is a moment with its zone."""
    try:
        return "T" in text and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def selectable(version: Object) -> Mapping[str, Callable[[Any], str]]:
    """Field selectors that the author allows."""

    def read_by(path: str) -> Callable[[Any], str]:
        def read(obj: CustomObject) -> str:
            found = jsonpath.find(path, obj.content)
            return jsonpath.printed(found[0]) if found and found[0] is not None else ""

        return read

    paths = [f.get("jsonPath") or "" for f in items(version, "selectableFields")]
    return {p.removeprefix("."): read_by(p) for p in paths if p}
