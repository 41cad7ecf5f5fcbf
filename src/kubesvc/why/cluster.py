"""How much of a cluster to read for a question: one namespace where that is enough."""

from __future__ import annotations

import dataclasses

from kubesvc.client import Client
from kubesvc.clock import Clock
from kubesvc.controllers.pod_endpoints import selects

from .collect import collect, pods_elsewhere
from .snapshot import Snapshot
from .subject import Subject


async def read_for(client: Client, clock: Clock, subject: Subject | None, namespace: str) -> Snapshot:
    """The snapshot for a subject; None means every Service. Reads more only if the selector finds nobody here."""
    if subject is None or subject.address or subject.name:
        return await collect(client, clock)
    snapshot = await collect(client, clock, namespace)
    service = snapshot.services.get((namespace, subject.service))
    if service is not None and selects(service) and not snapshot.matching(service):
        found = await pods_elsewhere(client, service.spec.selector or {}, namespace)
        snapshot = dataclasses.replace(snapshot, elsewhere=tuple(found))
    return snapshot
