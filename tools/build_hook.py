"""Hatchling's build hook: make the schema table before a wheel or an editable install is put together."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SchemaTableHook(BuildHookInterface):  # type: ignore[type-arg, misc, unused-ignore]
    """Writes `src/kubesvc/api/schemas.bin` from the kubernetes-validate of the build environment."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        output = root / "src" / "kubesvc" / "api" / "schemas.bin"
        spec = importlib.util.spec_from_file_location("make_schemas", root / "tools" / "make_schemas.py")
        assert spec is not None and spec.loader is not None  # the path is that of a Python file
        make_schemas = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(make_schemas)
        make_schemas.write(output)
