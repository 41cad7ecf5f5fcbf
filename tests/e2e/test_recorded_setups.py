"""The two set-ups of the recorded servers, each started with one command by flags with upstream's names, answer as they
did: over TLS, with the store, the controllers and the listeners that users get.

`tests/apiserver/test_golden.py` replays every topic against the API server alone; here are those that depend on flags.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import shutil
import sys
import time
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
PARTS = (0.0, 0.8, 0.6, 0.4, 0.2)
"""Of a second: how long the replayer takes to start is the machine's affair, and begun in one of them a case of less
than half a second is played within one."""
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
            failed = failures(output) - KNOWN.get(recording.stem, set())
            for case, part in itertools.product(sorted(failed & showing_seconds(recording)), PARTS):
                if case in failed:
                    again = asyncio.run(within_a_second(url, recording, kubectl, case, part))
                    failed -= {case} - failures(again)
            assert not failed, output


def failures(output: str) -> set[str]:
    """The cases of a replay that failed; an AssertionError if it did not come to its end."""
    assert re.search(r"^all: \d+/[1-9]\d* steps pass", output, re.M), output
    return {m[1] for m in re.finditer(r"^FAIL (\S+?):? ", output, re.M)}


def showing_seconds(recording: Path) -> set[str]:
    """The cases that compare managedFields: managers who applied in the same second stand there by name, others by
    time, so a case that happens to be played across the end of a second is answered otherwise, by upstream, too."""
    steps = map(json.loads, recording.read_text().splitlines())
    return {s["case"] for s in steps if s.get("managedFields")}


async def within_a_second(url: str, recording: Path, kubectl: str, case: str, part: float) -> str:
    """What the replayer prints when it plays one case, begun in this part of a second."""
    await asyncio.sleep((part - time.time()) % 1)
    return await replayed(url, recording, kubectl, "--only", f"^{re.escape(case)}$")


async def replayed(url: str, recording: Path, kubectl: str, *options: str) -> str:
    """What the replayer prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(GOLDEN / "replay.py"), "--server", url, "--token", "admintoken", "--kubectl", kubectl,
        *options, str(recording), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return output.decode()
