"""Reading objects whose fields are not what we expect: what cannot be read counts as absent, the rest is kept. Pure.

An object of a newer server, or of a stranger's hand, may have a value of another type at any path. One such value must
not hide the object: a Pod whose annotations are odd is still an endpoint. So the values that do not fit are taken out,
one after the other, until the rest decodes.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

MOST = 32
"""So many values are taken out of one object; one with more is given up."""
PATH = re.compile(r"`(?:key in )?(\$[^`]*)`$")
STEP = re.compile(r"\.([^.\[]+)|(\[\.\.\.\])|\[(\d+)\]")


def salvage(raw: bytes, type_: type[T]) -> tuple[T, list[str]]:
    """The object without what does not fit, and the paths of that, as `spec.ports[1].port`.

    MsgspecError if it is no JSON object, or more is wrong than can be taken out.
    """
    plain = msgspec.json.decode(raw)
    found: list[str] = []
    for _ in range(MOST):
        try:
            return msgspec.convert(plain, type_), found
        except msgspec.ValidationError as error:
            steps = steps_of(str(error))
            if not steps:
                raise
            lost = take_out(plain, steps, type_, plain)
            if not lost:
                raise
            found += lost
    return msgspec.convert(plain, type_), found


def steps_of(message: str) -> list[str]:
    """The path in a message of msgspec, step by step; `*` stands for some item of a list or map."""
    match = PATH.search(message)
    if match is None:
        return []
    steps = [name or ("*" if some else number) for name, some, number in STEP.findall(match[1])]
    return [*steps, "*"] if "`key in " in message else steps


def take_out(at: Any, steps: list[str], type_: type[Any], whole: Any, trail: tuple[str, ...] = ()) -> list[str]:
    """Take the value at the end of `steps` out of `at`, the part of `whole` at `trail`; the paths taken out."""
    step, rest = steps[0], steps[1:]
    if step == "*":
        return take_out_entries(at, rest, type_, whole, trail)
    here = (*trail, step)
    if isinstance(at, list) and step.isdigit() and int(step) < len(at):
        inner = take_out(at[int(step)], rest, type_, whole, here) if rest else []
        if not inner:
            del at[int(step)]  # it cannot stay as a whole
        return inner or [text_of(here)]
    if not isinstance(at, dict) or step not in at:
        return []
    if not rest:
        del at[step]
        return [text_of(here)]
    return take_out(at[step], rest, type_, whole, here)


def take_out_entries(at: Any, rest: list[str], type_: type[Any], whole: Any, trail: tuple[str, ...]) -> list[str]:
    """The same for those entries of a map that do not fit, which is found out by trying each alone."""
    if not isinstance(at, dict):
        return []
    kept, bad = dict(at), []
    for key in kept:
        at.clear()
        at[key] = kept[key]
        try:
            msgspec.convert(whole, type_)
        except msgspec.ValidationError as error:
            if steps_of(str(error))[: len(trail) + 1] == [*trail, "*"]:
                bad.append(key)
    at.clear()
    at.update(kept)
    lost: list[str] = []
    for key in bad:
        here = (*trail, key)
        inner = take_out(at[key], rest, type_, whole, here) if rest else []
        if not inner:
            del at[key]
        lost += inner or [text_of(here)]
    return lost


def text_of(trail: tuple[str, ...]) -> str:
    """A path as messages print it: `spec.ports[1].port`."""
    text = ".".join(f"[{s}]" if s.isdigit() else s for s in trail)
    return text.replace(".[", "[")
