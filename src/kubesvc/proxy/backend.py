"""The seam between the loop and a way to steer packets: what the loop asks of a backend, and what it is told back.

One backend keeps the rules of one address family. `nftbackend`, `iptablesbackend` and `userspace` are the three there
are; each renders from the same service ports (`traffic`), so that they differ in means and not in meaning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from .frame import FrameOptions
from .traffic import Family, PortTraffic, ServiceKey, ServicePortName

Mode = Literal["nftables", "iptables", "userspace"]
Changes = Mapping[ServiceKey, Sequence[PortTraffic]]
"""Service ports by Service; none: the Service is gone, or not for us."""
Plans = dict[ServiceKey, tuple[PortTraffic, ...]]
SERVICES_BETWEEN_TURNS = 200


class Refused(Exception):
    """The kernel will not have the rules it was given, and asking again would not help.

    What was asked for is not in force, or not wholly; what was in force before still serves.
    suspects: Services of which one is the reason, () if any of those written may be
    """

    def __init__(self, message: str, suspects: tuple[ServiceKey, ...] = ()) -> None:
        super().__init__(message)
        self.suspects = suspects


async def take_in(change: Callable[[Changes], object], changes: Changes) -> None:
    """Take changes into a ruleset some at a time, so that others get a turn of the event loop in between."""
    keys = list(changes)
    for start in range(0, len(keys), SERVICES_BETWEEN_TURNS):
        change({key: changes[key] for key in keys[start : start + SERVICES_BETWEEN_TURNS]})
        await asyncio.sleep(0)


class Standpoint(msgspec.Struct, frozen=True):
    """What rules depend on besides Services.

    options:        how pods are told, which ranges are Services', whom to masquerade
    node_addresses: where node ports are reached; None: at every address of this node but loopback (PROXY-69)
    """

    options: FrameOptions
    node_addresses: tuple[str, ...] | None = ()


class RuleCount(msgspec.Struct, frozen=True):
    """Rules of one table of iptables: all of ours, and those that the last sync wrote (PROXY-134)."""

    table: str
    all: int
    last: int


class Backend(Protocol):
    """The rules of one address family, in one network namespace.

    mode:    which way this is
    family:  the family it serves
    ports:   what the rules say, or will say once a failed write is made good
    written: how many elements or rules were written so far; only grows
    """

    mode: Mode
    family: Family
    written: int

    @property
    def ports(self) -> Mapping[ServiceKey, tuple[PortTraffic, ...]]: ...

    def stand(self, standpoint: Standpoint) -> None:
        """From here on. Takes effect at the next `load`, which must follow."""

    async def change(self, changes: Changes) -> None:
        """Take in these Services and write the difference, at a cost that does not grow with the others.

        Refused, or OSError or another error of the kernel's door: then `ports` has the new plans all the same, and
        `load` must follow.
        """

    async def load(self, changes: Changes) -> int:
        """Take in these Services, compare everything with what is in force, and write the difference, in an order in
        which every step serves. Returns how many writes that took. Fails as `change` does."""

    async def audit(self) -> bool:
        """Look whether somebody else changed our rules, and repair them; whether there was anything to repair."""

    async def forget_records(self, keys: Sequence[ServiceKey]) -> None:
        """Clients remembered for an endpoint that left the lists of these Services are balanced anew (PROXY-61)."""

    def rule_counts(self) -> list[RuleCount]:
        """How many rules there are, where rules are what grows with Services; else nothing."""

    def conflicts(self) -> list[tuple[ServicePortName, ServicePortName]]:
        """Pairs of (who keeps an address and port, who wants it too), in order, each once."""

    async def clean_up(self) -> None:
        """Remove everything of ours; that nothing is there is no error (PROXY-121)."""


class Backends(Protocol):
    """Makes the backend of a family; `mode` says which kind."""

    mode: Mode

    def __call__(self, family: Family) -> Backend: ...

    def close(self) -> None:
        """End the use of the kernel's door, or of the sockets; rules stay as they are. Once nothing syncs any more."""


class SyncReport(msgspec.Struct, frozen=True):
    """One sync that succeeded, for metrics.

    family:    whose rules
    full:      whether everything was compared (PROXY-128)
    started, ended: monotonic seconds
    finished_at:    seconds since 1970
    services:  Services whose plan changed
    written:   elements or rules written
    flows_forgotten:  UDP flows removed after it, and the seconds that took (PROXY-135); -1 and 0 where none was looked
    """

    family: Family
    full: bool
    started: float
    ended: float
    finished_at: float
    services: tuple[ServiceKey, ...] = ()
    written: int = 0
    flows_forgotten: int = -1
    flows_seconds: float = 0.0
