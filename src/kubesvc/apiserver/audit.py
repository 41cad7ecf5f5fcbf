"""The audit log: one line of JSON per stage of a request, an Event of audit.k8s.io/v1.

How much is told of a request is the policy's to say: who asked for what and how it ended (Metadata), the body that was
sent besides (Request), the answer besides that (RequestResponse), or nothing.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kubesvc.clock import Clock, rfc3339_micro

from .auditpolicy import UNTOLD, Policy, Rule, Stage
from .authentication import User, user_info
from .calls import Call
from .inflight import is_lasting

log = logging.getLogger("kubesvc.apiserver")

MEBIBYTE, MEBIBYTES = 1 << 20, 100
"""How many bytes a mebibyte has, and how many of these a log has if nothing is said."""
STAMP = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}"
MOST_BODY_BYTES = 256 * 1024
CLOSED_EARLY = "Connection closed early"
_json = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a log file is put aside for a new one, and how long those put aside are kept.

    most_bytes:   the size that a file may not exceed
    most_files:   how many are kept aside, 0 for all
    most_seconds: how old they may become, 0 for any age
    """

    most_bytes: int = MEBIBYTES * MEBIBYTE
    most_files: int = 0
    most_seconds: float = 0.0


class AuditLog:
    """Appends to a file, readable by its owner only; `-` is standard output. OSError if it cannot be opened.

    A file put aside is called `NAME-2026-01-31T12-00-00.000.log` after `NAME.log`, by the time at which that was
    done (UTC).
    """

    def __init__(self, path: str, policy: Policy, clock: Clock, rotation: Rotation = Rotation()) -> None:
        self.path = Path(path)
        self.policy = policy
        self.clock = clock
        self.rotation = rotation
        self.rotates = path != "-"
        self.file = self.open() if self.rotates else os.dup(1)
        self.size = os.fstat(self.file).st_size if self.rotates else 0
        self.torn = False
        """Whether the last line ends in the middle."""
        self.failed = 0
        self.told = 0

    def open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def aside(self) -> list[Path]:
        """The files put aside, the oldest first."""
        name, suffix = self.path.stem, self.path.suffix
        named = re.compile(re.escape(f"{name}-") + STAMP + re.escape(suffix))
        return sorted(f for f in self.path.parent.iterdir() if named.fullmatch(f.name))

    def rotate(self) -> None:
        """Put the file aside, begin a new one, and remove what has been aside for too long. OSError."""
        now = self.clock.now()
        while (aside := self.path.with_name(f"{self.path.stem}-{stamp_of(now)}{self.path.suffix}")).exists():
            now += 0.001
        os.rename(self.path, aside)
        fresh = self.open()
        os.close(self.file)
        self.file, self.size, self.torn = fresh, 0, False
        limits, files = self.rotation, self.aside()
        doomed = set(files[: -limits.most_files]) if limits.most_files else set()
        if limits.most_seconds:
            oldest = f"{self.path.stem}-{stamp_of(now - limits.most_seconds)}"
            doomed |= {f for f in files if f.name < oldest}
        for file in doomed:
            file.unlink(missing_ok=True)

    def close(self) -> None:
        if self.file >= 0:
            os.close(self.file)
        self.file = -1

    def follow(self, call: Call) -> Followed:
        """What becomes of a request is told to the answer; call its methods in their order."""
        return Followed(self, call, self.clock.now())

    def write(self, event: dict[str, Any]) -> None:
        if self.file < 0:
            return
        line = _json.encode(event) + b"\n"
        try:
            if self.rotates and self.size and self.size + len(line) > self.rotation.most_bytes:
                self.rotate()
            self.put(line)
            self.told += 1
        except OSError as e:
            if not self.failed:
                log.error("audit log %s: %s", self.path, e.strerror)
            self.failed += 1

    def put(self, line: bytes) -> None:
        """Write a whole line, however little the system takes at a time. OSError: what was written of it is ended by
        the next line, so that only this one cannot be read."""
        rest = memoryview(b"\n" + line if self.torn else line)
        while rest:
            written = os.write(self.file, rest)
            self.size += written
            self.torn = len(rest) > written
            rest = rest[written:]


def stamp_of(seconds: float) -> str:
    """A moment as the names of files have it, to the millisecond."""
    return rfc3339_micro(seconds)[:-4].replace(":", "-")


