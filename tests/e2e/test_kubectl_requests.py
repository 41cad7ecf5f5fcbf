"""What stock kubectl asks for its everyday commands, how it is answered, and what it prints of that.

The requests are seen by a relay between kubectl and the API, so a row holds both sides: what came and what was printed
(KCTL-1, KCTL-7, KCTL-9, KCTL-68 to KCTL-75, KCTL-85 to KCTL-90; with `wait`, `rollout` and `delete` elsewhere, BUG-30).
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kubesvc.instance.kubectl import find_kubectl

from .harness import PATIENCE_SECONDS, Instance, eventually
from .recorder import Asked, Recorder, recording

pytestmark = pytest.mark.e2e

TABLES = ",".join(f"application/json;as=Table;v={v};g=meta.k8s.io" for v in ("v1", "v1beta1"))
STRATEGIC = "application/strategic-merge-patch+json"
LAST = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass
class Desk:
    """A user's kubectl, in a namespace of its own, whose requests are seen."""

    instance: Instance
    recorder: Recorder
    namespace: str
    cache: Path

    def command(self, *words: str) -> list[str]:
        program = find_kubectl()
        assert program is not None
        place = ("--server", self.recorder.url, "--cache-dir", str(self.cache), "-n", self.namespace)
        return [str(program), *place, *words]

    @property
    def environment(self) -> dict[str, str]:
        return {**self.instance.environment(), "KUBECONFIG": str(self.instance.root / "kubeconfig")}

    def run(self, *words: str, stdin: Any = "", code: int = 0) -> Ran:
        """kubectl to its end, which must be this exit code; stdin: a text, or an object."""
        self.recorder.take()
        text = stdin if isinstance(stdin, str) else json.dumps(stdin)
        done = subprocess.run(
            self.command(*words), input=text, capture_output=True, text=True, timeout=180, env=self.environment,
            check=False,
        )  # fmt: skip
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return Ran(done.stdout, done.stderr, self.recorder.take())

    @property
    def core(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}"

    @property
    def apps(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}"


@dataclass(frozen=True)
class Ran:
    """What one command printed, and asked for."""

    out: str
    errors: str
    asked: list[Asked]

    @property
    def lines(self) -> list[str]:
        return [a.line for a in self.asked]


