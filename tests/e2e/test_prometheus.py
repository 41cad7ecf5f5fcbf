"""Prometheus, unmodified, over TLS and with a service account's token: it reads the API server's metrics, and finds by
the API what to scrape.

Debian's build of Prometheus, which stands beside the checkout, is made without discovery by Kubernetes. For that part a
build that knows it is taken if one is on the PATH, else vmagent of VictoriaMetrics, which follows the same
configuration and answers the same API. Each role's targets must become just what the API says, through changes and
removals; nothing of it is scraped: every target is sent to a port of the loopback address where nobody listens, once an
hour, at a moment that follows from its labels and so may be any.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.freeports import free_port

from .harness import ROOT, Instance, eventually, running_instance

pytestmark = pytest.mark.e2e

PEER = ROOT / ".peers/usr/bin/prometheus"
AGENT = ROOT / ".peers/usr/bin/vmagent"
ROLES = ("endpointslice", "endpoints", "service", "pod", "node")
NAMESPACE = "shop"
PATIENCE_SECONDS = 160.0  # Prometheus looks at what it was told every 5 s
META = "__meta_kubernetes_"

Target = tuple[str, ...]


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running_instance("--nodes", "0", "--store", "memory") as found:
        yield found


def candidates() -> list[str]:
    """The programs that may be there, the one that was made for this first."""
    own = shutil.which("prometheus")
    return [*([str(PEER)] if PEER.exists() else []), *([own] if own else [])]


def knows_kubernetes(program: str, directory: Path) -> bool:
    """Whether a build of Prometheus can find targets by the API."""
    file = directory / "probe.yml"
    file.write_text("scrape_configs: [{job_name: x, kubernetes_sd_configs: [{role: pod}]}]")
    tool = Path(program).with_name("promtool")
    command = [str(tool), "check", "config", "--syntax-only", str(file)]
    return tool.exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0


def account(instance: Instance, name: str, directory: Path) -> dict[str, Any]:
    """A service account: the parts of a configuration that speak for it. Its token and the CA are in files."""
    instance.kubectl("-n", "default", "create", "serviceaccount", name)
    (directory / "token").write_text(instance.kubectl("-n", "default", "create", "token", name).strip())
    (directory / "ca.crt").write_bytes((instance.root / "pki/ca.crt").read_bytes())
    return {
        "tls_config": {"ca_file": str(directory / "ca.crt")},
        "authorization": {"credentials_file": str(directory / "token")},
    }


@contextlib.contextmanager
def prometheus(program: str, configuration: dict[str, Any], directory: Path) -> Iterator[str]:
    """The address of a Prometheus, or of what stands in for it, that runs by a configuration."""
    file, port, log = directory / "prometheus.yml", free_port(), directory / "log"
    file.write_text(json.dumps(configuration))
    command = [program, f"--config.file={file}", f"--storage.tsdb.path={directory / 'data'}", "--log.level=warn",
               f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    if Path(program) == AGENT:
        command = [program, f"-promscrape.config={file}", f"-httpListenAddr=127.0.0.1:{port}", "-loggerLevel=WARN",
                   "-promscrape.kubernetesSDCheckInterval=1s", "-promscrape.suppressScrapeErrors",
                   "-remoteWrite.url=http://127.0.0.1:9/",
                   f"-remoteWrite.tmpDataPath={directory / 'data'}"]  # fmt: skip
    with log.open("w") as words:
        process = subprocess.Popen(command, stdout=words, stderr=subprocess.STDOUT)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(120)
    bad = ("level=error", "Failed to", "kubernetes/api_watcher", "cannot ")
    said = log.read_text().splitlines()
    complaints = [line for line in said if any(b in line for b in bad) and "remotewrite" not in line]
    assert not complaints, complaints


def ask(address: str, path: str) -> Any:
    """The data of an answer of Prometheus' own API."""
    try:
        with urllib.request.urlopen(address + path, timeout=60) as answer:
            return json.load(answer)["data"]
    except (OSError, http.client.HTTPException) as error:
        raise AssertionError(f"{path}: {error!r}") from None


