"""Volumes behind claims on a node: what stands there, what is missing, and the directories of the node itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubesvc.api.container import Container, VolumeMount
from kubesvc.api.meta import typed
from kubesvc.api.persistentvolume import PersistentVolume
from kubesvc.api.persistentvolumeclaim import PersistentVolumeClaim
from kubesvc.api.volume import PersistentVolumeClaimVolumeSource, Volume
from kubesvc.node.claims import NotMounted, as_directory, unbound
from kubesvc.node.localvolumes import LocalVolumes
from kubesvc.node.volumes import plan_mounts

CLAIM = typed({"metadata": {"name": "c", "namespace": "ns", "uid": "u"}}, PersistentVolumeClaim)
OWN = Volume(name="v", persistent_volume_claim=PersistentVolumeClaimVolumeSource(claim_name="c", read_only=True))


def disk(**spec: Any) -> PersistentVolume:
    return typed({"metadata": {"name": "d"}, "spec": spec}, PersistentVolume)


UNBOUND = (
    ("nobody's", disk(), "found PV object d with nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"),
    ("another's", disk(claimRef={"uid": "x"}),
     "found PV object d with a pv.Spec.ClaimRef.UID x that does not point to claim.UID u"),
    ("a block device", disk(claimRef={"uid": "u"}, volumeMode="Block"),
     "volume d has volumeMode Block, but is specified in volumeMounts"),
    ("its own", disk(claimRef={"uid": "u"}), ""),
)  # fmt: skip


@pytest.mark.parametrize(("found", "words"), [row[1:] for row in UNBOUND], ids=[row[0] for row in UNBOUND])
def test_whether_a_volume_is_the_claims(found: PersistentVolume, words: str) -> None:
    assert unbound(found, CLAIM) == words


def test_a_claim_stands_for_a_place_of_the_machine(tmp_path: Path) -> None:
    made = as_directory(OWN, disk(hostPath={"path": "/x", "type": "DirectoryOrCreate"}))
    assert made.host_path is not None and (made.host_path.path, made.host_path.type) == ("/x", "DirectoryOrCreate")
    local = as_directory(OWN, disk(local={"path": str(tmp_path)}))
    assert local.host_path is not None and local.host_path.path == str(tmp_path)
    with pytest.raises(NotMounted, match='path "/no/such" does not exist') as missing:
        as_directory(OWN, disk(local={"path": "/no/such"}))
    assert missing.value.step == "MountVolume.NewMounter initialization failed"
    with pytest.raises(NotMounted, match="no volumes of its kind"):
        as_directory(OWN, disk(nfs={"server": "s", "path": "/"}))


def test_a_claim_is_mounted_to_be_written_unless_it_says_otherwise() -> None:
    writable = Volume(name="w", persistent_volume_claim=PersistentVolumeClaimVolumeSource(claim_name="c"))
    own = Volume(name="e", ephemeral={"volumeClaimTemplate": {}})
    volumes = {v.name: v for v in (OWN, writable, own)}
    mounts = [VolumeMount(name=name, mount_path=f"/{name}") for name in volumes]
    places = {name: Path("/places") / name for name in volumes}
    planned = plan_mounts(Container(name="x", volume_mounts=mounts), places, volumes, {})
    assert [(m.target, m.read_only, m.make) for m in planned] == [
        ("/v", True, True), ("/w", False, True), ("/e", False, True)
    ]  # fmt: skip


def test_directories_are_made_for_everybody_and_removed_whole(tmp_path: Path) -> None:
    volumes = LocalVolumes(tmp_path / "deep" / "volumes")
    place = volumes.make("pvc-1_ns_data")
    assert place == volumes.make("pvc-1_ns_data") and place.stat().st_mode & 0o777 == 0o777
    (place / "a" / "b").mkdir(parents=True)
    (place / "link").symlink_to(tmp_path)
    volumes.remove(str(place))
    volumes.remove(str(place))
    assert not place.exists() and tmp_path.exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "x" * 300])
def test_no_other_directory_is_touched(name: str, tmp_path: Path) -> None:
    volumes = LocalVolumes(tmp_path / "volumes")
    with pytest.raises(ValueError, match="is no name of a volume"):
        volumes.make(name)
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "other", tmp_path / "volumes" / ".." / "other", Path("/etc")):
        with pytest.raises(ValueError, match="is no volume of this node"):
            volumes.remove(str(path))
    assert (tmp_path / "other").exists()
