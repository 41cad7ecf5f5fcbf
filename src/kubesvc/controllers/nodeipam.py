"""Node IPAM: gives each node its pod addresses, a /24 (IPv4) and a /64 (IPv6) of the cluster's ranges (NODE-1)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from kubesvc.api.addresses import Network
from kubesvc.api.errors import NotFound
from kubesvc.api.kinds import NODE
from kubesvc.api.node import Node
from kubesvc.client.workqueue import Key

from .runner import Controller, ControllerContext, key_of

MASK = {4: 24, 6: 64}


def plan_pod_cidrs(
    ranges: Sequence[str], taken: Iterable[str], wish: int = 0, reserved: Sequence[str] = ()
) -> list[str] | None:
    """One free network of each range: the wished one if it is free, else the lowest, leaving out the very first (whose
    addresses look reserved).

    ranges: the cluster's pod ranges, one per family. taken: the networks of all nodes. wish: counted from the first;
    0 for none. reserved: networks that none may overlap, those of Services. None: a range is full.
    """
    kept = [ipaddress.ip_network(r, strict=False) for r in reserved]
    used = {ipaddress.ip_network(t, strict=False) for t in taken}
    chosen = []
    for text in ranges:
        whole = ipaddress.ip_network(text)
        prefix = max(MASK[whole.version], whole.prefixlen)
        networks = whole.subnets(new_prefix=prefix)
        if prefix > whole.prefixlen:
            next(networks)
        free = numbered(whole, prefix, wish) if wish else None
        others = [r for r in kept if r.version == whole.version]
        if free is None or free in used or any(map(free.overlaps, others)):
            free = next((n for n in networks if n not in used and not any(map(n.overlaps, others))), None)
        if free is None:
            return None
        chosen.append(str(free))
    return chosen


def numbered(whole: Network, prefix: int, number: int) -> Network | None:
    """The network of this prefix length and number in a range; None if it has not that many."""
    if number >= 1 << (prefix - whole.prefixlen):
        return None
    address = whole[number << (whole.max_prefixlen - prefix)]
    return ipaddress.ip_network(f"{address}/{prefix}")


def wished(name: str) -> int:
    """The number at the end of a node's name: n2 gets the second network, whichever node registers first."""
    digits = name[len(name.rstrip("0123456789")) :]
    return int(digits) if 0 < len(digits) < 6 else 0


class NodeIpamController(Controller):
    """Assigns spec.podCIDRs once and never changes them. One worker: an assignment must see the one before it."""

    name = "node-ipam-controller"
    component = "cidrAllocator"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.nodes = ctx.informers.of(NODE)
        self.assigned: dict[str, list[str]] = {}
        """By node name, what was assigned here, until the node is gone: the cache may lag behind."""
        self.nodes.on_change(self.moved)

    @property
    def workers(self) -> int:
        return 1

    def moved(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            assert old is not None
            self.assigned.pop(old.name, None)
        elif not new.spec.pod_cidrs:
            self.queue.add(key_of(new))

    async def reconcile(self, key: Key) -> None:
        node = self.nodes.get(key)
        ranges = self.ctx.settings.cluster_cidrs
        if node is None or node.spec.pod_cidrs or not ranges or node.name in self.assigned:
            return
        taken = [c for n in self.nodes.values() for c in n.spec.pod_cidrs or ()]
        taken += [c for cidrs in self.assigned.values() for c in cidrs]
        cidrs = plan_pod_cidrs(ranges, taken, wished(node.name), self.ctx.settings.service_cidrs)
        if cidrs is None:
            text = f"Node {node.name} status is now: CIDRNotAvailable"
            self.events.event(NODE, node, "Normal", "CIDRNotAvailable", text)
            return
        self.assigned[node.name] = cidrs
        patch = {"metadata": {"uid": node.metadata.uid}, "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs}}
        try:
            await self.client.patch(NODE, node.name, "", patch, "merge")
        except NotFound:
            self.assigned.pop(node.name, None)
        except Exception:
            self.assigned.pop(node.name, None)
            raise
