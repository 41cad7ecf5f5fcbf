"""However a dump is torn or twisted, it is read without an exception, and asked about without one."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.why.answer import diagnose, diagnose_all
from kubesvc.why.dump import read_dump, read_manifests
from kubesvc.why.planned import plan_manifests
from kubesvc.why.render import render_all, render_json, render_text
from kubesvc.why.snapshot import Snapshot
from kubesvc.why.subject import BadSubject, parse_subject

from .planted import DNS, SHOP, at, endpoint_slice, endpoints, event, node, pod, service, workload

OBJECTS = (
    service(),
    pod(),
    pod("web-2", ready=False),
    workload(),
    node(),
    endpoints("db", "192.0.2.1"),
    *DNS,
    service("db", {}),
    endpoint_slice("web-1", "web", at("10.244.1.2")),
    event("Pod/web-2", "Unhealthy", "Readiness probe failed: x"),
)
TEXTS = (
    yaml.safe_dump_all(OBJECTS).encode(),
    json.dumps({"kind": "List", "apiVersion": "v1", "items": OBJECTS}).encode(),
    "\n".join(json.dumps(o, indent=1) for o in OBJECTS).encode(),
)
JUNK: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 70000) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def ask_everything(snapshot: Snapshot) -> None:
    found = diagnose_all(snapshot)
    for words in ("svc/web", "pod/web-1", "pod/web-1 svc/web", "10.96.0.7:80", "web", "svc/db"):
        found.append(diagnose(parse_subject(words.split()), snapshot, SHOP))
    for d in found:
        assert render_text(d).splitlines()[0]
    assert json.dumps(render_json(found, snapshot)) and render_all(found)


def read(text: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / name
        file.write_bytes(text)
        ask_everything(read_dump(Path(place)))
        ask_everything(plan_manifests(read_manifests([file], SHOP), None))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TEXTS), st.data())
def test_torn_text(text: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    middle = data.draw(st.binary(max_size=4))
    read(text[:start] + middle + text[end:], data.draw(st.sampled_from(["a.json", "a.yaml"])))


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in an object."""
    found = [here] if here else []
    if isinstance(value, dict):
        for k, v in value.items():
            found += paths(v, (*here, k))
    elif isinstance(value, list):
        for i, v in enumerate(value):
            found += paths(v, (*here, i))
    return found


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(OBJECTS), JUNK, st.data())
def test_any_field_may_be_anything(obj: Any, junk: Any, data: st.DataObject) -> None:
    """An object with a field of junk is skipped or understood; the others are diagnosed as before."""
    twisted = json.loads(json.dumps(obj))
    path = data.draw(st.sampled_from(paths(twisted)))
    at = twisted
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = junk
    whole = [twisted if o is obj else o for o in OBJECTS]
    read(json.dumps({"kind": "List", "apiVersion": "v1", "items": whole}).encode(), "a.json")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=3))
def test_any_words_are_a_subject_or_wrong_usage(words: list[str]) -> None:
    try:
        parse_subject(words)
    except BadSubject:
        return
