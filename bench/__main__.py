"""Run the benches one after the other: `python -m bench [--full] [NAME…]`. Prints figures; slowness is no failure.

Each bench is a process of its own, so that its memory is its own. `--full` takes more runs and larger sizes. Exits
with 1 only if a bench could not be carried out.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from .figures import head

ROOT = Path(__file__).resolve().parents[1]
BENCHES = (
    "start",
    "flip",
    "pods",
    "load",
    "api",
    "proxy",
    "proxy_kernel",
    "proxy_path",
    "proxy_sync",
    "dns",
    "store",
    "slices",
    "why",
)
PATIENCE_SECONDS = 600.0


def machine() -> str:
    """What the figures were measured on."""
    system, python = f"{platform.system()} {platform.release()}", platform.python_version()
    return f"{os.cpu_count()} cores, {system}, Python {python}, load {os.getloadavg()[0]:.1f}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, allow_abbrev=False)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="under two minutes in all (the default)")
    size.add_argument("--full", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)} (default: all)")
    args = parser.parse_args(argv)
    if unknown := [n for n in args.names if n not in BENCHES]:
        parser.error(f"unknown bench {unknown[0]!r}: one of {', '.join(BENCHES)}")
    head(machine())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    failed = []
    for name in args.names or BENCHES:
        head(f"-- {name}")
        began = time.monotonic()
        command = [sys.executable, "-m", f"bench.bench_{name}", *(["--full"] if args.full else [])]
        try:
            status = subprocess.run(
                command, cwd=ROOT, env=environment, timeout=PATIENCE_SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            status = -1
        if status:
            failed.append(name)
        head(f"   {name} took {time.monotonic() - began:.0f} s" + (f" and failed: {status}" if status else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
