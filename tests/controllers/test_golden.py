"""What a real cluster's controllers made of services, pods and nodes, asked of ours: the recordings, replayed."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

from kubesvc.apiserver.__main__ import make_certificate
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.settings import ApiServerSettings
from kubesvc.client.http import HttpClient
from kubesvc.client.interface import Client
from kubesvc.clock import RealClock
from kubesvc.controllers import run_controllers
from kubesvc.store.memory import MemoryStore

from ..apiserver.test_golden import draw_apart

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden"
NAMES = ("*", "-scheduler", "-cluster-dns", "-node-ipam")
"""The recorded cluster ran no scheduler and no node controllers."""


async def replay(directory: Path, recording: str, only: str, *, dual: bool, over_http: bool) -> tuple[int, str]:
    """Run a server with controllers, replay one recording against it; exit status and output of the replayer."""
    ranges = ("10.96.0.0/16", "fd00:10:96::/112") if dual else ("10.96.0.0/16",)
    settings = ApiServerSettings(
        admin_token="admin", service_ranges=ranges, disabled_admission=frozenset(() if dual else ("ServiceAccount",))
    )
    store, clock, chance = MemoryStore(), RealClock(), random.Random(1)
    await store.start()
    server = ApiServer(store, settings, clock, chance)
    draw_apart(server)
    port = await server.listen_tls("127.0.0.1", 0, *make_certificate(directory, "127.0.0.1"))
    await server.start()
    client: Client = server.client
    http: HttpClient | None = None
    if over_http:
        await server.listen_unix(str(directory / "api.sock"))
        client = http = HttpClient.unix(directory / "api.sock")
    controllers = asyncio.create_task(run_controllers(client, NAMES, clock=clock, random=chance))
    try:
        arguments = ["--server", f"https://127.0.0.1:{port}", "--token", "admin", "--only", only]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(GOLDEN / "replay.py"),
            *arguments,
            str(GOLDEN / recording),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert not controllers.done(), controllers.result()
        return process.returncode or 0, out.decode()
    finally:
        controllers.cancel()
        await asyncio.wait([controllers])
        if http is not None:
            await http.close()
        await server.stop()
        await store.close()


REPLAYS = (
    ("controllers.jsonl", "", False, False),
    ("controllers.jsonl", "ready-flip|named-ports|terminating|mir-basic|preferclose", False, True),
    ("dualstack.jsonl", "dual-ctl", True, False),
)


@pytest.mark.golden
@pytest.mark.parametrize(("recording", "only", "dual", "over_http"), REPLAYS)
def test_recording(recording: str, only: str, dual: bool, over_http: bool, tmp_path: Path) -> None:
    if not (GOLDEN / recording).exists():
        pytest.skip(f"no recordings at {GOLDEN}")
    status, output = asyncio.run(replay(tmp_path, recording, only, dual=dual, over_http=over_http))
    assert status == 0, output
    assert "0/0 steps" not in output
