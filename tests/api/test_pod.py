"""Pods: defaults (POD-1, NODE-31 to 36), checks, what may change (POD-5), status (POD-4, POD-6), columns (KCTL-37)."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubesvc.api import podcolumns, podspec, podstrategy, shape
from kubesvc.api.ages import render_since
from kubesvc.api.kind import Since, Situation
from kubesvc.api.meta import Object, typed
from kubesvc.api.pod import POD, Pod

LABEL = "a lowercase RFC 1123 label must consist of lower case"
C: Object = {"name": "c", "image": "i"}
SELF: Object = {"httpGet": {"port": 80}}


def pod(**spec: Any) -> Object:
    """A defaulted pod; `c` makes one container of the given fields."""
    found: Object = {"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [C], **copy.deepcopy(spec)}}
    POD.default(found)
    return found


def container(**fields: Any) -> Object:
    found: Object = pod(containers=[{**C, **fields}])["spec"]["containers"][0]
    return found


def errors(**spec: Any) -> list[str]:
    return [str(e) for e in POD.validate(pod(**spec), Situation())]


def container_errors(**fields: Any) -> list[str]:
    return [e.replace("spec.containers[0].", "") for e in errors(containers=[{**C, **fields}])]


DEFAULTS = (
    ("pull policy of latest", {"image": "a/b:latest"}, "imagePullPolicy", "Always"),
    ("pull policy without tag", {"image": "host:5000/b"}, "imagePullPolicy", "Always"),
    ("pull policy of a tag", {"image": "host:5000/b:1"}, "imagePullPolicy", "IfNotPresent"),
    ("pull policy of a digest", {"image": "b@sha256:00"}, "imagePullPolicy", "IfNotPresent"),
    ("protocol", {"ports": [{"containerPort": 1}]}, "ports", [{"containerPort": 1, "protocol": "TCP"}]),
    ("zero values are not stored", {"tty": False, "args": [], "workingDir": ""}, "tty", None),
    ("pointers to zero are", {"securityContext": {"privileged": False}}, "securityContext", {"privileged": False}),
    ("quantities are canonical", {"resources": {"requests": {"cpu": 0.5}}}, "resources", {"requests": {"cpu": "500m"}}),
    ("requests follow limits", {"resources": {"limits": {"cpu": "1"}}}, "resources",
     {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}),
    ("NODE-32 to 35", {"readinessProbe": {"tcpSocket": {"port": 1}}}, "readinessProbe",
     {"tcpSocket": {"port": 1}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1,
      "failureThreshold": 3}),
    ("NODE-47", {"lifecycle": {"preStop": SELF}}, "lifecycle",
     {"preStop": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}}}),
)  # fmt: skip


@pytest.mark.parametrize(("name", "fields", "field", "value"), DEFAULTS, ids=lambda c: c if isinstance(c, str) else "")
def test_container_default(name: str, fields: Object, field: str, value: Any) -> None:
    assert container(**fields).get(field) == value


def test_volume_defaults() -> None:
    volumes = [{"name": "a"}, {"name": "b", "configMap": {"name": "x"}}, {"name": "c", "hostPath": {"path": "/"}}]
    assert pod(volumes=volumes)["spec"]["volumes"] == [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "configMap": {"name": "x", "defaultMode": 420}},
        {"name": "c", "hostPath": {"path": "/", "type": ""}},
    ]


def test_host_network_ports() -> None:
    """POD-1: hostPort = containerPort."""
    made = pod(hostNetwork=True, containers=[{**C, "ports": [{"containerPort": 80}]}])
    assert made["spec"]["containers"][0]["ports"][0]["hostPort"] == 80


def test_old_name_of_the_account() -> None:
    assert pod(serviceAccount="x")["spec"]["serviceAccountName"] == "x"
    assert pod(serviceAccountName="x")["spec"]["serviceAccount"] == "x"


QOS: tuple[tuple[str, list[Object], str], ...] = (
    ("nothing asked for", [{}], "BestEffort"),
    ("half", [{"requests": {"cpu": "1"}}], "Burstable"),
    ("all of it", [{"limits": {"cpu": "1", "memory": "1Gi"}}], "Guaranteed"),
    ("equal in other words", [{"limits": {"cpu": "1000m", "memory": "1Gi"}, "requests": {"cpu": 1}}], "Guaranteed"),
    ("one of two", [{"limits": {"cpu": "1", "memory": "1Gi"}}, {}], "Burstable"),
    ("other resources do not count", [{"limits": {"example.com/x": "1"}}], "BestEffort"),
    ("zero is nothing", [{"requests": {"cpu": "0"}}], "BestEffort"),
)


@pytest.mark.parametrize(("name", "resources", "qos"), QOS, ids=lambda c: c if isinstance(c, str) else "")
def test_qos(name: str, resources: list[Object], qos: str) -> None:
    made = pod(containers=[{"name": f"c{i}", "image": "i", "resources": r} for i, r in enumerate(resources)])
    assert podspec.qos_class(made["spec"]) == qos


HTTP: Object = {"httpGet": {"port": "http"}}
CONTAINER_ERRORS: tuple[tuple[str, Object, list[str]], ...] = (
    ("right", {}, []),
    ("POD-2 port 0", {"ports": [{}]}, ["ports[0].containerPort: Required value"]),
    ("POD-2 port too big", {"ports": [{"containerPort": 65536}]}, [
        "ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive"]),
    ("POD-2 same name twice", {"ports": [{"name": "a", "containerPort": 1}, {"name": "a", "containerPort": 2}]}, [
        'ports[1].name: Duplicate value: "a"']),
    ("protocol", {"ports": [{"containerPort": 1, "protocol": "X"}]}, [
        'ports[0].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"']),
    ("host port twice", {"ports": [{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]}, [
        'ports[1].hostPort: Duplicate value: "TCP//9"']),
    ("pull policy", {"imagePullPolicy": "Odd"}, [
        'imagePullPolicy: Unsupported value: "Odd": supported values: "Always", "IfNotPresent", "Never"']),
    ("blank in image", {"image": " i"}, ['image: Invalid value: " i": must not have leading or trailing whitespace']),
    ("variable without name", {"env": [{"value": "x"}]}, ["env[0].name: Required value"]),
    ("variable with =", {"env": [{"name": "a=b"}]}, ['env[0].name: Invalid value: "a=b": a valid environment']),
    ("variable from nowhere", {"env": [{"name": "a", "valueFrom": {}}]}, [
        'env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`']),
    ("variable from a field it cannot have", {"env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]}, [
        'env[0].valueFrom.fieldRef.fieldPath: Invalid value: "x": error converting fieldPath: field label not supported'
    ]),
    ("unknown volume", {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, ['volumeMounts[0].name: Not found: "v"']),
    ("request over limit", {"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}, [
        'resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1']),
    ("unknown resource", {"resources": {"limits": {"foo": "1"}}}, [
        'resources.limits[foo]: Invalid value: "foo": must be a standard resource type or fully qualified',
        'resources.limits[foo]: Invalid value: "foo": must be a standard resource for containers',
        'resources.requests[foo]: Invalid value: "foo": must be a standard resource type or fully qualified',
        'resources.requests[foo]: Invalid value: "foo": must be a standard resource for containers']),
    ("probe without handler", {"livenessProbe": {}}, ["livenessProbe: Required value: must specify a handler type"]),
    ("two handlers", {"livenessProbe": {**SELF, "tcpSocket": {"port": 1}}}, [
        "livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"]),
    ("NODE-31", {"livenessProbe": {**SELF, "initialDelaySeconds": -1}}, [
        "livenessProbe.initialDelaySeconds: Invalid value: -1: must be greater than or equal to 0"]),
    ("NODE-34", {"livenessProbe": {**SELF, "successThreshold": 2}}, [
        "livenessProbe.successThreshold: Invalid value: 2: must be 1"]),
    ("NODE-34 readiness may", {"readinessProbe": {**SELF, "successThreshold": 2}}, []),
    ("NODE-36", {"readinessProbe": {**SELF, "terminationGracePeriodSeconds": 5}}, [
        "readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes"]),
    ("port of a probe", {"readinessProbe": {"tcpSocket": {"port": 0}}}, [
        "readinessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive"]),
)  # fmt: skip


@pytest.mark.parametrize(("name", "fields", "texts"), CONTAINER_ERRORS, ids=lambda c: c if isinstance(c, str) else "")
def test_container_errors(name: str, fields: Object, texts: list[str]) -> None:
    found = container_errors(**fields)
    assert len(found) == len(texts), found
    assert all(e.startswith(t) for e, t in zip(found, texts, strict=True)), found


SIDECAR = {"name": "s", "image": "i", "restartPolicy": "Always"}
POD_ERRORS: tuple[tuple[str, Object, list[str]], ...] = (
    ("sidecar with probes", {"initContainers": [{**SIDECAR, "readinessProbe": SELF}]}, []),
    ("init container with probes", {"initContainers": [{"name": "s", "image": "i", "readinessProbe": SELF}]}, [
        "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy="
    ]),
    ("one name for two", {"initContainers": [C]}, ['spec.initContainers[0].name: Duplicate value: "c"']),
    ("two sources", {"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]}, [
        "spec.volumes[0].emptyDir: Forbidden: may not specify more than 1 volume type"]),
    ("volume twice", {"volumes": [{"name": "v"}, {"name": "v"}]}, ['spec.volumes[1].name: Duplicate value: "v"']),
    ("mode", {"volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": 512}}]}, [
        "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both"]),
    ("no DNS", {"dnsPolicy": "None"}, ["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy`"]),
    ("deadline", {"activeDeadlineSeconds": 0}, [
        "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"]),
    ("toleration without key", {"tolerations": [{"operator": "Equal"}]}, [
        'spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty']),
    ("alias", {"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a_b"]}]}, ["spec.hostAliases[0].hostnames[0]: "]),
)  # fmt: skip


@pytest.mark.parametrize(("name", "spec", "texts"), POD_ERRORS, ids=lambda c: c if isinstance(c, str) else "")
def test_pod_errors(name: str, spec: Object, texts: list[str]) -> None:
    found = errors(**spec)
    assert len(found) == len(texts), found
    assert all(e.startswith(t) for e, t in zip(found, texts, strict=True)), found


FIXED = "spec: Forbidden: pod updates may not change fields other than"
UPDATES: tuple[tuple[str, Object, Object, str], ...] = (
    ("image", {}, {"containers": [{**C, "image": "j"}]}, ""),
    ("command", {}, {"containers": [{**C, "command": ["x"]}]}, FIXED),
    ("a container more", {}, {"containers": [C, {"name": "d", "image": "i"}]},
     "spec.containers: Forbidden: pod updates may not add or remove containers"),
    ("deadline is set", {}, {"activeDeadlineSeconds": 5}, ""),
    ("deadline shrinks", {"activeDeadlineSeconds": 5}, {"activeDeadlineSeconds": 4}, ""),
    ("deadline grows", {"activeDeadlineSeconds": 5}, {"activeDeadlineSeconds": 6},
     "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"),
    ("deadline goes", {"activeDeadlineSeconds": 5}, {},
     "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value"),
    ("toleration is added", {}, {"tolerations": [{"key": "a", "operator": "Exists"}]}, ""),
    ("toleration goes", {"tolerations": [{"key": "a", "operator": "Exists"}]}, {},
     "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"),
    ("gate goes", {"schedulingGates": [{"name": "a"}]}, {}, ""),
    ("gate comes", {}, {"schedulingGates": [{"name": "a"}]},
     "spec.schedulingGates[0]: Forbidden: only deletion is allowed, but found new scheduling gate 'a'"),
    ("grace is mended", {"terminationGracePeriodSeconds": -5}, {"terminationGracePeriodSeconds": 1}, ""),
    ("grace", {"terminationGracePeriodSeconds": 5}, {"terminationGracePeriodSeconds": 1}, FIXED),
    ("node", {}, {"nodeName": "n"}, FIXED),
)  # fmt: skip


@pytest.mark.parametrize(("name", "before", "after", "text"), UPDATES, ids=lambda c: c if isinstance(c, str) else "")
def test_update(name: str, before: Object, after: Object, text: str) -> None:
    """POD-5."""
    found = [str(e) for e in POD.validate_update(pod(**after), pod(**before), Situation())]
    assert len(found) == bool(text), found
    assert "".join(found).startswith(text)


def test_difference_in_go_words() -> None:
    """POD-5: the refusal ends with what differs, in the words of Go's types."""
    [error] = POD.validate_update(pod(hostNetwork=True), pod(), Situation())
    assert error.detail.endswith(
        '  "NodeName": "",\n  "SecurityContext": {\n-  "HostNetwork": false,\n+  "HostNetwork": true,\n'
        '   "HostPID": false,\n   "HostIPC": false,\n   "ShareProcessNamespace": null,\n'
    )


