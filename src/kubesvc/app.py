"""Puts parts and doors together: the control process of an instance. `nodeprocess.py` does the same inside a node;
these two files are the only ones that choose real or fake.

The control process holds the API server, its store, the controllers, and the ways in from the host. With no nodes it is
everything there is, and needs no namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kubesvc.clock import Clock, Random, RealClock, fresh_token
from kubesvc.instance.control import serve_orders
from kubesvc.instance.nodekeeper import (
    API_SOCKET,
    API_TLS_SOCKET,
    DNS_API_SOCKET,
    DOOR_SOCKET,
    PROXY_API_SOCKET,
    NodeKeeper,
    NodesFailed,
)
from kubesvc.instance.options import UpOptions, plan_nodes
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.record import InstanceRecord, write_record
from kubesvc.instance.rights import DNS_ACCOUNT, DNS_NAMESPACE, grant
from kubesvc.instance.wiring import API_ADDRESS, API_ADDRESS_6
from kubesvc.lifetime import cancel, set_collector, stop_event, unless_stopped, until_stopping

if TYPE_CHECKING:
    from kubesvc.api.certificatesigningrequest import CertificateSigningRequestSpec
    from kubesvc.apiserver import ApiServer, ApiServerSettings
    from kubesvc.apiserver.server import Listener
    from kubesvc.client import Client
    from kubesvc.client.informer import InformerFactory
    from kubesvc.instance.pki import Pki
    from kubesvc.instance.remotedoor import RemoteDoors
    from kubesvc.store import Store

log = logging.getLogger("kubesvc")

CERTIFICATE_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


class StartFailed(Exception):
    """An instance could not start. The text says what was found and what to do next."""


def open_store(options: UpOptions, paths: InstancePaths) -> Store:
    """The store that `--store` names."""
    from kubesvc import store

    return store.open_store(options.store or str(paths.store))


@dataclass
class Control:
    """One running control process: what it was asked to be, its record, and its parts."""

    options: UpOptions
    paths: InstancePaths
    record: InstanceRecord
    clock: Clock
    random: Random
    server: ApiServer | None = None
    pki: Pki | None = None
    saving: threading.Lock = field(default_factory=threading.Lock)
    page_up: asyncio.Event = field(default_factory=asyncio.Event)

    def save(self) -> None:
        """Write the record as it is now; the thread that makes the nodes does so too."""
        with self.saving:
            write_record(self.paths.record, self.record)


async def run_control(
    options: UpOptions,
    paths: InstancePaths,
    record: InstanceRecord,
    on_ready: Callable[[InstanceRecord], None],
    progress: Callable[[str], None],
) -> int:
    """Run an instance until SIGINT or SIGTERM; everything it made is gone when this returns.

    record:   saved already, naming this process; filled in and saved again as things are made
    on_ready: called once, when the API and all nodes are ready
    progress: told each step in words
    Raises StartFailed, perhaps in an exception group.
    """
    stop = stop_event()
    control = Control(options, paths, record, RealClock(), Random())
    keeper = NodeKeeper(options, paths, record, control.save)
    plans = plan_nodes(options)
    async with contextlib.AsyncExitStack() as stack:
        grounds: asyncio.Task[None] | None = None
        if plans:
            stack.push_async_callback(keeper.end)
            grounds = asyncio.create_task(keeper.in_thread(keeper.make_grounds, plans), name="grounds")
        try:
            await start_server(control, open_store(options, paths), stack)
        except BaseException:
            if grounds is not None:  # a thread cannot be cancelled, and what it makes must be known to be ended
                await asyncio.gather(grounds, return_exceptions=True)
            raise
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(until_stopping(stop, run_parts(control, keeper)), name="parts")]
            try:
                if grounds is not None:
                    progress("API server up, making the nodes")
                    await grounds
                    assert control.server is not None
                    await grant(control.server.client, options.authorization_mode)
                    keeper.uplinks = NodeUplinks(control)
                    for plan in plans:
                        parts.append(group.create_task(until_stopping(stop, keeper.keep(plan)), name=plan.name))
                    await unless_stopped(stop, keeper.ready(control.server.client, plans))
            except NodesFailed as error:
                await cancel(parts)
                raise StartFailed(str(error)) from None
            if options.web is not None:
                await unless_stopped(stop, control.page_up.wait())
            if not stop.is_set():
                set_collector()
                record.ready = True
                control.save()
                on_ready(record)
                await stop.wait()
            progress("stopping")
            record.ready = False
            control.save()
            await cancel(parts)
    record.control, record.fabric, record.nodes, record.balancers, record.page = None, None, [], [], ""
    control.save()
    return 0


async def start_server(control: Control, store: Store, stack: contextlib.AsyncExitStack) -> None:
    """Open the store and the API server with its three doors, and write the admin's kubeconfig."""
    from kubesvc.api.errors import ApiError
    from kubesvc.apiserver import ApiServer
    from kubesvc.apiserver.nodestreams import NodeStreams
    from kubesvc.instance.kubeconfig import admin_kubeconfig, write_private
    from kubesvc.instance.pki import ensure_pki
    from kubesvc.store import StoreError

    options, paths = control.options, control.paths
    loopback = control.record.loopback or "127.0.0.1"
    first_service_address = first_address(options.service_cluster_ip_range[0])
    more = [a for a in (options.bind_address, options.advertise_address) if a]
    pki = control.pki = ensure_pki(
        paths.pki,
        (loopback, "127.0.0.1", "::1", API_ADDRESS, API_ADDRESS_6, first_service_address, *more),
        CERTIFICATE_NAMES,
        control.clock.now(),
    )
    try:
        await store.start()
    except StoreError as error:
        raise StartFailed(f"{error}\nnext: {advice(options.store)}") from None
    stack.push_async_callback(store.close)
    try:
        server = control.server = ApiServer(
            store, server_settings(options), control.clock, control.random,
            token_key=pki.service_account_key.read_bytes(),
        )  # fmt: skip
    except OSError as error:
        raise StartFailed(f"{error.filename}: {error.strerror}\nnext: kubesvc up with a file you may use") from None
    except ValueError as error:  # a file that was named is malformed
        raise StartFailed(f"{error}\nnext: mend that file and start again") from None
    server.serve_backends(NodeStreams(server.registry, Doors(control)))
    port = await listen(server, options, options.bind_address or loopback, pki)
    stack.push_async_callback(server.stop)
    try:
        await server.start()
    except ApiError as error:  # the store is there, but takes nothing
        raise StartFailed(f"{error.message}\nnext: {advice(options.store)}") from None
    for socket_path in (paths.api_socket, paths.api_tls_socket):
        socket_path.unlink(missing_ok=True)
        stack.callback(socket_path.unlink, missing_ok=True)
    await server.listen_unix(str(paths.api_socket))
    await server.listen_tls_unix(str(paths.api_tls_socket), **certificates(pki))
    control.record.loopback = loopback
    control.record.port = port
    control.save()
    write_private(paths.kubeconfig, admin_kubeconfig(paths.name, control.record.server, pki))


