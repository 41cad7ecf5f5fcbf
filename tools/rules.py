"""Which rules of the behaviour specification the tests cite, and which they do not.

    python tools/rules.py [--section 5] [--cited] [--strict]

The specification lies beside the checkout (`../shared/behaviour`); without it there is nothing to report. A test cites
a rule by its id anywhere in its file: `SLICE-21`, `SLICE-19 to 24`, `SLICE-19 to SLICE-24`, `LIST-4, -6`. This reports
and does not fail, unless --strict asks for it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEHAVIOUR = ROOT.parent / "shared" / "behaviour"
ROW = re.compile(r"^(?:\| ([A-Z]+(?:-[A-Z]+)?-\d+[a-z]?) (.*)\||- ([A-Z]+(?:-[A-Z]+)?-\d+[a-z]?) (.*))\s*$")
"""A rule is a row of a table or an item of a list."""
HEADING = re.compile(r"^## (.+)$")
CITED = re.compile(r"\b([A-Z]{2,})-(\d+[a-z]?)\b((?:\s*(?:,|and|or|to|–)\s*(?:\1)?-?\d+[a-z]?\b)*)")
FURTHER = re.compile(r"(,|and|or|to|–)\s*(?:[A-Z]{2,}-|-)?(\d+[a-z]?)")


def rules(folder: Path) -> dict[str, tuple[str, str]]:
    """Every rule of the specification: its section and its text, by id."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.glob("*.md")):
        section = path.stem
        for line in path.read_text().splitlines():
            if heading := HEADING.match(line):
                section = f"{path.stem}: {heading[1]}"
            elif row := ROW.match(line):
                found[row[1] or row[3]] = (section, (row[2] or row[4]).strip(" |"))
    return found


def citations(text: str) -> Iterator[str]:
    """The ids that a text cites, ranges spelled out."""
    for match in CITED.finditer(text):
        topic, last = match[1], match[2]
        yield f"{topic}-{last}"
        for joint, number in FURTHER.findall(match[3]):
            if joint in ("to", "–"):
                first, until = (int(n.rstrip("abcdefghijklmnopqrstuvwxyz")) for n in (last, number))
                yield from (f"{topic}-{i}" for i in range(first + 1, until))
            last = number
            yield f"{topic}-{last}"


def cited_by(tests: Path, known: dict[str, tuple[str, str]]) -> dict[str, list[str]]:
    """The test files that cite each rule."""
    found: dict[str, list[str]] = {rule: [] for rule in known}
    for path in sorted(tests.rglob("*.py")):
        name = str(path.relative_to(tests))
        for rule in dict.fromkeys(citations(path.read_text())):
            if rule in found:
                found[rule].append(name)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", default="", help="only sections whose title begins with, or contains, this")
    parser.add_argument("--cited", action="store_true", help="list what is cited too, and by which files")
    parser.add_argument("--strict", action="store_true", help="fail if a rule is cited by no test")
    arguments = parser.parse_args()
    if not BEHAVIOUR.is_dir():
        print(f"{BEHAVIOUR}: absent, no rules to look for")
        return 0
    known = rules(BEHAVIOUR)
    found = cited_by(ROOT / "tests", known)
    sections: dict[str, list[str]] = {}
    for rule, (section, _) in known.items():
        sections.setdefault(section, []).append(rule)
    for section, members in sections.items():
        if arguments.section not in section:
            continue
        bare = [r for r in members if not found[r]]
        print(f"{section}: {len(members) - len(bare)} of {len(members)} cited")
        if bare:
            print("    not cited: " + " ".join(bare))
        if arguments.cited:
            for rule in members:
                if found[rule]:
                    print(f"    {rule}: {', '.join(found[rule])}")
    total = sum(not f for f in found.values())
    print(f"{len(known) - total} of {len(known)} rules are cited by tests")
    return 1 if arguments.strict and total else 0


if __name__ == "__main__":
    sys.exit(main())
