"""The two set-ups of the recorded servers, each started with one command by flags with upstream's names, answer as they
did: over TLS, with the store, the controllers and the listeners that users get.

`tests/apiserver/test_golden.py` replays every topic against the API server alone; here are those that depend on flags.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.apiserver.test_golden import GOLDEN, KNOWN, TOKENS
from tests.e2e.harness import running_instance

pytestmark = [pytest.mark.golden, pytest.mark.e2e]

COMMON = (
    "--nodes", "0", "--store", "memory", "--service-node-port-range", "30000-32767", "--service-warnings", "false",
    "--controllers", "*,-scheduler,-node-lifecycle-controller,-pod-garbage-collector-controller",
)  # fmt: skip
SINGLE = (
    "--service-cluster-ip-range", "10.96.0.0/16", "--authorization-mode", "AlwaysAllow",
    "--disable-admission-plugins", "ServiceAccount",
)  # fmt: skip
DUAL = ("--service-cluster-ip-range", "10.96.0.0/16,fd00:10:96::/112", "--authorization-mode", "RBAC")
SETUPS = (("single", SINGLE, ("endpoints", "services")), ("dual", DUAL, ("dualstack", "auth")))


@pytest.mark.parametrize(("name", "flags", "topics"), SETUPS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_setup_by_flags_alone(name: str, flags: tuple[str, ...], topics: tuple[str, ...], tmp_path: Path) -> None:
    recordings = [GOLDEN / f"{topic}.jsonl" for topic in topics]
    if not all(r.exists() for r in recordings):
        pytest.skip(f"no recordings at {GOLDEN}")
    kubectl = shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if kubectl is None:
        pytest.skip("no kubectl found")
    tokens = tmp_path / "tokens.csv"
    tokens.write_text(TOKENS)
    with running_instance(*COMMON, *flags, "--token-auth-file", str(tokens)) as instance:
        url = f"https://{instance.record.loopback}:{instance.record.port}"
        for recording in recordings:
            output = asyncio.run(replayed(url, recording, kubectl))
            failed = {m[1] for m in re.finditer(r"^FAIL (\S+?):? ", output, re.M)} - KNOWN.get(recording.stem, set())
            assert re.search(r"^all: \d+/[1-9]\d* steps pass", output, re.M), output
            assert not failed, output


async def replayed(url: str, recording: Path, kubectl: str) -> str:
    """What the replayer prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(GOLDEN / "replay.py"), "--server", url, "--token", "admintoken", "--kubectl", kubectl,
        str(recording), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return output.decode()
