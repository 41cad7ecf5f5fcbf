"""The network between the nodes, in namespaces of its own: the router, and where it sends load balancers' traffic."""

from __future__ import annotations

import asyncio
import ipaddress
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from kubesvc.instance import ground
from kubesvc.instance.record import ProcessId, end_processes
from kubesvc.instance.wiring import BRIDGE, FABRIC_ADDRESS, Balanced, Host, Wiring, mac_of, router_addresses
from kubesvc.kernel.links import Links, NetlinkLinks
from kubesvc.kernel.namespaces import nsexec_command
from kubesvc.kernel.process import Spawner

pytestmark = pytest.mark.e2e

T = TypeVar("T")


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[ProcessId]:
    if not ground.is_root():
        pytest.skip("looks into another network namespace, which takes root")
    made = ground.spawn_fabric(tmp_path)
    yield made
    assert end_processes([made]) == []


def there(fabric: ProcessId, look: Callable[[Links], T]) -> T:
    """Look at (or change) the links of the fabric."""

    async def play() -> T:
        spawner = Spawner()
        try:
            links = await spawner.call(NetlinkLinks, inside=fabric.pid, kinds=("net",))
        finally:
            spawner.close()
        try:
            return look(links)
        finally:
            links.close()

    return asyncio.run(play())


def hops(fabric: ProcessId, address: str) -> list[str]:
    """The routers of an address of IPv6, as the kernel lists them."""
    wanted = ipaddress.IPv6Address(address).packed.hex()
    lines = [line.split() for line in Path(f"/proc/{fabric.pid}/net/ipv6_route").read_text().splitlines()]
    found = [line[4] for line in lines if line[:2] == [wanted, "80"] and line[-1] == BRIDGE]
    return sorted(str(ipaddress.IPv6Address(bytes.fromhex(hop))) for hop in found)


def test_the_router_of_both_families(fabric: ProcessId, tmp_path: Path) -> None:
    """PROXY-126: it has an address of each, keeps its hardware address though a lower one comes to its bridge (whoever
    remembers it went on asking the old one, for seconds), and an address goes to as many nodes as there are now."""
    ground.wire(tmp_path, fabric, Wiring(bridge=router_addresses(six=True)))

    def low_comes(links: Links) -> None:
        links.add_veth("low", "far", mac="02:00:00:00:00:01")
        links.set_master("low", BRIDGE)

    own = there(fabric, lambda links: links.addresses(BRIDGE))
    assert [a for a in own if not a.startswith("fe80")] == ["172.30.0.254/24", "fd00:172:30::254/64"]
    there(fabric, low_comes)
    bridge = there(fabric, lambda links: links.link(BRIDGE))
    assert bridge is not None and bridge.mac == mac_of(FABRIC_ADDRESS)

    one, two = "fd00:172:30::11", "fd00:172:30::12"
    for nodes in ((one,), (one, two), (two,), ()):
        ground.wire(tmp_path, fabric, Wiring(balance=(Balanced("fd00:172:31::1", nodes),)))
        assert hops(fabric, "fd00:172:31::1") == list(nodes)


def test_a_node_started_anew_has_the_hardware_address_that_others_remember(fabric: ProcessId, tmp_path: Path) -> None:
    """Else they go on asking the old one, for seconds."""
    ground.wire(tmp_path, fabric, Wiring(bridge=router_addresses(six=False)))
    seen = []
    for _ in range(2):
        node = ground.spawn_host(tmp_path, fabric, "n1")
        try:
            ground.wire(tmp_path, fabric, Wiring(connect=(Host(node.pid, "n1", ("172.30.0.11/24",)),)))
            seen.append(there(node, lambda links: links.link("eth0")))
            ground.wire(tmp_path, fabric, Wiring(disconnect=("n1",)))
        finally:
            assert end_processes([node]) == []
    assert [link and link.mac for link in seen] == [mac_of("172.30.0.11")] * 2


def test_a_kernel_without_ipv6_is_told_of_and_does_for_ipv4(fabric: ProcessId, tmp_path: Path) -> None:
    off = ("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
    subprocess.run(nsexec_command("--net", str(fabric.pid), program=off), check=True)
    ground.wire(tmp_path, fabric, Wiring(bridge=router_addresses(six=False)))
    there(fabric, lambda links: links.delete_link(BRIDGE))
    with pytest.raises(ground.GroundFailed, match=r"IPv6 is off in this kernel .* leave IPv6 out of --cluster-cidr"):
        ground.wire(tmp_path, fabric, Wiring(bridge=router_addresses(six=True)))
