"""Events that repeat, and objects that talk without end (NODE-94)."""

from __future__ import annotations

from kubesvc.node.eventflow import BURST, COMBINED, REFILL_SECONDS, REMEMBERED, SIMILAR, SIMILAR_SECONDS, EventFlow


def test_different_messages_of_one_reason_are_combined() -> None:
    flow = EventFlow()
    told = [flow.combine("pod", "Unhealthy", f"no {n}", float(n)) for n in range(SIMILAR + 5)]
    assert told[: SIMILAR - 1] == [(f"no {n}", False) for n in range(SIMILAR - 1)]
    assert told[SIMILAR - 1 :] == [(f"{COMBINED}no {n}", True) for n in range(SIMILAR - 1, SIMILAR + 5)]


def test_the_same_message_is_never_combined() -> None:
    flow = EventFlow()
    assert all(flow.combine("pod", "BackOff", "again", float(n)) == ("again", False) for n in range(100))


def test_objects_and_reasons_are_apart() -> None:
    flow = EventFlow()
    for n in range(SIMILAR - 1):
        flow.combine("pod", "Unhealthy", f"no {n}", 0.0)
    assert flow.combine("other", "Unhealthy", "x", 0.0) == ("x", False)
    assert flow.combine("pod", "Killing", "x", 0.0) == ("x", False)
    assert flow.combine("pod", "Unhealthy", "x", 0.0) == (f"{COMBINED}x", True)


def test_ten_quiet_minutes_begin_anew() -> None:
    flow = EventFlow()
    for n in range(SIMILAR):
        flow.combine("pod", "Unhealthy", f"no {n}", 0.0)
    assert flow.combine("pod", "Unhealthy", "x", SIMILAR_SECONDS + 1) == ("x", False)


def test_a_burst_and_then_one_in_five_minutes() -> None:
    flow = EventFlow()
    assert sum(flow.admits("pod", 0.0) for _ in range(100)) == BURST
    assert flow.admits("other", 0.0)
    times = [second for second in range(1, int(4 * REFILL_SECONDS) + 1) if flow.admits("pod", float(second))]
    assert len(times) == 4 and times[0] == REFILL_SECONDS
    assert not flow.admits("pod", 0.0), "a clock that goes back gives nothing"


def test_memory_is_bounded() -> None:
    flow = EventFlow()
    for n in range(REMEMBERED + 100):
        flow.combine(n, "r", "m", 0.0)
        flow.admits(n, 0.0)
    assert len(flow.similar) == len(flow.buckets) == REMEMBERED
