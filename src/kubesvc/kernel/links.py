"""Interfaces, addresses, routes and neighbours of one network namespace, by route netlink.

The door is `Links`; `NetlinkLinks` is the kernel's, `FakeLinks` one without a kernel that refuses the same things.
Names address interfaces. Addresses and destinations are texts: "10.244.1.7/32", "fe80::1/64", "default".
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from . import netlink
from .netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NetlinkError, NetlinkSocket

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_BR_MCAST_SNOOPING = 23
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_MULTIPATH, RTA_VIA = 1, 4, 5, 7, 9, 18
NDA_DST, NDA_LLADDR = 1, 2
NUD_PERMANENT = 0x80
IFF_UP = 0x1

RT_TABLE_MAIN = 254
RTPROT_STATIC = 4
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTN_UNICAST, RTN_LOCAL, RTN_UNREACHABLE = 1, 2, 7
RTNH_F_ONLINK = 4

IFINFO = struct.Struct("=BxHiII")
IFADDR = struct.Struct("=BBBBI")
RTMSG = struct.Struct("=BBBBBBBBI")
RTNEXTHOP = struct.Struct("=HBBi")
NDMSG = struct.Struct("=BxxxiHBB")

NAME_BYTES = 15
"""Longest name of an interface."""


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as it is: `master` is the index of its bridge (0: none), `mac` is "" where there is none."""

    name: str
    index: int
    kind: str
    up: bool
    mtu: int
    mac: str
    master: int


@dataclass(frozen=True, slots=True)
class Route:
    """A way to `destination` ("10.244.2.0/24", "default" and "default6" for all IPv4 and IPv6).

    gateway:   through which router, "" for a neighbour on the link
    device:    name of the interface, "" where the gateway decides
    source:    address that packets of this machine bear on this way, "" for the kernel's choice
    onlink:    believe that the gateway is on the link though no address says so
    hops:      several routers that share the traffic, flow by flow, in place of one gateway
    """

    destination: str
    gateway: str = ""
    device: str = ""
    source: str = ""
    onlink: bool = False
    hops: tuple[str, ...] = ()


class Links(Protocol):
    """One namespace's interfaces. Methods are short and never wait. OSError with the kernel's errno on refusal:
    EEXIST, ENODEV (no such interface), ESRCH (no such route), EADDRNOTAVAIL, EINVAL."""

    def links(self) -> list[Link]: ...

    def link(self, name: str) -> Link | None: ...

    def add_bridge(self, name: str, *, mac: str = "") -> None:
        """A bridge without an address of its own takes the lowest of its ports', and changes it when they do."""
        ...

    def add_dummy(self, name: str) -> None: ...

    def add_veth(
        self,
        name: str,
        peer: str,
        *,
        peer_namespace: int | None = None,
        mtu: int = 0,
        mac: str = "",
        peer_mac: str = "",
    ) -> None:
        """A pair of interfaces; `peer` is born in the namespace behind the descriptor `peer_namespace`, if given."""
        ...

    def delete_link(self, name: str) -> bool:
        """Whether there was one."""
        ...

    def set_up(self, name: str) -> None: ...

    def set_down(self, name: str) -> None: ...

    def set_master(self, name: str, bridge: str) -> None: ...

    def set_mtu(self, name: str, mtu: int) -> None: ...

    def move(self, name: str, namespace: int) -> None:
        """Move an interface to the namespace behind a descriptor."""
        ...

    def addresses(self, name: str) -> list[str]: ...

    def add_address(self, name: str, address: str) -> None:
        """Give the interface an address with its prefix length; it may have it already. IPv6 without waiting for
        duplicate detection."""
        ...

    def delete_address(self, name: str, address: str) -> bool: ...

    def routes(self, family: int = socket.AF_INET) -> list[Route]:
        """Unicast routes of the main table, sorted by destination."""
        ...

    def replace_route(self, route: Route) -> None: ...

    def delete_route(self, route: Route) -> bool: ...

    def replace_neighbour(self, device: str, address: str, mac: str) -> None:
        """Know for good which hardware address answers for `address`."""
        ...

    def close(self) -> None: ...


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def parse_destination(destination: str) -> tuple[int, bytes, int]:
    """(family, address bytes, prefix length); ValueError if it is no network."""
    if destination == "default":
        return socket.AF_INET, b"", 0
    if destination == "default6":
        return socket.AF_INET6, b"", 0
    network = ipaddress.ip_network(destination)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return family, network.network_address.packed, network.prefixlen


