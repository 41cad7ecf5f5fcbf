"""The recordings of a real server, replayed over TLS with the replayer that comes with them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from kubesvc.api.kinds import KINDS
from kubesvc.apiserver import ApiServerSettings
from kubesvc.apiserver.__main__ import make_certificate
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.openapi import OpenApi
from kubesvc.apiserver.service_rest import ServiceHooks
from kubesvc.clock import RealClock
from kubesvc.controllers import ControllerSettings, run_controllers
from kubesvc.store.memory import MemoryStore

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
CONTROLLERS = (
    "endpoints-controller", "endpointslice-controller", "endpointslice-mirroring-controller", "namespace-controller",
    "serviceaccount-controller", "root-ca-certificate-publisher-controller", "deployment-controller",
    "replicaset-controller", "garbage-collector-controller",
)  # fmt: skip
"""Those that ran when the recordings were made."""

TOKENS = """admintoken,admin,admin-uid,"system:masters"
alicetoken,alice,alice-uid,"devs,testers"
bobtoken,bob,bob-uid
"""
SINGLE = ApiServerSettings(disabled_admission=frozenset({"ServiceAccount"}))
DUAL = ApiServerSettings(service_ranges=("10.96.0.0/16", "fd00:10:96::/112"), authorization="RBAC")
"""The two set-ups of the recorded servers."""


class OneSecond(RealClock):
    """The machine's clock, slowed until a whole replay fits into one second.

    Each recorded case took well under a second, and what is written to a whole second shows it: managers who applied
    within one are listed by name, others by time (APPLY). A replay that happens to cross from one second into the next
    would be answered otherwise, by upstream, too."""

    def __init__(self) -> None:
        self.second = float(int(super().now()))
        self.begun = super().monotonic()

    def now(self) -> float:
        return self.second + min((self.monotonic() - self.begun) / 1000, 0.999)


def draw_apart(server: ApiServer) -> None:
    """Let Services draw their addresses and ports from a chance of their own, the same ones each time. Names are drawn
    by controllers too, whenever they come to it; then one time in thousands a port that was just freed would be given
    again, which a recording takes for a wrong one."""
    for hooks in server.observers:
        assert isinstance(hooks, ServiceHooks)
        hooks.random = random.Random(2)


HASHES = re.compile(r"\?hash=[0-9A-F]{128}")
KNOWN = {"discovery": {"disc-openapi"}, "auth": {"auth-discovery-for-all"}}
"""The only cases that differ, by file, and the reason is one: the recorded index of the OpenAPI documents names each by
the SHA-512 of its bytes, and documents with descriptions of our own cannot have the hashes of upstream's. That they
differ in nothing else is shown beside this."""
NOT_SERVED = {"apiregistration.k8s.io", "resource.k8s.io"}
"""Groups of the recorded server that have nothing to do with Services."""


@pytest.mark.golden
def test_the_index_of_documents_differs_from_the_recorded_one_in_hashes_alone() -> None:
    recording = GOLDEN / "discovery.jsonl"
    if not recording.exists():
        pytest.skip(f"no recordings at {GOLDEN}")
    steps = map(json.loads, recording.read_text().splitlines())
    text = next(s["response"]["text"] for s in steps if s.get("case") == "disc-openapi")

    def masked(index: str | bytes) -> dict[str, str]:
        return {k: HASHES.sub("?hash=", v["serverRelativeURL"]) for k, v in json.loads(index)["paths"].items()}

    recorded = {k: v for k, v in masked(text).items() if not NOT_SERVED & set(k.split("/"))}
    assert masked(OpenApi(KINDS).index().body) == recorded


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize("topic", ["discovery", "services", "endpoints", "generic", "kubectl", "dualstack", "auth"])
def test_recording(topic: str) -> None:
    recording = GOLDEN / f"{topic}.jsonl"
    if not recording.exists():
        pytest.skip(f"no recordings at {GOLDEN}")
    kubectl = shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if topic in ("kubectl", "auth") and kubectl is None:
        pytest.skip("no kubectl found")
    code, output = asyncio.run(replay(recording, kubectl or "kubectl"))
    failed = {m[1] for m in re.finditer(r"^FAIL (\S+?):? ", output, re.M)} - KNOWN.get(topic, set())
    assert re.search(r"^all: \d+/[1-9]\d* steps pass", output, re.M), output
    assert not failed, output
    assert code in (0, 1)


async def replay(recording: Path, kubectl: str) -> tuple[int, str]:
    """Exit status and output of the replayer against a fresh server with the recorded set-up."""
    store = MemoryStore()
    await store.start()
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as directory:
        tokens = Path(directory) / "tokens.csv"
        tokens.write_text(TOKENS)
        settings = DUAL if recording.stem in ("dualstack", "auth") else SINGLE
        clock = OneSecond()
        server = ApiServer(store, replace(settings, token_file=str(tokens)), clock, chance)
        draw_apart(server)
        certificate, key = make_certificate(Path(directory), "127.0.0.1")
        port = await server.listen_tls("127.0.0.1", 0, certificate, key)
        await server.start()
        ready = asyncio.Event()
        controllers = asyncio.create_task(
            run_controllers(
                server.client,
                CONTROLLERS,
                clock=clock,
                random=chance,
                settings=ControllerSettings(root_ca="certificate"),
                on_ready=ready.set,
            )
        )
        compactions: set[asyncio.Task[None]] = set()
        done = Path(directory) / "compacted"

        async def compact() -> None:
            await server.compact()
            done.touch()

        asyncio.get_running_loop().add_signal_handler(
            signal.SIGUSR1, lambda: compactions.add(asyncio.ensure_future(compact()))
        )
        compact_and_wait = f"kill -USR1 {os.getpid()}; until rm {done} 2>/dev/null; do sleep 0.02; done"
        try:
            await asyncio.wait_for(ready.wait(), 60)
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(GOLDEN / "replay.py"), "--server", f"https://127.0.0.1:{port}", "--token",
                "admintoken", "--kubectl", kubectl, "--compact", compact_and_wait, str(recording),
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            output, _ = await process.communicate()
            return process.returncode or 0, output.decode()
        finally:
            controllers.cancel()
            await asyncio.gather(controllers, return_exceptions=True)
            await server.stop(0.2)
            await store.close()
