"""Open a shell, or run a command, inside a node, where ClusterIPs and cluster names answer."""

from __future__ import annotations

import argparse
import os

from .inside import exec_inside, ground_of_node
from .target import add_instance, running


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_instance(parser)
    parser.add_argument("--node", metavar="N", help="the node (default: the first)")
    parser.usage = "kubesvc shell [--name NAME] [--node N] [-- COMMAND]"


TAKES_COMMAND = True


def run(args: argparse.Namespace) -> int:
    paths, record = running(args.name, args.kubeconfig)
    program = args.command or [os.environ.get("SHELL", "/bin/sh")]
    exec_inside(paths, record, ground_of_node(record, args.node), program)
