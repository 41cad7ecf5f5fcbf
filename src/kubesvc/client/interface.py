"""The `Client` protocol: the one way to objects, in process, over a unix socket or to any cluster.

Objects are plain (`Object`, decoded JSON) where one is read or written, and bytes where many pass by (`list_raw`,
`watch`), so that informers decode only what they use. Every method raises the errors of `kubesvc.api.errors`; besides
those only `Unreachable` (below) for a server that cannot be reached or ends the connection.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object

PatchType = Literal["json", "merge", "strategic", "apply"]
EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


class Unreachable(Exception):
    """The server could not be reached, or the connection ended early; a write may or may not have happened.

    told: users know already that the server is away; to log it again helps nobody
    """

    told = False


def loudness(error: Exception) -> int:
    """The level to log a request's failure at: a warning, unless it only repeats that the server is away."""
    return logging.DEBUG if isinstance(error, Unreachable) and error.told else logging.WARNING


class WatchEvent(NamedTuple):
    """One event of a watch; `object` is the JSON of the object (of a bookmark: metadata.resourceVersion and
    perhaps the annotation k8s.io/initial-events-end)."""

    type: EventType
    object: bytes


@dataclass(frozen=True, slots=True)
class RawList:
    """A list as it came: the revision it is consistent at, the JSON of each item, and the token of the next page."""

    resource_version: str
    items: list[bytes]
    continue_token: str = ""


class Answer(Object):
    """The object that a server answers to a write, as plain as any. size_bytes: how long it is there, as JSON"""

    __slots__ = ("size_bytes",)

    def __init__(self, obj: Object, size_bytes: int) -> None:
        super().__init__(obj)
        self.size_bytes = size_bytes


class Client(Protocol):
    """Reads and writes objects of any kind. `namespace` is "" for cluster-scoped kinds and for all namespaces."""

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Object: ...

    async def list_raw(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> RawList: ...

    def watch(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        initial_events: bool = False,
        bookmarks: bool = True,
        timeout_seconds: int | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Events in order until the server ends the stream. An ERROR event is raised (Expired: relist).

        Use with `contextlib.aclosing`, so that leaving the loop ends the stream.
        """
        ...

    async def create(
        self, kind: Kind, obj: Object, namespace: str = "", *, name: str = "", subresource: str = ""
    ) -> Object:
        """`name` and `subresource` for POSTs below an object: binding, eviction, token."""
        ...

    async def update(self, kind: Kind, obj: Object, *, subresource: str = "") -> Object:
        """PUT; name, namespace and resourceVersion are those in obj.metadata."""
        ...

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str,
        patch: Any,
        type: PatchType,
        *,
        subresource: str = "",
        force: bool = False,
    ) -> Object: ...

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        grace_seconds: int | None = None,
        propagation: str = "",
        uid: str = "",
        resource_version: str = "",
    ) -> Object:
        """The deleted object or the Status, as the server answers (DEL-4)."""
        ...

    async def delete_collection(
        self, kind: Kind, namespace: str, *, label_selector: str = "", grace_seconds: int | None = None
    ) -> None: ...

    def as_manager(self, manager: str) -> Client:
        """The same client writing under this field manager (User-Agent) name."""
        ...
