"""Puts parts and doors together: the only file that chooses real or fake.

`run_control` is the control process of an instance (API server, store, controllers, ways in from the host), `run_node`
the process inside one node's namespaces (agent, proxy, DNS, relay to the API). With no nodes everything is the one
control process and needs no namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from kubesvc.clock import Clock, Random, RealClock
from kubesvc.instance import ground
from kubesvc.instance.options import NodePlan, UpOptions, plan_nodes
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.record import InstanceRecord, NodeRecord, ProcessId, write_record
from kubesvc.instance.wiring import API_ADDRESS, Host, Wiring

if TYPE_CHECKING:
    from kubesvc.apiserver import ApiServer
    from kubesvc.client import Client
    from kubesvc.store import Store

log = logging.getLogger("kubesvc")

NODE_READY_SECONDS = 30.0
AGENT_RESTART_SECONDS = 1.0
CERTIFICATE_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


class StartFailed(Exception):
    """An instance could not start. The text says what was found and what to do next."""


def set_collector() -> None:
    """Objects of a server live long: collect rarely, and never look again at what exists after the start."""
    import gc

    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run a process's main coroutine, on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def stop_event() -> asyncio.Event:
    """Set by SIGINT and SIGTERM; a second SIGINT does not interrupt the ending."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, event.set)
    return event


# ---------------------------------------------------------------- the control process


def open_store(options: UpOptions, paths: InstancePaths) -> Store:
    """The store that `--store` names."""
    if options.store == "memory":
        from kubesvc.store.memory import MemoryStore

        return MemoryStore()
    from kubesvc.store.embedded import SqliteStore

    return SqliteStore(Path(options.store) if options.store else paths.store)


@dataclass
class Control:
    """One running control process: what it was asked to be, its record, and its parts."""

    options: UpOptions
    paths: InstancePaths
    record: InstanceRecord
    clock: Clock
    random: Random
    server: ApiServer | None = None
    saving: threading.Lock = field(default_factory=threading.Lock)

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
    Raises StartFailed.
    """
    stop = stop_event()
    control = Control(options, paths, record, RealClock(), Random())
    plans = plan_nodes(options)
    store = open_store(options, paths)
    async with contextlib.AsyncExitStack() as stack:
        grounds: asyncio.Task[None] | None = None
        if plans:
            stack.push_async_callback(end_nodes, control)
            grounds = asyncio.create_task(asyncio.to_thread(make_grounds, control, plans), name="grounds")
        try:
            await start_server(control, store, stack)
        except BaseException:
            if grounds is not None:
                await asyncio.gather(grounds, return_exceptions=True)
            raise
        assert control.server is not None
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(until_stopping(stop, run_parts(control)), name="controllers")]
            if grounds is not None:
                progress("API server up, making the nodes")
                try:
                    await grounds
                except ground.GroundFailed as error:
                    await cancel(parts)
                    raise StartFailed(
                        f"the nodes' namespaces cannot be made: {error}\nnext: kubesvc doctor, or kubesvc up --nodes 0 "
                        "for the API and the controllers alone"
                    ) from None
                parts += [
                    group.create_task(until_stopping(stop, keep_agent(control, plan)), name=f"node {plan.name}")
                    for plan in plans
                ]
                waiting = group.create_task(nodes_ready(control, plans), name="nodes ready")
                stopping = group.create_task(stop.wait(), name="stop")
                await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
                waiting.cancel()
                if not stop.is_set() and waiting.done() and (failure := waiting.exception()):
                    await cancel(parts)
                    raise failure
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
    record.control = None
    record.nodes = []
    record.fabric = None
    control.save()
    return 0


async def until_stopping(stop: asyncio.Event, part: Coroutine[Any, Any, None]) -> None:
    """Run a part of the process; what goes wrong in it while everything ends anyway is only logged."""
    try:
        await part
    except Exception:
        if not stop.is_set():
            raise
        log.exception("a part did not end in order")


async def cancel(tasks: Sequence[asyncio.Future[None]]) -> None:
    """End these, and log what does not end by being cancelled."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            log.error("a part did not end in order", exc_info=result)


