"""Asks other resolvers about names that are not the cluster's (DNS-51 to DNS-55)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kubesvc.clock import Clock, Random

from . import wire
from .cache import Cache, answers_to, key_of
from .responder import NotForwarded, Overloaded, Unanswered
from .snapshot import packed
from .wire import Edns, FormatError, Message, Name, Question, Record

MOST_UPSTREAMS = 15
MOST_AT_ONCE = 1000
TRY_SECONDS = 2.0
WHOLE_SECONDS = 5.0
PROBE_SECONDS = 0.5
DOWN_AFTER = 2
"""Failed probes after which a resolver counts as down."""

Place = tuple[str, int] | Path
"""Where a resolver listens: address and port, or a unix socket that speaks as TCP does."""


@dataclass(frozen=True, kw_only=True)
class ForwardSettings:
    """Whom to ask.

    upstreams:    resolvers for everything else, at most 15 are used
    stub_domains: resolvers by domain, for names at or below it; the longest domain wins (DNS-52)
    """

    upstreams: tuple[Place, ...] = ()
    stub_domains: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)

    def refuse_loop(self, own: Sequence[tuple[str, int]]) -> None:
        """ValueError if a resolver to ask is one of our own addresses: every question would come back (DNS-55)."""
        mine = {(packed(address), port) for address, port in own}
        for place in (*self.upstreams, *(p for places in self.stub_domains.values() for p in places)):
            if not isinstance(place, Path) and (packed(place[0]), place[1]) in mine:
                raise ValueError(
                    f"upstream {place[0]} port {place[1]} is this DNS server itself: every question would come back: "
                    "name another resolver"
                )


def upstreams_of(resolver_file: str) -> tuple[Place, ...]:
    """The resolvers a resolver file names, in its order."""
    words = (line.split() for line in resolver_file.splitlines())
    named = dict.fromkeys(w[1] for w in words if len(w) > 1 and w[0] == "nameserver" and packed(w[1]))
    return tuple((address, 53) for address in named)


class Transport(Protocol):
    """One question to one resolver; OSError or TimeoutError when nothing comes."""

    async def ask(self, place: Place, query: bytes, tcp: bool) -> bytes: ...


class Network:
    """Real sockets: a fresh one, with a port of its own, for each question."""

    async def ask(self, place: Place, query: bytes, tcp: bool) -> bytes:
        async with asyncio.timeout(TRY_SECONDS):
            if tcp or isinstance(place, Path):
                return await self._over_stream(place, query)
            return await self._over_udp(place, query)

    async def _over_udp(self, place: tuple[str, int], query: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(place)  # from now on only that resolver can answer
            await loop.sock_sendall(sock, query)
            while True:
                response = await loop.sock_recv(sock, 65535)
                if response[:2] == query[:2]:
                    return response

    async def _over_stream(self, place: Place, query: bytes) -> bytes:
        if isinstance(place, Path):
            reader, writer = await asyncio.open_unix_connection(place)
        else:
            reader, writer = await asyncio.open_connection(*place)
        try:
            writer.write(len(query).to_bytes(2, "big") + query)
            length = int.from_bytes(await reader.readexactly(2), "big")
            return await reader.readexactly(length)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the resolver ended the connection") from error
        finally:
            writer.close()


@dataclass(eq=False, slots=True)
class Upstream:
    place: Place
    failures: int = 0
    probing: asyncio.Task[None] | None = None


class UpstreamForwarder:
    """`Forwarder` over a few resolvers: one at random, the next when it fails; those that fail are probed until they
    answer again (DNS-53). Responses are kept for a while (DNS-45)."""

    def __init__(
        self, settings: ForwardSettings, clock: Clock, random: Random, transport: Transport | None = None
    ) -> None:
        self.clock = clock
        self.random = random
        self.transport = transport or Network()
        self.cache = Cache()
        self.under_way = 0
        known: dict[Place, Upstream] = {}

        def group(places: Sequence[Place]) -> list[Upstream]:
            return [known.setdefault(place, Upstream(place)) for place in places[:MOST_UPSTREAMS]]

        self.default = group(settings.upstreams)
        self.stubs: dict[Name, list[Upstream]] = {
            wire.lower(wire.name_of(domain)): group(places) for domain, places in settings.stub_domains.items()
        }

    def upstreams_for(self, name: Name) -> list[Upstream]:
        """Those of the longest stub domain at or above the name, else the default ones."""
        name = wire.lower(name)
        for i in range(len(name)):
            if found := self.stubs.get(name[i:]):
                return found
        return self.default

    async def exchange(self, query: bytes, tcp: bool) -> bytes:
        message = wire.decode(query)
        if not self.upstreams_for(message.questions[0].name):
            raise NotForwarded
        key = key_of(message)
        kept = self.cache.get(key, query, self.clock.monotonic())
        if kept is not None:
            return kept
        if self.under_way >= MOST_AT_ONCE:
            raise Overloaded
        self.under_way += 1
        try:
            async with asyncio.timeout(WHOLE_SECONDS):
                response = await self._ask_around(query, message.questions[0], tcp)
        except TimeoutError as error:
            raise Unanswered from error
        finally:
            self.under_way -= 1
        self.cache.put(key, response, self.clock.monotonic())
        return response

    async def _ask_around(self, query: bytes, question: Question, tcp: bool) -> bytes:
        """The first response that comes, in a random order of resolvers, those that are down left out."""
        upstreams = self.upstreams_for(question.name)
        up = [u for u in upstreams if u.failures < DOWN_AFTER] or upstreams[:]
        for upstream in self.random.sample(up, len(up)):
            renamed = self.random.getrandbits(16).to_bytes(2, "big") + query[2:]
            try:
                response = await self.transport.ask(upstream.place, renamed, tcp)
                read = wire.decode(response)
            except (OSError, TimeoutError, FormatError):
                self._probe(upstream)
                continue
            if response[:2] == renamed[:2] and answers_to(question, read):
                return query[:2] + response[2:]
        raise Unanswered

    def _probe(self, upstream: Upstream) -> None:
        """Watch a resolver that failed until it answers again; one watch each."""
        if upstream.probing is None or upstream.probing.done():
            upstream.probing = asyncio.get_running_loop().create_task(self._probe_until_well(upstream))

    async def _probe_until_well(self, upstream: Upstream) -> None:
        query = wire.encode(Message(recursion_desired=True, questions=(Question((), wire.NS),)))
        while True:
            try:
                await self.transport.ask(upstream.place, query, False)
            except (OSError, TimeoutError):
                upstream.failures += 1
                await asyncio.sleep(PROBE_SECONDS)
            else:
                upstream.failures = 0
                return

    async def lookup(self, question: Question) -> tuple[Record, ...]:
        query = wire.encode(
            Message(id=self.random.getrandbits(16), recursion_desired=True, questions=(question,), edns=Edns(size=1232))
        )
        response = wire.decode(await self.exchange(query, False))
        if response.truncated:
            response = wire.decode(await self.exchange(query, True))
        wanted = (question.type, wire.CNAME)
        return tuple(r for r in response.answers if r.type in wanted and r.klass == wire.IN)

    async def close(self) -> None:
        """End the probes."""
        everyone = [*self.default, *(u for group in self.stubs.values() for u in group)]
        tasks = [u.probing for u in everyone if u.probing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
