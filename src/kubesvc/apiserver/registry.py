"""The verbs on objects: create, get, list, update, patch, delete, in the order of steps that WRITE-9 gives.

The registry is what HTTP requests and in-process clients both end at. It reads from the watch cache (`reading`), writes
by compare-and-write transactions of the store (`commits`), and leaves to others what a kind means (`Kind`), what
admission adds (`admission`), what is allocated along (`hooks`), and how patches and field ownership work (`patches`,
`apply`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from kubesvc.api import fields
from kubesvc.api.errors import ApiError, BadRequest, MethodNotAllowed
from kubesvc.api.kind import Kind, Situation
from kubesvc.api.kinds import KINDS
from kubesvc.api.meta import Object, metadata
from kubesvc.api.objectmeta import validate_metadata, validate_metadata_update
from kubesvc.clock import Clock, Random, rfc3339
from kubesvc.store import Delete, Moved, Put, Store

from . import bookkeeping, refusals
from .admission import Admission, asked_of
from .apply import Applied, equal_but_for_times, update_managed_fields
from .cache import Cache, Item
from .commits import Commits, Pending, give_back
from .conversion import Conversions
from .deletion import gone_with_update, plan_deletion
from .hooks import Reservation, WriteHooks
from .kindset import KindSet
from .options import DeleteOptions, ListOptions, WriteOptions
from .patience import rule_errors
from .reading import Reading
from .results import Deleted, ListPage, Written, base_of
from .settings import ApiServerSettings
from .storage import decode, encode, seen, storage_key
from .webhooks import Asked
from .writerules import check_namespace, check_preconditions, restore_part

TRIES = 5
"""How often a write without a resourceVersion is tried when others write the object meanwhile (PATCH-3)."""
NAME_TRIES = 8
RESPECIFYING = ("resize", "ephemeralcontainers")
"""Subresources that change what is wanted of an object by rules of their own."""

Edit = Callable[[Object], Object]
"""Makes the wanted object of a freshly decoded stored one, which it may change or keep. Called once per try."""

_json = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one stored object that is asked for.

    view:      the kind as it is asked for; `kind` is the one that is stored
    edit:      makes the wanted object of the stored one
    applying:  the edit is an apply and has already written managedFields
    check:     whether the kind's update rules and validation apply (subresources that change one field by their own
               rules, such as binding, are exempt)
    copies:    the edit neither changes what it is given nor returns anything that shares content with it
    """

    view: Kind
    namespace: str
    name: str
    edit: Edit
    options: WriteOptions
    subresource: str = ""
    applying: bool = False
    check: bool = True
    copies: bool = False

    @property
    def kind(self) -> Kind:
        return base_of(self.view)

    @property
    def key(self) -> str:
        return storage_key(self.kind, self.namespace, self.name)


