"""Which way packets are steered on this machine: what was asked for, or the best that works here, and why.

`plan_mode` decides; `open_backends` tries what the kernel takes, one way after the other, and opens the one chosen.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kubesvc.clock import Clock, Random
from kubesvc.kernel.conntrack import Conntrack, KernelConntrack
from kubesvc.kernel.iptables import IptablesError, KernelIptables, chain_names, probe
from kubesvc.kernel.nft import DeleteTable, KernelNft, NftError, Transaction
from kubesvc.kernel.nft.table import NFPROTO_IPV4

from .backend import Backends, Mode
from .delta import build
from .flows import plan_limits
from .frame import FrameOptions, frame, set_rank
from .nftbackend import NftBackend, NftBackends
from .settings import AskedMode, ProxySettings
from .traffic import Family

if TYPE_CHECKING:
    from .userspace import Entry, Listing

log = logging.getLogger(__name__)

FAMILIES: tuple[Family, ...] = ("IPv4", "IPv6")
PROBE_TABLE = "kubesvc-probe"
BE_LIBERAL = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal")
ROUTE_LOCALNET = Path("/proc/sys/net/ipv4/conf/all/route_localnet")
PROBE_BUFFER_BYTES = 1 << 20


class ModeUnavailable(Exception):
    """The way that was asked for does not work here; the message says what is missing and what would work."""


@dataclass(frozen=True, slots=True)
class Ability:
    """Whether a way works here, and what was found."""

    able: bool
    said: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The way, and one line that says why."""

    mode: Mode
    why: str

    def __str__(self) -> str:
        return f"proxy mode {self.mode}: {self.why}"


def plan_mode(asked: AskedMode, nftables: Ability, iptables: Ability) -> Choice:
    """What to take. ModeUnavailable if it was asked for and does not work.

    "auto" takes nftables, else iptables, else userspace, which always works.
    """
    match asked:
        case "nftables":
            if not nftables.able:
                raise ModeUnavailable(f"nftables does not work here: {nftables.said}")
            return Choice("nftables", f"it was asked for, and {nftables.said}")
        case "iptables":
            if not iptables.able:
                raise ModeUnavailable(f"iptables does not work here: {iptables.said}")
            return Choice("iptables", f"it was asked for, and {iptables.said}")
        case "userspace":
            return Choice("userspace", "it was asked for")
    if nftables.able:
        return Choice("nftables", nftables.said)
    if iptables.able:
        return Choice("iptables", f"{iptables.said}, and nftables does not work ({nftables.said})")
    return Choice("userspace", f"neither nftables ({nftables.said}) nor iptables ({iptables.said}) works here")


def try_nftables() -> Ability:
    """Whether the kernel takes our rules: they are written and removed in one transaction, so no packet sees them."""
    try:
        nft = KernelNft(buffer_bytes=PROBE_BUFFER_BYTES)
    except (OSError, NftError) as error:
        return Ability(False, _reason(error))
    try:
        written = build(frame(FrameOptions("IPv4", PROBE_TABLE)), set_rank)
        commands = tuple(command for transaction in written for command in transaction.commands)
        nft.run_now(Transaction(NFPROTO_IPV4, PROBE_TABLE, (*commands, DeleteTable())))
    except (OSError, NftError) as error:
        return Ability(False, _reason(error))
    finally:
        nft.close()
    return Ability(True, "the kernel takes our rules")


async def try_iptables(door: KernelIptables) -> Ability:
    """Whether iptables has all the matches and targets that our rules are made of."""
    found = await probe(door)
    return Ability(found.enough, found.sentence())


def _reason(error: OSError | NftError) -> str:
    if error.errno in (1, 13):
        return "no right to change the rules of this network namespace"
    if error.errno == errno.EAFNOSUPPORT:
        return "only Linux has it"
    return f"the kernel refused: {error}"


@dataclass(slots=True)
class Opened:
    """The backends of the chosen way, and the doors they came with."""

    choice: Choice
    backends: Backends
    conntrack: Conntrack | None
    listing: Listing | None = None

    def close(self) -> None:
        """End the use of all doors and sockets; rules stay. Once the proxy has ended."""
        self.backends.close()
        if isinstance(self.conntrack, KernelConntrack):
            self.conntrack.close()


