"""JSON merge patch (RFC 7386) on plain values (PATCH-6). Pure."""

from __future__ import annotations

from typing import Any


def merge(document: Any, patch: Any) -> Any:
    """The document with a merge patch applied: null deletes, objects merge, the rest replaces. Nothing is changed in
    place; untouched parts are shared."""
    if not isinstance(patch, dict):
        return patch
    out = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge(out.get(key), value)
    return out
