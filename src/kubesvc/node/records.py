"""What the agent must know of its Pods after a crash: one file per Pod, written before what it describes is used."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec


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
    """One Pod on this node: which it is, its sandbox, its containers' present runs by name."""

    uid: str
    namespace: str
    name: str
    start_time: str = ""
    pause_pid: int = 0
    pause_start_time: int = 0
    device: str = ""
    ips: list[str] = []
    containers: dict[str, ContainerRecord] = {}


class Records:
    """The Pods' directories below the state directory: `pods/<uid>/record.json` and what else a Pod needs there."""

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir / "pods"
        self.directory.mkdir(parents=True, exist_ok=True)

    def pod_directory(self, uid: str) -> Path:
        return self.directory / uid

    def save(self, record: PodRecord) -> None:
        directory = self.pod_directory(record.uid)
        directory.mkdir(parents=True, exist_ok=True)
        draft = directory / "record.json.new"
        draft.write_bytes(msgspec.json.encode(record))
        os.replace(draft, directory / "record.json")

    def load(self) -> list[PodRecord]:
        """All that can be read; a directory without a readable record is removed, nothing can have been made of it."""
        found = []
        for directory in sorted(self.directory.iterdir()):
            try:
                found.append(msgspec.json.decode((directory / "record.json").read_bytes(), type=PodRecord))
            except (OSError, msgspec.MsgspecError):
                shutil.rmtree(directory, ignore_errors=True)
        return found

    def remove(self, uid: str) -> None:
        shutil.rmtree(self.pod_directory(uid), ignore_errors=True)
