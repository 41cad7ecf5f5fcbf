"""Run controllers alone, against any cluster.

--controllers takes upstream's syntax and names: `*` for all, NAME, -NAME; `endpointslice-controller` may lack its
ending. Without it the three endpoint controllers run. On a cluster whose own controllers run, run only those that
were switched off there: two writers of one object never come to rest.
"""

from __future__ import annotations

import argparse

from . import Failure
from .alone import add_part_arguments, run_part
from .up import comma

DEFAULT = ("endpoints-controller", "endpointslice-controller", "endpointslice-mirroring-controller")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_part_arguments(parser)
    parser.add_argument("--controllers", type=comma, default=DEFAULT, metavar="*,NAME,-NAME")


def run(args: argparse.Namespace) -> int:
    from kubesvc.controllers import run_controllers
    from kubesvc.controllers.registry import CONTROLLERS
    from kubesvc.controllers.runner import select

    try:
        names = select(args.controllers, CONTROLLERS)
    except ValueError as error:
        raise Failure(str(error), status=64) from error
    return run_part(
        args, "controllers", lambda client, clock, random: run_controllers(client, names, clock=clock, random=random)
    )
