"""The streams of containers that a runtime keeps: it writes their logs, here they are followed and rotated."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from kubesvc.api.container import Container
from kubesvc.clock import Clock, Random

from ..logs import LogFile
from ..output import ContainerOutput
from ..settings import NodeSettings
from .attach import Connect, CriAttachment
from .client import CriClient, RuntimeProblem

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1


class Growth(asyncio.Event):
    """Stands for the growth of a file that another process writes: whoever waits for it looks again now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.over = False

    async def wait(self) -> bool:  # type: ignore[override]
        if not self.over:
            await asyncio.sleep(LOOK_SECONDS)
        return True


class FollowedLog(LogFile):
    """A log that the runtime writes."""

    def __init__(self, path: Path, clock: Clock, file_bytes: int, files: int) -> None:
        self.path = path
        self.clock = clock
        self.file_bytes = file_bytes
        self.files = files
        self.fd = 0
        """Negative once the run is over, as that of a log we write."""
        self.growth = self.grown = Growth()

    def write(self, stream: str, lines: Iterable[tuple[bytes, bool]]) -> None:
        raise AssertionError("the runtime writes this log")

    def too_long(self) -> bool:
        return self.fd >= 0 and self.path.exists() and self.path.stat().st_size > self.file_bytes

    def close(self) -> None:
        self.fd = -1
        self.growth.over = True


class RuntimeOutput(ContainerOutput):
    """The streams of one container's runs. `id` is the runtime's for the run that goes on."""

    def __init__(
        self,
        directory: Path,
        container: Container,
        clock: Clock,
        settings: NodeSettings,
        client: CriClient,
        connect: Connect,
        random: Random,
    ) -> None:
        super().__init__(directory, container, clock, settings)
        self.client = client
        self.connect = connect
        self.random = random
        self.id = ""

    async def attach(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, stdin: bool) -> None:
        attachment = CriAttachment(
            self.client, self.id, self.connect, self.random, container=self.container, stdin=stdin
        )
        await attachment.run(reader, writer)

    def open(self, attempt: int, *, running: bool = False) -> None:
        self.attempt = attempt
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_file = FollowedLog(self.log_path, self.clock, self.settings.log_file_bytes, self.settings.log_files)

    def open_input(self) -> int | None:
        return None

    async def rotate(self) -> None:
        """Put the log aside if it has grown too long, and have the runtime begin another."""
        held = self.log_file
        if not isinstance(held, FollowedLog) or not self.id or not held.too_long():
            return
        held.shift()
        try:
            await self.client.call("ReopenContainerLog", {"container_id": self.id})
        except RuntimeProblem as error:
            log.info("log of container %s not reopened: %s", self.id, error)
            if not held.path.exists():  # it goes on writing into the old one
                os.replace(held.path.with_suffix(".log.1"), held.path)
