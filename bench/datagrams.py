"""A load generator for questions over UDP, as light as can be: it shares the machine with the server that it measures.

Everything is prepared before the run: the datagrams, a place for each answer, and the kernel's own headers around
both, so that a turn of the loop is one system call for all that are due and one for all that have come (sendmmsg and
recvmmsg through ctypes). The kernel notes when an answer arrived, so no answer counts as late because this process had
not yet looked. Between two questions it sleeps: who spins loses its core on a busy machine, sooner or later, and takes
one from the server.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

ANSWER_BYTES: Final = 16
"""Kept of each answer: its header and a little more; the kernel cuts off the rest."""
CONTROL_BYTES: Final = 32
"""What the kernel puts beside an answer: a header and a time, 16 bytes each."""
AT_ONCE = 64
IDS: Final = 1 << 16
SO_RCVBUFFORCE, SO_TIMESTAMPNS, PR_SET_TIMERSLACK = 33, 35, 29
RECEIVE_BUFFER_BYTES = 4 << 20
PATIENCE_NS = 1_000_000_000
"""How long answers may come after the last question was due."""
TURN_SECONDS = 0.0002
"""Between two looks of a flood."""
LOST_SECONDS = 0.2
"""A flood without an answer for so long begins again: datagrams were lost."""


class _Piece(ctypes.Structure):
    """struct iovec"""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct msghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("pieces", ctypes.c_void_p),
        ("piece_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = (("message", _Message), ("length", ctypes.c_uint))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
_libc.recvmmsg.argtypes = (*_libc.sendmmsg.argtypes, ctypes.c_void_p)
_header_bytes = ctypes.sizeof(_Header)


class _Row:
    """Datagrams side by side in memory, each with the header that the kernel wants to see."""

    def __init__(self, sizes: Sequence[int], control: int) -> None:
        self.count = len(sizes)
        self.data = ctypes.create_string_buffer(sum(sizes))
        self.control = ctypes.create_string_buffer(max(1, self.count * control))
        self.pieces = (_Piece * self.count)()
        self.headers = (_Header * self.count)()
        at, beside, piece = (ctypes.addressof(part) for part in (self.data, self.control, self.pieces))
        for n, size in enumerate(sizes):
            self.pieces[n] = _Piece(at, size)
            self.headers[n].message = _Message(None, 0, piece, 1, beside if control else None, control, 0)
            at, beside, piece = at + size, beside + control, piece + ctypes.sizeof(_Piece)
        self.address = ctypes.addressof(self.headers)


class Questions(_Row):
    def __init__(self, datagrams: Sequence[bytes]) -> None:
        super().__init__([len(d) for d in datagrams], 0)
        ctypes.memmove(self.data, b"".join(datagrams), len(self.data))

    def send(self, sock: int, first: int, count: int) -> int:
        """How many went; none when the kernel's buffer is full."""
        sent: int = _libc.sendmmsg(sock, self.address + first * _header_bytes, count, socket.MSG_DONTWAIT)
        if sent >= 0:
            return sent
        if (trouble := ctypes.get_errno()) in (errno.EAGAIN, errno.EINTR):
            return 0
        raise OSError(trouble, os.strerror(trouble))


class Places(_Row):
    """Room for answers."""

    def __init__(self, count: int) -> None:
        super().__init__([ANSWER_BYTES] * count, CONTROL_BYTES)

    def receive(self, sock: int, first: int) -> int:
        """How many came into the places from `first` on."""
        most = min(AT_ONCE, self.count - first)
        came: int = _libc.recvmmsg(sock, self.address + first * _header_bytes, most, socket.MSG_DONTWAIT, None)
        return max(came, 0)

    def read(self, count: int) -> Iterator[tuple[int, int, int]]:
        """Id, response code, and the time of arrival in nanoseconds of Unix time, of the first so many."""
        data, control = self.data.raw, self.control.raw
        for n in range(count):
            id_, flags = struct.unpack_from("!HH", data, n * ANSWER_BYTES)
            seconds, nanoseconds = struct.unpack_from("qq", control, n * CONTROL_BYTES + 16)
            yield id_, flags & 0xF, seconds * 1_000_000_000 + nanoseconds


