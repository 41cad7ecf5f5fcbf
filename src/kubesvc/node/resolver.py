"""The resolver file of a Pod on this node: reads the node's own file and lets the pure renderer decide."""

from __future__ import annotations

from pathlib import Path

from kubesvc.api.pod import Pod

from .resolvconf import ResolverWarning, render_resolv_conf
from .settings import NodeSettings


def resolver_text(pod: Pod, settings: NodeSettings) -> tuple[str, tuple[ResolverWarning, ...]]:
    """Text of the Pod's /etc/resolv.conf, and the events to record (DNS-58 to DNS-66)."""
    node_file: str | None = None
    if settings.resolver_file:
        try:
            node_file = Path(settings.resolver_file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            node_file = ""
    return render_resolv_conf(
        policy=pod.spec.dns_policy,
        host_network=pod.spec.host_network,
        config=pod.spec.dns_config,
        namespace=pod.namespace,
        pod=f"{pod.name}_{pod.namespace}({pod.metadata.uid})",
        node_file=node_file,
        cluster_dns=settings.cluster_dns,
        zone=settings.cluster_domain,
        ipv6=":" in next(iter(settings.node_addresses), ""),
    )
