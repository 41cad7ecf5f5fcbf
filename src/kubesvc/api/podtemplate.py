"""PodTemplate: a template kept by itself."""

from __future__ import annotations

from . import podcheck, podspec, shape, workload
from .checks import part
from .fields import Errors, Path
from .kind import Column, Kind, Situation
from .meta import Object, Typed
from .pod import PodTemplateSpec


class PodTemplate(Typed, frozen=True):
    template: PodTemplateSpec = PodTemplateSpec()


def default(obj: Object) -> None:
    shape.normalize(obj, PodTemplate)
    podspec.default_pod_spec(part(part(obj, "template"), "spec"))


def validate(obj: Object, _: Situation) -> Errors:
    return podcheck.validate_template(part(obj, "template"), Path("template"))


def validate_update(new: Object, _: Object, situation: Situation) -> Errors:
    return validate(new, situation)


POD_TEMPLATE = Kind(
    group="",
    version="v1",
    name="PodTemplate",
    plural="podtemplates",
    namespaced=True,
    type=PodTemplate,
    schema="io.k8s.api.core.v1.PodTemplate",
    default=default,
    validate=validate,
    validate_update=validate_update,
    generation=lambda new, old: new.get("template") != old.get("template"),
    columns=(
        Column("Name", lambda p: p.name, format="name"),
        Column("Containers", lambda p: workload.containers(p.template)),
        Column("Images", lambda p: workload.images(p.template)),
        Column("Pod Labels", lambda p: workload.label_text(p.template.metadata.labels)),
    ),
    delete_returns_object=True,
)
