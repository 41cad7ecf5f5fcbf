"""What is left of volumes whose objects are gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubesvc.instance import ground
from kubesvc.instance.leftovers import forget_volumes, remove_files
from kubesvc.instance.paths import InstancePaths
from kubesvc.node.localvolumes import DIRECTORY, LocalVolumes


def test_volumes_of_a_store_that_is_gone_are_forgotten_and_nothing_else(tmp_path: Path) -> None:
    paths = InstancePaths(tmp_path / "t")
    for node in ("n1", "n2"):
        made = LocalVolumes(paths.node(node) / DIRECTORY).make("pvc-1_ns_data")
        (made / "file").write_text("x")
        assert made.parent == paths.volumes(node), "both sides mean the same place"
        (paths.node(node) / "node.json").write_text("{}")
    forget_volumes(paths)
    assert sorted(str(p.relative_to(paths.root)) for p in paths.root.rglob("*")) == [
        "nodes", "nodes/n1", "nodes/n1/node.json", "nodes/n2", "nodes/n2/node.json"
    ]  # fmt: skip
    forget_volumes(paths)


def test_what_will_not_go_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No directory is taken for removed that is still there."""
    monkeypatch.setattr("kubesvc.instance.leftovers.remove_tree", lambda _: None)
    monkeypatch.setattr(ground, "is_root", lambda: True)
    monkeypatch.setattr("shutil.rmtree", lambda path: (_ for _ in ()).throw(PermissionError(13, "no", str(path))))
    (tmp_path / "held").mkdir()
    with pytest.raises(PermissionError):
        remove_files(tmp_path / "held")
