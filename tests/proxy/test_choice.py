"""Which way packets are steered, and why."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import socket
from pathlib import Path

import pytest

from kubesvc.clock import RealClock
from kubesvc.kernel.conntrack import FakeConntrack
from kubesvc.kernel.iptables import Abilities, FakeIptables, KernelIptables
from kubesvc.kernel.nft import FakeNft, KernelNft
from kubesvc.proxy.backend import Standpoint
from kubesvc.proxy.choice import (
    Ability,
    Choice,
    ModeUnavailable,
    Opened,
    families_here,
    open_backends,
    plan_mode,
    remove_leftovers,
    remove_ours,
    set_limits,
)
from kubesvc.proxy.flows import plan_limits
from kubesvc.proxy.iptables import MARKER
from kubesvc.proxy.iptablesbackend import IptablesBackend
from kubesvc.proxy.nftbackend import NftBackends
from kubesvc.proxy.settings import AskedMode, ProxySettings
from kubesvc.proxy.takeover import find_foreign

from .lab import Lab
from .objects import HERE, A, ready
from .packets import Case, plain, planned, web
from .test_packets import options

YES, NO = Ability(True, "it works"), Ability(False, "nothing there")


@pytest.mark.parametrize(
    ("asked", "nftables", "iptables", "wanted"),
    [
        ("auto", YES, YES, "proxy mode nftables: it works"),
        ("auto", NO, YES, "proxy mode iptables: it works, and nftables does not work (nothing there)"),
        (
            "auto",
            NO,
            NO,
            "proxy mode userspace: neither nftables (nothing there) nor iptables (nothing there) works here",
        ),
        ("nftables", YES, NO, "proxy mode nftables: it was asked for, and it works"),
        ("iptables", NO, YES, "proxy mode iptables: it was asked for, and it works"),
        ("userspace", YES, YES, "proxy mode userspace: it was asked for"),
    ],
)
def test_choice(asked: AskedMode, nftables: Ability, iptables: Ability, wanted: str) -> None:
    assert str(plan_mode(asked, nftables, iptables)) == wanted


@pytest.mark.parametrize("asked", ["nftables", "iptables"])
def test_what_was_asked_for_and_does_not_work_is_said(asked: AskedMode) -> None:
    """PROXY-100: what the kernel takes is found by trying, not by its version, and nothing can switch that off."""
    with pytest.raises(ModeUnavailable, match=f"{asked} does not work here: nothing there"):
        plan_mode(asked, NO, NO)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (Abilities(why="iptables: No such file or directory"), "cannot be run: iptables: No such file"),
        (Abilities("legacy", "iptables v1 (legacy)", ("recent",), "no recent"), "cannot do recent here: no recent"),
        (Abilities("legacy", "iptables v1 (legacy)", forbidden=True), "no right to change"),
        (Abilities("nf_tables", "iptables v1 (nf_tables)"), "can do all that the rules need"),
    ],
)
def test_what_is_missing_is_said_in_plain_words(found: Abilities, wanted: str) -> None:
    assert wanted in found.sentence() and found.enough == ("can do all" in wanted)


@pytest.mark.parametrize(("cores", "wanted"), [(1, 131_072), (4, 131_072), (8, 262_144), (64, 1_048_576)])
def test_room_for_connections(cores: int, wanted: int) -> None:
    """PROXY-80."""
    assert dict(plan_limits(cores))["net/netfilter/nf_conntrack_max"] == wanted


def test_limits_are_written_where_they_may_be(tmp_path: Path) -> None:
    """PROXY-80: what is not there is no reason to fail."""
    place = tmp_path / "net/netfilter"
    place.mkdir(parents=True)
    (place / "nf_conntrack_max").write_text("65536\n")
    (place / "nf_conntrack_tcp_timeout_established").write_text("432000\n")
    set_limits(8, tmp_path)
    assert (place / "nf_conntrack_max").read_text() == "262144"
    assert (place / "nf_conntrack_tcp_timeout_established").read_text() == "86400"


def test_our_own_chains_are_no_strangers() -> None:
    """Chains named as kube-proxy's carry our mark, so that a restart is no take-over."""

    async def main() -> None:
        fake = FakeIptables()
        backend = IptablesBackend("IPv4", fake)
        backend.stand(Standpoint(options("IPv4"), None))
        await backend.change(planned(Case("", plain(ready(A)), A, web, 80, frozenset()), "IPv4"))
        assert await find_foreign(None, fake) == []
        await fake.restore(
            "IPv4", "".join(f"*{t}\n:{MARKER} - [0:0]\n-X {MARKER}\nCOMMIT\n" for t in ("nat", "filter", "mangle"))
        )
        assert [f.family for f in await find_foreign(None, fake)] == ["IPv4"]

    asyncio.run(main())


