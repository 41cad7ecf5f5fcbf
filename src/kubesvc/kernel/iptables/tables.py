"""The tables of one family, and what `iptables-restore --noflush` makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .rules import BUILT_IN, LONGEST_CHAIN_NAME, VERDICTS, BadRule, Family, Jump, Rule, parse_rule, words_of


class IptablesError(Exception):
    """iptables refused what it was given; nothing of that table was applied, of tables before it everything.

    line: number of the line in question from 1, 0 if it is not known
    text: that line
    passing: whether it has nothing to do with what was given: no privilege, no lock, no program
    """

    def __init__(self, message: str, line: int = 0, text: str = "", *, passing: bool = False) -> None:
        super().__init__(message)
        self.line = line
        self.text = text
        self.passing = passing
        self.applied: Tables | None = None


@dataclass(slots=True)
class Chains:
    """One table: its chains' rules, in order, and the policies of the built-in ones."""

    rules: dict[str, list[Rule]] = field(default_factory=dict)
    policies: dict[str, str] = field(default_factory=dict)

    @classmethod
    def fresh(cls, table: str) -> Chains:
        """As the kernel has it before anybody writes."""
        return cls({name: [] for name in BUILT_IN[table]}, dict.fromkeys(BUILT_IN[table], "ACCEPT"))

    def copy(self) -> Chains:
        return Chains({name: list(rules) for name, rules in self.rules.items()}, dict(self.policies))


Tables = dict[str, Chains]


def fresh_tables() -> Tables:
    return {table: Chains.fresh(table) for table in BUILT_IN}


def apply_restore(tables: Tables, text: str, family: Family) -> Tables:
    """What `iptables-restore --noflush` leaves. IptablesError as it would refuse the text; `tables` stays untouched,
    and the error's `applied` says what the tables before the refused one have become."""
    done = dict(tables)
    table, draft = "", Chains()
    for number, line in enumerate(text.splitlines(), 1):
        try:
            if not line or line.startswith("#"):
                continue
            if line.startswith("*"):
                if table:
                    raise BadRule(f"table {table!r} has no COMMIT")
                table = line[1:].strip()
                if table not in done:
                    raise BadRule(f"table {table!r} does not exist")
                draft = done[table].copy()
            elif not table:
                raise BadRule("no table yet")
            elif line == "COMMIT":
                _check(draft)
                done[table] = draft
                table = ""
            else:
                _step(draft, line, family)
        except BadRule as error:
            refused = IptablesError(f"iptables-restore: line {number} failed: {error}", number, line)
            refused.applied = done
            raise refused from None
    if table:
        raise IptablesError("iptables-restore: COMMIT expected at the end")
    return done


def _step(draft: Chains, line: str, family: Family) -> None:
    if line.startswith(":"):
        name, policy, *_ = line[1:].split()
        _check_name(name)
        if name in draft.policies:
            if policy not in ("ACCEPT", "DROP"):
                raise BadRule(f"Chain {name!r}: bad policy {policy!r}")
            draft.policies[name] = policy
        else:
            draft.rules[name] = []
        return
    command, name, *words = words_of(line)
    if command != "-N" and name not in draft.rules:
        raise BadRule(f"No chain/target/match by that name: {name!r}")
    match command:
        case "-N":
            _check_name(name)
            if name in draft.rules:
                raise BadRule("Chain already exists.")
            draft.rules[name] = []
        case "-A":
            draft.rules[name].append(parse_rule(words, family))
        case "-I":
            at = int(words.pop(0)) - 1 if words and words[0].isdigit() else 0
            draft.rules[name].insert(at, parse_rule(words, family))
        case "-D":
            rule = parse_rule(words, family)
            if rule not in draft.rules[name]:
                raise BadRule("Bad rule (does a matching rule exist in that chain?).")
            draft.rules[name].remove(rule)
        case "-F":
            draft.rules[name] = []
        case "-X":
            if name in draft.policies:
                raise BadRule(f"Can't delete built-in chain {name!r}")
            if draft.rules[name]:
                raise BadRule(f"Chain {name!r} is not empty")
            if any(r.target == Jump(name) for rules in draft.rules.values() for r in rules):
                raise BadRule(f"Chain {name!r} is still in use")
            del draft.rules[name]
        case _:
            raise BadRule(f"unknown command {command!r}")


def _check_name(name: str) -> None:
    if len(name) > LONGEST_CHAIN_NAME:
        raise BadRule(f"Chain name {name!r} too long (must be under {LONGEST_CHAIN_NAME + 1} chars)")


def _check(draft: Chains) -> None:
    """What is looked at when a table is committed: every chain that is jumped to exists."""
    for rules in draft.rules.values():
        for rule in rules:
            if isinstance(rule.target, Jump) and rule.target.to not in VERDICTS and rule.target.to not in draft.rules:
                raise BadRule(f"No chain/target/match by that name: {rule.target.to!r}")


def parse_save(text: str, family: Family, *, only: Callable[[str], bool] | None = None) -> Tables:
    """What `iptables-save` printed, or a text for `iptables-restore` that only appends.

    only: of which chains, by name, to read the rules; then a rule that is none of the kinds known here is kept as one
          that equals no other, and else it is a BadRule
    """
    found = fresh_tables()
    chains = Chains()
    for line in text.splitlines():
        if line.startswith("*"):
            chains = found.setdefault(line[1:].strip(), Chains())
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            chains.rules.setdefault(name, [])
            if policy != "-":
                chains.policies[name] = policy
        elif line.startswith("-A "):
            name, _, rest = line[3:].partition(" ")
            if only is not None and not only(name):
                continue
            try:
                rule = parse_rule(words_of(rest), family)
            except BadRule:
                if only is None:
                    raise
                rule = Rule((), None, f"unknown here: {line}")
            chains.rules.setdefault(name, []).append(rule)
    return found


def chain_names(text: str) -> Iterator[tuple[str, str]]:
    """(table, chain) of everything `iptables-save` printed, without reading rules."""
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            yield table, line[1 : line.index(" ")]
