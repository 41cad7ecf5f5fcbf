"""Who a request comes from: client certificate, bearer token, or nobody (AUTH-1, AUTH-2, AUTH-5)."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from kubesvc.api.errors import Unauthorized

ALL_AUTHENTICATED = "system:authenticated"
MASTERS = "system:masters"


@dataclass(frozen=True, slots=True)
class User:
    """An identity: name, uid ("" if unknown), groups, and further attributes."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def may_everything(self) -> bool:
        return MASTERS in self.groups


def user_info(user: User) -> dict[str, Any]:
    """A user as objects of the API name one."""
    info: dict[str, Any] = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {k: list(v) for k, v in user.extra.items()}
    return info


ANONYMOUS = User("system:anonymous", groups=("system:unauthenticated",))
ADMIN = User("system:admin", groups=(MASTERS, ALL_AUTHENTICATED))
"""Who speaks over the instance's own unix socket, whose directory only its owner may enter."""
PROXY = User("system:kube-proxy", groups=(ALL_AUTHENTICATED,))
"""The proxies of all nodes, as the default binding `system:node-proxier` has them."""


def node_user(name: str) -> User:
    """The agent of a node, as the authorization mode Node and the admission NodeRestriction know it."""
    return User(f"system:node:{name}", groups=("system:nodes", ALL_AUTHENTICATED))


def account_user(namespace: str, name: str, uid: str = "", extra: Mapping[str, tuple[str, ...]] | None = None) -> User:
    """A service account (AUTH-5)."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", ALL_AUTHENTICATED)
    return User(f"system:serviceaccount:{namespace}:{name}", uid, groups, extra or {})


THE_SERVER = User("system:apiserver", groups=(MASTERS,))
requester: ContextVar[User] = ContextVar("requester", default=THE_SERVER)
"""Who asked for what is being done, for those deep below who must name them: webhooks. Parts of this process that ask
without HTTP are the server itself."""

audit_notes: ContextVar[dict[str, str] | None] = ContextVar("audit_notes", default=None)
"""What the audit log is told of a request besides, by those deep below; None where nobody listens."""


class BadToken(Unauthorized):
    """A token of a known sort that is not accepted; `why` is told to token reviews only."""

    def __init__(self, why: str = "") -> None:
        super().__init__("Unauthorized")
        self.why = why


class TokenAuthenticator(Protocol):
    """Knows tokens of one sort. None: not one of mine; Unauthorized: mine, and bad."""

    def __call__(self, token: str, audiences: Sequence[str] = ()) -> User | None: ...


def read_token_file(path: str) -> dict[str, User]:
    """Users by token from lines `token,user,uid,"group1,group2"`; ValueError for a line with fewer than 3 columns."""
    users: dict[str, User] = {}
    with Path(path).open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file, skipinitialspace=True), 1):
            if not row or row[0].startswith("#"):
                continue
            if len(row) < 3:
                raise ValueError(f"{path}: line {number}: needs token, user name and uid")
            groups = tuple(g.strip() for g in row[3].split(",") if g.strip()) if len(row) > 3 else ()
            users[row[0]] = User(row[1], row[2], (*groups, ALL_AUTHENTICATED))
    return users


CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
MOST_CERTIFICATES = 1024


@lru_cache(maxsize=MOST_CERTIFICATES)
def credential_id(der: bytes) -> Mapping[str, tuple[str, ...]]:
    """The attribute that tells by which certificate somebody came."""
    return {CREDENTIAL_ID: ("X509SHA256=" + hashlib.sha256(der).hexdigest(),)}


def user_of_certificate(certificate: Mapping[str, Any], der: bytes = b"") -> User | None:
    """The user a verified client certificate names: CN is the name, each O a group; None if it has no CN.

    certificate: as `ssl.SSLSocket.getpeercert()` gives it
    der:         the same in its binary form, b"" if that is not known
    """
    name, groups = "", []
    for pair in (p for part in certificate.get("subject", ()) for p in part):
        if pair[0] == "commonName":
            name = pair[1]
        elif pair[0] == "organizationName":
            groups.append(pair[1])
    extra = credential_id(der) if der else {}
    return User(name, groups=(*groups, ALL_AUTHENTICATED), extra=extra) if name else None


class Authenticator:
    """All ways of one server to know its users."""

    def __init__(self, tokens: Mapping[str, User], *, anonymous: bool) -> None:
        self.tokens = dict(tokens)
        self.anonymous = anonymous
        self.audiences: list[str] = []
        """Whom tokens that say nothing of it are meant for: the API server."""
        self.others: list[TokenAuthenticator] = []

    def user_of_token(self, token: str, audiences: Sequence[str] = ()) -> User | None:
        """The user of a bearer token, None if nobody knows it. `audiences`: whom it must be meant for, () the API."""
        found = self.tokens.get(token)
        if found is not None:
            return found if not audiences or set(audiences) & set(self.audiences) else None
        for other in self.others:
            user = other(token, audiences)
            if user is not None:
                return user
        return None

    def user_of(
        self, authorization: str, certificate: Mapping[str, Any] | None, *, open_path: bool, der: bytes = b""
    ) -> User:
        """The user of a request; Unauthorized (AUTH-1).

        authorization: the header, "" if absent
        certificate:   the verified certificate of the connection, if any; `der` in its binary form
        open_path:     whether the path is open to anonymous users even if anonymous access is off
        """
        if certificate:
            user = user_of_certificate(certificate, der)
            if user is not None:
                return user
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            user = self.user_of_token(token.strip())
            if user is None:
                raise Unauthorized("Unauthorized")
            return user
        if self.anonymous or open_path:
            return ANONYMOUS
        raise Unauthorized("Unauthorized")
