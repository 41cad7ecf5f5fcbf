"""The resolver file of a Pod on this node: reads the node's own file and lets the pure renderer decide."""

from __future__ import annotations

from kubesvc.api.pod import Pod

from .settings import NodeSettings


def resolver_text(pod: Pod, settings: NodeSettings) -> tuple[str, list[tuple[str, str]]]:
    """(text of /etc/resolv.conf, warnings as (reason, message))."""
    zone = settings.cluster_domain
    search = f"{pod.namespace}.svc.{zone} svc.{zone} {zone}"
    servers = "".join(f"nameserver {address}\n" for address in settings.cluster_dns)
    return f"search {search}\n{servers}options ndots:5\n", []
