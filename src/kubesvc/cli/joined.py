"""What `kubesvc join` and `kubesvc node --bootstrap-kubeconfig` share: get the node's credentials, then be the node."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import ipaddress
import logging
import os
import platform
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from kubesvc.clock import Clock, Random, RealClock
from kubesvc.instance.paths import ALONE, state_home
from kubesvc.lifetime import cancel, run_loop, set_collector, set_umask, stop_event

from . import WRONG_USAGE, Failure, first_of
from .runtimes import checked_runtime

if TYPE_CHECKING:
    from kubesvc.client import Client
    from kubesvc.client.http import HttpClient
    from kubesvc.instance.joining import ClusterFacts, Identity
    from kubesvc.proxy import ProxySettings

log = logging.getLogger(__name__)

FORWARDING = "net/ipv4/ip_forward"
RETRY_SECONDS = 60.0


@dataclass(frozen=True)
class Place:
    """Where a node keeps what, on this machine."""

    node: str
    state: Path
    kubeconfig: Path


def place_of(args: argparse.Namespace) -> Place:
    node = args.node or platform.node().lower()
    state = state_home() / ALONE / node
    kubeconfig = Path(args.kubeconfig).absolute() if args.kubeconfig else state / "kubeconfig"
    return Place(node, state, kubeconfig)


def tell(text: str) -> None:
    print(f"kubesvc: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def lone(place: Place) -> Iterator[None]:
    """Hold the node's lock: two agents of one node would fight over its Pods."""
    place.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (place.state / "node.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(
                f"node {place.node!r} runs on this machine already (state in {place.state})\nnext: --node ANOTHER"
            ) from None
        yield


def run_joined(args: argparse.Namespace) -> int:
    """Be a joined node until Ctrl-C or SIGTERM; its Pods go on running."""
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    set_umask()
    place = place_of(args)
    if args.bootstrap_kubeconfig:
        check_credentials(args.bootstrap_kubeconfig)
    if not args.simulated and os.geteuid() != 0:
        raise Failure("a node needs root: it makes network namespaces, routes and nftables rules here\nnext: sudo …")
    if not args.bootstrap_kubeconfig and not place.kubeconfig.is_file():
        raise Failure(
            f"there are no credentials of node {place.node!r} yet ({place.kubeconfig})\n"
            "next: kubesvc join FILE, with what `kubesvc token create` printed on the other machine"
        )
    if args.runtime is not None:
        tell(f"containers are made by {checked_runtime(args.runtime)}")
    with lone(place), passing_on(args):
        return run_loop(live(args, place))


def check_credentials(path: str) -> None:
    """Failure if what one joins with is none; before anything here is looked at or changed."""
    from kubesvc.client.kubeconfig import KubeconfigError, load_kubeconfig

    try:
        load_kubeconfig(Path(path)).access()
    except KubeconfigError as error:
        raise Failure(f"{error}\nnext: the file that `kubesvc token create` printed on the other machine") from None


@contextlib.contextmanager
def passing_on(args: argparse.Namespace) -> Iterator[None]:
    """Make sure that packets can pass from link to link, which Pods live by; what is set here is put back."""
    from kubesvc.instance.joining import forwarding
    from kubesvc.kernel.links import write_sysctls

    if args.simulated or forwarding():
        yield
        return
    if not getattr(args, "set_forwarding", False):
        raise Failure(
            "this machine does not pass packets on between its links (net.ipv4.ip_forward is 0), so its Pods would "
            "reach nobody\nnext: sysctl -w net.ipv4.ip_forward=1, or kubesvc join --set-forwarding, which does so and "
            "puts it back at the end"
        )
    write_sysctls([(FORWARDING, "1")])
    try:
        yield
    finally:
        write_sysctls([(FORWARDING, "0")])