def test_the_servers_metrics_are_scraped_by_whom_a_role_allows(instance: Instance, tmp_path: Path) -> None:
    """AUTH-3: refused first, and let in once the account is bound to system:monitoring."""
    if not candidates():
        pytest.skip(f"{PEER} is absent: python tools/bootstrap.py fetches it")
    speaks = account(instance, "scraper", tmp_path)
    server = f"{instance.record.loopback}:{instance.record.port}"
    job = {"job_name": "api", "scheme": "https", "static_configs": [{"targets": [server]}], **speaks}
    configuration = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
    with prometheus(candidates()[0], configuration, tmp_path) as address:

        def health() -> tuple[str, str]:
            target = ask(address, "/api/v1/targets?state=active")["activeTargets"][0]
            return target["health"], target["lastError"]

        refused = ("down", "server returned HTTP status 403 Forbidden")
        eventually(lambda: health() == refused, PATIENCE_SECONDS, every=0.2)
        instance.kubectl(
            "create", "clusterrolebinding", "scraper", "--clusterrole=system:monitoring",
            "--serviceaccount=default:scraper",
        )  # fmt: skip
        eventually(lambda: health() == ("up", ""), PATIENCE_SECONDS, every=0.2)

        def value(query: str) -> float:
            found = ask(address, "/api/v1/query?" + urllib.parse.urlencode({"query": query}))["result"]
            assert found, query
            return float(found[0]["value"][1])

        instance.kubectl("create", "configmap", "counted")
        made = 'apiserver_request_total{resource="configmaps",verb="POST",code="201"}'
        eventually(lambda: value(made) >= 1, PATIENCE_SECONDS, every=0.2)
        longest = 'histogram_quantile(1, sum by (le) (apiserver_request_duration_seconds_bucket{verb="POST"}))'

        def told() -> bool:  # of a server that has just been too slow for one look Prometheus knows nothing for a while
            assert value('kubernetes_build_info{major="1"}') == 1
            assert value('apiserver_resource_objects{resource="namespaces"}') >= 4
            assert 0 < value(longest) <= 60
            return True

        eventually(told, PATIENCE_SECONDS, every=0.2)


def discovery(instance: Instance, speaks: dict[str, Any]) -> dict[str, Any]:
    """A configuration that finds targets in each role."""
    url = f"https://{instance.record.loopback}:{instance.record.port}"
    jobs = []
    for role in ROLES:
        found: dict[str, Any] = {"role": role, "api_server": url, **speaks}
        if role != "node":
            found["namespaces"] = {"names": [NAMESPACE]}
        relabel = [
            {"source_labels": ["__address__"], "target_label": "found"},
            {"action": "labelmap", "regex": f"{META}(.+)"},  # a target is another when any of its labels is
            {"target_label": "__address__", "replacement": "127.0.0.1:9"},
        ]
        jobs.append({"job_name": role, "kubernetes_sd_configs": [found], "relabel_configs": relabel})
    return {"global": {"scrape_interval": "1h", "scrape_timeout": "1s"}, "scrape_configs": jobs}


def targets(address: str) -> dict[str, set[Target]]:
    """What Prometheus would scrape now: by role, the labels that matter."""
    active = ask(address, "/api/v1/targets?state=active")["activeTargets"]
    labels = {
        "endpointslice": ("endpointslice_address_target_name", "endpointslice_endpoint_conditions_ready",
                          "endpointslice_port_name", "service_name"),
        "endpoints": ("endpoint_address_target_name", "endpoint_ready", "endpoint_port_name", "service_name"),
        "service": ("service_name", "service_type", "service_port_name"),
        "pod": ("pod_name", "pod_phase", "pod_ready", "pod_node_name"),
        "node": ("node_name", "node_label_zone"),
    }  # fmt: skip
    found: dict[str, set[Target]] = {role: set() for role in ROLES}
    for target in active:
        known, role = target["discoveredLabels"], target["scrapePool"]
        found[role].add((known["__address__"], *(known.get(META + name, "") for name in labels[role])))
    return found


def pod(instance: Instance, name: str, address: str, *, ready: bool) -> None:
    """A pod on node n that runs, with the status a kubelet would report."""
    ports = [{"name": "http", "containerPort": 8080}]
    spec = {"nodeName": "n", "containers": [{"name": "c", "image": "i", "ports": ports}]}
    meta = {"name": name, "namespace": NAMESPACE, "labels": {"app": "web"}}
    instance.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    report(instance, name, address, ready=ready)


