"""The errors of verbs in the API's words: which resource, which name, and why not (ERR-2)."""

from __future__ import annotations

from typing import Any

from kubesvc.api.errors import AlreadyExists, ApiError, BadRequest, Conflict, Expired, Forbidden, NotFound, Timeout
from kubesvc.api.fields import quote
from kubesvc.api.kind import Kind

MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
MOST_REVISION = 2**64 - 1
UPSTREAM_KEYS = {"services": "services/specs", "endpoints": "services/endpoints", "nodes": "minions"}


def details_of(kind: Kind, name: str, *, by_kind: bool = False) -> dict[str, Any]:
    """`details` that name an object: kind is its plural, or its Kind where a rule says so."""
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if kind.group:
        details["group"] = kind.group
    details["kind"] = kind.name if by_kind else kind.plural
    return details


def not_found(kind: Kind, name: str) -> NotFound:
    return NotFound(f"{kind.resource} {quote(name)} not found", details=details_of(kind, name))


def already_exists(kind: Kind, name: str, *, terminating: bool = False, generated: bool = False) -> AlreadyExists:
    """WRITE-7; `generated`: of all names that were tried (META-4)."""
    message = f"{kind.resource} {quote(name)} already exists"
    if terminating:
        message = "object is being deleted: " + message
    if generated:
        message += ", the server was not able to generate a unique name for the object"
    return AlreadyExists(message, details=details_of(kind, name), retry_after_seconds=1 if generated else None)


def conflict(kind: Kind, name: str, why: str = MODIFIED) -> Conflict:
    return Conflict(
        f"Operation cannot be fulfilled on {kind.resource} {quote(name)}: {why}", details=details_of(kind, name)
    )


def uid_conflict(kind: Kind, namespace: str, name: str, wanted: str, found: str) -> Conflict:
    """WRITE-4."""
    key = "/".join(p for p in ("/registry", UPSTREAM_KEYS.get(kind.plural, kind.plural), namespace, name) if p)
    return conflict(
        kind,
        name,
        f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition "
        f"failed: UID in precondition: {wanted}, UID in object meta: {found}",
    )


def precondition_conflict(kind: Kind, name: str, why: str) -> Conflict:
    """DEL-3: message and details hold the Kind."""
    qualified = f"{kind.name}.{kind.group}" if kind.group else kind.name
    return Conflict(
        f"Operation cannot be fulfilled on {qualified} {quote(name)}: {why}",
        details=details_of(kind, name, by_kind=True),
    )


def forbidden(kind: Kind, name: str, why: str, **more: Any) -> Forbidden:
    subject = f"{kind.resource} {quote(name)}" if name else kind.resource
    return Forbidden(f"{subject} is forbidden: {why}", details=details_of(kind, name), **more)


def plain_failure(message: str) -> ApiError:
    """A failure upstream never gave a reason: code 500, reason empty."""
    return ApiError(message, code=500, reason="")


def version_of(text: str, *, listing: bool) -> int:
    """The revision that a resourceVersion parameter names; the error of one that is no number (READ-1, LIST-9)."""
    if problem := version_problem(text):
        why = f"resourceVersion: Invalid value: {quote(text)}: {problem}"
        raise BadRequest(f"invalid resource version: {why}") if listing else plain_failure(why)
    return int(text)


def version_problem(text: str) -> str:
    """What keeps a text from being a revision, in Go's words; "" if it is one."""
    if not text.isascii() or not text.isdigit():
        return f"strconv.ParseUint: parsing {quote(text)}: invalid syntax"
    if len(text.lstrip("0")) > len(str(MOST_REVISION)) or int(text) > MOST_REVISION:
        return f"strconv.ParseUint: parsing {quote(text)}: value out of range"
    return ""


def too_large_version(asked: int, current: int) -> Timeout:
    """LIST-8."""
    return Timeout(
        f"Timeout: Too large resource version: {asked}, current: {current}",
        causes=[{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        retry_after_seconds=1,
    )


def expired_list() -> Expired:
    """LIST-7."""
    return Expired("The resourceVersion for the provided list is too old.")


def expired_token(token: str) -> Expired:
    """LIST-6; `token` continues inconsistently."""
    return Expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list "
        "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
        "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
        "modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        metadata={"continue": token},
    )


def too_old(asked: int, oldest: int) -> Expired:
    """WATCH-10."""
    return Expired(f"too old resource version: {asked} ({oldest})")
