"""Events: one stored form and two served ones (EVENT-1, EVENT-2), columns (KCTL-22, KCTL-56), fields (SEL-3)."""

from __future__ import annotations

from kubesvc.api.kinds import EVENT, EVENTS_EVENT
from kubesvc.api.meta import Object, typed
from tests.api.checking import defaulted, refusals, row

POD = {"kind": "Pod", "namespace": "ns", "name": "p"}
STORED: Object = {
    "involvedObject": POD,
    "reason": "R",
    "message": "m ",
    "type": "Normal",
    "source": {"component": "c", "host": "h"},
    "firstTimestamp": "2025-12-31T23:55:00Z",
    "lastTimestamp": "2025-12-31T23:59:00Z",
    "count": 3,
}


def test_unknown_times_and_reporters_are_printed() -> None:
    """META-13."""
    found = defaulted(EVENT, {"involvedObject": POD})
    assert {k: found[k] for k in ("firstTimestamp", "eventTime", "reportingComponent", "source")} == {
        "firstTimestamp": None,
        "eventTime": None,
        "reportingComponent": "",
        "source": {},
    }


def test_both_groups_tell_the_same() -> None:
    """EVENT-2: there and back again loses nothing."""
    stored = defaulted(EVENT, STORED) | {"apiVersion": "v1", "kind": "Event"}
    served = EVENTS_EVENT.from_stored(stored)
    assert (served["apiVersion"], served["regarding"], served["note"]) == ("events.k8s.io/v1", POD, "m ")
    assert (served["deprecatedCount"], served["deprecatedSource"]) == (3, STORED["source"])
    assert "reportingController" not in served
    back = EVENTS_EVENT.to_stored(served)
    EVENT.default(back)
    assert back == stored
    assert EVENTS_EVENT.stored is EVENT


def test_an_event_is_beside_what_it_is_about() -> None:
    """EVENT-1."""
    wrong = {"involvedObject": {**POD, "namespace": "other"}}
    assert refusals(EVENT, wrong) == [
        'involvedObject.namespace: Invalid value: "other": does not match event.namespace'
    ]
    cluster = {"involvedObject": {"kind": "Node", "name": "n"}}
    assert refusals(EVENT, cluster) == ['involvedObject.namespace: Invalid value: "": does not match event.namespace']
    assert refusals(EVENT, cluster | {"metadata": {"name": "x", "namespace": "default"}}) == []


def test_new_events_say_who_saw_what() -> None:
    found = refusals(EVENT, {"involvedObject": POD, "eventTime": "2026-01-01T00:00:00.000000Z"})
    assert [e.split(":")[0] for e in found] == [
        *["reportingController"] * 3, "reportingInstance", "action", "reason",
    ]  # fmt: skip


def test_columns() -> None:
    """KCTL-56, in the order of KCTL-32."""
    assert list(row(EVENT, STORED).values()) == [
        "60s", "Normal", "R", "pod/p", "", "c, h", "m", "5m", 3, "x",
    ]  # fmt: skip
    series = {"series": {"count": 7, "lastObservedTime": "2025-12-31T23:59:50.000000Z"}, "count": 1}
    found = row(EVENT, {"involvedObject": POD, "eventTime": "2025-12-31T23:50:00.000000Z", **series})
    assert (found["Last Seen"], found["First Seen"], found["Count"]) == ("10s", "10m", 7)
    assert row(EVENT, {"involvedObject": POD})["Count"] == 1


def test_fields_in_both_words() -> None:
    """SEL-3."""
    event = typed(defaulted(EVENT, STORED), EVENT.type)
    assert EVENT.fields["involvedObject.name"](event) == EVENTS_EVENT.fields["regarding.name"](event) == "p"
    assert EVENT.fields["source"](event) == "c"
