"""The part of the rules that does not depend on Services: hooks, shared chains and empty maps, one table per family.

One chain serves all service ports with the same number of endpoints, so that Services are elements of maps and a
change of endpoints writes a few elements and no rule:

    services            addr . proto . port              : goto n10              a front and how many endpoints it has
    endpoints           addr . proto . port . number     : addr . port           the endpoints, numbered
    chain n10           dnat to addr . proto . port . numgen random mod 10 map @endpoints

A *front* is an address, protocol and port where a service port is reached: its ClusterIP, its external and load
balancer addresses, and its node port at each node address. Local lists have a map and chains of their own
(`endpoints-local`, l1, l2, …).

Two costs in the kernel decide how many such chains there are. A rule that starts to use a filled map costs a look at
every element, so the common chains exist from the start; and each new element costs a look at every rule that uses
its map (512 rules: 8.6 us an element, 64 rules: under 2), so they are few. Longer lists live in maps of their own
(`endpoints-large`), whose chains come and go with the lengths in use.

A third cost is borne: another count of endpoints is another verdict in `services`, and the kernel then looks at all
verdicts of that map (1 ms at 10,000 fronts, 5 to 10 ms at 50,000). A map from fronts to numbers, looked up in turn in a
small map of verdicts, would cost 0.04 ms at any size; but nft's language has no such rule, so that `nft list ruleset`
aborts on it, and a saved ruleset could not be loaded again. Two rules could do it only by way of the packet's mark,
which is not ours.

Packets are refused or dropped in filter hooks, where upstream does it too (PROXY-38 to 43, 51); their fronts are not
translated, so they still arrive there with the front's address.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from dataclasses import dataclass, field

import msgspec

from kubesvc.kernel.nft import Base, ChainSpec, SetSpec, Table
from kubesvc.kernel.nft import expressions as x
from kubesvc.kernel.nft import fields as f
from kubesvc.kernel.nft.expressions import Rule
from kubesvc.kernel.nft.table import FORWARD, INPUT, NFPROTO_IPV4, NFPROTO_IPV6, OUTPUT, POSTROUTING, PREROUTING

from .traffic import Family

MOST_SHARED = 64
"""Longest list whose chain exists from the start."""
COMMENT = "Services of this node, written by kubesvc"
REMEMBERED_PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
LONGEST_RECORD_MS = 86_400_000

SERVICES, ENDPOINTS = "services", "endpoints"
SERVICES_CLUSTER, SERVICES_LOCAL = "services-cluster", "services-local"
CLUSTER_IPS, HAIRPIN, NO_ENDPOINTS = "cluster-ips", "hairpin", "no-endpoints"
FILTERED, ALLOWED = "filtered", "allowed"

REFUSE, EXTERNAL, EXTERNAL_LOCAL = "refuse", "external", "external-local"
FIREWALL, CLUSTER_IPS_CHECK, ENDPOINTS_CHECK = "firewall", "cluster-ips-check", "endpoints-check"
DISPATCH, MASQUERADING, REMEMBER = "dispatch", "masquerading", "remember"

DSTNAT, SRCNAT, BEFORE_DSTNAT = -100, 100, -110


class FrameOptions(msgspec.Struct, frozen=True):
    """What the frame depends on.

    pod_cidr, pod_interface: how to tell that a packet comes from a pod (PROXY-52); with neither nobody can tell
    service_cidrs:           ranges whose unowned addresses are dropped (PROXY-42); others than the family's are skipped
    """

    family: Family = "IPv4"
    table: str = "kubesvc"
    pod_cidr: str = ""
    pod_interface: str = ""
    masquerade_all: bool = False
    masquerade_bit: int = 14
    service_cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one address family: where addresses stand in headers and registers."""

    family: Family
    nfproto: int = field(init=False)
    address: f.Field = field(init=False)

    def __post_init__(self) -> None:
        ip6 = self.family == "IPv6"
        object.__setattr__(self, "nfproto", NFPROTO_IPV6 if ip6 else NFPROTO_IPV4)
        object.__setattr__(self, "address", f.IPV6_ADDRESS if ip6 else f.IPV4_ADDRESS)

    @property
    def width(self) -> int:
        return self.address.size_bytes

    @property
    def after(self) -> int:
        """How many 4-byte registers an address takes."""
        return self.width // 4

    @property
    def front(self) -> tuple[f.Field, ...]:
        return (self.address, f.PROTOCOL, f.PORT)

    @property
    def target(self) -> tuple[f.Field, ...]:
        return (self.address, f.PORT)

    def source(self, piece: int = 0) -> x.Expression:
        return x.Payload(x.NETWORK, 8 if self.width == 16 else 12, self.width, x.piece(piece))

    def destination(self, piece: int = 0) -> x.Expression:
        return x.Payload(x.NETWORK, 24 if self.width == 16 else 16, self.width, x.piece(piece))

    def load_front(self) -> Rule:
        """destination . protocol . destination port, from the first register on."""
        n = self.after
        return (self.destination(), x.Meta(x.META_L4PROTO, x.piece(n)), destination_port(n + 1))

    def original_source(self, piece: int = 0) -> x.Expression:
        return x.Ct(x.CT_SRC_IP6 if self.width == 16 else x.CT_SRC_IP, x.piece(piece), x.ORIGINAL)

    def original_destination(self) -> x.Expression:
        return x.Ct(x.CT_DST_IP6 if self.width == 16 else x.CT_DST_IP, x.R1, x.ORIGINAL)

    def within(self, network: str, load: x.Expression, *, negated: bool = False) -> Rule:
        """Match if the loaded address lies in the network, or with `negated` if it does not."""
        net = ipaddress.ip_network(network, strict=False)
        mask = () if net.prefixlen == net.max_prefixlen else (x.Bitwise(net.netmask.packed, bytes(self.width)),)
        return (load, *mask, x.Cmp(x.NEQ if negated else x.EQ, net.network_address.packed))

    def nat_to_found(self) -> x.Expression:
        """Translate to the address and port that a lookup left in the first registers."""
        return x.Nat(x.DNAT, socket.AF_INET6 if self.width == 16 else socket.AF_INET, x.R1, x.piece(self.after))


