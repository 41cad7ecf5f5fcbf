"""Walk-through A: a Deployment `web`, its Service, and everything that takes a Pod off the list (verbatim kubectl)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from .harness import EXAMPLES, Instance, addresses, eventually, ready_pods

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def web(shared: Instance) -> Iterator[tuple[Instance, list[Any]]]:
    shared.apply(EXAMPLES / "web-deployment.yaml", EXAMPLES / "web-svc.yaml")
    yield shared, ready_pods(shared, "app=web", 3)
    shared.kubectl("delete", "-f", str(EXAMPLES / "web-deployment.yaml"), "-f", str(EXAMPLES / "web-svc.yaml"))


def listed(instance: Instance, name: str) -> str:
    """The ENDPOINTS cell of `kubectl get endpoints`."""
    head, row = instance.kubectl("get", "endpoints", name).splitlines()
    return row[head.index("ENDPOINTS") : head.index("AGE")].strip()


def ips(cell: str) -> list[str]:
    """The addresses of a cell or line of endpoints, without their ports."""
    return sorted(a.rpartition(":")[0] for a in cell.split(","))


def test_apply_again_changes_nothing(web: tuple[Instance, list[Any]]) -> None:
    instance, _ = web
    assert instance.apply(EXAMPLES / "web-svc.yaml") == "service/web-svc unchanged\n"


def test_the_four_looks_agree(web: tuple[Instance, list[Any]]) -> None:
    """`get endpoints`, `describe service`, `get pods -o wide` and the slices list the same addresses."""
    instance, pods = web
    wanted = addresses(pods)
    shown = instance.kubectl("get", "service", "web-svc")
    assert re.search(r"web-svc +ClusterIP +10\.96\.\d+\.\d+ +<none> +80/TCP", shown)
    eventually(lambda: ips(listed(instance, "web-svc")) == wanted)

    def described() -> list[str]:
        line = re.search(r"^Endpoints: +(\S+)$", instance.kubectl("describe", "service", "web-svc"), re.M)
        return ips(line[1]) if line else []

    eventually(lambda: described() == wanted)
    wide = instance.kubectl("get", "pods", "-l", "app=web", "-o", "wide", "--no-headers")
    assert sorted(row.split()[5] for row in wide.splitlines()) == wanted
    eventually(lambda: instance.kubectl("get", "pods", "--show-labels").count("app=web,") == 3)


def test_requests_arrive_by_address_and_by_name(web: tuple[Instance, list[Any]]) -> None:
    instance, _ = web
    address = instance.get("service", "web-svc")["spec"]["clusterIP"]
    for url in (f"http://{address}/", "http://web-svc.default/", "http://web-svc.default.svc.cluster.local/"):
        for node in ("n1", "n2"):
            eventually(lambda url=url, node=node: "nginx" in instance.curl(url, node=node).stdout)  # type: ignore[misc]


def test_a_wrong_selector_lists_nobody_and_refuses(web: tuple[Instance, list[Any]]) -> None:
    """`<none>`: no Pod has the label at all."""
    instance, _ = web
    instance.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "wrong"},
            "spec": {"selector": {"app": "wbe"}, "ports": [{"port": 80}]},
        }
    )
    eventually(lambda: listed(instance, "wrong") == "<none>")
    eventually(lambda: instance.curl("http://wrong.default/").returncode == 7)
    instance.kubectl("delete", "service", "wrong")


def test_a_pod_without_the_label_leaves_the_list_and_is_replaced(web: tuple[Instance, list[Any]]) -> None:
    instance, pods = web
    name, address = pods[0]["metadata"]["name"], pods[0]["status"]["podIP"]
    instance.kubectl("label", "pod", name, "app=elsewhere", "--overwrite")
    eventually(lambda: address not in ips(listed(instance, "web-svc")))
    now = addresses(ready_pods(instance, "app=web", 3))
    eventually(lambda: ips(listed(instance, "web-svc")) == now)
    instance.kubectl("delete", "pod", name, "--grace-period=1")


@pytest.fixture(scope="module")
def three_thousand(shared: Instance) -> Iterator[Instance]:
    """A Pod that listens on port 3000 and on no other, and four Services."""
    shared.apply(EXAMPLES / "ports.yaml")
    ready_pods(shared, "app=three", 1)
    yield shared
    shared.kubectl("delete", "-f", str(EXAMPLES / "ports.yaml"))


@pytest.mark.parametrize("target", ["number", "name"])
@pytest.mark.parametrize("port", [80, 8080])
def test_the_request_arrives_at_the_target_port(three_thousand: Instance, port: int, target: str) -> None:
    instance, name = three_thousand, f"port-{port}-by-{target}"
    eventually(lambda: listed(instance, name).endswith(":3000"))
    eventually(lambda: instance.curl(f"http://{name}.default:{port}/hostname").stdout == "three")


def probed_pod(name: str, *, period: int = 1, threshold: int = 2) -> dict[str, Any]:
    """A web server that is ready while the file /tmp/ready exists; netexec's /shell makes and removes it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "probed"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "c",
                    "image": "registry.k8s.io/e2e-test-images/agnhost:2.60",
                    "args": ["netexec", "--http-port=8080"],
                    "readinessProbe": {
                        "exec": {"command": ["test", "-e", "/tmp/ready"]},
                        "timeoutSeconds": 30,  # slowness is no failure here
                        "periodSeconds": period,
                        "failureThreshold": threshold,
                    },
                }
            ],
        },
    }


