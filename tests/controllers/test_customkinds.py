"""Which custom kinds controllers see: those of established definitions, in the preferred version."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kubesvc.api.customresourcedefinition import CustomResourceDefinition
from kubesvc.controllers.customkinds import kind_of


def definition(established: str = "True", scope: str = "Namespaced", **versions: bool) -> CustomResourceDefinition:
    names = {"plural": "foos", "kind": "Foo"}
    plain: dict[str, Any] = {
        "metadata": {"name": "foos.example.com"},
        "spec": {
            "group": "example.com",
            "scope": scope,
            "names": names,
            "versions": [{"name": n, "served": served} for n, served in versions.items()],
        },
        "status": {"acceptedNames": names, "conditions": [{"type": "Established", "status": established}]},
    }
    return msgspec.convert(plain, CustomResourceDefinition)


CASES: tuple[tuple[str, CustomResourceDefinition, str], ...] = (
    ("the only version", definition(v1=True), "/apis/example.com/v1/foos"),
    ("the stable one before betas", definition(v2beta1=True, v1=True), "/apis/example.com/v1/foos"),
    ("the newest stable one", definition(v1=True, v2=True), "/apis/example.com/v2/foos"),
    ("only what is served", definition(v1=False, v1beta1=True), "/apis/example.com/v1beta1/foos"),
    ("nothing is served", definition(v1=False), ""),
    ("not established yet", definition("False", v1=True), ""),
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c[0])
def test_kinds_of_definitions(case: tuple[str, CustomResourceDefinition, str]) -> None:
    _, found, path = case
    kind = kind_of(found)
    assert (kind.path() if kind is not None else "") == path


def test_scope() -> None:
    kind, other = kind_of(definition(v1=True)), kind_of(definition(scope="Cluster", v1=True))
    assert kind is not None and other is not None
    assert kind.namespaced and not other.namespaced
