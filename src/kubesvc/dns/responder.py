"""From the bytes of a query to the bytes of its response, with what was answered before kept as bytes.

No sockets and no clock: the listeners call `answer`, tests do too.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from . import wire
from .records import Answer, Zone, answer_for, rotated
from .snapshot import Snapshot
from .wire import Edns, FormatError, Message, Name, Question, Record

log = logging.getLogger(__name__)

MOST_CACHED = 16_384
"""Distinct queries whose responses are kept; the oldest makes room for a new one. (To forget all at once takes 6 ms, in
which nobody is answered.)"""
MOST_RECORDS = 131_072
"""Records in the responses that are kept: who asks for a large Service in ever other spellings takes no more memory."""
MOST_TURNS = 8
"""Orders of one answer that are kept to be given out in turn (DNS-24)."""

MOST_ADDITIONAL = 4
"""Records a query may bring behind its question: EDNS and signatures."""

UDP_BYTES = 1232
"""Largest response over UDP, whatever the client says it takes: it passes any path unfragmented (DNS-47)."""


class Forwarder(Protocol):
    """Asks other resolvers. `Unanswered` when none of them answers in time."""

    async def exchange(self, query: bytes, tcp: bool) -> bytes:
        """The response to a query that came in so, with its id; as it came, except that it fits the client.
        `NotForwarded` where nobody is to be asked about such names."""
        ...

    async def lookup(self, question: Question) -> tuple[Record, ...]:
        """The records of the asked type and the CNAMEs that lead to them, for the end of an ExternalName."""
        ...


class Unanswered(Exception):
    """No resolver gave an answer."""


class NotForwarded(Unanswered):
    """No resolver is there to be asked about this name."""


class Overloaded(Exception):
    """More queries are on their way to other resolvers than allowed."""


@dataclass(slots=True)
class Kept:
    """Responses to one query but for the id: as many orders as the answer has records, made when first needed."""

    answer: Answer
    message: Message
    limit: int
    turns: int
    wires: list[bytes]
    version: int
    """Of the snapshot, when this was last known to be true."""
    turn: int = 0
    used: int = 0
    """How often it was given out again."""

    @property
    def records(self) -> int:
        answer = self.answer
        return len(answer.answers) + len(answer.authority) + len(answer.additional)

    def next(self) -> bytes:
        if self.turns == 1:
            return self.wires[0]
        self.turn = (self.turn + 1) % self.turns
        if self.turn >= len(self.wires):
            self.wires.append(encoded(rotated(self.answer, self.turn), self.message, self.limit))
        return self.wires[self.turn]


def encoded(answer: Answer, query: Message, limit: int) -> bytes:
    """Everything behind the id."""
    response = replace(
        query,
        response=True,
        authoritative=answer.authoritative,
        rcode=answer.rcode,
        answers=answer.answers,
        authority=answer.authority,
        additional=answer.additional,
    )
    return wire.encode(response, limit)[2:]


Others = Literal["REFUSED", "NXDOMAIN"]
Later = Callable[[], Awaitable[bytes]]
Answered = bytes | Later | None


class Answers(Protocol):
    """What listeners need: the response to a query, or what to await for it, or None when none is due."""

    def answer(self, query: bytes, tcp: bool = False) -> Answered: ...


class Responder:
    """Answers queries from a snapshot, and hands what is not the cluster's to a forwarder, if there is one."""

    def __init__(
        self, snapshot: Snapshot, zone: Zone, *, forwarder: Forwarder | None = None, others: Others = "REFUSED"
    ) -> None:
        """others: what names outside the cluster get that are asked of nobody"""
        self.snapshot = snapshot
        self.zone = zone
        self.forwarder = forwarder
        self.others = wire.REFUSED if others == "REFUSED" else wire.NXDOMAIN
        self.kept: OrderedDict[tuple[bool, bytes], Kept] = OrderedDict()
        self.records = 0
        """In all that is kept."""
        self.counts: Counter[str] = Counter()
        """Responses by code ("rcode NXDOMAIN") made anew; "forwarded", "overloaded" and "panics"."""
        self.requests: Counter[tuple[str, str]] = Counter()
        """Queries that were read anew, and those whose kept response is forgotten, by protocol and type."""
        self.reused: Counter[tuple[str, str]] = Counter()
        """Uses of kept responses that are forgotten, by code and who made them."""

    def answer(self, query: bytes, tcp: bool = False) -> Answered:
        """The response; or what to await for it; or None when none is due: to responses and to shreds of queries."""
        kept = self.kept.get((tcp, query[2:]))
        if kept is not None and (kept.version == self.snapshot.version or self._still_true(kept)):
            kept.used += 1
            return query[:2] + kept.next()
        try:
            return self._answer(query, tcp)
        except Exception:  # a bug met by one query must not silence the server for the others
            self.counts["panics"] += 1
            log.exception("DNS: no answer to %s", query[:512].hex())
            return self._bare(query, wire.SERVFAIL)

    def totals(self) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
        """Queries by (protocol, type), and responses by (code, who made them: "kubernetes" or "forward"), so far."""
        requests, responses = Counter(self.requests), Counter(self.reused)
        self._fold(requests, responses)
        for what, count in self.counts.items():
            kind, _, code = what.partition(" ")
            if kind in ("rcode", "forwarded"):
                responses[code, "forward" if kind == "forwarded" else "kubernetes"] += count
        return requests, responses

    def _fold(self, requests: Counter[tuple[str, str]], responses: Counter[tuple[str, str]]) -> None:
        """Add the uses of what is kept."""
        for (tcp, _), kept in self.kept.items():
            self._fold_one(tcp, kept, requests, responses)

    @staticmethod
    def _fold_one(
        tcp: bool, kept: Kept, requests: Counter[tuple[str, str]], responses: Counter[tuple[str, str]]
    ) -> None:
        if kept.used:
            (question,) = kept.message.questions
            requests["tcp" if tcp else "udp", wire.TYPES.get(question.type, "other")] += kept.used
            responses[wire.RCODES.get(kept.answer.rcode, str(kept.answer.rcode)), "kubernetes"] += kept.used

    def _still_true(self, kept: Kept) -> bool:
        """A change elsewhere in the cluster need not make a busy name's answer anew."""
        depends = kept.answer.depends
        if depends is None or not self.snapshot.holds(depends, kept.version):
            return False
        kept.version = self.snapshot.version
        return True

    def _answer(self, query: bytes, tcp: bool) -> Answered:
        if len(query) < wire.HEADER_BYTES or query[2] & 0x80:
            return None
        opcode = query[2] >> 3 & 0xF
        if opcode != wire.QUERY:
            return self._bare(query, wire.NOTIMP)
        _, _, questions, answers, authority, additional = wire.HEADER.unpack_from(query)
        if questions != 1 or answers or authority > 1 or additional > MOST_ADDITIONAL:
            return self._bare(query, wire.FORMERR)  # not even read: reading is where an attacker could make work
        try:
            message = wire.decode(query)
        except FormatError:
            return self._bare(query, wire.FORMERR)
        (question,) = message.questions
        self.requests["tcp" if tcp else "udp", wire.TYPES.get(question.type, "other")] += 1
        edns = message.edns
        base = Message(
            id=message.id,
            recursion_desired=message.recursion_desired,
            recursion_available=self.forwarder is not None,
            checking_disabled=message.checking_disabled,
            questions=message.questions,
            edns=Edns(UDP_BYTES, 0, edns.do) if edns else None,  # DNS-48
        )
        limit = wire.MOST_BYTES if tcp else min(max(edns.size, wire.PLAIN_UDP_BYTES), UDP_BYTES) if edns else 512
        if edns and edns.version:
            return self._finished(base, Answer(wire.BADVERS, authoritative=False), limit)
        answer = answer_for(question, self.snapshot, self.zone)
        if answer is None:
            if self.forwarder is not None:
                return lambda: self._forwarded(query, base, tcp, limit)
            answer = Answer(self.others, authoritative=False)
        if answer.follow and self.forwarder is not None:
            return lambda: self._followed(question, answer.follow, answer, base, limit)
        return self._keep(query, tcp, answer, base, limit)

    def _bare(self, query: bytes, rcode: int) -> bytes:
        """A response that repeats nothing but the id, the opcode and RD."""
        self.counts[f"rcode {wire.RCODES[rcode]}"] += 1
        return query[:2] + bytes((0x80 | query[2] & 0x79, rcode)) + bytes(8)

    def _finished(self, base: Message, answer: Answer, limit: int) -> bytes:
        self.counts[f"rcode {wire.RCODES.get(answer.rcode, answer.rcode)}"] += 1
        return base.id.to_bytes(2, "big") + encoded(answer, base, limit)

    def _keep(self, query: bytes, tcp: bool, answer: Answer, base: Message, limit: int) -> bytes:
        response = self._finished(base, answer, limit)
        key = (tcp, query[2:])
        if key in self.kept:
            self._forget(key)  # what it rested on has changed
        movable = sum(record.type != wire.CNAME for record in answer.answers)
        turns = max(1, min(MOST_TURNS, movable))
        kept = self.kept[key] = Kept(answer, base, limit, turns, [response[2:]], self.snapshot.version)
        self.records += kept.records
        while len(self.kept) > MOST_CACHED or self.records > MOST_RECORDS:
            self._forget(next(iter(self.kept)))
        return response

    def _forget(self, key: tuple[bool, bytes]) -> None:
        """Drop one kept response, but for what it counted."""
        kept = self.kept.pop(key)
        self.records -= kept.records
        self._fold_one(key[0], kept, self.requests, self.reused)

    async def _forwarded(self, query: bytes, base: Message, tcp: bool, limit: int) -> bytes:
        """Other resolvers' answer, as it came (DNS-51); SERVFAIL when there is none, REFUSED when too many wait, and as
        without a forwarder when such names have no resolver."""
        assert self.forwarder is not None
        try:
            response = await self.forwarder.exchange(query, tcp)
        except NotForwarded:
            return self._finished(base, Answer(self.others, authoritative=False), limit)
        except Unanswered:
            return self._finished(base, Answer(wire.SERVFAIL, authoritative=False), limit)
        except Overloaded:
            self.counts["overloaded"] += 1
            return self._finished(base, Answer(wire.REFUSED, authoritative=False), limit)
        if len(response) <= limit:
            self.counts[f"forwarded {wire.RCODES.get(response[3] & 0xF, 'other')}"] += 1
            return response
        return self._finished(replace(base, truncated=True), Answer(authoritative=False), limit)

    async def _followed(self, question: Question, target: Name, answer: Answer, base: Message, limit: int) -> bytes:
        """The CNAME with what its end resolves to; alone when that is nothing (DNS-25, DNS-26)."""
        assert self.forwarder is not None
        try:
            found = await self.forwarder.lookup(Question(target, question.type))
        except (Unanswered, Overloaded):
            found = ()
        ttl = self.zone.ttl
        found = tuple(record._replace(ttl=min(record.ttl, ttl)) for record in found)
        return self._finished(base, replace(answer, answers=(*answer.answers, *found), follow=()), limit)
