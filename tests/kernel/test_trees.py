"""Directories as hostile as a container makes them: walked, measured and removed."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

from kubesvc.kernel.trees import remove_tree, used_bytes, walk_tree


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A directory 3,000 levels deep, whose names together are longer than any path may be, with a file at its end."""
    top = tmp_path / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(3000):
        os.mkdir("directory", dir_fd=here)
        below = os.open("directory", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    file = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(file, b"x" * 100_000)
    os.close(file)
    os.close(here)
    return top


def test_depth_is_no_obstacle(deep: Path) -> None:
    gc.collect()  # what earlier tests left is not closed meanwhile
    held = len(os.listdir("/proc/self/fd"))
    assert sys.getrecursionlimit() < 3000
    assert sum(1 for _ in walk_tree(deep)) == 3001
    assert used_bytes(deep) >= 100_000
    remove_tree(deep)
    assert not deep.exists()
    assert len(os.listdir("/proc/self/fd")) == held


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside, top = tmp_path / "outside", tmp_path / "top"
    for directory in (outside, top, top / "a", top / "a" / "b"):
        directory.mkdir()
    (outside / "file").write_bytes(b"x" * 50_000)
    (top / "a" / "out").symlink_to(outside)
    (top / "a" / "b" / "up").symlink_to("../..")
    (top / "a" / "b" / "dangling").symlink_to("nowhere")
    os.mkfifo(top / "a" / "pipe")
    assert used_bytes(top) < 50_000
    assert {entry.name for _, entries in walk_tree(top) for entry in entries} == {"out", "up", "dangling", "pipe"}
    remove_tree(top)
    assert not top.exists() and (outside / "file").exists()


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 50_000)
    before = used_bytes(tmp_path)
    os.link(tmp_path / "one", tmp_path / "two")
    assert used_bytes(tmp_path) == before


def test_directories_without_rights_are_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "closed" / "inner").mkdir(parents=True)
    (top / "closed" / "inner" / "file").touch()
    (top / "closed").chmod(0)
    remove_tree(top)
    assert not top.exists()


def test_names_that_look_like_ours(tmp_path: Path) -> None:
    """A directory that is named as removal names what it has moved is no obstacle, full or empty."""
    top = tmp_path / "top"
    for name in (".removed-1", ".removed-2", "a"):
        (top / name / "x" / ".removed-3").mkdir(parents=True)
        (top / name / "x" / "file").touch()
    remove_tree(top)
    assert not top.exists()


def test_what_is_not_there_and_what_is_no_directory(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")
    (tmp_path / "file").touch()
    remove_tree(tmp_path / "file")
    (tmp_path / "link").symlink_to("/etc")
    remove_tree(tmp_path / "link")
    assert list(tmp_path.iterdir()) == [] and used_bytes(tmp_path / "nothing") == 0
