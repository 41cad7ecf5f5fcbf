"""OpenAPI documents built from the schema table and the kinds that are served (DISC-6, DISC-7).

kubectl reads them for `explain`, for the patch strategies of client-side apply, and to learn whether a kind's PATCH
knows `fieldValidation` and `dryRun`. A document is built when somebody first asks for it; its hash comes from what it
would be built from, so that the index costs nothing.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from typing import NamedTuple

import msgspec

from kubesvc.api import schema
from kubesvc.api.kind import Kind, Subresource
from kubesvc.api.meta import Object, Typed
from kubesvc.api.schema import Definition, Field

from .discovery import CREATE_ONLY
from .swaggerproto import encode_swagger

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
JSON = "application/json"
YAML = "application/yaml"
GZIP_FORM = zlib.MAX_WBITS | 16
FORM = 2
"""Raised with every change of this module that changes documents, so that clients fetch them anew."""

PATCH_TYPES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)

PARAMETERS: dict[str, tuple[str, str]] = {
    "allowWatchBookmarks": ("boolean", "Whether the watch may carry bookmarks."),
    "continue": ("string", "The token of the next page, from the answer with the page before."),
    "dryRun": ("string", "All: do everything but store the result."),
    "fieldManager": ("string", "Under which name the fields of this write are owned."),
    "fieldSelector": ("string", "Selects objects by their fields."),
    "fieldValidation": ("string", "What to do about unknown and repeated fields: Ignore, Warn or Strict."),
    "force": ("boolean", "Of an apply: take over fields that others own."),
    "gracePeriodSeconds": ("integer", "Seconds the object may take to end; 0 is at once."),
    "labelSelector": ("string", "Selects objects by their labels."),
    "limit": ("integer", "The most objects of one page."),
    "orphanDependents": ("boolean", "Superseded by propagationPolicy."),
    "propagationPolicy": ("string", "What becomes of dependents: Orphan, Background or Foreground."),
    "resourceVersion": ("string", "How fresh the answer must be, or where a watch begins."),
    "resourceVersionMatch": ("string", "How resourceVersion is meant."),
    "sendInitialEvents": ("boolean", "Whether a watch begins with the objects there are."),
    "timeoutSeconds": ("integer", "When to end, whether or not anything happened."),
    "watch": ("boolean", "Follow the changes, instead of a list."),
}
WRITE = ("dryRun", "fieldManager", "fieldValidation")
LIST = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
)
DELETE = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")

SIMPLE_PATHS = {
    "api": "/api/",
    "apis": "/apis/",
    "version": "/version/",
    ".well-known/openid-configuration": "/.well-known/openid-configuration/",
    "openid/v1/jwks": "/openid/v1/jwks/",
}
"""Documents with a single path that no kind stands behind."""


WORDS = {"200": "OK", "201": "Created", "202": "Accepted"}
CODES = {
    "create": ("200", "201", "202"),
    "update": ("200", "201"),
    "patch": ("200", "201"),
    "delete": ("200", "202"),
}
"""Statuses of the verbs that may answer with more than one."""


class Document(NamedTuple):
    """One document as it is sent: its bytes, kept as gzip has them, and its hash (upper-case SHA-512), which quoted is
    its ETag."""

    packed: bytes
    hash: str

    @property
    def body(self) -> bytes:
        return zlib.decompress(self.packed, GZIP_FORM)

    @property
    def etag(self) -> str:
        return f'"{self.hash}"'


def document(body: bytes, digest: str = "") -> Document:
    """A document to keep. digest: its hash, if that is not of its bytes"""
    return Document(zlib.compress(body, 6, GZIP_FORM), digest or hashlib.sha512(body).hexdigest().upper())


@cache
def table_digest() -> bytes:
    """A digest of the schema table."""
    return hashlib.sha512(schema.FILE.read_bytes()).digest()


@cache
def questions() -> tuple[Kind, ...]:
    """The kinds that are only ever posted, and answered without being stored."""
    found = []
    for asked in CREATE_ONLY:
        definition = schema.by_kind(asked.group, asked.version, asked.kind)
        assert definition is not None, asked
        found.append(
            Kind(
                group=asked.group,
                version=asked.version,
                name=asked.kind,
                plural=asked.plural,
                namespaced=asked.namespaced,
                type=Typed,
                schema=definition.name,
                verbs=("create",),
            )
        )
    return tuple(found)


class OpenApi:
    """The documents of one set of kinds; each is built when first asked for and kept."""

    def __init__(self, kinds: Sequence[Kind], version: str = "v1.36.0") -> None:
        self.kinds = (*kinds, *questions())
        self.version = version
        self.built: dict[str, Document] = {}
        self.hashes: dict[str, str] = {}

    @cached_property
    def by_path(self) -> dict[str, tuple[Kind, ...]]:
        """The kinds that the document of each group and version is about."""
        found: dict[str, tuple[Kind, ...]] = {}
        for kind in self.kinds:
            path = group_path(kind.group, kind.version)
            found[path] = (*found.get(path, ()), kind)
        return found

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The documents there are."""
        groups = {f"apis/{k.group}" for k in self.kinds if k.group}
        return tuple(sorted({*self.by_path, *groups, *SIMPLE_PATHS}))

    def hash_of(self, path: str) -> str:
        """A digest of all that a document is made from: of its own kinds, or of all where it is about all."""
        if path not in self.hashes:
            digest = hashlib.sha512(f"{FORM} {self.version} {path}".encode() + table_digest())
            for kind in self.kinds if path.startswith("v2") else self.by_path.get(path, ()):
                described = (kind.api_version, kind.name, kind.plural, kind.namespaced, kind.verbs, kind.subresources)
                digest.update(repr(described).encode())
                if kind.custom is not None:
                    digest.update(kind.custom.digest)
            self.hashes[path] = digest.hexdigest().upper()
        return self.hashes[path]

    def index(self) -> Document:
        """GET /openapi/v3; Content-Type text/plain; charset=utf-8 on a real server."""
        if "" not in self.built:
            body = msgspec.json.encode({"paths": {p: {"serverRelativeURL": self.location(p)} for p in self.paths}})
            self.built[""] = document(body)
        return self.built[""]

    def group(self, path: str) -> Document | None:
        """GET /openapi/v3/<path>, e.g. "api/v1", "apis/apps/v1"; None if there is no such document (404). With another
        `hash` parameter than the document's: redirect 301 to `location(path)`."""
        if path not in self.paths:
            return None
        if path not in self.built:
            self.built[path] = document(msgspec.json.encode(self.third(path)), self.hash_of(path))
        return self.built[path]

    def location(self, path: str) -> str:
        """The right URL of a document: `/openapi/v3/api/v1?hash=...`."""
        return f"/openapi/v3/{path}?hash={self.hash_of(path)}"

    def swagger(self) -> Document:
        """GET /openapi/v2 (application/json)."""
        if "v2" not in self.built:
            self.built["v2"] = document(msgspec.json.encode(self.second()), self.hash_of("v2"))
        return self.built["v2"]

    def swagger_protobuf(self) -> Document:
        """GET /openapi/v2 (protobuf), as kubectl asks for it."""
        if "v2 protobuf" not in self.built:
            self.built["v2 protobuf"] = document(encode_swagger(self.second()), self.hash_of("v2 protobuf"))
        return self.built["v2 protobuf"]

    def head(self) -> Object:
        return {"title": "Kubernetes", "version": self.version}

    def third(self, path: str) -> Object:
        """One OpenAPI 3 document."""
        kinds = self.by_path.get(path, ())
        style = Style(3)
        paths: Object = {}
        for kind in kinds:
            paths.update(paths_of(kind, style))
        if not kinds:
            paths[SIMPLE_PATHS.get(path, f"/{path}/")] = {"get": {"responses": style.answers("")}}
        else:
            paths[f"/{path}/"] = {"get": {"responses": style.answers(META + "APIResourceList")}}
        return {
            "openapi": "3.0.0",
            "info": self.head(),
            "paths": dict(sorted(paths.items())),
            "components": {
                "schemas": style.schemas(kinds),
                "securitySchemes": {
                    "BearerToken": {
                        "type": "apiKey",
                        "in": "header",
                        "name": "authorization",
                        "description": "Bearer token",
                    }
                },
            },
        }

    def second(self) -> Object:
        """The Swagger 2 document of everything."""
        style = Style(2)
        paths: Object = {}
        for kind in self.kinds:
            paths.update(paths_of(kind, style))
        return {
            "swagger": "2.0",
            "info": self.head(),
            "paths": dict(sorted(paths.items())),
            "definitions": style.schemas(self.kinds),
            "securityDefinitions": {
                "BearerToken": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "authorization",
                    "description": "Bearer token",
                }
            },
            "security": [{"BearerToken": []}],
        }


