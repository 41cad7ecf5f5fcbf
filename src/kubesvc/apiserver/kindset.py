"""The kinds that one server serves: the built-in ones, and those of CustomResourceDefinitions, which come and go.

One `KindSet` is asked by everybody who wants to know which kinds there are; only `Definitions` changes it. Whatever is
made from the set (discovery, OpenAPI) is made anew when `generation` has moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from kubesvc.api.kind import Kind

T = TypeVar("T")


class KindSet:
    """Kinds by resource. `generation` grows with every change."""

    def __init__(self, builtin: Sequence[Kind]) -> None:
        self.builtin = tuple(builtin)
        self.custom: dict[str, tuple[Kind, ...]] = {}
        """By name of the definition: the served versions."""
        self.generation = 0
        self._by_resource = {(k.group, k.version, k.plural): k for k in self.builtin}

    @property
    def all(self) -> tuple[Kind, ...]:
        return (*self.builtin, *(k for name in sorted(self.custom) for k in self.custom[name]))

    def by_resource(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind at `/apis/<group>/<version>/<plural>`; the core group is ""."""
        return self._by_resource.get((group, version, plural))

    def same(self, kind: Kind) -> Kind | None:
        """The kind that is served under another one's group, version and plural; None if none is."""
        return self._by_resource.get((kind.group, kind.version, kind.plural))

    def change(self, definition: str, kinds: Sequence[Kind]) -> None:
        """Serve these kinds, and no others, for a definition."""
        for kind in self.custom.pop(definition, ()):
            self._by_resource.pop((kind.group, kind.version, kind.plural), None)
        if kinds:
            self.custom[definition] = tuple(kinds)
            self._by_resource.update({(k.group, k.version, k.plural): k for k in kinds})
        self.generation += 1


class Derived(Generic[T]):
    """What is made from the kinds of a set: made when asked for, and made anew when the set has changed."""

    def __init__(self, kinds: KindSet, make: Callable[[tuple[Kind, ...]], T]) -> None:
        self.kinds = kinds
        self.make = make
        self.generation = -1
        self.made: T | None = None

    def now(self) -> T:
        if self.made is None or self.generation != self.kinds.generation:
            self.generation = self.kinds.generation
            self.made = self.make(self.kinds.all)
        return self.made