def parse_address(address: str) -> tuple[int, bytes, int]:
    """(family, address bytes, prefix length) of an interface's address; a bare address is a host's."""
    parsed = ipaddress.ip_interface(address)
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    return family, parsed.ip.packed, parsed.network.prefixlen


def check_name(name: str) -> None:
    if not 0 < len(name.encode()) <= NAME_BYTES or "/" in name or name in (".", ".."):
        raise ValueError(f"interface name {name!r}: must be 1 to {NAME_BYTES} bytes without '/'")


class NetlinkLinks:
    """The kernel's. Belongs to the network namespace of the thread that makes it, for as long as it lives."""

    def __init__(self) -> None:
        self.socket = NetlinkSocket(netlink.NETLINK_ROUTE, buffer_bytes=1 << 16)
        self.indexes: dict[str, int] = {}

    def close(self) -> None:
        self.socket.close()

    def index(self, name: str) -> int:
        found = self.link(name)
        if found is None:
            raise NetlinkError(errno.ENODEV, f"interface {name}")
        return found.index

    def request(self, what: str, kind: int, payload: bytes, flags: int = 0) -> list[netlink.Message]:
        try:
            return self.socket.request(kind, payload, flags)
        except NetlinkError as error:
            raise error.about(what) from None

    def removed(self, what: str, kind: int, payload: bytes, *absent: int) -> bool:
        """Ask for a removal; False where the kernel says that there was nothing to remove."""
        try:
            self.request(what, kind, payload)
        except NetlinkError as error:
            if error.errno in absent:
                return False
            raise
        return True

    # -- interfaces -------------------------------------------------------------------------------------------------

    def links(self) -> list[Link]:
        found = self.socket.dump(RTM_GETLINK, IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0)).messages
        return [decode_link(m.payload) for m in found if m.type == RTM_NEWLINK]

    def link(self, name: str) -> Link | None:
        payload = IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + netlink.text(IFLA_IFNAME, name)
        try:
            found = self.socket.request(RTM_GETLINK, payload)
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return None
            raise error.about(f"interface {name}") from None
        return decode_link(found[0].payload) if found else None

    def add(self, name: str, kind: str, data: bytes = b"", extra: bytes = b"") -> None:
        check_name(name)
        info = netlink.text(IFLA_INFO_KIND, kind)
        if data:
            info += netlink.nested(IFLA_INFO_DATA, data)
        payload = (
            IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            + netlink.text(IFLA_IFNAME, name)
            + extra
            + netlink.nested(IFLA_LINKINFO, info)
        )
        self.request(f"add {kind} {name}", RTM_NEWLINK, payload, NLM_F_CREATE | NLM_F_EXCL)

    def add_bridge(self, name: str, *, mac: str = "") -> None:
        # Without snooping, a bridge passes neighbour discovery on from its first moment.
        extra = netlink.attribute(IFLA_ADDRESS, mac_bytes(mac)) if mac else b""
        self.add(name, "bridge", netlink.u8(IFLA_BR_MCAST_SNOOPING, 0), extra)

    def add_dummy(self, name: str) -> None:
        self.add(name, "dummy")

    def add_veth(
        self,
        name: str,
        peer: str,
        *,
        peer_namespace: int | None = None,
        mtu: int = 0,
        mac: str = "",
        peer_mac: str = "",
    ) -> None:
        check_name(peer)
        other = IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + netlink.text(IFLA_IFNAME, peer)
        extra = b""
        if mtu:
            extra += netlink.u32(IFLA_MTU, mtu)
            other += netlink.u32(IFLA_MTU, mtu)
        if mac:
            extra += netlink.attribute(IFLA_ADDRESS, mac_bytes(mac))
        if peer_mac:
            other += netlink.attribute(IFLA_ADDRESS, mac_bytes(peer_mac))
        if peer_namespace is not None:
            other += netlink.u32(IFLA_NET_NS_FD, peer_namespace)
        self.add(name, "veth", netlink.nested(VETH_INFO_PEER, other), extra)

    def delete_link(self, name: str) -> bool:
        payload = IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + netlink.text(IFLA_IFNAME, name)
        return self.removed(f"delete interface {name}", RTM_DELLINK, payload, errno.ENODEV)

    def change(self, what: str, name: str, flags: int = 0, attributes: bytes = b"", mask: int = 0) -> None:
        payload = IFINFO.pack(socket.AF_UNSPEC, 0, self.index(name), flags, mask or flags) + attributes
        self.request(f"{what} {name}", RTM_NEWLINK, payload)

    def set_up(self, name: str) -> None:
        self.change("set up", name, IFF_UP)

    def set_down(self, name: str) -> None:
        self.change("set down", name, 0, mask=IFF_UP)

    def set_master(self, name: str, bridge: str) -> None:
        self.change(f"put on {bridge}", name, 0, netlink.u32(IFLA_MASTER, self.index(bridge)))

    def set_mtu(self, name: str, mtu: int) -> None:
        self.change(f"mtu {mtu}", name, 0, netlink.u32(IFLA_MTU, mtu))

    def move(self, name: str, namespace: int) -> None:
        self.change("move", name, 0, netlink.u32(IFLA_NET_NS_FD, namespace))

    # -- addresses --------------------------------------------------------------------------------------------------

    def addresses(self, name: str) -> list[str]:
        index = self.index(name)
        found: list[str] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for m in self.socket.dump(RTM_GETADDR, IFADDR.pack(family, 0, 0, 0, 0)).messages:
                _, prefix, _, _, on = IFADDR.unpack_from(m.payload)
                data = netlink.attribute_map(m.payload, IFADDR.size)
                raw = data.get(IFA_LOCAL) or data.get(IFA_ADDRESS)
                if on == index and raw:
                    found.append(f"{ipaddress.ip_address(raw)}/{prefix}")
        return found

    def address_payload(self, name: str, address: str) -> bytes:
        family, raw, prefix = parse_address(address)
        # What stands on lo is answered for, but never chosen as the source of what leaves by another interface.
        scope = RT_SCOPE_LINK if name == "lo" else RT_SCOPE_UNIVERSE
        payload = IFADDR.pack(family, prefix, 0, scope, self.index(name))
        payload += netlink.attribute(IFA_LOCAL, raw) + netlink.attribute(IFA_ADDRESS, raw)
        if family == socket.AF_INET6:
            payload += netlink.u32(IFA_FLAGS, IFA_F_NODAD)
        return payload

    def add_address(self, name: str, address: str) -> None:
        payload = self.address_payload(name, address)
        self.request(f"address {address} on {name}", RTM_NEWADDR, payload, NLM_F_CREATE | NLM_F_REPLACE)

    def delete_address(self, name: str, address: str) -> bool:
        payload = self.address_payload(name, address)
        return self.removed(f"delete {address} on {name}", RTM_DELADDR, payload, errno.EADDRNOTAVAIL)

    # -- routes and neighbours --------------------------------------------------------------------------------------

    def routes(self, family: int = socket.AF_INET) -> list[Route]:
        names = {link.index: link.name for link in self.links()}
        found = []
        for m in self.socket.dump(RTM_GETROUTE, RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)).messages:
            _, prefix, _, _, table, _, _, kind, flags = RTMSG.unpack_from(m.payload)
            if table != RT_TABLE_MAIN or kind != RTN_UNICAST:
                continue
            data = netlink.attribute_map(m.payload, RTMSG.size)
            everything = "default" if family == socket.AF_INET else "default6"
            found.append(
                Route(
                    f"{ipaddress.ip_address(data[RTA_DST])}/{prefix}" if RTA_DST in data else everything,
                    str(ipaddress.ip_address(data[RTA_GATEWAY])) if RTA_GATEWAY in data else "",
                    names.get(netlink.U32.unpack(data[RTA_OIF])[0], "") if RTA_OIF in data else "",
                    str(ipaddress.ip_address(data[RTA_PREFSRC])) if RTA_PREFSRC in data else "",
                    bool(flags & RTNH_F_ONLINK),
                )
            )
        return sorted(found, key=lambda r: r.destination)

    def route_payload(self, route: Route) -> bytes:
        family, raw, prefix = parse_destination(route.destination)
        routed = route.gateway or route.hops or family == socket.AF_INET6
        scope = RT_SCOPE_UNIVERSE if routed else RT_SCOPE_LINK
        flags = RTNH_F_ONLINK if route.onlink else 0
        payload = RTMSG.pack(family, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, flags)
        if raw:
            payload += netlink.attribute(RTA_DST, raw)
        if route.gateway:
            payload += netlink.attribute(RTA_GATEWAY, ipaddress.ip_address(route.gateway).packed)
        if route.hops:
            payload += netlink.attribute(RTA_MULTIPATH, self.hops_payload(route))
        elif route.device:
            payload += netlink.u32(RTA_OIF, self.index(route.device))
        if route.source:
            payload += netlink.attribute(RTA_PREFSRC, ipaddress.ip_address(route.source).packed)
        return payload

    def hops_payload(self, route: Route) -> bytes:
        """Each hop is a header (length, flags, weight less one, interface) and its own gateway."""
        index, found = self.index(route.device), b""
        for hop in route.hops:
            gateway = netlink.attribute(RTA_GATEWAY, ipaddress.ip_address(hop).packed)
            flags = RTNH_F_ONLINK if route.onlink else 0
            found += RTNEXTHOP.pack(RTNEXTHOP.size + len(gateway), flags, 0, index) + gateway
        return found

    def replace_route(self, route: Route) -> None:
        payload = self.route_payload(route)
        self.request(f"route to {route.destination}", RTM_NEWROUTE, payload, NLM_F_CREATE | NLM_F_REPLACE)

    def delete_route(self, route: Route) -> bool:
        try:
            payload = self.route_payload(route)
        except NetlinkError:
            return False  # its interface is gone, and the route with it
        return self.removed(f"delete route to {route.destination}", RTM_DELROUTE, payload, errno.ESRCH)

    def replace_neighbour(self, device: str, address: str, mac: str) -> None:
        parsed = ipaddress.ip_address(address)
        family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
        payload = NDMSG.pack(family, self.index(device), NUD_PERMANENT, 0, 0)
        payload += netlink.attribute(NDA_DST, parsed.packed) + netlink.attribute(NDA_LLADDR, mac_bytes(mac))
        self.request(f"neighbour {address} on {device}", RTM_NEWNEIGH, payload, NLM_F_CREATE | NLM_F_REPLACE)