def group_path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


# Paths


class Style:
    """The two spellings of a document: OpenAPI 3 and Swagger 2."""

    def __init__(self, number: int) -> None:
        self.third = number == 3
        self.prefix = "#/components/schemas/" if self.third else "#/definitions/"
        self.used: set[str] = set()

    def ref(self, name: str) -> Object:
        self.used.add(name)
        return {"$ref": self.prefix + name}

    def answers(self, name: str, *codes: str) -> Object:
        """The responses of an operation: these statuses (200 if none is named), and what nobody in particular gets."""
        found: Object = {}
        for code in codes or ("200",):
            ok = found[code] = {"description": WORDS[code]}
            if name and self.third:
                ok["content"] = {media: {"schema": self.ref(name)} for media in (JSON, YAML)}
            elif name:
                ok["schema"] = self.ref(name)
        return {**found, "401": {"description": "Unauthorized"}}

    def parameter(self, name: str) -> Object:
        type_, text = PARAMETERS[name]
        shape: Object = {"type": type_, "uniqueItems": True}
        described: Object = {"name": name, "in": "query", "description": text}
        return {**described, "schema": shape} if self.third else {**described, **shape}

    def path_parameter(self, name: str, text: str) -> Object:
        shape: Object = {"type": "string", "uniqueItems": True}
        described: Object = {"name": name, "in": "path", "description": text, "required": True}
        return {**described, "schema": shape} if self.third else {**described, **shape}

    def body(self, operation: Object, name: str, media: Sequence[str]) -> None:
        """Give an operation its request body."""
        if self.third:
            operation["requestBody"] = {"content": {m: {"schema": self.ref(name)} for m in media}, "required": True}
        else:
            operation["consumes"] = list(media)
            whole: Object = {"name": "body", "in": "body", "required": True, "schema": self.ref(name)}
            operation["parameters"] = [whole, *operation.get("parameters", [])]

    def schemas(self, kinds: Iterable[Kind]) -> Object:
        """The definitions of these kinds, of what paths referred to, and of all they refer to, by name."""
        todo = [*self.used, *(k.schema for k in kinds), META + "Status"]
        done: Object = {}
        for kind in kinds:
            if kind.custom is not None:
                done[kind.schema] = custom_definition(kind, self)
                done[f"{kind.schema}List"] = custom_list(kind, self)
                todo += [META + "ObjectMeta", META + "ListMeta"]
        while todo:
            name = todo.pop()
            if name in done or name not in schema.section(1):
                continue
            definition = schema.definition(name)
            done[name] = self.definition(definition)
            for field in definition.fields.values():
                inner: Field | None = field
                while inner is not None:
                    if inner.ref:
                        todo.append(inner.ref)
                    inner = inner.items
        return dict(sorted(done.items()))

    def definition(self, definition: Definition) -> Object:
        texts = schema.description(definition.name)
        out: Object = {"description": texts.text} if texts.text else {}
        if definition.format in ("int-or-string", "quantity"):
            self.scalar(definition.format, out)
            return out
        if definition.type != "any":
            out["type"] = definition.type
        elif definition.name.rsplit(".", 1)[1] in ("FieldsV1", "Patch", "RawExtension"):
            out["type"] = "object"
        if definition.format:
            out["format"] = "date-time" if definition.format == "micro-time" else definition.format
        if definition.fields:
            out["properties"] = {
                key: self.field(field, texts.fields.get(key, "")) for key, field in definition.fields.items()
            }
        if definition.required:
            out["required"] = list(definition.required)
        if definition.kinds:
            out["x-kubernetes-group-version-kind"] = [
                {"group": g, "kind": k, "version": v} for g, v, k in definition.kinds
            ]
        if definition.map_type:
            out["x-kubernetes-map-type"] = definition.map_type
        if definition.unions:
            out["x-kubernetes-unions"] = definition.unions
        return out

    def scalar(self, format: str, out: Object) -> None:
        if not self.third:
            out["type"] = "string"
            if format == "int-or-string":
                out["format"] = format
        elif format == "int-or-string":
            out["format"] = format
            out["oneOf"] = [{"type": "integer"}, {"type": "string"}]
        else:
            out["oneOf"] = [{"type": "string"}, {"type": "number"}]

    def field(self, field: Field, text: str = "") -> Object:
        out: Object = {"description": text} if text else {}
        if field.ref and self.third:
            out["allOf"] = [self.ref(field.ref)]
            if field.value:
                out["default"] = {}
        elif field.ref:
            out.update(self.ref(field.ref))
        elif field.type == "map":
            out["type"] = "object"
            out["additionalProperties"] = self.field(field.items) if field.items else {"type": "object"}
        elif field.type == "any":
            out["type"] = "object"
        else:
            out["type"] = field.type
            if field.type == "array":
                out["items"] = self.field(field.items) if field.items else {"type": "object"}
            if field.format:
                out["format"] = field.format
        if field.default is not None:
            out["default"] = field.default
        if field.enum and self.third:
            out["enum"] = list(field.enum)
        extensions = (
            ("x-kubernetes-list-map-keys", list(field.list_map_keys)),
            ("x-kubernetes-list-type", field.list_type),
            ("x-kubernetes-map-type", field.map_type),
            ("x-kubernetes-patch-merge-key", field.patch_merge_key),
            ("x-kubernetes-patch-strategy", ",".join(field.patch_strategy)),
        )
        out.update({name: value for name, value in extensions if value})
        return out


