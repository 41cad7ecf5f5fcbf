"""How full the kernel's table of connections is, from its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubesvc.kernel.room import Crowding, Room, read_room

COLUMNS = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop"
ROWS = (  # as of two processors
    "00000a00  00000000 00000000 00000000 00000003 00000000 00000000 00000000 00000000 00000000 0000000f 00000002",
    "00000a00  00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000000 000000f0 00000000",
)


def proc(at: Path, count: str = "2560", most: str = "262144", stat: str = "\n".join((COLUMNS, *ROWS))) -> Path:
    for name, text in (
        ("sys/net/netfilter/nf_conntrack_count", count),
        ("sys/net/netfilter/nf_conntrack_max", most),
        ("thread-self/net/stat/nf_conntrack", stat),
    ):
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_text(text + "\n")
    return at


def test_the_kernels_files_are_read(tmp_path: Path) -> None:
    """What was dropped is written in hexadecimal, one line for each processor."""
    assert read_room(proc(tmp_path)) == Room(2560, 262_144, lost=255)


@pytest.mark.parametrize(
    ("count", "most", "stat"), [("many", "1", COLUMNS), ("1", "1", f"{COLUMNS}\n{'zz ' * 12}"), ("1", "", COLUMNS)]
)
def test_what_is_not_readable_is_not_known(tmp_path: Path, count: str, most: str, stat: str) -> None:
    assert read_room(proc(tmp_path, count, most, stat)) is None
    assert read_room(tmp_path / "nothing") is None, "a kernel that tracks no connections"


@pytest.mark.parametrize(
    ("now", "before", "wanted"),
    [
        (Room(10, 100), None, ""),
        (Room(10, 100, lost=7), Room(10, 100, lost=1), ""),  # packets are lost for other reasons too
        (Room(89, 100), None, ""),
        (Room(90, 100), None, "nearly full"),
        (Room(95, 100, lost=3), Room(94, 100, lost=3), "nearly full"),
        (Room(95, 100, lost=4), Room(94, 100, lost=3), "full"),
        (Room(100, 100), None, "full"),
        (Room(0, 0), None, ""),  # a most of 0 is none
    ],
)
def test_how_short_of_room(now: Room, before: Room | None, wanted: Crowding) -> None:
    assert now.crowding(before) == wanted
    assert (wanted or "kernel") in now.sentence(before) or not wanted
    assert bool(now.sentence(before)) == bool(wanted)
