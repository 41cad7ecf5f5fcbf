"""Garbage collector: deletes what its owners left behind, and finishes foreground and orphaning deletions (GC-1 to 5).

The graph of owners is kept in the informers' caches; a decision to delete is never taken on a cache alone: a live GET
confirms that the owner is gone (GC-5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import KINDS, POD, by_kind
from kubesvc.api.meta import Object, OwnerReference, Typed
from kubesvc.client.informer import Informer
from kubesvc.client.workqueue import Key, RetryPolicy

from .customkinds import CustomKinds
from .ownership import patch_owners
from .runner import Controller, ControllerContext
from .slimpod import pods_of
from .versioned import set_finalizers

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
IGNORED = frozenset({"events", "leases"})
"""Resources that are many, short-lived and own nothing."""


@dataclass(frozen=True, slots=True)
class Owners:
    """An object's owners by what became of them: there, being deleted and waiting for us, or gone."""

    solid: tuple[OwnerReference, ...]
    waiting: tuple[OwnerReference, ...]
    dangling: tuple[OwnerReference, ...]


class GarbageCollector(Controller):
    """Keys are (resource, "namespace/name"), since they are of all kinds."""

    name = "garbage-collector-controller"
    component = "generic-garbage-collector"
    policy = RetryPolicy(base_seconds=0.01, cap_seconds=30.0, most=0, per_second=0)

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.informers: dict[str, Informer[Typed]] = {}
        for kind in KINDS:
            if kind.plural not in IGNORED and {"list", "watch", "delete"} <= set(kind.verbs):
                informer: Informer[Any] = pods_of(ctx.informers) if kind is POD else ctx.informers.of(kind)
                self.follow(kind, informer)
        self.custom_turn = asyncio.Event()
        self.custom = CustomKinds(ctx.informers, lambda *_: self.custom_turn.set())
        self.confirmed_absent: dict[tuple[str, str], None] = {}
        """(namespace, uid) that a live GET found gone; a uid never comes back, so this is safe to remember (bounded).
        The same uid may live in another namespace, where it is an owner to others."""
        self.told_abroad: dict[tuple[str, str], None] = {}
        """Dependents' and owners' uids of which an Event said that they live in different namespaces (bounded)."""

    def follow(self, kind: Kind, informer: Informer[Typed]) -> None:
        """See the objects of a kind as owners and dependents."""
        informer.index("owners", lambda o: [r.uid for r in o.metadata.owner_references or ()])
        informer.on_change(partial(self.moved, kind))
        self.informers[kind.resource] = informer

    # ---------------------------------------------------------------- custom kinds, which come and go

    async def run_beside(self) -> None:
        """Follow the objects of custom kinds, each while its definition is there."""
        running: dict[str, tuple[Kind, asyncio.Task[None]]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self.custom_turn.clear()
                for resource, (kind, task) in list(running.items()):
                    if self.custom.by_resource.get(resource) is not kind:
                        task.cancel()
                        gone = self.informers.pop(resource)
                        del running[resource]
                        for obj in gone.values() if resource not in self.custom.by_resource else ():
                            self.moved(kind, obj, None)  # a definition goes after its objects
                for resource, kind in self.custom.by_resource.items():
                    if resource not in running:
                        informer: Informer[Typed] = Informer(
                            self.client, kind, clock=self.ctx.clock, random=self.ctx.random
                        )
                        self.follow(kind, informer)
                        running[resource] = (kind, group.create_task(informer.run(), name=f"informer {resource}"))
                await self.custom_turn.wait()

    # ---------------------------------------------------------------- what wakes a key

    def moved(self, kind: Kind, old: Typed | None, new: Typed | None) -> None:
        if new is None:
            assert old is not None
            if not kind.schema:  # of a custom kind, which may be unknown by the time its dependents are looked at
                self.confirm_absent(old.metadata.namespace, old.metadata.uid)
            for dependent_kind, dependent in self.dependents(old.metadata.uid):
                self.queue.add(graph_key(dependent_kind, dependent))
            for reference in old.metadata.owner_references or ():
                self.wake_owner(reference, old.namespace)
        elif (old is None or owned_as(old) != owned_as(new)) and (
            new.metadata.owner_references or (new.metadata.deletion_timestamp and new.metadata.finalizers)
        ):
            self.queue.add(graph_key(kind, new))

    def wake_owner(self, reference: OwnerReference, namespace: str) -> None:
        """An owner that is deleted in the foreground waits for its dependents to go."""
        found = self.find_owner(reference, namespace)
        if found is not None and found[1].metadata.deletion_timestamp:
            self.queue.add(graph_key(*found))

    def dependents(self, uid: str) -> list[tuple[Kind, Typed]]:
        return [(i.kind, o) for i in self.informers.values() for o in i.index("owners", no_values).get(uid)]

    def find_owner(self, reference: OwnerReference, namespace: str) -> tuple[Kind, Typed] | None:
        """The owner of an object of this namespace, as a cache shows it."""
        kind = self.kind_named(reference)
        informer = self.informers.get(kind.resource) if kind else None
        if informer is None:
            return None
        found = informer.get((namespace if informer.kind.namespaced else "", reference.name))
        return (informer.kind, found) if found is not None and found.metadata.uid == reference.uid else None

    def kind_named(self, reference: OwnerReference) -> Kind | None:
        return by_kind(reference.api_version, reference.kind) or self.custom.by_kind(
            reference.api_version, reference.kind
        )

    # ---------------------------------------------------------------- one key

    async def reconcile(self, key: Key) -> None:
        resource, path = key
        informer = self.informers.get(resource)
        if informer is None:
            return  # of a custom kind that is gone, and its objects with it
        namespace, _, name = path.rpartition("/")
        obj = informer.get((namespace, name))
        if obj is None:
            return
        if obj.metadata.deletion_timestamp is not None:
            await self.finish_owner(informer.kind, obj)
            if FOREGROUND not in (obj.metadata.finalizers or ()):
                return
        if not obj.metadata.owner_references or obj.metadata.deletion_timestamp is not None:
            return
        await self.collect(informer.kind, obj, await self.classify(informer.kind, obj))

    async def finish_owner(self, kind: Kind, owner: Typed) -> None:
        """Do for a deletion's finalizer what it stands for, then take it away (GC-3)."""
        finalizers = owner.metadata.finalizers or []
        if ORPHAN in finalizers:
            for dependent_kind, dependent in self.dependents(owner.metadata.uid):
                left = [
                    msgspec.to_builtins(r)
                    for r in dependent.metadata.owner_references or ()
                    if r.uid != owner.metadata.uid
                ]
                await patch_owners(self.client, dependent_kind, dependent, left)
            await self.drop_finalizer(kind, owner, ORPHAN)
        elif FOREGROUND in finalizers:
            blocking = [
                (k, d)
                for k, d in self.dependents(owner.metadata.uid)
                if any(
                    r.uid == owner.metadata.uid and r.block_owner_deletion for r in d.metadata.owner_references or ()
                )
            ]
            for dependent_kind, dependent in blocking:
                self.queue.add(graph_key(dependent_kind, dependent))
            if not blocking:
                await self.drop_finalizer(kind, owner, FOREGROUND)

    async def drop_finalizer(self, kind: Kind, obj: Typed, finalizer: str) -> None:
        left = [f for f in obj.metadata.finalizers or () if f != finalizer]
        await set_finalizers(self.client, kind, obj, left)

    async def classify(self, kind: Kind, obj: Typed) -> Owners:
        solid, waiting, dangling = [], [], []
        for reference in obj.metadata.owner_references or ():
            owner_kind = self.kind_named(reference)
            if owner_kind is not None and owner_kind.namespaced and not kind.namespaced:
                self.tell_abroad(kind, obj, owner_kind, reference)
                solid.append(reference)  # never to be collected (GC-4)
                continue
            if any((where, reference.uid) in self.confirmed_absent for where in (obj.namespace, "")):
                dangling.append(reference)
                continue
            if owner_kind is None:
                solid.append(reference)  # of a kind this cluster does not know
                continue
            owner = await self.owner_now(owner_kind, reference, obj.namespace)
            if owner is None:
                self.tell_abroad(kind, obj, owner_kind, reference)
                dangling.append(reference)
            elif owner.metadata.deletion_timestamp and FOREGROUND in (owner.metadata.finalizers or ()):
                waiting.append(reference)
            else:
                solid.append(reference)
        return Owners(tuple(solid), tuple(waiting), tuple(dangling))

    async def owner_now(self, kind: Kind, reference: OwnerReference, namespace: str) -> Typed | None:
        """The owner, None if it is gone for sure: another uid under its name, or a live GET that finds nothing."""
        where = namespace if kind.namespaced else ""
        if (where, reference.uid) in self.confirmed_absent:
            return None
        informer = self.informers.get(kind.resource)
        cached = informer.get((where, reference.name)) if informer else None
        if cached is not None and cached.metadata.uid == reference.uid:
            return cached
        try:
            live = outline_of(await self.client.get(kind, reference.name, where))
        except NotFound:
            live = None
        if live is not None and live.metadata.uid == reference.uid:
            return live
        self.confirm_absent(where, reference.uid)
        return None

    def tell_abroad(self, kind: Kind, obj: Typed, owner_kind: Kind, reference: OwnerReference) -> None:
        """An owner that is there but in another namespace is none (GC-4); say so once."""
        informer, both = self.informers.get(owner_kind.resource), (obj.metadata.uid, reference.uid)
        if informer is None or not owner_kind.namespaced or both in self.told_abroad:
            return
        elsewhere = (informer.get((n, reference.name)) for n in informer.namespaces() if n != obj.namespace)
        if not any(o is not None and o.metadata.uid == reference.uid for o in elsewhere):
            return
        self.told_abroad[both] = None
        if len(self.told_abroad) > 10_000:
            del self.told_abroad[next(iter(self.told_abroad))]
        who = (
            f"[{reference.api_version}/{reference.kind}, namespace: {obj.namespace}, name: {reference.name}, "
            f"uid: {reference.uid}]"
        )
        text = f'ownerRef {who} does not exist in namespace "{obj.namespace}"'
        self.events.event(kind, obj, "Warning", "OwnerRefInvalidNamespace", text)

    def confirm_absent(self, namespace: str, uid: str) -> None:
        """Remember that nothing in this namespace ("" for the cluster) will ever have this uid again."""
        self.confirmed_absent[namespace, uid] = None
        if len(self.confirmed_absent) > 10_000:
            del self.confirmed_absent[next(iter(self.confirmed_absent))]

    async def collect(self, kind: Kind, obj: Typed, owners: Owners) -> None:
        """GC-1: no owner left, delete; some left, drop the references to the others."""
        if owners.solid:
            if owners.dangling or owners.waiting:
                left = [msgspec.to_builtins(r) for r in owners.solid]
                await patch_owners(self.client, kind, obj, left)
            return
        policy = "Background"
        if owners.waiting and self.dependents(obj.metadata.uid):
            policy = "Foreground"
        elif ORPHAN in (obj.metadata.finalizers or ()):
            policy = "Orphan"
        elif FOREGROUND in (obj.metadata.finalizers or ()):
            policy = "Foreground"
        try:
            await self.client.delete(kind, obj.name, obj.namespace, uid=obj.metadata.uid, propagation=policy)
        except (NotFound, Conflict):
            return


def outline_of(live: Object) -> Typed:
    """What matters of an owner, whatever else it is: an odd field must not make its dependents wait for ever."""
    meta = live.get("metadata") or {}
    read = {key: meta[key] for key in ("name", "namespace", "uid", "deletionTimestamp", "finalizers") if key in meta}
    return msgspec.convert({"metadata": read}, Typed)


def owned_as(obj: Typed) -> tuple[object, ...]:
    """What of an object makes the collector look at it; most changes are of something else."""
    meta = obj.metadata
    return meta.uid, meta.owner_references, meta.deletion_timestamp, meta.finalizers


def graph_key(kind: Kind, obj: Typed) -> Key:
    return (kind.resource, f"{obj.metadata.namespace}/{obj.metadata.name}")


def no_values(_: Typed) -> Sequence[str]:
    """Stands where an index exists already and is only asked for by name."""
    raise AssertionError("the index is made in the constructor")
