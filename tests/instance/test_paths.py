"""Where instances keep their files, and which names they may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubesvc.instance.paths import BadName, InstancePaths, all_instances


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "kubesvc"


@pytest.mark.parametrize("name", ["default", "a", "ci-7", "0"])
def test_good_names(name: str, state: Path) -> None:
    assert InstancePaths.of(name).root == state / name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a" * 33, "ä", "alone"])
def test_bad_names(name: str) -> None:
    with pytest.raises(BadName, match="cannot be the name"):
        InstancePaths.of(name)


def test_a_state_directory_too_deep_for_sockets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/" + "x" * 80)
    with pytest.raises(BadName, match="XDG_STATE_HOME"):
        InstancePaths.of("default")


def test_a_relative_state_home_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/u")
    assert InstancePaths.of("a").root == Path("/home/u/.local/state/kubesvc/a")


def test_all_instances(state: Path) -> None:
    assert all_instances() == []
    for name in ("b", "a", "Not One", "alone"):
        (state / name).mkdir(parents=True)
    assert [p.name for p in all_instances()] == ["a", "b"]
