"""Event: what happened to an object (EVENT-1). Stored so, and served by events.k8s.io too: see `eventsevent.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from . import fields, names, shape
from .checks import part, texts
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation
from .meta import Object, ObjectReference, Struct, Typed


class EventSource(Struct, frozen=True):
    component: str = ""
    host: str = ""


class EventSeries(Struct, frozen=True):
    count: int = 0
    last_observed_time: str | None = None


class Event(Typed, frozen=True):
    always: ClassVar[tuple[str, ...]] = (
        "first_timestamp", "last_timestamp", "event_time", "reporting_component", "reporting_instance",
    )  # fmt: skip

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

    @property
    def first_seen(self) -> str | None:
        return self.first_timestamp or self.event_time

    @property
    def last_seen(self) -> str | None:
        if self.series is not None:
            return self.series.last_observed_time
        return self.last_timestamp or self.first_seen

    @property
    def origin(self) -> str:
        """Component and host, in old or new words."""
        component = self.source.component or self.reporting_component
        host = self.source.host or self.reporting_instance
        return f"{component}, {host}" if host else component


def default(obj: Object) -> None:
    shape.normalize(obj, Event)


MOST_CHARACTERS = 128
MOST_MESSAGE_BYTES = 1024


def validate(obj: Object, _: Situation) -> Errors:
    """An event lives beside what it is about (EVENT-1); new ones, with an eventTime, say who saw what was done."""
    namespace = part(obj, "metadata").get("namespace") or ""
    about = part(obj, "involvedObject").get("namespace") or ""
    outside = ("", "default", "kube-system") if obj.get("eventTime") else ("", "default")
    wrong = namespace not in outside if not about else namespace != about and not obj.get("eventTime")
    errors: Errors = []
    if wrong:
        errors.append(fields.invalid("involvedObject.namespace", about, "does not match event.namespace"))
    if obj.get("eventTime"):
        errors += validate_new(obj)
    return errors


def validate_new(obj: Object) -> Errors:
    errors: Errors = []
    controller = obj.get("reportingComponent") or ""
    if not controller:
        errors.append(fields.required("reportingController"))
    errors += texts(Path("reportingController"), controller, names.qualified_name(controller))
    for field in ("reportingInstance", "action"):
        value = obj.get(field) or ""
        if not value:
            errors.append(fields.required(field))
        if len(value) > MOST_CHARACTERS:
            errors.append(fields.invalid(field, "", f"can have at most {MOST_CHARACTERS} characters"))
    if not obj.get("reason"):
        errors.append(fields.required("reason"))
    elif len(obj["reason"]) > MOST_CHARACTERS:
        errors.append(fields.invalid("reason", "", f"can have at most {MOST_CHARACTERS} characters"))
    if len((obj.get("message") or "").encode()) > MOST_MESSAGE_BYTES:
        errors.append(fields.invalid("message", "", f"can have at most {MOST_MESSAGE_BYTES} characters"))
    return errors


def validate_update(new: Object, _: Object, situation: Situation) -> Errors:
    return validate(new, situation)


def target(event: Event) -> str:
    """`pod/web-1`."""
    about = event.involved_object
    return f"{about.kind.lower()}/{about.name}" if about.name else about.kind.lower()


def count(event: Event) -> int:
    if event.series is not None:
        return event.series.count
    return event.count or 1


COLUMNS = (  # KCTL-22, KCTL-32, KCTL-56
    Column("Last Seen", lambda e: Since(e.last_seen)),
    Column("Type", lambda e: e.type),
    Column("Reason", lambda e: e.reason),
    Column("Object", target),
    Column("Subobject", lambda e: e.involved_object.field_path, wide=True),
    Column("Source", lambda e: e.origin, wide=True),
    Column("Message", lambda e: e.message.strip()),
    Column("First Seen", lambda e: Since(e.first_seen), wide=True),
    Column("Count", count, wide=True),
    Column("Name", lambda e: e.name, format="name", wide=True),
)
FIELDS: dict[str, Callable[[Event], str]] = {  # SEL-3
    "involvedObject.kind": lambda e: e.involved_object.kind,
    "involvedObject.namespace": lambda e: e.involved_object.namespace,
    "involvedObject.name": lambda e: e.involved_object.name,
    "involvedObject.uid": lambda e: e.involved_object.uid,
    "involvedObject.apiVersion": lambda e: e.involved_object.api_version,
    "involvedObject.resourceVersion": lambda e: e.involved_object.resource_version,
    "involvedObject.fieldPath": lambda e: e.involved_object.field_path,
    "reason": lambda e: e.reason,
    "reportingComponent": lambda e: e.reporting_component,
    "source": lambda e: e.source.component or e.reporting_component,
    "type": lambda e: e.type,
}  # fmt: skip


EVENT = Kind(
    group="",
    version="v1",
    name="Event",
    plural="events",
    namespaced=True,
    type=Event,
    schema="io.k8s.api.core.v1.Event",
    short_names=("ev",),
    default=default,
    validate=validate,
    validate_update=validate_update,
    columns=COLUMNS,
    fields=FIELDS,
    create_on_put=True,
)
