"""The record of a running instance: which processes it has, and where it can be reached.

Written whole and renamed into place, so a reader never sees half of it. A process is named by pid and start time,
since a pid alone may by now belong to somebody else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Literal

import msgspec

from .wholefile import FULL, overwrite_file, replace_file


class ProcessId(msgspec.Struct, frozen=True):
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process with this pid now; None if there is none."""
        start = start_ticks(pid)
        return None if start is None else cls(pid, start)

    def alive(self) -> bool:
        return start_ticks(self.pid) == self.start_ticks

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """Send a signal if it still is that very process; whether one was sent."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(handle, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)


def start_ticks(pid: int) -> int | None:
    """Clock ticks after boot at which a live process started; None if there is none or only its remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    after_name = stat[stat.rindex(")") + 2 :].split()
    return None if after_name[0] in ("Z", "X") else int(after_name[19])


NodeState = Literal["running", "stopped", "partitioned"]


class NodeRecord(msgspec.Struct):
    """One node: its ground (the process that holds its namespaces), its agent, and what somebody made of it.

    pod_cidr, pod_cidrs: where its Pods' addresses come from: of the primary family, and of each
    """

    name: str
    address: str
    pod_cidr: str
    ground: ProcessId | None = None
    agent: ProcessId | None = None
    zone: str = ""
    simulated: bool = False
    state: NodeState = "running"
    pod_cidrs: list[str] = msgspec.field(default_factory=list)


class OutsideRecord(msgspec.Struct):
    """A host outside the cluster: a namespace on the network between the nodes.

    address, second: with prefix length; `second` is one of the other family, "" for none
    """

    name: str
    address: str
    ground: ProcessId | None = None
    command: ProcessId | None = None
    second: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address, self.second) if self.second else (self.address,)


class BalancerRecord(msgspec.Struct):
    """A load balancer's address that answers on the host: Service, address in the cluster, address here, and ports
    such as "80/TCP"."""

    service: str
    address: str
    host: str
    ports: list[str]


class InstanceRecord(msgspec.Struct):
    """What is running. Every process appears here before it can leave anything behind."""

    version: int = 1
    control: ProcessId | None = None
    fabric: ProcessId | None = None
    nodes: list[NodeRecord] = msgspec.field(default_factory=list)
    loopback: str = ""
    port: int = 0
    ready: bool = False
    rootless: bool = False
    started: float = 0.0
    store: str = ""
    service_ranges: list[str] = msgspec.field(default_factory=list)
    problems: list[str] = msgspec.field(default_factory=list)
    load_balancer_ranges: list[str] = msgspec.field(default_factory=list)
    balancers: list[BalancerRecord] = msgspec.field(default_factory=list)
    page: str = ""
    """The link to the live picture, token and all; "" without one."""

    bind: str = ""
    """Where other machines reach the API; "" if only this one does."""
    cluster_dns: str = ""
    cluster_cidrs: list[str] = msgspec.field(default_factory=list)

    @property
    def server(self) -> str:
        """The URL of the API."""
        address = self.bind or self.loopback
        return f"https://[{address}]:{self.port}" if ":" in address else f"https://{address}:{self.port}"

    def processes(self) -> list[ProcessId]:
        """All recorded processes, grounds last: what lives in a namespace goes before its holder."""
        found = [n.agent for n in self.nodes] + [self.control] + [n.ground for n in self.nodes] + [self.fabric]
        return [p for p in found if p is not None]


def read_record(path: Path) -> InstanceRecord | None:
    """The record, or None if there is none. Raises ValueError for one that another version wrote or that is damaged."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(raw, type=InstanceRecord)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: not a record of this version of kubesvc: {error}") from error


def write_record(path: Path, record: InstanceRecord) -> None:
    """Raises OSError, which names the file. On a full disk it is written in the room that it has, so that what runs can
    go on, and what ends is told of."""
    content = msgspec.json.encode(record)
    try:
        replace_file(path, content)
    except OSError as error:
        if error.errno not in FULL or not path.exists():
            raise
        overwrite_file(path, content)


def read_outside(path: Path) -> list[OutsideRecord]:
    """The hosts outside; they have a file of their own, since commands write it while the control process runs."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[OutsideRecord])
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: not a record of this version of kubesvc: {error}") from error


def write_outside(path: Path, hosts: list[OutsideRecord]) -> None:
    replace_file(path, msgspec.json.encode(hosts))


def end_processes(processes: list[ProcessId], *, patience_seconds: float = 30.0) -> list[ProcessId]:
    """Kill these processes and wait until they are gone; returns those that stayed."""
    for process in processes:
        with contextlib.suppress(PermissionError):
            process.kill()
    deadline = time.monotonic() + patience_seconds
    left = [p for p in processes if p.alive()]
    while left and time.monotonic() < deadline:
        time.sleep(0.01)
        left = [p for p in left if p.alive()]
    return left
