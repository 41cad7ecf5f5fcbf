"""The door to nftables: the promise (`Nft`), the real one over netlink, and reading tables back."""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Iterator
from typing import Protocol

from ..netlink import (
    BE32,
    BE64,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    Dump,
    NetlinkError,
    NetlinkSocket,
    attribute_map,
    attributes,
    error_of,
    message,
    name_of,
    strict,
    text,
)
from . import fields
from .commands import (
    ELEM_DATA,
    ELEM_FLAGS,
    ELEM_INTERVAL_END,
    ELEM_KEY,
    ELEM_KEY_END,
    GETCHAIN,
    GETRULE,
    GETSET,
    GETSETELEM,
    GETTABLE,
    AlreadyExists,
    Command,
    NftError,
    NoSuchObject,
    StillUsed,
    Transaction,
)
from .expressions import Rule, decode_data, decode_rule
from .table import SET_ANONYMOUS, SET_EVAL, SET_INTERVAL, Base, ChainSpec, SetSpec, Table, Value, decode_comment

NFTABLES = 10
"""The netfilter subsystem: high byte of the message type."""
BATCH_BEGIN, BATCH_END = 0x10, 0x11
GETGEN = 16
GENERIC = struct.Struct(">BBH")  # family, version, resource


class Nft(Protocol):
    """nftables of one network namespace. A transaction is applied whole or not at all."""

    async def run(self, transaction: Transaction) -> None:
        """Apply. NftError (NoSuchObject, AlreadyExists, StillUsed) naming the command that failed; nothing applied."""

    async def read(self, family: int, table: str, *, elements: bool = True, anonymous: bool = False) -> Table | None:
        """The table as it stands, None if there is none; without `elements` all sets read as empty, with `anonymous`
        sets that are parts of rules are read too, as walking another program's table needs. NftError EAGAIN if it kept
        changing meanwhile. Right after many elements were added some may be missing, while the kernel still sorts them
        in; adding them again does no harm."""

    async def read_elements(self, family: int, table: str, spec: SetSpec) -> dict[bytes, Value]:
        """What one set holds. NoSuchObject if it does not exist."""

    async def disturbances(self) -> int:
        """How often somebody else has changed rules of this namespace since the door was opened; only grows."""

    def close(self) -> None:
        """End the use of the door; rules stay."""


