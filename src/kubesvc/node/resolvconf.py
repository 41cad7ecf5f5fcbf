"""The resolver file of a Pod, from its spec, its node's file and the cluster's settings. Pure (DNS-58 to DNS-66)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kubesvc.api.pod import PodDNSConfig, PodDNSConfigOption

MOST_NAMESERVERS = 3
MOST_SEARCHES = 32
MOST_SEARCH_CHARACTERS = 2048
MOST_ENTRY_CHARACTERS = 253

CLUSTER_OPTIONS = ("ndots:5",)


@dataclass(frozen=True, slots=True)
class ResolverFile:
    """What a resolver file says; options as written, such as `ndots:5` or `rotate`."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


LOOPBACK = ResolverFile(("127.0.0.1",), (".",))
"""For policy Default on a node that is configured to have no resolver file (DNS-60)."""
LOOPBACK_6 = ResolverFile(("::1",), (".",))


@dataclass(frozen=True, slots=True)
class ResolverWarning:
    """A Warning event to record on the Pod, and with `on_node` set also (with that text) on the Node."""

    reason: str
    message: str
    on_node: str = ""


def parse_resolver_file(text: str) -> ResolverFile:
    """Read a resolver file: later `search` (or `domain`) lines replace earlier ones, options add up (DNS-64).

    Comments, unknown lines and words that make no sense are passed over: a node's file is not ours to judge.
    """
    nameservers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0][0] in "#;":
            continue
        match words[0]:
            case "nameserver":
                nameservers.append(words[1])
            case "search" | "domain":
                entries = words[1:] if words[0] == "search" else words[1:2]
                searches = [entry.removesuffix(".") for entry in entries if entry != "."]
            case "options":
                options = merged_options(options, words[1:])
    return ResolverFile(tuple(distinct(nameservers)), tuple(distinct(searches)), tuple(options))


def distinct(words: Iterable[str]) -> list[str]:
    """Each word once, where it came first."""
    return list(dict.fromkeys(words))


def merged_options(options: Iterable[str], over: Iterable[str]) -> list[str]:
    """`options` with those of the same name replaced by `over`, new ones behind (DNS-62)."""
    by_name = {option.partition(":")[0]: option for option in options}
    by_name.update((option.partition(":")[0], option) for option in over)
    return list(by_name.values())


def option_text(option: PodDNSConfigOption) -> str:
    return option.name if option.value is None else f"{option.name}:{option.value}"


def desired_resolver_file(
    *,
    policy: str,
    host_network: bool,
    config: PodDNSConfig | None,
    namespace: str,
    pod: str,
    node_file: str | None,
    cluster_dns: Sequence[str],
    zone: str,
    ipv6: bool = False,
) -> tuple[ResolverFile, tuple[ResolverWarning, ...]]:
    """What the file of a Pod should say, and which events its making deserves.

    policy:      spec.dnsPolicy; "" and anything unknown count as ClusterFirst
    host_network: whether the Pod shares its node's network
    config:      spec.dnsConfig
    pod:         the Pod as events name it, `name_namespace(uid)`
    node_file:   text of the node's resolver file; None when the node is configured to have none
    cluster_dns: addresses of the cluster's DNS, primary first; may be empty
    zone:        the cluster's domain, without a dot at the end
    ipv6:        the node's primary family is IPv6
    """
    node = parse_resolver_file(node_file) if node_file is not None else (LOOPBACK_6 if ipv6 else LOOPBACK)
    warnings: list[ResolverWarning] = []
    wants_cluster = policy not in ("None", "Default") and not (policy != "ClusterFirstWithHostNet" and host_network)
    if policy == "None":
        base = ResolverFile()
    elif not wants_cluster:
        base = node
    elif not cluster_dns:
        base = node
        sentence = (
            "kubelet does not have ClusterDNS IP configured and cannot create Pod using "
            '"ClusterFirst" policy. Falling back to "Default" policy.'
        )
        warnings.append(ResolverWarning("MissingClusterDNS", f'pod: "{pod}". {sentence}', on_node=sentence))
    else:
        own = (f"{namespace}.svc.{zone}", f"svc.{zone}", zone)
        inherited = node.searches if node_file is not None else ()
        base = ResolverFile(tuple(cluster_dns), tuple(distinct((*own, *inherited))), CLUSTER_OPTIONS)
    fitted, excess = within_limits(with_config(base, config))
    return fitted, (*warnings, *excess)


def with_config(base: ResolverFile, config: PodDNSConfig | None) -> ResolverFile:
    """`base` and then what the Pod adds (DNS-62)."""
    if config is None:
        return base
    searches = (s if s == "." else s.removesuffix(".") for s in config.searches or ())
    return ResolverFile(
        tuple(distinct((*base.nameservers, *(config.nameservers or ())))),
        tuple(distinct((*base.searches, *searches))),
        tuple(merged_options(base.options, (option_text(o) for o in config.options or () if o.name))),
    )


def within_limits(file: ResolverFile) -> tuple[ResolverFile, list[ResolverWarning]]:
    """Cut from the end what resolvers would not read, and say so (DNS-63)."""
    warnings: list[ResolverWarning] = []
    searches = [entry for entry in file.searches[:MOST_SEARCHES] if len(entry) <= MOST_ENTRY_CHARACTERS]
    while len(" ".join(searches)) > MOST_SEARCH_CHARACTERS:
        searches.pop()
    if len(searches) < len(file.searches):
        warnings.append(
            ResolverWarning(
                "DNSConfigForming",
                "Search Line limits were exceeded, some search paths have been omitted, "
                f"the applied search line is: {' '.join(searches)}",
            )
        )
    nameservers = file.nameservers[:MOST_NAMESERVERS]
    if len(nameservers) < len(file.nameservers):
        warnings.append(
            ResolverWarning(
                "DNSConfigForming",
                "Nameserver limits were exceeded, some nameservers have been omitted, "
                f"the applied nameserver line is: {' '.join(nameservers)}",
            )
        )
    return replace(file, searches=tuple(searches), nameservers=nameservers), warnings


def render_resolver_file(file: ResolverFile) -> str:
    """The text, in the order search, nameserver, options (DNS-66)."""
    lines = [f"search {' '.join(file.searches)}"] if file.searches else []
    lines += [f"nameserver {address}" for address in file.nameservers]
    lines += [f"options {' '.join(file.options)}"] if file.options else []
    return "".join(f"{line}\n" for line in lines)


def render_resolv_conf(
    *,
    policy: str,
    host_network: bool,
    config: PodDNSConfig | None,
    namespace: str,
    pod: str,
    node_file: str | None,
    cluster_dns: Sequence[str],
    zone: str,
    ipv6: bool = False,
) -> tuple[str, tuple[ResolverWarning, ...]]:
    """Text of a Pod's `/etc/resolv.conf`, and the events to record. Arguments as in `desired_resolver_file`."""
    file, warnings = desired_resolver_file(
        policy=policy,
        host_network=host_network,
        config=config,
        namespace=namespace,
        pod=pod,
        node_file=node_file,
        cluster_dns=cluster_dns,
        zone=zone,
        ipv6=ipv6,
    )
    return render_resolver_file(file), warnings
