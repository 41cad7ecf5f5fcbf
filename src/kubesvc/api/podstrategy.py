"""Defaults, server-owned fields and rules of change of pods (POD-1, POD-4 to 6)."""

from __future__ import annotations

from collections.abc import Sequence

from . import addresses, fields, names, podgo, podspec
from .checks import INT32, items, part, texts
from .fields import Errors, Path
from .kind import Situation
from .meta import Object, copied
from .podcheck import validate_pod_spec

SPEC = Path("spec")
STATUS = Path("status")
UPDATABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
ADDED_OR_REMOVED = "pod updates may not add or remove containers"


def default(obj: Object) -> None:
    """POD-1, and POD-4: podIP and the first of podIPs are one."""
    spec = obj.get("spec")
    if isinstance(spec, dict):
        podspec.default_pod_spec(spec)
        podspec.default_lone_pod(spec)
    status = part(obj, "status")
    first = next((p.get("ip") for p in items(status, "podIPs")), None)
    if status.get("podIP") and status["podIP"] != first:
        status["podIPs"] = [{"ip": status["podIP"]}]
    elif first:
        status["podIP"] = first


def prepare_create(obj: Object) -> None:
    """Nothing has happened to it yet (POD-1)."""
    spec = obj.setdefault("spec", {})
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        spec["terminationGracePeriodSeconds"] = 1
    obj["status"] = {"phase": "Pending", "qosClass": podspec.qos_class(spec)}
    if items(spec, "schedulingGates"):
        obj["status"]["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "lastProbeTime": None,
                "lastTransitionTime": None,
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }
        ]


