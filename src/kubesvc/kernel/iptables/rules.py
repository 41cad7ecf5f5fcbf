"""Rules of iptables as values: read from the words that `iptables-restore` takes or `iptables-save` prints.

Both spell one rule in different ways (order of options, /32, --or-mark against --set-xmark); as a value it is one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

Family = Literal["IPv4", "IPv6"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

BUILT_IN = {
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
}
VERDICTS = ("ACCEPT", "DROP", "RETURN")
LONGEST_CHAIN_NAME = 28
LONGEST_COMMENT = 255
LONGEST_RECENT_NAME = 199
STATES = ("INVALID", "NEW", "ESTABLISHED", "RELATED", "UNTRACKED", "SNAT", "DNAT")
REJECTS = {
    "IPv4": ("icmp-port-unreachable", "tcp-reset", "icmp-host-unreachable", "icmp-admin-prohibited"),
    "IPv6": ("icmp6-port-unreachable", "tcp-reset", "icmp6-addr-unreachable", "icmp6-adm-prohibited"),
}
PORT_PROTOCOLS = ("tcp", "udp", "sctp")


class BadRule(ValueError):
    """Words that are no rule, or none for this family."""


class Source(msgspec.Struct, frozen=True, order=True):
    network: str
    negated: bool = False


class Destination(msgspec.Struct, frozen=True, order=True):
    network: str
    negated: bool = False


class InInterface(msgspec.Struct, frozen=True, order=True):
    name: str
    """A trailing + makes it a prefix."""
    negated: bool = False


class Protocol(msgspec.Struct, frozen=True, order=True):
    name: str


class DestinationPort(msgspec.Struct, frozen=True, order=True):
    port: int


class CtState(msgspec.Struct, frozen=True, order=True):
    states: tuple[str, ...]
    negated: bool = False


class MarkIs(msgspec.Struct, frozen=True, order=True):
    value: int
    mask: int
    negated: bool = False


class AddressType(msgspec.Struct, frozen=True, order=True):
    side: Literal["src", "dst"]
    type: str
    negated: bool = False


class Statistic(msgspec.Struct, frozen=True, order=True):
    parts: int
    """Probability in parts of 2 to the 31, as the kernel counts."""


class RecentCheck(msgspec.Struct, frozen=True, order=True):
    name: str
    seconds: int
    reap: bool = False


class RecentSet(msgspec.Struct, frozen=True, order=True):
    name: str


Match = (
    Source
    | Destination
    | InInterface
    | Protocol
    | DestinationPort
    | CtState
    | MarkIs
    | AddressType
    | Statistic
    | RecentCheck
    | RecentSet
)


class Jump(msgspec.Struct, frozen=True):
    """To a chain, or a verdict: ACCEPT, DROP, RETURN."""

    to: str


class Reject(msgspec.Struct, frozen=True):
    reply: str


class Dnat(msgspec.Struct, frozen=True):
    address: str
    port: int


class SetMark(msgspec.Struct, frozen=True):
    """mark = (mark & ~mask) ^ value"""

    value: int
    mask: int


class Masquerade(msgspec.Struct, frozen=True):
    fully_random: bool = False


Target = Jump | Reject | Dnat | SetMark | Masquerade


class Rule(msgspec.Struct, frozen=True):
    """What must hold, what then happens (None: nothing), and what it says about itself."""

    matches: tuple[Match, ...]
    target: Target | None
    comment: str = ""


def front_of(rule: Rule) -> tuple[str, int, str] | None:
    """The one address ("" if it names none), port and protocol that a rule is for; None if it is for no single one."""
    kinds = {type(m): m for m in rule.matches}
    to, port, protocol = kinds.get(Destination), kinds.get(DestinationPort), kinds.get(Protocol)
    if not isinstance(port, DestinationPort) or not isinstance(protocol, Protocol):
        return None
    address = ""
    if isinstance(to, Destination):
        network = ipaddress.ip_network(to.network)
        if to.negated or network.num_addresses != 1:
            return None
        address = str(network.network_address)
    return address, port.port, protocol.name.upper()


_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')


def words_of(line: str) -> list[str]:
    """The words of a line; quotes hold one together."""
    if '"' not in line:
        return line.split()
    return [re.sub(r"\\(.)", r"\1", m.group(1)) if m.group(1) is not None else m.group(2) for m in _WORD.finditer(line)]


def parse_rule(words: list[str], family: Family) -> Rule:
    """A rule from its words after the chain's name. BadRule if iptables of this family would not take it."""
    return _Reader(words, family).read()


