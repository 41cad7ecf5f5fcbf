"""Connects the namespaces of an instance: a bridge between the nodes, their addresses, hosts outside, routes.

Runs as a program of its own (`python -m kubesvc.instance.wiring`), inside the user and network namespace of the
fabric, where it has the rights it needs and nothing of the host in reach. It reads one `Wiring` as JSON from standard
input, does it, and ends; on failure it prints one line and ends with 1.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from kubesvc.kernel import syscalls
from kubesvc.kernel.links import Links, NetlinkLinks, Route

BRIDGE = "nodes"
API_ADDRESS = "172.30.0.1"
NODE_NETWORK = "172.30.0.0/24"
FABRIC_ADDRESS = "172.30.0.254"
"""The fabric's own address on the bridge: the router that hosts outside use to load balancers' addresses."""
API_ADDRESS_6, NODE_NETWORK_6, FABRIC_ADDRESS_6 = "fd00:172:30::1", "fd00:172:30::/64", "fd00:172:30::254"
"""The same where nodes have IPv6 addresses."""
NO_SUCH_FAMILY = (errno.EACCES, errno.EOPNOTSUPP, errno.EAFNOSUPPORT)
"""What a kernel says of an IPv6 address when IPv6 is off: by the sysctl, or altogether."""


class Host(msgspec.Struct, frozen=True):
    """A namespace to connect: a node, or a host outside.

    pid:       a process in it, as seen from here
    name:      unique in the instance, at most 12 characters; names its port on the bridge
    addresses: of its `eth0`, each with prefix length
    local:     addresses that stand on its `lo`
    forward:   whether it passes packets on between its interfaces
    routes:    (network, gateway) pairs; gateway "" means directly on the wire
    """

    pid: int
    name: str
    addresses: tuple[str, ...]
    local: tuple[str, ...] = ()
    forward: bool = False
    routes: tuple[tuple[str, str], ...] = ()


class Reroute(msgspec.Struct, frozen=True):
    """Routes to add in (or, with `remove`, to take out of) a namespace that is connected already."""

    pid: int
    routes: tuple[tuple[str, str], ...]
    remove: bool = False


class Balanced(msgspec.Struct, frozen=True):
    """An address of a load balancer, and the nodes that take its traffic; without any it is unreachable."""

    address: str
    nodes: tuple[str, ...] = ()


class Wiring(msgspec.Struct, frozen=True):
    """What to do: make the bridge, connect hosts, disconnect ports by host name, change routes of hosts, and those of
    the fabric to load balancers' addresses; take the cable of a host out (`cut`) and put it in again (`join`).

    bridge: the router's addresses on the bridge, each with prefix length; () where there is a bridge already
    """

    bridge: tuple[str, ...] = ()
    connect: tuple[Host, ...] = ()
    disconnect: tuple[str, ...] = ()
    reroute: tuple[Reroute, ...] = ()
    balance: tuple[Balanced, ...] = ()
    cut: tuple[str, ...] = ()
    join: tuple[str, ...] = ()


def port_name(host: str) -> str:
    return f"to-{host}"


def mac_of(address: str) -> str:
    """The hardware address of whoever has this address, always the same: others remember it for a while, also when a
    node is started anew, or a host is removed and made again."""
    return f"02:{hashlib.sha256(address.encode()).digest()[:5].hex(':')}"


def apply_wiring(wiring: Wiring) -> None:
    """Do it; the calling thread must be in the fabric's network namespace and ends up in another."""
    fabric = NetlinkLinks()
    if wiring.bridge:
        fabric.set_up("lo")
        fabric.add_bridge(BRIDGE, mac=mac_of(FABRIC_ADDRESS))
        for address in wiring.bridge:
            give_router(fabric, address)
        fabric.set_up(BRIDGE)
        switch(ROUTER_SWITCHES)
    for balanced in wiring.balance:
        network = f"{balanced.address}/{ipaddress.ip_address(balanced.address).max_prefixlen}"
        if balanced.nodes:
            fabric.replace_route(Route(network, device=BRIDGE, hops=balanced.nodes))
        else:
            fabric.delete_route(Route(network, device=BRIDGE))
    for name in wiring.disconnect:
        fabric.delete_link(port_name(name))
    for name in wiring.cut:
        fabric.set_down(port_name(name))
    for name in wiring.join:
        fabric.set_up(port_name(name))
    for host in wiring.connect:
        namespace = os.open(f"/proc/{host.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        mac = mac_of(str(ipaddress.ip_interface(host.addresses[0]).ip))
        fabric.add_veth(port_name(host.name), "eth0", peer_namespace=namespace, peer_mac=mac)
        fabric.set_master(port_name(host.name), BRIDGE)
        fabric.set_up(port_name(host.name))
        syscalls.setns(namespace, syscalls.CLONE_NEWNET)
        os.close(namespace)
        settle(host)
    for change in wiring.reroute:
        namespace = os.open(f"/proc/{change.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        syscalls.setns(namespace, syscalls.CLONE_NEWNET)
        os.close(namespace)
        links = NetlinkLinks()
        for network, gateway in change.routes:
            if change.remove:
                links.delete_route(route(network, gateway))
            else:
                links.replace_route(route(network, gateway))
        links.close()
    fabric.close()


def give_router(fabric: Links, address: str) -> None:
    """Give the router an address. OSError says so if this kernel has no IPv6: no address of an instance comes first."""
    try:
        fabric.add_address(BRIDGE, address)
    except OSError as error:
        if ":" not in address or error.errno not in NO_SUCH_FAMILY:
            raise
        said = f"IPv6 is off in this kernel ({error.strerror}); turn it on, or leave IPv6 out of --cluster-cidr"
        raise OSError(error.errno, said) from error


def api_addresses(*, six: bool) -> tuple[str, ...]:
    """Where the API answers in each node; six: whether nodes have IPv6 addresses."""
    return (API_ADDRESS, API_ADDRESS_6) if six else (API_ADDRESS,)


def router_addresses(*, six: bool) -> tuple[str, ...]:
    """The router's addresses on the bridge, for `Wiring.bridge`; six: whether nodes have IPv6 addresses."""
    return (f"{FABRIC_ADDRESS}/24", f"{FABRIC_ADDRESS_6}/64") if six else (f"{FABRIC_ADDRESS}/24",)


def route(network: str, gateway: str) -> Route:
    return Route(network, gateway=gateway, device="eth0", onlink=bool(gateway))


def settle(host: Host) -> None:
    """Addresses, routes and forwarding of one host, from within its network namespace."""
    links = NetlinkLinks()
    links.set_up("lo")
    for address in host.local:
        links.add_address("lo", f"{address}/{ipaddress.ip_address(address).max_prefixlen}")
    for address in host.addresses:
        links.add_address("eth0", address)
    links.set_up("eth0")
    for network, gateway in host.routes:
        links.replace_route(route(network, gateway))
    links.close()
    if host.forward:
        switch(SWITCHES)


def switch(switches: Iterable[tuple[str, int]]) -> None:
    """Set kernel parameters of this network namespace, each below net; one that this kernel has not is left out."""
    for name, value in switches:
        path = Path("/proc/sys/net") / name  # of this namespace: a process sees its own network's settings
        if path.exists():
            path.write_text(f"{value}\n")


SWITCHES = (
    ("ipv4/ip_forward", 1),
    ("ipv6/conf/all/forwarding", 1),
    # A node sends hairpins back where they came from on purpose; telling the Pod of a shorter way would only use up
    # the kernel's allowance of ICMP, which refusals of UDP need.
    ("ipv4/conf/all/send_redirects", 0),
    ("ipv4/conf/default/send_redirects", 0),
)
ROUTER_SWITCHES = (
    ("ipv4/ip_forward", 1),
    ("ipv6/conf/all/forwarding", 1),
    ("ipv4/fib_multipath_hash_policy", 1),  # by flow, not by client, as balancers do
    ("ipv6/fib_multipath_hash_policy", 1),
    # A host outside shall keep asking the router, which knows the nodes that answer now. (For IPv6 there is no such
    # switch, and no need: a redirect names a link-local address, and the nodes are routed to by others.)
    ("ipv4/conf/all/send_redirects", 0),
    (f"ipv4/conf/{BRIDGE}/send_redirects", 0),
    # The router knows no way back to hosts outside: nodes answer them directly.
    ("ipv4/conf/all/rp_filter", 0),
    (f"ipv4/conf/{BRIDGE}/rp_filter", 0),
)


def main() -> int:
    wiring = msgspec.json.decode(sys.stdin.buffer.read(), type=Wiring)
    try:
        apply_wiring(wiring)
    except OSError as error:
        print(f"connecting the nodes failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
