"""The cluster's DNS server: watches what names are made of, and answers on UDP and TCP."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.kinds import ENDPOINT_SLICE, NAMESPACE, POD, SERVICE
from kubesvc.client import Client, InformerFactory
from kubesvc.clock import Clock, Random

from .durations import Durations
from .forward import ForwardSettings, UpstreamForwarder
from .listeners import TcpListener, UdpListener, bound_socket
from .metrics import DnsMetrics, Page, Programming, health_page, metrics_page, ready_page, serve_page
from .records import PodNames, Zone
from .responder import Forwarder, Others, Responder
from .snapshot import SERVICE_NAME, Snapshot, packed
from .wire import FormatError, lower, name_of

log = logging.getLogger(__name__)

SIDE_PORT_RETRY_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class DnsSettings:
    """What an operator may choose.

    zone:        the cluster's domain
    addresses:   (address, port) to listen on, UDP and TCP; port 0 takes a free one, the same for both
    ttl:         seconds that clients may keep answers, 0..3600 (DNS-44); also how long they keep "no such name"
    pods:        names of Pods by their address: "disabled", "insecure" (any address, if the namespace exists) or
                 "verified" (a Pod must have it; watches Pods) (DNS-30)
    endpoint_pod_names: name endpoints by their Pod instead of their address (DNS-18)
    service:     namespace/name of the Service that leads here, named in NS records
    others:      the answer to names outside the cluster when nothing forwards them
    forward:     whom to ask about names outside the cluster; None: nobody
    negative_ttl: seconds that "no such name" may be kept, 0..3600; None: as long as a record (DNS-36)
    shared:      share the ports with other processes of this user, workers of one server
    health_port, ready_port, metrics_port: where /health, /ready and /metrics are answered, on the same addresses; 0:
                 nowhere
    sync_seconds: how long queries wait at the start for the first lists, before they get SERVFAIL (DNS-42)
    """

    zone: str = "cluster.local"
    addresses: tuple[tuple[str, int], ...] = (("127.0.0.1", 53),)
    ttl: int = 5
    pods: PodNames = "insecure"
    endpoint_pod_names: bool = False
    service: str = "kube-system/kube-dns"
    others: Others = "REFUSED"
    forward: ForwardSettings | None = None
    negative_ttl: int | None = None
    shared: bool = False
    health_port: int = 0
    ready_port: int = 0
    metrics_port: int = 0
    tcp_connections: int = 256
    tcp_idle_seconds: float = 10.0
    sync_seconds: float = 5.0

    def __post_init__(self) -> None:
        if not 0 <= self.ttl <= 3600:
            raise ValueError(f"ttl: {self.ttl}: must be from 0 to 3600 seconds")
        if self.negative_ttl is not None and not 0 <= self.negative_ttl <= 3600:
            raise ValueError(f"negative_ttl: {self.negative_ttl}: must be from 0 to 3600 seconds")
        if not self.addresses:
            raise ValueError("addresses: at least one to listen on")
        for address, _ in self.addresses:
            raw = packed(address)
            if not raw:
                raise ValueError(f"addresses: {address!r}: must be an IP address")
            if not any(raw):
                raise ValueError(
                    f"addresses: {address}: name each address: an answer must leave from the one it was sent to"
                )
        try:
            empty = not name_of(self.zone)
        except FormatError as error:
            raise ValueError(f"zone: {error}") from error
        if empty:
            raise ValueError("zone: must not be empty")
        if self.forward is not None:
            self.forward.refuse_loop(self.addresses)

    def as_zone(self) -> Zone:
        namespace, _, name = self.service.partition("/")
        return Zone(
            name=lower(name_of(self.zone)),
            ttl=self.ttl,
            pods=self.pods,
            service=(namespace, name),
            addresses=tuple(dict.fromkeys(packed(address) for address, _ in self.addresses)),
            negative_ttl=self.negative_ttl,
        )


class DnsServer:
    """Serves cluster names from informers' caches; never asks the API for a query's sake (DNS-1)."""

    def __init__(
        self,
        client: Client,
        settings: DnsSettings,
        clock: Clock,
        random: Random,
        *,
        forwarder: Forwarder | None = None,
        informers: InformerFactory | None = None,
        settled: Callable[[], None] | None = None,
    ) -> None:
        """forwarder: asks others about names outside the cluster, instead of what `settings.forward` would make
        informers: caches shared with other parts of the process, which runs them; without, the server runs its own
        settled: called once the first lists are in, before the first answer about the cluster; it may take its time
        """
        self.settings = settings
        self.clock = clock
        self.random = random
        self.settled = settled
        self.own_informers = informers is None
        self.informers = informers.tracked() if informers else InformerFactory(client, clock, random)
        self.own_forwarder: UpstreamForwarder | None = None
        if forwarder is None and settings.forward is not None:
            forwarder = self.own_forwarder = UpstreamForwarder(settings.forward, clock, random)
        self.snapshot = Snapshot(pod_names=settings.endpoint_pod_names)
        self.responder = Responder(self.snapshot, settings.as_zone(), forwarder=forwarder, others=settings.others)
        self.udp: list[UdpListener] = []
        self.tcp: list[TcpListener] = []
        self.programming = Programming(clock.now())
        self.durations = Durations(clock.monotonic)
        self.metrics = DnsMetrics(
            self.responder,
            self.programming,
            f"dns://:{settings.addresses[0][1]}",
            lambda: (sum(u.limited for u in self.udp), sum(u.dropped for u in self.udp)),
            self.durations,
        )
        self.listening = asyncio.Event()
        """Set once the sockets are bound; `addresses` then tells where."""

    @property
    def ready(self) -> bool:
        """Whether cluster names get true answers."""
        return self.snapshot.synced

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where the server listens, in the order of the settings."""
        return [listener.sock.getsockname()[:2] for listener in self.udp]

    async def run(self) -> None:
        """Listen and answer until cancelled. CannotListen at once if an address cannot be bound."""
        self._bind()
        try:
            async with asyncio.TaskGroup() as group:
                self._feed()
                if self.own_informers:
                    group.create_task(self.informers.run(), name="dns informers")
                for what, port, page in (
                    ("health", self.settings.health_port, health_page),
                    ("ready", self.settings.ready_port, ready_page(lambda: self.ready)),
                    ("metrics", self.settings.metrics_port, metrics_page(self.metrics)),
                ):
                    if port:
                        for address in dict.fromkeys(a for a, _ in self.settings.addresses):
                            group.create_task(self._serve(what, address, port, page), name=f"dns {what}")
                synced = group.create_task(self._synced(), name="dns sync")
                # Queries that come now wait in the sockets: better answered late than with a failure.
                await asyncio.wait([synced], timeout=self.settings.sync_seconds)
                if not self.ready:
                    log.warning("DNS: the lists are not in yet, cluster names get SERVFAIL until they are")
                for udp in self.udp:
                    udp.start()
                for tcp in self.tcp:
                    await tcp.start()
                await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            await self._close()

    async def _serve(self, what: str, address: str, port: int, page: Page) -> None:
        """Answer on a side port; while it is taken, try again from time to time."""
        while True:
            try:
                server = await serve_page(address, port, page, shared=self.settings.shared)
                break
            except OSError as error:
                log.warning("DNS: no %s answers at %s port %d: %s", what, address, port, error.strerror)
                await asyncio.sleep(SIDE_PORT_RETRY_SECONDS)
        try:
            await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            server.close()

    def _bind(self) -> None:
        settings = self.settings
        try:
            for address, port in settings.addresses:
                udp, tcp = bound_pair(address, port, shared=settings.shared)
                self.udp.append(UdpListener(udp, self.responder, self.durations))
                self.tcp.append(
                    TcpListener(
                        tcp,
                        self.responder,
                        connections=settings.tcp_connections,
                        idle_seconds=settings.tcp_idle_seconds,
                        durations=self.durations,
                    )
                )
        except Exception:
            for udp_listener, tcp_listener in zip(self.udp, self.tcp, strict=True):
                udp_listener.sock.close()
                tcp_listener.sock.close()
            raise
        self.listening.set()

    def _feed(self) -> None:
        """Let every change reach the snapshot; informers call these in the loop, after their cache moved."""
        snapshot, now = self.snapshot, self.clock.now
        self.informers.of(NAMESPACE).on_change(lambda old, new: snapshot.namespace_changed(old, new, now()))
        self.informers.of(SERVICE).on_change(lambda old, new: snapshot.service_changed(old, new, now()))
        self.informers.of(ENDPOINT_SLICE).on_change(self._slice_changed)
        if self.settings.pods == "verified":
            self.informers.of(POD).on_change(lambda old, new: snapshot.pod_changed(old, new, now()))

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        now = self.clock.now()
        self.snapshot.slice_changed(old, new, now)
        if new is not None and (old is None or old.endpoints != new.endpoints):
            key = (new.namespace, new.metadata.label(SERVICE_NAME))
            self.programming.observe(self.snapshot.services.get(key), new, now)

    async def _synced(self) -> None:
        await self.informers.synced()
        if self.settled is not None:
            self.settled()
        self.snapshot.mark_synced(self.clock.now())

    async def _close(self) -> None:
        for udp in self.udp:
            udp.close()
        for tcp in self.tcp:
            await tcp.close()
        if self.own_forwarder is not None:
            await self.own_forwarder.close()
        self.listening.clear()


def bound_pair(address: str, port: int, *, shared: bool = False) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on one port; with port 0 a free one that both can have."""
    for attempt in range(20):
        udp = bound_socket(socket.SOCK_DGRAM, address, port, shared=shared)
        try:
            return udp, bound_socket(socket.SOCK_STREAM, address, udp.getsockname()[1], shared=shared)
        except Exception:
            udp.close()
            if port or attempt == 19:
                raise
    raise AssertionError("unreachable")
