"""Acting as somebody else: which headers ask for it, and who may (AUTH-3).

There are several modes, tried in turn. The constrained ones want two rights: to impersonate that very sort of identity,
and to do the request's verb while impersonating; the last one is the old right `impersonate`, which says nothing of
what is done then. If no mode lets the request pass, the first refusal is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from kubesvc.api import names
from kubesvc.api.errors import BadRequest, Forbidden
from kubesvc.api.fields import quote

from .authentication import ALL_AUTHENTICATED, MASTERS, User
from .authorization import Attributes, refusal
from .nodeauthorizer import GROUP as NODES
from .nodeauthorizer import PREFIX as NODE_PREFIX
from .rbac import ACCOUNT_PREFIX

if TYPE_CHECKING:
    from multidict import MultiMapping

USER, GROUPS, UID, EXTRA = "Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "impersonate-extra-"
AUTHENTICATION = "authentication.k8s.io"
NODE_NAME = "authentication.kubernetes.io/node-name"
ANONYMOUS, UNAUTHENTICATED = "system:anonymous", "system:unauthenticated"

May = Callable[[Attributes], tuple[bool, str]]
"""Whether an access is allowed, and why."""


class Impersonated(NamedTuple):
    """Who is acted as; `constraint` is the right that allowed it, "" for the old one."""

    user: User
    constraint: str


def wanted_user(headers: MultiMapping[str]) -> User | None:
    """The user that headers ask to act as, groups as sent; None if they do not ask. BadRequest without a name.

    headers: a case-insensitive multi-mapping
    """
    name, uid = headers.get(USER) or "", headers.get(UID) or ""
    groups = tuple(headers.getall(GROUPS, ()))
    extra: dict[str, tuple[str, ...]] = {}
    for header, value in headers.items():
        if header.lower().startswith(EXTRA):
            key = unquote(header[len(EXTRA) :].lower())
            extra[key] = (*extra.get(key, ()), value)
    if name:
        return User(name, uid, groups, extra)
    if not (uid or groups or extra):
        return None
    raise BadRequest(
        f'requested &user.DefaultInfo{{Name:"", UID:{quote(uid)}, Groups:{go_texts(groups)}, Extra:{go_extra(extra)}}} '
        "without impersonating a user name"
    )


def go_texts(texts: Sequence[str]) -> str:
    """A list of texts as Go prints it."""
    return "[]string{" + ", ".join(quote(t) for t in texts) + "}" if texts else "[]string(nil)"


def go_extra(extra: Mapping[str, Sequence[str]]) -> str:
    if not extra:
        return "map[string][]string(nil)"
    return "map[string][]string{" + ", ".join(f"{quote(k)}:{go_texts(v)}" for k, v in sorted(extra.items())) + "}"


def impersonate(access: Attributes, wanted: User, may: May) -> Impersonated:
    """Who is acted as, if anybody may; the first refusal otherwise.

    access: the request, as its sender's
    """
    first: Forbidden | None = None
    for mode in modes_for(access.user, wanted):
        refused = refused_access(mode, access, wanted, may)
        if refused is None:
            return Impersonated(actual_user(mode, wanted), f"impersonate:{mode}" if mode else "")
        first = first or refused
    assert first is not None  # the old mode fits everybody
    raise first


def modes_for(sender: User, wanted: User) -> Iterator[str]:
    """The modes that fit, in the order in which they are tried; "" is the old one."""
    node, account = node_name(wanted.name), account_name(wanted.name)
    bare = not wanted.uid and not wanted.groups and not wanted.extra
    if bare and node:
        if account_name(sender.name) and tuple(sender.extra.get(NODE_NAME, ())) == (node,):
            yield "associated-node"
        yield "arbitrary-node"
    if bare and account:
        yield "serviceaccount"
    if not node and not account:
        yield "user-info"
    yield ""


def refused_access(mode: str, access: Attributes, wanted: User, may: May) -> Forbidden | None:
    """The refusal of one mode; None if it lets the request pass."""
    asked = list(accesses_of(mode, access, wanted))
    for one, problem in asked:
        if problem:
            return refusal(one, problem)
        allowed, reason = may(one)
        if not allowed:
            return refusal(one, reason)
    return None


def accesses_of(mode: str, access: Attributes, wanted: User) -> Iterator[tuple[Attributes, str]]:
    """Everything that a mode asks for, with what forbids it whatever the rules say."""
    sender = access.user
    if mode == "associated-node":
        sender = replace(
            sender, extra={"authentication.kubernetes.io/associated-node-keys": tuple(sorted(sender.extra))}
        )
    verb = f"impersonate:{mode}" if mode else "impersonate"
    group = AUTHENTICATION if mode else ""
    if mode:
        yield replace(access, user=sender, verb=f"impersonate-on:{mode}:{access.verb}"), ""

    def right(resource: str, name: str, namespace: str = "", group: str = group, sub: str = "") -> Attributes:
        return Attributes(sender, verb, group, "v1", resource, sub, namespace, name)

    node, account = node_name(wanted.name), account_name(wanted.name)
    if mode and node:
        yield right("nodes", "*" if mode == "associated-node" else node), ""
    elif account:
        yield right("serviceaccounts", account[1], account[0]), ""
    else:
        yield right("users", wanted.name), ""
    if wanted.uid:
        yield right("uids", wanted.uid, group=AUTHENTICATION), ""
    for name in wanted.groups:
        problem = ""
        if mode and not name:
            problem = "impersonating the empty string group is not allowed"
        elif mode and name == MASTERS:
            problem = "impersonating the system:masters group is not allowed"
        yield right("groups", name), problem
    for key, values in wanted.extra.items():
        for value in values:
            empty = "key" if not key else "value" if not value else ""
            problem = f"impersonating the empty string {empty} in extra is not allowed" if mode and empty else ""
            yield right("userextras", value, group=AUTHENTICATION, sub=key), problem


def actual_user(mode: str, wanted: User) -> User:
    """The user with the groups that follow from who it is."""
    groups, account = wanted.groups, account_name(wanted.name)
    if mode and node_name(wanted.name):
        groups = (NODES,)
    elif account and not groups:
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{account[0]}")
    if wanted.name == ANONYMOUS:
        further = UNAUTHENTICATED
    else:
        further = "" if UNAUTHENTICATED in groups else ALL_AUTHENTICATED
    if further and further not in groups:
        groups = (*groups, further)
    return replace(wanted, groups=groups)


def node_name(user: str) -> str:
    """The node that a user name stands for, "" for none."""
    name = user.removeprefix(NODE_PREFIX)
    return name if name != user and not names.dns_subdomain(name) else ""


def account_name(user: str) -> tuple[str, str] | None:
    """Namespace and name of the account that a user name stands for."""
    namespace, colon, name = user.removeprefix(ACCOUNT_PREFIX).partition(":")
    if not user.startswith(ACCOUNT_PREFIX) or not colon or names.dns_label(namespace) or names.dns_subdomain(name):
        return None
    return namespace, name
