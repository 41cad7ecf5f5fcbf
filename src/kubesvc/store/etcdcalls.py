"""Calls to the members of an etcd over gRPC, and what their refusals mean.

Of `aetcd` (extra `etcd`) only the messages and stubs are used, which are etcd's own definitions in compiled form. Its
client is left aside: its watches are served without the header's revision and start anew from "now" when a connection
breaks, which is a gap, and its transactions answer without the revision they got.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from .etcdaddress import EtcdAddress
from .interface import Busy, Compacted, FutureRevision, StoreError, TimedOut, TooLarge, Unavailable

CALL_SECONDS = 5.0
"""How long one call may take, reads with all their tries."""
TRY_SECONDS = 2.0
"""How long one try of a read may take before another member is asked."""
RETRY_SECONDS = 0.05

METADATA = (("hasleader", "true"),)
"""A member without a leader must refuse, or end its watches, rather than answer from what it knew."""

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),
)

COMPACTED = "required revision has been compacted"
FUTURE = "required revision is a future revision"
OPERATIONS = "too many operations in txn request"
LARGE = ("request is too large", "message larger than max")
SPACE = "database space exceeded"
BUSY = "too many requests"


def messages() -> Any:
    """etcd's messages and stubs. Unavailable if the extra is not installed."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what goes wrong is told in our words, once
    try:
        import aetcd.rpc
    except ImportError as error:
        raise Unavailable(f"{error}: the store etcd needs more packages: pip install 'kubesvc[etcd]'") from None
    return aetcd.rpc


def meaning(code: str, details: str, address: EtcdAddress) -> StoreError:
    """The error that a refusal stands for. `code`: gRPC's, e.g. UNAVAILABLE. Etcd's own words are kept, since users of
    other API servers search for them. Pure; the revisions of Compacted and FutureRevision are for the caller to fill.
    """
    if COMPACTED in details:
        return Compacted(0, 0)
    if FUTURE in details:
        return FutureRevision(0, 0)
    if OPERATIONS in details:
        return TooLarge(f"{details}: etcd takes 128 unless started with a larger --max-txn-ops")
    if any(words in details for words in LARGE):
        return TooLarge(f"{details}: etcd takes 1.5 MiB unless started with a larger --max-request-bytes")
    if SPACE in details:
        return Unavailable(f"{details}: compact and defragment {address.shown}, then `etcdctl alarm disarm`")
    if BUSY in details:
        return Busy(details)
    if code == "DEADLINE_EXCEEDED" or "request timed out" in details:
        return TimedOut(details if details.startswith("etcdserver:") else f"{address.shown} did not answer in time")
    if details.startswith("etcdserver:"):
        return Unavailable(details)
    return Unavailable(f"{address.shown} cannot be reached ({code}: {details}): is it running?")


class EtcdCalls:
    """The members of one etcd, one of which is asked at a time; the next one when that one fails."""

    def __init__(self, address: EtcdAddress) -> None:
        self.address = address
        self.rpc: Any = None
        self.channels: list[Any] = []
        self.at = 0

    def open(self) -> None:
        """Make the channels; nothing is connected yet. Unavailable if packages or certificate files are missing."""
        self.rpc = messages()
        import grpc
        import grpc.aio

        credentials = None
        if self.address.tls:
            try:
                cacert, key, cert = (
                    Path(path).read_bytes() if path else None
                    for path in (self.address.cacert, self.address.key, self.address.cert)
                )
            except OSError as error:
                raise Unavailable(
                    f"{error.filename}: {error.strerror}: it is named in --store, and must be a PEM file"
                ) from None
            credentials = grpc.ssl_channel_credentials(cacert, key, cert)
        for endpoint in self.address.endpoints:
            if credentials is None:
                self.channels.append(grpc.aio.insecure_channel(endpoint, CHANNEL_OPTIONS))
            else:
                self.channels.append(grpc.aio.secure_channel(endpoint, credentials, CHANNEL_OPTIONS))
        self.multicalls = [
            (
                channel.unary_unary(
                    "/etcdserverpb.KV/Range",
                    request_serializer=self.rpc.RangeRequest.SerializeToString,
                    response_deserializer=self.rpc.RangeResponse.FromString,
                ),
                channel.unary_unary(
                    "/etcdserverpb.KV/Txn",
                    request_serializer=self.rpc.TxnRequest.SerializeToString,
                    response_deserializer=self.rpc.TxnResponse.FromString,
                ),
                channel.unary_unary(
                    "/etcdserverpb.KV/Compact",
                    request_serializer=self.rpc.CompactionRequest.SerializeToString,
                    response_deserializer=self.rpc.CompactionResponse.FromString,
                ),
            )
            for channel in self.channels
        ]

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self.channels))

    def failure(self, error: Any) -> StoreError:
        """What a gRPC error means."""
        found = meaning(error.code().name, error.details() or "", self.address)
        found.__cause__ = error
        return found

    async def member(self) -> int:
        """A member that is connected: the one asked last if it still is. Unavailable if none comes in time."""
        import grpc

        loop = asyncio.get_running_loop()
        end = loop.time() + CALL_SECONDS
        while True:
            for step in range(len(self.channels)):
                at = (self.at + step) % len(self.channels)
                if self.channels[at].get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
                    self.at = at
                    return at
            if loop.time() >= end:
                raise Unavailable(f"{self.address.shown} cannot be reached: is it running?")
            await asyncio.sleep(RETRY_SECONDS / 5)

    async def read(self, request: Any) -> Any:
        """A Range; tried again, at another member too, for as long as that may help."""
        return await self._again(lambda at: self.multicalls[at][0](request, timeout=TRY_SECONDS, metadata=METADATA))

    async def compact(self, request: Any) -> Any:
        """A Compact; to repeat it does no harm."""
        return await self._again(lambda at: self.multicalls[at][2](request, timeout=CALL_SECONDS, metadata=METADATA))

    async def _again(self, call: Callable[[int], Awaitable[Any]]) -> Any:
        import grpc.aio

        loop = asyncio.get_running_loop()
        end = loop.time() + CALL_SECONDS
        while True:
            at = await self.member()
            try:
                return await call(at)
            except grpc.aio.AioRpcError as error:
                failure = self.failure(error)
                if not isinstance(failure, Unavailable) or loop.time() >= end:
                    raise failure from None
                self.at = (at + 1) % len(self.channels)
                await asyncio.sleep(RETRY_SECONDS)

    async def write(self, request: Any) -> Any:
        """A Txn, tried once: of one that was cut off nobody knows whether it happened."""
        import grpc.aio

        at = await self.member()
        try:
            return await self.multicalls[at][1](request, timeout=CALL_SECONDS, metadata=METADATA)
        except grpc.aio.AioRpcError as error:
            self.at = (at + 1) % len(self.channels)
            raise self.failure(error) from None

    async def watch(self, request: Any) -> Any:
        """A Watch stream with this one create request written; `read` it and `cancel` it."""
        import grpc.aio

        at = await self.member()
        channel = self.channels[at]
        call = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=self.rpc.WatchRequest.SerializeToString,
            response_deserializer=self.rpc.WatchResponse.FromString,
        )(metadata=METADATA)
        try:
            await call.write(self.rpc.WatchRequest(create_request=request))
        except grpc.aio.AioRpcError as error:
            self.at = (at + 1) % len(self.channels)
            raise self.failure(error) from None
        return call
