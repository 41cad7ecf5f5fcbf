"""Check the import picture of ARCHITECTURE.md: which package may import which.

When it objects, either the import or the picture is wrong, and both may be changed: the picture is `ALLOWED` below.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "src" / "kubesvc"

PARTS = {"apiserver", "controllers", "node", "proxy", "dns"}
ALLOWED: dict[str, set[str]] = {
    "api": set(),
    "store": set(),
    "kernel": set(),
    "client": {"api"},
    "apiserver": {"api", "client", "store"},
    "controllers": {"api", "client"},
    "node": {"api", "client", "kernel"},
    "proxy": {"api", "client", "kernel"},
    "dns": {"api", "client"},
    "why": {"api", "client", *PARTS},
    "web": {"api", "client", "why"},
    "instance": {"api", "client", "kernel"},
    "lifetime": set(),
    "nodeprocess": {"api", "client", "instance", "kernel", "lifetime", "node", "proxy", "dns"},
    "app": {"lifetime", "api", "store", "kernel", "client", "instance", "why", "web", *PARTS},
    "cli": {"api", "store", "kernel", "client", "instance", "why", "web", "app", "lifetime", *PARTS},
    "clock": set(),
    "__main__": {"cli"},
    "testing": {"api", "client", "instance", "lifetime", "cli", "why"},
    "pytest_plugin": {"testing"},
    "__init__": {"cli", "testing"},
}
ANYONE = {"clock"}


def room_of(path: Path) -> str:
    """The package (or single module) directly below kubesvc that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> list[tuple[int, str]]:
    """(line, room) of every import of another part of kubesvc in the file."""
    package = ("kubesvc", *path.relative_to(ROOT).parts[:-1])
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, node.module) if node.module else base)
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "kubesvc" else [module]
        for name in names:
            parts = name.split(".")
            if (
                parts[0] == "kubesvc"
                and len(parts) > 1
                and (ROOT / parts[1]).exists() | (ROOT / f"{parts[1]}.py").exists()
            ):
                assert isinstance(node, ast.Import | ast.ImportFrom)
                found.append((node.lineno, parts[1]))
    return found


def main() -> int:
    objections = 0
    for path in sorted(ROOT.rglob("*.py")):
        room = room_of(path)
        if room not in ALLOWED:
            print(f"{path}: {room} is not in the picture; add it to ALLOWED in tools/imports.py and ARCHITECTURE.md")
            objections += 1
            continue
        for line, other in imported_rooms(path):
            if other not in ALLOWED[room] | ANYONE | {room}:
                print(f"{path}:{line}: {room} must not import {other}; it may import {sorted(ALLOWED[room] | ANYONE)}")
                objections += 1
    return 1 if objections else 0


if __name__ == "__main__":
    sys.exit(main())