def test_running_but_not_ready_gets_no_traffic_until_it_passes_again(shared: Instance) -> None:
    """A Pod leaves the list at its failureThreshold-th failure; all unready is an empty cell (KCTL-49)."""
    shared.apply(
        probed_pod("probed-a"),
        probed_pod("probed-b"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "probed"},
            "spec": {"selector": {"app": "probed"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
    )

    def address(name: str) -> str:
        return str(shared.get("pod", name)["status"].get("podIP", ""))

    def flip(name: str, ready: bool) -> None:
        command = "touch%20/tmp/ready" if ready else "rm%20-f%20/tmp/ready"
        assert shared.curl(f"http://{address(name)}:8080/shell?cmd={command}").returncode == 0

    for name in ("probed-a", "probed-b"):
        eventually(lambda name=name: shared.get("pod", name)["status"]["phase"] == "Running")  # type: ignore[misc]
        eventually(lambda name=name: shared.curl(f"http://{address(name)}:8080/").returncode == 0)  # type: ignore[misc]
    eventually(lambda: listed(shared, "probed") == "")  # an empty cell, and not <none>
    eventually(lambda: shared.curl("http://probed.default/").returncode == 7)
    flip("probed-a", True)
    flip("probed-b", True)
    both = sorted([address("probed-a"), address("probed-b")])
    eventually(lambda: ips(listed(shared, "probed")) == both)
    flip("probed-a", False)
    eventually(lambda: listed(shared, "probed") == f"{address('probed-b')}:8080")
    shared.run("wait", "svc/probed", "--name", shared.name, "--programmed", "--timeout", "120")
    for _ in range(10):
        assert shared.curl("http://probed.default/hostname").stdout == "probed-b"
    flip("probed-a", True)
    eventually(lambda: ips(listed(shared, "probed")) == both)
    eventually(lambda: shared.curl("http://probed.default/hostname").stdout == "probed-a")
    shared.kubectl("delete", "service/probed", "pod/probed-a", "pod/probed-b", "--now")


def test_a_list_in_one_document(shared: Instance) -> None:
    """kubectl checks a List against the OpenAPI 2 document, which it asks for in protobuf."""
    items = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"listed-{i}"}} for i in range(2)]
    said = shared.apply({"apiVersion": "v1", "kind": "List", "items": items})
    assert said == "configmap/listed-0 created\nconfigmap/listed-1 created\n"
    shared.kubectl("delete", "configmap", "listed-0", "listed-1")
