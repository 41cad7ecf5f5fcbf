"""Which secrets, config maps, claims and account a pod names: what its node may therefore read. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from kubesvc.api.meta import Object

MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")
SECRET_REFERENCES = ("cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos")
"""Sorts of volumes whose `secretRef` names a secret."""


def is_mirror(pod: Object) -> bool:
    """Whether a pod only shows what runs from a node's own file."""
    return MIRROR_ANNOTATION in (pod["metadata"].get("annotations") or {})


def references_of(pod: Object) -> set[tuple[str, str]]:
    """(resource, name) of everything in the pod's namespace that it names."""
    found = set(_references(pod))
    return {(resource, name) for resource, name in found if name}


def _references(pod: Object) -> Iterator[tuple[str, str]]:
    spec = pod.get("spec") or {}
    yield "serviceaccounts", spec.get("serviceAccountName") or ""
    for pull in spec.get("imagePullSecrets") or ():
        yield "secrets", pull.get("name") or ""
    for containers in CONTAINER_LISTS:
        for container in spec.get(containers) or ():
            for source in container.get("envFrom") or ():
                yield "secrets", (source.get("secretRef") or {}).get("name") or ""
                yield "configmaps", (source.get("configMapRef") or {}).get("name") or ""
            for variable in container.get("env") or ():
                source = variable.get("valueFrom") or {}
                yield "secrets", (source.get("secretKeyRef") or {}).get("name") or ""
                yield "configmaps", (source.get("configMapKeyRef") or {}).get("name") or ""
    for volume in spec.get("volumes") or ():
        yield from _volume_references(volume, pod["metadata"].get("name") or "")


def _volume_references(volume: Object, pod_name: str) -> Iterator[tuple[str, str]]:
    yield "secrets", (volume.get("secret") or {}).get("secretName") or ""
    yield "secrets", (volume.get("azureFile") or {}).get("secretName") or ""
    yield "secrets", ((volume.get("csi") or {}).get("nodePublishSecretRef") or {}).get("name") or ""
    for sort in SECRET_REFERENCES:
        yield "secrets", ((volume.get(sort) or {}).get("secretRef") or {}).get("name") or ""
    yield "configmaps", (volume.get("configMap") or {}).get("name") or ""
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield "secrets", (source.get("secret") or {}).get("name") or ""
        yield "configmaps", (source.get("configMap") or {}).get("name") or ""
    yield "persistentvolumeclaims", (volume.get("persistentVolumeClaim") or {}).get("claimName") or ""
    if volume.get("ephemeral"):
        yield "persistentvolumeclaims", f"{pod_name}-{volume.get('name') or ''}"


def token_audiences(pod: Object) -> set[str]:
    """Audiences of the projected service account tokens of a pod; "" stands for the API server's own."""
    return {
        source["serviceAccountToken"].get("audience") or ""
        for volume in (pod.get("spec") or {}).get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
        if source.get("serviceAccountToken") is not None
    }
