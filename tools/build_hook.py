"""Hatchling's build hook: make the schema table before a wheel or an editable install is put together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SchemaTableHook(BuildHookInterface):  # type: ignore[type-arg, misc, unused-ignore]
    """Writes `src/kubesvc/api/schemas.bin` from the kubernetes-validate of the build environment."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        sys.path.insert(0, str(root / "tools"))
        try:
            import make_schemas
        finally:
            sys.path.remove(str(root / "tools"))
        make_schemas.write(root / "src" / "kubesvc" / "api" / "schemas.bin")