class _Reader:
    def __init__(self, words: list[str], family: Family) -> None:
        self.words: Iterator[str] = iter(words)
        self.family = family
        self.matches: list[Match] = []
        self.modules: set[str] = set()
        self.target: Target | None = None
        self.comment = ""
        self.recent: dict[str, str] = {}
        self.negated = False
        self.protocol = ""

    def read(self) -> Rule:
        for word in self.words:
            if word == "!":
                self.negated = True
                continue
            step = OPTIONS.get(word)
            if step is None:
                raise BadRule(f"unknown option {word!r}")
            step(self)
            if word not in ("-m", "--match"):
                self.negated = False
        self._finish_recent()
        if isinstance(self.target, Dnat) and self.target.port and self.protocol not in PORT_PROTOCOLS:
            raise BadRule("need a protocol (-p) to DNAT to a port")
        if isinstance(self.target, Reject) and self.target.reply == "tcp-reset" and self.protocol != "tcp":
            raise BadRule("tcp-reset needs -p tcp")
        matches = tuple(sorted(self.matches, key=lambda m: (type(m).__name__, repr(m))))
        return Rule(matches, self.target, self.comment)

    def next(self, option: str) -> str:
        word = next(self.words, None)
        if word is None:
            raise BadRule(f"option {option!r} requires an argument")
        return word

    def needs(self, module: str, option: str) -> None:
        if module not in self.modules:
            raise BadRule(f"unknown option {option!r}")

    def network(self, option: str) -> str:
        text = self.next(option)
        try:
            found = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise BadRule(f"host/network {text!r} not found") from None
        if (found.version == 6) != (self.family == "IPv6"):
            raise BadRule(f"host/network {text!r} not found")
        return str(found)

    def source(self) -> None:
        self.matches.append(Source(self.network("-s"), self.negated))

    def destination(self) -> None:
        self.matches.append(Destination(self.network("-d"), self.negated))

    def in_interface(self) -> None:
        name = self.next("-i")
        if len(name) > 15:
            raise BadRule(f"interface name {name!r} must be shorter than IFNAMSIZ (15)")
        self.matches.append(InInterface(name, self.negated))

    def set_protocol(self) -> None:
        name = self.next("-p").lower()
        name = {"6": "tcp", "17": "udp", "132": "sctp"}.get(name, name)
        if name not in (*PORT_PROTOCOLS, "icmp", "icmpv6", "ipv6-icmp", "all"):
            raise BadRule(f"unknown protocol {name!r} specified")
        self.protocol = name
        self.matches.append(Protocol(name))

    def module(self) -> None:
        name = self.next("-m")
        if name not in MODULES:
            raise BadRule(f"Couldn't load match {name!r}")
        self.modules.add(name)

    def destination_port(self) -> None:
        if self.protocol not in PORT_PROTOCOLS and not self.modules & set(PORT_PROTOCOLS):
            raise BadRule("unknown option '--dport'")
        text = self.next("--dport")
        if not text.isdigit() or int(text) > 65535:
            raise BadRule(f"invalid port/service {text!r} specified")
        self.matches.append(DestinationPort(int(text)))

    def set_comment(self) -> None:
        self.needs("comment", "--comment")
        self.comment = self.next("--comment")
        if len(self.comment.encode()) > LONGEST_COMMENT:
            raise BadRule(f"COMMENT must be shorter than {LONGEST_COMMENT + 1} characters")

    def ct_state(self) -> None:
        self.needs("conntrack", "--ctstate")
        states = self.next("--ctstate").split(",")
        if any(s not in STATES for s in states):
            raise BadRule(f"Bad ctstate {','.join(states)!r}")
        self.matches.append(CtState(tuple(sorted(states)), self.negated))

    def mark_is(self) -> None:
        self.needs("mark", "--mark")
        value, mask = _masked(self.next("--mark"))
        self.matches.append(MarkIs(value, mask, self.negated))

    def address_type(self, side: Literal["src", "dst"]) -> None:
        self.needs("addrtype", f"--{side}-type")
        type = self.next(f"--{side}-type")
        if type not in ("LOCAL", "UNICAST", "BROADCAST", "MULTICAST"):
            raise BadRule(f"addrtype: bad type {type!r}")
        self.matches.append(AddressType(side, type, self.negated))

    def mode(self) -> None:
        self.needs("statistic", "--mode")
        if self.next("--mode") != "random":
            raise BadRule('"--mode" must be "random"')

    def probability(self) -> None:
        self.needs("statistic", "--probability")
        try:
            value = float(self.next("--probability"))
        except ValueError:
            raise BadRule("--probability must be between 0 and 1") from None
        if not 0 <= value <= 1:
            raise BadRule("--probability must be between 0 and 1")
        self.matches.append(Statistic(round(value * 0x80000000)))

    def recent_option(self, option: str, *, value: bool) -> None:
        self.needs("recent", option)
        self.recent[option] = self.next(option) if value else ""

    def _finish_recent(self) -> None:
        if "recent" not in self.modules:
            return
        name = self.recent.get("--name", "DEFAULT")
        if len(name) > LONGEST_RECENT_NAME:
            raise BadRule("recent: name too long")
        if "--set" in self.recent:
            self.matches.append(RecentSet(name))
        elif "--rcheck" in self.recent:
            seconds = self.recent.get("--seconds", "0")
            if not seconds.isdigit() or ("--reap" in self.recent and int(seconds) == 0):
                raise BadRule("recent: --reap needs --seconds of at least 1")
            self.matches.append(RecentCheck(name, int(seconds), "--reap" in self.recent))
        else:
            raise BadRule("recent: you must specify one of `--set', `--rcheck' `--update' or `--remove'")

    def jump(self) -> None:
        if self.target is not None:
            raise BadRule("multiple -j flags not allowed")
        name = self.next("-j")
        match name:
            case "REJECT":
                self.target = Reject(REJECTS[self.family][0])
            case "DNAT":
                self.target = Dnat("", 0)
            case "MARK":
                self.target = SetMark(0, 0)
            case "MASQUERADE":
                self.target = Masquerade()
            case _:
                self.target = Jump(name)

    def reject_with(self) -> None:
        reply = self.next("--reject-with")
        if not isinstance(self.target, Reject) or reply not in REJECTS[self.family]:
            raise BadRule(f"unknown reject type {reply!r}")
        self.target = Reject(reply)

    def to_destination(self) -> None:
        text = self.next("--to-destination")
        address, port = text, "0"
        if text.startswith("["):
            address, _, rest = text[1:].partition("]")
            port = rest.removeprefix(":") or "0"
        elif text.count(":") == 1:
            address, _, port = text.partition(":")
        try:
            version: int | None = ipaddress.ip_address(address).version
        except ValueError:
            version = None
        if not isinstance(self.target, Dnat) or version != (6 if self.family == "IPv6" else 4):
            raise BadRule(f"Bad IP address {text!r}")
        if not port.isdigit() or int(port) > 65535:
            raise BadRule(f"Port {port!r} is invalid")
        self.target = Dnat(str(ipaddress.ip_address(address)), int(port))

    def set_mark(self, kind: str) -> None:
        if not isinstance(self.target, SetMark):
            raise BadRule(f"unknown option '--{kind}-mark'")
        value, mask = _masked(self.next(f"--{kind}-mark"))
        match kind:
            case "or":
                mask = value
            case "xor":
                mask = 0
            case "and":
                value, mask = 0, ~value & 0xFFFFFFFF
        self.target = SetMark(value, mask)

    def random_fully(self) -> None:
        if not isinstance(self.target, Masquerade):
            raise BadRule("unknown option '--random-fully'")
        self.target = Masquerade(True)


