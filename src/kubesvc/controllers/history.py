"""Keeps the ControllerRevisions of owners of pods: finds or makes the one of today's template, drops old ones."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from kubesvc.api.controllerrevision import ControllerRevision
from kubesvc.api.errors import AlreadyExists, Conflict, NotFound
from kubesvc.api.kinds import CONTROLLER_REVISION
from kubesvc.api.meta import Typed
from kubesvc.api.pod import PodTemplateSpec

from .ownership import adopt, controller_uid, plan_claim
from .podowner import PodOwnerController
from .revisions import HASH_LABEL, find_revision, oldest_first, plan_truncation, render_revision
from .runner import ControllerContext

OwnerT = TypeVar("OwnerT", bound=Typed)


class RevisedController(PodOwnerController[OwnerT]):
    """Base of controllers whose owners' templates have a history."""

    hash_label = HASH_LABEL
    """Under which label a revision bears its hash."""

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.revisions = ctx.informers.of(CONTROLLER_REVISION)
        self.revisions_by_owner = self.revisions.index("controller", lambda r: [controller_uid(r)])
        self.stray_revisions = self.revisions.index(
            "orphans", lambda r: [r.namespace] if r.metadata.controller is None else []
        )
        self.revisions.on_change(self.revision_moved)

    def revision_moved(self, old: ControllerRevision | None, new: ControllerRevision | None) -> None:
        for revision in (old, new):
            if revision is not None:
                for owner in self.owners_by_uid.get(controller_uid(revision)):
                    self.queue.add((owner.namespace, owner.name))

    async def history(self, owner: OwnerT) -> list[ControllerRevision]:
        """The owner's revisions, oldest first, after adopting those that only lack an owner."""
        owned = self.revisions_by_owner.get(owner.metadata.uid)
        claim = plan_claim(owner, self.selector_of(owner), owned, self.stray_revisions.get(owner.namespace))
        for revision in claim.adopt:
            await adopt(self.client, CONTROLLER_REVISION, revision, owner, self.kind)
        return sorted([*owned, *claim.adopt], key=oldest_first)

    async def current_revision(
        self, owner: OwnerT, template: PodTemplateSpec, history: list[ControllerRevision], collisions: int | None
    ) -> ControllerRevision | None:
        """The revision of the owner's template, made or renumbered if need be, and then part of `history`.

        collisions: the owner's status.collisionCount
        None: a hash collided, which is noted in the status, or the cache is behind; the key will come back.
        """
        found = find_revision(template, history)
        if found is not None and found.number == found.revision.revision:
            return found.revision
        if found is not None:
            patch = {"metadata": {"uid": found.revision.metadata.uid}, "revision": found.number}
            plain = await self.client.patch(CONTROLLER_REVISION, found.revision.name, owner.namespace, patch, "merge")
            history.remove(found.revision)
        else:
            live = await self.live(owner)
            wanted = live["spec"]["template"]
            if msgspec.convert(wanted, PodTemplateSpec) != template:
                return None  # the cache is behind; the change will wake this key
            number = history[-1].revision + 1 if history else 1
            body = render_revision(
                owner, self.kind.api_version, self.kind.name, wanted, number, collisions, self.hash_label
            )
            try:
                plain = await self.client.create(CONTROLLER_REVISION, body, owner.namespace)
            except AlreadyExists:
                plain = await self.client.get(CONTROLLER_REVISION, body["metadata"]["name"], owner.namespace)
                taken = msgspec.convert(plain, ControllerRevision)
                if plain.get("data") != body["data"] or controller_uid(taken) != owner.metadata.uid:
                    await self.change_status(owner, {"collisionCount": (collisions or 0) + 1})
                    return None
        revision = msgspec.convert(plain, ControllerRevision)
        history.append(revision)
        return revision

    async def truncate(self, history: list[ControllerRevision], in_use: list[str], limit: int | None) -> None:
        for revision in plan_truncation(history, in_use, limit):
            try:
                await self.client.delete(
                    CONTROLLER_REVISION, revision.name, revision.namespace, uid=revision.metadata.uid
                )
            except (NotFound, Conflict):
                continue
