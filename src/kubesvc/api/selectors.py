"""Selectors: which objects a text, a LabelSelector or a map of labels picks (SEL-1, SEL-2).

A selector is a frozen value: parse once, match often. Parse errors are `ValueError`s in the API's own words, to be
answered as 400 as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from . import fields, names

Operator = Literal["=", "==", "!=", "in", "notin", "exists", "!", ">", "<"]

INTEGER_RANGE = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label; `values` are sorted and unique."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "=" | "==" | "in":
                return value is not None and value in self.values
            case "!=" | "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
            case ">" | "<":
                found = integer(value)
                if found is None:
                    return False
                return found > int(self.values[0]) if self.operator == ">" else found < int(self.values[0])

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(self.values)})"
            case _:
                return f"{self.key}{self.operator}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements together, in the order of their keys. Without any it matches everything.

    `nothing` marks the selector of an absent LabelSelector, which matches no object.
    """

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        if self.nothing:
            return False
        found = labels or {}
        return all(r.matches(found) for r in self.requirements)

    @property
    def empty(self) -> bool:
        """Whether it matches every object."""
        return not self.requirements and not self.nothing

    def __str__(self) -> str:
        """The canonical text, which parses to the same selector (KCTL-35)."""
        return ",".join(str(r) for r in self.requirements)


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)


def parse_label_selector(text: str) -> LabelSelector:
    """The selector that `text` writes down, e.g. `app=web,tier in (a,b),!old`; ValueError in SEL-1's words."""
    if not text:
        return EVERYTHING
    return of_requirements(Parser(tokens(text)).requirements())


def equality_selector(labels: Mapping[str, str] | None) -> LabelSelector:
    """The selector of a plain label map, as `spec.selector` of a Service; empty or None matches everything."""
    return of_requirements(Requirement(k, "=", (v,)) for k, v in (labels or {}).items())


EXPRESSION_OPERATORS: Mapping[str, Operator] = {
    "In": "in",
    "NotIn": "notin",
    "Exists": "exists",
    "DoesNotExist": "!",
}


