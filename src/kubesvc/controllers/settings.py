"""What controllers can be told: upstream's flags, with upstream's defaults and ranges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kubesvc.api.meta import Object

if TYPE_CHECKING:
    from kubesvc.api.certificatesigningrequest import CertificateSigningRequestSpec

    from .localpath import LocalVolumes
    from .service_events_plan import Moved


@dataclass(frozen=True, kw_only=True)
class ControllerSettings:
    """Values for all controllers of a process; out of range is a ValueError that names the flag.

    Syncs are counts of workers, periods are in seconds. Controllers that need more add a field here.
    """

    concurrent_endpoint_syncs: int = 5
    concurrent_service_endpoint_syncs: int = 5
    mirroring_concurrent_service_endpoint_syncs: int = 5
    endpoint_updates_batch_period: float = 0.0
    endpointslice_updates_batch_period: float = 0.0
    mirroring_endpointslice_updates_batch_period: float = 0.0
    max_endpoints_per_slice: int = 100
    mirroring_max_endpoints_per_subset: int = 1000
    node_monitor_grace_period: float = 50.0
    """How long a node may be silent before it counts as unreachable (NODE-85)."""
    root_ca: str = ""
    """The certificate (PEM) published to every namespace; "" publishes none."""
    cluster_cidrs: tuple[str, ...] = ()
    """Ranges that nodes get their pod addresses from, one per family; () assigns none."""
    service_cidrs: tuple[str, ...] = ()
    """Ranges of Services, which no node's network may overlap."""
    account_token: Callable[[Object, str], str] | None = None
    """Signs a token of an account for the Secret of a name; None fills no such Secrets."""
    cluster_dns: str = ""
    """Address of Service kube-system/kube-dns; "" makes no such Service."""
    local_volumes: LocalVolumes | None = None
    """Directories of nodes, which volumes are made of; None provisions none, and makes no StorageClass."""
    load_balancer_ranges: tuple[str, ...] = ()
    """Pool of addresses for Services of type LoadBalancer, at most one network of each family; () gives none."""

    explain_slices: bool = False
    """Whether EndpointSlices are annotated with what was decided about each Pod, which upstream does not do."""
    journal: Callable[[Moved], None] | None = None
    """Told by `service-events` of every address that joins or leaves a Service."""

    may: Callable[[CertificateSigningRequestSpec, str, str, str, str], bool] | None = None
    """Whether who sent a certificate signing request may do something (group, resource, subresource, verb); None
    approves no request."""
    signing_certificate: bytes = b""
    """The certificate of the CA that signs for the cluster (PEM)."""
    signing_key: bytes = field(default=b"", repr=False)
    """Its key (PEM); b"" signs nothing."""
    cluster_signing_duration: float = 365 * 86_400.0
    """The longest time a signed certificate lives."""

    def __post_init__(self) -> None:
        self._within("concurrent_endpoint_syncs", 1, 10_000)
        self._within("concurrent_service_endpoint_syncs", 1, 50)
        self._within("mirroring_concurrent_service_endpoint_syncs", 1, 50)
        self._within("max_endpoints_per_slice", 1, 1000)
        self._within("mirroring_max_endpoints_per_subset", 1, 1000)
        self._within("node_monitor_grace_period", 1, 86_400)
        for name in ("endpoint", "endpointslice", "mirroring_endpointslice"):
            self._within(f"{name}_updates_batch_period", 0, 86_400)

    def _within(self, name: str, least: float, most: float) -> None:
        value = getattr(self, name)
        if not least <= value <= most:
            raise ValueError(f"--{name.replace('_', '-')}: {value}: must be from {least} to {most}")
