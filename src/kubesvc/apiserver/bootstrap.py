"""What the server itself puts into an empty cluster and keeps there: namespaces, the service range, Service
`kubernetes` with its endpoints (KSVC-1 to KSVC-8, CIDR-4)."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Sequence

from kubesvc.api.errors import AlreadyExists, ApiError, Conflict, NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import NAMESPACE, PRIORITY_CLASS, by_resource
from kubesvc.api.meta import Object
from kubesvc.client.interface import Client
from kubesvc.clock import Clock, rfc3339

from .admission import PRIORITY_CLASSES
from .servers import Leases, Server
from .settings import ApiServerSettings

log = logging.getLogger("kubesvc.apiserver.bootstrap")

SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
READY_POLL_SECONDS = 0.1
TURN_SECONDS = 10.0
NAMESPACE_TURNS = 6
SERVICE_LABELS = {"component": "apiserver", "provider": "kubernetes"}
CLASS_DESCRIPTIONS = {
    "system-cluster-critical": "Used for system critical pods that must run in the cluster, but can be moved to "
    "another node if necessary.",
    "system-node-critical": "Used for system critical pods that must not be moved from their current node.",
}
CIDR_READY = "Kubernetes default Service CIDR is ready"


def port_of(number: int) -> Object:
    return {"name": "https", "port": number, "protocol": "TCP"}


class Bootstrap:
    """Keeps the server's own objects.

    port:  the secure port as clients reach it, once known
    ready: whether /readyz is good
    """

    def __init__(
        self,
        client: Client,
        settings: ApiServerSettings,
        clock: Clock,
        port: Callable[[], int],
        ready: Callable[[], bool],
        leases: Leases,
    ) -> None:
        self.client = client
        self.leases = leases
        self.settings = settings
        self.clock = clock
        self.port = port
        self.ready = ready
        self.done = False
        """Whether all is there that readiness waits for."""
        self.complete = asyncio.Event()
        """Set after the first turn: then the Service `kubernetes` and its endpoints are there as well."""

    async def once(self) -> None:
        """Make whatever of it is missing that must be there before anybody is told that the server is ready; and take
        out the address that a life before this one left behind when it died."""
        await self.namespaces()
        try:
            await self.service_cidr()
        except (AlreadyExists, Conflict):
            pass  # another server does the same; the next turn looks again
        await self.priority_classes()
        await self.withdraw()
        self.done = True

    async def run(self) -> None:
        """From when the server is ready look after it every 10 s until cancelled: only then there is a Service
        `kubernetes`, and endpoints for it (KSVC-2). What fails is tried again in the next turn."""
        while not self.ready():
            await asyncio.sleep(READY_POLL_SECONDS)
        turn = 0
        while True:
            steps: list[Callable[[], Awaitable[None]]] = [
                self.service_cidr,
                self.kubernetes_service,
                self.own_endpoints,
            ]
            if turn and turn % NAMESPACE_TURNS == 0:
                steps.insert(0, self.namespaces)
            for step in steps:
                try:
                    await step()
                except ApiError as e:
                    log.warning("own objects: %s", e)
            turn += 1
            self.complete.set()
            await asyncio.sleep(TURN_SECONDS)

    async def withdraw(self) -> None:
        """Take this server's address out of the endpoints, if there are any (KSVC-8)."""
        try:
            await self.endpoints(await self.leases.withdraw(self.me()), make=False)
        except ApiError as e:
            log.warning("own address not withdrawn: %s", e)

    async def namespaces(self) -> None:
        """KSVC-7."""
        for name in SYSTEM_NAMESPACES:
            try:
                await self.client.get(NAMESPACE, name)
            except NotFound:
                try:
                    await self.client.create(NAMESPACE, {"metadata": {"name": name}})
                except AlreadyExists:
                    pass

    async def priority_classes(self) -> None:
        """The two classes of the system's own pods, made once."""
        for name, value in PRIORITY_CLASSES.items():
            wanted = {"metadata": {"name": name}, "value": value, "description": CLASS_DESCRIPTIONS[name]}
            try:
                await self.client.create(PRIORITY_CLASS, wanted)
            except AlreadyExists:
                pass

    async def service_cidr(self) -> None:
        """CIDR-4."""
        kind = by_resource("networking.k8s.io", "v1", "servicecidrs")
        if kind is None:
            return
        wanted = list(self.settings.service_ranges)
        try:
            found = await self.client.get(kind, "kubernetes")
        except NotFound:
            found = await self.client.create(kind, {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": wanted}})
        stored = found["spec"]["cidrs"]
        if stored != wanted and len(stored) == 1 and wanted[: len(stored)] == stored:
            found["spec"]["cidrs"] = wanted
            found = await self.client.update(kind, found)
        conditions = (found.get("status") or {}).get("conditions") or []
        if not any(c.get("type") == "Ready" for c in conditions) and not found["metadata"].get("deletionTimestamp"):
            ready = {
                "type": "Ready",
                "status": "True",
                "reason": "",
                "message": CIDR_READY,
                "lastTransitionTime": rfc3339(self.clock.now()),
            }
            found["status"] = {"conditions": [*conditions, ready]}
            await self.client.update(kind, found, subresource="status")

    def service_address(self) -> str:
        """The first usable address of the primary range."""
        return str(ipaddress.ip_network(self.settings.service_ranges[0], strict=False)[1])

    async def kubernetes_service(self) -> None:
        """KSVC-1, KSVC-2."""
        kind = by_resource("", "v1", "services")
        if kind is None:
            return
        try:
            await self.client.get(kind, "kubernetes", "default")
            return
        except NotFound:
            pass
        address = self.service_address()
        service: Object = {
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": dict(SERVICE_LABELS)},
            "spec": {
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": self.port()}],
                "clusterIP": address,
                "clusterIPs": [address],
                "type": "ClusterIP",
                "sessionAffinity": "None",
                "ipFamilyPolicy": "SingleStack",
            },
        }
        try:
            await self.client.create(kind, service, "default")
        except AlreadyExists:
            pass

    def me(self) -> Server:
        return Server(self.settings.advertise_address, self.port())

    async def own_endpoints(self) -> None:
        """Renew this server's lease, and list all servers that live (KSVC-5)."""
        await self.endpoints(await self.leases.renew(self.me()))

    async def endpoints(self, servers: Sequence[Server], *, make: bool = True) -> None:
        """Endpoints and slice `kubernetes` with these API servers (KSVC-3, KSVC-4), made if they are missing and
        `make`; the slice, which has room for one port, has those of the first subset."""
        endpoints, slices = by_resource("", "v1", "endpoints"), by_resource("discovery.k8s.io", "v1", "endpointslices")
        by_port: dict[int, list[str]] = {}
        for server in servers:
            by_port.setdefault(server.port, []).append(server.address)
        first = min(by_port, default=self.port())
        addresses = by_port.get(first, [])
        port = port_of(first)
        if endpoints is not None:
            subsets = [
                {"addresses": [{"ip": a} for a in by_port[number]], "ports": [port_of(number)]}
                for number in sorted(by_port)
            ]
            await self.put(
                endpoints,
                {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
                {"subsets": subsets} if subsets else {},
                ("subsets",),
                make,
            )
        if slices is not None:
            family = "IPv6" if ":" in self.settings.advertise_address else "IPv4"
            listed = [{"addresses": [a], "conditions": {"ready": True}} for a in addresses]
            await self.put(
                slices,
                {"labels": {"kubernetes.io/service-name": "kubernetes"}},
                {"addressType": family, "endpoints": listed, "ports": [port]},
                ("endpoints", "ports"),
                make,
            )

    async def put(self, kind: Kind, meta: Object, content: Object, parts: tuple[str, ...], make: bool) -> None:
        """Have `default/kubernetes` of a kind hold this content; other fields of an existing one are kept."""
        try:
            found = await self.client.get(kind, "kubernetes", "default")
        except NotFound:
            if not make:
                return
            obj = {"metadata": {"name": "kubernetes", "namespace": "default", **meta}, **content}
            try:
                await self.client.create(kind, obj, "default")
            except AlreadyExists:
                pass
            return
        if all((found.get(p) or None) == (content.get(p) or None) for p in parts):
            return
        for part in parts:
            if part in content:
                found[part] = content[part]
            else:
                found.pop(part, None)
        try:
            await self.client.update(kind, found)
        except Conflict:
            pass  # somebody wrote at the same moment; the next turn looks again
