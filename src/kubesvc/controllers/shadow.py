"""Runs controllers beside those of a cluster without writing: what they would write is what the others got wrong.

Each sync of a key gives the writes it would make now, from what the cluster's own controllers made of the objects. None
means agreement. Objects that need a write and have not got any for a while, in which the cluster's controllers had
their chance, are a difference, which is told once, again whenever it changes, and once more when it is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kubesvc.api.meta import Object
from kubesvc.client.events import EventRecorder
from kubesvc.client.informer import InformerFactory
from kubesvc.client.interface import Client
from kubesvc.client.shadow import NOTES, ShadowClient, WantedWrite, Withheld
from kubesvc.client.workqueue import Key, key_text
from kubesvc.clock import Clock, Random, rfc3339

from .registry import CONTROLLERS, load
from .runner import Controller, ExpectedFailure, make, run_controller, select
from .settings import ControllerSettings

AFTER_SECONDS = 5.0
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
SERVERS_OWN = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink")
MOST_FIELDS = 20
"""Fields told of one object; the rest is a number."""


class Field(NamedTuple):
    """One field that is not as it should be; MISSING stands for one that is not there."""

    path: str
    found: Any
    wanted: Any


MISSING = "<none>"


@dataclass(frozen=True, slots=True)
class Report:
    """What one controller would write for one key. `writes` is empty when a difference told before is gone."""

    at: str
    controller: str
    key: Key
    writes: tuple[WantedWrite, ...]

    def as_json(self) -> Object:
        writes = [
            {
                "verb": w.verb,
                "kind": w.kind.name,
                "namespace": w.namespace,
                "name": w.name or ((w.wanted or {}).get("metadata") or {}).get("generateName", ""),
                "fields": [f._asdict() for f in differences(w)],
                **({"wanted": w.wanted} if w.verb != "delete" else {}),
            }
            for w in self.writes
        ]
        state = "differs" if writes else "agrees"
        return {"time": self.at, "controller": self.controller, "key": key_text(self.key), "state": state} | (
            {"writes": writes} if writes else {}
        )

    def lines(self) -> Iterator[str]:
        """The report for people: one line per write, one per field below it."""
        head = f"{self.at} {self.controller} {key_text(self.key)}"
        if not self.writes:
            yield f"{head}: agrees again"
        for write in self.writes:
            name = write.name or f"{((write.wanted or {}).get('metadata') or {}).get('generateName', '')}…"
            yield f"{head}: would {write.verb} {write.kind.name} {name}"
            fields = differences(write)
            for field in fields[:MOST_FIELDS]:
                yield f"    {field.path}: found {field.found!r}, wanted {field.wanted!r}"
            if len(fields) > MOST_FIELDS:
                yield f"    and {len(fields) - MOST_FIELDS} more"


def differences(write: WantedWrite) -> list[Field]:
    """Field by field what an update would change; a create and a delete speak for themselves."""
    if write.verb != "update" or write.found is None:
        return []
    return list(compare("", comparable(write.found), comparable(write.wanted)))


def comparable(obj: Object) -> Object:
    """The object without what the server writes, and without the time of the last change."""
    meta = {k: v for k, v in (obj.get("metadata") or {}).items() if k not in SERVERS_OWN}
    annotations = {k: v for k, v in (meta.get("annotations") or {}).items() if k != TRIGGER_TIME}
    meta.pop("annotations", None)
    if annotations:
        meta["annotations"] = annotations
    return {k: v for k, v in obj.items() if k not in ("apiVersion", "kind")} | {"metadata": meta}


def compare(path: str, found: Any, wanted: Any) -> Iterator[Field]:
    """The leaves in which two plain values differ; null and absent are the same."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for key in sorted({**found, **wanted}):
            yield from compare(f"{path}.{key}" if path else str(key), found.get(key), wanted.get(key))
    elif isinstance(found, list) and isinstance(wanted, list):
        for i in range(max(len(found), len(wanted))):
            left = found[i] if i < len(found) else None
            yield from compare(f"{path}[{i}]", left, wanted[i] if i < len(wanted) else None)
    elif found != wanted:
        yield Field(path, MISSING if found is None else found, MISSING if wanted is None else wanted)


