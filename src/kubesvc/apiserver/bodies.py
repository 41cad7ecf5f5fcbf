"""Reading the object in a request's body, whatever of the three media types it comes in (WRITE-11)."""

from __future__ import annotations

from kubesvc.api.decode import Target, decode_body
from kubesvc.api.errors import UnsupportedMediaType
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.api.protobuf import MEDIA_TYPE

from .calls import Call

BODY_TYPES = ("", "application/json", "application/yaml", MEDIA_TYPE)
UNKNOWN_FORMAT = (
    "the body of the request was in an unknown format - accepted media types include: application/json, "
    "application/yaml, application/vnd.kubernetes.protobuf"
)


async def read_body(call: Call, target: Kind | Target, validation: str) -> Object:
    """The object in the body, its warnings added to the call.

    Raises what `decode_body` raises; UnsupportedMediaType for media types beyond the three.
    """
    if call.media_type not in BODY_TYPES:
        raise UnsupportedMediaType(UNKNOWN_FORMAT)
    decoded = decode_body(await call.body(), call.media_type, target, validation)
    call.warnings += decoded.warnings
    return decoded.obj
