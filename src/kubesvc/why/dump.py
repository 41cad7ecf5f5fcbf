"""A snapshot from files: a directory or archive of YAML or JSON, such as `kubectl cluster-info dump` makes.

Whatever is broken costs only itself: one document of a file, one item of a list. It is said, skipped and counted.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from kubesvc.api import names
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import by_kind
from kubesvc.api.meta import Object, Typed
from kubesvc.clock import parse_rfc3339

from .snapshot import READ, Skipped, Snapshot, snapshot_of

SUFFIXES = (".json", ".yaml", ".yml")
SPARE = ("NetworkPolicy", "ResourceQuota", "Namespace", "ReplicationController", "StatefulSet")
"""Kinds whose absence from a dump is not worth a word."""
LARGEST_BYTES = 256 << 20
"""A file larger than this is skipped."""
FIRST_LINE = re.compile(r"^\{", re.MULTILINE)

Found = tuple[str, Object]
"""Where a document stands, and the document."""


def read_dump(path: Path) -> Snapshot:
    """The state that a dump holds; OSError if the path cannot be read."""
    objects, skipped, listed = read_objects(path, "")
    present = {kind.plural for kind in (*listed, *(kind for kind, _ in objects))}
    absent = frozenset(k.plural for k in READ if k.plural not in present and k.name not in SPARE)
    return snapshot_of(objects, latest(objects), source="dump", skipped=tuple(skipped), absent=absent)


def read_manifests(paths: Sequence[Path], namespace: str) -> Snapshot:
    """Manifests as they would be applied in `namespace`: defaulted, without status."""
    objects: list[tuple[Kind, Typed]] = []
    skipped: list[Skipped] = []
    for path in paths:
        found, more, _ = read_objects(path, namespace)
        objects += found
        skipped += more
    return snapshot_of(objects, 0.0, source="manifests", skipped=tuple(skipped))


def read_objects(path: Path, namespace: str) -> tuple[list[tuple[Kind, Typed]], list[Skipped], set[Kind]]:
    """All objects of kinds that matter below a path, what was skipped, and the kinds of which there is a list, be it
    empty.

    namespace: of manifests, which are defaulted as a server does; "" for a dump, which is taken as it is
    """
    skipped: list[Skipped] = []
    objects: list[tuple[Kind, Typed]] = []
    unknown: dict[str, int] = {}
    listed: set[Kind] = set()
    for name, raw in files(path, skipped):
        for where, document in documents(name, raw, skipped):
            if (kind := listed_kind(document)) is not None:
                listed.add(kind)
            for item_where, item in items(where, document, skipped):
                kind = by_kind(str(item.get("apiVersion") or ""), str(item.get("kind") or ""))
                if kind is None:
                    label = f"{item.get('apiVersion')}/{item.get('kind')}"
                    unknown[label] = unknown.get(label, 0) + 1
                elif kind in READ:
                    typed = decode(kind, item, namespace, item_where, skipped)
                    objects += [(kind, typed)] if typed is not None else []
    skipped += [
        Skipped(label, f"{n} objects of an unknown kind" if n > 1 else "an object of an unknown kind")
        for label, n in sorted(unknown.items())
    ]
    return objects, skipped, listed


def listed_kind(document: Object) -> Kind | None:
    """The kind of the items of a list such as `PodList`; None for anything else."""
    name = document.get("kind")
    if not isinstance(name, str) or not name.endswith("List"):
        return None
    return by_kind(str(document.get("apiVersion") or ""), name.removesuffix("List"))


def files(path: Path, skipped: list[Skipped]) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file that may hold objects, in order of names; `-` is standard input."""
    if str(path) == "-":
        yield "standard input", sys.stdin.buffer.read(LARGEST_BYTES)
    elif path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file()):
            if file.stat().st_size > LARGEST_BYTES:
                skipped.append(Skipped(str(file), "too large"))
            else:
                yield str(file.relative_to(path)), file.read_bytes()
    elif path.name.endswith(".zip"):
        yield from zipped(path, skipped)
    elif path.name.endswith((".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")):
        yield from archived(path, skipped)
    else:
        yield path.name, path.read_bytes()


def zipped(path: Path, skipped: list[Skipped]) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for info in sorted(archive.infolist(), key=lambda i: i.filename):
                if not info.filename.endswith(SUFFIXES):
                    continue
                if info.file_size > LARGEST_BYTES:
                    skipped.append(Skipped(info.filename, "too large"))
                    continue
                yield info.filename, archive.read(info)
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
        skipped.append(Skipped(path.name, f"the archive is broken: {error}"))


