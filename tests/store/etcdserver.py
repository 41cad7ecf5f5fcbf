"""A real etcd on loopback for tests, with a directory of its own; skipped aloud where there is none."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest

from tests.freeports import free_port

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120.0


@cache
def binary() -> str:
    """The etcd to start: the one beside the checkout, else one that is installed, else ""."""
    beside = ROOT / ".peers" / "usr" / "bin" / "etcd"
    return str(beside) if beside.exists() else shutil.which("etcd") or ""


class EtcdServer:
    """One etcd process, which may be killed and started again over the same data."""

    def __init__(self, directory: Path, *options: str, tls: bool = False) -> None:
        if not binary():
            pytest.skip("no etcd: `python tools/bootstrap.py` fetches one beside the checkout")
        self.directory = directory
        self.port, self.peer_port = free_port(), free_port()
        self.options = options
        self.scheme = "https" if tls else "http"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, prefix: str = "") -> str:
        return f"etcd://{self.endpoint}/{prefix}"

    def start(self) -> EtcdServer:
        client, peer = f"{self.scheme}://{self.endpoint}", f"http://127.0.0.1:{self.peer_port}"
        log = (self.directory / "etcd.log").open("ab")
        self.process = subprocess.Popen(
            [
                binary(), "--data-dir", str(self.directory / "data"), "--name", "one",
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"one={peer}",
                "--log-outputs", "stderr", *self.options,
            ],
            stdout=log,
            stderr=log,
            env=os.environ | {"ETCD_UNSUPPORTED_ARCH": "arm64"} if os.uname().machine == "aarch64" else None,
        )  # fmt: skip
        log.close()
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                assert self.process.poll() is None, (self.directory / "etcd.log").read_text()[-2000:]
                assert time.monotonic() < end, "etcd does not listen"
                time.sleep(0.02)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stand_still(self) -> None:
        """Stop every thread, until SIGCONT. The signal alone wakes one, and while that waits for a processor the others
        may still answer."""
        self.signal(signal.SIGSTOP)
        assert self.process is not None
        threads = Path(f"/proc/{self.process.pid}/task")
        end = time.monotonic() + PATIENCE_SECONDS
        while any(state_of(t) not in "TX" for t in threads.iterdir()):
            assert time.monotonic() < end, "etcd does not stand still"
            time.sleep(0.005)

    def kill(self) -> None:
        """As a crash does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


def state_of(thread: Path) -> str:
    """The kernel's letter for what a thread does; X if it is gone."""
    try:
        return (thread / "stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return "X"


@cache
def shared_etcd() -> EtcdServer:
    """One etcd for all tests of this process; each test keeps to a prefix of its own."""
    directory = tempfile.mkdtemp(prefix="kubesvc-etcd-")
    server = EtcdServer(Path(directory)).start()

    def end() -> None:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)

    atexit.register(end)
    return server
