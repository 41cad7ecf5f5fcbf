"""What a kind makes of an object: its defaults, its refusals, its row."""

from __future__ import annotations

import copy

from kubesvc.api.ages import render_since
from kubesvc.api.kind import Cell, Kind, Since, Situation
from kubesvc.api.meta import Object, typed

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def defaulted(kind: Kind, obj: Object) -> Object:
    """The object after defaulting, with a name if it had none."""
    found = {"metadata": {"name": "x", "namespace": "ns"}, **copy.deepcopy(obj)}
    kind.default(found)
    return found


def created(kind: Kind, obj: Object) -> Object:
    found = defaulted(kind, obj)
    kind.prepare_create(found)
    return found


def refusals(kind: Kind, obj: Object) -> list[str]:
    """Texts of the errors of a new object."""
    return [str(e) for e in kind.validate(created(kind, obj), Situation())]


def update_refusals(kind: Kind, new: Object, old: Object) -> list[str]:
    return [str(e) for e in kind.validate_update(created(kind, new), created(kind, old), Situation())]


def status_refusals(kind: Kind, new: Object, old: Object) -> list[str]:
    return [str(e) for e in kind.validate_status(defaulted(kind, new), defaulted(kind, old), Situation())]


def row(kind: Kind, obj: Object) -> dict[str, Cell]:
    """The cells by column, ages as they are on the first of January 2026."""
    found = typed(defaulted(kind, obj), kind.type)
    cells = {c.name: c.cell(found) for c in kind.columns}
    return {name: render_since(c, NOW) if isinstance(c, Since) else c for name, c in cells.items()}


def starts(found: list[str], wanted: list[str]) -> bool:
    """Whether each text found starts as wanted, in the same order."""
    return len(found) == len(wanted) and all(f.startswith(w) for f, w in zip(found, wanted, strict=True))
