"""What the real kernel refuses, by each backend: nothing half-applied, the culprit named, everybody else served; and a
ruleset that somebody flushed."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator

import msgspec
import pytest

from kubesvc.kernel.iptables import KernelIptables, probe
from kubesvc.kernel.nft import KernelNft, static_part
from kubesvc.proxy.backend import Backend, Plans, Refused, Standpoint
from kubesvc.proxy.iptablesbackend import IptablesBackend
from kubesvc.proxy.isolation import Isolation
from kubesvc.proxy.nftbackend import NftBackend
from kubesvc.proxy.traffic import PortTraffic, ServicePortName, Target

from .lab import Lab
from .objects import ADDRESSES, BALANCERS, HERE, OUTSIDE, A, B, vip
from .packets import M
from .test_kernel import ask
from .test_packets import options

pytestmark = pytest.mark.e2e


class Place:
    """A backend in the lab's node."""

    def __init__(self, lab: Lab, mode: str) -> None:
        self.lab = lab
        self.prefix = ("ip", "netns", "exec", f"{lab.prefix}{HERE}")
        self.nft = lab.inside(HERE, KernelNft)
        self.backend: Backend
        if mode == "nftables":
            self.backend = NftBackend("IPv4", self.nft, "kubesvc")
        else:
            door = KernelIptables(self.prefix)
            found = asyncio.run(probe(door))
            if not found.enough:
                pytest.skip(found.sentence())
            self.backend = IptablesBackend("IPv4", door, loopback_ports=False)
        self.backend.stand(Standpoint(options("IPv4"), ()))

    def ask(self, number: int, *, seconds: float = 10.0) -> str:
        return ask(self.lab, OUTSIDE, "IPv4", vip("IPv4", number), 80, seconds=seconds).removesuffix(M)

    def run(self, *words: str) -> str:
        return subprocess.run([*self.prefix, *words], check=True, capture_output=True, text=True).stdout

    def state(self) -> object:
        """All of ours in the kernel."""
        if isinstance(self.backend, NftBackend):
            table = asyncio.run(self.nft.read(2, "kubesvc"))
            return table and static_part(table)
        return [line.partition(" [")[0] for line in self.run("iptables-save").splitlines() if line[:1] != "#"]


@pytest.fixture(params=["nftables", "iptables"])
def place(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(lab, request.param)
    yield made
    asyncio.run(made.backend.clean_up())
    made.nft.close()


def plans(who: str, *bad: int) -> Plans:
    """Twenty Services; those that are bad have what no kernel takes: ranges that overlap, or a target that is none."""
    found: Plans = {}
    for number in range(1, 21):
        name = ServicePortName("shop", f"s{number:02}", "http", "TCP")
        targets = (Target(ADDRESSES["IPv4"][who], 8080),)
        port = PortTraffic(name, 80, vip("IPv4", number), cluster=targets, usable=True)
        if number in bad:
            port = msgspec.structs.replace(
                port,
                load_balancer_ips=(BALANCERS["IPv4"],),
                port=80 + number,
                source_ranges=("10.0.0.0/8", "10.1.0.0/16"),
                cluster=(*targets, Target("10.244.1.300", 80)) if number % 2 else targets,
            )
        found["shop", name.name] = (port,)
    return found


def test_the_culprits_are_found(place: Place) -> None:
    isolation = Isolation(place.backend)
    bad = (4, 12) if place.backend.mode == "nftables" else (5, 13)
    asyncio.run(isolation.load(plans(A, *bad)))
    assert [key[1] for key in sorted(isolation.refused)] == [f"s{n:02}" for n in bad]
    answered = {n for n in range(1, 21) if place.ask(n, seconds=0.3 if n in bad else 10.0) == A}
    assert answered == {n for n in range(1, 21) if n not in bad}
    asyncio.run(isolation.change(plans(B)))
    assert isolation.refused == {} and {place.ask(n) for n in range(1, 21)} == {B}
    before = place.state()
    asyncio.run(isolation.change({key: plans(A, *bad)[key] for key in [("shop", f"s{n:02}") for n in bad]}))
    assert len(isolation.refused) == 2 and place.state() == before, "former rules stay whole"
    assert {place.ask(n) for n in (*bad, 1)} == {B}


def test_what_was_refused_left_nothing(place: Place) -> None:
    """One Service in one write: the kernel is as before."""
    asyncio.run(place.backend.load(plans(A)))
    before = place.state()
    bad = 4 if place.backend.mode == "nftables" else 5
    with pytest.raises(Refused):
        asyncio.run(place.backend.change({("shop", f"s{bad:02}"): plans(A, bad)["shop", f"s{bad:02}"]}))
    asyncio.run(place.backend.load({("shop", f"s{bad:02}"): plans(A)["shop", f"s{bad:02}"]}))
    assert place.state() == before


def test_somebody_flushes_the_ruleset(place: Place) -> None:
    asyncio.run(place.backend.load(plans(A)))
    before = place.state()
    assert not asyncio.run(place.backend.audit())
    place.run("nft", "flush", "ruleset")
    assert asyncio.run(place.backend.audit())
    assert place.state() == before and place.ask(3) == A
    assert not asyncio.run(place.backend.audit())
