"""ResourceQuotas, LimitRanges and HorizontalPodAutoscalers: what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api import kinds
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from tests.api.checking import defaulted, refusals, starts, status_refusals, update_refusals

QUOTA, LIMITS, HPA = kinds.RESOURCE_QUOTA, kinds.LIMIT_RANGE, kinds.HORIZONTAL_POD_AUTOSCALER


def quota(hard: Object, *scopes: str, **spec: Any) -> Object:
    return {"spec": {"hard": hard, **({"scopes": list(scopes)} if scopes else {}), **spec}}


def selected(name: str, operator: str, *values: str, hard: Object | None = None) -> Object:
    requirement = {"scopeName": name, "operator": operator, **({"values": list(values)} if values else {})}
    return quota(hard or {"pods": 1}, scopeSelector={"matchExpressions": [requirement]})


def limits(type_: str = "Container", **amounts: Object) -> Object:
    return {"spec": {"limits": [{"type": type_, **amounts}]}}


def scaler(*metrics: Object, **spec: Any) -> Object:
    target = {"kind": "Deployment", "name": "d"}
    return {"spec": {"maxReplicas": 2, "scaleTargetRef": target, "metrics": list(metrics), **spec}}


def measured(type_: str, field: str, target: Object, **source: Any) -> Object:
    return {"type": type_, field: {"target": target, **source}}


NAMED = {"metric": {"name": "m"}}
OBJECT = {"describedObject": {"kind": "Service", "name": "s"}, **NAMED}
BOTH: Object = {"type": "Utilization", "averageUtilization": 50, "averageValue": 1}
HALF = {"type": "Utilization", "averageUtilization": 50}
APPLIED = "unsupported scope applied to resource"
EXPRESSIONS = "spec.scopeSelector.matchExpressions"
CREATES: tuple[tuple[str, Kind, Object, list[str]], ...] = (
    ("what quotas know", QUOTA, quota({"cpu": 1, "pods": 2, "count/jobs.batch": 3, "requests.hugepages-2Mi": 1,
     "gold.storageclass.storage.k8s.io/requests.storage": "1Gi", "requests.example.com/gpu": 1}), []),
    ("what nobody knows", QUOTA, quota({"foo": 1, "requests.foo": 1}), [
        'spec.hard[foo]: Invalid value: "foo": must be a standard resource type or fully qualified',
        'spec.hard[foo]: Invalid value: "foo": must be a standard resource for quota',
        'spec.hard[requests.foo]: Invalid value: "requests.foo": must be a standard resource type or fully qualified',
        'spec.hard[requests.foo]: Invalid value: "requests.foo": must be a standard resource for quota']),
    ("storage is of claims", QUOTA, quota({"storage": 1}), [
        'spec.hard[storage]: Invalid value: "storage": must be a standard resource for quota']),
    ("half a Pod", QUOTA, quota({"pods": "1.5", "cpu": "1.5", "count/x": "500m"}), [
        'spec.hard[count/x]: Invalid value: "500m": must be an integer',
        'spec.hard[pods]: Invalid value: "1500m": must be an integer']),
    ("the scope of Pods that ask for nothing", QUOTA, quota({"pods": 1}, "BestEffort"), []),
    ("their cpu", QUOTA, quota({"pods": 1, "cpu": 1, "services": 1}, "BestEffort"), [
        f'spec.scopes: Invalid value: ["BestEffort"]: {APPLIED}'] * 2),
    ("cpu of Pods that end", QUOTA, quota({"limits.cpu": 1}, "Terminating"), []),
    ("scopes of both sorts", QUOTA, quota({"pods": 1}, "Terminating", "NotTerminating", "Odd"), [
        'spec.scopes: Invalid value: ["Terminating","NotTerminating","Odd"]: unsupported scope',
        f'spec.scopes: Invalid value: ["Terminating","NotTerminating","Odd"]: {APPLIED}',
        'spec.scopes: Invalid value: ["Terminating","NotTerminating","Odd"]: conflicting scopes']),
    ("a class of priority", QUOTA, selected("PriorityClass", "In", "high"), []),
    ("a class without name", QUOTA, selected("PriorityClass", "NotIn"), [
        f"{EXPRESSIONS}.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn'"]),
    ("a name without need", QUOTA, selected("PriorityClass", "Exists", "high"), [
        f"{EXPRESSIONS}.values: Invalid value: [\"high\"]: must be no value when `operator` is 'Exist'"]),
    ("a scope that has no names", QUOTA, selected("BestEffort", "In", "a"), [
        f"{EXPRESSIONS}.operator: Invalid value: \"In\": must be 'Exist' when scope is any of ResourceQuotaScopeTerm"]),
    ("an operator that is none", QUOTA, selected("PriorityClass", "Odd"), [
        f'{EXPRESSIONS}.operator: Invalid value: "Odd": not a valid selector operator']),
    ("a selected scope's services", QUOTA, selected("BestEffort", "Exists", hard={"services": 1}), [
        f'{EXPRESSIONS}: Invalid value: {{"MatchExpressions":[{{"ScopeName":"BestEffort","Operator":"Exists",'
        f'"Values":null}}]}}: {APPLIED}']),
    ("limits in their order", LIMITS, limits(max={"cpu": 4}, min={"cpu": 1}, default={"cpu": 3},
     defaultRequest={"cpu": 2}, maxLimitRequestRatio={"cpu": 2}), []),
    ("limits of what", LIMITS, limits("Thing"), [
        'spec.limits[0].type: Invalid value: "Thing": must be a standard limit type or fully qualified']),
    ("limits of another domain's", LIMITS, limits("example.com/Thing", max={"storage": 1}), []),
    ("a whole Pod has no default", LIMITS, limits("Pod", default={"cpu": 1}, defaultRequest={"cpu": 1}), [
        "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
        "spec.limits[0].defaultRequest: Forbidden: may not be specified when `type` is 'Pod'"]),
    ("a claim without bounds", LIMITS, limits("PersistentVolumeClaim"), [
        "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was"]),
    ("a resource that is none", LIMITS, limits(max={"disk": 1}), [
        'spec.limits[0].max[disk]: Invalid value: "disk": must be a standard resource type or fully qualified',
        'spec.limits[0].max[disk]: Invalid value: "disk": must be a standard resource for containers',
        'spec.limits[0].default[disk]: ', 'spec.limits[0].default[disk]: ',
        'spec.limits[0].defaultRequest[disk]: ', 'spec.limits[0].defaultRequest[disk]: ']),
    ("all upside down", LIMITS, limits(max={"cpu": 1}, min={"cpu": 2}, default={"cpu": 3}, defaultRequest={"cpu": 4}), [
        'spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1',
        'spec.limits[0].defaultRequest[cpu]: Invalid value: "4": default request value 4 is greater than max value 1',
        'spec.limits[0].defaultRequest[cpu]: Invalid value: "4": default request value 4 is greater than default limit',
        'spec.limits[0].default[cpu]: Invalid value: "1": default value 3 is greater than max value 1']),
    ("below the least", LIMITS, limits(min={"cpu": 3}, default={"cpu": 2}, defaultRequest={"cpu": 1}), [
        'spec.limits[0].defaultRequest[cpu]: Invalid value: "1": min value 3 is greater than default request value 1',
        'spec.limits[0].default[cpu]: Invalid value: "3": min value 3 is greater than default value 2']),
    ("ratios", LIMITS, limits(max={"cpu": 2, "memory": 2}, min={"cpu": 1, "memory": 1},
     maxLimitRequestRatio={"cpu": "0.5", "memory": 4}), [
        'spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1',
        'spec.limits[0].maxLimitRequestRatio[memory]: Invalid value: "4": ratio 4 is greater than max/min = 2.000000']),
    ("what cannot be shared", LIMITS, limits(default={"example.com/gpu": 2}, defaultRequest={"example.com/gpu": 1}), [
        'spec.limits[0].defaultRequest[example.com/gpu]: Invalid value: "1": default value 2 must equal to '
        "defaultRequest value 1 in example.com/gpu"]),
    ("a scaler", HPA, scaler(measured("Resource", "resource", HALF, name="cpu")), []),
    ("of a target that is no path", HPA, scaler(scaleTargetRef={"kind": "a/b", "name": ".."}), [
        "spec.scaleTargetRef.kind: Invalid value: \"a/b\": may not contain '/'",
        "spec.scaleTargetRef.name: Invalid value: \"..\": may not be '..'"]),
    ("a metric of no type", HPA, scaler({}), [
        "spec.metrics[0].type: Required value: must specify a metric source type",
        *['spec.metrics[0].type: Unsupported value: "": supported values: "ContainerResource", "External", '] * 2]),
    ("a metric of nothing", HPA, scaler({"type": "ContainerResource"}), [
        "spec.metrics[0].containerResource: Required value: must populate information for the given metric source"]),
    ("a metric of two", HPA, scaler({"type": "Resource", "resource": {"name": "cpu", "target": HALF}, "pods": {}}), [
        "spec.metrics[0].pods.metric.name: Required value: must specify a metric name",
        "spec.metrics[0].pods.target.type: Required value: must specify a metric target type",
        'spec.metrics[0].pods.target.type: Invalid value: "": must be either Utilization, Value, or AverageValue',
        "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue",
        "spec.metrics[0].pods: Forbidden: must populate the given metric source only"]),
    ("a resource's two targets", HPA, scaler(measured("Resource", "resource", BOTH, name="cpu")), [
        "spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a"]),
    ("a container's", HPA, scaler(measured("ContainerResource", "containerResource", {"type": "Value"}, name="odd")), [
        "spec.metrics[0].containerResource.name: Invalid value: \"odd\": must be a standard resource type or fully",
        "spec.metrics[0].containerResource.name: Invalid value: \"odd\": must be a standard resource for containers",
        "spec.metrics[0].containerResource.container: Required value: must specify a container",
        "spec.metrics[0].containerResource.target.averageUtilization: Required value: must set either a target raw"]),
    ("an object's without value", HPA, scaler(measured("Object", "object", {"type": "Value"}, **OBJECT)), [
        "spec.metrics[0].object.target.averageValue: Required value: must set either a target value or averageValue"]),
    ("one of elsewhere, with two", HPA, scaler(measured("External", "external", {"type": "Value", "value": 0,
     "averageValue": 1}, **NAMED)), [
        'spec.metrics[0].external.target.value: Invalid value: "0": must be positive',
        "spec.metrics[0].external.target.value: Forbidden: may not set both a target value for metric and a per-pod"]),
    ("one of elsewhere, with none", HPA, scaler(measured("External", "external", {"type": "Value"}, **NAMED)), [
        "spec.metrics[0].external.target.averageValue: Required value: must set either a target value for metric"]),
    ("how it scales", HPA, scaler(behavior={"scaleUp": {"stabilizationWindowSeconds": 3601, "selectPolicy": "X"},
     "scaleDown": {"policies": [{"type": "X", "value": 0, "periodSeconds": 1801}], "tolerance": "-1"}}), [
        "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
        'spec.behavior.scaleUp.selectPolicy: Unsupported value: "X": supported values: "Disabled", "Max", "Min"',
        'spec.behavior.scaleDown.policies[0].type: Unsupported value: "X": supported values: "Percent", "Pods"',
        "spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero",
        "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
        'spec.behavior.scaleDown.tolerance: Invalid value: "-1": must be greater or equal to zero']),
)  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "obj", "texts"), CREATES, ids=lambda c: c if isinstance(c, str) else "")
def test_what_is_refused(name: str, kind: Kind, obj: Object, texts: list[str]) -> None:
    found = refusals(kind, obj)
    assert starts(found, texts), found


def test_scopes_stay_and_what_is_used_is_whole() -> None:
    changed = update_refusals(QUOTA, quota({"pods": 1}, "Terminating"), quota({"pods": 1}))
    assert changed == ['spec.scopes: Invalid value: ["Terminating"]: field is immutable']
    status = {"status": {"hard": {"pods": 1}, "used": {"pods": "100m"}}}
    told = status_refusals(QUOTA, quota({"pods": 1}) | status, quota({"pods": 1}))
    assert told == ['status.used[pods]: Invalid value: "100m": must be an integer']


def test_who_says_something_of_how_to_scale_gets_the_rest_said() -> None:
    assert "behavior" not in defaulted(HPA, scaler())["spec"]
    said = {"scaleUp": {"stabilizationWindowSeconds": 30}}
    assert defaulted(HPA, scaler(behavior=said))["spec"]["behavior"] == {
        "scaleUp": {
            "stabilizationWindowSeconds": 30,
            "selectPolicy": "Max",
            "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ],
        },
        "scaleDown": {
            "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
        },
    }
    again = defaulted(HPA, defaulted(HPA, scaler(behavior=said)))
    assert again["spec"]["behavior"]["scaleUp"]["policies"][0]["value"] == 4


def test_an_ingress_says_its_class_once() -> None:
    """WARN-1: the annotation is the old way, and may not contradict the field, in a new object."""
    old = {"metadata": {"name": "x", "annotations": {"kubernetes.io/ingress.class": "a"}}}
    obj = {
        **old,
        "spec": {"ingressClassName": "b", "defaultBackend": {"service": {"name": "s", "port": {"number": 1}}}},
    }
    kind = kinds.INGRESS
    [found] = refusals(kind, obj)
    assert found == (
        'annotations.kubernetes.io/ingress.class: Invalid value: "a": must match `ingressClassName` when both are '
        "specified"
    )
    assert update_refusals(kind, obj, obj) == []
    warning = "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"
    assert kind.warn(obj, None) == [warning] and kind.warn(obj, obj) == []


EXCEPT = "spec.ingress[0].from[0].ipBlock.except"
BLOCKS: tuple[tuple[list[str], list[str]], ...] = (
    (["10.1.0.0/16", "10.1.2.0/24"], []),
    (["10.0.0.0/8"], [f'{EXCEPT}[0]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`']),
    (["x", "9.9.9.9/32"], [f'{EXCEPT}[0]: Invalid value: "x": must be a valid CIDR', f"{EXCEPT}[1]: Invalid value"]),
    (["fd00::/64"], [f'{EXCEPT}[0]: Invalid value: "fd00::/64": must be a strict subset of `cidr`']),
)


@pytest.mark.parametrize(("out", "texts"), BLOCKS)
def test_what_a_policy_leaves_out_is_in_what_it_lets_in(out: list[str], texts: list[str]) -> None:
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": out}}
    found = refusals(kinds.NETWORK_POLICY, {"spec": {"ingress": [{"from": [block]}]}})
    assert starts(found, texts), found
