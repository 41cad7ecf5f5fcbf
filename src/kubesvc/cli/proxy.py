"""Run the service proxy of one node alone, against any cluster, in this network namespace.

  kubesvc proxy --kubeconfig FILE --node NAME             steer this node's traffic
  kubesvc proxy --kubeconfig FILE --dry-run               print what would be written, in nft's language; write nothing
  kubesvc proxy --kubeconfig FILE --audit                 compare the kernel's rules, kube-proxy's or ours, with the API
  kubesvc proxy --kubeconfig FILE --take-over             go on where kube-proxy's rules are, and remove those
  kubesvc proxy --cleanup                                 remove all rules of ours, of whatever mode; needs no cluster

It writes the tables `ip kubesvc` and `ip6 kubesvc` and touches no other; without nftables, chains of iptables that are
named as kube-proxy's. It needs the right to change them (root, or a namespace of your own); without it, --proxy-mode
userspace answers for Services at loopback ports, which it prints. Rules stay when it ends, so that traffic goes on, but
for --remove-at-end. Where kube-proxy's rules are it refuses to start, since two translators at one hook cannot both
rule. Who asks /healthz at --healthz-bind-address, or /metrics at --metrics-bind-address, is answered as by kube-proxy.

Exit status of --audit: 0 everything is as the API says, 1 there are differences, 2 cannot tell.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import logging
import platform
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from . import WRONG_USAGE, Failure
from .alone import add_part_arguments, run_part
from .cluster import CANNOT_TELL, Cluster, asking_cluster
from .flags import comma

if TYPE_CHECKING:
    from kubesvc.client import Client
    from kubesvc.clock import Clock, Random
    from kubesvc.kernel.iptables import Iptables
    from kubesvc.proxy.settings import ProxySettings
    from kubesvc.proxy.takeover import Foreign
    from kubesvc.proxy.traffic import Family, Place, PortTraffic, ServiceKey
    from kubesvc.proxy.userspace import Entry

log = logging.getLogger(__name__)

FAMILIES: tuple[Family, ...] = ("IPv4", "IPv6")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_part_arguments(parser)
    parser.add_argument("--node", default="", metavar="NAME", help="this node (default: the host name)")
    parser.add_argument("--cluster-cidr", type=comma, default=None, metavar="CIDR[,CIDR]", help="all pods' addresses")
    parser.add_argument(
        "--detect-local-mode", choices=("ClusterCIDR", "NodeCIDR", "InterfaceNamePrefix", "BridgeInterface"),
        default="ClusterCIDR", help="how Pods are told: by --cluster-cidr, this node's podCIDR, or an interface",
    )  # fmt: skip
    parser.add_argument("--pod-interface", default="", metavar="NAME", help="the interface, or how its name begins")
    parser.add_argument(
        "--proxy-mode", choices=("auto", "nftables", "iptables", "userspace"), default="auto",
        help="how to steer packets (auto: the first of the others that works here; one line says which and why)",
    )  # fmt: skip
    parser.add_argument("--masquerade-all", action="store_true", help="rewrite the source of all ClusterIP traffic")
    parser.add_argument(
        "--service-ports", type=Path, default=None, metavar="FILE",
        help="in userspace mode: keep the list of loopback ports in this file, and the ports over restarts",
    )  # fmt: skip
    parser.add_argument(
        "--nodeport-addresses", type=comma, default=None, metavar="CIDR[,CIDR]|primary",
        help="where node ports are reached (default: the Node's own addresses, with iptables all of this machine)",
    )  # fmt: skip
    for asked, default in (("healthz", "0.0.0.0:10256"), ("metrics", "127.0.0.1:10249")):
        parser.add_argument(
            f"--{asked}-bind-address", type=bind_address, default=bind_address(default), metavar="ADDRESS:PORT",
            help=f'where /{asked} is answered (default: {default}; "" is nowhere)',
        )  # fmt: skip
    parser.add_argument("--remove-at-end", action="store_true", help="remove our rules when this ends")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="print what would be written, and end")
    what.add_argument("--audit", action="store_true", help="compare the kernel's rules with the API, and end")
    what.add_argument("--take-over", action="store_true", help="start where kube-proxy's rules are, and remove them")
    what.add_argument("--cleanup", action="store_true", help="remove all rules of ours, and end")
    parser.add_argument("--json", action="store_true", help="with --audit: for programs")


def bind_address(text: str) -> tuple[str, int]:
    """`ADDRESS:PORT`, an IPv6 address in brackets; ("", 0) for nothing."""
    if not text:
        return "", 0
    address, _, port = text.rpartition(":")
    try:
        ipaddress.ip_address(address.strip("[]"))
        if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no ADDRESS:PORT, such as 127.0.0.1:10249") from None
    return address.strip("[]"), int(port)


def node_port_addresses(words: tuple[str, ...] | None) -> Literal["default", "primary"] | tuple[str, ...]:
    """Where node ports are reached. Failure if it is neither ranges nor the word `primary`, alone (PROXY-67)."""
    if words is None:
        return "default"
    if words == ("primary",):
        return "primary"
    for word in words:
        try:
            ipaddress.ip_network(word)
        except ValueError as error:
            raise Failure(
                f"--nodeport-addresses {word}: {error}; allowed are ranges such as 192.0.2.0/24, or the word primary",
                status=WRONG_USAGE,
            ) from None
    return tuple(words)


def run(args: argparse.Namespace) -> int:
    if args.cleanup:
        return asyncio.run(clean_up())
    args.node = args.node or platform.node().lower()
    args.namespace = None
    check_detector(args)
    if args.dry_run:
        return asyncio.run(once(args, dry_run))
    if args.audit:
        return asyncio.run(once(args, audit))
    foreign = asyncio.run(foreign_here(args.proxy_mode))
    if foreign and not args.take_over:
        raise Failure(refusal(foreign))
    return run_part(args, "proxy", lambda client, clock, random: serve(args, client, clock, random))


def check_detector(args: argparse.Namespace) -> None:
    by_interface = args.detect_local_mode in ("InterfaceNamePrefix", "BridgeInterface")
    if by_interface != bool(args.pod_interface):
        raise Failure(
            "--pod-interface names the interface that --detect-local-mode InterfaceNamePrefix or BridgeInterface wants",
            status=WRONG_USAGE,
        )


def settings_of(args: argparse.Namespace, pod_cidrs: tuple[str, ...]) -> ProxySettings:
    """What the options ask for. pod_cidrs: this node's, for NodeCIDR (PROXY-52)."""
    from kubesvc.proxy import ProxySettings
    from kubesvc.proxy.choice import families_here

    interface = args.pod_interface + ("*" if args.detect_local_mode == "InterfaceNamePrefix" else "")
    return ProxySettings(
        mode=args.proxy_mode,
        cluster_cidrs=pod_cidrs if args.detect_local_mode == "NodeCIDR" else args.cluster_cidr or (),
        node_cidrs=args.detect_local_mode == "NodeCIDR",
        pod_interface=interface,
        masquerade_all=args.masquerade_all,
        node_port_addresses=node_port_addresses(args.nodeport_addresses),
        cleanup=args.remove_at_end,
        families=families_here(),
        service_cidrs=(),
        connection_limits=True,
        health_address=args.healthz_bind_address[0],
        health_port=args.healthz_bind_address[1],
        metrics_address=args.metrics_bind_address[0],
        metrics_port=args.metrics_bind_address[1],
    )