@netlink.strict
def decode_link(payload: bytes) -> Link:
    _, _, index, flags, _ = IFINFO.unpack_from(payload)
    data = netlink.attribute_map(payload, IFINFO.size)
    info = netlink.attribute_map(data[IFLA_LINKINFO]) if IFLA_LINKINFO in data else {}
    raw = data.get(IFLA_ADDRESS, b"")
    return Link(
        name=netlink.name_of(data[IFLA_IFNAME]),
        index=index,
        kind=netlink.name_of(info[IFLA_INFO_KIND]) if IFLA_INFO_KIND in info else "",
        up=bool(flags & IFF_UP),
        mtu=netlink.U32.unpack(data[IFLA_MTU])[0] if IFLA_MTU in data else 0,
        mac=raw.hex(":") if len(raw) == 6 else "",
        master=netlink.U32.unpack(data[IFLA_MASTER])[0] if IFLA_MASTER in data else 0,
    )


class FakeLinks:
    """Interfaces without a kernel. Namespaces are named by descriptors as numbers; `worlds` maps each to its fake,
    so that the far end of a pair appears where it was sent."""

    def __init__(self, worlds: dict[int, FakeLinks] | None = None) -> None:
        self.worlds = {} if worlds is None else worlds
        self.table: dict[str, Link] = {"lo": Link("lo", 1, "", False, 65536, "00:00:00:00:00:00", 0)}
        self.held: dict[str, list[str]] = {"lo": []}
        self.peers: dict[str, tuple[FakeLinks, str]] = {}
        self.way: dict[str, Route] = {}
        self.neighbours: dict[tuple[str, str], str] = {}
        self.last = 1

    def close(self) -> None:
        pass

    def known(self, name: str) -> Link:
        if name not in self.table:
            raise NetlinkError(errno.ENODEV, f"interface {name}")
        return self.table[name]

    def links(self) -> list[Link]:
        return list(self.table.values())

    def link(self, name: str) -> Link | None:
        return self.table.get(name)

    def born(self, name: str, kind: str, mtu: int = 0, mac: str = "") -> None:
        check_name(name)
        if name in self.table:
            raise NetlinkError(errno.EEXIST, f"add {kind} {name}")
        self.last += 1
        self.table[name] = Link(name, self.last, kind, False, mtu or 1500, mac or f"02:00:00:00:00:{self.last:02x}", 0)
        self.held[name] = []

    def add_bridge(self, name: str, *, mac: str = "") -> None:
        self.born(name, "bridge", mac=mac)

    def add_dummy(self, name: str) -> None:
        self.born(name, "dummy")

    def add_veth(
        self,
        name: str,
        peer: str,
        *,
        peer_namespace: int | None = None,
        mtu: int = 0,
        mac: str = "",
        peer_mac: str = "",
    ) -> None:
        other = self if peer_namespace is None else self.worlds.get(peer_namespace)
        if other is None:
            raise NetlinkError(errno.EINVAL, f"add veth {name}")
        if peer in other.table:
            raise NetlinkError(errno.EEXIST, f"add veth {peer}")
        self.born(name, "veth", mtu, mac)
        other.born(peer, "veth", mtu, peer_mac)
        self.peers[name] = (other, peer)
        other.peers[peer] = (self, name)

    def delete_link(self, name: str) -> bool:
        if name not in self.table:
            return False
        del self.table[name], self.held[name]
        self.way = {d: r for d, r in self.way.items() if r.device != name}
        self.neighbours = {k: m for k, m in self.neighbours.items() if k[0] != name}
        if name in self.peers:
            other, peer = self.peers.pop(name)
            other.delete_link(peer)
        return True

    def set_up(self, name: str) -> None:
        self.table[name] = replace(self.known(name), up=True)

    def set_down(self, name: str) -> None:
        self.table[name] = replace(self.known(name), up=False)

    def set_master(self, name: str, bridge: str) -> None:
        self.table[name] = replace(self.known(name), master=self.known(bridge).index)

    def set_mtu(self, name: str, mtu: int) -> None:
        self.table[name] = replace(self.known(name), mtu=mtu)

    def move(self, name: str, namespace: int) -> None:
        link, other = self.known(name), self.worlds.get(namespace)
        if other is None:
            raise NetlinkError(errno.EINVAL, f"move {name}")
        if name in other.table:
            raise NetlinkError(errno.EEXIST, f"move {name}")
        peer = self.peers.pop(name, None)
        self.delete_link(name)
        other.born(name, link.kind, link.mtu, link.mac)
        if peer:
            other.peers[name] = peer
            peer[0].peers[peer[1]] = (other, name)

    def addresses(self, name: str) -> list[str]:
        self.known(name)
        return list(self.held[name])

    def add_address(self, name: str, address: str) -> None:
        self.known(name)
        text = str(ipaddress.ip_interface(address))
        if text not in self.held[name]:
            self.held[name].append(text)

    def delete_address(self, name: str, address: str) -> bool:
        self.known(name)
        text = str(ipaddress.ip_interface(address))
        if text not in self.held[name]:
            return False
        self.held[name].remove(text)
        return True

    def routes(self, family: int = socket.AF_INET) -> list[Route]:
        found = [r for r in self.way.values() if parse_destination(r.destination)[0] == family]
        return sorted(found, key=lambda r: r.destination)

    def replace_route(self, route: Route) -> None:
        parse_destination(route.destination)
        if route.device and not self.known(route.device).up:
            raise NetlinkError(errno.ENETDOWN, f"route to {route.destination}")
        self.way[route.destination] = route

    def delete_route(self, route: Route) -> bool:
        return self.way.pop(route.destination, None) is not None

    def replace_neighbour(self, device: str, address: str, mac: str) -> None:
        self.known(device)
        self.neighbours[device, str(ipaddress.ip_address(address))] = mac


def write_sysctls(settings: Sequence[tuple[str, str]]) -> None:
    """Set kernel parameters of the calling thread's own network namespace, each (path below /proc/sys, value).

    OSError if one cannot be written and has not the value already.
    """
    for path, value in settings:
        place = f"/proc/sys/{path}"
        with open(place, encoding="ascii") as file:
            if file.read().strip() == value:
                continue
        fd = os.open(place, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
