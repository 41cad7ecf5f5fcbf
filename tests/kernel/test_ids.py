"""Which ids a process may take on, by the maps of its user namespace."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubesvc.kernel.ids import ALL_IDS, Ids, parse_map, read_ids

ONE = Ids(((0, 1),), ((0, 1),), may_set_groups=False)
GRANTED = Ids(((0, 1), (1, 65536)), ((0, 1), (1, 65536)))

CASES = (
    ("root always exists", ONE, (0, 0, ()), ""),
    ("root's own group asked for as a further one is no change", ONE, (0, 0, (0,)), ""),
    ("one id: another user does not exist", ONE, (1000, 0, ()), "no such user here: 1000"),
    ("one id: another group does not exist", ONE, (0, 1000, ()), "no such group here: 1000"),
    ("one id: nor does a further group", ONE, (0, 0, (0, 2000)), "no such group here: 2000"),
    ("subordinate ids: users within the grant exist", GRANTED, (1000, 1000, (2000,)), ""),
    ("subordinate ids: the last one", GRANTED, (65536, 65536, ()), ""),
    ("subordinate ids: none past the grant", GRANTED, (65537, 0, ()), "no such user here: 65537"),
    ("the machine's root has them all", ALL_IDS, (4_000_000_000, 7, (8,)), ""),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_missing_ids(case: tuple[str, Ids, tuple[int, int, tuple[int, ...]], str]) -> None:
    _, ids, (user, group, more), words = case
    said = ids.missing(user, group, more)
    assert said.startswith(words) and bool(said) == bool(words)
    assert not said or "newuidmap" in said, "says what would help"


def test_maps_are_read_as_the_kernel_prints_them(tmp_path: Path) -> None:
    assert parse_map("         0      65534          1\n         1     100000      65536\n") == ((0, 1), (1, 65536))
    for name, text in (("uid_map", "0 65534 1\n"), ("gid_map", "0 65534 1\n"), ("setgroups", "deny\n")):
        (tmp_path / name).write_text(text)
    assert read_ids(tmp_path) == ONE
    assert read_ids(tmp_path / "absent") == ALL_IDS
    assert not read_ids().missing(0, 0)
