"""What a Secret of type `bootstrap.kubernetes.io/token` says: a token with which a machine may ask to join."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kubesvc.clock import parse_rfc3339

TYPE = "bootstrap.kubernetes.io/token"
TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
DEFAULT_GROUP = "system:bootstrappers"
GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
NEVER, AT_ONCE = float("inf"), float("-inf")


def secret_name(id: str) -> str:
    """The name of the Secret that holds a token."""
    return f"bootstrap-token-{id}"


def parse_token(text: str) -> tuple[str, str] | None:
    """Id and secret of a token; None for anything of another form."""
    found = TOKEN.fullmatch(text)
    return (found[1], found[2]) if found else None


@dataclass(frozen=True, slots=True)
class BootstrapToken:
    """One token as its Secret holds it.

    expires:       seconds since 1970; NEVER, or AT_ONCE for a time that cannot be read
    authenticates: whether it may be used to ask the API
    groups:        whom its user belongs to; None if one of them is not allowed for such a user
    """

    id: str
    secret: str
    expires: float
    authenticates: bool
    groups: tuple[str, ...] | None
    description: str = ""

    @classmethod
    def of(cls, type: str, data: Mapping[str, str]) -> BootstrapToken | None:
        """The token in a Secret of this type with these (decoded) values; None if it holds none."""
        id, secret = data.get("token-id") or "", data.get("token-secret") or ""
        if type != TYPE or not id or not secret:
            return None
        listed = {g for g in (data.get("auth-extra-groups") or "").split(",") if g}
        allowed = all(GROUP.fullmatch(group) for group in listed)
        return cls(
            id,
            secret,
            expiry(data.get("expiration") or ""),
            data.get("usage-bootstrap-authentication") == "true",
            tuple(sorted({DEFAULT_GROUP, *listed})) if allowed else None,
            data.get("description") or "",
        )

    def expired(self, now: float) -> bool:
        return self.expires <= now


def expiry(text: str) -> float:
    """When a token ends: what cannot be read has ended."""
    if not text:
        return NEVER
    try:
        return parse_rfc3339(text)
    except ValueError:
        return AT_ONCE
