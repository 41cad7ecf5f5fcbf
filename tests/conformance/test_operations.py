"""The cases that upstream calls "should support … API operations": all play the same steps on another resource."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.apiserver.test_certificates import request_of

from .conftest import Case
from .player import Object, Player, rv


@dataclass(frozen=True)
class Operations:
    """One resource.

    spec:     what is created, without metadata; each of the three gets `each(i)` besides
    status:   a status to patch in, and one to put; None where the resource has none
    updated:  what is changed in the object by the update, besides an annotation
    lingers:  it goes some seconds after it was deleted, by its controller
    """

    name: str
    root: str
    plural: str
    spec: Object
    namespaced: bool = True
    status: tuple[Object, Object] | None = None
    subresources: tuple[str, ...] = ()
    each: Callable[[int], Object] = field(default=lambda i: {})
    named: Callable[[int], str] | None = None
    updated: Callable[[Object], None] = field(default=lambda obj: None)
    lingers: bool = False

    def __str__(self) -> str:
        return self.name


def condition(type: str, status: str = "True") -> Object:
    now = "2026-01-01T00:00:00Z"
    return {"type": type, "status": status, "reason": "E2E", "message": "Set from e2e test", "lastTransitionTime": now}


def set_host(obj: Object) -> None:
    obj["spec"]["rules"][0]["host"] = "updated.example.com"


def set_ports(obj: Object) -> None:
    obj["endpoints"], obj["ports"] = [{"addresses": ["192.0.2.9"]}], [{"port": 81, "name": "web", "protocol": "TCP"}]


def policy_spec(**more: Any) -> Object:
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"]}
    match = {"resourceRules": [{**rule, "resources": ["deployments"]}]}
    return {"failurePolicy": "Fail", "matchConstraints": match, **more}


RULE = {
    "host": "foo.bar.com",
    "http": {
        "paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "t", "port": {"number": 80}}}}]
    },
}
ALL = (
    Operations("EndpointSlice", "/apis/discovery.k8s.io/v1", "endpointslices",
               {"addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4", "5.6.7.8"]}]}, updated=set_ports),
    Operations("Ingress", "/apis/networking.k8s.io/v1", "ingresses",
               {"spec": {"defaultBackend": {"service": {"name": "default-backend", "port": {"number": 80}}},
                         "rules": [RULE]}},
               status=({"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}},
                       {"loadBalancer": {"ingress": [{"ip": "169.1.1.2"}]}}),
               subresources=("status",), updated=set_host),
    Operations("IngressClass", "/apis/networking.k8s.io/v1", "ingressclasses",
               {"spec": {"controller": "example.com/controller"}}, namespaced=False),
    Operations("ServiceCIDR", "/apis/networking.k8s.io/v1", "servicecidrs", {}, namespaced=False,
               each=lambda i: {"spec": {"cidrs": [f"10.24{i}.0.0/24"]}},
               status=({"conditions": [condition("PatchedStatus")]},
                       {"conditions": [condition("PatchedStatus"), condition("StatusUpdate")]}),
               subresources=("status",), lingers=True),
    Operations("IPAddress", "/apis/networking.k8s.io/v1", "ipaddresses",
               {"spec": {"parentRef": {"group": "test", "resource": "pods", "name": "p", "namespace": "n"}}},
               namespaced=False, named=("255.255.255.255", "192.0.2.77", "fe80::77").__getitem__),
    Operations("ValidatingAdmissionPolicy", "/apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicies",
               {"spec": policy_spec(validations=[{"expression": "object.spec.replicas <= 100"}])}, namespaced=False,
               status=({"conditions": [condition("PatchStatusFailed", "False")]},
                       {"conditions": [condition("StatusUpdate")]}),
               subresources=("status",)),
    Operations("ValidatingAdmissionPolicyBinding", "/apis/admissionregistration.k8s.io/v1",
               "validatingadmissionpolicybindings",
               {"spec": {"policyName": "replicalimit-policy.example.com", "validationActions": ["Deny"]}},
               namespaced=False),
    Operations("MutatingAdmissionPolicy", "/apis/admissionregistration.k8s.io/v1", "mutatingadmissionpolicies",
               {"spec": policy_spec(
                   reinvocationPolicy="IfNeeded",
                   mutations=[{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}])},
               namespaced=False),
    Operations("MutatingAdmissionPolicyBinding", "/apis/admissionregistration.k8s.io/v1",
               "mutatingadmissionpolicybindings", {"spec": {"policyName": "p.example.com"}}, namespaced=False),
    Operations("RuntimeClass", "/apis/node.k8s.io/v1", "runtimeclasses", {"handler": "e2e-handler"}, namespaced=False),
    Operations("CSINode", "/apis/storage.k8s.io/v1", "csinodes",
               {"spec": {"drivers": [{"name": "e2e-driver", "nodeID": "node", "topologyKeys": None}]}},
               namespaced=False),
    Operations("FlowSchema", "/apis/flowcontrol.apiserver.k8s.io/v1", "flowschemas",
               {"spec": {"matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "global-default"},
                         "distinguisherMethod": {"type": "ByUser"},
                         "rules": [{"subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
                                    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}},
               namespaced=False, status=({"conditions": [condition("Dangling", "False")]},
                                         {"conditions": [condition("StatusUpdate")]}), subresources=("status",)),
    Operations("PriorityLevelConfiguration", "/apis/flowcontrol.apiserver.k8s.io/v1", "prioritylevelconfigurations",
               {"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 2,
                                                        "limitResponse": {"type": "Reject"}}}},
               namespaced=False, status=({"conditions": [condition("ByPatch")]},
                                         {"conditions": [condition("ByUpdate")]}), subresources=("status",)),
    Operations("CertificateSigningRequest", "/apis/certificates.k8s.io/v1", "certificatesigningrequests",
               {"spec": request_of("x", signer="example.com/e2e")["spec"]}, namespaced=False,
               status=({"conditions": [condition("ApprovalUpdated")]}, {"conditions": [condition("StatusUpdate")]}),
               subresources=("approval", "status")),
    Operations("Lease", "/apis/coordination.k8s.io/v1", "leases",
               {"spec": {"holderIdentity": "holder", "leaseDurationSeconds": 30, "leaseTransitions": 0,
                         "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:05.000000Z"}}),
    Operations("PodDisruptionBudget", "/apis/policy/v1", "poddisruptionbudgets",
               {"spec": {"minAvailable": "1%", "selector": {"matchLabels": {"foo": "bar"}}}}),
    Operations("CronJob", "/apis/batch/v1", "cronjobs",
               {"spec": {"schedule": "* */1 * * *", "concurrencyPolicy": "Allow", "suspend": True, "jobTemplate": {
                   "spec": {"template": {"spec": {
                       "restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i"}]}}}}}},
               status=({"lastScheduleTime": "2026-01-01T00:00:00Z"}, {"lastScheduleTime": "2026-01-02T00:00:00Z"}),
               subresources=("status",)),
    Operations("ControllerRevision", "/apis/apps/v1", "controllerrevisions",
               {"data": {"spec": {"template": {}}}, "revision": 1}),
    Operations("PriorityClass", "/apis/scheduling.k8s.io/v1", "priorityclasses",
               {"value": 7, "description": "a class"}, namespaced=False),
    Operations("PodTemplate", "/api/v1", "podtemplates",
               {"template": {"spec": {"containers": [{"name": "nginx", "image": "nginx"}]}}}),
    Operations("ConfigMap", "/api/v1", "configmaps", {"data": {"valueName": "value"}}),
    Operations("Secret", "/api/v1", "secrets", {"data": {"key": "dmFsdWU="}, "type": "Opaque"}),
    Operations("LimitRange", "/api/v1", "limitranges",
               {"spec": {"limits": [{"type": "Container", "default": {"cpu": "500m"}}]}}),
    Operations("ResourceQuota", "/api/v1", "resourcequotas", {"spec": {"hard": {"pods": "5"}}},
               status=({"hard": {"pods": "5"}, "used": {"pods": "0"}}, {"hard": {"pods": "5"}, "used": {"pods": "0"}}),
               subresources=("status",)),
    Operations("StorageClass", "/apis/storage.k8s.io/v1", "storageclasses", {"provisioner": "e2e-fake-provisioner"},
               namespaced=False),
)  # fmt: skip


def operations(case: Operations) -> Case:
    async def play(p: Player) -> None:
        await discovered(p, case)
        where = f"{case.root}/namespaces/{{ns}}/{case.plural}" if case.namespaced else f"{case.root}/{case.plural}"
        label = {"special-label": p.namespace}
        query = f"?labelSelector=special-label%3D{p.namespace}"
        begun = await p.get(where + query)
        assert begun["items"] == []
        made = []
        for i in range(3):
            meta = {"name": case.named(i)} if case.named else {"generateName": "e2e-example"}
            obj = {"metadata": {**meta, "labels": label}, **deepcopy(case.spec), **case.each(i)}
            made.append(await p.post(where, obj))
            assert case.named or made[-1]["metadata"]["name"].startswith("e2e-example")
        assert len({o["metadata"]["uid"] for o in made}) == 3
        assert rv(begun) < rv(made[0]) < rv(made[1]) < rv(made[2])
        name = made[0]["metadata"]["name"]
        one = f"{where}/{name}"
        got = await p.get(one)
        assert got["metadata"]["uid"] == made[0]["metadata"]["uid"]
        listed = await p.get(where + query)
        assert len(listed["items"]) == 3
        if case.namespaced:
            everywhere = await p.get(f"{case.root}/{case.plural}{query}")
            assert [o["metadata"]["name"] for o in everywhere["items"]] == [
                o["metadata"]["name"] for o in listed["items"]
            ]
        # patching
        patched = await p.patch(one, {"metadata": {"annotations": {"patched": "true"}}})
        assert patched["metadata"]["annotations"]["patched"] == "true" and rv(patched) > rv(made[0])

        # updating
        def update(wanted: Object) -> None:
            wanted["metadata"]["annotations"]["updated"] = "true"
            case.updated(wanted)

        updated = await p.change(one, update)
        assert updated["metadata"]["annotations"]["updated"] == "true" and rv(updated) > rv(patched)
        # the watch that began at the list
        seen = await p.watch(
            f"{where}{query}&resourceVersion={listed['metadata']['resourceVersion']}",
            lambda events: [
                t for t, o in events
                if (o["metadata"].get("annotations") or {}).get("updated") == "true" and o["metadata"]["name"] == name
            ],
        )  # fmt: skip
        assert {t for t, _ in seen} == {"MODIFIED"}
        notes = [o["metadata"].get("annotations") or {} for _, o in seen if o["metadata"]["name"] == name]
        assert any("patched" in n and "updated" not in n for n in notes)  # beside what controllers wrote
        if case.status is not None:
            await of_status(p, case, one)
        # deleting
        if case.lingers:  # what its controller has not seen yet goes at once
            await p.settled(where + query, lambda found: all(o["metadata"].get("finalizers") for o in found["items"]))
        await p.delete(one)
        if case.lingers:
            assert (await p.get(one))["metadata"]["deletionTimestamp"]
        else:
            await p.gone(one)
            assert len((await p.get(where + query))["items"]) == 2
        await p.delete(where + query)
        if case.lingers:
            assert all(o["metadata"]["deletionTimestamp"] for o in (await p.get(where + query))["items"])
        else:
            await p.gone(where + query)

    return play


async def of_status(p: Player, case: Operations, one: str) -> None:
    assert case.status is not None
    first, second = case.status
    patched = await p.patch(f"{one}/status", {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": first})
    assert patched["metadata"]["annotations"]["patchedstatus"] == "true"
    assert holds(patched["status"], first), patched["status"]
    current = await p.get(f"{one}/status")
    current["metadata"]["annotations"]["updatedstatus"] = "true"
    current["status"] = {**current.get("status", {}), **second}
    del current["metadata"]["resourceVersion"]  # controllers write it, too
    updated = await p.put(f"{one}/status", current)
    assert updated["metadata"]["annotations"]["updatedstatus"] == "true"
    assert holds(updated["status"], second), updated["status"]


def holds(found: Any, wanted: Any) -> bool:
    """Whether everything that is wanted is found."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(k in found and holds(found[k], v) for k, v in wanted.items())
    if isinstance(wanted, list):
        return len(found) >= len(wanted) and all(any(holds(f, w) for f in found) for w in wanted)
    return bool(found == wanted)


async def discovered(p: Player, case: Operations) -> None:
    """The group, its version and the resource with its subresources are told."""
    _, _, rest = case.root.partition("/apis/")
    if rest:
        group, _, version = rest.partition("/")
        groups = {g["name"]: g for g in (await p.get("/apis"))["groups"]}
        assert version in [v["version"] for v in groups[group]["versions"]]
        document = await p.get(f"/apis/{group}")
        assert version in [v["version"] for v in document["versions"]]
    resources = {r["name"] for r in (await p.get(case.root))["resources"]}
    assert {case.plural, *(f"{case.plural}/{s}" for s in case.subresources)} <= resources


@pytest.mark.parametrize("case", ALL, ids=str)
def test_operations(play: Callable[[Case], None], case: Operations) -> None:
    play(operations(case))
