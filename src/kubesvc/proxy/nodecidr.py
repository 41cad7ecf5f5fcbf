"""Telling Pods by this node's own range (detector mode NodeCIDR, PROXY-52, 123): wait for it, and notice a change."""

from __future__ import annotations

import asyncio
import logging

from kubesvc.api.node import NODE, Node
from kubesvc.client import Client, Informer
from kubesvc.clock import Clock, Random

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 300.0


class NodeCidrFailed(Exception):
    """The node has no range, or another one than at the start; the text says which."""


class NodeCidrs:
    """The podCIDRs of one node."""

    def __init__(self, client: Client, node: str, clock: Clock, random: Random) -> None:
        self.node = node
        self.nodes: Informer[Node] = Informer(
            client, NODE, field_selector=f"metadata.name={node}", clock=clock, random=random
        )
        self.changed = asyncio.Event()
        self.nodes.on_change(lambda *_: self.changed.set())

    def now(self) -> tuple[str, ...]:
        node = self.nodes.get(("", self.node))
        return tuple(node.spec.pod_cidrs or ()) if node is not None else ()

    async def first(self) -> tuple[str, ...]:
        """The ranges, once the node has any. NodeCidrFailed after five minutes without."""
        running = asyncio.ensure_future(self.nodes.run())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not self.now():
                    await self.changed.wait()
                    self.changed.clear()
        except TimeoutError:
            raise NodeCidrFailed(f"node {self.node} has no podCIDR after {PATIENCE_SECONDS:.0f} s") from None
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return self.now()

    async def watch(self, started_with: tuple[str, ...]) -> None:
        """NodeCidrFailed when the ranges change: rules and their user must start anew. One
        that goes is no change."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.nodes.run())
            while True:
                await self.changed.wait()
                self.changed.clear()
                now = self.now()
                if now and now != started_with:
                    raise NodeCidrFailed(
                        f"the podCIDRs of node {self.node} changed from {', '.join(started_with)} to {', '.join(now)}"
                    )
