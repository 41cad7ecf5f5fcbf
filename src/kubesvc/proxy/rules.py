"""The kernel's rules of single fronts, each with what it means. `lines_of` is pure; `read_tables` asks the kernel.

A front is an address, port and protocol where a service port is reached. Which maps and chains there are and what they
are for is told in `frame`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from kubesvc.kernel.iptables import Rule, Tables
from kubesvc.kernel.iptables.rules import Dnat, Jump, RecentCheck, Reject, SetMark, Statistic, front_of
from kubesvc.kernel.iptables.tables import Chains
from kubesvc.kernel.iptables.text import render_rule
from kubesvc.kernel.nft import KernelNft, SetSpec, Table, Value
from kubesvc.kernel.nft.expressions import Verdict
from kubesvc.kernel.nft.fields import pack_address, pack_number, pack_port, text_of
from kubesvc.kernel.nft.table import NFPROTO_IPV4, NFPROTO_IPV6
from kubesvc.kernel.nft.text import element_text, family_word, rule_text

from . import frame as fr
from .fronts import front_of as packed_front
from .traffic import Family

Front = tuple[str, int, str]
"""address, port, protocol"""
SPREAD = re.compile(r"(?:large-)?([nl])(\d+)")


class Line(msgspec.Struct, frozen=True):
    """One thing in the kernel. place: `ip kubesvc services`; text: as nft writes it; meaning: in words."""

    front: str
    place: str
    text: str
    meaning: str


async def read_tables(name: str = "kubesvc") -> list[Table]:
    """Our tables in the kernel, as they are now."""
    nft = KernelNft()
    try:
        found = [await nft.read(family, name) for family in (NFPROTO_IPV4, NFPROTO_IPV6)]
    finally:
        nft.close()
    return [t for t in found if t is not None]


async def read_chains() -> dict[Family, Tables]:
    """The proxy's iptables chains of both families, as they are now; {} where there are none or no iptables."""
    from kubesvc.kernel.iptables import IptablesError, KernelIptables, parse_save

    from .audit import is_proxy_chain

    families: tuple[Family, ...] = ("IPv4", "IPv6")
    door, found = KernelIptables(), dict[Family, Tables]()
    for family in families:
        try:
            saved = await door.save(family)
        except IptablesError:
            continue
        if ":KUBE-SERVICES" in saved:
            found[family] = parse_save(saved, family, only=is_proxy_chain)
    return found


def lines_of(tables: Iterable[Table], fronts: Sequence[Front]) -> list[Line]:
    """What these tables hold of each front, in the order in which a packet meets it; a front of which nothing is held
    has no lines."""
    by_family = {t.family: t for t in tables}
    found: list[Line] = []
    for address, port, protocol in fronts:
        table = by_family.get(NFPROTO_IPV6 if ":" in address else NFPROTO_IPV4)
        if table is not None:
            found += _Front(table, address, port, protocol).lines()
    return found


class _Front:
    def __init__(self, table: Table, address: str, port: int, protocol: str) -> None:
        self.table = table
        self.where = f"{family_word(table.family)} {table.name}"
        self.name = f"{address}:{port}/{protocol}"
        self.address = pack_address(address)
        self.front = packed_front(address, protocol, port)
        self.protocol = protocol
        self.port = port
        self.found: list[Line] = []

    def element(self, name: str, key: bytes) -> Value:
        """The value of an element; KeyError if it is not there."""
        return self.table.elements[name][key]

    def has(self, name: str, key: bytes) -> bool:
        return key in self.table.elements.get(name, {})

    def say(self, name: str, key: bytes, meaning: str) -> None:
        spec: SetSpec = self.table.sets[name]
        text = element_text(spec, key, self.table.elements[name][key])
        self.found.append(Line(self.name, f"{self.where} {name}", text, meaning))

    def lines(self) -> list[Line]:
        if self.has(fr.FILTERED, self.front):
            self.say(fr.FILTERED, self.front, "only some clients may use this address (loadBalancerSourceRanges)")
            for key in self.table.elements.get(fr.ALLOWED, {}):
                if key.startswith(self.front):
                    self.say(fr.ALLOWED, key, "clients of this range may")
        if self.has(fr.NO_ENDPOINTS, self.front):
            verdict = self.element(fr.NO_ENDPOINTS, self.front)
            dropped = isinstance(verdict, Verdict) and not verdict.chain
            meaning = (
                "dropped without an answer where no other rule applies: no endpoint on this node (PROXY-39)"
                if dropped
                else "refused: no usable endpoint anywhere (PROXY-38)"
            )
            self.say(fr.NO_ENDPOINTS, self.front, meaning)
        for name, meaning in (
            (fr.SERVICES, "where new connections to this front go"),
            (fr.SERVICES_CLUSTER, "connections that may reach endpoints on every node"),
            (fr.SERVICES_LOCAL, "connections from outside, for endpoints on this node only"),
        ):
            if self.has(name, self.front):
                self.say(name, self.front, meaning)
                verdict = self.element(name, self.front)
                if isinstance(verdict, Verdict) and verdict.chain:
                    self.chain(verdict.chain)
        if self.has(fr.CLUSTER_IPS, self.address):
            self.say(fr.CLUSTER_IPS, self.address, "a cluster IP: its ports that no Service has are refused (PROXY-42)")
        remember = fr.remember_map(self.protocol)
        key = self.address + pack_port(self.port)
        if self.has(remember, key):
            self.say(remember, key, "writes down where each client was sent (sessionAffinity)")
        return self.found

    def chain(self, name: str) -> None:
        """The rules of a chain, and the endpoints that it draws from."""
        rules = self.table.rules.get(name)
        if rules is None or any(line.place.endswith(f" chain {name}") for line in self.found):
            return
        spread = SPREAD.fullmatch(name)
        if spread:
            count = int(spread[2])
            meaning = "to the one endpoint" if count == 1 else f"to one of {count} endpoints, each as likely"
        else:
            meaning = MEANINGS.get(name, "first where this client went before, else drawn anew")
        for rule in rules:
            text = rule_text(rule, self.table.sets)
            self.found.append(Line(self.name, f"{self.where} chain {name}", text, meaning))
        if spread:
            self.endpoints(int(spread[2]), local=spread[1] == "l")
        elif name in self.table.sets:
            self.records(name)
            for rule in rules:
                for expression in rule:
                    verdict = getattr(expression, "value", None)
                    if isinstance(verdict, Verdict) and verdict.chain:
                        self.chain(verdict.chain)

    def endpoints(self, count: int, *, local: bool) -> None:
        name = fr.endpoint_map(count, local=local)
        for number in range(count):
            key = self.front + pack_number(number)
            if self.has(name, key):
                self.say(name, key, f"endpoint {number + 1} of {count}")
            else:
                self.found.append(
                    Line(self.name, f"{self.where} {name}", f"no element {number}", f"endpoint {number + 1} is missing")
                )

    def records(self, name: str) -> None:
        spec = self.table.sets[name]
        for key in sorted(self.table.elements.get(name, {})):
            self.say(name, key, f"client {text_of(spec.key, key)} stays with its endpoint")


