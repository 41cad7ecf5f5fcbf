"""When the kernel refuses rules: which Service is the reason, so that all others have theirs.

One Service that cannot be written must not keep a node from following the rest. What was refused is tried again in
halves, each put back before the next; in the end the culprits keep what they had before, and are remembered.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .backend import Backend, Changes, Plans, Refused
from .traffic import PortTraffic, ServiceKey


class Refusal(msgspec.Struct, frozen=True):
    """A Service's plan that cannot be written, and what was said to it."""

    plan: tuple[PortTraffic, ...]
    message: str


class Isolation:
    """Writes through a backend and sets aside what it refuses.

    `refused`: Services whose plan is not in force, with the reason; they keep what they had before.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.refused: dict[ServiceKey, Refusal] = {}

    def worth_trying(self, plans: Plans) -> Plans:
        """The plans without those that were refused as they are now."""
        if not self.refused:
            return plans
        return {k: p for k, p in plans.items() if (known := self.refused.get(k)) is None or known.plan != p}

    async def change(self, changes: Changes) -> None:
        """As the backend's, but Refused only if no Service is the reason."""
        before = self._before(changes)
        try:
            await self.backend.change(changes)
        except Refused:
            try:
                await self.backend.load({})  # somebody else's change may have been the reason
            except Refused as refused:
                await self._isolate(changes, before, refused)
                return
        self._written(changes)

    async def load(self, changes: Changes) -> int:
        """As the backend's, but Refused only if no Service is the reason."""
        before = self._before(changes)
        try:
            written = await self.backend.load(changes)
        except Refused as refused:
            await self._isolate(changes, before, refused)
            return 1
        self._written(changes)
        return written

    async def retry(self) -> None:
        """Try what was refused once more: what the kernel lacked, it may have by now."""
        for key in sorted(self.refused):
            plan = self.refused[key].plan
            await self._halve([key], {key: plan}, self._before({key: plan}), {key: plan})

    def _before(self, changes: Changes) -> Plans:
        return {key: self.backend.ports.get(key, ()) for key in changes}

    def _written(self, changes: Changes) -> None:
        for key in [k for k in self.refused if k in changes]:
            del self.refused[key]

    async def _isolate(self, changes: Changes, before: Plans, refused: Refused) -> None:
        """Put back whatever may be the reason, until the rest can be written; then find it among that."""
        wanted: Plans = {key: tuple(ports) for key, ports in changes.items()}
        suspects: dict[ServiceKey, None] = {}
        while True:
            more = [key for key in refused.suspects if key not in suspects]
            more = more or [key for key in wanted if key not in suspects]  # it was none of those
            if not more:
                raise refused
            for key in more:
                suspects[key] = None
                if key not in wanted:  # it was in force, and can be so no more
                    wanted[key], before[key] = self.backend.ports.get(key, ()), ()
            try:
                await self.backend.load({key: before[key] for key in suspects})
                break
            except Refused as again:
                refused = again
        self._written({key: wanted[key] for key in changes if key not in suspects})
        await self._halve(list(suspects), wanted, before, changes)

    async def _halve(self, keys: Sequence[ServiceKey], wanted: Changes, before: Plans, asked: Changes) -> None:
        """Write these Services, in ever smaller parts. Those of `asked` have a new plan; others are put back."""
        part = {key: wanted[key] for key in keys}
        try:
            await self.backend.change(part)
        except Refused as refused:
            await self.backend.load({key: before[key] for key in keys})
            if len(keys) == 1:
                self.refused[keys[0]] = Refusal(tuple(wanted[keys[0]]), str(refused))
                return
            middle = len(keys) // 2
            await self._halve(keys[:middle], wanted, before, asked)
            await self._halve(keys[middle:], wanted, before, asked)
        else:
            self._written({key: part[key] for key in part if key in asked})
