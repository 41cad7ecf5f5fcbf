"""The door to iptables: the promise (`Iptables`), the real one by the system's own programs, and a fake as strict."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from asyncio.subprocess import PIPE
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from .rules import Family
from .tables import IptablesError, Tables, apply_restore, fresh_tables
from .text import render_save

Variant = Literal["nf_tables", "legacy"]
LOCK = Path("/run/xtables.lock")
LOCK_WAIT_SECONDS = 5
PATIENCE_SECONDS = 120.0
PROGRAMS: dict[str, str] = {"IPv4": "iptables", "IPv6": "ip6tables"}
PROBE = "KUBESVC-PROBE"

NEEDS: tuple[tuple[str, str, str], ...] = (
    ("nat", "comment", '-m comment --comment "probe"'),
    ("filter", "conntrack", "-m conntrack --ctstate NEW"),
    ("nat", "statistic", "-m statistic --mode random --probability 0.5"),
    ("nat", "recent", "-m recent --name KUBESVC-PROBE --rcheck --seconds 1 --reap"),
    ("nat", "addrtype", "-m addrtype --dst-type LOCAL"),
    ("nat", "mark", "-m mark --mark 0x4000/0x4000"),
    ("nat", "MARK", "-j MARK --or-mark 0x4000"),
    ("nat", "tcp", "-p tcp -m tcp --dport 1"),
    ("nat", "udp", "-p udp -m udp --dport 1"),
    ("nat", "MASQUERADE", "-j MASQUERADE --random-fully"),
    ("nat", "DNAT", "-p tcp -m tcp -j DNAT --to-destination {target}"),
    ("filter", "REJECT", "-j REJECT"),
)
"""What the rules are made of: table, the match or target, and a rule that needs it."""


class Iptables(Protocol):
    """iptables of one network namespace, both families."""

    async def restore(self, family: Family, text: str) -> None:
        """Apply a text for `iptables-restore --noflush`: each table of it whole or not at all. IptablesError, naming
        the line where it is known."""

    async def save(self, family: Family, table: str = "") -> str:
        """What `iptables-save` prints of one table, or all. IptablesError."""

    async def list_chain(self, family: Family, table: str, chain: str) -> bool:
        """Whether a chain is there, quickly."""


class KernelIptables:
    """iptables by the programs of the system, in this process's network namespace.

    prefix:  words before each command, to run it elsewhere
    variant: "nf_tables" or "legacy": that family of programs; "": what the system's `iptables` is
    """

    def __init__(self, prefix: tuple[str, ...] = (), variant: Variant | Literal[""] = "") -> None:
        self.prefix = prefix
        self.middle = {"nf_tables": "-nft", "legacy": "-legacy", "": ""}[variant]
        self.environment = dict(os.environ)
        if not os.access(LOCK if LOCK.exists() else LOCK.parent, os.W_OK):
            # Nobody else can be writing here: this is a namespace of an ordinary user.
            self.environment["XTABLES_LOCKFILE"] = f"{tempfile.gettempdir()}/xtables-{os.geteuid()}.lock"

    async def restore(self, family: Family, text: str) -> None:
        words = (f"{self._program(family)}-restore", "-w", str(LOCK_WAIT_SECONDS), "--noflush")
        await self._run(words, text)

    async def save(self, family: Family, table: str = "") -> str:
        return await self._run((f"{self._program(family)}-save", *(("-t", table) if table else ())))

    async def list_chain(self, family: Family, table: str, chain: str) -> bool:
        words = (self._program(family), "-w", str(LOCK_WAIT_SECONDS), "-t", table, "-S", chain, "1")
        try:
            await self._run(words)
        except IptablesError as error:
            if error.passing:
                raise
            return False
        return True

    async def version(self, family: Family = "IPv4") -> str:
        """The program's own words, as `iptables v1.8.9 (nf_tables)`."""
        return (await self._run((self._program(family), "-V"))).strip()

    def _program(self, family: Family) -> str:
        return PROGRAMS[family] + self.middle

    async def _run(self, words: tuple[str, ...], text: str = "") -> str:
        # From a file: a program that stops reading halfway is no reason to fail here.
        with tempfile.TemporaryFile() as given:
            given.write(text.encode())
            given.seek(0)
            try:
                process = await asyncio.create_subprocess_exec(
                    *self.prefix, *words, stdin=given, stdout=PIPE, stderr=PIPE, env=self.environment
                )
            except OSError as error:
                raise IptablesError(f"{words[0]}: {error.strerror}", passing=True) from None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                output, complaint = await process.communicate()
        except BaseException as error:
            with suppress(ProcessLookupError):
                process.kill()
            with suppress(TimeoutError):  # unless it hangs in the kernel; it is waited for no longer than it was given
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await process.wait()
            if isinstance(error, TimeoutError):
                raise IptablesError(f"{words[0]}: no end within {PATIENCE_SECONDS:.0f} s", passing=True) from None
            raise
        if process.returncode:
            raise _refusal(words[0], process.returncode, complaint.decode(errors="replace"), text)
        return output.decode(errors="replace")


