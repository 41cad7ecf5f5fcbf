"""Field errors: where a value is wrong, how, and the 422 they add up to (ERR-3, ERR-4)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .errors import Invalid

ErrorType = Literal[
    "Required", "Invalid", "NotSupported", "Duplicate", "Forbidden", "TooLong", "TooMany", "Internal", "NotFound",
    "TypeInvalid",
]  # fmt: skip

CAUSE: dict[ErrorType, str] = {
    "Required": "FieldValueRequired",
    "Invalid": "FieldValueInvalid",
    "NotSupported": "FieldValueNotSupported",
    "Duplicate": "FieldValueDuplicate",
    "Forbidden": "FieldValueForbidden",
    "TooLong": "FieldValueTooLong",
    "TooMany": "FieldValueTooMany",
    "Internal": "InternalError",
    "NotFound": "FieldValueNotFound",
    "TypeInvalid": "FieldValueTypeInvalid",
}
TEXT: dict[ErrorType, str] = {
    "Required": "Required value",
    "Invalid": "Invalid value",
    "NotSupported": "Unsupported value",
    "Duplicate": "Duplicate value",
    "Forbidden": "Forbidden",
    "TooLong": "Too long",
    "TooMany": "Too many",
    "Internal": "Internal error",
    "NotFound": "Not found",
    "TypeInvalid": "Invalid value",
}
WITHOUT_VALUE: frozenset[ErrorType] = frozenset({"Required", "Forbidden", "TooLong", "Internal"})


class Spelled(str):
    """A value printed as it is, without quotes: the JSON of a struct under its internal field names (ERR-3)."""


OMITTED = Spelled("")
"""The value of an error that shows none though its sort usually does."""


class Path:
    """A field's place: `Path("spec") / "ports" @ 0 / "port"` prints `spec.ports[0].port`.

    Checks walk objects far more often than they find something wrong, so the text is put together when asked for.
    """

    __slots__ = ("_above", "_step", "_text")
    _above: Path
    _step: str | int

    def __init__(self, text: str = "") -> None:
        self._text: str | None = text

    def __truediv__(self, name: str) -> Path:
        below = new_path(Path)
        below._text, below._above, below._step = None, self, name
        return below

    def __matmul__(self, index: int) -> Path:
        below = new_path(Path)
        below._text, below._above, below._step = None, self, index
        return below

    def key(self, key: str) -> Path:
        return Path(f"{self}[{key}]")

    def __str__(self) -> str:
        if self._text is None:
            above, step = str(self._above), self._step
            if isinstance(step, int):
                self._text = f"{above}[{step}]"
            else:
                self._text = f"{above}.{step}" if above else step
        return self._text


new_path = object.__new__


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field. `value` is printed by the rules of ERR-3; `detail` is what would do."""

    path: str
    type: ErrorType
    value: Any = None
    detail: str = ""

    def message(self) -> str:
        """The text without its path, as `details.causes[].message` has it."""
        text = TEXT[self.type]
        if self.type not in WITHOUT_VALUE and self.value is not OMITTED:
            text += f": {spell(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def __str__(self) -> str:
        return f"{self.path}: {self.message()}"

    def cause(self) -> dict[str, str]:
        return {"reason": CAUSE[self.type], "message": self.message(), "field": self.path}


Errors = list[FieldError]


def spell(value: Any) -> str:
    """A value as errors print it: strings quoted, numbers and booleans plain, the rest as JSON."""
    if isinstance(value, Spelled):
        return str(value)
    if isinstance(value, str):
        return quote(value)
    if value is None:
        return "null"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def quote(text: str) -> str:
    """The text in double quotes with Go's escapes."""
    out = []
    for c in text:
        if c in '"\\':
            out.append("\\" + c)
        elif c in "\n\t\r\a\b\f\v":
            out.append({"\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}[c])
        elif not c.isprintable():
            n = ord(c)
            out.append(f"\\x{n:02x}" if n < 0x80 else f"\\u{n:04x}" if n < 0x10000 else f"\\U{n:08x}")
        else:
            out.append(c)
    return '"' + "".join(out) + '"'


def required(path: Path | str, detail: str = "") -> FieldError:
    return FieldError(str(path), "Required", None, detail)


def invalid(path: Path | str, value: Any, detail: str) -> FieldError:
    return FieldError(str(path), "Invalid", value, detail)


def not_supported(path: Path | str, value: Any, supported: Iterable[str], *, in_order: bool = False) -> FieldError:
    """`supported` is sorted for printing unless a rule gives another order (`in_order`)."""
    values = list(supported) if in_order else sorted(supported)
    return FieldError(str(path), "NotSupported", value, "supported values: " + ", ".join(quote(v) for v in values))


def duplicate(path: Path | str, value: Any) -> FieldError:
    return FieldError(str(path), "Duplicate", value)


def not_found(path: Path | str, value: Any) -> FieldError:
    """A name that refers to nothing in the same object."""
    return FieldError(str(path), "NotFound", value)


def forbidden(path: Path | str, detail: str) -> FieldError:
    return FieldError(str(path), "Forbidden", None, detail)


def too_long(path: Path | str, most_bytes: int) -> FieldError:
    return FieldError(str(path), "TooLong", None, f"may not be more than {most_bytes} bytes")


def too_many(path: Path | str, found: int, most: int) -> FieldError:
    return FieldError(str(path), "TooMany", found, f"must have at most {most} items")


def internal(path: Path | str, detail: str) -> FieldError:
    return FieldError(str(path), "Internal", None, detail)


def invalid_object(group: str, kind: str, name: str, errors: Sequence[FieldError]) -> Invalid:
    """The 422 for these errors; duplicates are dropped from the message and kept in the causes (ERR-3)."""
    texts = list(dict.fromkeys(str(e) for e in errors))
    listed = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    qualified = f"{kind}.{group}" if group else kind
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    return Invalid(
        f"{qualified} {quote(name)} is invalid: {listed}",
        details=details,
        causes=[e.cause() for e in errors],
    )
