"""The metadata every object carries, as frozen structs, and small helpers to read and write it in plain objects.

Two forms of an object live side by side. *Plain*: the decoded JSON (`Object`, a dict with the wire's names), which the
server defaults, validates and patches. *Typed*: a frozen struct of the fields that consumers use, decoded straight
from bytes. Wire names are camelCase and struct names snake_case, by rule. Whatever Go clients write as null is
Optional here (META-13).
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar, cast

import msgspec

Object = dict[str, Any]
"""One API object as decoded JSON; keys are the wire's camelCase names."""

S = TypeVar("S", bound="Struct")


class Struct(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True, gc=False):
    """Base of all typed objects: immutable, camelCase on the wire, unknown fields ignored, defaults left out.

    What is immutable and decoded from bytes has no cycles, so the collector need not look at it (`gc`).
    """


class OwnerReference(Struct, frozen=True):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Struct, frozen=True):
    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None
    finalizers: list[str] | None = None

    @property
    def controller(self) -> OwnerReference | None:
        """The one owner that manages this object, if any."""
        return next((o for o in self.owner_references or () if o.controller), None)

    def label(self, key: str) -> str:
        return (self.labels or {}).get(key, "")

    def annotation(self, key: str) -> str:
        return (self.annotations or {}).get(key, "")


class Typed(Struct, frozen=True):
    """Base of every kind's struct."""

    metadata: ObjectMeta = ObjectMeta()

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace


class ObjectReference(Struct, frozen=True):
    """A pointer to another object: targetRef, involvedObject and their kin."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    api_version: str = ""
    resource_version: str = ""
    field_path: str = ""


class Condition(Struct, frozen=True):
    """A status condition; which of the times exist depends on the kind."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    last_probe_time: str | None = None
    last_update_time: str | None = None
    last_heartbeat_time: str | None = None
    observed_generation: int | None = None


class StandardCondition(Struct, frozen=True):
    """A condition of the newer kinds (Service, ServiceCIDR): every field but observedGeneration always stands."""

    always: ClassVar[tuple[str, ...]] = ("type", "status", "last_transition_time", "reason", "message")

    type: str = ""
    status: str = ""
    observed_generation: int = 0
    last_transition_time: str | None = None
    reason: str = ""
    message: str = ""


def typed(plain: Object, type_: type[S]) -> S:
    """The typed form of a plain object; msgspec.ValidationError (with the path) if a field has another type."""
    return msgspec.convert(plain, type_)


def plain(value: msgspec.Struct) -> Object:
    """The plain form of a typed value, defaults left out."""
    result: Object = msgspec.to_builtins(value)
    return result


def metadata(obj: Object) -> Object:
    """The object's metadata, made if it has none; mutating it mutates the object."""
    meta = obj.get("metadata")
    if not isinstance(meta, dict):
        meta = obj["metadata"] = {}
    return meta


def controller_reference(owner: Object | Typed, api_version: str, kind: str) -> Object:
    """The ownerReference a controller puts on what it makes for `owner`."""
    name, uid = (
        (owner.metadata.name, owner.metadata.uid)
        if isinstance(owner, Typed)
        else (owner["metadata"]["name"], owner["metadata"]["uid"])
    )
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


NESTED = (dict, list)
Plain = TypeVar("Plain")


def copied(value: Plain) -> Plain:
    """A copy of decoded JSON that shares nothing that could be changed in place; several times as quick as copying
    what might be anything."""
    found: Any = value
    if type(found) is dict:
        found = {k: copied(v) if type(v) in NESTED else v for k, v in found.items()}
    elif type(found) is list:
        found = [copied(v) if type(v) in NESTED else v for v in found]
    return cast("Plain", found)
