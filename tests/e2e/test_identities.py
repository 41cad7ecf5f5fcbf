"""Who the parts inside a node are to the API server: each speaks under its own name, and has no more rights than that
name gives it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kubesvc.instance.nodekeeper import API_SOCKET, DNS_API_SOCKET, PROXY_API_SOCKET

from .harness import Instance, UnixConnection, eventually, need_machine, running_instance

pytestmark = pytest.mark.e2e

NODE, PROXY, DNS = "system:node:n1", "system:kube-proxy", "system:serviceaccount:kube-system:coredns"
MODES = ("Node,RBAC", "RBAC")


@pytest.fixture(scope="module", params=MODES)
def instance(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    need_machine()
    log = tmp_path_factory.mktemp("audit") / "audit.log"
    options = ("--nodes", "1", "--simulated-nodes", "1", "--store", "memory", "--audit-log", str(log))
    with running_instance(*options, "--authorization-mode", request.param) as found:
        found.said = [str(log), request.param]
        yield found


def events(instance: Instance) -> list[dict[str, Any]]:
    """The audit log as far as it is written: its last line may not be whole yet."""
    whole, _, _ = Path(instance.said[0]).read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def test_a_pod_runs_and_is_found_without_anybody_being_admin(instance: Instance) -> None:
    """AUTH-8, NODE-75: environment from a ConfigMap and a Secret, a token, a Service by name."""
    instance.kubectl("create", "configmap", "given", "--from-literal=A=from-config")
    instance.kubectl("create", "secret", "generic", "kept", "--from-literal=B=from-secret")
    sources = [{"configMapRef": {"name": "given"}}, {"secretRef": {"name": "kept"}}]
    container = {"name": "c", "image": "nginx", "envFrom": sources}
    meta = {"name": "web", "labels": {"app": "web"}}
    spec = {"nodeName": "n1", "containers": [container]}
    instance.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    instance.kubectl("expose", "pod", "web", "--port=80", "--target-port=80")
    instance.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=120s")
    eventually(lambda: "nginx" in instance.curl("http://web.default").stdout)
    instance.kubectl("delete", "pod", "web", "--wait=true", "--timeout=120s")
    seen = [e for e in events(instance) if e["user"]["username"] in (NODE, PROXY, DNS)]
    assert {e["user"]["username"] for e in seen} == {NODE, PROXY, DNS}
    refused = [(e["user"]["username"], e["verb"], e["requestURI"]) for e in seen if e["responseStatus"]["code"] == 403]
    assert not refused
    parts = ("kubelet/", "kube-proxy/", "kube-dns/")
    agents = {e["user"]["username"] for e in events(instance) if e.get("userAgent", "").startswith(parts)}
    assert agents == {NODE, NODE.replace("n1", "n2"), PROXY, DNS}


class Attempt(NamedTuple):
    about: str
    socket: str
    method: str
    path: str
    refused: str
    """What the refusal says; "" if it is allowed."""
    body: Any = None


SECRETS = "/api/v1/namespaces/kube-system/secrets"
LABELS = {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}
ATTEMPTS = (
    Attempt("a node reads itself", API_SOCKET, "GET", "/api/v1/nodes/n1", ""),
    Attempt("and no secrets but its pods'", API_SOCKET, "GET", SECRETS, "No Object name found"),
    Attempt("and writes no other node", API_SOCKET, "PATCH", "/api/v1/nodes/n2", "not allowed to modify node", LABELS),
    Attempt("nor labels that steer pods to it", API_SOCKET, "PATCH", "/api/v1/nodes/n1", "node-restriction", LABELS),
    Attempt("a proxy reads slices", PROXY_API_SOCKET, "GET", "/apis/discovery.k8s.io/v1/endpointslices", ""),
    Attempt("and no pods", PROXY_API_SOCKET, "GET", "/api/v1/pods", "cannot list"),
    Attempt("DNS lists pods", DNS_API_SOCKET, "GET", "/api/v1/pods", ""),
    Attempt("and no nodes", DNS_API_SOCKET, "GET", "/api/v1/nodes", "cannot list"),
)


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda a: a.about)
def test_what_a_name_allows(instance: Instance, attempt: Attempt) -> None:
    """AUTH-8, AUTH-9."""
    if instance.said[1] != MODES[0] and attempt.path == SECRETS:
        pytest.skip("without the mode Node all nodes have one role")
    connection = UnixConnection(instance.root / "nodes/n1" / attempt.socket)
    body = json.dumps(attempt.body) if attempt.body else None
    connection.request(attempt.method, attempt.path, body, {"Content-Type": "application/merge-patch+json"})
    answer = connection.getresponse()
    text = json.loads(answer.read()).get("message", "")
    connection.close()
    if attempt.refused:
        assert answer.status == 403 and attempt.refused in text, text
    else:
        assert answer.status == 200, text
