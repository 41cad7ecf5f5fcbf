"""Counters of connections, as the control process gathers them from the nodes' doors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from kubesvc.instance.proxyreport import PROXY_REPORT, ProxyReport, write_report
from kubesvc.instance.traffic import NodeTraffic
from kubesvc.kernel.conntrack import TUPLE_IP, TUPLE_ORIG, TUPLE_PROTO, TUPLE_REPLY
from kubesvc.kernel.flowevents import decode_key
from kubesvc.kernel.netlink import Malformed, attribute, be16, nested, u8

KEY = (6, "10.96.0.7", 80, "10.244.1.2", 8080)


@contextlib.asynccontextmanager
async def door(path: Path, *lines: bytes) -> AsyncIterator[None]:
    """A node's door that says these lines and then nothing more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"connections\n"
        writer.write(b"".join(lines))
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    path.parent.mkdir(exist_ok=True)
    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield
    finally:
        server.close()


async def gathered(doors: dict[str, Path], total: int | None) -> NodeTraffic:
    """The counters once the first node has told this total, and every other has refused."""
    traffic = NodeTraffic(lambda: doors)
    task = asyncio.create_task(traffic.run())
    for _ in range(6000):
        told = traffic.totals.get("n1", {}).get(KEY) == total
        if told and len(traffic.refused) == len(doors) - (total is not None):
            break
        await asyncio.sleep(0.01)
    seen = {name: dict(counted) for name, counted in traffic.totals.items()}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    traffic.totals = seen
    return traffic


OK = b'{"ok": true}\n'
LINE = b'{"totals": [[6, "10.96.0.7", 80, "10.244.1.2", 8080, 3]], "partial": false}\n'
LATER = b'{"totals": [[6, "10.96.0.7", 80, "10.244.1.2", 8080, 9]], "partial": true}\n'


@pytest.mark.parametrize(
    ("lines", "total", "partial", "trouble"),
    [
        ([OK, LINE], 3, False, ""),
        ([OK, LINE, LATER], 9, True, ""),
        ([b'{"error": "Operation not permitted", "code": 500}\n'], None, True, "Operation not permitted"),
    ],
    ids=["totals", "later totals replace earlier ones", "a node that may not count"],
)
def test_one_node(tmp_path: Path, lines: Sequence[bytes], total: int | None, partial: bool, trouble: str) -> None:
    async def ask() -> NodeTraffic:
        async with door(tmp_path / "n1" / "node.sock", *lines):
            return await gathered({"n1": tmp_path / "n1" / "node.sock"}, total)

    found = asyncio.run(ask())
    assert (found.totals.get("n1", {}).get(KEY), found.partial) == (total, partial)
    assert trouble in found.trouble() and bool(found.trouble()) == bool(trouble)


def test_before_anybody_has_said_anything_there_is_no_trouble() -> None:
    found = NodeTraffic(dict)
    assert found.trouble() == "" and not found.partial


def test_a_node_that_is_gone_makes_numbers_a_least(tmp_path: Path) -> None:
    async def ask() -> NodeTraffic:
        async with door(tmp_path / "n1" / "node.sock", OK, LINE):
            return await gathered({"n1": tmp_path / "n1" / "node.sock", "n2": tmp_path / "n2" / "node.sock"}, 3)

    found = asyncio.run(ask())
    assert found.totals["n1"][KEY] == 3 and found.partial and not found.trouble()


def test_userspace_mode_counts_nothing_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "n1").mkdir()
    write_report(tmp_path / "n1" / PROXY_REPORT, ProxyReport("userspace", "asked for"))
    assert "userspace" in NodeTraffic(lambda: {"n1": tmp_path / "n1" / "node.sock"}).trouble()


# ---------------------------------------------------------------- what the kernel tells


def side(type_: int, source: str, destination: str, source_port: int, port: int) -> bytes:
    def packed(address: str) -> bytes:
        return bytes(map(int, address.split(".")))

    ends = nested(TUPLE_IP, attribute(1, packed(source)), attribute(2, packed(destination)))
    return nested(type_, ends, nested(TUPLE_PROTO, u8(1, 6), be16(2, source_port), be16(3, port)))


HEAD = b"\x02\0\0\0"
FIRST = side(TUPLE_ORIG, "10.244.2.9", "10.96.0.7", 40000, 80)


@pytest.mark.parametrize(
    ("payload", "wanted"),
    [
        (HEAD + FIRST + side(TUPLE_REPLY, "10.244.1.2", "10.244.2.9", 8080, 40000), KEY),
        (HEAD + FIRST + side(TUPLE_REPLY, "10.96.0.7", "10.244.2.9", 80, 40000), None),
    ],
    ids=["translated: counted for the endpoint that answers", "not translated: not counted"],
)
def test_a_connection_is_counted_by_where_it_was_led(payload: bytes, wanted: object) -> None:
    assert decode_key(payload) == wanted


@pytest.mark.parametrize("payload", [b"", HEAD, HEAD + FIRST])
def test_half_a_message_is_no_connection(payload: bytes) -> None:
    with pytest.raises(Malformed):
        decode_key(payload)
