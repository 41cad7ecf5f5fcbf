"""What a pod's spec is filled up with, whether it stands alone or in a template (POD-1, NODE-31 to 36).

All functions change plain objects in place and expect the spelling of `shape.normalize`. What is refused is in
`podcheck.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import quantity
from .checks import items, part
from .meta import Object
from .quantity import Quantity

QOS_RESOURCES = ("cpu", "memory")
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
HANDLERS = ("postStart", "preStop")


def containers_of(spec: Object) -> Iterator[Object]:
    """Ordinary and init containers."""
    yield from items(spec, "containers")
    yield from items(spec, "initContainers")


def default_pod_spec(spec: Object) -> None:
    """The defaults that pods and templates share."""
    for container in containers_of(spec):
        default_container(container)
    for container in items(spec, "ephemeralContainers"):
        default_container(container)
    for volume in items(spec, "volumes"):
        default_volume(volume)
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:  # the old name always says the same
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    else:
        spec.pop("serviceAccountName", None)
        spec.pop("serviceAccount", None)


def default_container(container: Object) -> None:
    """Pull policy by the image's tag, port protocols, probes, and where the last words go."""
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if "imagePullPolicy" not in container:
        container["imagePullPolicy"] = pull_policy(container.get("image") or "")
    for port in items(container, "ports"):
        port.setdefault("protocol", "TCP")
    for variable in items(container, "env"):
        if field := part(part(variable, "valueFrom"), "fieldRef"):
            field.setdefault("apiVersion", "v1")
        if resource := part(part(variable, "valueFrom"), "resourceFieldRef"):
            resource.setdefault("divisor", "0")
        if file := part(part(variable, "valueFrom"), "fileKeyRef"):
            file.setdefault("optional", False)
    for name in PROBES:
        if isinstance(container.get(name), dict):
            default_probe(container[name])
    for name in HANDLERS:
        if isinstance(handler := part(container, "lifecycle").get(name), dict):
            default_http_get(handler)


def pull_policy(image: str) -> str:
    """Always for images whose tag is missing or `latest`, since those may change (POD-1)."""
    name, _, digest = image.partition("@")
    if digest:
        return "IfNotPresent"
    last = name.rpartition("/")[2]
    tag = last.partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def default_probe(probe: Object) -> None:
    """The numbers of NODE-32 to 35."""
    probe.setdefault("timeoutSeconds", 1)
    probe.setdefault("periodSeconds", 10)
    probe.setdefault("successThreshold", 1)
    probe.setdefault("failureThreshold", 3)
    default_http_get(probe)
    if isinstance(grpc := probe.get("grpc"), dict):
        grpc.setdefault("service", "")


def default_http_get(handler: Object) -> None:
    if isinstance(get := handler.get("httpGet"), dict):
        get.setdefault("path", "/")
        get.setdefault("scheme", "HTTP")


VOLUME_SOURCES = (
    "hostPath", "emptyDir", "gcePersistentDisk", "awsElasticBlockStore", "gitRepo", "secret", "nfs", "iscsi",
    "glusterfs", "persistentVolumeClaim", "rbd", "flexVolume", "cinder", "cephfs", "flocker", "downwardAPI", "fc",
    "azureFile", "configMap", "vsphereVolume", "quobyte", "azureDisk", "photonPersistentDisk", "projected",
    "portworxVolume", "scaleIO", "storageos", "csi", "ephemeral", "image",
)  # fmt: skip


def default_volume(volume: Object) -> None:
    """A volume without a source is an emptyDir; files are readable by all (0644)."""
    if not any(isinstance(volume.get(s), dict) for s in VOLUME_SOURCES):
        volume["emptyDir"] = {}
    for source in ("configMap", "secret", "downwardAPI", "projected"):
        if isinstance(found := volume.get(source), dict):
            found.setdefault("defaultMode", 420)
    if isinstance(path := volume.get("hostPath"), dict):
        path.setdefault("type", "")
    for entry in items(part(volume, "downwardAPI"), "items"):
        default_downward(entry)
    for source in items(part(volume, "projected"), "sources"):
        if isinstance(token := source.get("serviceAccountToken"), dict):
            token.setdefault("expirationSeconds", 3600)
        for entry in items(part(source, "downwardAPI"), "items"):
            default_downward(entry)
    if isinstance(image := volume.get("image"), dict):
        image.setdefault("pullPolicy", pull_policy(image.get("reference") or ""))
    if isinstance(iscsi := volume.get("iscsi"), dict):
        iscsi.setdefault("iscsiInterface", "default")
    if template := part(part(volume, "ephemeral"), "volumeClaimTemplate"):
        template.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def default_downward(entry: Object) -> None:
    if field := part(entry, "fieldRef"):
        field.setdefault("apiVersion", "v1")
    if resource := part(entry, "resourceFieldRef"):
        resource.setdefault("divisor", "0")


def default_lone_pod(spec: Object) -> None:
    """The defaults that only a pod has, not a template: requests from limits, host ports, Service variables."""
    if spec.get("enableServiceLinks") is None:
        spec["enableServiceLinks"] = True
    for container in containers_of(spec):
        resources = part(container, "resources")
        limits = part(resources, "limits")
        if limits:
            resources["requests"] = {**limits, **part(resources, "requests")}
        if spec.get("hostNetwork"):
            for port in items(container, "ports"):
                port.setdefault("hostPort", port.get("containerPort", 0))


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort, from the requests and limits of all containers."""
    if (level := part(spec, "resources")) and (part(level, "requests") or part(level, "limits")):
        return qos_of([level])
    return qos_of([part(c, "resources") for c in containers_of(spec)])


def qos_of(resources: list[Object]) -> str:
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}
    guaranteed = True
    for entry in resources:
        for sums, name in ((requests, "requests"), (limits, "limits")):
            for resource, amount in part(entry, name).items():
                if resource in QOS_RESOURCES and (value := read(amount)):
                    sums[resource] = sums.get(resource, quantity.ZERO) + value
        set_limits = {r for r, a in part(entry, "limits").items() if r in QOS_RESOURCES and read(a)}
        guaranteed = guaranteed and len(set_limits) == len(QOS_RESOURCES)
    if not requests and not limits:
        return "BestEffort"
    if guaranteed and all(limits.get(r) == amount for r, amount in requests.items()) and len(requests) == len(limits):
        return "Guaranteed"
    return "Burstable"


def read(amount: Any) -> Quantity:
    try:
        return quantity.parse(amount)
    except (ValueError, TypeError):
        return quantity.ZERO
