"""WebSockets whose messages belong to numbered channels, in the forms clients speak (NODE-102 to NODE-107).

    v5.channel.k8s.io                                   byte 0 is the channel; 255 N: channel N is half-closed
    v4.channel.k8s.io, channel.k8s.io, none             byte 0 is the channel
    v4.base64.channel.k8s.io, base64.channel.k8s.io     text: a digit for the channel, then base64

The older forms, without `v4`, tell the end of a command in plain words instead of a Status.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from aiohttp import WSMsgType, web

from kubesvc.api.errors import BadRequest, Forbidden

from .calls import Call

V5 = "v5.channel.k8s.io"
V4 = "v4.channel.k8s.io"
V4_BASE64 = "v4.base64.channel.k8s.io"
V1 = "channel.k8s.io"
V1_BASE64 = "base64.channel.k8s.io"
CLOSE_CHANNEL = 255
MESSAGE_BYTES = 16 << 20
CLOSE_SECONDS = 2.0
"""How long a client is given to say good-bye back."""


class ChannelData(NamedTuple):
    """What came on a channel; `data` is None when the client has half-closed it."""

    channel: int
    data: bytes | None


def encode_message(protocol: str, channel: int, data: bytes) -> bytes | str:
    """One message of a channel: bytes for a binary one, text for base64. Pure."""
    if "base64" in protocol:
        return f"{channel}{base64.b64encode(data).decode()}"
    return bytes((channel,)) + data


def decode_message(protocol: str, message: bytes | str) -> ChannelData | None:
    """What a message says; None for one that says nothing: empty, or of no known channel. Pure.

    Some clients send text on the binary forms; its characters below 128 are its bytes.
    """
    if "base64" in protocol:
        text = message if isinstance(message, str) else message.decode(errors="replace")
        if not text[:1].isdecimal() or not text[0].isascii():
            return None
        try:
            return ChannelData(int(text[0]), base64.b64decode(text[1:], validate=True))
        except ValueError:  # binascii's errors are some; text beyond ASCII is another
            return None
    data = message if isinstance(message, bytes) else message.encode()
    if not data:
        return None
    if protocol == V5 and data[0] == CLOSE_CHANNEL:
        return ChannelData(data[1], None) if len(data) > 1 else None
    return ChannelData(data[0], data[1:])


def wants_websocket(call: Call) -> bool:
    """Whether the request asks for an upgrade to WebSocket."""
    headers = call.request.headers
    return headers.get("Upgrade", "").lower() == "websocket" and "upgrade" in headers.get("Connection", "").lower()


def offered_protocols(call: Call) -> list[str]:
    """The subprotocols that the client offers, the one it likes best first."""
    values = call.request.headers.getall("Sec-WebSocket-Protocol", ())
    return [name for value in values for name in (part.strip() for part in value.split(",")) if name]


async def accept(call: Call, protocols: Sequence[str]) -> tuple[web.WebSocketResponse, str]:
    """Upgrade to WebSocket with the first subprotocol that both sides know: (socket, its name, "" without any).

    A client that offers none gets the oldest form if `protocols` has "". Raises BadRequest or Forbidden instead of
    upgrading, whereupon kubectl tries SPDY (NODE-101).
    """
    if not wants_websocket(call):
        raise BadRequest("Upgrade request required")
    offered = offered_protocols(call)
    chosen = next((p for p in offered if p in protocols), None)
    if chosen is None:
        if offered or "" not in protocols:
            raise Forbidden(f"unable to negotiate protocol: client supports {offered}, server supports {protocols}")
        chosen = ""
    socket = web.WebSocketResponse(
        protocols=(chosen,) if chosen else (),
        compress=False,
        timeout=CLOSE_SECONDS,
        max_msg_size=MESSAGE_BYTES,
    )
    try:
        await socket.prepare(call.request)
    except web.HTTPException as error:
        raise BadRequest(f"malformed upgrade request: {error.text or error.reason}") from None
    return socket, chosen


class ChannelSocket:
    """A WebSocket that speaks one of the channel forms."""

    def __init__(self, socket: web.WebSocketResponse, protocol: str) -> None:
        self.socket = socket
        self.protocol = protocol

    async def send(self, channel: int, data: bytes) -> None:
        """Send data on a channel, no faster than the client reads. ConnectionError when it is gone."""
        message = encode_message(self.protocol, channel, data)
        if isinstance(message, str):
            await self.socket.send_str(message)
        else:
            await self.socket.send_bytes(message)

    async def receive(self) -> AsyncIterator[ChannelData]:
        """What the client sends, until it is gone or has closed."""
        while True:
            message = await self.socket.receive()
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                return
            said = decode_message(self.protocol, message.data)
            if said is not None:
                yield said

    async def close(self) -> None:
        await self.socket.close(code=1000)
