"""Rules written out as `iptables-save` prints them."""

from __future__ import annotations

from collections.abc import Iterator

from .rules import (
    AddressType,
    CtState,
    Destination,
    DestinationPort,
    Dnat,
    InInterface,
    Jump,
    MarkIs,
    Masquerade,
    Match,
    Protocol,
    RecentCheck,
    RecentSet,
    Reject,
    Rule,
    SetMark,
    Source,
    Statistic,
    Target,
)
from .tables import Tables


def render_save(tables: Tables) -> str:
    """All chains and rules of these tables."""
    lines = []
    for table, chains in tables.items():
        lines.append(f"*{table}")
        lines += [f":{name} {chains.policies.get(name, '-')} [0:0]" for name in chains.rules]
        lines += [f"-A {name} {render_rule(rule)}".rstrip() for name, rules in chains.rules.items() for rule in rules]
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


def render_rule(rule: Rule) -> str:
    """The words of a rule after its chain's name."""
    protocol = next((m.name for m in rule.matches if isinstance(m, Protocol)), "")
    words = [word for m in sorted(rule.matches, key=_place) for word in _match(m, protocol)]
    if rule.comment:
        quoted = rule.comment.replace("\\", "\\\\").replace('"', '\\"')
        words += ["-m", "comment", "--comment", f'"{quoted}"']
    if rule.target is not None:
        words += _target(rule.target)
    return " ".join(words)


def _place(m: Match) -> int:
    """Addresses, interface and protocol come before what modules add."""
    order = (Source, Destination, InInterface, Protocol)
    return next((i for i, kind in enumerate(order) if isinstance(m, kind)), len(order))


def _match(m: Match, protocol: str) -> Iterator[str]:
    if getattr(m, "negated", False) and not isinstance(m, CtState | MarkIs | AddressType):
        yield "!"
    match m:
        case Source():
            yield from ("-s", m.network)
        case Destination():
            yield from ("-d", m.network)
        case InInterface():
            yield from ("-i", m.name)
        case Protocol():
            yield from ("-p", m.name)
        case DestinationPort():
            yield from ("-m", protocol, "--dport", str(m.port))
        case CtState():
            yield from ("-m", "conntrack", *(("!",) if m.negated else ()), "--ctstate", ",".join(m.states))
        case MarkIs():
            yield from ("-m", "mark", *(("!",) if m.negated else ()), "--mark", f"{m.value:#x}/{m.mask:#x}")
        case AddressType():
            yield from ("-m", "addrtype", *(("!",) if m.negated else ()), f"--{m.side}-type", m.type)
        case Statistic():
            yield from ("-m", "statistic", "--mode", "random", "--probability", f"{m.parts / 0x80000000:.11f}")
        case RecentCheck():
            yield from ("-m", "recent", "--rcheck", "--seconds", str(m.seconds), *(("--reap",) if m.reap else ()))
            yield from ("--name", m.name, "--rsource")
        case RecentSet():
            yield from ("-m", "recent", "--set", "--name", m.name, "--rsource")


def _target(target: Target) -> Iterator[str]:
    yield "-j"
    match target:
        case Jump(to):
            yield to
        case Reject(reply):
            yield from ("REJECT", "--reject-with", reply)
        case Dnat(address, port):
            host = f"[{address}]" if ":" in address else address
            yield from ("DNAT", "--to-destination", f"{host}:{port}" if port else address)
        case SetMark(value, mask):
            yield from ("MARK", "--set-xmark", f"{value:#x}/{mask:#x}")
        case Masquerade(fully_random):
            yield from ("MASQUERADE", *(("--random-fully",) if fully_random else ()))
