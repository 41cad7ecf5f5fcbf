"""Containers as typed objects: what a node agent runs, probes and mounts."""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from .meta import Struct

IntOrString = int | str
"""A number, or a name or percentage that stands for one."""
ResourceList = dict[str, str | int | float]
"""Resource name to quantity; the server stores quantities as text, clients may send numbers."""


class ContainerPort(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("container_port",)

    name: str = ""
    host_port: int = 0
    container_port: int = 0
    protocol: str = ""
    host_ip: str = field(default="", name="hostIP")


class ObjectFieldSelector(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("field_path",)

    api_version: str = ""
    field_path: str = ""


class ResourceFieldSelector(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("resource",)

    container_name: str = ""
    resource: str = ""
    divisor: str | int | float = ""


class KeySelector(Struct, frozen=True):
    """One key of a ConfigMap or Secret."""

    always: ClassVar[tuple[str, ...]] = ("key",)

    name: str = ""
    key: str = ""
    optional: bool | None = None


class FileKeySelector(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("volume_name", "path", "key")

    volume_name: str = ""
    path: str = ""
    key: str = ""
    optional: bool | None = None


class EnvVarSource(Struct, frozen=True):
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    file_key_ref: FileKeySelector | None = None


class EnvVar(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("name",)

    name: str = ""
    value: str = ""
    value_from: EnvVarSource | None = None


class EnvSource(Struct, frozen=True):
    """A whole ConfigMap or Secret."""

    name: str = ""
    optional: bool | None = None


class EnvFromSource(Struct, frozen=True):
    prefix: str = ""
    config_map_ref: EnvSource | None = None
    secret_ref: EnvSource | None = None


class ExecAction(Struct, frozen=True):
    command: list[str] | None = None


class HTTPHeader(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("name", "value")

    name: str = ""
    value: str = ""


class HTTPGetAction(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("port",)

    path: str = ""
    port: IntOrString = 0
    host: str = ""
    scheme: str = ""
    http_headers: list[HTTPHeader] | None = None


class TCPSocketAction(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("port",)

    port: IntOrString = 0
    host: str = ""


class GRPCAction(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("port",)

    port: int = 0
    service: str | None = None


class SleepAction(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("seconds",)

    seconds: int = 0


class LifecycleHandler(Struct, frozen=True):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Struct, frozen=True):
    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None
    stop_signal: str | None = None


class Probe(Struct, frozen=True):
    """A probe with its handler; the numbers are 0 only before defaulting (NODE-31 to 36)."""

    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 0
    period_seconds: int = 0
    success_threshold: int = 0
    failure_threshold: int = 0
    termination_grace_period_seconds: int | None = None


class ResourceClaim(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("name",)

    name: str = ""
    request: str = ""


class ResourceRequirements(Struct, frozen=True):
    limits: ResourceList | None = None
    requests: ResourceList | None = None
    claims: list[ResourceClaim] | None = None


class ContainerResizePolicy(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("resource_name", "restart_policy")

    resource_name: str = ""
    restart_policy: str = ""


class VolumeMount(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("name", "mount_path")

    name: str = ""
    read_only: bool = False
    recursive_read_only: str | None = None
    mount_path: str = ""
    sub_path: str = ""
    sub_path_expr: str = ""
    mount_propagation: str | None = None


class VolumeDevice(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("name", "device_path")

    name: str = ""
    device_path: str = ""


class Capabilities(Struct, frozen=True):
    add: list[str] | None = None
    drop: list[str] | None = None


class SELinuxOptions(Struct, frozen=True):
    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


class WindowsOptions(Struct, frozen=True):
    gmsa_credential_spec_name: str | None = None
    gmsa_credential_spec: str | None = None
    run_as_user_name: str | None = None
    host_process: bool | None = None


class ProfileSource(Struct, frozen=True):
    """A seccomp or AppArmor profile."""

    always: ClassVar[tuple[str, ...]] = ("type",)

    type: str = ""
    localhost_profile: str | None = None


class SecurityContext(Struct, frozen=True):
    capabilities: Capabilities | None = None
    privileged: bool | None = None
    se_linux_options: SELinuxOptions | None = None
    windows_options: WindowsOptions | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool | None = None
    allow_privilege_escalation: bool | None = None
    proc_mount: str | None = None
    seccomp_profile: ProfileSource | None = None
    app_armor_profile: ProfileSource | None = None


class ExitCodeRequirement(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("operator",)

    operator: str = ""
    values: list[int] | None = None


class ContainerRestartRule(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("action",)

    action: str = ""
    exit_codes: ExitCodeRequirement | None = None


class Container(Struct, frozen=True):
    """A container of any sort: ordinary, init (`restart_policy` "Always" makes it a sidecar) or ephemeral."""

    always: ClassVar[tuple[str, ...]] = ("name",)

    name: str = ""
    image: str = ""
    command: list[str] | None = None
    args: list[str] | None = None
    working_dir: str = ""
    ports: list[ContainerPort] | None = None
    env_from: list[EnvFromSource] | None = None
    env: list[EnvVar] | None = None
    resources: ResourceRequirements = ResourceRequirements()
    resize_policy: list[ContainerResizePolicy] | None = None
    restart_policy: str | None = None
    restart_policy_rules: list[ContainerRestartRule] | None = None
    volume_mounts: list[VolumeMount] | None = None
    volume_devices: list[VolumeDevice] | None = None
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    termination_message_path: str = ""
    termination_message_policy: str = ""
    image_pull_policy: str = ""
    security_context: SecurityContext | None = None
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    target_container_name: str = ""
    """Of an ephemeral container: the one whose processes it sees."""

    @property
    def sidecar(self) -> bool:
        """Whether, as an init container, it goes on running beside the ordinary ones."""
        return self.restart_policy == "Always"


class ContainerStateWaiting(Struct, frozen=True):
    reason: str = ""
    message: str = ""


class ContainerStateRunning(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("started_at",)

    started_at: str | None = None


class ContainerStateTerminated(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("exit_code", "started_at", "finished_at")

    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    container_id: str = field(default="", name="containerID")


class ContainerState(Struct, frozen=True):
    waiting: ContainerStateWaiting | None = None
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None


class VolumeMountStatus(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("name", "mount_path")

    name: str = ""
    mount_path: str = ""
    read_only: bool = False
    recursive_read_only: str | None = None


class ContainerUserLinux(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("uid", "gid")

    uid: int = 0
    gid: int = 0
    supplemental_groups: list[int] | None = None


class ContainerUser(Struct, frozen=True):
    linux: ContainerUserLinux | None = None


class ContainerStatus(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("name", "ready", "restart_count", "image", "image_id")

    name: str = ""
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()
    ready: bool = False
    restart_count: int = 0
    image: str = ""
    image_id: str = field(default="", name="imageID")
    container_id: str = field(default="", name="containerID")
    started: bool | None = None
    allocated_resources: ResourceList | None = None
    resources: ResourceRequirements | None = None
    volume_mounts: list[VolumeMountStatus] | None = None
    user: ContainerUser | None = None
    stop_signal: str | None = None
