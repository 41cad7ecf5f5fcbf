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

    def trigger_time(
        self, key: Key, service_created: str, changed: Iterable[tuple[str, str]], gone: Iterable[str] = ()
    ) -> str:
        """The time to annotate, "" for none; the inputs become the remembered ones.

        changed: (name, when its Ready condition last changed) of the Service's pods that are not as they were at the
                 last call, or of more; a pod without a time is ignored
        gone:    names of pods that are the Service's no more

        First sync: the Service's creation. Later: the earliest among inputs newer than what was remembered of them.
        """
        known = self._seen.get(key)
        seen = self._seen.setdefault(key, _Seen())
        for name in gone:
            seen.pods.pop(name, None)
        newer = []
        for name, time in changed:
            if time > seen.pods.get(name, ""):
                newer.append(time)
            if time:
                seen.pods[name] = time
            else:
                seen.pods.pop(name, None)
        if service_created > seen.service:
            newer.append(service_created)
        seen.service = service_created
        return service_created if known is None else min(newer, default="")

    def names(self, key: Key) -> Iterable[str]:
        """The pods of a Service whose times are remembered."""
        seen = self._seen.get(key)
        return tuple(seen.pods) if seen is not None else ()

    def forget(self, key: Key) -> None:
        """The Service is gone."""
        self._seen.pop(key, None)