async def start_server(control: Control, store: Store, stack: contextlib.AsyncExitStack) -> None:
    """Open the store and the API server with its three doors, and write the admin's kubeconfig."""
    from kubesvc.apiserver import ApiServer, ApiServerSettings
    from kubesvc.apiserver.nodestreams import NodeStreams
    from kubesvc.instance.kubeconfig import render_kubeconfig, write_private
    from kubesvc.instance.pki import ensure_pki
    from kubesvc.store import StoreError

    options, paths = control.options, control.paths
    loopback = control.record.loopback or "127.0.0.1"
    first_service_address = first_address(options.service_cluster_ip_range[0])
    pki = ensure_pki(
        paths.pki,
        (loopback, "127.0.0.1", "::1", API_ADDRESS, first_service_address),
        CERTIFICATE_NAMES,
        control.clock.now(),
    )
    try:
        await store.start()
    except StoreError as error:
        raise StartFailed(f"{error}\nnext: kubesvc up --store PATH with another path, or --store memory") from None
    stack.push_async_callback(store.close)
    settings = ApiServerSettings(
        service_ranges=options.service_cluster_ip_range,
        node_ports=options.service_node_port_range,
        advertise_address=API_ADDRESS,
        token_file=options.token_auth_file,
        authorization="RBAC" if "RBAC" in options.authorization_mode else "AlwaysAllow",
        anonymous_auth=bool(options.anonymous_auth),
        disabled_admission=frozenset(options.disable_admission_plugins),
    )
    server = control.server = ApiServer(store, settings, control.clock, control.random)
    server.serve_backends(NodeStreams(server.registry, Doors(paths)))
    try:
        port = await server.listen_tls(
            loopback,
            options.port,
            certfile=str(pki.server_cert),
            keyfile=str(pki.server_key),
            client_ca=str(pki.ca_cert),
        )
    except OSError as error:
        raise StartFailed(
            f"{loopback}:{options.port} cannot be listened on: {error.strerror}\n"
            "next: kubesvc up --port 0 takes any free port"
        ) from None
    stack.push_async_callback(server.stop)
    await server.start()
    for socket_path in (paths.api_socket, paths.api_tls_socket):
        socket_path.unlink(missing_ok=True)
        stack.callback(socket_path.unlink, missing_ok=True)
    await server.listen_unix(str(paths.api_socket))
    await server.listen_tls_unix(
        str(paths.api_tls_socket),
        certfile=str(pki.server_cert),
        keyfile=str(pki.server_key),
        client_ca=str(pki.ca_cert),
    )
    control.record.loopback = loopback
    control.record.port = port
    control.save()
    url = f"https://{loopback}:{port}"
    write_private(paths.kubeconfig, render_kubeconfig(paths.name, url, pki))


class Doors:
    """The doors of this instance's nodes, for the API server's streams."""

    def __init__(self, paths: InstancePaths) -> None:
        self.paths = paths

    async def open(self, node: str) -> socket.socket:
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            door.setblocking(False)
            await asyncio.get_running_loop().sock_connect(door, str(self.paths.node(node) / DOOR_SOCKET))
        except BaseException:
            door.close()
            raise
        return door


def first_address(network: str) -> str:
    import ipaddress

    return str(ipaddress.ip_network(network)[1])


async def run_parts(control: Control) -> None:
    """Controllers, and node ports on the host, until cancelled."""
    from kubesvc.controllers import run_controllers
    from kubesvc.controllers.settings import ControllerSettings

    assert control.server is not None
    options = control.options
    settings = ControllerSettings(
        root_ca=(control.paths.pki / "ca.crt").read_text(),
        cluster_cidrs=options.cluster_cidr,
        cluster_dns=options.dns_address if options.nodes else "",
    )
    client = control.server.client
    async with asyncio.TaskGroup() as group:
        if options.controllers:
            names, clock, random = options.controllers, control.clock, control.random
            group.create_task(run_controllers(client, names, clock=clock, random=random, settings=settings))
        if options.nodes:
            group.create_task(run_host_ports(control, client))


async def run_host_ports(control: Control, client: Client) -> None:
    from kubesvc.api.kinds import SERVICE
    from kubesvc.client.events import EventRecorder
    from kubesvc.client.informer import InformerFactory
    from kubesvc.instance.hostports import HostPorts

    factory = InformerFactory(client, control.clock, control.random)
    events = EventRecorder(client, "kubesvc-host-ports", clock=control.clock, random=control.random)

    def doors() -> Mapping[str, tuple[Path, str]]:
        return {
            n.name: (control.paths.node(n.name) / DOOR_SOCKET, n.address)
            for n in control.record.nodes
            if n.agent is not None and not n.simulated
        }

    def problems(lines: list[str]) -> None:
        control.record.problems = lines
        control.save()

    ports = HostPorts(factory.of(SERVICE), events, control.record.loopback, doors, problems)
    async with asyncio.TaskGroup() as group:
        group.create_task(factory.run())
        group.create_task(events.run())
        group.create_task(ports.run())


DOOR_SOCKET = "node.sock"

# ---------------------------------------------------------------- nodes, seen from the control process