def status(**fields: Any) -> Object:
    made = pod()
    made["status"] = copy.deepcopy(fields)
    POD.default(made)
    return made


def test_addresses_are_kept_in_step() -> None:
    """POD-4."""
    assert status(podIP="1.2.3.4")["status"]["podIPs"] == [{"ip": "1.2.3.4"}]
    assert status(podIPs=[{"ip": "1.2.3.4"}])["status"]["podIP"] == "1.2.3.4"
    assert status(podIP="1.2.3.4", podIPs=[{"ip": "5.6.7.8"}])["status"]["podIPs"] == [{"ip": "1.2.3.4"}]


def test_status_errors() -> None:
    """POD-4, POD-6."""
    twice = status(podIPs=[{"ip": "1.2.3.4"}, {"ip": "1.2.3.5"}], conditions=[{"type": "a b", "status": "True"}])
    found = [str(e) for e in POD.validate_status(twice, pod(), Situation())]
    assert found[0].startswith('status.conditions[0].Type: Invalid value: "a b"')
    assert found[1:] == [
        'status.podIPs: Invalid value: [{"IP":"1.2.3.4"},{"IP":"1.2.3.5"}]: may specify no more than one IP for each '
        "IP family"
    ]
    bad = [str(e) for e in POD.validate_status(status(podIPs=[{"ip": "x"}]), pod(), Situation())]
    assert len(bad) == 1
    assert bad[0].startswith('status.podIPs[0]: Invalid value: "x"')


