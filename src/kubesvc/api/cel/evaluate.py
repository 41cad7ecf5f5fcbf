"""From the tree of an expression to a function of its variables, and what that may cost.

Every part becomes a closure; nothing is looked up by name at run time but variables. Costs are counted about as
upstream counts them: a word, a field, a call 1, a list 10, a map 30, texts by a tenth of their length. Work that costs
upstream nothing and us something (copied lists) is charged as well, so that a budget bounds time and memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .library import FUNCTIONS
from .syntax import Call, Ident, Index, ListOf, Literal, Macro, MapOf, Node, Select, StructOf, UInt, dotted
from .types import Overload
from .values import (
    LEAST_TIME,
    MOST_DURATION,
    MOST_TIME,
    NONE,
    CelError,
    CelType,
    Duration,
    Optional,
    OutOfBudget,
    StructMap,
    Timestamp,
    added,
    equal,
    is_number,
    key_of,
    unkey,
)

Run = Callable[["Frame"], Any]
MISSING: Any = object()
NO_OVERLOAD = "no such overload"
LEAST_INT, MOST_INT, MOST_UINT = -(2**63), 2**63 - 1, 2**64 - 1
TYPES = {
    n: CelType(n)
    for n in (
        "bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "optional_type",
        "google.protobuf.Timestamp", "google.protobuf.Duration", "net.IP", "net.CIDR", "kubernetes.URL",
        "kubernetes.Quantity", "kubernetes.Semver",
    )
}  # fmt: skip
"""Words that stand for types."""


class Frame:
    """One evaluation: its variables, and how much it may still cost."""

    __slots__ = ("left", "variables")

    def __init__(self, variables: Mapping[str, Any], budget: int) -> None:
        self.variables = dict(variables)
        self.left = budget

    def spend(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise OutOfBudget


def function_of(node: Call, bound: frozenset[str]) -> str:
    """The name of the function of a library that a call such as `sets.contains(a, b)` means; "" if it is a method."""
    if node.target is None:
        return node.name
    space = dotted(node.target)
    if not space or space.split(".")[0] in bound:
        return ""
    full = f"{space}.{node.name}"
    return full if full in FUNCTIONS else ""


class Compiler:
    """Makes closures. `variables`: those that will be given."""

    def __init__(self, variables: frozenset[str]) -> None:
        self.variables = variables

    def run(self, node: Node, bound: frozenset[str]) -> Run:
        """bound: the variables of the macros around the node, and those that are given."""
        if isinstance(node, Literal):
            value = node.value
            return lambda frame: value
        if isinstance(node, Ident):
            return self.ident(node, bound)
        if isinstance(node, Select):
            return self.select(node, bound)
        if isinstance(node, Index):
            return self.index(node, bound)
        if isinstance(node, ListOf):
            return self.list_of(node, bound)
        if isinstance(node, MapOf):
            return self.map_of(node, bound)
        if isinstance(node, StructOf):
            return self.struct_of(node, bound)
        if isinstance(node, Macro):
            return self.macro(node, bound)
        assert isinstance(node, Call)
        return self.call(node, bound)

    # ------------------------------------------------------------------ words and fields

    def ident(self, node: Ident, bound: frozenset[str]) -> Run:
        name = node.name
        if name not in bound and name in TYPES:
            type_ = TYPES[name]
            return lambda frame: type_

        def run(frame: Frame) -> Any:
            frame.left -= 1
            if frame.left < 0:
                raise OutOfBudget
            try:
                return frame.variables[name]
            except KeyError:
                raise CelError(f"no such attribute(s): {name}") from None

        return run

    def select(self, node: Select, bound: frozenset[str]) -> Run:
        name = dotted(node)
        if name in self.variables and not node.test:
            return self.ident(Ident(node.at, name), bound)
        if name in TYPES and name.split(".")[0] not in bound:
            type_ = TYPES[name]
            return lambda frame: type_
        target, field = self.run(node.target, bound), node.field
        if node.test:
            return lambda frame: has(target(frame), field, frame)
        if node.optional:
            return lambda frame: optional_entry(target(frame), field, frame)

        def run(frame: Frame) -> Any:
            value = target(frame)
            frame.left -= 1
            if frame.left < 0:
                raise OutOfBudget
            if isinstance(value, Mapping):
                try:
                    return value[field]
                except KeyError:
                    raise CelError(f"no such key: {field}") from None
            if isinstance(value, Optional):
                return optional_entry(value, field, frame)
            raise CelError(NO_OVERLOAD)

        return run

    def index(self, node: Index, bound: frozenset[str]) -> Run:
        target, index = self.run(node.target, bound), self.run(node.index, bound)
        if node.optional:
            return lambda frame: optional_entry(target(frame), index(frame), frame)

        def run(frame: Frame) -> Any:
            value, key = target(frame), index(frame)
            frame.spend(1)
            if isinstance(value, Optional):
                return optional_entry(value, key, frame)
            return entry(value, key)

        return run

    # ------------------------------------------------------------------ lists and maps

    def list_of(self, node: ListOf, bound: frozenset[str]) -> Run:
        items = [(self.run(item, bound), i in node.optional) for i, item in enumerate(node.items)]

        def run(frame: Frame) -> Any:
            frame.spend(10)
            out = []
            for item, optional in items:
                value = item(frame)
                if optional and (value := unwrapped(value)) is MISSING:
                    continue
                out.append(value)
            return out

        return run

    def map_of(self, node: MapOf, bound: frozenset[str]) -> Run:
        entries = [
            (self.run(k, bound), self.run(v, bound), i in node.optional) for i, (k, v) in enumerate(node.entries)
        ]

        def run(frame: Frame) -> Any:
            frame.spend(30)
            out: dict[Any, Any] = {}
            for key, value, optional in entries:
                known = key_of(key(frame))
                if known is None:
                    raise CelError("unsupported key type")
                found = value(frame)
                if optional and (found := unwrapped(found)) is MISSING:
                    continue
                if known in out:
                    raise CelError(f"Failed with repeated key: {unkey(known)}")
                out[known] = found
            return out

        return run

    def struct_of(self, node: StructOf, bound: frozenset[str]) -> Run:
        entries = [(k, self.run(v, bound), i in node.optional) for i, (k, v) in enumerate(node.entries)]
        name = node.name

        def run(frame: Frame) -> Any:
            frame.spend(40)
            out = StructMap(name)
            for key, value, optional in entries:
                found = value(frame)
                if optional and (found := unwrapped(found)) is MISSING:
                    continue
                out[key] = found
            return out

        return run

    # ------------------------------------------------------------------ calls

    def call(self, node: Call, bound: frozenset[str]) -> Run:
        name = node.name
        if name in ("_&&_", "_||_"):
            return junction([self.run(a, bound) for a in node.args], decides=name == "_||_")
        if name == "_?_:_":
            test, then, otherwise = (self.run(a, bound) for a in node.args)

            def choose(frame: Frame) -> Any:
                found = test(frame)
                if found is True:
                    return then(frame)
                if found is False:
                    return otherwise(frame)
                raise CelError(NO_OVERLOAD)

            return choose
        operator = OPERATORS.get(name)
        if operator is not None and node.target is None:
            return binary(operator, self.run(node.args[0], bound), self.run(node.args[1], bound))
        full = function_of(node, bound)
        method = not full
        args = [self.run(a, bound) for a in node.args]
        if method:
            assert node.target is not None
            args.insert(0, self.run(node.target, bound))
        found = [o for o in FUNCTIONS.get(full or name, ()) if o.method is method and len(o.params) == len(args)]
        return invocation(found, args)

    # ------------------------------------------------------------------ loops

    def macro(self, node: Macro, bound: frozenset[str]) -> Run:
        over = self.run(node.range, bound)
        inner = bound | {node.first} | ({node.second} if node.second else set())
        when = self.run(node.when, inner) if node.when is not None else None
        then = self.run(node.then, inner) if node.then is not None else None
        loop = LOOPS[node.name]
        first, second = node.first, node.second

        def run(frame: Frame) -> Any:
            value = over(frame)
            variables = frame.variables
            saved = [(n, variables.get(n, MISSING)) for n in (first, second) if n]
            try:
                return loop(frame, value, first, second, when, then)
            finally:
                for name, old in saved:
                    if old is MISSING:
                        variables.pop(name, None)
                    else:
                        variables[name] = old

        return run


# ---------------------------------------------------------------- access


def entry(value: Any, key: Any) -> Any:
    """`value[key]`."""
    if isinstance(value, list):
        if isinstance(key, float) and key.is_integer():
            key = int(key)
        if not isinstance(key, int) or isinstance(key, bool):
            raise CelError(NO_OVERLOAD)
        if not 0 <= key < len(value):
            raise CelError(f"index out of bounds: {key}")
        return value[key]
    if isinstance(value, Mapping):
        known = key_of(key)
        if known is None:
            raise CelError(NO_OVERLOAD)
        found = value.get(known, MISSING)
        if found is MISSING:
            raise CelError(f"no such key: {str(key).lower() if isinstance(key, bool) else key}")
        return found
    raise CelError(NO_OVERLOAD)


def optional_entry(value: Any, key: Any, frame: Frame) -> Optional:
    """`value.?key` and `value[?key]`."""
    frame.spend(1)
    if isinstance(value, Optional):
        if not value.present:
            return NONE
        value = value.value
    if isinstance(value, Mapping):
        found = value.get(key_of(key), MISSING)
        return NONE if found is MISSING else Optional(found)
    if isinstance(value, list):
        if not isinstance(key, int) or isinstance(key, bool):
            raise CelError(NO_OVERLOAD)
        return Optional(value[key]) if 0 <= key < len(value) else NONE
    raise CelError(NO_OVERLOAD)


def unwrapped(value: Any) -> Any:
    """What an optional part of a list, map or struct holds; MISSING if nothing."""
    if not isinstance(value, Optional):
        raise CelError(NO_OVERLOAD)
    return value.value if value.present else MISSING


def has(value: Any, field: str, frame: Frame) -> bool:
    frame.spend(1)
    if isinstance(value, Mapping):
        return field in value
    if isinstance(value, Optional):
        return value.present and isinstance(value.value, Mapping) and field in value.value
    raise CelError(NO_OVERLOAD)


# ---------------------------------------------------------------- operators


def junction(terms: list[Run], *, decides: bool) -> Run:
    """`&&` (False decides) and `||` (True decides)."""
    return lambda frame: decided(frame, terms, decides=decides)


def decided(frame: Frame, terms: Iterable[Run], *, decides: bool) -> bool:
    """What terms come to of which one decides: it outweighs others that fail."""
    failure: CelError | None = None
    for term in terms:
        try:
            found = term(frame)
        except CelError as e:
            failure = failure or e
            continue
        if found is decides:
            return decides is True
        if not isinstance(found, bool):
            failure = failure or CelError(NO_OVERLOAD)
    if failure is not None:
        raise failure
    return not decides


def binary(operator: Callable[[Frame, Any, Any], Any], one: Run, other: Run) -> Run:
    def run(frame: Frame) -> Any:
        a = one(frame)
        b = other(frame)
        frame.left -= 1
        if frame.left < 0:
            raise OutOfBudget
        return operator(frame, a, b)

    return run


def whole(value: int) -> int:
    if not LEAST_INT <= value <= MOST_INT:
        raise CelError("integer overflow")
    return value


def unsigned(value: int) -> UInt:
    if not 0 <= value <= MOST_UINT:
        raise CelError("unsigned integer overflow")
    return UInt(value)


def span(nanos: int) -> Duration:
    if abs(nanos) > MOST_DURATION:
        raise CelError("integer overflow")
    return Duration(nanos)


def moment(nanos: int) -> Timestamp:
    if not LEAST_TIME <= nanos <= MOST_TIME:
        raise CelError("timestamp overflow")
    return Timestamp(nanos)


def plus(frame: Frame, a: Any, b: Any) -> Any:
    kind = type(a)
    if kind is type(b):
        if kind is int:
            return whole(a + b)
        if kind is str or kind is bytes:
            frame.spend((len(a) + len(b)) // 10)
            return a + b
        if kind is float:
            return a + b
        if kind is UInt:
            return unsigned(int(a) + int(b))
        if kind is Duration:
            return span(a.nanos + b.nanos)
    if isinstance(a, list) and isinstance(b, list):
        frame.spend((len(a) + len(b)) // 10)
        return added(a, b, frame.spend)
    if kind is Timestamp and type(b) is Duration:
        return moment(a.nanos + b.nanos)
    if kind is Duration and type(b) is Timestamp:
        return moment(a.nanos + b.nanos)
    raise CelError(NO_OVERLOAD)


def minus(frame: Frame, a: Any, b: Any) -> Any:
    kind = type(a)
    if kind is type(b):
        if kind is int:
            return whole(a - b)
        if kind is float:
            return a - b
        if kind is UInt:
            return unsigned(int(a) - int(b))
        if kind is Duration or kind is Timestamp:
            return span(a.nanos - b.nanos)
    if kind is Timestamp and type(b) is Duration:
        return moment(a.nanos - b.nanos)
    raise CelError(NO_OVERLOAD)


def times(frame: Frame, a: Any, b: Any) -> Any:
    kind = type(a)
    if kind is type(b):
        if kind is int:
            return whole(a * b)
        if kind is float:
            return a * b
        if kind is UInt:
            return unsigned(int(a) * int(b))
    raise CelError(NO_OVERLOAD)


def divided(frame: Frame, a: Any, b: Any) -> Any:
    kind = type(a)
    if kind is type(b):
        if kind is float:
            return over(a, b)
        if kind is int or kind is UInt:
            if b == 0:
                raise CelError("division by zero")
            quotient = abs(int(a)) // abs(int(b))
            return unsigned(quotient) if kind is UInt else whole(quotient if (a < 0) == (b < 0) else -quotient)
    raise CelError(NO_OVERLOAD)


def over(a: float, b: float) -> float:
    """Division of doubles, which is never an error."""
    if b:
        return a / b
    if a == 0 or a != a:
        return float("nan")
    from math import copysign

    return copysign(float("inf"), a) * copysign(1.0, b)


def remainder(frame: Frame, a: Any, b: Any) -> Any:
    kind = type(a)
    if kind is type(b) and (kind is int or kind is UInt):
        if b == 0:
            raise CelError("modulus by zero")
        left = abs(int(a)) % abs(int(b))
        return unsigned(left) if kind is UInt else (-left if a < 0 else left)
    raise CelError(NO_OVERLOAD)


ORDERED = (str, bytes, Timestamp, Duration)


def comparison(test: Callable[[Any, Any], bool]) -> Callable[[Frame, Any, Any], bool]:
    def run(frame: Frame, a: Any, b: Any) -> bool:
        kind = type(a)
        if kind is type(b) and kind in ORDERED:
            if kind is str or kind is bytes:
                frame.spend(min(len(a), len(b)) // 10)
            return test(a, b)
        if is_number(a) and is_number(b):
            return test(a, b)
        if kind is bool and type(b) is bool:
            return test(a, b)
        raise CelError(NO_OVERLOAD)

    return run


def equals(frame: Frame, a: Any, b: Any) -> bool:
    if type(a) is str and type(b) is str:
        frame.spend(min(len(a), len(b)) // 10)
        return bool(a == b)
    return equal(a, b, frame.spend)


def is_in(frame: Frame, a: Any, b: Any) -> bool:
    if isinstance(b, list):
        return any(equal(v, a, frame.spend) for v in b)
    if isinstance(b, Mapping):
        known = key_of(a)
        return known is not None and known in b
    raise CelError(NO_OVERLOAD)


OPERATORS: Mapping[str, Callable[[Frame, Any, Any], Any]] = {
    "_+_": plus,
    "_-_": minus,
    "_*_": times,
    "_/_": divided,
    "_%_": remainder,
    "_<_": comparison(lambda a, b: bool(a < b)),
    "_<=_": comparison(lambda a, b: bool(a <= b)),
    "_>_": comparison(lambda a, b: bool(a > b)),
    "_>=_": comparison(lambda a, b: bool(a >= b)),
    "_==_": equals,
    "_!=_": lambda frame, a, b: not equals(frame, a, b),
    "@in": is_in,
}


def invocation(found: list[Overload], args: list[Run]) -> Run:
    """A call of whichever overload takes the values."""

    def run(frame: Frame) -> Any:
        values = [arg(frame) for arg in args]
        frame.left -= 1
        if frame.left < 0:
            raise OutOfBudget
        for one in found:
            for accepts, value in zip(one.accepts, values, strict=True):
                if accepts is not None and not accepts(value):
                    break
            else:
                return one.run(frame, *values) if one.costly else one.run(*values)
        raise CelError(NO_OVERLOAD)

    return run


# ---------------------------------------------------------------- loops

LOOP_COST = 3


def rounds(frame: Frame, value: Any, first: str, second: str) -> Iterator[tuple[Any, Any]]:
    """Set a macro's variables for each element in turn; (key or index, element), by what is looped over."""
    variables = frame.variables
    pairs: Iterator[tuple[Any, Any]]
    if isinstance(value, list):
        pairs = enumerate(value)
    elif isinstance(value, Mapping):
        pairs = ((unkey(k), v) for k, v in value.items())
    else:
        raise CelError(NO_OVERLOAD)
    keyed = not isinstance(value, list)
    for key, one in pairs:
        frame.left -= LOOP_COST
        if frame.left < 0:
            raise OutOfBudget
        if second:
            variables[first], variables[second] = key, one
        else:
            variables[first] = key if keyed else one
        yield key, one


