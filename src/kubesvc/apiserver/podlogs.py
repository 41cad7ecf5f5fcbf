"""GET …/pods/NAME/log: a container's log as plain text, held open with `follow` (NODE-95 to NODE-99, KCTL-84)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from kubesvc.api import fields
from kubesvc.api.errors import BadRequest
from kubesvc.api.meta import Object
from kubesvc.clock import parse_rfc3339

from .calls import Call
from .nodedoors import NodeDialer, NodeRefused, dial_stream
from .options import TRUE, Query, first

PIECE_BYTES = 64 * 1024
CHECK_SECONDS = 1.0
"""How often a silent followed log looks whether its reader has left."""
STREAMS = ("All", "Stderr", "Stdout")


def log_request(pod: str, query: Query) -> dict[str, Any]:
    """The options of a request in the words of the node's door. Pure.

    Raises BadRequest for what cannot be read, Invalid (PodLogOptions) for what makes no sense.
    """
    tail, limit = number(query, "tailLines"), number(query, "limitBytes")
    since, since_time = number(query, "sinceSeconds"), first(query, "sinceTime")
    stream = first(query, "stream") or "All"
    errors: list[fields.FieldError] = []
    if tail is not None and tail < 0:
        errors.append(fields.invalid("tailLines", tail, "must be greater than or equal to 0"))
    if limit is not None and limit < 1:
        errors.append(fields.invalid("limitBytes", limit, "must be greater than 0"))
    if since is not None and since_time:
        errors.append(fields.forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    elif since is not None and since < 1:
        errors.append(fields.invalid("sinceSeconds", since, "must be greater than 0"))
    if stream not in STREAMS:
        errors.append(fields.not_supported("stream", stream, STREAMS, in_order=True))
    elif stream != "All" and tail is not None:
        errors.append(fields.forbidden("", "`tailLines` and specific `stream` are mutually exclusive for now"))
    if errors:
        raise fields.invalid_object("", "PodLogOptions", pod, errors)
    if since_time:
        try:
            parse_rfc3339(since_time)
        except ValueError:
            raise BadRequest(f"sinceTime: {fields.quote(since_time)}: must be a time as in RFC 3339") from None
    wanted: dict[str, Any] = {name: flag(query, name) for name in ("follow", "previous", "timestamps")}
    numbers = {"tail_lines": tail, "limit_bytes": limit, "since_seconds": since}
    wanted.update({k: v for k, v in numbers.items() if v is not None})
    if since_time:
        wanted["since_time"] = since_time
    if stream != "All":
        wanted["stream"] = stream
    return wanted


def flag(query: Query, name: str) -> bool:
    return first(query, name) in TRUE


def number(query: Query, name: str) -> int | None:
    text = first(query, name)
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise BadRequest(
            f"strconv.ParseInt: parsing {fields.quote(text)}: invalid syntax",
        ) from None


async def serve_log(call: Call, pod: Object, dialer: NodeDialer) -> web.StreamResponse:
    """Answer a log request of a pod that is bound to a node."""
    meta = pod["metadata"]
    wanted = log_request(meta["name"], call.query)
    container = first(call.query, "container") or only_container(pod)
    request = f"log {meta['namespace']} {meta['name']} {container or '-'} {json.dumps(wanted)}"
    try:
        reader, writer = await dial_stream(dialer, pod["spec"]["nodeName"], request)
    except NodeRefused as refused:
        raise refused.as_api_error() from None
    response = web.StreamResponse(headers={**call.headers(), "Content-Type": "text/plain"})
    response.enable_chunked_encoding()
    try:
        await response.prepare(call.request)  # the headers go before the first line exists (NODE-98)
        reading = asyncio.ensure_future(reader.read(PIECE_BYTES))
        try:
            while True:
                done, _ = await asyncio.wait({reading}, timeout=CHECK_SECONDS)
                transport = call.request.transport
                if transport is None or transport.is_closing():
                    return response
                if not done:
                    continue
                piece = reading.result()
                if not piece:
                    break
                await response.write(piece)
                reading = asyncio.ensure_future(reader.read(PIECE_BYTES))
        finally:
            reading.cancel()
        await response.write_eof()
    except ConnectionError:
        pass  # the reader left, or the node ended: what was sent was sent
    finally:
        writer.close()
    return response


def only_container(pod: Object) -> str:
    """The name of the pod's container if it has just one, else ""."""
    names = [c["name"] for c in (pod.get("spec") or {}).get("containers") or ()]
    return names[0] if len(names) == 1 else ""
