"""The public load program, beside what Kubernetes 1.36 gave: `python -m bench load [--full]`.

The program, `shared/bench/bench_api.py` beside the checkout, knows only the public API. Here it is run against
`kubesvc up --nodes 0`, and each figure it prints is set beside the one that its README gives for kube-apiserver, etcd
and the endpoint controllers on two shared cores.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .bench_start import memory_mib
from .figures import head, say

PROGRAM = Path(__file__).resolve().parents[2] / "shared" / "bench" / "bench_api.py"
TOKEN = "bench-token"
PATIENCE_SECONDS = 240.0


class Upstream(NamedTuple):
    """One figure of the program: how to find it in what it prints, and what 1.36 gave (the middle of its range)."""

    what: str
    pattern: str
    unit: str
    gave: float


UPSTREAM = (
    Upstream("create services", r"create services: (\d+)", "/s", 142),
    Upstream("create pods, 16 clients", r"create pods: (\d+)", "/s", 800),
    Upstream("patch pod status, 16 clients", r"patch pod status: (\d+)", "/s", 544),
    Upstream("patch pod status, 99 of 100", r"patch pod status: .*p99 ([\d.]+)", "ms", 75),
    Upstream("all endpoints in slices after the last patch", r"after last patch: (\d+)", "ms", 253),
    Upstream("readiness flip to slice event, median", r"slice watch event: p50 ([\d.]+)", "ms", 7.3),
    Upstream("readiness flip to slice event, 99 of 100", r"slice watch event: .*p99 ([\d.]+)", "ms", 17),
    Upstream("watch bytes per flip, slices", r"flip: slices (\d+)", "B", 3533),
    Upstream("watch bytes per flip, Endpoints", r"endpoints (\d+) B", "B", 2344),
    Upstream("GET service", r"GET service: (\d+)", "/s", 3573),
    Upstream("LIST 1,000 pods", r"LIST \d+ pods: (\d+)", "ms", 65),
    Upstream("events to 50 watchers", r"fan-out 50 watchers: (\d+)", "events/s", 21339),
    Upstream("delete pods", r"delete pods: (\d+)", "/s", 366),
)


@contextlib.contextmanager
def token_file() -> Iterator[Path]:
    """A file that makes the bearer of TOKEN an admin."""
    with tempfile.NamedTemporaryFile("w", prefix="kubesvc-bench-", suffix=".csv", dir="/tmp") as file:
        file.write(f'{TOKEN},admin,admin,"system:masters"\n')
        file.flush()
        yield Path(file.name)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--full", action="store_true", help="three runs, on a store on disk too")
    args = parser.parse_args(argv)
    if not PROGRAM.exists():
        head(f"   not run: the load program is not at {PROGRAM}")
        return
    for store in ("memory", "disk", "disk")[: 3 if args.full else 1]:
        head(f"   store: {store}")
        run("--store", "memory") if store == "memory" else run()


def run(*options: str) -> None:
    from tests.e2e.harness import running_instance

    with (
        token_file() as tokens,
        running_instance("--nodes", "0", "--token-auth-file", str(tokens), *options) as instance,
    ):
        url = f"https://{instance.record.loopback}:{instance.record.port}"
        words = ("--server", url, "--token", TOKEN, "--services", "100", "--pods", "10", "--flips", "100")
        command = [sys.executable, str(PROGRAM), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        if done.returncode:
            raise SystemExit(f"the load program ended with {done.returncode}: {done.stdout}{done.stderr[-2000:]}")
        assert instance.process is not None
        memory = memory_mib(instance.process.pid)
    for figure in UPSTREAM:
        found = re.search(figure.pattern, done.stdout)
        if found is None:
            raise SystemExit(f"the load program did not print {figure.what!r}:\n{done.stdout}")
        say(figure.what, float(found[1]), figure.unit, goal=figure.gave, against="1.36")
    say("control process after all that", memory, "MiB", note="1.36: 375 to 405 MiB idle")


if __name__ == "__main__":
    main()
