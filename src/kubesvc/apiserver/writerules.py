"""What a write may reach of an object, and under which conditions. Pure but for changes in place."""

from __future__ import annotations

from typing import Any

from kubesvc.api.errors import BadRequest
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object

from . import refusals
from .options import DeleteOptions

MISSING: Any = object()


def restore_part(kind: Kind, new: Object, old: Object, subresource: str) -> None:
    """A write reaches only its part of the object, in place (WRITE-10, SUB-2)."""
    if subresource == "status" and kind.custom is not None:
        meta, status = new["metadata"], new.get("status", MISSING)
        given = {k: meta[k] for k in ("managedFields", "resourceVersion") if k in meta}
        meta.clear()
        meta.update({k: v for k, v in old["metadata"].items() if k != "managedFields"})
        meta.update(given)
        new.clear()
        new.update({k: v for k, v in old.items() if k not in ("metadata", "status")})
        new["metadata"] = meta
        if status is not MISSING:
            new["status"] = status
    elif subresource in ("status", "approval"):
        kept = {"metadata": new["metadata"]}
        meta, before = new["metadata"], old["metadata"]
        for name in ("ownerReferences", "generateName"):
            if name in before:
                meta[name] = before[name]
            else:
                meta.pop(name, None)
        if "status" in new:
            kept["status"] = new["status"]
        new.clear()
        new.update({k: v for k, v in old.items() if k not in ("metadata", "status")})
        new.update(kept)
    elif kind.has_status:
        if "status" in old:
            new["status"] = old["status"]
        else:
            new.pop("status", None)
    kind.restore(new, old, subresource)


def check_namespace(kind: Kind, meta: Object, namespace: str) -> None:
    """WRITE-1: the body's namespace is the request's, or is filled in."""
    found = meta.get("namespace") or ""
    if not kind.namespaced:
        if found:
            raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
        meta.pop("namespace", None)
        return
    if found and found != namespace:
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
    meta["namespace"] = namespace


def check_preconditions(kind: Kind, name: str, obj: Object, options: DeleteOptions) -> None:
    """DEL-3."""
    meta = obj["metadata"]
    if options.uid is not None and options.uid != meta["uid"]:
        raise refusals.precondition_conflict(
            kind,
            name,
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({meta['uid']}). The object "
            "might have been deleted and then recreated",
        )
    if options.resource_version is not None and options.resource_version != meta["resourceVersion"]:
        raise refusals.precondition_conflict(
            kind,
            name,
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the ResourceVersion "
            f"in record ({meta['resourceVersion']}). The object might have been modified",
        )
