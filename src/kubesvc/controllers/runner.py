"""Runs controllers: caches first, then workers on a queue, and whatever fails is tried again, later each time.

A controller is a class like this one, in a file of its own, named in `kubesvc.controllers.registry`:

    class ReplicaSetController(Controller):
        name = "replicaset-controller"            # upstream's name; may be selected with or without "-controller"
        component = "replicaset-controller"       # events' source and the field manager of writes; default: name

        def __init__(self, ctx: ControllerContext) -> None:
            super().__init__(ctx)                                 # self.ctx, self.queue, self.client, self.events
            self.sets = ctx.informers.of(REPLICA_SET)             # shared; asking makes the runner wait for its sync
            self.pods = ctx.informers.of(POD)
            self.sets.on_change(lambda old, new: self.queue.add(key_of(new, old)))

        async def reconcile(self, key: Key) -> None:
            ...                                                   # read caches, plan, write; raise to be tried again

What the runner promises: `reconcile` runs only after every informer that the controller asked for through `ctx` has
synced; never twice at once for one key; an exception brings the key back by the queue's `RetryPolicy`, and the key is
dropped (`gave_up`) when retries are used up, until something changes or five minutes have passed. Only a refusal
because the namespace is being deleted is not tried again (NS-5). What it expects: whatever call fails, and however,
`reconcile` may raise; what it must do all the same (report in a status, keep its books) it does before it raises.
Handlers only add keys; `reconcile` reads caches and never the event that woke it, so that running twice, late or out
of order ends in the same objects.

Work that no key stands for (a loop of its own, a periodic sweep) goes into `run_beside`, which is started with the
workers and started again, after a back-off, when it raises.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from kubesvc.api.errors import ApiError, Conflict
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Typed
from kubesvc.client.events import EventRecorder
from kubesvc.client.informer import InformerFactory
from kubesvc.client.interface import Client, Unreachable, loudness
from kubesvc.client.metrics import Metrics
from kubesvc.client.workqueue import Key, RetryPolicy, WorkQueue, key_text
from kubesvc.clock import Clock, Random

from .metrics import queue_name, watch_queues
from .settings import ControllerSettings

log = logging.getLogger(__name__)

RESTART_CAP_SECONDS = 30.0
NAMED_PATHS = 5
"""Odd fields of one object that an Event names."""
BY_NAME_ONLY = frozenset({"service-events"})
"""Controllers that upstream has none like: `*` does not mean them, so that it means what it means there."""
DROPPED_SECONDS = 300.0
"""A key that was dropped is looked at again after this: whatever stood in its way may have passed without an event."""


class StaleCache(Exception):
    """The cache is older than our own last write: planning from it would undo or repeat that write. Try later."""


@dataclass(frozen=True, slots=True)
class ControllerContext:
    """What a controller is given: the way to objects, shared caches, time, chance, and a voice.

    client:    writes under the controller's component name (field manager)
    informers: a view on the informers shared by all controllers of the process
    events:    recorder that speaks as the controller's component
    metrics:   where what is counted can be read
    """

    client: Client
    informers: InformerFactory
    clock: Clock
    random: Random
    events: EventRecorder
    settings: ControllerSettings
    metrics: Metrics = field(default_factory=Metrics)


class Controller:
    """Base of all controllers; see the module's text for how one is written."""

    name: ClassVar[str] = ""
    component: ClassVar[str] = ""
    policy: ClassVar[RetryPolicy] = RetryPolicy()
    """How failed keys come back."""

    def __init__(self, ctx: ControllerContext) -> None:
        self.ctx = ctx
        self.client = ctx.client
        self.events = ctx.events
        self.queue = WorkQueue(self.policy)

    @property
    def workers(self) -> int:
        """How many keys may be worked on at a time."""
        return 5

    async def reconcile(self, key: Key) -> None:
        """Make the world right for one key, from the caches; raise to be tried again later."""

    def started(self) -> None:
        """Called once when all caches are filled, before any `reconcile`: the place for start-up sweeps (EP-5)."""

    async def run_beside(self) -> None:
        """A loop of the controller's own; returning ends it, raising starts it again after a back-off."""

    def gave_up(self, key: Key, error: Exception) -> None:
        """Called when a key is dropped after its last retry."""
        log.error("%s: %s: dropped after %d retries: %s", self.name, key_text(key), self.policy.most, error)


