"""A whole instance whose nodes steer packets in another way than usual."""

from __future__ import annotations

import json

import pytest

from .harness import EXAMPLES, eventually, fresh_instance, ready_pods

pytestmark = [pytest.mark.e2e, pytest.mark.soak]


def test_iptables(machine: None) -> None:
    """Services answer, `iptables -t nat -S` shows them as runbooks say, and status says which way and why."""
    with fresh_instance() as instance:
        instance.up("--proxy-mode", "iptables", "--store", "memory")
        instance.apply(EXAMPLES / "web-deployment.yaml", EXAMPLES / "web-svc.yaml")
        ready_pods(instance, "app=web", 3)
        eventually(lambda: "nginx" in instance.curl("http://web-svc.default/").stdout)
        (node,) = json.loads(instance.run("status", "--name", instance.name, "--json").stdout)["nodes"]
        assert node["proxy"]["mode"] == "iptables" and "it was asked for" in node["proxy"]["why"]
        shown = instance.inside("iptables", "-t", "nat", "-S").stdout
        assert shown.count("-j DNAT") >= 3 and "default/web-svc" in shown


def test_userspace(machine: None) -> None:
    """The node's loopback ports are listed by status, and answer there."""
    with fresh_instance() as instance:
        instance.up("--proxy-mode", "userspace", "--store", "memory")
        instance.apply(EXAMPLES / "web-deployment.yaml", EXAMPLES / "web-svc.yaml")
        ready_pods(instance, "app=web", 3)

        def place() -> str:
            (node,) = json.loads(instance.run("status", "--name", instance.name, "--json").stdout)["nodes"]
            assert node["proxy"]["mode"] == "userspace"
            return next((p["at"] for p in node.get("ports", ()) if p["service"] == "default/web-svc"), "")

        at = eventually(place)
        eventually(lambda: "nginx" in instance.curl(f"http://{at}/").stdout)
