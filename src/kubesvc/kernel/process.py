"""Processes in namespaces: spawned by a thread that goes there and back, watched by pidfd, without preexec_fn.

A thread of its own unshares its root and working directory once (CLONE_FS); for each spawn it joins the namespaces,
starts the program by vfork and exec, and returns to its own. That costs under 1 ms, where `preexec_fn` costs 4.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import marshal
import os
import select
import signal
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from . import syscalls
from .namespaces import Namespaces, nsexec_command
from .nsexec import END, KINDS
from .rootfs import Step

T = TypeVar("T")

ABANDONED_SECONDS = 1.0
"""How long a process that nobody waits for has to end what it has started."""
HOME_KINDS = ("net", "uts", "ipc", "pid", "mnt")


@dataclass(frozen=True, kw_only=True)
class Spawn:
    """One process to start.

    argv:       the program, looked up on the PATH of `env` inside the mount namespace, and its arguments
    inside:     the process whose namespaces of `kinds` are joined first; 0 for none
    new:        kinds of namespaces to make anew for it ("net", "uts", "ipc", "pid")
    stdin, stdout, stderr: descriptors, or None for /dev/null
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    inside: int = 0
    kinds: Sequence[str] = ()
    new: Sequence[str] = ()
    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None
    pass_fds: Sequence[int] = ()
    uid: int | None = None
    gid: int | None = None
    groups: Sequence[int] | None = None
    terminal: bool = False
    """stdin is a terminal that becomes the controlling one: the caller's program must open it (no setsid here)."""


class Process(Protocol):
    """A running process: its number here, when it started, its end, and signals to it."""

    pid: int
    start_time: int

    def done(self) -> bool: ...

    async def wait(self) -> int | None:
        """Its exit code, negative for a signal; None if it was adopted and its code is lost."""
        ...

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens if it has ended."""
        ...

    def close(self) -> None:
        """Forget it; it goes on running."""
        ...


def stat_words(pid: int) -> list[bytes]:
    """What /proc/PID/stat says after the program's name, from the state on. OSError if there is no such process."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot: with its number, what it is. 0 if there is none."""
    try:
        return int(stat_words(pid)[19])
    except (OSError, IndexError, ValueError):
        return 0


LOOKS, LOOK_SECONDS = 200, 0.005
KILLED_SECONDS = 30.0
"""How long a process may take to end after SIGKILL before that is called trouble."""
PIDFD_GET_INFO, PIDFD_INFO_EXIT = 0xC040FF0B, 1 << 3
INFO = struct.Struct("=QQ11Ii")


def exit_code(pidfd: int) -> int | None:
    """How a process that nobody has to wait for has ended: its exit code, negative for a signal. None while it has not
    been reaped, and on kernels before 6.15, which do not tell."""
    asked = bytearray(INFO.pack(PIDFD_INFO_EXIT, *[0] * 13))
    try:
        found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is not None:  # a child of this very process after all
            return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
    except ChildProcessError:
        pass
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, asked)
    except OSError:
        return None
    mask, *_, status = INFO.unpack(asked)
    return os.waitstatus_to_exitcode(status & 0xFFFF) if mask & PIDFD_INFO_EXIT else None


