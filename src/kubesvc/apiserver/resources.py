"""Requests for objects: HTTP calls to the registry's verbs, and its results to answers."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web

from kubesvc.api.decode import Target as BodyTarget
from kubesvc.api.decode import decode_body
from kubesvc.api.errors import ApiError, BadRequest, NotAcceptable, UnsupportedMediaType
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import POD
from kubesvc.api.meta import Object
from kubesvc.api.protobuf import MEDIA_TYPE as PROTOBUF
from kubesvc.clock import rfc3339

from .apply import Applied, apply_patch
from .authorization import AlwaysAllow, Authorizer
from .bodies import BODY_TYPES, UNKNOWN_FORMAT, read_body
from .cache import Item
from .calls import Call
from .negotiation import negotiate
from .options import DeleteOptions, delete_options, first, list_options, patch_options, write_options
from .patches import MEDIA_TYPES, NO_STRATEGIC, Patched, patch_object
from .rbac import API_GROUP
from .registry import Change, Registry
from .results import Deleted, ListPage, Written, base_of, render, render_item
from .routing import kind_of
from .storage import decode, list_chunks
from .subresources import Subresources
from .tables import check_include, partial, row, table
from .watching import WatchRequests

ENDPOINTS_WARNING = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
STREAMED = frozenset({"attach", "exec", "log", "portforward", "proxy"})
"""Subresources whose answers are no objects, though errors are."""
DELETE_OPTIONS = BodyTarget("", "v1", "DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")
STATUS_PARTS = frozenset({"apiVersion", "kind", "metadata", "status"})
STATUS_ALONE = STATUS_PARTS - {"metadata"}
PARTIAL = frozenset({"merge", "strategic"})
CHUNK_BYTES = 512 * 1024
"""Longer lists are sent piece by piece, so that one that is very long neither stops others nor is held twice."""
_json = msgspec.json.Encoder()
_keys = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Resources:
    """Answers requests whose target is a kind's collection, object or subresource."""

    def __init__(self, registry: Registry, watches: WatchRequests, subresources: Subresources) -> None:
        self.registry = registry
        self.authorizer: Authorizer = AlwaysAllow()
        self.watches = watches
        self.subresources = subresources

    async def handle(self, call: Call) -> web.StreamResponse:
        target = call.target
        kind = kind_of(target, self.registry.kinds.by_resource)
        if kind.custom is not None and kind.custom.warning:
            call.warnings.append(kind.custom.warning)
        if kind.plural == "endpoints" and not kind.group:
            call.warnings.append(ENDPOINTS_WARNING)
        if target.subresource in STREAMED:  # what is accepted is then the far side's affair
            return await self.subresources.handle(call, kind)
        call.form = negotiate(call.accept, transforms=not target.subresource or target.verb != "create", streams=True)
        if target.subresource not in ("", "status", "approval") and not (
            target.subresource in ("resize", "ephemeralcontainers") and target.verb == "get"
        ):
            return await self.subresources.handle(call, kind)
        verb = target.verb
        if target.subresource and verb in ("list", "watch"):
            verb = "get"
        match verb:
            case "get":
                return await self.get(call, kind)
            case "list":
                return await self.list(call, kind)
            case "watch":
                return await self.watches.handle(call, kind)
            case "create":
                return await self.create(call, kind)
            case "update":
                return await self.update(call, kind)
            case "patch":
                return await self.patch(call, kind)
            case "delete":
                return await self.delete(call, kind)
            case _:
                return await self.delete_collection(call, kind)

    # ------------------------------------------------------------------ forms

    def one(self, call: Call, kind: Kind, body: bytes, item: Item, status: int = 200) -> web.Response:
        """One object in the negotiated form."""
        return call.answer(self.formed(call, kind, body, item), status)

    def formed(self, call: Call, kind: Kind, body: bytes, item: Item) -> bytes:
        form = call.form
        if not form.as_kind:
            return body
        if form.as_kind == "Table":
            include = check_include(first(call.query, "includeObject"))
            rows = [row(kind, item, body, include, self.registry.clock.now(), form.as_version)]
            return table(kind, {"resourceVersion": str(item.revision)}, rows, form.as_version)
        if form.as_kind == "PartialObjectMetadata":
            return partial(body, form.as_version)
        raise NotAcceptable(
            f"you requested PartialObjectMetadataList, but the requested object is not a list (*core.{kind.name})"
        )

    def written(self, call: Call, kind: Kind, result: Written) -> web.Response:
        item = Item(base_of(kind), "", result.value, result.revision)
        return self.one(call, kind, result.body(), item, 201 if result.created else 200)

    # ------------------------------------------------------------------ verbs

    async def get(self, call: Call, kind: Kind) -> web.Response:
        target = call.target
        item = await self.registry.get(
            kind, target.namespace_of(kind), target.name, first(call.query, "resourceVersion")
        )
        return self.one(call, kind, render(kind, item.value, item.revision), item)

    async def list(self, call: Call, kind: Kind) -> web.StreamResponse:
        target, form = call.target, call.form
        options = list_options(kind, call.query, watch=False)
        if form.as_kind == "Table":
            include = check_include(first(call.query, "includeObject"))
        elif form.as_kind == "PartialObjectMetadata":
            raise NotAcceptable(
                "you requested PartialObjectMetadata, but the requested object is a list "
                f"(*{go_package(kind)}.{kind.list_name})"
            )
        page = await self.registry.list_page(kind, target.namespace_of(kind), options)
        if form.as_kind == "Table":
            now = self.registry.clock.now()
            rows = [row(kind, i, render(kind, i.value, i.revision), include, now, form.as_version) for i in page.items]
            return call.answer(table(kind, list_metadata(page), rows, form.as_version))
        if form.as_kind:
            items = [partial(render(kind, i.value, i.revision), form.as_version) for i in page.items]
            return call.answer(list_body("PartialObjectMetadataList", f"meta.k8s.io/{form.as_version}", page, items))
        if kind.stored is not None or not call.plain:
            return call.answer(list_answer(kind, page))
        pairs = ((i.value, i.revision) for i in page.items)
        return await call.stream(list_chunks(kind, *around(kind, page, pairs), CHUNK_BYTES))

    async def decoded(self, call: Call, kind: Kind, validation: str) -> Object:
        return await read_body(call, kind, validation)

    async def create(self, call: Call, kind: Kind) -> web.Response:
        options = write_options(call.query, call.user_agent, "CreateOptions")
        obj = await self.decoded(call, kind, options.validation)
        namespace = call.target.namespace_of(kind)
        self.authorizer.refuse_escalation(call.user, kind, namespace, obj)
        return self.written(call, kind, await self.registry.create(kind, namespace, obj, options, call.warnings))

    async def update(self, call: Call, kind: Kind) -> web.Response:
        target = call.target
        options = write_options(call.query, call.user_agent, "UpdateOptions")
        obj = await self.decoded(call, kind, options.validation)
        if kind.group == API_GROUP:  # nothing else gives rights away
            before = self.registry.of(kind).get(target.namespace_of(kind), target.name)
            old = decode(before.value, before.revision) if before is not None else None
            self.authorizer.refuse_escalation(call.user, kind, target.namespace_of(kind), obj, old)
        result = await self.registry.update(
            kind, target.namespace_of(kind), target.name, obj, options, call.warnings, subresource=target.subresource
        )
        return self.written(call, kind, result)

    async def patch(self, call: Call, kind: Kind) -> web.Response:
        target, registry = call.target, self.registry
        namespace = target.namespace_of(kind)
        type = MEDIA_TYPES.get(call.media_type)
        if kind.custom is not None and type in (None, "strategic"):
            raise UnsupportedMediaType(NO_STRATEGIC)
        if type is None:
            raise UnsupportedMediaType("415: Unsupported Media Type")
        options = patch_options(call.query, call.user_agent, apply=type == "apply")
        body = await call.body()
        stored = base_of(kind)
        if type == "apply":
            now = rfc3339(registry.clock.now())

            def merge(live: Object | None) -> Applied:
                applied = apply_patch(
                    live, body, stored, options.manager, now, name=target.name, namespace=namespace,
                    force=bool(options.force), subresource=target.subresource, field_validation=options.validation,
                )  # fmt: skip
                self.authorizer.refuse_escalation(call.user, kind, namespace, applied.obj, live)
                return applied

            result = await registry.apply(
                kind, namespace, target.name, merge, options, call.warnings, subresource=target.subresource
            )
            return self.written(call, kind, result)

        warned: tuple[str, ...] = ()

        named: frozenset[str] | None = None
        if kind is POD and target.subresource == "status" and type in PARTIAL:
            named = next((parts for parts in (STATUS_ALONE, STATUS_PARTS) if names_only(body, parts)), None)

        def patched_object(seen: Object) -> Patched:
            """The patched object. A status write leaves the rest as it is, so that need not be read again; what is
            refused is told with the whole."""
            if named is not None:
                try:
                    part = {k: v for k, v in seen.items() if k in named}
                    patched = patch_object(part, body, type, kind, options.validation)
                    if named is STATUS_ALONE:
                        patched.obj["metadata"] = dict(seen["metadata"])
                    return patched
                except ApiError:
                    pass
            return patch_object(seen, body, type, kind, options.validation)

        def edit(live: Object) -> Object:
            nonlocal warned
            seen = kind.from_stored(live) if kind.stored else live
            patched = patched_object(seen)
            warned = patched.warnings
            found = (patched.obj.get("metadata") or {}).get("name")
            if found != target.name:
                raise BadRequest(
                    f"the name of the object ({found or ''}) does not match the name on the URL ({target.name})"
                )
            self.authorizer.refuse_escalation(call.user, kind, namespace, patched.obj, live)
            return kind.to_stored(patched.obj) if kind.stored else patched.obj

        change = Change(kind, namespace, target.name, edit, options, target.subresource, copies=True)
        result = await registry.change(change, call.warnings)
        call.warnings += warned
        return self.written(call, kind, result)

    async def delete_options(self, call: Call) -> DeleteOptions:
        body = await call.body()
        decoded: Object | None = None
        if body:
            if call.media_type not in BODY_TYPES:
                raise UnsupportedMediaType(UNKNOWN_FORMAT)
            decoded = self.decode_delete_options(body, call.media_type, call.target.group, call.target.version)
        return delete_options(call.query, decoded, call.user_agent)

    def decode_delete_options(self, body: bytes, media_type: str, group: str, version: str) -> Object:
        """DeleteOptions may name the core version or the group's (DEL-1)."""
        target = DELETE_OPTIONS
        named = f"{group}/{version}".encode()
        spelled = b"\n%c%s" % (len(named), named) if media_type == PROTOBUF else b'"%s"' % named
        if group and spelled in body:
            target = DELETE_OPTIONS._replace(group=group, version=version)
        elif b"meta.k8s.io/v1" in body:
            target = DELETE_OPTIONS._replace(group="meta.k8s.io", version="v1")
        return decode_body(body, media_type, target, "Ignore").obj

    async def delete(self, call: Call, kind: Kind) -> web.Response:
        target = call.target
        options = await self.delete_options(call)
        result = await self.registry.delete(kind, target.namespace_of(kind), target.name, options)
        return self.deleted(call, kind, result, options)

    def deleted(self, call: Call, kind: Kind, result: Deleted, options: DeleteOptions) -> web.Response:
        if not result.answers_object():
            return call.object(result.status())
        item = Item(base_of(kind), "", result.value, result.revision)
        status = 202 if not result.gone and options.orphan is False else 200
        return self.one(call, kind, render(kind, result.value, result.revision), item, status)

    async def delete_collection(self, call: Call, kind: Kind) -> web.Response:
        listing = list_options(kind, call.query, watch=False)
        options = await self.delete_options(call)
        page = await self.registry.delete_collection(kind, call.target.namespace_of(kind), listing, options)
        return call.answer(list_answer(kind, page))


