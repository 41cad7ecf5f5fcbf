"""JSON patch (RFC 6902) on plain values (PATCH-5). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MAX_OPERATIONS = 10_000
MAX_COPIED_BYTES = 3 << 20
"""Most bytes that all copies of a patch may add."""


class PatchFailed(ValueError):
    """An operation that cannot be done on this document: a missing path, a failing test, an unknown `op`."""


def apply(document: Any, operations: Sequence[Any]) -> Any:
    """The document with all operations applied in order; PatchFailed at the first that fails. The document itself is
    left alone: whatever an operation touches is copied first."""
    root = {"": document}
    copied = 0
    for operation in operations:
        if not isinstance(operation, dict):
            raise PatchFailed("an operation must be an object")
        step = STEPS.get(str(operation.get("op")))
        if step is None:
            raise PatchFailed(f"unexpected kind: {operation.get('op')}")
        if step is copy:
            # A document copied into itself a few times over would fill any memory.
            copied += size_of(value_at(root, tokens(operation, "from")), MAX_COPIED_BYTES - copied)
            if copied > MAX_COPIED_BYTES:
                raise PatchFailed(f"copies add up to more than {MAX_COPIED_BYTES} bytes")
        step(root, operation)
    return root[""]


def size_of(value: Any, most: int) -> int:
    """About as many bytes as a value has in JSON; counting ends beyond `most`."""
    size, left = 0, [value]
    while left and size <= most:
        found = left.pop()
        if isinstance(found, dict):
            size += 2 + sum(len(k) + 4 for k in found)
            left += found.values()
        elif isinstance(found, list):
            size += 2 + len(found)
            left += found
        else:
            size += len(found) + 2 if isinstance(found, str) else 4
    return size


def tokens(operation: dict[str, Any], name: str) -> list[str]:
    """The reference tokens of a JSON pointer, below the root that holds the document."""
    path = operation.get(name)
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise PatchFailed(f"missing or bad {name}")
    return ["", *(t.replace("~1", "/").replace("~0", "~") for t in path.split("/")[1:])]


def container(root: dict[str, Any], path: list[str]) -> Any:
    """The object or list that holds the last token, all on the way to it copied so that it may be changed."""
    here: Any = root
    for token in path[:-1]:
        key = place(here, token)
        inner = here[key]
        if not isinstance(inner, (dict, list)):
            raise PatchFailed(f"no such path: {token}")
        here[key] = inner = inner.copy()
        here = inner
    return here


def place(holder: Any, token: str) -> Any:
    """The key or index that a token means in an object or list, where something must stand already."""
    if isinstance(holder, list):
        return index(token, len(holder))
    if token not in holder:
        raise PatchFailed(f"no such key: {token}")
    return token


def index(token: str, length: int) -> int:
    """A list index below `length`; negative ones count from the end."""
    try:
        at = int(token)
    except ValueError:
        raise PatchFailed(f"no such index: {token}") from None
    if not token.isascii() or token.strip() != token or "_" in token or not -length <= at < length:
        raise PatchFailed(f"no such index: {token}")
    return at if at >= 0 else at + length


def value_at(root: dict[str, Any], path: list[str]) -> Any:
    here: Any = root
    for token in path:
        if not isinstance(here, (dict, list)):
            raise PatchFailed(f"no such path: {token}")
        here = here[place(here, token)]
    return here


def put(root: dict[str, Any], path: list[str], value: Any) -> None:
    holder = container(root, path)
    last = path[-1]
    if isinstance(holder, dict):
        holder[last] = value
    elif last == "-":
        holder.append(value)
    else:
        holder.insert(index(last, len(holder) + 1), value)


def take(root: dict[str, Any], path: list[str]) -> Any:
    holder = container(root, path)
    found = holder[place(holder, path[-1])]
    if len(path) == 1:
        raise PatchFailed("the whole document cannot be removed")
    del holder[place(holder, path[-1])]
    return found


def add(root: dict[str, Any], operation: dict[str, Any]) -> None:
    put(root, tokens(operation, "path"), operation.get("value"))


def remove(root: dict[str, Any], operation: dict[str, Any]) -> None:
    take(root, tokens(operation, "path"))


def replace(root: dict[str, Any], operation: dict[str, Any]) -> None:
    path = tokens(operation, "path")
    holder = container(root, path)
    holder[place(holder, path[-1])] = operation.get("value")


def move(root: dict[str, Any], operation: dict[str, Any]) -> None:
    origin, path = tokens(operation, "from"), tokens(operation, "path")
    put(root, path, take(root, origin))


def copy(root: dict[str, Any], operation: dict[str, Any]) -> None:
    put(root, tokens(operation, "path"), value_at(root, tokens(operation, "from")))


def test(root: dict[str, Any], operation: dict[str, Any]) -> None:
    path, wanted = tokens(operation, "path"), operation.get("value")
    holder = value_at(root, path[:-1])
    if isinstance(holder, dict) and path[-1] not in holder:
        found = None
    else:
        found = value_at(root, path)
    if not same(found, wanted):
        raise PatchFailed(f"testing value {operation.get('path')} failed")


def same(a: Any, b: Any) -> bool:
    """Equality as JSON has it: true is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


STEPS = {"add": add, "remove": remove, "replace": replace, "move": move, "copy": copy, "test": test}
