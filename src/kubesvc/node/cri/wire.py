"""The messages of CRI v1 that we speak, in protobuf's wire form: plain dictionaries to bytes and back. Pure.

A message is a dictionary of its fields by their names in the API. What has its zero value is not written, as protobuf
has it; reading fills it in, so that a read message has every field of the table: "" or 0 or False, [] and {} for
repeated fields and maps, None for messages that are not there. Fields that nobody here knows are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

Message = dict[str, Any]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""
NUMBERS = ("bool", "int32", "int64", "uint32", "uint64", "enum")
ZEROS: Mapping[str, Any] = {"bool": False, "string": "", "bytes": b"", **dict.fromkeys(NUMBERS[1:], 0)}
MOST_VARINT_BYTES = 10

# Each field as name:number:type. [] after a type: repeated, {}: a map from strings to strings.
MESSAGES = """
VersionRequest version:1:string
VersionResponse version:1:string runtime_name:2:string runtime_version:3:string runtime_api_version:4:string
StatusRequest verbose:1:bool
StatusResponse status:1:RuntimeStatus info:2:{}
RuntimeStatus conditions:1:RuntimeCondition[]
RuntimeCondition type:1:string status:2:bool reason:3:string message:4:string
Int64Value value:1:int64
DNSConfig servers:1:string[] searches:2:string[] options:3:string[]
NamespaceOption network:1:enum pid:2:enum ipc:3:enum target_id:4:string
SecurityProfile profile_type:1:enum localhost_ref:2:string
LinuxSandboxSecurityContext namespace_options:1:NamespaceOption run_as_user:3:Int64Value readonly_rootfs:4:bool
+ supplemental_groups:5:int64[] privileged:6:bool run_as_group:8:Int64Value seccomp:9:SecurityProfile
+ apparmor:10:SecurityProfile
LinuxPodSandboxConfig cgroup_parent:1:string security_context:2:LinuxSandboxSecurityContext sysctls:3:{}
PodSandboxMetadata name:1:string uid:2:string namespace:3:string attempt:4:uint32
PodSandboxConfig metadata:1:PodSandboxMetadata hostname:2:string log_directory:3:string dns_config:4:DNSConfig
+ labels:6:{} annotations:7:{} linux:8:LinuxPodSandboxConfig
RunPodSandboxRequest config:1:PodSandboxConfig runtime_handler:2:string
RunPodSandboxResponse pod_sandbox_id:1:string
StopPodSandboxRequest pod_sandbox_id:1:string
StopPodSandboxResponse
RemovePodSandboxRequest pod_sandbox_id:1:string
RemovePodSandboxResponse
PodSandboxStatusRequest pod_sandbox_id:1:string verbose:2:bool
PodIP ip:1:string
PodSandboxNetworkStatus ip:1:string additional_ips:2:PodIP[]
PodSandboxStatus id:1:string metadata:2:PodSandboxMetadata state:3:enum created_at:4:int64
+ network:5:PodSandboxNetworkStatus labels:7:{} annotations:8:{}
PodSandboxStatusResponse status:1:PodSandboxStatus info:2:{}
PodSandboxStateValue state:1:enum
PodSandboxFilter id:1:string state:2:PodSandboxStateValue label_selector:3:{}
ListPodSandboxRequest filter:1:PodSandboxFilter
PodSandbox id:1:string metadata:2:PodSandboxMetadata state:3:enum created_at:4:int64 labels:5:{} annotations:6:{}
ListPodSandboxResponse items:1:PodSandbox[]
ImageSpec image:1:string annotations:2:{} user_specified_image:18:string
KeyValue key:1:string value:2:string
LinuxContainerResources cpu_period:1:int64 cpu_quota:2:int64 cpu_shares:3:int64 memory_limit_in_bytes:4:int64
+ oom_score_adj:5:int64 unified:9:{} memory_swap_limit_in_bytes:10:int64
Mount container_path:1:string host_path:2:string readonly:3:bool selinux_relabel:4:bool propagation:5:enum
Capability add_capabilities:1:string[] drop_capabilities:2:string[]
LinuxContainerSecurityContext capabilities:1:Capability privileged:2:bool namespace_options:3:NamespaceOption
+ run_as_user:5:Int64Value run_as_username:6:string readonly_rootfs:7:bool supplemental_groups:8:int64[]
+ no_new_privs:11:bool run_as_group:12:Int64Value masked_paths:13:string[] readonly_paths:14:string[]
+ seccomp:15:SecurityProfile apparmor:16:SecurityProfile
LinuxContainerConfig resources:1:LinuxContainerResources security_context:2:LinuxContainerSecurityContext
ContainerMetadata name:1:string attempt:2:uint32
ContainerConfig metadata:1:ContainerMetadata image:2:ImageSpec command:3:string[] args:4:string[]
+ working_dir:5:string envs:6:KeyValue[] mounts:7:Mount[] labels:9:{} annotations:10:{} log_path:11:string
+ stdin:12:bool stdin_once:13:bool tty:14:bool linux:15:LinuxContainerConfig
CreateContainerRequest pod_sandbox_id:1:string config:2:ContainerConfig sandbox_config:3:PodSandboxConfig
CreateContainerResponse container_id:1:string
StartContainerRequest container_id:1:string
StartContainerResponse
StopContainerRequest container_id:1:string timeout:2:int64
StopContainerResponse
RemoveContainerRequest container_id:1:string
RemoveContainerResponse
ContainerStatusRequest container_id:1:string verbose:2:bool
ContainerStatus id:1:string metadata:2:ContainerMetadata state:3:enum created_at:4:int64 started_at:5:int64
+ finished_at:6:int64 exit_code:7:int32 image:8:ImageSpec image_ref:9:string reason:10:string message:11:string
+ labels:12:{} annotations:13:{} log_path:15:string
ContainerStatusResponse status:1:ContainerStatus info:2:{}
ReopenContainerLogRequest container_id:1:string
ReopenContainerLogResponse
ExecSyncRequest container_id:1:string cmd:2:string[] timeout:3:int64
ExecSyncResponse stdout:1:bytes stderr:2:bytes exit_code:3:int32
AttachRequest container_id:1:string stdin:2:bool tty:3:bool stdout:4:bool stderr:5:bool
AttachResponse url:1:string
Image id:1:string repo_tags:2:string[] repo_digests:3:string[] size:4:uint64 uid:5:Int64Value username:6:string
ImageStatusRequest image:1:ImageSpec verbose:2:bool
ImageStatusResponse image:1:Image info:2:{}
AuthConfig username:1:string password:2:string auth:3:string server_address:4:string
PullImageRequest image:1:ImageSpec auth:2:AuthConfig sandbox_config:3:PodSandboxConfig
PullImageResponse image_ref:1:string
"""

READY, NOT_READY = 0, 1
"""States of a sandbox."""
CREATED, RUNNING, EXITED, UNKNOWN = 0, 1, 2, 3
"""States of a container."""
POD, CONTAINER, NODE, TARGET = 0, 1, 2, 3
"""Whose namespace it is."""
PRIVATE, HOST_TO_CONTAINER, BIDIRECTIONAL = 0, 1, 2
"""How mounts made later are seen on the other side."""
RUNTIME_DEFAULT, UNCONFINED, LOCALHOST = 0, 1, 2
"""Profiles of seccomp and AppArmor."""


class Malformed(ValueError):
    """Bytes that are no message of the kind they should be."""


class Field(NamedTuple):
    """One field: its number, its type (of `ZEROS`, or a message's name), its form ("", "[]" or "{}")."""

    number: int
    type: str
    form: str


@cache
def table() -> dict[str, dict[str, Field]]:
    """The fields of every message by their names."""
    found: dict[str, dict[str, Field]] = {}
    fields: dict[str, Field] = {}
    for line in MESSAGES.split("\n"):
        name, *entries = line.split() or ("",)
        if name and name != "+":
            fields = found[name] = {}
        for entry in entries:
            key, number, type = entry.split(":")
            form = type[-2:] if type[-1] in "]}" else ""
            fields[key] = Field(int(number), type.removesuffix("[]").removesuffix("{}") or "string", form)
    return found


@cache
def numbered(message: str) -> dict[int, tuple[str, Field]]:
    """The fields of a message by their numbers."""
    return {field.number: (name, field) for name, field in table()[message].items()}


# -- writing ----------------------------------------------------------------------------------------------------------


def encode(message: str, value: Mapping[str, Any]) -> bytes:
    """The bytes of a message. KeyError for a field that the table has not."""
    out = bytearray()
    fields = table()[message]
    for name, held in sorted(value.items(), key=lambda item: fields[item[0]].number):
        field = fields[name]
        if field.form == "{}":
            for key, text in sorted(held.items()):
                entry = put(1, "string", key) + put(2, "string", text)
                out += head(field.number, BYTES) + varint(len(entry)) + entry
        elif field.form and field.type in NUMBERS:  # packed
            packed = b"".join(varint(number) for number in held)
            out += head(field.number, BYTES) + varint(len(packed)) + packed if packed else b""
        elif field.form:
            out += b"".join(put(field.number, field.type, one) for one in held)
        elif held is not None and (field.type not in ZEROS or held != ZEROS[field.type]):
            out += put(field.number, field.type, held)
    return bytes(out)


def put(number: int, type: str, value: Any) -> bytes:
    """One value with its head."""
    if type in NUMBERS:
        return head(number, VARINT) + varint(int(value))
    data = value.encode() if type == "string" else value if type == "bytes" else encode(type, value)
    return head(number, BYTES) + varint(len(data)) + bytes(data)


def head(number: int, wire: int) -> bytes:
    return varint(number << 3 | wire)


def varint(number: int) -> bytes:
    """A number, seven bits per byte; a negative one as its complement of 64 bits."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


# -- reading ----------------------------------------------------------------------------------------------------------


def decode(message: str, data: bytes) -> Message:
    """The message that the bytes hold, every field of the table in it. Malformed if they hold none."""
    found: Message = {}
    for name, field in table()[message].items():
        found[name] = {} if field.form == "{}" else [] if field.form else ZEROS.get(field.type)
    known = numbered(message)
    for number, wire, value in values(data):
        if number not in known:
            continue
        name, field = known[number]
        if field.form == "{}":
            entry: dict[int, Any] = {n: v for n, _, v in values(must_be_bytes(value, wire, name))}
            found[name][text_of(entry.get(1, b""), name)] = text_of(entry.get(2, b""), name)
        elif field.type in NUMBERS and field.form:
            if wire == VARINT:
                found[name].append(number_of(value, field.type))
            else:
                found[name] += [number_of(n, field.type) for n in packed_numbers(must_be_bytes(value, wire, name))]
        elif field.type in NUMBERS:
            if wire != VARINT:
                raise Malformed(f"{message}.{name}: wire type {wire}, not a number's")
            found[name] = number_of(value, field.type)
        else:
            raw = must_be_bytes(value, wire, name)
            one: Any = text_of(raw, name) if field.type == "string" else raw
            if field.type not in ZEROS:
                one = decode(field.type, raw)
            if field.form:
                found[name].append(one)
            else:
                found[name] = one
    return found


def values(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, value) of every field in turn: numbers for varints, else bytes."""
    at, end = 0, len(data)
    while at < end:
        key, at = read_varint(data, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise Malformed("a field with the number 0")
        if wire == VARINT:
            value: Any
            value, at = read_varint(data, at)
        else:
            if wire == BYTES:
                size, at = read_varint(data, at)
            elif wire in (FIXED64, FIXED32):
                size = 8 if wire == FIXED64 else 4
            else:
                raise Malformed(f"field {number}: unknown wire type {wire}")
            if size > end - at:
                raise Malformed(f"field {number}: {size} bytes announced, {end - at} there")
            value, at = data[at : at + size], at + size
        yield number, wire, value


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(number, where it ends)."""
    number = 0
    for step in range(MOST_VARINT_BYTES):
        if at + step >= len(data):
            raise Malformed("a number is cut off")
        byte = data[at + step]
        number |= (byte & 0x7F) << (7 * step)
        if byte < 0x80:
            return number & ((1 << 64) - 1), at + step + 1
    raise Malformed("a number of more than 64 bits")


def packed_numbers(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        number, at = read_varint(data, at)
        yield number


def number_of(number: int, type: str) -> int | bool:
    """What 64 bits mean as a type."""
    if type == "bool":
        return number != 0
    if type in ("uint32", "int32", "enum"):
        number &= (1 << 32) - 1
        return number - (1 << 32) if type != "uint32" and number >> 31 else number
    return number - (1 << 64) if type == "int64" and number >> 63 else number


def must_be_bytes(value: Any, wire: int, name: str) -> bytes:
    if wire != BYTES:
        raise Malformed(f"{name}: wire type {wire}, not that of bytes")
    found: bytes = value
    return found


def text_of(value: Any, name: str) -> str:
    try:
        return str(value, "utf-8")
    except (UnicodeDecodeError, TypeError):
        raise Malformed(f"{name}: no UTF-8 text") from None
