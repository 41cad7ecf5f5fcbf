"""Run controllers alone, against any cluster.

--controllers takes upstream's syntax and names: `*` for all, NAME, -NAME; `endpointslice-controller` may lack its
ending. Without it the three endpoint controllers run. On a cluster whose own controllers run, run only those that
were switched off there: two writers of one object never come to rest.

--shadow writes nothing: it tells what these controllers would write that the cluster's own have not, once that lasts.
"""

from __future__ import annotations

import argparse
import json
import logging

from . import Failure
from .alone import add_part_arguments, run_part
from .electing import add_election_arguments, elected
from .up import comma

DEFAULT = ("endpoints-controller", "endpointslice-controller", "endpointslice-mirroring-controller")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_part_arguments(parser)
    parser.add_argument("--controllers", type=comma, default=DEFAULT, metavar="*,NAME,-NAME")
    parser.add_argument("--shadow", action="store_true", help="write nothing; tell what would be written")
    parser.add_argument(
        "--shadow-after",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how long a difference must last (default: 5)",
    )
    parser.add_argument("--output", choices=("text", "json"), default="text", help="of --shadow: text, or JSON lines")
    add_election_arguments(parser, "kubesvc-controllers")


def run(args: argparse.Namespace) -> int:
    from kubesvc.controllers import run_controllers
    from kubesvc.controllers.registry import CONTROLLERS
    from kubesvc.controllers.runner import select

    try:
        names = select(args.controllers, CONTROLLERS)
    except ValueError as error:
        raise Failure(str(error), status=64) from error
    if args.shadow:
        return run_shadowing(args, names)
    part = elected(args, lambda client, clock, random: run_controllers(client, names, clock=clock, random=random))
    return run_part(args, "controllers", part)


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
