"""The history of a pod template, as ControllerRevisions: what StatefulSets and DaemonSets roll from and back to. Pure.

A revision's `data` is a patch that puts back `spec.template` as it was. Two revisions are the same when their templates
are. Of equal templates only one revision is kept: going back to it raises its number above all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from kubesvc.api.controllerrevision import ControllerRevision
from kubesvc.api.kinds import CONTROLLER_REVISION
from kubesvc.api.meta import Object, Typed, controller_reference
from kubesvc.api.pod import PodTemplateSpec

from .deployment_plan import short_hash

HASH_LABEL = "controller.kubernetes.io/hash"
POD_REVISION = "controller-revision-hash"
"""Label of pods (and of a DaemonSet's revisions): which revision they were made from."""


@dataclass(frozen=True, slots=True)
class Found:
    """The revision that holds an owner's template now, and the number it should have."""

    revision: ControllerRevision
    number: int


def oldest_first(revision: ControllerRevision) -> tuple[int, str, str]:
    return (revision.revision, revision.metadata.creation_timestamp or "", revision.name)


def template_of(revision: ControllerRevision) -> Object:
    """The plain template of a revision; {} if its data is something else."""
    spec = revision.data.get("spec") if isinstance(revision.data, dict) else None
    template = spec.get("template") if isinstance(spec, dict) else None
    return {k: v for k, v in template.items() if k != "$patch"} if isinstance(template, dict) else {}


def holds(revision: ControllerRevision, template: PodTemplateSpec) -> bool:
    """Whether the revision is of this template; one that does not read as a template is of none."""
    try:
        return msgspec.convert(template_of(revision), PodTemplateSpec) == template
    except msgspec.ValidationError:
        return False


def find_revision(template: PodTemplateSpec, revisions: Iterable[ControllerRevision]) -> Found | None:
    """The newest revision of this template, and the number that makes it the highest; None if there is none."""
    listed = sorted(revisions, key=oldest_first)
    same = [r for r in listed if holds(r, template)]
    if not same:
        return None
    newest = listed[-1]
    return Found(same[-1], same[-1].revision if same[-1] is newest else newest.revision + 1)


def revision_data(template: Object) -> Object:
    """The patch that a revision holds."""
    return {"spec": {"template": {**template, "$patch": "replace"}}}


def data_hash(data: Object, collision_count: int | None) -> str:
    """The hash in a revision's name; another after a collision with a different template."""
    raw = msgspec.json.encode(data, order="deterministic")
    return short_hash(raw + (str(collision_count).encode() if collision_count else b""))


def render_revision(
    owner: Typed, api_version: str, kind: str, template: Object, number: int, collision_count: int | None, label: str
) -> Object:
    """A new ControllerRevision, named `<owner>-<hash>`. label: the key under which it bears the hash."""
    data = revision_data(template)
    digest = data_hash(data, collision_count)
    labels = dict((template.get("metadata") or {}).get("labels") or {})
    meta: Object = {
        "name": f"{owner.name[:223]}-{digest}",
        "labels": {**labels, label: digest},
        "ownerReferences": [controller_reference(owner, api_version, kind)],
    }
    if owner.metadata.annotations:
        meta["annotations"] = dict(owner.metadata.annotations)
    return {
        "apiVersion": CONTROLLER_REVISION.api_version,
        "kind": CONTROLLER_REVISION.name,
        "metadata": meta,
        "data": data,
        "revision": number,
    }


def plan_truncation(
    revisions: Iterable[ControllerRevision], in_use: Sequence[str], limit: int | None
) -> list[ControllerRevision]:
    """Revisions to delete: the oldest of those that neither owner nor pods use, beyond `limit` (None: 10)."""
    unused = [r for r in sorted(revisions, key=oldest_first) if r.name not in in_use]
    return unused[: max(len(unused) - (10 if limit is None else limit), 0)]
