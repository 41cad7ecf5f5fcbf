"""YAML as the API reads it: YAML 1.1 scalars, keys as texts, one document, and the words for what is wrong.

Read from events without recursion and with a bound on depth and on what aliases expand to, so that no text, however
short, becomes large in memory. PyYAML (its C parser where built) is imported at the first use.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, NamedTuple

MAX_DEPTH = 500
MAX_NODES = 1_000_000
"""Most values a document may hold once its aliases are expanded."""

TRUE = frozenset(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"])
FALSE = frozenset(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"])
NULL = frozenset(["", "~", "null", "Null", "NULL"])
NOT_FINITE = {
    **dict.fromkeys([".nan", ".NaN", ".NAN"], "nan"),
    **dict.fromkeys([".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"], "inf"),
    **dict.fromkeys(["-.inf", "-.Inf", "-.INF"], "-inf"),
}
INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|0[0-7]*|[1-9][0-9]*)")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
TAGS = {"tag:yaml.org,2002:" + t: t for t in ("str", "int", "float", "bool", "null", "binary", "timestamp", "merge")}


class YamlError(ValueError):
    """A text that is no YAML document; the message is Go's."""


class Document(NamedTuple):
    """A document's value (maps with sorted keys) and one text for every key given twice."""

    value: Any
    duplicates: tuple[str, ...]


class Mapping:
    """A map under construction: its pairs, the merge (`<<`) values, and the key that waits for its value."""

    __slots__ = ("key", "line", "merges", "pairs", "seen")

    def __init__(self) -> None:
        self.pairs: dict[str, Any] = {}
        self.merges: list[Any] = []
        self.seen: set[Any] = set()
        self.key: Any = MISSING
        self.line = 0


MISSING: Any = object()
MERGE: Any = object()


def integer(text: str) -> int | None:
    """The integer a plain scalar spells, in any of YAML 1.1's bases."""
    digits = text.replace("_", "")
    if not INTEGER.fullmatch(digits):
        return None
    sign = -1 if digits.startswith("-") else 1
    bare = digits.lstrip("+-").lower()
    if len(bare) > 64:
        return None
    if bare.startswith(("0x", "0b", "0o")):
        return sign * int(bare, 0)
    return sign * int(bare, 8 if len(bare) > 1 and bare[0] == "0" else 10)


def resolve(text: str, plain: bool, tag: str | None) -> Any:
    """The value of a scalar: `plain` if it stands without quotes; a tag overrides its looks."""
    kind = TAGS.get(tag or "", "")
    if kind == "str" or (not plain and not kind):
        return text
    if kind == "binary":
        try:
            return base64.b64decode("".join(text.split()), validate=True).decode(errors="replace")
        except binascii.Error:
            raise YamlError("yaml: !!binary value contains invalid base64 data") from None
    if text in NULL:
        return None
    if text == "<<" and plain:
        return MERGE
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    if text in NOT_FINITE:
        raise YamlError(f"json: unsupported value: {NOT_FINITE[text]}")
    if text[0] in "+-.0123456789":
        found = integer(text)
        if found is not None:
            return float(found) if kind == "float" else found
        digits = text.replace("_", "")
        if FLOAT.fullmatch(digits):
            try:
                return float(digits)
            except OverflowError:
                return text
    return text


def key_text(key: Any) -> str:
    """A key as JSON must have it."""
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int):
        return str(key)
    if isinstance(key, float):
        return f"{key:g}"
    if key is None:
        return "null"
    raise YamlError(f"unsupported map key of type: {'slice' if isinstance(key, list) else 'map'}")


def key_spelling(key: Any) -> str:
    return f'"{key}"' if isinstance(key, str) else key_text(key) if key is not None else "<nil>"