class Answer(NamedTuple):
    """A question that was answered, in seconds: when it was due, from the begin of the run; how long after that it was
    sent, and the answer was there; and the answer's code."""

    due: float
    sent: float
    arrived: float
    code: int

    @property
    def taken(self) -> float:
        """From the sending to the arrival, in seconds."""
        return self.arrived - self.sent


def connected(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    with contextlib.suppress(OSError):  # more than anybody may have; without it answers are lost when this one sleeps
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setblocking(False)
    sock.connect(address)
    return sock


@contextlib.contextmanager
def undisturbed(core: int | None) -> Iterator[None]:
    """On one core, if there is a choice, without collections of garbage, and waking when it wants to."""
    before = os.sched_getaffinity(0)
    gc.collect()
    gc.disable()
    _libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        _libc.prctl(PR_SET_TIMERSLACK, 0, 0, 0, 0)
        gc.enable()


def steady(
    address: tuple[str, int],
    datagrams: Sequence[bytes],
    per_second: float,
    seconds: float,
    core: int | None,
    look: Callable[[float], None],
) -> tuple[int, list[Answer]]:
    """Ask at a steady rate, each question at its time whether others were answered or not; from `core`.

    look: called about every millisecond with the seconds since the begin
    Returns how many were asked, and the answers in the order of the questions.
    """
    total = int(per_second * seconds)
    numbered = [(n % IDS).to_bytes(2, "big") + datagrams[n % len(datagrams)][2:] for n in range(total)]
    questions, places = Questions(numbered), Places(total)
    left = [0] * total
    sent = came = looked = 0
    gap = 1e9 / per_second
    now_ns, sleep = time.time_ns, time.sleep
    with connected(address) as sock, undisturbed(core):
        number = sock.fileno()
        begin = now_ns() + 1_000_000
        while came < total and (now := now_ns() - begin) < total * gap + PATIENCE_NS:
            due = min(total, int(now / gap) + 1) if now >= 0 else 0
            if due > sent:
                went = questions.send(number, sent, due - sent)
                left[sent : sent + went] = [now] * went
                sent += went
            came += places.receive(number, came)
            if now > looked:
                looked = now + 1_000_000
                look(now / 1e9)
            wait = sent * gap - (now_ns() - begin) if sent < total else gap
            if wait > 0:
                sleep(wait / 1e9)
    answers = []
    last = 0
    for id_, code, arrived in places.read(came):
        # Ids come again every 65,536 questions: the question of this id whose number is nearest to the last one.
        n = last + (id_ - last + IDS // 2) % IDS - IDS // 2
        if 0 <= n < total:
            last = n
            due_ns = n * gap
            answers.append(Answer(due_ns / 1e9, (left[n] - due_ns) / 1e9, (arrived - begin - due_ns) / 1e9, code))
    return sent, sorted(answers)


def flood(
    address: tuple[str, int], datagrams: Sequence[bytes], sockets: int, window: int, seconds: float, core: int | None
) -> tuple[int, float]:
    """Ask as fast as is answered: each socket has `window` questions (at most 64) under way, and asks as many anew as
    were answered. Returns how many were answered, and in how many seconds."""
    questions, places = Questions(datagrams), Places(AT_ONCE)
    with contextlib.ExitStack() as stack:
        numbers = [stack.enter_context(connected(address)).fileno() for _ in range(sockets)]
        stack.enter_context(undisturbed(core))
        at = [n * (len(datagrams) - window) // sockets for n in range(sockets)]
        answered = 0
        begin = last = time.perf_counter()
        asked_anew = True
        while (now := time.perf_counter()) - begin < seconds:
            if asked_anew:
                for n, number in enumerate(numbers):
                    questions.send(number, at[n], window)
            before = answered
            for n, number in enumerate(numbers):
                if came := places.receive(number, 0):
                    answered += came
                    at[n] = (at[n] + came) % (len(datagrams) - AT_ONCE)
                    questions.send(number, at[n], came)
            asked_anew = answered == before and now - last > LOST_SECONDS
            if answered > before or asked_anew:
                last = now
            time.sleep(TURN_SECONDS)  # the server has its hands full meanwhile, and this core too where it is the same
        elapsed = now - begin
    return answered, elapsed
