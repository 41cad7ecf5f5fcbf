"""Binds claims to volumes and says of both what became of them (`volumebinding_plan`).

Claims and volumes are looked at one by one: a decision must see the one before it. What binds names the version of the
object it was decided on, so that of two binders one is refused; a status names the object alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from kubesvc.api.errors import NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS
from kubesvc.api.meta import Object, Typed, typed
from kubesvc.api.persistentvolume import PersistentVolume
from kubesvc.api.persistentvolumeclaim import BOUND_BY_CONTROLLER, PersistentVolumeClaim
from kubesvc.api.storageclass import StorageClass
from kubesvc.client.workqueue import Key
from kubesvc.clock import rfc3339

from . import volumebinding_plan as plan
from .podclaims import by_claim
from .runner import Controller, ControllerContext, key_of
from .slimpod import pods_of
from .versioned import put_change, put_version

T = TypeVar("T", bound=Typed)

RESYNC_SECONDS = 15.0
"""A claim that waits is looked at again after this, as upstream does, and says again what it waits for."""


class PersistentVolumeBinder(Controller):
    """Keys are claims, and volumes, which have no namespace."""

    name = "persistentvolume-binder-controller"
    component = "persistentvolume-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.claims = ctx.informers.of(PERSISTENT_VOLUME_CLAIM)
        self.volumes = ctx.informers.of(PERSISTENT_VOLUME)
        self.classes = ctx.informers.of(STORAGE_CLASS)
        self.pods = pods_of(ctx.informers)
        self.pods_of_claim = by_claim(self.pods)
        self.pending = self.claims.index("pending", lambda c: [] if plan.bind_completed(c) else ["pending"])
        self.of_claim = self.volumes.index("claim", lambda v: [claim_text(v)])
        self.claims.on_change(self.claim_moved)
        self.volumes.on_change(self.volume_moved)
        self.classes.on_change(self.class_moved)

    @property
    def workers(self) -> int:
        return 1

    def claim_moved(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        if new is not None:
            self.queue.add(key_of(new))
        moved = new or old
        assert moved is not None
        if moved.spec.volume_name:
            self.queue.add(("", moved.spec.volume_name))
        if new is None:
            for volume in self.of_claim.keys(f"{moved.namespace}/{moved.name}"):
                self.queue.add(volume)

    def volume_moved(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        if new is not None:
            self.queue.add(key_of(new))
        for state in (old, new):
            if state is not None and state.spec.claim_ref is not None:
                self.queue.add((state.spec.claim_ref.namespace, state.spec.claim_ref.name))
        if new is not None and new.spec.claim_ref is None and (old is None or old.status.phase != new.status.phase):
            self.wake_pending()
        if new is None and old is not None:
            self.wake_pending(old.name)

    def class_moved(self, old: StorageClass | None, new: StorageClass | None) -> None:
        self.wake_pending()

    def wake_pending(self, volume: str = "") -> None:
        """Look at all claims that wait; with a volume's name, at those that ask for it by name."""
        for claim in self.pending.get("pending"):
            if not volume or claim.spec.volume_name == volume:
                self.queue.add(key_of(claim))

    async def reconcile(self, key: Key) -> None:
        try:
            if key[0]:
                claim = self.claims.get(key)
                if claim is not None:
                    await self.sync_claim(claim)
            else:
                volume = self.volumes.get(key)
                if volume is not None:
                    await self.sync_volume(volume)
        except NotFound:
            return  # gone meanwhile; the cache will show it

    # -- claims -------------------------------------------------------------------------------------------------------

    async def sync_claim(self, claim: PersistentVolumeClaim) -> None:
        named = self.volumes.get(("", claim.spec.volume_name)) if claim.spec.volume_name else None
        free = self.of_claim.get("")
        candidates = [*free, *self.of_claim.get(f"{claim.namespace}/{claim.name}")]
        using = self.pods_of_claim.get(f"{claim.namespace}/{claim.name}")
        waiting = sorted(p.name for p in using if not p.spec.node_name)
        step = plan.plan_claim(claim, named, candidates, self.by_name(), waiting)
        if step.bind is not None:
            await self.bind(step.bind, claim)
            return
        if step.assign:
            spec = {"storageClassName": step.assign}
            await self.patch(PERSISTENT_VOLUME_CLAIM, claim, {"spec": spec})
            return
        if step.provisioner:
            wanted = {plan.PROVISIONER: step.provisioner, plan.OLD_PROVISIONER: step.provisioner}
            if not wanted.items() <= (claim.metadata.annotations or {}).items():
                claim = await self.patch(PERSISTENT_VOLUME_CLAIM, claim, {"metadata": {"annotations": wanted}})
        if step.said is not None and not (step.phase == claim.status.phase == "Lost"):
            self.events.event(PERSISTENT_VOLUME_CLAIM, claim, *step.said)
        await self.claim_status(claim, step.phase, None)
        if step.phase == "Pending":
            self.queue.add_after(key_of(claim), RESYNC_SECONDS)

    def by_name(self) -> Mapping[str, StorageClass]:
        return {c.name: c for c in self.classes.values()}

    async def bind(self, volume: PersistentVolume, claim: PersistentVolumeClaim) -> None:
        """Both sides, the volume's first; whatever is done already is left alone."""
        if patch := plan.volume_bond(volume, claim):
            volume = await self.patch(PERSISTENT_VOLUME, volume, patch)
        await self.volume_status(volume, "Bound", "")
        if patch := plan.claim_bond(claim, volume.name):
            claim = await self.patch(PERSISTENT_VOLUME_CLAIM, claim, patch)
        await self.claim_status(claim, "Bound", volume)

    async def claim_status(self, claim: PersistentVolumeClaim, phase: str, volume: PersistentVolume | None) -> None:
        if phase and (status := plan.claim_status(claim, phase, volume)):
            await self.change_status(PERSISTENT_VOLUME_CLAIM, claim, status)

    # -- volumes ------------------------------------------------------------------------------------------------------

    async def sync_volume(self, volume: PersistentVolume) -> None:
        claim = await self.claim_of(volume)
        step = plan.plan_volume(volume, claim)
        if step.wake and claim is not None:
            self.queue.add(key_of(claim))
        if step.unbind:
            volume = await self.unbind(volume)
        if step.said is not None and (not step.phase or step.phase != volume.status.phase):
            self.events.event(PERSISTENT_VOLUME, volume, *step.said)
        if step.phase:
            await self.volume_status(volume, step.phase, step.message)

    async def claim_of(self, volume: PersistentVolume) -> PersistentVolumeClaim | None:
        """The claim that a volume names. One that the cache lacks is asked for: what a volume held may be removed."""
        ref = volume.spec.claim_ref
        if ref is None or not ref.uid:
            return None
        found: PersistentVolumeClaim | None = self.claims.get((ref.namespace, ref.name))
        if found is not None and found.metadata.uid == ref.uid:
            return found
        try:
            live = await self.client.get(PERSISTENT_VOLUME_CLAIM, ref.name, ref.namespace)
        except NotFound:
            return None
        claim: PersistentVolumeClaim = typed(live, PersistentVolumeClaim)
        return claim if claim.metadata.uid == ref.uid else None

    async def unbind(self, volume: PersistentVolume) -> PersistentVolume:
        """Forget the claim; one that somebody named by hand is only forgotten to have been bound."""
        patch: Object = {"spec": {"claimRef": {"uid": None, "resourceVersion": None}}}
        if BOUND_BY_CONTROLLER in (volume.metadata.annotations or {}):
            patch = {"metadata": {"annotations": {BOUND_BY_CONTROLLER: None}}, "spec": {"claimRef": None}}
        return await self.patch(PERSISTENT_VOLUME, volume, patch)

    async def volume_status(self, volume: PersistentVolume, phase: str, message: str) -> None:
        if volume.status.phase == phase:
            return
        status = {
            "phase": phase,
            "message": message or None,
            "lastPhaseTransitionTime": rfc3339(self.ctx.clock.now()),
        }
        await self.change_status(PERSISTENT_VOLUME, volume, status)

    # -- writing ------------------------------------------------------------------------------------------------------

    async def patch(self, kind: Kind, obj: T, patch: Object) -> T:
        """Change the very version that was decided on; as it is then. Raises Conflict for another one."""
        return typed(await put_version(self.client, kind, obj, patch), type(obj))

    async def change_status(self, kind: Kind, obj: Typed, status: Object) -> None:
        await put_change(self.client, kind, obj, {"status": status}, subresource="status")


def claim_text(volume: PersistentVolume) -> str:
    """NAMESPACE/NAME of the claim that a volume names, "" for none."""
    ref = volume.spec.claim_ref
    return f"{ref.namespace}/{ref.name}" if ref is not None else ""
