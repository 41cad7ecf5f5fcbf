"""Which claims a pod uses: those it names, and those that are made for its ephemeral volumes. Pure."""

from __future__ import annotations

from kubesvc.api.persistentvolumeclaim import PersistentVolumeClaim
from kubesvc.api.pod import Pod
from kubesvc.api.volume import Volume
from kubesvc.client.informer import Index, Informer


def claim_name(pod: Pod, volume: Volume) -> str:
    """The claim behind a volume of a pod, "" if there is none."""
    if volume.persistent_volume_claim is not None:
        return volume.persistent_volume_claim.claim_name
    return f"{pod.name}-{volume.name}" if volume.ephemeral is not None else ""


def claim_names(pod: Pod) -> list[str]:
    """The claims of a pod, in the order of its volumes, each once."""
    found = (claim_name(pod, v) for v in pod.spec.volumes or ())
    return list(dict.fromkeys(name for name in found if name))


def made_for(pod: Pod, claim: PersistentVolumeClaim) -> bool:
    """Whether a claim was made for an ephemeral volume of this very pod."""
    owner = claim.metadata.controller
    return owner is not None and owner.uid == pod.metadata.uid


def by_claim(pods: Informer[Pod]) -> Index[Pod]:
    """The pods that name a claim, by NAMESPACE/NAME."""
    return pods.index("claim", lambda p: [f"{p.namespace}/{name}" for name in claim_names(p)])
