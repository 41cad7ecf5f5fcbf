"""Environment of containers (NODE-74 to NODE-79)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.meta import typed
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service
from kubesvc.node.environment import (
    MissingSource,
    Sources,
    all_service_variables,
    expand,
    plan_environment,
    quantity,
    service_variables,
)


def service(name: str, address: str, *ports: dict[str, Any], namespace: str = "ns", **spec: Any) -> Service:
    plain: dict[str, Any] = {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": address, "ports": list(ports)},
    }
    plain["spec"].update(spec)
    return typed(plain, Service)


HTTP = {"name": "http", "port": 80, "protocol": "TCP"}


def test_service_variables() -> None:
    """NODE-74."""
    found = service_variables(service("my-db", "10.96.0.9", HTTP, {"name": "dns-x", "port": 53, "protocol": "UDP"}))
    assert found == {
        "MY_DB_SERVICE_HOST": "10.96.0.9",
        "MY_DB_SERVICE_PORT": "80",
        "MY_DB_SERVICE_PORT_HTTP": "80",
        "MY_DB_SERVICE_PORT_DNS_X": "53",
        "MY_DB_PORT": "tcp://10.96.0.9:80",
        "MY_DB_PORT_80_TCP": "tcp://10.96.0.9:80",
        "MY_DB_PORT_80_TCP_PROTO": "tcp",
        "MY_DB_PORT_80_TCP_PORT": "80",
        "MY_DB_PORT_80_TCP_ADDR": "10.96.0.9",
        "MY_DB_PORT_53_UDP": "udp://10.96.0.9:53",
        "MY_DB_PORT_53_UDP_PROTO": "udp",
        "MY_DB_PORT_53_UDP_PORT": "53",
        "MY_DB_PORT_53_UDP_ADDR": "10.96.0.9",
    }


@pytest.mark.parametrize(
    ("what", "links", "services", "expected"),
    [
        ("NODE-75: headless", None, [service("h", "None", HTTP)], {}),
        ("NODE-75: ExternalName", None, [service("e", "", type="ExternalName")], {}),
        ("another namespace", None, [service("o", "10.0.0.1", HTTP, namespace="other")], {}),
        ("links off", False, [service("s", "10.0.0.1", HTTP)], {}),
        ("always default", False, [service("kubernetes", "10.96.0.1", HTTP, namespace="default")], "10.96.0.1"),
        (
            "NODE-76: one's own kubernetes replaces it", True,
            [service("kubernetes", "10.96.0.1", HTTP, namespace="default"), service("kubernetes", "10.9.9.9", HTTP)],
            "10.9.9.9",
        ),
        (
            "NODE-76: not with links off", False,
            [service("kubernetes", "10.96.0.1", HTTP, namespace="default"), service("kubernetes", "10.9.9.9", HTTP)],
            "10.96.0.1",
        ),
    ],
)  # fmt: skip
def test_which_services(what: str, links: bool | None, services: list[Service], expected: Any) -> None:
    pod = typed({"metadata": {"namespace": "ns"}, "spec": {"enableServiceLinks": links}}, Pod)
    found = all_service_variables(pod, services)
    if isinstance(expected, str):
        assert found["KUBERNETES_SERVICE_HOST"] == expected, what  # AUTH-10
    else:
        assert found == expected, what


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)$(B)y", "x1$(B)y"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A $( A) $(", "$A $( A) $("),
        ("$(LOOP)", "$(A)"),
        ("$($$)", "$($$)"),  # a reference to nobody, whatever is in it
    ],
)
def test_expansion(text: str, expected: str) -> None:
    """NODE-77: known names once, unknown ones and everything else stay."""
    assert expand(text, {"A": "1", "LOOP": "$(A)"}) == expected


@given(st.text(alphabet="$()AB x", max_size=30).filter(lambda text: "$(" not in text))
def test_expansion_without_references_keeps_all_but_pairs_of_dollars(text: str) -> None:
    assert expand(text, {}) == text.replace("$$", "$")


def environment(env: list[Any], env_from: list[Any] = [], sources: Sources | None = None) -> dict[str, str]:  # noqa: B006
    container = {
        "name": "c",
        "env": env,
        "envFrom": env_from,
        "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}},
    }
    meta = {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "x"}, "annotations": {"n": "v"}}
    pod = typed({"metadata": meta, "spec": {"containers": [container], "serviceAccountName": "sa"}}, Pod)
    assert pod.spec.containers is not None
    return plan_environment(pod, pod.spec.containers[0], sources or Sources(), {"PATH": "/bin"})


def test_precedence() -> None:
    """NODE-77: env over envFrom over service variables over the image's; later envFrom over earlier."""
    sources = Sources(
        config_maps={"one": {"K": "1", "L": "1"}, "two": {"K": "2"}},
        services=[service("k", "10.0.0.1", HTTP)],
    )
    froms = [
        {"configMapRef": {"name": "one"}},
        {"configMapRef": {"name": "two"}},
        {"prefix": "P_", "configMapRef": {"name": "two"}},
    ]
    found = environment(
        [{"name": "L", "value": "env $(K)"}, {"name": "K_SERVICE_HOST", "value": "mine"}], froms, sources
    )
    assert (found["K"], found["L"], found["P_K"]) == ("2", "env 2", "2")
    assert (found["K_SERVICE_HOST"], found["K_SERVICE_PORT"], found["PATH"]) == ("mine", "80", "/bin")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u"),
        ("metadata.labels['app']", "x"),
        ("metadata.annotations['n']", "v"),
        ("metadata.labels['none']", ""),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "sa"),
        ("status.hostIP", "172.30.0.11"),
        ("status.podIP", "10.0.0.1"),
        ("status.podIPs", "10.0.0.1,fd00::1"),
    ],
)
def test_downward_fields(path: str, expected: str) -> None:
    """NODE-79."""
    sources = Sources(host_ips=("172.30.0.11",), pod_ips=("10.0.0.1", "fd00::1"), node_name="n1")
    assert (
        environment([{"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}], sources=sources)["V"] == expected
    )


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"resource": "limits.cpu"}, "2"),
        ({"resource": "limits.cpu", "divisor": "1m"}, "1500"),
        ({"resource": "limits.memory", "divisor": "1Mi"}, "1024"),
        ({"resource": "requests.cpu", "divisor": "1m"}, "1500"),
    ],
)
def test_downward_resources(reference: dict[str, str], expected: str) -> None:
    assert environment([{"name": "V", "valueFrom": {"resourceFieldRef": reference}}])["V"] == expected