def server_settings(options: UpOptions) -> ApiServerSettings:
    """The API server's settings among the options of an instance."""
    from kubesvc.apiserver import ApiServerSettings
    from kubesvc.apiserver.settings import DEFAULT_ISSUERS

    return ApiServerSettings(
        service_ranges=options.service_cluster_ip_range,
        node_ports=options.service_node_port_range,
        advertise_address=options.advertise_address or reached_at(options),
        token_file=options.token_auth_file,
        authorization=options.authorization_mode,
        anonymous_auth=bool(options.anonymous_auth),
        readers_in_flight=options.max_requests_inflight,
        writers_in_flight=options.max_mutating_requests_inflight,
        audit_log=options.audit_log,
        audit_level=options.audit_level,
        audit_policy=options.audit_policy_file,
        audit_log_max_size=options.audit_log_max_size,
        audit_log_max_backup=options.audit_log_max_backup,
        audit_log_max_age=options.audit_log_max_age,
        service_account_issuers=options.service_account_issuer or DEFAULT_ISSUERS,
        most_token_seconds=options.most_token_seconds,
        enabled_admission=frozenset(options.enable_admission_plugins),
        disabled_admission=frozenset(options.disable_admission_plugins),
    )


def certificates(pki: Pki) -> dict[str, str]:
    """What a TLS door of the API server shows, and whose certificates it takes."""
    return {"certfile": str(pki.server_cert), "keyfile": str(pki.server_key), "client_ca": str(pki.ca_cert)}


