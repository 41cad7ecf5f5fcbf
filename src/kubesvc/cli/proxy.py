"""Run the service proxy of one node alone, against any cluster, in this network namespace.

It writes the tables `ip kubesvc` and `ip6 kubesvc` and touches no other. It needs the right to change them (root, or a
namespace of your own). Rules stay when it ends, so that traffic goes on; --cleanup removes them.
"""

from __future__ import annotations

import argparse
import platform

from .alone import add_part_arguments, run_part
from .up import comma


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_part_arguments(parser)
    parser.add_argument("--node", default="", metavar="NAME", help="this node (default: the host name)")
    parser.add_argument("--cluster-cidr", type=comma, default=None, metavar="CIDR[,CIDR]", help="all pods' addresses")
    parser.add_argument("--cleanup", action="store_true", help="remove the tables at the end")


def run(args: argparse.Namespace) -> int:
    from kubesvc.client import Client
    from kubesvc.clock import Clock, Random
    from kubesvc.kernel.conntrack import KernelConntrack
    from kubesvc.kernel.nft import KernelNft
    from kubesvc.proxy import NftBackends, Proxy, ProxySettings

    node = args.node or platform.node().lower()
    settings = ProxySettings(cluster_cidrs=args.cluster_cidr or (), cleanup=args.cleanup, service_cidrs=())

    async def proxy(client: Client, clock: Clock, random: Random) -> None:
        backends = NftBackends(KernelNft())
        await Proxy(client, node, backends, clock, random, settings, conntrack=KernelConntrack()).run()

    return run_part(args, "proxy", proxy)
