"""How objects lie in the store: their keys, their bytes, and the splicing of bytes into answers.

A stored value is the object's JSON without resourceVersion, beginning with a text that is the same for all objects of
the kind: `{"kind":"Pod","apiVersion":"v1","metadata":{`. An answer is that prefix, the resourceVersion, and the rest,
so serving an object decodes and encodes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import msgspec

from kubesvc.api.customkind import CustomForm
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object

ROOT = "/registry/"

METADATA_ORDER = (
    "name", "generateName", "namespace", "uid", "generation", "creationTimestamp", "deletionTimestamp",
    "deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers", "managedFields",
)  # fmt: skip
"""Order in which metadata is written, which is upstream's; resourceVersion is spliced in front."""

_encoder = msgspec.json.Encoder()
_sorting_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Object)


def kind_prefix(kind: Kind) -> str:
    """Key prefix of a kind's objects. Kinds of several groups that are views of one store share it (EVENT-2), and so
    do all versions of a custom kind."""
    return kept_prefix(kind) if kind.custom is None else f"{ROOT}{kind.group}/{kind.plural}/"


@cache
def kept_prefix(kind: Kind) -> str:
    if kind.group == "events.k8s.io":
        return f"{ROOT}core/events/"
    return f"{ROOT}{kind.group or 'core'}/{kind.plural}/"


def storage_key(kind: Kind, namespace: str, name: str) -> str:
    """Key of one object. Byte order of keys is the order of lists (LIST-2)."""
    prefix = kind_prefix(kind)
    return f"{prefix}{namespace}/{name}" if kind.namespaced else prefix + name


def head(kind: Kind) -> bytes:
    """The text that every value of the kind begins with."""
    return kept_head(kind) if kind.custom is None else kind.custom.head


@cache
def kept_head(kind: Kind) -> bytes:
    return b'{"kind":"%s","apiVersion":"%s","metadata":{' % (kind.name.encode(), kind.api_version.encode())


def encode(kind: Kind, obj: Object) -> bytes:
    """The stored value of an object; its kind, apiVersion and resourceVersion fields are not looked at."""
    meta = obj["metadata"]
    ordered = {k: meta[k] for k in METADATA_ORDER if k in meta}
    if len(ordered) < len(meta):
        ordered.update((k, v) for k, v in meta.items() if k not in ordered and k != "resourceVersion")
    version = kind.api_version
    if kind.custom is not None:  # what a webhook converted says itself what it is
        version = kind.custom.stored_api_version if kind.custom.webhook is None else obj["apiVersion"]
    body = {"kind": kind.name, "apiVersion": version, "metadata": ordered}
    body.update((k, v) for k, v in obj.items() if k not in body)
    return _encoder.encode(body)


def decode(value: bytes, revision: int) -> Object:
    """The plain object of a stored value with its resourceVersion; the caller owns it."""
    obj: Object = _decoder.decode(value)
    meta = obj["metadata"]
    ordered = {"name": meta.pop("name", ""), "resourceVersion": str(revision)}
    ordered.update(meta)
    obj["metadata"] = ordered
    return obj


def seen(kind: Kind, value: bytes, revision: int) -> Object:
    """As `decode`, in the form of the kind: of a custom kind, as its version has it. What a write starts from."""
    custom = kind.custom
    if custom is None:
        return decode(value, revision)
    return custom.seen(decode(custom.narrowed(value) if custom.foreign(value) else value, revision))


def shown(kind: Kind, value: bytes, revision: int) -> Object:
    """As `seen`, without what the kind keeps and does not show."""
    return seen(kind, value if kind.shown is None else kind.shown(value), revision)


def after_head(kind: Kind, value: bytes) -> memoryview:
    """A stored value of a built-in kind, as far as it is shown, from its first field of metadata on."""
    return memoryview(value if kind.shown is None else kind.shown(value))[len(head(kind)) :]


def custom_answer(kind: Kind, custom: CustomForm, value: bytes, revision: int) -> bytes:
    """An object of a custom kind as it is sent: its fields in the order of their names at every level, as upstream has
    them of what it knows no type for. It may be stored under another version."""
    obj: Object = _decoder.decode(custom.narrowed(value))
    obj["kind"], obj["apiVersion"] = kind.name, kind.api_version
    if revision:
        obj["metadata"]["resourceVersion"] = str(revision)
    return _sorting_encoder.encode(obj)


def answer(kind: Kind, value: bytes, revision: int) -> bytes:
    """The object as it is sent alone; revision 0 leaves resourceVersion out (dry run, OPT-1)."""
    if kind.custom is not None:
        return custom_answer(kind, kind.custom, value, revision)
    if not revision:
        return b"%s%s" % (head(kind), after_head(kind, value))
    return b'%s"resourceVersion":"%d",%s' % (head(kind), revision, after_head(kind, value))


def list_item(kind: Kind, value: bytes, revision: int) -> bytes:
    """The object as it stands in a list: without kind and apiVersion (READ-3), but for custom kinds."""
    if kind.custom is not None:
        return custom_answer(kind, kind.custom, value, revision)
    return b'{"metadata":{"resourceVersion":"%d",%s' % (revision, after_head(kind, value))


def list_chunks(
    kind: Kind, start: bytes, items: Iterable[tuple[bytes, int]], end: bytes, most_bytes: int
) -> Iterator[bytes]:
    """The list that begins with `start`, holds these (value, revision) objects of a stored kind and ends with `end`, in
    pieces a little longer than `most_bytes`; a built-in object's bytes are copied once."""
    parts: list[bytes | memoryview] = [start]
    size = 0
    custom = kind.custom
    skipped = len(head(kind)) if kind.shown is None else 0
    between = b""
    for value, revision in items:
        if custom is not None:
            parts += (between, custom_answer(kind, custom, value, revision))
        else:
            parts.append(b'%s{"metadata":{"resourceVersion":"%d",' % (between, revision))
            parts.append(memoryview(value)[skipped:] if skipped else after_head(kind, value))
        between = b","
        size += len(value)
        if size >= most_bytes:
            yield b"".join(parts)
            parts = []
            size = 0
    parts.append(end)
    yield b"".join(parts)