# Custom kinds

DROPPED_FROM_SECOND = frozenset(
    {"allOf", "anyOf", "oneOf", "not", "nullable", "x-kubernetes-validations", "additionalItems"}
)
"""What Swagger 2 has no words for, so that its readers would stumble."""


def custom_definition(kind: Kind, style: Style) -> Object:
    """The definition of a custom kind: its author's schema, and what every object has."""
    assert kind.custom is not None
    out: Object = dict(kind.custom.schema) if style.third else second_form(kind.custom.schema)
    texts = schema.description("io.k8s.api.core.v1.ConfigMap").fields
    fields: Object = {
        "apiVersion": {"type": "string", "description": texts.get("apiVersion", "")},
        "kind": {"type": "string", "description": texts.get("kind", "")},
        "metadata": {"description": texts.get("metadata", ""), **embedded_meta(style)},
    }
    known = out.get("properties") or {}
    if known or not out.get("x-kubernetes-preserve-unknown-fields"):
        out["properties"] = {**fields, **{k: v for k, v in known.items() if k not in fields}}
    out["type"] = "object"
    out["x-kubernetes-group-version-kind"] = [{"group": kind.group, "kind": kind.name, "version": kind.version}]
    return out


def embedded_meta(style: Style) -> Object:
    ref = style.ref(META + "ObjectMeta")
    return {"allOf": [ref]} if style.third else ref