class Builder:
    """Puts a value together from parser events."""

    def __init__(self) -> None:
        self.stack: list[Mapping | list[Any]] = []
        self.names: list[str | None] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.nodes: list[int] = [0]
        self.duplicates: list[str] = []
        self.result: Any = MISSING

    def open(self, container: Mapping | list[Any], anchor: str | None) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise YamlError(f"yaml: exceeded max depth of {MAX_DEPTH}")
        self.stack.append(container)
        self.names.append(anchor)
        self.nodes.append(1)

    def close(self) -> None:
        container, anchor, count = self.stack.pop(), self.names.pop(), self.nodes.pop()
        value = finished(container) if isinstance(container, Mapping) else container
        self.add(value, count, anchor)

    def add(self, value: Any, count: int, anchor: str | None, line: int = 0) -> None:
        if anchor:
            self.anchors[anchor] = (value, count)
        self.nodes[-1] += count
        if self.nodes[-1] > MAX_NODES:
            raise YamlError("yaml: document contains excessive aliasing")
        if not self.stack:
            self.result = value
            return
        parent = self.stack[-1]
        if isinstance(parent, list):
            parent.append("<<" if value is MERGE else value)
        elif parent.key is MISSING:
            self.key(parent, value, line)
        else:
            key, parent.key = parent.key, MISSING
            if key is MERGE:
                parent.merges.append(value)
            else:
                parent.pairs[key_text(key)] = "<<" if value is MERGE else value

    def key(self, parent: Mapping, key: Any, line: int) -> None:
        if key is not MERGE:
            key_text(key)
            spelled = (type(key), key)
            if spelled in parent.seen:
                self.duplicates.append(f"line {line}: key {key_spelling(key)} already set in map")
            parent.seen.add(spelled)
        parent.key = key

    def alias(self, anchor: str) -> None:
        if anchor not in self.anchors:
            raise YamlError(f"yaml: unknown anchor '{anchor}' referenced")
        value, count = self.anchors[anchor]
        self.add(value, count, None)


def finished(mapping: Mapping) -> dict[str, Any]:
    """The map with its merges below its own pairs, keys sorted as Go's JSON writes them."""
    pairs = mapping.pairs
    for merge in mapping.merges:
        for source in merge if isinstance(merge, list) else [merge]:
            if not isinstance(source, dict):
                raise YamlError("yaml: map merge requires map or sequence of maps as the value")
            pairs = source | pairs
    return dict(sorted(pairs.items()))


def read(text: bytes) -> Document:
    """The first document of a text; YamlError if it has none that can be read. An empty text is null.

    Values that aliases share are shared in the result too: copy before changing anything.
    """
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    build = Builder()
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.ScalarEvent):
                value = resolve(event.value, event.implicit[0] and not event.style, event.tag)
                mark = event.start_mark
                build.add(value, 1, event.anchor, mark.line + 1 if mark else 0)
            elif isinstance(event, yaml.MappingStartEvent):
                build.open(Mapping(), event.anchor)
            elif isinstance(event, yaml.SequenceStartEvent):
                build.open([], event.anchor)
            elif isinstance(event, yaml.CollectionEndEvent):
                build.close()
            elif isinstance(event, yaml.AliasEvent):
                build.alias(event.anchor or "")
            elif isinstance(event, yaml.DocumentEndEvent):
                break
    except yaml.MarkedYAMLError as e:
        raise YamlError(syntax_message(e, scanner=isinstance(e, yaml.scanner.ScannerError))) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise YamlError("yaml: control characters are not allowed") from None
    except TypeError:  # an unhashable key
        raise YamlError("yaml: invalid map key") from None
    value = None if build.result is MISSING else "<<" if build.result is MERGE else build.result
    return Document(value, tuple(build.duplicates))


def syntax_message(error: Any, *, scanner: bool) -> str:
    """`yaml: line 3: ...` as Go's port of the same parser words it."""
    line = 0
    if error.context_mark is not None and error.context_mark.line:
        line = error.context_mark.line + scanner
    elif error.problem_mark is not None and error.problem_mark.line:
        line = error.problem_mark.line + scanner
    where = f"line {line}: " if line else ""
    return f"yaml: {where}{error.problem or 'unknown problem parsing YAML content'}"
