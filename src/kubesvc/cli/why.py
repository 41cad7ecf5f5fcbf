"""Say in one line why a Service, a Pod, an address or a name works or does not, and what repairs it.

  kubesvc why svc/web -n shop            a Service
  kubesvc why pod/web-1                  a Pod: which Services lead to it
  kubesvc why pod/web-1 svc/web          both: does the one lead to the other
  kubesvc why 10.96.3.4:80               an address, with its port or without
  kubesvc why web.shop                   a name, as a Pod of the namespace asks for it
  kubesvc why --all                      every Service, the worst first
  kubesvc why -f manifests/              manifests before they are applied: would their Services have endpoints?
  helm template . | kubesvc why -f -     the same of what another program makes
  kubesvc why --dump DIR                 a dump, as `kubectl cluster-info dump -A --output-directory DIR` makes

Nothing is ever written. Exit status: 0 it works, 1 it is broken, 2 cannot tell, 64 wrong usage. docs/causes.md tells
about every code.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kubesvc.clock import RealClock

from . import WRONG_USAGE, Failure
from .cluster import CANNOT_TELL, Cluster, asking_cluster
from .target import add_target, kubectl_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesvc.why.snapshot import Snapshot
    from kubesvc.why.subject import Subject


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", nargs="*", help="svc/NAME, pod/NAME, both, IP:PORT, or a DNS name")
    parser.add_argument(
        "-n", "--namespace", metavar="NAMESPACE", help="where names are looked up (default: the context's)"
    )
    parser.add_argument("--node", default="", metavar="NODE", help="as seen from this node (default: from everywhere)")
    parser.add_argument("--all", action="store_true", help="every Service, the worst first")
    parser.add_argument(
        "-A", "--all-namespaces", action="store_true", help="with --all: in every namespace (the default)"
    )
    parser.add_argument(
        "-f", "--filename", action="append", metavar="PATH",
        help="manifests that are not applied yet: a file, a directory, or - for what is piped in",
    )  # fmt: skip
    parser.add_argument(
        "--against", choices=("nothing", "current"), default="nothing",
        help="what -f is laid over: nothing (offline), or the current state of the cluster",
    )  # fmt: skip
    parser.add_argument(
        "--dump", metavar="PATH", help="a directory, file or archive of YAML or JSON instead of a cluster"
    )
    parser.add_argument(
        "--passive", action="store_true", help="go by objects only; do not look into the nodes of an own instance"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--brief", action="store_true", help="the first line only")
    parser.add_argument(
        "--print-role", action="store_true", help="print the least ClusterRole that this needs, as JSON"
    )
    parser.add_argument(
        "--grant", default="", metavar="USER",
        help="with --print-role: and the binding that gives it to USER, as the API server calls it",
    )  # fmt: skip
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    from kubesvc.why.subject import BadSubject, parse_subject

    if args.print_role:
        from kubesvc.why.role import render_grant, render_role

        print(json.dumps(render_grant(args.grant) if args.grant else render_role(), indent=2))
        return 0
    if args.grant:
        raise Failure("--grant goes with --print-role", status=WRONG_USAGE)
    if args.dump and args.filename:
        raise Failure("--dump and -f exclude each other", status=WRONG_USAGE)
    if args.all and args.subject:
        raise Failure("--all asks about every Service; leave the subject out", status=WRONG_USAGE)
    subject: Subject | None = None
    if not args.all and (args.subject or not (args.filename or args.dump)):
        try:
            subject = parse_subject(args.subject)
        except BadSubject as error:
            raise Failure(str(error), status=WRONG_USAGE) from error
    gc.disable()  # a short life with many objects that all stay: collecting costs more than it frees
    try:
        namespace, snapshot = look_now(args, subject)
        return tell(args, subject, namespace, snapshot)
    finally:
        gc.enable()


def look_now(args: argparse.Namespace, subject: Subject | None) -> tuple[str, Snapshot]:
    """Run `look`. Its result must not be the task's: asyncio, giving the handler of SIGINT back, makes a text of the
    task and all it holds, which takes half a second for a large snapshot."""
    found: list[tuple[str, Snapshot]] = []

    async def keep() -> None:
        found.append(await look(args, subject))

    asyncio.run(keep())
    return found[0]


def tell(args: argparse.Namespace, subject: Subject | None, namespace: str, snapshot: Snapshot) -> int:
    """Say what could not be read, then the answer."""
    if snapshot.skipped:
        say_skipped(snapshot)
    return answer(args, subject, namespace, snapshot)


def answer(args: argparse.Namespace, subject: Subject | None, namespace: str, snapshot: Snapshot) -> int:
    """Diagnose and print. Failure for a node that is none."""
    from kubesvc.api.node import NODE
    from kubesvc.why.answer import diagnose, diagnose_all
    from kubesvc.why.render import exit_status, render_all, render_json, render_text

    if args.node and snapshot.source == "cluster" and snapshot.knows(NODE) and args.node not in snapshot.nodes:
        there = ", ".join(sorted(snapshot.nodes)) or "none"
        raise Failure(f"--node {args.node}: there is no such node; there are: {there}", status=WRONG_USAGE)
    if subject is None:
        only = args.namespace if args.namespace and not args.all_namespaces else ""
        found = [d for d in diagnose_all(snapshot, args.node) if not only or d.subject.endswith(f" {only}")]
    else:
        found = [diagnose(subject, snapshot, namespace, args.node)]
    if args.json:
        print(json.dumps(render_json(found, snapshot, RealClock().now()), indent=2))
    elif subject is None:
        print(render_all(found))
    else:
        plan = snapshot.source == "manifests"
        tool = "kubectl" if plan or args.dump else kubectl_for(args)
        print(render_text(found[0], brief=args.brief, kubectl=tool, planned=plan))
    return exit_status(found)


def say_skipped(snapshot: Snapshot) -> None:
    print(f"kubesvc why: {len(snapshot.skipped)} skipped that could not be read:", file=sys.stderr)
    for s in snapshot.skipped[:5]:
        print(f"  {s.where}: {s.reason}", file=sys.stderr)
    if len(snapshot.skipped) > 5:
        print(f"  and {len(snapshot.skipped) - 5} more", file=sys.stderr)


async def look(args: argparse.Namespace, subject: Subject | None) -> tuple[str, Snapshot]:
    """The namespace that names are in, and the snapshot to look at."""
    if args.dump:
        from kubesvc.why.dump import read_dump

        dumped = read_path(lambda: read_dump(Path(args.dump)))
        if not any(dumped.objects.values()):
            how = "next: kubectl cluster-info dump --all-namespaces --output-directory DIRECTORY"
            raise Failure(f"{args.dump} holds no object of Kubernetes, as JSON or YAML{left_out(dumped)}\n{how}",
                          status=CANNOT_TELL)  # fmt: skip
        return args.namespace or "default", dumped
    if args.filename:
        from kubesvc.why.dump import read_manifests
        from kubesvc.why.planned import plan_manifests

        namespace = args.namespace or "default"
        base: Snapshot | None = None
        if args.against == "current":
            namespace, base = await look_at_cluster(args, None)
        given = read_path(lambda: read_manifests([Path(p) for p in args.filename], namespace))
        if not any(given.objects.values()):
            status = CANNOT_TELL if given.skipped else WRONG_USAGE
            said = f"{', '.join(args.filename)}: no manifest there, YAML or JSON{left_out(given)}"
            raise Failure(said, status=status)
        return namespace, plan_manifests(given, base)
    return await look_at_cluster(args, subject)


def left_out(snapshot: Snapshot) -> str:
    """What stood there instead, in a few words."""
    return "".join(f"; {s.where}: {s.reason}" for s in snapshot.skipped[:3])


def read_path(read: Callable[[], Snapshot]) -> Snapshot:
    """Run `read`; a path that cannot be read is wrong usage."""
    try:
        return read()
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}", status=WRONG_USAGE) from error


async def look_at_cluster(args: argparse.Namespace, subject: Subject | None) -> tuple[str, Snapshot]:
    """Read the cluster that the options name; where it is an instance of this machine, look into its nodes too."""
    from kubesvc.why.collect import read_for

    async with asking_cluster(args, "kubesvc-why") as cluster:
        namespace = cluster.namespace
        where = namespace if subject is not None or (args.namespace and not args.all_namespaces) else ""
        snapshot = await read_for(cluster.client, RealClock(), subject, where)
        if subject is not None and not args.passive:
            snapshot = await look_inside(args, cluster, subject, namespace, snapshot)
        return namespace, snapshot


MOVING = frozenset({"EP409", "EP614", "EP706", "EP707"})
"""Causes that a change under way, or a busy machine, looks like: they count if they are still there when everything was
read anew and asked with more patience."""
PATIENCE_SECONDS = 0.7
"""How long an answer is waited for at the first look; longer at each further one."""
LOOKS = 3


async def look_inside(
    args: argparse.Namespace, cluster: Cluster, subject: Subject, namespace: str, snapshot: Snapshot
) -> Snapshot:
    """Add what is seen in the nodes about the Service in question, if there is one. What only lags behind the objects
    is looked at again."""
    from kubesvc.why.answer import service_meant
    from kubesvc.why.collect import read_for
    from kubesvc.why.diagnose import diagnose_service

    from .sights import look_into

    if cluster.instance is None or cluster.record is None or not cluster.record.nodes:
        return snapshot
    for attempt in range(LOOKS):
        service = service_meant(subject, snapshot, namespace)
        if service is None:
            return snapshot
        patience = PATIENCE_SECONDS * (1 + attempt)
        snapshot = await look_into(
            cluster.instance, cluster.record, service, snapshot, args.node, patience_seconds=patience
        )
        codes = {f.code for f in diagnose_service(service, snapshot, args.node).findings}
        known = any(
            s.failure for s in snapshot.sights
        )  # what a node that is off or cut off shows will not pass by itself
        if not codes & MOVING or known or attempt == LOOKS - 1:
            break
        await asyncio.sleep(0.2)
        snapshot = await read_for(cluster.client, RealClock(), subject, namespace)
    return snapshot
