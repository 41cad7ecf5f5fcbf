"""ControllerRevision: one past state of a stateful or daemon set."""

from __future__ import annotations

from typing import Any, ClassVar

from . import checks, fields, shape
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation
from .meta import Object, Typed


class ControllerRevision(Typed, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("revision",)

    data: Any = None
    revision: int = 0


def default(obj: Object) -> None:
    shape.normalize(obj, ControllerRevision)


def validate(obj: Object, _: Situation) -> Errors:
    errors: Errors = [] if obj.get("data") else [fields.required("data", "data is mandatory")]
    return errors + checks.nonnegative(obj, "revision", Path())


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """A past state does not change."""
    return validate(new, situation) + checks.immutable(new, old, "data", Path())


def owner(revision: ControllerRevision) -> str:
    """`statefulset.apps/web`."""
    controller = revision.metadata.controller
    if controller is None:
        return "<none>"
    group = controller.api_version.rpartition("/")[0]
    kind = controller.kind.lower()
    return f"{kind}.{group}/{controller.name}" if group else f"{kind}/{controller.name}"


CONTROLLER_REVISION = Kind(
    group="apps",
    version="v1",
    name="ControllerRevision",
    plural="controllerrevisions",
    namespaced=True,
    type=ControllerRevision,
    schema="io.k8s.api.apps.v1.ControllerRevision",
    default=default,
    validate=validate,
    validate_update=validate_update,
    columns=(
        Column("Name", lambda c: c.name, format="name"),
        Column("Controller", owner),
        Column("Revision", lambda c: c.revision),
        Column("Age", lambda c: Since(c.metadata.creation_timestamp)),
    ),
)
