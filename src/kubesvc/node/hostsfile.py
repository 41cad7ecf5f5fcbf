"""Hostname and /etc/hosts of a Pod (NODE-80 to NODE-82). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kubesvc.api.pod import HostAlias, Pod

HOSTNAME_BYTES = 63

HEADER = "# Kubernetes-managed hosts file."
HOST_NETWORK_HEADER = "# Kubernetes-managed hosts file (host network)."
ALIASES_HEADER = "# Entries added by HostAliases."
FIXED = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "fe00::0\tip6-mcastprefix",
    "fe00::1\tip6-allnodes",
    "fe00::2\tip6-allrouters",
)


def pod_hostname(pod: Pod, node_name: str) -> str:
    """The name a Pod gives itself (NODE-80)."""
    if pod.spec.host_network:
        return node_name
    name = pod.spec.hostname_override or pod.spec.hostname or pod.name
    return name[:HOSTNAME_BYTES].rstrip("-.")


def pod_fqdn(pod: Pod, node_name: str, zone: str) -> str:
    """The full name, which exists with a subdomain only; "" else."""
    if not pod.spec.subdomain or pod.spec.host_network or pod.spec.hostname_override:
        return ""
    return f"{pod_hostname(pod, node_name)}.{pod.spec.subdomain}.{pod.namespace}.svc.{zone}"


def render_hosts(hostname: str, fqdn: str, ips: Sequence[str], aliases: Sequence[HostAlias]) -> str:
    """The hosts file of a Pod with its own network (NODE-81)."""
    lines = [HEADER, *FIXED]
    lines += [f"{ip}\t{fqdn}\t{hostname}" if fqdn else f"{ip}\t{hostname}" for ip in ips]
    return "\n".join(lines) + "\n" + render_aliases(aliases)


def render_host_network_hosts(node_file: str, aliases: Sequence[HostAlias]) -> str:
    """The hosts file of a Pod on the node's network (NODE-82)."""
    return f"{HOST_NETWORK_HEADER}\n{node_file}" + render_aliases(aliases)


def render_aliases(aliases: Sequence[HostAlias]) -> str:
    if not aliases:
        return ""
    lines = ["", ALIASES_HEADER]
    lines += ["\t".join([alias.ip, *(alias.hostnames or ())]) for alias in aliases]
    return "\n".join(lines) + "\n"
