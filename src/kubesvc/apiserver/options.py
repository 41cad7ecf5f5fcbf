"""The options of requests: what query parameters and DeleteOptions may say, and the errors for what they may not.

Everything here is pure. Refusals name the options kind (`ListOptions.meta.k8s.io ""`), as upstream does (OPT-1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from kubesvc.api import fields
from kubesvc.api.errors import BadRequest
from kubesvc.api.fields import Errors
from kubesvc.api.kind import Kind
from kubesvc.api.selectors import (
    EVERYTHING,
    FieldSelector,
    LabelSelector,
    parse_field_selector,
    parse_label_selector,
    unknown_field,
)

Query = Mapping[str, Sequence[str]]
"""Query parameters by name, each with all its values in order."""

GROUP = "meta.k8s.io"
TRUE = frozenset({"1", "true", "True", "TRUE", "t", "T"})
MOST_AGENT = 1024
"""So much of a User-Agent is looked at: more than a manager's name may have."""
WHOLE = re.compile(r"[+-]?[0-9]+")
MOST_DIGITS = 19
FALSE = frozenset({"0", "false", "False", "FALSE", "f", "F"})


def first(query: Query, name: str) -> str:
    values = query.get(name)
    return values[0] if values else ""


def flag(query: Query, name: str) -> bool | None:
    """A boolean parameter: present without a value is true, absent is None; anything odd counts as true."""
    values = query.get(name)
    if not values:
        return None
    return values[0] not in FALSE


def integer(query: Query, name: str) -> int | None:
    """A whole number, None if absent; BadRequest in LIST-5's words."""
    text = first(query, name)
    if not text:
        return None
    try:
        if not WHOLE.fullmatch(text):
            raise ValueError("invalid syntax")
        if len(text.lstrip("+-0")) > MOST_DIGITS or not -(2**63) <= int(text) < 2**63:
            raise ValueError("value out of range")
        return int(text)
    except ValueError as e:
        raise BadRequest(f"strconv.ParseInt: parsing {fields.quote(text)}: {e}") from None


def refuse(kind: str, errors: Errors) -> None:
    """Raise the 422 of an options kind if there is any error."""
    if errors:
        raise fields.invalid_object(GROUP, kind, "", errors)


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What a list, a watch or a deletecollection selects, and how fresh it must be."""

    labels: LabelSelector = EVERYTHING
    fields: FieldSelector = field(default_factory=FieldSelector)
    resource_version: str = ""
    match: str = ""
    limit: int = 0
    continue_token: str = ""
    timeout_seconds: int | None = None
    initial_events: bool | None = None
    bookmarks: bool = False

    @property
    def selective(self) -> bool:
        return not self.labels.empty or bool(self.fields.requirements)


def selectors(kind: Kind, label_text: str, field_text: str) -> tuple[LabelSelector, FieldSelector]:
    """Both selectors, parsed and known to the kind; BadRequest in the words of SEL-1 and SEL-2.

    Fields bear the names that the stored kind has for them.
    """
    try:
        labels = parse_label_selector(label_text)
        found = parse_field_selector(field_text)
    except ValueError as e:
        raise BadRequest(str(e)) from None
    if unknown := unknown_field(found, kind.fields):
        raise BadRequest(unknown)
    if names := kind.stored_fields:
        found = FieldSelector(tuple(replace(r, field=names.get(r.field, r.field)) for r in found.requirements))
    return labels, found


def list_options(kind: Kind, query: Query, *, watch: bool, check: bool = True) -> ListOptions:
    """The options of a list or watch request.

    Raises BadRequest for what cannot be parsed and the 422 of `ListOptions` for what does not go together
    (LIST, WATCH-5).
    """
    limit, timeout = integer(query, "limit"), integer(query, "timeoutSeconds")
    labels, found = selectors(kind, first(query, "labelSelector"), first(query, "fieldSelector"))
    if first(query, "export") in TRUE:
        raise BadRequest("the export parameter, deprecated since v1.14, is no longer supported")
    options = ListOptions(
        labels=labels,
        fields=found,
        resource_version=first(query, "resourceVersion"),
        match=first(query, "resourceVersionMatch"),
        limit=max(limit or 0, 0),
        continue_token=first(query, "continue"),
        timeout_seconds=timeout,
        initial_events=flag(query, "sendInitialEvents"),
        bookmarks=bool(flag(query, "allowWatchBookmarks")),
    )
    if check:
        refuse("ListOptions", watch_errors(options) if watch else list_errors(options))
    return options


def list_errors(options: ListOptions) -> Errors:
    """What does not go together in a list."""
    errors: Errors = []
    if options.initial_events is not None:
        errors.append(fields.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    match, path = options.match, "resourceVersionMatch"
    if not match:
        return errors
    if not options.resource_version:
        errors.append(fields.forbidden(path, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
    if options.continue_token:
        errors.append(fields.forbidden(path, "resourceVersionMatch is forbidden when continue is provided"))
    if match not in ("Exact", "NotOlderThan"):
        errors.append(fields.not_supported(path, match, ("Exact", "NotOlderThan", ""), in_order=True))
    if match == "Exact" and options.resource_version == "0":
        errors.append(fields.forbidden(path, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    return errors


def watch_errors(options: ListOptions) -> Errors:
    """What does not go together in a watch (WATCH-5)."""
    errors: Errors = []
    match, path = options.match, "resourceVersionMatch"
    if options.initial_events is not None and match != "NotOlderThan":
        errors.append(fields.forbidden(path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
    if match:
        if options.initial_events is None:
            errors.append(
                fields.forbidden(
                    path, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
                )
            )
        if match != "NotOlderThan":
            errors.append(fields.not_supported(path, match, ("NotOlderThan",)))
        if options.continue_token:
            errors.append(fields.forbidden(path, "resourceVersionMatch is forbidden when continue is provided"))
    return errors


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a write is done.

    manager:     the field manager that managedFields record (APPLY-6)
    validation:  "Ignore", "Warn" or "Strict" (OPT-2)
    force:       take over conflicts of an apply; None if not given
    trusted:     the body comes from a part of this process: no unknown-field check is needed
    """

    manager: str = ""
    dry_run: bool = False
    validation: str = "Warn"
    force: bool | None = None
    trusted: bool = False