def loop_all(frame: Frame, value: Any, first: str, second: str, when: Run, then: Any) -> bool:
    return decided(frame, (when for _ in rounds(frame, value, first, second)), decides=False)


def loop_exists(frame: Frame, value: Any, first: str, second: str, when: Run, then: Any) -> bool:
    return decided(frame, (when for _ in rounds(frame, value, first, second)), decides=True)


def truth(found: Any) -> bool:
    if not isinstance(found, bool):
        raise CelError(NO_OVERLOAD)
    return found


def loop_exists_one(frame: Frame, value: Any, first: str, second: str, when: Run, then: Any) -> bool:
    return sum(truth(when(frame)) for _ in rounds(frame, value, first, second)) == 1


def loop_filter(frame: Frame, value: Any, first: str, second: str, when: Run, then: Any) -> list[Any]:
    keyed = not isinstance(value, list)
    return [k if keyed else v for k, v in rounds(frame, value, first, second) if truth(when(frame))]


def loop_map(frame: Frame, value: Any, first: str, second: str, when: Run | None, then: Run) -> list[Any]:
    return [then(frame) for _ in rounds(frame, value, first, second) if when is None or truth(when(frame))]


def loop_transform_map(
    frame: Frame, value: Any, first: str, second: str, when: Run | None, then: Run
) -> dict[Any, Any]:
    out: dict[Any, Any] = {}
    for key, _ in rounds(frame, value, first, second):
        if when is None or truth(when(frame)):
            out[key_of(key)] = then(frame)
    return out


