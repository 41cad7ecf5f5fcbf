"""The control process's door: one order, one answer, whatever is sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kubesvc.instance.control import Answer, ControlFailed, Order, carry_out, give_order, serve_orders


class Refused(Exception):
    pass


async def obey(name: str) -> str:
    if name == "n9":
        raise Refused("there is no node 'n9'")
    return f"{name} done"


DEEDS = {"node.stop": obey}


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b'{"do":"node.stop","name":"n1"}', Answer(said="n1 done")),
        (b'{"do":"node.stop","name":"n9"}', Answer(error="there is no node 'n9'")),
        (b'{"do":"fly"}', Answer(error="this instance cannot 'fly'; it can node.stop")),
    ],
)
def test_an_order_is_answered(line: bytes, answer: Answer) -> None:
    assert asyncio.run(carry_out(line, DEEDS, (Refused,))) == answer


@pytest.mark.parametrize("line", [b"", b"{}", b"nonsense", b"\xff", b"[]", b'{"do":1}'])
def test_what_is_no_order_is_refused(line: bytes) -> None:
    answer = asyncio.run(carry_out(line, DEEDS, (Refused,)))
    assert answer.error.startswith("an order is one line of JSON") and not answer.said


def test_over_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def scenario() -> None:
        serving = asyncio.create_task(serve_orders(path, DEEDS, (Refused,)))
        while not path.exists():
            await asyncio.sleep(0.005)
        assert path.stat().st_mode & 0o777 == 0o600
        assert await asyncio.to_thread(give_order, path, Order("node.stop", "n1")) == "n1 done"
        with pytest.raises(ControlFailed, match="no node 'n9'"):
            await asyncio.to_thread(give_order, path, Order("node.stop", "n9"))
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"x" * 9000)
        assert b"at most 4096 bytes" in await reader.read()
        writer.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        assert not path.exists()

    asyncio.run(scenario())
    with pytest.raises(ControlFailed, match="does not answer"):
        give_order(path, Order("node.stop", "n1"))
