"""Run the scheduler alone, against any cluster: binds pods that have no node yet."""

from __future__ import annotations

import argparse

from .alone import add_part_arguments, run_part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_part_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from kubesvc.controllers import run_controllers

    return run_part(
        args,
        "scheduler",
        lambda client, clock, random: run_controllers(client, ("scheduler",), clock=clock, random=random),
    )
