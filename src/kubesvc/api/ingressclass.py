"""IngressClass: whose work an Ingress is."""

from __future__ import annotations

from typing import ClassVar

from . import checks, fields, names, shape, workload
from .checks import part, texts
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation
from .meta import Object, Struct, Typed

SPEC = Path("spec")


class IngressClassParameters(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("kind", "name")

    api_group: str | None = None
    kind: str = ""
    name: str = ""
    scope: str | None = None
    namespace: str | None = None


class IngressClassSpec(Struct, frozen=True):
    controller: str = ""
    parameters: IngressClassParameters | None = None


class IngressClass(Typed, frozen=True):
    spec: IngressClassSpec = IngressClassSpec()


def default(obj: Object) -> None:
    """Parameters are looked for in the whole cluster unless a namespace is named."""
    shape.normalize(obj, IngressClass)
    if parameters := part(part(obj, "spec"), "parameters"):
        parameters.setdefault("scope", "Cluster")


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    controller = spec.get("controller") or ""
    errors = validate_controller(controller, SPEC / "controller")
    if (parameters := spec.get("parameters")) is None:
        return errors
    path = SPEC / "parameters"
    for field in ("kind", "name"):
        value = parameters.get(field) or ""
        errors += texts(path / field, value, names.path_segment(value))
        if not value:
            errors.append(fields.required(path / field, f"{field} is required"))
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    if scope not in ("Cluster", "Namespace"):
        errors.append(fields.not_supported(path / "scope", scope or "", ("Cluster", "Namespace")))
    if scope == "Namespace" and not namespace:
        errors.append(fields.required(path / "namespace", "`parameters.scope` is set to 'Namespace'"))
    if scope == "Cluster" and namespace:
        errors.append(fields.forbidden(path / "namespace", "`parameters.scope` is set to 'Cluster'"))
    return errors


def validate_controller(controller: str, path: Path) -> Errors:
    """A domain, a slash and a path."""
    if not controller:
        return [fields.required(path)]
    if len(controller) > 250:
        return [fields.too_long(path, 250)]
    return checks.domain_prefixed_path(controller, path)


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    return validate(new, situation) + checks.immutable(part(new, "spec"), part(old, "spec"), "controller", SPEC)


def parameters_text(ingress_class: IngressClass) -> str:
    found = ingress_class.spec.parameters
    if found is None:
        return "<none>"
    return f"{found.kind}.{found.api_group}/{found.name}" if found.api_group else f"{found.kind}/{found.name}"


INGRESS_CLASS = Kind(
    group="networking.k8s.io",
    version="v1",
    name="IngressClass",
    plural="ingressclasses",
    namespaced=False,
    type=IngressClass,
    schema="io.k8s.api.networking.v1.IngressClass",
    default=default,
    validate=validate,
    validate_update=validate_update,
    generation=workload.spec_changed,
    columns=(  # KCTL-31a
        Column("Name", lambda i: i.name, format="name"),
        Column("Controller", lambda i: i.spec.controller),
        Column("Parameters", parameters_text),
        Column("Age", lambda i: Since(i.metadata.creation_timestamp)),
    ),
)
