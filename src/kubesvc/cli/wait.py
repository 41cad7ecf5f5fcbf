"""Wait until a Service routes: its endpoints are listed, every node's rules lead there, and its port answers.

  kubesvc wait svc/web -n shop                    all of it (--routable, the default)
  kubesvc wait svc/web --programmed               listed, and the rules are in the kernel
  kubesvc wait svc/web --listed                   every port has a ready endpoint

On an instance of this machine the nodes themselves are asked; on another cluster the Service's address is tried from
here, which works where ClusterIPs answer, as in a Pod. Exit status: 0 it does, 1 it did not in time, 2 cannot tell.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from kubesvc.lifetime import run_anywhere

from . import Failure
from .target import add_target, same_cluster, service_named

if TYPE_CHECKING:
    from kubesvc.why.routable import Progress, Stage

    from .cluster import Cluster

TRY_SECONDS = 0.1
SETTLING_SECONDS = 2.0
"""How long to wait for what cannot be seen from here before saying so."""
KNOCK_SECONDS = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", nargs="+", help="svc/NAME")
    parser.add_argument("-n", "--namespace", metavar="NAMESPACE", help="of the Service (default: the context's)")
    stage = parser.add_mutually_exclusive_group()
    for name, text in (("listed", "endpoints are ready"), ("programmed", "and rules are in force"),
                       ("routable", "and the port answers (the default)")):  # fmt: skip
        stage.add_argument(f"--{name}", dest="stage", action="store_const", const=name, help=text)
    parser.add_argument("--timeout", type=seconds, default=30.0, metavar="SECONDS", help="default: 30")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(stage="routable")
    add_target(parser)


def seconds(text: str) -> float:
    """A time such as `30`, `30s` or `2m`."""
    factor = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:], 0.0)
    number = text[:-1] if factor else text
    try:
        found = float(number) * (factor or 1.0)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r}: must be seconds, or such as 30s or 2m")
    return found


def run(args: argparse.Namespace) -> int:
    service = service_named(args.subject, "wait for what? a Service")
    found, waited = asyncio.run(wait(args, service, args.stage, args.timeout))
    if args.json:
        told = {"done": found.done, "stage": args.stage, "text": found.text, "seconds": round(waited, 3)}
        print(json.dumps(told | {"service": service, "canTell": not found.blind, "why": found.why}))
    elif found.done:
        print(f"svc/{service} is {args.stage} after {waited:.1f} s; {found.text}")
    if found.done:
        return 0
    if not args.json:
        text = f"svc/{service} is not {args.stage} after {waited:.1f} s: {found.text}"
        asked = f"kubesvc why svc/{service}{same_cluster(args)}"
        raise Failure(f"{text}{because(found)}\nnext: {asked}", status=2 if found.blind else 1)
    return 2 if found.blind else 1


async def wait(args: argparse.Namespace, service: str, stage: Stage, timeout: float) -> tuple[Progress, float]:
    """Wait for a Service of the cluster that the options name: how far it came, and after how many seconds."""
    from .cluster import asking_cluster

    async with asking_cluster(args, "kubesvc-wait") as cluster:
        return await wait_on(cluster, service, stage, timeout)


async def wait_on(cluster: Cluster, name: str, stage: Stage, timeout: float) -> tuple[Progress, float]:
    """Look again and again until the stage is reached, the time is over, or looking will not help."""
    from kubesvc.clock import RealClock

    clock = RealClock()
    started = clock.monotonic()
    while True:
        found = await look(cluster, name, stage, timeout - (clock.monotonic() - started))
        waited = clock.monotonic() - started
        if found.done or (found.blind and waited >= min(timeout, SETTLING_SECONDS)):
            return found, waited
        if waited >= timeout:
            return replace(found, why=await cause_of(cluster, name)), waited
        await asyncio.sleep(min(TRY_SECONDS, timeout - waited))


async def cause_of(cluster: Cluster, name: str) -> str:
    """What `kubesvc why` says of the Service now, by its objects; "" if they are in order, or cannot tell."""
    from kubesvc.clock import RealClock
    from kubesvc.why.answer import diagnose
    from kubesvc.why.collect import read_for
    from kubesvc.why.render import headline
    from kubesvc.why.subject import Subject

    subject = Subject(service=name)
    snapshot = await read_for(cluster.client, RealClock(), subject, cluster.namespace)
    found = diagnose(subject, snapshot, cluster.namespace)
    return headline(found) if found.status == "broken" else ""


async def look(cluster: Cluster, name: str, stage: Stage, most_seconds: float) -> Progress:
    """How far the Service is now: first by objects, and only if those suffice by looking into nodes.

    most_seconds: how long looking into a node may take, if that is more than usual
    """
    from kubesvc.clock import RealClock
    from kubesvc.why.collect import read_for
    from kubesvc.why.routable import judge
    from kubesvc.why.subject import Subject

    snapshot = await read_for(cluster.client, RealClock(), Subject(service=name), cluster.namespace)
    service = snapshot.services.get((cluster.namespace, name))
    found = judge(service, snapshot, "listed")
    if service is None or not found.done or stage == "listed":
        return found
    if cluster.instance is not None and cluster.record is not None and cluster.record.nodes:
        from .sights import PATIENCE_SECONDS, look_into

        seen = await look_into(
            cluster.instance, cluster.record, service, snapshot,
            knock=stage == "routable", most_seconds=max(PATIENCE_SECONDS, most_seconds),
        )  # fmt: skip
        return judge(service, seen, stage)
    from .insight import connect, place

    gate = asyncio.Semaphore(10)
    address = service.spec.cluster_ip
    tcp = [p.port for p in service.spec.ports or () if (p.protocol or "TCP") == "TCP" and address not in ("", "None")]
    replies = await asyncio.gather(*(connect(address, p, KNOCK_SECONDS, gate) for p in tcp))
    return judge(service, snapshot, stage, {place(address, p): r for p, r in zip(tcp, replies, strict=True)})


class NotRoutable(Exception):
    """A Service did not come as far as asked, in time; the text says what is missing."""


def wait_routable(
    service: str,
    namespace: str = "",
    *,
    timeout: float = 30.0,
    stage: Stage = "routable",
    name: str = "",
    kubeconfig: str = "",
    context: str = "",
) -> str:
    """Wait until a Service routes, as `kubesvc wait` does, from a Python program without a running event loop.

    service:   its name, with or without `svc/`
    namespace: "" for the context's
    timeout:   seconds
    stage:     "listed", "programmed" or "routable"
    name, kubeconfig, context: which cluster, as the options of the command; by default $KUBECONFIG, else the instance
               `default`
    Returns what is so, in words. Raises NotRoutable if it is not so in time or cannot be seen, Failure if the cluster
    cannot be asked, ValueError for a stage that is none.
    """
    from kubesvc.why.routable import STAGES

    if stage not in STAGES:
        raise ValueError(f"stage {stage!r}: must be one of {', '.join(STAGES)}")
    args = argparse.Namespace(kubeconfig=kubeconfig, context=context, name=name, namespace=namespace)
    bare = service.removeprefix("svc/")
    found, waited = run_anywhere(wait(args, bare, stage, timeout))
    if not found.done:
        raise NotRoutable(f"svc/{bare} is not {stage} after {waited:.1f} s: {found.text}{because(found)}")
    return found.text


def because(found: Progress) -> str:
    """The cause, on a line of its own, if one is known."""
    return f"\nwhy: {found.why}" if found.why else ""