async def live(args: argparse.Namespace, place: Place) -> int:
    """Get credentials, run the parts, renew the credentials."""
    from kubesvc.client.http import HttpClient
    from kubesvc.client.kubeconfig import KubeconfigError, load_kubeconfig
    from kubesvc.client.outage import Outage, PatientClient
    from kubesvc.instance.joining import ClusterFacts, JoinFailed, own_address, read_facts

    stop, clock, random = stop_event(), RealClock(), Random()
    asking = asyncio.ensure_future(credentials(args, place, clock))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not asking.done():
        await cancel([asking])  # type: ignore[list-item]
        return 130
    try:
        identity = asking.result()
        access = load_kubeconfig(place.kubeconfig).access()
        facts = read_facts(place.kubeconfig) or ClusterFacts()
    except (JoinFailed, KubeconfigError) as error:
        raise Failure(str(error)) from error
    try:
        addresses = args.address or (own_address(access.server),)
        for address in addresses:
            ipaddress.ip_address(address)
    except (OSError, ValueError) as error:
        raise Failure(f"--address: {error}", status=WRONG_USAGE) from error
    if args.with_proxy and not args.simulated:
        reach_services(facts, addresses)
    client = HttpClient.from_access(access, "kubelet")
    outage = Outage(client.reach, clock, random)
    try:
        async with asyncio.TaskGroup() as group:
            parts = [
                group.create_task(part)
                for part in (
                    be_node(args, place, facts, addresses, PatientClient(client, outage), clock, random),
                    renew(place, identity, client, clock, random),
                )
            ]
            set_collector()
            await stop.wait()
            await cancel(parts)
    except* Exception as failed:
        raise failure_of(failed) from None
    finally:
        stopping.cancel()
        await outage.close()
        await client.close()
    tell(f"node {place.node} ended; its Pods go on running, and `kubesvc join` takes them up again (or --leave)")
    return 0


def failure_of(group: BaseExceptionGroup[Exception]) -> Failure:
    """What the user is told of parts that failed: the words of one that has some, or what the first one ran into."""
    known, others = group.split(Failure)
    if known is not None:
        return cast(Failure, first_of(known))
    assert others is not None
    log.error("a part of the node failed", exc_info=others)
    cause = first_of(others)
    return Failure(f"a part of the node failed: {type(cause).__name__}: {cause}\nnext: kubesvc join again")


# ---------------------------------------------------------------- credentials


@contextlib.asynccontextmanager
async def speaking(path: Path) -> AsyncIterator[HttpClient]:
    """A client of the cluster of a kubeconfig; what goes wrong is a JoinFailed."""
    from kubesvc.api.errors import ApiError
    from kubesvc.client import Unreachable
    from kubesvc.client.http import HttpClient
    from kubesvc.client.kubeconfig import load_kubeconfig
    from kubesvc.instance.joining import JoinFailed, refusal

    access = load_kubeconfig(path).access()
    client = HttpClient.from_access(access, "kubelet")
    try:
        yield client
    except (ApiError, Unreachable) as error:
        raise JoinFailed(refusal(error, access.server)) from None
    finally:
        await client.close()


async def credentials(args: argparse.Namespace, place: Place, clock: Clock) -> Identity | None:
    """The node's identity: as its kubeconfig has it, or got with the bootstrap kubeconfig and written there. None for
    a kubeconfig that was given with no other: then whoever made it looks after it."""
    from kubesvc.instance.joining import JoinFailed, held_identity, is_private

    if args.kubeconfig and not args.bootstrap_kubeconfig and place.kubeconfig.is_file():
        return None
    held = held_identity(place.kubeconfig, place.node, clock.now())
    if held is not None:
        return held
    if not args.bootstrap_kubeconfig:
        raise JoinFailed(
            f"{place.kubeconfig} holds no credentials of node {place.node!r} that are good\n"
            "next: kubesvc token create on the machine to join, and give what it prints"
        )
    bootstrap = Path(args.bootstrap_kubeconfig)
    if not is_private(bootstrap):
        tell(f"others on this machine can read {bootstrap}, and join by it (next: chmod 600 {bootstrap})")
    return await obtain(args, place, bootstrap, clock)


async def obtain(args: argparse.Namespace | None, place: Place, source: Path, clock: Clock) -> Identity:
    """Get a new identity in the name of the kubeconfig `source`, and write the node's kubeconfig.

    args: facts about the cluster that the user told; None at a renewal
    """
    import msgspec

    from kubesvc.client.kubeconfig import load_kubeconfig
    from kubesvc.instance.joining import (
        ClusterFacts,
        access_of_identity,
        obtain_identity,
        read_facts,
        render_join_kubeconfig,
    )
    from kubesvc.instance.kubeconfig import write_private

    facts = read_facts(source) or ClusterFacts()
    if args is not None:
        given = {
            "cluster_dns": ",".join(args.cluster_dns),
            "cluster_domain": args.cluster_domain,
            "cluster_cidrs": args.cluster_cidr,
        }
        facts = msgspec.structs.replace(facts, **{k: v for k, v in given.items() if v})
    async with speaking(source) as client:
        identity = await obtain_identity(client, place.node, place.kubeconfig, clock, tell)
    access = access_of_identity(load_kubeconfig(source).access(), identity)
    write_private(place.kubeconfig, render_join_kubeconfig(access, facts, f"kubesvc-node-{place.node}"))
    return identity


