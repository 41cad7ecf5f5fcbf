"""Run a node agent alone, against any cluster: this machine, or this network namespace, becomes a node."""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

from kubesvc.instance.paths import state_home

from . import Failure
from .alone import add_part_arguments, run_part
from .runtimes import add_runtime, checked_runtime
from .up import comma


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_part_arguments(parser)
    parser.add_argument("--node", default="", metavar="NAME", help="name of the node (default: the host name)")
    parser.add_argument("--address", type=comma, default=(), metavar="IP[,IP]", help="the node's own addresses")
    parser.add_argument("--cluster-dns", type=comma, default=("10.96.0.10",), metavar="IP")
    parser.add_argument("--cluster-domain", default="cluster.local", metavar="NAME")
    parser.add_argument("--zone", default="", metavar="ZONE")
    parser.add_argument("--simulated", action="store_true", help="Pods become ready without processes")
    parser.add_argument("--images-map", default="", metavar="FILE")
    add_runtime(parser)
    parser.add_argument(
        "--write-cni", nargs=2, type=Path, metavar=("CONF_DIR", "BIN_DIR"),
        help="write what a container runtime needs to give its Pods our networks, and do nothing else: mostly into "
        "/etc/cni/net.d and /opt/cni/bin",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from kubesvc.node import NodeAgent, NodeSettings

    if args.write_cni is not None:
        return write_network(*args.write_cni)
    if not args.address:
        raise Failure("--address is missing: the addresses by which other nodes reach this one", status=64)
    if args.runtime is not None:
        print(f"kubesvc node: containers are made by {checked_runtime(args.runtime)}", file=sys.stderr)
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
        runtime_socket=args.runtime,
        own_network=False,
    )
    return run_part(args, "node", lambda client, clock, random: NodeAgent(client, settings, clock, random).run())


def write_network(conf_dir: Path, bin_dir: Path) -> int:
    """Write the CNI plugin and its configuration, and say what was written."""
    from kubesvc.node.cri.network import write_cni

    try:
        written = write_cni(conf_dir, bin_dir)
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}; next: as root, or other directories") from None
    for path in written:
        print(path)
    return 0
