"""Events: what happened to an object. One sort of stored object, served in two groups (EVENT-1, EVENT-2)."""

from __future__ import annotations

import copy

from .kind import Column, Kind, Since
from .meta import Object, ObjectReference, Struct, Typed


class EventSource(Struct, frozen=True):
    component: str = ""
    host: str = ""


class EventSeries(Struct, frozen=True):
    count: int = 0
    last_observed_time: str | None = None


class Event(Typed, frozen=True):
    involved_object: ObjectReference = ObjectReference()
    reason: str = ""
    message: str = ""
    source: EventSource = EventSource()
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    count: int = 0
    type: str = ""
    event_time: str | None = None
    series: EventSeries | None = None
    action: str = ""
    related: ObjectReference | None = None
    reporting_component: str = ""
    reporting_instance: str = ""


class EventsEvent(Typed, frozen=True):
    """The same in the words of events.k8s.io."""

    event_time: str | None = None
    series: EventSeries | None = None
    reporting_controller: str = ""
    reporting_instance: str = ""
    action: str = ""
    reason: str = ""
    regarding: ObjectReference = ObjectReference()
    related: ObjectReference | None = None
    note: str = ""
    type: str = ""
    deprecated_source: EventSource = EventSource()
    deprecated_first_timestamp: str | None = None
    deprecated_last_timestamp: str | None = None
    deprecated_count: int = 0


WORDS = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
"""events.k8s.io name to core name of each field that is called differently."""
WORDS_BACK = {core: new for new, core in WORDS.items()}


def to_core(obj: Object) -> Object:
    """An events.k8s.io Event as the core Event that is stored."""
    result = {WORDS.get(name, name): copy.deepcopy(value) for name, value in obj.items()}
    return {**result, "apiVersion": "v1", "kind": "Event"}


def from_core(obj: Object) -> Object:
    """A stored core Event in the words of events.k8s.io."""
    result = {WORDS_BACK.get(name, name): copy.deepcopy(value) for name, value in obj.items()}
    return {**result, "apiVersion": "events.k8s.io/v1", "kind": "Event"}


EVENT = Kind(
    group="",
    version="v1",
    name="Event",
    plural="events",
    namespaced=True,
    type=Event,
    schema="io.k8s.api.core.v1.Event",
    short_names=("ev",),
    columns=(
        Column("Name", lambda e: e.name, format="name"),
        Column("Age", lambda e: Since(e.metadata.creation_timestamp)),
    ),
    create_on_put=True,
)

EVENTS_EVENT = Kind(
    group="events.k8s.io",
    version="v1",
    name="Event",
    plural="events",
    namespaced=True,
    type=EventsEvent,
    schema="io.k8s.api.events.v1.Event",
    short_names=("ev",),
    columns=EVENT.columns,
    create_on_put=True,
    stored=EVENT,
    to_stored=to_core,
    from_stored=from_core,
)
