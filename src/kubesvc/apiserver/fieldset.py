"""Sets of fields, in the form in which managedFields stores them (FieldsV1). Pure.

A set is a tree of dicts. Keys are path elements (`f:<field>`, `k:<keys of a list item>`, `v:<value of a set>`,
`i:<index>`); the key "." in a node that has others below says that the node itself is in the set; an empty node always
is.
Functions share parts of their arguments with their results, so nobody may change a set in place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

FieldSet = dict[str, Any]

MEMBER = "."


def is_member(node: FieldSet) -> bool:
    """Whether the node itself is in the set (not only things below it)."""
    return not node or MEMBER in node


def node_of(member: bool, below: FieldSet) -> FieldSet:
    """A node from its two parts."""
    if not member:
        return below
    return {MEMBER: {}, **below} if below else {}


def below(node: FieldSet) -> FieldSet:
    """A node's children."""
    return {k: v for k, v in node.items() if k != MEMBER} if MEMBER in node else node


def union(a: FieldSet, b: FieldSet) -> FieldSet:
    """What is in either."""
    if not b or a is b:
        return a
    if not a:
        return b
    out = dict(a)
    for key, theirs in b.items():
        ours = out.get(key)
        if ours is None:
            out[key] = theirs
        elif ours != theirs:
            member = is_member(ours) or is_member(theirs)
            out[key] = node_of(member, union(below(ours), below(theirs)))
    return out


def difference(a: FieldSet, b: FieldSet) -> FieldSet:
    """What is in `a` and not in `b`; `a` itself if nothing is in both."""
    out = a
    for key, theirs in b.items():
        ours = a.get(key)
        if ours is None or key == MEMBER:
            continue
        inside = below(ours)
        member = is_member(ours) and not is_member(theirs)
        rest = difference(inside, below(theirs))
        if member == is_member(ours) and rest is inside:
            continue
        if out is a:
            out = dict(a)
        if member or rest:
            out[key] = node_of(member, rest)
        else:
            del out[key]
    return out


def intersection(a: FieldSet, b: FieldSet) -> FieldSet:
    """What is in both."""
    out: FieldSet = {}
    small, large = (a, b) if len(a) <= len(b) else (b, a)
    for key, ours in small.items():
        theirs = large.get(key)
        if theirs is None or key == MEMBER:
            continue
        member = is_member(ours) and is_member(theirs)
        common = intersection(below(ours), below(theirs)) if ours and theirs else {}
        if member or common:
            out[key] = node_of(member, common)
    return out


def rank(key: str) -> tuple[int, str]:
    """Fields before keyed items before values before indexes, as upstream goes through a set."""
    return ("fkvi".find(key[0]), key)


def ordered(fields: FieldSet) -> FieldSet:
    """The same set with its keys sorted, as it is written."""
    return {key: ordered(fields[key]) if fields[key] else {} for key in sorted(fields)}


def paths(fields: FieldSet, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every path in the set: of each node first what is directly in it, then what is below."""
    keys = sorted((k for k in fields if k != MEMBER), key=rank)
    for key in keys:
        if is_member(fields[key]):
            yield (*above, key)
    for key in keys:
        if fields[key]:
            yield from paths(below(fields[key]), (*above, key))


def from_paths(given: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> FieldSet:
    """The set of these paths."""
    out: FieldSet = {}
    for path in given:
        node = out
        for i, key in enumerate(path):
            last = i == len(path) - 1
            found = node.get(key)
            if found is None:
                found = node[key] = {}
                if not last:
                    found[""] = None  # not a member, unless said later
            if last:
                found.pop("", None)
                found[MEMBER] = {}
            node = found
    return settled(out)


def settled(node: FieldSet) -> FieldSet:
    return {
        k: node_of(MEMBER in v, settled({n: c for n, c in v.items() if n not in (MEMBER, "")})) for k, v in node.items()
    }


def spell(path: tuple[str, ...]) -> str:
    """A path as conflicts print it: `.spec.ports[port=80,protocol="TCP"].targetPort` (APPLY-4)."""
    return "".join(spell_element(e) for e in path)


def spell_element(element: str) -> str:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "k:":
        keys = json.loads(text)
        return "[" + ",".join(f"{k}={spell_value(keys[k])}" for k in sorted(keys)) + "]"
    if kind == "v:":
        return f"[={spell_value(json.loads(text))}]"
    return f"[{text}]"


LONGEST_REMEMBERED = 256


def spell_value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def key_element(names: tuple[str, ...], *values: Any) -> str:
    """The path element of an item of a keyed list; `names` sorted, values scalars in their order. Short ones that come
    again are remembered."""
    for value in values:
        if type(value) is str and len(value) > LONGEST_REMEMBERED:
            return spell_key(names, *values)
    return remembered_key(names, *values)


@lru_cache(maxsize=4096, typed=True)
def remembered_key(names: tuple[str, ...], *values: Any) -> str:
    return spell_key(names, *values)


def spell_key(names: tuple[str, ...], *values: Any) -> str:
    return "k:" + json.dumps(dict(zip(names, values, strict=True)), separators=(",", ":"), ensure_ascii=False)


def value_element(value: Any) -> str:
    """The path element of an item of a set."""
    return "v:" + json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def valid(fields: Any) -> bool:
    """Whether a client's fieldsV1 is a set that can be worked with."""
    if not isinstance(fields, dict):
        return False
    return all(
        (key == MEMBER and value == {}) or (key[:2] in ("f:", "k:", "v:", "i:") and valid(value))
        for key, value in fields.items()
    )
