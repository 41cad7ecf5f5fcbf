"""Makes the claims of pods' ephemeral volumes, which live and die with their pod."""

from __future__ import annotations

from kubesvc.api.errors import AlreadyExists
from kubesvc.api.kinds import PERSISTENT_VOLUME_CLAIM, POD
from kubesvc.api.meta import Object, controller_reference
from kubesvc.api.persistentvolumeclaim import PersistentVolumeClaim
from kubesvc.api.pod import Pod
from kubesvc.api.volume import Volume
from kubesvc.client.workqueue import Key

from .podclaims import by_claim, claim_name, made_for
from .runner import Controller, ControllerContext, ExpectedFailure, closing, key_of
from .slimpod import pods_of


class EphemeralVolumeController(Controller):
    """Keys are pods."""

    name = "ephemeral-volume-controller"
    component = "ephemeral_volume"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.pods = pods_of(ctx.informers)
        self.claims = ctx.informers.of(PERSISTENT_VOLUME_CLAIM)
        self.pods_of_claim = by_claim(self.pods)
        self.pods.on_change(self.pod_moved)
        self.claims.on_change(self.claim_moved)

    def pod_moved(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and not new.terminating and any(v.ephemeral is not None for v in new.spec.volumes or ()):
            self.queue.add(key_of(new))

    def claim_moved(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        """A claim that went may be one that a pod still needs."""
        if new is None and old is not None:
            for pod in self.pods_of_claim.get(f"{old.namespace}/{old.name}"):
                self.pod_moved(None, pod)

    async def reconcile(self, key: Key) -> None:
        pod = self.pods.get(key)
        if pod is None or pod.terminating or pod.terminal:
            return
        for volume in pod.spec.volumes or ():
            if volume.ephemeral is not None:
                await self.make(pod, volume)

    async def make(self, pod: Pod, volume: Volume) -> None:
        """The claim of one volume. One of that name that is not the pod's own is never used."""
        name = claim_name(pod, volume)
        found = self.claims.get((pod.namespace, name))
        if found is not None:
            if not made_for(pod, found):
                raise ExpectedFailure(
                    f"PVC {pod.namespace}/{name} was not created for pod {pod.namespace}/{pod.name} (pod is not owner)"
                )
            return
        try:
            await self.client.create(PERSISTENT_VOLUME_CLAIM, render_claim(pod, volume), pod.namespace)
        except AlreadyExists:
            raise
        except Exception as error:
            if not closing(error):
                text = f"ephemeral volume {volume.name}: create PVC {name}: {error}"
                self.events.event(POD, pod, "Warning", "EphemeralVolumeCreationFailed", text)
            raise


def render_claim(pod: Pod, volume: Volume) -> Object:
    """The plain claim of an ephemeral volume."""
    template = (volume.ephemeral or {}).get("volumeClaimTemplate") or {}
    source = template.get("metadata") or {}
    meta: Object = {
        "name": claim_name(pod, volume),
        "ownerReferences": [controller_reference(pod, "v1", "Pod")],
    }
    meta |= {part: dict(source[part]) for part in ("annotations", "labels") if source.get(part)}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": meta,
        "spec": template.get("spec") or {},
    }
