"""Run a node agent alone, against any cluster: this machine, or this network namespace, becomes a node.

  kubesvc node --kubeconfig FILE --node NAME --address IP
  kubesvc node --bootstrap-kubeconfig JOIN --kubeconfig FILE --node NAME    get the node's own credentials first

With --bootstrap-kubeconfig, a key is made here and a certificate asked for; once it is approved and issued, FILE holds
the node's own kubeconfig, which is used from then on, and renewed in time. --with-proxy and --with-dns make the node
answer for Services and names too; `kubesvc join` does all of that.
"""

from __future__ import annotations

import argparse
import ipaddress
import platform
import sys
from pathlib import Path

from kubesvc.instance.paths import ALONE, state_home

from . import WRONG_USAGE, Failure
from .alone import add_part_arguments, run_part
from .flags import comma
from .runtimes import add_runtime, checked_runtime
from .target import find_target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_part_arguments(parser)
    parser.add_argument(
        "--bootstrap-kubeconfig", default="", metavar="FILE", help="what to ask with for what --kubeconfig will hold"
    )
    add_node_arguments(parser)
    parser.add_argument("--with-proxy", action="store_true", help="steer traffic to Services, and route to other Pods")
    parser.add_argument("--with-dns", action="store_true", help="answer for the cluster's names too")
    parser.add_argument("--simulated", action="store_true", help="Pods become ready without processes")
    parser.add_argument(
        "--write-cni", nargs=2, type=Path, metavar=("CONF_DIR", "BIN_DIR"),
        help="write what a container runtime needs to give its Pods our networks, and do nothing else: mostly into "
        "/etc/cni/net.d and /opt/cni/bin",
    )  # fmt: skip


def add_node_arguments(parser: argparse.ArgumentParser) -> None:
    """What a node is, whoever runs it."""
    parser.add_argument("--node", default="", metavar="NAME", help="name of the node (default: the host name)")
    parser.add_argument(
        "--address", type=comma, default=(), metavar="IP[,IP]",
        help="the node's own addresses (default: the one from which it reaches the API)",
    )  # fmt: skip
    parser.add_argument(
        "--cluster-dns",
        type=comma,
        default=(),
        metavar="IP",
        help="where Pods ask for names (default: as the cluster says)",
    )
    parser.add_argument(
        "--cluster-domain", default="", metavar="NAME", help="the zone of the cluster's names (default: cluster.local)"
    )
    parser.add_argument("--cluster-cidr", type=comma, default=(), metavar="CIDR[,CIDR]", help="all pods' addresses")
    parser.add_argument(
        "--zone", default="", metavar="ZONE", help="the node's topology.kubernetes.io/zone (default: none)"
    )
    parser.add_argument("--images-map", default="", metavar="FILE", help="image pattern to command (docs/images.md)")
    parser.add_argument(
        "--proxy-mode", choices=("auto", "nftables", "iptables", "userspace"), default="auto",
        help="how to steer packets (auto: the first of the others that works here)",
    )  # fmt: skip
    add_runtime(parser)


def run(args: argparse.Namespace) -> int:
    if args.bootstrap_kubeconfig or args.with_proxy or args.with_dns:
        from .joined import run_joined

        if not args.kubeconfig:
            raise Failure("--kubeconfig FILE says where the node's own credentials are, or will be", status=WRONG_USAGE)
        return run_joined(args)
    from kubesvc.lifetime import set_umask
    from kubesvc.node import NodeAgent, NodeSettings

    if args.write_cni is not None:
        return write_network(*args.write_cni)
    if not args.address:
        raise Failure(
            "--address is missing: where other nodes reach this one\n"
            "next: --address IP; with --bootstrap-kubeconfig it is found out",
            status=64,
        )
    for address in args.address:
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise Failure(f"--address: {error}", status=WRONG_USAGE) from None
    runtime = "" if args.runtime is None else checked_runtime(args.runtime)
    find_target(args)  # refuse before anything is made here
    if runtime:
        print(f"kubesvc node: containers are made by {runtime}", file=sys.stderr)
    set_umask()
    name = args.node or platform.node().lower()
    directory = state_home() / ALONE / name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = NodeSettings(
        node_name=name,
        state_dir=directory,
        node_addresses=args.address,
        cluster_dns=args.cluster_dns or ("10.96.0.10",),
        cluster_domain=args.cluster_domain or "cluster.local",
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
