"""Hosts outside the cluster, as namespaces on the network between the nodes.

  kubesvc outside add NAME --address CIDR [-- COMMAND]   make one; COMMAND runs there until the host is removed
  kubesvc outside rm NAME                                remove it, with all that runs there
  kubesvc outside exec NAME -- COMMAND                   run a command there
  kubesvc outside list                                   show them

Nodes and Pods reach such a host at its address, and it reaches them, node ports and Pod addresses alike.
"""

from __future__ import annotations

import argparse
import ipaddress
import re
import shutil

from kubesvc.instance import ground
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.record import InstanceRecord, OutsideRecord, end_processes, read_outside, write_outside
from kubesvc.instance.wiring import API_ADDRESS, FABRIC_ADDRESS, NODE_NETWORK, Host, Reroute, Wiring

from . import Failure
from .inside import exec_inside
from .target import add_instance, running

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,9}[a-z0-9])?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_instance(parser)
    parser.add_argument("action", choices=("add", "rm", "exec", "list"), help="as above")
    parser.add_argument("host", nargs="?", metavar="NAME", help="which host; not for list")
    parser.add_argument("--address", metavar="CIDR", help="the host's address with prefix length, 192.168.49.1/24")


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
            print(f"{host.name}  {host.address}")
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
    if not address or "/" not in address:
        said = f"--address {address}: has no prefix length" if address else "--address is missing"
        raise Failure(f"{said}\nnext: kubesvc outside add {name} --address 192.168.49.1/24", status=64)
    try:
        interface = ipaddress.ip_interface(address)
    except ValueError as error:
        raise Failure(f"--address {address}: {error}", status=64) from error
    if clash := conflict(record, hosts, interface):
        raise Failure(f"--address {address}: {clash}\nnext: an address of another network, such as 192.168.49.1/24")
    if command and shutil.which(command[0]) is None:
        raise Failure(f"{command[0]}: no such program")
    assert record.fabric is not None
    outside = OutsideRecord(name, str(interface))
    outside.ground = ground.spawn_host(paths.root, record.fabric, name)
    hosts.append(outside)
    write_outside(paths.outside, hosts)
    try:
        ground.wire(paths.root, record.fabric, plan_outside(record, outside, interface))
    except ground.GroundFailed as error:
        remove(paths, record, outside)
        raise Failure(f"the host could not be connected: {error}") from error
    if command:
        log = paths.root / f"outside-{name}.log"
        outside.command = ground.spawn_inside(paths.root, record.fabric, outside.ground, command, log)
        write_outside(paths.outside, hosts)
    print(f"{name} is at {interface.ip}")
    return 0


def conflict(
    record: InstanceRecord,
    hosts: list[OutsideRecord],
    interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface,
) -> str:
    """Why a host outside cannot have this address, "" if it can."""
    for other in hosts:
        if ipaddress.ip_interface(other.address).ip == interface.ip:
            return f"the host {other.name} has it"
    for node in record.nodes:
        if str(interface.ip) == node.address:
            return f"node {node.name} has it"
        if node.pod_cidr and interface.ip in ipaddress.ip_network(node.pod_cidr):
            return f"it lies among the Pods of node {node.name} ({node.pod_cidr})"
    for service_range in record.service_ranges:
        if interface.ip in ipaddress.ip_network(service_range):
            return f"it lies in the service range {service_range}"
    for pool in record.load_balancer_ranges:
        if interface.ip in ipaddress.ip_network(pool):
            return f"it lies in the load balancers' range {pool}"
    if str(interface.ip) == FABRIC_ADDRESS:
        return "the router between the nodes has it"
    if str(interface.ip) == API_ADDRESS:
        return "the API server has it"
    return ""


def plan_outside(
    record: InstanceRecord, outside: OutsideRecord, interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface
) -> Wiring:
    """The host on the wire, and routes both ways: to each node's pods through the node, from each node to the host."""
    assert outside.ground is not None
    there = str(ipaddress.ip_network(interface.ip))
    routes = [(NODE_NETWORK, "")] if interface.ip not in ipaddress.ip_network(NODE_NETWORK) else []
    routes += [(n.pod_cidr, n.address) for n in record.nodes if n.pod_cidr]
    routes += [(network, FABRIC_ADDRESS) for network in record.load_balancer_ranges]
    nodes = tuple(Reroute(n.ground.pid, ((there, ""),)) for n in record.nodes if n.ground is not None)
    return Wiring(
        connect=(Host(outside.ground.pid, outside.name, (str(interface),), routes=tuple(routes)),), reroute=nodes
    )


def remove(paths: InstancePaths, record: InstanceRecord, outside: OutsideRecord) -> int:
    processes = [p for p in (outside.command, outside.ground) if p is not None]
    left = end_processes(processes)
    if left:
        raise Failure(f"processes of {outside.name} did not end: {', '.join(str(p.pid) for p in left)}")
    assert record.fabric is not None
    there = str(ipaddress.ip_network(ipaddress.ip_interface(outside.address).ip))
    back = tuple(Reroute(n.ground.pid, ((there, ""),), remove=True) for n in record.nodes if n.ground is not None)
    ground.wire(paths.root, record.fabric, Wiring(disconnect=(outside.name,), reroute=back))
    write_outside(paths.outside, [o for o in read_outside(paths.outside) if o.name != outside.name])
    print(f"{outside.name} removed")
    return 0
