"""The protobuf form of the OpenAPI 2 document: read back by a small reader that knows only the wire format."""

from __future__ import annotations

from typing import Any

from kubesvc.api.kinds import KINDS
from kubesvc.apiserver.openapi import OpenApi
from kubesvc.apiserver.swaggerproto import encode_schema, encode_swagger, varint


def read(raw: bytes) -> dict[int, list[Any]]:
    """Fields of one message by number: ints for varints, bytes for everything with a length."""
    found: dict[int, list[Any]] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = raw[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(raw):
        tag = number()
        assert tag & 7 in (0, 2), tag
        size = number()
        if tag & 7:
            found.setdefault(tag >> 3, []).append(raw[at : at + size])
            assert at + size <= len(raw)
            at += size
        else:
            found.setdefault(tag >> 3, []).append(size)
    return found


def entries(raw: bytes, number: int) -> dict[str, bytes]:
    """A map: each entry is a message of a name and a value."""
    pairs = (read(entry) for entry in read(raw).get(number, ()))
    return {pair[1][0].decode(): pair[2][0] for pair in pairs}


def test_varints() -> None:
    assert [varint(n) for n in (0, 127, 128, 300)] == [b"\x00", b"\x7f", b"\x80\x01", b"\xac\x02"]


def test_a_schema_says_everything_it_holds() -> None:
    schema = {
        "$ref": "#/definitions/X",
        "description": "what",
        "type": "object",
        "format": "int32",
        "required": ["a", "b"],
        "enum": ["v"],
        "default": {"a": 1},
        "uniqueItems": True,
        "items": {"type": "string"},
        "additionalProperties": {"type": "integer"},
        "properties": {"a": {"type": "boolean"}},
        "x-kubernetes-group-version-kind": [{"group": "", "kind": "Pod", "version": "v1"}],
    }
    message = read(encode_schema(schema))
    assert message[1] == [b"#/definitions/X"] and message[4] == [b"what"] and message[2] == [b"int32"]
    assert read(message[22][0])[1] == [b"object"] and message[19] == [b"a", b"b"] and message[16] == [1]
    assert read(message[20][0])[2] == [b'"v"'] and read(message[5][0])[2] == [b'{"a":1}']
    assert read(read(read(message[23][0])[1][0])[22][0])[1] == [b"string"]
    assert read(read(read(message[21][0])[1][0])[22][0])[1] == [b"integer"]
    assert list(entries(message[25][0], 1)) == ["a"]
    (extension,) = message[31]
    assert read(extension)[1] == [b"x-kubernetes-group-version-kind"]
    assert b'"kind":"Pod"' in read(read(extension)[2][0])[2][0]


def test_parameters_are_told_apart_by_their_place() -> None:
    body = {"in": "body", "name": "body", "required": True, "schema": {"type": "object"}}
    query = {"in": "query", "name": "dryRun", "type": "string"}
    path = {"in": "path", "name": "name", "required": True, "type": "string"}
    operation = {"parameters": [body, query, path], "responses": {"200": {"description": "OK"}}}
    raw = encode_swagger({"paths": {"/p": {"patch": operation}}})
    patch = read(read(entries(read(raw)[8][0], 2)["/p"])[8][0])
    kinds = [read(read(p)[1][0]) for p in patch[8]]
    assert read(kinds[0][1][0])[3] == [b"body"] and read(kinds[0][1][0])[4] == [1]
    assert read(read(kinds[1][2][0])[3][0])[4] == [b"dryRun"]
    assert read(read(kinds[2][2][0])[4][0])[1] == [1]
    assert list(entries(patch[9][0], 1)) == ["200"]


def test_the_whole_document_names_every_kind() -> None:
    """DISC-7: kubectl looks for definitions and for PATCH operations that take fieldValidation."""
    raw = OpenApi(KINDS, "v1.36.0").swagger_protobuf().body
    document = read(raw)
    assert document[1] == [b"2.0"]
    definitions = entries(document[9][0], 1)
    assert {k.schema for k in KINDS} <= set(definitions)
    assert raw.count(b"fieldValidation") > len(KINDS)