@dataclass(slots=True)
class Open:
    """Writes that are wanted and not done: to which states of objects, since when (monotonic), and what was told."""

    states: tuple[tuple[str, ...], ...]
    since: float
    told: Object | None = None


class Shadow:
    """Judges what the syncs of controllers would write, and reports what lasts."""

    def __init__(self, report: Callable[[Report], None], clock: Clock, after_seconds: float = AFTER_SECONDS) -> None:
        self.report = report
        self.clock = clock
        self.after_seconds = after_seconds
        self.open: dict[tuple[str, Key], Open] = {}

    def over(self, controller: Controller) -> None:
        """Have the controller's syncs noted instead of failing for want of a write."""
        reconcile = controller.reconcile

        async def noted(key: Key) -> None:
            notes: list[WantedWrite] = []
            token = NOTES.set(notes)
            failure: Exception | None = None
            try:
                await reconcile(key)
            except Exception as error:
                failure = error
            finally:
                NOTES.reset(token)
            if failure is None or withheld(failure) or (notes and isinstance(failure, ExpectedFailure)):
                self.judge(controller, key, tuple(notes))
            if failure is not None and not withheld(failure):
                raise failure

        controller.reconcile = noted  # type: ignore[method-assign]

    def judge(self, controller: Controller, key: Key, writes: tuple[WantedWrite, ...]) -> None:
        where, now = (controller.name, key), self.clock.monotonic()
        known = self.open.get(where)
        report = Report(rfc3339(self.clock.now()), controller.name, key, writes)
        if not writes:
            if known is not None:
                del self.open[where]
                if known.told is not None:
                    self.report(report)
            return
        states = states_of(writes)
        if known is None:
            known = self.open[where] = Open(states, now)
        elif known.states != states:
            known.states, known.since = states, now  # somebody is at work on them
        controller.queue.add_after(key, self.after_seconds)  # others' writes of some kinds wake no sync
        if now - known.since < self.after_seconds * 0.99:
            return
        essence = essence_of(report)
        if essence != known.told:
            known.told = essence
            self.report(report)


def states_of(writes: Sequence[WantedWrite]) -> tuple[tuple[str, ...], ...]:
    """The objects that would be written, as they are: another value means that others have written them."""
    return tuple(
        (w.verb, w.kind.name, w.name, (w.found or {}).get("metadata", {}).get("resourceVersion", "")) for w in writes
    )


def essence_of(report: Report) -> Object:
    """What makes a report another one: everything but its time, and times in it."""
    writes = [
        (w.verb, w.kind.name, w.name, comparable(w.wanted) if isinstance(w.wanted, dict) else w.wanted)
        for w in report.writes
    ]
    return {"writes": writes}


def withheld(error: BaseException | None) -> bool:
    """Whether an error goes back to a write that was only noted."""
    while error is not None:
        if isinstance(error, Withheld):
            return True
        error = error.__cause__
    return False


async def run_shadow(
    client: Client,
    names: Sequence[str],
    report: Callable[[Report], None],
    *,
    clock: Clock,
    random: Random,
    settings: ControllerSettings | None = None,
    after_seconds: float = AFTER_SECONDS,
) -> None:
    """Run the selected controllers without writing anything, until cancelled.

    names:         as `select` takes them
    report:        told every difference that lasts for after_seconds, and its end
    """
    shadow = Shadow(report, clock, after_seconds)
    reading = ShadowClient(client)
    factory = InformerFactory(reading, clock, random)
    recorder = EventRecorder(reading, "kubesvc-shadow", clock=clock, random=random)
    settings = settings or ControllerSettings()
    made = [
        make(load(name), reading, factory, recorder, clock, random, settings) for name in select(names, CONTROLLERS)
    ]
    async with asyncio.TaskGroup() as group:
        group.create_task(factory.run(), name="informers")
        group.create_task(recorder.run(), name="events")
        for controller, view in made:
            shadow.over(controller)
            group.create_task(run_controller(controller, view), name=controller.name)
