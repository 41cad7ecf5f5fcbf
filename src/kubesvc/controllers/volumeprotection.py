"""Keeps claims and volumes that are being deleted until nobody uses them, by a finalizer of each."""

from __future__ import annotations

import msgspec

from kubesvc.api.kind import Kind
from kubesvc.api.kinds import PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM
from kubesvc.api.meta import Typed
from kubesvc.api.persistentvolume import PersistentVolume
from kubesvc.api.persistentvolumeclaim import PersistentVolumeClaim
from kubesvc.api.pod import POD, Pod
from kubesvc.client.interface import Client
from kubesvc.client.workqueue import Key

from .podclaims import by_claim, claim_name, claim_names, made_for
from .runner import Controller, ControllerContext, key_of
from .slimpod import pods_of
from .versioned import set_finalizers

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"

_pods = msgspec.json.Decoder(Pod)


def uses(pod: Pod, claim: PersistentVolumeClaim) -> bool:
    """Whether a pod holds a claim: it has a node, and whether it runs or has ended makes no difference.

    A pod without a node is held back instead, since the claim is being deleted.
    """
    if not pod.spec.node_name:
        return False
    return any(
        claim_name(pod, volume) == claim.name
        and (volume.ephemeral is None or (made_for(pod, claim) and not shut_down(pod)))
        for volume in pod.spec.volumes or ()
    )


def shut_down(pod: Pod) -> bool:
    """Whether nothing of a pod runs any more and its object is about to go."""
    return pod.terminating and pod.metadata.deletion_grace_period_seconds == 0


async def protect(client: Client, kind: Kind, obj: Typed, finalizer: str, *, used: bool) -> None:
    """Give a finalizer to what lives and lacks it, and take it from what is being deleted and not used."""
    held = obj.metadata.finalizers or []
    if obj.metadata.deletion_timestamp is None:
        if finalizer not in held:
            await set_finalizers(client, kind, obj, [*held, finalizer], put=True)
    elif finalizer in held and not used:
        await set_finalizers(client, kind, obj, [f for f in held if f != finalizer], put=True)


class ClaimProtection(Controller):
    """Keys are claims."""

    name = "persistentvolumeclaim-protection-controller"
    component = "pvc-protection-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.claims = ctx.informers.of(PERSISTENT_VOLUME_CLAIM)
        self.pods = pods_of(ctx.informers)
        self.pods_of_claim = by_claim(self.pods)
        self.claims.on_change(self.claim_moved)
        self.pods.on_change(self.pod_moved)

    def claim_moved(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        if new is not None and (
            new.metadata.deletion_timestamp is not None or CLAIM_FINALIZER not in (new.metadata.finalizers or ())
        ):
            self.queue.add(key_of(new))

    def pod_moved(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            if pod is not None and pod.spec.volumes:
                for name in claim_names(pod):
                    self.queue.add((pod.namespace, name))

    async def reconcile(self, key: Key) -> None:
        claim = self.claims.get(key)
        if claim is None:
            return
        used = any(uses(pod, claim) for pod in self.pods_of_claim.get(f"{claim.namespace}/{claim.name}"))
        if claim.metadata.deletion_timestamp is not None and not used:
            used = await self.used_now(claim)
        await protect(self.client, PERSISTENT_VOLUME_CLAIM, claim, CLAIM_FINALIZER, used=used)

    async def used_now(self, claim: PersistentVolumeClaim) -> bool:
        """Whether the server knows of a pod that uses the claim and that the cache lacks."""
        found = await self.client.list_raw(POD, claim.namespace)
        quoted = msgspec.json.encode(claim.name)
        derived = claim.metadata.controller is not None  # its name may stand nowhere in its pod
        return any(uses(_pods.decode(raw), claim) for raw in found.items if derived or quoted in raw)


class VolumeProtection(Controller):
    """Keys are volumes."""

    name = "persistentvolume-protection-controller"
    component = "pv-protection-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.volumes = ctx.informers.of(PERSISTENT_VOLUME)
        self.volumes.on_change(self.volume_moved)

    def volume_moved(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        if new is not None:
            self.queue.add(key_of(new))

    async def reconcile(self, key: Key) -> None:
        volume = self.volumes.get(key)
        if volume is not None:
            used = volume.status.phase == "Bound"
            await protect(self.client, PERSISTENT_VOLUME, volume, VOLUME_FINALIZER, used=used)
