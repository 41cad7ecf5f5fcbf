"""The verbs on objects: create, get, list, update, patch, delete, in the order of steps that WRITE-9 gives.

The registry is what HTTP requests and in-process clients both end at. It reads from the watch cache, writes through
compare-and-write transactions of the store, and leaves to others what a kind means (`Kind`), what admission adds
(`admission`), what is allocated along (`hooks`), and how patches and field ownership work (`patches`, `apply`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import msgspec

from kubesvc.api import fields
from kubesvc.api.errors import ApiError, BadRequest, MethodNotAllowed
from kubesvc.api.kind import Kind, Situation
from kubesvc.api.kinds import KINDS, NAMESPACE
from kubesvc.api.meta import Object, metadata
from kubesvc.api.objectmeta import validate_metadata, validate_metadata_update
from kubesvc.clock import Clock, Random, rfc3339
from kubesvc.store import Compacted, Delete, FutureRevision, Moved, Operation, Put, Store

from . import bookkeeping, refusals
from .admission import Admission, asked_of
from .apply import Applied, equal_but_for_times, update_managed_fields
from .cache import Cache, Item, KindCache
from .continuation import continue_token, parse_continue_token
from .conversion import Conversions
from .deletion import gone_with_update, plan_deletion
from .guards import QuotaGuards
from .hooks import Reservation, WriteHooks
from .kindset import KindSet
from .options import DeleteOptions, ListOptions, WriteOptions
from .quotas import nothing_held
from .settings import ApiServerSettings
from .storage import answer, decode, encode, head, kind_prefix, list_item, seen, shown, storage_key
from .streams import Selection
from .webhooks import Asked
from .writerules import check_namespace, check_preconditions, restore_part

TRIES = 5
"""How often a write without a resourceVersion is tried when others write the object meanwhile (PATCH-3)."""
NAME_TRIES = 8
RESPECIFYING = ("resize", "ephemeralcontainers")
"""Subresources that change what is wanted of an object by rules of their own."""
GUARD_TRIES = 100
"""How often a write is judged anew because other servers wrote into the same namespace with quotas meanwhile."""
SCAN_PAGE = 500


Edit = Callable[[Object], Object]
"""Makes the wanted object of a freshly decoded stored one, which it may change or keep. Called once per try."""

_json = msgspec.json.Encoder()


class Written(NamedTuple):
    """What a write left: the stored value and its revision; revision 0 after a dry run of a create."""

    kind: Kind
    value: bytes
    revision: int
    created: bool = False

    def body(self) -> bytes:
        """The object as it is sent."""
        return render(self.kind, self.value, self.revision)

    def object(self) -> Object:
        obj = shown(self.kind, self.value, self.revision)
        if not self.revision:
            del obj["metadata"]["resourceVersion"]
        return self.kind.from_stored(obj) if self.kind.stored else obj


class Deleted(NamedTuple):
    """What a deletion left: the object in its last state; `gone` tells that it exists no more."""

    kind: Kind
    value: bytes
    revision: int
    gone: bool

    def answers_object(self) -> bool:
        """Whether the answer is the object rather than a Status (DEL-4)."""
        return not self.gone or self.kind.delete_returns_object

    def object(self) -> Object:
        obj = shown(self.kind, self.value, self.revision)
        return self.kind.from_stored(obj) if self.kind.stored else obj

    def status(self) -> Object:
        """The Status of a deletion that is done."""
        meta = msgspec.json.decode(self.value)["metadata"]
        details = refusals.details_of(self.kind, meta["name"])
        details["uid"] = meta["uid"]
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


class ListPage(NamedTuple):
    """One page of a list: items as (stored value, revision), the revision it is consistent at, and how it goes on."""

    kind: Kind
    revision: int
    items: list[Item]
    continue_token: str = ""
    remaining: int | None = None


def render(kind: Kind, value: bytes, revision: int) -> bytes:
    """A stored value as an answer of `kind`, which may be a view of the stored kind."""
    if kind.stored is None:
        return answer(kind, value, revision)
    return _json.encode(kind.from_stored(decode(value, revision)))


def render_item(kind: Kind, item: Item) -> bytes:
    """An object inside a list (READ-3)."""
    if kind.stored is None:
        return list_item(kind, item.value, item.revision)
    obj = kind.from_stored(decode(item.value, item.revision))
    obj.pop("kind", None)
    obj.pop("apiVersion", None)
    return _json.encode(obj)


def base_of(kind: Kind) -> Kind:
    """The kind that is stored."""
    return kind.stored or kind


class Registry:
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
        self.cache = cache
        self.store = store
        self.settings = settings
        self.clock = clock
        self.random = random
        self.hooks: dict[Kind, WriteHooks] = dict(hooks or {})
        self.kinds = kinds or KindSet(KINDS)
        self.situation = Situation(families=settings.families)
        self.advisers: dict[Kind, Callable[[Object, Object | None], Iterable[str]]] = {}
        """Asked for further warnings about what is written of a kind, with what was there before; none unless set."""
        self.admission = Admission(settings, cache, clock, random)
        self.conversions = Conversions(self.admission.webhooks, random)
        self.guards = QuotaGuards(store)

    # ------------------------------------------------------------------ reading

    def of(self, kind: Kind) -> KindCache:
        return self.cache.of(base_of(kind))

    async def fresh(self) -> None:
        """Wait until the cache has everything that was committed before now, by any server (consistent reads)."""
        revision = await self.store.revision()
        if revision > self.cache.revision and not await self.cache.seen(revision):
            raise refusals.too_large_version(revision, self.cache.revision)

    async def current(self) -> None:
        """Before a write: where others write too, what it is judged by must not be older than what they have done."""
        if self.store.shared:
            await self.fresh()

    async def not_older_than(self, text: str, *, listing: bool) -> None:
        """Wait until the cache is as new as a resourceVersion parameter asks (READ-1, LIST-8)."""
        if text == "0":
            return None
        if not text:
            return await self.fresh()
        wanted = refusals.version_of(text, listing=listing)
        if wanted > self.cache.revision:
            await self.store.revision()
        if wanted > self.cache.revision and not await self.cache.seen(wanted):
            raise refusals.too_large_version(wanted, self.cache.revision)
        return None

    async def get(self, kind: Kind, namespace: str, name: str, resource_version: str = "") -> Item:
        """One object; NotFound."""
        await self.not_older_than(resource_version, listing=False)
        item = self.of(kind).get(namespace, name)
        if item is None:
            raise refusals.not_found(kind, name)
        await self.conversions.ready(kind, (item.value,))
        return item

    async def list_page(self, kind: Kind, namespace: str, options: ListOptions) -> ListPage:
        """A page of a list (LIST-1 to LIST-9)."""
        page = await self._list_page(kind, namespace, options)
        if kind.custom is not None:
            await self.conversions.ready(kind, (i.value for i in page.items))
        return page

    async def encoded(self, kind: Kind, obj: Object) -> bytes:
        """The value to store of an object: of a custom kind whose versions a webhook converts, in the stored one."""
        custom = kind.custom
        if custom is None or custom.webhook is None:
            return encode(kind, obj)
        value = encode(kind, await self.conversions.stored_form(kind, custom, obj))
        if custom.foreign(value):
            custom.remember(value, {**obj, "apiVersion": custom.api_version, "kind": kind.name})
        return value

    async def _list_page(self, kind: Kind, namespace: str, options: ListOptions) -> ListPage:
        cache = self.of(kind)
        selection = Selection(cache, namespace, options.labels, options.fields)
        version, limit = options.resource_version, options.limit
        if options.continue_token:
            return await self._continue(kind, cache, selection, options)
        if options.match == "Exact" or (version not in ("", "0") and limit and not options.match):
            await self.not_older_than(version, listing=True)
            return await self._list_at(kind, cache, selection, int(version), "", limit, None)
        await self.not_older_than(version, listing=True)
        if version == "0" and options.match != "Exact":
            limit = 0
        return await self._list_now(kind, cache, selection, "", limit, self.cache.revision)

    async def _list_now(
        self, kind: Kind, cache: KindCache, selection: Selection, start: str, limit: int, revision: int
    ) -> ListPage:
        if not limit:
            return ListPage(kind, revision, await selection.among(selection.candidates(cache, start)))
        items: list[Item] = []
        left = 0
        for item in selection.items(cache, start):
            if len(items) == limit:
                left = 1 if selection.selective else cache.count(selection.namespace, start) - limit
                break
            items.append(item)
        if not left:
            return ListPage(kind, revision, items)
        token = continue_token(revision, items[-1].key)
        return ListPage(kind, revision, items, token, None if selection.selective else left)

    async def _continue(self, kind: Kind, cache: KindCache, selection: Selection, options: ListOptions) -> ListPage:
        if options.resource_version not in ("", "0"):
            raise BadRequest("specifying resource version is not allowed when using continue")
        revision, start = parse_continue_token(options.continue_token)
        if revision < 0:
            await self.fresh()
            return await self._list_now(kind, cache, selection, start, options.limit, self.cache.revision)
        await self.not_older_than(str(revision), listing=True)
        return await self._list_at(kind, cache, selection, revision, start, options.limit, options.continue_token)

    async def _list_at(
        self,
        kind: Kind,
        cache: KindCache,
        selection: Selection,
        revision: int,
        start: str,
        limit: int,
        token: str | None,
    ) -> ListPage:
        """The state at a revision: from the cache if the kind has not changed since, else from the store's history."""
        if revision < self.store.compacted:
            raise refusals.expired_token(continue_token(-1, start[:-1])) if token else refusals.expired_list()
        if cache.changed <= revision:
            return await self._list_now(kind, cache, selection, start, limit, revision)
        prefix = cache.prefix + selection.prefix
        cursor = cache.prefix + start if start else ""
        items: list[Item] = []
        try:
            while True:
                page = await self.store.scan(prefix, start=cursor, limit=SCAN_PAGE, at=revision)
                for at, entry in enumerate(page.entries):
                    item = Item(cache.kind, entry.key[len(cache.prefix) :], entry.value, entry.modified)
                    if selection.selective and not selection.holds(item):
                        continue
                    if limit and len(items) == limit:
                        left = len(page.entries) - at + page.remaining
                        more = continue_token(revision, items[-1].key)
                        return ListPage(kind, revision, items, more, None if selection.selective else left)
                    items.append(item)
                if not page.more:
                    return ListPage(kind, revision, items)
                cursor = page.entries[-1].key + "\0"
        except Compacted:
            raise (
                refusals.expired_token(continue_token(-1, start[:-1])) if token else refusals.expired_list()
            ) from None
        except FutureRevision as e:
            raise refusals.too_large_version(e.asked, e.newest) from None

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
        if not self.admission.webhooks.idle:
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
            if errors:
                raise fields.invalid_object(view.group, view.name, meta.get("name") or "", errors)
            self.admission.validate_create(kind, namespace, obj)
            warn(warnings, kind.warn(obj, None))
            if (advise := self.advisers.get(kind)) is not None:
                warn(warnings, advise(obj, None))
            value = await self.encoded(kind, obj)
            if options.dry_run and (found := self.of(kind).get(namespace, meta["name"])) is not None:
                raise refusals.already_exists(view, meta["name"], terminating=found.terminating)
            if not self.admission.webhooks.idle:
                asked = asked_of("CREATE", kind, namespace, obj, None, dry_run=options.dry_run)
                await self.admission.ask(asked, warnings)
            release = self.admission.hold(kind, namespace, obj, None, dry_run=options.dry_run)
            if options.dry_run:
                self._release(reservation)
                return Written(view, value, 0, created=True)
        except BaseException:
            self._release(reservation)
            raise
        key = storage_key(kind, namespace, meta["name"])
        put = Put(key, value, 0)
        revision = await self._commit_held(kind, namespace, obj, None, release, reservation, options.manager, put)
        return Written(view, value, revision, created=True)

    async def _commit_held(
        self,
        kind: Kind,
        namespace: str,
        new: Object,
        old: Object | None,
        release: Callable[[], None],
        reservation: Reservation | None,
        manager: str,
        put: Put,
    ) -> int:
        """Write what quotas have let pass, as long as they still would: other servers may have written meanwhile."""
        if release is nothing_held or not self.store.shared:
            try:
                return await self._commit(reservation, manager, put)
            finally:
                release()
        release()
        async with AsyncExitStack() as stack:
            try:
                guard = await stack.enter_async_context(self.guards.turn(namespace))
            except BaseException:  # the caller went while others had their turn
                self._release(reservation)
                raise
            tries = 0
            while True:
                tries += 1
                try:
                    release = self.admission.hold(kind, namespace, new, old, dry_run=False)
                except BaseException:
                    self._release(reservation)
                    raise
                try:
                    return await self._commit(reservation, manager, put, self.guards.operation(guard))
                except Moved as e:
                    if e.key != guard or tries == GUARD_TRIES:
                        self._release(reservation)
                        raise
                finally:
                    release()

    async def _commit(
        self, reservation: Reservation | None, manager: str, operation: Operation, *guards: Operation
    ) -> int:
        """Write an object with its companions, and settle what was reserved for it: that stays reserved if a quota's
        guard has moved.

        Once begun this runs to its end even if the caller is cancelled: whether the write happened decides whether what
        it reserved is given back, so nobody may leave in between.
        """
        if reservation is None:
            return await self.store.commit(operation, *guards)
        task = asyncio.ensure_future(self._commit_reserved(reservation, manager, operation, guards))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda _: reservation.rollback())  # which does nothing if it was written
            raise

    async def _commit_reserved(
        self, reservation: Reservation, manager: str, operation: Operation, guards: Sequence[Operation]
    ) -> int:
        ports = reservation.guards if self.store.shared else ()
        try:
            revision = await self.store.commit(operation, *self._companions(reservation, manager), *ports, *guards)
        except BaseException as e:
            if not (isinstance(e, Moved) and any(e.key == guard.key for guard in guards)):
                reservation.rollback()
            raise
        reservation.confirm()
        return revision

    async def _reserve_create(
        self, kind: Kind, obj: Object, options: WriteOptions, warnings: list[str]
    ) -> Reservation | None:
        hook = self.hooks.get(kind)
        if hook is None:
            return None
        reservation = await hook.before_create(obj, options.dry_run)
        warn(warnings, reservation.warnings)
        return reservation

    def _release(self, reservation: Reservation | None) -> None:
        """Give back what was reserved for a write that does not happen."""
        if reservation is not None:
            reservation.rollback()

    def _companions(self, reservation: Reservation | None, manager: str) -> list[Operation]:
        """The writes that go with an object into its transaction."""
        operations: list[Operation] = []
        for companion in reservation.companions if reservation else ():
            obj = companion.object
            meta = obj["metadata"]
            key = storage_key(companion.kind, meta.get("namespace") or "", meta["name"])
            if companion.verb == "delete":
                operations.append(Delete(key))
                continue
            now = self.clock.now()
            update_managed_fields(None, obj, companion.kind, "kube-apiserver", rfc3339(now))
            bookkeeping.fill_system_metadata(obj, companion.kind, now, self.random)
            operations.append(Put(key, encode(companion.kind, obj), 0))
        return operations

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

        return await self.change(
            view, namespace, name, edit, options, warnings,
            subresource=subresource, tries=1 if sent_version else TRIES, copies=True, current=True,
        )  # fmt: skip

    async def _absent(self, kind: Kind, namespace: str, name: str) -> bool:
        """Whether an object that the cache lacks is missing in the store too."""
        await self.fresh()
        return self.of(kind).get(namespace, name) is None

    async def change(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        edit: Edit,
        options: WriteOptions,
        warnings: list[str],
        *,
        subresource: str = "",
        applying: bool = False,
        tries: int = TRIES,
        check: bool = True,
        copies: bool = False,
        current: bool = False,
    ) -> Written:
        """Change a stored object by `edit`, again on its newest state when others changed it meanwhile.

        applying:  the edit is an apply and has already written managedFields
        check:     whether the kind's update rules and validation apply (subresources that change one field by their
                   own rules, such as binding, are exempt)
        copies:    the edit neither changes what it is given nor returns anything that shares content with it
        current:   the caller has waited for `current` already
        """
        if not current:
            await self.current()
        view, kind = kind, base_of(kind)
        key = storage_key(kind, namespace, name)
        item = self.of(kind).get(namespace, name)
        value, revision = (item.value, item.revision) if item is not None else (None, 0)
        if value is None:
            entry = await self.store.get(key)
            if entry is None:
                raise refusals.not_found(view, name)
            value, revision = entry.value, entry.modified
        collected: list[str] = []
        attempt, names = 1, 1
        while attempt <= tries and names <= NAME_TRIES:
            collected = []
            try:
                written = await self._change_once(
                    view, kind, namespace, name, key, value, revision, edit, options, collected, subresource,
                    applying, check, copies,
                )  # fmt: skip
                warn(warnings, collected)
                return written
            except Moved as e:
                if e.key != key:
                    names += 1  # a companion's name was taken: allocate another
                    continue
                if e.found is None:
                    raise refusals.not_found(view, name) from None
                if attempt == tries:
                    raise refusals.conflict(view, name) from None
                value, revision = e.found.value, e.found.modified
                attempt += 1
            except ApiError:
                warn(warnings, collected)
                raise
        raise refusals.conflict(view, name)

    async def _change_once(
        self,
        view: Kind,
        kind: Kind,
        namespace: str,
        name: str,
        key: str,
        value: bytes,
        revision: int,
        edit: Edit,
        options: WriteOptions,
        warnings: list[str],
        subresource: str,
        applying: bool,
        check: bool,
        copies: bool,
    ) -> Written:
        await self.conversions.ready(kind, (value,))
        old = seen(kind, value, revision)
        new = edit(old if copies else seen(kind, value, revision))
        meta, before = metadata(new), old["metadata"]
        sent_version = meta.get("resourceVersion") or ""
        if sent_version and sent_version != before["resourceVersion"]:
            if problem := refusals.version_problem(sent_version):
                raise refusals.plain_failure(problem)
            raise refusals.conflict(view, name)
        meta["resourceVersion"] = before["resourceVersion"]
        kind.default(new)
        bookkeeping.keep_system_metadata(new, old)
        warn(warnings, bookkeeping.drop_duplicate_owners(meta))
        if check:
            restore_part(kind, new, old, subresource)
        if not applying:
            update_managed_fields(old, new, kind, options.manager, rfc3339(self.clock.now()), subresource=subresource)
        await self.admission.update(kind, namespace, new, old, subresource, options)
        asked: Asked | None = None
        if check and not self.admission.webhooks.idle:
            asked = asked_of(
                "UPDATE", kind, namespace, new, old, subresource=subresource, name=name, dry_run=options.dry_run
            )
            wanted = await self.admission.mutate(asked, warnings)
            if wanted is not None:
                new = wanted
                bookkeeping.keep_system_metadata(new, old)
                restore_part(kind, new, old, subresource)
                meta = metadata(new)
        reservation: Reservation | None = None
        if check:
            kind.prepare_update(new, old)
            hook = self.hooks.get(kind) if not subresource else None
            if hook is not None:
                reservation = await hook.before_update(new, old, options.dry_run)
                warn(warnings, reservation.warnings)
        try:
            if check:
                usual = kind.validate_status if subresource == "status" else kind.validate_update
                validate = kind.validate_parts.get(subresource, usual)
                errors = validate_metadata_update(new, old, kind) + validate(new, old, self.situation)
                if errors:
                    raise fields.invalid_object(view.group, view.name, name, errors)
                self.admission.validate_update(kind, new, old, subresource)
                if asked is not None:
                    await self.admission.ask(asked._replace(new=new), warnings)
                if not subresource:
                    warn(warnings, kind.warn(new, old))
                    if (advise := self.advisers.get(kind)) is not None:
                        warn(warnings, advise(new, old))
            specified = subresource in RESPECIFYING or (check and subresource != "status")
            if kind.generation is not None and specified and kind.generation(new, old):
                meta["generation"] = (before.get("generation") or 0) + 1
            del before["resourceVersion"]
            meta.pop("resourceVersion", None)
            if gone_with_update(kind, new, old):
                self._release(reservation)
                return await self._remove_after_update(view, kind, key, new, old, revision, options)
            if equal_but_for_times(new, old) and (kind.custom is None or value.startswith(kind.custom.stored_head)):
                self._release(reservation)
                return Written(view, value, revision)
            fresh = await self.encoded(kind, new)
            if fresh == value:
                self._release(reservation)
                return Written(view, value, revision)
            release = self.admission.hold(kind, namespace, new, old, dry_run=options.dry_run)
            if options.dry_run:
                self._release(reservation)
                return Written(view, fresh, revision)
        except BaseException:
            self._release(reservation)
            raise
        put = Put(key, fresh, revision)
        written = await self._commit_held(kind, namespace, new, old, release, reservation, options.manager, put)
        return Written(view, fresh, written)

    async def _remove_after_update(
        self, view: Kind, kind: Kind, key: str, new: Object, old: Object, revision: int, options: WriteOptions
    ) -> Written:
        """WRITE-8: the write took the last finalizer, so the object goes and its last state is the answer."""
        fresh = await self.encoded(kind, new)
        if options.dry_run:
            return Written(view, fresh, revision)
        gone = await self._remove(kind, key, old, revision)
        return Written(view, fresh, gone)

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

        return await self.change(
            view, namespace, name, edit, options, warnings, subresource=subresource, applying=True, current=True
        )

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
        if not self.admission.webhooks.idle:
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
        return await self._commit(reservation, "", Delete(key, revision))

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

    # ------------------------------------------------------------------ help for others

    def namespace_exists(self, name: str) -> bool:
        return self.cache.of(NAMESPACE).get("", name) is not None


def warn(warnings: list[str], more: Iterable[str]) -> None:
    """Add warnings, each text once (WARN-1)."""
    for text in more:
        if text not in warnings:
            warnings.append(text)


__all__ = [
    "Deleted", "ListPage", "Registry", "Written", "base_of", "head", "kind_prefix", "render", "render_item",
]  # fmt: skip
