"""Volumes that are directories of nodes: the provisioner `rancher.io/local-path`, and its class `standard`.

A claim of such a class gets a directory on the node that the scheduler chose for its first pod, and a volume that can
be used there alone. When the volume is released and to be deleted, the directory goes before it. The directories are
made and removed by their nodes, which `settings.local_volumes` reaches; without it nothing is provisioned.
"""

from __future__ import annotations

from typing import Protocol

from kubesvc.api.errors import AlreadyExists, NotFound
from kubesvc.api.kinds import NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS
from kubesvc.api.meta import Object
from kubesvc.api.node import Node
from kubesvc.api.persistentvolume import PersistentVolume
from kubesvc.api.persistentvolumeclaim import SELECTED_NODE, PersistentVolumeClaim
from kubesvc.api.quantity import canonical
from kubesvc.api.storageclass import StorageClass
from kubesvc.client.workqueue import Key, RetryPolicy

from .runner import Controller, ControllerContext, ExpectedFailure, key_of
from .versioned import put_change
from .volumebinding_plan import (
    OLD_PROVISIONER,
    PROVISIONED_BY,
    PROVISIONER,
    bind_completed,
    claim_class,
    claim_reference,
)

PROVISIONER_NAME = "rancher.io/local-path"
CLASS_NAME = "standard"
HOSTNAME = "kubernetes.io/hostname"
HELD_BY = "local.path.provisioner/selected-node"


class DirectoryRefused(Exception):
    """A node could not make or remove a directory, or was not reached; the text says why."""


class LocalVolumes(Protocol):
    """Directories of nodes."""

    async def make(self, node: str, name: str) -> str:
        """Make a directory for a volume, or find the one there is; its path on the node. Raises DirectoryRefused."""
        ...

    async def remove(self, node: str, path: str) -> None:
        """Remove a directory that `make` made, with all that it holds; one that is gone already is no error. Raises
        DirectoryRefused."""
        ...


class FakeLocalVolumes:
    """Directories without a disk: what nodes hold now, and nodes that cannot be reached."""

    def __init__(self) -> None:
        self.held: dict[str, list[str]] = {}
        self.away: set[str] = set()

    async def make(self, node: str, name: str) -> str:
        self.reach(node)
        path = f"/volumes/{name}"
        if path not in self.held.setdefault(node, []):
            self.held[node].append(path)
        return path

    async def remove(self, node: str, path: str) -> None:
        self.reach(node)
        if path in self.held.get(node, []):
            self.held[node].remove(path)

    def reach(self, node: str) -> None:
        if node in self.away:
            raise DirectoryRefused(f"node {node} cannot be reached: No route to host")


