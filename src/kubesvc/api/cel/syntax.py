"""Expressions as text and as trees: the lexer and the parser of the Common Expression Language.

`parse` knows the grammar, the macros (`has`, `all`, `exists`, `exists_one`, `map`, `filter`, also with two variables)
and the optional forms (`a.?b`, `a[?b]`, `[?a]`, `{?a: b}`), and nothing of types. Whatever the text, it returns a tree
or raises SyntaxProblem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

Part = TypeVar("Part")
Key = TypeVar("Key")

MOST_CHARACTERS = 100_000
MOST_NESTING = 60
"""How deep brackets may stand in each other."""
MOST_DEPTH = 250
"""How deep the tree may get, as upstream."""
MOST_INT, MOST_UINT = 2**63 - 1, 2**64 - 1


class Problem(NamedTuple):
    """One thing wrong with an expression, at a position counted in characters from 0."""

    at: int
    text: str


class CelProblem(ValueError):
    """An expression that cannot be used; the text is what upstream prints."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(shown(source, p) for p in problems))


class SyntaxProblem(CelProblem):
    """A text that is no expression."""


def shown(source: str, problem: Problem) -> str:
    """A problem with the line it is in, and dots up to its column."""
    before = source[: problem.at]
    line, column = before.count("\n") + 1, problem.at - (before.rfind("\n") + 1)
    text = source.split("\n")[line - 1].replace("\t", " ")
    return f"ERROR: <input>:{line}:{column + 1}: {problem.text}\n | {text}\n | {'.' * column}^"


class UInt(int):
    """A number of CEL's type uint."""

    __slots__ = ()


# ---------------------------------------------------------------- trees


class Node:
    """A part of an expression. `at`: where its operator, or its only word, stands."""

    __slots__ = ("at",)
    at: int


class Literal(Node):
    __slots__ = ("value",)

    def __init__(self, at: int, value: Any) -> None:
        self.at, self.value = at, value


class Ident(Node):
    __slots__ = ("name",)

    def __init__(self, at: int, name: str) -> None:
        self.at, self.name = at, name


class Select(Node):
    """`target.field`; test: `has(target.field)`; optional: `target.?field`."""

    __slots__ = ("field", "optional", "target", "test")

    def __init__(self, at: int, target: Node, field: str, *, test: bool = False, optional: bool = False) -> None:
        self.at, self.target, self.field, self.test, self.optional = at, target, field, test, optional


class Index(Node):
    __slots__ = ("index", "optional", "target")

    def __init__(self, at: int, target: Node, index: Node, *, optional: bool = False) -> None:
        self.at, self.target, self.index, self.optional = at, target, index, optional


class Call(Node):
    """A function, a method (`target` is not None) or an operator, whose names are upstream's: `_+_`, `!_`, `_?_:_`."""

    __slots__ = ("args", "name", "target")

    def __init__(self, at: int, name: str, target: Node | None, args: list[Node]) -> None:
        self.at, self.name, self.target, self.args = at, name, target, args


class ListOf(Node):
    """`optional`: the positions of elements written with `?`."""

    __slots__ = ("items", "optional")

    def __init__(self, at: int, items: list[Node], optional: frozenset[int]) -> None:
        self.at, self.items, self.optional = at, items, optional


class MapOf(Node):
    __slots__ = ("entries", "optional")

    def __init__(self, at: int, entries: list[tuple[Node, Node]], optional: frozenset[int]) -> None:
        self.at, self.entries, self.optional = at, entries, optional


class StructOf(Node):
    """`Name{field: value}`; `name` may have dots."""

    __slots__ = ("entries", "name", "optional")

    def __init__(self, at: int, name: str, entries: list[tuple[str, Node]], optional: frozenset[int]) -> None:
        self.at, self.name, self.entries, self.optional = at, name, entries, optional


class Macro(Node):
    """A loop over `range`. `second` is "" with one variable; `when` may be None for `map` alone."""

    __slots__ = ("first", "name", "range", "second", "then", "when")

    def __init__(
        self, at: int, name: str, range: Node, first: str, second: str, when: Node | None, then: Node | None
    ) -> None:
        self.at, self.name, self.range, self.first, self.second = at, name, range, first, second
        self.when, self.then = when, then