def destination_port(piece: int) -> x.Expression:
    return x.Payload(x.TRANSPORT, 2, 2, x.piece(piece))


def is_protocol(number: int) -> Rule:
    return (x.Meta(x.META_L4PROTO, x.R1), x.Cmp(x.EQ, bytes((number,))))


def host_u32(value: int) -> bytes:
    """A number as registers hold it: in the machine's order."""
    return value.to_bytes(4, sys.byteorder)


NONE, ALL = host_u32(0), host_u32(0xFFFFFFFF)
LOAD_MARK = x.Meta(x.META_MARK, x.R1)
STORE_MARK = x.Meta(x.META_MARK, x.R1, set=True)


def set_mark(bit: int) -> Rule:
    """Set one bit of the packet's mark."""
    return (LOAD_MARK, x.Bitwise(host_u32(0xFFFFFFFF ^ 1 << bit), host_u32(1 << bit)), STORE_MARK)


def has_mark(bit: int) -> Rule:
    """Match if the bit is set."""
    return (LOAD_MARK, x.Bitwise(host_u32(1 << bit), NONE), x.Cmp(x.NEQ, NONE))


def flip_mark(bit: int) -> Rule:
    """Turn the bit round: cleared after has_mark, so that a second pass finds it clear (PROXY-57)."""
    return (LOAD_MARK, x.Bitwise(ALL, host_u32(1 << bit)), STORE_MARK)


NEW = (x.Ct(x.CT_STATE, x.R1), x.Bitwise(host_u32(x.CT_NEW), NONE), x.Cmp(x.NEQ, NONE))
IS_LOCAL_SOURCE = (x.Fib(x.FIB_SADDR), x.Cmp(x.EQ, host_u32(x.RTN_LOCAL)))
WAS_TRANSLATED = (x.Ct(x.CT_STATUS, x.R1), x.Bitwise(host_u32(x.STATUS_DNAT), NONE), x.Cmp(x.NEQ, NONE))


