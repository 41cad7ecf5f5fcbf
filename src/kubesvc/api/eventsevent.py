"""Event of events.k8s.io: a core Event, which is what is stored, in the words of its newer group (EVENT-2)."""

from __future__ import annotations

from .event import COLUMNS, EVENT, FIELDS, EventSeries, EventSource
from .kind import Kind
from .meta import Object, ObjectReference, Typed, copied


class EventsEvent(Typed, frozen=True):
    """An Event in the words of events.k8s.io."""

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
    result = {WORDS.get(name, name): copied(value) for name, value in obj.items()}
    return {**result, "apiVersion": "v1", "kind": "Event"}


def from_core(obj: Object) -> Object:
    """A stored core Event in the words of events.k8s.io."""
    result = {WORDS_BACK.get(name, name): copied(value) for name, value in obj.items()}
    for name in ("reportingController", "reportingInstance"):
        if not result.get(name):
            result.pop(name, None)
    return {**result, "apiVersion": "events.k8s.io/v1", "kind": "Event"}


NEW_NAMES = {
    name.replace("involvedObject", "regarding").replace("reportingComponent", "reportingController"): name
    for name in FIELDS
    if name != "source"
}
"""Fields by which Events of the new group are selected, and what core Events call them."""

EVENTS_EVENT = Kind(
    group="events.k8s.io",
    version="v1",
    name="Event",
    plural="events",
    namespaced=True,
    type=EventsEvent,
    schema="io.k8s.api.events.v1.Event",
    short_names=("ev",),
    columns=COLUMNS,
    fields={new: FIELDS[name] for new, name in NEW_NAMES.items()},
    create_on_put=True,
    stored=EVENT,
    stored_fields=NEW_NAMES,
    to_stored=to_core,
    from_stored=from_core,
)
