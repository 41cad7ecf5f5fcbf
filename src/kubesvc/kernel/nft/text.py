"""Rules, sets and transactions in nft's own language, for people and for `nft -f`. Pure.

A rule is evaluated with words in place of packets: each register holds the words for what would be loaded into it.
What has no words of its own (`Unknown`, or an expression in a place where nft never puts it) is shown in brackets.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from . import commands as c
from . import expressions as x
from . import fields as f
from .expressions import Expression, Rule, Verdict
from .table import HOOK_NAMES, NFPROTO_IPV4, ChainSpec, SetSpec, Table, Value

FAMILY_WORDS = {NFPROTO_IPV4: "ip"}
META_WORDS = {x.META_MARK: "mark", x.META_IIFNAME: "iifname", x.META_OIFNAME: "oifname", x.META_L4PROTO: "l4proto"}
CT_WORDS = {
    x.CT_STATE: "state", x.CT_STATUS: "status", x.CT_PROTO_DST: "proto-dst", x.CT_SRC_IP: "ip saddr",
    x.CT_DST_IP: "ip daddr", x.CT_SRC_IP6: "ip6 saddr", x.CT_DST_IP6: "ip6 daddr",
}  # fmt: skip
PAYLOAD_WORDS = {
    (x.NETWORK, 12, 4): "ip saddr", (x.NETWORK, 16, 4): "ip daddr", (x.NETWORK, 8, 16): "ip6 saddr",
    (x.NETWORK, 24, 16): "ip6 daddr", (x.TRANSPORT, 0, 2): "th sport", (x.TRANSPORT, 2, 2): "th dport",
}  # fmt: skip
ICMP_CODES = {x.ICMP_PORT_UNREACHABLE: "icmp port-unreachable", x.ICMP6_PORT_UNREACHABLE: "icmpv6 port-unreachable"}


def family_word(nfproto: int) -> str:
    return FAMILY_WORDS.get(nfproto, "ip6")


def place(register: int) -> int:
    """The 4-byte piece at which a register starts."""
    return (register - 1) * 4 if register < 8 else register - 8


@dataclass(slots=True)
class Speaker:
    """Says one rule. sets: those of its table, which tell how many fields a key has."""

    sets: Mapping[str, SetSpec]
    held: dict[int, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def rule(self, rule: Rule) -> str:
        for expression in rule:
            self.speak(expression)
        return " ".join(self.said)

    def at(self, register: int) -> str:
        return self.held.get(place(register), "[nothing loaded]")

    def key(self, register: int, fields: Sequence[f.Field]) -> str:
        """The concatenation that starts at a register."""
        start, words = place(register), []
        for part in fields:
            words.append(self.held.get(start, "[nothing loaded]"))
            start += part.width_bytes // 4
        return " . ".join(words)

    def speak(self, e: Expression) -> None:
        match e:
            case x.Payload():
                other = f"@{'nh' if e.base == x.NETWORK else 'th'},{e.offset * 8},{e.length * 8}"
                self.held[place(e.register)] = PAYLOAD_WORDS.get((e.base, e.offset, e.length), other)
            case x.Meta(set=True):
                self.said.append(f"meta {META_WORDS.get(e.key, e.key)} set {self.at(e.register)}")
            case x.Meta():
                self.held[place(e.register)] = f"meta {META_WORDS.get(e.key, e.key)}"
            case x.Ct():
                way = {None: "", x.ORIGINAL: "original ", x.REPLY: "reply "}[e.direction]
                self.held[place(e.register)] = f"ct {way}{CT_WORDS.get(e.key, e.key)}"
            case x.Fib():
                address = "saddr" if e.flags & x.FIB_SADDR else "daddr"
                self.held[place(e.register)] = f"fib {address} type"
            case x.Numgen():
                offset = f" offset {e.offset}" if e.offset else ""
                self.held[place(e.register)] = f"numgen random mod {e.modulus}{offset}"
            case x.Bitwise():
                self.held[place(e.register)] = bits(self.at(e.register), e)
            case x.Cmp():
                self.said.append(compared(self.at(e.register), e))
            case x.Range():
                words = self.at(e.register)
                sign = "!= " if e.op == x.NEQ else ""
                self.said.append(f"{words} {sign}{value_words(words, e.low)}-{value_words(words, e.high)}")
            case x.Lookup():
                self.lookup(e)
            case x.Nat():
                kind = "dnat" if e.type == x.DNAT else "snat"
                family = "ip6" if e.family == x.AF_INET6 else "ip"
                target = self.at(e.address_register)
                port = self.held.get(place(e.port_register), "")
                if " map " in target:  # one lookup left address and port side by side
                    self.said.append(f"{kind} {family} to {target}")
                else:
                    self.said.append(f"{kind} {family} to {target}:{port}")
            case x.Masquerade():
                self.said.append("masquerade fully-random")
            case x.Reject():
                how = "tcp reset" if e.type == x.TCP_RESET else ICMP_CODES.get(e.code, str(e.code))
                self.said.append(f"reject with {how}")
            case x.Immediate(value=Verdict()):
                self.said.append(str(e.value))
            case x.Immediate():
                assert isinstance(e.value, bytes)
                self.held[place(e.register)] = f"0x{e.value.hex()}"
            case x.Dynset():
                self.dynset(e)
            case x.Counter():
                self.said.append("counter")
            case x.ObjectReference():
                self.said.append(f"counter name {e.name}" if e.type == 1 else f"object {e.name}")
            case x.Unknown():
                self.said.append(f"[{e.name}]")
            case _:
                self.said.append(f"[{type(e).__name__.lower()}]")

    def lookup(self, e: x.Lookup) -> None:
        spec = self.sets.get(e.set)
        key = self.key(e.register, spec.key if spec else (f.PORT,))
        if e.destination is None:
            self.said.append(f"{key} {'!= ' if e.inverted else ''}@{e.set}")
        elif e.destination == 0:
            self.said.append(f"{key} vmap @{e.set}")
        else:
            self.held[place(e.destination)] = f"{key} map @{e.set}"

    def dynset(self, e: x.Dynset) -> None:
        spec = self.sets.get(e.set)
        words = self.key(e.key_register, spec.key if spec else (f.PORT,))
        if e.timeout_ms:
            words += f" timeout {e.timeout_ms // 1000}s"
        if e.data_register is not None:
            words += f" : {self.key(e.data_register, spec.data if spec else (f.PORT,))}"
        self.said.append(f"update @{e.set} {{ {words} }}")


def bits(words: str, e: x.Bitwise) -> str:
    """(register & mask) ^ xor, in nft's words."""
    if words.startswith(("ip", "ct original ip")):
        return f"{words} & {ipaddress.ip_address(e.mask)}"
    mask, xor = int.from_bytes(e.mask, "little"), int.from_bytes(e.xor, "little")
    if mask == 0xFFFFFFFF:
        return f"{words} ^ 0x{xor:x}"
    if not xor:
        return f"{words} & 0x{mask:x}"
    if mask == 0xFFFFFFFF ^ xor:
        return f"{words} | 0x{xor:x}"
    return f"{words} & 0x{mask:x} ^ 0x{xor:x}"


