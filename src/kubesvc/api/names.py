"""Names, labels, addresses: which texts the API accepts, and the words it uses to refuse the rest (ERR-4, SVC-40).

Each function returns the texts of what is wrong with a value, none if it is right.
"""

from __future__ import annotations

import re

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")

LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
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
            "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        ]
    return []