@pytest.mark.parametrize(
    ("what", "entry", "words"),
    [
        ("no such map", {"configMapKeyRef": {"name": "m", "key": "k"}}, 'configmap "m" not found'),
        ("no such secret", {"secretKeyRef": {"name": "s", "key": "k"}}, 'secret "s" not found'),
        (
            "no such key",
            {"configMapKeyRef": {"name": "there", "key": "k"}},
            "couldn't find key k in ConfigMap ns/there",
        ),
        ("optional map", {"configMapKeyRef": {"name": "m", "key": "k", "optional": True}}, ""),
        ("optional key", {"configMapKeyRef": {"name": "there", "key": "k", "optional": True}}, ""),
    ],
)
def test_missing(what: str, entry: dict[str, Any], words: str) -> None:
    """NODE-78."""
    sources = Sources(config_maps={"there": {}})
    if words:
        with pytest.raises(MissingSource, match=words):
            environment([{"name": "V", "valueFrom": entry}], sources=sources)
    else:
        assert "V" not in environment([{"name": "V", "valueFrom": entry}], sources=sources), what


@pytest.mark.parametrize(("text", "value"), [("1500m", 1.5), ("1Ki", 1024), ("2e3", 2000), ("1k", 1000), (3, 3)])
def test_quantities(text: str | int, value: float) -> None:
    assert float(quantity(text)) == value
    with pytest.raises(ValueError, match="not a quantity"):
        quantity(f"{text}x")
