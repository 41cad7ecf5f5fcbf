"""Metadata of every kind (META-5, META-9 to META-12)."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api import kinds
from kubesvc.api.meta import Object
from kubesvc.api.objectmeta import validate_metadata, validate_metadata_update

OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u"}
FORM = "must consist of alphanumeric characters"


def made(**meta: Any) -> list[str]:
    obj: Object = {"metadata": {"name": "a", "namespace": "ns", **meta}}
    return [str(e) for e in validate_metadata(obj, kinds.CONFIG_MAP)]


CREATES: tuple[tuple[str, Object, list[str]], ...] = (
    ("META-5 neither name", {"name": ""}, ["metadata.name: Required value: name or generateName is required"]),
    ("no namespace", {"namespace": ""}, ["metadata.namespace: Required value"]),
    ("META-11 empty label value", {"labels": {"a": "", "example.com/b": "x"}}, []),
    ("META-11 label value", {"labels": {"a": "-"}}, ['metadata.labels: Invalid value: "-": a valid label']),
    ("META-11 long value", {"labels": {"a": "x" * 64}}, ["must be no more than 63 bytes"]),
    ("META-11 label key", {"labels": {"a b": ""}}, [f'metadata.labels: Invalid value: "a b": name part {FORM}']),
    ("META-11 annotation in capitals", {"annotations": {"Example.com/A": "x y"}}, []),
    ("META-11 annotation key", {"annotations": {"/a": ""}}, ["prefix part must be non-empty"]),
    ("META-11 size", {"annotations": {"a": "x" * 262144}}, ["Too long: may not be more than 262144 bytes"]),
    ("META-11 finalizer form", {"finalizers": ["a b/c"]}, ['metadata.finalizers: Invalid value: "a b/c"']),
    ("META-11 bare finalizer", {"finalizers": ["x"]}, [
        '[0]: Invalid value: "x": name is neither a standard finalizer name nor is it fully qualified'
    ]),
    ("META-11 standard finalizer", {"finalizers": ["orphan", "kubernetes", "example.com/f"]}, []),
    ("two ways at once", {"finalizers": ["orphan", "foregroundDeletion"]}, [
        "finalizer orphan and foregroundDeletion cannot be both set"
    ]),
    ("META-10 complete", {"ownerReferences": [OWNER]}, []),
    ("META-10 no name", {"ownerReferences": [{**OWNER, "name": ""}]}, [
        'metadata.ownerReferences.name: Invalid value: "": must not be empty'
    ]),
    ("META-10 two controllers", {"ownerReferences": [{**OWNER, "controller": True}, {**OWNER, "controller": True}]}, [
        "Only one reference can have Controller set to true"
    ]),
)  # fmt: skip


@pytest.mark.parametrize(("name", "meta", "texts"), CREATES, ids=lambda c: c if isinstance(c, str) else "")
def test_create(name: str, meta: Object, texts: list[str]) -> None:
    found = made(**meta)
    assert len(found) == len(texts)
    assert all(text in error for text, error in zip(texts, found, strict=True))


def test_names_follow_the_kind() -> None:
    """NS-1: a namespace's name is a label; other names may have dots; roles may have colons."""
    for kind, name, right in (
        (kinds.NAMESPACE, "a.b", False),
        (kinds.NODE, "a.b", True),
        (kinds.CLUSTER_ROLE, "system:node", True),
        (kinds.CLUSTER_ROLE, "a/b", False),
    ):
        assert (validate_metadata({"metadata": {"name": name}}, kind) == []) == right
    errors = validate_metadata({"metadata": {"name": "a", "namespace": "x"}}, kinds.NODE)
    assert [str(e) for e in errors] == ["metadata.namespace: Forbidden: not allowed on this type"]


BEFORE = {
    "name": "a",
    "namespace": "ns",
    "uid": "u",
    "resourceVersion": "3",
    "creationTimestamp": "t",
    "finalizers": ["a/b"],
}
UPDATES: tuple[tuple[str, Object, Object, list[str]], ...] = (
    ("nothing", {}, {}, []),
    ("WRITE-5 no version", {"resourceVersion": ""}, {}, [
        'metadata.resourceVersion: Invalid value: "": must be specified for an update'
    ]),
    ("META-9 uid", {"uid": "v"}, {}, ['metadata.uid: Invalid value: "v": field is immutable']),
    ("META-9 creation", {"creationTimestamp": "s"}, {}, ['metadata.creationTimestamp: Invalid value: "s"']),
    ("META-9 deletion", {"deletionTimestamp": "s"}, {}, ['metadata.deletionTimestamp: Invalid value: "s"']),
    ("META-9 generateName may change", {"generateName": "x"}, {}, []),
    ("META-12 finalizers go", {"finalizers": None}, {"deletionTimestamp": "s"}, []),
    ("META-12 finalizers do not come", {"finalizers": ["x.io/y", "a/b"]}, {"deletionTimestamp": "s"}, [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new "
        'finalizers []string{"x.io/y"}'
    ]),
)  # fmt: skip


@pytest.mark.parametrize(("name", "change", "both", "texts"), UPDATES, ids=lambda c: c if isinstance(c, str) else "")
def test_update(name: str, change: Object, both: Object, texts: list[str]) -> None:
    found = validate_metadata_update({"metadata": {**BEFORE, **both, **change}}, {"metadata": {**BEFORE, **both}})
    assert len(found) == len(texts)
    assert all(text in str(error) for text, error in zip(texts, found, strict=True))
