"""What Go's JSON reader says of text that is no JSON, and how errors name values: only for messages (WRITE-2, PATCH-5).

Reading itself is msgspec's; this scanner runs after it has refused a text, to find the words.
"""

from __future__ import annotations

import re

MAX_DEPTH = 10_000
SPACE = re.compile(rb"[ \t\r\n]*")
PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
HEX = b"0123456789abcdefABCDEF"
DIGITS = re.compile(rb"[0-9]*")
END = "unexpected end of JSON input"


class Bad(Exception):
    """The first thing wrong with a text."""


def quote_char(byte: int) -> str:
    c = chr(byte)
    if c == "'":
        return "'\\''"
    if c == '"':
        return "'\"'"
    if c == "\\":
        return "'\\\\'"
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}
    if c in named:
        return f"'{named[c]}'"
    if byte < 0x20 or byte == 0x7F:
        return f"'\\x{byte:02x}'"
    if not c.isprintable():
        return f"'\\u{byte:04x}'"
    return f"'{c}'"


class Scanner:
    """Walks a text once, without recursion, until something is wrong."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0

    def fail(self, context: str) -> Bad:
        if self.at >= len(self.text):
            return Bad(END)
        return Bad(f"invalid character {quote_char(self.text[self.at])} {context}")

    def skip(self, pattern: re.Pattern[bytes]) -> None:
        match = pattern.match(self.text, self.at)
        assert match is not None  # every pattern here matches the empty text
        self.at = match.end()

    def peek(self) -> bytes:
        return self.text[self.at : self.at + 1]

    def string(self) -> None:
        self.at += 1
        while True:
            self.skip(PLAIN)
            c = self.peek()
            if c == b'"':
                self.at += 1
                return
            if c != b"\\":
                raise self.fail("in string literal")
            self.at += 1
            c = self.peek()
            if c and c in b'bfnrt\\/"':
                self.at += 1
            elif c == b"u":
                self.at += 1
                for _ in range(4):
                    if not self.peek() or self.peek() not in HEX:
                        raise self.fail("in \\u hexadecimal character escape")
                    self.at += 1
            else:
                raise self.fail("in string escape code")

    def literal(self, word: bytes) -> None:
        for i in range(1, len(word)):
            self.at += 1
            if self.peek() != word[i : i + 1]:
                raise self.fail(f"in literal {word.decode()} (expecting '{chr(word[i])}')")
        self.at += 1

    def number(self) -> None:
        if self.peek() == b"-":
            self.at += 1
            if not self.peek().isdigit():
                raise self.fail("in numeric literal")
        if self.peek() == b"0":
            self.at += 1
        else:
            self.skip(DIGITS)
        if self.peek() == b".":
            self.at += 1
            if not self.peek().isdigit():
                raise self.fail("after decimal point in numeric literal")
            self.skip(DIGITS)
        if self.peek() in (b"e", b"E"):
            self.at += 1
            if self.peek() in (b"+", b"-"):
                self.at += 1
            if not self.peek().isdigit():
                raise self.fail("in exponent of numeric literal")
            self.skip(DIGITS)

    def key(self) -> None:
        self.skip(SPACE)
        if self.peek() != b'"':
            raise self.fail("looking for beginning of object key string")
        self.string()
        self.skip(SPACE)
        if self.peek() != b":":
            raise self.fail("after object key")
        self.at += 1

    def opened(self, stack: list[bytes]) -> bool:
        """Read the start of a value; True if it is an object or list with something inside still to come."""
        self.skip(SPACE)
        c = self.peek()
        if c in (b"{", b"["):
            self.at += 1
            if len(stack) >= MAX_DEPTH:
                raise Bad("exceeded max depth")
            self.skip(SPACE)
            if self.peek() == (b"}" if c == b"{" else b"]"):
                self.at += 1
                return False
            stack.append(c)
            if c == b"{":
                self.key()
            return True
        if c == b'"':
            self.string()
        elif c in (b"t", b"f", b"n"):
            self.literal({b"t": b"true", b"f": b"false", b"n": b"null"}[c])
        elif c == b"-" or c.isdigit():
            self.number()
        else:
            raise self.fail("looking for beginning of value")
        return False

    def run(self) -> None:
        stack: list[bytes] = []
        while True:
            if self.opened(stack):
                continue
            while stack:
                self.skip(SPACE)
                c, inside = self.peek(), stack[-1]
                if c == b",":
                    self.at += 1
                    if inside == b"{":
                        self.key()
                    break
                if c != (b"}" if inside == b"{" else b"]"):
                    raise self.fail("after object key:value pair" if inside == b"{" else "after array element")
                self.at += 1
                stack.pop()
            else:
                self.skip(SPACE)
                if self.at < len(self.text):
                    raise self.fail("after top-level value")
                return


def syntax_error(text: bytes) -> str:
    """The message of the first thing wrong with the text; "" if it is JSON."""
    try:
        Scanner(text).run()
    except Bad as e:
        return str(e)
    return ""


def type_word(value: object) -> str:
    """How type errors name a JSON value: string, number, bool, array, object, null."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, list):
        return "array"
    return "object"


def summary(data: bytes, most: int = 30) -> str:
    """A refused body in short, as its 400 shows it in parentheses (WRITE-2)."""
    if not data:
        return "<empty>"
    cut, rest = data[:most], " ..." if len(data) > most else ""
    if data.startswith(b"{"):
        return cut.decode(errors="replace") + rest
    return cut.hex() + rest
