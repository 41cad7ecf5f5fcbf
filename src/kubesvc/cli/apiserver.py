"""Run the API server alone: no controllers, no nodes.

It makes its certificates in the instance's directory (--name) and writes the admin's kubeconfig there, as `up` does.
"""

from __future__ import annotations

import argparse

from . import Failure, up

ELSEWHERE = (
    "nodes", "simulated_nodes", "zones", "images", "registry_mirror", "images_map", "controllers", "cluster_cidr",
    "load_balancer_range", "node_monitor_grace_period", "proxy_mode", "runtime", "explain_slices", "service_warnings",
)  # fmt: skip
"""Options of `up` that nodes and controllers follow, and nothing here."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    up.add_arguments(parser)
    parser.set_defaults(nodes=0, controllers=())
    usual = {}
    for action in parser._actions:  # argparse has no other way to what was added
        if action.dest in ELSEWHERE:
            action.help = argparse.SUPPRESS
            usual[action.dest] = parser.get_default(action.dest)
    parser.set_defaults(usual=usual)


def run(args: argparse.Namespace) -> int:
    for name, value in args.usual.items():
        if getattr(args, name) != value:
            option = "--" + name.replace("_", "-")
            raise Failure(f"{option} does nothing for an API server alone\nnext: kubesvc up {option} …", status=64)
    return up.run(args)
