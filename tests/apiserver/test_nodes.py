"""What a node may reach: the authorization mode `Node` and the admission plugin NodeRestriction, over HTTP."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from kubesvc.api.kinds import CONFIG_MAP, NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, SECRET, SERVICE_ACCOUNT
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.noderestriction import is_restricted
from kubesvc.apiserver.podreferences import references_of
from kubesvc.clock import RealClock
from kubesvc.instance.pki import ensure_pki, issue

from .running import SETTINGS, Http, running, with_http

NODES = replace(SETTINGS, authorization="Node,RBAC")
CORE = "/api/v1/namespaces/default"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
UNRELATED = "no relationship found between node 'n1' and this object"
MERGE = "application/merge-patch+json"


def pod_of(name: str, node: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i", **spec.pop("container", {})}], **spec},
    }


async def furnish(server: ApiServer) -> dict[str, str]:
    """Two nodes with a pod each, and what the pods name; uids by name."""
    client = server.client
    uids: dict[str, str] = {}
    for node in ("n1", "n2"):
        made = await client.create(NODE, {"metadata": {"name": node, "labels": {"kubernetes.io/hostname": node}}})
        uids[node] = made["metadata"]["uid"]
    for name in ("mounted", "from-env", "other"):
        await client.create(SECRET, {"metadata": {"name": name}}, "default")
        await client.create(CONFIG_MAP, {"metadata": {"name": name}}, "default")
    await client.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot"}}, "default")
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    for name in ("data", "mine-e"):
        await client.create(PERSISTENT_VOLUME_CLAIM, {"metadata": {"name": name}, "spec": claim}, "default")
    volume = {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"},
        "claimRef": {"namespace": "default", "name": "data"},
    }  # fmt: skip
    await client.create(PERSISTENT_VOLUME, {"metadata": {"name": "disk"}, "spec": volume})
    volumes = [
        {"name": "s", "secret": {"secretName": "mounted"}},
        {"name": "m", "configMap": {"name": "mounted"}},
        {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": claim}}},
        {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]}},
    ]
    env = [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "from-env", "key": "k"}}},
        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "from-env", "key": "k"}}},
    ]
    mine = pod_of("mine", "n1", volumes=volumes, container={"env": env}, serviceAccountName="robot")
    theirs = pod_of("theirs", "n2", volumes=[{"name": "s", "secret": {"secretName": "other"}}])
    for pod in (mine, theirs):
        made = await client.create(POD, pod, "default")
        uids[pod["metadata"]["name"]] = made["metadata"]["uid"]
    return uids


@dataclass(frozen=True)
class Case:
    """A request of node n1. `says`: a part of the refusal's message; texts in <> are uids."""

    name: str
    method: str
    path: str
    status: int
    says: str = ""
    body: Any = None
    media: str = "application/json"


def mirror(**changes: Any) -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "<n1>", "controller": True}
    meta = {
        "name": "static-n1",
        "annotations": {"kubernetes.io/config.mirror": "x"},
        "ownerReferences": [{**owner, **changes.pop("owner", {})}],
    }
    meta.update(changes.pop("meta", {}))
    containers = [{"name": "c", "image": "i"}]
    return {"metadata": meta, "spec": {"nodeName": "n1", "containers": containers, **changes}}


def token(**spec: Any) -> dict[str, Any]:
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "mine", "uid": "<mine>"}
    reference.update(spec.pop("ref", {}))
    return {"spec": {"boundObjectRef": reference, **spec}}


