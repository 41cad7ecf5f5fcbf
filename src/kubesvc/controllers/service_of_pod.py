"""Which Services a pod's change concerns (EP-3), without asking every Service.

Each Service with a selector is filed under one of its selector's pairs, the one with the fewest Services so far; a pod
is then asked about only with the Services filed under its own labels.
"""

from __future__ import annotations

from collections.abc import Mapping

from kubesvc.api.pod import Pod
from kubesvc.api.service import Service
from kubesvc.client.workqueue import Key

Shelf = tuple[str, str, str]
"""Namespace, label key, label value."""


class ServiceIndex:
    """The selectors of all Services, to be asked by labels. Fed by the handler of a Service informer (`move`)."""

    def __init__(self) -> None:
        self._shelves: dict[Shelf, dict[Key, Mapping[str, str]]] = {}
        self._filed: dict[Key, Shelf] = {}

    def move(self, old: Service | None, new: Service | None) -> None:
        """Take in one change of a Service; either side may be None."""
        service = new or old
        if service is None:
            return
        key = (service.namespace, service.name)
        if (shelf := self._filed.pop(key, None)) is not None:
            del self._shelves[shelf][key]
            if not self._shelves[shelf]:
                del self._shelves[shelf]
        if new is None or not new.spec.selector:
            return  # an empty selector is none (SVC-12)
        shelves = [(key[0], k, v) for k, v in sorted(new.spec.selector.items())]
        shelf = min(shelves, key=lambda s: len(self._shelves.get(s, ())))
        self._shelves.setdefault(shelf, {})[key] = new.spec.selector
        self._filed[key] = shelf

    def matching(self, namespace: str, labels: Mapping[str, str] | None) -> list[Key]:
        """Keys of the Services of this namespace whose selector these labels fulfil, sorted."""
        if not labels:
            return []
        found = []
        for pair in labels.items():
            for key, selector in self._shelves.get((namespace, *pair), {}).items():
                if all(labels.get(k) == v for k, v in selector.items()):
                    found.append(key)
        return sorted(found)


def affected_services(old: Pod | None, new: Pod | None, services: ServiceIndex) -> list[Key]:
    """The Services to look at again after a pod came (old None), changed, or went (new None): EP-3."""
    pod = new or old
    if pod is None:
        return []
    if old is None or new is None:
        return services.matching(pod.namespace, pod.metadata.labels)
    if old.metadata.resource_version == new.metadata.resource_version:
        return []
    changed, moved = endpoint_changed(old, new), relabelled(old, new)
    if not changed and not moved:
        return []  # most changes of a status: nobody is asked
    now = services.matching(pod.namespace, pod.metadata.labels)
    if not moved:
        return now
    before = services.matching(old.namespace, old.metadata.labels)
    if changed:
        return sorted({*before, *now})
    return sorted({*before} ^ {*now})


def endpoint_changed(old: Pod, new: Pod) -> bool:
    """Whether what Services publish of the pod may have changed. Any update of a terminating pod counts."""
    return new.terminating or old.terminating or old.ready != new.ready or old.ips != new.ips


def relabelled(old: Pod, new: Pod) -> bool:
    """Whether other Services, or other host names, may apply to the pod."""
    if old.spec.hostname != new.spec.hostname or old.spec.subdomain != new.spec.subdomain:
        return True
    return old.metadata.labels is not new.metadata.labels and (old.metadata.labels or {}) != (new.metadata.labels or {})
