"""Roll a Deployment under load through its Service, and report the requests lost, and in which gap.

  kubesvc rehearse deployment/web --rps 200
  kubesvc rehearse deployment/web --url http://203.0.113.7:30080/    on another cluster: through an address of its own

The Deployment is restarted as `kubectl rollout restart` does; it is real, so rehearse where it may be. On an instance
of this machine the load comes from inside a node, through the ClusterIP. Where requests were lost, settings that would
have lost none are suggested. Exit status: 0 none lost, 1 some lost, 2 it did not come to an end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from . import WRONG_USAGE, Failure
from .cluster import CANNOT_TELL
from .target import add_target, kubectl_for
from .wait import seconds

if TYPE_CHECKING:
    from kubesvc.api.deployment import Deployment
    from kubesvc.api.meta import Object
    from kubesvc.api.service import Service
    from kubesvc.why.rehearsal import PodLife, Rehearsal

    from .cluster import Cluster
    from .load import Order, Outcome

MOST_RPS = 2000.0
MOST_SECONDS = 600.0
WARM_SECONDS = 1.0
"""Load before the rollout begins, and after it has ended."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", metavar="deployment/NAME", help="what is rolled")
    parser.add_argument("-n", "--namespace", metavar="NAMESPACE", help="of the Deployment (default: the context's)")
    parser.add_argument("--rps", type=float, default=200.0, metavar="N", help="requests per second (default: 200)")
    parser.add_argument("--service", default="", metavar="NAME", help="if several Services lead to it")
    parser.add_argument("--path", default="/", help="of the requests (default: /)")
    parser.add_argument("--url", default="", help="send the requests there instead, from here")
    parser.add_argument("--timeout", type=seconds, default=120.0, metavar="SECONDS", help="default: 120")
    parser.add_argument("--json", action="store_true", help="for programs")
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    kind, _, name = args.subject.partition("/")
    if kind not in ("deployment", "deploy", "deployments") or not name:
        raise Failure("rehearse what? deployment/NAME", status=WRONG_USAGE)
    if not 0 < args.rps <= MOST_RPS:
        raise Failure(f"--rps {args.rps:g}: must be above 0 and at most {MOST_RPS:g}", status=WRONG_USAGE)
    if args.timeout > MOST_SECONDS:
        raise Failure(f"--timeout: at most {MOST_SECONDS:g} seconds", status=WRONG_USAGE)
    if args.url and urlsplit(args.url).scheme != "http":
        raise Failure(f"--url {args.url}: must begin with http://", status=WRONG_USAGE)
    from kubesvc.why.rehearsal import plain, render

    result = asyncio.run(rehearse(args, name))
    print(json.dumps(plain(result)) if args.json else render(result, kubectl_for(args)))
    return 1 if result.lost else 0


async def rehearse(args: argparse.Namespace, name: str) -> Rehearsal:
    from .cluster import asking_cluster

    async with asking_cluster(args, "kubesvc-rehearse") as cluster:
        return await play(args, cluster, name)


async def play(args: argparse.Namespace, cluster: Cluster, name: str) -> Rehearsal:
    """Load, roll, wait, stop, conclude."""
    from kubesvc.api.deployment import DEPLOYMENT, Deployment
    from kubesvc.api.meta import typed
    from kubesvc.clock import RealClock, rfc3339
    from kubesvc.kernel.nsexec import END
    from kubesvc.why.rehearsal import LostRequest, conclude

    clock = RealClock()
    deployment = typed(await find(cluster, name), Deployment)
    service = await service_of(args, cluster, deployment)
    order = order_for(args, service)
    process = await start_load(cluster, order, inside=not args.url)
    watcher = Watcher(cluster, deployment, service.name)
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watcher.run())
            await watcher.ready()
            await asyncio.sleep(WARM_SECONDS)
            began = clock.now()
            if not args.json:
                print(f"rolling deployment/{name} under {args.rps:g} requests/s to svc/{service.name}", flush=True)
            stamp = {"kubectl.kubernetes.io/restartedAt": rfc3339(began)}
            change = {"spec": {"template": {"metadata": {"annotations": stamp}}}}
            made = await cluster.client.patch(DEPLOYMENT, name, cluster.namespace, change, "strategic")
            await rolled_out(args, cluster, typed(made, Deployment), watcher)
            took = clock.now() - began
            await asyncio.sleep(WARM_SECONDS)
            watching.cancel()
        outcome = await end_load(process)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(END)  # inside a node the load is a child of our child's, which ends it first
            from kubesvc.lifetime import await_end

            await await_end(process, "the load")
    if outcome.held_back:
        print(f"note: {outcome.held_back} requests were not sent, too many were under way", file=sys.stderr)
    lost = [LostRequest(x.began, x.ended, x.met) for x in outcome.lost]
    lives = with_rules(cluster, service.name, watcher.lives, began)
    return conclude(deployment, outcome.sent, lost, outcome.lost_in_all, lives, took)


