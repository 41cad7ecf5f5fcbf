"""Is the server alive, ready, and which version does it speak for (HEALTH-1, HEALTH-2)."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

from kubesvc.api.meta import Object

MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
VERSION: Object = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.0+kubesvc",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "go1.25",
    "compiler": "gc",
    "platform": f"{platform.system().lower()}/{MACHINES.get(platform.machine(), platform.machine())}",
}

Check = Callable[[], bool]


class Health:
    """Named checks behind the three health paths. A check says whether all is well."""

    def __init__(self) -> None:
        self.live: dict[str, Check] = {"ping": lambda: True, "log": lambda: True}
        self.ready: dict[str, Check] = {}

    def follow_store(self, well: Check) -> None:
        """Have the checks that upstream names after its store, whatever the store is."""
        self.live["etcd"] = well
        self.ready["etcd-readiness"] = well

    def checks(self, path: str) -> dict[str, Check] | None:
        """The checks of `livez`, `readyz` or `healthz`, None for another word."""
        if path == "readyz":
            return {**self.live, **self.ready}
        return self.live if path in ("livez", "healthz") else None

    def report(self, path: str, name: str, excluded: Sequence[str], *, verbose: bool) -> tuple[int, str] | None:
        """HTTP status and text of a health request; `name` is one check's or "". None: no such check."""
        checks = self.checks(path)
        if checks is None:
            return None
        if name:
            if name not in checks:
                return None
            return (200, "ok") if checks[name]() else (500, f"internal server error: {name} failed: reason withheld\n")
        lines, failed = [], False
        for check, passes in checks.items():
            if check in excluded:
                lines.append(f"[+]{check} excluded: ok\n")
            elif passes():
                lines.append(f"[+]{check} ok\n")
            else:
                lines.append(f"[-]{check} failed: reason withheld\n")
                failed = True
        if failed:
            return 500, "".join(lines) + f"{path} check failed\n"
        return 200, "".join(lines) + f"{path} check passed\n" if verbose else "ok"
