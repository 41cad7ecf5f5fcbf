"""Container logs: read from a named pipe, kept in files, bounded by rotation (NODE-95 to NODE-99).

A container writes to a named pipe that it also holds open for reading, so the agent may die and come back without the
container noticing; up to a megabyte waits in the pipe meanwhile. Each kept line reads
`2026-01-02T03:04:05.000000006Z stdout F the line`; `P` in place of `F` marks a line that goes on in the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from kubesvc.clock import Clock, parse_rfc3339, rfc3339

CHUNK_BYTES = 1 << 16
LINE_BYTES = 1 << 14
PIPE_BYTES = 1 << 20
BURST_BYTES = 2 << 20
BURST_SECONDS = 0.1
"""A container of which more than BURST_BYTES were kept in this time is read no further until it is over."""
PIECE_BYTES = 1 << 20
READ_LINES = 512
"""A log is read in pieces of so many lines, between which others have their turn."""
F_SETPIPE_SZ = 1031


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """What of a log is wanted; the names of the API's query (NODE-95)."""

    follow: bool = False
    timestamps: bool = False
    since_seconds: int | None = None
    since_time: str = ""
    tail_lines: int | None = None
    limit_bytes: int | None = None
    stream: str = "All"


class LogFile:
    """One run's log: `<directory>/<attempt>.log`, older parts beside it as `.1`, `.2` …"""

    def __init__(self, path: Path, clock: Clock, file_bytes: int, files: int) -> None:
        self.path = path
        self.clock = clock
        self.file_bytes = file_bytes
        self.files = files
        path.parent.mkdir(parents=True, exist_ok=True)
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self.size = os.fstat(self.fd).st_size
        self.grown = asyncio.Event()
        self.kept = 0
        """Bytes that were to be kept since this object was made, whether or not they are still there."""

    def write(self, stream: str, lines: Iterable[tuple[bytes, bool]]) -> None:
        """Keep lines (without their end; True when the line is whole)."""
        stamp = self.stamp(stream)
        self.keep(b"".join(stamp + (b"F " if whole else b"P ") + line + b"\n" for line, whole in lines))

    def write_whole(self, stream: str, text: bytes) -> None:
        """Keep whole lines, each with its end and none of them long; the same as `write`, at a tenth of the cost."""
        start = self.stamp(stream) + b"F "
        self.keep(start + text[:-1].replace(b"\n", b"\n" + start) + b"\n")

    def stamp(self, stream: str) -> bytes:
        now = self.clock.now()
        return f"{rfc3339(now)[:-1]}.{int(now % 1 * 1e9):09d}Z {stream} ".encode()

    def keep(self, data: bytes) -> None:
        self.kept += len(data)
        if self.size and self.size + len(data) > self.file_bytes:
            self.rotate()
        if self.fd >= 0 and data:
            with contextlib.suppress(OSError):  # a full disk loses lines, never the container
                self.size += os.write(self.fd, data)
        self.grown.set()

    def rotate(self) -> None:
        os.close(self.fd)
        self.shift()
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self.size = 0

    def shift(self) -> None:
        """Name every part one older; the oldest goes."""
        for number in range(self.files - 1, 0, -1):
            older = self.path.with_suffix(f".log.{number}")
            newer = self.path.with_suffix(f".log.{number - 1}") if number > 1 else self.path
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, older)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self.grown.set()


