"""Show when each address joined and left a Service, by which change, and how long each hop took.

  kubesvc timeline svc/web -n shop              what the instance's journal holds, across restarts
  kubesvc timeline svc/web --follow             and what happens from now on, until Ctrl-C
  kubesvc timeline svc/web --json               one JSON object per line

Another cluster keeps no journal: there only --follow can tell, from the moment it starts, and of hops only those that
objects show. docs/timeline.md tells what each hop is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import Failure
from .target import add_target, same_cluster, service_named

if TYPE_CHECKING:
    from kubesvc.controllers.service_events_plan import Listed, Moved
    from kubesvc.why.timeline import Entry

    from .cluster import Cluster

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
SETTLING_SECONDS = 0.4
"""An entry is shown so long after it was made: by then its hops are written down."""
MOST_WAITING = 10_000
"""The most entries that wait for a slow reader."""
SHOWN = 200
"""The most entries shown of the past, the newest."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", nargs="+", help="svc/NAME")
    parser.add_argument("-n", "--namespace", metavar="NAMESPACE", help="of the Service (default: the context's)")
    parser.add_argument("--follow", action="store_true", help="go on as things happen, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="for programs: one object per line")
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    return asyncio.run(show(args, service_named(args.subject, "the timeline of what? of a Service")))


async def show(args: argparse.Namespace, service: str) -> int:
    from .cluster import CANNOT_TELL, asking_cluster

    async with asking_cluster(args, "kubesvc-timeline") as cluster:
        if cluster.instance is not None:
            return await show_own(args, cluster, service)
        if not args.follow:
            text = "this cluster keeps no journal, so nothing is known of before"
            next_ = f"kubesvc timeline svc/{service}{same_cluster(args)} --follow"
            raise Failure(f"{text}\nnext: {next_}", status=CANNOT_TELL)
        return await watch(args, cluster, service)


def tell(args: argparse.Namespace, entries: Iterable[Entry]) -> None:
    from kubesvc.why.timeline import day_of, plain_entry, render_entry

    for entry in entries:
        if args.json:
            print(json.dumps(plain_entry(entry)), flush=True)
            continue
        day = day_of(entry)
        if day != getattr(args, "day", ""):  # the day that was last printed
            print(f"{day} (UTC)")
            args.day = day
        print(render_entry(entry), flush=True)


# ---------------------------------------------------------------- own instances


async def show_own(args: argparse.Namespace, cluster: Cluster, service: str) -> int:
    """The journal's past, and with --follow what is added to it."""
    from kubesvc.clock import RealClock
    from kubesvc.instance.journal import TIMELINE, Tail, read_lines
    from kubesvc.why.timeline import decode_moved

    assert cluster.instance is not None
    path, clock = cluster.instance.root / TIMELINE, RealClock()
    tail = Tail(path)
    past = decode_moved(read_lines(path), cluster.namespace, service)[-SHOWN:]
    if not past:
        there = await exists(cluster, service)
        none = "no address has joined or left since the journal began" if there else "there is no such Service"
        said = f"svc/{service} in namespace {cluster.namespace}: {none}"
        if not args.follow:
            raise Failure(f"{said}\nnext: kubesvc why svc/{service}{same_cluster(args)}")
        print(f"{said}; watching", file=sys.stderr)
    tell(args, joined_with_hops(cluster, past))
    waiting: list[Moved] = []
    while args.follow:
        await asyncio.sleep(LOOK_SECONDS)
        waiting += decode_moved(tail.fresh(), cluster.namespace, service)
        due = [m for m in waiting if m.at + SETTLING_SECONDS <= clock.now()]
        if due:
            tell(args, joined_with_hops(cluster, due))
            waiting = [m for m in waiting if m not in due]
    return 0


async def exists(cluster: Cluster, service: str) -> bool:
    """Whether there is such a Service now."""
    from kubesvc.api.errors import NotFound
    from kubesvc.api.service import SERVICE

    try:
        await cluster.client.get(SERVICE, service, cluster.namespace)
    except NotFound:
        return False
    return True


def joined_with_hops(cluster: Cluster, moves: Sequence[Moved]) -> list[Entry]:
    """Moves with what every node's journal says of them."""
    from kubesvc.instance.journal import HOPS, read_lines
    from kubesvc.why.timeline import decode_hops, keys_of, plan_entries

    assert cluster.instance is not None
    files: list[Path] = sorted((cluster.instance.root / "nodes").glob(f"*/{HOPS}"))
    keys = keys_of(moves)
    hops = {f.parent.name: decode_hops(read_lines(f), keys) for f in files} if moves else {}
    return plan_entries(moves, hops)


# ---------------------------------------------------------------- any cluster


async def watch(args: argparse.Namespace, cluster: Cluster, name: str) -> int:
    """Follow slices and Pods from now on, and tell every address that comes or goes."""
    from kubesvc.api.endpointslice import ENDPOINT_SLICE, SERVICE_NAME_LABEL, EndpointSlice
    from kubesvc.api.meta import typed
    from kubesvc.api.pod import POD, Pod
    from kubesvc.api.service import SERVICE, Service
    from kubesvc.client.informer import Informer
    from kubesvc.clock import Random, RealClock
    from kubesvc.controllers import service_events_plan as plan
    from kubesvc.controllers.service_events import takes
    from kubesvc.why.commands import selector_text
    from kubesvc.why.timeline import Entry

    clock, random, namespace = RealClock(), Random(), cluster.namespace
    service = typed(await cluster.client.get(SERVICE, name, namespace), Service)
    slices: Informer[EndpointSlice] = Informer(
        cluster.client, ENDPOINT_SLICE, namespace, label_selector=f"{SERVICE_NAME_LABEL}={name}", clock=clock,
        random=random,
    )  # fmt: skip
    selector = selector_text(service.spec.selector)
    pods: Informer[Pod] = Informer(cluster.client, POD, namespace, label_selector=selector, clock=clock, random=random)
    printer = Printer(lambda entries: tell(args, entries))
    known: dict[str, Listed] = {}
    moved_at: dict[str, float] = {}

    def pod_moved(old: Pod | None, new: Pod | None) -> None:
        if takes(old) != takes(new):
            moved_at[(new or old).name] = clock.now()  # type: ignore[union-attr]

    def changed(*_: object) -> None:
        if not slices.synced.is_set():
            return
        after = plan.listed_in(slices.values())
        joined, left = plan.moves(known, after)
        known.clear()
        known.update(after)
        for what, entries in (("left", left), ("joined", joined)):
            for x in entries:
                pod = pods.get((namespace, x.pod))
                why = plan.why_left(x, pod, service) if what == "left" else plan.why_joined(x, pod, service)
                at, status_at = clock.now(), moved_at.get(x.pod, 0.0)
                moved = plan.Moved(at, namespace, name, what, x.address, why, x.pod, x.node, status_at)
                printer.add(Entry(moved))

    pods.on_change(pod_moved)
    slices.on_change(changed)
    async with asyncio.TaskGroup() as group:
        group.create_task(pods.run())
        await pods.synced.wait()
        moved_at.clear()
        group.create_task(slices.run())
        await slices.synced.wait()
        known.update(plan.listed_in(slices.values()))
        if not args.json:
            now = ", ".join(known) or "none"
            print(f"svc/{name} in namespace {namespace}: listed now: {now}; watching", flush=True)
        group.create_task(printer.run())
    return 0


@dataclass
class Printer:
    """Prints entries in order, apart from whoever finds them: a reader that is slow holds nobody up.

    write: prints some entries, and may block; it is called in a thread, once at a time
    Of more than MOST_WAITING entries that wait, those that come later are counted instead.
    """

    write: Callable[[Sequence[Entry]], None]
    waiting: list[Entry] = field(default_factory=list)
    left_out: int = 0
    there: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, entry: Entry) -> None:
        if len(self.waiting) >= MOST_WAITING:
            self.left_out += 1
        else:
            self.waiting.append(entry)
        self.there.set()

    async def run(self) -> None:
        """Print what comes until cancelled. What printing raises ends it, a reader that left above all."""
        while True:
            await self.there.wait()
            self.there.clear()
            entries, self.waiting = self.waiting, []
            left_out, self.left_out = self.left_out, 0
            await asyncio.to_thread(self.write, entries)
            if left_out:
                log.warning("%d more were left out: who reads this is too slow", left_out)