async def renew(place: Place, identity: Identity | None, client: HttpClient, clock: Clock, random: Random) -> None:
    """Renew the node's certificate in time, for ever; a renewal that fails is tried again."""
    from kubesvc.client.kubeconfig import load_kubeconfig
    from kubesvc.instance.joining import JoinFailed, seconds_to_renewal

    while identity is not None:
        await asyncio.sleep(seconds_to_renewal(identity, clock.now(), random.random()))
        try:
            identity = await obtain(None, place, place.kubeconfig, clock)
        except JoinFailed as error:
            log.warning("the node's certificate was not renewed: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
            continue
        await client.use(load_kubeconfig(place.kubeconfig).access())
        log.info("the node's certificate was renewed")


# ---------------------------------------------------------------- the node


async def be_node(
    args: argparse.Namespace,
    place: Place,
    facts: ClusterFacts,
    addresses: tuple[str, ...],
    client: Client,
    clock: Clock,
    random: Random,
) -> None:
    """Agent, and if asked for proxy and DNS, until cancelled."""
    from kubesvc.node import NodeAgent, NodeSettings

    settings = NodeSettings(
        node_name=place.node,
        state_dir=place.state,
        node_addresses=tuple(addresses),
        cluster_dns=tuple(facts.cluster_dns.split(",")),
        cluster_domain=facts.cluster_domain,
        zone=args.zone,
        simulated=args.simulated,
        images_map=Path(args.images_map) if args.images_map else None,
        image_store=place.state / "images",
        pull_socket=place.state / "pull.sock",
        runtime_socket=args.runtime,
        own_network=False,
        routed=args.with_proxy,
        hidden_paths=(str(state_home()),),
    )
    agent = NodeAgent(client, settings, clock, random)
    async with asyncio.TaskGroup() as group:
        group.create_task(agent.run())
        if not args.simulated:
            group.create_task(pull_images(place, clock))
            group.create_task(open_door(place, addresses[0]))
        group.create_task(announce(agent.ready, place, addresses[0], client))
        if args.with_proxy and not args.simulated:
            group.create_task(steer(args, place, facts, client, clock, random))
        if args.with_dns and not args.simulated:
            group.create_task(answer_names(facts, addresses, client, clock, random))


async def pull_images(place: Place, clock: Clock) -> None:
    """Fetch what nothing here can stand in for."""
    from kubesvc.node.imagestore import ImageStore
    from kubesvc.node.pulling import Puller, serve_pulls

    await serve_pulls(place.state / "pull.sock", Puller(ImageStore(place.state / "images"), clock, {}))


async def open_door(place: Place, address: str) -> None:
    """Let the API server reach the agent for logs, exec and port forwarding; without that everything else works."""
    from kubesvc.client.kubeconfig import load_kubeconfig
    from kubesvc.instance.remotedoor import serve_door
    from kubesvc.node.door import SOCKET_NAME
    from kubesvc.node.nodestatus import AGENT_PORT

    try:
        await serve_door(
            address, AGENT_PORT, place.state / SOCKET_NAME, lambda: load_kubeconfig(place.kubeconfig).access()
        )
    except OSError as error:
        tell(f"no logs and no exec here: {address}:{AGENT_PORT} cannot be listened on: {error.strerror}")


async def announce(ready: asyncio.Event, place: Place, address: str, client: Client) -> None:
    await ready.wait()
    tell(f"node {place.node} ({address}) is ready; credentials in {place.kubeconfig}; Ctrl-C ends it")


async def steer(
    args: argparse.Namespace, place: Place, facts: ClusterFacts, client: Client, clock: Clock, random: Random
) -> None:
    """The node's proxy. It changes no parameter of a kernel that it shares with others."""
    from kubesvc.proxy import Proxy
    from kubesvc.proxy.choice import ModeUnavailable, open_backends

    from .proxy import foreign_here, refusal

    if foreign := await foreign_here(args.proxy_mode):
        raise Failure(refusal(foreign))
    settings = proxy_settings(args.proxy_mode, facts)
    try:
        opened = await open_backends(settings, clock, random, listing=place.state / "service-ports.json")
    except ModeUnavailable as error:
        raise Failure(f"{error}\nnext: --proxy-mode auto takes what works") from error
    tell(str(opened.choice))
    manager = client.as_manager("kube-proxy")
    proxy = Proxy(manager, place.node, opened.backends, clock, random, settings, conntrack=opened.conntrack)
    with contextlib.closing(opened):
        await proxy.run()


def proxy_settings(mode: str, facts: ClusterFacts) -> ProxySettings:
    from kubesvc.proxy import ProxySettings

    return ProxySettings(
        mode=mode,  # type: ignore[arg-type]
        cluster_cidrs=facts.cluster_cidrs,
        service_cidrs=facts.service_ranges,
        loopback_node_ports=False,
    )


async def answer_names(
    facts: ClusterFacts, addresses: tuple[str, ...], client: Client, clock: Clock, random: Random
) -> None:
    """The node's DNS, at its own address."""
    from kubesvc.dns import DnsServer, DnsSettings
    from kubesvc.dns.forward import ForwardSettings, upstreams_of
    from kubesvc.dns.listeners import CannotListen

    try:
        upstreams = upstreams_of(Path("/etc/resolv.conf").read_text())
    except OSError:
        upstreams = ()
    settings = DnsSettings(
        zone=facts.cluster_domain,
        addresses=tuple((address, 53) for address in addresses),
        metrics_port=9153,
        forward=ForwardSettings(upstreams=upstreams) if upstreams else None,
    )
    try:
        await DnsServer(client.as_manager("kube-dns"), settings, clock, random).run()
    except CannotListen as error:
        raise Failure(
            f"the node's {error}\nnext: end what listens there, or give the node another --address"
        ) from error


def reach_services(facts: ClusterFacts, addresses: tuple[str, ...]) -> None:
    """Where no route leads to ClusterIPs, not even a default one, add one: a connection is only steered once the kernel
    has some way for it."""
    from kubesvc.instance.joining import routes_lacking
    from kubesvc.kernel.links import NetlinkLinks

    links = NetlinkLinks()
    try:
        present = [*links.routes(), *links.routes(socket.AF_INET6)]
        for route in routes_lacking(facts.service_ranges, present, addresses):
            links.replace_route(route)
            tell(f"no route led to ClusterIPs: added {route.destination} by {route.device}")
    finally:
        links.close()


# ---------------------------------------------------------------- leaving


def leave(args: argparse.Namespace) -> int:
    """End the node's Pods, and remove its routes, rules and files."""
    import shutil

    from kubesvc.client.kubeconfig import KubeconfigError
    from kubesvc.instance.joining import ClusterFacts, read_facts, routes_of_node
    from kubesvc.kernel.links import NetlinkLinks

    place = place_of(args)
    if not place.state.is_dir():
        raise Failure(f"no node {place.node!r} has run on this machine (no {place.state})")
    with lone(place):
        try:
            facts = read_facts(place.kubeconfig) or ClusterFacts()
        except KubeconfigError:
            facts = ClusterFacts()
        ended = end_pods(place)
        asyncio.run(remove_rules(facts))
        links = NetlinkLinks()
        try:
            for route in routes_of_node(facts, [*links.routes(), *links.routes(socket.AF_INET6)]):
                with contextlib.suppress(OSError):
                    links.delete_route(route)
        finally:
            links.close()
        place.kubeconfig.unlink(missing_ok=True)
    shutil.rmtree(place.state, ignore_errors=True)
    pods = f"{ended} Pod{'s' if ended != 1 else ''} ended"
    print(f"node {place.node} has left: {pods}; next, where the API is: kubectl delete node {place.node}")
    return 0


def end_pods(place: Place) -> int:
    """Kill what the agent's records tell of; the number of Pods."""
    from kubesvc.kernel.cgroups import remove_recorded
    from kubesvc.kernel.process import StillRunning, WatchedProcess, end_for_good
    from kubesvc.node.agent import GROUPS_RECORD
    from kubesvc.node.records import Records

    records = Records(place.state).load()

    async def kill() -> None:
        for record in records:
            held = [(c.pid, c.start_time) for c in record.containers.values()]
            for pid, started in [*held, (record.pause_pid, record.pause_start_time)]:
                process = WatchedProcess.adopt(pid, started) if pid else None
                if process is not None:
                    try:
                        await end_for_good(process, f"pod {record.namespace}/{record.name}")
                    except StillRunning as error:
                        tell(str(error))

    asyncio.run(kill())
    with contextlib.suppress(OSError):
        remove_recorded(place.state / GROUPS_RECORD)
    return len(records)


async def remove_rules(facts: ClusterFacts) -> None:
    from kubesvc.kernel.nft import KernelNft, NftError
    from kubesvc.node.hostports import HostPorts
    from kubesvc.proxy.choice import remove_leftovers

    await remove_leftovers("userspace", [], proxy_settings("auto", facts))
    with contextlib.suppress(OSError, NftError):
        await HostPorts(KernelNft()).clear()