async def listen(server: ApiServer, options: UpOptions, where: str, pki: Pki) -> int:
    """Open the door that clients come through; its port."""
    try:
        return await server.listen_tls(where, options.port, **certificates(pki))
    except OSError as error:
        raise StartFailed(
            f"{where}:{options.port} cannot be listened on: {os.strerror(error.errno or 0)}\n"
            + (
                "next: --bind-address with an address of this machine, or --port 0 for any free port"
                if options.bind_address
                else "next: kubesvc up --port 0 takes any free port"
            )
        ) from None


def reached_at(options: UpOptions) -> str:
    """Where Pods reach the API: those of the instance's own nodes by their relay, of the family that the Service
    `kubernetes` has; those of others as their nodes do."""
    if options.reachable and not options.nodes:
        return options.bind_address
    six = ":" in options.service_cluster_ip_range[0] and any(":" in cidr for cidr in options.cluster_cidr)
    return API_ADDRESS_6 if six else API_ADDRESS


def right_of(server: ApiServer) -> Callable[[CertificateSigningRequestSpec, str, str, str, str], bool]:
    """Asks the server's authorizers what who sent a certificate signing request may do."""
    from kubesvc.apiserver.authentication import User
    from kubesvc.apiserver.authorization import Attributes

    def may(spec: CertificateSigningRequestSpec, group: str, resource: str, subresource: str, verb: str) -> bool:
        extra = {k: tuple(v) for k, v in (spec.extra or {}).items()}
        user = User(spec.username, spec.uid, tuple(spec.groups or ()), extra)
        return server.allows(Attributes(user, verb, group, "*", resource, subresource))

    return may


def advice(store: str) -> str:
    """What to do when the store cannot be opened."""
    if store.startswith("etcd"):
        return "start etcd there (etcdctl endpoint health tells), or give its address to --store etcd://HOST:PORT"
    return "kubesvc up --store PATH with another path, or --store memory"


class Doors:
    """The doors of this instance's nodes, for the API server's streams."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.paths = control.paths
        self.record = control.record
        self.remote: RemoteDoors | None = None

    async def open_remote(self, node: str) -> socket.socket:
        """The door of a node that has joined, at its own address."""
        from kubesvc.api.kinds import NODE
        from kubesvc.api.node import Node
        from kubesvc.instance.remotedoor import RemoteDoors

        server, pki = self.control.server, self.control.pki
        item = server.cache.of(NODE).get("", node) if server is not None else None
        found = item.typed() if item is not None else None
        address = found.status.address("InternalIP") if isinstance(found, Node) else ""
        if not isinstance(found, Node) or not address or pki is None:
            raise OSError(errno.EHOSTUNREACH, "it tells no address")
        if self.remote is None:
            self.remote = RemoteDoors(pki)
        return await self.remote.open(node, address, found.status.daemon_endpoints.kubelet_endpoint.port)

    async def open(self, node: str) -> socket.socket:
        if not any(n.name == node for n in self.record.nodes):
            return await self.open_remote(node)
        if any(n.name == node and n.state != "running" for n in self.record.nodes):
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            door.setblocking(False)
            await asyncio.get_running_loop().sock_connect(door, str(self.paths.node(node) / DOOR_SOCKET))
        except BaseException:
            door.close()
            raise
        return door


class NodeVolumes:
    """Directories of nodes, for the provisioner; a simulated node only says where it would have them."""

    def __init__(self, control: Control) -> None:
        self.paths = control.paths
        self.record = control.record
        self.doors = Doors(control)

    async def make(self, node: str, name: str) -> str:
        if self.simulated(node):
            return str(self.paths.volumes(node) / name)
        return await self.ask(node, f"volume make {name}")

    async def remove(self, node: str, path: str) -> None:
        if not self.simulated(node):
            await self.ask(node, f"volume remove {path}")

    def simulated(self, node: str) -> bool:
        return any(n.name == node and n.simulated for n in self.record.nodes)

    async def ask(self, node: str, request: str) -> str:
        """What the node answers. Raises DirectoryRefused."""
        from kubesvc.apiserver.nodedoors import NodeRefused, dial_stream
        from kubesvc.controllers.localpath import DirectoryRefused

        try:
            stream = await dial_stream(self.doors, node, request)
            try:
                return (await stream.reader.read()).decode()
            finally:
                stream.writer.close()
        except NodeRefused as refusal:
            raise DirectoryRefused(refusal.message) from None
        except OSError as error:
            raise DirectoryRefused(f"node {node}: {error}") from None


class NodeUplinks:
    """Each node's own sockets to the API server: plain for its agent, its proxy and its DNS, each under its own name,
    and with TLS for what it passes on."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.listeners: dict[str, list[Listener]] = {}

    async def open(self, name: str) -> None:
        from kubesvc.apiserver.authentication import PROXY, account_user, node_user

        server, pki = self.control.server, self.control.pki
        assert server is not None and pki is not None
        if name in self.listeners:
            return
        directory = self.control.paths.node(name)
        users = {
            API_SOCKET: node_user(name),
            PROXY_API_SOCKET: PROXY,
            DNS_API_SOCKET: account_user(DNS_NAMESPACE, DNS_ACCOUNT),
        }
        plain = [await server.listen_unix(str(directory / socket), user) for socket, user in users.items()]
        tls = await server.listen_tls_unix(
            str(directory / API_TLS_SOCKET),
            certfile=str(pki.server_cert),
            keyfile=str(pki.server_key),
            client_ca=str(pki.ca_cert),
        )
        self.listeners[name] = [*plain, tls]

    async def cut(self, name: str) -> None:
        for listener in self.listeners.pop(name, []):
            listener.cut()


