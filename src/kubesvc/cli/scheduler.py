"""Run the scheduler alone, against any cluster: binds pods that have no node yet."""

from __future__ import annotations

import argparse

from .alone import add_part_arguments, run_part
from .electing import add_election_arguments, elected


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_part_arguments(parser)
    add_election_arguments(parser, "kubesvc-scheduler")


def run(args: argparse.Namespace) -> int:
    from kubesvc.controllers import run_controllers

    part = elected(
        args, lambda client, clock, random: run_controllers(client, ("scheduler",), clock=clock, random=random)
    )
    return run_part(args, "scheduler", part)