def test_another_operating_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without netlink and without iptables, as on a Mac: sockets, and a line that says why."""
    monkeypatch.delattr(socket, "AF_NETLINK")
    monkeypatch.setenv("PATH", str(tmp_path))
    settings = ProxySettings()

    async def main() -> str:
        opened = await open_backends(settings, RealClock(), random.Random(1))
        opened.close()
        ready = asyncio.Event()
        ready.set()
        await remove_leftovers("userspace", [ready], settings)  # there are none, and looking is no error
        return str(opened.choice)

    said = asyncio.run(main())
    assert said.startswith("proxy mode userspace: neither nftables (only Linux has it) nor iptables (")


def test_closing_ends_every_door() -> None:
    """Rules stay: nothing is written."""
    nft = FakeNft()
    Opened(Choice("nftables", "it works"), NftBackends(nft), FakeConntrack()).close()
    assert nft.closed and not nft.log


def test_closing_gives_up_the_ports_of_userspace(tmp_path: Path) -> None:
    """And not the list of them, from which the next process takes the same."""

    async def main() -> None:
        listing = tmp_path / "ports.json"
        settings = ProxySettings(mode="userspace", families=("IPv4",))
        opened = await open_backends(settings, RealClock(), random.Random(1), listing=listing)
        backend = opened.backends("IPv4")
        backend.stand(Standpoint(options("IPv4"), ()))
        await backend.load(planned(Case("", plain(ready(A)), A, web, 80, frozenset()), "IPv4"))
        before = listing.read_bytes()
        address, _, port = json.loads(before)["fronts"][0]["at"].rpartition(":")
        socket.create_connection((address, int(port)), timeout=5).close()
        opened.close()
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, int(port)), timeout=5)
        assert listing.read_bytes() == before

    asyncio.run(main())


@pytest.mark.e2e
def test_doors_to_the_kernel_are_closed(lab: Lab) -> None:
    async def main() -> None:
        gc.collect()  # what earlier tests left is not closed meanwhile
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(3):
            (
                await open_backends(ProxySettings(mode="nftables", families=("IPv4",)), RealClock(), random.Random(1))
            ).close()
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    lab.inside(HERE, lambda: asyncio.run(main()))


@pytest.mark.e2e
def test_in_a_namespace(lab: Lab) -> None:
    """What works is found, looking leaves nothing, and another mode's rules go once ours are in force (PROXY-121)."""
    settings = ProxySettings(families=("IPv4",), loopback_node_ports=False)
    plans = planned(Case("", plain(ready(A)), A, web, 80, frozenset()), "IPv4")

    async def main() -> list[tuple[str, bool, bool]]:
        found = []
        clock, chance, door = RealClock(), random.Random(), KernelIptables()
        applied = asyncio.Event()
        applied.set()

        async def state(what: str) -> None:
            nft = KernelNft()
            found.append((what, MARKER in await door.save("IPv4"), await nft.read(2, "kubesvc") is not None))
            nft.close()

        opened = await open_backends(settings, clock, chance)
        assert opened.choice.mode == "nftables" and isinstance(opened.backends, NftBackends)
        await state("looked")
        for mode in ("iptables", "nftables", "iptables"):
            asked: AskedMode = "iptables" if mode == "iptables" else "nftables"
            opened = await open_backends(ProxySettings(mode=asked, loopback_node_ports=False), clock, chance)
            backend = opened.backends("IPv4")
            backend.stand(Standpoint(options("IPv4"), ()))
            await backend.change(plans)
            await remove_leftovers(backend.mode, [applied], settings)
            await state(mode)
            opened.close()
        await remove_leftovers("userspace", [applied], settings)
        await state("userspace")
        for backend in (opened.backends("IPv4"), (await open_backends(settings, clock, chance)).backends("IPv4")):
            backend.stand(Standpoint(options("IPv4"), ()))
            await backend.load(plans)
        await state("both")
        assert await remove_ours(settings) == ["table ip kubesvc", "the chains of iptables"]
        assert await remove_ours(settings) == [], "nothing being there is no error"
        await state("removed")
        return found

    assert lab.inside(HERE, lambda: asyncio.run(main())) == [
        ("looked", False, False),
        ("iptables", True, False),
        ("nftables", False, True),
        ("iptables", True, False),
        ("userspace", False, False),
        ("both", True, True),
        ("removed", False, False),
    ]


def test_families_are_those_of_the_kernel(tmp_path: Path) -> None:
    """PROXY-126: whatever Services there are; a kernel without IPv6, or with it switched off, leaves one."""
    (tmp_path / "net").mkdir()
    assert families_here(tmp_path) == ("IPv4",)
    (tmp_path / "net/if_inet6").write_text("")
    assert families_here(tmp_path) == ("IPv4", "IPv6")
    switch = tmp_path / "sys/net/ipv6/conf/all/disable_ipv6"
    switch.parent.mkdir(parents=True)
    for said, families in (("0\n", ("IPv4", "IPv6")), ("1\n", ("IPv4",))):
        switch.write_text(said)
        assert families_here(tmp_path) == families
    assert families_here(tmp_path / "nothing") == ("IPv4", "IPv6"), "where nothing can be known"
