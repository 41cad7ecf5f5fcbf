"""The program that stands in for images of web servers, where it is a client."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from kubesvc.node.images import STANDINS, stand_in


@pytest.fixture
def places() -> Iterator[dict[str, str]]:
    """Addresses by what happens there."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        silent = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        answering = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        closed = stack.enter_context(socket.socket())  # its port is nobody else's, and nobody listens there
        for bound in (silent, answering, closed):
            bound.bind(("127.0.0.1", 0))

        def answer() -> None:
            _, peer = answering.recvfrom(100)
            answering.sendto(b"me", peer)

        thread = threading.Thread(target=answer)
        thread.start()
        found = {"listening": listening, "silent": silent, "answering": answering, "closed": closed}
        addresses = {name: f"127.0.0.1:{s.getsockname()[1]}" for name, s in found.items()}
        yield {**addresses, "nowhere": "no-such-name.invalid:80"}
        silent.sendto(b"the end", answering.getsockname())
        thread.join()


@pytest.mark.parametrize(
    ("place", "options", "words"),
    [
        ("listening", [], ""),
        ("listening", ["--timeout=60s"], ""),
        ("closed", ["--timeout=60s"], "REFUSED"),
        ("nowhere", ["--timeout=60s"], "DNS: "),
        ("silent", ["--timeout=200ms", "--protocol=udp"], "TIMEOUT"),
        ("answering", ["--timeout", "60s", "--protocol", "udp"], ""),
        ("closed", ["--timeout=60s", "--protocol=udp"], "REFUSED"),
        ("listening", ["--protocol=sctp"], "OTHER: "),
    ],
)
def test_connect_tells_in_a_word(place: str, options: list[str], words: str, places: dict[str, str]) -> None:
    """CONF-2: exit code 0 when connected; else 1, and a text that begins with what went wrong."""
    program = [sys.executable, "-I", "-S", str(STANDINS / "web.py"), "connect"]
    done = subprocess.run(
        [*program, places[place], *options], capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1 if words else 0, "")
    assert done.stderr.startswith(words) and bool(done.stderr) == bool(words)


def test_agnhost_has_its_program() -> None:
    """CONF-2: what is executed in such a Pod, and in place of its entrypoint, is named by its path in the image."""
    image = stand_in("registry.k8s.io/e2e-test-images/agnhost:2.63")
    assert image is not None
    text, mode = image.files["/agnhost"]
    assert mode == 0o755 and text.startswith("#!/bin/sh\nexec ") and text.endswith(' "$@"\n')