def interface_is(pattern: str, *, negated: bool = False) -> Rule:
    """Match the interface a packet came in by; a trailing * makes the name a prefix."""
    name = pattern[:-1].encode() if pattern.endswith("*") else pattern.encode().ljust(16, b"\0")
    return (x.Meta(x.META_IIFNAME, x.R1), x.Cmp(x.NEQ if negated else x.EQ, name))


def from_pod(options: FrameOptions, words: Words, *, negated: bool = False) -> Rule | None:
    """Match packets that come from a pod, or with `negated` those that do not; None if nobody can tell."""
    if options.pod_interface:
        return interface_is(options.pod_interface, negated=negated)
    if options.pod_cidr:
        return words.within(options.pod_cidr, words.source(), negated=negated)
    return None


def sets(words: Words) -> list[SetSpec]:
    """The shared sets and maps."""
    front, target = words.front, words.target
    numbered = (*front, f.NUMBER)
    found = [
        SetSpec(SERVICES, front, verdicts=True),
        SetSpec(SERVICES_CLUSTER, front, verdicts=True),
        SetSpec(SERVICES_LOCAL, front, verdicts=True),
        SetSpec(NO_ENDPOINTS, front, verdicts=True),
        *(SetSpec(name, numbered, target, typeof=True) for name in ENDPOINT_MAPS),
        SetSpec(CLUSTER_IPS, (words.address,)),
        SetSpec(HAIRPIN, (words.address, words.address)),
        SetSpec(FILTERED, front),
        SetSpec(ALLOWED, (*front, words.address), intervals=True),
    ]
    return found + [SetSpec(remember_map(p), target, verdicts=True) for p in REMEMBERED_PROTOCOLS]


def endpoint_map(count: int, *, local: bool) -> str:
    """Name of the map that holds lists of this length."""
    return ENDPOINTS + ("-local" if local else "") + ("" if count <= MOST_SHARED else "-large")


ENDPOINT_MAPS = tuple(endpoint_map(count, local=local) for count in (1, MOST_SHARED + 1) for local in (False, True))
RANKS = {**dict.fromkeys(ENDPOINT_MAPS, 0), ALLOWED: 1, FILTERED: 2, CLUSTER_IPS: 3, HAIRPIN: 3}


def set_rank(name: str) -> int:
    """Order in which sets are filled: endpoints first, then who may pass, then what points at endpoints."""
    return RANKS.get(name, 4)


def remember_map(protocol: str) -> str:
    """The map from fronts with affinity to the chain that keeps a client's record."""
    return f"remember-{protocol.lower()}"


def spread_chain(count: int, *, local: bool) -> str:
    """Name of the chain that picks one of `count` endpoints."""
    letter = "l" if local else "n"
    return f"{letter}{count}" if count <= MOST_SHARED else f"large-{letter}{count}"


def spread_rule(words: Words, count: int, *, local: bool) -> Rule:
    """Translate to one of `count` endpoints of the front in the packet, each as likely."""
    number = x.Numgen(count, x.piece(words.after + 2))
    lookup = x.Lookup(endpoint_map(count, local=local), x.R1, x.R1)
    return (*words.load_front(), number, lookup, words.nat_to_found())