def reaped(pidfd: int) -> bool:
    """Whether nothing is left of a process for its parent to collect."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it is somebody's, so it is there
        return False
    return False


class WatchedProcess:
    """A process seen through its pidfd: a child, or an adopted one, whose exit code only newer kernels tell."""

    def __init__(self, pid: int, pidfd: int, child: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.child = child
        self.looks = LOOKS
        self.start_time = start_time(pid)
        self.ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(pidfd, self.on_end)

    @classmethod
    def adopt(cls, pid: int, started: int) -> WatchedProcess | None:
        """The process of this number and start time, if it is still running."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return None
        if start_time(pid) != started:  # checked after opening: from here on the number cannot be reused unseen
            os.close(pidfd)
            return None
        return cls(pid, pidfd, None)

    def on_end(self) -> None:
        if self.pidfd < 0:
            return
        if self.child is not None:
            code = self.child.poll()
            if code is None:
                return  # not reaped yet, a spurious wake-up
        else:
            code = exit_code(self.pidfd)
            if code is None and reaped(self.pidfd):
                code = exit_code(self.pidfd)  # it may have been in between, and no later look tells more
            elif code is None and self.looks > 0:  # its parent, the node's first process, is about to reap it
                self.looks -= 1
                loop = asyncio.get_running_loop()
                loop.remove_reader(self.pidfd)
                loop.call_later(LOOK_SECONDS, self.on_end)
                return
        self.close()
        if not self.ended.done():
            self.ended.set_result(code)

    def done(self) -> bool:
        return self.ended.done()

    def gone(self) -> bool:
        """Whether it has ended, though the loop may not have heard of it yet."""
        if self.pidfd < 0:
            return self.ended.done()
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    async def wait(self) -> int | None:
        return await asyncio.shield(self.ended)

    def signal(self, number: int) -> None:
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        if self.pidfd >= 0:
            with contextlib.suppress(RuntimeError):  # the loop may be closed already
                asyncio.get_running_loop().remove_reader(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1
            if self.child is not None and self.child.returncode is None and not self.ended.done():
                self.child.returncode = 0  # ours no longer: silences Popen's complaint about a running child


class Spawner:
    """Starts processes and runs short functions inside namespaces of others. One thread, calls in turn."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawn", initializer=self.prepare)
        self.home = Namespaces({})

    def prepare(self) -> None:
        syscalls.unshare(syscalls.CLONE_FS)  # without it, joining a mount namespace is refused to a thread
        self.home = Namespaces.of("thread-self", HOME_KINDS)
        for kind in ("uts", "ipc", "mnt"):
            try:
                syscalls.setns(self.home.fds[kind], KINDS[kind])
            except PermissionError:
                # It belongs to a user namespace above ours: once left, there would be no way back into it.
                syscalls.unshare(KINDS[kind])
        self.home.close()
        self.home = Namespaces.of("thread-self", HOME_KINDS)

    async def call(
        self, function: Callable[[], T], *, inside: int = 0, kinds: Sequence[str] = (), new: Sequence[str] = ()
    ) -> T:
        """Run a short function in the thread, inside these namespaces; its result or its error comes back."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.thread, self.visit, function, inside, tuple(kinds), tuple(new))

    def visit(self, function: Callable[[], T], inside: int, kinds: tuple[str, ...], new: tuple[str, ...]) -> T:
        flags = 0
        for kind in new:
            flags |= KINDS[kind]
        away = Namespaces.of(inside, kinds) if inside else Namespaces({})
        touched = set(kinds) | set(new)
        try:
            away.join()
            if flags:
                syscalls.unshare(flags)
            return function()
        finally:
            away.close()
            if "mnt" in touched:
                syscalls.setns(self.home.fds["mnt"], syscalls.CLONE_NEWNS)
            for kind in HOME_KINDS[:-1]:
                if kind in touched:
                    syscalls.setns(self.home.fds[kind], KINDS[kind])

    async def spawn(self, spawn: Spawn) -> WatchedProcess:
        """Start a process in a session of its own, all other descriptors closed. OSError if it cannot start. One that
        nobody waits for any more when it has started is ended."""

        given_up = False

        def start() -> tuple[subprocess.Popen[bytes], int]:
            if given_up:  # while others were started: not worth the time of those who still wait
                raise InterruptedError
            child = subprocess.Popen(
                list(spawn.argv),
                env=dict(spawn.env),
                cwd=spawn.cwd,
                stdin=subprocess.DEVNULL if spawn.stdin is None else spawn.stdin,
                stdout=subprocess.DEVNULL if spawn.stdout is None else spawn.stdout,
                stderr=subprocess.DEVNULL if spawn.stderr is None else spawn.stderr,
                pass_fds=tuple(spawn.pass_fds),
                close_fds=True,
                start_new_session=True,
                user=spawn.uid,
                group=spawn.gid,
                extra_groups=spawn.groups,
            )
            return child, os.pidfd_open(child.pid)

        def abandon(starting: asyncio.Task[tuple[subprocess.Popen[bytes], int]]) -> None:
            if not starting.cancelled() and starting.exception() is None:
                child, pidfd = starting.result()
                process = WatchedProcess(child.pid, pidfd, child)
                process.signal(END)
                # the first process of a namespace is deaf to all but this
                asyncio.get_running_loop().call_later(ABANDONED_SECONDS, process.signal, signal.SIGKILL)

        starting = asyncio.create_task(self.call(start, inside=spawn.inside, kinds=spawn.kinds, new=spawn.new))
        try:
            child, pidfd = await asyncio.shield(starting)
        except asyncio.CancelledError:
            given_up = True
            starting.add_done_callback(abandon)
            raise
        return WatchedProcess(child.pid, pidfd, child)

    async def prepare_container(self, spawn: Spawn, spec: Mapping[str, Any], steps: Sequence[Step] | None) -> Prepared:
        """Start the program of a container up to the point before its exec; see `nsexec.run_spec` for `spec`.

        The process exists, alone in its new process namespace, and waits: the caller records it, then calls `go`.
        If the caller dies in between, the process ends by itself.
        """
        spec_read, spec_write = os.pipe2(os.O_CLOEXEC)
        go_read, go_write = os.pipe2(os.O_CLOEXEC)
        status_read, status_write = os.pipe2(os.O_CLOEXEC)
        # The numbers are the same in the child; the status descriptor must vanish by a successful exec.
        wire = dict(spec, argv=list(spawn.argv), env=dict(spawn.env), cwd=spawn.cwd, go=go_read, status=status_write)
        if steps is not None:
            wire["steps"] = [tuple(s) for s in steps]
        try:
            process = await self.spawn(
                Spawn(
                    argv=nsexec_command("--spec", str(spec_read)),
                    inside=spawn.inside,
                    kinds=spawn.kinds,
                    new=spawn.new,
                    stdin=spawn.stdin,
                    stdout=spawn.stdout,
                    stderr=spawn.stderr,
                    pass_fds=(spec_read, go_read, status_write, *spawn.pass_fds),
                )
            )
        except BaseException:
            for fd in (spec_read, spec_write, go_read, go_write, status_read, status_write):
                os.close(fd)
            raise
        for fd in (spec_read, go_read, status_write):
            os.close(fd)
        prepared = Prepared(process, go_write, status_read)
        writing = asyncio.get_running_loop().run_in_executor(None, write_all, spec_write, marshal.dumps(wire))
        try:
            await asyncio.shield(writing)
        except BaseException:
            prepared.close()
            process.signal(signal.SIGKILL)
            raise
        return prepared

    def close(self) -> None:
        self.thread.shutdown(wait=True)
        self.home.close()


def write_all(fd: int, data: bytes) -> None:
    """Write everything and close; the reader may have gone."""
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    except BrokenPipeError:
        pass
    finally:
        os.close(fd)


class StillRunning(OSError):
    """A process is still there long after SIGKILL: it hangs in the kernel, or somebody has frozen it."""


async def end_for_good(process: Process, what: str, seconds: float = KILLED_SECONDS) -> int | None:
    """SIGKILL a process and wait for its end; its exit code. StillRunning, which names it, if that does not come.

    what: whose process it is, in words
    """
    process.signal(signal.SIGKILL)
    try:
        async with asyncio.timeout(seconds):
            return await process.wait()
    except TimeoutError:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            status = []
        shown = dict(line.split(":\t", 1) for line in status if line.startswith(("Name:", "State:")))
        seen = f" ({shown.get('Name', '?')}, state {shown['State']})" if "State" in shown else ""
        said = "has not ended" if seen else "is not known to have ended"
        words = f"{what}: process {process.pid}{seen} {said} {seconds:.0f} s after SIGKILL"
        raise StillRunning(words) from None


class StartFailed(Exception):
    """A container's program did not get to its exec; the words say at which step and why."""


def shown_processes() -> list[int]:
    """The processes that this process namespace shows."""
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def session_processes(session: int) -> list[int]:
    """The processes of a session, as far as this process namespace shows them."""
    found = []
    for number in shown_processes():
        try:
            words = stat_words(number)
        except OSError:
            continue
        if int(words[3]) == session and words[0] not in (b"Z", b"X"):
            found.append(number)
    return found


def mount_namespace(pid: int) -> str:
    """What tells a process's mount namespace from others; "" for a process that has ended or is not ours to look at."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return ""


def is_door(pid: int) -> bool:
    """Whether a process, itself in this process namespace, has its children in another one: such as `nsexec` when it
    waits for the end of what it has started there."""
    try:
        children, own = (os.readlink(f"/proc/{pid}/ns/{name}") for name in ("pid_for_children", "pid"))
        return children != own
    except OSError:
        return False


def processes_that_see(namespace: str) -> list[int]:
    """The processes in a mount namespace, as far as this process namespace shows them."""
    return [number for number in shown_processes() if mount_namespace(number) == namespace]


class Prepared:
    """A process that waits before its exec."""

    def __init__(self, process: WatchedProcess, go: int, status: int) -> None:
        self.process = process
        self.go_fd = go
        self.status_fd = status

    async def go(self, timeout_seconds: float = 30.0) -> WatchedProcess:
        """Let it exec; returns when it has. StartFailed with its words if it could not."""
        loop = asyncio.get_running_loop()
        words = loop.create_future()

        def on_status() -> None:
            loop.remove_reader(self.status_fd)
            words.set_result(os.read(self.status_fd, 4096))

        loop.add_reader(self.status_fd, on_status)
        try:
            with contextlib.suppress(BrokenPipeError):
                os.write(self.go_fd, b"+")
            try:
                async with asyncio.timeout(timeout_seconds):
                    failure = (await words).decode(errors="replace")
            except TimeoutError:
                failure = f"start: no exec within {timeout_seconds:.0f} s"
                self.process.signal(signal.SIGKILL)
        finally:
            loop.remove_reader(self.status_fd)
            self.close()
        if failure:
            try:
                await end_for_good(self.process, "start")
            except StillRunning as error:
                failure = f"{failure}; {error}"
            raise StartFailed(failure)
        return self.process

    def close(self) -> None:
        """Let go of the pipes; a process that has not exec'd ends."""
        for fd in (self.go_fd, self.status_fd):
            if fd >= 0:
                os.close(fd)
        self.go_fd = self.status_fd = -1
