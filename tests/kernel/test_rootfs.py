"""Parts of volumes: what is made of them, and what is left alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kubesvc.kernel.rootfs import Root


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_part_that_is_made_is_as_open_as_its_volume(tmp_path: Path) -> None:
    """A container of any user writes into a subPath of an emptyDir, whose directory everybody may write."""
    volume = tmp_path / "v"
    (volume / "held").mkdir(parents=True)
    (volume / "held").chmod(0o700)
    volume.chmod(0o2777)
    os.close(Root(str(volume)).part("held/a/b/", make=True))
    assert [mode(volume / name) for name in ("held", "held/a", "held/a/b")] == [0o700, 0o2777, 0o2777]
    (volume / "held/a").chmod(0o750)
    os.close(Root(str(volume)).part("held/a", make=True))
    assert mode(volume / "held/a") == 0o750


def test_a_part_is_made_only_where_it_may_be_and_inside(tmp_path: Path) -> None:
    volume, other = tmp_path / "v", tmp_path / "other"
    volume.mkdir()
    other.mkdir()
    with pytest.raises(FileNotFoundError):
        Root(str(volume)).part("a", make=False)
    assert not (volume / "a").exists()
    (volume / "link").symlink_to("../other")
    (volume / "other").mkdir()
    os.close(Root(str(volume)).part("link/a", make=True))
    assert (volume / "other/a").is_dir() and not list(other.iterdir())
