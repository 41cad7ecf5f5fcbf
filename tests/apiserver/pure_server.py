"""A server without a store: the strategy of a kind, allocation and metadata in the order of a write, over a dict.

It takes what a recording asks for (POST, PUT, merge PATCH, DELETE, main resource and status) and answers with status
and body. Decoding errors, server-side apply and the like are other parts' business.
"""

from __future__ import annotations

import asyncio
import copy
import random
from typing import Any

import msgspec

from kubesvc.api import fields
from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.errors import AlreadyExists, ApiError, NotFound
from kubesvc.api.ipaddress import IP_ADDRESS, address_object
from kubesvc.api.kind import Kind, Situation
from kubesvc.api.meta import Object
from kubesvc.api.objectmeta import validate_metadata, validate_metadata_update
from kubesvc.api.service import SERVICE
from kubesvc.api.servicecidr import SERVICE_CIDR
from kubesvc.apiserver.allocators import Allocations
from kubesvc.apiserver.hooks import Reservation
from kubesvc.apiserver.service_rest import ServiceHooks

KINDS: tuple[Kind, ...] = (SERVICE, ENDPOINTS, ENDPOINT_SLICE, IP_ADDRESS, SERVICE_CIDR)
Key = tuple[Kind, str, str]
NAMESPACE = "shop"


