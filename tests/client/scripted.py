"""A server of one kind of object in a dict, with a history, and trouble on demand: what informers live with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, cast

from kubesvc.api.errors import ApiError, Expired
from kubesvc.api.kind import Kind
from kubesvc.client.interface import Client, EventType, RawList, WatchEvent


class ScriptedServer:
    """Objects by key, every change in `history`; what goes wrong next is in the `fail_*` and `drop_*` switches."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.history: list[tuple[int, EventType, bytes]] = []
        self.revision = 10
        self.forgotten = 0
        """Revisions up to here are gone: a watch from before them is Expired."""
        self.changed = asyncio.Event()
        self.list_failures: list[Exception] = []
        self.watch_failures: list[Exception] = []
        self.cut = 0
        """Raised to end all running watches."""
        self.lists: list[str] = []
        self.watches: list[str] = []
        self.page = 0
        self.repeat_last = False

    @property
    def client(self) -> Client:
        return cast(Client, self)

    def put(self, name: str, namespace: str = "ns", *, uid: str = "", **content: Any) -> None:
        self.revision += 1
        key = (namespace, name)
        type: EventType = "MODIFIED" if key in self.objects else "ADDED"
        meta = {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"uid-{name}",
            "resourceVersion": str(self.revision),
        }
        self.objects[key] = {"metadata": meta, **content}
        self._tell(type, self.objects[key])

    def remove(self, name: str, namespace: str = "ns") -> None:
        self.revision += 1
        gone = self.objects.pop((namespace, name))
        gone["metadata"]["resourceVersion"] = str(self.revision)
        self._tell("DELETED", gone)

    def bookmark(self) -> None:
        self.revision += 1
        self._tell("BOOKMARK", {"metadata": {"resourceVersion": str(self.revision)}})

    def forget(self) -> None:
        """Drop history and end the watches, as a restart after compaction does."""
        self.forgotten = self.revision
        self.history.clear()
        self.drop()

    def drop(self) -> None:
        self.cut += 1
        self.changed.set()

    def _tell(self, type: EventType, obj: dict[str, Any]) -> None:
        self.history.append((self.revision, type, json.dumps(obj).encode()))
        self.changed.set()

    async def list_raw(self, kind: Kind, namespace: str = "", **options: Any) -> RawList:
        token = options.get("continue_token", "")
        self.lists.append(token)
        if self.list_failures:
            raise self.list_failures.pop(0)
        keys = [k for k in sorted(self.objects) if not namespace or k[0] == namespace]
        start = int(token or 0)
        size = self.page if self.page and options.get("limit") else len(keys)
        rest = str(start + size) if start + size < len(keys) else ""
        items = [json.dumps(self.objects[k]).encode() for k in keys[start : start + size]]
        return RawList(str(self.revision), items, rest)

    async def watch(self, kind: Kind, namespace: str = "", **options: Any) -> AsyncGenerator[WatchEvent, None]:
        version = options["resource_version"]
        self.watches.append(version)
        if self.watch_failures:
            raise self.watch_failures.pop(0)
        if int(version) < self.forgotten:
            raise Expired(f"too old resource version: {version} ({self.forgotten})")
        at, cut = int(version), self.cut
        while True:
            for revision, type, raw in list(self.history):
                if revision > at:
                    at = revision
                    yield WatchEvent(type, raw)
                    if self.repeat_last and type != "BOOKMARK":
                        yield WatchEvent("MODIFIED", raw)
            if self.cut != cut:
                return
            self.changed.clear()
            await self.changed.wait()


def refused(code: int) -> ApiError:
    return ApiError(f"HTTP {code}", code=code)
