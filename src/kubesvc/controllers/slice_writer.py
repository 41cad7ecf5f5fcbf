"""Carries out slice plans, and tells the tracker what the server answered (SLICE-28, SLICE-29)."""

from __future__ import annotations

from kubesvc.api.endpointslice import ENDPOINT_SLICE, EndpointSlice
from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.meta import Object, plain
from kubesvc.client.interface import Client, Unreachable
from kubesvc.client.shadow import Withheld
from kubesvc.client.workqueue import Key, key_text

from .metrics import SliceMetrics
from .runner import ExpectedFailure, closing
from .slice_plan import SlicePlan
from .slice_tracker import SliceTracker


class SliceWriteFailed(ExpectedFailure):
    """The server refused a write of a plan, or was not there; what came before it is done."""


class SliceWriter:
    """Writes plans of one controller. `owner` is the word for what owns the slices in error texts."""

    def __init__(self, client: Client, tracker: SliceTracker, owner: str, metrics: SliceMetrics) -> None:
        self.client = client
        self.tracker = tracker
        self.owner = owner
        self.metrics = metrics

    async def apply(self, key: Key, plan: SlicePlan) -> None:
        """Creates, then updates, then deletes, up to the first failure (SliceWriteFailed).

        A namespace that takes no more creates ends the plan without one (WRITE-12). Writes that are only noted
        (`Withheld`) are gone through to the last, and fail then.
        """
        noted: SliceWriteFailed | None = None
        steps = [(self.create, s) for s in plan.create]
        steps += [(self.update, s) for s in plan.update]
        steps += [(self.delete, s) for s in plan.delete]
        for step, s in steps:
            try:
                await step(key, s)
            except SliceWriteFailed as failure:
                if step == self.create and closing(failure.__cause__):
                    return
                if not isinstance(failure.__cause__, Withheld):
                    raise
                noted = failure
        if noted is not None:
            raise noted

    async def create(self, key: Key, s: EndpointSlice) -> None:
        try:
            answer = await self.client.create(ENDPOINT_SLICE, plain(s), key[0])
        except (ApiError, Unreachable) as error:
            raise self.failure("create", "", key, error) from error
        self.note("create", key, answer)

    async def update(self, key: Key, s: EndpointSlice) -> None:
        try:
            answer = await self.client.update(ENDPOINT_SLICE, plain(s))
        except (ApiError, Unreachable) as error:
            raise self.failure("update", s.name, key, error) from error
        self.note("update", key, answer)

    async def delete(self, key: Key, s: EndpointSlice) -> None:
        """Delete this very slice; one that is gone already is fine."""
        known = self.tracker.knows(key, s)
        self.tracker.deletes(key, s.metadata.uid)
        try:
            await self.client.delete(ENDPOINT_SLICE, s.name, s.namespace, uid=s.metadata.uid)
            self.metrics.writes.wrote("delete")
        except NotFound:
            return
        except (ApiError, Unreachable) as error:
            self.tracker.undo_delete(key, s, known)
            raise self.failure("delete", s.name, key, error) from error

    def note(self, operation: str, key: Key, answer: Object) -> None:
        self.metrics.writes.wrote(operation, answer)
        meta = answer["metadata"]
        self.tracker.wrote(key, str(meta.get("uid", "")), int(meta.get("generation") or 0))

    def failure(self, verb: str, name: str, key: Key, error: Exception) -> SliceWriteFailed:
        which = f"{name} EndpointSlice" if name else "EndpointSlice"
        return SliceWriteFailed(f"failed to {verb} {which} for {self.owner} {key_text(key)}: {error}")