class PureServer:
    """`objects` are what is stored; `revision` counts the commits that changed something."""

    def __init__(self, *ranges: str, node_ports: tuple[int, int] = (30000, 32767), seed: int = 1) -> None:
        self.allocations = Allocations(ranges or ("10.96.0.0/16",), node_ports)
        self.hooks = ServiceHooks(self.allocations, random.Random(seed))
        self.situation = Situation(families=self.allocations.families)
        self.objects: dict[Key, Object] = {}
        self.revision = 100
        self.warnings: list[str] = []

    def run(self, method: str, kind: Kind, name: str, body: Any, subresource: str = "", dry_run: bool = False) -> Any:
        """The object that the request leaves; ApiError. `warnings` are those of the last request."""
        self.warnings = []
        return shown(kind, self.change(method, kind, name, body, subresource, dry_run))

    def change(self, method: str, kind: Kind, name: str, body: Any, subresource: str, dry_run: bool) -> Object:
        match method:
            case "POST":
                return self.create(kind, copy.deepcopy(body), dry_run)
            case "PUT" if (kind, NAMESPACE, name) not in self.objects and kind.create_on_put:
                return self.create(kind, copy.deepcopy(body), dry_run)
            case "PUT":
                return self.update(kind, name, copy.deepcopy(body), subresource, dry_run)
            case "PATCH":
                merged = merge_patch(copy.deepcopy(self.get(kind, name)), body)
                return self.update(kind, name, merged, subresource, dry_run)
            case "DELETE":
                return self.delete(kind, name)
        raise AssertionError(method)

    def snapshot(self) -> dict[Key, Object]:
        return {key: copy.deepcopy(obj) for key, obj in self.objects.items()}

    def get(self, kind: Kind, name: str) -> Object:
        found = self.objects.get((kind, NAMESPACE if kind.namespaced else "", name))
        if found is None:
            raise NotFound(f'{kind.resource} "{name}" not found')
        return found

    def create(self, kind: Kind, obj: Object, dry_run: bool = False) -> Object:
        meta = obj.setdefault("metadata", {})
        obj["kind"], obj["apiVersion"] = kind.name, kind.api_version
        kind.default(obj)
        meta = obj["metadata"]
        for part in ("uid", "creationTimestamp", "resourceVersion"):
            meta.pop(part, None)
        if kind.namespaced:
            meta["namespace"] = NAMESPACE
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"][:58] + "bcdfg"
        if kind.generation is not None:
            meta["generation"] = 1
        meta["uid"], meta["creationTimestamp"] = f"uid-{self.revision}", "2026-01-01T00:00:00Z"
        kind.prepare_create(obj)
        reservation = self.reserve(kind, obj, None, dry_run)
        try:
            self.check(kind, obj, validate_metadata(obj, kind) + kind.validate(obj, self.situation))
            if (kind, meta.get("namespace", ""), meta["name"]) in self.objects:
                raise AlreadyExists(f'{kind.resource} "{meta["name"]}" already exists')
        except ApiError:
            reservation.rollback()
            raise
        self.warnings += kind.warn(obj, None)
        return self.commit(kind, obj, None, reservation, dry_run)

    def update(self, kind: Kind, name: str, obj: Object, subresource: str = "", dry_run: bool = False) -> Object:
        old = copy.deepcopy(self.get(kind, name))
        kind.default(obj)
        meta = obj["metadata"]
        for part in ("uid", "creationTimestamp", "namespace", "generation", "resourceVersion"):
            if part in old["metadata"]:
                meta[part] = old["metadata"][part]
        obj["kind"], obj["apiVersion"] = kind.name, kind.api_version
        if subresource == "status":
            obj["spec"] = copy.deepcopy(old["spec"])
        elif kind.has_status:
            obj["status"] = copy.deepcopy(old.get("status"))
        kind.prepare_update(obj, old)
        reservation = Reservation() if subresource else self.reserve(kind, obj, old, dry_run)
        validate = kind.validate_status if subresource else kind.validate_update
        try:
            self.check(kind, obj, validate_metadata_update(obj, old) + validate(obj, old, self.situation))
        except ApiError:
            reservation.rollback()
            raise
        self.warnings += kind.warn(obj, old)
        if kind.generation is not None and kind.generation(obj, old):
            meta["generation"] = old["metadata"].get("generation", 0) + 1
        if obj == old:
            reservation.rollback()
            return obj
        return self.commit(kind, obj, old, reservation, dry_run)

    def delete(self, kind: Kind, name: str) -> Object:
        old = self.get(kind, name)
        reservation = self.hooks.before_delete(old, False) if kind is SERVICE else Reservation()
        self.write(reservation)
        self.put(kind, None, old)
        reservation.confirm()
        return old

    def reserve(self, kind: Kind, obj: Object, old: Object | None, dry_run: bool) -> Reservation:
        if kind is not SERVICE:
            return Reservation()
        if old is None:
            return asyncio.run(self.hooks.before_create(obj, dry_run))
        return asyncio.run(self.hooks.before_update(obj, old, dry_run))

    def check(self, kind: Kind, obj: Object, errors: fields.Errors) -> None:
        if errors:
            raise fields.invalid_object(kind.group, kind.name, obj["metadata"].get("name") or "", errors)

    def commit(self, kind: Kind, obj: Object, old: Object | None, reservation: Reservation, dry_run: bool) -> Object:
        if dry_run:
            reservation.rollback()
            obj["metadata"].pop("resourceVersion", None)
            return obj
        self.write(reservation)
        self.revision += 1
        obj["metadata"]["resourceVersion"] = str(self.revision)
        self.put(kind, obj, old)
        reservation.confirm()
        return obj

    def write(self, reservation: Reservation) -> None:
        for companion in reservation.companions:
            meta = companion.object["metadata"]
            key = (companion.kind, meta.get("namespace", ""), meta["name"])
            if companion.verb == "create":
                assert key not in self.objects, f"{key} was allocated twice"
                self.put(companion.kind, companion.object, None)
            elif key in self.objects:
                self.put(companion.kind, None, self.objects[key])

    def put(self, kind: Kind, new: Object | None, old: Object | None) -> None:
        meta = (new or old or {})["metadata"]
        key = (kind, meta.get("namespace", ""), meta["name"])
        if new is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = copy.deepcopy(new)
        if kind in self.hooks.observed:
            self.hooks.observe(kind, old, copy.deepcopy(new))

    def hold(self, address: str, namespace: str = "default", name: str = "kubernetes") -> None:
        """Store an IPAddress as if a Service had it."""
        self.put(IP_ADDRESS, address_object(address, namespace, name), None)


def shown(kind: Kind, obj: Object) -> Object:
    """What is sent of a stored object."""
    return obj if kind.shown is None else msgspec.json.decode(kind.shown(msgspec.json.encode(obj)))


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result