STATUS = {"status": {"phase": "Running"}}
CASES = (
    Case("its own Node", "GET", "/api/v1/nodes/n1", 200),
    Case("another Node", "GET", "/api/v1/nodes/n2", 403, "node 'n1' cannot read 'n2', only its own Node object"),
    Case("all Nodes", "GET", "/api/v1/nodes", 403, "node 'n1' cannot read all nodes, only its own Node object"),
    Case("its own Node by field", "GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn1", 200),
    Case("its own Node's status", "PATCH", "/api/v1/nodes/n1/status", 200, "", {"status": {}}, MERGE),
    Case("another's status", "PATCH", "/api/v1/nodes/n2/status", 403,
         'nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"', {"status": {}}, MERGE),
    Case("another Node cannot be made", "POST", "/api/v1/nodes", 403,
         'node "n1" is not allowed to modify node "n3"', {"metadata": {"name": "n3"}}),
    Case("taints are not its own affair", "PATCH", "/api/v1/nodes/n1", 403, 'node "n1" is not allowed to modify taints',
         {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}, MERGE),
    Case("nor are owners", "PATCH", "/api/v1/nodes/n1", 403, 'node "n1" is not allowed to modify ownerReferences',
         {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "y"}]}}, MERGE),
    Case("nor labels that steer pods", "PATCH", "/api/v1/nodes/n1", 403,
         "is not allowed to modify labels: kubernetes.io/x, node-restriction.kubernetes.io/y",
         {"metadata": {"labels": {"node-restriction.kubernetes.io/y": "1", "kubernetes.io/x": "1"}}}, MERGE),
    Case("labels of its own are", "PATCH", "/api/v1/nodes/n1", 200, "",
         {"metadata": {"labels": {"topology.kubernetes.io/zone": "a", "example.com/x": "1"}}}, MERGE),
    Case("it cannot delete itself", "DELETE", "/api/v1/nodes/n1", 403, 'cannot delete resource "nodes"'),
    Case("its pods, by field", "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", 200),
    Case("all pods", "GET", "/api/v1/pods", 403, "can only list/watch pods with spec.nodeName field selector"),
    Case("another's pods", "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2", 403, "can only list/watch pods"),
    Case("pods elsewhere", "GET", "/api/v1/pods?fieldSelector=spec.nodeName%21%3Dn1", 403, "can only list/watch pods"),
    Case("a watch of its pods", "GET",
         "/api/v1/pods?watch=1&timeoutSeconds=1&fieldSelector=spec.nodeName%3Dn1&resourceVersion=0", 200),
    Case("a pod of its own", "GET", f"{CORE}/pods/mine", 200),
    Case("a pod of another", "GET", f"{CORE}/pods/theirs", 403, UNRELATED),
    Case("status of its pod", "PATCH", f"{CORE}/pods/mine/status", 200, "", STATUS, MERGE),
    Case("status of another's", "PATCH", f"{CORE}/pods/theirs/status", 403,
         'pods "theirs" is forbidden: node "n1" can only update pod status for pods with spec.nodeName set to itself',
         STATUS, MERGE),
    Case("labels by way of the status", "PATCH", f"{CORE}/pods/mine/status", 403,
         'node "n1" cannot update labels through pod status', {"metadata": {"labels": {"a": "b"}}}, MERGE),
    Case("the pod itself", "PATCH", f"{CORE}/pods/mine", 403, 'cannot patch resource "pods"', {}, MERGE),
    Case("eviction of another's", "POST", f"{CORE}/pods/theirs/eviction", 403,
         "node n1 can only evict pods with spec.nodeName set to itself", {"metadata": {"name": "theirs"}}),
    Case("deletion of another's", "DELETE", f"{CORE}/pods/theirs", 403,
         'node "n1" can only delete pods with spec.nodeName set to itself'),
    Case("deletion of none", "DELETE", f"{CORE}/pods/none", 404, 'pods "none" not found'),
    Case("exec is not for nodes", "POST", f"{CORE}/pods/mine/exec?command=x", 403, 'resource "pods/exec"'),
    Case("an ordinary pod", "POST", f"{CORE}/pods", 403,
         'pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods',
         pod_of("p", "n1")),
    Case("a mirror of another", "POST", f"{CORE}/pods", 403, "can only create pods with spec.nodeName set to itself",
         mirror(nodeName="n2")),
    Case("a mirror without owner", "POST", f"{CORE}/pods", 403,
         "can only create pods with an owner reference set to itself", mirror(meta={"ownerReferences": []})),
    Case("a mirror that another Node owns", "POST", f"{CORE}/pods", 403,
         "can only create pods with an owner reference set to itself", mirror(owner={"name": "n2"})),
    Case("a mirror that is not controlled", "POST", f"{CORE}/pods", 403,
         "can only create pods with a controller owner reference set to itself", mirror(owner={"controller": False})),
    Case("a mirror that holds its node", "POST", f"{CORE}/pods", 403,
         "must not set blockOwnerDeletion on an owner reference", mirror(owner={"blockOwnerDeletion": True})),
    Case("a mirror of an older Node", "POST", f"{CORE}/pods", 403, "node n1 UID mismatch: expected u got <n1>",
         mirror(owner={"uid": "u"})),
    Case("a mirror with an account", "POST", f"{CORE}/pods", 403,
         "can not create pods that reference a service account", mirror(serviceAccountName="robot")),
    Case("a mirror with a secret", "POST", f"{CORE}/pods", 403, "can not create pods that reference secrets",
         mirror(volumes=[{"name": "v", "secret": {"secretName": "other"}}])),
    Case("a mirror with a claim", "POST", f"{CORE}/pods", 403,
         "can not create pods that reference persistentvolumeclaims",
         mirror(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}])),
    Case("a mirror of its own", "POST", f"{CORE}/pods", 201, "", mirror()),
    Case("a secret that a pod of its own mounts", "GET", f"{CORE}/secrets/mounted", 200),
    Case("a secret in its pod's environment", "GET", f"{CORE}/secrets/from-env", 200),
    Case("a secret of another's pod", "GET", f"{CORE}/secrets/other", 403, UNRELATED),
    Case("a secret nobody has", "GET", f"{CORE}/secrets/none", 403, UNRELATED),
    Case("all secrets", "GET", f"{CORE}/secrets", 403, "No Object name found"),
    Case("all secrets everywhere", "GET", "/api/v1/secrets", 403, "can only read namespaced object of this type"),
    Case("one secret by field", "GET", f"{CORE}/secrets?fieldSelector=metadata.name%3Dmounted", 200),
    Case("another by field", "GET", f"{CORE}/secrets?fieldSelector=metadata.name%3Dother", 403, UNRELATED),
    Case("a write of a secret", "PATCH", f"{CORE}/secrets/mounted", 403, "can only read resources of this type", {},
         MERGE),
    Case("a config map of its pod", "GET", f"{CORE}/configmaps/mounted", 200),
    Case("a config map of its pod's environment", "GET", f"{CORE}/configmaps/from-env", 200),
    Case("another config map", "GET", f"{CORE}/configmaps/other", 403, UNRELATED),
    Case("a claim of its pod", "GET", f"{CORE}/persistentvolumeclaims/data", 200),
    Case("a claim of its pod's ephemeral volume", "GET", f"{CORE}/persistentvolumeclaims/mine-e", 200),
    Case("a claim's status", "PATCH", f"{CORE}/persistentvolumeclaims/data/status", 200, "",
         {"status": {"capacity": {"storage": "1Gi"}}}, MERGE),
    Case("more than a claim's status", "PATCH", f"{CORE}/persistentvolumeclaims/data/status", 403,
         "is not allowed to update fields other than status.capacity and status.conditions",
         {"metadata": {"labels": {"a": "b"}}}, MERGE),
    Case("all claims", "GET", f"{CORE}/persistentvolumeclaims", 403,
         "can only get individual resources of this type"),
    Case("the volume behind a claim", "GET", "/api/v1/persistentvolumes/disk", 200),
    Case("no other volume", "GET", "/api/v1/persistentvolumes/none", 403, UNRELATED),
    Case("its lease", "POST", LEASES, 201, "", {"metadata": {"name": "n1"}}),
    Case("another's lease", "POST", LEASES, 403,
         "can only access node lease with the same name as the requesting node", {"metadata": {"name": "n2"}}),
    Case("another's lease, read", "GET", f"{LEASES}/n2", 403,
         "can only access node lease with the same name as the requesting node"),
    Case("a lease elsewhere", "POST", "/apis/coordination.k8s.io/v1/namespaces/default/leases", 403,
         'can only access leases in the "kube-node-lease" system namespace', {"metadata": {"name": "n1"}}),
    Case("all leases", "GET", LEASES, 403, "can only get, create, update, patch, or delete a node lease"),
    Case("events", "POST", f"{CORE}/events", 201, "",
         {"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "mine"}}),
    Case("Services", "GET", "/api/v1/services", 200),
    Case("no writing of Services", "DELETE", f"{CORE}/services/x", 403, 'cannot delete resource "services"'),
    Case("endpoints one by one", "GET", f"{CORE}/endpoints", 403, 'cannot list resource "endpoints"'),
    Case("Deployments are none of its business", "GET", "/apis/apps/v1/deployments", 403,
         'cannot list resource "deployments"'),
    Case("access of others may be asked", "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", 201, "",
         {"spec": {"user": "u", "resourceAttributes": {"verb": "get", "resource": "pods"}}}),
    Case("a token of its pod's account", "POST", f"{CORE}/serviceaccounts/robot/token", 201, "", token()),
    Case("for an audience of the pod", "POST", f"{CORE}/serviceaccounts/robot/token", 201, "",
         token(audiences=["vault"])),
    Case("for another audience", "POST", f"{CORE}/serviceaccounts/robot/token", 403,
         'serviceaccounts "robot" is forbidden: audience "x" not found in pod spec volume, system:node:n1 is not '
         "authorized to request tokens for this audience", token(audiences=["x"])),
    Case("for two audiences", "POST", f"{CORE}/serviceaccounts/robot/token", 403,
         "node may only request 0 or 1 audiences", token(audiences=["x", "y"])),
    Case("bound to nothing", "POST", f"{CORE}/serviceaccounts/robot/token", 403,
         "node requested token not bound to a pod", {"spec": {}}),
    Case("bound to no very pod", "POST", f"{CORE}/serviceaccounts/robot/token", 403,
         "node requested token with a pod binding without a uid", token(ref={"uid": ""})),
    Case("bound to an older pod", "POST", f"{CORE}/serviceaccounts/robot/token", 403,
         "the UID in the bound object reference (u) does not match the UID in record", token(ref={"uid": "u"})),
    Case("bound to another's pod", "POST", f"{CORE}/serviceaccounts/robot/token", 403,
         "node requested token bound to a pod scheduled on a different node",
         token(ref={"name": "theirs", "uid": "<theirs>"})),
    Case("another account's token", "POST", f"{CORE}/serviceaccounts/other/token", 403, UNRELATED, token()),
    Case("accounts are not read", "GET", f"{CORE}/serviceaccounts/robot", 403,
         "can only create tokens for individual service accounts"),
    Case("eviction of its own", "POST", f"{CORE}/pods/mine/eviction", 201, "", {"metadata": {"name": "mine"}}),
    Case("deletion of its own", "DELETE", f"{CORE}/pods/mine?gracePeriodSeconds=0", 200),
)  # fmt: skip


def filled(value: Any, uids: dict[str, str]) -> Any:
    """A body with the uids in place."""
    if isinstance(value, dict):
        return {k: filled(v, uids) for k, v in value.items()}
    if isinstance(value, list):
        return [filled(v, uids) for v in value]
    if isinstance(value, str):
        for name, uid in uids.items():
            value = value.replace(f"<{name}>", uid)
    return value


def test_what_a_node_reaches() -> None:
    """Every row is asked as node n1, which the admin acts as; a node of that name is in system:nodes by itself."""

    async def run(server: ApiServer, http: Http) -> None:
        uids = await furnish(server)
        wrong = []
        for case in CASES:
            body = filled(case.body, uids)
            headers = {"Impersonate-User": "system:node:n1", "Content-Type": case.media}
            status, _, answer = await http.request(case.method, case.path, body, **headers)
            says = filled(case.says, uids)
            if status != case.status or (says and says not in answer["message"]):
                wrong.append(f"{case.name}: {status} {answer}"[:400])
        assert not wrong, "\n".join(wrong)

    with_http(run, NODES)


def test_who_is_a_node() -> None:
    """By name and group; a node without a name is nobody."""

    async def run(server: ApiServer, http: Http) -> None:
        await furnish(server)
        for user, groups, status, says in (
            ("system:node:n1", "system:nodes", 200, ""),
            ("system:node:n1", "others", 403, 'User "system:node:n1" cannot get resource "nodes"'),
            ("n1", "system:nodes", 403, 'User "n1" cannot get resource "nodes"'),
            ("system:node:", "system:nodes", 403, 'unknown node for user "system:node:"'),
        ):
            headers = {"Impersonate-User": user, "Impersonate-Group": groups}
            found, _, answer = await http.request("GET", "/api/v1/nodes/n1", **headers)
            assert found == status, (user, groups, answer)
            assert says in str(answer.get("message"))
        body = {"spec": {"namespace": "default"}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
        _, _, answer = await http.request("POST", path, body, Impersonate_User="system:node:n1")
        assert answer["status"]["incomplete"] is True
        assert answer["status"]["evaluationError"] == "node authorizer does not support user rule resolution"

    with_http(run, NODES)


def test_what_a_node_may_can_be_asked() -> None:
    """AUTH-4: by a SubjectAccessReview, with the field selector of the request."""

    async def run(server: ApiServer, http: Http) -> None:
        await furnish(server)
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        one = {"key": "spec.nodeName", "operator": "In", "values": ["n1"]}
        for selector, allowed, reason in (
            ({"rawSelector": "spec.nodeName=n1"}, True, ""),
            ({"rawSelector": "spec.nodeName=n2"}, False, "can only list/watch pods with spec.nodeName field selector"),
            ({"requirements": [one]}, True, ""),
            ({"requirements": [{**one, "operator": "NotIn"}]}, False, "can only list/watch pods with spec.nodeName"),
            ({"requirements": [{**one, "values": ["n1", "n2"]}]}, False, "can only list/watch pods"),
            (None, False, "can only list/watch pods"),
        ):
            asked: dict[str, Any] = {"verb": "list", "resource": "pods", "version": "v1"}
            if selector:
                asked["fieldSelector"] = selector
            spec = {"user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes": asked}
            _, _, answer = await http.request("POST", path, {"spec": spec})
            assert answer["status"]["allowed"] is allowed, (selector, answer)
            assert reason in answer["status"].get("reason", "")

    with_http(run, NODES)


def test_without_the_plugin_only_the_authorizer_judges() -> None:
    async def run(server: ApiServer, http: Http) -> None:
        await furnish(server)
        patch = {"metadata": {"labels": {"kubernetes.io/x": "1"}}}
        status, _, _ = await http.request(
            "PATCH", "/api/v1/nodes/n2", patch, Impersonate_User="system:node:n1", Content_Type=MERGE
        )
        assert status == 200

    disabled = frozenset({"ServiceAccount", "NodeRestriction"})
    with_http(run, replace(NODES, disabled_admission=disabled))


def test_a_node_with_its_certificate(tmp_path: Path) -> None:
    """AUTH-2: CN is the name, O the group; over TLS, as a kubelet comes."""

    async def main() -> None:
        pki = ensure_pki(tmp_path, ("127.0.0.1",), ("localhost",), RealClock().now())
        now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
        certificate = tmp_path / "node.crt"
        issue(pki, "system:node:n1", ("system:nodes",), [], ExtendedKeyUsageOID.CLIENT_AUTH, certificate, now)
        async with running(NODES) as server:
            await furnish(server)
            port = await server.listen_tls("127.0.0.1", 0, str(pki.server_cert), str(pki.server_key), str(pki.ca_cert))
            context = ssl.create_default_context(cafile=str(pki.ca_cert))
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
            connector = aiohttp.TCPConnector(ssl=context)
            async with aiohttp.ClientSession(f"https://127.0.0.1:{port}", connector=connector) as session:

                async def ask(path: str) -> int:
                    async with session.get(path) as response:
                        return response.status

                assert await ask("/api/v1/nodes/n1") == 200
                assert await ask("/api/v1/nodes/n2") == 403
                assert await ask(f"{CORE}/secrets/mounted") == 200
                assert await ask(f"{CORE}/secrets/other") == 403
                who = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
                async with session.post(who, json={}) as response:
                    user = (await response.json())["status"]["userInfo"]
                assert user["username"] == "system:node:n1"
                assert user["groups"] == ["system:nodes", "system:authenticated"]
                assert user["extra"]["authentication.kubernetes.io/credential-id"][0].startswith("X509SHA256=")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("label", "restricted"),
    (
        ("plain", False), ("example.com/x", False), ("kubernetes.io/hostname", False), ("kubernetes.io/x", True),
        ("sub.kubernetes.io/x", True), ("k8s.io/x", True), ("notkubernetes.io/x", False),
        ("node.kubernetes.io/anything", False), ("x.node.kubernetes.io/anything", False),
        ("kubelet.kubernetes.io/x", False), ("node-restriction.kubernetes.io/x", True),
        ("a.node-restriction.kubernetes.io/x", True), ("topology.kubernetes.io/zone", False),
        ("topology.kubernetes.io/rack", True),
    ),
)  # fmt: skip
def test_labels_a_node_may_not_touch(label: str, restricted: bool) -> None:
    assert is_restricted(label) is restricted


def test_everything_a_pod_names_is_found() -> None:
    container = {
        "envFrom": [{"secretRef": {"name": "s1"}}, {"configMapRef": {"name": "c1"}}],
        "env": [
            {"name": "A", "value": "plain"},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c2", "key": "k"}}},
        ],
    }
    volumes = [
        {"name": "a", "secret": {"secretName": "s3"}}, {"name": "b", "configMap": {"name": "c3"}},
        {"name": "c", "projected": {"sources": [{"secret": {"name": "s4"}}, {"configMap": {"name": "c4"}}]}},
        {"name": "d", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "s5"}}},
        {"name": "e", "iscsi": {"secretRef": {"name": "s6"}}}, {"name": "f", "azureFile": {"secretName": "s7"}},
        {"name": "g", "persistentVolumeClaim": {"claimName": "p1"}},
        {"name": "h", "ephemeral": {"volumeClaimTemplate": {}}},
        {"name": "i", "emptyDir": {}},
    ]  # fmt: skip
    spec = {
        "serviceAccountName": "robot",
        "imagePullSecrets": [{"name": "s0"}],
        "initContainers": [container],
        "ephemeralContainers": [{"envFrom": [{"secretRef": {"name": "s8"}}]}],
        "containers": [{"name": "c"}],
        "volumes": volumes,
    }
    found = references_of({"metadata": {"name": "p"}, "spec": spec})
    assert found == {
        ("serviceaccounts", "robot"),
        *(("secrets", f"s{i}") for i in range(9)),
        *(("configmaps", f"c{i}") for i in range(1, 5)),
        ("persistentvolumeclaims", "p1"),
        ("persistentvolumeclaims", "p-h"),
    }