def names_only(patch: bytes, parts: frozenset[str]) -> bool:
    """Whether a patch is a JSON object that names nothing but these fields."""
    try:
        return _keys.decode(patch).keys() <= parts
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def go_package(kind: Kind) -> str:
    """The name of upstream's internal package for a kind, which some messages show."""
    return kind.group.partition(".")[0] or "core"


def list_metadata(page: ListPage) -> Object:
    metadata: Object = {"resourceVersion": str(page.revision)}
    if page.continue_token:
        metadata["continue"] = page.continue_token
    if page.remaining:
        metadata["remainingItemCount"] = page.remaining
    return metadata


def list_body(kind: str, api_version: str, page: ListPage, items: list[bytes]) -> bytes:
    """A list's JSON from the JSON of its items (LIST-1)."""
    return b"%s%s]}" % (list_start(kind, api_version, page), b",".join(items))


def list_start(kind: str, api_version: str, page: ListPage) -> bytes:
    """What comes before the first item."""
    metadata = _json.encode(list_metadata(page))
    return b'{"kind":"%s","apiVersion":"%s","metadata":%s,"items":[' % (kind.encode(), api_version.encode(), metadata)


Items = TypeVar("Items")


def around(kind: Kind, page: ListPage, items: Items) -> tuple[bytes, Items, bytes]:
    """What comes before and after the items of a list, with these between; of a custom kind in the order of names."""
    if kind.custom is None:
        return list_start(kind.list_name, kind.api_version, page), items, b"]}"
    metadata = _json.encode(dict(sorted({"continue": "", **list_metadata(page)}.items())))
    start = b'{"apiVersion":"%s","items":[' % kind.api_version.encode()
    return start, items, b'],"kind":"%s","metadata":%s}' % (kind.list_name.encode(), metadata)


def list_answer(kind: Kind, page: ListPage) -> bytes:
    """The list of objects of a kind: joined bytes, nothing of a built-in kind decoded."""
    start, items, end = around(kind, page, b",".join([render_item(kind, i) for i in page.items]))
    return b"%s%s%s" % (start, items, end)
