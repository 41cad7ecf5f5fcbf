"""Services without any privilege: each address and port of a Service is a port at loopback, and this process passes on
what comes there.

For machines whose kernel has no packet filter that may be written: another operating system, or no rights. What a
listening socket cannot do is different here: endpoints see the proxy's address, a TCP connection that should be dropped
is taken and left without answer, and there is no SCTP. Whom a flow goes to is decided by `decision`, flow by flow.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from kubesvc.clock import Clock, Random

from .backend import Backend, Changes, Mode, RuleCount, Standpoint
from .decision import NewFlow, Surroundings, decide
from .frame import FrameOptions
from .fronts import BALANCER_IP, CLUSTER_IP, EXTERNAL_IP, NODE_PORT, Claim, Front, Fronts, move_all
from .sockets import Choice, Limits, Reach, TcpFront, UdpFront
from .traffic import Family, PortTraffic, ServiceKey, ServicePortName, Target

log = logging.getLogger(__name__)

KINDS = {
    CLUSTER_IP: "ClusterIP",
    BALANCER_IP: "load balancer",
    EXTERNAL_IP: "external IP",
    NODE_PORT: "node port",
}
LOOPBACK: dict[str, str] = {"IPv4": "127.0.0.1", "IPv6": "::1"}
MOST_RECORDS = 10_000
"""Clients remembered per service port; the longest unused go first."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the listing: a front of a Service and the loopback port that stands for it.

    state: "open", "refusing" (no endpoints), or "failed" with `error` saying why
    """

    service: str
    kind: str
    front: str
    protocol: str
    at: str = ""
    state: str = "open"
    error: str = ""


class Listed(msgspec.Struct, frozen=True):
    """What the file of a listing holds."""

    mode: Mode = "userspace"
    fronts: tuple[Entry, ...] = ()


class Listing:
    """The fronts of both families, kept in a file that anyone may read, and remembered over restarts.

    file:    where; None: nowhere
    changed: told of the whole list whenever it changed, both families
    """

    def __init__(self, file: Path | None = None, changed: Callable[[list[Entry]], None] = lambda _: None) -> None:
        self.file = file
        self.changed = changed
        self.entries: dict[str, list[Entry]] = {}
        self.former: dict[tuple[str, str], int] = {}
        self.told: list[Entry] | None = None
        if file is not None and file.exists():
            try:
                for entry in msgspec.json.decode(file.read_bytes(), type=Listed).fronts:
                    if entry.at:
                        self.former[entry.front, entry.protocol] = int(entry.at.rpartition(":")[2])
            except (OSError, ValueError, msgspec.DecodeError) as error:
                log.warning("%s: not readable, ports are chosen anew: %s", file, error)

    def tell(self, family: Family, entries: list[Entry]) -> None:
        """The fronts of a family as they are now."""
        self.entries[family] = entries
        now = [entry for name in sorted(self.entries) for entry in self.entries[name]]
        if now == self.told:
            return
        self.told = now
        if self.file is not None:
            fresh = self.file.with_name(self.file.name + ".new")
            fresh.write_bytes(msgspec.json.format(msgspec.json.encode(Listed(fronts=tuple(now))), indent=1) + b"\n")
            os.replace(fresh, self.file)
        self.changed(now)


class UserspaceBackends:
    """Makes the userspace backends of both families, which share limits and the listing.

    addresses: where to listen, by family
    reach:     where to connect to for a target
    source_of: which address a client counts as, from the address it has and the family; None: loopback is this node
    """

    mode: Mode = "userspace"

    def __init__(
        self,
        clock: Clock,
        random: Random,
        listing: Listing | None = None,
        *,
        limits: Limits | None = None,
        addresses: Mapping[str, str] = LOOPBACK,
        reach: Reach = lambda target: target,
        source_of: Callable[[str, Family], str] | None = None,
    ) -> None:
        self.clock = clock
        self.random = random
        self.listing = listing or Listing()
        self.limits = limits or Limits()
        self.addresses = addresses
        self.reach = reach
        self.source_of = source_of
        self.made: list[UserspaceBackend] = []

    def __call__(self, family: Family) -> Backend:
        backend = UserspaceBackend(family, self)
        self.made.append(backend)
        return backend

    def close(self) -> None:
        """End all fronts and their connections. What is listed stays, so that the next process takes the same ports."""
        for backend in self.made:
            backend.close()


class UserspaceBackend:
    """The loopback ports of one address family."""

    mode: Mode = "userspace"

    def __init__(self, family: Family, house: UserspaceBackends) -> None:
        self.family = family
        self.house = house
        self.anywhere = "::" if family == "IPv6" else "0.0.0.0"
        self.fronts = Fronts((self.anywhere,))
        self.standpoint = Standpoint(FrameOptions(family))
        self.plans: dict[ServiceKey, tuple[PortTraffic, ...]] = {}
        self.held: dict[Front, TcpFront | UdpFront] = {}
        self.claims: dict[ServiceKey, dict[Front, tuple[Claim, PortTraffic]]] = {}
        self.errors: dict[Front, str] = {}
        self.records: dict[ServicePortName, OrderedDict[str, tuple[Target, float]]] = {}
        self.written = 0

    @property
    def ports(self) -> Mapping[ServiceKey, tuple[PortTraffic, ...]]:
        return self.plans

    def stand(self, standpoint: Standpoint) -> None:
        self.standpoint = standpoint

    async def change(self, changes: Changes) -> None:
        affected = move_all(self.fronts, self.plans, changes)
        wanted = {
            key: {claim.front: (claim, port) for port in self.plans.get(key, ()) for claim in self.fronts.owned(port)}
            for key in affected
        }
        taken = {front for fronts in wanted.values() for front in fronts}
        for key in affected:
            for front in self.claims.pop(key, {}):
                if front not in taken:
                    self._drop(front)
        for key, fronts in wanted.items():
            if fronts:
                self.claims[key] = fronts
            for front, (claim, port) in fronts.items():
                await self._offer(front, claim, port)
        self._tell()

    async def load(self, changes: Changes) -> int:
        before = self.written
        await self.change(changes)
        return self.written - before

    async def audit(self) -> bool:
        """Try again what could not be opened."""
        before = self.written
        for fronts in list(self.claims.values()):
            for front, (claim, port) in fronts.items():
                if front in self.errors:
                    await self._offer(front, claim, port)
        self._tell()
        return self.written > before

    async def forget_records(self, keys: Sequence[ServiceKey]) -> None:
        for key in keys:
            names = {port.name: {*port.cluster, *port.local} for port in self.plans.get(key, ())}
            for name in [n for n in self.records if n[:2] == key]:
                live = names.get(name, set())
                for client in [c for c, (target, _) in self.records[name].items() if target not in live]:
                    del self.records[name][client]
                if name not in names:
                    del self.records[name]

    def rule_counts(self) -> list[RuleCount]:
        return []

    def conflicts(self) -> list[tuple[ServicePortName, ServicePortName]]:
        return self.fronts.conflicts()

    def close(self) -> None:
        """Give up all ports, silently."""
        for front in list(self.held):
            self._drop(front)
        self.claims = {}

    async def clean_up(self) -> None:
        self.close()
        self._tell()

    # Sockets.

    async def _offer(self, front: Front, claim: Claim, port: PortTraffic) -> None:
        """Have the socket of a front, open or refusing; forget UDP flows to endpoints that are gone."""
        protocol = port.name.protocol
        if protocol == "SCTP":
            self.errors[front] = "SCTP cannot be passed on by a process"
            return
        held = self.held.get(front)
        if held is None:
            try:
                held = self._bind(claim, port)
            except OSError as error:
                self.errors[front] = error.strerror or str(error)
                return
            self.held[front] = held
            self.written += 1
        self.errors.pop(front, None)
        if isinstance(held, UdpFront) and port.serving:
            serving = frozenset(port.serving)
            held.forget(lambda target: target not in serving)
        try:
            if port.usable:
                await held.open()
            else:
                held.refuse()
        except OSError as error:  # somebody took the port in the moment in which nobody had it
            self._drop(front)
            self.errors[front] = error.strerror or str(error)

    def _bind(self, claim: Claim, port: PortTraffic) -> TcpFront | UdpFront:
        """The socket of a front: at the number it had before, if that is free; a node port's is its own."""
        protocol, address = port.name.protocol, self.house.addresses[self.family]
        former = self.house.listing.former.get((self._text(claim), protocol), 0)
        numbers = (claim.port,) if claim.rank == NODE_PORT else (former, 0) if former else (0,)
        for number in numbers:
            try:
                if protocol == "TCP":
                    return TcpFront(address, number, self._chooser(claim), self.house.limits, self.house.reach)
                return UdpFront(
                    address, number, self._chooser(claim), self.house.limits, self.house.reach, self.house.clock
                )
            except OSError:
                if number == numbers[-1]:
                    raise
        raise AssertionError("there is always a last number")

    def _drop(self, front: Front) -> None:
        self.errors.pop(front, None)
        if (held := self.held.pop(front, None)) is not None:
            held.close()
            self.written += 1

    # Deciding.

    def _chooser(self, claim: Claim) -> Callable[[str], Choice]:
        return lambda client: self._choose(claim, client)

    def _choose(self, claim: Claim, client: str) -> Choice:
        """Where a new flow goes, as the rules would send it."""
        owner = self.fronts.claims.get(claim.front)
        name = self.fronts.owner(claim.front) if owner else None
        port = next((p for p in self.plans.get(name[:2], ()) if p.name == name), None) if name else None
        if port is None:
            return "refuse"
        options = self.standpoint.options
        source = self._source(client)
        at = Surroundings(
            pod_cidr=options.pod_cidr,
            own_addresses=(*(self.standpoint.node_addresses or ()), self.house.addresses[self.family]),
            node_addresses=(self.anywhere,),
        )
        decision = decide((port,), NewFlow(source, claim.address, claim.port, port.name.protocol), at)
        if decision.verdict != "endpoint":
            return "drop" if decision.verdict == "drop" else "refuse"
        return self._spread(port, client, decision.targets)

    def _source(self, client: str) -> str:
        if self.house.source_of is not None:
            return self.house.source_of(client, self.family)
        addresses = self.standpoint.node_addresses
        return addresses[0] if addresses and client == self.house.addresses[self.family] else client

    def _spread(self, port: PortTraffic, client: str, targets: Sequence[Target]) -> Target:
        """One of them at random; with affinity (PROXY-59 to 62) the one the client had not long ago, if it is left."""
        if port.affinity_seconds is None:
            return self.house.random.choice(targets)
        now = self.house.clock.monotonic()
        records = self.records.setdefault(port.name, OrderedDict())
        known = records.get(client)
        fresh = known is not None and known[1] + port.affinity_seconds > now and known[0] in targets
        target = known[0] if known is not None and fresh else self.house.random.choice(targets)
        records[client] = (target, now)
        records.move_to_end(client)
        while len(records) > MOST_RECORDS:
            records.popitem(last=False)
        return target

    # Telling.

    def _text(self, claim: Claim) -> str:
        if claim.rank == NODE_PORT:
            return f"*:{claim.port}"
        return str(Target(claim.address, claim.port))

    def _tell(self) -> None:
        entries = []
        for key in sorted(self.claims):
            for front, (claim, port) in self.claims[key].items():
                held, error = self.held.get(front), self.errors.get(front, "")
                at = str(Target(held.address, held.port)) if held else ""
                state = "failed" if error else "open" if port.usable else "refusing"
                kind, text = KINDS[claim.rank], self._text(claim)
                entries.append(Entry("/".join(key), kind, text, port.name.protocol, at, state, error))
        self.house.listing.tell(self.family, entries)