class Registry(Reading):
    """Verbs on the objects of one store. `hooks` are asked around writes of their kinds."""

    def __init__(
        self,
        cache: Cache,
        store: Store,
        settings: ApiServerSettings,
        clock: Clock,
        random: Random,
        hooks: Mapping[Kind, WriteHooks] | None = None,
        kinds: KindSet | None = None,
    ) -> None:
        self.admission = Admission(settings, cache, clock, random)
        super().__init__(cache, store, Conversions(self.admission.webhooks, random))
        self.commits = Commits(store, self.admission, clock, random)
        self.settings = settings
        self.clock = clock
        self.random = random
        self.hooks: dict[Kind, WriteHooks] = dict(hooks or {})
        self.kinds = kinds or KindSet(KINDS)
        self.admission.policies.kinds = self.admission.changes.kinds = self.kinds
        self.situation = Situation(families=settings.families)
        self.advisers: dict[Kind, Callable[[Object, Object | None], Iterable[str]]] = {}
        """Asked for further warnings about what is written of a kind, with what was there before; none unless set."""

    async def encoded(self, kind: Kind, obj: Object) -> bytes:
        """The value to store of an object: of a custom kind whose versions a webhook converts, in the stored one."""
        custom = kind.custom
        if custom is None or custom.webhook is None:
            return encode(kind, obj)
        value = encode(kind, await self.conversions.stored_form(kind, custom, obj))
        if custom.foreign(value):
            custom.remember(value, {**obj, "apiVersion": custom.api_version, "kind": kind.name})
        return value

    # ------------------------------------------------------------------ creating

    async def create(
        self, kind: Kind, namespace: str, obj: Object, options: WriteOptions, warnings: list[str]
    ) -> Written:
        """Store a new object. `obj` becomes the registry's own. Follows META-2 to META-6 and WRITE-1, -7, -9, -12."""
        view, kind = kind, base_of(kind)
        if view.stored:
            obj = view.to_stored(obj)
        meta = metadata(obj)
        check_namespace(kind, meta, namespace)
        if meta.get("resourceVersion") not in (None, "", "0"):
            raise refusals.plain_failure("resourceVersion should not be set on objects to be created")
        if kind.custom is not None and kind.custom.terminating:
            raise MethodNotAllowed("create not allowed while custom resource definition is terminating")
        await self.current()
        return await self._create(view, kind, namespace, obj, options, warnings)

    async def _create(
        self,
        view: Kind,
        kind: Kind,
        namespace: str,
        obj: Object,
        options: WriteOptions,
        warnings: list[str],
        applying: bool = False,
    ) -> Written:
        meta = metadata(obj)
        kind.default(obj)
        warn(warnings, bookkeeping.drop_duplicate_owners(meta))
        now = self.clock.now()
        bookkeeping.clear_system_metadata(meta, kind)
        if not applying:
            update_managed_fields(None, obj, kind, options.manager, rfc3339(now))
        await self.admission.create(kind, namespace, obj, options)
        if not self.admission.idle:
            asked = asked_of("CREATE", kind, namespace, obj, None, dry_run=options.dry_run)
            obj = await self.admission.mutate(asked, warnings) or obj
        bookkeeping.fill_system_metadata(obj, kind, now, self.random)
        generate = "" if meta.get("name") else meta.get("generateName") or ""
        original = _json.encode(obj) if generate or kind in self.hooks else b""
        tries = 0
        while True:
            tries += 1
            if generate:
                metadata(obj)["name"] = bookkeeping.generated_name(generate, self.random)
                kind.default(obj)  # what follows from the name
            try:
                return await self._create_once(view, kind, namespace, obj, options, warnings)
            except Moved as e:
                mine = e.key == storage_key(kind, namespace, obj["metadata"]["name"])
                if mine and not generate:
                    terminating = e.found is not None and Item(kind, "", e.found.value, 0).terminating
                    raise refusals.already_exists(view, obj["metadata"]["name"], terminating=terminating) from None
                if tries >= NAME_TRIES:
                    if mine:
                        raise refusals.already_exists(view, obj["metadata"]["name"], generated=True) from None
                    raise refusals.conflict(view, obj["metadata"]["name"]) from None
                obj = msgspec.json.decode(original)

    async def _create_once(
        self,
        view: Kind,
        kind: Kind,
        namespace: str,
        obj: Object,
        options: WriteOptions,
        warnings: list[str],
    ) -> Written:
        meta = obj["metadata"]
        kind.prepare_create(obj)
        reservation = await self._reserve_create(kind, obj, options, warnings)
        try:
            errors = validate_metadata(obj, kind) + kind.validate(obj, self.situation)
            errors += await rule_errors(kind, obj, None, errors, warnings)
            if errors:
                raise fields.invalid_object(view.group, view.name, meta.get("name") or "", errors)
            self.admission.validate_create(kind, namespace, obj)
            warn(warnings, kind.warn(obj, None))
            if (advise := self.advisers.get(kind)) is not None:
                warn(warnings, advise(obj, None))
            value = await self.encoded(kind, obj)
            if options.dry_run and (found := self.of(kind).get(namespace, meta["name"])) is not None:
                raise refusals.already_exists(view, meta["name"], terminating=found.terminating)
            if not self.admission.idle:
                asked = asked_of("CREATE", kind, namespace, obj, None, dry_run=options.dry_run)
                await self.admission.ask(asked, warnings)
            release = self.admission.hold(kind, namespace, obj, None, dry_run=options.dry_run)
            if options.dry_run:
                give_back(reservation)
                return Written(view, value, 0, created=True)
        except BaseException:
            give_back(reservation)
            raise
        key = storage_key(kind, namespace, meta["name"])
        put = Put(key, value, 0)
        revision = await self.commits.held(Pending(kind, namespace, None, obj, put, reservation), release)
        return Written(view, value, revision, created=True)

    async def _reserve_create(
        self, kind: Kind, obj: Object, options: WriteOptions, warnings: list[str]
    ) -> Reservation | None:
        hook = self.hooks.get(kind)
        if hook is None:
            return None
        reservation = await hook.before_create(obj, options.dry_run)
        warn(warnings, reservation.warnings)
        return reservation

    # ------------------------------------------------------------------ changing

    async def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        obj: Object,
        options: WriteOptions,
        warnings: list[str],
        *,
        subresource: str = "",
    ) -> Written:
        """PUT: replace an object by `obj`, which becomes the registry's own (WRITE-3 to WRITE-6)."""
        view, kind = kind, base_of(kind)
        if view.stored:
            obj = view.to_stored(obj)
        meta = metadata(obj)
        found_name = meta.get("name") or ""
        if not found_name:
            raise BadRequest(f"the name of the object ({name} based on URL) was undeterminable: name must be provided")
        if found_name != name:
            raise BadRequest(f"the name of the object ({found_name}) does not match the name on the URL ({name})")
        check_namespace(kind, meta, namespace)
        await self.current()
        sent_uid, sent_version = meta.get("uid") or "", meta.get("resourceVersion") or ""
        if sent_version and (problem := refusals.version_problem(sent_version)):
            raise refusals.plain_failure(problem)
        if self.of(kind).get(namespace, name) is None and await self._absent(kind, namespace, name):
            if not kind.create_on_put or subresource:
                raise refusals.not_found(view, name)
            if sent_uid:
                raise refusals.uid_conflict(view, namespace, name, sent_uid, "")
            meta.pop("resourceVersion", None)
            return await self._create(view, kind, namespace, obj, options, warnings)
        if not sent_version and not kind.unversioned_update:
            error = fields.invalid("metadata.resourceVersion", 0, "must be specified for an update")
            raise fields.invalid_object(view.group, view.name, name, [error])
        original = b"" if sent_version and kind not in self.hooks else _json.encode(obj)
        first: list[Object] = [obj]

        def edit(old: Object) -> Object:
            wanted = first.pop() if first else msgspec.json.decode(original)
            if sent_uid and sent_uid != old["metadata"]["uid"]:
                raise refusals.uid_conflict(view, namespace, name, sent_uid, old["metadata"]["uid"])
            result: Object = wanted
            return result

        change = Change(view, namespace, name, edit, options, subresource, copies=True)
        return await self.change(change, warnings, tries=1 if sent_version else TRIES, current=True)

    async def _absent(self, kind: Kind, namespace: str, name: str) -> bool:
        """Whether an object that the cache lacks is missing in the store too."""
        await self.fresh()
        return self.of(kind).get(namespace, name) is None

    async def change(
        self, change: Change, warnings: list[str], *, tries: int = TRIES, current: bool = False
    ) -> Written:
        """Change a stored object, again on its newest state when others changed it meanwhile.

        warnings: what is to be said about it is added here
        current:  the caller has waited for `current` already
        """
        if not current:
            await self.current()
        kind, namespace, name, key = change.view, change.namespace, change.name, change.key
        item = self.of(kind).get(namespace, name)
        value, revision = (item.value, item.revision) if item is not None else (None, 0)
        if value is None:
            entry = await self.store.get(key)
            if entry is None:
                raise refusals.not_found(kind, name)
            value, revision = entry.value, entry.modified
        collected: list[str] = []
        attempt, names = 1, 1
        while attempt <= tries and names <= NAME_TRIES:
            collected = []
            try:
                written = await self._change_once(change, value, revision, collected)
                warn(warnings, collected)
                return written
            except Moved as e:
                if e.key != key:
                    names += 1  # a companion's name was taken: allocate another
                    continue
                if e.found is None:
                    raise refusals.not_found(kind, name) from None
                if attempt == tries:
                    raise refusals.conflict(kind, name) from None
                value, revision = e.found.value, e.found.modified
                attempt += 1
            except ApiError:
                warn(warnings, collected)
                raise
        raise refusals.conflict(kind, name)

    async def _change_once(self, change: Change, value: bytes, revision: int, warnings: list[str]) -> Written:
        """One try on the state `value`, which is `revision`; Moved if that is not the newest any more."""
        view, kind, namespace, options, check = (
            change.view, change.kind, change.namespace, change.options, change.check,
        )  # fmt: skip
        await self.conversions.ready(kind, (value,))
        old = seen(kind, value, revision)
        new = self._edited(change, old, value, revision, warnings)
        await self.admission.update(kind, namespace, new, old, change.subresource, options)
        asked: Asked | None = None
        if check and not self.admission.idle:
            asked = asked_of(
                "UPDATE", kind, namespace, new, old,
                subresource=change.subresource, name=change.name, dry_run=options.dry_run,
            )  # fmt: skip
            wanted = await self.admission.mutate(asked, warnings)
            if wanted is not None:
                new = wanted
                bookkeeping.keep_system_metadata(new, old)
                restore_part(kind, new, old, change.subresource)
        reservation = await self._reserve_update(change, new, old, warnings) if check else None
        try:
            if check:
                await self._judge(change, new, old, asked, warnings)
            self._count_generation(change, new, old)
            del old["metadata"]["resourceVersion"]
            new["metadata"].pop("resourceVersion", None)
            if gone_with_update(kind, new, old):
                give_back(reservation)
                return await self._remove_after_update(change, new, old, revision)
            if equal_but_for_times(new, old) and (kind.custom is None or value.startswith(kind.custom.stored_head)):
                give_back(reservation)
                return Written(view, value, revision)
            fresh = await self.encoded(kind, new)
            if fresh == value:
                give_back(reservation)
                return Written(view, value, revision)
            release = self.admission.hold(kind, namespace, new, old, dry_run=options.dry_run)
            if options.dry_run:
                give_back(reservation)
                return Written(view, fresh, revision)
        except BaseException:
            give_back(reservation)
            raise
        put = Put(change.key, fresh, revision)
        written = await self.commits.held(Pending(kind, namespace, old, new, put, reservation), release)
        return Written(view, fresh, written)

    def _edited(self, change: Change, old: Object, value: bytes, revision: int, warnings: list[str]) -> Object:
        """The object that the edit makes of `old`, with what a client cannot change put back and its owners noted."""
        kind = change.kind
        new = change.edit(old if change.copies else seen(kind, value, revision))
        meta, before = metadata(new), old["metadata"]
        sent_version = meta.get("resourceVersion") or ""
        if sent_version and sent_version != before["resourceVersion"]:
            if problem := refusals.version_problem(sent_version):
                raise refusals.plain_failure(problem)
            raise refusals.conflict(change.view, change.name)
        meta["resourceVersion"] = before["resourceVersion"]
        kind.default(new)
        bookkeeping.keep_system_metadata(new, old)
        warn(warnings, bookkeeping.drop_duplicate_owners(meta))
        if change.check:
            restore_part(kind, new, old, change.subresource)
        if not change.applying:
            manager, now = change.options.manager, rfc3339(self.clock.now())
            update_managed_fields(old, new, kind, manager, now, subresource=change.subresource)
        return new

    async def _reserve_update(
        self, change: Change, new: Object, old: Object, warnings: list[str]
    ) -> Reservation | None:
        change.kind.prepare_update(new, old)
        hook = self.hooks.get(change.kind) if not change.subresource else None
        if hook is None:
            return None
        reservation = await hook.before_update(new, old, change.options.dry_run)
        warn(warnings, reservation.warnings)
        return reservation

    async def _judge(self, change: Change, new: Object, old: Object, asked: Asked | None, warnings: list[str]) -> None:
        """What an update must pass: the kind's validation, admission, webhooks; and what is to be said about it."""
        view, kind, subresource = change.view, change.kind, change.subresource
        usual = kind.validate_status if subresource == "status" else kind.validate_update
        validate = kind.validate_parts.get(subresource, usual)
        errors = validate_metadata_update(new, old, kind) + validate(new, old, self.situation)
        errors += await rule_errors(kind, new, old, errors, warnings)
        if errors:
            raise fields.invalid_object(view.group, view.name, change.name, errors)
        self.admission.validate_update(kind, new, old, subresource)
        if asked is not None:
            await self.admission.ask(asked._replace(new=new), warnings)
        if not subresource:
            warn(warnings, kind.warn(new, old))
            if (advise := self.advisers.get(kind)) is not None:
                warn(warnings, advise(new, old))

    def _count_generation(self, change: Change, new: Object, old: Object) -> None:
        """metadata.generation counts the changes of what is wanted."""
        specified = change.subresource in RESPECIFYING or (change.check and change.subresource != "status")
        generation = change.kind.generation
        if generation is not None and specified and generation(new, old):
            new["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1

    async def _remove_after_update(self, change: Change, new: Object, old: Object, revision: int) -> Written:
        """WRITE-8: the write took the last finalizer, so the object goes and its last state is the answer."""
        fresh = await self.encoded(change.kind, new)
        if not change.options.dry_run:
            revision = await self._remove(change.kind, change.key, old, revision)
        return Written(change.view, fresh, revision)

    async def apply(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        merge: Callable[[Object | None], Applied],
        options: WriteOptions,
        warnings: list[str],
        *,
        subresource: str = "",
    ) -> Written:
        """Server-side apply: `merge` makes the wanted object of the live one, or of None if it is missing, in which
        case the object is created (PATCH-2, APPLY-2)."""
        await self.current()
        view, kind = kind, base_of(kind)
        if self.of(kind).get(namespace, name) is None and await self._absent(kind, namespace, name):
            if subresource:
                raise refusals.not_found(view, name)
            applied = merge(None)
            obj = applied.obj
            meta = metadata(obj)
            if uid := meta.get("uid"):
                why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                raise refusals.conflict(view, name, why)
            meta["name"] = name
            check_namespace(kind, meta, namespace)
            warn(warnings, applied.warnings)
            return await self._create(view, kind, namespace, obj, options, warnings, applying=True)

        def edit(live: Object) -> Object:
            applied = merge(live)
            warn(warnings, applied.warnings)
            return applied.obj

        change = Change(view, namespace, name, edit, options, subresource, applying=True)
        return await self.change(change, warnings, current=True)

    # ------------------------------------------------------------------ deleting

    async def delete(self, kind: Kind, namespace: str, name: str, options: DeleteOptions) -> Deleted:
        """Delete one object, at once or in its time (DEL)."""
        view, kind = kind, base_of(kind)
        key = storage_key(kind, namespace, name)
        await self.current()
        await self.admission.delete(kind, namespace, name)
        item = self.of(kind).get(namespace, name)
        if item is None:
            await self.fresh()
            item = self.of(kind).get(namespace, name)
            if item is None:
                raise refusals.not_found(view, name)
        value, revision = item.value, item.revision
        await self.conversions.ready(kind, (value,))
        if not self.admission.idle:
            asked = asked_of(
                "DELETE", kind, namespace, None, seen(kind, value, revision), name=name, dry_run=options.dry_run
            )
            await self.admission.mutate(asked, [])
            await self.admission.ask(asked, [])
        for _ in range(TRIES * 4):
            obj = decode(value, revision)
            check_preconditions(view, name, obj, options)
            del obj["metadata"]["resourceVersion"]
            plan = plan_deletion(kind, obj, options, self.clock.now())
            try:
                if plan.action == "wait":
                    return Deleted(view, value, revision, gone=False)
                if plan.action in ("mark", "mark-and-remove"):
                    assert plan.marked is not None
                    value = encode(kind, plan.marked)
                    if not options.dry_run:
                        revision = await self.store.commit(Put(key, value, revision))
                    await self.conversions.ready(kind, (value,))
                    if plan.action == "mark":
                        return Deleted(view, value, revision, gone=False)
                if not options.dry_run:
                    revision = await self._remove(kind, key, obj, revision)
                return Deleted(view, value, revision, gone=True)
            except Moved as e:
                if e.found is None:
                    raise refusals.not_found(view, name) from None
                value, revision = e.found.value, e.found.modified
        raise refusals.conflict(view, name)

    async def _remove(self, kind: Kind, key: str, old: Object, revision: int) -> int:
        """Take an object out of the store with what was allocated for it; the revision of that."""
        hook = self.hooks.get(kind)
        reservation = hook.before_delete(old, False) if hook is not None else None
        return await self.commits.settled(reservation, Delete(key, revision))

    async def delete_collection(
        self, kind: Kind, namespace: str, listing: ListOptions, options: DeleteOptions
    ) -> ListPage:
        """Delete every selected object under its own rules; the page of what was there (DEL-9)."""
        page = await self.list_page(kind, namespace, listing)
        for item in page.items:
            try:
                await self.delete(kind, item.namespace, item.name, options)
            except ApiError as e:
                if e.status_code != 404:
                    raise
        return page


def warn(warnings: list[str], more: Iterable[str]) -> None:
    """Add warnings, each text once (WARN-1)."""
    for text in more:
        if text not in warnings:
            warnings.append(text)
