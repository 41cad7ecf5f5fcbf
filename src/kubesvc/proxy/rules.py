"""The kernel's rules of single fronts, each with what it means. `lines_of` is pure; `read_tables` asks the kernel.

A front is an address, port and protocol where a service port is reached. Which maps and chains there are and what they
are for is told in `frame`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from kubesvc.kernel.nft import KernelNft, SetSpec, Table, Value
from kubesvc.kernel.nft.expressions import Verdict
from kubesvc.kernel.nft.fields import pack_address, pack_number, pack_port, pack_protocol, text_of
from kubesvc.kernel.nft.table import NFPROTO_IPV4, NFPROTO_IPV6
from kubesvc.kernel.nft.text import element_text, family_word, rule_text

from . import frame as fr

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
        self.front = self.address + pack_protocol(protocol) + pack_port(port)
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