def _masked(text: str) -> tuple[int, int]:
    value, _, mask = text.partition("/")
    try:
        return int(value, 0), int(mask, 0) if mask else 0xFFFFFFFF
    except ValueError:
        raise BadRule(f"bad mark {text!r}") from None


MODULES = frozenset(("comment", "conntrack", "mark", "addrtype", "statistic", "recent", *PORT_PROTOCOLS))
OPTIONS: dict[str, Callable[[_Reader], None]] = {
    "-s": _Reader.source,
    "-d": _Reader.destination,
    "-i": _Reader.in_interface,
    "-p": _Reader.set_protocol,
    "-m": _Reader.module,
    "-j": _Reader.jump,
    "--dport": _Reader.destination_port,
    "--comment": _Reader.set_comment,
    "--ctstate": _Reader.ct_state,
    "--mark": _Reader.mark_is,
    "--src-type": lambda r: r.address_type("src"),
    "--dst-type": lambda r: r.address_type("dst"),
    "--mode": _Reader.mode,
    "--probability": _Reader.probability,
    "--reject-with": _Reader.reject_with,
    "--to-destination": _Reader.to_destination,
    "--or-mark": lambda r: r.set_mark("or"),
    "--xor-mark": lambda r: r.set_mark("xor"),
    "--and-mark": lambda r: r.set_mark("and"),
    "--set-xmark": lambda r: r.set_mark("set-x"),
    "--random-fully": _Reader.random_fully,
    "--set": lambda r: r.recent_option("--set", value=False),
    "--rcheck": lambda r: r.recent_option("--rcheck", value=False),
    "--reap": lambda r: r.recent_option("--reap", value=False),
    "--rsource": lambda r: r.recent_option("--rsource", value=False),
    "--name": lambda r: r.recent_option("--name", value=True),
    "--seconds": lambda r: r.recent_option("--seconds", value=True),
    "--mask": lambda r: r.recent_option("--mask", value=True),
}
