"""A snapshot of a running cluster, read over a Client: one list for each kind, page by page, nothing written.

A kind that may not be listed, or that the server does not have, becomes a gap; the rest is read all the same.
"""

from __future__ import annotations

import asyncio

import msgspec

from kubesvc.api.errors import ApiError, Forbidden, NotFound, Unauthorized
from kubesvc.api.event import EVENT
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Typed
from kubesvc.api.namespace import NAMESPACE
from kubesvc.api.node import NODE
from kubesvc.api.pod import POD, Pod
from kubesvc.api.service import SERVICE
from kubesvc.client import Client, Unreachable
from kubesvc.clock import Clock

from .commands import selector_text
from .snapshot import READ, Gap, Skipped, Snapshot, snapshot_of

PAGE = 1000
"""Objects in one page of a list: keeps memory low on large clusters."""
AT_ONCE = 4
CLUSTER_WIDE = (NODE, NAMESPACE)
SYSTEM = "kube-system"


async def collect(client: Client, clock: Clock, namespace: str = "") -> Snapshot:
    """Read what concerns one namespace, and kube-system for proxies and DNS; "" reads all namespaces.

    Raises Unreachable if the server cannot be reached, Unauthorized if it does not know who asks.
    """
    gate = asyncio.Semaphore(AT_ONCE)
    gaps: list[Gap] = []
    skipped: list[Skipped] = []
    places: list[tuple[Kind, str]] = []
    for kind in READ:
        if not kind.namespaced or not namespace:
            places.append((kind, ""))
        else:
            places.append((kind, namespace))
            if kind is not EVENT and namespace != SYSTEM and kind.name in NEEDED_OF_SYSTEM:
                places.append((kind, SYSTEM))

    async def read(kind: Kind, where: str) -> list[tuple[Kind, Typed]]:
        async with gate:
            try:
                return [(kind, obj) for obj in await listed(client, kind, where, skipped)]
            except Unauthorized:
                raise
            except ApiError as error:
                if where == namespace or not kind.namespaced:
                    gaps.append(Gap(kind, reason_of(error)))
                return []

    # The first alone: whether the server is there at all, and who asks, is found out once.
    lists = [await read(*places[0])]
    lists += await asyncio.gather(*(read(kind, where) for kind, where in places[1:]))
    order = {kind: i for i, kind in enumerate(READ)}
    return snapshot_of(
        (entry for found in lists for entry in found),
        clock.now(),
        gaps=tuple(sorted(gaps, key=lambda g: order[g.kind])),
        skipped=tuple(skipped),
        scope=namespace,
    )


NEEDED_OF_SYSTEM = ("Service", "EndpointSlice", "Pod", "DaemonSet")


async def pods_elsewhere(client: Client, selector: dict[str, str], namespace: str) -> list[Pod]:
    """Pods of other namespaces with these labels; none if that may not be asked."""
    try:
        found = await listed(client, POD, "", [], label_selector=selector_text(selector))
    except ApiError:
        return []
    return [p for p in found if isinstance(p, Pod) and p.namespace != namespace]


async def listed(
    client: Client, kind: Kind, namespace: str, skipped: list[Skipped], *, label_selector: str = ""
) -> list[Typed]:
    """All objects of a kind; those that cannot be decoded are noted in `skipped`."""
    decoder = msgspec.json.Decoder(kind.type)
    objects: list[Typed] = []
    token = ""
    while True:
        page = await client.list_raw(kind, namespace, limit=PAGE, continue_token=token, label_selector=label_selector)
        for raw in page.items:
            try:
                objects.append(decoder.decode(raw))
            except msgspec.MsgspecError as error:
                skipped.append(Skipped(f"a {kind.name} of the cluster", str(error)))
        token = page.continue_token
        if not token:
            return objects


def reason_of(error: ApiError) -> str:
    if isinstance(error, Forbidden):
        return f"not permitted ({error.message})"
    if isinstance(error, NotFound):
        return "this server does not have it"
    return error.message


__all__ = ["SERVICE", "Unreachable", "collect", "pods_elsewhere"]