class KernelNft:
    """nftables of the network namespace in which this object was made.

    Needs CAP_NET_ADMIN in the user namespace that owns the network namespace. One task at a time uses the socket;
    others wait their turn.
    """

    def __init__(self, *, buffer_bytes: int = 8 << 20) -> None:
        self.socket = NetlinkSocket(NETLINK_NETFILTER, buffer_bytes=buffer_bytes)
        self.turn = asyncio.Lock()
        self.disturbed = 0
        self.generation = self._generation()

    def close(self) -> None:
        """End the use of the socket; rules stay."""
        self.socket.close()

    async def run(self, transaction: Transaction) -> None:
        async with self.turn:
            self.run_now(transaction)

    def run_now(self, transaction: Transaction) -> None:
        """As `run`, without a loop. The kernel commits while it is sent: milliseconds per thousand elements."""
        if not transaction.commands:
            return
        self._look_round()
        data, owners = self._encode(transaction)
        try:
            self.socket.send(data)
        except OSError as error:
            while self.socket.receive():
                pass
            if error.errno == errno.EMSGSIZE:
                text = f"nft: {len(data)} bytes in one transaction: at most {self.socket.send_bytes} here"
                raise NftError(errno.EMSGSIZE, text) from None
            raise
        failed: list[tuple[Command | None, NetlinkError]] = []
        while replies := self.socket.receive():
            for reply in replies:
                if reply.type == NLMSG_ERROR and (error_ := error_of(reply)):
                    failed.append((owners.get(error_.sequence), error_))
        if failed:
            raise _refusal(transaction, failed)
        self._look_round(own=1)

    async def disturbances(self) -> int:
        async with self.turn:
            self._look_round()
            return self.disturbed

    def _generation(self) -> int:
        """The kernel's number of the rules in force; every transaction of anybody raises it."""
        reply = self.socket.request(NFTABLES << 8 | GETGEN, GENERIC.pack(0, 0, 0))
        number: int = BE32.unpack(attribute_map(reply[0].payload, GENERIC.size)[1])[0]
        return number

    def _look_round(self, own: int = 0) -> None:
        """Note whether rules changed since the last look by more than our `own` transactions; one that in the end
        changed nothing does not count in the kernel."""
        found = self._generation()
        if not self.generation <= found <= self.generation + own:
            self.disturbed += 1
        self.generation = found

    def _encode(self, transaction: Transaction) -> tuple[bytes, dict[int, Command]]:
        family = GENERIC.pack(transaction.family, 0, 0)
        batch = GENERIC.pack(0, 0, NFTABLES)
        owners: dict[int, Command] = {}
        parts = [message(BATCH_BEGIN, NLM_F_REQUEST, self.socket.next_sequence(), batch)]
        payloads = [(c, *p) for c in transaction.commands for p in c.encode(transaction.table)]
        last = len(payloads) - 1
        for number, (command, type, flags, payload) in enumerate(payloads):
            sequence = self.socket.next_sequence()
            owners[sequence] = command
            flags |= NLM_F_REQUEST | (NLM_F_ACK if number == last else 0)
            parts.append(message(NFTABLES << 8 | type, flags, sequence, family + payload))
        parts.append(message(BATCH_END, NLM_F_REQUEST, self.socket.next_sequence(), batch))
        return b"".join(parts), owners

    async def read(self, family: int, table: str, *, elements: bool = True, anonymous: bool = False) -> Table | None:
        async with self.turn:
            for _ in range(5):
                dumped = await self._read(family, table, elements, anonymous)
                if not isinstance(dumped, _Interrupted):
                    return dumped
                await asyncio.sleep(0)
        raise NftError(errno.EAGAIN, f"table {table!r}: it kept changing while it was read")

    async def read_elements(self, family: int, table: str, spec: SetSpec) -> dict[bytes, Value]:
        async with self.turn:
            for _ in range(5):
                dump = self._dump(GETSETELEM, family, text(1, table) + text(2, spec.name))
                if not dump.interrupted:
                    return await _read_elements(dump, spec)
                await asyncio.sleep(0)
        raise NftError(errno.EAGAIN, f"set {spec.name!r}: it kept changing while it was read")

    def _dump(self, type: int, family: int, payload: bytes = b"") -> Dump:
        try:
            return self.socket.dump(NFTABLES << 8 | type, GENERIC.pack(family, 0, 0) + payload)
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                raise NoSuchObject(str(error)) from None
            if error.errno == errno.EINTR:
                return Dump([], interrupted=True)
            raise NftError(error.errno or 0, str(error)) from None

    async def _read(self, family: int, name: str, elements: bool, anonymous: bool) -> Table | _Interrupted | None:
        interrupted = False

        def dump(type: int, payload: bytes = b"") -> Iterator[dict[int, bytes]]:
            nonlocal interrupted
            found = self._dump(type, family, payload)
            interrupted |= found.interrupted
            for reply in found.messages:
                yield attribute_map(reply.payload, GENERIC.size)

        head = next((a for a in dump(GETTABLE) if name_of(a[1]) == name), None)
        if head is None:
            return None
        table = Table(family, name, decode_comment(head.get(6, b"")))
        try:
            for a in dump(GETCHAIN):
                if name_of(a[1]) == name:
                    chain = _chain(a)
                    table.chains[chain.name] = chain
                    table.rules[chain.name] = []
            for a in dump(GETRULE, text(1, name)):
                if name_of(a[1]) == name:
                    table.rules.setdefault(name_of(a[2]), []).append(_rule(a))
            for a in dump(GETSET, text(1, name)):
                if not anonymous and 3 in a and BE32.unpack(a[3])[0] & SET_ANONYMOUS:
                    continue  # a part of somebody's rule, and gone with it
                spec = _set(a)
                table.sets[spec.name] = spec
                table.elements[spec.name] = {}
            for spec in table.sets.values() if elements else ():
                found = self._dump(GETSETELEM, family, text(1, name) + text(2, spec.name))
                interrupted |= found.interrupted
                table.elements[spec.name] = await _read_elements(found, spec)
        except NoSuchObject:
            return _Interrupted()  # deleted under our eyes
        return _Interrupted() if interrupted else table


class _Interrupted:
    """A dump that other writers made inconsistent."""


@strict
def _chain(a: dict[int, bytes]) -> ChainSpec:
    base = None
    if 4 in a:
        hook = attribute_map(a[4])
        priority = struct.unpack(">i", hook[2])[0]
        base = Base(name_of(a[7]), BE32.unpack(hook[1])[0], priority)
    return ChainSpec(name_of(a[3]), base)


