"""How objects lie in the store: their keys, their bytes, and the splicing of bytes into answers.

A stored value is the object's JSON without resourceVersion, beginning with a text that is the same for all objects of
the kind: `{"kind":"Pod","apiVersion":"v1","metadata":{`. An answer is that prefix, the resourceVersion, and the rest,
so serving an object decodes and encodes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import msgspec

from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object

ROOT = "/registry/"

METADATA_ORDER = (
    "name", "generateName", "namespace", "uid", "generation", "creationTimestamp", "deletionTimestamp",
    "deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers", "managedFields",
)  # fmt: skip
"""Order in which metadata is written, which is upstream's; resourceVersion is spliced in front."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Object)


META = b'"metadata":{'


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
    """The text that every value of the kind begins with, as it is answered; built-in kinds are stored so too."""
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
    """A stored value, as far as it is shown, from its first field of metadata on. A custom kind's may be stored under
    another version."""
    if kind.custom is None:
        return memoryview(value if kind.shown is None else kind.shown(value))[len(head(kind)) :]
    value = kind.custom.narrowed(value)
    return memoryview(value)[value.index(META) + len(META) :]


def answer(kind: Kind, value: bytes, revision: int) -> bytes:
    """The object as it is sent alone; revision 0 leaves resourceVersion out (dry run, OPT-1)."""
    if not revision:
        return b"%s%s" % (head(kind), after_head(kind, value))
    return b'%s"resourceVersion":"%d",%s' % (head(kind), revision, after_head(kind, value))


def list_item(kind: Kind, value: bytes, revision: int) -> bytes:
    """The object as it stands in a list: without kind and apiVersion (READ-3)."""
    return b'{"metadata":{"resourceVersion":"%d",%s' % (revision, after_head(kind, value))


def list_chunks(kind: Kind, start: bytes, items: Iterable[tuple[bytes, int]], most_bytes: int) -> Iterator[bytes]:
    """The list that begins with `start` and holds these (value, revision) objects of a stored kind, in pieces a little
    longer than `most_bytes`; each object's bytes are copied once."""
    parts: list[bytes | memoryview] = [start]
    size = 0
    skipped = len(head(kind)) if kind.custom is None and kind.shown is None else 0
    between = b""
    for value, revision in items:
        parts.append(b'%s{"metadata":{"resourceVersion":"%d",' % (between, revision))
        parts.append(memoryview(value)[skipped:] if skipped else after_head(kind, value))
        between = b","
        size += len(value)
        if size >= most_bytes:
            yield b"".join(parts)
            parts = []
            size = 0
    parts.append(b"]}")
    yield b"".join(parts)
