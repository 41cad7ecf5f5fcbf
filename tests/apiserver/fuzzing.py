"""Hostile requests by seed: what a fuzzer sends, and a client that sends bytes as they are.

`Fuzzer(seed)` makes one request after another; the same seed makes the same requests. Nothing here asserts.
"""
# ruff: noqa: E501 - tables of bytes are read whole

from __future__ import annotations

import asyncio
import copy
import json
import random
import ssl
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from kubesvc.api import schema
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import CONFIG_MAP, ENDPOINT_SLICE, ENDPOINTS, KINDS, POD, SERVICE
from kubesvc.api.schema import Field

NAMESPACE = "fuzz"
DEPTH = 9
PATCHES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
BASES: dict[str, tuple[Kind, dict[str, Any]]] = {
    "services": (
        SERVICE,
        {
            "spec": {
                "selector": {"a": "b"},
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
            }
        },
    ),
    "endpoints": (ENDPOINTS, {"subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]}),
    "endpointslices": (
        ENDPOINT_SLICE,
        {"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": [{"port": 80, "name": ""}]},
    ),
    "pods": (POD, {"spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}),
    "configmaps": (CONFIG_MAP, {"data": {"k": "v"}}),
}


@dataclass
class Request:
    """One request. `raw` is sent instead of everything else when set; `abandon`: the sender leaves in the middle."""

    method: str = "GET"
    target: str = "/"
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    raw: bytes = b""
    abandon: bool = False
    what: str = ""

    def bytes(self) -> bytes:
        if self.raw:
            return self.raw
        head = f"{self.method} {self.target} HTTP/1.1\r\nHost: api\r\n"
        head += "".join(f"{k}: {v}\r\n" for k, v in self.headers)
        if self.body or self.method in ("POST", "PUT", "PATCH"):
            head += f"Content-Length: {len(self.body)}\r\n"
        return head.encode("utf-8", "surrogateescape") + b"\r\n" + self.body


# ---------------------------------------------------------------- values


class Spelled(float):
    """A number that is printed as spelled."""


HUGE = ("1e400", "-1e400", "1" * 400, "9223372036854775808", "-9223372036854775809", "0.1e-999", "1E5", "-0", "1.0")
TEXTS = (
    "", " ", "a" * 300, "\x00", "\ud800", "é", "𝕏", "a\nb", "../..", "-1", "10.96.0.1", "::ffff:1.2.3.4", "::1%eth0",
    "256.1.1.1", "010.0.0.1", "127.0.0.1", "TCP", "http", "None", "0", "A.B", "a--b", "%41", "%s%n", "${x}", "<script>",
    "2020-01-01T00:00:00Z", "2020-13-45T99:99:99Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.9999999999Z", "1e3Ki",
    "1Ei1", "١٢٣", "٣", "½", "1_000", "0x10", "1e99999999", "0." + "0" * 200 + "1", "999999999999999999999Ei", "²",
)  # fmt: skip


def wrong_values() -> tuple[Any, ...]:
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    return (
        None, True, False, 0, -1, 1, 65536, 2**31, 2**63, -(2**63) - 1, 1.5, [], {}, [None], [[]], [{}], {"": ""},
        {"a": None}, {"\x00": "\x00"}, [1, "a", None, {}], {"name": 1}, [{"name": None}], deep, {"a" * 400: "b"},
    *TEXTS,)  # fmt: skip


WRONG = wrong_values()

Place = tuple[str | int, ...]


@cache
def places(name: str) -> tuple[tuple[Place, str], ...]:
    """Every place below a definition, through the first item of lists and a key of maps, with the type there."""

    def walk(fields: dict[str, Field], at: Place, above: tuple[str, ...]) -> Iterator[tuple[Place, str]]:
        for key, found in fields.items():
            yield from below(found, (*at, key), above)

    def below(found: Field, at: Place, above: tuple[str, ...]) -> Iterator[tuple[Place, str]]:
        yield at, found.type
        if len(at) >= DEPTH:
            return
        if found.type == "array" and found.items is not None:
            yield from below(found.items, (*at, 0), above)
        elif found.type == "map" and found.items is not None:
            yield from below(found.items, (*at, "k"), above)
        elif found.type == "object" and found.ref not in above:
            yield from walk(schema.definition(found.ref).fields, at, (*above, found.ref))

    return tuple(walk(schema.definition(name).fields, (), (name,)))


def put(obj: Any, place: Place, value: Any) -> None:
    """Set a value, making the way to it."""
    here = obj
    for step, following in pairwise(place):
        empty: Any = [] if isinstance(following, int) else {}
        if isinstance(step, int):
            if not isinstance(here, list):
                return
            while len(here) <= step:
                here.append(copy.deepcopy(empty))
        else:
            if not isinstance(here, dict):
                return
            if not isinstance(here.get(step), type(empty)):
                here[step] = empty
        here = here[step]
    last = place[-1]
    if isinstance(last, int):
        if isinstance(here, list):
            here[:] = [value]
    elif isinstance(here, dict):
        here[last] = value


def base_object(plural: str, name: str) -> dict[str, Any]:
    kind, body = BASES[plural]
    meta = {"name": name, "namespace": NAMESPACE, "labels": {"fuzz": "yes"}}
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": meta, **copy.deepcopy(body)}


# ---------------------------------------------------------------- the fuzzer


class Fuzzer:
    """Requests without end, from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.at = dict.fromkeys(BASES, 0)
        self.makers: tuple[tuple[int, Callable[[], Request]], ...] = (
            (30, self.wrong_type),
            (12, self.mutated_json),
            (8, self.odd_json),
            (8, self.yaml),
            (8, self.protobuf),
            (18, self.patch),
            (12, self.hostile_target),
            (8, self.hostile_query),
            (6, self.hostile_headers),
            (8, self.raw_http),
            (4, self.subresource),
            (3, self.review),
        )

    def __iter__(self) -> Iterator[Request]:
        weights = [w for w, _ in self.makers]
        makers = [m for _, m in self.makers]
        while True:
            for maker in self.random.choices(makers, weights, k=64):
                request = maker()
                request.what = request.what or maker.__name__
                yield request

    # -------------------------------------------------- pieces

    def one(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def plural(self) -> str:
        return self.random.choice(("services", "endpoints", "endpointslices", "pods"))

    def name(self) -> str:
        return f"f{self.random.randrange(12)}"

    def value(self, depth: int = 0) -> Any:
        """Any JSON value."""
        r = self.random.random()
        if depth > 4 or r < 0.6:
            return copy.copy(self.random.choice(WRONG))
        if r < 0.8:
            return [self.value(depth + 1) for _ in range(self.random.randrange(4))]
        return {self.key(): self.value(depth + 1) for _ in range(self.random.randrange(4))}

    def typed(self, type: str) -> Any:
        """An odd value of the right type."""
        match type:
            case "string":
                return self.random.choice(TEXTS)
            case "integer":
                return self.one(0, -1, 1, 65535, 65536, 2**31 - 1, -(2**31), 2**63 - 1)
            case "number":
                return self.one(0, -1.5, 1e300)
            case "boolean":
                return self.one(True, False)
            case "array":
                return self.one([], [{}], [""], [{}, {}], ["a", "a"], [{"name": "a"}, {"name": "a"}], [None])
            case _:
                return self.one({}, {"k": "v"}, {"": ""}, {"a/b/c": "\x00"}, {"name": "x"}, None)

    def key(self) -> str:
        found: str = self.one(
            "metadata", "spec", "status", "name", "ports", "labels", "kind", "apiVersion", "$patch", "$retainKeys", "items",
            "$setElementOrder/ports", "$deleteFromPrimitiveList/finalizers", "finalizers", "port", "", "\x00", "é", "a" * 70,
            "managedFields", "$setElementOrder/containers", "containers", "$patch/x", "annotations", "ownerReferences",
        )  # fmt: skip
        return found

    def path_of(self, plural: str, name: str = "", subresource: str = "") -> str:
        return BASES[plural][0].path(NAMESPACE, name, subresource)

    def encoded(self, value: Any) -> bytes:
        return json.dumps(value).encode()

    def huge(self, raw: bytes) -> bytes:
        """Numbers of a text replaced by ones that fit nowhere."""
        for old in (b": 80", b": 1", b"65536"):
            if old in raw and self.random.random() < 0.7:
                return raw.replace(old, b": " + self.random.choice(HUGE).encode(), 1)
        return raw

    def damaged(self, raw: bytes) -> bytes:
        """A text with a few bytes changed, removed, repeated, or cut off."""
        out = bytearray(raw)
        for _ in range(self.random.choice((1, 1, 2, 3, 8))):
            at = self.random.randrange(len(out) + 1)
            match self.random.randrange(7):
                case 0:
                    out[at : at + 1] = self.random.randbytes(1)
                case 1:
                    out[at:at] = self.random.randbytes(self.random.randrange(1, 4))
                case 2:
                    del out[at : at + self.random.randrange(1, 9)]
                case 3:
                    out[at:at] = out[at : at + self.random.randrange(1, 40)]
                case 4:
                    out[at:at] = self.random.choice(
                        (b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u0000", b"\\ud800", b"null", b"\xff\xfe",
                         b"\xc0\x80", b"\xed\xa0\x80", b"\x00", b"1e999", b"-", b"\xef\xbb\xbf", b"//", b"NaN")
                    )  # fmt: skip
                case 5:
                    del out[at:]
                case 6 if out:
                    at = self.random.randrange(len(out))
                    out[at] ^= 1 << self.random.randrange(8)
        return bytes(out)

    def write(self, plural: str, body: bytes, content_type: str = "application/json") -> Request:
        """A create or a replacement with some body."""
        headers = [("Content-Type", content_type)]
        validation = self.one("", "?fieldValidation=Strict", "?fieldValidation=Ignore", "?dryRun=All", "?pretty=1")
        if self.random.random() < 0.6:
            return Request("POST", self.path_of(plural) + validation, headers, body)
        sub = "status" if plural in ("services", "pods") and self.random.random() < 0.4 else ""
        return Request("PUT", self.path_of(plural, self.name(), sub) + validation, headers, body)

    # -------------------------------------------------- makers

    def wrong_type(self) -> Request:
        """The next place of a kind's schema with a value of a wrong type, or of the right one and odd."""
        plural = self.plural()
        found = places(BASES[plural][0].schema)
        place, type = found[self.at[plural] % len(found)]
        self.at[plural] += self.one(1, 1, 1, 7)
        obj = base_object(plural, self.name())
        put(obj, place, self.typed(type) if self.random.random() < 0.5 else self.value())
        while self.random.random() < 0.3:
            place, type = self.random.choice(found)
            put(obj, place, self.typed(type))
        raw = self.encoded(obj)
        return self.write(plural, self.huge(raw) if self.random.random() < 0.2 else raw)

    def mutated_json(self) -> Request:
        plural = self.plural()
        raw = self.encoded(base_object(plural, self.name()))
        return self.write(plural, self.damaged(raw))

    def odd_json(self) -> Request:
        plural = self.plural()
        depth = self.one(100, 1000, 10_000, 100_000)
        found = self.one(
            b"", b"null", b"[]", b"1", b'""', b"{}", b"{" * depth, b"[" * depth, b'{"a":' * depth + b"1" + b"}" * depth,
            b"[" * depth + b"]" * depth, b'{"metadata":{"annotations":' + b'{"a":' * 500 + b"1" + b"}" * 502,
            b'{"spec":' + b"[" * depth + b"]" * depth + b"}", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"{}{}", b"{} x",
            b'{"kind":"Service","kind":"Pod"}', b'{"metadata":{"name":"a","name":"b"}}', b"1" * 10_000,
            b'{"spec":{"ports":[{"port":' + b"9" * 5000 + b"}]}}", b'"' + b"\\u0000" * 1000 + b'"',
            b'{"metadata":{"name":"' + b"\\ud83d" * 10 + b'"}}', b'{"metadata":{"creationTimestamp":"' + b"9" * 500 + b'"}}',
            b'{"spec":{"containers":[{"resources":{"limits":{"cpu":"1e1000000000"}}}]}}',
            b'{"apiVersion":"v1","kind":"' + b"x" * 3000 + b'"}', b'{"kind":"List","apiVersion":"v1","items":[]}',
            b'{"kind":"Status","apiVersion":"v1"}', b'{"kind":"PodList","apiVersion":"v1"}',
            self.encoded({"metadata": {"name": "a", "managedFields": self.value()}}),
            self.encoded({"metadata": {"name": "m", "managedFields": [{"manager": "x", "operation": "Apply",
                          "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": self.value()}]}}),
        )  # fmt: skip
        return self.write(plural, found)

    def yaml(self) -> Request:
        plural = self.plural()
        bomb = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
            b"%c: &%c [%s]\n" % (c + 1, c + 1, b",".join([b"*%c" % c] * 9)) for c in range(97, 97 + self.random.randrange(2, 12))
        )  # fmt: skip
        loop = b"metadata: &m\n  name: x\n  labels: *m\n"
        plain = b"apiVersion: v1\nkind: Service\nmetadata: {name: y, namespace: fuzz}\nspec:\n  ports:\n  - port: 80\n"
        deep = self.one(100, 3000, 20_000)
        found = self.one(
            bomb, b"metadata:\n  annotations:\n    x: 1\n" + bomb, loop, plain, self.damaged(plain), self.damaged(plain),
            self.damaged(bomb), b"- " * deep + b"x", b"{" * deep, b"[" * deep, b"a: " * deep, b"--- a\n--- b\n", b"%YAML 9.9\n---\n{}",
            b"!!python/object/apply:os.system ['true']", b"spec: !!binary AAAA", b"spec: !<tag:x> {}", b"? {a: b}\n: c\n",
            b"? [a]\n: c\n", b"<<: {a: 1}\n", b"<<: [1, 2]\n", b"x: 2001-12-14t21:59:43.10-05:00\n", b"x: 0o17\ny: 0b11\nz: .inf\n",
            b"x: .nan\n", b"1: 2\ntrue: 3\nnull: 4\n", b"\t", b"x: \"\\ud800\"", b"\xff\xfe\x00", b"x: |\n " + b"y" * 50_000,
            b"*a", b"&a", b"a: &a\n  b: *a\n", b"a: 1e400\nb: 9999999999999999999999999999\n", b"x: 1:30:00\n", b"# only\n",
            b"metadata: {creationTimestamp: 2001-12-14}\n", b"=: =\n", b"x: ~\nx: ~\n", b"\x00", b"a: 'b\n", b"a: \"\\x\"\n",
        )  # fmt: skip
        return self.write(plural, found, "application/yaml")

    def protobuf(self) -> Request:
        plural = self.plural()
        kind = BASES[plural][0]

        def varint(n: int) -> bytes:
            out = bytearray()
            while n > 127:
                out.append(n & 127 | 128)
                n >>= 7
            return bytes([*out, n])

        def chunk(number: int, raw: bytes) -> bytes:
            return varint(number << 3 | 2) + varint(len(raw)) + raw

        def junk(depth: int) -> bytes:
            out = b""
            for _ in range(self.random.randrange(5)):
                number = self.one(1, 1, 2, 2, 3, 4, 5, 9, 15, 16, 99, 2**28, 0)
                match self.random.randrange(5):
                    case 0:
                        out += varint(number << 3) + varint(self.one(0, 1, 80, 2**31, 2**63, 2**64 - 1, 2**70))
                    case 1:
                        out += chunk(number, self.one(b"", b"name", b"\xff\xfe", b"10.1.1.1", self.random.randbytes(6)))
                    case 2 if depth < 6:
                        out += chunk(number, junk(depth + 1))
                    case 3:
                        out += varint(number << 3 | self.one(1, 3, 4, 5, 6, 7)) + self.random.randbytes(4)
                    case _:
                        out += varint(number << 3 | 2) + varint(self.one(2**31, 2**63, 1000)) + b"x"
            return out

        meta = chunk(1, chunk(1, self.name().encode()) + chunk(3, NAMESPACE.encode()))
        type_meta = chunk(1, kind.api_version.encode()) + chunk(2, kind.name.encode())
        message = self.one(meta + junk(0), meta + chunk(2, junk(0)), junk(0), meta, self.random.randbytes(40))
        envelope = chunk(1, type_meta) + chunk(2, message)
        deep = b""
        for _ in range(self.one(10, 2000)):
            deep = chunk(2, deep)
        raw = b"k8s\x00" + self.one(envelope, envelope, envelope, junk(0), b"", deep, self.damaged(envelope))
        if self.random.random() < 0.1:
            raw = self.damaged(raw)
        return self.write(plural, raw, "application/vnd.kubernetes.protobuf")

    def pointer(self) -> str:
        steps = [
            self.one("metadata", "spec", "ports", "0", "-", "1", "-1", "01", "name", "labels", "~0", "~1", "~2", "", "status",
                     "99999999999999999999", "annotations", "finalizers", "a/b", "é", "1e1", "٣", "containers")
            for _ in range(self.random.randrange(5))
        ]  # fmt: skip
        return f"{self.one('/', '', 'x')}{'/'.join(steps)}"

    def patch(self) -> Request:
        plural = self.plural()
        kind = BASES[plural][0]
        content_type = self.random.choice(list(PATCHES))
        body: Any
        if PATCHES[content_type] == "json":
            body = [
                {
                    "op": self.one("add", "remove", "replace", "move", "copy", "test", "x", 1, None),
                    "path": self.one(self.pointer(), self.pointer(), self.pointer(), None, 3),
                    "from": self.one(self.pointer(), self.pointer(), None, []),
                    "value": self.value(),
                }
                for _ in range(self.random.randrange(4))
            ]
            for operation in body:
                for key in list(operation):
                    if self.random.random() < 0.1:
                        del operation[key]
            if self.random.random() < 0.05:
                at = self.one("/metadata/labels", "/metadata/annotations", "/spec", "/metadata")
                body = [{"op": "copy", "from": at, "path": f"{at}/{i}"} for i in range(300)]  # doubles each time
            if self.random.random() < 0.1:
                body = self.value()
        elif self.random.random() < 0.1:
            body = self.value()
        else:
            body = {"apiVersion": kind.api_version, "kind": kind.name} if PATCHES[content_type] == "apply" else {}
            found = places(kind.schema)
            for _ in range(self.random.randrange(1, 4)):
                put(body, self.random.choice(found)[0], self.value())
            if self.random.random() < 0.4:
                place = self.random.choice(found)[0]
                parent = place[:-1]
                directive = self.one(
                    "$patch", "$retainKeys", f"$setElementOrder/{place[-1]}", f"$deleteFromPrimitiveList/{place[-1]}"
                )
                put(body, (*parent, directive), self.one("delete", "replace", "merge", "x", *WRONG))  # fmt: skip
        raw = self.encoded(body)
        if self.random.random() < 0.25:
            raw = self.damaged(raw)
        elif self.random.random() < 0.2:
            raw = self.huge(raw)
        query = "?fieldManager=f" if PATCHES[content_type] == "apply" else ""
        query += self.one("", "&force=true", "&dryRun=All") if query else ""
        sub = "status" if plural in ("services", "pods") and self.random.random() < 0.3 else ""
        path = self.path_of(plural, self.name(), sub)
        return Request("PATCH", path + query, [("Content-Type", content_type)], raw)

    def hostile_target(self) -> Request:
        odd = self.one(
            "..", "%2e%2e", "%2f", "%00", "a%00b", "a%0ab", "a" * 260, "a" * 5000, "%ff", "%c3%a9", "%", "%zz", "A", "a_b",
            "-a", "a.", ".a", "a..b", "%20", "+", "~", ";", "a%3fb", "a%23b", "a:b", "(", "%f0%9f%98%80", "\u00e9", "*", "a%2f..%2fb",
            "%ed%a0%80", "a%25b", "//", "/", "watch", "namespaces", "status",
        )  # fmt: skip
        kind = self.random.choice(KINDS)
        forms = (
            kind.path(NAMESPACE, odd),
            kind.path(odd, "x"),
            kind.path(odd),
            kind.path(NAMESPACE, "x", odd),
            f"/api/{odd}/pods",
            f"/apis/{odd}/v1/x",
            f"/apis/{kind.group or 'apps'}/{odd}/{kind.plural}",
            f"/{odd}",
            f"/api/v1/watch/{odd}",
            f"/openapi/v3/{odd}",
            f"/api/v1/namespaces/{NAMESPACE}/{odd}/x",
            f"/healthz/{odd}",
            "/" + "/".join([odd] * 5),
            f"/api/v1//namespaces/{odd}",
        )
        method = self.one("GET", "GET", "DELETE", "POST", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "FOO", "get")
        body = b"{}" if method in ("POST", "PUT", "PATCH", "DELETE") else b""
        content_type = self.one("application/json", *PATCHES)
        headers = [("Content-Type", content_type)] if body else []
        target = self.random.choice(forms)
        if method == "DELETE" and "namespaces/default" in target:
            method = "GET"
        return Request(method, target, headers, body)

    def hostile_query(self) -> Request:
        names = (
            "labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "resourceVersionMatch", "dryRun", "watch",
            "timeoutSeconds", "fieldManager", "fieldValidation", "force", "pretty", "gracePeriodSeconds", "propagationPolicy",
            "sendInitialEvents", "allowWatchBookmarks", "includeObject", "orphanDependents", "export", "%00", "", "timeout",
        )  # fmt: skip
        values = (
            *TEXTS, "a in (b,c", "a in ()", "!", "!!a", "a,,b", "a=b=c", "a notin (", "a>1", "a>x", "a=" + "b" * 64, "((((",
            "a in (" + "x," * 3000 + "y)", "metadata.name=a", "spec.nodeName!=", "status.phase==Running", "foo=bar", "=", "a=b\\",
            "a=b\\,c", ",", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiYVx1MDAwMCJ9", "e30", "bnVsbA", "W10", "eyJ2IjoxfQ",
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6OTk5OTk5OTk5OTk5OTk5OTk5OTk5LCJzdGFydCI6ImEifQ",
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJcdWQ4MDAifQ", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhL2IifQ",
            "18446744073709551616", "99999999999999999999999", "1" * 5000, "true", "false", "All", "Exact", "NotOlderThan", "0", "1", "-5",
            "Strict", "Table", "Metadata", "Foreground",
        )  # fmt: skip
        parts = []
        for _ in range(self.random.randrange(1, 4)):
            value = quote(self.random.choice(values), errors="surrogatepass")
            if self.random.random() < 0.15:
                value = self.one("%", "%zz", "%ff%fe", "+", "&&", ";")
            parts.append(f"{self.random.choice(names)}={value}")
        plural = self.random.choice([*BASES, "services"])
        path = self.one(self.path_of(plural), self.path_of(plural, self.name()), BASES[plural][0].path())
        method = self.one("GET", "GET", "GET", "GET", "DELETE", "POST", "PUT")
        if method == "DELETE" and NAMESPACE not in path:
            method = "GET"
        headers, body = [("Accept", "application/json")], b""
        if method in ("POST", "PUT"):
            headers.append(("Content-Type", "application/json"))
            body = self.encoded(base_object(plural, self.name()))
        elif method == "DELETE" and self.random.random() < 0.5:
            headers.append(("Content-Type", "application/json"))
            body = self.encoded(
                {
                    self.one(
                        "gracePeriodSeconds", "propagationPolicy", "preconditions", "dryRun", "kind"
                    ): self.value(),
                    self.one("gracePeriodSeconds", "orphanDependents", "preconditions", "uid"): self.value(),
                }
            )
        return Request(method, path + "?" + "&".join(parts), headers, body)

    def hostile_headers(self) -> Request:
        plural = self.plural()
        odd = self.one(
            "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=Table;v=v9;g=x", "*/*;q=nan", "a/b;;;", ";", ",",
            "application/yaml", "application/json;q=1e400", "application/vnd.kubernetes.protobuf", "x" * 4000, "application/json;as=",
            'application/json;as="Table', "text/html", "application/json, */*;q=-1", "a;" * 500, "application/json;charset=utf-7",
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "\xe9", "\xff" * 10,
        )  # fmt: skip
        name = self.one(
            "Accept", "Accept", "Accept", "Content-Type", "Authorization", "Impersonate-User", "Impersonate-Group", "User-Agent",
            "Impersonate-Uid", "Accept-Encoding", "Range", "If-None-Match", "Content-Encoding", "Expect", "Upgrade", "X-Remote-User",
            "Impersonate-Extra-scopes", "Content-Length ", "Cookie",
        )  # fmt: skip
        if name == "Authorization":
            odd = self.one(
                "Bearer", "Bearer ", "Bearer a.b.c", "Bearer " + "x" * 9000, "Basic eDp5", "bearer e30.e30.e30", odd
            )
            odd = self.one(
                odd, "Bearer eyJhbGciOiJub25lIn0.e30.", "Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6Ii4uLy4uIn0.e30.AA"
            )
        headers = [(name, odd)]
        if self.random.random() < 0.3:
            headers = [(f"X-{i}", "y" * 30) for i in range(self.one(10, 1000))]
        method = self.one("GET", "POST")
        body = self.encoded(base_object(plural, self.name())) if method == "POST" else b""
        if body and name != "Content-Type":
            headers.append(("Content-Type", "application/json"))
        return Request(method, self.path_of(plural), headers, body)

    def raw_http(self) -> Request:
        path = self.path_of("configmaps").encode()
        body = self.encoded(base_object("configmaps", self.name()))
        post = b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        chunked = b"Transfer-Encoding: chunked\r\n"
        length = b"Content-Length: %d\r\n" % len(body)
        inner = b"GET /api/v1/secrets HTTP/1.1\r\nHost: a\r\n\r\n"
        whole = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        full: list[bytes] = [
            post + length + chunked + b"\r\n" + whole, post + chunked + length + b"\r\n" + whole,
            post + b"Content-Length: 5\r\n" + length + b"\r\n" + body, post + b"Content-Length: +5\r\n\r\n" + body,
            post + b"Content-Length: -1\r\n\r\n", post + b"Content-Length: 0x10\r\n\r\n" + body, post + b"Content-Length: 5, 5\r\n\r\n",
            post + b"Transfer-Encoding: identity\r\n\r\n", post + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + whole,
            post + b"Transfer-Encoding: xchunked\r\n\r\n" + whole, post + b"Transfer-Encoding : chunked\r\n\r\n" + whole,
            post + chunked + b"\r\nzz\r\nabc\r\n0\r\n\r\n", post + chunked + b"\r\n-1\r\n\r\n0\r\n\r\n",
            post + chunked + b"\r\nffffffffffffffffff\r\nabc", post + chunked + b"\r\n5;" + b"x" * 9000 + b"\r\nabcde\r\n0\r\n\r\n",
            post + chunked + b"\r\n5\r\nabcdefgh\r\n0\r\n\r\n", post + chunked + b"\r\n0\r\nX: y\r\n\r\n",
            post + chunked + b"\r\n" + whole[:-2] + b"Transfer-Encoding: x\r\n\r\n", post + chunked + b"\r\n" + whole,
            post + b"Content-Length: 0\r\n\r\n" + inner, post + length + b"\r\n" + body + inner,
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", b"GET /\r\n\r\n",
            b"\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", b"GET  /  HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\nHost: a\n\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n", b"GET / HTTP/1.1\r\n: x\r\n\r\n", b"GET / HTTP/1.1\r\nA\x00B: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: x\x00y\r\n\r\n", b"G\xff /x HTTP/1.1\r\n\r\n", b"GET /\xff\xfe HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET http://x:y@z/api HTTP/1.1\r\nHost: a\r\n\r\n", b"GET http://[::1/ HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS * HTTP/1.1\r\n\r\n",
            b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"CONNECT /api HTTP/1.1\r\n\r\n", b"GET ?x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 40_000 + b"\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
            post + b"Content-Length: 99999999999999999999\r\n\r\n", post + b"Content-Length: 4000000\r\n\r\n" + b"x" * 1000,
            post + b"Content-Encoding: gzip\r\n" + length + b"\r\n" + body, post + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
            post + b"Content-Encoding: deflate\r\nContent-Length: 4\r\n\r\nabcd", post + b"Content-Encoding: br\r\nContent-Length: 4\r\n\r\nabcd",
            post + b"Content-Encoding: zstd\r\nContent-Length: 4\r\n\r\nabcd",
            post + b"Expect: 100-continue\r\n" + length + b"\r\n" + body, post + b"Expect: x\r\n" + length + b"\r\n" + body,
            b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nHTTP2-Settings: AAA\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n", self.random.randbytes(60) + b"\r\n\r\n", struct.pack(">IHH", 80877103, 1, 2) + b"\r\n\r\n",
        ]  # fmt: skip
        if self.random.random() < 0.25:
            sent = self.random.choice(full[:24])
            return Request(raw=sent[: self.random.randrange(1, len(sent))], abandon=True, what="half sent")
        if self.random.random() < 0.2:
            return Request(raw=self.damaged(post + length + b"\r\n" + body), abandon=True, what="damaged HTTP")
        return Request(raw=self.random.choice(full))

    def subresource(self) -> Request:
        name = self.name()
        sub = self.one(
            "binding", "eviction", "ephemeralcontainers", "resize", "status", "token", "scale", "log", "exec", "proxy"
        )
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/{sub}"
        if sub == "token":
            path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default/token"
        elif sub == "scale":
            path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}/scale"
        elif sub in ("log", "exec", "proxy"):
            path += "?container=" + quote(self.one(*TEXTS), errors="surrogatepass")
            return Request(self.one("GET", "POST"), path, [], b"")
        kind = {"binding": "Binding", "eviction": "Eviction", "token": "TokenRequest", "scale": "Scale"}.get(sub, "Pod")
        version = {"eviction": "policy/v1", "token": "authentication.k8s.io/v1", "scale": "autoscaling/v1"}.get(
            sub, "v1"
        )
        body: dict[str, Any] = {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}}
        for _ in range(self.random.randrange(3)):
            body[self.one("spec", "status", "target", "deleteOptions", "metadata")] = self.one(
                self.value(),
                {self.one("replicas", "audiences", "expirationSeconds", "boundObjectRef", "name"): self.value()},
            )
        method = self.one("POST", "PUT", "PATCH", "GET")
        content_type = self.one(*PATCHES) if method == "PATCH" else "application/json"
        return Request(method, path, [("Content-Type", content_type)], self.encoded(body))

    def review(self) -> Request:
        plural, group = self.one(
            ("subjectaccessreviews", "authorization.k8s.io"),
            ("selfsubjectaccessreviews", "authorization.k8s.io"),
            ("selfsubjectrulesreviews", "authorization.k8s.io"),
            ("tokenreviews", "authentication.k8s.io"),
            ("selfsubjectreviews", "authentication.k8s.io"),
        )
        body = {
            "spec": self.one(
                self.value(), {self.one("user", "groups", "resourceAttributes", "token", "extra"): self.value()}
            )
        }
        return Request("POST", f"/apis/{group}/v1/{plural}", [("Content-Type", "application/json")], self.encoded(body))


# ---------------------------------------------------------------- the client


@dataclass
class Answer:
    """What came back: the last answer's status, headers (lower-case names) and body. status 0: the connection closed
    without a word."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class RawClient:
    """Sends bytes as they are, over one connection at a time; opens the next when the server closes one."""

    def __init__(self, unix: str = "", port: int = 0) -> None:
        self.unix = unix
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.reader is None or self.writer is None or self.writer.is_closing() or self.reader.at_eof():
            self.close()
            if self.unix:
                self.reader, self.writer = await asyncio.open_unix_connection(self.unix, limit=1 << 24)
            else:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                opened = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, limit=1 << 24)
                self.reader, self.writer = opened
        return self.reader, self.writer

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None

    async def send(self, request: Request, seconds: float = 60.0) -> Answer:
        """The answer to a request; TimeoutError if none comes to one that is complete."""
        if request.raw:
            self.close()
        reader, writer = await self.connect()
        try:
            writer.write(request.bytes())
            if request.abandon:
                if writer.can_write_eof():
                    writer.write_eof()
                else:
                    writer.close()
            async with asyncio.timeout(seconds):
                answer = await self.read(reader, request)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            answer = Answer(0)
        if request.raw or answer.status in (0, 101) or answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    async def read(self, reader: asyncio.StreamReader, request: Request) -> Answer:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head[:-4].split(b"\r\n")
            version, status, *_ = first.split(b" ")
            if version not in (b"HTTP/1.1", b"HTTP/1.0"):
                raise AssertionError(f"an answer that begins with {first!r}")
            headers = {k.strip().lower(): v.strip() for k, _, v in (x.decode("latin-1").partition(":") for x in lines)}
            if status != b"100":
                break
        answer = Answer(int(status), headers)
        if request.method == "HEAD" or answer.status in (101, 204, 304):
            return answer
        if headers.get("transfer-encoding") == "chunked":
            self.close()  # a watch: the first lines may never come
            return answer
        answer.body = await reader.readexactly(int(headers.get("content-length", "0")))
        return answer
