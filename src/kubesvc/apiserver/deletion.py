"""What a DELETE makes of an object: gone at once, marked and waiting, or nothing new (DEL-3, DEL-5 to DEL-8).

Pure: a plan from the stored object, the options and the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kubesvc.api.customresourcedefinition import CLEANUP, CUSTOM_RESOURCE_DEFINITION, set_condition
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.clock import parse_rfc3339, rfc3339

from .options import DeleteOptions

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"


@dataclass(frozen=True, slots=True)
class DeletionPlan:
    """What to do.

    `wait`: nothing is written, the object is already on its way. `mark`: `marked` is written and stays.
    `mark-and-remove`: `marked` is written, then removed. `remove`: the object is removed as it is.
    """

    action: Literal["wait", "mark", "mark-and-remove", "remove"]
    marked: Object | None = None


def plan_deletion(kind: Kind, obj: Object, options: DeleteOptions, now: float) -> DeletionPlan:
    """Plan the deletion of `obj`, a stored object that the plan may change and keep."""
    if kind.plural == "namespaces" and not kind.group:
        return plan_namespace(obj, now)
    if kind is CUSTOM_RESOURCE_DEFINITION and obj["metadata"].get("deletionTimestamp") is None:
        hold_for_cleanup(obj, rfc3339(now))
    meta = obj["metadata"]
    graceful = False
    if kind.graceful:
        if meta.get("deletionTimestamp") is not None:
            pending = meta.get("deletionGracePeriodSeconds")
            if pending is not None:
                grace = options.grace_seconds
                if grace is not None and grace < 0:
                    grace = 1
                if grace is None or grace >= pending:
                    if pending or meta.get("finalizers"):
                        return DeletionPlan("wait")
                else:
                    moved = parse_rfc3339(meta["deletionTimestamp"]) - pending + grace
                    meta["deletionTimestamp"], meta["deletionGracePeriodSeconds"] = rfc3339(moved), grace
                graceful = True
        else:
            grace = pod_grace(obj, options.grace_seconds)
            meta["deletionTimestamp"], meta["deletionGracePeriodSeconds"] = rfc3339(now + grace), grace
            if meta.get("generation"):
                meta["generation"] += 1
            graceful = True
    changed = switch_finalizers(meta, options)
    if graceful:
        waits = meta.get("deletionGracePeriodSeconds") or meta.get("finalizers")
        return DeletionPlan("mark" if waits else "mark-and-remove", obj)
    if meta.get("finalizers"):
        if meta.get("deletionTimestamp") is None:
            meta["deletionTimestamp"] = rfc3339(now)
            if meta.get("generation"):
                meta["generation"] += 1
            changed = True
        if meta.get("deletionGracePeriodSeconds") != 0:
            meta["deletionGracePeriodSeconds"] = 0
            changed = True
        return DeletionPlan("mark", obj) if changed else DeletionPlan("wait")
    return DeletionPlan("remove", obj)


def plan_namespace(obj: Object, now: float) -> DeletionPlan:
    """NS-2: the first DELETE turns the namespace to Terminating; it goes when its finalizers are gone."""
    meta = obj["metadata"]
    if meta.get("deletionTimestamp") is None:
        meta["deletionTimestamp"] = rfc3339(now)
        obj.setdefault("status", {})["phase"] = "Terminating"
        return DeletionPlan("mark", obj)
    if (obj.get("spec") or {}).get("finalizers") or meta.get("finalizers"):
        return DeletionPlan("wait")
    return DeletionPlan("remove", obj)


def hold_for_cleanup(definition: Object, now: str) -> None:
    """The first DELETE of a CustomResourceDefinition lets it wait until its objects are gone; in place."""
    meta = definition["metadata"]
    if CLEANUP not in (meta.get("finalizers") or ()):
        meta["finalizers"] = [*(meta.get("finalizers") or ()), CLEANUP]
    set_condition(
        definition, now, "Terminating", "True", "InstanceDeletionPending",
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    )  # fmt: skip


def pod_grace(obj: Object, asked: int | None) -> int:
    """Seconds of grace of a pod that begins to be deleted (DEL-5)."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    grace = asked
    if grace is None:
        stated = spec.get("terminationGracePeriodSeconds")
        grace = 30 if stated is None else stated
    if not spec.get("nodeName") or status.get("phase") in ("Failed", "Succeeded"):
        return 0
    return 1 if grace < 0 else grace


def switch_finalizers(meta: Object, options: DeleteOptions) -> bool:
    """Make the two garbage collection finalizers what the options say, in place; whether that changed any (DEL-8)."""
    found = list(meta.get("finalizers") or ())
    explicit = options.propagation or ("Orphan" if options.orphan else "Background" if options.orphan is False else "")
    if explicit:
        orphan, foreground = explicit == "Orphan", explicit == "Foreground"
    else:
        orphan, foreground = ORPHAN in found, FOREGROUND in found
    wanted = [f for f in found if f not in (ORPHAN, FOREGROUND)]
    if orphan:
        wanted.append(ORPHAN)
    if foreground:
        wanted.append(FOREGROUND)
    if sorted(wanted) == sorted(found):
        return False
    if wanted:
        meta["finalizers"] = wanted
    else:
        meta.pop("finalizers", None)
    return True


def gone_with_update(kind: Kind, new: Object, old: Object) -> bool:
    """Whether this update takes the last thing away that held a deleted object (WRITE-8)."""
    meta, before = new["metadata"], old["metadata"]
    if before.get("deletionTimestamp") is None or meta.get("finalizers"):
        return False
    if kind.plural == "namespaces" and not kind.group:
        return not (new.get("spec") or {}).get("finalizers")
    return before.get("deletionGracePeriodSeconds") in (None, 0)
