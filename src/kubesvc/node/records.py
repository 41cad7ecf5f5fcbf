"""What the agent must know of its Pods after a crash: one file per Pod, written before what it describes is used."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from kubesvc.kernel.trees import remove_tree

JOURNAL = "record.jsonl"
"""The file in a Pod's directory whose last line is its record."""
MOST_BYTES = 1 << 18
"""A journal that is longer begins anew."""


class ContainerRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One run of a container: its process (number and start time in clock ticks) and what its status said."""

    name: str
    id: str = ""
    attempt: int = 0
    pid: int = 0
    start_time: int = 0
    started_at: str = ""
    image: str = ""
    image_id: str = ""
    stop_signal: int = 15


class PodRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One Pod on this node: which it is, its sandbox, its containers' present runs by name.

    sandbox, sandbox_attempt: a container runtime's id for the sandbox, and how many were tried
    """

    uid: str
    namespace: str
    name: str
    start_time: str = ""
    pause_pid: int = 0
    pause_start_time: int = 0
    sandbox: str = ""
    sandbox_attempt: int = 0
    device: str = ""
    ips: list[str] = []
    containers: dict[str, ContainerRecord] = {}


def read_record(directory: Path) -> PodRecord | None:
    """What is kept of the Pod whose directory this is: the last state that was written whole; None if there is none."""
    try:
        text = (directory / JOURNAL).read_bytes()
    except OSError:
        return None
    for line in reversed(text.split(b"\n")):
        try:
            return msgspec.json.decode(line, type=PodRecord)
        except msgspec.MsgspecError:
            continue  # torn by a crash, or by a disk that was full
    return None


def image_users(root: Path, identity: str) -> list[str]:
    """The Pods (namespace/name) of an instance's nodes that have run an image and are still there."""
    found = set()
    for path in root.glob(f"nodes/*/pods/*/{JOURNAL}"):
        record = read_record(path.parent)
        if record is not None and any(c.image_id == identity for c in record.containers.values()):
            found.add(f"{record.namespace}/{record.name}")
    return sorted(found)


class Records:
    """The Pods' directories below the state directory: `pods/<uid>/record.jsonl` and what else a Pod needs there.

    Each save appends a line, the last of which counts: making, renaming and removing files costs some file systems a
    quarter of a millisecond to several, in which the loop stands still, and a Pod's start saves five times.
    """

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir / "pods"
        self.directory.mkdir(parents=True, exist_ok=True)

    def pod_directory(self, uid: str) -> Path:
        return self.directory / uid

    def save(self, record: PodRecord) -> None:
        path = self.pod_directory(record.uid) / JOURNAL
        line = b"\n" + msgspec.json.encode(record)  # a line that was torn before ends here
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o600)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, flags, 0o600)
        try:
            os.write(fd, line)
            long = os.fstat(fd).st_size > MOST_BYTES
        finally:
            os.close(fd)
        if long:
            draft = path.with_suffix(".draft")
            draft.touch(0o600)
            draft.write_bytes(line)
            draft.replace(path)

    def load(self) -> list[PodRecord]:
        """All that can be read; a directory without a readable record is removed, nothing can have been made of it."""
        found = []
        for directory in sorted(self.directory.iterdir()):
            record = read_record(directory)
            if record is None:
                remove_tree(directory)
            else:
                found.append(record)
        return found

    def remove(self, uid: str) -> None:
        remove_tree(self.pod_directory(uid))