@pytest.fixture(scope="module")
def desk(shared: Instance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    namespace = f"desk-{uuid.uuid4().hex[:6]}"
    shared.kubectl("create", "namespace", namespace)
    # Each namespace is given a ConfigMap, which lists that are compared shall all have or all lack.
    eventually(lambda: shared.try_kubectl("get", "cm", "kube-root-ca.crt", "-n", namespace).returncode == 0)
    with recording(shared.root / "api.sock") as recorder:
        yield Desk(shared, recorder, namespace, tmp_path_factory.mktemp("cache"))
    shared.kubectl("delete", "namespace", namespace, "--wait=false")


def service(name: str, **spec: Any) -> dict[str, Any]:
    made = {"ports": [{"port": 80}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": made}


def config_map(name: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}, **more}


# -- looking ----------------------------------------------------------------------------------------------------------


def test_discovery_is_aggregated_and_asked_once(desk: Desk, tmp_path: Path) -> None:
    """KCTL-68: two requests tell a client with an empty cache all kinds; with a full one it asks for none of them."""
    program = find_kubectl()
    for wanted in (["/api", "/apis"], []):
        desk.recorder.asked.clear()
        command = [str(program), "--server", desk.recorder.url, "--cache-dir", str(tmp_path), "get", "namespaces"]
        subprocess.run(command, env=desk.environment, capture_output=True, check=True)
        found = [
            a for a in desk.recorder.asked if a.path in ("/api", "/apis") or re.match(r"/apis/[^/]+/v\w+$", a.path)
        ]
        assert [a.path for a in found] == wanted
        for asked in found:
            assert "g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList" in asked.headers["accept"]
            assert asked.status == 200


def test_get_asks_for_tables_in_pages(desk: Desk) -> None:
    """KCTL-1, KCTL-69: a Table for people and the objects for programs; lists by pages, selectors as they are given."""
    for name in "abc":
        desk.run("create", "-f", "-", stdin=config_map(name))
    ran = desk.run("get", "configmaps")
    [asked] = ran.asked
    assert (asked.line, asked.query) == (f"GET {desk.core}/configmaps", {"limit": "500"})
    assert asked.headers["accept"] == f"{TABLES},application/json"
    assert [line.split()[:2] for line in ran.out.splitlines()][:2] == [["NAME", "DATA"], ["a", "1"]]
    for words in (("-o", "yaml"), ("-o", "jsonpath={.data.k}"), ("-o", "name"), ("--server-print=false",)):
        [asked] = desk.run("get", "configmap", "a", *words).asked
        assert (asked.line, asked.query) == (f"GET {desk.core}/configmaps/a", {})
        assert asked.headers["accept"] == "application/json", words
    paged = desk.run("get", "configmaps", "--chunk-size=2")
    first, *rest = paged.asked
    assert first.query == {"limit": "2"} and rest
    assert all(a.query["limit"] == "2" and a.query["continue"] for a in rest)
    assert paged.out.split("\n")[0] == ran.out.split("\n")[0]
    assert [line.split()[0] for line in paged.out.splitlines()] == [line.split()[0] for line in ran.out.splitlines()]
    everywhere = desk.run("get", "configmaps", "-A", "-l", "x in (y,z)", "--field-selector", "metadata.name=a")
    [asked] = everywhere.asked
    assert asked.line == "GET /api/v1/configmaps"
    assert asked.query == {"limit": "500", "labelSelector": "x in (y,z)", "fieldSelector": "metadata.name=a"}
    [asked] = desk.run("get", "configmaps", "--sort-by=.metadata.name").asked
    assert asked.query == {"includeObject": "Object"}  # KCTL-4: to be sorted they are wanted at once


def test_get_w_prints_changes_as_they_come(desk: Desk) -> None:
    """KCTL-70, KCTL-7: what there is, then each change once, the end as well; the columns are told with the first."""
    desk.run("create", "-f", "-", stdin=config_map("watched"))
    desk.recorder.take()
    command = desk.command("get", "configmap", "watched", "-w", "--output-watch-events")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=desk.environment) as process:
        assert process.stdout is not None
        patience = threading.Timer(PATIENCE_SECONDS, process.kill)
        patience.start()
        try:
            read = process.stdout.readline
            assert [read().split()[:3], read().split()[:3]] == [["EVENT", "NAME", "DATA"], ["ADDED", "watched", "1"]]
            watch = eventually(lambda: [a for a in desk.recorder.asked if a.query.get("watch") == "true"])[0]
            assert watch.path == f"{desk.core}/configmaps"
            assert watch.query["fieldSelector"] == "metadata.name=watched" and "resourceVersion" in watch.query
            assert watch.headers["accept"] == f"{TABLES},application/json"
            desk.instance.kubectl("-n", desk.namespace, "patch", "cm", "watched", "-p", '{"data":{"l":"w"}}')
            desk.instance.kubectl("-n", desk.namespace, "create", "configmap", "another")
            desk.instance.kubectl("-n", desk.namespace, "delete", "configmap", "watched")
            assert [read().split()[:3], read().split()[:3]] == [
                ["MODIFIED", "watched", "2"], ["DELETED", "watched", "2"],
            ]  # fmt: skip
        finally:
            patience.cancel()
            process.kill()


def test_cells_of_several_lines(desk: Desk) -> None:
    """KCTL-9: the server sends a cell whole, kubectl prints its first line; numbers are numbers in JSON."""
    about = {"kind": "ConfigMap", "namespace": desk.namespace, "name": "a", "apiVersion": "v1"}
    event = {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "several"}, "involvedObject": about, "type": "Normal",
        "reason": "Told", "message": "one\ntwo", "lastTimestamp": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    desk.run("create", "-f", "-", stdin=event)
    assert re.search(r"Told +configmap/a +one\.\.\.$", desk.run("get", "events").out, re.M)
    for path, cell in (("events", "one\ntwo"), ("configmaps/a", 1)):
        request = urllib.request.Request(f"{desk.recorder.url}{desk.core}/{path}", headers={"Accept": TABLES})
        with urllib.request.urlopen(request) as answer:
            assert cell in json.load(answer)["rows"][0]["cells"]


def test_explain_api_resources_and_the_rest(desk: Desk) -> None:
    """KCTL-86, KCTL-87: documents of a group version by their hashes, short names, version, access, addresses."""
    desk.recorder.asked.clear()
    said = desk.run("explain", "service.spec.ports.targetPort").out
    assert "FIELD: targetPort <IntOrString>" in said and "KIND:       Service" in said
    desk.recorder.asked.clear()
    command = desk.command("explain", "endpointslice.endpoints")
    subprocess.run(command, env=desk.environment, capture_output=True, check=True)
    documents = [a for a in desk.recorder.asked if a.path.startswith("/openapi/v3/")]
    assert [a.path for a in documents] == ["/openapi/v3/apis/discovery.k8s.io/v1"] and documents[0].query["hash"]
    listed = desk.run("api-resources", "--no-headers").out.splitlines()
    named = {line.split()[0]: line.split()[1].split(",") for line in listed if len(line.split()) == 5}
    for short, plural in (
        ("po", "pods"), ("svc", "services"), ("ep", "endpoints"), ("no", "nodes"), ("ns", "namespaces"),
        ("deploy", "deployments"), ("rs", "replicasets"), ("rc", "replicationcontrollers"), ("sts", "statefulsets"),
        ("ds", "daemonsets"), ("ev", "events"), ("sa", "serviceaccounts"), ("cm", "configmaps"),
        ("pv", "persistentvolumes"), ("netpol", "networkpolicies"), ("ing", "ingresses"),
    ):  # fmt: skip
        assert short in named[plural], plural
    assert "endpointslices" in " ".join(listed) and "endpointslices" not in named
    assert re.search(r"^Server Version: v1\.36\.", desk.run("version").out, re.M)
    addresses = desk.run("cluster-info", "-n", "kube-system")
    assert addresses.asked[0].query == {"labelSelector": "kubernetes.io/cluster-service=true"}
    assert "/services/kube-dns:dns/proxy" in addresses.out
    may = desk.run("auth", "can-i", "create", "services")
    assert may.out == "yes\n"
    assert may.lines[-1] == "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert desk.run("top", "pod", code=1).errors == "error: Metrics API not available\n"


# -- writing ----------------------------------------------------------------------------------------------------------


def test_apply(desk: Desk) -> None:
    """KCTL-71: made, left, changed by the difference alone, refused for a field that nobody knows."""
    first = desk.run("apply", "-f", "-", stdin=service("applied", selector={"app": "x"}))
    assert first.out == "service/applied created\n"
    post = first.asked[-1]
    assert (post.line, post.status) == (f"POST {desk.core}/services", 201)
    assert post.query == {"fieldManager": "kubectl-client-side-apply", "fieldValidation": "Strict"}
    kept = json.loads(post.body["metadata"]["annotations"][LAST])
    assert kept["spec"] == {"ports": [{"port": 80}], "selector": {"app": "x"}}
    assert post.body["metadata"]["annotations"][LAST].endswith("}\n")
    again = desk.run("apply", "-f", "-", stdin=service("applied", selector={"app": "x"}))
    assert (again.out, again.lines) == ("service/applied unchanged\n", [f"GET {desk.core}/services/applied"])
    changed = desk.run("apply", "-f", "-", stdin=service("applied", selector={"app": "y"}))
    patch = changed.asked[-1]
    assert changed.out == "service/applied configured\n"
    assert (patch.line, patch.headers["content-type"]) == (f"PATCH {desk.core}/services/applied", STRATEGIC)
    assert patch.query == post.query and patch.body["spec"] == {"selector": {"app": "y"}}
    odd = {**service("applied", selector={"app": "y"}), "spek": {}}
    refused = desk.run("apply", "-f", "-", stdin=odd, code=1)
    assert refused.errors.startswith("The request is invalid: patch: Invalid value: ")
    assert refused.errors.endswith('strict decoding error: unknown field "spek"\n')
    for flag, words in (("client", "dry run"), ("server", "server dry run")):
        planned = desk.run("apply", f"--dry-run={flag}", "-f", "-", stdin=service("applied", selector={"app": "z"}))
        assert planned.out == f"service/applied configured ({words})\n"
    assert desk.run("get", "svc", "applied", "-o", "jsonpath={.spec.selector.app}").out == "y"
    desk.run("create", "-f", "-", stdin=service("foreign"))
    adopted = desk.run("apply", "-f", "-", stdin=service("foreign", selector={"app": "x"}))
    assert adopted.out == "service/foreign configured\n"
    assert f"Warning: resource services/foreign is missing the {LAST} annotation" in adopted.errors


def test_server_side_apply(desk: Desk) -> None:
    """KCTL-72: one request each; what another manager holds is a conflict until it is forced."""
    for _ in range(2):
        ran = desk.run("apply", "--server-side", "-f", "-", stdin=service("owned", selector={"app": "x"}))
        assert ran.out == "service/owned serverside-applied\n"
        [asked] = ran.asked
        assert (asked.line, asked.headers["content-type"]) == (
            f"PATCH {desk.core}/services/owned", "application/apply-patch+yaml",
        )  # fmt: skip
        assert asked.query == {"fieldManager": "kubectl", "fieldValidation": "Strict", "force": "false"}
    other = ("apply", "--server-side", "--field-manager=other", "-f", "-")
    refused = desk.run(*other, stdin=service("owned", selector={"app": "y"}), code=1)
    said = 'error: Apply failed with 1 conflict: conflict with "kubectl": .spec.selector\n'
    assert refused.errors.startswith(said) and refused.asked[-1].status == 409
    forced = desk.run(*other, "--force-conflicts", stdin=service("owned", selector={"app": "y"}))
    assert forced.asked[-1].query["force"] == "true"
    managers = desk.run(
        "get", "svc", "owned", "--show-managed-fields", "-o", "jsonpath={.metadata.managedFields[*].manager}"
    )
    assert sorted(managers.out.split()) == ["kubectl", "other"]


def test_create_replace_edit_patch(desk: Desk) -> None:
    """KCTL-73, KCTL-89: each verb's request, and names and defaults of the server in what is printed of its answer."""
    generated = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "gen-"}}
    made = desk.run("create", "-f", "-", stdin=generated)
    assert re.fullmatch(r"configmap/gen-[a-z0-9]{5} created\n", made.out)
    assert made.asked[-1].query == {"fieldManager": "kubectl-create", "fieldValidation": "Strict"}
    shown = desk.run("create", "-f", "-", "-o", "json", stdin=service("defaulted"))
    spec = json.loads(shown.out)["spec"]
    assert spec["clusterIPs"] == [spec["clusterIP"]] and spec["ports"][0]["targetPort"] == 80
    assert (spec["type"], spec["sessionAffinity"], spec["internalTrafficPolicy"]) == ("ClusterIP", "None", "Cluster")
    options = ("--image=registry.example/some/thing:1", "--replicas=0", "--port=8080", "-o", "json")
    deployed = json.loads(desk.run("create", "deployment", "deployed", *options).out)
    container = deployed["spec"]["template"]["spec"]["containers"][0]
    assert (container["name"], container["image"]) == ("thing", "registry.example/some/thing:1")
    assert container["ports"] == [{"containerPort": 8080, "protocol": "TCP"}]
    assert deployed["metadata"]["labels"] == deployed["spec"]["selector"]["matchLabels"] == {"app": "deployed"}
    put = desk.run("replace", "-f", "-", stdin=service("put"))
    assert put.out == "service/put replaced\n" and put.asked[-1].status == 201
    assert put.lines[-1] == f"PUT {desk.core}/services/put"
    change = '{"data":{"k":"w"}}'
    for said in ("configmap/a patched\n", "configmap/a patched (no change)\n"):
        patched = desk.run("patch", "configmap", "a", "-p", change)
        assert patched.out == said
        asked = patched.asked[-1]
        assert (asked.headers["content-type"], asked.query) == (STRATEGIC, {"fieldManager": "kubectl-patch"})
        assert asked.body == {"data": {"k": "w"}}
    command, more = desk.command("edit", "configmap", "a"), {"KUBE_EDITOR": "sed -i s/w/edited/"}
    desk.recorder.take()
    edited = subprocess.run(
        command, capture_output=True, text=True, env={**desk.environment, **more}, timeout=180, check=False
    )
    assert edited.stdout == "configmap/a edited\n", edited.stderr
    asked = desk.recorder.take()[-1]
    assert (asked.method, asked.headers["content-type"]) == ("PATCH", STRATEGIC)
    assert asked.body == {"data": {"k": "edited"}}


