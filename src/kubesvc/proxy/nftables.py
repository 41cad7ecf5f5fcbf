"""The nftables renderer: from service ports to table elements, and from one state to the next. Pure.

A `Ruleset` remembers what it has said so far, so that a change of one Service costs as much as that Service has
endpoints, whatever the number of Services. It is told of changes (`change`) and answers with transactions; `table` is
the whole, for a first load, for comparing with the kernel, and for tests.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from kubesvc.kernel.nft import ChainSpec, DeleteTable, SetSpec, Table, Transaction, Value
from kubesvc.kernel.nft import expressions as x
from kubesvc.kernel.nft.expressions import Rule, Verdict, goto, jump
from kubesvc.kernel.nft.fields import pack_address, pack_number, pack_port

from . import delta as d
from . import frame as fr
from .frame import FrameOptions, Words
from .fronts import BALANCER_IP, CLUSTER_IP, Claim, Front, Fronts, move_all
from .traffic import PortTraffic, ServiceKey, ServicePortName, Target

DROP = Verdict(x.DROP)
TO_REFUSE, TO_EXTERNAL, TO_EXTERNAL_LOCAL = goto(fr.REFUSE), goto(fr.EXTERNAL), goto(fr.EXTERNAL_LOCAL)
LONGEST_NAME = 240

SHARED_SETS = (fr.CLUSTER_IPS, fr.HAIRPIN)
"""Sets whose elements several Services may want; all others are keyed by a front, which has one owner."""


def service_hash(name: ServicePortName) -> str:
    """`HASH-namespace/service/proto/port` as upstream names its chains; long ones are cut (PROXY-95)."""
    text = f"{name.namespace}/{name.name}/{name.protocol.lower()}/{name.port}"
    digest = base64.b32encode(hashlib.sha256(text.encode()).digest())[:8].decode()
    return f"{digest}-{text}"


def cut(name: str) -> str:
    """A name short enough for the kernel."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."


@dataclass(slots=True)
class Share:
    """What one Service contributes to the table."""

    elements: dict[str, dict[bytes, Value]] = field(default_factory=dict)
    chains: dict[str, tuple[Rule, ...]] = field(default_factory=dict)
    sets: dict[str, SetSpec] = field(default_factory=dict)

    def put(self, name: str, key: bytes, value: Value = None) -> None:
        self.elements.setdefault(name, {})[key] = value


class PackedShare(msgspec.Struct, frozen=True, gc=False):
    """A `Share` as it is kept: a tenth of the objects, and a quarter of the memory.

    elements: of each set its name, how many there are, their keys side by side, and their values: side by side too if
              they are bytes
    """

    elements: tuple[tuple[str, int, bytes, bytes | tuple[Value, ...]], ...]
    chains: dict[str, tuple[Rule, ...]] | None
    sets: dict[str, SetSpec] | None


def pack(share: Share) -> PackedShare:
    """To be kept; keys of one set have one length, and so have values."""
    packed: list[tuple[str, int, bytes, bytes | tuple[Value, ...]]] = []
    for name, held in share.elements.items():
        values = tuple(held.values())
        if values and isinstance(values[0], bytes):
            packed.append((name, len(held), b"".join(held), b"".join(v for v in values if isinstance(v, bytes))))
        else:
            packed.append((name, len(held), b"".join(held), values))
    return PackedShare(tuple(packed), share.chains or None, share.sets or None)


def unpack(packed: PackedShare) -> Share:
    """As it was packed."""
    share = Share(chains=packed.chains or {}, sets=packed.sets or {})
    for name, count, keys, values in packed.elements:
        cut_keys = _pieces(keys, count)
        cut_values = _pieces(values, count) if isinstance(values, bytes) else values
        share.elements[name] = dict(zip(cut_keys, cut_values, strict=True))
    return share


def _pieces(data: bytes, count: int) -> list[bytes]:
    """So many pieces of one length."""
    if count == 1:
        return [data]
    size = len(data) // count if count else 1
    return [data[start : start + size] for start in range(0, len(data), size)]


def slots(old: Sequence[Target], wanted: Sequence[Target]) -> tuple[Target, ...]:
    """Number the wanted targets so that as few numbers as possible change their target.

    old: the numbering so far. Those that stay keep their number, newcomers fill the holes, and holes that are left
    are filled from the end. Without an old numbering the order of `wanted` counts (PROXY-16).
    """
    if not old:
        return tuple(wanted)
    keep = set(wanted)
    known = set(old)
    numbered: list[Target | None] = [t if t in keep else None for t in old]
    newcomers = [t for t in wanted if t not in known]
    free = [i for i, t in enumerate(numbered) if t is None]
    taken = min(len(free), len(newcomers))
    for i, target in zip(free, newcomers, strict=False):
        numbered[i] = target
    numbered += newcomers[taken:]
    for i in free[taken:]:
        while numbered and numbered[-1] is None:
            numbered.pop()
        if i < len(numbered):
            numbered[i] = numbered.pop()
    return tuple(t for t in numbered if t is not None)