def report(instance: Instance, name: str, address: str, *, ready: bool) -> None:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [condition]}
    patch = json.dumps({"status": status})
    instance.kubectl("-n", NAMESPACE, "patch", "pod", name, "--subresource=status", "--type=merge", "-p", patch)


def service(instance: Instance, name: str) -> None:
    spec = {"selector": {"app": "web"}, "ports": [{"name": "web", "port": 80, "targetPort": "http"}]}
    meta = {"name": name, "namespace": NAMESPACE}
    instance.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})


def expected(pods: dict[str, tuple[str, bool]], services: tuple[str, ...], zone: str) -> dict[str, set[Target]]:
    """The targets of these pods (address, ready) behind these Services."""
    said = {True: "true", False: "false"}
    ends: set[Target] = {
        (f"{address}:8080", name, said[ready], "web", of) for of in services for name, (address, ready) in pods.items()
    }
    return {
        "endpointslice": ends,
        "endpoints": ends,
        "service": {(f"{of}.{NAMESPACE}.svc:80", of, "ClusterIP", "web") for of in services},
        "pod": {(f"{a}:8080", name, "Running", said[ready], "n") for name, (a, ready) in pods.items()},
        "node": {("10.200.0.1:10250", "n", zone)} if zone else set(),
    }


def test_targets_follow_the_cluster(instance: Instance, tmp_path: Path) -> None:
    """CLIENT-7, WATCH-16: made, changed, removed; in all roles at once."""
    able = [program for program in candidates() if knows_kubernetes(program, tmp_path)]
    able += [str(AGENT)] if AGENT.exists() else []
    if not able:
        pytest.skip(f"{AGENT} is absent (tools/bootstrap.py fetches it), and no Prometheus here knows Kubernetes")
    instance.kubectl("create", "namespace", NAMESPACE)
    speaks = account(instance, "finder", tmp_path)
    kinds = "services,endpoints,pods,nodes,endpointslices.discovery.k8s.io"
    instance.kubectl("create", "clusterrole", "finder", "--verb=get,list,watch", f"--resource={kinds}")
    instance.kubectl(
        "create", "clusterrolebinding", "finder", "--clusterrole=finder", "--serviceaccount=default:finder"
    )
    with prometheus(able[0], discovery(instance, speaks), tmp_path) as address:
        tell_of_changes(instance, address)


def tell_of_changes(instance: Instance, address: str) -> None:
    meta = {"name": "n", "labels": {"zone": "a"}}
    instance.apply({"apiVersion": "v1", "kind": "Node", "metadata": meta})
    status = {"status": {"addresses": [{"type": "InternalIP", "address": "10.200.0.1"}],
                         "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}}  # fmt: skip
    instance.kubectl("patch", "node", "n", "--subresource=status", "--type=merge", "-p", json.dumps(status))
    for name in ("web", "again"):
        service(instance, name)
    pod(instance, "a", "10.201.0.1", ready=True)
    pod(instance, "b", "10.201.0.2", ready=True)

    def becomes(wanted: dict[str, set[Target]]) -> None:
        def same() -> bool:
            found = targets(address)
            assert found == wanted, {role: found[role] ^ wanted[role] for role in ROLES}
            return True

        eventually(same, PATIENCE_SECONDS, every=0.2)

    becomes(expected({"a": ("10.201.0.1", True), "b": ("10.201.0.2", True)}, ("web", "again"), "a"))
    # one becomes unready, one goes, one comes; a Service goes, the node gets another label
    report(instance, "b", "10.201.0.2", ready=False)
    instance.kubectl("-n", NAMESPACE, "delete", "pod", "a", "--grace-period=0", "--force")
    pod(instance, "c", "10.201.0.3", ready=True)
    instance.kubectl("-n", NAMESPACE, "delete", "service", "again")
    instance.kubectl("label", "node", "n", "--overwrite", "zone=b")
    becomes(expected({"b": ("10.201.0.2", False), "c": ("10.201.0.3", True)}, ("web",), "b"))
    instance.kubectl("-n", NAMESPACE, "delete", "service", "web")
    instance.kubectl("-n", NAMESPACE, "delete", "pods", "--all", "--grace-period=0", "--force")
    instance.kubectl("delete", "node", "n")
    becomes(expected({}, (), ""))
