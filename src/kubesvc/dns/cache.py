"""Other resolvers' responses, kept as the bytes they came in; TTLs count down, spelling follows the asker. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from . import wire
from .wire import FIXED, HEADER, HEADER_BYTES, FormatError, Message, Question

MOST_ENTRIES = 9984
LONGEST_SECONDS = 30
SHORTEST_SECONDS = 5
FAILURE_SECONDS = 5

Key = tuple[wire.Name, int, int, bool, bool, bool]
"""What makes responses interchangeable: name in lower case, type, class, whether EDNS, DO and CD were set."""


def key_of(query: Message) -> Key:
    (question,) = query.questions
    edns = query.edns
    return (
        wire.lower(question.name),
        question.type,
        question.klass,
        edns is not None,
        bool(edns and edns.do),
        query.checking_disabled,
    )


def ttl_places(raw: bytes) -> list[int]:
    """Where the TTLs of all records but OPT stand; FormatError if the message cannot be walked."""
    if len(raw) < HEADER_BYTES:
        raise FormatError("the header is cut off")
    _, _, questions, *counts = HEADER.unpack_from(raw)
    at, places = HEADER_BYTES, []
    for _ in range(questions):
        _, at = wire.decode_name(raw, at)
        at += 4
    for _ in range(sum(counts)):
        _, at = wire.decode_name(raw, at)
        if at + FIXED.size > len(raw):
            raise FormatError("a record is cut off")
        type_, _, _, length = FIXED.unpack_from(raw, at)
        if type_ != wire.OPT:
            places.append(at + 4)
        at += FIXED.size + length
    if at != len(raw):
        raise FormatError("a record is cut off, or something follows the message")
    return places


def question_end(raw: bytes) -> int:
    """Where the one question of a message ends."""
    return wire.decode_name(raw, HEADER_BYTES)[1] + 4


def keep_seconds(response: Message) -> float:
    """How long a response may be used: as its records say, within bounds; the SOA decides for "nothing" (DNS-45)."""
    if response.truncated or response.rcode not in (wire.NOERROR, wire.NXDOMAIN, wire.SERVFAIL):
        return 0
    if response.rcode == wire.SERVFAIL:
        return FAILURE_SECONDS
    ttls = [record.ttl for record in (*response.answers, *response.authority)]
    if not response.answers:
        soas = [r for r in response.authority if isinstance(r.data, wire.Soa)]
        ttls = [min(r.ttl, r.data.minimum) for r in soas if isinstance(r.data, wire.Soa)]
    return min(max(min(ttls, default=SHORTEST_SECONDS), SHORTEST_SECONDS), LONGEST_SECONDS)


@dataclass(slots=True)
class Kept:
    raw: bytes
    places: list[int]
    since: float
    until: float


class Cache:
    """The least recently kept goes first when there is no room."""

    def __init__(self, most_entries: int = MOST_ENTRIES) -> None:
        self.most_entries = most_entries
        self.entries: OrderedDict[Key, Kept] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def put(self, key: Key, raw: bytes, now: float) -> None:
        """Keep a response, if it may be kept; one that cannot be read is not."""
        try:
            seconds = keep_seconds(wire.decode(raw))
            places = ttl_places(raw)
        except FormatError:
            return
        if seconds <= 0:
            return
        self.entries[key] = Kept(raw, places, now, now + seconds)
        self.entries.move_to_end(key)
        if len(self.entries) > self.most_entries:
            self.entries.popitem(last=False)

    def get(self, key: Key, query: bytes, now: float) -> bytes | None:
        """The kept response with the id and spelling of `query` and with what is left of its TTLs (DNS-46)."""
        kept = self.entries.get(key)
        if kept is None or now >= kept.until:
            self.entries.pop(key, None)
            self.misses += 1
            return None
        self.hits += 1
        age = int(now - kept.since)
        out = bytearray(kept.raw)
        out[:2] = query[:2]
        end = question_end(query)
        out[HEADER_BYTES:end] = query[HEADER_BYTES:end]
        for place in kept.places:
            left = max(0, int.from_bytes(out[place : place + 4], "big") - age)
            out[place : place + 4] = left.to_bytes(4, "big")
        return bytes(out)


def answers_to(question: Question, response: Message) -> bool:
    """Whether a response is to this question, in any spelling."""
    if len(response.questions) != 1 or not response.response:
        return False
    (asked,) = response.questions
    return wire.lower(asked.name) == wire.lower(question.name) and asked[1:] == question[1:]