def test_unknown_times_are_null() -> None:
    """META-13."""
    made = status(conditions=[{"type": "Ready", "status": "True"}])
    assert made["status"]["conditions"] == [
        {"type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": None}
    ]


def running(**more: Any) -> Object:
    return {"name": "c", "ready": True, "state": {"running": {}}, **more}


def ended(code: int = 0, reason: str = "", signal: int = 0) -> Object:
    return {"terminated": {"exitCode": code, "reason": reason, "signal": signal}}


def waiting(reason: str = "") -> Object:
    return {"waiting": {"reason": reason}}


TWO_INITS = {"initContainers": [{"name": "a"}, {"name": "b"}]}
DELETED = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
READY = {"type": "Ready", "status": "True"}
ROWS: tuple[tuple[str, Object, Object, Object, tuple[str, str, str]], ...] = (
    ("KCTL-45i unscheduled", {}, {}, {"phase": "Pending"}, ("0/1", "Pending", "0")),
    ("KCTL-38 reason", {}, {}, {"phase": "Failed", "reason": "Evicted"}, ("0/1", "Evicted", "0")),
    ("KCTL-38 gated", {}, {}, {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
     "reason": "SchedulingGated"}]}, ("0/1", "SchedulingGated", "0")),
    ("KCTL-45a", {}, {}, {"phase": "Pending",
     "containerStatuses": [{"name": "c", "state": waiting("ContainerCreating")}]}, ("0/1", "ContainerCreating", "0")),
    ("KCTL-45b", {}, TWO_INITS, {"phase": "Pending",
     "initContainerStatuses": [{"name": "a", "state": {"running": {}}}]}, ("0/1", "Init:0/2", "0")),
    ("KCTL-45c", {}, TWO_INITS, {"phase": "Pending", "conditions": [{"type": "Initialized", "status": "True"}],
     "initContainerStatuses": [{"name": n, "ready": True, "state": ended(0, "Completed")} for n in "ab"],
     "containerStatuses": [{"name": "c", "state": waiting("PodInitializing")}]}, ("0/1", "PodInitializing", "0")),
    ("KCTL-45d at first", {}, {}, {"phase": "Running", "containerStatuses": [
     {"name": "c", "restartCount": 1, "state": ended(1, "Error")}]}, ("0/1", "Error", "1")),
    ("KCTL-45d then", {}, {}, {"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 1,
     "state": waiting("CrashLoopBackOff"), "lastState": {"terminated": {"exitCode": 1,
     "finishedAt": "2025-12-31T23:59:50Z"}}}]}, ("0/1", "CrashLoopBackOff", "1 (10s ago)")),
    ("KCTL-45e at first", {}, {}, {"phase": "Pending", "containerStatuses": [
     {"name": "c", "state": waiting("ErrImagePull")}]}, ("0/1", "ErrImagePull", "0")),
    ("KCTL-45e then", {}, {}, {"phase": "Pending", "containerStatuses": [
     {"name": "c", "state": waiting("ImagePullBackOff")}]}, ("0/1", "ImagePullBackOff", "0")),
    ("KCTL-45f", DELETED, {}, {"phase": "Pending", "containerStatuses": [
     {"name": "c", "state": waiting("ContainerCreating")}]}, ("0/1", "Terminating", "0")),
    ("KCTL-45g", {}, {"restartPolicy": "Never"}, {"phase": "Succeeded", "containerStatuses": [
     {"name": "c", "state": ended(0, "Completed")}]}, ("0/1", "Completed", "0")),
    ("KCTL-45h", {}, {}, {"phase": "Failed", "reason": "Evicted", "containerStatuses": [
     {"name": "c", "state": ended(137, "Error")}]}, ("0/1", "Error", "0")),
    ("KCTL-45h before it ran", {}, {}, {"phase": "Failed", "reason": "Evicted"}, ("0/1", "Evicted", "0")),
    ("KCTL-39 second", {}, TWO_INITS, {"phase": "Pending", "initContainerStatuses": [
     {"name": "a", "state": ended(0, "Completed")}, {"name": "b", "state": waiting("PodInitializing")}]},
     ("0/1", "Init:1/2", "0")),
    ("KCTL-39 signal", {}, TWO_INITS, {"initContainerStatuses": [{"name": "a", "state": ended(1, "", 9)}]},
     ("0/1", "Init:Signal:9", "0")),
    ("KCTL-39 exit code", {}, TWO_INITS, {"initContainerStatuses": [{"name": "a", "state": ended(3)}]},
     ("0/1", "Init:ExitCode:3", "0")),
    ("KCTL-39 back-off", {}, TWO_INITS, {"initContainerStatuses": [{"name": "a", "restartCount": 2,
     "state": waiting("CrashLoopBackOff")}]}, ("0/1", "Init:CrashLoopBackOff", "2")),
    ("KCTL-37 sidecar counts", {}, {"initContainers": [SIDECAR]}, {"phase": "Running",
     "initContainerStatuses": [{"name": "s", "started": True, "ready": True, "state": {"running": {}}}],
     "containerStatuses": [running()]}, ("2/2", "Running", "0")),
    ("KCTL-40 the first with something to say wins", {}, {"containers": [C, {"name": "d", "image": "i"}]},
     {"phase": "Running", "containerStatuses": [{"name": "c", "state": waiting("ErrImagePull")},
     {"name": "d", "state": ended(1, "Error")}]}, ("0/2", "ErrImagePull", "0")),
    ("KCTL-41 completed beside running and ready", {}, {"containers": [C, {"name": "d", "image": "i"}]},
     {"phase": "Running", "conditions": [READY], "containerStatuses": [{"name": "c", "state": ended(0, "Completed")},
     running(name="d")]}, ("1/2", "Running", "0")),
    ("KCTL-41 completed beside running, not ready", {}, {"containers": [C, {"name": "d", "image": "i"}]},
     {"phase": "Running", "containerStatuses": [{"name": "c", "state": ended(0, "Completed")}, running(name="d")]},
     ("1/2", "NotReady", "0")),
    ("KCTL-42 deleted", DELETED, {}, {"phase": "Running", "containerStatuses": [running()]},
     ("1/1", "Terminating", "0")),
    ("KCTL-42 deleted but done", DELETED, {}, {"phase": "Succeeded",
     "containerStatuses": [{"name": "c", "state": ended(0, "Completed")}]}, ("0/1", "Completed", "0")),
    ("KCTL-42 lost", DELETED, {}, {"phase": "Running", "reason": "NodeLost"}, ("0/1", "Unknown", "0")),
    ("KCTL-43", {}, {}, {"phase": "Running", "containerStatuses": [running(restartCount=3, lastState={"terminated":
     {"exitCode": 1, "finishedAt": "2025-12-31T23:55:00Z"}})]}, ("1/1", "Running", "3 (5m ago)")),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "meta", "spec", "state", "cells"), ROWS, ids=lambda c: c if isinstance(c, str) else ""
)
def test_columns(name: str, meta: Object, spec: Object, state: Object, cells: tuple[str, ...]) -> None:
    made = pod(**spec)
    made["metadata"] |= meta
    made["status"] = copy.deepcopy(state)
    shape.normalize(made, Pod)
    found = typed(made, Pod)
    shown = [c.cell(found) for c in podcolumns.COLUMNS[1:4]]
    assert [render_since(c, 1_767_225_600.0) if isinstance(c, Since) else c for c in shown] == list(cells)


