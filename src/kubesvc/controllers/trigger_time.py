"""The annotation that says since when a change could have been seen (EP-21, SLICE-33).

Times are texts of whole seconds in UTC as the API prints them, so that their order is that of texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from kubesvc.client.workqueue import Key
from kubesvc.clock import parse_rfc3339, rfc3339

LAST_CHANGE_TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"


@lru_cache(maxsize=4096)
def moment(text: str | None) -> str:
    """A time in the form whose text order is time's; "" for none, or for what is no time."""
    if not text:
        return ""
    if len(text) == 20 and text.endswith("Z"):
        return text
    try:
        return rfc3339(parse_rfc3339(text))
    except (ValueError, OverflowError):
        return ""


@dataclass(slots=True)
class _Seen:
    service: str = ""
    pods: dict[str, str] = field(default_factory=dict)


class TriggerTimes:
    """Remembers, for each Service, the times of its inputs at the last sync."""

    def __init__(self) -> None:
        self._seen: dict[Key, _Seen] = {}

    def trigger_time(self, key: Key, service_created: str, pods: Iterable[tuple[str, str]]) -> str:
        """The time to annotate, "" for none; the inputs become the remembered ones.

        pods: (name, when its Ready condition last changed) of all the Service's pods; a pod without a time is ignored.
        First sync: the Service's creation. Later: the earliest among inputs newer than what was remembered of them.
        """
        known = self._seen.get(key)
        before = known or _Seen()
        times = {name: time for name, time in pods if time}
        newer = [time for name, time in times.items() if time > before.pods.get(name, "")]
        if service_created > before.service:
            newer.append(service_created)
        self._seen[key] = _Seen(service_created, times)
        if known is None:
            return service_created
        return min(newer, default="")

    def forget(self, key: Key) -> None:
        """The Service is gone."""
        self._seen.pop(key, None)