def compared(words: str, e: x.Cmp) -> str:
    sign = "!= " if e.op == x.NEQ else ""
    base, amp, mask = words.partition(" & ")
    if amp and "addr" in base:
        network = ipaddress.ip_network(f"{ipaddress.ip_address(e.data)}/{prefix_of(mask)}", strict=False)
        return f"{base} {sign}{network}"
    if amp and base == "ct state" and not any(e.data) and e.op == x.NEQ:
        return f"ct state {'new' if int(mask, 16) == x.CT_NEW else mask}"
    if amp and base == "ct status" and not any(e.data) and e.op == x.NEQ:
        return f"ct status {'dnat' if int(mask, 16) == x.STATUS_DNAT else mask}"
    return f"{words} {sign}{value_words(words, e.data)}"


def prefix_of(mask: str) -> int:
    address = ipaddress.ip_address(mask)
    return bin(int(address)).count("1")


def value_words(words: str, data: bytes) -> str:
    """A value, as it is written behind these words."""
    if words.endswith("addr"):
        return str(ipaddress.ip_address(data))
    if words.endswith("l4proto"):
        return f.PROTOCOL_NAMES.get(data[0], str(data[0])).lower()
    if words.endswith(("port", "proto-dst")):
        return str(int.from_bytes(data, "big"))
    if words.endswith("name"):
        name = data.rstrip(b"\0").decode(errors="replace")
        return f'"{name}"' if data.endswith(b"\0") else f'"{name}*"'
    if words.endswith("type"):
        number = int.from_bytes(data, "little")
        return "local" if number == x.RTN_LOCAL else str(number)
    return f"0x{int.from_bytes(data, 'little'):x}"


def rule_text(rule: Rule, sets: Mapping[str, SetSpec]) -> str:
    """One rule: `ip daddr . meta l4proto . th dport vmap @services`."""
    return Speaker(sets).rule(rule)


