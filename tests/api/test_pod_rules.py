"""What is refused of a Pod's place, its security, and its containers' lesser fields; and other lesser kinds' words."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api import kinds
from kubesvc.api.fields import Path
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.api.objectmeta import validate_owner_references
from tests.api.checking import refusals, starts


def pod(container: Object | None = None, **spec: Any) -> Object:
    return {"spec": {"containers": [{"name": "c", "image": "i", **(container or {})}], **spec}}


def secured(**context: Any) -> Object:
    return pod({"securityContext": context})


def spread(*constraints: Object) -> Object:
    usual = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    return pod(topologySpreadConstraints=[usual | c for c in constraints])


def by_field(**requirement: Any) -> Object:
    terms = [{"matchFields": [requirement]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return pod(affinity={"nodeAffinity": required})


def amount(**ref: Any) -> Object:
    return pod({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": ref}}]})


SELECTOR = {"matchLabels": {"a": "b"}}
NAMED = {"type": "Unconfined", "localhostProfile": "x"}
SYSCTLS = [{"name": n, "value": "1"} for n in ("a b", "net.x_y/z", "A.b", "-a")]
C = "spec.containers[0]"
ENV = f"{C}.env[0].valueFrom.resourceFieldRef"
SPREAD = "spec.topologySpreadConstraints"
FIELD = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0]"
SLEEP = "must be non-negative and less than terminationGracePeriodSeconds"
PODS: tuple[tuple[str, Object, list[str]], ...] = (
    ("the same spread twice: the first is blamed", spread({}, {}), [
        f'{SPREAD}[0].{{topologyKey, whenUnsatisfiable}}: Duplicate value: "{{zone, DoNotSchedule}}"']),
    ("spread over no domain", spread({"minDomains": 0, "whenUnsatisfiable": "ScheduleAnyway"}), [
        f"{SPREAD}[0].minDomains: Invalid value: 0: must be greater than 0",
        f"{SPREAD}[0].minDomains: Invalid value: 0: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not "]),
    ("spread with odd words", spread({"nodeAffinityPolicy": "X", "nodeTaintsPolicy": "Y"}), [
        f'{SPREAD}[0].nodeAffinityPolicy: Unsupported value: "X": supported values: "Honor", "Ignore"',
        f'{SPREAD}[0].nodeTaintsPolicy: Unsupported value: "Y": supported values: "Honor", "Ignore"']),
    ("spread by labels of nobody", spread({"matchLabelKeys": ["a"]}), [
        f"{SPREAD}[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"]),
    ("spread by labels named twice", spread({"matchLabelKeys": ["a", "b"], "labelSelector": SELECTOR}), [
        f'{SPREAD}[0].matchLabelKeys[0]: Invalid value: "a": exists in both matchLabelKeys and labelSelector']),
    ("a node by name", by_field(key="metadata.name", operator="In", values=["n1"]), []),
    ("nodes by another field", by_field(key="metadata.uid", operator="In", values=["a", "b"]), [
        f"{FIELD}.values: Required value: must be only one value when `operator` is 'In' or 'NotIn' for node field",
        f'{FIELD}.key: Invalid value: "metadata.uid": not a valid field selector key']),
    ("nodes by an odd operator", by_field(key="metadata.name", operator="Exists"), [
        f'{FIELD}.operator: Invalid value: "Exists": not a valid selector operator']),
    ("both names of a capability", secured(allowPrivilegeEscalation=False, capabilities={"add": ["SYS_ADMIN"]}), []),
    ("a capability", secured(allowPrivilegeEscalation=False, capabilities={"add": ["CAP_SYS_ADMIN"]}), [
        f'{C}.securityContext: Invalid value: {{"Capabilities":{{"Add":["CAP_SYS_ADMIN"],"Drop":null}}']),
    ("profiles", secured(seccompProfile={"type": "Localhost"}, appArmorProfile={"type": "Odd"}, procMount="X"), [
        f'{C}.securityContext.procMount: Unsupported value: "X": supported values: "Default", "Unmasked"',
        f"{C}.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Local",
        f'{C}.securityContext.appArmorProfile.type: Unsupported value: "Odd": supported values: "Localhost", "Runtim']),
    ("profiles of nobody", secured(seccompProfile={}, appArmorProfile=NAMED), [
        f"{C}.securityContext.seccompProfile.type: Required value: type is required when seccompProfile is set",
        f'{C}.securityContext.appArmorProfile.localhostProfile: Invalid value: "x": can only be set when AppArmor ty']),
    ("a profile elsewhere", secured(seccompProfile={"type": "Localhost", "localhostProfile": "../x"}), [
        f"{C}.securityContext.seccompProfile.localhostProfile: Invalid value: \"../x\": must not contain '..'"]),
    ("sysctls", pod(securityContext={"sysctls": SYSCTLS}), [
        'spec.securityContext.sysctls[0].name: Invalid value: "a b": must have at most 253 characters and match regex',
        'spec.securityContext.sysctls[2].name: Invalid value: "A.b": ',
        'spec.securityContext.sysctls[3].name: Invalid value: "-a": ']),
    ("processes shared with the node", pod(shareProcessNamespace=True, hostPID=True), [
        "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot b"]),
    ("how groups change", pod(securityContext={"fsGroupChangePolicy": "X", "supplementalGroupsPolicy": "Y"}), [
        'spec.securityContext.supplementalGroupsPolicy: Unsupported value: "Y": supported values: "Merge", "Strict"',
        'spec.securityContext.fsGroupChangePolicy: Unsupported value: "X": supported values: "Always", "OnRootMismat']),
    ("a secret without name is only warned of", pod(imagePullSecrets=[{"name": ""}]), []),
    ("containers that are added later", pod(ephemeralContainers=[{"name": "e", "image": "i"}]), [
        "spec.ephemeralContainers: Forbidden: cannot be set on create"]),
    ("no sleep", pod({"lifecycle": {"preStop": {"sleep": {"seconds": 0}}}}), []),
    ("a long sleep", pod({"lifecycle": {"preStop": {"sleep": {"seconds": 6}}}}, terminationGracePeriodSeconds=5), [
        f"{C}.lifecycle.preStop.sleep: Invalid value: 6: {SLEEP} (5)"]),
    ("resizing", pod({"resizePolicy": [{"resourceName": "disk", "restartPolicy": "Maybe"}] * 2}), [
        f'{C}.resizePolicy: Unsupported value: "disk": supported values: "cpu", "memory"',
        f'{C}.resizePolicy: Unsupported value: "Maybe": supported values: "NotRequired", "RestartContainer"',
        f'{C}.resizePolicy[1]: Duplicate value: "disk"', f"{C}.resizePolicy: ", f"{C}.resizePolicy: "]),
    ("mounts that the node sees", pod({"volumeMounts": [{"name": "v", "mountPath": "/v",
     "mountPropagation": "Bidirectional"}]}, volumes=[{"name": "v"}]), [
        f"{C}.volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is available only to priv"]),
    ("an amount", amount(resource="limits.memory", divisor="1Mi"), []),
    ("an amount of what", amount(resource="disk"), [
        f'{ENV}.resource: Unsupported value: "disk": supported values: "limits.cpu", "limits.ephemeral-storage", ']),
    ("an amount in odd units", amount(resource="limits.cpu", divisor="2"), [
        f'{ENV}.divisor: Invalid value: "limits.cpu": only divisor\'s values 1m and 1 are supported with the cpu res']),
    ("volumes of drivers", pod(volumes=[{"name": "a", "csi": {"driver": ""}}, {"name": "b", "csi": {"driver": "a b"}},
     {"name": "c", "ephemeral": {}}]), [
        "spec.volumes[0].csi.driver: Required value", 'spec.volumes[1].csi.driver: Invalid value: "a b": ',
        "spec.volumes[2].ephemeral.volumeClaimTemplate: Required value"]),
    ("claims of its own", pod(volumes=[{"name": "a", "ephemeral": {}}, {"name": "b", "ephemeral": {
        "volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}}]), [
        "spec.volumes[0].ephemeral.volumeClaimTemplate: Required value",
        "spec.volumes[1].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value"]),
    ("a file about nobody's amount", pod(volumes=[{"name": "d", "downwardAPI": {"items": [{"path": "a",
     "resourceFieldRef": {"resource": "limits.cpu"}}]}}]), [
        "spec.volumes[0].downwardAPI.resourceFieldRef.containerName: Required value"]),
)  # fmt: skip


@pytest.mark.parametrize(("name", "obj", "texts"), PODS, ids=lambda c: c if isinstance(c, str) else "")
def test_pods_that_are_refused(name: str, obj: Object, texts: list[str]) -> None:
    found = refusals(kinds.POD, obj)
    assert starts(found, texts), found


def stateful(**spec: Any) -> Object:
    labels = {"a": "b"}
    template = {"metadata": {"labels": labels}, "spec": pod()["spec"]}
    return {"spec": {"serviceName": "s", "selector": {"matchLabels": labels}, "template": template, **spec}}


def docker(text: str) -> Object:
    return {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": text}}


REDACTED = 'data[.dockerconfigjson]: Invalid value: "<secret contents redacted>"'
OTHERS: tuple[tuple[str, Kind, Object, list[str]], ...] = (
    ("a strategy that is none", kinds.STATEFUL_SET, stateful(updateStrategy={"type": "X"}), [
        'spec.updateStrategy: Invalid value: {"Type":"X","RollingUpdate":null}: must be \'RollingUpdate\' or \'OnDel']),
    ("what becomes of claims", kinds.STATEFUL_SET, stateful(persistentVolumeClaimRetentionPolicy={"whenScaled": "X"}), [
        'spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: "X": supported values: "Retain", "']),
    ("the first number", kinds.STATEFUL_SET, stateful(ordinals={"start": -1}), [
        "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"]),
    ("a registry's secret", kinds.SECRET, docker("e30="), []),
    ("one that is no JSON", kinds.SECRET, docker("YQ=="), [
        f"{REDACTED}: invalid character 'a' looking for beginning of value"]),
    ("one that is another JSON", kinds.SECRET, docker("WzFd"), [
        f"{REDACTED}: json: cannot unmarshal array into Go value of type map[string]interface {{}}"]),
    ("a class of Ingresses", kinds.INGRESS_CLASS, {"spec": {"controller": "a.b/c d", "parameters": {"name": "a/b"}}}, [
        'spec.controller: Invalid value: "c d": Invalid path (regex used for validation is \'',
        "spec.parameters.kind: Required value: kind is required",
        "spec.parameters.name: Invalid value: \"a/b\": may not contain '/'"]),
)  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "obj", "texts"), OTHERS, ids=lambda c: c if isinstance(c, str) else "")
def test_others_that_are_refused(name: str, kind: Kind, obj: Object, texts: list[str]) -> None:
    found = refusals(kind, obj)
    assert starts(found, texts), found


def test_owners_are_shown_as_go_prints_them() -> None:
    """META-10, ERR-3."""
    event = {"uid": "u", "name": "x", "kind": "Event", "apiVersion": "v1", "controller": True}
    [error] = validate_owner_references([event], Path("metadata.ownerReferences"))
    assert str(error) == (
        'metadata.ownerReferences: Invalid value: {"apiVersion":"v1","kind":"Event","name":"x","uid":"u",'
        '"controller":true}: /v1, Kind=Event is disallowed from being an owner'
    )
