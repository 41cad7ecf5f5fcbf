"""Checks that many kinds share: ranges, immutability, label selectors, and reading plain objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import fields, names
from .fields import Errors, Path
from .meta import Object
from .objectmeta import validate_labels

NONNEGATIVE = "must be greater than or equal to 0"
POSITIVE = "must be greater than 0"
IMMUTABLE = "field is immutable"
INT32 = 2**31 - 1
PATH_FORM = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
URL_PATH = re.compile(PATH_FORM)


def items(obj: Object | None, name: str) -> list[Any]:
    """The list in a field, empty if there is none."""
    found = (obj or {}).get(name)
    return found if isinstance(found, list) else []


def part(obj: Object | None, name: str) -> Object:
    """The object in a field, empty (and not attached) if there is none."""
    found = (obj or {}).get(name)
    return found if isinstance(found, dict) else {}


def nonnegative(obj: Object, name: str, path: Path) -> Errors:
    """The number in a field, if there is one, is not below 0."""
    value = obj.get(name)
    return [fields.invalid(path / name, value, NONNEGATIVE)] if isinstance(value, int) and value < 0 else []


def positive(obj: Object, name: str, path: Path) -> Errors:
    value = obj.get(name)
    return [fields.invalid(path / name, value, POSITIVE)] if isinstance(value, int) and value <= 0 else []


def immutable(new: Object, old: Object, name: str, path: Path, detail: str = IMMUTABLE) -> Errors:
    """A field keeps its value; absent, null and empty are told apart as Go would after normalization."""
    if new.get(name) == old.get(name):
        return []
    value = new.get(name)
    return [fields.invalid(path / name, "null" if value is None else value, detail)]  # a pointer to nothing is quoted


def one_of(value: Any, supported: Sequence[str], path: Path, *, in_order: bool = False) -> Errors:
    """A required word of a closed set; empty is Required."""
    if not value:
        return [fields.required(path)]
    return [] if value in supported else [fields.not_supported(path, value, supported, in_order=in_order)]


def texts(path: Path, value: Any, found: Iterable[str]) -> Errors:
    """A field error for each thing that is wrong with the value."""
    return [fields.invalid(path, value, text) for text in found]


def descending(value: str, path: Path) -> Errors:
    """A path that stays below where it starts."""
    errors = [fields.invalid(path, value, "must be a relative path")] if value.startswith("/") else []
    return errors + not_upwards(value, path)


def not_upwards(value: str, path: Path) -> Errors:
    """A path without steps to the directory above."""
    return [fields.invalid(path, value, "must not contain '..'")] if ".." in value.split("/") else []


def label_selector(selector: Mapping[str, Any] | None, path: Path) -> Errors:
    """A LabelSelector as objects hold it."""
    errors = validate_labels((selector or {}).get("matchLabels"), path / "matchLabels")
    for i, requirement in enumerate((selector or {}).get("matchExpressions") or ()):
        here = path / "matchExpressions" @ i
        operator, values = requirement.get("operator") or "", requirement.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                errors.append(fields.required(here / "values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                errors.append(
                    fields.forbidden(
                        here / "values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                    )
                )
        else:
            errors.append(fields.invalid(here / "operator", operator, "not a valid selector operator"))
        key = requirement.get("key") or ""
        errors += texts(here / "key", key, names.label_key(key))
        for j, value in enumerate(values):
            errors += texts(here / "values" @ j, value, names.label_value(value))
    return errors


def percent_or_number(value: Any, path: Path) -> Errors:
    """A number not below 0, or a percentage such as "25%"."""
    if isinstance(value, str):
        if percent(value) is None:
            return [
                fields.invalid(
                    path,
                    value,
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or "
                    "'93%', regex used for validation is '[0-9]+%')",
                )
            ]
        return []
    return [fields.invalid(path, value, NONNEGATIVE)] if isinstance(value, int) and value < 0 else []


def percent(value: Any) -> int | None:
    """The number of a percentage text, None for anything else."""
    if isinstance(value, str) and value.endswith("%") and value[:-1].isascii() and value[:-1].isdigit():
        return int(value[:-1])
    return None


def at_most_all(value: Any, path: Path) -> Errors:
    """A percentage of no more than 100."""
    found = percent(value)
    return [fields.invalid(path, value, "must not be greater than 100%")] if found is not None and found > 100 else []


def domain_prefixed_path(value: str, path: Path) -> Errors:
    """`example.com/some/path`, as names of controllers are."""
    if not value:
        return [fields.required(path)]
    host, _, rest = value.partition("/")
    if not host or not rest:
        return [fields.invalid(path, value, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    errors = texts(path, host, names.dns_subdomain(host))
    if not URL_PATH.fullmatch(rest):
        errors.append(fields.invalid(path, rest, f"Invalid path (regex used for validation is '{PATH_FORM}')"))
    return errors
