"""What the agent must know of its Pods after a crash: one file per Pod, written before what it describes is used."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kubesvc.kernel.trees import remove_tree


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


def image_users(root: Path, identity: str) -> list[str]:
    """The Pods (namespace/name) of an instance's nodes that have run an image and are still there."""
    found = set()
    for path in root.glob("nodes/*/pods/*/record-*.json"):
        try:
            record = msgspec.json.decode(path.read_bytes(), type=PodRecord)
        except (OSError, msgspec.MsgspecError):
            continue
        if any(c.image_id == identity for c in record.containers.values()):
            found.add(f"{record.namespace}/{record.name}")
    return sorted(found)


class Records:
    """The Pods' directories below the state directory: `pods/<uid>/record-<n>.json` and what else a Pod needs there.

    Each save writes the next number and then removes the one before: renaming over a file would be as safe, but costs
    milliseconds, in which some file systems write the data out and the loop stands still.
    """

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir / "pods"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.numbers: dict[str, int] = {}

    def pod_directory(self, uid: str) -> Path:
        return self.directory / uid

    def save(self, record: PodRecord) -> None:
        directory = self.pod_directory(record.uid)
        directory.mkdir(parents=True, exist_ok=True)
        before = self.numbers.get(record.uid, 0)
        self.numbers[record.uid] = before + 1
        (directory / f"record-{before + 1}.json").write_bytes(msgspec.json.encode(record))
        (directory / f"record-{before}.json").unlink(missing_ok=True)

    def load(self) -> list[PodRecord]:
        """All that can be read; a directory without a readable record is removed, nothing can have been made of it."""
        found = []
        for directory in sorted(self.directory.iterdir()):
            record = self.read(directory)
            if record is None:
                remove_tree(directory)
            else:
                found.append(record)
        return found

    def read(self, directory: Path) -> PodRecord | None:
        """The newest whole record of one Pod; a crash may have left half of the last one."""
        numbered = [(int(p.stem.partition("-")[2]), p) for p in directory.glob("record-*.json")]
        for number, path in sorted(numbered, reverse=True):
            try:
                record = msgspec.json.decode(path.read_bytes(), type=PodRecord)
            except (OSError, msgspec.MsgspecError):
                continue
            self.numbers[record.uid] = max(n for n, _ in numbered)
            for other, old in numbered:
                if other < number:
                    old.unlink(missing_ok=True)
            return record
        return None

    def remove(self, uid: str) -> None:
        self.numbers.pop(uid, None)
        remove_tree(self.pod_directory(uid))
