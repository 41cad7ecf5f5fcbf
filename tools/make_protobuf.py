"""Make `src/kubesvc/api/protobuf_fields.txt`: the wire numbers of every field that a protobuf body may have.

    python tools/make_protobuf.py [OUTPUT]

The numbers are read out of the stock kubectl that the extra `kubectl` installs, so nobody types them. A Go program
keeps the descriptions of its types, with each struct's fields and their tags (`json:"metadata,omitempty"
protobuf:"bytes,1,opt,name=metadata"`): this walks them in the program's file, from the links to all types, and writes
down the messages of the kinds in the schema table and all they refer to. The table is committed, because kubectl is no
part of a build; make it again when kubectl or the schema table moves to another release.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from kubesvc.api import schema
from kubesvc.instance.kubectl import DISTRIBUTION, find_kubectl

OUTPUT = Path(__file__).parents[1] / "src" / "kubesvc" / "api" / "protobuf_fields.txt"

BOOL, INT32, INT64, UINT8, MAP, POINTER, SLICE, STRING, STRUCT = 1, 5, 6, 8, 21, 22, 23, 24, 25
"""Kinds of Go types, as Go numbers them; those that fields have."""
LAST_KIND = 26
SCALARS = {BOOL: "bool", INT32: "int32", INT64: "int64", STRING: "string"}
RTYPE_SIZE = 48
UNCOMMON, EXTRA_STAR, NAMED = 1, 2, 4
"""Flags of a type: methods and package are told; the name has a star too many; it has a name."""

SPECIAL = {
    "k8s.io/apimachinery/pkg/apis/meta/v1.Time": "time",
    "k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime": "microtime",
    "k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1": "json",
    "k8s.io/apimachinery/pkg/runtime.RawExtension": "json",
    "k8s.io/apimachinery/pkg/api/resource.Quantity": "quantity",
    "k8s.io/apimachinery/pkg/util/intstr.IntOrString": "intorstring",
}
"""Types whose JSON is not that of their fields."""

HEADER = """\
# Wire numbers of the fields of Kubernetes' protobuf messages. Made by tools/make_protobuf.py from the struct tags in
# {source}; not to be edited.
#
# [alias package], then a line for each message of the package: its name and its fields, each `number:name:type`.
# An empty name puts the fields of the message into its parent. Types: string, bool, int32, int64, bytes, time,
# microtime, quantity, intorstring, json (bytes of JSON in a message), strings (a list in a message), or a message, of
# another package with that one's alias. Before it, `*` is a pointer (its zero is kept) and `?` something that is left
# out when zero; behind it, [] is a list and {{}} a map from texts.
"""


class Section(NamedTuple):
    name: str
    address: int
    offset: int
    size: int


class Field(NamedTuple):
    """One field of a Go struct."""

    name: str
    tag: str
    type: int
    embedded: bool


class GoProgram:
    """The types in a Go program's file (64 bit, little-endian ELF). A type is known by its address."""

    def __init__(self, data: bytes) -> None:
        if data[:6] != b"\x7fELF\x02\x01":
            raise SystemExit("the types are read from a 64-bit little-endian ELF file only")
        self.data = data
        self.sections = {s.name: s for s in read_sections(data)}
        self.base = self.find_base()

    def at(self, address: int) -> int:
        """Where an address of the running program is in the file."""
        for s in self.sections.values():
            if s.address <= address < s.address + s.size:
                return s.offset + address - s.address
        raise ValueError(f"address {address:#x} is in no section")

    def number(self, address: int, format: str) -> int:
        found: int = struct.unpack_from("<" + format, self.data, self.at(address))[0]
        return found

    def links(self) -> list[int]:
        """Offsets, from the first type, of all types that are not reached by name: pointers to structs among them."""
        s = self.sections[".typelink"]
        return list(struct.unpack_from(f"<{s.size // 4}i", self.data, s.offset))

    def find_base(self) -> int:
        """The address that type and name offsets count from: the number in the module's description under which the
        linked types make sense. A program may keep the description in a section of its own, or among its data."""
        links, rodata = self.links()[::97], self.sections[".rodata"]
        for name in (".go.module", ".noptrdata", ".data"):
            s = self.sections.get(name)
            if s is None:
                continue
            words = struct.unpack_from(f"<{s.size // 8}Q", self.data, s.offset)
            candidates: list[int] = [w for w in words if rodata.address <= w < rodata.address + rodata.size]
            for base in dict.fromkeys(candidates):
                if all(self.plausible(base + link, base) for link in links):
                    return base
        raise SystemExit("no description of types was found in the program")

    def plausible(self, type: int, base: int) -> bool:
        try:
            kind = self.kind(type)
            text = self.name_at(base + self.number(type + 40, "i"))[0]
        except (ValueError, struct.error, IndexError):
            return False
        return 0 < kind <= LAST_KIND and text.isprintable() and text[:1] in "*[cfm"

    def kind(self, type: int) -> int:
        return self.number(type + 23, "B") & 31

    def flags(self, type: int) -> int:
        return self.number(type + 20, "B")

    def name_at(self, address: int) -> tuple[str, str, int]:
        """A name, its tag, and its flags."""
        at = self.at(address)
        flags = self.data[at]
        text, at = self.text(at + 1)
        tag = self.text(at)[0] if flags & 2 else ""
        return text, tag, flags

    def text(self, at: int) -> tuple[str, int]:
        """A text with its length before it, and where it ends."""
        size = shift = 0
        while True:
            byte = self.data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if size > 4096:
            raise ValueError("too long for a name")
        return self.data[at : at + size].decode(), at + size

    def element(self, type: int) -> int:
        """What a pointer points to, or a slice holds."""
        return self.number(type + RTYPE_SIZE, "Q")

    def map_of(self, type: int) -> tuple[int, int]:
        """Types of the keys and values of a map."""
        return self.number(type + RTYPE_SIZE, "Q"), self.number(type + RTYPE_SIZE + 8, "Q")

    def fields(self, type: int) -> Iterator[Field]:
        """The fields of a struct, in order."""
        first, count = self.number(type + RTYPE_SIZE + 8, "Q"), self.number(type + RTYPE_SIZE + 16, "Q")
        for i in range(count):
            name, tag, flags = self.name_at(self.number(first + 24 * i, "Q"))
            yield Field(name, tag, self.number(first + 24 * i + 8, "Q"), bool(flags & 8))

    def uncommon(self, type: int) -> int:
        """Where a type's package and methods are told; they follow what its kind needs."""
        extra = {STRUCT: 32, POINTER: 8, SLICE: 8, MAP: 56 + 16}
        return type + RTYPE_SIZE + extra.get(self.kind(type), 0)

    def full_name(self, type: int) -> str:
        """Package path and name of a named type, e.g. `k8s.io/api/core/v1.Service`; "" for others."""
        flags = self.flags(type)
        if not flags & NAMED or not flags & UNCOMMON or self.kind(type) == MAP:
            return ""
        text = self.name_at(self.base + self.number(type + 40, "i"))[0]
        package = self.name_at(self.base + self.number(self.uncommon(type), "i"))[0]
        return f"{package}.{text.removeprefix('*').rpartition('.')[2]}"

    def methods(self, type: int) -> list[str]:
        """Names of the exported methods of a type."""
        if not self.flags(type) & UNCOMMON:
            return []
        where = self.uncommon(type)
        count, first = self.number(where + 4, "H"), where + self.number(where + 8, "I")
        return [self.name_at(self.base + self.number(first + 16 * i, "i"))[0] for i in range(count)]

    def pointer_methods(self, type: int) -> list[str]:
        """Names of the methods of a pointer to a type."""
        pointer = self.number(type + 44, "i")
        return self.methods(self.base + pointer) if pointer else []

    @cached_property
    def structs(self) -> dict[str, int]:
        """All structs that something points to, by full name."""
        found = {}
        for link in self.links():
            type = self.base + link
            if self.kind(type) == POINTER and self.kind(self.element(type)) == STRUCT:
                found[self.full_name(self.element(type))] = self.element(type)
        return found


