"""One address family of a node's proxy: plan what changed, write the difference, check now and then, start over when in
doubt. A family fails alone (PROXY-118)."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.service import Service
from kubesvc.client import Informer
from kubesvc.clock import Clock
from kubesvc.kernel.conntrack import Conntrack
from kubesvc.kernel.nft import DeleteElements, DeleteTable, Nft, NftError, NoSuchObject, Transaction
from kubesvc.kernel.nft.table import NFPROTO_IPV4, NFPROTO_IPV6

from .delta import applied
from .flows import plan_stale
from .frame import FrameOptions
from .health import HealthPorts, plan_health
from .nftables import Ruleset, ServiceKey, affinity_lists, affinity_map
from .settings import ProxySettings
from .traffic import (
    Family,
    Place,
    PortTraffic,
    ServicePortName,
    is_of,
    plan_service,
)

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.5
PLANS_BETWEEN_TURNS = 200
"""Services planned before others get a turn of the event loop."""


@dataclass(slots=True)
class Counters:
    """What a family has done, for metrics and tests."""

    syncs: int = 0
    full_syncs: int = 0
    failures: int = 0
    repairs: int = 0
    elements: int = 0
    flows_forgotten: int = 0
    last_sync_seconds: float = 0.0
    last_sync_at: float = 0.0


@dataclass(slots=True)
class World:
    """What both families read: the caches, and where this proxy stands."""

    services: Informer[Service]
    slices_of: Callable[[ServiceKey], list[EndpointSlice]]
    place: Place
    service_cidrs: tuple[str, ...] = ()


@dataclass(slots=True)
class Wishes:
    """What waits for the next sync. Taken whole before the caches are read, so that nothing gets lost in between."""

    services: dict[ServiceKey, None] = field(default_factory=dict)
    everything: bool = True
    audit: bool = False


class FamilySync:
    """Keeps the table of one address family as the caches say it should be.

    `pending_since`: when the oldest change that is not applied was asked for, None if all is applied (PROXY-89).
    """

    def __init__(
        self,
        family: Family,
        world: World,
        nft: Nft,
        conntrack: Conntrack | None,
        clock: Clock,
        settings: ProxySettings,
        node_addresses: Callable[[Family], tuple[str, ...]],
        health_failed: Callable[[ServiceKey, str], None] = lambda *_: None,
    ) -> None:
        self.family = family
        self.world = world
        self.nft = nft
        self.conntrack = conntrack
        self.clock = clock
        self.settings = settings
        self.node_addresses = node_addresses
        self.nfproto = NFPROTO_IPV6 if family == "IPv6" else NFPROTO_IPV4
        self.address_family = socket.AF_INET6 if family == "IPv6" else socket.AF_INET
        self.ruleset = Ruleset(self._options())
        self.wishes = Wishes()
        self.wake = asyncio.Event()
        self.pending_since: float | None = None
        self.counters = Counters()
        self.applied = asyncio.Event()
        """Set once the first full sync succeeded."""
        self.health = HealthPorts(self.keeps_up, health_failed)
        self.conflicts: list[tuple[ServicePortName, ServicePortName]] = []
        self.disturbances = 0
        self.present = False
        """Whether our table is in the kernel, as far as we know."""

    # Asking.

    def touch(self, key: ServiceKey) -> None:
        """This Service, or one of its slices, changed."""
        self.wishes.services[key] = None
        self._ask()

    def touch_everything(self) -> None:
        """Where we stand or what the rules stand on changed."""
        self.wishes.everything = True
        self._ask()

    def _ask(self) -> None:
        if self.pending_since is None:
            self.pending_since = self.clock.monotonic()
        self.wake.set()

    def keeps_up(self) -> bool:
        """Whether no change has waited for long; a proxy that is still starting does (PROXY-86)."""
        if self.pending_since is None or not self.applied.is_set():
            return True
        return self.clock.monotonic() - self.pending_since <= 2 * self.settings.retry_seconds

    # Working.

    async def run(self) -> None:
        """Sync when asked, at once after a quiet time and else no sooner than min_sync_seconds after the last; audit
        from time to time. Never ends but by cancellation; failures are logged and retried."""
        failures = 0
        self._ask()
        next_full = self.clock.monotonic() + self.settings.full_sync_seconds
        while True:
            try:
                async with asyncio.timeout(self.settings.audit_seconds):
                    await self.wake.wait()
            except TimeoutError:
                self.wishes.audit = True
                if self.clock.monotonic() >= next_full:
                    self.wishes.everything = True
                    next_full = self.clock.monotonic() + self.settings.full_sync_seconds
            self.wake.clear()
            started, pending_since = self.clock.monotonic(), self.pending_since
            try:
                self.pending_since = None
                await self.sync()
                failures = 0
            except Exception as error:  # whatever it was, the next sync starts over (PROXY-106, 117)
                self.counters.failures += 1
                self.wishes.everything = True
                self.pending_since = pending_since if pending_since is not None else started
                wait = min(FIRST_RETRY_SECONDS * 2.0**failures, self.settings.retry_seconds)
                failures += 1
                expected = isinstance(error, NftError | OSError)
                log.log(
                    logging.WARNING if expected else logging.ERROR,
                    "%s rules not written: %s; again in %.1f s",
                    self.family,
                    error,
                    wait,
                    exc_info=not expected,
                )
                try:
                    async with asyncio.timeout(wait):
                        await self.wake.wait()
                except TimeoutError:
                    self.wake.set()
            await asyncio.sleep(self.settings.min_sync_seconds)

    async def sync(self) -> None:
        """Bring the kernel in line with the caches. NftError or OSError if it refuses; then everything is due anew."""
        wishes, self.wishes = self.wishes, Wishes(everything=False)
        started = self.clock.monotonic()
        if wishes.everything:
            changed = await self._sync_everything()
        else:
            changed = await self._sync_services(wishes.services) if wishes.services else ()
            if wishes.audit:
                await self._audit()
        self.counters.last_sync_seconds = self.clock.monotonic() - started
        self.counters.last_sync_at = self.clock.now()
        self.counters.syncs += 1
        self.applied.set()
        await self._after(changed)

    def plan(self, key: ServiceKey) -> tuple[PortTraffic, ...]:
        """The service ports of one Service as the caches have it now."""
        service = self.world.services.get(key)
        if service is None:
            return ()
        slices = self.world.slices_of(key)
        return plan_service(service, slices, self.world.place, self.family, external_ips=self.settings.external_ips)

    def _options(self) -> FrameOptions:
        s = self.settings
        cidr = next((c for c in s.cluster_cidrs if is_of(self.family, c)), "")
        cidrs = tuple(c for c in self.world.service_cidrs if is_of(self.family, c))
        return FrameOptions(self.family, s.table, cidr, s.pod_interface, s.masquerade_all, s.masquerade_bit, cidrs)

    async def _sync_everything(self) -> tuple[PortTraffic, ...]:
        """Plan every Service, compare with what the kernel has, write the difference (PROXY-102)."""
        self.counters.full_syncs += 1
        options, addresses = self._options(), self.node_addresses(self.family)
        if (options, addresses) != (self.ruleset.options, self.ruleset.node_addresses):
            self.ruleset = Ruleset(options, addresses, self.ruleset.slots)
        plans: dict[ServiceKey, tuple[PortTraffic, ...]] = dict.fromkeys(self.ruleset.ports, ())
        for number, key in enumerate(self.world.services.keys(), 1):
            plans[key] = self.plan(key)
            if number % PLANS_BETWEEN_TURNS == 0:
                await asyncio.sleep(0)
        before = dict(self.ruleset.ports)
        changes = [(key, ports) for key, ports in plans.items() if before.get(key, ()) != ports]
        for start in range(0, len(changes), PLANS_BETWEEN_TURNS):
            self.ruleset.change(dict(changes[start : start + PLANS_BETWEEN_TURNS]))
            await asyncio.sleep(0)
        await self._repair()
        conflicts = self.ruleset.conflicts()
        for keeper, loser in conflicts:
            if (keeper, loser) not in self.conflicts:
                log.warning("%s has an address and port that %s wants too; the first keeps it", keeper, loser)
        self.conflicts = conflicts
        return _touched(before, plans)

    async def _sync_services(self, keys: Iterable[ServiceKey]) -> tuple[PortTraffic, ...]:
        """Plan these Services and write what changed of them (PROXY-20, 103)."""
        plans = {key: self.plan(key) for key in keys}
        before = {key: self.ruleset.ports.get(key, ()) for key in plans}
        changes = {key: ports for key, ports in plans.items() if before[key] != ports}
        if not changes:
            return ()
        if not self.present:
            self.ruleset.change(changes)
            await self._repair()
        else:
            delta = self.ruleset.change(changes)
            await self._write(self.ruleset.transactions(delta))
        return _touched(before, changes)

    async def _repair(self) -> int:
        """Make the kernel's table the wished one; returns how many transactions that took."""
        self.disturbances = await self.nft.disturbances()
        found = await self.nft.read(self.nfproto, self.settings.table)
        if found is None and not self.ruleset.ports and not self.ruleset.options.service_cidrs:
            self.present = False
            return 0  # nothing to say in this family: leave no table
        transactions = self.ruleset.repair(found)
        await self._write(transactions)
        self.present = True
        return len(transactions)

    async def _audit(self) -> None:
        """Look whether somebody changed rules since, and repair ours if they did."""
        if await self.nft.disturbances() == self.disturbances:
            return
        if await self._repair():
            self.counters.repairs += 1
            log.warning("%s rules had been changed by somebody else, and are repaired", self.family)

    async def _write(self, transactions: list[Transaction]) -> None:
        for transaction in transactions:
            await self.nft.run(transaction)
            self.counters.elements += applied([transaction])
            await asyncio.sleep(0)

    async def _after(self, changed: tuple[PortTraffic, ...]) -> None:
        """What only makes sense once the rules are in force: answer health checks, forget stale flows and records."""
        for key in {port.name[:2]: None for port in changed}:
            self.health.wish(key, plan_health(self.world.services.get(key), self.ruleset.ports.get(key, ())))
        await self.health.apply(self.ruleset.node_addresses)
        try:
            await self._forget_records(changed)
            if self.conntrack and any(port.name.protocol == "UDP" for port in changed):
                await self._forget_flows(self.conntrack)
        except (NftError, OSError) as error:
            log.warning("%s: stale flows or affinity records not cleaned up: %s", self.family, error)

    async def _forget_flows(self, conntrack: Conntrack) -> None:
        flows = await conntrack.udp_flows(self.address_family)
        ports = (port for ports in self.ruleset.ports.values() for port in ports)
        stale = plan_stale(flows, ports)
        if stale:
            self.counters.flows_forgotten += await conntrack.forget(self.address_family, stale)

    async def _forget_records(self, changed: tuple[PortTraffic, ...]) -> None:
        """Clients of an endpoint that left its list are balanced anew at once (PROXY-61)."""
        keys = {port.name[:2] for port in changed}
        for key in sorted(keys):
            for name, allowed in affinity_lists(self.ruleset.ports.get(key, ())):
                spec = affinity_map(self.ruleset.words, name)
                records = await self.nft.read_elements(self.nfproto, self.settings.table, spec)
                for client in sorted(c for c, target in records.items() if target not in allowed):
                    delete = DeleteElements(spec, (client,))
                    try:
                        await self.nft.run(Transaction(self.nfproto, self.settings.table, (delete,)))
                    except NoSuchObject:
                        pass  # ran out meanwhile

    async def clean_up(self) -> None:
        """Remove the table; that none is there is no error (PROXY-121)."""
        try:
            await self.nft.run(Transaction(self.nfproto, self.settings.table, (DeleteTable(),)))
        except NoSuchObject:
            pass


def _touched(
    before: dict[ServiceKey, tuple[PortTraffic, ...]], after: dict[ServiceKey, tuple[PortTraffic, ...]]
) -> tuple[PortTraffic, ...]:
    """The service ports, old and new, of Services that changed."""
    found: list[PortTraffic] = []
    for key, ports in after.items():
        if before.get(key, ()) != ports:
            found += (*before.get(key, ()), *ports)
    return tuple(found)