def archived(path: Path, skipped: list[Skipped]) -> Iterator[tuple[str, bytes]]:
    """Nothing is unpacked to disk."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if not member.isfile() or not member.name.endswith(SUFFIXES):
                    continue
                content = archive.extractfile(member)
                if content is None or member.size > LARGEST_BYTES:
                    skipped.append(Skipped(member.name, "too large"))
                    continue
                yield member.name, content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        skipped.append(Skipped(path.name, f"the archive is broken: {error}"))


def documents(name: str, raw: bytes, skipped: list[Skipped]) -> Iterator[Found]:
    """The documents of one file; of a broken file those that can be read."""
    text = raw.decode("utf-8-sig", errors="replace")
    if not text.strip():
        return
    if text.lstrip()[0] in "{[":
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            broken: list[Skipped] = []
            found = list(scattered(name, text, broken))
            if found or not is_yaml(text):
                skipped += broken
                yield from found
                return
        else:
            yield from plain(name, value, skipped)
            return
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for number, part in enumerate(re.split(r"^---(?=[ \t\r]|$)", text, flags=re.MULTILINE), 1):
        if not part.strip():
            continue
        where = f"{name} (document {number})" if number > 1 else name
        try:
            value = yaml.load(part, loader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            at = f" in line {mark.line + 1} of the document" if mark else ""
            skipped.append(Skipped(where, f"no YAML: {getattr(error, 'problem', None) or error}{at}"))
            continue
        yield from plain(where, value, skipped)


def is_yaml(text: str) -> bool:
    """Whether what begins like JSON is YAML in its flow style: `{kind: Service}`."""
    import yaml

    try:
        for _ in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            pass
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    return True


def scattered(name: str, text: str, skipped: list[Skipped]) -> Iterator[Found]:
    """JSON objects one after another, with other text between them, as a dump to standard output has."""
    decoder = json.JSONDecoder()
    position, found = 0, 0
    while (match := FIRST_LINE.search(text, position)) is not None:
        line = text.count("\n", 0, match.start()) + 1
        try:
            value, position = decoder.raw_decode(text, match.start())
        except json.JSONDecodeError as error:
            skipped.append(Skipped(f"{name}:{line}", f"no JSON: {error.msg} in line {line + error.lineno - 1}"))
            position = match.end()
            continue
        found += 1
        yield from plain(f"{name}:{line}", value, skipped)
    if not found and not any(s.where.startswith(name) for s in skipped):
        skipped.append(Skipped(name, "holds no objects"))


def plain(where: str, value: Any, skipped: list[Skipped]) -> Iterator[Found]:
    if value is None:
        return
    if not isinstance(value, dict):
        skipped.append(Skipped(where, f"no object but a {type(value).__name__}"))
        return
    yield where, value


def items(where: str, document: Object, skipped: list[Skipped]) -> Iterator[Found]:
    """The objects of a list, whose items may leave out kind and apiVersion; else the object itself."""
    kind = document.get("kind")
    if not isinstance(kind, str):
        skipped.append(Skipped(where, "no kind"))
        return
    listed = document.get("items")
    if not kind.endswith("List") or not (listed is None or isinstance(listed, list)):
        yield where, document
        return
    for number, item in enumerate(listed or ()):
        if not isinstance(item, dict):
            skipped.append(Skipped(f"{where}, item {number}", "no object"))
            continue
        given = {"apiVersion": document.get("apiVersion"), "kind": kind.removesuffix("List")}
        yield from items(f"{where}, item {number}", {**given, **item}, skipped)


def decode(kind: Kind, item: Object, namespace: str, where: str, skipped: list[Skipped]) -> Typed | None:
    """The typed object, None if it is none; without a namespace it is in `namespace`, or `default`."""
    try:
        meta = item.get("metadata")
        if not isinstance(meta, dict) or not (meta.get("name") or meta.get("generateName")):
            skipped.append(Skipped(where, f"a {kind.name} without a name"))
            return None
        if namespace:
            meta.setdefault("name", meta.get("generateName"))
        if kind.namespaced and not meta.get("namespace"):
            meta["namespace"] = namespace or "default"
        texts = [*(kind.name_errors or names.dns_subdomain)(meta["name"])]
        texts += names.dns_label(meta["namespace"]) if kind.namespaced else []
        if texts:
            skipped.append(Skipped(where, f"a {kind.name} with a name that is none: {texts[0]}"))
            return None
        if namespace:
            kind.default(item)
        return msgspec.convert(item, kind.type)
    except (msgspec.ValidationError, AttributeError, TypeError, ValueError, KeyError) as error:
        skipped.append(Skipped(where, f"no {kind.name}: {error}"))
        return None


def latest(objects: Sequence[tuple[Kind, Typed]]) -> float:
    """The latest moment that any object tells, which is about when the dump was made."""
    moments = [0.0]
    for _, obj in objects:
        stamps = [obj.metadata.creation_timestamp, getattr(obj, "last_timestamp", None)]
        conditions = getattr(getattr(obj, "status", None), "conditions", None) or ()
        for c in conditions:
            stamps += [c.last_transition_time, getattr(c, "last_heartbeat_time", None)]
        for stamp in stamps:
            try:
                moments.append(parse_rfc3339(stamp) if stamp else 0.0)
            except ValueError:
                continue
    return max(moments)