class LocalPathProvisioner(Controller):
    """Keys are claims, and volumes, which have no namespace."""

    name = "local-path-provisioner"
    component = "rancher.io/local-path"
    policy = RetryPolicy(base_seconds=0.25, cap_seconds=30.0, most=0)

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.claims = ctx.informers.of(PERSISTENT_VOLUME_CLAIM)
        self.volumes = ctx.informers.of(PERSISTENT_VOLUME)
        self.classes = ctx.informers.of(STORAGE_CLASS)
        self.nodes = ctx.informers.of(NODE)
        self.orphans: dict[Key, PersistentVolume] = {}
        """Volumes whose objects went before their directories, by key."""
        self.emptied: set[str] = set()
        """Uids of volumes that are still there and whose directories are not."""
        self.claims.on_change(self.claim_moved)
        self.volumes.on_change(self.volume_moved)
        self.nodes.on_change(self.node_moved)

    def claim_moved(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        if new is not None and asks_us(new):
            self.queue.add(key_of(new))

    def volume_moved(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        if new is not None and removable(new):
            self.queue.add(key_of(new))
        elif new is None and old is not None and made_by_us(old) and deletes(old):
            if old.metadata.uid in self.emptied:
                self.emptied.discard(old.metadata.uid)
            elif old.status.phase != "Bound":
                self.orphans[key_of(old)] = old
                self.queue.add(key_of(old))

    def node_moved(self, old: Node | None, new: Node | None) -> None:
        if old is None and new is not None:
            return
        if new is None:  # its volumes can go, and its claims be placed anew
            for claim in self.claims.values():
                self.claim_moved(None, claim)
            for volume in self.volumes.values():
                self.volume_moved(None, volume)

    async def run_beside(self) -> None:
        """A new cluster begins with a default class; one that its user removed or replaced is not made again while
        there is any."""
        if self.ctx.settings.local_volumes is None or len(self.classes):
            return
        try:
            await self.client.create(STORAGE_CLASS, render_class())
        except AlreadyExists:
            return

    async def reconcile(self, key: Key) -> None:
        if self.ctx.settings.local_volumes is None:
            return
        if not key[0]:
            volume = self.volumes.get(key)
            orphan = self.orphans.get(key)
            if volume is not None and removable(volume):
                await self.remove(volume)
            elif orphan is not None and volume is None:
                try:
                    await self.remove_directory(self.ctx.settings.local_volumes, orphan)
                except DirectoryRefused as error:
                    raise ExpectedFailure(f"volume {orphan.name}, which is gone: {error}") from None
                del self.orphans[key]
            return
        claim = self.claims.get(key)
        found = self.classes.get(("", claim_class(claim))) if claim is not None else None
        if claim is not None and found is not None and found.provisioner == PROVISIONER_NAME and asks_us(claim):
            await self.provision(self.ctx.settings.local_volumes, claim, found)

    # -- making -------------------------------------------------------------------------------------------------------

    async def provision(self, places: LocalVolumes, claim: PersistentVolumeClaim, made_of: StorageClass) -> None:
        name = volume_name(claim)
        if self.volumes.get(("", name)) is not None:
            return  # the binder's turn
        text = f'External provisioner is provisioning volume for claim "{claim.namespace}/{claim.name}"'
        self.events.event(PERSISTENT_VOLUME_CLAIM, claim, "Normal", "Provisioning", text)
        node = self.nodes.get(("", claim.metadata.annotation(SELECTED_NODE)))
        try:
            if problem := unfit(claim, node):
                raise DirectoryRefused(problem)
            assert node is not None
            path = await places.make(node.name, directory_name(claim))
        except DirectoryRefused as error:
            await self.give_back(claim, node)
            words = f'failed to provision volume with StorageClass "{made_of.name}": {error}'
            self.events.event(PERSISTENT_VOLUME_CLAIM, claim, "Warning", "ProvisioningFailed", words)
            raise ExpectedFailure(f"{claim.namespace}/{claim.name}: {words}") from None
        try:
            await self.client.create(PERSISTENT_VOLUME, render_volume(claim, made_of, node, path))
        except AlreadyExists:
            return
        text = f"Successfully provisioned volume {name}"
        self.events.event(PERSISTENT_VOLUME_CLAIM, claim, "Normal", "ProvisioningSucceeded", text)

    async def give_back(self, claim: PersistentVolumeClaim, node: Node | None) -> None:
        """Let the scheduler choose again when the node that it chose is gone."""
        if node is not None or not claim.metadata.annotation(SELECTED_NODE):
            return
        change = {"metadata": {"annotations": {SELECTED_NODE: None}}}
        try:
            await put_change(self.client, PERSISTENT_VOLUME_CLAIM, claim, change)
        except NotFound:
            return

    # -- removing -----------------------------------------------------------------------------------------------------

    async def remove(self, volume: PersistentVolume) -> None:
        """The directory, then the volume."""
        assert self.ctx.settings.local_volumes is not None
        try:
            await self.remove_directory(self.ctx.settings.local_volumes, volume)
        except DirectoryRefused as error:
            self.events.event(PERSISTENT_VOLUME, volume, "Warning", "VolumeFailedDelete", str(error))
            raise ExpectedFailure(f"volume {volume.name}: {error}") from None
        self.emptied.add(volume.metadata.uid)
        try:
            await self.client.delete(PERSISTENT_VOLUME, volume.name, uid=volume.metadata.uid)
        except NotFound:
            return

    async def remove_directory(self, places: LocalVolumes, volume: PersistentVolume) -> None:
        node, path = node_of(volume), path_of(volume)
        if node and path and self.nodes.get(("", node)) is not None:  # what was on a node that is gone went with it
            await places.remove(node, path)


# ---------------------------------------------------------------- pure


def asks_us(claim: PersistentVolumeClaim) -> bool:
    """Whether the binder has asked for a volume of ours, and the claim waits for it."""
    annotations = claim.metadata.annotations or {}
    asked = annotations.get(PROVISIONER) or annotations.get(OLD_PROVISIONER)
    return asked == PROVISIONER_NAME and not claim.spec.volume_name and not bind_completed(claim)


def unfit(claim: PersistentVolumeClaim, node: Node | None) -> str:
    """Why no directory can be what the claim asks for, "" if one can."""
    chosen = claim.metadata.annotation(SELECTED_NODE)
    if claim.spec.selector is not None:
        return "claim.Spec.Selector is not supported"
    if claim.spec.volume_mode == "Block":
        return "block volume provisioning is not supported"
    if any(mode not in ("ReadWriteOnce", "ReadWriteOncePod") for mode in claim.spec.access_modes or ()):
        return "NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes"
    if not chosen:
        return "configuration error, no node was specified"
    return f'failed to get target node: node "{chosen}" not found' if node is None else ""


def volume_name(claim: PersistentVolumeClaim) -> str:
    return f"pvc-{claim.metadata.uid}"


def directory_name(claim: PersistentVolumeClaim) -> str:
    """Which a person finds again: the volume, and whose it is."""
    return f"{volume_name(claim)}_{claim.namespace}_{claim.name}"


def made_by_us(volume: PersistentVolume) -> bool:
    return volume.metadata.annotation(PROVISIONED_BY) == PROVISIONER_NAME


def deletes(volume: PersistentVolume) -> bool:
    return volume.spec.persistent_volume_reclaim_policy == "Delete"


def removable(volume: PersistentVolume) -> bool:
    """Whether a volume is ours to remove now."""
    return made_by_us(volume) and deletes(volume) and volume.status.phase == "Released"


def path_of(volume: PersistentVolume) -> str:
    source = volume.spec.host_path
    return source.path if source is not None else ""


def node_of(volume: PersistentVolume) -> str:
    """The node that holds a volume of ours, "" if it does not say."""
    return volume.metadata.annotation(HELD_BY)


def render_volume(claim: PersistentVolumeClaim, made_of: StorageClass, node: Node, path: str) -> Object:
    """The plain volume for a claim: a directory of a node, and the claim's from the start."""
    requests = claim.spec.resources.requests or {}
    hostname = node.metadata.label(HOSTNAME) or node.name
    affinity = {
        "required": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [hostname]}]}]
        }
    }
    spec: Object = {
        "accessModes": list(claim.spec.access_modes or ()),
        "capacity": {"storage": canonical(requests.get("storage", "0"))},
        "claimRef": claim_reference(claim),
        "hostPath": {"path": path, "type": "DirectoryOrCreate"},
        "nodeAffinity": affinity,
        "persistentVolumeReclaimPolicy": made_of.reclaim_policy or "Delete",
        "storageClassName": made_of.name,
        "volumeMode": claim.spec.volume_mode or "Filesystem",
    }
    if made_of.mount_options:
        spec["mountOptions"] = list(made_of.mount_options)
    meta = {
        "name": volume_name(claim),
        "annotations": {PROVISIONED_BY: PROVISIONER_NAME, HELD_BY: node.name},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta, "spec": spec}


def render_class() -> Object:
    """The plain class of claims that name none."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": CLASS_NAME,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER_NAME,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
