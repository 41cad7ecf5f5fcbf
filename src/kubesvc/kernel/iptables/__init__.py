"""iptables: rules and tables as values, the door to the system's programs and a fake as strict.

`rules` what a rule is made of · `tables` what `iptables-restore` makes of a text · `text` rules written out ·
`door` the real one and the fake · `walk` what becomes of a packet.
"""

from .door import Abilities, FakeIptables, Iptables, KernelIptables, probe
from .rules import BadRule, Rule, parse_rule, words_of
from .tables import IptablesError, Tables, apply_restore, chain_names, fresh_tables, parse_save

__all__ = [
    "Abilities",
    "BadRule",
    "FakeIptables",
    "Iptables",
    "IptablesError",
    "KernelIptables",
    "Rule",
    "Tables",
    "apply_restore",
    "chain_names",
    "fresh_tables",
    "parse_rule",
    "parse_save",
    "probe",
    "words_of",
]
