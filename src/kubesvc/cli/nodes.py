"""List the nodes of an instance, and let them fail as machines do.

  kubesvc nodes                  list them
  kubesvc nodes stop n2          take its power: all that runs there is gone at once
  kubesvc nodes start n2         give it power again: it boots and takes up its Pods
  kubesvc nodes partition n2     cut it off from the other nodes and from the API; what runs there goes on
  kubesvc nodes heal n2          connect it again

The cluster learns of it as it would in a data centre: heartbeats stop, the node turns NotReady, its Pods leave the
endpoint lists, and later they are evicted.
"""

from __future__ import annotations

import argparse
import json

from kubesvc.instance.control import ControlFailed, Order, give_order

from . import WRONG_USAGE, Failure
from .target import add_instance, running

DEEDS = ("stop", "start", "partition", "heal")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_instance(parser)
    parser.add_argument("action", nargs="?", choices=("list", *DEEDS), default="list", help="as above (default: list)")
    parser.add_argument("node", nargs="?", metavar="NODE", help="which; not for list")
    parser.add_argument("--json", action="store_true", help="list them for programs")


def run(args: argparse.Namespace) -> int:
    paths, record = running(args.name, args.kubeconfig)
    if args.action == "list":
        facts = [
            {"name": n.name, "state": n.state, "address": n.address, "zone": n.zone, "simulated": n.simulated}
            for n in record.nodes
        ]
        if args.json:
            print(json.dumps(facts, indent=2))
            return 0
        for node in record.nodes:
            more = (f"  zone {node.zone}" if node.zone else "") + ("  simulated" if node.simulated else "")
            print(f"{node.name:<6} {node.state:<12} {node.address}{more}")
        if not facts:
            print("this instance has no nodes")
        return 0
    if not args.node:
        raise Failure(f"nodes {args.action} needs the NODE\nnext: kubesvc nodes", status=WRONG_USAGE)
    try:
        print(give_order(paths.control_socket, Order(f"node.{args.action}", args.node)))
    except ControlFailed as error:
        raise Failure(str(error)) from error
    return 0