class LogPipe:
    """One stream of one run: reads the named pipe in the loop and writes lines to the log."""

    def __init__(self, path: Path, stream: str, file: LogFile, fd: int = -1) -> None:
        """fd: read instead of a named pipe"""
        self.stream = stream
        self.file = file
        self.rest = b""
        self.burst = 0
        self.loop = asyncio.get_running_loop()
        self.listeners: list[Callable[[str, bytes], None]] = []
        """Told the stream's name and what came on it as it came; b"" at the end of the run."""
        if fd < 0:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(path, 0o622)
                os.chmod(path, 0o622)
            # Both ways open: neither side ever sees the end or a broken pipe because the other is away.
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.fd = fd
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.fd, F_SETPIPE_SZ, PIPE_BYTES)
        self.path = path
        self.loop.add_reader(self.fd, self.on_readable)

    def for_container(self) -> int:
        """A blocking descriptor for the container; the caller closes it after the spawn."""
        return os.open(self.path, os.O_RDWR | os.O_CLOEXEC)

    def on_readable(self) -> None:
        if not self.read_chunk():
            return
        if self.burst > BURST_BYTES:  # the pipe fills up and the writer waits
            self.loop.remove_reader(self.fd)
            self.loop.call_later(BURST_SECONDS, self.resume)

    def forget_burst(self) -> None:
        self.burst = 0

    def resume(self) -> None:
        self.burst = 0
        if self.fd >= 0:
            self.loop.add_reader(self.fd, self.on_readable)

    def read_chunk(self) -> bool:
        """Move one chunk from the pipe to the log; False when the pipe is empty or closed."""
        if self.fd < 0:
            return False
        try:
            data = os.read(self.fd, CHUNK_BYTES)
        except BlockingIOError:
            return False
        first, before = self.burst == 0, self.file.kept
        text = self.rest + data
        if whole := short_lines(text):
            self.file.write_whole(self.stream, text[:whole])
            self.rest = text[whole:]
        else:
            lines, self.rest = split_lines(text)
            if lines:
                self.file.write(self.stream, lines)
        for listener in self.listeners:  # after the log: what an agent has read when it is killed, is lost
            listener(self.stream, data)
        self.burst += max(len(data), self.file.kept - before)
        if first:
            self.loop.call_later(BURST_SECONDS, self.forget_burst)
        return bool(data)

    def drain(self) -> None:
        """Read what is left after the container's end, a burst at most, and close."""
        for _ in range(PIPE_BYTES // CHUNK_BYTES + 1):
            if not self.read_chunk():
                break
        if self.rest:
            self.file.write(self.stream, [(self.rest, True)])
            self.rest = b""
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            self.loop.remove_reader(self.fd)
            os.close(self.fd)
            self.fd = -1
            for listener in self.listeners:
                listener(self.stream, b"")


def short_lines(data: bytes) -> int:
    """How many bytes whole lines take, if no line is longer than LINE_BYTES; 0 if there are none or one is."""
    if len(data) - data.rfind(b"\n") - 1 > LINE_BYTES:
        return 0
    end, position = data.rfind(b"\n") + 1, 0
    while position < end:
        after = data.rfind(b"\n", position, position + LINE_BYTES + 1) + 1
        if not after:
            return 0
        position = after
    return end


def split_lines(data: bytes) -> tuple[list[tuple[bytes, bool]], bytes]:
    """(lines, rest): whole lines without their ends, pieces of over-long ones marked as not whole."""
    *whole, rest = data.split(b"\n")
    lines: list[tuple[bytes, bool]] = []
    for line in whole:
        while len(line) > LINE_BYTES:
            lines.append((line[:LINE_BYTES], False))
            line = line[LINE_BYTES:]
        lines.append((line, True))
    while len(rest) > LINE_BYTES:
        lines.append((rest[:LINE_BYTES], False))
        rest = rest[LINE_BYTES:]
    return lines, rest


# -- reading ----------------------------------------------------------------------------------------------------------


def log_parts(path: Path) -> list[Path]:
    """The files of one run's log, the oldest first."""
    parts = []
    number = 1
    while (older := path.with_suffix(f".log.{number}")).exists():
        parts.append(older)
        number += 1
    return [*reversed(parts), path]


@dataclass
class Part:
    """One file of a log, open: renaming or removing it changes nothing. `position` is after what was read of it."""

    fd: int
    size: int
    """What it held when it was opened."""
    position: int = 0

    @classmethod
    def open(cls, path: Path) -> Part:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return cls(fd, os.fstat(fd).st_size)

    def read(self, until: int | None = None) -> bytes:
        """The next whole lines, some at a time; b"" if there are none (before this position of the file)."""
        most = PIECE_BYTES if until is None else min(PIECE_BYTES, until - self.position)
        data = os.pread(self.fd, most, self.position) if most > 0 else b""
        whole = data[: data.rfind(b"\n") + 1]
        self.position += len(whole)
        return whole

    def lies_at(self, path: Path) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self.fd), path.stat())
        return False


