"""StatefulSet: pods with names and storage of their own."""

from __future__ import annotations

from typing import Any, ClassVar

from . import checks, fields, podwarnings, shape, workload
from .checks import items, part
from .container import IntOrString
from .fields import Errors
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Condition, Object, Struct, Typed
from .persistentvolumeclaim import default_claim
from .pod import LabelSelector, PodTemplateSpec

CHANGEABLE = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip

RETENTION = ("Retain", "Delete")


class RollingUpdateStatefulSet(Struct, frozen=True):
    partition: int | None = None
    max_unavailable: IntOrString | None = None


class StatefulSetUpdateStrategy(Struct, frozen=True):
    type: str = ""
    rolling_update: RollingUpdateStatefulSet | None = None


class StatefulSetClaimRetention(Struct, frozen=True):
    when_deleted: str = ""
    when_scaled: str = ""


class StatefulSetOrdinals(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("start",)

    start: int = 0


class StatefulSetSpec(Struct, frozen=True):
    replicas: int | None = None
    selector: LabelSelector | None = None
    template: PodTemplateSpec = PodTemplateSpec()
    volume_claim_templates: list[dict[str, Any]] | None = None
    service_name: str = ""
    pod_management_policy: str = ""
    update_strategy: StatefulSetUpdateStrategy = StatefulSetUpdateStrategy()
    revision_history_limit: int | None = None
    min_ready_seconds: int = 0
    persistent_volume_claim_retention_policy: StatefulSetClaimRetention | None = None
    ordinals: StatefulSetOrdinals | None = None


class StatefulSetStatus(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("replicas", "available_replicas")

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    current_replicas: int = 0
    updated_replicas: int = 0
    current_revision: str = ""
    update_revision: str = ""
    collision_count: int | None = None
    conditions: list[Condition] | None = None
    available_replicas: int = 0


class StatefulSet(Typed, frozen=True):
    spec: StatefulSetSpec = StatefulSetSpec()
    status: StatefulSetStatus = StatefulSetStatus()


def default(obj: Object) -> None:
    """One replica, in order, updated rolling from the last; claims stay."""
    shape.normalize(obj, StatefulSet)
    spec = part(obj, "spec")
    spec.setdefault("podManagementPolicy", "OrderedReady")
    strategy = part(spec, "updateStrategy")
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    retention.setdefault("whenDeleted", "Retain")
    retention.setdefault("whenScaled", "Retain")
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    workload.default_template(obj)
    for claim in items(spec, "volumeClaimTemplates"):
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")
        claim.setdefault("status", {}).setdefault("phase", "Pending")
        default_claim(claim)


def prepare_create(obj: Object) -> None:
    obj["status"] = {"replicas": 0, "availableReplicas": 0}


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors: Errors = []
    policy, here = spec.get("podManagementPolicy"), workload.SPEC / "podManagementPolicy"
    if not policy:
        errors.append(fields.required(here))
    elif policy not in ("OrderedReady", "Parallel"):
        errors.append(fields.invalid(here, policy, "must be 'OrderedReady' or 'Parallel'"))
    strategy, path = part(spec, "updateStrategy"), workload.SPEC / "updateStrategy"
    type_ = strategy.get("type", "")
    if type_ == "OnDelete":
        if strategy.get("rollingUpdate") is not None:
            errors.append(
                fields.invalid(
                    path / "rollingUpdate",
                    spelled_strategy(strategy)["RollingUpdate"],
                    "only allowed for updateStrategy 'RollingUpdate'",
                )
            )
    elif type_ != "RollingUpdate":
        errors.append(fields.invalid(path, spelled_strategy(strategy), "must be 'RollingUpdate' or 'OnDelete'"))
    else:
        errors += checks.nonnegative(part(strategy, "rollingUpdate"), "partition", path / "rollingUpdate")
    retention = part(spec, "persistentVolumeClaimRetentionPolicy")
    for field in ("whenDeleted", "whenScaled"):
        if (word := retention.get(field) or "") not in RETENTION:
            where = workload.SPEC / "persistentVolumeClaimRetentionPolicy" / field
            errors.append(fields.not_supported(where, word, RETENTION, in_order=True))
    errors += checks.nonnegative(spec, "replicas", workload.SPEC)
    errors += checks.nonnegative(spec, "minReadySeconds", workload.SPEC)
    errors += checks.nonnegative(part(spec, "ordinals"), "start", workload.SPEC / "ordinals")
    errors += workload.validate_selector(spec, "statefulset")
    return errors + workload.validate_template(with_claims(spec), name="StatefulSet")


def spelled_strategy(strategy: Object) -> Object:
    """Under Go's names (ERR-3)."""
    rolling = strategy.get("rollingUpdate")
    if rolling is not None:
        rolling = {"Partition": rolling.get("partition") or 0, "MaxUnavailable": rolling.get("maxUnavailable")}
    return {"Type": strategy.get("type") or "", "RollingUpdate": rolling}


def with_claims(spec: Object) -> Object:
    """The spec with a volume for each claim that pods will get, so that containers may mount them."""
    template = part(spec, "template")
    pod = part(template, "spec")
    volumes = items(pod, "volumes")
    named = {v.get("name") for v in volumes}
    claims = [(c.get("metadata") or {}).get("name") or "" for c in items(spec, "volumeClaimTemplates")]
    more = [{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims if c and c not in named]
    return {**spec, "template": {**template, "spec": {**pod, "volumes": [*volumes, *more]}}} if more else spec


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """Little but the template and the count may change."""
    errors = validate(new, situation)
    now, before = part(new, "spec"), part(old, "spec")
    if {k: v for k, v in now.items() if k not in CHANGEABLE} != {
        k: v for k, v in before.items() if k not in CHANGEABLE
    }:
        names = ", ".join(f"'{f}'" for f in CHANGEABLE[:-1])
        errors.append(
            fields.forbidden(
                workload.SPEC,
                f"updates to statefulset spec for fields other than {names} and '{CHANGEABLE[-1]}' are forbidden",
            )
        )
    return errors


STATEFUL_SET = Kind(
    group="apps",
    version="v1",
    name="StatefulSet",
    plural="statefulsets",
    namespaced=True,
    type=StatefulSet,
    schema="io.k8s.api.apps.v1.StatefulSet",
    short_names=("sts",),
    categories=("all",),
    subresources=(
        Subresource(name="scale", kind="Scale", group="autoscaling", version="v1"),
        Subresource(name="status"),
    ),
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    warn=podwarnings.template_warnings,
    generation=workload.spec_changed,
    columns=(  # KCTL-19
        Column("Name", lambda s: s.name, format="name"),
        Column("Ready", lambda s: f"{s.status.ready_replicas}/{s.spec.replicas or 0}"),
        Column("Age", lambda s: Since(s.metadata.creation_timestamp)),
        workload.CONTAINERS,
        workload.IMAGES,
    ),
    has_status=True,
)