def test_run_and_expose(desk: Desk) -> None:
    """KCTL-74, KCTL-75: the Pod and the Services as kubectl makes them of an image, and of what is there."""
    ran = desk.run("run", "p", "--image=busybox", "--restart=Never", "--expose", "--port=80", "--", "sleep", "99")
    assert ran.out == "service/p created\npod/p created\n" or ran.out == "pod/p created\nservice/p created\n"
    pod = next(a for a in ran.asked if a.line == f"POST {desk.core}/pods")
    assert pod.query == {"fieldManager": "kubectl-run"}
    assert (pod.body["metadata"]["labels"], pod.body["spec"]["restartPolicy"]) == ({"run": "p"}, "Never")
    made = next(a for a in ran.asked if a.line == f"POST {desk.core}/services").body["spec"]
    assert made == {"ports": [{"protocol": "TCP", "port": 80, "targetPort": 80}], "selector": {"run": "p"}}
    exposed = desk.run("expose", "pod", "p", "--name=exposed")
    assert exposed.out == "service/exposed exposed\n"
    assert exposed.lines == [f"GET {desk.core}/pods/p", f"POST {desk.core}/services"]
    assert exposed.asked[-1].query == {"fieldManager": "kubectl-expose"}
    assert exposed.asked[-1].body["spec"]["selector"] == {"run": "p"}
    several = [{"name": "a", "port": 1}, {"name": "b", "port": 2, "protocol": "UDP"}]
    desk.run("create", "-f", "-", stdin=service("several", ports=several, selector={"app": "x"}))
    long = "n" * 63
    again = desk.run("expose", "service", "several", f"--name={long}")
    assert again.asked[-1].body["metadata"]["name"] == long
    ports = [(p["name"], p["port"], p["protocol"]) for p in again.asked[-1].body["spec"]["ports"]]
    assert ports == [("port-1", 1, "TCP"), ("port-2", 2, "UDP")]
    of_deployment = desk.run("expose", "deployment", "deployed", "--port=9", "--target-port=http")
    assert of_deployment.asked[-1].body["spec"]["selector"] == {"app": "deployed"}
    assert of_deployment.lines[0] == f"GET {desk.apps}/deployments/deployed"
    assert desk.run("expose", "configmap", "a", "--port=9", code=1).errors == "error: cannot expose a ConfigMap\n"


