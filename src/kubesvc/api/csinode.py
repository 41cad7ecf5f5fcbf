"""CSINode: which storage drivers a node has. Stored for their sake; no part of ours reads it."""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from . import fields, names, shape
from .checks import items, nonnegative, part, texts
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation
from .meta import Object, Struct, Typed

DRIVERS = Path("spec") / "drivers"
MOST_NODE_ID_BYTES = 256


class VolumeNodeResources(Struct, frozen=True):
    count: int | None = None


class CSINodeDriver(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("name", "node_id", "topology_keys")

    name: str = ""
    node_id: str = field(default="", name="nodeID")
    topology_keys: list[str] | None = None
    allocatable: VolumeNodeResources | None = None


class CSINodeSpec(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("drivers",)

    drivers: list[CSINodeDriver] | None = None


class CSINode(Typed, frozen=True):
    spec: CSINodeSpec = CSINodeSpec()


def default(obj: Object) -> None:
    shape.normalize(obj, CSINode)


def validate(obj: Object, _: Situation) -> Errors:
    errors: Errors = []
    seen: set[str] = set()
    for i, driver in enumerate(items(part(obj, "spec"), "drivers")):
        here = DRIVERS @ i
        name, node = driver.get("name") or "", driver.get("nodeID") or ""
        errors += validate_driver_name(name, here / "name")
        if not node:
            errors.append(fields.required(here / "nodeID"))
        if len(node.encode()) > MOST_NODE_ID_BYTES:
            text = f"must be {MOST_NODE_ID_BYTES} characters or less"
            errors.append(fields.invalid(here / "nodeID", node, text))
        if part(driver, "allocatable").get("count") is not None:
            errors += nonnegative(part(driver, "allocatable"), "count", here / "allocatable")
        keys: list[str] = []
        for key in items(driver, "topologyKeys"):
            if not key:
                errors.append(fields.required(here))
            if key in keys:
                errors.append(fields.duplicate(here, key))
            keys.append(key)
            errors += texts(here, key, names.qualified_name(key))
        if name in seen:
            errors.append(fields.duplicate(here / "name", name))
        seen.add(name)
    return errors


def validate_driver_name(name: str, path: Path) -> Errors:
    """What a driver may be called."""
    if not name:
        return [fields.required(path)]
    if len(name) > 63:
        return [fields.too_long(path, 63)]
    return texts(path, name, names.dns_subdomain(name.lower()))


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """A driver that stays is on the same node, in the same places."""
    errors = validate(new, situation)
    now = {d.get("name"): d for d in items(part(new, "spec"), "drivers")}
    for i, before in enumerate(items(part(old, "spec"), "drivers")):
        after = now.get(before.get("name"))
        if after is not None and any(after.get(k) != before.get(k) for k in ("nodeID", "topologyKeys")):
            errors.append(fields.invalid(DRIVERS @ i, before.get("name"), "field is immutable"))
    return errors


CSI_NODE = Kind(
    group="storage.k8s.io",
    version="v1",
    name="CSINode",
    plural="csinodes",
    namespaced=False,
    type=CSINode,
    schema="io.k8s.api.storage.v1.CSINode",
    default=default,
    validate=validate,
    validate_update=validate_update,
    columns=(
        Column("Name", lambda n: n.name, format="name"),
        Column("Drivers", lambda n: len(n.spec.drivers or ()), type="integer"),
        Column("Age", lambda n: Since(n.metadata.creation_timestamp)),
    ),
    delete_returns_object=True,
)
