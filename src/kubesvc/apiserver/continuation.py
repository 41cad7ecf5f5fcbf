"""Continue tokens: where the next page of a list begins, and at which revision (LIST-4 to LIST-6). Pure.

Every server of a store can go on with a token that another one gave.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from kubesvc.api import fields
from kubesvc.api.errors import BadRequest

_json = msgspec.json.Encoder()


class _Token(msgspec.Struct):
    v: str
    rv: int
    start: str


def continue_token(revision: int, last_key: str) -> str:
    """The token that goes on after a key (LIST-4); revision -1 continues from the newest state (LIST-6)."""
    token = _json.encode({"v": "meta.k8s.io/v1", "rv": revision, "start": last_key + "\0"})
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def parse_continue_token(text: str) -> tuple[int, str]:
    """Revision and start key of a token; BadRequest in LIST-5's words."""
    bad = "invalid continue token: continue key is not valid: "
    for at, c in enumerate(text):
        if not (c.isascii() and (c.isalnum() or c in "-_")):
            raise BadRequest(f"{bad}illegal base64 data at input byte {at}")
    if len(text) % 4 == 1:
        raise BadRequest(f"{bad}illegal base64 data at input byte {len(text) - 1}")
    try:
        token = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=_Token)
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, ValueError) as e:
        raise BadRequest(f"{bad}{e}") from None
    if token.v != "meta.k8s.io/v1":
        raise BadRequest(f"{bad}server does not recognize this encoded version {fields.quote(token.v)}")
    if ".." in token.start.split("/") or not token.start or token.start.startswith("/"):
        raise BadRequest(f"{bad}{fields.quote(token.start)}")
    return token.rv, token.start