def read_sections(data: bytes) -> Iterator[Section]:
    """The sections of an ELF file that are loaded."""
    table, size, count, names = (
        struct.unpack_from("<Q", data, 0x28)[0],
        *struct.unpack_from("<HHH", data, 0x3A),
    )
    headers = [struct.unpack_from("<IIQQQQ", data, table + size * i) for i in range(count)]
    texts = headers[names][4]
    for name, kind, _, address, offset, length in headers:
        if address and kind != 8:  # 8: takes no place in the file
            start = texts + name
            yield Section(data[start : data.index(b"\0", start)].decode(), address, offset, length)


def tag_value(tag: str, key: str) -> list[str]:
    """The parts of one key of a struct tag; none if it is absent."""
    found = re.search(rf'(?:^|\s){key}:"([^"]*)"', tag)
    return found[1].split(",") if found else []


def json_name(field: Field, json: list[str]) -> str:
    """What JSON calls a field; "" if the fields of its struct are its parent's."""
    if json and json[0]:
        return json[0]
    return "" if field.embedded or "inline" in json else field.name


def schema_name(full_name: str) -> str:
    """The name of a Go type in OpenAPI: `k8s.io/api/core/v1.Service` is `io.k8s.api.core.v1.Service`."""
    domain, _, rest = full_name.partition("/")
    return ".".join(reversed(domain.split("."))) + "." + rest.replace("/", ".")


