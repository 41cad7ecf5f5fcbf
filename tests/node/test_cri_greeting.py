"""A container runtime on a busy machine: it takes its time to greet, and is no less a runtime."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kubesvc.instance.relay import join_streams
from kubesvc.node.cri.client import CriClient
from kubesvc.node.cri.wire import encode

LATE_SECONDS = 0.6


def test_who_greets_late_is_waited_for(tmp_path: Path) -> None:
    grpc, aio = pytest.importorskip("grpc"), pytest.importorskip("grpc.aio")
    answer = {"version": "0.1.0", "runtime_name": "slow", "runtime_version": "1", "runtime_api_version": "v1"}

    async def say(request: bytes, context: Any) -> bytes:
        return encode("VersionResponse", answer)

    async def main() -> None:
        server, there, here = aio.server(), tmp_path / "there", tmp_path / "here"
        handler = grpc.unary_unary_rpc_method_handler(say)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("runtime.v1.RuntimeService", {"Version": handler}),)
        )
        server.add_insecure_port(f"unix://{there}")
        await server.start()

        async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(LATE_SECONDS)
            await join_streams((reader, writer), await asyncio.open_unix_connection(str(there)))

        door = await asyncio.start_unix_server(late, str(here))
        client = CriClient(here)
        try:
            assert (await client.call("Version", {"version": "v1"}))["runtime_name"] == "slow"
        finally:
            await client.close()
            door.close()
            await server.stop(None)

    asyncio.run(main())
