"""Run the API server alone: no controllers, no nodes.

It makes its certificates in the instance's directory (--name) and writes the admin's kubeconfig there, as `up` does.
"""

from __future__ import annotations

import argparse

from . import up


def add_arguments(parser: argparse.ArgumentParser) -> None:
    up.add_arguments(parser)
    parser.set_defaults(nodes=0, controllers=())


def run(args: argparse.Namespace) -> int:
    return up.run(args)
