"""The OpenAPI 2 document in the protobuf form that kubectl asks for where a manifest is a List (DISC-6).

The messages are those of the published gnostic description of OpenAPI 2; numbers and names below are its facts. Every
field that our own documents use is here; the test reads what is written with an independent table taken from kubectl.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
ASKED_AS = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"

VERBS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}
FLAGS = {"exclusiveMaximum": 8, "exclusiveMinimum": 10, "uniqueItems": 16, "readOnly": 27}
TEXTS = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13, "discriminator": 26}


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def piece(number: int, content: bytes) -> bytes:
    """A field that holds bytes: text or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def text(number: int, content: str) -> bytes:
    return piece(number, content.encode())


def flag(number: int, value: bool) -> bytes:
    return varint(number << 3) + b"\x01" if value else b""


def named(number: int, name: str, content: bytes) -> bytes:
    """An entry of a map: a message of name and value."""
    return piece(number, text(1, name) + piece(2, content))


def extensions(number: int, holder: Mapping[str, Any]) -> Iterator[bytes]:
    """The `x-…` members, each as YAML, which JSON is."""
    for name, value in holder.items():
        if name.startswith("x-"):
            yield named(number, name, text(2, msgspec.json.encode(value).decode()))


def encode_swagger(document: Mapping[str, Any]) -> bytes:
    """An OpenAPI 2 document (decoded JSON) as protobuf."""
    info = document.get("info", {})
    parts = [
        text(1, document.get("swagger", "2.0")),
        piece(2, text(1, info.get("title", "")) + text(2, info.get("version", ""))),
    ]
    paths = b"".join(named(2, path, encode_path(item)) for path, item in document.get("paths", {}).items())
    parts.append(piece(8, paths))
    schemas = document.get("definitions", {}).items()
    parts.append(piece(9, b"".join(named(1, name, encode_schema(schema)) for name, schema in schemas)))
    return b"".join(parts)


def encode_path(item: Mapping[str, Any]) -> bytes:
    """PathItem."""
    parts = [piece(number, encode_operation(item[verb])) for verb, number in VERBS.items() if verb in item]
    parts += [piece(9, encode_parameter(p)) for p in item.get("parameters", ())]
    return b"".join([*parts, *extensions(10, item)])


def encode_operation(operation: Mapping[str, Any]) -> bytes:
    """Operation."""
    parts = [text(1, tag) for tag in operation.get("tags", ())]
    if operation.get("description"):
        parts.append(text(3, operation["description"]))
    if operation.get("operationId"):
        parts.append(text(5, operation["operationId"]))
    parts += [text(6, media_type) for media_type in operation.get("produces", ())]
    parts += [text(7, media_type) for media_type in operation.get("consumes", ())]
    parts += [piece(8, encode_parameter(p)) for p in operation.get("parameters", ())]
    answers = operation.get("responses", {}).items()
    parts.append(piece(9, b"".join(named(1, code, piece(1, encode_response(r))) for code, r in answers)))
    return b"".join([*parts, *extensions(13, operation)])


def encode_parameter(parameter: Mapping[str, Any]) -> bytes:
    """ParametersItem: a body parameter, or one of the query or the path."""
    required, where = parameter.get("required", False), parameter.get("in", "")
    description, name = parameter.get("description", ""), parameter.get("name", "")
    if where == "body":
        schema = piece(5, encode_schema(parameter.get("schema", {})))
        body = text(1, description) + text(2, name) + text(3, where) + flag(4, required) + schema
        return piece(1, piece(1, body))
    content = flag(1, required) + text(2, where) + text(3, description) + text(4, name)
    kind = text(6 if where == "query" else 5, parameter.get("type", "string"))
    return piece(1, piece(2, piece(3 if where == "query" else 4, content + kind)))


def encode_response(response: Mapping[str, Any]) -> bytes:
    """Response."""
    content = text(1, response.get("description", ""))
    if "schema" in response:
        content += piece(2, piece(1, encode_schema(response["schema"])))
    return content


def encode_schema(schema: Mapping[str, Any]) -> bytes:
    """Schema."""
    parts = [text(number, schema[name]) for name, number in TEXTS.items() if name in schema]
    parts += [flag(number, schema[name]) for name, number in FLAGS.items() if name in schema]
    if "default" in schema:
        parts.append(piece(5, text(2, msgspec.json.encode(schema["default"]).decode())))
    parts += [text(19, name) for name in schema.get("required", ())]
    parts += [piece(20, text(2, msgspec.json.encode(value).decode())) for value in schema.get("enum", ())]
    more = schema.get("additionalProperties")
    if isinstance(more, bool):
        parts.append(piece(21, flag(2, more)))
    elif more is not None:
        parts.append(piece(21, piece(1, encode_schema(more))))
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        parts.append(piece(22, b"".join(text(1, kind) for kind in kinds)))
    if "items" in schema:
        parts.append(piece(23, piece(1, encode_schema(schema["items"]))))
    parts += [piece(24, encode_schema(part)) for part in schema.get("allOf", ())]
    if "properties" in schema:
        fields = schema["properties"].items()
        parts.append(piece(25, b"".join(named(1, name, encode_schema(field)) for name, field in fields)))
    return b"".join([*parts, *extensions(31, schema)])
