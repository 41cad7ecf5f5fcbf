"""Say what a name resolves to inside a Pod: each step of the search, and where the answer comes from.

  kubesvc resolve web --from pod/client        as the Pod's own resolver does it
  kubesvc resolve web.shop                     as a Pod with usual settings in the namespace does it
  kubesvc resolve _http._tcp.web.shop.svc.cluster.local --type SRV
  kubesvc resolve 10.96.3.4                    an address: its names

Nothing is sent; the answers are those that the cluster's DNS makes of the objects as they are. Exit status: 0 it
resolves, 1 it does not, 2 cannot tell (other resolvers are asked), 64 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import WRONG_USAGE, Failure
from .cluster import CANNOT_TELL, Cluster, asking_cluster
from .target import add_target

if TYPE_CHECKING:
    from kubesvc.api.pod import Pod
    from kubesvc.dns.explain import Step
    from kubesvc.dns.records import Zone
    from kubesvc.dns.snapshot import Snapshot
    from kubesvc.node.resolvconf import ResolverFile

TYPES = ("A", "AAAA", "SRV", "PTR", "CNAME", "TXT", "NS", "SOA")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", metavar="NAME", help="the name, or an address")
    parser.add_argument("--from", dest="source", default="", metavar="POD", help="the Pod that asks")
    parser.add_argument("--type", default="", choices=TYPES, help="what is asked for (default: A and AAAA)")
    parser.add_argument("-n", "--namespace", metavar="NAMESPACE", help="where the Pod is")
    parser.add_argument(
        "--cluster-domain", default="cluster.local", metavar="NAME", help="the zone of the cluster's names"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    return asyncio.run(look(args))


async def look(args: argparse.Namespace) -> int:
    async with asking_cluster(args, "kubesvc-resolve") as cluster:
        return await answer(args, cluster)


@dataclass(frozen=True)
class Asker:
    """Who asks: what its resolver file says, and names that its own hosts file answers."""

    who: str
    file: ResolverFile
    hosts: dict[str, list[str]]


@dataclass(frozen=True)
class Lookup:
    """One type asked for: the steps, and the last one's meaning. source: where the answer comes from, in words."""

    type: str
    steps: list[Step]
    source: str
    records: tuple[str, ...]

    @property
    def outcome(self) -> str:
        return self.steps[-1].outcome if self.steps else "NOERROR"


async def answer(args: argparse.Namespace, cluster: Cluster) -> int:
    from kubesvc.dns.records import Zone
    from kubesvc.dns.wire import lower, name_of

    asker = await asker_of(args, cluster)
    names = await read_names(cluster)
    zone = Zone(name=lower(name_of(args.cluster_domain)))
    subject, types = question_of(args)
    lookups = [lookup(subject, t, asker, names, zone, cluster) for t in types]
    if not args.type and len(lookups) == 2:
        lookups = together(*lookups)
    if args.json:
        print(json.dumps(as_json(subject, asker, lookups), indent=2))
    else:
        print(render(subject, asker, lookups))
    if any(x.records for x in lookups):
        return 0
    return CANNOT_TELL if any(x.outcome == "ELSEWHERE" for x in lookups) else 1


def question_of(args: argparse.Namespace) -> tuple[str, tuple[str, ...]]:
    """The name to ask for, and the types."""
    try:
        address = ipaddress.ip_address(args.subject)
    except ValueError:
        return args.subject, (args.type,) if args.type else ("A", "AAAA")
    return f"{address.reverse_pointer}.", (args.type or "PTR",)


def lookup(subject: str, type_: str, asker: Asker, names: Snapshot, zone: Zone, cluster: Cluster) -> Lookup:
    from kubesvc.dns import wire
    from kubesvc.dns.explain import explain_name

    own = [a for a in asker.hosts.get(subject.rstrip("."), ()) if (":" in a) == (type_ == "AAAA")]
    if own and type_ in ("A", "AAAA"):
        return Lookup(type_, [], "the Pod's own /etc/hosts", tuple(f"{type_} {a}" for a in own))
    number = next(n for n, name in wire.TYPES.items() if name == type_)
    try:
        steps = explain_name(subject, number, asker.file.searches, ndots_of(asker.file), names, zone)
    except ValueError as error:
        raise Failure(f"{subject}: {error}", status=WRONG_USAGE) from error
    last = steps[-1]
    if last.outcome == "ELSEWHERE":
        whose = (
            "the host's resolvers, through the node's DNS"
            if cluster.record
            else "the resolvers that cluster DNS forwards to"
        )
        return Lookup(type_, steps, f"{whose}; what they say is not known here", ())
    servers = ", ".join(asker.file.nameservers) or "cluster DNS"
    return Lookup(type_, steps, f"the cluster's objects, by {servers}: {last.reason}", last.records)


def together(first: Lookup, second: Lookup) -> list[Lookup]:
    """A and AAAA as programs ask for them, both of one name before the next: who finds either goes no further."""
    if not first.steps:
        return [first] if first.records else [second]  # the hosts file has the name, so nobody is asked
    for one, other in ((first, second), (second, first)):
        if one.records and (not other.records or len(other.steps) > len(one.steps)):
            steps = other.steps[: len(one.steps)]
            cut = Lookup(other.type, steps, other.source, steps[-1].records)
            return [cut if x is other else x for x in (first, second)]
    return [first, second]


def ndots_of(file: ResolverFile) -> int:
    """What the options say, 1 if nothing; resolvers take at most 15."""
    found = [o.partition(":")[2] for o in file.options if o.startswith("ndots:")]
    return min(int(found[-1]), 15) if found and found[-1].isdigit() else 1


