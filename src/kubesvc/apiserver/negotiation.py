"""What form an answer takes: JSON or YAML, the object, a Table of it, or its metadata alone (TABLE-1 to TABLE-8)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from kubesvc.api.errors import NotAcceptable

Format = Literal["json", "yaml"]
KNOWN = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
STREAMS = ("application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
ONLY = "only the following media types are accepted: " + ", ".join(KNOWN)
FORMS = frozenset({"Table", "PartialObjectMetadata", "PartialObjectMetadataList"})
META = "meta.k8s.io"
DISCOVERY = "apidiscovery.k8s.io"


@dataclass(frozen=True, slots=True)
class Form:
    """The negotiated form. `as_kind`: "" for the object itself, else Table, PartialObjectMetadata(List) or
    APIGroupDiscoveryList in version `as_version`."""

    format: Format = "json"
    as_kind: str = ""
    as_version: str = ""

    @property
    def media_type(self) -> str:
        return f"application/{self.format}"


PLAIN = Form()


@dataclass(frozen=True, slots=True)
class Clause:
    media_type: str
    parameters: tuple[tuple[str, str], ...]
    quality: float

    def get(self, name: str) -> str:
        return next((v for k, v in self.parameters if k == name), "")


LONGEST_REMEMBERED = 1024
"""Longer headers are read anew each time, so that nobody fills memory with them."""


def parse_accept(text: str) -> tuple[Clause, ...]:
    """The clauses of an Accept header, the most wanted first; order of writing decides among equals."""
    clauses = []
    for part in text.split(","):
        pieces = [p.strip() for p in part.split(";")]
        if not pieces[0]:
            continue
        parameters, quality = [], 1.0
        for piece in pieces[1:]:
            name, _, value = piece.partition("=")
            if name.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
            else:
                parameters.append((name.strip(), value.strip().strip('"')))
        clauses.append(Clause(pieces[0].lower(), tuple(parameters), quality))
    return tuple(sorted(clauses, key=lambda c: -c.quality))


def format_of(media_type: str) -> Format | None:
    """The format that serves a media type; None for one that is not served (protobuf included, TABLE-8)."""
    if media_type in ("application/json", "*/*", "application/*"):
        return "json"
    return "yaml" if media_type == "application/yaml" else None


def negotiate(accept: str, *, transforms: bool, discovery: bool = False, streams: bool = False) -> Form:
    """The first form that the client takes and the server has.

    accept:     the Accept header, "" if absent
    transforms: whether Tables and metadata-only forms exist here
    discovery:  whether the aggregated discovery form exists here (DISC-2)
    streams:    whether the path can be watched, which the error's list of media types shows

    Raises NotAcceptable in the two forms of TABLE-4.
    """
    choose = remembered_form if len(accept) <= LONGEST_REMEMBERED else chosen_form
    return choose(accept, transforms=transforms, discovery=discovery, streams=streams)


@lru_cache(maxsize=512)
def remembered_form(accept: str, *, transforms: bool, discovery: bool, streams: bool) -> Form:
    return chosen_form(accept, transforms=transforms, discovery=discovery, streams=streams)


def chosen_form(accept: str, *, transforms: bool, discovery: bool, streams: bool) -> Form:
    """As `negotiate`, anew each time."""
    if not accept:
        return PLAIN
    known = False
    for clause in parse_accept(accept):
        format = format_of(clause.media_type)
        known = known or format is not None or clause.media_type in KNOWN
        if format is None or clause.quality == 0:
            continue
        as_kind, group, version = clause.get("as"), clause.get("g"), clause.get("v")
        if not as_kind and not group and not version:
            return Form(format)
        if transforms and as_kind in FORMS and group == META and version in ("v1", "v1beta1"):
            return Form(format, as_kind, version)
        if discovery and as_kind == "APIGroupDiscoveryList" and group == DISCOVERY and version == "v2":
            return Form(format, as_kind, version)
    if known:
        raise NotAcceptable(ONLY)
    listed = ", ".join(KNOWN + (STREAMS if streams else ()))
    raise NotAcceptable(f"406: Not Acceptable\n\nAvailable representations: {listed}")


def error_format(accept: str) -> Format:
    """The format of an error's Status: as the first clause that is understood, else JSON."""
    for clause in parse_accept(accept) if accept else ():
        format = format_of(clause.media_type)
        if format is not None:
            return format
    return "json"


def wants_pretty(pretty: str | None, user_agent: str) -> bool:
    """Whether JSON is indented (TABLE-7). `pretty`: the query parameter, None if absent."""
    if pretty is not None:
        return pretty in ("", "1", "true", "True", "TRUE", "t", "T")
    return user_agent.startswith(("curl", "Wget", "Mozilla/5.0"))
