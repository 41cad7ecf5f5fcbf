"""Hosts outside the cluster, as namespaces on the network between the nodes.

  kubesvc outside add NAME --address CIDR[,CIDR] [-- COMMAND]   make one; COMMAND runs there until the host is removed
  kubesvc outside rm NAME                                       remove it, with all that runs there
  kubesvc outside exec NAME -- COMMAND                          run a command there
  kubesvc outside list                                          show them

Nodes and Pods reach such a host at its addresses, one of each family at most, and it reaches them, node ports and Pod
addresses alike.
"""

from __future__ import annotations

import argparse
import ipaddress
import re
import shutil

from kubesvc.instance import ground
from kubesvc.instance.options import second_address
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.record import InstanceRecord, OutsideRecord, end_processes, read_outside, write_outside
from kubesvc.instance.wiring import (
    API_ADDRESS,
    API_ADDRESS_6,
    FABRIC_ADDRESS,
    FABRIC_ADDRESS_6,
    NODE_NETWORK,
    NODE_NETWORK_6,
    Host,
    Reroute,
    Wiring,
)

from . import Failure
from .inside import exec_inside
from .target import add_instance, running

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,9}[a-z0-9])?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_instance(parser)
    parser.add_argument("action", choices=("add", "rm", "exec", "list"), help="as above")
    parser.add_argument("host", nargs="?", metavar="NAME", help="which host; not for list")
    parser.add_argument(
        "--address",
        metavar="CIDR[,CIDR]",
        help="the host's address with prefix length, 192.168.49.1/24; one of each family",
    )


TAKES_COMMAND = True


def run(args: argparse.Namespace) -> int:
    paths, record = running(args.name, args.kubeconfig)
    if record.fabric is None:
        raise Failure(
            "this instance has no nodes, so there is no network for hosts outside\nnext: kubesvc up --nodes 1"
        )
    command = args.command
    if args.action == "list":
        hosts = read_outside(paths.outside)
        for host in hosts:
            print(f"{host.name}  {','.join(host.addresses)}")
        if not hosts:
            print("no hosts outside; next: kubesvc outside add NAME --address 192.168.49.1/24")
        return 0
    if not args.host:
        raise Failure(f"outside {args.action} needs the NAME of a host", status=64)
    if args.action == "add":
        return add(paths, record, args.host, args.address, command)
    outside = next((o for o in read_outside(paths.outside) if o.name == args.host), None)
    if outside is None:
        raise Failure(f"no host outside is called {args.host!r}\nnext: kubesvc outside list")
    if args.action == "rm":
        return remove(paths, record, outside)
    if not command:
        raise Failure("outside exec needs a command after --", status=64)
    if outside.ground is None or not outside.ground.alive():
        raise Failure(f"the host {outside.name} is not running")
    exec_inside(paths, record, outside.ground, command)


def add(paths: InstancePaths, record: InstanceRecord, name: str, address: str | None, command: list[str]) -> int:
    if not NAME.fullmatch(name):
        raise Failure(f"{name!r}: a host's name is at most 11 lower-case letters, digits and '-'", status=64)
    hosts = read_outside(paths.outside)
    if name in {o.name for o in hosts} | {n.name for n in record.nodes}:
        raise Failure(f"{name!r} is taken\nnext: kubesvc outside rm {name}, or another name")
    interfaces = parse_addresses(name, address)
    for interface in interfaces:
        if clash := conflict(record, hosts, interface):
            such = "fd00:49::1/64" if interface.version == 6 else "192.168.49.1/24"
            raise Failure(f"--address {interface}: {clash}\nnext: an address of another network, such as {such}")
        if interface.version == 6 and not any(":" in cidr for cidr in record.cluster_cidrs):
            raise Failure(
                f"--address {interface}: the nodes of this instance have no IPv6 addresses\nnext: kubesvc up "
                "--cluster-cidr 10.244.0.0/16,fd00:244::/56 --service-cluster-ip-range 10.96.0.0/16,fd00:96::/112"
            )
    if command and shutil.which(command[0]) is None:
        raise Failure(f"{command[0]}: no such program")
    assert record.fabric is not None
    texts = [str(i) for i in interfaces]
    outside = OutsideRecord(name, texts[0], second="".join(texts[1:]))
    outside.ground = ground.spawn_host(paths.root, record.fabric, name)
    hosts.append(outside)
    write_outside(paths.outside, hosts)
    try:
        ground.wire(paths.root, record.fabric, plan_outside(record, outside))
    except ground.GroundFailed as error:
        remove(paths, record, outside)
        raise Failure(f"the host could not be connected: {error}") from error
    if command:
        log = paths.root / f"outside-{name}.log"
        outside.command = ground.spawn_inside(paths.root, record.fabric, outside.ground, command, log)
        write_outside(paths.outside, hosts)
    print(f"{name} is at {' and '.join(str(i.ip) for i in interfaces)}")
    return 0


