"""Which users and groups exist for this process: in a user namespace only those that are mapped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .nsexec import NO_SUCH_ID


@dataclass(frozen=True, slots=True)
class Ids:
    """The mapped ids as (first, count), and whether supplementary groups may be set at all."""

    users: tuple[tuple[int, int], ...]
    groups: tuple[tuple[int, int], ...]
    may_set_groups: bool = True

    def missing(self, user: int, group: int, more_groups: Iterable[int] = ()) -> str:
        """Words for the first id that a process cannot take on here and for what would help; "" if it can all.

        The kernel, asked at the start of such a process, would give the same answer (`nsexec.become_user`).
        """
        if not within(self.users, user):
            return NO_SUCH_ID.format("user", user)
        if not within(self.groups, group):
            return NO_SUCH_ID.format("group", group)
        absent = [g for g in sorted(more_groups) if g and not (self.may_set_groups and within(self.groups, g))]
        return NO_SUCH_ID.format("group", absent[0]) if absent else ""


ALL_IDS = Ids(((0, (1 << 32) - 1),), ((0, (1 << 32) - 1),))


def within(ranges: Iterable[tuple[int, int]], number: int) -> bool:
    return any(first <= number < first + count for first, count in ranges)


def parse_map(text: str) -> tuple[tuple[int, int], ...]:
    """The ids inside, of the lines `inside outside count` of a uid_map or gid_map."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    return tuple((int(inside), int(count)) for inside, _, count in rows)


def read_ids(process: Path = Path("/proc/self")) -> Ids:
    """Those of this process; all of them where the kernel keeps no maps."""
    try:
        users, groups = (parse_map((process / name).read_text()) for name in ("uid_map", "gid_map"))
        allowed = (process / "setgroups").read_text().strip() != "deny"
    except OSError:
        return ALL_IDS
    return Ids(users, groups, allowed)