# ---------------------------------------------------------------- steering


async def serve(args: argparse.Namespace, client: Client, clock: Clock, random: Random) -> None:
    """Run until cancelled; with --take-over remove kube-proxy's rules once ours are in force, and in any case what we
    wrote in another mode before (PROXY-121)."""
    from kubesvc.proxy import Proxy
    from kubesvc.proxy.choice import ModeUnavailable, open_backends, remove_leftovers
    from kubesvc.proxy.nodecidr import NodeCidrFailed, NodeCidrs

    foreign = await foreign_here(args.proxy_mode) if args.take_over else []
    cidrs = NodeCidrs(client, args.node, clock, random)
    by_node = args.detect_local_mode == "NodeCIDR"
    try:
        settings = settings_of(args, await cidrs.first() if by_node else ())
        try:
            listing = args.service_ports.absolute() if args.service_ports else None
            opened = await open_backends(settings, clock, random, listing=listing, listed=Ports().show)
        except ModeUnavailable as error:
            raise Failure(f"{error}\nnext: --proxy-mode auto takes what works") from error
        print(f"kubesvc {opened.choice}", file=sys.stderr)
        if len(settings.families) == 1:
            print("kubesvc proxy: IPv4 only, since IPv6 is off in this network namespace", file=sys.stderr)
        proxy = Proxy(
            client, args.node, opened.backends, clock, random, settings,
            conntrack=opened.conntrack, addresses_of=addresses_here,
        )  # fmt: skip
        applied = [f.applied for f in proxy.families]
        with closing(opened):
            async with asyncio.TaskGroup() as group:
                group.create_task(proxy.run())
                group.create_task(remove_leftovers(proxy.mode, applied, settings))
                if by_node:
                    group.create_task(cidrs.watch(settings.cluster_cidrs))
                if proxy.mode == "iptables":
                    foreign = [f for f in foreign if f.table is not None]  # chains of these names are ours by now
                if foreign:
                    await asyncio.gather(*(event.wait() for event in applied))
                    await remove_foreign(foreign)
    except* NodeCidrFailed as failed:
        raise Failure(f"{failed.exceptions[0]}\nnext: start it again") from None