def parts(node: Node) -> Iterator[Node]:
    """What stands right below a node."""
    if isinstance(node, Select):
        yield node.target
    elif isinstance(node, Index):
        yield node.target
        yield node.index
    elif isinstance(node, Call):
        if node.target is not None:
            yield node.target
        yield from node.args
    elif isinstance(node, ListOf):
        yield from node.items
    elif isinstance(node, MapOf):
        for key, value in node.entries:
            yield key
            yield value
    elif isinstance(node, StructOf):
        for _, value in node.entries:
            yield value
    elif isinstance(node, Macro):
        yield node.range
        if node.when is not None:
            yield node.when
        if node.then is not None:
            yield node.then


def dotted(node: Node) -> str:
    """`a.b.c` as a name; "" if it is none."""
    names: list[str] = []
    while isinstance(node, Select) and not (node.test or node.optional):
        names.append(node.field)
        node = node.target
    if not isinstance(node, Ident):
        return ""
    return ".".join([node.name, *reversed(names)])


def names_in(node: Node) -> set[str]:
    """All free words of an expression that may be variables; the variables of macros count where they are free."""
    found: set[str] = set()
    todo: list[tuple[Node, frozenset[str]]] = [(node, frozenset())]
    while todo:
        one, bound = todo.pop()
        if isinstance(one, Ident):
            if one.name not in bound:
                found.add(one.name)
        elif isinstance(one, Macro):
            todo.append((one.range, bound))
            inner = bound | {one.first, one.second}
            todo += [(p, inner) for p in (one.when, one.then) if p is not None]
        else:
            todo += [(p, bound) for p in parts(one)]
    return found


# ---------------------------------------------------------------- words


class Token(NamedTuple):
    kind: str
    text: str
    at: int
    value: Any = None