def key_of(*states: Typed | None) -> Key:
    """The queue's key of an object; of several states of one, such as a handler's (new, old), either may be None."""
    obj = next(s for s in states if s is not None)
    return (obj.metadata.namespace, obj.metadata.name)


async def run_controllers(
    client: Client,
    names: Sequence[str] = ("*",),
    *,
    clock: Clock,
    random: Random,
    settings: ControllerSettings | None = None,
    informers: InformerFactory | None = None,
    on_ready: Callable[[], None] | None = None,
    metrics: Metrics | None = None,
) -> None:
    """Run the selected controllers over one set of caches until cancelled.

    client:   where objects are; each controller writes under its own name (`as_manager`)
    names:    selection as `select` takes it; a name nobody bears is a ValueError before anything starts
    informers: the caches to use, not run by anybody yet; without it the controllers make their own
    on_ready: called when all selected controllers have their caches and workers
    metrics:  where to count
    """
    from .registry import CONTROLLERS, load

    settings = settings or ControllerSettings()
    classes = [load(name) for name in select(names, CONTROLLERS)]
    factory = informers or InformerFactory(client, clock, random)
    recorder = EventRecorder(client, "kubesvc-controllers", clock=clock, random=random)
    metrics = metrics or Metrics()
    factory.salvage(lambda kind, obj, paths: tell_unreadable(recorder, kind, obj, paths))
    controllers = [make(kind, client, factory, recorder, clock, random, settings, metrics) for kind in classes]
    watch_queues(metrics, {queue_name(controller.name): controller.queue for controller, _ in controllers})
    async with asyncio.TaskGroup() as group:
        group.create_task(factory.run(), name="informers")
        group.create_task(recorder.run(), name="events")
        ready = [asyncio.Event() for _ in controllers]
        for (controller, view), event in zip(controllers, ready, strict=True):
            group.create_task(run_controller(controller, view, event), name=controller.name)
        for event in ready:
            await event.wait()
        if on_ready is not None:
            on_ready()


def tell_unreadable(recorder: EventRecorder, kind: Kind, obj: Typed, paths: Sequence[str]) -> None:
    """One Event that names the object and its odd fields, which controllers take for absent."""
    named = ", ".join(paths[:NAMED_PATHS]) + (f" and {len(paths) - NAMED_PATHS} more" if paths[NAMED_PATHS:] else "")
    text = f"Read without {named}: not of the type that this version knows; such fields count as absent"
    recorder.event(kind, obj, "Warning", "UnreadableField", text)


def make(
    kind: type[Controller],
    client: Client,
    factory: InformerFactory,
    recorder: EventRecorder,
    clock: Clock,
    random: Random,
    settings: ControllerSettings,
    metrics: Metrics | None = None,
) -> tuple[Controller, InformerFactory]:
    """A controller and the view of the informers it asked for."""
    view = factory.tracked()
    component = kind.component or kind.name
    writer, voice = client.as_manager(component), recorder.by(component)
    ctx = ControllerContext(writer, view, clock, random, voice, settings, metrics or Metrics())
    return kind(ctx), view


async def run_controller(controller: Controller, view: InformerFactory, ready: asyncio.Event | None = None) -> None:
    """Wait for the caches, then work until cancelled."""
    await view.synced()
    controller.started()
    async with asyncio.TaskGroup() as group:
        for _ in range(controller.workers):
            group.create_task(_work(controller))
        group.create_task(_beside(controller))
        if ready is not None:
            ready.set()


