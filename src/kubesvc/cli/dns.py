"""Run cluster DNS alone, against any cluster."""

from __future__ import annotations

import argparse

from . import Failure
from .alone import add_part_arguments, run_part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_part_arguments(parser)
    parser.add_argument("--address", default="127.0.0.1:5353", metavar="IP:PORT", help="where to answer")
    parser.add_argument("--cluster-domain", default="cluster.local", metavar="NAME")


def run(args: argparse.Namespace) -> int:
    from kubesvc.dns import DnsServer, DnsSettings

    host, colon, port = args.address.rpartition(":")
    if not colon or not port.isdigit():
        raise Failure(f"--address {args.address}: must be IP:PORT", status=64)
    settings = DnsSettings(zone=args.cluster_domain, addresses=((host.strip("[]"), int(port)),))
    return run_part(args, "dns", lambda client, clock, random: DnsServer(client, settings, clock, random).run())