def parse_addresses(name: str, text: str | None) -> list[Interface]:
    """One address or two of different families, each with its prefix length. Failure for anything else."""
    example = f"next: kubesvc outside add {name} --address 192.168.49.1/24"
    if not text:
        raise Failure(f"--address is missing\n{example}", status=64)
    found: list[Interface] = []
    for part in text.split(","):
        if "/" not in part:
            raise Failure(f"--address {part}: has no prefix length\n{example}", status=64)
        try:
            found.append(ipaddress.ip_interface(part))
        except ValueError as error:
            raise Failure(f"--address {part}: {error}", status=64) from error
    if len({i.version for i in found}) < len(found):
        raise Failure(f"--address {text}: must be one address, or one of each family\n{example}", status=64)
    return found


def conflict(record: InstanceRecord, hosts: list[OutsideRecord], interface: Interface) -> str:
    """Why a host outside cannot have this address, "" if it can."""
    for other in hosts:
        if interface.ip in [ipaddress.ip_interface(a).ip for a in other.addresses]:
            return f"the host {other.name} has it"
    for node in record.nodes:
        if str(interface.ip) in (node.address, second_address(node.address)):
            return f"node {node.name} has it"
        for pods in node.pod_cidrs:
            if interface.ip in ipaddress.ip_network(pods):
                return f"it lies among the Pods of node {node.name} ({pods})"
    for service_range in record.service_ranges:
        if interface.ip in ipaddress.ip_network(service_range):
            return f"it lies in the service range {service_range}"
    for pool in record.load_balancer_ranges:
        if interface.ip in ipaddress.ip_network(pool):
            return f"it lies in the load balancers' range {pool}"
    if str(interface.ip) in (FABRIC_ADDRESS, FABRIC_ADDRESS_6):
        return "the router between the nodes has it"
    if str(interface.ip) in (API_ADDRESS, API_ADDRESS_6):
        return "the API server has it"
    return ""


def plan_outside(record: InstanceRecord, outside: OutsideRecord) -> Wiring:
    """The host on the wire, and routes both ways, for each of its families: to each node's pods through the node, to
    load balancers' addresses through the router, from each node to the host."""
    assert outside.ground is not None
    routes: list[tuple[str, str]] = []
    for address in outside.addresses:
        six = ":" in address
        network, router = (NODE_NETWORK_6, FABRIC_ADDRESS_6) if six else (NODE_NETWORK, FABRIC_ADDRESS)
        if ipaddress.ip_interface(address).ip not in ipaddress.ip_network(network):
            routes.append((network, ""))
        for node in record.nodes:
            way = second_address(node.address) if six else node.address
            routes += [(pods, way) for pods in node.pod_cidrs if (":" in pods) is six]
        routes += [(pool, router) for pool in record.load_balancer_ranges if (":" in pool) is six]
    nodes = tuple(Reroute(n.ground.pid, ways_to(outside)) for n in record.nodes if n.ground is not None)
    return Wiring(
        connect=(Host(outside.ground.pid, outside.name, outside.addresses, routes=tuple(routes)),), reroute=nodes
    )


def ways_to(outside: OutsideRecord) -> tuple[tuple[str, str], ...]:
    """A node's routes to the host: its addresses, directly on the wire."""
    return tuple((str(ipaddress.ip_network(ipaddress.ip_interface(a).ip)), "") for a in outside.addresses)


def remove(paths: InstancePaths, record: InstanceRecord, outside: OutsideRecord) -> int:
    processes = [p for p in (outside.command, outside.ground) if p is not None]
    left = end_processes(processes)
    if left:
        raise Failure(f"processes of {outside.name} did not end: {', '.join(str(p.pid) for p in left)}")
    assert record.fabric is not None
    back = tuple(Reroute(n.ground.pid, ways_to(outside), remove=True) for n in record.nodes if n.ground is not None)
    ground.wire(paths.root, record.fabric, Wiring(disconnect=(outside.name,), reroute=back))
    write_outside(paths.outside, [o for o in read_outside(paths.outside) if o.name != outside.name])
    print(f"{outside.name} removed")
    return 0
