"""One address family of a node's proxy: plan what changed, have the backend write the difference, check now and then,
start over when in doubt. A family fails alone (PROXY-118)."""

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
from kubesvc.kernel.iptables import IptablesError
from kubesvc.kernel.nft import NftError

from .backend import Backend, Plans, Refused, Standpoint, SyncReport
from .flows import plan_stale
from .frame import FrameOptions
from .health import HealthPorts, plan_health
from .isolation import Isolation, Refusal
from .settings import ProxySettings
from .traffic import (
    Family,
    Place,
    PortTraffic,
    ServiceKey,
    ServicePortName,
    is_of,
    plan_service,
)

log = logging.getLogger(__name__)

TROUBLE = (NftError, IptablesError, Refused, OSError)
"""What doors to the kernel may raise."""
REASON_REFUSED = "ProxyRulesRefused"
"""Reason of the Warning on a Service whose rules the kernel will not have."""
REASON_TAKEN = "ProxyAddressTaken"
"""Reason of the Warning on a Service that wants an address and port that another has, such as its external IP."""
FIRST_RETRY_SECONDS = 0.5
PLANS_BETWEEN_TURNS = 200
"""Services planned before others get a turn of the event loop."""


@dataclass(slots=True)
class Counters:
    """What a family has done, for metrics and tests."""

    syncs: int = 0
    full_syncs: int = 0
    failures: int = 0
    partial_failures: int = 0
    """Those of the failures at which only what had changed was to be written (PROXY-134)."""
    repairs: int = 0
    refusals: int = 0
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


@dataclass(slots=True)
class Listeners:
    """Who is told of what a family does.

    trouble: a Service, the reason of the Warning (PROXY-84), and a message
    synced:  every sync that succeeded, after what follows it
    refused: all Services of a family whose rules are refused, with what was said, whenever that changed
    """

    trouble: Callable[[ServiceKey, str, str], None] = lambda *_: None
    synced: Callable[[SyncReport], None] = lambda _: None
    refused: Callable[[Family, dict[ServiceKey, str]], None] = lambda *_: None


