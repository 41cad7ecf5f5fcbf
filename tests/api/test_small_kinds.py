"""Secrets, config maps, leases, namespaces, policies, storage, roles and the rest: defaults, checks, columns."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api import kinds
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from tests.api.checking import created, defaulted, refusals, row, starts, status_refusals, update_refusals


def service(name: str = "s", **port: Any) -> Object:
    return {"service": {"name": name, "port": port}}


def ingress(**path: Any) -> Object:
    entry = {"pathType": "Prefix", "path": "/", "backend": service(number=80), **path}
    return {"spec": {"rules": [{"http": {"paths": [entry]}}]}}


PATH = "spec.rules[0].http.paths[0]"
RULE = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
REF = {"kind": "ClusterRole", "name": "r"}
CLAIM: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
HOOK: Object = {
    "name": "a.example.com",
    "clientConfig": {"url": "https://x"},
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
}
CREATES: tuple[tuple[str, Kind, Object, list[str]], ...] = (
    ("secret key", kinds.SECRET, {"data": {"a b": ""}}, ['data[a b]: Invalid value: "a b": a valid config key']),
    ("secret for TLS", kinds.SECRET, {"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}, [
        "data[tls.key]: Required value"]),
    ("secret for a registry", kinds.SECRET, {"type": "kubernetes.io/dockerconfigjson",
     "data": {".dockerconfigjson": "e30="}},
     []),
    ("secret for a registry, broken", kinds.SECRET,
     {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "eA=="}},
     ['data[.dockerconfigjson]: Invalid value: "<secret contents redacted>"']),
    ("secret of an account", kinds.SECRET, {"type": "kubernetes.io/service-account-token"}, [
        "metadata.annotations[kubernetes.io/service-account.name]: Required value"]),
    ("secret for login", kinds.SECRET, {"type": "kubernetes.io/basic-auth", "stringData": {"username": "u"}}, []),
    ("lease", kinds.LEASE, {"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}, [
        "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"]),
    ("ingress", kinds.INGRESS, ingress(), []),
    ("ingress, relative", kinds.INGRESS, ingress(path="x"), [
        f'{PATH}.path: Invalid value: "x": must be an absolute path']),
    ("ingress, two slashes", kinds.INGRESS, ingress(path="/a//b"), [
        f"{PATH}.path: Invalid value: \"/a//b\": must not contain '//'"]),
    ("ingress, no port", kinds.INGRESS, ingress(backend=service()), [
        f"{PATH}.backend: Required value: port name or number is required"]),
    ("ingress, host is an address", kinds.INGRESS, {"spec": {"rules": [{"host": "1.2.3.4"}]}}, [
        'spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address']),
    ("ingress class", kinds.INGRESS_CLASS, {"spec": {"controller": "x"}}, [
        'spec.controller: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")']),
    ("policy, no peer", kinds.NETWORK_POLICY, {"spec": {"ingress": [{"from": [{}]}]}}, [
        "spec.ingress[0].from[0]: Required value: must specify a peer"]),
    ("policy, two peers in one", kinds.NETWORK_POLICY,
     {"spec": {"egress": [{"to": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}]}}, [
        "spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer"]),
    ("policy, end before start", kinds.NETWORK_POLICY, {"spec": {"ingress": [{"ports": [{"port": 9,
     "endPort": 8}]}]}}, [
        "spec.ingress[0].ports[0].endPort: Invalid value: 8: must be greater than or equal to `port`"]),
    ("budget, both", kinds.POD_DISRUPTION_BUDGET, {"spec": {"minAvailable": 1, "maxUnavailable": 1}}, [
        'spec: Invalid value: {"MinAvailable":1,']),
    ("budget, over 100 %", kinds.POD_DISRUPTION_BUDGET, {"spec": {"minAvailable": "101%"}}, [
        'spec.minAvailable: Invalid value: "101%": must not be greater than 100%']),
    ("autoscaler", kinds.HORIZONTAL_POD_AUTOSCALER, {"spec": {"minReplicas": 3, "maxReplicas": 2,
     "scaleTargetRef": {"kind": "Deployment", "name": "d"}}}, [
        "spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`"]),
    ("claim", kinds.PERSISTENT_VOLUME_CLAIM, {"spec": CLAIM}, []),
    ("claim for nothing", kinds.PERSISTENT_VOLUME_CLAIM, {"spec": {}}, [
        "spec.accessModes: Required value: at least 1 access mode is required",
        "spec.resources[storage]: Required value"]),
    ("volume", kinds.PERSISTENT_VOLUME, {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
     "hostPath": {"path": "/x"}}}, []),
    ("volume without modes", kinds.PERSISTENT_VOLUME, {"spec": {"capacity": {"storage": "0"},
     "hostPath": {"path": "/x/../y"}}}, [
        "spec.accessModes: Required value",
        'spec.capacity[storage]: Invalid value: "0": must be greater than zero',
        "spec.hostPath.path: Invalid value: \"/x/../y\": must not contain '..'"]),
    ("local volume of no node", kinds.PERSISTENT_VOLUME, {"spec": {"capacity": {"storage": "1Gi"},
     "accessModes": ["ReadWriteOnce"], "local": {"path": "/x"}}}, [
        "spec.nodeAffinity: Required value: Local volume requires node affinity"]),
    ("volume of two kinds", kinds.PERSISTENT_VOLUME, {"spec": {"capacity": {"storage": "1Gi"},
     "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}, "nfs": {"server": "s", "path": "/"}}}, [
        "spec.nfs: Forbidden: may not specify more than 1 volume type"]),
    ("volume for no node", kinds.PERSISTENT_VOLUME, {"spec": {"capacity": {"storage": "1Gi"},
     "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}, "nodeAffinity": {}}}, [
        "spec.nodeAffinity.required: Required value: must specify required node constraints"]),
    ("volume of nothing", kinds.PERSISTENT_VOLUME, {"spec": {"accessModes": ["ReadWriteOnce"]}}, [
        "spec.capacity: Required value", "spec: Required value: must specify a volume type"]),
    ("storage class", kinds.STORAGE_CLASS, {}, ["provisioner: Required value"]),
    ("priority of the system", kinds.PRIORITY_CLASS, {"value": 1_000_000_001}, [
        "value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]),
    ("quota", kinds.RESOURCE_QUOTA, {"spec": {"hard": {"pods": "-1"}}}, [
        'spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0']),
    ("limits", kinds.LIMIT_RANGE, {"spec": {"limits": [{"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}}, [
        'spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1']),
    ("role", kinds.ROLE, {"rules": [RULE]}, []),
    ("cluster role for paths", kinds.CLUSTER_ROLE, {"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]}, []),
    ("cluster role for both", kinds.CLUSTER_ROLE, {"rules": [{**RULE, "nonResourceURLs": ["/x"]}]}, [
        'rules[0].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non-']),
    ("cluster binding of an account", kinds.CLUSTER_ROLE_BINDING,
     {"roleRef": REF, "subjects": [{"kind": "ServiceAccount", "name": "a"}]},
     ["subjects[0].namespace: Required value"]),
    ("webhook", kinds.VALIDATING_WEBHOOK_CONFIGURATION, {"webhooks": [HOOK]}, []),
    ("webhook's name", kinds.MUTATING_WEBHOOK_CONFIGURATION, {"webhooks": [{**HOOK, "name": "a.b"}]}, [
        'webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots']),
    ("custom kind's name", kinds.CUSTOM_RESOURCE_DEFINITION, {"spec": {"group": "example.com", "scope": "Cluster",
     "names": {"plural": "ys", "kind": "Y"}, "versions": [{"name": "v1", "served": True, "storage": True,
     "schema": {"openAPIV3Schema": {"type": "object"}}}]}}, [
        'metadata.name: Invalid value: "x": must be spec.names.plural+"."+spec.group']),
    ("revision", kinds.CONTROLLER_REVISION, {"revision": 1}, ["data: Required value: data is mandatory"]),
    ("namespace's finalizer", kinds.NAMESPACE, {"spec": {"finalizers": ["odd"]}}, [
        'spec.finalizers: Invalid value: "odd": name is neither a standard finalizer name nor is it fully qualified']),
)  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "obj", "texts"), CREATES, ids=lambda c: c if isinstance(c, str) else "")
def test_create(name: str, kind: Kind, obj: Object, texts: list[str]) -> None:
    found = refusals(kind, obj)
    assert starts(found, texts), found


CHANGES: tuple[tuple[str, Kind, Object, Object, list[str]], ...] = (
    ("secret's type", kinds.SECRET, {"type": "x"}, {}, ['type: Invalid value: "x": field is immutable']),
    ("immutable secret", kinds.SECRET, {"immutable": True, "data": {"a": "eA=="}}, {"immutable": True}, [
        "data: Forbidden: field is immutable when `immutable` is set"]),
    ("bound claim grows", kinds.PERSISTENT_VOLUME_CLAIM, {"spec": {**CLAIM, "volumeName": "v"}}, {"spec": CLAIM}, []),
    ("claim's mode", kinds.PERSISTENT_VOLUME_CLAIM, {"spec": {**CLAIM, "volumeMode": "Block"}}, {"spec": CLAIM}, [
        "spec: Forbidden: spec is immutable after creation except resources.requests"]),
    ("class's maker", kinds.STORAGE_CLASS, {"provisioner": "b/c"}, {"provisioner": "a/c"}, [
        "provisioner: Forbidden: updates to provisioner are forbidden."]),
    ("priority", kinds.PRIORITY_CLASS, {"value": 2}, {"value": 1},
     ["value: Forbidden: may not be changed in an update."]),
    ("class's controller", kinds.INGRESS_CLASS, {"spec": {"controller": "a.b/c"}}, {"spec": {"controller": "a.b/d"}}, [
        'spec.controller: Invalid value: "a.b/c": field is immutable']),
    ("binding's role", kinds.ROLE_BINDING, {"roleRef": {**REF, "name": "q"}}, {"roleRef": REF}, [
        'roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"ClusterRole","Name":"q"}: cannot']),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "new", "old", "texts"), CHANGES, ids=lambda c: c if isinstance(c, str) else ""
)
def test_update(name: str, kind: Kind, new: Object, old: Object, texts: list[str]) -> None:
    found = update_refusals(kind, new, old)
    assert starts(found, texts), found


def test_a_new_namespace() -> None:
    """NS-1."""
    found = created(kinds.NAMESPACE, {"metadata": {"name": "x"}})
    assert found["metadata"]["labels"] == {"kubernetes.io/metadata.name": "x"}
    assert (found["spec"], found["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})


def test_a_namespaces_phase_follows_its_deletion() -> None:
    going = {"metadata": {"name": "x", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Active"}}
    assert starts(
        status_refusals(kinds.NAMESPACE, going, going), ['status.Phase: Invalid value: "Active": may only be']
    )


def test_text_in_a_secret_becomes_data() -> None:
    found = defaulted(kinds.SECRET, {"stringData": {"a": "x"}, "data": {"b": "eQ=="}})
    assert (found["data"], found["type"], "stringData" in found) == ({"b": "eQ==", "a": "eA=="}, "Opaque", False)


def test_policy_types_follow_the_rules() -> None:
    assert defaulted(kinds.NETWORK_POLICY, {"spec": {}})["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    egress = defaulted(kinds.NETWORK_POLICY, {"spec": {"egress": [{"ports": [{"port": 53}]}]}})["spec"]
    assert egress["policyTypes"] == ["Ingress", "Egress"]
    assert egress["egress"] == [{"ports": [{"port": 53, "protocol": "TCP"}]}]


def test_a_containers_limits_follow_the_most() -> None:
    found = defaulted(
        kinds.LIMIT_RANGE, {"spec": {"limits": [{"type": "Container", "max": {"cpu": 2}, "min": {"cpu": 1}}]}}
    )
    entry = found["spec"]["limits"][0]
    assert (entry["default"], entry["defaultRequest"]) == ({"cpu": "2"}, {"cpu": "2"})


def test_autoscalers_of_both_versions() -> None:
    """v1 knows the CPU only; the rest is kept where it was."""
    target = {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}
    spec: Object = {"scaleTargetRef": target, "maxReplicas": 5, "targetCPUUtilizationPercentage": 50}
    old = {"metadata": {"name": "x"}, "spec": spec}
    v1 = kinds.HORIZONTAL_POD_AUTOSCALER_V1
    stored = defaulted(kinds.HORIZONTAL_POD_AUTOSCALER, v1.to_stored(old))
    assert stored["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 50
    assert v1.from_stored(stored)["spec"] == spec | {"minReplicas": 1}
    assert row(kinds.HORIZONTAL_POD_AUTOSCALER, stored)["Targets"] == "cpu: <unknown>/50%"


def test_subjects_are_of_their_groups() -> None:
    found = defaulted(kinds.ROLE_BINDING, {"roleRef": REF, "subjects": [{"kind": "User", "name": "u"}]})
    assert found["subjects"][0]["apiGroup"] == found["roleRef"]["apiGroup"] == "rbac.authorization.k8s.io"


ROWS: tuple[tuple[str, Kind, Object, dict[str, Any]], ...] = (
    ("config map", kinds.CONFIG_MAP, {"data": {"a": "", "b": ""}, "binaryData": {"c": ""}}, {"Data": 3}),
    ("secret", kinds.SECRET, {"stringData": {"a": "b"}}, {"Type": "Opaque", "Data": 1}),
    ("lease", kinds.LEASE, {"spec": {"holderIdentity": "h"}}, {"Holder": "h", "Age": "<unknown>"}),
    ("namespace", kinds.NAMESPACE, {"metadata": {"name": "x"}, "status": {"phase": "Active"}}, {"Status": "Active"}),
    ("ingress", kinds.INGRESS, {"spec": {"rules": [{"host": h} for h in "abcd"], "tls": [{}]}},
     {"Class": "<none>", "Hosts": "a,b,c + 1 more...", "Address": "", "Ports": "80, 443"}),
    ("ingress whose last host is the third", kinds.INGRESS,
     {"spec": {"rules": [{"host": "a"}, {}, {"host": "b"}, {"host": "c"}]}}, {"Hosts": "a,b,c"}),
    ("ingress for all", kinds.INGRESS, {"spec": {}, "status": {"loadBalancer": {"ingress": [{"ip": "2"},
     {"hostname": "1"}]}}},
     {"Hosts": "*", "Address": "1,2", "Ports": "80"}),
    ("ingress class", kinds.INGRESS_CLASS, {"spec": {"controller": "a.b/c", "parameters": {"kind": "K", "name": "n"}}},
     {"Controller": "a.b/c", "Parameters": "K/n"}),
    ("budget", kinds.POD_DISRUPTION_BUDGET, {"spec": {"minAvailable": "50%"}},
     {"Min Available": "50%", "Max Unavailable": "N/A", "Allowed Disruptions": 0}),
    ("claim", kinds.PERSISTENT_VOLUME_CLAIM, {"spec": {"volumeName": "v"}, "status": {"phase": "Bound",
     "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "capacity": {"storage": "1Gi"}}},
     {"Status": "Bound", "Volume": "v", "Capacity": "1Gi", "Access Modes": "RWO,RWX", "VolumeMode": "Filesystem"}),
    ("default class", kinds.STORAGE_CLASS, {"metadata": {"name": "x", "annotations":
     {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"},
     {"Name": "x (default)", "ReclaimPolicy": "Delete", "AllowVolumeExpansion": False}),
    ("policy for all", kinds.NETWORK_POLICY, {"spec": {}}, {"Pod-Selector": "<none>"}),
    ("quota", kinds.RESOURCE_QUOTA, {"status": {"hard": {"pods": "5", "limits.cpu": "2"}, "used": {"pods": "1"}}},
     {"Request": "pods: 1/5", "Limit": "limits.cpu: 0/2"}),
    ("binding", kinds.CLUSTER_ROLE_BINDING, {"roleRef": REF, "subjects": [{"kind": "ServiceAccount", "name": "a",
     "namespace": "n"}, {"kind": "Group", "name": "g"}]},
     {"Role": "ClusterRole/r", "Users": "", "Groups": "g", "ServiceAccounts": "n/a"}),
    ("revision", kinds.CONTROLLER_REVISION, {"metadata": {"name": "x", "ownerReferences": [{"apiVersion": "apps/v1",
     "kind": "StatefulSet", "name": "w", "uid": "u", "controller": True}]}, "revision": 2},
     {"Controller": "statefulset.apps/w", "Revision": 2}),
)  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "obj", "cells"), ROWS, ids=lambda c: c if isinstance(c, str) else "")
def test_columns(name: str, kind: Kind, obj: Object, cells: dict[str, Any]) -> None:
    """KCTL-19 to 31a, KCTL-55, KCTL-57."""
    found = row(kind, obj)
    assert {column: found[column] for column in cells} == cells
