"""Renew requirements/dev.lock: every package the make targets use, pinned with hashes, naming no host."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = list(project["project"]["dependencies"])
    for extra in ("fast", "kubectl", "nginx", "etcd", "cri", "zstd"):
        wanted += project["project"]["optional-dependencies"][extra]
    wanted += project["dependency-groups"]["dev"]
    with tempfile.NamedTemporaryFile("w", suffix=".in") as source:
        source.write("\n".join(wanted) + "\n")
        source.flush()
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--generate-hashes", "--universal"]
        command += ["--python-version", "3.11", "--no-annotate", "--no-header", "--no-emit-index-url"]
        command += ["--no-emit-find-links", "-o", str(ROOT / "requirements" / "dev.lock"), source.name]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