async def find(cluster: Cluster, name: str) -> Object:
    """The Deployment; Failure that names those there are if it is none of them."""
    from kubesvc.api.deployment import DEPLOYMENT
    from kubesvc.api.errors import NotFound

    try:
        return await cluster.client.get(DEPLOYMENT, name, cluster.namespace)
    except NotFound:
        listed = (await cluster.client.list_raw(DEPLOYMENT, cluster.namespace)).items
        there = ", ".join(sorted(json.loads(raw)["metadata"]["name"] for raw in listed)[:6]) or "none"
        text = f"there is no Deployment {name} in namespace {cluster.namespace}; there are: {there}"
        raise Failure(text, status=CANNOT_TELL) from None


async def service_of(args: argparse.Namespace, cluster: Cluster, deployment: Deployment) -> Service:
    """The one Service that selects the Deployment's Pods, or the one that --service names."""
    from kubesvc.api.meta import typed
    from kubesvc.api.selectors import equality_selector
    from kubesvc.api.service import SERVICE, Service

    listed = [typed(json.loads(r), Service) for r in (await cluster.client.list_raw(SERVICE, cluster.namespace)).items]
    labels = deployment.spec.template.metadata.labels
    fits = [s for s in listed if s.spec.selector and equality_selector(s.spec.selector).matches(labels)]
    chosen = [s for s in fits if s.name == args.service] if args.service else fits
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(s.name for s in fits) or "none"
    if not chosen:
        wanted = f"the Service {args.service} does not select" if args.service else "no Service selects"
        raise Failure(
            f"{wanted} the Pods of deployment/{deployment.name}; those that do: {names}\nnext: kubesvc why --all"
        )
    raise Failure(f"several Services select its Pods: {names}\nnext: --service NAME", status=WRONG_USAGE)


def order_for(args: argparse.Namespace, service: Service) -> Order:
    """What the load is to send, and where."""
    from .load import Order

    limit = args.timeout + 2 * WARM_SECONDS + 5
    if args.url:
        url = urlsplit(args.url)
        path = url.path or "/"
        return Order(address=url.hostname or "", port=url.port or 80, path=path, rps=args.rps, seconds=limit)
    tcp = [p for p in service.spec.ports or () if (p.protocol or "TCP") == "TCP"]
    if service.headless or not service.spec.cluster_ip or not tcp:
        raise Failure(f"svc/{service.name} has no ClusterIP with a TCP port; give --url", status=WRONG_USAGE)
    host = f"{service.name}.{service.namespace}"
    return Order(
        address=service.spec.cluster_ip, port=tcp[0].port, host=host, path=args.path, rps=args.rps, seconds=limit
    )


async def start_load(cluster: Cluster, order: Order, *, inside: bool) -> asyncio.subprocess.Process:
    """The load as a process of its own: in the first node, or here."""
    from kubesvc.instance import ground

    from .inside import ground_of_node

    command, environment = [sys.executable, "-m", "kubesvc.cli.load"], None
    if inside:
        if cluster.instance is None or cluster.record is None or cluster.record.fabric is None:
            raise Failure("ClusterIPs of another cluster do not answer here\nnext: --url http://ADDRESS of the Service")
        where = ground_of_node(cluster.record, None)
        command = ground.enter_command(cluster.record.fabric, where, command)
        environment = ground.environment(cluster.instance.root)
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C is for us, and we end it
    )
    assert process.stdin is not None
    try:
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        await process.stdin.drain()
    except OSError:
        pass  # it ended at once: `end_load` tells what it said
    return process


async def end_load(process: asyncio.subprocess.Process) -> Outcome:
    """Close its input, and read what became of the requests."""
    from .load import Outcome

    assert process.stdin is not None
    process.stdin.close()
    said, _ = await process.communicate()
    try:
        return msgspec.json.decode(said, type=Outcome)
    except msgspec.MsgspecError as error:
        raise Failure(f"the load ended with status {process.returncode} and said nothing: {error}", status=2) from error