class StoredLog:
    """One run's log as it is now, and then what is written to it: every line once, in order, however its parts are
    renamed meanwhile. Lines are missed only when a part was dropped before its turn. Close it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: list[Part] = []
        try:
            for part in log_parts(path):
                with contextlib.suppress(FileNotFoundError):
                    self.parts.append(Part.open(part))
        except OSError:
            self.close()
            raise

    def lines(self) -> Iterator[bytes]:
        """Every line that was there at first, in the form of the file, without its end."""
        for part in self.parts:
            while text := part.read(part.size):
                yield from text[:-1].split(b"\n")

    def more(self) -> bytes:
        """Lines that came since; b"" if there are none now. `lines` must have been read to their end."""
        while self.parts or self.go_on():
            if text := self.parts[-1].read():
                return text
            following = self.following()
            if following is None:
                return b""
            if text := self.parts[-1].read():  # the last that came before the next part was begun
                return text
            self.go_on(following)
        return b""

    def following(self) -> Path | None:
        """The part after the newest that is open; the oldest that is left if that one is gone."""
        known = [part for part in log_parts(self.path) if part.exists()]
        place = next((n for n, part in enumerate(known) if self.parts[-1].lies_at(part)), -1)
        return known[place + 1] if place + 1 < len(known) else None

    def go_on(self, part: Path | None = None) -> bool:
        """Read on in this part, or in the first; False if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            self.parts.append(Part.open(part or self.path))
            for done in self.parts[:-1]:
                os.close(done.fd)
            del self.parts[:-1]
            return True
        return False

    def close(self) -> None:
        for part in self.parts:
            os.close(part.fd)
        self.parts = []


def stored_lines(path: Path) -> Iterator[bytes]:
    """Every kept line of one run, in the form of the file, without its end. What is written or rotated after the first
    was asked for changes nothing."""
    with contextlib.closing(StoredLog(path)) as log:
        yield from log.lines()


def wanted_lines(lines: Iterable[bytes], options: LogOptions, now: float) -> Iterator[bytes]:
    """The lines of `lines` that the options ask for, as they are sent, tail and limit not yet applied. Pure."""
    since = 0.0
    if options.since_seconds is not None:
        since = now - options.since_seconds
    elif options.since_time:
        since = parse_rfc3339(options.since_time)
    for line in lines:
        stamp, _, tail = line.partition(b" ")
        stream, _, tail = tail.partition(b" ")
        mark, _, text = tail.partition(b" ")
        if not mark:
            continue
        if since and parse_stamp(stamp) < since:
            continue
        if options.stream != "All" and stream.decode() != options.stream.lower():
            continue
        end = b"\n" if mark == b"F" else b""
        yield (stamp + b" " if options.timestamps else b"") + text + end


def parse_stamp(stamp: bytes) -> float:
    """Seconds of a kept line's time, nanoseconds cut to microseconds; 0 for what is no time."""
    text = stamp.decode(errors="replace").rstrip("Z")
    whole, _, fraction = text.partition(".")
    try:
        return parse_rfc3339(whole + "Z") + float(f"0.{fraction or 0}")
    except ValueError:
        return 0.0


async def read_log(path: Path, options: LogOptions, clock: Clock, live: LogFile | None = None) -> AsyncIterator[bytes]:
    """The log of one run by the options, in pieces; with follow until `live` is closed."""
    with contextlib.closing(StoredLog(path)) as log:
        left = options.limit_bytes
        found = wanted_lines(log.lines(), options, clock.now())
        if options.tail_lines is not None:
            kept: deque[bytes] = deque(maxlen=max(0, options.tail_lines))
            while some := list(islice(found, READ_LINES)):
                kept.extend(some)
                await asyncio.sleep(0)  # a log may be long, and probes want to be on time
            found = iter(kept)
        async for piece in bounded(pieces_of(found, log, options, live), left):
            yield piece


async def pieces_of(
    found: Iterator[bytes], log: StoredLog, options: LogOptions, live: LogFile | None
) -> AsyncIterator[bytes]:
    """What was found, and with follow what comes, joined; b"" now and then."""
    while some := list(islice(found, READ_LINES)):
        yield b"".join(some)
        await asyncio.sleep(0)
    following = LogOptions(timestamps=options.timestamps, stream=options.stream)
    while options.follow and live is not None:
        live.grown.clear()
        over = live.fd < 0
        if text := log.more():
            yield b"".join(wanted_lines(text[:-1].split(b"\n"), following, 0))
        elif over:
            return
        else:
            await live.grown.wait()


async def bounded(pieces: AsyncIterator[bytes], left: int | None) -> AsyncIterator[bytes]:
    """The first so many bytes of these pieces; all for None. No piece is empty."""
    async for piece in pieces:
        if left is not None:
            piece, left = piece[:left], left - len(piece[:left])
        if piece:
            yield piece
        if left == 0:
            return