TOKEN = re.compile(
    r"""(?P<space>[ \t\n\f\r]+|//[^\n]*)
    |(?P<string>(?:[rR][bB]?|[bB][rR]?)?(?:\"{3}|'{3}|\"|'))
    |(?P<float>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
    |(?P<int>0x[0-9a-fA-F]+[uU]?|[0-9]+[uU]?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<quoted>`[A-Za-z0-9_./ -]+`)
    |(?P<op>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE,
)
RESERVED = frozenset(
    ("as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
     "namespace", "return", "var", "void", "while")
)  # fmt: skip
SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", "?": "?",
          '"': '"', "'": "'", "`": "`"}  # fmt: skip
ESCAPE = re.compile(r"\\(?:([xX])([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL)


def fail(source: str, at: int, text: str) -> SyntaxProblem:
    return SyntaxProblem(source, [Problem(at, text)])


def tokens_of(source: str) -> list[Token]:
    out: list[Token] = []
    at, length = 0, len(source)
    while at < length:
        found = TOKEN.match(source, at)
        if found is None:
            raise fail(source, at, f"Syntax error: token recognition error at: '{source[at]}'")
        kind, text = str(found.lastgroup), found[0]
        if kind == "string":
            at = text_token(source, at, text, out)
            continue
        if kind != "space":
            out.append(Token(kind, text, at, number_of(source, at, kind, text)))
        at = found.end()
    out.append(Token("end", "<EOF>", length))
    return out


def number_of(source: str, at: int, kind: str, text: str) -> Any:
    if kind == "float":
        return float(text)
    if kind != "int":
        return None
    unsigned = text[-1] in "uU"
    digits = text.rstrip("uU")
    if len(digits) > 400:
        raise fail(source, at, "invalid int literal")
    value = int(digits, 16) if digits.startswith("0x") else int(digits)
    if value > (MOST_UINT if unsigned else MOST_INT + 1):
        raise fail(source, at, "invalid uint literal" if unsigned else "invalid int literal")
    return UInt(value) if unsigned else value


def text_token(source: str, at: int, opening: str, out: list[Token]) -> int:
    """Read a text or bytes literal; the position behind it."""
    prefix = opening.rstrip("\"'").lower()
    quote = opening[len(prefix) :]
    raw = "r" in prefix
    start = at + len(opening)
    i = start
    while True:
        if i >= len(source) or (len(quote) == 1 and source[i] in "\n\r"):
            raise fail(source, at, f"Syntax error: token recognition error at: '{source[at:i]}'")
        if source[i] == "\\" and not raw:
            i += 2
        elif source.startswith(quote, i):
            break
        else:
            i += 1
    inner = source[start:i]
    value = unescaped(source, at, inner, bytes="b" in prefix, raw=raw)
    out.append(Token("bytes" if "b" in prefix else "string", source[at : i + len(quote)], at, value))
    return i + len(quote)


def unescaped(source: str, at: int, inner: str, *, bytes: bool, raw: bool) -> Any:
    pieces: list[str | int] = []
    last = 0
    if not raw:
        for found in ESCAPE.finditer(inner):
            pieces.append(inner[last : found.start()])
            last = found.end()
            _, hexa, u4, u8, octal, other = found.groups()
            if hexa or octal:
                pieces.append(int(hexa, 16) if hexa else int(octal, 8))
            elif u4 or u8:
                code = int(u4 or u8, 16)
                if code > 0x10FFFF or 0xD800 <= code < 0xE000 or bytes:
                    raise fail(source, at, "invalid unicode code point" if not bytes else "unable to unescape string")
                pieces.append(chr(code))
            elif other in SIMPLE:
                pieces.append(SIMPLE[other])
            else:
                raise fail(source, at, "unable to unescape string")
    pieces.append(inner[last:])
    if bytes:
        return b"".join(p.encode("utf-8", "replace") if isinstance(p, str) else p.to_bytes(1, "big") for p in pieces)
    return "".join(p if isinstance(p, str) else chr(p) for p in pieces)


# ---------------------------------------------------------------- the grammar

BINARY = {
    "<": (3, "_<_"), "<=": (3, "_<=_"), ">": (3, "_>_"), ">=": (3, "_>=_"), "==": (3, "_==_"), "!=": (3, "_!=_"),
    "in": (3, "@in"), "+": (4, "_+_"), "-": (4, "_-_"), "*": (5, "_*_"), "/": (5, "_/_"), "%": (5, "_%_"),
}  # fmt: skip
"""Operators between two values: how strongly they bind, and their names."""
LOOPS = frozenset(("all", "exists", "exists_one", "existsOne", "map", "filter", "transformList", "transformMap",
                   "transformMapEntry", "sortBy"))  # fmt: skip


class Parser:
    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens = tokens_of(source)
        self.next = 0
        self.nesting = 0

    # ------------------------------------------------------------------ words

    @property
    def token(self) -> Token:
        return self.tokens[self.next]

    def take(self) -> Token:
        found = self.tokens[self.next]
        self.next += 1
        return found

    def at_op(self, *texts: str) -> bool:
        token = self.tokens[self.next]
        return token.kind == "op" and token.text in texts

    def expect(self, text: str) -> Token:
        if not self.at_op(text):
            raise self.unexpected(f"'{text}'")
        return self.take()

    def unexpected(self, wanted: str = "") -> SyntaxProblem:
        token = self.token
        found = token.text.replace("\n", "\\n")
        if wanted and token.kind != "end":
            return fail(self.source, token.at, f"Syntax error: missing {wanted} at '{found}'")
        if token.kind == "end":
            return fail(
                self.source, token.at, f"Syntax error: mismatched input '{found}' expecting {wanted or EXPECTING}"
            )
        return fail(self.source, token.at, f"Syntax error: extraneous input '{found}' expecting {EXPECTING}")

    # ------------------------------------------------------------------ expressions

    def whole(self) -> Node:
        node = self.expression()
        if self.token.kind != "end":
            raise fail(
                self.source, self.token.at, f"Syntax error: mismatched input '{self.token.text}' expecting <EOF>"
            )
        return node

    def expression(self) -> Node:
        self.nesting += 1
        if self.nesting > MOST_NESTING:
            raise fail(self.source, 0, f"expression recursion limit exceeded: {MOST_NESTING}")
        node = self.disjunction()
        if self.at_op("?"):
            op = self.take()
            then = self.disjunction()
            self.expect(":")
            node = Call(op.at, "_?_:_", None, [node, then, self.expression()])
        self.nesting -= 1
        return node

    def disjunction(self) -> Node:
        """Terms between `||`, each of terms between `&&`: flat, however many there are."""
        either: list[Node] = []
        between = 0
        while True:
            both: list[Node] = [self.binary(3)]
            at = self.token.at
            while self.at_op("&&"):
                self.take()
                both.append(self.binary(3))
            either.append(Call(at, "_&&_", None, both) if len(both) > 1 else both[0])
            if not self.at_op("||"):
                return Call(between, "_||_", None, either) if len(either) > 1 else either[0]
            op = self.take()
            between = between or op.at

    def binary(self, least: int) -> Node:
        node = self.unary()
        while True:
            token = self.token
            found = BINARY.get(token.text) if token.kind == "op" or token.text == "in" else None
            if found is None or found[0] < least:
                return node
            self.take()
            node = Call(token.at, found[1], None, [node, self.binary(found[0] + 1)])

    def unary(self) -> Node:
        signs: list[Token] = []
        while self.at_op("!", "-"):
            signs.append(self.take())
            if signs[-1].text != signs[0].text:
                raise fail(self.source, signs[-1].at, f"Syntax error: extraneous input '{signs[-1].text}'")
        if signs and signs[0].text == "-" and self.token.kind in ("int", "float") and len(signs) % 2:
            number = self.take()
            value = -number.value if not isinstance(number.value, UInt) else number.value
            literal: Node = Literal(signs[0].at, self.signed(number, value))
            return self.member(literal)
        node = self.member(self.primary())
        if len(signs) % 2:
            return Call(signs[0].at, "!_" if signs[0].text == "!" else "-_", None, [node])
        return node

    def signed(self, token: Token, value: Any) -> Any:
        if type(value) is int and value > MOST_INT:
            raise fail(self.source, token.at, "invalid int literal")
        return value

    def member(self, node: Node) -> Node:
        while True:
            if self.at_op("."):
                dot = self.take()
                optional = self.at_op("?")
                if optional:
                    self.take()
                name = self.field_name()
                if not optional and self.at_op("(") and self.tokens[self.next - 1].kind != "quoted":
                    opening = self.take()
                    node = self.method(opening, node, name, self.arguments())
                else:
                    node = Select(dot.at, node, name, optional=optional)
            elif self.at_op("["):
                bracket = self.take()
                optional = self.at_op("?")
                if optional:
                    self.take()
                index = self.expression()
                self.expect("]")
                node = Index(bracket.at, node, index, optional=optional)
            elif self.at_op("{") and (name := dotted(node)):
                node = self.struct_of(self.take(), name)
            else:
                return node

    def field_name(self) -> str:
        token = self.token
        if token.kind == "quoted":
            return self.take().text[1:-1]
        if token.kind != "name" or token.text in ("true", "false", "null", "in"):
            raise self.unexpected("IDENTIFIER")
        return self.take().text

    def arguments(self) -> list[Node]:
        """What stands between round brackets, up to and with the closing one."""
        args: list[Node] = []
        while not self.at_op(")"):
            args.append(self.expression())
            if not self.at_op(","):
                break
            self.take()
            if self.at_op(")"):
                raise self.unexpected()
        self.expect(")")
        return args

    def primary(self) -> Node:
        token = self.token
        if token.kind in ("string", "bytes", "int", "float"):
            self.take()
            return Literal(token.at, self.signed(token, token.value))
        if token.kind == "name":
            return self.word(self.take())
        if token.kind == "op":
            if token.text == "(":
                self.take()
                node = self.expression()
                self.expect(")")
                return node
            if token.text == "[":
                return self.list_of(self.take())
            if token.text == "{":
                return self.map_of(self.take())
            if token.text == ".":  # a name from the root: the same here, where nothing is nested
                self.take()
                if self.token.kind == "name":
                    return self.word(self.take())
        raise self.unexpected()

    def word(self, token: Token) -> Node:
        name = token.text
        if name in ("true", "false"):
            return Literal(token.at, name == "true")
        if name == "null":
            return Literal(token.at, None)
        if name == "in":
            raise fail(self.source, token.at, f"Syntax error: extraneous input 'in' expecting {EXPECTING}")
        if name in RESERVED:
            raise fail(self.source, token.at, f"reserved identifier: {name}")
        if not self.at_op("("):
            return Ident(token.at, name)
        opening = self.take()
        args = self.arguments()
        if name == "has":
            if len(args) != 1 or not isinstance(args[0], Select) or args[0].optional or args[0].test:
                raise fail(self.source, args[0].at if args else opening.at, "invalid argument to has() macro")
            return Select(opening.at, args[0].target, args[0].field, test=True)
        return Call(opening.at, name, None, args)

    def parts(self, closing: str, part: Callable[[], Part]) -> tuple[list[Part], frozenset[int]]:
        """The parts of a list, map or struct up to its end, and which of them are optional (`?` before them)."""
        found: list[Part] = []
        optional: set[int] = set()
        while not self.at_op(closing):
            if self.at_op("?"):
                self.take()
                optional.add(len(found))
            found.append(part())
            if not self.at_op(","):
                break
            self.take()
        self.expect(closing)
        return found, frozenset(optional)

    def pair(self, key: Callable[[], Key]) -> tuple[Key, Node]:
        found = key()
        self.expect(":")
        return found, self.expression()

    def list_of(self, opening: Token) -> Node:
        return ListOf(opening.at, *self.parts("]", self.expression))

    def map_of(self, opening: Token) -> Node:
        return MapOf(opening.at, *self.parts("}", lambda: self.pair(self.expression)))

    def struct_of(self, opening: Token, name: str) -> Node:
        return StructOf(opening.at, name, *self.parts("}", lambda: self.pair(self.field_name)))

    # ------------------------------------------------------------------ macros

    def method(self, opening: Token, target: Node, name: str, args: list[Node]) -> Node:
        """A method call, or the loop that it stands for."""
        if name in ("optMap", "optFlatMap") and len(args) == 2:
            return Macro(opening.at, name, target, self.variable(args[0]), "", None, args[1])
        if name not in LOOPS:
            return Call(opening.at, name, target, args)
        one = {"all": 2, "exists": 2, "exists_one": 2, "existsOne": 2, "filter": 2, "sortBy": 2}.get(name)
        count = len(args)
        name = "exists_one" if name == "existsOne" else name
        if one is not None and count == one:
            return Macro(opening.at, name, target, self.variable(args[0]), "", args[1], None)
        if name in ("all", "exists", "exists_one") and count == 3:
            return Macro(opening.at, name, target, *self.variables(args), args[2], None)
        if name == "map" and count in (2, 3):
            when = args[1] if count == 3 else None
            return Macro(opening.at, name, target, self.variable(args[0]), "", when, args[-1])
        if name.startswith("transform") and count in (3, 4):
            when = args[2] if count == 4 else None
            return Macro(opening.at, name, target, *self.variables(args), when, args[-1])
        return Call(opening.at, name, target, args)

    def variable(self, node: Node) -> str:
        if not isinstance(node, Ident):
            raise fail(self.source, node.at, "argument must be a simple name")
        if node.name == "__result__":
            raise fail(self.source, node.at, "iteration variable overwrites accumulator variable")
        return node.name

    def variables(self, args: list[Node]) -> tuple[str, str]:
        first, second = self.variable(args[0]), self.variable(args[1])
        if first == second:
            raise fail(self.source, args[1].at, f"duplicate variable name: {first}")
        return first, second


EXPECTING = (
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
)


def parse(source: str) -> Node:
    """The tree of an expression. SyntaxProblem."""
    if len(source) > MOST_CHARACTERS:
        text = f"expression code point size exceeds limit: size: {len(source)}, limit {MOST_CHARACTERS}"
        raise SyntaxProblem("", [Problem(0, text)])
    try:
        node = Parser(source).whole()
    except RecursionError:
        raise fail(source, 0, f"expression recursion limit exceeded: {MOST_NESTING}") from None
    level, depth = [node], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            raise fail(source, 0, f"expression recursion limit exceeded: {MOST_DEPTH}")
        level = [inner for one in level for inner in parts(one)]
    return node
