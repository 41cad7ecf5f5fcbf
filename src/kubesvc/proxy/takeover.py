"""kube-proxy's rules beside ours: finding them, and removing them when that is asked for. `plan_removal` is pure.

Two proxies at one hook cannot both rule: whichever translates first wins, connection by connection. So ours does not
start where kube-proxy's rules are, unless told to take over; then its own rules come first and kube-proxy's go after.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kubesvc.kernel.iptables import Iptables, IptablesError
from kubesvc.kernel.iptables.rules import Family
from kubesvc.kernel.iptables.tables import Tables, chain_names, parse_save
from kubesvc.kernel.nft import DeleteTable, Nft, NoSuchObject, Table, Transaction
from kubesvc.kernel.nft.table import NFPROTO_IPV4, NFPROTO_IPV6

from .audit import KUBE_PROXY_CHAIN, KUBE_PROXY_TABLE, is_proxy_chain
from .iptables import MARKER

FAMILIES: tuple[Family, ...] = ("IPv4", "IPv6")
NFPROTO = {"IPv4": NFPROTO_IPV4, "IPv6": NFPROTO_IPV6}
WORDS = {"IPv4": "ip", "IPv6": "ip6"}


@dataclass(frozen=True, slots=True)
class Foreign:
    """kube-proxy's rules of one family: an nftables table, or iptables chains (and the text they were read from)."""

    family: Family
    table: Table | None = None
    chains: Tables | None = None
    saved: str = ""

    def __str__(self) -> str:
        if self.table is not None:
            return f"nftables table `{WORDS[self.family]} {KUBE_PROXY_TABLE}`"
        return f"iptables chain KUBE-SERVICES ({self.family})"


async def find_foreign(nft: Nft | None, iptables: Iptables | None) -> list[Foreign]:
    """What kube-proxy has written here. nft, iptables: None where the kernel has no such thing or its programs are not
    there; then nothing of it is seen. Chains of kube-proxy's names that we wrote ourselves carry our mark."""
    found = []
    for family in FAMILIES:
        table = await nft.read(NFPROTO[family], KUBE_PROXY_TABLE, anonymous=True) if nft else None
        if table is not None:
            found.append(Foreign(family, table=table))
        if iptables is None:
            continue
        try:
            saved = await iptables.save(family)
        except IptablesError:
            continue  # this family has no iptables here
        names = {chain for _, chain in chain_names(saved)}
        if "KUBE-SERVICES" in names and MARKER not in names:
            found.append(Foreign(family, chains=parse_save(saved, family, only=is_proxy_chain), saved=saved))
    return found


def plan_removal(saved: str) -> str:
    """The text for `iptables-restore --noflush` that removes kube-proxy's chains, and every rule of the built-in chains
    that jumps to one, from what `iptables-save` printed. "" if there is nothing to remove; other rules stay."""
    text = []
    for table, chains, rules in _tables(saved):
        theirs = [c for c in chains if KUBE_PROXY_CHAIN.fullmatch(c)]
        if not theirs:
            continue
        jumps = [
            f"-D {rule[3:]}"
            for rule in rules
            if not KUBE_PROXY_CHAIN.fullmatch(rule.split()[1]) and _target(rule) in theirs
        ]
        text += [f"*{table}", *(f":{c} - [0:0]" for c in theirs), *jumps, *(f"-X {c}" for c in theirs), "COMMIT"]
    return "".join(f"{line}\n" for line in text)


def _tables(saved: str) -> Iterable[tuple[str, list[str], list[str]]]:
    """Name, chains and rules of each table that was saved."""
    name, chains, rules = "", list[str](), list[str]()
    for line in saved.splitlines():
        if line.startswith("*"):
            name, chains, rules = line[1:].strip(), [], []
        elif line.startswith(":"):
            chains.append(line[1:].split()[0])
        elif line.startswith("-A "):
            rules.append(line)
        elif line.startswith("COMMIT"):
            yield name, chains, rules


def _target(rule: str) -> str:
    """Where a rule jumps to, "" if nowhere."""
    words = rule.split()
    for flag in ("-j", "-g"):
        if flag in words[:-1]:
            return words[len(words) - 1 - words[::-1].index(flag) + 1]
    return ""


async def remove(found: Iterable[Foreign], nft: Nft, iptables: Iptables | None) -> None:
    """Remove them. What has gone meanwhile is no error. NftError or IptablesError if the kernel refuses."""
    for foreign in found:
        if foreign.table is not None:
            transaction = Transaction(NFPROTO[foreign.family], KUBE_PROXY_TABLE, (DeleteTable(),))
            try:
                await nft.run(transaction)
            except NoSuchObject:
                pass
        elif iptables is not None:
            text = plan_removal(await iptables.save(foreign.family))
            if text:
                await iptables.restore(foreign.family, text)
