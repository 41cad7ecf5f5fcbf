"""The record of a running instance, and ending processes by it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kubesvc.instance import leftovers
from kubesvc.instance import record as records
from kubesvc.instance.ground import MARK, marked_processes
from kubesvc.instance.leftovers import choose_loopback
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.record import (
    InstanceRecord,
    NodeRecord,
    OutsideRecord,
    ProcessId,
    end_processes,
    read_outside,
    read_record,
    write_outside,
    write_record,
)
from kubesvc.instance.wholefile import replace_file

ME = ProcessId.of(os.getpid())


def sleeper(**environment: str) -> subprocess.Popen[bytes]:
    code = "import time; time.sleep(60)"
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", code], env={**os.environ, **environment})


def test_record_survives_writing_and_reading(tmp_path: Path) -> None:
    node = NodeRecord("n1", "172.30.0.11", "10.244.1.0/24", ground=ProcessId(7, 8), zone="a")
    record = InstanceRecord(control=ME, nodes=[node], loopback="127.0.0.2", port=6443, problems=["p"])
    write_record(tmp_path / "instance.json", record)
    assert read_record(tmp_path / "instance.json") == record
    assert read_record(tmp_path / "absent.json") is None


def test_hosts_outside_have_a_file_of_their_own(tmp_path: Path) -> None:
    hosts = [OutsideRecord("db", "192.168.49.1/24", ground=ProcessId(7, 8))]
    write_outside(tmp_path / "outside.json", hosts)
    assert read_outside(tmp_path / "outside.json") == hosts and read_outside(tmp_path / "absent.json") == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"nodes": 7}', b"\xff"])
def test_a_damaged_record_is_said_to_be_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "instance.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"instance\.json: not a record"):
        read_record(tmp_path / "instance.json")


def test_grounds_end_after_what_lives_in_them() -> None:
    node = NodeRecord("n1", "", "", ground=ProcessId(3, 0), agent=ProcessId(1, 0))
    record = InstanceRecord(control=ProcessId(2, 0), fabric=ProcessId(4, 0), nodes=[node])
    assert [p.pid for p in record.processes()] == [1, 2, 3, 4]


def test_a_pid_that_belongs_to_somebody_else_by_now_is_left_alone() -> None:
    child = sleeper()
    try:
        found = ProcessId.of(child.pid)
        assert found is not None and found.alive()
        stranger = ProcessId(child.pid, found.start_ticks + 1)
        assert not stranger.alive() and not stranger.kill()
        assert child.poll() is None
        assert end_processes([found]) == [] and child.wait(60) == -9
        assert not found.alive() and not found.kill()
    finally:
        child.kill()
        child.wait()


def test_marked_processes_are_found_without_a_record(tmp_path: Path) -> None:
    child = sleeper(**{MARK: str(tmp_path)})
    try:
        deadline = time.monotonic() + 60  # its mark shows when its program is wholly in place, a moment after its start
        while not (found := [p.pid for p in marked_processes(tmp_path)]) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert found == [child.pid]
        assert marked_processes(tmp_path / "another") == []
    finally:
        child.kill()
        child.wait()


def test_each_running_instance_has_a_loopback_address_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    first, second, third = (InstancePaths.of(n) for n in ("a", "b", "c"))
    assert choose_loopback(first) == "127.0.0.1"
    for paths, address in ((first, "127.0.0.1"), (second, "127.0.0.2")):
        paths.root.mkdir(parents=True)
        write_record(paths.record, InstanceRecord(control=ME, loopback=address))
    assert choose_loopback(third) == "127.0.0.3"
    assert choose_loopback(second) == "127.0.0.2"
    write_record(first.record, InstanceRecord(control=ProcessId(1, 1), loopback="127.0.0.1"))  # no longer running
    assert choose_loopback(third) == "127.0.0.1"


def test_a_record_needs_no_room_beside_it_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written in the room it has; one that has none fails, says where, and leaves nothing half made."""
    path = tmp_path / "instance.json"
    write_record(path, InstanceRecord(loopback="127.0.0.7", problems=["x" * 100]))

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(records, "replace_file", full)
    write_record(path, InstanceRecord(loopback="127.0.0.8"))
    assert read_record(path) == InstanceRecord(loopback="127.0.0.8"), "shorter than before"
    with pytest.raises(OSError, match=r"No space left.*instance\.json"):
        write_record(path, InstanceRecord(problems=["x" * 1_000_000]))
    assert read_record(path) == InstanceRecord(loopback="127.0.0.8")
    with pytest.raises(OSError, match=r"No space left.*other\.json"):
        write_record(tmp_path / "other.json", InstanceRecord())
    assert [p.name for p in tmp_path.iterdir()] == ["instance.json"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key.pem"
    replace_file(path, b"old", private=True)
    assert path.stat().st_mode & 0o777 == 0o600

    def full(draft: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(draft))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"key\.pem'$"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["key.pem"]


def test_an_instance_ends_on_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for a new record beside the old one, the old one goes first."""
    paths = InstancePaths(tmp_path)
    write_record(paths.record, InstanceRecord(loopback="127.0.0.7", ready=True))

    def full(path: Path, record: InstanceRecord) -> None:
        if path.exists():
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_record(path, record)

    monkeypatch.setattr(leftovers, "write_record", full)
    assert leftovers.end_instance(paths) == []
    assert read_record(paths.record) == InstanceRecord(loopback="127.0.0.7")
