"""The bounded journal: order, bound, a torn last line, a disk that does not take it."""

from __future__ import annotations

import json
from pathlib import Path

from kubesvc.instance.journal import HOPS, TIMELINE, Journal, Tail, forget_journals, older, read_lines


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["n"] for line in read_lines(path)]


def test_lines_come_back_in_order_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "j"
    for start in (0, 3):
        journal = Journal(path)
        for n in range(start, start + 3):
            journal.write({"n": n})
        journal.close()
    assert numbers(path) == list(range(6))


def test_it_never_holds_more_than_twice_its_bound_and_keeps_the_newest(tmp_path: Path) -> None:
    path, journal = tmp_path / "j", Journal(tmp_path / "j", most_bytes=2000)
    for n in range(2000):
        journal.write({"n": n})
    assert path.stat().st_size <= 2000 and older(path).stat().st_size <= 2000
    kept = numbers(path)
    assert kept[-1] == 1999 and kept == list(range(kept[0], 2000)) and len(kept) > 100


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b'{"n":1}\n{"n":')
    assert numbers(path) == [1]


def test_where_nothing_can_be_written_nothing_fails(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "none" / "j")
    journal.write({"n": 1})
    assert list(read_lines(tmp_path / "none" / "j")) == []


def test_a_tail_gives_what_is_added_also_over_a_turn_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path, most_bytes=300)
    journal.write({"n": 0})
    tail, seen = Tail(path), []
    for n in range(1, 200):
        journal.write({"n": n})
        if n % 3 == 0:
            seen += [json.loads(line)["n"] for line in tail.fresh()]
    assert seen == list(range(1, 199)) and tail.fresh() != [] and tail.fresh() == []


def test_a_tail_of_a_file_that_comes_later(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "j")
    assert tail.fresh() == []
    Journal(tmp_path / "j").write({"n": 1})
    assert tail.fresh() == [b'{"n":1}']


def test_journals_of_forgotten_objects_are_forgotten(tmp_path: Path) -> None:
    """Those of every node, with their older halves; what else is there stays."""
    node = tmp_path / "nodes" / "n1"
    node.mkdir(parents=True)
    for file in (tmp_path / TIMELINE, tmp_path / f"{TIMELINE}.1", node / HOPS, node / f"{HOPS}.1", node / "node.log"):
        file.write_text("{}\n")
    forget_journals(tmp_path)
    assert [p.name for p in sorted(tmp_path.rglob("*")) if p.is_file()] == ["node.log"]
    forget_journals(tmp_path)
