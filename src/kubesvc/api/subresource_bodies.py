"""Bodies of requests below an object: binding, eviction, scale, token. Read and answered, never stored (SUB-3 to 5)."""

from __future__ import annotations

from .meta import ObjectReference, Struct, Typed


class Binding(Typed, frozen=True):
    target: ObjectReference = ObjectReference()


class Preconditions(Struct, frozen=True):
    uid: str | None = None
    resource_version: str | None = None


class DeleteOptions(Struct, frozen=True):
    grace_period_seconds: int | None = None
    preconditions: Preconditions | None = None
    orphan_dependents: bool | None = None
    propagation_policy: str | None = None
    dry_run: list[str] | None = None


class Eviction(Typed, frozen=True):
    delete_options: DeleteOptions | None = None


class ScaleSpec(Struct, frozen=True):
    replicas: int = 0


class ScaleStatus(Struct, frozen=True):
    replicas: int = 0
    selector: str = ""


class Scale(Typed, frozen=True):
    spec: ScaleSpec = ScaleSpec()
    status: ScaleStatus = ScaleStatus()


class BoundObjectReference(Struct, frozen=True):
    kind: str = ""
    api_version: str = ""
    name: str = ""
    uid: str = ""


class TokenRequestSpec(Struct, frozen=True):
    audiences: list[str] | None = None
    expiration_seconds: int | None = None
    bound_object_ref: BoundObjectReference | None = None


class TokenRequestStatus(Struct, frozen=True):
    token: str = ""
    expiration_timestamp: str | None = None


class TokenRequest(Typed, frozen=True):
    spec: TokenRequestSpec = TokenRequestSpec()
    status: TokenRequestStatus = TokenRequestStatus()
