"""From a Pod to what a container runtime is told: one row per sentence."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.meta import typed
from kubesvc.api.pod import Pod
from kubesvc.node.cri import wire
from kubesvc.node.cri.config import MASKED_PATHS, OWNER, plan_container, plan_sandbox
from kubesvc.node.images import Image

MEMORY = 16 << 30


def make_pod(spec: dict[str, Any], container: dict[str, Any], **meta: Any) -> Pod:
    made = {
        "metadata": {"name": "a", "namespace": "shop", "uid": "u-1", **meta},
        "spec": {**spec, "containers": [{"name": "c", "image": "shop:1", **container}]},
    }
    return typed(made, Pod)


def at(message: Any, path: str) -> Any:
    for step in path.split("."):
        message = message.get(step) if isinstance(message, dict) else message
    return message


SANDBOXES: list[tuple[str, dict[str, Any], dict[str, Any], str, Any]] = [
    ("is named as its Pod", {}, {}, "metadata", {"name": "a", "uid": "u-1", "namespace": "shop", "attempt": 3}),
    ("has the Pod's labels, and a kubelet's", {}, {}, "labels", {
        "app": "web", OWNER: "/state", "io.kubernetes.pod.name": "a", "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": "u-1"}),
    ("has its Pod's annotations", {}, {}, "annotations", {"note": "x"}),
    ("has each container alone with its processes", {}, {},
     "linux.security_context.namespace_options", {"network": 0, "pid": wire.CONTAINER, "ipc": wire.POD}),
    ("shares processes if the Pod does", {"shareProcessNamespace": True}, {},
     "linux.security_context.namespace_options.pid", wire.POD),
    ("has the node's processes with hostPID", {"hostPID": True}, {},
     "linux.security_context.namespace_options.pid", wire.NODE),
    ("has the node's IPC with hostIPC", {"hostIPC": True}, {},
     "linux.security_context.namespace_options.ipc", wire.NODE),
    ("is privileged if one of its containers is", {}, {"securityContext": {"privileged": True}},
     "linux.security_context.privileged", True),
    ("has the Pod's sysctls", {"securityContext": {"sysctls": [{"name": "net.x", "value": "1"}]}}, {},
     "linux.sysctls", {"net.x": "1"}),
    ("has the Pod's group", {}, {}, "linux.cgroup_parent", "/kubesvc/n1/u-1"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "spec", "container", "path", "wanted"), SANDBOXES, ids=[r[0] for r in SANDBOXES])
def test_a_sandbox(sentence: str, spec: dict[str, Any], container: dict[str, Any], path: str, wanted: Any) -> None:
    pod = make_pod(spec, container, labels={"app": "web"}, annotations={"note": "x"})
    found = plan_sandbox(
        pod, attempt=3, hostname="a", log_directory="/logs", owner="/state", network=wire.POD,
        cgroup_parent="/kubesvc/n1/u-1",
    )  # fmt: skip
    assert at(found, path) == wanted
    assert wire.decode("PodSandboxConfig", wire.encode("PodSandboxConfig", found))["hostname"] == "a"


def test_a_sandbox_of_the_nodes_network_has_no_hostname_of_its_own() -> None:
    found = plan_sandbox(
        make_pod({"hostNetwork": True}, {}), attempt=1, hostname="a", log_directory="", owner="", network=wire.NODE
    )
    assert found["hostname"] == "" and at(found, "linux.security_context.namespace_options.network") == wire.NODE


SECURITY = "linux.security_context"
RESOURCES = "linux.resources"
LIMITED = {"resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}}
CONTAINERS: list[tuple[str, dict[str, Any], dict[str, Any], str, Any]] = [
    ("runs its image by its identity", {}, {}, "image", {"image": "sha256:1", "user_specified_image": "shop:1"}),
    ("has variables in its words replaced", {}, {"command": ["$(A)", "$$(A)", "$(B)"]}, "command",
     ["1", "$(A)", "$(B)"]),
    ("leaves command and args to the image", {}, {"args": ["x"]}, "command", []),
    ("has args of its own", {}, {"args": ["x$(A)"]}, "args", ["x1"]),
    ("has its variables", {}, {}, "envs", [{"key": "A", "value": "1"}]),
    ("is labelled as a kubelet's", {}, {}, "labels", {
        "io.kubernetes.container.name": "c", "io.kubernetes.pod.name": "a", "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": "u-1"}),
    ("says the grace it has", {"terminationGracePeriodSeconds": 5}, {}, "annotations",
     {"io.kubernetes.container.restartCount": "2", "io.kubernetes.container.terminationMessagePath": "/m",
      "io.kubernetes.container.terminationMessagePolicy": "File", "io.kubernetes.pod.terminationGracePeriod": "5"}),
    ("writes its log where it is looked for", {}, {}, "log_path", "c/2.log"),
    ("has stdin and a terminal if it asks", {}, {"stdin": True, "stdinOnce": True, "tty": True}, "tty", True),
    ("is its image's user", {}, {}, f"{SECURITY}.run_as_user", {"value": 33}),
    ("is its Pod's user before its image's", {"securityContext": {"runAsUser": 7}}, {},
     f"{SECURITY}.run_as_user", {"value": 7}),
    ("is its own user before its Pod's", {"securityContext": {"runAsUser": 7}}, {"securityContext": {"runAsUser": 0}},
     f"{SECURITY}.run_as_user", {"value": 0}),
    ("is of the Pod's group", {"securityContext": {"runAsGroup": 8}}, {}, f"{SECURITY}.run_as_group", {"value": 8}),
    ("is of no group of its own", {}, {}, f"{SECURITY}.run_as_group", None),
    ("has the Pod's further groups and that of its files",
     {"securityContext": {"supplementalGroups": [1], "fsGroup": 2}}, {}, f"{SECURITY}.supplemental_groups", [1, 2]),
    ("may gain no privileges if it shall not", {}, {"securityContext": {"allowPrivilegeEscalation": False}},
     f"{SECURITY}.no_new_privs", True),
    ("may gain them otherwise", {}, {}, f"{SECURITY}.no_new_privs", False),
    ("has a root that takes no writes", {}, {"securityContext": {"readOnlyRootFilesystem": True}},
     f"{SECURITY}.readonly_rootfs", True),
    ("has its capabilities", {}, {"securityContext": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}},
     f"{SECURITY}.capabilities", {"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["ALL"]}),
    ("has paths of the kernel masked", {}, {}, f"{SECURITY}.masked_paths", list(MASKED_PATHS)),
    ("has none masked when privileged", {}, {"securityContext": {"privileged": True}}, f"{SECURITY}.masked_paths", []),
    ("has none masked with procMount Unmasked", {}, {"securityContext": {"procMount": "Unmasked"}},
     f"{SECURITY}.readonly_paths", []),
    ("is not confined by seccomp unless told", {}, {}, f"{SECURITY}.seccomp", {"profile_type": wire.UNCONFINED}),
    ("has the runtime's profile if told", {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}, {},
     f"{SECURITY}.seccomp", {"profile_type": wire.RUNTIME_DEFAULT}),
    ("has a profile of the node", {}, {"securityContext": {
        "seccompProfile": {"type": "Localhost", "localhostProfile": "my/p.json"}}}, f"{SECURITY}.seccomp",
     {"profile_type": wire.LOCALHOST, "localhost_ref": "/var/lib/kubelet/seccomp/my/p.json"}),
    ("has half a processor", {}, LIMITED, f"{RESOURCES}.cpu_quota", 50_000),
    ("has the weight of what it may use", {}, LIMITED, f"{RESOURCES}.cpu_shares", 512),
    ("has its memory, and no swap besides", {}, LIMITED, f"{RESOURCES}.memory_limit_in_bytes", 64 << 20),
    ("has the least weight if it asks for nothing", {}, {}, f"{RESOURCES}.cpu_shares", 2),
    ("is ended first if it asks for nothing", {}, {}, f"{RESOURCES}.oom_score_adj", 1000),
    ("is ended last if it has all it asks for", {}, LIMITED, f"{RESOURCES}.oom_score_adj", -997),
    ("is ended by what it asked for in between", {}, {"resources": {"requests": {"memory": "8Gi"}}},
     f"{RESOURCES}.oom_score_adj", 500),
]  # fmt: skip


def plan(pod: Pod, *, username: str = "", target: str = "") -> dict[str, Any]:
    assert pod.spec.containers is not None
    return plan_container(
        pod, pod.spec.containers[0], image=Image(name="shop:1", identity="sha256:1", user=33), username=username,
        attempt=2, environment={"A": "1"}, mounts=[], log_path="c/2.log", network=wire.POD, target=target,
        memory_bytes=MEMORY,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "spec", "container", "path", "wanted"), CONTAINERS, ids=[r[0] for r in CONTAINERS]
)
def test_a_container(sentence: str, spec: dict[str, Any], container: dict[str, Any], path: str, wanted: Any) -> None:
    given = {"terminationMessagePath": "/m", "terminationMessagePolicy": "File", **container}
    found = plan(make_pod(spec, given))
    assert at(found, path) == wanted
    assert wire.decode("ContainerConfig", wire.encode("ContainerConfig", found))["metadata"]["attempt"] == 2


def test_a_user_that_the_image_names_is_looked_up_by_the_runtime() -> None:
    found = plan(make_pod({}, {}), username="web")
    assert at(found, f"{SECURITY}.run_as_username") == "web" and "run_as_user" not in found["linux"]["security_context"]
    numbered = plan(make_pod({}, {"securityContext": {"runAsUser": 5}}), username="web")
    assert at(numbered, f"{SECURITY}.run_as_user") == {"value": 5}


def test_a_debugging_container_is_among_its_targets_processes() -> None:
    options = at(plan(make_pod({}, {}), target="id1"), f"{SECURITY}.namespace_options")
    assert options["pid"] == wire.TARGET and options["target_id"] == "id1"
    shared = at(plan(make_pod({"shareProcessNamespace": True}, {}), target="id1"), f"{SECURITY}.namespace_options")
    assert shared["pid"] == wire.POD
