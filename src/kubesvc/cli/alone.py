"""What the commands that run one part alone share: the cluster to work on, and a loop until interrupted."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from kubesvc.clock import Clock, Random, RealClock
from kubesvc.lifetime import cancel, run_loop, set_collector, stop_event

from . import Failure
from .target import add_target, find_target

if TYPE_CHECKING:
    from kubesvc.client import Client
    from kubesvc.client.http import HttpClient

Part = Callable[["Client", Clock, Random], Coroutine[Any, Any, None]]


def add_part_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("--verbose", action="store_true", help="log what is done")


def run_part(args: argparse.Namespace, manager: str, part: Part) -> int:
    """Run `part` on the target cluster until Ctrl-C or SIGTERM."""
    from kubesvc.client.http import HttpClient
    from kubesvc.client.kubeconfig import KubeconfigError

    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    target = find_target(args)
    try:
        client = HttpClient.from_kubeconfig(target.kubeconfig, target.context or None, manager)
    except KubeconfigError as error:
        raise Failure(str(error)) from error
    print(f"kubesvc {manager}: working on the cluster of {target.kubeconfig}; Ctrl-C ends it", file=sys.stderr)
    return run_loop(until_stopped(client, part))


async def until_stopped(client: HttpClient, part: Part) -> int:
    from kubesvc.client.outage import Outage, PatientClient

    stop = stop_event()
    clock, random = RealClock(), Random()
    outage = Outage(client.reach, clock, random)
    running = asyncio.ensure_future(part(PatientClient(client, outage), clock, random))
    waiting = asyncio.ensure_future(stop.wait())
    set_collector()  # the first lists of a large cluster otherwise spend half their time in collections
    try:
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()  # a part runs for ever; that it ended is its failure
        return 0
    finally:
        waiting.cancel()
        if not running.done():  # what it failed with is told once, by who runs the command
            await cancel([running])
        await outage.close()
        await client.close()
