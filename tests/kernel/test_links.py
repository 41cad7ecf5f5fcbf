"""Interfaces, addresses and routes: one suite for the fake and, in a namespace of its own, for the kernel."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Awaitable, Callable

import pytest

from kubesvc.kernel.links import FakeLinks, Links, NetlinkLinks, Route, check_name, parse_address, parse_destination
from kubesvc.kernel.namespaces import Namespaces
from kubesvc.kernel.process import Spawn, Spawner

Scene = Callable[[Links, Links, int], None]
"""Played with the links of two namespaces and a number that names the second."""


def pairs(near: Links, far: Links, there: int) -> None:
    near.add_veth("v0", "eth0", peer_namespace=there, mtu=1400, mac="ee:ee:ee:ee:ee:ee", peer_mac="02:00:00:00:00:07")
    first, second = near.link("v0"), far.link("eth0")
    assert first is not None and second is not None
    assert (first.kind, first.mac, first.mtu, first.up) == ("veth", "ee:ee:ee:ee:ee:ee", 1400, False)
    assert (second.mac, second.mtu) == ("02:00:00:00:00:07", 1400)
    with pytest.raises(OSError) as caught:
        near.add_veth("v0", "other")
    assert caught.value.errno == errno.EEXIST
    assert near.delete_link("v0") and not near.delete_link("v0")
    assert far.link("eth0") is None


def bridges(near: Links, far: Links, there: int) -> None:
    near.add_bridge("br0", mac="ee:ee:ee:ee:ee:0e")
    near.add_veth("v0", "v1", mac="02:00:00:00:00:01")
    near.set_master("v0", "br0")
    near.set_up("br0")
    bridge, port = near.link("br0"), near.link("v0")
    assert bridge is not None and port is not None
    assert port.master == bridge.index and bridge.up
    assert bridge.mac == "ee:ee:ee:ee:ee:0e", "its own, though the port's is lower"
    with pytest.raises(OSError) as caught:
        near.set_up("none")
    assert caught.value.errno == errno.ENODEV
    near.move("v1", there)
    assert near.link("v1") is None and far.link("v1") is not None
    near.set_mtu("v0", 1300)
    assert {link.name: link.mtu for link in near.links()}["v0"] == 1300


def addresses(near: Links, far: Links, there: int) -> None:
    near.add_veth("v0", "v1")
    for address in ("10.0.0.1/24", "fd00::1/64", "10.0.0.1/24"):
        near.add_address("v0", address)
    assert [a for a in near.addresses("v0") if not a.startswith("fe80")] == ["10.0.0.1/24", "fd00::1/64"]
    assert near.delete_address("v0", "10.0.0.1/24") and not near.delete_address("v0", "10.0.0.1/24")
    assert near.addresses("lo") == []


def routes(near: Links, far: Links, there: int) -> None:
    near.add_veth("v0", "eth0", peer_namespace=there)
    near.set_up("v0")
    far.set_up("eth0")
    host = Route("10.244.1.7/32", device="v0")
    near.replace_route(host)
    near.replace_route(host)
    assert near.routes() == [host]
    far.add_address("eth0", "10.244.1.7/32")
    far.replace_route(Route("169.254.1.1/32", device="eth0"))
    far.replace_route(Route("default", gateway="169.254.1.1", device="eth0", onlink=True))
    far.replace_neighbour("eth0", "169.254.1.1", "ee:ee:ee:ee:ee:ee")
    assert [r.destination for r in far.routes()] == ["169.254.1.1/32", "default"]
    near.replace_route(Route("fd00::7/128", device="v0"))
    assert Route("fd00::7/128", device="v0") in near.routes(socket.AF_INET6)
    assert near.delete_route(host) and not near.delete_route(host)
    with pytest.raises(OSError) as caught:
        near.replace_route(Route("10.0.0.0/8", device="none"))
    assert caught.value.errno == errno.ENODEV
    near.replace_route(host)
    near.delete_link("v0")
    assert near.routes() == [] and not near.delete_route(host)


def down(near: Links, far: Links, there: int) -> None:
    near.add_veth("v0", "v1")
    with pytest.raises(OSError) as caught:
        near.replace_route(Route("10.0.0.0/8", device="v0"))
    assert caught.value.errno == errno.ENETDOWN


SCENES: tuple[Scene, ...] = (pairs, bridges, addresses, routes, down)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_fake(scene: Scene) -> None:
    worlds: dict[int, FakeLinks] = {}
    worlds[1] = far = FakeLinks(worlds)
    scene(FakeLinks(worlds), far, 1)


async def in_namespaces(play: Callable[[Spawner, int, int], Awaitable[None]]) -> None:
    """Two sleeping processes with network namespaces of their own, ended afterwards."""
    spawner = Spawner()
    sleepers = [await spawner.spawn(Spawn(argv=("sleep", "60"), env=dict(os.environ), new=("net",))) for _ in range(2)]
    try:
        await play(spawner, sleepers[0].pid, sleepers[1].pid)
    finally:
        for sleeper in sleepers:
            sleeper.signal(signal.SIGKILL)
            assert await sleeper.wait() == -signal.SIGKILL
        spawner.close()


@pytest.mark.e2e
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_kernel(scene: Scene) -> None:
    async def play(spawner: Spawner, one: int, two: int) -> None:
        near = await spawner.call(NetlinkLinks, inside=one, kinds=("net",))
        far = await spawner.call(NetlinkLinks, inside=two, kinds=("net",))
        with Namespaces.of(two, ("net",)) as namespaces:
            scene(near, far, namespaces.fds["net"])
        near.close()
        far.close()

    asyncio.run(in_namespaces(play))


@pytest.mark.parametrize("name", ["", "sixteen-bytes-xx", "a/b", ".", ".."])
def test_names(name: str) -> None:
    with pytest.raises(ValueError, match="interface name"):
        check_name(name)


def test_texts() -> None:
    assert parse_destination("default") == (socket.AF_INET, b"", 0)
    assert parse_destination("10.0.0.0/8") == (socket.AF_INET, b"\x0a\0\0\0", 8)
    assert parse_address("10.0.0.1/24") == (socket.AF_INET, b"\x0a\0\0\x01", 24)
    assert parse_address("fd00::1")[2] == 128
    with pytest.raises(ValueError, match="host bits"):
        parse_destination("10.0.0.1/8")