_LINE = re.compile(r"line:? (\d+)")
_PASSING = ("Permission denied", "xtables lock", "Resource temporarily unavailable", "you must be root")


def _refusal(program: str, status: int, complaint: str, text: str) -> IptablesError:
    """What the program said, in one line, and which line of the text it meant. The one that ends a table stands for the
    whole of it: what was wrong is not known then."""
    words = "; ".join(line.strip() for line in complaint.splitlines() if line.strip() and "Try `" not in line)
    number = int(found[1]) if (found := _LINE.search(complaint)) else 0
    lines = text.splitlines() if number else []
    line = lines[number - 1] if 0 < number <= len(lines) else ""
    if line == "COMMIT":
        number, line = 0, ""
    said = f"{program}: {words or f'ended with {status}'}" + (f" ({line})" if line else "")
    return IptablesError(said, number, line, passing=any(p in complaint for p in _PASSING))


class Abilities(msgspec.Struct, frozen=True):
    """What iptables can do here.

    variant: of the programs; "" if there are none
    missing: what the rules need and is not there, by its iptables name
    why:     what was said when it was tried, for the first thing missing
    forbidden: whether it may not be used at all
    """

    variant: str = ""
    version: str = ""
    missing: tuple[str, ...] = ()
    why: str = ""
    forbidden: bool = False

    @property
    def enough(self) -> bool:
        return bool(self.version) and not self.missing and not self.forbidden

    def sentence(self) -> str:
        """In plain words."""
        if not self.version:
            return f"iptables cannot be run: {self.why}"
        if self.forbidden:
            return f"{self.version} may not be used: no right to change the rules of this network namespace"
        if self.missing:
            return f"{self.version} cannot do {', '.join(self.missing)} here: {self.why}"
        return f"{self.version} can do all that the rules need"


async def probe(door: KernelIptables, family: Family = "IPv4") -> Abilities:
    """Find out what iptables can do, by rules in a chain that nothing jumps to and that is removed again."""
    try:
        version = await door.version(family)
    except IptablesError as error:
        return Abilities(why=str(error))
    variant = "nf_tables" if "nf_tables" in version else "legacy"
    target = "[fd00::1]:1" if family == "IPv6" else "192.0.2.1:1"
    rules = [(table, name, rule.format(target=target)) for table, name, rule in NEEDS]
    if not (why := await _try(door, family, rules)):
        return Abilities(variant, version)
    if "ermission denied" in why or "must be root" in why:
        return Abilities(variant, version, why=why, forbidden=True)
    missing = {name: said for table, name, rule in rules if (said := await _try(door, family, [(table, name, rule)]))}
    return Abilities(variant, version, tuple(missing), next(iter(missing.values()), why))


async def _try(door: Iptables, family: Family, rules: list[tuple[str, str, str]]) -> str:
    """Write and remove these rules; what was said against it, "" if nothing."""
    tables = sorted({table for table, *_ in rules})
    made, removed = [], []
    for table in tables:
        # A target that is only for one hook is taken in a chain that none calls.
        made += [f"*{table}", f":{PROBE} - [0:0]", *(f"-A {PROBE} {r}" for t, _, r in rules if t == table), "COMMIT"]
        removed += [f"*{table}", f":{PROBE} - [0:0]", f"-X {PROBE}", "COMMIT"]
    said = ""
    for text in (made, removed):
        try:
            await door.restore(family, "\n".join(text) + "\n")
        except IptablesError as error:
            said = said or str(error)
    return said


class FakeIptables:
    """iptables without a kernel: `tables` by family is what is applied, `log` the texts that were.

    `fail_next`: an exception for the next restore, nothing applied
    `poison`:    a piece of text that no line may contain
    """

    def __init__(self) -> None:
        self.tables: dict[Family, Tables] = {"IPv4": fresh_tables(), "IPv6": fresh_tables()}
        self.log: list[str] = []
        self.fail_next: Exception | None = None
        self.poison = ""

    async def restore(self, family: Family, text: str) -> None:
        await asyncio.sleep(0)
        if self.fail_next:
            error, self.fail_next = self.fail_next, None
            raise error
        for number, line in enumerate(text.splitlines(), 1):
            if self.poison and self.poison in line:
                raise IptablesError(f"iptables-restore: line {number} failed: poison", number, line)
        try:
            self.tables[family] = apply_restore(self.tables[family], text, family)
        except IptablesError as error:
            if error.applied is not None:
                self.tables[family] = error.applied
            raise
        self.log.append(text)

    async def save(self, family: Family, table: str = "") -> str:
        await asyncio.sleep(0)
        chosen = self.tables[family] if not table else {table: self.tables[family][table]}
        return render_save(chosen)

    def flush(self) -> None:
        """As somebody who removes all rules of everybody."""
        self.tables = {"IPv4": fresh_tables(), "IPv6": fresh_tables()}

    async def list_chain(self, family: Family, table: str, chain: str) -> bool:
        await asyncio.sleep(0)
        return chain in self.tables[family][table].rules