def element_text(spec: SetSpec, key: bytes, value: Value = None) -> str:
    """One element: `10.96.0.1 . tcp . 80 : goto n2`."""
    width = f.width(spec.key)
    words = f.text_of(spec.key, key)
    if spec.intervals and len(key) == 2 * width:
        words = interval_text(spec, key[:width], key[width:])
    if value is None:
        return words
    return f"{words} : {value if isinstance(value, Verdict) else f.text_of(spec.data, value)}"


def interval_text(spec: SetSpec, first: bytes, last: bytes) -> str:
    """First and last key side by side, field by field."""
    words, offset = [], 0
    for part in spec.key:
        low, high = first[offset : offset + part.width_bytes], last[offset : offset + part.width_bytes]
        one, two = f.text_of((part,), low), f.text_of((part,), high)
        words.append(one if one == two else f"{one}-{two}")
        offset += part.width_bytes
    return " . ".join(words)


def set_text(spec: SetSpec) -> str:
    """The description of a set, as it stands between braces."""
    names = {"integer": "numgen random mod 65536", "ipv4_addr": "ip daddr", "ipv6_addr": "ip6 daddr",
             "inet_proto": "meta l4proto", "inet_service": "th dport"}  # fmt: skip
    if spec.typeof:
        kind = "typeof " + " . ".join(names[k.name] for k in spec.key)
        kind += " : " + " . ".join(names[k.name] for k in spec.data) if spec.data else ""
    else:
        kind = "type " + " . ".join(k.name for k in spec.key)
        kind += " : verdict" if spec.verdicts else " : " + " . ".join(k.name for k in spec.data) if spec.data else ""
    flags = [
        w for w, on in (("interval", spec.intervals), ("dynamic", spec.dynamic), ("timeout", spec.timeout_ms)) if on
    ]
    size = " size 65535;" if spec.dynamic else ""
    more = f" flags {', '.join(flags)};" if flags else ""
    return f"{kind};{size}{more}" + (f" timeout {spec.timeout_ms // 1000}s;" if spec.timeout_ms else "")


def chain_text(spec: ChainSpec) -> str:
    if spec.base is None:
        return ""
    hook = HOOK_NAMES[spec.base.hook]
    return f" {{ type {spec.base.type} hook {hook} priority {spec.base.priority}; policy accept; }}"


def transaction_lines(transaction: c.Transaction, sets: Mapping[str, SetSpec]) -> Iterator[str]:
    """The commands of a transaction, one a line, as `nft -f` takes them. Names go as they are: upstream's and ours hold
    nothing that nft would not take.

    sets: those of the table as it will be, which rules refer to
    """
    where = f"{family_word(transaction.family)} {transaction.table}"
    known = dict(sets)
    for command in transaction.commands:
        match command:
            case c.AddTable():
                comment = f' {{ comment "{command.comment}"; }}' if command.comment else ""
                yield f"add table {where}{comment}"
            case c.DeleteTable():
                yield f"delete table {where}"
            case c.AddSet():
                known[command.spec.name] = command.spec
                kind = "map" if command.spec.is_map else "set"
                yield f"add {kind} {where} {command.spec.name} {{ {set_text(command.spec)} }}"
            case c.DeleteSet():
                kind = "map" if command.name in known and known[command.name].is_map else "set"
                yield f"delete {kind} {where} {command.name}"
            case c.AddChain():
                yield f"add chain {where} {command.spec.name}{chain_text(command.spec)}"
            case c.DeleteChain():
                yield f"delete chain {where} {command.name}"
            case c.FlushChain():
                yield f"flush chain {where} {command.name}"
            case c.AddRule():
                yield f"add rule {where} {command.chain} {rule_text(command.rule, known)}"
            case c.AddElements():
                items = ", ".join(element_text(command.set, key, value) for key, value in command.items)
                yield f"add element {where} {command.set.name} {{ {items} }}"
            case c.DeleteElements():
                keys = ", ".join(element_text(command.set, key) for key in command.keys)
                yield f"delete element {where} {command.set.name} {{ {keys} }}"
            case _:
                yield f"# {type(command).__name__}"


def table_lines(table: Table) -> Iterable[str]:
    """A table as `nft list table` shows it, without counters."""
    yield f"table {family_word(table.family)} {table.name} {{"
    for spec in table.sets.values():
        yield f"\t{'map' if spec.is_map else 'set'} {spec.name} {{"
        yield f"\t\t{set_text(spec)}"
        for key, value in table.elements.get(spec.name, {}).items():
            yield f"\t\telement {element_text(spec, key, value)}"
        yield "\t}"
    for chain in table.chains.values():
        yield f"\tchain {chain.name}{chain_text(chain)}"
        for rule in table.rules.get(chain.name, ()):
            yield f"\t\t{rule_text(rule, table.sets)}"
    yield "}"