class Ruleset:
    """The table of one family, kept up change by change.

    options:         what the frame depends on
    node_addresses:  where node ports are reached (PROXY-67 to 70)
    slots:           numbering to go on from, by (service port, Local list or not); a predecessor's
    """

    def __init__(
        self,
        options: FrameOptions,
        node_addresses: Sequence[str] = (),
        slots: Mapping[tuple[ServicePortName, bool], tuple[Target, ...]] | None = None,
    ) -> None:
        self.options = options
        self.words = Words(options.family)
        self.told_addresses = tuple(node_addresses)
        self.node_addresses = tuple(a for a in node_addresses if not ipaddress.ip_address(a).is_loopback)
        self.frame = fr.frame(options)
        self.ports: dict[ServiceKey, tuple[PortTraffic, ...]] = {}
        self.fronts = Fronts(self.node_addresses)
        self.shares: dict[ServiceKey, PackedShare] = {}
        self.slots = dict(slots or {})
        self.names: dict[ServiceKey, tuple[ServicePortName, ...]] = {}
        self.shared: Counter[tuple[str, bytes]] = Counter()
        self.spreads: Counter[str] = Counter()

    # Changing.

    def change(self, changes: Mapping[ServiceKey, Sequence[PortTraffic]]) -> d.Delta:
        """Take in the service ports of these Services (none: the Service is gone) and say what changes in the table.

        The caller writes what is said (`transactions`) or starts anew from `table`; nothing is forgotten meanwhile.
        A Service that cannot be rendered is an error, once all others are taken in.
        """
        delta = d.Delta()
        failed: Exception | None = None
        for key in move_all(self.fronts, self.ports, changes):
            try:
                self._replace(delta, key)
            except Exception as error:  # it keeps what it had, and nobody else's rules depend on it
                error.add_note(f"Service {key[0]}/{key[1]}: its rules stay as they were")
                failed = failed or error
        if failed is not None:
            raise failed
        return delta

    def transactions(self, delta: d.Delta) -> list[Transaction]:
        """The transactions of a delta, in order; each leaves a table that serves."""
        return d.transactions(delta, self.words.nfproto, self.options.table, fr.set_rank)

    def repair(self, found: Table | None) -> list[Transaction]:
        """What makes the kernel's table the wished one, from whatever it is; [] if it is already.

        A table of another shape (another version wrote it) is removed and built anew; nothing else is ever taken
        down first.
        """
        wished = self.table()
        if found is None:
            return d.build(wished, fr.set_rank)
        try:
            delta = d.compare(found, wished)
        except ValueError:
            first, *rest = d.build(wished, fr.set_rank)
            return [msgspec.structs.replace(first, commands=(DeleteTable(), *first.commands)), *rest]
        return self.transactions(delta)

    def table(self) -> Table:
        """The whole table."""
        table = self.frame.draft()
        elements: dict[str, dict[bytes, Value]] = {name: {} for name in table.sets}
        table.elements = elements
        for key in sorted(self.shares):
            share = unpack(self.shares[key])
            for name, spec in share.sets.items():
                table.sets[name] = spec
                elements[name] = {}
            for name, held in share.elements.items():
                elements[name].update(held)
            for name, rules in share.chains.items():
                table.chains[name] = ChainSpec(name)
                table.rules[name] = list(rules)
        return table

    def owners(self, name: str, keys: Collection[bytes] = ()) -> tuple[ServiceKey, ...]:
        """The Services that have any of these elements in a set, or else a chain or set of that name; in order. Looks
        through everything: for the rare case that the kernel refused them."""
        found = []
        for key in sorted(self.shares):
            share = unpack(self.shares[key])
            held = share.elements.get(name, {})
            if any(k in held for k in keys) or (not keys and (name in share.chains or name in share.sets)):
                found.append(key)
        return tuple(found)

    def conflicts(self) -> list[tuple[ServicePortName, ServicePortName]]:
        """Pairs of (who keeps a front, who does not get it), in order, each once; for a warning."""
        return self.fronts.conflicts()

    def _replace(self, delta: d.Delta, key: ServiceKey) -> None:
        packed = self.shares.get(key)
        old = unpack(packed) if packed is not None else EMPTY
        new = self._share(key)
        if new.elements or new.chains:
            self.shares[key] = pack(new)
        else:
            self.shares.pop(key, None)
        self._replace_sets(delta, old, new)
        self._replace_chains(delta, old, new)
        for name in {**old.elements, **new.elements}:
            before, after = old.elements.get(name, {}), new.elements.get(name, {})
            spec = new.sets.get(name) or self.frame.sets[name]
            if name in SHARED_SETS:
                self._replace_shared(delta, spec, before, after)
            else:
                d.compare_elements(delta, spec, before, after)

    def _replace_shared(
        self, delta: d.Delta, spec: SetSpec, before: Mapping[bytes, Value], after: Mapping[bytes, Value]
    ) -> None:
        """Elements that several Services may want are there as long as one does."""
        for key in after:
            if key not in before:
                self.shared[spec.name, key] += 1
                if self.shared[spec.name, key] == 1:
                    delta.element(spec, key, d.MISSING, None)
        for key in before:
            if key not in after:
                self.shared[spec.name, key] -= 1
                if not self.shared[spec.name, key]:
                    del self.shared[spec.name, key]
                    delta.element(spec, key, None, d.MISSING)

    def _replace_sets(self, delta: d.Delta, old: Share, new: Share) -> None:
        for name, spec in new.sets.items():
            if name not in old.sets:
                delta.new_sets.append(name)
                delta.sets[name] = spec
        delta.gone_sets += [name for name in old.sets if name not in new.sets]

    def _replace_chains(self, delta: d.Delta, old: Share, new: Share) -> None:
        for name, rules in new.chains.items():
            if name in old.chains:
                if old.chains[name] != rules:
                    delta.rules[name] = rules
                continue
            self.spreads[name] += 1
            if self.spreads[name] == 1:
                if name in delta.gone_chains:
                    delta.gone_chains.remove(name)
                else:
                    delta.new_chains[name] = ChainSpec(name)
                    delta.rules[name] = rules
        for name in old.chains:
            if name not in new.chains:
                self.spreads[name] -= 1
                if not self.spreads[name]:
                    del self.spreads[name]
                    if name in delta.new_chains:
                        del delta.new_chains[name], delta.rules[name]
                    else:
                        delta.gone_chains.append(name)

    # Rendering one Service.

    def _share(self, key: ServiceKey) -> Share:
        share = Share()
        ports = self.ports.get(key, ())
        names = {port.name for port in ports}
        for gone in self.names.pop(key, ()):
            if gone not in names:
                self.slots.pop((gone, False), None)
                self.slots.pop((gone, True), None)
        if ports:
            self.names[key] = tuple(port.name for port in ports)
        for port in ports:
            self._render(share, port)
        return share

    def _render(self, share: Share, port: PortTraffic) -> None:
        cluster, local = self._numbered(port, local=False), self._numbered(port, local=True)
        share.put(fr.CLUSTER_IPS, pack_address(port.cluster_ip))
        for target in port.local_targets:
            address = pack_address(target.address)
            share.put(fr.HAIRPIN, address + address)
        for claim in self.fronts.owned(port):
            if claim.rank == CLUSTER_IP:
                self._render_internal(share, port, claim.front, cluster, local)
            else:
                self._render_external(share, port, claim, cluster, local)

    def _numbered(self, port: PortTraffic, *, local: bool) -> tuple[Target, ...]:
        key = (port.name, local)
        wanted = port.local if local else port.cluster
        numbered = slots(self.slots.get(key, ()), wanted)
        if numbered:
            self.slots[key] = numbered
        else:
            self.slots.pop(key, None)
        return numbered

    def _render_internal(
        self,
        share: Share,
        port: PortTraffic,
        front: Front,
        cluster: tuple[Target, ...],
        local: tuple[Target, ...],
    ) -> None:
        """A ClusterIP: its list, or the verdict for having none (PROXY-38, 39, 41)."""
        targets = local if port.internal_local else cluster
        if not targets:
            share.put(fr.NO_ENDPOINTS, front, DROP if port.usable else TO_REFUSE)
            return
        share.put(fr.SERVICES, front, self._spread(share, port, front, targets, local=port.internal_local))
        if port.affinity_seconds is not None:
            share.put(fr.remember_map(port.name.protocol), _original(front), jump(_remember(port, port.internal_local)))

    def _render_external(
        self,
        share: Share,
        port: PortTraffic,
        claim: Claim,
        cluster: tuple[Target, ...],
        local: tuple[Target, ...],
    ) -> None:
        """An external address or node port (PROXY-38 to 41, 46, 47, 50)."""
        front = claim.front
        if not cluster:
            share.put(fr.NO_ENDPOINTS, front, TO_REFUSE)
            return
        if claim.rank == BALANCER_IP and port.source_ranges is not None:
            share.put(fr.FILTERED, front)
            for source in port.source_ranges:
                network = ipaddress.ip_network(source)
                first, last = network.network_address.packed, network.broadcast_address.packed
                share.put(fr.ALLOWED, front + first + front + last)
        share.put(fr.SERVICES, front, TO_EXTERNAL_LOCAL if port.external_local else TO_EXTERNAL)
        share.put(fr.SERVICES_CLUSTER, front, self._spread(share, port, front, cluster, local=False))
        remember = _remember(port, False)
        if port.external_local:
            if local:
                share.put(fr.SERVICES_LOCAL, front, self._spread(share, port, front, local, local=True))
                remember = self._remember_either(share, port)
            else:
                share.put(fr.NO_ENDPOINTS, front, DROP)
        if port.affinity_seconds is not None:
            share.put(fr.remember_map(port.name.protocol), _original(front), jump(remember))

    def _spread(
        self, share: Share, port: PortTraffic, front: Front, targets: tuple[Target, ...], *, local: bool
    ) -> Verdict:
        """Enter a front's endpoints and say where packets to it go."""
        count = len(targets)
        held = share.elements.setdefault(fr.endpoint_map(count, local=local), {})
        for number, target in enumerate(targets):
            held[front + pack_number(number)] = pack_address(target.address) + pack_port(target.port)
        chain = fr.spread_chain(count, local=local)
        if count > fr.MOST_SHARED:
            share.chains[chain] = (fr.spread_rule(self.words, count, local=local),)
        if port.affinity_seconds is None:
            return goto(chain)
        return self._stick(share, port, chain, local=local)

    def _stick(self, share: Share, port: PortTraffic, chain: str, *, local: bool) -> Verdict:
        """Affinity: first where the client's record says, else to `chain`; and the chain that keeps the record."""
        name = _affinity(port, local)
        words = self.words
        share.sets[name] = affinity_map(words, name)
        protocol = fr.is_protocol(fr.REMEMBERED_PROTOCOLS[port.name.protocol])
        by_record = (*protocol, words.source(), x.Lookup(name, x.R1, x.R1), words.nat_to_found())
        share.chains[name] = (by_record, (x.Immediate(goto(chain)),))
        share.chains[_remember(port, local)] = (self._record(port, name),)
        return goto(name)

    def _record(self, port: PortTraffic, name: str) -> Rule:
        """Write down where the client was sent; the life of the record starts anew (PROXY-60)."""
        words = self.words
        assert port.affinity_seconds is not None
        data = x.R2
        target = (
            x.Payload(x.NETWORK, 24 if words.width == 16 else 16, words.width, data),
            fr.destination_port(4 + words.after),
        )
        return (words.original_source(), *target, x.Dynset(name, port.affinity_seconds * 1000, x.R1, data))

    def _remember_either(self, share: Share, port: PortTraffic) -> str:
        """The chain that keeps the record of a front whose list depends on the source (PROXY-46)."""
        if port.affinity_seconds is None:
            return ""
        name = cut(f"remember-either-{service_hash(port.name)}")
        cluster = (x.Immediate(goto(_remember(port, False))),)
        rules: list[Rule] = [(*fr.has_mark(self.options.masquerade_bit), *cluster)]
        if self.options.pod_cidr and not self.options.pod_interface:
            rules.append((*self.words.within(self.options.pod_cidr, self.words.original_source()), *cluster))
        rules.append((x.Immediate(goto(_remember(port, True))),))
        share.chains[name] = tuple(rules)
        return name


EMPTY = Share()


def affinity_map(words: Words, name: str) -> SetSpec:
    """Which endpoint each client was sent to last."""
    return SetSpec(name, (words.address,), words.target, dynamic=True, timeout_ms=fr.LONGEST_RECORD_MS)


def _affinity(port: PortTraffic, local: bool) -> str:
    return cut(f"affinity-{'local-' if local else ''}{service_hash(port.name)}")


def _remember(port: PortTraffic, local: bool) -> str:
    return cut(f"remember-{'local-' if local else ''}{service_hash(port.name)}")


def _original(front: Front) -> bytes:
    """Address and port of a front, without the protocol between them."""
    return front[:-8] + front[-4:]


def affinity_lists(ports: Iterable[PortTraffic]) -> Iterator[tuple[str, frozenset[bytes]]]:
    """For each list with affinity: the name of its records, and the values that a record may have (PROXY-61)."""
    for port in ports:
        if port.affinity_seconds is not None:
            for local, targets in ((False, port.cluster), (True, port.local)):
                if targets:
                    allowed = frozenset(pack_address(t.address) + pack_port(t.port) for t in targets)
                    yield _affinity(port, local), allowed