class Followed:
    """One request on its way through the server, told stage by stage."""

    __slots__ = ("call", "log", "received", "rule", "started", "unknown")

    def __init__(self, audit: AuditLog, call: Call, received: float) -> None:
        self.log = audit
        self.call = call
        self.received = received
        self.rule: Rule = UNTOLD
        self.started = 0
        """The status of an answer that goes on, once it has begun."""
        self.unknown = True

    def known(self, user: User) -> None:
        """The request's sender is known: now it is decided what is told."""
        self.unknown = False
        self.rule = self.log.policy.rule_for(user, self.call.target)
        self.tell("RequestReceived", 0)
        if is_lasting(self.call.target):
            self.call.on_stream = self.begun

    def begun(self, status: int) -> None:
        """The head of an answer that goes on is on its way."""
        self.started = status
        self.tell("ResponseStarted", status)

    def answered(self, status: int, *, panicked: bool = False) -> None:
        """The request is over."""
        if self.unknown and self.call.authenticated is not None:  # refused when it asked to act as somebody else
            self.known(self.call.authenticated)
        if self.unknown:  # nobody we know: told at the level of those who are nobody in particular
            self.rule = self.log.policy.rule_for(User(""), self.call.target)
            self.tell("ResponseStarted", status)
            return
        self.tell("Panic" if panicked else "ResponseComplete", status)

    def broken_off(self) -> None:
        """The request ended without an answer, or in the middle of one: its client left, or the server ends.

        As upstream: whatever was not answered yet counts as well answered, with a word about what happened.
        """
        if self.unknown:
            return
        if not self.started and self.call.on_stream is not None:
            self.tell("ResponseStarted", 200, CLOSED_EARLY)
        self.tell("ResponseComplete", self.started or 200, "" if self.started else CLOSED_EARLY)

    def tell(self, stage: Stage, status: int, message: str = "") -> None:
        rule = self.rule
        if rule.level == "None" or stage in rule.omitted:
            return
        event = event_of(self.call, rule, stage, status, self.received, self.log.clock.now())
        if self.unknown:
            event["user"] = {}
            header = self.call.request.headers.get("Authorization", "")
            told = f"attempted: {header.partition(' ')[0].lower()}" if header else "no credentials provided"
            event["responseStatus"]["message"] = f"Authentication failed, {told}"
        if message:
            event["responseStatus"] = {"metadata": {}, "status": "Success", "message": message, "code": status}
        self.log.write(event)


def event_of(call: Call, rule: Rule, stage: Stage, code: int, received: float, now: float) -> dict[str, Any]:
    """The Event of one stage.

    code:          HTTP status of the answer, 0 while there is none
    received, now: seconds since 1970 of the request's arrival and of this stage
    """
    target, request = call.target, call.request
    user = call.authenticated or call.user
    event: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": rule.level,
        "auditID": call.id,
        "stage": stage,
        "requestURI": request.raw_path,
        "verb": target.verb,
        "user": user_info(user),
    }
    if user is not call.user:
        event["impersonatedUser"] = user_info(call.user)
        if call.constraint:
            event["authenticationMetadata"] = {"impersonationConstraint": call.constraint}
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
    if code:
        status: dict[str, Any] = {"metadata": {}}
        if call.failure is not None:
            status.update({"status": "Failure", "message": call.failure.message, "reason": call.failure.status_reason})
        event["responseStatus"] = {**status, "code": code}
    if rule.level in ("Request", "RequestResponse") and call.sent:
        event["requestObject"] = body_of(call.sent, call.media_type, rule)
    if rule.level == "RequestResponse" and stage == "ResponseComplete" and call.answered:
        event["responseObject"] = body_of(call.answered, "application/json", rule)
    event["requestReceivedTimestamp"] = rfc3339_micro(received)
    event["stageTimestamp"] = rfc3339_micro(now)
    if call.decision and code:
        event["annotations"] = {
            "authorization.k8s.io/decision": call.decision,
            "authorization.k8s.io/reason": call.reason,
            **call.annotations,
        }
    return event


def body_of(body: bytes, media_type: str, rule: Rule) -> Any:
    """A body as the log has it: an object as it is, anything else by its size."""
    if len(body) <= MOST_BODY_BYTES:
        try:
            if media_type.endswith("yaml"):
                found = from_yaml(body)
            elif not rule.without_managed_fields:
                msgspec.json.decode(body)
                return msgspec.Raw(body.replace(b"\n", b" ").replace(b"\r", b" "))
            else:
                found = msgspec.json.decode(body)
            encoded = _json.encode(without_managed_fields(found) if rule.without_managed_fields else found)
            return msgspec.Raw(encoded)
        except (ValueError, TypeError, RecursionError, OverflowError):
            pass
    return {"bytes": len(body)}


def from_yaml(body: bytes) -> Any:
    """The plain value of a YAML text; ValueError if it is none, or one that aliases make large."""
    import yaml

    if b"*" in body and b"&" in body:
        raise ValueError("aliases are not followed")
    try:
        return yaml.load(body, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as e:
        raise ValueError(str(e)) from None


def without_managed_fields(found: Any) -> Any:
    """An object, or the objects of a list, without metadata.managedFields."""
    if not isinstance(found, dict):
        return found
    meta = found.get("metadata")
    if isinstance(meta, dict) and "managedFields" in meta:
        found = {**found, "metadata": {k: v for k, v in meta.items() if k != "managedFields"}}
    if isinstance(found.get("items"), list):
        found = {**found, "items": [without_managed_fields(i) for i in found["items"]]}
    return found