async def _work(controller: Controller) -> None:
    queue = controller.queue
    while True:
        key = await queue.get()
        try:
            await controller.reconcile(key)
        except Exception as error:
            if closing(error):
                queue.forget(key)  # nothing can be made there any more (NS-5)
            elif queue.retry(key):
                _report(controller, key, error)
            else:
                queue.add_after(key, DROPPED_SECONDS)
                controller.gave_up(key, error)
        else:
            queue.forget(key)
        finally:
            queue.done(key)


def _report(controller: Controller, key: Key, error: Exception) -> None:
    """Conflicts and stale caches are everyday; refusals are worth a line; anything else is a bug with its place."""
    text = "%s: %s: will be tried again: %s"
    if isinstance(error, (Conflict, StaleCache)):
        log.debug(text, controller.name, key_text(key), error)
    elif isinstance(error, (ApiError, Unreachable, ExpectedFailure)):
        log.log(loudness(error), text, controller.name, key_text(key), error)
    else:
        log.exception(text, controller.name, key_text(key), error)


def closing(error: BaseException | None) -> bool:
    """Whether a write was refused because the namespace is being deleted: then trying again helps nobody."""
    return isinstance(error, ApiError) and error.has_cause("NamespaceTerminating")


class ExpectedFailure(Exception):
    """A reconcile that cannot finish for a reason the user can mend; logged without its place in the code."""


async def _beside(controller: Controller) -> None:
    failures = 0
    clock, random = controller.ctx.clock, controller.ctx.random
    while True:
        started = clock.monotonic()
        try:
            await controller.run_beside()
            return
        except Exception:
            if clock.monotonic() - started > RESTART_CAP_SECONDS:
                failures = 0
            wait = min(RESTART_CAP_SECONDS, 2.0**failures) * (0.5 + random.random() / 2)
            failures += 1
            log.exception("%s: its loop failed; started again in %.1f s", controller.name, wait)
            await asyncio.sleep(wait)


def select(names: Sequence[str], known: Iterable[str]) -> list[str]:
    """The controllers that a selection names, in the order of `known`.

    names: `*` for all, `NAME` for one, `-NAME` for all but one; a name may lack its `-controller`, and a selection of
           nothing but exclusions means all others. An explicit name wins over `*`, and an exclusion over both.
           A name nobody bears is a ValueError that lists those there are.
    """
    listed = list(known)
    wanted: set[str] = set()
    unwanted: set[str] = set()
    everything = not any(name != "*" and not name.startswith("-") for name in names)
    for name in names:
        if name == "*":
            everything = True
        elif name.startswith("-"):
            unwanted.add(_full_name(name[1:], listed))
        else:
            wanted.add(_full_name(name, listed))
    meant = wanted | (set(listed) - BY_NAME_ONLY if everything else set())
    return [name for name in listed if name in meant and name not in unwanted]


def _full_name(name: str, known: Sequence[str]) -> str:
    for candidate in (name, f"{name}-controller", ALIASES.get(name, "")):
        if candidate in known:
            return candidate
    raise ValueError(f"--controllers: no controller {name!r}; there are {', '.join(known)}")


ALIASES = {
    "endpoint": "endpoints-controller",
    "endpointslicemirroring": "endpointslice-mirroring-controller",
    "garbagecollector": "garbage-collector-controller",
    "root-ca-cert-publisher": "root-ca-certificate-publisher-controller",
    "nodeipam": "node-ipam-controller",
    "service": "service-lb-controller",
    "persistentvolume-binder": "persistentvolume-binder-controller",
    "pvc-protection": "persistentvolumeclaim-protection-controller",
    "pv-protection": "persistentvolume-protection-controller",
    "ephemeral-volume": "ephemeral-volume-controller",
    "podgc": "pod-garbage-collector-controller",
    "csrsigning": "certificatesigningrequest-signing-controller",
    "csrapproving": "certificatesigningrequest-approving-controller",
    "csrcleaner": "certificatesigningrequest-cleaner-controller",
    "tokencleaner": "token-cleaner-controller",
}
"""Names of before 1.28 that are not merely the new ones without `-controller`."""