def make_grounds(control: Control, plans: list[NodePlan]) -> None:
    """Namespaces of the fabric and of every real node, wired together; each recorded as soon as it exists."""
    record, root = control.record, control.paths.root
    record.fabric = ground.spawn_fabric(root)
    control.save()
    hosts = []
    for plan in plans:
        node = NodeRecord(plan.name, plan.address, "", zone=plan.zone, simulated=plan.simulated)
        record.nodes.append(node)
        directory = control.paths.node(plan.name)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / HOST_RESOLVER).unlink(missing_ok=True)  # of an earlier ground
        node.ground = ground.spawn_host(root, record.fabric, plan.name)
        control.save()
        hosts.append(
            Host(
                node.ground.pid,
                plan.name,
                (f"{plan.address}/24",),
                local=(API_ADDRESS,),
                forward=True,
                # A route must exist before a rule can send a packet elsewhere.
                routes=tuple((r, "") for r in control.options.service_cluster_ip_range if ":" not in r),
            )
        )
    ground.wire(root, record.fabric, Wiring(bridge=True, connect=tuple(hosts)))


def node_record(control: Control, name: str) -> NodeRecord:
    return next(n for n in control.record.nodes if n.name == name)


async def keep_agent(control: Control, plan: NodePlan) -> None:
    """Keep a node's process running: started again when it ends, as an init system would."""
    node = node_record(control, plan.name)
    assert node.ground is not None and control.record.fabric is not None
    directory = control.paths.node(plan.name)
    settings = directory / "node.json"
    settings.write_bytes(msgspec.json.encode(node_process(control, plan)))
    program = [sys.executable, "-m", "kubesvc.app", str(settings)]
    while True:
        fabric, root = control.record.fabric, control.paths.root
        node.agent = await asyncio.to_thread(
            ground.spawn_inside, root, fabric, node.ground, program, directory / "node.log"
        )
        control.save()
        await ended(node.agent)
        log.warning("node %s: its process ended; see %s", plan.name, directory / "node.log")
        await asyncio.sleep(AGENT_RESTART_SECONDS)


async def ended(process: ProcessId) -> None:
    """Wait until a process, child or not, has ended."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(handle, done.set)
    try:
        if process.alive():
            await done.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def nodes_ready(control: Control, plans: list[NodePlan]) -> None:
    """Wait until every node says Ready. Raises StartFailed naming those that did not, and where to look."""
    from kubesvc.api.kinds import NODE
    from kubesvc.api.node import Node

    assert control.server is not None
    client = control.server.client
    missing = {p.name for p in plans}
    decoder = msgspec.json.Decoder(Node)
    try:
        async with asyncio.timeout(NODE_READY_SECONDS):
            async with contextlib.aclosing(client.watch(NODE, initial_events=True)) as events:
                async for event in events:
                    if event.type == "BOOKMARK":
                        continue
                    node = decoder.decode(event.object)
                    condition = node.status.condition("Ready")
                    ready = condition is not None and condition.status == "True" and agent_reported(control, node)
                    if node.name in missing and ready and node.spec.pod_cidr:
                        node_record(control, node.name).pod_cidr = node.spec.pod_cidr
                        missing.discard(node.name)
                    if not missing:
                        return
    except TimeoutError:
        logs = ", ".join(str(control.paths.node(n) / "node.log") for n in sorted(missing))
        raise StartFailed(
            f"not ready after {NODE_READY_SECONDS:.0f} s: {', '.join(sorted(missing))}\nnext: see {logs}"
        ) from None


def agent_reported(control: Control, node: Any) -> bool:
    """Whether a Node's Ready was said by the process running now and not by one before it."""
    from kubesvc.clock import parse_rfc3339

    condition = node.status.condition("Ready")
    beat = condition.last_heartbeat_time or condition.last_transition_time
    return beat is not None and parse_rfc3339(beat) >= int(control.record.started)


async def end_nodes(control: Control) -> None:
    """End every process of every node, with all that runs there."""
    from kubesvc.instance.record import end_processes

    record = control.record
    doomed = [p for p in record.processes() if record.control is None or p.pid != record.control.pid]
    left = await asyncio.to_thread(end_processes, doomed)
    left += await asyncio.to_thread(ground.marked_processes, control.paths.root)
    if left:
        await asyncio.to_thread(end_processes, left)
    for door in control.paths.root.glob("nodes/*/*.sock"):
        door.unlink(missing_ok=True)


# ---------------------------------------------------------------- the process inside a node


