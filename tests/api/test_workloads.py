"""Kinds that make pods: defaults, checks, changes and columns (DEPLOY-1, DEPLOY-3, KCTL-16 to 20, KCTL-29, KCTL-54)."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api import kinds
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from tests.api.checking import created, defaulted, refusals, row, starts, status_refusals, update_refusals

LABELS = {"app": "x"}


def workload(pod: Object | None = None, **spec: Any) -> Object:
    """A deployment or its like; a field given as None is left out."""
    template = {
        "metadata": {"labels": LABELS},
        "spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j:1"}], **(pod or {})},
    }
    found = {"selector": {"matchLabels": LABELS}, "template": template, **spec}
    return {"spec": {k: v for k, v in found.items() if v is not None}}


NEVER = {"restartPolicy": "Never"}
ROLLING = "spec.strategy.rollingUpdate"
UPDATE = "spec.updateStrategy.rollingUpdate"
CREATES: tuple[tuple[str, Kind, Object, list[str]], ...] = (
    ("a deployment", kinds.DEPLOYMENT, workload(), []),
    ("no selector", kinds.DEPLOYMENT, workload(selector=None), [
        "spec.selector: Required value", 'spec.template.metadata.labels: Invalid value: {"app":"x"}: `selector`']),
    ("empty selector", kinds.DEPLOYMENT, workload(selector={}), [
        "spec.selector: Invalid value: {}: empty selector is invalid for deployment"]),
    ("selector of others", kinds.DEPLOYMENT, workload(selector={"matchLabels": {"app": "y"}}), [
        'spec.template.metadata.labels: Invalid value: {"app":"x"}: `selector` does not match template `labels`']),
    ("odd operator", kinds.DEPLOYMENT, workload(selector={"matchExpressions": [{"key": "a", "operator": "Odd"}]}), [
        'spec.selector.matchExpressions[0].operator: Invalid value: "Odd": not a valid selector operator']),
    ("DEPLOY-3 both 0", kinds.DEPLOYMENT, workload(strategy={"rollingUpdate": {"maxSurge": 0,
     "maxUnavailable": "0%"}}), [
        f'{ROLLING}.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0']),
    ("over 100 %", kinds.DEPLOYMENT, workload(strategy={"rollingUpdate": {"maxUnavailable": "101%"}}), [
        f'{ROLLING}.maxUnavailable: Invalid value: "101%": must not be greater than 100%']),
    ("surge may be over 100 %", kinds.DEPLOYMENT, workload(strategy={"rollingUpdate": {"maxSurge": "200%"}}), []),
    ("no percentage", kinds.DEPLOYMENT, workload(strategy={"rollingUpdate": {"maxSurge": "x"}}), [
        f'{ROLLING}.maxSurge: Invalid value: "x": a valid percent string must be a numeric string followed by']),
    ("DEPLOY-1 Recreate", kinds.DEPLOYMENT, workload(strategy={"type": "Recreate"}), []),
    ("DEPLOY-1 restart policy", kinds.DEPLOYMENT, workload(NEVER), [
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"']),
    ("deadline", kinds.DEPLOYMENT, workload({"activeDeadlineSeconds": 5}), [
        "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"]),
    ("template's own errors", kinds.REPLICA_SET, workload({"dnsPolicy": "X"}), [
        'spec.template.spec.dnsPolicy: Unsupported value: "X"']),
    ("replicas", kinds.REPLICA_SET, workload(replicas=-1), [
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
    ("a stateful set", kinds.STATEFUL_SET, workload(serviceName="x"), []),
    ("a stateful set's order", kinds.STATEFUL_SET, workload(podManagementPolicy="Odd"), [
        'spec.podManagementPolicy: Invalid value: "Odd": must be \'OrderedReady\' or \'Parallel\'']),
    ("a daemon set", kinds.DAEMON_SET, workload(), []),
    ("daemon set, both 0", kinds.DAEMON_SET, workload(updateStrategy={"rollingUpdate": {"maxUnavailable": 0}}), [
        f"{UPDATE}.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"]),
    ("a job", kinds.JOB, workload(NEVER, selector=None), []),
    ("a job that never ends", kinds.JOB, workload(selector=None), [
        'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"']),
    ("an indexed job", kinds.JOB, workload(NEVER, selector=None, completionMode="Indexed", parallelism=2), [
        "spec.completions: Required value: when completion mode is Indexed"]),
    ("a replication controller", kinds.REPLICATION_CONTROLLER, workload(selector=LABELS), []),
    ("without template", kinds.REPLICATION_CONTROLLER, {"spec": {"selector": LABELS}},
     ["spec.template: Required value"]),
    ("a cron job", kinds.CRON_JOB, {"spec": {"schedule": "* * * * *", "jobTemplate": workload(NEVER, selector=None)}},
     []),
    ("no schedule", kinds.CRON_JOB, {"spec": {"jobTemplate": workload(NEVER, selector=None)}}, [
        "spec.schedule: Required value"]),
    ("concurrency", kinds.CRON_JOB, {"spec": {"schedule": "@daily", "concurrencyPolicy": "X",
     "jobTemplate": workload(NEVER, selector=None)}}, [
        'spec.concurrencyPolicy: Unsupported value: "X": supported values: "Allow", "Forbid", "Replace"']),
)  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "obj", "texts"), CREATES, ids=lambda c: c if isinstance(c, str) else "")
def test_create(name: str, kind: Kind, obj: Object, texts: list[str]) -> None:
    found = refusals(kind, obj)
    assert starts(found, texts), found


OTHER = {"matchLabels": {"app": "x", "b": "c"}}
CHANGES: tuple[tuple[str, Kind, Object, Object, list[str]], ...] = (
    ("count", kinds.DEPLOYMENT, workload(replicas=3), workload(), []),
    ("selector", kinds.REPLICA_SET, workload(selector={"matchExpressions": [{"key": "app", "operator": "Exists"}]}),
     workload(), ["spec.selector: Invalid value: "]),
    ("a stateful set's name", kinds.STATEFUL_SET, workload(serviceName="y"), workload(serviceName="x"), [
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
        "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are"]),
    ("a stateful set's count", kinds.STATEFUL_SET, workload(replicas=3), workload(), []),
    ("a job's goal", kinds.JOB, workload(NEVER, selector=None, completions=3), workload(NEVER, selector=None), [
        "spec.completions: Invalid value: 3: field is immutable"]),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "new", "old", "texts"), CHANGES, ids=lambda c: c if isinstance(c, str) else ""
)
def test_update(name: str, kind: Kind, new: Object, old: Object, texts: list[str]) -> None:
    found = update_refusals(kind, new, old)
    assert starts(found, texts), found


def test_counts_in_status() -> None:
    """A part is not more than the whole."""
    status = {"status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": 2, "fullyLabeledReplicas": -1}}
    assert status_refusals(kinds.REPLICA_SET, workload() | status, workload()) == [
        "status.fullyLabeledReplicas: Invalid value: -1: must be greater than or equal to 0",
        "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
        "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
    ]


def test_defaults() -> None:
    """DEPLOY-1, DEPLOY-6, and those of the others."""
    spec = created(kinds.DEPLOYMENT, workload())["spec"]
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
    assert "enableServiceLinks" not in spec["template"]["spec"]
    assert spec["template"]["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert created(kinds.REPLICA_SET, workload())["status"] == {"replicas": 0}
    daemon = created(kinds.DAEMON_SET, workload())["spec"]["updateStrategy"]
    assert daemon == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    stateful = created(kinds.STATEFUL_SET, workload(volumeClaimTemplates=[{"metadata": {"name": "v"}}]))["spec"]
    assert stateful["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert stateful["volumeClaimTemplates"] == [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "v"},
            "spec": {"volumeMode": "Filesystem"},
            "status": {"phase": "Pending"},
        }
    ]


def test_a_jobs_pods_carry_its_uid() -> None:
    job = {"metadata": {"name": "j", "namespace": "ns", "uid": "u"}} | workload(NEVER, selector=None)
    spec = created(kinds.JOB, job)["spec"]
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}
    assert spec["template"]["metadata"]["labels"] == {
        "app": "x",
        "batch.kubernetes.io/controller-uid": "u",
        "batch.kubernetes.io/job-name": "j",
        "controller-uid": "u",
        "job-name": "j",
    }


def test_a_replication_controller_selects_its_own_labels() -> None:
    found = defaulted(kinds.REPLICATION_CONTROLLER, workload(selector=None))
    assert (found["spec"]["selector"], found["metadata"]["labels"]) == (LABELS, LABELS)


def test_generation_of_a_deployment() -> None:
    """META-7: annotations count, labels do not."""
    old = created(kinds.DEPLOYMENT, workload())
    raises = kinds.DEPLOYMENT.generation
    assert raises is not None
    assert not raises(old | {"metadata": {"name": "x", "labels": {"a": "b"}}}, old)
    assert raises(old | {"metadata": {"name": "x", "annotations": {"a": "b"}}}, old)
    assert raises(created(kinds.DEPLOYMENT, workload(replicas=2)), old)


BORN = {"metadata": {"name": "x", "creationTimestamp": "2025-12-31T23:55:00Z"}}


def test_columns() -> None:
    """KCTL-16 to 20, KCTL-36, KCTL-54."""
    status = {"status": {"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}}
    assert row(kinds.DEPLOYMENT, BORN | workload(replicas=2) | status) == {
        "Name": "x", "Ready": "1/2", "Up-to-date": 2, "Available": 1, "Age": "5m", "Containers": "c,d",
        "Images": "i:1,j:1", "Selector": "app=x",
    }  # fmt: skip
    selector = {"matchLabels": {"b": "1"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]}
    found = row(kinds.REPLICA_SET, BORN | workload(selector=selector) | status)
    assert (found["Desired"], found["Current"], found["Ready"]) == (1, 2, 1)
    assert found["Selector"] == "a in (x,y),b=1"
    assert row(kinds.STATEFUL_SET, BORN | workload(replicas=2) | status)["Ready"] == "1/2"
    assert row(kinds.DAEMON_SET, BORN | workload({"nodeSelector": {"b": "c", "a": "d"}}))["Node Selector"] == "a=d,b=c"
    controller = row(kinds.REPLICATION_CONTROLLER, BORN | workload(selector=LABELS))
    assert (controller["Desired"], controller["Selector"]) == (1, "app=x")


SELECTORS: tuple[tuple[str, Object | None, str], ...] = (
    ("none at all", None, "<none>"),
    ("an empty one", {}, "<none>"),
    ("labels by key", {"matchLabels": {"b": "1", "a": "2"}}, "a=2,b=1"),
    ("one value of an expression is no equality", {"matchExpressions": [
        {"key": "k", "operator": "In", "values": ["v"]}]}, "k in (v)"),
    ("every operator, values sorted, all by key", {"matchLabels": {"c": "1"}, "matchExpressions": [
        {"key": "d", "operator": "DoesNotExist"}, {"key": "b", "operator": "Exists"},
        {"key": "a", "operator": "NotIn", "values": ["y", "x"]}]}, "a notin (x,y),b,c=1,!d"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "selector", "text"), SELECTORS, ids=lambda c: c if isinstance(c, str) else "")
def test_selectors_in_cells(name: str, selector: Object | None, text: str) -> None:
    """KCTL-35: a selector's cell is its canonical form; plain labels are printed the same way."""
    made: Object = BORN | workload()
    made["spec"]["selector"] = selector
    assert row(kinds.REPLICA_SET, made)["Selector"] == text
    if selector is None or "matchExpressions" not in selector:
        wanted = BORN | workload({"nodeSelector": (selector or {}).get("matchLabels")})
        assert row(kinds.DAEMON_SET, wanted)["Node Selector"] == text


JOBS: tuple[tuple[str, Object, Object, tuple[str, str, str]], ...] = (
    ("new", {}, {}, ("Running", "0/1", "")),
    ("running", {"completions": 3}, {"startTime": "2025-12-31T23:59:00Z", "succeeded": 1}, ("Running", "1/3", "60s")),
    ("complete", {}, {"startTime": "2025-12-31T23:00:00Z", "completionTime": "2025-12-31T23:00:07Z", "succeeded": 1,
     "conditions": [{"type": "Complete", "status": "True"}]}, ("Complete", "1/1", "7s")),
    ("work queue", {"parallelism": 3}, {}, ("Running", "0/1 of 3", "")),
    ("suspended", {}, {"conditions": [{"type": "Suspended", "status": "True"}]}, ("Suspended", "0/1", "")),
)  # fmt: skip


@pytest.mark.parametrize(("name", "spec", "status", "cells"), JOBS, ids=lambda c: c if isinstance(c, str) else "")
def test_job_columns(name: str, spec: Object, status: Object, cells: tuple[str, ...]) -> None:
    """KCTL-29."""
    found = row(kinds.JOB, BORN | workload(NEVER, **spec) | {"status": status})
    assert (found["Status"], found["Completions"], found["Duration"]) == cells