def test_selectable_fields() -> None:
    """SEL-3."""
    made = typed(pod(hostNetwork=True, nodeName="n"), Pod)
    read = {label: of(made) for label, of in POD.fields.items()}
    assert (read["spec.nodeName"], read["spec.hostNetwork"], read["spec.restartPolicy"]) == ("n", "true", "Always")


def test_generation() -> None:
    """META-7: only the spec counts."""
    assert POD.generation is not None
    assert not POD.generation(status(phase="Running"), pod())
    assert POD.generation(pod(activeDeadlineSeconds=1), pod())


TWICE = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
WARNINGS: tuple[tuple[str, Object, list[str]], ...] = (
    ("nothing", {}, []),
    ("hidden variable", {"containers": [{**C, "env": TWICE}]}, [
        'spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply']),
    ("variable that grows", {"containers": [{**C, "env": [TWICE[0], {"name": "A", "value": "$(A)2"}]}]}, []),
    ("port twice", {"containers": [{**C, "ports": [{"containerPort": 1}, {"containerPort": 1}]}]}, [
        "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"]),
    ("half a byte", {"containers": [{**C, "resources": {"requests": {"memory": "100m"}}}]}, [
        'spec.containers[0].resources.requests[memory]: fractional byte value "100m" is invalid, must be an integer']),
    ("negative grace", {"terminationGracePeriodSeconds": -1}, [
        "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"]),
    ("old label", {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}, [
        'spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead']),
)  # fmt: skip


