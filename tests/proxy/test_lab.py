"""The laboratory itself: who was killed leaves namespaces behind, and the next one removes those and no others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .lab import NAMED, Lab, made_by, remove_leftovers


def add(name: str) -> Path:
    subprocess.run(["ip", "netns", "add", name], check=True)
    return NAMED / name


def test_only_what_the_dead_left_is_removed(lab: Lab) -> None:
    mine = made_by(os.getpid())
    pid, _, _ = mine.removeprefix("kt").partition("x")
    dead = subprocess.Popen(["sleep", "0"])
    dead.wait()  # its number is nobody's now
    living = [add(f"{mine}test"), add(f"kt-{pid}-stranger")]
    left = [add(f"kt{dead.pid}x17-a"), add(f"kt{pid}x1-b")]
    try:
        assert set(remove_leftovers()) >= {path.name for path in left}
        assert [path.exists() for path in left] == [False, False]
        assert [path.exists() for path in living] == [True, True]
        assert (NAMED / f"{lab.prefix}a").exists()
    finally:
        for path in (*living, *left):
            subprocess.run(["ip", "netns", "delete", path.name], check=False, capture_output=True)
