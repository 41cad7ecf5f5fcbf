"""The audit log: one line of JSON per request, an Event of audit.k8s.io/v1, written when the answer is known.

Level Metadata tells who asked for what and how it ended; Request adds the body that was sent, but for resources whose
bodies hold secrets. Health paths and the watching of them are not told.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from kubesvc.clock import rfc3339_micro

from .authentication import User
from .calls import Call

log = logging.getLogger("kubesvc.apiserver")

Level = Literal["Metadata", "Request"]
SECRETIVE = frozenset({"secrets", "configmaps", "tokenreviews"})
"""Resources whose bodies are not logged."""
UNTOLD = ("/livez", "/readyz", "/healthz", "/version", "/metrics")
MOST_BODY_BYTES = 256 * 1024
_json = msgspec.json.Encoder()


class AuditLog:
    """Appends to a file, readable by its owner only. OSError if it cannot be opened."""

    def __init__(self, path: str, level: Level) -> None:
        self.path = Path(path)
        self.level = level
        self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.failed = 0

    def close(self) -> None:
        if self.file >= 0:
            os.close(self.file)
        self.file = -1

    def wants_body(self, call: Call) -> bool:
        target = call.target
        return self.level == "Request" and target.resource not in SECRETIVE and target.subresource != "token"

    def write(self, call: Call, stage: str, code: int, received: float, now: float) -> None:
        """Tell one stage of a request: ResponseStarted of a stream, ResponseComplete of everything."""
        if call.target.path.startswith(UNTOLD) or self.file < 0:
            return
        line = _json.encode(event_of(call, stage, code, received, now, with_body=self.wants_body(call))) + b"\n"
        try:
            os.write(self.file, line)
        except OSError as e:
            if not self.failed:
                log.error("audit log %s: %s", self.path, e.strerror)
            self.failed += 1


def user_info(user: User) -> dict[str, Any]:
    info: dict[str, Any] = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {k: list(v) for k, v in user.extra.items()}
    return info


def event_of(call: Call, stage: str, code: int, received: float, now: float, *, with_body: bool) -> dict[str, Any]:
    """The Event of one stage.

    code:          HTTP status of the answer
    received, now: seconds since 1970 of the request's arrival and of this stage
    """
    target, request = call.target, call.request
    user = call.authenticated or call.user
    event: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Request" if with_body and call.sent else "Metadata",
        "auditID": call.id,
        "stage": stage,
        "requestURI": request.raw_path,
        "verb": target.verb,
        "user": user_info(user),
    }
    if user is not call.user:
        event["impersonatedUser"] = user_info(call.user)
    event["sourceIPs"] = [request.remote] if request.remote else []
    event["userAgent"] = call.user_agent
    if target.is_resource:
        reference = {
            "resource": target.resource,
            "namespace": target.namespace,
            "name": target.name,
            "apiGroup": target.group,
            "apiVersion": target.version,
            "subresource": target.subresource,
        }
        event["objectRef"] = {k: v for k, v in reference.items() if v}
    status: dict[str, Any] = {"metadata": {}}
    if call.failure is not None:
        status.update({"status": "Failure", "message": call.failure.message, "reason": call.failure.status_reason})
    event["responseStatus"] = {**status, "code": code}
    if with_body and call.sent:
        event["requestObject"] = body_of(call.sent)
    event["requestReceivedTimestamp"] = rfc3339_micro(received)
    event["stageTimestamp"] = rfc3339_micro(now)
    if call.decision:
        event["annotations"] = {
            "authorization.k8s.io/decision": call.decision,
            "authorization.k8s.io/reason": call.reason,
        }
    return event


def body_of(sent: bytes) -> Any:
    """A sent body as the log has it: JSON as it is, anything else by its size."""
    if len(sent) <= MOST_BODY_BYTES:
        try:
            msgspec.json.decode(sent)
            return msgspec.Raw(sent.replace(b"\n", b" ").replace(b"\r", b" "))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    return {"bytes": len(sent)}
