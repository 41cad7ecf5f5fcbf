"""Make this machine, or this network namespace, a node of another machine's instance (docs/join.md).

  kubesvc join join.kubeconfig               what `kubesvc token create` printed there; needs root
  kubesvc join join.kubeconfig --node n7 --address 192.0.2.17

It asks for the node's own credentials, keeps them in its state directory (or --kubeconfig FILE) and uses them from then
on, so that the same command takes up where it ended after the token has expired. Then it runs the node: agent, proxy
and DNS. Pods go on running when it ends; --leave ends them, and removes what the node has left here.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from .node import add_node_arguments

    parser.add_argument("bootstrap_kubeconfig", metavar="FILE", nargs="?", default="", help="what one joins with")
    parser.add_argument("--kubeconfig", default="", metavar="FILE", help="where the node's own credentials are kept")
    add_node_arguments(parser)
    parser.add_argument(
        "--set-forwarding", action="store_true", help="let this machine forward packets for as long as the node runs"
    )
    parser.add_argument("--leave", action="store_true", help="end the node's Pods and remove what it has left here")
    parser.add_argument("--verbose", action="store_true", help="log what is done")
    parser.set_defaults(with_proxy=True, with_dns=True, simulated=False)


def run(args: argparse.Namespace) -> int:
    from .joined import leave, run_joined

    return leave(args) if args.leave else run_joined(args)