def first_address(network: str) -> str:
    return str(ipaddress.ip_network(network)[1])


async def run_parts(control: Control, keeper: NodeKeeper) -> None:
    """Controllers, and with nodes the ways in from the host and the nodes' way out to names, until cancelled."""
    from kubesvc.client.informer import InformerFactory
    from kubesvc.client.metrics import Metrics
    from kubesvc.controllers import run_controllers
    from kubesvc.controllers.settings import ControllerSettings
    from kubesvc.instance.journal import TIMELINE, Journal

    assert control.server is not None
    options = control.options
    settings = ControllerSettings(
        root_ca=(control.paths.pki / "ca.crt").read_text(),
        journal=Journal(control.paths.root / TIMELINE).write,
        account_token=control.server.tokens.legacy_token,
        cluster_cidrs=options.cluster_cidr if plan_nodes(options) or options.reachable else (),
        service_cidrs=options.service_cluster_ip_range,
        cluster_dns=options.dns_address if options.nodes or options.reachable else "",
        may=right_of(control.server),
        signing_certificate=(control.paths.pki / "ca.crt").read_bytes(),
        signing_key=(control.paths.pki / "ca.key").read_bytes(),
        local_volumes=NodeVolumes(control) if plan_nodes(options) or options.reachable else None,
        load_balancer_ranges=options.load_balancer_range if options.nodes else (),
        node_monitor_grace_period=options.node_monitor_grace_period,
        explain_slices=options.explain_slices,
    )
    client, clock, random = control.server.client, control.clock, control.random
    factory = InformerFactory(client, clock, random)
    if options.service_warnings:
        from kubesvc.api.kinds import SERVICE
        from kubesvc.why.advice import ServiceAdviser

        control.server.registry.advisers[SERVICE] = ServiceAdviser(factory, clock).warnings
    async with asyncio.TaskGroup() as group:
        if options.controllers:
            names, metrics = options.controllers, Metrics()
            control.server.metrics.others.append(metrics.render)
            group.create_task(
                run_controllers(
                    client, names, clock=clock, random=random, settings=settings, informers=factory, metrics=metrics
                )
            )
        else:
            group.create_task(factory.run())
        deeds = {"node.stop": keeper.stop, "node.start": keeper.start}
        deeds |= {"node.partition": keeper.partition, "node.heal": keeper.heal}
        group.create_task(serve_orders(control.paths.control_socket, deeds, (NodesFailed,)))
        if options.nodes:
            group.create_task(run_ways_in(control, keeper, client, factory))
            group.create_task(relay_names(control))
        if options.nodes and options.images != "offline":
            group.create_task(pull_images(control))
        if options.web is not None:
            group.create_task(show_picture(control, keeper, factory))