class Tables:
    """The messages, as far as something asks for them."""

    def __init__(self, program: GoProgram) -> None:
        self.program = program
        self.messages: dict[str, str] = {}

    def add(self, full_name: str) -> None:
        """Write down a message and what it refers to."""
        todo = [full_name]
        while todo:
            name = todo.pop()
            if name in self.messages:
                continue
            found: list[tuple[int, str]] = []
            package = name.rpartition(".")[0]
            for field in self.program.fields(self.program.structs[name]):
                wire = tag_value(field.tag, "protobuf")
                json = tag_value(field.tag, "json")
                if len(wire) < 2 or (json and json[0] == "-"):
                    continue
                text = self.type_of(field, json, package, todo, name)
                found.append((int(wire[1]), f"{wire[1]}:{json_name(field, json)}:{text}"))
            self.messages[name] = " ".join(text for _, text in sorted(found))

    def type_of(self, field: Field, json: list[str], package: str, todo: list[str], owner: str) -> str:
        """The type of a field in the table's words."""
        program, type = self.program, field.type
        pointer = program.kind(type) == POINTER
        if pointer:
            type = program.element(type)
        suffix = ""
        if program.kind(type) == SLICE and not self.is_message(type):
            inner = program.element(type)
            if program.kind(inner) != UINT8:
                suffix, type = "[]", inner
        elif program.kind(type) == MAP:
            key, type = program.map_of(type)
            suffix = "{}"
            if program.kind(key) != STRING:
                raise SystemExit(f"{owner}.{field.name}: keys are no texts")
        if program.kind(type) == POINTER:
            type = program.element(type)
        text = self.base_type(type, package, todo, f"{owner}.{field.name}")
        may_go = "omitzero" in json or ("omitempty" in json and program.kind(type) != STRUCT)
        if suffix:
            return text + suffix
        return ("*" if pointer else "?" if may_go else "") + text

    def is_struct_message(self, full_name: str) -> bool:
        """Whether a struct has wire numbers at all."""
        return any(tag_value(f.tag, "protobuf") for f in self.program.fields(self.program.structs[full_name]))

    def is_message(self, type: int) -> bool:
        """Whether a type that is no struct is a message of its own: a list that writes itself."""
        return "Unmarshal" in self.program.pointer_methods(type)

    def base_type(self, type: int, package: str, todo: list[str], where: str) -> str:
        program = self.program
        kind, name = program.kind(type), program.full_name(type)
        if kind in SCALARS:
            return SCALARS[kind]
        if kind == SLICE:
            inner = program.kind(program.element(type))
            if inner == UINT8:
                return "bytes"
            if inner == STRING and self.is_message(type):
                return "strings"
        if name in SPECIAL:
            return SPECIAL[name]
        if kind != STRUCT or not name:
            raise SystemExit(f"{where}: a field of kind {kind} ({name}) has no form on the wire")
        if "MarshalJSON" in program.pointer_methods(type):
            raise SystemExit(f"{where}: {name} writes its own JSON; tell how in SPECIAL")
        todo.append(name)
        return name if name.rpartition(".")[0] != package else name.rpartition(".")[2]

    def render(self, source: str) -> str:
        """The file: packages and messages sorted, references shortened by aliases."""
        packages = sorted({name.rpartition(".")[0] for name in self.messages})
        aliases = {p: alias_of(p) for p in packages}
        if len(set(aliases.values())) != len(aliases):
            raise SystemExit(f"two packages would have one alias: {aliases}")
        lines = [HEADER.format(source=source).rstrip("\n")]
        for package in packages:
            lines.append(f"[{aliases[package]} {schema_name(package + '.')[:-1]}]")
            for name in sorted(self.messages):
                if name.rpartition(".")[0] == package:
                    fields = self.messages[name]
                    for other in packages:
                        fields = fields.replace(other + ".", aliases[other] + ".")
                    lines.append(f"{name.rpartition('.')[2]} {fields}".rstrip())
        return "\n".join(lines) + "\n"


def alias_of(package: str) -> str:
    """`meta/v1` of the whole path of a package."""
    return "/".join(package.split("/")[-2:])


def build() -> str:
    """The whole table, as the file's text."""
    kubectl = find_kubectl()
    if kubectl is None:
        raise SystemExit(f"{DISTRIBUTION} is not installed: the numbers are read out of its kubectl")
    program = GoProgram(kubectl.read_bytes())
    tables = Tables(program)
    served = {name for name in schema.names() if not name.endswith("List")}  # nobody sends a list
    for name in sorted(program.structs):
        if schema_name(name) in served and name not in SPECIAL and tables.is_struct_message(name):
            tables.add(name)
    return tables.render(f"kubectl of {DISTRIBUTION} {metadata.version(DISTRIBUTION)}")


if __name__ == "__main__":
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    draft = output.with_suffix(".part")
    draft.write_text(build())
    draft.replace(output)
    sys.stdout.write(f"{output}: {output.stat().st_size} bytes\n")