def prepare_update(new: Object, old: Object) -> None:
    """The class of service stays what it was made as, and so do ephemeral containers here."""
    status = new.setdefault("status", {})
    if qos := part(old, "status").get("qosClass"):
        status["qosClass"] = qos


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors = validate_pod_spec(spec, SPEC)
    if items(spec, "ephemeralContainers"):
        errors.append(fields.forbidden(SPEC / "ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and items(spec, "schedulingGates"):
        errors.append(fields.forbidden(SPEC / "nodeName", "cannot be set until all schedulingGates have been cleared"))
    return errors


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """POD-5: little of a pod may change, and each in its own direction."""
    now, before = part(new, "spec"), part(old, "spec")
    if now == before:
        return []  # it was found right when it was stored
    errors = validate_pod_spec(now, SPEC)
    for field in ("containers", "initContainers"):
        if len(items(now, field)) != len(items(before, field)):
            return [*errors, fields.forbidden(SPEC / field, ADDED_OR_REMOVED)]
    if wrong := validate_deadline(now, before):
        return [*errors, *wrong]
    errors += validate_added_tolerations(items(now, "tolerations"), items(before, "tolerations"))
    errors += validate_deleted_gates(items(now, "schedulingGates"), items(before, "schedulingGates"))
    allowed = munged(now, before)
    if allowed != before:
        errors.append(fields.forbidden(SPEC, f"{UPDATABLE}\n{podgo.difference(before, allowed)}"))
    return errors


def validate_deadline(now: Object, before: Object) -> Errors:
    """The active deadline may be set, and then only come closer."""
    path = SPEC / "activeDeadlineSeconds"
    new, old = now.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if new is None:
        if old is not None:
            return [fields.invalid(path, None, "must not update from a positive integer to nil value")]
        return []
    if not 0 <= new <= INT32:
        return [fields.invalid(path, new, f"must be between 0 and {INT32}, inclusive")]
    if old is not None and old < new:
        return [fields.invalid(path, new, "must be less than or equal to previous value")]
    return []


def validate_added_tolerations(now: list[Object], before: list[Object]) -> Errors:
    """Tolerations stay; of NoExecute ones the seconds may change."""
    for old in before:
        kept = any(
            new == old
            or (
                old.get("effect") == "NoExecute"
                and old.get("tolerationSeconds") is not None
                and {**new, "tolerationSeconds": 0} == {**old, "tolerationSeconds": 0}
            )
            for new in now
        )
        if not kept:
            return [
                fields.forbidden(
                    SPEC / "tolerations", "existing toleration can not be modified except its tolerationSeconds"
                )
            ]
    return []


def validate_deleted_gates(now: list[Object], before: list[Object]) -> Errors:
    known = [g.get("name") for g in before]
    return [
        fields.forbidden(
            SPEC / "schedulingGates" @ i,
            f"only deletion is allowed, but found new scheduling gate '{gate.get('name', '')}'",
        )
        for i, gate in enumerate(now)
        if gate.get("name") not in known
    ]


def munged(now: Object, before: Object) -> Object:
    """The new spec with what may change set back to the old; equal to the old one if nothing else changed."""
    spec = copied(now)
    for field in ("containers", "initContainers"):
        for container, old in zip(items(spec, field), items(before, field), strict=True):
            container["image"] = old.get("image")
    for field in ("activeDeadlineSeconds", "tolerations", "schedulingGates"):
        put_back(spec, before, field)
    if (before.get("terminationGracePeriodSeconds") or 0) < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        put_back(spec, before, "terminationGracePeriodSeconds")
    if items(before, "schedulingGates"):  # not seen by the scheduler yet: it may still become more particular
        for field in ("nodeSelector", "affinity"):
            old, new = before.get(field), spec.get(field)
            if old is None or (field == "nodeSelector" and dict(old).items() <= dict(new or {}).items()):
                put_back(spec, before, field)
    return spec


def put_back(spec: Object, before: Object, field: str) -> None:
    if field in before:
        spec[field] = before[field]
    else:
        spec.pop(field, None)


def validate_status(new: Object, old: Object, _: Situation) -> Errors:
    """POD-4, POD-6."""
    now, before = part(new, "status"), part(old, "status")
    errors: Errors = []
    for i, condition in enumerate(items(now, "conditions")):
        type_ = condition.get("type") or ""
        errors += texts(STATUS / "conditions" @ i / "Type", type_, names.qualified_name(type_))
    nominated = now.get("nominatedNodeName")
    if nominated and nominated != before.get("nominatedNodeName") and part(new, "spec").get("nodeName"):
        errors.append(
            fields.forbidden(STATUS / "nominatedNodeName", "may not be set on pods that are already bound to a node")
        )
    policy = part(new, "spec").get("restartPolicy")
    for field in ("containerStatuses", "initContainerStatuses"):
        errors += validate_transitions(items(now, field), items(before, field), policy, STATUS / field)
    errors += validate_ips(now, "podIPs", before)
    return errors + validate_ips(now, "hostIPs", before)


def validate_transitions(now: list[Object], before: list[Object], policy: str | None, path: Path) -> Errors:
    """What ended for good does not run again."""
    if policy == "Always":
        return []
    ended = {s.get("name"): part(part(s, "state"), "terminated") for s in before if "terminated" in part(s, "state")}
    return [
        fields.forbidden(path @ i / "state", "may not be transitioned to non-terminated state")
        for i, status in enumerate(now)
        if status.get("name") in ended
        and "terminated" not in part(status, "state")
        and (policy == "Never" or not ended[status.get("name")].get("exitCode"))
    ]


def validate_ips(now: Object, field: str, before: Object) -> Errors:
    """At most one address of each family."""
    if now.get(field) == before.get(field):
        return []
    entries: Sequence[str] = [entry.get("ip") or "" for entry in items(now, field)]
    errors: Errors = []
    for i, address in enumerate(entries):
        errors += texts(STATUS / field @ i, address, addresses.errors(address))
    families = [addresses.family_of(a) for a in entries]
    if not errors and (len(entries) > 2 or len(set(families)) != len(families)):
        errors.append(
            fields.invalid(
                STATUS / field,
                [{"IP": a} for a in entries],
                "may specify no more than one IP for each IP family",
            )
        )
    return errors


def validate_ephemeral_containers(new: Object) -> Errors:
    """Errors of the ephemeral containers of a pod that was changed through /ephemeralcontainers (SUB-4)."""
    return [e for e in validate_pod_spec(part(new, "spec"), SPEC) if e.path.startswith("spec.ephemeralContainers")]


RESIZABLE = ("cpu", "memory")


def validate_resize(new: Object, old: Object) -> Errors:
    """Errors of a change through /resize: amounts of CPU and memory only, and not the class of service."""
    now, before = part(new, "spec"), part(old, "spec")
    errors = [e for e in validate_pod_spec(now, SPEC) if ".resources" in e.path]
    if podspec.qos_class(now) != podspec.qos_class(before):
        errors.append(
            fields.invalid(SPEC, podspec.qos_class(now), "Pod QOS Class may not change as a result of resizing")
        )
    for field in ("containers", "initContainers"):
        pairs = zip(items(now, field), items(before, field), strict=False)
        for i, (container, earlier) in enumerate(pairs):
            path = SPEC / field @ i / "resources"
            for where in ("limits", "requests"):
                given = part(part(container, "resources"), where)
                had = part(part(earlier, "resources"), where)
                gone = [name for name in RESIZABLE if name in had and name not in given]
                if gone:
                    errors.append(fields.forbidden(path / where, f"resource {where} cannot be removed"))
                others = [{k: v for k, v in amounts.items() if k not in RESIZABLE} for amounts in (given, had)]
                if others[0] != others[1]:
                    errors.append(fields.forbidden(SPEC, "only cpu and memory resources are mutable"))
    return errors