async def run_ways_in(control: Control, keeper: NodeKeeper, client: Client, factory: InformerFactory) -> None:
    """Answer on the host for node ports and load balancers' addresses, and route the latter to the nodes."""
    from kubesvc.api.kinds import ENDPOINT_SLICE, NODE, SERVICE
    from kubesvc.client.events import EventRecorder
    from kubesvc.instance.balancer import Balancer, claim_host_network
    from kubesvc.instance.hostports import HostPorts
    from kubesvc.instance.record import BalancerRecord

    events = EventRecorder(client, "kubesvc-host-ports", clock=control.clock, random=control.random)

    def problems(lines: list[str]) -> None:
        control.record.problems = lines
        control.save()

    def shown(balancers: list[BalancerRecord]) -> None:
        control.record.balancers = balancers
        control.save()

    ranges, loopback = control.options.load_balancer_range, control.record.loopback
    services = factory.of(SERVICE)
    claims = {v: claim_host_network(loopback, v) for v in {6 if ":" in r else 4 for r in ranges}}
    networks = {version: number for version, (number, _) in claims.items()}
    ports = HostPorts(services, events, loopback, keeper.doors, problems, ranges, networks)
    async with asyncio.TaskGroup() as group:
        for _, claim in claims.values():
            group.create_task(hold(claim))
        group.create_task(events.run())
        group.create_task(ports.run())
        if ranges:
            balancer = Balancer(
                services,
                factory.of(ENDPOINT_SLICE),
                factory.of(NODE),
                ranges,
                networks,
                lambda: {name: address for name, (_, address) in keeper.doors().items()},
                keeper.balance,
                shown,
            )
            group.create_task(balancer.run())


async def show_picture(control: Control, keeper: NodeKeeper, factory: InformerFactory) -> None:
    """The live picture as a page on loopback; its link is in the record."""
    from kubesvc.instance.journals import Journals
    from kubesvc.instance.traffic import NodeTraffic
    from kubesvc.web.feed import Feed
    from kubesvc.web.server import TOKEN_BYTES, PageServer

    traffic = NodeTraffic(lambda: {name: door for name, (door, _) in keeper.doors().items()})
    counts = traffic if control.options.nodes else None
    uncounted = "" if control.options.nodes else "this instance has no nodes of its own, so nobody counts connections"
    lines = Journals(control.paths.root)
    name = control.paths.name
    feed = Feed(
        factory, control.clock, f"instance {name}", traffic=counts, uncounted=uncounted, lines=lines,
        kubectl="kubesvc kubectl" + ("" if name == "default" else f" --name {name}"),
    )  # fmt: skip
    server = PageServer(feed, fresh_token(TOKEN_BYTES))

    def started(link: str) -> None:
        control.record.page = link
        control.save()
        control.page_up.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed.run())
        try:
            await server.serve("127.0.0.1", control.options.web or 0, started)
        except OSError as error:
            raise StartFailed(
                f"127.0.0.1:{control.options.web} cannot be listened on for the page: {os.strerror(error.errno or 0)}\n"
                "next: kubesvc up --web takes any free port"
            ) from None


async def hold(claim: socket.socket) -> None:
    """Keep a socket open until cancelled."""
    with claim:
        await asyncio.Event().wait()


async def pull_images(control: Control) -> None:
    """Fetch images for the nodes, which have no way out of their own."""
    from kubesvc.node.imagestore import ImageStore
    from kubesvc.node.pulling import Puller, serve_pulls

    puller = Puller(ImageStore(control.paths.images), control.clock, dict(control.options.registry_mirrors))
    await serve_pulls(control.paths.pull_socket, puller)


async def relay_names(control: Control) -> None:
    """Look up names outside the cluster for the nodes, which have no way out of their own."""
    from kubesvc.dns.forward import ForwardSettings, UpstreamForwarder, upstreams_of
    from kubesvc.dns.relay import relay_listener

    try:
        upstreams = upstreams_of(Path("/etc/resolv.conf").read_text())
    except OSError:
        upstreams = ()
    forwarder = UpstreamForwarder(ForwardSettings(upstreams=upstreams), control.clock, control.random)
    listener = relay_listener(control.paths.dns_socket, forwarder)
    try:
        await listener.start()
        await asyncio.Event().wait()
    finally:
        await listener.close()
        control.paths.dns_socket.unlink(missing_ok=True)
