"""The wire form of CRI messages: to bytes and back, beside protobuf's own, and over bytes that are none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.node.cri import wire
from kubesvc.node.cri.wire import Field, Malformed, decode, encode, table

BOUNDS = {
    "int32": (-(1 << 31), (1 << 31) - 1), "enum": (0, (1 << 31) - 1), "uint32": (0, (1 << 32) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1), "uint64": (0, (1 << 64) - 1),
}  # fmt: skip
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


def one(type: str) -> st.SearchStrategy[Any]:
    if type in BOUNDS:
        return st.integers(*BOUNDS[type])
    simple: dict[str, st.SearchStrategy[Any]] = {"bool": st.booleans(), "string": TEXT, "bytes": st.binary(max_size=8)}
    return simple[type] if type in simple else messages(type)


def values(field: Field) -> st.SearchStrategy[Any]:
    if field.form == "{}":
        return st.dictionaries(TEXT, TEXT, max_size=2)
    if field.form:
        return st.lists(one(field.type), max_size=2)
    return one(field.type) if field.type in wire.ZEROS else st.none() | one(field.type)


def messages(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Messages with every field in them, as reading gives them."""
    return st.deferred(lambda: st.fixed_dictionaries({n: values(f) for n, f in table()[name].items()}))


named = st.sampled_from(sorted(table())).flatmap(lambda name: st.tuples(st.just(name), messages(name)))


@settings(max_examples=200, deadline=None)
@given(named)
def test_what_is_written_is_read_again(case: tuple[str, dict[str, Any]]) -> None:
    name, message = case
    assert decode(name, encode(name, message)) == message


def protobuf_classes() -> dict[str, Any]:
    """The table's messages as protobuf's own library makes them of descriptors."""
    pytest.importorskip("google.protobuf", reason="protobuf is not installed: nothing to hold our codec against")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

    kinds = descriptor_pb2.FieldDescriptorProto
    types = {
        "bool": kinds.TYPE_BOOL, "int32": kinds.TYPE_INT32, "enum": kinds.TYPE_INT32, "uint32": kinds.TYPE_UINT32,
        "int64": kinds.TYPE_INT64, "uint64": kinds.TYPE_UINT64, "string": kinds.TYPE_STRING, "bytes": kinds.TYPE_BYTES,
    }  # fmt: skip
    file = descriptor_pb2.FileDescriptorProto(name="cri.proto", package="cri", syntax="proto3")
    for name, fields in table().items():
        described = file.message_type.add(name=name)
        for key, field in fields.items():
            label = kinds.LABEL_REPEATED if field.form else kinds.LABEL_OPTIONAL
            added = described.field.add(name=key, number=field.number, label=label)
            if field.form == "{}":
                entry = described.nested_type.add(name="".join(w.title() for w in key.split("_")) + "Entry")
                entry.options.map_entry = True
                for number, part in enumerate(("key", "value"), 1):
                    entry.field.add(name=part, number=number, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_STRING)
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".cri.{name}.{entry.name}"
            elif field.type in types:
                added.type = types[field.type]
            else:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".cri.{field.type}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"cri.{n}")) for n in table()}


@pytest.fixture(scope="module")
def classes() -> dict[str, Any]:
    return protobuf_classes()


def filled(made: Any, name: str, message: dict[str, Any]) -> Any:
    """A protobuf message with the values of ours."""
    for key, field in table()[name].items():
        value = message[key]
        if field.form == "{}":
            getattr(made, key).update(value)
        elif field.type not in wire.ZEROS and field.form:
            for item in value:
                filled(getattr(made, key).add(), field.type, item)
        elif field.type not in wire.ZEROS:
            if value is not None:
                getattr(made, key).SetInParent()
                filled(getattr(made, key), field.type, value)
        elif field.form:
            getattr(made, key).extend(value)
        else:
            setattr(made, key, value)
    return made


@settings(max_examples=200, deadline=None)
@given(case=named)
def test_protobuf_reads_and_writes_the_same(classes: dict[str, Any], case: tuple[str, dict[str, Any]]) -> None:
    name, message = case
    theirs = filled(classes[name](), name, message)
    assert decode(name, theirs.SerializeToString()) == message
    assert classes[name].FromString(encode(name, message)) == theirs


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(table())), st.binary(max_size=60))
def test_bytes_that_are_no_message_are_refused_as_such(name: str, data: bytes) -> None:
    try:
        found = decode(name, data)
    except Malformed:
        return
    assert set(found) == set(table()[name])


@settings(max_examples=100, deadline=None)
@given(named, st.data())
def test_a_message_cut_off_is_refused_or_lacks_whole_fields(
    case: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    name, message = case
    whole = encode(name, message)
    cut = data.draw(st.integers(0, len(whole)))
    try:
        decode(name, whole[:cut])
    except Malformed as error:
        assert str(error)


@pytest.mark.parametrize("unknown", [b"\xa0\x06\x07", b"\xa2\x06\x02hi", b"\xa1\x0612345678", b"\xa5\x061234"])
def test_fields_of_newer_versions_are_skipped(unknown: bytes) -> None:
    data = encode("VersionResponse", {"runtime_name": "r"})
    assert decode("VersionResponse", unknown + data + unknown)["runtime_name"] == "r"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("VersionRequest", b"\x0a\x05ab", "5 bytes announced, 2 there"),
        ("VersionRequest", b"\x0a\x02\xff\xfe", "no UTF-8 text"),
        ("StatusRequest", b"\x0a\x01x", "wire type 2, not a number's"),
        ("VersionRequest", b"\x08\x01", "not that of bytes"),
        ("VersionRequest", b"\x80" * 11, "more than 64 bits"),
        ("VersionRequest", b"\x00\x01", "number 0"),
        ("VersionRequest", b"\x0b", "unknown wire type 3"),
    ],
)
def test_what_is_wrong_is_said(name: str, data: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        decode(name, data)


def test_every_type_of_the_table_is_in_the_table() -> None:
    for name, fields in table().items():
        numbers = [f.number for f in fields.values()]
        assert len(set(numbers)) == len(numbers), name
        assert all(f.type in wire.ZEROS or f.type in table() for f in fields.values()), name
    for name in table():
        if name.endswith("Request"):
            assert name.removesuffix("Request") + "Response" in table()