class NodeProcess(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's process is told, as JSON in its state directory."""

    node_name: str
    address: str
    state_dir: str
    api_socket: str
    api_tls_socket: str
    api_port: int
    zone: str = ""
    simulated: bool = False
    cluster_dns: str = ""
    cluster_domain: str = "cluster.local"
    cluster_cidrs: tuple[str, ...] = ()
    service_ranges: tuple[str, ...] = ()
    images_map: str = ""
    instance_root: str = ""


def node_process(control: Control, plan: NodePlan) -> NodeProcess:
    options, paths = control.options, control.paths
    return NodeProcess(
        node_name=plan.name,
        address=plan.address,
        state_dir=str(paths.node(plan.name)),
        api_socket=str(paths.api_socket),
        api_tls_socket=str(paths.api_tls_socket),
        api_port=control.record.port,
        zone=plan.zone,
        simulated=plan.simulated,
        cluster_dns=options.dns_address,
        cluster_domain=options.cluster_domain,
        cluster_cidrs=options.cluster_cidr,
        service_ranges=options.service_cluster_ip_range,
        images_map=options.images_map,
        instance_root=str(paths.root),
    )


async def run_node(process: NodeProcess) -> int:
    """Agent, proxy, DNS and the relay to the API of one node, until SIGTERM."""
    from kubesvc.client.http import HttpClient

    stop = stop_event()
    clock, random = RealClock(), Random()
    name_cluster_dns(process)
    client = HttpClient.unix(process.api_socket, manager="kubelet")
    try:
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(part, name=name) for name, part in node_parts(process, client, clock, random)]
            set_collector()
            await stop.wait()
            await cancel(parts)
    finally:
        await client.close()
    return 0


def node_parts(
    process: NodeProcess, client: Client, clock: Clock, random: Random
) -> list[tuple[str, Coroutine[Any, Any, None]]]:
    """The parts of a node's process by name."""
    from kubesvc.node import NodeAgent, NodeSettings

    state = Path(process.state_dir)
    settings = NodeSettings(
        node_name=process.node_name,
        state_dir=state,
        node_addresses=(process.address,),
        cluster_dns=(process.cluster_dns,),
        cluster_domain=process.cluster_domain,
        zone=process.zone,
        simulated=process.simulated,
        images_map=Path(process.images_map) if process.images_map else None,
        hidden_paths=(process.instance_root,),
        resolver_file=str(state / HOST_RESOLVER),
    )
    agent = NodeAgent(client.as_manager("kubelet"), settings, clock, random)
    parts: list[tuple[str, Coroutine[Any, Any, None]]] = [("agent", agent.run())]
    if process.simulated:
        return parts
    from kubesvc.dns import DnsServer, DnsSettings
    from kubesvc.kernel.nft import KernelNft
    from kubesvc.proxy import Proxy, ProxySettings

    proxy_settings = ProxySettings(cluster_cidrs=process.cluster_cidrs, service_cidrs=process.service_ranges)
    proxy = Proxy(client.as_manager("kube-proxy"), process.node_name, KernelNft(), clock, random, proxy_settings)
    dns_settings = DnsSettings(zone=process.cluster_domain, addresses=((process.address, 53),))
    dns = DnsServer(client.as_manager("kube-dns"), dns_settings, clock, random)
    parts += [("proxy", proxy.run()), ("dns", dns.run()), ("api relay", relay_api(process))]
    return parts


def name_cluster_dns(process: NodeProcess) -> None:
    """Let programs of the node itself, such as `kubesvc curl`, resolve the cluster's names.

    The file is laid over /etc/resolv.conf in the node's own mounts. The host's stays readable beside it, for Pods whose
    DNS policy is Default.
    """
    from kubesvc.kernel import syscalls

    state, file = Path(process.state_dir), Path("/etc/resolv.conf").resolve()
    if not file.exists() or process.simulated:
        return
    host = state / HOST_RESOLVER
    if not host.exists():  # a process started again finds the cluster's file in place
        host.write_bytes(file.read_bytes())
    zone = process.cluster_domain
    own = state / "resolv.conf"
    own.write_text(f"search default.svc.{zone} svc.{zone} {zone}\nnameserver {process.address}\noptions ndots:5\n")
    syscalls.mount(str(own), str(file), "", syscalls.MS_BIND)


HOST_RESOLVER = "resolv.host.conf"


async def relay_api(process: NodeProcess) -> None:
    """Answer on the API's address inside the node by passing every connection on to the control process."""
    from kubesvc.instance.relay import Relay

    relay = Relay(lambda: asyncio.open_unix_connection(process.api_tls_socket))
    server = await asyncio.start_server(relay.accept, API_ADDRESS, process.api_port)
    try:
        await asyncio.Event().wait()
    finally:
        server.close()
        await relay.close()


def main() -> int:
    """`python -m kubesvc.app FILE`: the process inside a node; FILE holds a NodeProcess."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    process = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=NodeProcess)
    return run_loop(run_node(process))


if __name__ == "__main__":
    sys.exit(main())