async def asker_of(args: argparse.Namespace, cluster: Cluster) -> Asker:
    """The Pod of --from, or one of the namespace with usual settings."""
    from kubesvc.api.errors import NotFound
    from kubesvc.api.kinds import POD
    from kubesvc.api.meta import typed
    from kubesvc.api.pod import Pod
    from kubesvc.node.resolvconf import desired_resolver_file

    kind, slash, name = args.source.partition("/")
    if slash and kind not in ("pod", "pods", "po"):
        raise Failure(f"--from {args.source}: must be pod/NAME", status=WRONG_USAGE)
    name = name if slash else kind
    server = await server_address(cluster)
    if not name:
        file, _ = desired_resolver_file(
            policy="ClusterFirst", host_network=False, config=None, namespace=cluster.namespace, pod="", node_file="",
            cluster_dns=server, zone=args.cluster_domain,
        )  # fmt: skip
        return Asker(f"a Pod of namespace {cluster.namespace}", file, {})
    try:
        pod = typed(await cluster.client.get(POD, name, cluster.namespace), Pod)
    except NotFound:
        raise Failure(f"there is no Pod {name!r} in namespace {cluster.namespace}", status=CANNOT_TELL) from None
    file, _ = desired_resolver_file(
        policy=pod.spec.dns_policy, host_network=pod.spec.host_network, config=pod.spec.dns_config,
        namespace=pod.namespace, pod=pod.name, node_file=node_file(cluster, pod), cluster_dns=server,
        zone=args.cluster_domain,
    )  # fmt: skip
    return Asker(f"pod/{pod.name} in namespace {pod.namespace}", file, own_hosts(pod, args.cluster_domain))


def node_file(cluster: Cluster, pod: Pod) -> str:
    """The resolver file of the Pod's node, as far as it can be seen from here."""
    from kubesvc.instance.nodekeeper import HOST_RESOLVER

    if cluster.instance is None:
        return ""
    try:
        return (cluster.instance.node(pod.spec.node_name or "") / HOST_RESOLVER).read_text()
    except OSError:
        return ""


def own_hosts(pod: Pod, zone: str) -> dict[str, list[str]]:
    """What the Pod's hosts file answers before any DNS is asked (NODE-80, 81)."""
    from kubesvc.node.hostsfile import pod_fqdn, pod_hostname

    found: dict[str, list[str]] = {"localhost": ["127.0.0.1", "::1"]}
    if not pod.spec.host_network:
        for name in (pod_hostname(pod, ""), pod_fqdn(pod, "", zone)):
            if name:
                found.setdefault(name, []).extend(pod.ips)
    for alias in pod.spec.host_aliases or ():
        for name in alias.hostnames or ():
            found.setdefault(name, []).append(alias.ip)
    return found


async def server_address(cluster: Cluster) -> tuple[str, ...]:
    """Where Pods find the cluster's DNS: the addresses of Service kube-system/kube-dns."""
    from kubesvc.api.errors import ApiError
    from kubesvc.api.kinds import SERVICE
    from kubesvc.api.meta import typed
    from kubesvc.api.service import Service

    try:
        return typed(await cluster.client.get(SERVICE, "kube-dns", "kube-system"), Service).addresses[:1]
    except ApiError:
        return ("10.96.0.10",)


async def read_names(cluster: Cluster) -> Snapshot:
    """Everything that names are made of."""
    from kubesvc.api.kinds import ENDPOINT_SLICE, NAMESPACE, SERVICE
    from kubesvc.clock import RealClock
    from kubesvc.why.collect import Reader
    from kubesvc.why.naming import names_of

    reader = Reader(cluster.client)
    services, slices, namespaces = await asyncio.gather(
        reader.read(SERVICE), reader.read(ENDPOINT_SLICE), reader.read(NAMESPACE)
    )
    if reader.gaps:
        raise Failure("; ".join(map(str, reader.gaps.values())), status=CANNOT_TELL)
    now = RealClock().now()
    return names_of(
        [o.name for _, o in namespaces],
        [o for _, o in services],  # type: ignore[misc]
        [o for _, o in slices],  # type: ignore[misc]
        now,
    )


# ---------------------------------------------------------------- saying it


def render(subject: str, asker: Asker, lookups: list[Lookup]) -> str:
    file = asker.file
    lines = [f"{subject} as {asker.who} asks:"]
    lines.append(f"  search {' '.join(file.searches) or '(none)'}; ndots {ndots_of(file)}; nameserver "
                 f"{' '.join(file.nameservers) or '(none)'}")  # fmt: skip
    for found in lookups:
        lines.append(f"{found.type}:")
        for number, step in enumerate(found.steps, 1):
            said = ", ".join(step.records) if step.records else step.outcome
            lines.append(f"  {number}. {step.name} ({step.origin}): {said}\n     {step.reason}")
        if found.records or not found.steps or found.outcome == "ELSEWHERE":
            lines.append(f"  answer: {', '.join(found.records) or 'unknown'}, from {found.source}")
        else:
            lines.append("  answer: none")
    return "\n".join(lines)


def as_json(subject: str, asker: Asker, lookups: list[Lookup]) -> dict[str, Any]:
    return {
        "name": subject,
        "from": asker.who,
        "resolver": {
            "nameservers": list(asker.file.nameservers),
            "searches": list(asker.file.searches),
            "options": list(asker.file.options),
        },
        "lookups": [
            {
                "type": x.type,
                "steps": [
                    {"name": s.name, "origin": s.origin, "outcome": s.outcome, "records": list(s.records),
                     "reason": s.reason}
                    for s in x.steps
                ],
                "records": list(x.records),
                "source": x.source,
            }
            for x in lookups
        ],
    }  # fmt: skip
