"""OpenAPI documents built from the schema table and the kinds that are served (DISC-6, DISC-7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kubesvc.api.kind import Kind


class Document(NamedTuple):
    """One document as it is sent: JSON bytes, and its hash (upper-case SHA-512), which is also the quoted ETag."""

    body: bytes
    hash: str

    @property
    def etag(self) -> str:
        return f'"{self.hash}"'


class OpenApi:
    """The documents of one set of kinds; each is built when first asked for and kept."""

    def __init__(self, kinds: Sequence[Kind], version: str = "v1.36.0") -> None:
        self.kinds = tuple(kinds)
        self.version = version

    def index(self) -> Document:
        """GET /openapi/v3; Content-Type text/plain; charset=utf-8 on a real server."""
        raise NotImplementedError

    def group(self, path: str) -> Document | None:
        """GET /openapi/v3/<path>, e.g. "api/v1", "apis/apps/v1"; None if there is no such document (404). With another
        `hash` parameter than the document's: redirect 301 to `location(path)`."""
        raise NotImplementedError

    def location(self, path: str) -> str:
        """The right URL of a document: `/openapi/v3/api/v1?hash=...`."""
        raise NotImplementedError

    def swagger(self) -> Document:
        """GET /openapi/v2 (application/json)."""
        raise NotImplementedError
