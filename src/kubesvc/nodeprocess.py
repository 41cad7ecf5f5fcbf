"""The process inside a node: agent, proxy, DNS, and a relay to the API, put together.

`python -m kubesvc.nodeprocess FILE` runs in the node's own namespaces; FILE holds a NodeProcess as JSON. With a
container runtime it runs in the node's network and otherwise in the host's namespaces, and a second argument names a
process inside the node.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from kubesvc.clock import Clock, Random, RealClock
from kubesvc.instance.journal import HOPS, HopJournal
from kubesvc.instance.nodekeeper import HOST_RESOLVER
from kubesvc.instance.options import NodeProcess
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.proxyreport import PROXY_REPORT, SERVICE_PORTS, ProxyReport, write_report
from kubesvc.instance.wiring import api_addresses
from kubesvc.lifetime import cancel, run_loop, set_collector, stop_event

if TYPE_CHECKING:
    from kubesvc.client import Client
    from kubesvc.proxy.backend import SyncReport

log = logging.getLogger(__name__)


async def run_node(process: NodeProcess) -> int:
    """Agent, proxy, DNS and the relay to the API of one node, until SIGTERM."""
    from kubesvc.client.http import HttpClient

    stop = stop_event()
    clock, random = RealClock(), Random()
    name_cluster_dns(process)
    agent = HttpClient.unix(process.api_socket, manager="kubelet")
    proxy = HttpClient.unix(process.proxy_api_socket, manager="kube-proxy")
    dns = HttpClient.unix(process.dns_api_socket, manager="kube-dns")
    clients = Clients(agent, proxy, dns)
    try:
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(part, name=name) for name, part in node_parts(process, clients, clock, random)]
            set_collector()
            await stop.wait()
            await cancel(parts)
    finally:
        for client in (agent, proxy, dns):
            await client.close()
    return 0


class Clients(NamedTuple):
    """The API as each part of a node may use it."""

    agent: Client
    proxy: Client
    dns: Client


def node_parts(
    process: NodeProcess, clients: Clients, clock: Clock, random: Random
) -> list[tuple[str, Coroutine[Any, Any, None]]]:
    """The parts of a node's process by name."""
    from kubesvc.node import NodeAgent, NodeSettings

    state = Path(process.state_dir)
    settings = NodeSettings(
        node_name=process.node_name,
        state_dir=state,
        node_addresses=process.addresses,
        cluster_dns=(process.cluster_dns,),
        cluster_domain=process.cluster_domain,
        zone=process.zone,
        simulated=process.simulated,
        images_map=Path(process.images_map) if process.images_map else None,
        image_store=InstancePaths(Path(process.instance_root)).images,
        pull_socket=Path(process.pull_socket) if process.pull_socket else None,
        registries_first=process.registries_first,
        runtime_socket=Path(process.runtime) if process.runtime and not process.simulated else None,
        runtime_pulls=bool(process.pull_socket),
        hidden_paths=(process.instance_root,),
        group=f"{InstancePaths(Path(process.instance_root)).group}/{process.node_name}"
        if process.instance_root
        else "",
        resolver_file=str(state / HOST_RESOLVER),
    )
    agent = NodeAgent(clients.agent, settings, clock, random, network=clients.proxy)
    hops = HopJournal(state / HOPS, clock)
    agent.verdict_told = hops.probe
    parts: list[tuple[str, Coroutine[Any, Any, None]]] = [("agent", agent.run())]
    if process.simulated:
        return parts
    from kubesvc.api.endpointslice import ENDPOINT_SLICE
    from kubesvc.dns import DnsServer, DnsSettings
    from kubesvc.dns.forward import ForwardSettings

    dns_settings = DnsSettings(
        zone=process.cluster_domain,
        addresses=tuple((address, 53) for address in process.addresses),
        metrics_port=9153,
        forward=ForwardSettings(upstreams=(Path(process.dns_socket),)) if process.dns_socket else None,
    )
    dns = DnsServer(clients.dns, dns_settings, clock, random)
    dns.informers.of(ENDPOINT_SLICE).on_change(hops.names)
    parts += [
        ("proxy", steer(process, clients.proxy, clock, random, hops.rules)),
        ("dns", dns.run()),
        ("api relay", relay_api(process)),
    ]
    return parts


