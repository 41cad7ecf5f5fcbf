"""A disk that remembers: what SQLite writes, truncates, deletes and syncs, in order; and what a power loss leaves.

`Recorder` puts itself between SQLite and its files, by ctypes: each file keeps its own methods but for those that
change it, which are told to the log first. `states` then gives what may be on the disk if the power goes after any part
of the log: everything that was synced, and of the rest any subset of sectors.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

SECTOR = 512
CREATE, DELETE, WRITE, TRUNCATE, SYNC = "create", "delete", "write", "truncate", "sync"
DIRECTORY, NOTE = "directory", "note"


class Step(NamedTuple):
    """One thing done to a file, or noted by the test."""

    what: str
    name: str = ""
    at: int = 0
    data: bytes = b""
    note: Any = None


CLOSE = CFUNCTYPE(c_int, c_void_p)
WRITE_CALL = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
TRUNCATE_CALL = CFUNCTYPE(c_int, c_void_p, c_int64)
SYNC_CALL = CFUNCTYPE(c_int, c_void_p, c_int)
OPEN_CALL = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
"""The name is passed on as the pointer it is: SQLite keeps it, and reads on behind its end."""
DELETE_CALL = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)


class Methods(ctypes.Structure):
    """The methods of an open file, as far as they are looked at; the rest is copied as it is."""

    _fields_ = [
        ("version", c_int),
        ("close", CLOSE),
        ("read", c_void_p),
        ("write", WRITE_CALL),
        ("truncate", TRUNCATE_CALL),
        ("sync", SYNC_CALL),
        ("rest", c_void_p * 13),
    ]


class Vfs(ctypes.Structure):
    """How SQLite reaches files."""

    _fields_ = [
        ("version", c_int),
        ("file_size", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", OPEN_CALL),
        ("delete", DELETE_CALL),
        ("rest", c_void_p * 14),
    ]


class File(ctypes.Structure):
    _fields_ = [("methods", POINTER(Methods))]


class Recorder:
    """Records what SQLite does to files of one directory while `recording`."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)
        self.log: list[Step] = []
        self.names: dict[int, str] = {}
        self.tables: dict[int, tuple[Methods, Methods]] = {}
        """By the address of SQLite's own methods: those, and ours."""
        self.of_file: dict[int, Methods] = {}
        self.library = ctypes.CDLL(_sqlite3.__file__)
        self.library.sqlite3_vfs_find.restype = POINTER(Vfs)
        self.library.sqlite3_vfs_find.argtypes = [c_char_p]
        self.library.sqlite3_vfs_register.argtypes = [c_void_p, c_int]
        self.library.sqlite3_vfs_unregister.argtypes = [c_void_p]
        self.callbacks = (
            CLOSE(self.close), WRITE_CALL(self.write), TRUNCATE_CALL(self.truncate), SYNC_CALL(self.sync),
            OPEN_CALL(self.open), DELETE_CALL(self.delete),
        )  # fmt: skip

    def note(self, note: Any) -> None:
        self.log.append(Step(NOTE, note=note))

    @contextmanager
    def recording(self) -> Iterator[None]:
        """From now on new connections of this process are recorded."""
        usual = self.library.sqlite3_vfs_find(None)
        self.usual = usual
        ours = Vfs.from_buffer_copy(usual.contents)
        ours.name = b"recorder"
        ours.open, ours.delete = self.callbacks[4], self.callbacks[5]
        fsync = os.fsync

        def recorded_fsync(descriptor: int) -> None:
            fsync(descriptor)
            if os.readlink(f"/proc/self/fd/{descriptor}") == self.directory:
                self.log.append(Step(DIRECTORY))

        plain_open = os.open

        def recorded_open(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
            text = os.fspath(path)
            new = bool(flags & os.O_CREAT) and not os.path.exists(text)
            descriptor = plain_open(path, flags, mode, **more)
            if new and os.path.dirname(text) == self.directory and not text.endswith(".lock"):
                self.log.append(Step(CREATE, os.path.basename(text)))
            return descriptor

        os.fsync, os.open = recorded_fsync, recorded_open  # type: ignore[assignment]
        self.library.sqlite3_vfs_register(ctypes.addressof(ours), 1)
        try:
            yield
        finally:
            os.fsync, os.open = fsync, plain_open
            self.library.sqlite3_vfs_register(ctypes.cast(usual, c_void_p), 1)
            self.library.sqlite3_vfs_unregister(ctypes.addressof(ours))

    def open(self, _: int, path: int | None, file: int, flags: int, out: int) -> int:
        text = os.fsdecode(ctypes.string_at(path)) if path else ""
        existed = os.path.exists(text)
        status: int = self.usual.contents.open(ctypes.cast(self.usual, c_void_p), path, file, flags, out)
        opened = File.from_address(file)
        if status == 0 and opened.methods and os.path.dirname(text) == self.directory:
            name = os.path.basename(text)
            address = ctypes.addressof(opened.methods.contents)
            if address not in self.tables:
                original = Methods.from_address(address)
                ours = Methods.from_buffer_copy(original)
                ours.close, ours.write, ours.truncate, ours.sync = self.callbacks[:4]
                self.tables[address] = original, ours
            original, ours = self.tables[address]
            self.names[file], self.of_file[file] = name, original
            opened.methods = ctypes.pointer(ours)
            if not existed:
                self.log.append(Step(CREATE, name))
        return status

    def delete(self, _: int, path: bytes, sync_directory: int) -> int:
        status: int = self.usual.contents.delete(ctypes.cast(self.usual, c_void_p), path, sync_directory)
        if status == 0:
            self.log.append(Step(DELETE, os.path.basename(os.fsdecode(path))))
            if sync_directory:
                self.log.append(Step(DIRECTORY))
        return status

    def close(self, file: int) -> int:
        del self.names[file]
        status: int = self.of_file.pop(file).close(file)
        return status

    def write(self, file: int, data: int, size: int, at: int) -> int:
        self.log.append(Step(WRITE, self.names[file], at, ctypes.string_at(data, size)))
        status: int = self.of_file[file].write(file, data, size, at)
        return status

    def truncate(self, file: int, size: int) -> int:
        self.log.append(Step(TRUNCATE, self.names[file], size))
        status: int = self.of_file[file].truncate(file, size)
        return status

    def sync(self, file: int, flags: int) -> int:
        status: int = self.of_file[file].sync(file, flags)
        self.log.append(Step(SYNC, self.names[file]))
        return status


@dataclass
class Platter:
    """What is certain to be on the disk, and what was written since and is not.

    A name is certain once its directory was synced. SQLite does that itself, unseen by us, when it first syncs a
    journal or a write-ahead log that it made.
    """

    contents: dict[str, bytes] = field(default_factory=dict)
    """By name, of every file that is or may be there: what was synced."""
    pending: dict[str, list[Step]] = field(default_factory=dict)
    uncertain: dict[str, bool] = field(default_factory=dict)
    """Names that may be there or not, and whether they are there for those who look now."""

    def apply(self, step: Step) -> None:
        name = step.name
        if step.what == CREATE:
            self.contents[name] = b""
            self.pending[name] = []
            self.uncertain[name] = True
        elif step.what == DELETE:
            self.uncertain[name] = False
        elif step.what == DIRECTORY:
            self.sync_directory()
        elif step.what == SYNC:
            self.contents[name] = settled(self.contents[name], self.pending.pop(name, []))
            if self.uncertain.get(name) and name.endswith(("-wal", "-journal")):
                self.sync_directory()
        elif step.what in (WRITE, TRUNCATE):
            self.pending.setdefault(name, []).append(step)

    def sync_directory(self) -> None:
        for gone in [n for n, there in self.uncertain.items() if not there]:
            del self.contents[gone]
            self.pending.pop(gone, None)
        self.uncertain.clear()

    def after_power_loss(self, chance: random.Random | None, *, everything: bool = False) -> dict[str, bytes]:
        """Files as they may be found: of what is pending nothing, everything, or by chance any sectors."""
        found: dict[str, bytes] = {}
        for name, content in self.contents.items():
            there = self.uncertain.get(name)
            if there is not None and (there != everything if chance is None else chance.random() < 0.5):
                continue
            steps = self.pending.get(name, [])
            if chance is not None:
                steps = [part for step in steps for part in torn(step, chance)]
            elif not everything:
                steps = []
            found[name] = settled(content, steps)
        return found


def torn(step: Step, chance: random.Random) -> list[Step]:
    """The parts of a write that reached the disk: all, none, or some sectors."""
    fate = chance.random()
    if fate < 0.3:
        return []
    if fate < 0.6 or step.what == TRUNCATE:
        return [step]
    parts = []
    at = 0
    while at < len(step.data):
        end = min(len(step.data), (step.at + at) // SECTOR * SECTOR + SECTOR - step.at)
        if chance.random() < 0.5:
            parts.append(step._replace(at=step.at + at, data=step.data[at:end]))
        at = end
    return parts


def settled(content: bytes, steps: list[Step]) -> bytes:
    """A file's content after writes and truncations."""
    file = bytearray(content)
    for step in steps:
        if step.what == TRUNCATE:
            del file[step.at :]
            file.extend(bytes(max(0, step.at - len(file))))
        else:
            file.extend(bytes(max(0, step.at - len(file))))
            file[step.at : step.at + len(step.data)] = step.data
    return bytes(file)