def custom_list(kind: Kind, style: Style) -> Object:
    """The definition of a custom kind's lists."""
    meta = style.ref(META + "ListMeta")
    return {
        "description": f"{kind.list_name} is a list of {kind.name}",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "items": {"type": "array", "items": style.ref(kind.schema)},
            "kind": {"type": "string"},
            "metadata": {"allOf": [meta]} if style.third else meta,
        },
        "x-kubernetes-group-version-kind": [{"group": kind.group, "kind": kind.list_name, "version": kind.version}],
    }


def second_form(given: Object) -> Object:
    """A schema in the words of Swagger 2, which is less strict: what may be null has no type, nor what may be either
    a number or a text; where unknown fields stay, nothing is said of the known ones."""
    out: Object = {k: v for k, v in given.items() if k not in DROPPED_FROM_SECOND}
    if given.get("nullable") or given.get("x-kubernetes-int-or-string"):
        for name in ("type", "items", "properties", "format"):
            out.pop(name, None)
    if given.get("x-kubernetes-preserve-unknown-fields"):
        for name in ("items", "properties"):
            out.pop(name, None)
        if given.get("type") != "object":
            out.pop("type", None)
    if isinstance(out.get("properties"), dict):
        out["properties"] = {k: second_form(v) for k, v in out["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(out.get(name), dict):
            out[name] = second_form(out[name])
    return out


class Call(NamedTuple):
    """What one operation is: HTTP method, its name in operationId, the action clients know it by."""

    method: str
    word: str
    action: str


CALLS = {
    "get": Call("get", "read", "get"),
    "list": Call("get", "list", "list"),
    "create": Call("post", "create", "post"),
    "update": Call("put", "replace", "put"),
    "patch": Call("patch", "patch", "patch"),
    "delete": Call("delete", "delete", "delete"),
    "deletecollection": Call("delete", "deleteCollection", "deletecollection"),
}


def camel(group: str, version: str) -> str:
    """`CoreV1`, `AppsV1`, `RbacAuthorizationV1`: how operations name a group and version."""
    parts = (group or "core").removesuffix(".k8s.io").split(".")
    return "".join(p.capitalize() for p in parts) + version.capitalize()


def paths_of(kind: Kind, style: Style) -> Object:
    """The paths of a kind and of its subresources."""
    out: Object = {}
    base = f"/{group_path(kind.group, kind.version)}"
    top = f"{base}/{kind.plural}"
    scoped = f"{base}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else top
    if kind.namespaced and "list" in kind.verbs:
        everywhere = operation(kind, "list", style, suffix="ForAllNamespaces", scoped=False)
        out[top] = {"get": everywhere}
    out[scoped] = with_parameters(kind, style, {}, item=False)
    item = f"{scoped}/{{name}}"
    out[item] = with_parameters(kind, style, {}, item=True)
    for verb in kind.verbs:
        call = CALLS.get(verb)
        if call is not None:
            path = scoped if verb in ("list", "create", "deletecollection") else item
            out[path][call.method] = operation(kind, verb, style)
    for subresource in kind.subresources:
        methods = {CALLS[v].method: operation(kind, v, style, subresource) for v in subresource.verbs if v in CALLS}
        if methods:
            out[f"{item}/{subresource.name}"] = with_parameters(kind, style, methods, item=True)
    return {path: methods for path, methods in out.items() if methods.keys() - {"parameters"}}


def with_parameters(kind: Kind, style: Style, methods: Object, *, item: bool) -> Object:
    """A path's entry: its operations, and the parameters in its path."""
    parameters = [style.path_parameter("name", f"name of the {kind.name}")] if item else []
    if kind.namespaced:
        parameters.append(style.path_parameter("namespace", "the namespace of the object"))
    return {**methods, "parameters": parameters} if parameters else methods


def operation(
    kind: Kind,
    verb: str,
    style: Style,
    subresource: Subresource | None = None,
    *,
    suffix: str = "",
    scoped: bool = True,
) -> Object:
    """One operation; its group-version-kind is that of the body (DISC-7)."""
    call = CALLS[verb]
    group, version, name, body = kind.group, kind.version, kind.name, kind.schema
    if subresource is not None and subresource.kind:
        group, version = subresource.group or kind.group, subresource.version or kind.version
        name = subresource.kind
        definition = schema.by_kind(group, version, name)
        body = definition.name if definition else ""
    where = "Namespaced" if kind.namespaced and scoped else ""
    word, lead = call.word, camel(kind.group, kind.version)
    named = f"{word.removesuffix('Collection')}{lead}{'Collection' if word.endswith('Collection') else ''}"
    below = subresource.name.capitalize() if subresource is not None else ""
    out: Object = {"operationId": f"{named}{where}{kind.name}{below}{suffix}", "tags": [lead[0].lower() + lead[1:]]}
    options: tuple[str, ...] = ()
    answer = body
    if verb in ("create", "update", "patch"):
        options = (*WRITE, "force") if verb == "patch" else WRITE
    elif verb == "list":
        options, answer = LIST, f"{body}List"
    elif verb in ("delete", "deletecollection"):
        options = DELETE if verb == "delete" else (*DELETE, *LIST[:8])
        answer = body if verb == "delete" and kind.delete_returns_object else META + "Status"
    if answer not in schema.section(1) and (kind.custom is None or not answer.startswith(kind.schema)):
        answer = ""
    out["parameters"] = [style.parameter(n) for n in options]
    if verb in ("create", "update") and body:
        style.body(out, body, (JSON, YAML) if style.third else ("*/*",))
    elif verb == "patch":
        style.body(out, META + "Patch", PATCH_TYPES if kind.custom is None else PATCH_TYPES[:3])
    elif verb in ("delete", "deletecollection"):
        style.body(out, META + "DeleteOptions", (JSON, YAML) if style.third else ("*/*",))
    out["responses"] = style.answers(answer, *CODES.get(verb, ("200",)))
    out["x-kubernetes-action"] = "connect" if subresource is not None and not body else call.action
    out["x-kubernetes-group-version-kind"] = {"group": group, "kind": name, "version": version}
    return out
