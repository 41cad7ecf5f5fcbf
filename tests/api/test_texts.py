"""JSON and YAML as Go reads them: the words for what is wrong, and YAML's scalars (WRITE-2, PATCH-5)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.gojson import summary, syntax_error
from kubesvc.api.goyaml import YamlError, read

JSON_ERRORS = (
    (b"", "unexpected end of JSON input"),
    (b'{"a":', "unexpected end of JSON input"),
    (b"tru", "unexpected end of JSON input"),
    (b"nope", "invalid character 'o' in literal null (expecting 'u')"),
    (b"apiV", "invalid character 'a' looking for beginning of value"),
    (b"{a", "invalid character 'a' looking for beginning of object key string"),
    (b'{"a" 1', "invalid character '1' after object key"),
    (b'{"a":1 "b"', "invalid character '\"' after object key:value pair"),
    (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
    (b"[1 2]", "invalid character '2' after array element"),
    (b"{}x", "invalid character 'x' after top-level value"),
    (b'"\n"', "invalid character '\\n' in string literal"),
    (b'"\\q"', "invalid character 'q' in string escape code"),
    (b'"\\u12x"', "invalid character 'x' in \\u hexadecimal character escape"),
    (b"-x", "invalid character 'x' in numeric literal"),
    (b"1.x", "invalid character 'x' after decimal point in numeric literal"),
    (b"1ex", "invalid character 'x' in exponent of numeric literal"),
    (b"[" * 20_000, "exceeded max depth"),
)


@pytest.mark.parametrize(("text", "message"), JSON_ERRORS, ids=lambda x: str(x)[:20])
def test_json_errors(text: bytes, message: str) -> None:
    assert syntax_error(text) == message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES, st.sampled_from([None, 2]))
def test_json_is_accepted(value: Any, indent: int | None) -> None:
    assert syntax_error(json.dumps(value, indent=indent).encode()) == ""
    assert syntax_error(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) == ""


def refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


@given(st.binary(max_size=30) | st.text(alphabet='{}[]",:\\ntrue01.-+eE \n', max_size=12).map(str.encode))
def test_json_and_words_exclude_each_other(text: bytes) -> None:
    try:
        json.loads(text.decode("ascii"), parse_constant=refuse)
    except ValueError:
        assert syntax_error(text) or not text.isascii()
    else:
        assert syntax_error(text) == ""


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", "<empty>"), (b"[]", "5b5d"), (b'{"a":', '{"a":'), (b"{" + b"x" * 40, "{" + "x" * 29 + " ...")],
)
def test_summaries(data: bytes, text: str) -> None:
    assert summary(data) == text


SCALARS = (
    ("y", True), ("No", False), ("on", True), ("true", True), ("~", None), ("null", None), ("", None),
    ("1", 1), ("0x1F", 31), ("0b11", 3), ("010", 8), ("0o10", 8), ("1_000", 1000), ("-3", -3), ("1.5", 1.5),
    ("1e3", 1000.0), (".5", 0.5), ("1:30", "1:30"), ("2001-01-01", "2001-01-01"), ("1.2.3", "1.2.3"),
    ("'1'", "1"), ('"y"', "y"), ("!!str 1", "1"), ("08", 8.0), ("text", "text"), ("=", "="),
)  # fmt: skip


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=lambda x: repr(x))
def test_yaml_scalars(text: str, value: Any) -> None:
    """YAML 1.1 as Go's reader has it: no sexagesimal numbers, dates stay texts."""
    found = read(f"a: {text}\n".encode()).value["a"]
    assert (found, type(found)) == (value, type(value))


def test_yaml_documents() -> None:
    assert read(b"").value is None
    assert read(b"a: 1\n---\nb: 2\n").value == {"a": 1}
    assert read(b"x: &x {b: 1, c: 2}\nz: {<<: *x, c: 3}\n").value["z"] == {"b": 1, "c": 3}
    assert list(read(b"b: 1\na: 2\n").value) == ["a", "b"]
    assert read(b"1: x\ntrue: z\n").value == {"1": "x", "true": "z"}
    assert read(b"a: 1\nb:\n  c: 1\n  c: 2\na: 2\n").duplicates == (
        'line 4: key "c" already set in map',
        'line 5: key "a" already set in map',
    )


YAML_ERRORS = (
    (b"a: [b", "yaml: line 1: did not find expected ',' or ']'"),
    (b"a: [", "yaml: line 1: did not find expected node content"),
    (b"a: b: c", "yaml: mapping values are not allowed in this context"),
    (b"a: *x", "yaml: unknown anchor 'x' referenced"),
    (b"a: &a [*a]", "yaml: unknown anchor 'a' referenced"),
    (b"[" * 5000, "yaml: exceeded max depth of 500"),
    (b"? [a]\n: b", "unsupported map key of type: slice"),
    (b"a: .nan", "json: unsupported value: nan"),
)


@pytest.mark.parametrize(("text", "message"), YAML_ERRORS, ids=lambda x: str(x)[:20])
def test_yaml_errors(text: bytes, message: str) -> None:
    with pytest.raises(YamlError) as e:
        read(text)
    assert str(e.value) == message


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#,? \n01.\t", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        json.dumps(read(text.encode()).value)
    except YamlError:
        pass