def test_port_forward_refuses_what_cannot_be(desk: Desk) -> None:
    """KCTL-85: a Service is its Pods; one that does not run is refused, and so is a port that is UDP alone."""
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "never", "labels": {"app": "never"}},
        "spec": {"nodeSelector": {"no": "node"}, "containers": [{"name": "c", "image": "busybox"}]},
    }  # fmt: skip
    desk.run("create", "-f", "-", stdin=pod)
    desk.run("create", "-f", "-", stdin=service("never", selector={"app": "never"}))
    ran = desk.run("port-forward", "service/never", ":80", "--pod-running-timeout=1s", code=1)
    assert ran.errors == "error: unable to forward port because pod is not running. Current status=Pending\n"
    assert ran.lines[0] == f"GET {desk.core}/services/never"
    [pods] = [a for a in ran.asked if a.line == f"GET {desk.core}/pods"]
    assert pods.query["labelSelector"] == "app=never"
    udp = [{"port": 53, "protocol": "UDP"}]
    desk.run("create", "-f", "-", stdin=service("udp", ports=udp, selector={"app": "never"}))
    assert "UDP protocol is not supported for 53" in desk.run("port-forward", "service/udp", ":53", code=1).errors


# -- errors -----------------------------------------------------------------------------------------------------------

ERRORS: tuple[tuple[str, tuple[str, ...], Any, str], ...] = (
    ("what is not there", ("get", "svc", "none"), "", 'Error from server (NotFound): services "none" not found\n'),
    ("a kind that nobody knows", ("get", "frobs"), "", 'error: the server doesn\'t have a resource type "frobs"\n'),
    ("what is there already, from a file", ("create", "-f", "-"), config_map("a"),
     'Error from server (AlreadyExists): error when creating "STDIN": configmaps "a" already exists\n'),
    ("what is there already, by a generator", ("create", "service", "clusterip", "applied", "--tcp=80"), "",
     'error: failed to create ClusterIP service: services "applied" already exists\n'),
    ("what is not valid", ("create", "-f", "-"), service("bad", sessionAffinity="Odd"),
     'The Service "bad" is invalid: spec.sessionAffinity: Unsupported value: "Odd": supported values: "ClientIP", '
     '"None"\n'),
    ("what is not valid, twice", ("create", "-f", "-"), service("bad", type="Odd", sessionAffinity="Odd"),
     'The Service "bad" is invalid: \n* spec.sessionAffinity: Unsupported value: "Odd": supported values: "ClientIP", '
     '"None"\n* spec.type: Unsupported value: "Odd": supported values: "ClusterIP", "ExternalName", "LoadBalancer", '
     '"NodePort"\n'),
    ("what is not there, from a file", ("delete", "-f", "-"), service("none"),
     'Error from server (NotFound): error when deleting "STDIN": services "none" not found\n'),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "words", "stdin", "said"), ERRORS, ids=lambda c: c if isinstance(c, str) else "")
