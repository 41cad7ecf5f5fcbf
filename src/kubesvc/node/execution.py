"""A running container as processes: who it is, and how further processes join it (NODE-52)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kubesvc.api.container import Container
from kubesvc.kernel.cgroups import Group
from kubesvc.kernel.namespaces import nsexec_command
from kubesvc.kernel.nsexec import END, FAILED
from kubesvc.kernel.process import (
    Spawn,
    Spawner,
    StillRunning,
    WatchedProcess,
    end_for_good,
    is_door,
    mount_namespace,
    processes_that_see,
    session_processes,
)
from kubesvc.kernel.terminals import open_inside

from .capabilities import capability_mask
from .environment import expand

MOST_OUTPUT_BYTES = 16384
PAUSE_SECONDS = 0.01
"""Between two looks at the output of a command that has said more than is kept."""
ROUNDS = 10


@dataclass(kw_only=True)
class Execution:
    """One run of a container.

    user:        (user, group) of its processes;  groups: all their groups, sorted
    environment: what its first process was given
    workdir:     where its processes start
    group:       its control groups; none where there are none
    """

    spawner: Spawner
    container: Container
    process: WatchedProcess
    user: tuple[int, int] = (0, 0)
    groups: Sequence[int] = (0,)
    environment: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    group: Group = field(default_factory=Group)

    def __post_init__(self) -> None:
        found = mount_namespace(self.process.pid)
        self.mounts = found if found != mount_namespace(os.getpid()) else ""
        """Its own mounts, which its processes share wherever else they may have gone; "" for none of its own."""

    def enter_flags(self) -> list[str]:
        """The flags of `nsexec` that make a further process be as the container's own: namespaces, control groups,
        user, capabilities, working directory."""
        pid = str(self.process.pid)
        flags = [word for kind in ("net", "uts", "ipc", "pid", "mnt") for word in (f"--{kind}", pid)]
        flags += ["--own-group", "--chdir", self.workdir]
        if self.group.directories:
            flags += ["--cgroup", ":".join(self.group.entrances)]
        uid, gid = self.user
        flags += ["--setgid", str(gid), "--groups", ",".join(map(str, self.groups))]
        mask = capability_mask(self.container)
        flags += ["--capabilities", str(mask)] if mask is not None and not uid else []
        return [*flags, "--setuid", str(uid)] if uid else flags

    def open_terminal(self) -> tuple[int, int]:
        """(near, far) of a new terminal among the container's own, for its user."""
        return open_inside(self.process.pid, self.user[0])

    async def enter(
        self, command: Sequence[str], *, stdin: int | None = None, stdout: int | None = None, stderr: int | None = None
    ) -> WatchedProcess:
        """Start one more process in the container. OSError if it cannot be started."""
        return await self.spawner.spawn(
            Spawn(
                argv=nsexec_command(*self.enter_flags(), program=command),
                env=self.environment or {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
            )
        )

    async def execute(self, command: Sequence[str], timeout_seconds: float) -> tuple[int | None, bytes]:
        """Run a command in the container: (exit code, None for a timeout; output of both streams, bounded)."""
        known = {v.name: v.value for v in self.container.env or () if v.value_from is None}
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(write, True)
        try:
            try:
                child = await self.enter([expand(word, known) for word in command], stdout=write, stderr=write)
            finally:
                os.close(write)
            output = bytearray()
            loop = asyncio.get_running_loop()

            def on_output() -> None:
                try:
                    data = os.read(read, 1 << 16)
                except BlockingIOError:
                    return
                if not data:
                    loop.remove_reader(read)
                elif len(output) < MOST_OUTPUT_BYTES:
                    output.extend(data)
                else:  # it says too much, and shall not keep this loop busy with it
                    loop.remove_reader(read)
                    pauses.append(loop.call_later(PAUSE_SECONDS, loop.add_reader, read, on_output))
                    del pauses[:-1]

            pauses: list[asyncio.TimerHandle] = []
            loop.add_reader(read, on_output)
            code: int | None = None
            try:
                async with asyncio.timeout(timeout_seconds):
                    code = await child.wait()
                on_output()
            except TimeoutError:
                pass
            finally:
                for pause in pauses:
                    pause.cancel()
                loop.remove_reader(read)
                if not child.done():  # too late, or nobody waits for it any more: not only the door to the container
                    child.signal(END)
            if code is not None and code < 0:
                code = 128 - code
            if code == FAILED and output.startswith(b"nsexec: "):  # it did not get to the command
                raise OSError(go_words(f"exec: {output[8:].decode(errors='replace').strip()}", command))
            return code, bytes(output)
        finally:
            os.close(read)

    async def stop(self, number: int, grace_seconds: float, tell: Callable[[str], None]) -> None:
        """End its first process: by a signal, and by SIGKILL when the grace is over.

        tell: told in words, now and then, that it does not end even so
        """
        self.process.signal(number)
        try:
            async with asyncio.timeout(grace_seconds):
                await self.process.wait()
        except TimeoutError:
            while True:
                try:
                    await end_for_good(self.process, f"container {self.container.name}")
                    return
                except StillRunning as error:  # nothing else can be done, and its Pod is not gone before it is
                    tell(str(error))

    def out_of_memory(self) -> bool:
        """Whether the kernel has ended processes of it because its memory ran out."""
        return self.group.out_of_memory_kills() > 0

    def end_rest(self) -> None:
        """End what the container leaves behind that shares its processes with others: whoever is in its control group,
        and where there is none, sees its mounts or is in its session."""
        for _ in range(ROUNDS):
            left = [pid for pid in self.group.processes() if pid]
            if not left and not self.group.directories:
                left = processes_that_see(self.mounts) if self.mounts else session_processes(self.process.pid)
            if not left:
                return
            for pid in left:
                with contextlib.suppress(OSError):  # what has joined is ended by its own parent's hand, which reaps it
                    os.kill(pid, END if is_door(pid) else signal.SIGKILL)


def read_environment(pid: int) -> dict[str, str]:
    """The environment that a process was started with. OSError."""
    text = Path("/proc", str(pid), "environ").read_text(errors="replace")
    return dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair)


def go_words(words: str, argv: Sequence[str], workdir: str = "/") -> str:
    """A failed start in the words that users know."""
    step, _, reason = words.partition(": ")
    if step == "working directory":
        return f'chdir to cwd ("{workdir}") set in config.json failed: {reason.lower()}'
    if step == "exec" and reason.startswith("No such file"):
        where = "stat" if "/" in argv[0] else "exec"
        if where == "stat":
            return f'exec: "{argv[0]}": stat {argv[0]}: no such file or directory'
        return f'exec: "{argv[0]}": executable file not found in $PATH'
    if step == "exec":
        return f'exec: "{argv[0]}": {reason.lower()}'
    return words
