"""Run a node agent alone, against any cluster: this machine, or this network namespace, becomes a node."""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

from kubesvc.instance.paths import state_home

from .alone import add_part_arguments, run_part
from .up import comma


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_part_arguments(parser)
    parser.add_argument("--node", default="", metavar="NAME", help="name of the node (default: the host name)")
    parser.add_argument("--address", type=comma, required=True, metavar="IP[,IP]", help="the node's own addresses")
    parser.add_argument("--cluster-dns", type=comma, default=("10.96.0.10",), metavar="IP")
    parser.add_argument("--cluster-domain", default="cluster.local", metavar="NAME")
    parser.add_argument("--zone", default="", metavar="ZONE")
    parser.add_argument("--simulated", action="store_true", help="Pods become ready without processes")
    parser.add_argument("--images-map", default="", metavar="FILE")


def run(args: argparse.Namespace) -> int:
    from kubesvc.node import NodeAgent, NodeSettings

    name = args.node or platform.node().lower()
    directory = state_home() / "alone" / name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = NodeSettings(
        node_name=name,
        state_dir=directory,
        node_addresses=args.address,
        cluster_dns=args.cluster_dns,
        cluster_domain=args.cluster_domain,
        zone=args.zone,
        simulated=args.simulated,
        images_map=Path(args.images_map) if args.images_map else None,
        own_network=False,
    )
    return run_part(args, "node", lambda client, clock, random: NodeAgent(client, settings, clock, random).run())
