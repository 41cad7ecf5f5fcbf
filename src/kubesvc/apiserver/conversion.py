"""Conversion between the versions of a custom kind by its definition's webhook (ConversionReview).

Objects lie in the store in the version that they were last written for. Whoever is about to show some in another one
has them converted first, all in one call; what was converted is remembered with the bytes it was made from, so that
rendering itself never waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from kubesvc.api.customkind import CustomForm
from kubesvc.api.errors import ApiError
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.api.structural import fill, prune
from kubesvc.clock import Random

from . import refusals
from .bookkeeping import new_uid
from .webhookcalls import Unreachable, Webhooks

CHANGEABLE = ("labels", "annotations")
"""What of metadata a webhook may change."""
SECONDS = 30
MOST_CONVERTED = 20_000
"""Beyond so many, what is not needed now is forgotten."""
_json = msgspec.json.Encoder()


class Conversions:
    """Asks conversion webhooks."""

    def __init__(self, webhooks: Webhooks, random: Random) -> None:
        self.webhooks = webhooks
        self.random = random
        webhooks.convert = self.between

    async def ready(self, kind: Kind, values: Iterable[bytes]) -> None:
        """Have these stored values at hand in the version of `kind`. ApiError if its webhook does not do it."""
        custom = kind.custom
        if custom is None or custom.webhook is None:
            return
        needed = dict.fromkeys(v for v in values if custom.foreign(v))
        todo = [v for v in needed if v not in custom.converted]
        if not todo:
            return
        if len(custom.converted) > MOST_CONVERTED:
            custom.converted = {v: custom.converted[v] for v in needed if v in custom.converted}
        found = await self.convert(kind, custom, custom.api_version, [msgspec.json.decode(v) for v in todo])
        for value, obj in zip(todo, found, strict=True):
            prune(obj, custom.structural, "", [], root=True)
            fill(obj, custom.structural)
            custom.remember(value, obj)

    async def stored_form(self, kind: Kind, custom: CustomForm, obj: Object) -> Object:
        """An object of `kind` in the version that is stored."""
        typed = {**obj, "apiVersion": custom.api_version, "kind": kind.name}
        if custom.api_version == custom.stored_api_version:
            return typed
        return (await self.convert(kind, custom, custom.stored_api_version, [typed]))[0]

    async def between(self, kind: Kind, wanted: Kind, obj: Object) -> Object:
        """An object of one version of a custom kind as one of another. ApiError."""
        custom = kind.custom
        typed = {**obj, "apiVersion": kind.api_version, "kind": kind.name}
        if custom is None or custom.webhook is None:
            return {**typed, "apiVersion": wanted.api_version}
        return (await self.convert(kind, custom, wanted.api_version, [typed]))[0]

    async def convert(self, kind: Kind, custom: CustomForm, version: str, objects: list[Object]) -> list[Object]:
        uid = new_uid(self.random)
        request = {"uid": uid, "desiredAPIVersion": version, "objects": objects}
        review = {"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "request": request}
        assert custom.webhook is not None
        place = {"clientConfig": custom.webhook.get("clientConfig") or {}, "timeoutSeconds": SECONDS}
        try:
            raw = await self.webhooks.call(place, _json.encode(review))
            return converted(raw, uid, version, objects)
        except (Unreachable, ValueError) as e:
            given = str(objects[0].get("apiVersion"))
            raise failure(kind, given, str(e)) from None


def failure(kind: Kind, version: str, why: str) -> ApiError:
    return refusals.plain_failure(f"conversion webhook for {version}, Kind={kind.name} failed: {why}")


def converted(raw: bytes, uid: str, version: str, objects: list[Object]) -> list[Object]:
    """The objects of a webhook's answer; ValueError for one that is none, or that changed what it must not."""
    try:
        answer: Any = msgspec.json.decode(raw)
        response = answer["response"]
        result, found = response.get("result") or {}, response.get("convertedObjects") or []
        if response.get("uid") != uid:
            raise ValueError(f"expected response.uid={uid!r}, got {response.get('uid')!r}")
        if result.get("status") != "Success":
            raise ValueError(str(result.get("message") or f"unexpected status {result.get('status')!r}"))
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"invalid response: {e}") from None
    if len(found) != len(objects):
        raise ValueError(f"webhook returned {len(found)} objects, expected {len(objects)}")
    out: list[Object] = []
    for before, after in zip(objects, found, strict=True):
        if not isinstance(after, dict) or after.get("apiVersion") != version or after.get("kind") != before.get("kind"):
            raise ValueError(f"invalid converted object: expected {version}, Kind={before.get('kind')}")
        meta = after.get("metadata")
        kept = {k: v for k, v in before["metadata"].items() if k not in CHANGEABLE}
        kept.update({k: meta[k] for k in CHANGEABLE if isinstance(meta, dict) and meta.get(k)})
        out.append({**after, "metadata": kept})
    return out
