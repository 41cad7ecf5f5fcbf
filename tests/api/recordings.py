"""Where the recordings of a real API server are, and how to walk through them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from kubesvc.api import kinds
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
PRESENT = GOLDEN.is_dir()
ABSENT = f"no recordings at {GOLDEN}"


def steps(file: str) -> Iterator[Object]:
    """The steps of one file with the namespace's placeholder replaced by `ns`; nothing without recordings."""
    if not PRESENT:
        return
    for line in (GOLDEN / f"{file}.jsonl").read_text().splitlines():
        step = json.loads(line.replace("<ns>", "ns"))
        if "meta" not in step:
            yield step


def target_of(path: str) -> tuple[Kind, str, str] | None:
    """Kind, name and subresource of a path; None if it is of no known kind."""
    parts = [p for p in path.split("/") if p]
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return None
    group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
    if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        rest = rest[2:]
    if not rest:
        return None
    kind = kinds.by_resource(group, version, rest[0])
    name, subresource = [*rest[1:3], "", ""][:2]
    return None if kind is None else (kind, name, subresource)