def manager_errors(manager: str) -> Errors:
    """APPLY-1: at most 128 bytes, all printable."""
    errors: Errors = []
    if len(manager.encode()) > 128:
        errors.append(fields.too_long("fieldManager", 128))
    for at, c in enumerate(manager):
        if not c.isprintable():
            errors.append(
                fields.invalid("fieldManager", manager, f"invalid character U+{ord(c):04X} (at position {at})")
            )
            break
    return errors


def dry_run_errors(values: Sequence[str]) -> Errors:
    if any(v != "All" for v in values):
        return [fields.not_supported("dryRun", list(values), ("All",))]
    return []


def write_options(query: Query, user_agent: str, kind: str) -> WriteOptions:
    """The options of a POST, PUT or PATCH; `kind` is CreateOptions, UpdateOptions or PatchOptions (OPT)."""
    if not query:
        return plain_options(user_agent[:MOST_AGENT])
    force = flag(query, "force")
    return _checked_write_options(query, user_agent, kind, force, apply=False)


def patch_options(query: Query, user_agent: str, *, apply: bool) -> WriteOptions:
    """The options of a PATCH (APPLY-1)."""
    if not query and not apply:
        return plain_options(user_agent[:MOST_AGENT])
    return _checked_write_options(query, user_agent, "PatchOptions", flag(query, "force"), apply=apply)


@lru_cache(maxsize=256)
def plain_options(user_agent: str) -> WriteOptions:
    """The options of a write that says nothing."""
    return WriteOptions(manager=manager_of(user_agent))


def _checked_write_options(
    query: Query, user_agent: str, kind: str, force: bool | None, *, apply: bool
) -> WriteOptions:
    manager = first(query, "fieldManager")
    errors: Errors = []
    if kind == "PatchOptions":
        if not apply and force is not None:
            errors.append(fields.forbidden("force", "may not be specified for non-apply patch"))
        elif apply and not manager:
            errors.append(fields.required("fieldManager", "is required for apply patch"))
    errors += manager_errors(manager)
    dry_run = [v for v in query.get("dryRun", ()) if v]
    errors += dry_run_errors(dry_run)
    validation = first(query, "fieldValidation")
    if validation not in ("", "Ignore", "Strict", "Warn"):
        errors.append(fields.not_supported("fieldValidation", validation, ("", "Ignore", "Strict", "Warn")))
    refuse(kind, errors)
    return WriteOptions(
        manager=manager or manager_of(user_agent), dry_run=bool(dry_run), validation=validation or "Warn", force=force
    )


def manager_of(user_agent: str) -> str:
    """The field manager that a User-Agent stands for (APPLY-6)."""
    return (user_agent.split("/", 1)[0] or "unknown")[:128]


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """How a deletion is done (DEL-1 to DEL-3); None and "" mean not given."""

    grace_seconds: int | None = None
    propagation: str = ""
    orphan: bool | None = None
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False
    manager: str = ""


def delete_options(query: Query, body: Mapping[str, Any] | None, user_agent: str) -> DeleteOptions:
    """The options of a DELETE: of the body if there is one, else of the query.

    body: decoded DeleteOptions, or None. Raises BadRequest and the 422 of `DeleteOptions` (DEL-1, DEL-2).
    """
    preconditions: Mapping[str, Any] = {}
    grace: Any
    if body is not None:
        grace, propagation = body.get("gracePeriodSeconds"), body.get("propagationPolicy")
        orphan, dry_run = body.get("orphanDependents"), body.get("dryRun") or []
        preconditions = body.get("preconditions") or {}
    else:
        grace, orphan = integer(query, "gracePeriodSeconds"), flag(query, "orphanDependents")
        propagation = first(query, "propagationPolicy") if "propagationPolicy" in query else None
        dry_run = [v for v in query.get("dryRun", ()) if v]
    if (grace is not None and (not isinstance(grace, int) or isinstance(grace, bool))) or not isinstance(dry_run, list):
        raise BadRequest(
            'DeleteOptions in version "v1" cannot be handled as a DeleteOptions: json: cannot unmarshal string into Go '
            "struct field DeleteOptions.gracePeriodSeconds of type int64"
        )
    errors: Errors = []
    if orphan is not None and propagation is not None:
        errors.append(
            fields.invalid(
                "propagationPolicy", propagation, "orphanDependents and deletionPropagation cannot be both set"
            )
        )
    if propagation is not None and propagation not in ("Foreground", "Background", "Orphan"):
        errors.append(
            fields.not_supported(
                "propagationPolicy", propagation, ("Foreground", "Background", "Orphan", "nil"), in_order=True
            )
        )
    errors += dry_run_errors(dry_run)
    refuse("DeleteOptions", errors)
    return DeleteOptions(
        grace_seconds=grace,
        propagation=propagation or "",
        orphan=orphan,
        uid=preconditions.get("uid"),
        resource_version=preconditions.get("resourceVersion"),
        dry_run=bool(dry_run),
        manager=first(query, "fieldManager") or manager_of(user_agent),
    )