def frame(options: FrameOptions) -> Table:
    """The table of a family without any Service."""
    words = Words(options.family)
    table = Table(words.nfproto, options.table, COMMENT)
    for spec in sets(words):
        table.sets[spec.name] = spec
        table.elements[spec.name] = {}

    def chain(name: str, *rules: Rule, base: Base | None = None) -> None:
        table.chains[name] = ChainSpec(name, base)
        table.rules[name] = list(rules)

    front = words.load_front()
    bit = options.masquerade_bit
    pod = from_pod(options, words)

    unreachable = x.ICMP6_PORT_UNREACHABLE if options.family == "IPv6" else x.ICMP_PORT_UNREACHABLE
    chain(REFUSE, (*is_protocol(6), x.Reject(x.TCP_RESET)), (x.Reject(x.ICMP_UNREACHABLE, unreachable),))
    for local in (False, True):
        for count in range(1, MOST_SHARED + 1):
            chain(spread_chain(count, local=local), spread_rule(words, count, local=local))

    to_cluster = (*front, x.Lookup(SERVICES_CLUSTER, x.R1, 0))
    chain(EXTERNAL, set_mark(bit), to_cluster)  # PROXY-47
    chain(  # PROXY-46
        EXTERNAL_LOCAL,
        *([(*pod, *to_cluster)] if pod else []),
        (*IS_LOCAL_SOURCE, *set_mark(bit)),
        (*IS_LOCAL_SOURCE, *to_cluster),
        (*front, x.Lookup(SERVICES_LOCAL, x.R1, 0)),
    )
    no_pod = cluster_ip_masquerade(options, words)
    masquerade = [] if no_pod is None else [(*no_pod, words.destination(), x.Lookup(CLUSTER_IPS), *set_mark(bit))]
    chain(DISPATCH, *masquerade, (*front, x.Lookup(SERVICES, x.R1, 0)))
    source_at = x.piece(words.after + 2)
    chain(
        FIREWALL,
        (
            *front,
            x.Lookup(FILTERED),
            *front,
            _at(words.source(), source_at),
            x.Lookup(ALLOWED, inverted=True),
            x.Immediate(x.Verdict(x.DROP)),
        ),
    )
    chain(ENDPOINTS_CHECK, (*front, x.Lookup(NO_ENDPOINTS, x.R1, 0)))
    ranges = [c for c in options.service_cidrs if (":" in c) == (options.family == "IPv6")]
    chain(  # PROXY-42
        CLUSTER_IPS_CHECK,
        (words.destination(), x.Lookup(CLUSTER_IPS), x.Immediate(x.goto(REFUSE))),
        *((*words.within(c, words.destination()), x.Immediate(x.Verdict(x.DROP))) for c in ranges),
    )
    chain(
        REMEMBER,
        *(
            (
                *is_protocol(number),
                words.original_destination(),
                x.Ct(x.CT_PROTO_DST, x.piece(words.after), x.ORIGINAL),
                x.Lookup(remember_map(protocol), x.R1, 0),
            )
            for protocol, number in REMEMBERED_PROTOCOLS.items()
        ),
    )
    second = x.R2 if words.width == 16 else x.piece(1)
    chain(  # PROXY-57, 98
        MASQUERADING,
        (*has_mark(bit), *flip_mark(bit), x.Masquerade()),
        (*WAS_TRANSLATED, words.source(), _at(words.destination(), second), x.Lookup(HAIRPIN), x.Masquerade()),
    )

    def call(name: str) -> Rule:
        return (x.Immediate(x.jump(name)),)

    def call_if_new(name: str) -> Rule:
        return (*NEW, x.Immediate(x.jump(name)))

    chain("filter-prerouting", call_if_new(FIREWALL), base=Base("filter", PREROUTING, BEFORE_DSTNAT))
    chain("filter-output-first", call_if_new(FIREWALL), base=Base("filter", OUTPUT, BEFORE_DSTNAT))
    chain("nat-prerouting", call(DISPATCH), base=Base("nat", PREROUTING, DSTNAT))
    chain("nat-output", call(DISPATCH), base=Base("nat", OUTPUT, DSTNAT))
    chain("filter-input", call_if_new(ENDPOINTS_CHECK), base=Base("filter", INPUT, 0))
    for name, hook in (("filter-forward", FORWARD), ("filter-output", OUTPUT)):
        chain(name, call_if_new(ENDPOINTS_CHECK), call_if_new(CLUSTER_IPS_CHECK), base=Base("filter", hook, 0))
    chain("nat-input", call(REMEMBER), base=Base("nat", INPUT, SRCNAT))
    chain("nat-postrouting", call(REMEMBER), call(MASQUERADING), base=Base("nat", POSTROUTING, SRCNAT))
    return table


def cluster_ip_masquerade(options: FrameOptions, words: Words) -> Rule | None:
    """The start of the rule for ClusterIP traffic whose source is rewritten (PROXY-53, 54); None if none is."""
    return () if options.masquerade_all else from_pod(options, words, negated=True)


def _at(load: x.Expression, register: int) -> x.Expression:
    assert isinstance(load, x.Payload)
    return x.Payload(load.base, load.offset, load.length, register)
