"""Kinds that are kept for their users' sake: what is refused of them, what they are completed with, their cells."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api import kinds
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.api.runtimeclass import complete_pod
from tests.api.checking import created, refusals, row, starts

RULE = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
PATCH = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}


def mutating(**spec: Any) -> Object:
    usual = {"matchConstraints": {"resourceRules": [RULE]}, "mutations": [PATCH], "reinvocationPolicy": "Never"}
    return {"spec": {k: v for k, v in {**usual, **spec}.items() if v is not None}}


def schema(*rules: Object, **spec: Any) -> Object:
    usual = {"priorityLevelConfiguration": {"name": "level"}, "rules": list(rules)}
    return {"spec": {**usual, **spec}}


def flow(subject: Object, **more: Any) -> Object:
    rule = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]}
    return {"subjects": [subject], "resourceRules": [{**rule, **more}]}


def level(**limited: Any) -> Object:
    return {"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}, **limited}}}


USER = {"kind": "User", "user": {"name": "*"}}
CASES: tuple[tuple[str, Kind, Object, list[str]], ...] = (
    ("a policy that changes", kinds.MUTATING_ADMISSION_POLICY, mutating(), []),
    ("one about nothing", kinds.MUTATING_ADMISSION_POLICY, mutating(matchConstraints=None), [
        "spec.matchConstraints: Required value"]),
    ("one that changes nothing", kinds.MUTATING_ADMISSION_POLICY, mutating(mutations=[]), [
        "spec.mutations: Required value: mutations must contain at least one item"]),
    ("one of no sort", kinds.MUTATING_ADMISSION_POLICY, mutating(mutations=[{}]), [
        "spec.mutations[0].patchType: Required value"]),
    ("one of an odd sort", kinds.MUTATING_ADMISSION_POLICY, mutating(mutations=[{"patchType": "X"}]), [
        'spec.mutations[0].patchType: Unsupported value: "X": supported values: "ApplyConfiguration", "JSONPatch"']),
    ("one of both sorts", kinds.MUTATING_ADMISSION_POLICY, mutating(mutations=[{**PATCH, "jsonPatch": {}}]), [
        "spec.mutations[0].jsonPatch: Invalid value: "]),
    ("one without expression", kinds.MUTATING_ADMISSION_POLICY, mutating(
        mutations=[{"patchType": "JSONPatch", "jsonPatch": {"expression": " "}}]), [
        "spec.mutations[0].jsonPatch.expression: Required value"]),
    ("one that is called again oddly", kinds.MUTATING_ADMISSION_POLICY, mutating(reinvocationPolicy="X"), [
        'spec.reinvocationPolicy: Unsupported value: "X": supported values: "IfNeeded", "Never"']),
    ("one that says nothing of it", kinds.MUTATING_ADMISSION_POLICY, mutating(reinvocationPolicy=None), [
        "spec.reinvocationPolicy: Required value"]),
    ("its binding", kinds.MUTATING_ADMISSION_POLICY_BINDING, {"spec": {"policyName": "p"}}, []),
    ("a binding of nothing", kinds.MUTATING_ADMISSION_POLICY_BINDING, {"spec": {}},
     ["spec.policyName: Required value"]),
    ("a runtime class", kinds.RUNTIME_CLASS, {"handler": "runc"}, []),
    ("one with an odd handler", kinds.RUNTIME_CLASS, {"handler": "Run_c"},
     ['handler: Invalid value: "Run_c": a lowerc']),
    ("one that costs less than nothing", kinds.RUNTIME_CLASS, {
        "handler": "runc", "overhead": {"podFixed": {"cpu": "-1"}}}, ['overhead.podFixed[cpu]: Invalid value: "-1"']),
    ("one that says a thing twice", kinds.RUNTIME_CLASS, {
        "handler": "runc", "scheduling": {"tolerations": [{"key": "a", "operator": "Exists"}] * 2}}, [
        "scheduling.tolerations[1]: Duplicate value: "]),
    ("a node's drivers", kinds.CSI_NODE, {"spec": {"drivers": [{"name": "d", "nodeID": "n", "topologyKeys": ["a/b"]}]}},
     []),
    ("a driver twice, nowhere", kinds.CSI_NODE, {"spec": {"drivers": [
        {"name": "d", "nodeID": "n", "topologyKeys": None}, {"name": "d", "nodeID": "", "topologyKeys": ["a", "a"]}]}},
     [
        "spec.drivers[1].nodeID: Required value", 'spec.drivers[1]: Duplicate value: "a"',
        'spec.drivers[1].name: Duplicate value: "d"']),
    ("a flow", kinds.FLOW_SCHEMA, schema(flow(USER)), []),
    ("a flow of no level", kinds.FLOW_SCHEMA, schema(flow(USER), priorityLevelConfiguration={"name": ""}), [
        "spec.priorityLevelConfiguration.name: Required value: must reference a priority level by name"]),
    ("a flow that comes last of all", kinds.FLOW_SCHEMA, schema(flow(USER), matchingPrecedence=10001), [
        "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"]),
    ("a flow that comes first of all", kinds.FLOW_SCHEMA, schema(flow(USER), matchingPrecedence=1), [
        "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1"]),
    ("a flow of a user who is a group", kinds.FLOW_SCHEMA, schema(flow({**USER, "kind": "Group"})), [
        "spec.rules[0].subjects[0].user: Forbidden: ", "spec.rules[0].subjects[0].group: Required value: "]),
    ("a flow of half an account", kinds.FLOW_SCHEMA, schema(flow(
        {"kind": "ServiceAccount", "serviceAccount": {"namespace": "n"}})), [
        "spec.rules[0].subjects[0].serviceAccount.name: Required value"]),
    ("a flow of nobody, to nothing", kinds.FLOW_SCHEMA, schema({"subjects": []}), [
        "spec.rules[0].subjects: Required value: subjects must contain at least one value",
        "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty"]),
    ("a flow to nowhere", kinds.FLOW_SCHEMA, schema(flow(USER, namespaces=[])), [
        "spec.rules[0].resourceRules[0].namespaces: Required value: "]),
    ("a level", kinds.PRIORITY_LEVEL_CONFIGURATION, level(), []),
    ("a level that is both", kinds.PRIORITY_LEVEL_CONFIGURATION, {"spec": {
        "type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}, "exempt": {}}}, [
        "spec.exempt: Forbidden: must be nil if the type is Limited"]),
    ("a level that is neither", kinds.PRIORITY_LEVEL_CONFIGURATION, {"spec": {"type": "X"}}, [
        'spec.type: Unsupported value: "X": supported values: "Exempt", "Limited"']),
    ("a level that lends too much", kinds.PRIORITY_LEVEL_CONFIGURATION, level(lendablePercent=101), [
        "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive"]),
    ("a level with a hand too large", kinds.PRIORITY_LEVEL_CONFIGURATION, level(
        limitResponse={"type": "Queue", "queuing": {"queues": 4}}), [
        "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (4)"]),
    ("an exempt level", kinds.PRIORITY_LEVEL_CONFIGURATION, {"spec": {"type": "Exempt"}}, []),
)  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "obj", "texts"), CASES, ids=lambda c: c if isinstance(c, str) else "")
def test_what_is_refused(name: str, kind: Kind, obj: Object, texts: list[str]) -> None:
    found = refusals(kind, obj)
    assert starts(found, texts) or starts(sorted(found), sorted(texts)), found


def test_what_they_are_completed_with() -> None:
    assert created(kinds.FLOW_SCHEMA, schema(flow(USER)))["spec"]["matchingPrecedence"] == 1000
    queuing = {"type": "Queue", "queuing": {}}
    limited = created(kinds.PRIORITY_LEVEL_CONFIGURATION, level(limitResponse=queuing))["spec"]["limited"]
    assert (limited["nominalConcurrencyShares"], limited["lendablePercent"]) == (30, 0)
    assert limited["limitResponse"]["queuing"] == {"queues": 64, "handSize": 8, "queueLengthLimit": 50}
    spec = created(kinds.MUTATING_ADMISSION_POLICY, mutating())["spec"]
    assert spec["failurePolicy"] == "Fail" and spec["matchConstraints"]["matchPolicy"] == "Equivalent"
    assert spec["matchConstraints"]["resourceRules"][0]["scope"] == "*"


ROWS: tuple[tuple[Kind, Object, list[Any]], ...] = (
    (kinds.MUTATING_ADMISSION_POLICY, mutating(), ["x", 1, "<unset>"]),
    (kinds.MUTATING_ADMISSION_POLICY_BINDING, {"spec": {"policyName": "p", "paramRef": {"name": "r"}}},
     ["x", "p", "r"]),
    (kinds.RUNTIME_CLASS, {"handler": "runc"}, ["x", "runc"]),
    (kinds.CSI_NODE, {"spec": {"drivers": [{"name": "d", "nodeID": "n"}]}}, ["x", 1]),
    (kinds.FLOW_SCHEMA, schema(distinguisherMethod={"type": "ByUser"}), ["x", "level", 1000, "ByUser"]),
    (kinds.PRIORITY_LEVEL_CONFIGURATION, level(limitResponse={"type": "Queue", "queuing": {}}),
     ["x", "Limited", 30, 64, 8, 50]),
    (kinds.PRIORITY_LEVEL_CONFIGURATION, {"spec": {"type": "Exempt"}},
     ["x", "Exempt", "<none>", "<none>", "<none>", "<none>"]),
)  # fmt: skip


@pytest.mark.parametrize(("kind", "obj", "cells"), ROWS, ids=lambda c: c.name if isinstance(c, Kind) else "")
def test_cells(kind: Kind, obj: Object, cells: list[Any]) -> None:
    assert list(row(kind, obj).values())[: len(cells)] == cells


@pytest.mark.parametrize(
    "kind",
    [kinds.FLOW_SCHEMA, kinds.PRIORITY_LEVEL_CONFIGURATION],
)
def test_whoever_writes_one_is_told_that_nothing_follows_it(kind: Kind) -> None:
    assert "not scheduled" in kind.warn({}, None)[0]


CLASS = {
    "overhead": {"podFixed": {"cpu": "10m"}},
    "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "t"}]},
}
PODS: tuple[tuple[str, Object, Object, Object | str], ...] = (
    ("of no class", {}, {}, {}),
    ("of no class, with a cost", {"overhead": {"cpu": "1"}}, {}, "pod rejected: Pod Overhead set without"),
    ("with nothing of its own", {}, CLASS, {
        "overhead": {"cpu": "10m"}, "nodeSelector": {"a": "b"}, "tolerations": [{"key": "t"}]}),
    ("with the same in other words", {"overhead": {"cpu": "0.01"}, "tolerations": [{"key": "t"}, {"key": "u"}]}, CLASS,
     {
        "overhead": {"cpu": "10m"}, "nodeSelector": {"a": "b"}, "tolerations": [{"key": "t"}, {"key": "u"}]}),
    ("with another cost", {"overhead": {"cpu": "1"}}, CLASS, "pod rejected: Pod's Overhead doesn't match"),
    ("that wants elsewhere", {"nodeSelector": {"a": "c"}}, CLASS,
     "conflict: runtimeClass.scheduling.nodeSelector[a] = b"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "spec", "found", "wanted"), PODS, ids=lambda c: c if isinstance(c, str) else "")
def test_pods_of_a_runtime_class(name: str, spec: Object, found: Object, wanted: Object | str) -> None:
    pod = {"spec": dict(spec)}
    problem = complete_pod(pod, found)
    if isinstance(wanted, str):
        assert problem.startswith(wanted)
    else:
        assert not problem and pod["spec"] == wanted