class FamilySync:
    """Keeps the rules of one address family as the caches say they should be.

    `pending_since`: when the oldest change that is not applied was asked for, None if all is applied (PROXY-89).
    """

    def __init__(
        self,
        world: World,
        backend: Backend,
        conntrack: Conntrack | None,
        clock: Clock,
        settings: ProxySettings,
        node_addresses: Callable[[Family], tuple[str, ...] | None],
        listeners: Listeners | None = None,
    ) -> None:
        self.family = backend.family
        self.world = world
        self.backend = backend
        self.isolation = Isolation(backend)
        self.listeners = listeners or Listeners()
        self.conntrack = conntrack
        self.clock = clock
        self.settings = settings
        self.node_addresses = node_addresses
        self.address_family = socket.AF_INET6 if self.family == "IPv6" else socket.AF_INET
        self.wishes = Wishes()
        self.wake = asyncio.Event()
        self.pending_since: float | None = None
        self.counters = Counters()
        self.applied = asyncio.Event()
        """Set once the first full sync succeeded."""
        self.health = HealthPorts(
            self.keeps_up, lambda key, message: self.listeners.trouble(key, "FailedToStartServiceHealthcheck", message)
        )
        self.conflicts: list[tuple[ServicePortName, ServicePortName]] = []

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
            partial = not self.wishes.everything
            try:
                self.pending_since = None
                await self.sync()
                failures = 0
            except Exception as error:  # whatever it was, the next sync starts over (PROXY-106, 117)
                self.counters.failures += 1
                self.counters.partial_failures += partial
                self.wishes.everything = True
                self.pending_since = pending_since if pending_since is not None else started
                wait = min(FIRST_RETRY_SECONDS * 2.0**failures, self.settings.retry_seconds)
                failures += 1
                expected = isinstance(error, TROUBLE)
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
        """Bring the kernel in line with the caches. An error of its door if it will not; then all is due anew."""
        wishes, self.wishes = self.wishes, Wishes(everything=False)
        started, written = self.clock.monotonic(), self.backend.written
        if wishes.everything:
            changed = await self._sync_everything()
        else:
            changed = await self._sync_services(wishes.services) if wishes.services else ()
            if wishes.audit:
                await self._audit()
        ended = self.clock.monotonic()
        self.counters.last_sync_seconds = ended - started
        self.counters.last_sync_at = self.clock.now()
        self.counters.syncs += 1
        self.applied.set()
        forgotten = await self._after(changed)
        self.listeners.synced(
            SyncReport(
                self.family,
                wishes.everything,
                started,
                ended,
                self.counters.last_sync_at,
                tuple({port.name[:2]: None for port in changed}),
                self.backend.written - written,
                forgotten,
                self.clock.monotonic() - ended if forgotten >= 0 else 0.0,
            )
        )

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
        """Plan every Service, compare with what is in force, write the difference (PROXY-102)."""
        self.counters.full_syncs += 1
        self.backend.stand(Standpoint(self._options(), self.node_addresses(self.family)))
        plans: Plans = dict.fromkeys(self.backend.ports, ())
        for number, key in enumerate(self.world.services.keys(), 1):
            plans[key] = self.plan(key)
            if number % PLANS_BETWEEN_TURNS == 0:
                await asyncio.sleep(0)
        before = dict(self.backend.ports)
        plans = self.isolation.worth_trying(plans)
        known = dict(self.isolation.refused)
        await self.isolation.load({key: ports for key, ports in plans.items() if before.get(key, ()) != ports})
        self._tell_refusals(known)
        self._tell_conflicts()
        return _touched(before, plans)

    async def _sync_services(self, keys: Iterable[ServiceKey]) -> tuple[PortTraffic, ...]:
        """Plan these Services and write what changed of them (PROXY-20, 103)."""
        plans = self.isolation.worth_trying({key: self.plan(key) for key in keys})
        before = {key: self.backend.ports.get(key, ()) for key in plans}
        changes = {key: ports for key, ports in plans.items() if before[key] != ports}
        known = dict(self.isolation.refused)
        for key in [key for key in plans if key not in changes]:
            self.isolation.refused.pop(key, None)  # back to what is in force
        if not changes:
            self._tell_refusals(known)
            return ()
        await self.isolation.change(changes)
        self._tell_refusals(known)
        self._tell_conflicts()
        return _touched(before, changes)

    def _tell_conflicts(self) -> None:
        """Who does not get an address and port that another has is told so, once."""
        conflicts = self.backend.conflicts()
        for keeper, loser in conflicts:
            if (keeper, loser) not in self.conflicts:
                message = (
                    f"Port {loser.port or loser.protocol} wants an address and port that {keeper} has, which keeps it"
                )
                self.listeners.trouble(loser[:2], REASON_TAKEN, message)
        self.conflicts = conflicts

    def _tell_refusals(self, known: dict[ServiceKey, Refusal]) -> None:
        if known != self.isolation.refused:
            self.listeners.refused(self.family, {k: r.message for k, r in self.isolation.refused.items()})
        for key, refusal in self.isolation.refused.items():
            if known.get(key) != refusal:
                self.counters.refusals += 1
                message = f"The {self.backend.mode} rules for {self.family} were refused, former ones stay: "
                self.listeners.trouble(key, REASON_REFUSED, message + refusal.message)

    async def _audit(self) -> None:
        """Look whether somebody changed rules since, and repair ours if they did; try again what was refused."""
        if await self.backend.audit():
            self.counters.repairs += 1
            log.warning("%s rules had been changed by somebody else, and are repaired", self.family)
        if self.isolation.refused:
            known = dict(self.isolation.refused)
            await self.isolation.retry()
            self._tell_refusals(known)

    async def _after(self, changed: tuple[PortTraffic, ...]) -> int:
        """What only makes sense once the rules are in force: answer health checks, forget stale flows and records.
        Returns how many flows were forgotten, -1 if none were looked for."""
        keys = list({port.name[:2]: None for port in changed})
        for key in keys:
            self.health.wish(key, plan_health(self.world.services.get(key), self.backend.ports.get(key, ())))
        await self.health.apply(self._health_addresses())
        try:
            await self.backend.forget_records(keys)
            if self.conntrack and any(port.name.protocol == "UDP" for port in changed):
                return await self._forget_flows(self.conntrack)
        except TROUBLE as error:
            log.warning("%s: stale flows or affinity records not cleaned up: %s", self.family, error)
        return -1

    def _health_addresses(self) -> tuple[str, ...]:
        """Where health checks are answered: at node ports' addresses, all of them as one listener (PROXY-71, 84)."""
        if self.backend.mode == "userspace":
            return ("::1" if self.family == "IPv6" else "127.0.0.1",)
        chosen = self.node_addresses(self.family)
        return chosen if chosen is not None else ("::" if self.family == "IPv6" else "0.0.0.0",)

    async def _forget_flows(self, conntrack: Conntrack) -> int:
        flows = await conntrack.udp_flows(self.address_family)
        ports = (port for ports in self.backend.ports.values() for port in ports)
        stale = plan_stale(flows, ports)
        forgotten = await conntrack.forget(self.address_family, stale) if stale else 0
        self.counters.flows_forgotten += forgotten
        return forgotten

    async def clean_up(self) -> None:
        """Remove everything of ours."""
        await self.backend.clean_up()


def _touched(
    before: dict[ServiceKey, tuple[PortTraffic, ...]], after: dict[ServiceKey, tuple[PortTraffic, ...]]
) -> tuple[PortTraffic, ...]:
    """The service ports, old and new, of Services that changed."""
    found: list[PortTraffic] = []
    for key, ports in after.items():
        if before.get(key, ()) != ports:
            found += (*before.get(key, ()), *ports)
    return tuple(found)
