"""What stands behind a Pod's claims: the volume of each, as a place of this node; or why the Pod cannot have it yet."""

from __future__ import annotations

import os

import msgspec

from kubesvc.api.errors import ApiError
from kubesvc.api.kinds import PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM
from kubesvc.api.meta import typed
from kubesvc.api.persistentvolume import PersistentVolume
from kubesvc.api.persistentvolumeclaim import PersistentVolumeClaim
from kubesvc.api.pod import Pod
from kubesvc.api.volume import HostPathVolumeSource, Volume
from kubesvc.client import Client

from .volumes import VolumeProblem


class ClaimProblem(VolumeProblem):
    """A claim has no volume that the Pod may use (yet)."""


class NotMounted(VolumeProblem):
    """A volume is not where it should be; `step` is what failed, in the words of an event."""

    def __init__(self, step: str, words: str) -> None:
        super().__init__(words)
        self.step = step


def claim_name(pod: Pod, volume: Volume) -> str:
    """The claim behind a volume of a Pod, "" if there is none."""
    if volume.persistent_volume_claim is not None:
        return volume.persistent_volume_claim.claim_name
    return f"{pod.name}-{volume.name}" if volume.ephemeral is not None else ""


async def fetch_volume(client: Client, pod: Pod, name: str, *, running: bool) -> PersistentVolume:
    """The volume that a claim of the Pod is bound to. Raises ClaimProblem.

    running: the Pod has it already, so that a claim that is being deleted is no obstacle
    """
    here = f"error processing PVC {pod.namespace}/{name}"
    try:
        found = await client.get(PERSISTENT_VOLUME_CLAIM, name, pod.namespace)
    except ApiError as error:
        raise ClaimProblem(f"{here}: failed to fetch PVC from API server: {error}") from None
    claim = typed(found, PersistentVolumeClaim)
    if claim.metadata.deletion_timestamp is not None and not running:
        raise ClaimProblem(f"{here}: can't use PVC because it is being deleted")
    if claim.status.phase != "Bound" or not claim.spec.volume_name:
        raise ClaimProblem(f"{here}: PVC is not bound")
    try:
        volume = typed(await client.get(PERSISTENT_VOLUME, claim.spec.volume_name), PersistentVolume)
    except ApiError as error:
        raise ClaimProblem(f"{here}: failed to fetch PV {claim.spec.volume_name} from API server: {error}") from None
    if problem := unbound(volume, claim):
        raise ClaimProblem(f"{here}: {problem}")
    return volume


def unbound(volume: PersistentVolume, claim: PersistentVolumeClaim) -> str:
    """Why a volume is not the claim's, "" if it is."""
    ref = volume.spec.claim_ref
    if ref is None:
        return f"found PV object {volume.name} with nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
    if ref.uid != claim.metadata.uid:
        return (
            f"found PV object {volume.name} with a pv.Spec.ClaimRef.UID {ref.uid} that does not point to claim.UID "
            f"{claim.metadata.uid}"
        )
    if volume.spec.volume_mode == "Block":
        return f"volume {volume.name} has volumeMode Block, but is specified in volumeMounts"
    return ""


def as_directory(volume: Volume, behind: PersistentVolume) -> Volume:
    """A Pod's volume as the place of this machine that its claim stands for. Raises NotMounted."""
    if behind.spec.host_path is not None:
        return msgspec.structs.replace(volume, host_path=behind.spec.host_path)
    if behind.spec.local is None:
        raise NotMounted("MountVolume.SetUp failed", "this node knows no volumes of its kind")
    path = behind.spec.local.path
    if not os.path.exists(path):
        raise NotMounted("MountVolume.NewMounter initialization failed", f'path "{path}" does not exist')
    return msgspec.structs.replace(volume, host_path=HostPathVolumeSource(path=path, type=""))
