"""Names and labels: which texts the API accepts, and the words it uses to refuse the rest (ERR-4, META-11).

Each function returns the texts of what is wrong with a value, none if it is right. Addresses are in `addresses`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

LABEL_FORM = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN_FORM = LABEL_FORM + "(\\." + LABEL_FORM + ")*"
NAME_FORM = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
VALUE_FORM = f"({NAME_FORM})?"
CONFIG_KEY_FORM = "[-._a-zA-Z0-9]+"

DNS_LABEL = re.compile(LABEL_FORM)
DNS_SUBDOMAIN = re.compile(SUBDOMAIN_FORM)
QUALIFIED_PART = re.compile(NAME_FORM)
LABEL_VALUE = re.compile(VALUE_FORM)
CONFIG_KEY = re.compile(CONFIG_KEY_FORM)
IANA_CHARACTERS = re.compile(r"[-a-z0-9]+")

ANNOTATIONS_BYTES = 262144
"""Most that keys and values of an object's annotations may hold together (META-11)."""

LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    f"'{LABEL_FORM}')"
)
SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    f"'{SUBDOMAIN_FORM}')"
)
PART_TEXT = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{NAME_FORM}')"
)
VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{VALUE_FORM}')"
)


def dns_label(value: str) -> list[str]:
    """RFC 1123 label of at most 63 characters."""
    texts = [] if len(value) <= 63 else ["must be no more than 63 characters"]
    if not DNS_LABEL.fullmatch(value):
        texts.append("must not contain dots" if DNS_SUBDOMAIN.fullmatch(value) else LABEL_TEXT)
    return texts


def dns_subdomain(value: str) -> list[str]:
    """RFC 1123 subdomain of at most 253 characters: the form of most object names."""
    texts = [] if len(value) <= 253 else ["must be no more than 253 characters"]
    if not DNS_SUBDOMAIN.fullmatch(value):
        texts.append(SUBDOMAIN_TEXT)
    return texts


def fully_qualified_domain(value: str) -> list[str]:
    """A DNS subdomain of at least two labels (SLAPI-5)."""
    if not value:
        return [""]  # the field error then says Required by itself
    if texts := dns_subdomain(value):
        return texts
    return [] if "." in value else ["should be a domain with at least two segments separated by dots"]


def generate_name_base(value: str) -> str:
    """What is checked of a generateName: a dash at its end will be followed by letters, so it may stand (META-4)."""
    return value[:-1] + "a" if value.endswith("-") else value


def qualified_name(value: str) -> list[str]:
    """An optional DNS subdomain with a slash, then a name of at most 63 characters: keys of labels and the like."""
    prefix, slash, name = value.rpartition("/")
    texts: list[str] = []
    if value.count("/") > 1:
        return [
            f"a valid label key {PART_TEXT} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    if slash:
        if not prefix:
            texts.append("prefix part must be non-empty")
        else:
            texts += [f"prefix part {text}" for text in dns_subdomain(prefix)]
    if not name:
        texts.append("name part must be non-empty")
    elif len(name.encode()) > 63:
        texts.append("name part must be no more than 63 bytes")
    if not QUALIFIED_PART.fullmatch(name):
        texts.append(f"name part {PART_TEXT}")
    return texts


LONGEST_REMEMBERED = 400
"""Texts up to this length that were found right are remembered: the same few come with every write."""


def is_label(key: str, value: str) -> bool:
    """Whether nothing is wrong with the key and the value of a label."""
    if len(key) + len(value) > LONGEST_REMEMBERED:
        return not label_key(key) and not label_value(value)
    return remembered_label(key, value)


@functools.lru_cache(4096)
def remembered_label(key: str, value: str) -> bool:
    return not label_key(key) and not label_value(value)


def is_subdomain(value: str) -> bool:
    """Whether nothing is wrong with a DNS subdomain."""
    return remembered_subdomain(value) if len(value) <= LONGEST_REMEMBERED else False


@functools.lru_cache(4096)
def remembered_subdomain(value: str) -> bool:
    return not dns_subdomain(value)


def label_key(value: str) -> list[str]:
    return qualified_name(value)


def label_value(value: str) -> list[str]:
    """At most 63 bytes of letters, digits, `-`, `_`, `.`; may be empty."""
    texts = [] if len(value.encode()) <= 63 else ["must be no more than 63 bytes"]
    if not LABEL_VALUE.fullmatch(value):
        texts.append(VALUE_TEXT)
    return texts


def annotations_size(annotations: Mapping[str, str]) -> int:
    """Bytes of all keys and values, to be compared with ANNOTATIONS_BYTES."""
    return sum(len(k.encode()) + len(v.encode()) for k, v in annotations.items())


def port_name(value: str) -> list[str]:
    """An IANA service name: what a named target port may be called (SVC-7)."""
    texts: list[str] = []
    if len(value) > 15:
        texts.append("must be no more than 15 characters")
    if not IANA_CHARACTERS.fullmatch(value):
        texts.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not any("a" <= c <= "z" for c in value):
        texts.append("must contain at least one letter (a-z)")
    if "--" in value:
        texts.append("must not contain consecutive hyphens")
    if value and (value.startswith("-") or value.endswith("-")):
        texts.append("must not begin or end with a hyphen")
    return texts


def port_number(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else ["must be between 1 and 65535, inclusive"]


def path_segment(value: str) -> list[str]:
    """What can stand between two slashes of a URL."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{c}'" for c in "/%" if c in value]


STANDARD_FINALIZERS = frozenset({"kubernetes", "orphan", "foregroundDeletion"})


def finalizer(value: str) -> list[str]:
    """The form of a finalizer's name (META-11)."""
    return qualified_name(value)


def config_key(value: str) -> list[str]:
    """A key of a ConfigMap or Secret."""
    if len(value) > 253:
        return ["must be no more than 253 characters"]
    if value in (".", ".."):
        return [f"must not be '{value}'"]
    if value.startswith(".."):
        return ["must not start with '..'"]
    if not CONFIG_KEY.fullmatch(value):
        return [
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
            f"'KEY_NAME',  or 'key-name', regex used for validation is '{CONFIG_KEY_FORM}')"
        ]
    return []
