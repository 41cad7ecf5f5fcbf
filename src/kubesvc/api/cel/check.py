"""What can be known of an expression before it is evaluated: the types of its parts, and that they fit together.

As upstream's checker does it: functions are chosen by the types of their arguments, `dyn` fits everything, elements of
a list are of one type, and `==` compares values of one type. Problems come in the order in which they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .evaluate import OPERATORS, TYPES, function_of
from .library import FUNCTIONS
from .regex import made
from .syntax import (
    Call,
    CelProblem,
    Ident,
    Index,
    ListOf,
    Literal,
    Macro,
    MapOf,
    Node,
    Problem,
    Select,
    StructOf,
    UInt,
    dotted,
)
from .types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    NULL,
    STRING,
    TIMESTAMP,
    UINT,
    Overload,
    Type,
    list_type,
    map_type,
    optional_type,
    overload,
    read_type,
    type_type,
)
from .values import duration_of, timestamp_of

NUMBERS = ("int", "uint", "double")
LITERALS: Mapping[type, Type] = {
    type(None): NULL, bool: BOOL, int: INT, UInt: UINT, float: DOUBLE, str: STRING, bytes: BYTES,
}  # fmt: skip
MEANT = {"null_type": NULL, "google.protobuf.Timestamp": TIMESTAMP, "google.protobuf.Duration": DURATION,
         "list": list_type(DYN), "map": map_type(DYN, DYN), "optional_type": optional_type(DYN)}  # fmt: skip


class TypeProblem(CelProblem):
    """An expression whose parts do not fit together."""


def operator_overloads() -> dict[str, list[Overload]]:
    out: dict[str, list[Overload]] = {}

    def add(name: str, *signatures: str) -> None:
        for signature in signatures:
            out.setdefault(name, []).append(overload(f"x({signature}", lambda: None)[1])

    add("_+_", *(f"{t}, {t}) -> {t}" for t in (*NUMBERS, "string", "bytes", "list(A)", "duration")),
        "timestamp, duration) -> timestamp", "duration, timestamp) -> timestamp")  # fmt: skip
    add("_-_", *(f"{t}, {t}) -> {t}" for t in (*NUMBERS, "duration")),
        "timestamp, duration) -> timestamp", "timestamp, timestamp) -> duration")  # fmt: skip
    for name in ("_*_", "_/_"):
        add(name, *(f"{t}, {t}) -> {t}" for t in NUMBERS))
    add("_%_", "int, int) -> int", "uint, uint) -> uint")
    for name in ("_<_", "_<=_", "_>_", "_>=_"):
        add(name, *(f"{t}, {t}) -> bool" for t in ("bool", "string", "bytes", "timestamp", "duration")),
            *(f"{a}, {b}) -> bool" for a in NUMBERS for b in NUMBERS))  # fmt: skip
    for name in ("_==_", "_!=_"):
        add(name, "A, A) -> bool")
    add("@in", "A, list(A)) -> bool", "A, map(A, B)) -> bool")
    return out


OPERATOR_OVERLOADS = operator_overloads()
Bindings = dict[str, Type]


class Checker:
    """variables: the types of all that are given. Problems are collected, so that all are told at once."""

    def __init__(self, variables: Mapping[str, Type]) -> None:
        self.variables = variables
        self.problems: list[Problem] = []
        self.formatting = 0
        """How many calls of `format` are around: what is to be formatted need not be of one type."""

    def fail(self, at: int, text: str) -> Type:
        self.problems.append(Problem(at, text))
        return DYN

    def type_of(self, node: Node, scope: Mapping[str, Type]) -> Type:
        if isinstance(node, Literal):
            return LITERALS[type(node.value)]
        if isinstance(node, Ident):
            return self.ident(node, scope)
        if isinstance(node, Select):
            return self.select(node, scope)
        if isinstance(node, Index):
            return self.index(node, scope)
        if isinstance(node, ListOf):
            found = [self.element(item, i in node.optional, scope) for i, item in enumerate(node.items)]
            return list_type(self.joined(node.items, found))
        if isinstance(node, MapOf):
            keys = [self.type_of(k, scope) for k, _ in node.entries]
            values = [self.element(v, i in node.optional, scope) for i, (_, v) in enumerate(node.entries)]
            return map_type(
                self.joined([k for k, _ in node.entries], keys), self.joined([v for _, v in node.entries], values)
            )
        if isinstance(node, StructOf):
            return self.struct_of(node, scope)
        if isinstance(node, Macro):
            return self.macro(node, scope)
        assert isinstance(node, Call)
        return self.call(node, scope)

    # ------------------------------------------------------------------ words and fields

    def ident(self, node: Ident, scope: Mapping[str, Type]) -> Type:
        found = scope.get(node.name)
        if found is not None:
            return found
        if node.name in TYPES:
            return type_type(MEANT.get(node.name) or read_type(node.name))
        return self.fail(node.at, f"undeclared reference to '{node.name}' (in container '')")

    def select(self, node: Select, scope: Mapping[str, Type]) -> Type:
        name = dotted(node)
        if name in scope and not node.test:
            return scope[name]
        if name in TYPES and name.split(".")[0] not in scope:
            return type_type(MEANT.get(name) or read_type(name))
        target = self.type_of(node.target, scope)
        inner, optional = opened(target)
        found = self.field(node, inner, target)
        if node.test:
            return BOOL
        return optional_type(found) if optional or node.optional else found

    def field(self, node: Select, inner: Type, target: Type) -> Type:
        if inner.fields is not None:
            found = inner.fields.get(node.field)
            return found if found is not None else self.fail(node.at, f"undefined field '{node.field}'")
        if inner.name == "map":
            if inner.params[0].name not in ("string", "dyn") and not inner.params[0].variable:
                return self.fail(node.at, f"type '{target}' does not support field selection")
            return inner.params[1]
        if inner is DYN or inner.variable:
            return DYN
        return self.fail(node.at, f"type '{target}' does not support field selection")

    def index(self, node: Index, scope: Mapping[str, Type]) -> Type:
        target, key = self.type_of(node.target, scope), self.type_of(node.index, scope)
        inner, optional = opened(target)
        found: Type | None = None
        if inner is DYN or inner.variable:
            found = DYN
        elif inner.name == "list" and fits(key, INT, {}):
            found = inner.params[0]
        elif inner.name == "map" and fits(key, inner.params[0], {}):
            found = inner.params[1]
        if found is None:
            name = "_[?_]" if node.optional else "_[_]"
            return self.fail(node.at, f"found no matching overload for '{name}' applied to '({target}, {key})'")
        return optional_type(found) if optional or node.optional else found

    def struct_of(self, node: StructOf, scope: Mapping[str, Type]) -> Type:
        """`Name{field: value}`, where the scope says of what `Name` is the type; fields that it does not list may be
        any, and what is below it by name is of the same sort."""
        known = scope.get(node.name.split(".")[0])
        found = [self.element(v, i in node.optional, scope) for i, (_, v) in enumerate(node.entries)]
        if known is None or known.name != "type":
            return self.fail(node.at, f"undeclared reference to '{node.name}' (in container '')")
        made = known.params[0]
        if made.fields is None:
            return Type(node.name)
        for (field, value), one in zip(node.entries, found, strict=True):
            wanted = made.fields.get(field)
            if wanted is None:
                self.fail(value.at, f"undefined field '{field}'")
            elif not fits(one, wanted, {}):
                text = f"expected type of field '{field}' is '{wanted}' but provided type is '{one}'"
                self.fail(value.at, text)
        return made

    def element(self, node: Node, optional: bool, scope: Mapping[str, Type]) -> Type:
        found = self.type_of(node, scope)
        if not optional:
            return found
        if found.name != "optional_type" and found is not DYN:
            return self.fail(node.at, f"expected type 'optional_type(dyn)' but found '{found}'")
        return found.params[0] if found.params else DYN

    def joined(self, nodes: list[Node], found: list[Type]) -> Type:
        """The one type of all elements; a problem if they differ."""
        common: Type | None = None
        for node, one in zip(nodes, found, strict=True):
            if common is None or common is DYN:
                common = one if common is None else common
            elif one is DYN:
                common = DYN
            elif fits(one, common, {}):
                continue
            elif fits(common, one, {}):
                common = one
            elif self.formatting:
                common = DYN
            else:
                return self.fail(node.at, f"expected type '{common}' but found '{one}'")
        return common if common is not None else DYN

    # ------------------------------------------------------------------ loops

    def macro(self, node: Macro, scope: Mapping[str, Type]) -> Type:
        over = self.type_of(node.range, scope)
        inner = dict(scope)
        if node.name in ("optMap", "optFlatMap"):
            inner[node.first] = over.params[0] if over.name == "optional_type" else DYN
            assert node.then is not None
            found = self.type_of(node.then, inner)
            return found if node.name == "optFlatMap" else optional_type(found)
        key, value = self.elements(node, over)
        if node.second:
            inner[node.first], inner[node.second] = key, value
        else:
            inner[node.first] = key if over.name == "map" else value
        if node.when is not None:
            test = self.type_of(node.when, inner)
            if test is not DYN and test.name != "bool" and node.name != "sortBy":
                self.fail(node.when.at, f"expected type 'bool' but found '{test}'")
        if node.name in ("all", "exists", "exists_one"):
            return BOOL
        if node.name == "filter":
            return list_type(inner[node.first])
        if node.name == "sortBy":
            return over if over.name == "list" else list_type(DYN)
        assert node.then is not None
        result = self.type_of(node.then, inner)
        if node.name == "transformMap":
            return map_type(key, result)
        if node.name == "transformMapEntry":
            return result if result.name == "map" else map_type(DYN, DYN)
        return list_type(result)

    def elements(self, node: Macro, over: Type) -> tuple[Type, Type]:
        """(key or index, element) of what is looped over."""
        if over.name == "list":
            return INT, over.params[0]
        if over.name == "map":
            return over.params[0], over.params[1]
        if over is not DYN and not over.variable:
            text = f"expression of type '{over}' cannot be range of a comprehension (must be list, map, or dynamic)"
            self.fail(node.range.at, text)
        return DYN, DYN

    # ------------------------------------------------------------------ calls

    def call(self, node: Call, scope: Mapping[str, Type]) -> Type:
        name = node.name
        if name in ("_&&_", "_||_"):
            for term in node.args:
                found = self.type_of(term, scope)
                if found is not DYN and found.name != "bool":
                    self.fail(term.at, f"expected type 'bool' but found '{found}'")
            return BOOL
        if name == "_?_:_":
            return self.choice(node, scope)
        full = function_of(node, frozenset(scope))
        method = not full
        args = [self.argument(node, i, scope) for i in range(len(node.args))]
        if method:
            assert node.target is not None
            args.insert(0, self.type_of(node.target, scope))
        full = full or name
        table = OPERATOR_OVERLOADS if full in OPERATORS else FUNCTIONS
        if full not in table:
            return self.fail(node.at, f"undeclared reference to '{full}' (in container '')")
        results: list[Type] = []
        for one in table[full]:
            if one.method is method and len(one.params) == len(args):
                known: Bindings = {}
                if all(fits(a, p, known) for a, p in zip(args, one.params, strict=True)):
                    results.append(resolved(one.result, known))
        if not results:
            shown = f"{args[0]}.({', '.join(map(str, args[1:]))})" if method else f"({', '.join(map(str, args))})"
            return self.fail(node.at, f"found no matching overload for '{full}' applied to '{shown}'")
        return results[0] if all(r == results[0] for r in results) else DYN

    def argument(self, node: Call, at: int, scope: Mapping[str, Type]) -> Type:
        """The type of an argument; a list to be formatted may hold whatever it likes, literals must be well formed."""
        given = node.args[at]
        if node.name == "format" and node.target is not None:
            self.formatting += 1
            found = self.type_of(given, scope)
            self.formatting -= 1
            return found
        if isinstance(given, Literal) and isinstance(given.value, str) and at == len(node.args) - 1:
            self.literal(node, given)
        return self.type_of(given, scope)

    def literal(self, node: Call, given: Literal) -> None:
        reader = LITERAL_READERS.get(node.name)
        if reader is None or (node.name != "matches") is not (node.target is None):
            return
        if not reader(given.value):
            self.fail(given.at, f"invalid {node.name} argument")

    def choice(self, node: Call, scope: Mapping[str, Type]) -> Type:
        test, then, otherwise = (self.type_of(a, scope) for a in node.args)
        if test is not DYN and test.name != "bool":
            return self.fail(
                node.at, f"found no matching overload for '_?_:_' applied to '({test}, {then}, {otherwise})'"
            )
        if then is DYN or otherwise is DYN:
            return DYN
        if fits(then, otherwise, {}):
            return otherwise if loose(then) else then
        if fits(otherwise, then, {}):
            return then
        return self.fail(node.at, f"found no matching overload for '_?_:_' applied to '({test}, {then}, {otherwise})'")


def reads(reader: Callable[[str], object]) -> Callable[[str], bool]:
    def run(text: str) -> bool:
        try:
            reader(text)
        except (ValueError, OverflowError):
            return False
        return True

    return run


LITERAL_READERS: Mapping[str, Callable[[str], bool]] = {
    "matches": lambda text: not isinstance(made(text), str),
    "duration": reads(duration_of),
    "timestamp": reads(timestamp_of),
}
"""Functions whose literal arguments are read beforehand."""


def loose(one: Type) -> bool:
    return one is NULL or any(p is DYN for p in one.params)


def opened(of: Type) -> tuple[Type, bool]:
    """What is inside an optional, and whether it was one."""
    return (of.params[0], True) if of.name == "optional_type" else (of, False)


def resolved(of: Type, known: Bindings) -> Type:
    if of.variable:
        return known.get(of.name, DYN)
    if of.params:
        return Type(of.name, tuple(resolved(p, known) for p in of.params))
    return of


def fits(given: Type, wanted: Type, known: Bindings) -> bool:
    """Whether a value of one type may stand where another is wanted; letters take the first type that they meet."""
    if wanted.variable:
        bound = known.get(wanted.name)
        if bound is None or bound is DYN:
            known[wanted.name] = given if bound is None or given is not DYN else bound
            return True
        if fits(given, bound, {}):
            return True
        if fits(bound, given, {}):  # null, and then what may be null
            known[wanted.name] = given
            return True
        return False
    if given is DYN or wanted is DYN or given.name == "dyn" or wanted.name == "dyn" or given.variable:
        return True
    if given is NULL or wanted is NULL:
        other = wanted if given is NULL else given
        return other.name in NULLABLE or other.fields is not None or "." in other.name
    if given.name != wanted.name:
        return False
    if given.fields is not None or wanted.fields is not None:
        return given.fields is wanted.fields or given.fields == wanted.fields
    if len(given.params) != len(wanted.params):
        return not given.params or not wanted.params
    return all(fits(g, w, known) for g, w in zip(given.params, wanted.params, strict=True))


NULLABLE = frozenset(("null", "timestamp", "duration", "type"))


def check(node: Node, variables: Mapping[str, Type], source: str) -> Type:
    """The type of what an expression gives. TypeProblem."""
    checker = Checker(variables)
    found = checker.type_of(node, variables)
    if checker.problems:
        raise TypeProblem(source, sorted(set(checker.problems)))
    return found
