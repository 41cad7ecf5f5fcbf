"""Tables and discovery as a real API server gave them, against the columns and resources of the kinds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kubesvc.api import kinds
from kubesvc.api.ages import render_since
from kubesvc.api.kind import Kind, Since
from kubesvc.api.meta import Object, typed
from tests.api import recordings

FILES = ("generic", "services", "endpoints", "kubectl", "dualstack")


class Row:
    """One recorded row with the object it was printed from."""

    def __init__(self, kind: Kind, case: str, table: Object, row: Object, obj: Object) -> None:
        self.name = f"{case}-{kind.plural}-{row['cells'][0]}"
        self.kind = kind
        self.columns = table["columnDefinitions"]
        self.row = row
        self.obj = obj


def rows(file: str) -> Iterator[Row]:
    """Rows whose objects were read or written in the same case before."""
    stored: dict[str, Object] = {}
    case = ""
    for step in recordings.steps(file):
        if step["case"] != case:
            case, stored = step["case"], {}
        found = recordings.target_of(step.get("request", {}).get("path", ""))
        answer = step.get("response", {}).get("body")
        if found is None or not isinstance(answer, dict):
            continue
        kind = found[0]
        if answer.get("kind") == kind.name:
            stored[f"{kind.plural}/{answer['metadata']['name']}"] = answer
        if answer.get("kind") != "Table" or step.get("compare") == "subset":
            continue
        for row in answer.get("rows") or ():
            name = (row.get("object") or {}).get("metadata", {}).get("name") or row["cells"][0]
            if (obj := stored.get(f"{kind.plural}/{name}")) is not None and "<port:" not in str(obj):
                yield Row(kind, case, answer, row, obj)


ROWS = [r for f in FILES for r in rows(f)]
NOW = 1_800_000_000.0


def same(mine: Any, theirs: Any) -> bool:
    """Whether the cells agree; `<age>` stands for any age."""
    if not isinstance(theirs, str) or "<age>" not in theirs:
        return bool(mine == theirs)
    before, after = theirs.split("<age>")
    return (
        isinstance(mine, str) and mine.startswith(before) and mine.endswith(after) and len(mine) > len(before + after)
    )


@pytest.mark.golden
@pytest.mark.skipif(not ROWS, reason=recordings.ABSENT)
@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_recorded_row(row: Row) -> None:
    """KCTL-2, KCTL-6 and the columns of the kind."""
    mine = [(c.name, c.type, c.format, int(c.wide)) for c in row.kind.columns]
    assert mine == [(c["name"], c["type"], c["format"], c["priority"]) for c in row.columns]
    obj = typed(
        row.obj | {"metadata": row.obj["metadata"] | {"creationTimestamp": "2026-01-01T00:00:00Z"}}, row.kind.type
    )
    cells = [column.cell(obj) for column in row.kind.columns]
    shown = [render_since(c, NOW) if isinstance(c, Since) else c for c in cells]
    assert [(a, b) for a, b in zip(shown, row.row["cells"], strict=True) if not same(a, b)] == []
    assert row.kind.row_conditions(obj) == (row.row.get("conditions") or [])


def lists() -> Iterator[tuple[str, Object]]:
    for step in recordings.steps("discovery"):
        body = step.get("response", {}).get("body")
        if isinstance(body, dict) and body.get("kind") == "APIResourceList":
            for resource in body["resources"]:
                if body["groupVersion"].split("/")[0] not in ("authorization.k8s.io", "authentication.k8s.io"):
                    yield body["groupVersion"], resource


RESOURCES = list({(g, r["name"]): (g, r) for g, r in lists()}.values())


@pytest.mark.golden
@pytest.mark.skipif(not RESOURCES, reason=recordings.ABSENT)
@pytest.mark.parametrize("resource", RESOURCES, ids=lambda r: f"{r[0]}/{r[1]['name']}")
def test_recorded_resource(resource: tuple[str, Object]) -> None:
    """DISC-1, DISC-4: names, verbs, short names, categories and subresources."""
    group_version, wanted = resource
    group, _, version = group_version.rpartition("/")
    plural, _, below = wanted["name"].partition("/")
    kind = kinds.by_resource(group, version, plural)
    assert kind is not None
    assert kind.namespaced == wanted["namespaced"]
    if not below:
        assert (kind.name, kind.singular_name) == (wanted["kind"], wanted["singularName"])
        assert sorted(kind.verbs) == wanted["verbs"]
        assert list(kind.short_names) == wanted.get("shortNames", [])
        assert list(kind.categories) == wanted.get("categories", [])
        return
    found = {s.name: s for s in kind.subresources}[below]
    assert (found.kind or kind.name, found.group, found.version) == (
        wanted["kind"],
        wanted.get("group", ""),
        wanted.get("version", ""),
    )
    assert sorted(found.verbs) == wanted["verbs"]