def loop_transform_entries(
    frame: Frame, value: Any, first: str, second: str, when: Run | None, then: Run
) -> dict[Any, Any]:
    out: dict[Any, Any] = {}
    for _ in rounds(frame, value, first, second):
        if when is None or truth(when(frame)):
            more = then(frame)
            if not isinstance(more, Mapping):
                raise CelError(NO_OVERLOAD)
            for key, inner in more.items():
                frame.spend(1)
                if key in out:
                    raise CelError(f"insert failed: key '{unkey(key)}' already exists")
                out[key] = inner
    return out


def loop_sort_by(frame: Frame, value: Any, first: str, second: str, when: Run, then: Any) -> list[Any]:
    if not isinstance(value, list):
        raise CelError(NO_OVERLOAD)
    keys = [when(frame) for _ in rounds(frame, value, first, second)]
    if len({type(k) for k in keys}) > 1 or (keys and not (is_number(keys[0]) or type(keys[0]) in (*ORDERED, bool))):
        raise CelError("list elements must have the same type and be comparable")
    frame.spend(len(keys) * len(keys).bit_length())
    return [value[i] for i in sorted(range(len(keys)), key=lambda i: keys[i])]


def optional_map(frame: Frame, value: Any, first: str, second: str, when: Any, then: Run) -> Optional:
    if not isinstance(value, Optional):
        raise CelError(NO_OVERLOAD)
    if not value.present:
        return NONE
    frame.variables[first] = value.value
    return Optional(then(frame))


def optional_flat_map(frame: Frame, value: Any, first: str, second: str, when: Any, then: Run) -> Optional:
    found = optional_map(frame, value, first, second, when, then)
    if not found.present:
        return NONE
    if not isinstance(found.value, Optional):
        raise CelError(NO_OVERLOAD)
    return found.value


LOOPS: Mapping[str, Callable[..., Any]] = {
    "all": loop_all,
    "exists": loop_exists,
    "exists_one": loop_exists_one,
    "filter": loop_filter,
    "map": loop_map,
    "transformList": loop_map,
    "transformMap": loop_transform_map,
    "transformMapEntry": loop_transform_entries,
    "sortBy": loop_sort_by,
    "optMap": optional_map,
    "optFlatMap": optional_flat_map,
}
