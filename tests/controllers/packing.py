"""SLICE-19 to SLICE-26 once more, by counting: how many endpoints each written slice of one port group has.

Written from the rules alone, apart from the planner under test, and without endpoints' contents: which of the new
endpoints goes where is free, so two planners are compared by how many are in each slice they write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Written = tuple[str, str, int]
"""create, update or delete; the slice's name ("" for a new one); how many endpoints it then has."""


def packed(
    existing: Mapping[str, list[str]], desired: Iterable[str], moved: Iterable[str], limit: int
) -> list[Written]:
    """What one sync writes, sorted.

    existing: the group's slices, by name
    desired:  the endpoints there are to be; `moved` are those in a state other than the slices show
    """
    waiting, changed = dict.fromkeys(desired), dict.fromkeys(moved)
    size: dict[str, int] = {}
    touched: dict[str, None] = {}
    emptied: list[str] = []
    for name in sorted(existing):
        kept = [e for e in existing[name] if waiting.pop(e, "absent") is None]
        size[name] = len(kept)
        if len(kept) < len(existing[name]) or any(e in changed for e in kept):
            if kept:
                touched[name] = None
            else:
                emptied.append(name)
                del size[name]
    left = len(waiting)
    for name in sorted(touched, key=lambda n: (-size[n], n)):
        more = min(left, limit - size[name])
        size[name] += more
        left -= more
    made: list[int] = []
    while left:
        roomy = [n for n in size if n not in touched and size[n] + left <= limit] if left < limit else []
        if roomy:
            home = max(roomy, key=lambda n: size[n])
            size[home] += left
            touched[home] = None
            left = 0
        else:
            made.append(min(left, limit))
            left -= made[-1]
    gone = not any(size.values()) and not made
    if gone and existing and not (len(existing) == 1 and not emptied):
        made.append(0)  # the placeholder
    reused = [(name, made.pop()) for name in emptied[: len(made)]]
    written: list[Written] = [("update", n, size[n]) for n in touched]
    written += [("update", n, count) for n, count in reused] + [("create", "", count) for count in made]
    return sorted(written + [("delete", n, 0) for n in emptied[len(reused) :]])