@pytest.mark.parametrize(("name", "spec", "texts"), WARNINGS, ids=lambda c: c if isinstance(c, str) else "")
def test_warnings(name: str, spec: Object, texts: list[str]) -> None:
    """WARN-1; of changes, which mostly come from programs, there are none."""
    assert POD.warn(pod(**spec), None) == texts
    assert POD.warn(pod(**spec), pod()) == POD.warn(pod(**spec), pod(**spec)) == []


def test_warnings_of_names() -> None:
    """A pod's name is its host name."""
    dotted = pod() | {"metadata": {"name": "a.b"}}
    assert POD.warn(dotted, None) == [
        "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is "
        "recommended: [must not contain dots]"
    ]
    assert POD.warn(dotted, dotted) == []


def sized(**resources: Any) -> Object:
    return pod(containers=[{**C, "resources": resources}])


RESIZES: tuple[tuple[str, Object, Object, list[str]], ...] = (
    ("more", sized(requests={"cpu": "2"}), sized(requests={"cpu": "1"}), []),
    ("too much", sized(requests={"cpu": "3"}, limits={"cpu": "2"}), sized(requests={"cpu": "1"}, limits={"cpu": "2"}), [
        'spec.containers[0].resources.requests: Invalid value: "3": must be less than or equal to cpu limit of 2']),
    ("another class", sized(requests={"cpu": "1"}), sized(), [
        'spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing']),
    ("limit goes", sized(requests={"cpu": "1"}), sized(requests={"cpu": "1"}, limits={"cpu": "2"}), [
        "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"]),
    ("other resources", sized(requests={"cpu": "1"}), sized(requests={"cpu": "1", "ephemeral-storage": "1"}), [
        "spec: Forbidden: only cpu and memory resources are mutable"]),
)  # fmt: skip


@pytest.mark.parametrize(("name", "new", "old", "texts"), RESIZES, ids=lambda c: c if isinstance(c, str) else "")
def test_resize(name: str, new: Object, old: Object, texts: list[str]) -> None:
    """SUB-4."""
    assert [str(e) for e in podstrategy.validate_resize(new, old)] == texts


def test_ephemeral_containers() -> None:
    """SUB-4: a name of their own, no ports, no probes."""
    made = pod(ephemeralContainers=[{**C, "ports": [{"containerPort": 1}]}])
    assert [str(e) for e in podstrategy.validate_ephemeral_containers(made)] == [
        'spec.ephemeralContainers[0].name: Duplicate value: "c"',
        "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
    ]
