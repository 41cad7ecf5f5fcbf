"""From method and path to what is asked: verb, resource, namespace, name, subresource. Pure (DISC-8).

Authorisation looks at the `Target` before anybody asks whether the resource exists, so parsing never fails; `kind_of`
then finds what serves it, or raises the 404 or 405.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from kubesvc.api.errors import ApiError, MethodNotAllowed, NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import by_resource

from .refusals import not_found

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get"}
LONGEST_REMEMBERED = 160
NO_RESOURCE = "the server could not find the requested resource"
NO_METHOD = "the server does not allow this method on the requested resource"


class Target(NamedTuple):
    """What a request is about. `resource` is "" for paths outside the objects of a group and version."""

    method: str
    path: str
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    """What follows a subresource in the path, as in `…/proxy/index.html`; begins with a slash or is empty."""
    empty_segment: bool = False
    """Whether the path has two slashes in a row, which nothing is found at."""
    in_namespace: bool = False

    @property
    def is_resource(self) -> bool:
        return bool(self.resource)

    def namespace_of(self, kind: Kind) -> str:
        """The namespace objects are looked for in; "" for cluster-scoped kinds, though authorisation sees one for a
        Namespace by name (AUTH-3)."""
        return self.namespace if kind.namespaced else ""


def parse_target(method: str, raw_path: str, *, watch: bool) -> Target:
    """The target of a request; as `read_target`, and short paths that come again are remembered."""
    if len(raw_path) > LONGEST_REMEMBERED:
        return read_target(method, raw_path, watch)
    return remembered_target(method, raw_path, watch)


@lru_cache(maxsize=4096)
def remembered_target(method: str, raw_path: str, watch: bool) -> Target:
    return read_target(method, raw_path, watch)


def read_target(method: str, raw_path: str, watch: bool) -> Target:
    """The target of a request.

    raw_path: the path as sent, percent-encoded, without query
    watch:    whether the query asks for a watch
    """
    path = unquote(raw_path)
    segments = raw_path.split("/")[1:]
    if segments and segments[-1] == "":
        segments.pop()
    double = "" in segments
    parts = [unquote(s) for s in segments if s] if "%" in raw_path else [s for s in segments if s]
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return Target(method, path, method.lower(), empty_segment=double)
    if parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    else:
        group, version, rest = parts[1], parts[2], parts[3:]
    if not rest:
        return Target(method, path, method.lower(), empty_segment=double)
    verb = VERBS.get(method, method.lower())
    legacy = rest[0] == "watch" and len(rest) > 1
    if legacy:
        rest = rest[1:]
    namespace = resource = name = subresource = more = ""
    in_namespace = False
    if rest[0] == "namespaces":
        if len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, in_namespace, rest = rest[1], True, rest[2:]
        elif len(rest) > 1:
            namespace = rest[1]
    resource = rest[0]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if len(rest) > 3:
        more = "/" + "/".join(rest[3:])
    if subresource == "proxy" and raw_path.endswith("/"):
        more += "/"
    if method == "GET":
        if legacy or (watch and not name):
            verb = "watch"
        elif not name:
            verb = "list"
    elif method == "DELETE" and not name:
        verb = "deletecollection"
    return Target(
        method, path, verb, group, version, resource, namespace, name, subresource, more, double, in_namespace
    )


def path_matches(pattern: str, path: str) -> bool:
    """Whether a pattern of rules, a path that may end in `*`, holds a path."""
    return path == pattern or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def not_served() -> ApiError:
    """DISC-8: a known group, but nothing there."""
    return NotFound(NO_RESOURCE)


def not_allowed() -> ApiError:
    return MethodNotAllowed(NO_METHOD)


def kind_of(target: Target, known: Callable[[str, str, str], Kind | None] = by_resource) -> Kind:
    """The kind that a target's resource names, with the path's shape and the method checked; NotFound or
    MethodNotAllowed otherwise. `known` finds a kind by group, version and plural."""
    kind = known(target.group, target.version, target.resource)
    if kind is None or target.empty_segment:
        raise not_served()
    if kind.namespaced:
        if target.name and not target.in_namespace:
            raise not_served()
    elif target.in_namespace:
        raise not_served()
    if target.subresource:
        sub = next((s for s in kind.subresources if s.name == target.subresource), None)
        if sub is None and kind.custom is not None:
            raise not_found(kind, target.name)
        if sub is None or (target.rest and target.subresource != "proxy"):
            raise not_served()
        wanted = "get" if target.verb in ("watch", "list") else target.verb
        if wanted not in sub.verbs and sub.name != "proxy":
            raise not_allowed()
        return kind
    if target.method not in VERBS or (target.name and target.method == "POST"):
        raise not_allowed()
    verb = target.verb
    if not target.name and verb in ("update", "patch"):
        raise not_allowed()
    if verb not in kind.verbs:
        raise not_allowed()
    if kind.namespaced and not target.in_namespace and verb in ("create", "deletecollection"):
        raise not_allowed()
    return kind