async def rolled_out(args: argparse.Namespace, cluster: Cluster, made: Deployment, watcher: Watcher) -> None:
    """Wait until every Pod is of the new template and the old ones are gone."""
    from kubesvc.api.deployment import DEPLOYMENT, Deployment
    from kubesvc.api.meta import typed

    wanted = 1 if made.spec.replicas is None else made.spec.replicas
    try:
        async with asyncio.timeout(args.timeout):
            while True:
                now = typed(await cluster.client.get(DEPLOYMENT, made.name, made.namespace), Deployment)
                s = now.status
                done = s.updated_replicas == s.available_replicas == s.replicas == wanted
                seen = (s.observed_generation or 0) >= (made.metadata.generation or 0)
                if seen and done and not watcher.leaving():
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise Failure(
            f"deployment/{made.name} has not rolled out within {args.timeout:g} s\n"
            f"next: kubesvc why svc/{watcher.service} -n {made.namespace}",
            status=2,
        ) from None


class Watcher:
    """Follows the Pods of a Deployment and the slices of its Service, and notes when each came and went."""

    def __init__(self, cluster: Cluster, deployment: Deployment, service: str) -> None:
        from kubesvc.api.endpointslice import ENDPOINT_SLICE, SERVICE_NAME_LABEL, EndpointSlice
        from kubesvc.api.pod import POD, Pod
        from kubesvc.client.informer import Informer
        from kubesvc.clock import Random, RealClock
        from kubesvc.why.commands import selector_text

        self.clock, random = RealClock(), Random()
        self.service = service
        self.found: dict[str, PodLife] = {}
        labels = selector_text(deployment.spec.template.metadata.labels)
        self.pods: Informer[Pod] = Informer(
            cluster.client, POD, deployment.namespace, label_selector=labels, clock=self.clock, random=random
        )
        self.slices: Informer[EndpointSlice] = Informer(
            cluster.client, ENDPOINT_SLICE, deployment.namespace, label_selector=f"{SERVICE_NAME_LABEL}={service}",
            clock=self.clock, random=random,
        )  # fmt: skip
        self.listed: frozenset[str] = frozenset()
        self.pods.on_change(self.pod_moved)
        self.slices.on_change(lambda *_: self.slices_moved())

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.pods.run())
            group.create_task(self.slices.run())

    async def ready(self) -> None:
        """Wait for the caches; what there is already has no beginning."""
        await self.pods.synced.wait()
        await self.slices.synced.wait()
        self.slices_moved()
        self.found.clear()

    @property
    def lives(self) -> list[PodLife]:
        return list(self.found.values())

    def leaving(self) -> list[str]:
        """Pods that are being deleted and still there."""
        return [p.name for p in self.pods.values() if p.terminating]

    def note(self, pod: str, what: str) -> None:
        """The first moment of something of a Pod."""
        from kubesvc.why.rehearsal import PodLife

        life = self.found.get(pod) or PodLife(pod)
        self.found[pod] = life.first(what, self.clock.now())

    def pod_moved(self, old: object, new: object) -> None:
        name = getattr(new or old, "name", "")
        if new is None:
            self.note(name, "gone")
        elif getattr(new, "terminating", False):
            self.note(name, "terminating")

    def slices_moved(self) -> None:
        from kubesvc.controllers.service_events_plan import listed_in

        now = frozenset(x.pod for x in listed_in(self.slices.values()).values() if x.pod)
        for pod in sorted(now - self.listed):
            self.note(pod, "listed")
        for pod in sorted(self.listed - now):
            self.note(pod, "unlisted")
        self.listed = now


def with_rules(cluster: Cluster, service: str, lives: list[PodLife], since: float) -> list[PodLife]:
    """The lives with what the journals of an own instance say: when the last node's rules led nowhere else."""
    if cluster.instance is None:
        return lives
    from kubesvc.instance.journal import TIMELINE, read_lines
    from kubesvc.why.timeline import decode_moved

    from .timeline import joined_with_hops

    path = cluster.instance.root / TIMELINE
    moves = [m for m in decode_moved(read_lines(path), cluster.namespace, service) if m.at >= since]
    out = {
        e.moved.pod: max(e.rules.values())
        for e in joined_with_hops(cluster, moves) if e.moved.what == "left" and e.rules
    }  # fmt: skip
    return [dataclasses.replace(p, programmed_out=out.get(p.name, 0.0)) for p in lives]