def addresses_here() -> list[str]:
    """All addresses of this network namespace's interfaces, of which --nodeport-addresses choose."""
    from kubesvc.kernel.links import NetlinkLinks

    links = NetlinkLinks()
    try:
        return [address for link in links.links() for address in links.addresses(link.name)]
    finally:
        links.close()


async def clean_up() -> int:
    """Remove what any mode of ours has written in this network namespace, and say what that was (PROXY-121)."""
    from kubesvc.kernel.iptables import IptablesError
    from kubesvc.kernel.nft import NftError
    from kubesvc.proxy import ProxySettings
    from kubesvc.proxy.choice import remove_ours

    try:
        removed = await remove_ours(ProxySettings())
    except (OSError, NftError, IptablesError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise Failure(f"our rules cannot be removed: {said}\nnext: run it as root, on the node") from error
    print("\n".join(f"removed {what}" for what in removed) or "there are no rules of ours here")
    return 0


class Ports:
    """Tells on standard output which loopback port stands for which address of a Service, as that changes."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], str] = {}

    def show(self, entries: list[Entry]) -> None:
        now = {
            (e.front, e.protocol): f"{e.service} {e.front}/{e.protocol} {e.error or f'{e.state} at {e.at}'}"
            for e in entries
        }
        for key, line in now.items():
            if self.known.get(key) != line:
                print(line)
        for front, protocol in [key for key in self.known if key not in now]:
            print(f"gone {front}/{protocol}")
        self.known = now
        sys.stdout.flush()


async def foreign_here(mode: str) -> list[Foreign]:
    """What kube-proxy has written in this network namespace. Failure if that cannot be seen, though it would matter."""
    from kubesvc.kernel.nft import KernelNft, NftError
    from kubesvc.proxy.takeover import find_foreign

    if mode == "userspace":
        return []  # it writes no rules, and stands in nobody's way
    if mode != "nftables":
        from kubesvc.proxy.choice import try_nftables

        if not try_nftables().able:
            return await find_foreign(None, await iptables_here())
    try:
        nft = KernelNft()
        try:
            return await find_foreign(nft, await iptables_here())
        finally:
            nft.close()
    except (OSError, NftError) as error:
        raise Failure(f"the kernel's rules cannot be read: {error}\nnext: kubesvc doctor") from error


def refusal(foreign: list[Foreign]) -> str:
    listed = "".join(f"\n  {f}" for f in foreign)
    return (
        f"kube-proxy's rules are here, and two proxies cannot both rule:{listed}\n"
        "next: kubesvc proxy --dry-run shows what would be written, --audit whether kube-proxy's rules are right;\n"
        "      to change over, stop kube-proxy (it would write its rules anew) and use --take-over"
    )


async def remove_foreign(foreign: list[Foreign]) -> None:
    """Once ours rule, kube-proxy's go: in this order nobody is without rules in between."""
    from kubesvc.kernel.nft import KernelNft
    from kubesvc.proxy.takeover import remove

    nft = KernelNft()
    try:
        await remove(foreign, nft, await iptables_here())
    finally:
        nft.close()
    for f in foreign:
        print(f"kubesvc proxy: removed kube-proxy's {f}", file=sys.stderr)


async def iptables_here() -> Iptables | None:
    """iptables of this namespace, None where its programs are missing."""
    from kubesvc.kernel.iptables import IptablesError, KernelIptables

    door = KernelIptables()
    try:
        await door.save("IPv4", "nat")
    except IptablesError:
        return None
    return door


# ---------------------------------------------------------------- looking once


@dataclass(frozen=True)
class World:
    """What the API says of this node, read once."""

    place: Place
    ports: dict[Family, dict[ServiceKey, tuple[PortTraffic, ...]]]
    service_ranges: tuple[str, ...]
    pod_cidrs: tuple[str, ...]

    def of(self, family: Family) -> tuple[str, ...]:
        """This node's own addresses of a family."""
        return tuple(a for a in self.place.addresses if (":" in a) == (family == "IPv6"))


async def once(args: argparse.Namespace, job: object) -> int:
    """Read the cluster, do the job, end."""
    from kubesvc.kernel.nft import NftError

    async with asking_cluster(args, "kubesvc-proxy") as cluster:
        try:
            world = await read(args, cluster)
            return int(await job(args, world))  # type: ignore[operator]
        except BrokenPipeError:
            raise  # whoever reads what we say has seen enough
        except (OSError, NftError) as error:
            raise Failure(f"the kernel's rules cannot be read: {error}", status=CANNOT_TELL) from error


async def read(args: argparse.Namespace, cluster: Cluster) -> World:
    """Services, slices and this node, planned. Failure if the node is none of the cluster."""
    from kubesvc.api.endpointslice import EndpointSlice
    from kubesvc.api.kinds import ENDPOINT_SLICE, NODE, SERVICE
    from kubesvc.api.node import Node
    from kubesvc.api.service import Service
    from kubesvc.api.servicecidr import SERVICE_CIDR, ServiceCIDR
    from kubesvc.proxy.sync import place_of
    from kubesvc.proxy.traffic import LABEL_HEADLESS, plan_service, service_of
    from kubesvc.why.collect import Reader

    reader = Reader(cluster.client)
    services = await reader.read(SERVICE)
    slices, nodes, cidrs = await asyncio.gather(
        reader.read(ENDPOINT_SLICE, labels=f"!{LABEL_HEADLESS}"),
        reader.read(NODE),
        reader.read(SERVICE_CIDR, needed=False),
    )
    if reader.gaps:
        raise Failure("; ".join(map(str, reader.gaps.values())), status=CANNOT_TELL)
    node = next((o for _, o in nodes if isinstance(o, Node) and o.name == args.node), None)
    if node is None:
        names = ", ".join(sorted(o.name for _, o in nodes)) or "none"
        raise Failure(f"no node {args.node!r} in the cluster; there are {names}\nnext: --node NAME", status=CANNOT_TELL)
    place = place_of(args.node, node)
    by_service: dict[tuple[str, str], list[EndpointSlice]] = {}
    for _, s in slices:
        if isinstance(s, EndpointSlice) and (key := service_of(s)):
            by_service.setdefault(key, []).append(s)
    ports: dict[Family, dict[ServiceKey, tuple[PortTraffic, ...]]] = {f: {} for f in FAMILIES}
    for _, service in services:
        assert isinstance(service, Service)
        for family in FAMILIES:
            key = (service.namespace, service.name)
            if planned := plan_service(service, by_service.get(key, ()), place, family):
                ports[family][key] = planned
    ranges = tuple(c for _, o in cidrs if isinstance(o, ServiceCIDR) for c in o.spec.cidrs or ())
    return World(place, ports, ranges, tuple(node.spec.pod_cidrs or ()))


def reached_at(settings: ProxySettings, world: World, family: Family) -> tuple[str, ...]:
    """Where node ports are reached: the Node's own address, or those of this machine that were chosen (PROXY-67)."""
    from kubesvc.proxy.sync import addresses_within

    chosen = settings.node_port_addresses
    return world.of(family)[:1] if isinstance(chosen, str) else addresses_within(family, addresses_here(), chosen)


async def dry_run(args: argparse.Namespace, world: World) -> int:
    """Print the transactions that would make the kernel's tables right."""
    from kubesvc.kernel.nft import KernelNft, NftError
    from kubesvc.kernel.nft.text import transaction_lines
    from kubesvc.proxy.frame import FrameOptions
    from kubesvc.proxy.nftables import Ruleset

    settings = settings_of(args, world.pod_cidrs)
    for family in settings.families:
        cidr = next((c for c in settings.cluster_cidrs if (":" in c) == (family == "IPv6")), "")
        ranges = tuple(r for r in world.service_ranges if (":" in r) == (family == "IPv6"))
        options = FrameOptions(
            family,
            settings.table,
            cidr,
            settings.pod_interface,
            settings.masquerade_all,
            settings.masquerade_bit,
            ranges,
        )
        ruleset = Ruleset(options, reached_at(settings, world, family))
        ruleset.change(world.ports[family])
        found = None
        try:
            nft = KernelNft()
            try:
                found = await nft.read(ruleset.words.nfproto, settings.table)
            finally:
                nft.close()
        except (NftError, OSError) as error:
            print(f"# {family}: the kernel's table cannot be read ({error}); shown is what a first start writes")
        if found is None and not ruleset.ports and not ranges:
            print(f"# {family}: nothing to write")
            continue
        transactions = ruleset.repair(found)
        print(f"# {family}: {len(transactions)} transactions, {len(ruleset.ports)} Services")
        wished = ruleset.table()
        for number, transaction in enumerate(transactions, 1):
            print(f"# transaction {number}")
            for line in transaction_lines(transaction, wished.sets):
                print(line)
    return 0


async def audit(args: argparse.Namespace, world: World) -> int:
    """Hold the rules that are here against what the API says."""
    from kubesvc.kernel.nft import KernelNft
    from kubesvc.proxy import audit as au
    from kubesvc.proxy.decision import Surroundings
    from kubesvc.proxy.iptables import MARKER
    from kubesvc.proxy.rules import read_chains
    from kubesvc.proxy.takeover import NFPROTO, WORDS, find_foreign

    nft = KernelNft()
    settings = settings_of(args, world.pod_cidrs)
    rules: list[tuple[Family, au.Rules]] = []
    try:
        for foreign in await find_foreign(nft, await iptables_here()):
            owner = f"kube-proxy's {foreign}"
            made = (
                au.rules_of_table(foreign.table, owner)
                if foreign.table is not None
                else au.rules_of_chains(foreign.chains or {}, owner)
            )
            rules.append((foreign.family, made))
        for family in FAMILIES:
            table = await nft.read(NFPROTO[family], settings.table)
            if table is not None:
                rules.append((family, au.rules_of_table(table, f"our table `{WORDS[family]} {settings.table}`")))
        for family, tables in (await read_chains()).items():
            if MARKER in tables["nat"].rules:
                rules.append((family, au.rules_of_chains(tables, f"our iptables chains ({family})")))
    finally:
        nft.close()
    if not rules:
        raise Failure(
            "there are no rules to audit here, neither kube-proxy's nor ours\n"
            "next: run it on a node, in the network namespace whose traffic is steered",
            status=CANNOT_TELL,
        )
    differences: list[au.Difference] = []
    fronts = 0
    for family, made in rules:
        own = world.of(family)
        pods = next((c for c in settings.cluster_cidrs if (":" in c) == (family == "IPv6")), "")
        reached = reached_at(settings, world, family)
        at = Surroundings(pod_cidr=pods, own_addresses=own, node_addresses=reached, service_cidrs=world.service_ranges)
        ports = [p for listed in world.ports[family].values() for p in listed]
        fronts += len({f for p in ports for f in au.fronts_of(p, at)})
        differences += au.audit(made, ports, at, au.senders_of(own, pods, 6 if family == "IPv6" else 4))
    report = au.Report(tuple(made.owner for _, made in rules), fronts, tuple(differences))
    print(json.dumps(au.as_json(report), indent=2) if args.json else au.render(report))
    return 1 if differences else 0