def lines_of_chains(tables: Mapping[Family, Tables], fronts: Sequence[Front]) -> list[Line]:
    """The same for iptables chains, by family: the rules of KUBE-SERVICES and KUBE-NODEPORTS that a packet to the front
    meets, each followed by the chains it leads to."""
    found: list[Line] = []
    for address, port, protocol in fronts:
        for table, chains in tables.get("IPv6" if ":" in address else "IPv4", {}).items():
            entry = (("KUBE-SERVICES", address), ("KUBE-EXTERNAL-SERVICES", address), ("KUBE-PROXY-FIREWALL", address))
            for chain, to in (*entry, ("KUBE-NODEPORTS", "")):
                for rule in chains.rules.get(chain, ()):
                    if front_of(rule) == (to, port, protocol):
                        name = f"{address}:{port}/{protocol}"
                        found += _follow(name, table, chains, chain, rule, set())
    return found


def _follow(front: str, table: str, chains: Chains, chain: str, rule: Rule, seen: set[str]) -> Iterator[Line]:
    yield Line(front, f"iptables {table} {chain}", render_rule(rule), _meaning(rule))
    target = rule.target
    if isinstance(target, Jump) and target.to in chains.rules and target.to not in seen:
        seen.add(target.to)
        for further in chains.rules[target.to]:
            yield from _follow(front, table, chains, target.to, further, seen)


def _meaning(rule: Rule) -> str:
    """What a rule does, in words."""
    chance = next((m for m in rule.matches if isinstance(m, Statistic)), None)
    sticky = any(isinstance(m, RecentCheck) for m in rule.matches)
    odds = f"in {100 * chance.parts / (1 << 31):.1f} of 100 cases that come here, " if chance is not None else ""
    odds = "for a client that went there before, " if sticky else odds
    match rule.target:
        case Jump("DROP"):
            return f"{odds}dropped without an answer"
        case Jump("KUBE-MARK-MASQ"):
            return "the source will be rewritten"
        case Jump(to):
            kind = next((words for prefix, words in CHAIN_MEANINGS.items() if to.startswith(prefix)), f"on to {to}")
            return f"{odds}{kind}"
        case Dnat(address, port):
            return f"to the endpoint {address}:{port}"
        case Reject():
            return "refused: no usable endpoint anywhere (PROXY-38)"
        case SetMark():
            return "the packet is marked, so that its source will be rewritten"
    return "as it says"


CHAIN_MEANINGS = {
    "KUBE-SVC-": "any endpoint of the Cluster list",
    "KUBE-SVL-": "endpoints on this node only",
    "KUBE-EXT-": "from outside: policy and masquerade first",
    "KUBE-FW-": "who may use this address (loadBalancerSourceRanges)",
    "KUBE-SEP-": "to one endpoint",
}

MEANINGS = {
    fr.EXTERNAL: "from outside: the source is rewritten, any endpoint may answer (PROXY-47)",
    fr.EXTERNAL_LOCAL: "Pods and the node itself: any endpoint; others: endpoints on this node only (PROXY-46)",
}


def render(lines: Sequence[Line]) -> str:
    """For people: front by front."""
    said: list[str] = []
    front = place = ""
    for line in lines:
        if line.front != front:
            said.append(f"{line.front}:")
            front, place = line.front, ""
        if line.place != place:
            said.append(f"  {line.place}")
            place = line.place
        said.append(f"    {line.text}\n      {line.meaning}")
    return "\n".join(said)
