"""A running container of a runtime: its first process, seen by its pidfd, and its end, as the runtime tells it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubesvc.kernel.cgroups import CONTROLLERS, Group, mounted, own_groups
from kubesvc.kernel.process import WatchedProcess, start_time

from ..environment import expand
from ..execution import Execution, read_environment
from . import wire
from .client import CriClient, RuntimeProblem

LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 10.0
"""How long a runtime may be away before the end of a process is believed without it."""
SLACK_SECONDS = 10.0
OUT_OF_MEMORY, KILLED = "OOMKilled", 137
MEMORY_SECONDS = 2.0
"""How long after a container was killed its runtime may learn that memory had run out: containerd is told of both by
different ways."""


class CriProcess(WatchedProcess):
    """The first process of a container. One that has ended, or that is not seen here, has the number 0: then only the
    runtime knows of it."""

    def __init__(self, client: CriClient, id: str, pid: int, pidfd: int) -> None:
        self.client = client
        self.id = id
        self.reason = ""
        """Why it ended, in the runtime's word: Completed, Error, OOMKilled."""
        self.stopping = False
        """Whether its end was asked for, so that nothing is left to be explained."""
        self.asking = asyncio.Lock()
        self.told = False
        self.code: int | None = None
        if pidfd >= 0:
            super().__init__(pid, pidfd, None)
            return
        self.pid, self.pidfd, self.child, self.looks, self.start_time = 0, -1, None, 0, 0
        self.ended = asyncio.get_running_loop().create_future()
        self.ended.set_result(None)

    @classmethod
    def of(cls, client: CriClient, id: str, pid: int, started: int = 0) -> CriProcess:
        """The process of this number, and of this start time unless that is 0; else one that has ended."""
        try:
            pidfd = os.pidfd_open(pid) if pid else -1
        except OSError:
            pidfd = -1
        if pidfd >= 0 and started and start_time(pid) != started:
            os.close(pidfd)
            pidfd = -1
        return cls(client, id, pid, pidfd)

    async def wait(self) -> int | None:
        """Its exit code; None if the runtime no longer knows the container."""
        code = await super().wait()
        async with self.asking:
            if not self.told:
                self.code = await self.ask_end(code)
                self.told = True
        return self.code

    async def ask_end(self, code: int | None) -> int | None:
        """Ask for the end until the runtime knows; `code`: what the kernel said of it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_SECONDS
        explained = 0.0
        found: int | None = None
        delay = LOOK_SECONDS
        while True:
            try:
                answer = await self.client.call("ContainerStatus", {"container_id": self.id}, PATIENCE_SECONDS)
                status = answer["status"] or {}
                if status.get("state") == wire.EXITED:
                    self.reason = status["reason"]
                    explained = explained or loop.time() + MEMORY_SECONDS
                    found = status["exit_code"]
                    if found != KILLED or self.stopping or self.reason == OUT_OF_MEMORY or loop.time() > explained:
                        return found
                until = loop.time() + PATIENCE_SECONDS
            except RuntimeProblem as error:
                if found is not None:
                    return found
                if error.code == "NOT_FOUND":
                    return None
                if code is not None and loop.time() > until:
                    return 128 - code if code < 0 else code
            await asyncio.sleep(delay)
            delay = min(0.2, delay * 1.5)


@dataclass(kw_only=True)
class CriExecution(Execution):
    """One run of a container that a runtime has started; `id` is the runtime's for it."""

    client: CriClient
    id: str
    own_signal: bool = False
    """Whether its Pod names another stop signal than the image, of which the runtime knows nothing."""

    async def execute(self, command: Sequence[str], timeout_seconds: float) -> tuple[int | None, bytes]:
        known = {v.name: v.value for v in self.container.env or () if v.value_from is None}
        seconds = max(1, math.ceil(timeout_seconds))
        request = {"container_id": self.id, "cmd": [expand(word, known) for word in command], "timeout": seconds}
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await self.client.call("ExecSync", request, seconds + SLACK_SECONDS)
        except TimeoutError:
            return None, b""
        except RuntimeProblem as error:
            if error.code == "DEADLINE_EXCEEDED" or "context deadline exceeded" in str(error):
                return None, b""
            raise
        return answer["exit_code"], answer["stdout"] + answer["stderr"]

    async def stop(self, number: int, grace_seconds: float, tell: Callable[[str], None]) -> None:
        if isinstance(self.process, CriProcess):
            self.process.stopping = True
        if self.own_signal:
            await super().stop(number, grace_seconds, tell)
            return
        request = {"container_id": self.id, "timeout": max(1, math.ceil(grace_seconds))}
        asked = asyncio.create_task(self.client.call("StopContainer", request, grace_seconds + 120.0))
        ended = asyncio.create_task(self.process.wait())
        try:
            await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done() and asked.exception() is not None:  # the runtime is away
                await super().stop(number, grace_seconds, tell)
            await ended
        finally:
            for task in (asked, ended):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, RuntimeProblem):
                await asked

    def out_of_memory(self) -> bool:
        return isinstance(self.process, CriProcess) and self.process.reason == OUT_OF_MEMORY

    def end_rest(self) -> None:
        """The runtime ends a container as a whole."""

    def learn(self) -> None:
        """Take over from the process itself who it is: further processes are to be like it."""
        if not self.process.pid:
            return
        place = Path("/proc", str(self.process.pid))
        with contextlib.suppress(OSError, ValueError):
            lines = (place / "status").read_text().splitlines()
            held = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
            self.user = (int(held["Uid"][1]), int(held["Gid"][1]))
            self.groups = sorted({self.user[1], *map(int, held["Groups"])})
        with contextlib.suppress(OSError):
            self.environment = read_environment(self.process.pid)
        with contextlib.suppress(OSError):
            self.workdir = os.readlink(place / "cwd")
        self.group = group_of(self.process.pid)

    def follow(self, told: Any) -> None:
        """Take over who it is from its OCI specification, where the runtime tells that (else None): its process may not
        have got to its program yet."""
        try:
            process = told["process"]
            user = process["user"]
            environment = dict(pair.split("=", 1) for pair in process["env"])
            who = (int(user["uid"]), int(user["gid"]))
            groups = sorted({who[1], *map(int, user.get("additionalGids") or ())})
            workdir = str(process["cwd"])
        except (TypeError, KeyError, ValueError):
            return
        self.environment, self.user, self.groups, self.workdir = environment, who, groups, workdir


def group_of(pid: int) -> Group:
    """The control groups that a process is in, in the hierarchies whose controllers we know."""
    try:
        text = Path("/proc", str(pid), "cgroup").read_text()
        mounts = mounted(Path("/proc/self/mountinfo").read_text().splitlines())
    except OSError:
        return Group()
    paths, found = own_groups(text), []
    for version, root, point, options in mounts:
        names = [""] if version == 2 else [name for name in CONTROLLERS if name in options]
        path = paths.get(names[0], "") if names else ""
        if path in ("", "/") or not path.startswith(root.rstrip("/")):
            continue
        directory = point / path.removeprefix(root).lstrip("/")
        if directory.is_dir():
            found.append(directory)
    return Group(tuple(found))


__all__ = ["CriExecution", "CriProcess", "group_of"]
