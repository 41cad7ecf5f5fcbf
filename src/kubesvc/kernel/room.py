"""How full the kernel's table of connections is. Once it is full, new connections are lost, whatever any rule says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

NEARLY_FULL = 0.9
REMEDY = "on the machine itself: sysctl -w net.netfilter.nf_conntrack_max=N; conntrack -L shows who holds them"
Crowding = Literal["", "nearly full", "full"]


class Room(msgspec.Struct, frozen=True):
    """The table of one network namespace.

    connections: how many there are
    most:        how many the kernel lets each namespace have; one number for the whole machine
    lost:        packets dropped since the namespace was made, since no connection could be noted for them
    """

    connections: int
    most: int
    lost: int = 0

    def crowding(self, before: Room | None = None) -> Crowding:
        """Full if no connection fits any more, or if packets were lost since `before` while hardly any did."""
        nearly = self.connections >= NEARLY_FULL * self.most > 0
        lost = before is not None and self.lost > before.lost
        if nearly and (lost or self.connections >= self.most):
            return "full"
        return "nearly full" if nearly else ""

    def sentence(self, before: Room | None = None) -> str:
        """That in words, with the figures; "" if there is room."""
        held = f"{self.connections:,} of {self.most:,} connections"
        match self.crowding(before):
            case "nearly full":
                return f"the kernel's table of connections is nearly full: {held}; once it is, new connections are lost"
            case "full":
                dropped = f" ({self.lost:,} packets dropped so far)" if self.lost else ""
                return (
                    f"the kernel's table of connections is full: {held}; new connections are lost, whatever the rules"
                    f" say{dropped}"
                )
        return ""


def read_room(proc: Path = Path("/proc")) -> Room | None:
    """The room in the network namespace of this thread; None where the kernel tracks no connections."""
    settings = proc / "sys/net/netfilter"
    try:
        connections, most = (int((settings / f"nf_conntrack_{name}").read_text()) for name in ("count", "max"))
        names, *rows = (proc / "thread-self/net/stat/nf_conntrack").read_text().splitlines()
        by_processor = [dict(zip(names.split(), row.split(), strict=False)) for row in rows]
        return Room(connections, most, sum(int(row.get("drop", "0"), 16) for row in by_processor))
    except (OSError, ValueError):
        return None
