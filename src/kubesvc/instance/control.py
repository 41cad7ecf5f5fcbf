"""The control process's own door: what commands ask of it that no Kubernetes API has a word for.

One request per connection on `control.sock`: a line of JSON (`Order`), answered by a line of JSON (`Answer`). The
socket lies in the instance's directory, which only its owner may enter.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

MOST_BYTES = 4096
PATIENCE_SECONDS = 30.0
DEED_SECONDS = 120.0
"""How long a deed may take: ending a node's containers in a runtime is its longest."""


class Order(msgspec.Struct, frozen=True):
    """What is to be done (`node.stop`, …), and to what."""

    do: str
    name: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What came of it: `said` if it was done, `error` if it could not be."""

    said: str = ""
    error: str = ""


class ControlFailed(Exception):
    """An order could not be carried out; the text says why and what to do next."""


Deed = Callable[[str], Awaitable[str]]


async def serve_orders(path: Path, deeds: Mapping[str, Deed], refusals: tuple[type[Exception], ...]) -> None:
    """Carry out orders until cancelled.

    deeds:    by name; each is given the order's `name` and returns what it did in words
    refusals: exceptions whose text is an answer
    """

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                line = await reader.readuntil(b"\n")
            answer = await carry_out(line, deeds, refusals)
        except (asyncio.IncompleteReadError, TimeoutError):
            answer = Answer(error="an order is one line of JSON")
        except asyncio.LimitOverrunError:
            answer = Answer(error=f"an order has at most {MOST_BYTES} bytes")
        with contextlib.suppress(OSError):
            writer.write(msgspec.json.encode(answer) + b"\n")
            await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(handle, path, limit=MOST_BYTES)
    os.chmod(path, 0o600)
    try:
        await server.serve_forever()
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def carry_out(line: bytes, deeds: Mapping[str, Deed], refusals: tuple[type[Exception], ...]) -> Answer:
    """Do what one order says."""
    try:
        order = msgspec.json.decode(line, type=Order)
    except (msgspec.DecodeError, ValueError) as error:
        return Answer(error=f"an order is one line of JSON: {error}")
    deed = deeds.get(order.do)
    if deed is None:
        return Answer(error=f"this instance cannot {order.do!r}; it can {', '.join(sorted(deeds))}")
    try:
        return Answer(said=await deed(order.name))
    except refusals as error:
        return Answer(error=str(error))


def give_order(path: Path, order: Order) -> str:
    """Ask the control process and wait; what it says it did. ControlFailed if it did not, or cannot be asked."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(DEED_SECONDS)
        try:
            door.connect(str(path))
            door.sendall(msgspec.json.encode(order) + b"\n")
            with door.makefile("rb") as lines:
                answer = msgspec.json.decode(lines.readline(), type=Answer)
        except (OSError, msgspec.DecodeError) as error:
            raise ControlFailed(f"the instance does not answer at {path}: {error}\nnext: kubesvc status") from None
    if answer.error:
        raise ControlFailed(answer.error)
    return answer.said