def test_errors(desk: Desk, sentence: str, words: tuple[str, ...], stdin: Any, said: str) -> None:
    """KCTL-90: words and exit code 1."""
    errors = desk.run(*words, stdin=stdin, code=1).errors
    told = "".join(line for line in errors.splitlines(keepends=True) if not line.startswith("Warning: "))
    assert sorted(told.splitlines()) == sorted(said.splitlines())


def test_a_bad_token(desk: Desk) -> None:
    """KCTL-90: whoever is not known is told so."""
    config = json.loads(desk.instance.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"] = [{"name": u["name"], "user": {"token": "bad"}} for u in config["users"]]
    path = desk.cache / "bad-kubeconfig"
    path.write_text(json.dumps(config))
    done = subprocess.run(
        [str(find_kubectl()), "--kubeconfig", str(path), "get", "pods"], capture_output=True, text=True, check=False,
        env={k: v for k, v in desk.environment.items() if k != "KUBECONFIG"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "error: You must be logged in to the server (Unauthorized)\n")


def test_what_is_tried_again_and_what_is_let_through(desk: Desk) -> None:
    """KCTL-88: a refusal that names a time is tried again, another is not; parameters that nobody knows do no harm."""
    desk.recorder.refusals.append((429, {"Retry-After": "1"}))
    ran = desk.run("get", "configmap", "a")
    assert [a.status for a in ran.asked] == [429, 200]
    desk.recorder.refusals.append((503, {}))
    assert [a.status for a in desk.run("get", "configmap", "a", code=1).asked][:1] == [503]
    for query in ("frob=1", "watch=0&frob=1&limit=1", "watch=1&timeoutSeconds=1&frob=1"):
        with urllib.request.urlopen(f"{desk.recorder.url}{desk.core}/configmaps?{query}") as answer:
            assert answer.status == 200 and (answer.read() or "watch=1" in query)
