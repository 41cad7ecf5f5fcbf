"""Admission of claims and volumes: the class of claims that name none, protection while in use, who may grow.

DefaultStorageClass, StorageObjectInUseProtection and PersistentVolumeClaimResize, as the plugins are called upstream.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubesvc.api.kinds import PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS
from kubesvc.api.meta import Object
from kubesvc.api.persistentvolumeclaim import OLD_CLASS
from kubesvc.api.podcheck import amount_of
from kubesvc.api.storageclass import newest_default

from . import refusals
from .cache import Cache
from .storage import decode

CLAIM_PROTECTION = "kubernetes.io/pvc-protection"
VOLUME_PROTECTION = "kubernetes.io/pv-protection"


class StorageAdmission:
    """Reads the cache of StorageClasses."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def default_class(self, claim: Object) -> None:
        """Give a new claim that says nothing of a class the default one; "" says that it wants none."""
        spec = claim.get("spec")
        annotations = claim["metadata"].get("annotations") or {}
        if not isinstance(spec, dict) or OLD_CLASS in annotations or spec.get("storageClassName") is not None:
            return
        items = (i for i in self.cache.of(STORAGE_CLASS).select() if b"is-default-class" in i.value)
        found = newest_default(decode(i.value, i.revision) for i in items)
        if found is not None:
            spec["storageClassName"] = found["metadata"]["name"]

    def check_growth(self, new: Object, old: Object) -> None:
        """Only a bound claim grows, and only if its class says that its volumes can. Raises Forbidden."""
        wanted, had = (amount_of(requested(c)) for c in (new, old))
        if wanted is None or had is None or not had < wanted:
            return
        name = new["metadata"].get("name") or ""
        if (old.get("status") or {}).get("phase") != "Bound":
            raise refusals.forbidden(
                PERSISTENT_VOLUME_CLAIM, name, "Only bound persistent volume claims can be expanded"
            )
        chosen = class_of(new)
        item = self.cache.of(STORAGE_CLASS).get("", chosen) if chosen and chosen == class_of(old) else None
        if item is None or not decode(item.value, item.revision).get("allowVolumeExpansion"):
            raise refusals.forbidden(
                PERSISTENT_VOLUME_CLAIM,
                name,
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must "
                "support resize",
            )


def protect(obj: Object, finalizer: str) -> None:
    """Keep a new claim or volume until its protection controller sees that nobody uses it."""
    meta = obj["metadata"]
    held: Iterable[str] = meta.get("finalizers") or ()
    if finalizer not in held:
        meta["finalizers"] = [*held, finalizer]


def requested(claim: Object) -> Any:
    """How much storage a plain claim asks for."""
    resources = (claim.get("spec") or {}).get("resources") or {}
    return (resources.get("requests") or {}).get("storage")


def class_of(claim: Object) -> str:
    """The class that a plain claim names, "" for none."""
    old = (claim["metadata"].get("annotations") or {}).get(OLD_CLASS)
    return old or (claim.get("spec") or {}).get("storageClassName") or ""