async def steer(
    process: NodeProcess, client: Client, clock: Clock, random: Random, synced: Callable[[SyncReport], None]
) -> None:
    """The node's proxy, in the mode that was asked for or the best that works here; which one, and why, is in a file of
    the node. What was asked for and does not work is said there, and then there is no proxy."""
    from kubesvc.proxy import Proxy, ProxySettings
    from kubesvc.proxy.choice import ModeUnavailable, open_backends
    from kubesvc.proxy.settings import METRICS_PORT

    settings = ProxySettings(
        mode=process.proxy_mode,
        cluster_cidrs=process.cluster_cidrs,
        service_cidrs=process.service_ranges,
        metrics_port=METRICS_PORT,
    )
    state = Path(process.state_dir)
    try:
        opened = await open_backends(settings, clock, random, listing=state / SERVICE_PORTS)
    except ModeUnavailable as error:
        log.error("no proxy: %s", error)
        write_report(state / PROXY_REPORT, ProxyReport("", str(error)))
        await asyncio.Event().wait()
        return
    log.info("%s", opened.choice)
    report = ProxyReport(opened.choice.mode, opened.choice.why)
    write_report(state / PROXY_REPORT, report)

    def crowded(text: str) -> None:
        nonlocal report
        report = msgspec.structs.replace(report, crowded=text)
        write_report(state / PROXY_REPORT, report)

    def refused(family: str, services: dict[tuple[str, str], str]) -> None:
        others = {k: v for k, v in report.refused.items() if not k.startswith(family)}
        report.refused.clear()
        report.refused.update(others | {f"{family} {'/'.join(key)}": said for key, said in services.items()})
        write_report(state / PROXY_REPORT, report)

    proxy = Proxy(
        client,
        process.node_name,
        opened.backends,
        clock,
        random,
        settings,
        conntrack=opened.conntrack,
        synced=synced,
        refused=refused,
        crowded=crowded,
    )
    with closing(opened):
        await proxy.run()


def name_cluster_dns(process: NodeProcess) -> None:
    """Let programs of the node itself, such as `kubesvc curl`, resolve the cluster's names.

    The file is laid over /etc/resolv.conf in the node's own mounts. The host's stays readable beside it, for Pods whose
    DNS policy is Default.
    """
    from kubesvc.kernel import syscalls
    from kubesvc.kernel.process import Spawner

    state, file = Path(process.state_dir), Path("/etc/resolv.conf").resolve()
    if not file.exists() or process.simulated:
        return
    host = state / HOST_RESOLVER
    if not host.exists():  # a process started again finds the cluster's file in place
        host.write_bytes(file.read_bytes())
    zone = process.cluster_domain
    own = state / "resolv.conf"
    own.write_text(f"search default.svc.{zone} svc.{zone} {zone}\nnameserver {process.address}\noptions ndots:5\n")

    def lay() -> None:
        syscalls.mount(str(own), str(file), "", syscalls.MS_BIND)

    if not process.ground:
        lay()
        return
    spawner = Spawner()
    try:
        spawner.thread.submit(spawner.visit, lay, process.ground, ("mnt",), ()).result()
    finally:
        spawner.close()


async def relay_api(process: NodeProcess) -> None:
    """Answer on the API's addresses inside the node by passing every connection on to the control process."""
    from kubesvc.instance.relay import Relay

    relay = Relay(lambda: asyncio.open_unix_connection(process.api_tls_socket))
    here = api_addresses(six=any(":" in a for a in process.addresses))
    server = await asyncio.start_server(relay.accept, here, process.api_port)
    try:
        await asyncio.Event().wait()
    finally:
        server.close()
        await relay.close()


def main() -> int:
    """Run the node that the file named on the command line describes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    process = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=NodeProcess)
    if len(sys.argv) > 2:
        process = msgspec.structs.replace(process, ground=int(sys.argv[2]))
    return run_loop(run_node(process))


if __name__ == "__main__":
    sys.exit(main())
