"""Service `kube-system/kube-dns`, and a hand-made slice that lists the DNS of each node under the node's name.

With internal traffic policy Local each pod asks the DNS of its own node, which no other node's failure touches.
"""

from __future__ import annotations

import ipaddress

from kubesvc.api.errors import AlreadyExists, Conflict, NotFound
from kubesvc.api.kinds import ENDPOINT_SLICE, NODE, SERVICE
from kubesvc.api.meta import Object
from kubesvc.client.workqueue import Key

from .runner import Controller, ControllerContext

NAMESPACE, NAME = "kube-system", "kube-dns"
PORTS = (("dns", "UDP", 53), ("dns-tcp", "TCP", 53), ("metrics", "TCP", 9153))
KEY: Key = (NAMESPACE, NAME)


class ClusterDnsController(Controller):
    """One key: the Service. Made anew when deleted; ports and policy of an existing one are left to its user."""

    name = "cluster-dns"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.nodes = ctx.informers.of(NODE)
        self.services = ctx.informers.of(SERVICE)
        self.slices = ctx.informers.of(ENDPOINT_SLICE)
        self.nodes.on_change(lambda *_: self.queue.add(KEY))
        self.services.on_change(lambda old, new: self.wake(new or old, NAME))
        self.slices.on_change(lambda old, new: self.wake(new or old, f"{NAME}-ipv4"))

    def wake(self, moved: object, name: str) -> None:
        if getattr(moved, "namespace", "") == NAMESPACE and getattr(moved, "name", "") == name:
            self.queue.add(KEY)

    async def reconcile(self, key: Key) -> None:
        address = self.ctx.settings.cluster_dns
        nodes = [n for n in self.nodes.values() if n.status.address("InternalIP")]
        if not address or not nodes:
            return
        if self.services.get(KEY) is None:
            try:
                await self.client.create(SERVICE, render_service(address), NAMESPACE)
            except AlreadyExists:
                pass
        wanted = render_slice([(n.name, n.status.address("InternalIP")) for n in nodes])
        current = self.slices.get((NAMESPACE, wanted["metadata"]["name"]))
        try:
            if current is None:
                await self.client.create(ENDPOINT_SLICE, wanted, NAMESPACE)
            elif [(e.node_name, (e.addresses or [""])[0]) for e in current.endpoints or ()] != [
                (e["nodeName"], e["addresses"][0]) for e in wanted["endpoints"]
            ]:
                wanted["metadata"]["resourceVersion"] = current.metadata.resource_version
                await self.client.update(ENDPOINT_SLICE, wanted)
        except (AlreadyExists, NotFound, Conflict):
            self.queue.add_after(KEY, 0.05)  # the cache is behind


def render_service(address: str) -> Object:
    """DNS-56, without a selector: no pods stand behind it, but every node."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "clusterIP": address,
            "internalTrafficPolicy": "Local",
            "ports": [{"name": n, "protocol": p, "port": number, "targetPort": number} for n, p, number in PORTS],
        },
    }


def render_slice(nodes: list[tuple[str, str]]) -> Object:
    """nodes: (name, internal address), any order; addresses of the first one's family are listed."""
    nodes = sorted(nodes)
    family = ipaddress.ip_address(nodes[0][1]).version
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{NAME}-ipv{family}",
            "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": NAME,
                "endpointslice.kubernetes.io/managed-by": "cluster-dns.kubesvc",
            },
        },
        "addressType": f"IPv{family}",
        "endpoints": [
            {"addresses": [address], "nodeName": name, "conditions": {"ready": True}}
            for name, address in nodes
            if ipaddress.ip_address(address).version == family
        ],
        "ports": [{"name": n, "protocol": p, "port": number} for n, p, number in PORTS],
    }