async def open_backends(
    settings: ProxySettings,
    clock: Clock,
    random: Random,
    *,
    listing: Path | None = None,
    listed: Callable[[list[Entry]], None] = lambda _: None,
) -> Opened:
    """Choose by `settings.mode`, and open. ModeUnavailable if what was asked for does not work.

    listing, listed: where userspace writes which loopback port stands for what, and who is told of it
    """
    asked = settings.mode
    untried = Ability(False, "not tried")
    nftables = try_nftables() if asked in ("auto", "nftables") else untried
    door = KernelIptables()
    wanted = asked == "iptables" or (asked == "auto" and not nftables.able)
    choice = plan_mode(asked, nftables, await try_iptables(door) if wanted else untried)
    if choice.mode != "userspace" and settings.connection_limits:
        set_limits(os.cpu_count() or 1)
    match choice.mode:
        case "nftables":
            return Opened(choice, NftBackends(KernelNft(), settings.table), KernelConntrack())
        case "iptables":
            from .iptablesbackend import IptablesBackends  # each way loads only its own

            loopback = settings.loopback_node_ports and route_localnet()
            backends = IptablesBackends(door, loopback_ports=loopback, drop_invalid=not liberal())
            return Opened(choice, backends, KernelConntrack())
    from .userspace import Listing, UserspaceBackends

    raise_file_limit()
    kept = Listing(listing, listed)
    return Opened(choice, UserspaceBackends(clock, random, kept), None, kept)


def raise_file_limit() -> None:
    """As many sockets as we may have: every front takes one, and every connection two."""
    try:
        import resource  # other systems have no such thing
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.info("no more than %d sockets: %s", soft, error)


def set_limits(cores: int, root: Path = Path("/proc/sys")) -> None:
    """Make room for connections (PROXY-80). What may not be set here, as in a container, stays as it is."""
    for name, value in plan_limits(cores):
        try:
            if int((root / name).read_text()) != value:
                (root / name).write_text(str(value))
        except (OSError, ValueError) as error:
            log.info("%s is not set to %d: %s", name, value, error)


def liberal() -> bool:
    """Whether the kernel takes packets out of a connection's window for what they are (PROXY-79)."""
    try:
        return BE_LIBERAL.read_text().strip() not in ("", "0")
    except OSError:
        return False


def route_localnet() -> bool:
    """Let packets from 127.0.0.1 leave for endpoints, for node ports at loopback (PROXY-70). False if that may not be
    set; then there are none."""
    try:
        if ROUTE_LOCALNET.read_text().strip() != "1":
            ROUTE_LOCALNET.write_text("1")
    except OSError as error:
        log.warning("no node ports at 127.0.0.1: %s: %s", ROUTE_LOCALNET, error.strerror)
        return False
    return True


async def remove_leftovers(mode: Mode, applied: list[asyncio.Event], settings: ProxySettings) -> None:
    """Once our rules are in force, remove those that we wrote in another mode before (PROXY-121)."""
    for event in applied:
        await event.wait()
    for family in FAMILIES:
        for other, remove in (("nftables", remove_table), ("iptables", remove_chains)):
            if mode != other:
                try:
                    await remove(family, settings)
                except (NftError, IptablesError, OSError) as error:
                    log.debug("no %s leftovers of %s: %s", other, family, error)


async def remove_ours(settings: ProxySettings) -> list[str]:
    """Remove everything that any mode has written here; what that was, in words (PROXY-121). NftError, IptablesError or
    OSError if it cannot be removed; that iptables is not there is none, since nothing of ours is then either."""
    found = [what for family in FAMILIES if (what := await remove_table(family, settings))]
    for family in FAMILIES:
        try:
            what = await remove_chains(family, settings)
        except IptablesError as error:
            if shutil.which("iptables"):
                raise
            log.info("%s", error)
            break
        found += [what] if what else []
    return found


async def remove_table(family: Family, settings: ProxySettings) -> str:
    """Remove our table of nftables; its name, "" if there was none."""
    nft = KernelNft(buffer_bytes=PROBE_BUFFER_BYTES)
    try:
        backend = NftBackend(family, nft, settings.table)
        there = await nft.read(backend.nfproto, settings.table, elements=False) is not None
        await backend.clean_up()
    finally:
        nft.close()
    return f"table {'ip6' if family == 'IPv6' else 'ip'} {settings.table}" if there else ""


async def remove_chains(family: Family, _: ProxySettings) -> str:
    """Remove our chains of iptables; a word for them, "" if there were none."""
    from .iptables import MARKER
    from .iptablesbackend import IptablesBackends

    door = KernelIptables()
    if all(chain != MARKER for _, chain in chain_names(await door.save(family))):  # of any table: it may be half gone
        return ""
    await IptablesBackends(door)(family).clean_up()
    return f"the chains of ip{'6' if family == 'IPv6' else ''}tables"


def families_here(proc: Path = Path("/proc")) -> tuple[Family, ...]:
    """The address families that this network namespace has, whatever Services there are (PROXY-126)."""
    try:
        off = (proc / "sys/net/ipv6/conf/all/disable_ipv6").read_text().strip() == "1"
    except OSError:
        off = proc.exists() and not (proc / "net/if_inet6").exists()  # without /proc nothing speaks against it
    return ("IPv4",) if off else FAMILIES