def label_selector_of(selector: Mapping[str, Any] | None) -> LabelSelector:
    """The selector of a plain `LabelSelector` object (matchLabels, matchExpressions).

    None selects nothing, an empty object everything. ValueError for an unknown operator or values that do not fit it.
    """
    if selector is None:
        return NOTHING
    found = [Requirement(k, "=", (v,)) for k, v in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        name = expression.get("operator") or ""
        if name not in EXPRESSION_OPERATORS:
            raise ValueError(f"{fields.quote(name)} is not a valid label selector operator")
        found.append(checked(expression.get("key") or "", EXPRESSION_OPERATORS[name], expression.get("values") or ()))
    return of_requirements(found)


def of_requirements(found: Iterable[Requirement]) -> LabelSelector:
    return LabelSelector(tuple(sorted(found, key=lambda r: r.key)))


def checked(key: str, operator: Operator, values: Iterable[str]) -> Requirement:
    """A requirement whose key and values are what its operator needs; else ValueError."""
    unique = sorted(dict.fromkeys(values))
    errors: fields.Errors = [fields.invalid("key", key, t) for t in names.label_key(key)]
    if operator in ("in", "notin"):
        if not unique:
            errors.append(fields.invalid("values", [], "for 'in', 'notin' operators, values set can't be empty"))
    elif operator in ("exists", "!"):
        if unique:
            errors.append(fields.invalid("values", unique, "values set must be empty for exists and does not exist"))
    elif operator in (">", "<"):
        for i, value in enumerate(unique):
            if integer(value) is None:
                text = "for 'Gt', 'Lt' operators, the value must be an integer"
                errors.append(fields.invalid(f"values[{i}]", value, text))
    for i, value in enumerate(unique):
        errors += [fields.invalid(f"values[{i}][{key}]", value, t) for t in names.label_value(value)]
    if errors:
        raise ValueError(joined(errors))
    return Requirement(key, operator, tuple(unique))


def joined(errors: fields.Errors) -> str:
    texts = list(dict.fromkeys(str(e) for e in errors))
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def integer(text: str | None) -> int | None:
    """The number that the text is in decimal and in 64 bits, else None."""
    if text is None or not text.lstrip("+-").isdigit() or not text.isascii():
        return None
    try:
        number = int(text)
    except ValueError:
        return None
    return number if number in INTEGER_RANGE else None


# The text form: a tokenizer, and a parser with one token of lookahead. A word that is a keyword (in, notin) is a
# keyword only where an operator is expected.

SPECIAL = frozenset("=!(),><")
SYMBOLS = frozenset({")", ",", "!", "==", "=", ">", "<", "!=", "("})
Token = tuple[Literal["word", "symbol", "end"], str]
END: Token = ("end", "")


def tokens(text: str) -> list[Token]:
    """Words and the longest operators, blanks dropped, with an end token."""
    found: list[Token] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char in " \t\r\n":
            at += 1
        elif char in SPECIAL:
            symbol = text[at : at + 2] if text[at : at + 2] in SYMBOLS else char
            found.append(("symbol", symbol))
            at += len(symbol)
        else:
            start = at
            while at < len(text) and text[at] not in SPECIAL and text[at] not in " \t\r\n":
                at += 1
            found.append(("word", text[start:at]))
    return [*found, END]


class Parser:
    """Reads requirements from tokens; every refusal is a ValueError with the server's text."""

    def __init__(self, found: list[Token]) -> None:
        self.tokens = found
        self.at = 0

    def peek(self) -> Token:
        return self.tokens[min(self.at, len(self.tokens) - 1)]

    def take(self) -> Token:
        token = self.peek()
        self.at += 1
        return token

    def requirements(self) -> list[Requirement]:
        found: list[Requirement] = []
        while True:
            token = self.peek()
            if token == END:
                return found
            if not starts_requirement(token):
                raise ValueError(f"found '{token[1]}', expected: !, identifier, or 'end of string'")
            try:
                found.append(self.requirement())
            except ValueError as error:
                raise ValueError(f"unable to parse requirement: {error}") from None
            token = self.take()
            if token == END:
                return found
            if token != ("symbol", ","):
                raise ValueError(f"found '{token[1]}', expected: ',' or 'end of string'")
            if not starts_requirement(self.peek()):
                raise ValueError(f"found '{self.peek()[1]}', expected: identifier after ','")

    def requirement(self) -> Requirement:
        token = self.take()
        absent = token == ("symbol", "!")
        if absent:
            token = self.take()
        kind, key = token
        if kind != "word":
            raise ValueError(f"found '{key}', expected: identifier")
        if texts := names.label_key(key):
            raise ValueError(joined([fields.invalid("<nil>", key, t) for t in texts]))
        if absent:
            return checked(key, "!", ())
        if self.peek() in (END, ("symbol", ",")):
            return checked(key, "exists", ())
        operator = self.operator()
        return checked(key, operator, self.values() if operator in ("in", "notin") else self.value())

    def operator(self) -> Operator:
        kind, text = self.take()
        match kind, text:
            case ("symbol", "=" | "==" | "!=" | ">" | "<") | ("word", "in" | "notin"):
                return text  # type: ignore[return-value]
        raise ValueError(f"found '{text}', expected: in, notin, =, ==, !=, gt, lt")

    def value(self) -> list[str]:
        if self.peek() in (END, ("symbol", ",")):
            return [""]
        kind, text = self.take()
        if kind != "word":
            raise ValueError(f"found '{text}', expected: identifier")
        return [text]

    def values(self) -> list[str]:
        if (token := self.take()) != ("symbol", "("):
            raise ValueError(f"found '{token[1]}' expected: '('")
        kind, text = self.peek()
        if (kind, text) == ("symbol", ")"):
            self.take()
            return [""]
        if kind != "word" and text != ",":
            raise ValueError(f"found '{text}', expected: ',', ')' or identifier")
        found: list[str] = []
        while True:
            kind, text = self.take()
            if kind == "word":
                found.append(text)
                after = self.peek()
                if after == ("symbol", ")"):
                    break
                if after != ("symbol", ","):
                    raise ValueError(f"found '{after[1]}', expected: ',' or ')'")
            elif (kind, text) == ("symbol", ","):
                if not found:
                    found.append("")
                if self.peek() == ("symbol", ")"):
                    found.append("")
                    break
                if self.peek() == ("symbol", ","):
                    self.take()
                    found.append("")
                    if self.peek() == ("symbol", ")"):
                        break
            else:
                raise ValueError(f"found '{text}', expected: ',', or identifier")
        self.take()  # the closing bracket
        return found


def starts_requirement(token: Token) -> bool:
    return token[0] == "word" or token == ("symbol", "!")


# Field selectors


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    field: str
    operator: Literal["=", "!="]
    value: str


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All requirements together; without any it matches everything."""

    requirements: tuple[FieldRequirement, ...] = ()

    def matches(self, read: Callable[[str], str]) -> bool:
        """`read` gives the object's value of a field, "" where it is unset (SEL-3)."""
        return all((read(r.field) == r.value) == (r.operator == "=") for r in self.requirements)

    def exact(self, field: str) -> str | None:
        """The value that `field` must equal, if the selector says so."""
        return next((r.value for r in self.requirements if r.field == field and r.operator == "="), None)

    def __str__(self) -> str:
        return ",".join(f"{r.field}{r.operator}{escape_field_value(r.value)}" for r in self.requirements)


def parse_field_selector(text: str) -> FieldSelector:
    """The selector of `metadata.name=a,status.phase!=Running`; ValueError in SEL-2's words.

    Whether a field exists is the caller's to check (`field_selector_errors`), since that depends on the kind.
    """
    found: list[FieldRequirement] = []
    for term in sorted(split_terms(text)):
        if not term:
            continue
        parts = split_term(term)
        if parts is None:
            raise ValueError(f"invalid selector: '{text}'; can't understand '{term}'")
        field, operator, value = parts
        found.append(FieldRequirement(field, "!=" if operator == "!=" else "=", unescape_field_value(value)))
    return FieldSelector(tuple(found))


def unknown_field(selector: FieldSelector, known: Iterable[str]) -> str:
    """The text that refuses the first field not in `known` (the kind's own) nor of all kinds; "" if all are known."""
    own = frozenset(known)
    for r in selector.requirements:
        if r.field in own or r.field in ("metadata.name", "metadata.namespace"):
            continue
        if own:
            return f"field label not supported: {r.field}"
        return f'"{r.field}" is not a known field selector: only "metadata.name", "metadata.namespace"'
    return ""


def split_terms(text: str) -> list[str]:
    """The parts between commas that no backslash escapes."""
    found, part, escaped = [], "", False
    for char in text:
        if char == "," and not escaped:
            found.append(part)
            part = ""
            continue
        part += char
        escaped = char == "\\" and not escaped
    return [*found, part]


def split_term(term: str) -> tuple[str, str, str] | None:
    """Field, operator and value, split at the first operator."""
    for at in range(len(term)):
        for operator in ("!=", "==", "="):
            if term.startswith(operator, at):
                return term[:at], operator, term[at + len(operator) :]
    return None


def escape_field_value(value: str) -> str:
    return "".join("\\" + c if c in "\\,=" else c for c in value)


def unescape_field_value(text: str) -> str:
    found, at = "", 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            escaped = text[at + 1 : at + 2]
            if not escaped or escaped not in "\\,=":
                raise ValueError(f"invalid field selector: invalid escape sequence: \\{escaped}")
            found += escaped
            at += 2
            continue
        if char in ",=":
            raise ValueError(f"invalid field selector: unescaped character in value: {ord(char)}")
        found += char
        at += 1
    return found
