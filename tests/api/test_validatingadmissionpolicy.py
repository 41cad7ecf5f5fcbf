"""ValidatingAdmissionPolicies and their bindings: defaults, refusals, cells, and that nobody is left in the belief that
they are evaluated."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api import kinds
from kubesvc.api.meta import Object
from tests.api.checking import created, refusals, row, starts

RULE = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
POLICY, BINDING = kinds.VALIDATING_ADMISSION_POLICY, kinds.VALIDATING_ADMISSION_POLICY_BINDING


def policy(**spec: Any) -> Object:
    usual = {
        "matchConstraints": {"resourceRules": [RULE]},
        "validations": [{"expression": "object.spec.replicas <= 5"}],
    }
    return {"spec": {k: v for k, v in {**usual, **spec}.items() if v is not None}}


def binding(**spec: Any) -> Object:
    return {"spec": {"policyName": "p", "validationActions": ["Deny"], **spec}}


NOTHING = "Required value: validations or auditAnnotations must contain at least one item"
POLICIES: tuple[tuple[str, Object, list[str]], ...] = (
    ("a policy", policy(), []),
    ("about nothing", policy(matchConstraints=None), ["spec.matchConstraints: Required value"]),
    ("about no rules", policy(matchConstraints={}), ["spec.matchConstraints.resourceRules: Required value"]),
    ("about half a rule", policy(matchConstraints={"resourceRules": [{**RULE, "resources": []}]}), [
        "spec.matchConstraints.resourceRules[0].resources: Required value"]),
    ("without validations", policy(validations=None), [
        f"spec.validations: {NOTHING}", f"spec.auditAnnotations: {NOTHING}"]),
    ("without expression", policy(validations=[{"expression": " "}]), [
        "spec.validations[0].expression: Required value: expression is not specified"]),
    ("that fails oddly", policy(failurePolicy="X"), [
        'spec.failurePolicy: Unsupported value: "X": supported values: "Fail", "Ignore"']),
    ("with half a parameter", policy(paramKind={"kind": "ConfigMap"}), ["spec.paramKind.apiVersion: Required value"]),
)  # fmt: skip
BINDINGS: tuple[tuple[str, Object, list[str]], ...] = (
    ("a binding", binding(), []),
    ("of nothing", {"spec": {}}, ["spec.policyName: Required value", "spec.validationActions: Required value"]),
    ("that does two things", binding(validationActions=["Deny", "Warn", "Deny", "Log"]), [
        'spec.validationActions[2]: Duplicate value: "Deny"',
        'spec.validationActions[3]: Unsupported value: "Log": supported values: "Audit", "Deny", "Warn"',
        'spec.validationActions: Invalid value: ["Deny","Warn","Deny","Log"]: must not contain both Deny and Warn']),
)  # fmt: skip


@pytest.mark.parametrize(("name", "obj", "texts"), POLICIES, ids=lambda c: c if isinstance(c, str) else "")
def test_policies(name: str, obj: Object, texts: list[str]) -> None:
    found = refusals(POLICY, obj)
    assert starts(found, texts), found


@pytest.mark.parametrize(("name", "obj", "texts"), BINDINGS, ids=lambda c: c if isinstance(c, str) else "")
def test_bindings(name: str, obj: Object, texts: list[str]) -> None:
    found = refusals(BINDING, obj)
    assert starts(found, texts), found


def test_defaults_and_cells() -> None:
    spec = created(POLICY, policy())["spec"]
    match = spec["matchConstraints"]
    assert spec["failurePolicy"] == "Fail" and match["matchPolicy"] == "Equivalent"
    assert match["namespaceSelector"] == match["objectSelector"] == {}
    assert match["resourceRules"][0]["scope"] == "*"
    cells = row(POLICY, policy(paramKind={"apiVersion": "v1", "kind": "ConfigMap"}))
    assert (cells["Validations"], cells["ParamKind"]) == (1, "v1/ConfigMap")
    assert row(POLICY, policy())["ParamKind"] == "<unset>"
    assert row(BINDING, binding(paramRef={"name": "n", "namespace": "ns"}))["ParamRef"] == "ns/n"
    assert row(BINDING, binding())["ParamRef"] == "<unset>"
