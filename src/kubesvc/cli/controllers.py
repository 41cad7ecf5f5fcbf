"""Run controllers alone, against any cluster.

--controllers takes upstream's syntax and names: `*` for all, NAME, -NAME; `endpointslice-controller` may lack its
ending. Without it the three endpoint controllers run. On a cluster whose own controllers run, run only those that
were switched off there: two writers of one object never come to rest. Of several that run, one works at a time, by
Lease.

--shadow writes nothing: it tells what these controllers would write that the cluster's own have not, once that lasts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from typing import TYPE_CHECKING

from kubesvc.clock import Clock, Random

from . import Failure
from .alone import Part, add_part_arguments, run_part
from .electing import add_election_arguments, elected
from .flags import comma

if TYPE_CHECKING:
    from kubesvc.client import Client
    from kubesvc.client.metrics import Metrics

DEFAULT = ("endpoints-controller", "endpointslice-controller", "endpointslice-mirroring-controller")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_part_arguments(parser)
    parser.add_argument(
        "--controllers",
        type=comma,
        default=DEFAULT,
        metavar="*,NAME,-NAME",
        help="which to run (default: the three endpoint controllers)",
    )
    parser.add_argument(
        "--explain-slices", action="store_true",
        help="say on every EndpointSlice what was decided about each Pod (annotation kubesvc.dev/decisions)",
    )  # fmt: skip
    parser.add_argument("--shadow", action="store_true", help="write nothing; tell what would be written")
    parser.add_argument(
        "--shadow-after",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how long a difference must last (default: 5)",
    )
    parser.add_argument("--output", choices=("text", "json"), default="text", help="of --shadow: text, or JSON lines")
    parser.add_argument(
        "--metrics-port",
        type=int,
        default=0,
        metavar="PORT",
        help="serve /metrics and /healthz over HTTP on 127.0.0.1 (default: nowhere)",
    )
    add_election_arguments(parser, "kubesvc-controllers")


def run(args: argparse.Namespace) -> int:
    from kubesvc.client.metrics import Metrics
    from kubesvc.controllers import run_controllers
    from kubesvc.controllers.registry import CONTROLLERS
    from kubesvc.controllers.runner import select
    from kubesvc.controllers.settings import ControllerSettings

    try:
        names = select(args.controllers, CONTROLLERS)
    except ValueError as error:
        raise Failure(str(error), status=64) from error
    if args.shadow:
        return run_shadowing(args, names)
    if not 0 <= args.metrics_port <= 65535:
        raise Failure(f"--metrics-port: {args.metrics_port}: must be a port, 1 to 65535, or 0 for none", status=64)
    metrics, settings = Metrics(), ControllerSettings(explain_slices=args.explain_slices)
    part = elected(
        args,
        lambda client, clock, random: run_controllers(
            client, names, clock=clock, random=random, metrics=metrics, settings=settings
        ),
    )
    return run_part(args, "controllers", with_metrics(part, metrics, args.metrics_port))


def with_metrics(part: Part, metrics: Metrics, port: int) -> Part:
    """The part with its metrics served beside it, whether it leads or waits."""
    if not port:
        return part

    async def both(client: Client, clock: Clock, random: Random) -> None:
        from kubesvc.controllers.metrics import serve_metrics

        async with asyncio.TaskGroup() as group:
            group.create_task(serve_metrics(metrics.render, port))
            await part(client, clock, random)

    return both


def run_shadowing(args: argparse.Namespace, names: list[str]) -> int:
    """Report differences on stdout until interrupted; many may do so at once, so nobody needs to lead."""
    from kubesvc.controllers.shadow import Report, run_shadow

    if args.leader_elect:
        raise Failure("--shadow writes nothing, not even a Lease: leave out --leader-elect", status=64)
    if args.shadow_after <= 0:
        raise Failure(f"--shadow-after: {args.shadow_after}: must be more than 0 seconds", status=64)

    def show(report: Report) -> None:
        if args.output == "json":
            print(json.dumps(report.as_json()), flush=True)
        else:
            print("\n".join(report.lines()), flush=True)

    logging.getLogger("kubesvc.controllers.runner").setLevel(logging.DEBUG if args.verbose else logging.ERROR)
    return run_part(
        args,
        "controllers",
        lambda client, clock, random: run_shadow(
            client, names, show, clock=clock, random=random, after_seconds=args.shadow_after
        ),
    )
