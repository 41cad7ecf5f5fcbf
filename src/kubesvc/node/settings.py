"""What a node agent is told at its start."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kubesvc.kernel.cgroups import PREFIX


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """One node. All paths as the agent sees them; sizes in bytes, times in seconds.

    state_dir:       where the agent keeps its Pods' records, volumes and logs, and its socket `node.sock`
    pod_cidrs:       ranges that its Pods' addresses come from, primary family first; empty: those of Node.spec
    node_addresses:  its own addresses, primary family first
    simulated:       Pods become what a script says, without processes (NODE-116 to 119)
    image_store:     where images are that were loaded from files or pulled
    pull_socket:     where images are asked for that are not there; None: nothing is pulled
    registries_first: ask registries also for images that something here could stand in for
    runtime_socket:  a container runtime's, which makes sandboxes and containers (CRI v1); None: the agent makes them
    runtime_pulls:   whether the runtime may be asked to pull images
    own_network:     the agent is alone in its network namespace and may set routes and forwarding there
    routed:          in a network that it shares, it sets routes to other nodes' Pods and forwards host ports all the
                     same; whether packets pass between links is then the host's to say
    hidden_paths:    directories of the host that containers see empty, such as the instance's state
    pod_pids_limit:  processes and threads that one Pod may have
    group:           path of the control group below which its Pods' are made; "": named after the state directory
    """

    node_name: str
    state_dir: Path
    pod_cidrs: tuple[str, ...] = ()
    node_addresses: tuple[str, ...] = ()
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    zone: str = ""
    region: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    simulated: bool = False
    images_map: Path | None = None
    image_store: Path | None = None
    pull_socket: Path | None = None
    registries_first: bool = False
    runtime_socket: Path | None = None
    runtime_pulls: bool = True
    resolver_file: str = "/etc/resolv.conf"
    own_network: bool = True
    routed: bool = False
    hidden_paths: tuple[str, ...] = ()
    max_pods: int = 110
    pod_pids_limit: int = 1024
    group: str = ""
    volume_look_seconds: float = 10.0
    mtu: int = 0
    log_file_bytes: int = 10 << 20
    log_files: int = 5
    writable_layer_bytes: int = 256 << 20
    crash_back_off_cap_seconds: float = 300.0
    image_back_off_cap_seconds: float = 300.0
    lease_seconds: int = 40
    lease_renew_seconds: float = 10.0
    status_seconds: float = 10.0
    status_report_seconds: float = 300.0
    version: str = "v1.36.0"

    @property
    def group_path(self) -> str:
        """The control group of this node."""
        digest = hashlib.sha256(str(self.state_dir).encode()).hexdigest()[:8]
        return self.group or f"{PREFIX}{digest}/{self.node_name}"

    @property
    def simulated_script(self) -> str:
        """The annotation that scripts a simulated Pod."""
        return "kubesvc.dev/simulate"
