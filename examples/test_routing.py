"""Tests of what you deploy, on a cluster of their own: pytest examples/test_routing.py"""

from __future__ import annotations

from pathlib import Path

import kubesvc

HERE = Path(__file__).parent


def test_the_service_answers(kubesvc_instance: kubesvc.Cluster, kubesvc_namespace: str) -> None:
    cluster, namespace = kubesvc_instance, kubesvc_namespace
    cluster.apply(HERE / "web-deployment.yaml", HERE / "web-svc.yaml", namespace=namespace)
    cluster.wait("svc/web-svc", namespace)
    assert "web server" in cluster.curl(f"http://web-svc.{namespace}")


def test_a_misspelt_selector_is_named(kubesvc_instance: kubesvc.Cluster, kubesvc_namespace: str) -> None:
    wrong = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "typo"},
        "spec": {"selector": {"app": "wbe"}, "ports": [{"port": 80}]},
    }
    cluster, namespace = kubesvc_instance, kubesvc_namespace
    cluster.apply(HERE / "web-deployment.yaml", wrong, namespace=namespace)
    found = cluster.why("svc/typo", namespace=namespace)["results"][0]
    assert found["status"] == "broken" and found["code"] == "EP101", found["verdict"]
