"""`python -m kubesvc.cli.forgetting`, run inside a node: the kernel forgets the UDP flows that it is told.

A list of `insight.FlowSeen` comes as JSON on standard input; how many were forgotten leaves on standard output.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence

import msgspec

from kubesvc.kernel.conntrack import Conntrack, KernelConntrack

from .insight import FlowSeen, seen_of


async def forget(flows: Sequence[FlowSeen], conntrack: Conntrack) -> int:
    """Remove these flows where the kernel still has them; how many it had."""
    wanted = set(flows)
    removed = 0
    for family in sorted({socket.AF_INET6 if ":" in f.source else socket.AF_INET for f in flows}):
        known = [f for f in await conntrack.udp_flows(family) if seen_of(f) in wanted]
        removed += await conntrack.forget(family, known)
    return removed


def main() -> int:
    """Read flows, forget them, print how many."""
    flows = msgspec.json.decode(sys.stdin.buffer.read(), type=list[FlowSeen])
    conntrack = KernelConntrack()
    try:
        print(asyncio.run(forget(flows, conntrack)))
    finally:
        conntrack.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
