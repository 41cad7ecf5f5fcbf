"""What the API answers when it does not do what was asked.

    ApiError                     any failure, a Status object with a code
    ├── BadRequest        400    ├── Conflict            409    ├── Invalid            422
    ├── Unauthorized      401    ├── AlreadyExists       409    ├── TooManyRequests    429
    ├── Forbidden         403    ├── Expired             410    ├── InternalError      500
    ├── NotFound          404    ├── RequestTooLarge     413    ├── ServiceUnavailable 503
    ├── MethodNotAllowed  405    ├── UnsupportedMediaType 415   └── Timeout            504
    └── NotAcceptable     406

The same classes are raised by the server's registry and by the HTTP client, so callers need not know which of the
two they talk to. Reasons, codes and message forms follow ERR-1 to ERR-3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

Cause = dict[str, str]
"""One entry of `details.causes`: reason, message, field (each may be absent)."""


class ApiError(Exception):
    """A failure with everything its Status object says."""

    code: ClassVar[int] = 500
    reason: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        causes: Sequence[Cause] = (),
        code: int | None = None,
        reason: str | None = None,
        retry_after_seconds: int | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})
        if causes:
            self.details["causes"] = [dict(c) for c in causes]
        if retry_after_seconds is not None:
            self.details["retryAfterSeconds"] = retry_after_seconds
        self.status_code = self.code if code is None else code
        self.status_reason = self.reason if reason is None else reason
        self.retry_after_seconds = retry_after_seconds
        self.metadata = dict(metadata or {})

    @property
    def causes(self) -> list[Cause]:
        found: list[Cause] = self.details.get("causes", [])
        return found

    def has_cause(self, reason: str) -> bool:
        """Whether a cause gives this reason; controllers look here and never at the message (WRITE-12)."""
        return any(c.get("reason") == reason for c in self.causes)

    def status(self) -> dict[str, Any]:
        """The Status object of ERR-1."""
        body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": self.metadata, "status": "Failure"}
        body["message"] = self.message
        if self.status_reason:
            body["reason"] = self.status_reason
        if self.details:
            body["details"] = self.details
        body["code"] = self.status_code
        return body


class BadRequest(ApiError):
    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    code, reason = 401, "Unauthorized"


class Forbidden(ApiError):
    code, reason = 403, "Forbidden"


class NotFound(ApiError):
    code, reason = 404, "NotFound"


class MethodNotAllowed(ApiError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(ApiError):
    code, reason = 406, "NotAcceptable"


class Conflict(ApiError):
    code, reason = 409, "Conflict"


class AlreadyExists(ApiError):
    code, reason = 409, "AlreadyExists"


class Expired(ApiError):
    code, reason = 410, "Expired"


class RequestTooLarge(ApiError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    code, reason = 422, "Invalid"


class TooManyRequests(ApiError):
    code, reason = 429, "TooManyRequests"


class InternalError(ApiError):
    code, reason = 500, "InternalError"


class ServiceUnavailable(ApiError):
    code, reason = 503, "ServiceUnavailable"


class Timeout(ApiError):
    code, reason = 504, "Timeout"


CLASSES: tuple[type[ApiError], ...] = (
    BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, Conflict, AlreadyExists, Expired,
    RequestTooLarge, UnsupportedMediaType, Invalid, TooManyRequests, InternalError, ServiceUnavailable, Timeout,
)  # fmt: skip
BY_REASON: Mapping[str, type[ApiError]] = {c.reason: c for c in CLASSES}


def from_status(status: Mapping[str, Any], http_code: int) -> ApiError:
    """The error that a Status object of any server describes; for a body that is no Status, by its HTTP code."""
    reason = str(status.get("reason") or "")
    code = status.get("code") or http_code
    kind = BY_REASON.get(reason, ApiError)
    details = status.get("details")
    return kind(
        str(status.get("message") or f"HTTP {code}"),
        details=details if isinstance(details, Mapping) else None,
        code=int(code),
        reason=reason,
        retry_after_seconds=(details or {}).get("retryAfterSeconds") if isinstance(details, Mapping) else None,
        metadata=status.get("metadata") or {},
    )