def _rule(a: dict[int, bytes]) -> Rule:
    return decode_rule(a.get(4, b""))


@strict
def _set(a: dict[int, bytes]) -> SetSpec:
    flags = BE32.unpack(a[3])[0] if 3 in a else 0
    data = BE32.unpack(a[6])[0] if 6 in a else 0
    userdata = set(_udata_types(a.get(13, b"")))
    return SetSpec(
        name_of(a[2]),
        fields.fields_of(BE32.unpack(a[4])[0]),
        () if data in (0, fields.TYPE_VERDICT) else fields.fields_of(data),
        verdicts=data == fields.TYPE_VERDICT,
        intervals=bool(flags & SET_INTERVAL),
        dynamic=bool(flags & SET_EVAL),
        timeout_ms=BE64.unpack(a[11])[0] if 11 in a else 0,
        typeof=fields.UDATA_KEY_TYPEOF in userdata,
    )


def _udata_types(data: bytes) -> Iterator[int]:
    offset = 0
    while offset + 2 <= len(data):
        yield data[offset]
        offset += 2 + data[offset + 1]


async def _read_elements(dump: Dump, spec: SetSpec) -> dict[bytes, Value]:
    """The elements in a dump; others get their turn after every message of some hundred."""
    found: dict[bytes, Value] = {}
    if spec.intervals and len(spec.key) == 1:
        return dict.fromkeys(_ranges(dump))
    for reply in dump.messages:
        found.update(_elements(reply.payload, spec))
        await asyncio.sleep(0)
    return found


def _ranges(dump: Dump) -> Iterator[bytes]:
    """Ranges of a single field, which the kernel keeps as beginnings and (exclusive) ends, as first and last key side
    by side. Only others make such sets."""
    marks: list[tuple[bytes, bool]] = []
    for reply in dump.messages:
        for _, element in attributes(attribute_map(reply.payload, GENERIC.size).get(3, b"")):
            a = attribute_map(element)
            key = decode_data(a[ELEM_KEY])
            assert isinstance(key, bytes)
            marks.append((key, ELEM_FLAGS in a and bool(BE32.unpack(a[ELEM_FLAGS])[0] & ELEM_INTERVAL_END)))
    marks.sort(key=lambda mark: (mark[0], not mark[1]))
    for (first, ended), after in zip(marks, [*marks[1:], None], strict=True):
        if ended:
            continue
        size = len(first)
        last = int.from_bytes(after[0], "big") - 1 if after else (1 << 8 * size) - 1
        yield first + last.to_bytes(size, "big")


def _elements(payload: bytes, spec: SetSpec) -> Iterator[tuple[bytes, Value]]:
    for _, element in attributes(attribute_map(payload, GENERIC.size).get(3, b"")):
        a = attribute_map(element)
        key = decode_data(a[ELEM_KEY])
        assert isinstance(key, bytes)
        if ELEM_KEY_END in a:
            end = decode_data(a[ELEM_KEY_END])
            assert isinstance(end, bytes)
            key += end
        elif spec.intervals:
            key += key
        yield key, decode_data(a[ELEM_DATA]) if ELEM_DATA in a else None


def describe(command: Command) -> str:
    """A command in a few words, for errors."""
    match command:
        case _ if hasattr(command, "spec"):
            return f"{type(command).__name__} {command.spec.name!r}"
        case _ if hasattr(command, "chain"):
            return f"{type(command).__name__} in {command.chain!r}"
        case _ if hasattr(command, "set"):
            return f"{type(command).__name__} of {command.set.name!r}"
        case _ if hasattr(command, "name"):
            return f"{type(command).__name__} {command.name!r}"
    return type(command).__name__


def _refusal(transaction: Transaction, failed: list[tuple[Command | None, NetlinkError]]) -> NftError:
    command, error = failed[0]
    where = describe(command) if command else "the transaction"
    words = (
        f"nft refused {len(failed)} of {len(transaction.commands)} commands, none applied: {where}: {error.strerror}"
    )
    refusal = {errno.ENOENT: NoSuchObject, errno.EEXIST: AlreadyExists, errno.EBUSY: StillUsed}.get(error.errno or 0)
    found = refusal(words) if refusal else NftError(error.errno or 0, words)
    found.command = command
    return found
