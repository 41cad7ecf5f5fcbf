"""Which names, labels and keys are accepted, and the words of refusal."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api import names


class Case(NamedTuple):
    about: str
    check: Callable[[str], list[str]]
    value: str
    starts: tuple[str, ...] = ()


LONG = "a" * 64
CASES = (
    Case("a label may begin with a digit (SVC-1)", names.dns_label, "1web"),
    Case("a label of 63 characters fits", names.dns_label, "a" * 63),
    Case("a label of 64 does not", names.dns_label, LONG, ("must be no more than 63 characters",)),
    Case("a subdomain is no label, and is told so (ERR-4)", names.dns_label, "a.b", ("must not contain dots",)),
    Case("upper case is refused", names.dns_label, "Web", ("a lowercase RFC 1123 label must consist",)),
    Case("no label", names.dns_label, "", ("a lowercase RFC 1123 label must consist",)),
    Case("a newline at the end does not slip through", names.dns_label, "web\n", ("a lowercase RFC 1123 label",)),
    Case("an underscore in a subdomain", names.dns_subdomain, "a_b", ("a lowercase RFC 1123 subdomain must",)),
    Case("a label in a subdomain may be longer than 63", names.dns_subdomain, LONG + ".example.com"),
    Case("a domain of one label is none (SLAPI-5)", names.fully_qualified_domain, "a", ("should be a domain",)),
    Case("digits and dots pass as a domain (SLAPI-5)", names.fully_qualified_domain, "1.2.3.4"),
    Case("a key without a prefix (META-11)", names.label_key, "app"),
    Case("a key with a prefix", names.label_key, "kubernetes.io/service-name"),
    Case("a key with two slashes", names.label_key, "a/b/c", ("a valid label key must consist",)),
    Case("a key with an empty prefix", names.label_key, "/a", ("prefix part must be non-empty",)),
    Case("a key with a bad prefix", names.label_key, "A_/a", ("prefix part a lowercase RFC 1123 subdomain",)),
    Case("a key without a name", names.label_key, "a/", ("name part must be non-empty", "name part must consist of")),
    Case("a key that is too long", names.label_key, LONG, ("name part must be no more than 63 bytes",)),
    Case("an empty value is one", names.label_value, ""),
    Case("a value that is too long", names.label_value, LONG, ("must be no more than 63 bytes",)),
    Case("a value with a blank", names.label_value, "b c", ("a valid label must be an empty string or consist",)),
    Case("a port's name (SVC-7)", names.port_name, "http-2"),
    Case("a port's name is no number", names.port_name, "80", ("must contain at least one letter (a-z)",)),
    Case("a port's name is short", names.port_name, "a" * 16, ("must be no more than 15 characters",)),
    Case("a port's name has single hyphens", names.port_name, "a--b", ("must not contain consecutive hyphens",)),
    Case("and none at its ends", names.port_name, "-a", ("must not begin or end with a hyphen",)),
    Case(
        "everything that is wrong with a port's name is told",
        names.port_name,
        "",
        ("must contain only alpha-numeric characters", "must contain at least one letter"),
    ),
    Case("a key of a ConfigMap is no directory", names.config_key, "..", ("must not be '..'",)),
    Case("a segment of a path", names.path_segment, "a/b", ("may not contain '/'",)),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.about)
def test_text_is_judged(case: Case) -> None:
    found = case.check(case.value)
    assert [text[: len(start)] for text, start in zip(found, case.starts, strict=True)] == list(case.starts)


@given(st.text(alphabet="aA0-._/", max_size=70))
def test_what_is_accepted_has_the_form_that_the_refusal_tells(value: str) -> None:
    assert (names.dns_label(value) == []) == bool(re.fullmatch(names.LABEL_FORM, value) and len(value) <= 63)
    assert (names.label_value(value) == []) == bool(re.fullmatch(names.VALUE_FORM, value) and len(value) <= 63)
    if names.dns_label(value) == []:
        assert names.dns_subdomain(value) == []
        assert names.label_value(value) == []


def test_annotations_are_counted_in_bytes() -> None:
    assert names.annotations_size({"ä": "b"}) == 3
