"""Leader election by a Lease: of several that want to do the same work, one does it at a time.

Every candidate looks at the Lease every few seconds. It is free when nobody holds it, or when its holder has not
renewed it for its whole duration *as seen on the candidate's own clock*, so that clocks need not agree. The holder
renews; when it cannot for `renew_deadline` seconds it stops leading before anybody else can begin, and says so by
raising `LeadershipLost`. Who stops on purpose gives the Lease back, and the next one need not wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.lease import LEASE, Lease, LeaseSpec
from kubesvc.api.meta import Object, typed
from kubesvc.clock import Clock, Random, rfc3339_micro

from .interface import Client, Unreachable, loudness

log = logging.getLogger(__name__)

JITTER = 1.2
"""Candidates look again after one to 1 + JITTER retry periods, so that they do not all look at once."""


class LeadershipLost(Exception):
    """Somebody else holds the Lease now, or it could not be renewed in time."""


@dataclass(frozen=True, kw_only=True)
class LeaderSettings:
    """The Lease and its timings, in seconds, with upstream's defaults; nonsense is a ValueError that names the flag.

    lease_duration: after so long without a renewal others may take over
    renew_deadline: after so long without a successful renewal the holder stops
    retry_period:   how often to look, or to renew
    """

    namespace: str = "kube-system"
    name: str = ""
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0

    def __post_init__(self) -> None:
        if self.lease_duration < 1 or self.lease_duration <= self.renew_deadline:
            raise ValueError("--leader-elect-lease-duration: must be at least 1 and greater than the renew deadline")
        if self.retry_period <= 0 or self.renew_deadline <= JITTER * self.retry_period:
            raise ValueError("--leader-elect-renew-deadline: must be greater than 1.2 times the retry period")


class LeaderElector:
    """One candidate. `identity` tells it from all others; it must not be used twice at a time."""

    def __init__(self, client: Client, settings: LeaderSettings, identity: str, clock: Clock, random: Random) -> None:
        self.client = client
        self.settings = settings
        self.identity = identity
        self.clock = clock
        self.random = random
        self.leader = ""
        """Who holds the Lease as far as we know; "" for nobody."""
        self._seen: LeaseSpec | None = None
        self._seen_at = 0.0

    @property
    def leading(self) -> bool:
        return self.leader == self.identity

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for leadership, then do `work` while it lasts.

        Ends when `work` does. Raises what `work` raises, or LeadershipLost after having cancelled it. Gives the Lease
        back when it ends for any other reason than having lost it.
        """
        await self.acquire()
        log.info("%s leads by Lease %s/%s", self.identity, self.settings.namespace, self.settings.name)
        working = asyncio.ensure_future(work())
        renewing = asyncio.ensure_future(self.renew())
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            else:
                renewing.result()
        finally:
            for task in (working, renewing):
                task.cancel()
            await asyncio.gather(working, renewing, return_exceptions=True)
            await self.release()

    async def acquire(self) -> None:
        """Return once the Lease is ours."""
        while not await self.try_once():
            await asyncio.sleep(self.settings.retry_period * (1 + JITTER * self.random.random()))

    async def renew(self) -> None:
        """Renew for ever; LeadershipLost when that has not worked for the renew deadline."""
        last = self.clock.monotonic()
        while True:
            await asyncio.sleep(self.settings.retry_period)
            left = self.settings.renew_deadline - (self.clock.monotonic() - last)
            try:
                async with asyncio.timeout(max(left, 0)):
                    renewed = await self.try_once()
            except TimeoutError:
                renewed = False
            if renewed:
                last = self.clock.monotonic()
            elif not self.leading or self.clock.monotonic() - last >= self.settings.renew_deadline:
                holder = "nobody we could ask" if self.leading else self.leader
                where = f"Lease {self.settings.namespace}/{self.settings.name}"
                raise LeadershipLost(f"{self.identity} no longer leads by {where}: held by {holder}")

    async def try_once(self) -> bool:
        """Take or renew the Lease if it may be ours now; failures of the server count as no."""
        try:
            return await self._take()
        except (ApiError, Unreachable) as error:
            log.debug("Lease %s/%s: %s", self.settings.namespace, self.settings.name, error)
            return False

    async def _take(self) -> bool:
        settings, now = self.settings, self.clock.monotonic()
        stamp = rfc3339_micro(self.clock.now())
        mine: Object = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(settings.lease_duration),
            "acquireTime": stamp,
            "renewTime": stamp,
            "leaseTransitions": 0,
        }
        try:
            plain = await self.client.get(LEASE, settings.name, settings.namespace)
        except NotFound:
            meta = {"name": settings.name, "namespace": settings.namespace}
            plain = await self.client.create(LEASE, {"metadata": meta, "spec": mine}, settings.namespace)
            self._note(plain, now)
            return True
        spec = self._note(plain, now)
        if spec.holder_identity == self.identity:
            mine["acquireTime"] = spec.acquire_time or stamp
            mine["leaseTransitions"] = spec.lease_transitions or 0
        elif spec.holder_identity and self._seen_at + (spec.lease_duration_seconds or 0) > now:
            return False
        else:
            mine["leaseTransitions"] = (spec.lease_transitions or 0) + 1
        plain["spec"] = {**plain.get("spec", {}), **mine}
        self._note(await self.client.update(LEASE, plain), now)
        return True

    def _note(self, plain: Object, now: float) -> LeaseSpec:
        """Remember the Lease as it is, and since when it has been so."""
        spec = typed(plain, Lease).spec
        if spec != self._seen:
            self._seen, self._seen_at = spec, now
        self.leader = spec.holder_identity or ""
        return spec

    async def release(self) -> None:
        """Give the Lease back, if it is ours; a failure leaves it to run out."""
        if not self.leading:
            return
        settings = self.settings
        try:
            plain = await self.client.get(LEASE, settings.name, settings.namespace)
            if typed(plain, Lease).spec.holder_identity != self.identity:
                return
            stamp = rfc3339_micro(self.clock.now())
            plain["spec"] |= {
                "holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": stamp, "renewTime": stamp,
            }  # fmt: skip
            await self.client.update(LEASE, plain)
            self.leader = ""
        except (ApiError, Unreachable) as error:
            log.log(loudness(error), "Lease %s/%s was not given back: %s", settings.namespace, settings.name, error)
