"""Which UDP flows are stale."""

from __future__ import annotations

import pytest

from kubesvc.kernel.conntrack import Flow
from kubesvc.proxy.flows import plan_stale
from kubesvc.proxy.traffic import PortTraffic, ServicePortName, Target

DEAD, ALIVE = Target("10.244.1.9", 8080), Target("10.244.1.2", 8080)
VIP, LB, EXTERNAL, NODE = "10.96.0.1", "192.0.2.1", "192.0.2.2", "172.30.0.11"


def port(protocol: str = "UDP", serving: tuple[Target, ...] = (ALIVE,)) -> PortTraffic:
    return PortTraffic(
        ServicePortName("ns", "dns", "dns", protocol),
        53,
        VIP,
        node_port=30053,
        external_ips=(EXTERNAL,),
        load_balancer_ips=(LB,),
        serving=serving,
    )


def flow(to: str, number: int, answered_by: Target) -> Flow:
    return Flow("10.244.1.77", 4000, to, number, *answered_by)


@pytest.mark.parametrize(
    ("sentence", "found", "ports", "stale"),
    [
        ("answers from a dead endpoint", flow(VIP, 53, DEAD), [port()], True),
        ("answers from one that serves", flow(VIP, 53, ALIVE), [port()], False),
        ("never translated: it began before there was an endpoint", flow(VIP, 53, Target(VIP, 53)), [port()], True),
        ("the endpoint's port changed", flow(VIP, 53, Target(ALIVE.address, 1)), [port()], True),
        ("through the balancer's address", flow(LB, 53, DEAD), [port()], True),
        ("through an external IP", flow(EXTERNAL, 53, DEAD), [port()], True),
        ("through a node port, at whatever address", flow(NODE, 30053, DEAD), [port()], True),
        ("a healthy one through a node port", flow(NODE, 30053, ALIVE), [port()], False),
        ("PROXY-75: nobody serves: left alone", flow(VIP, 53, DEAD), [port(serving=())], False),
        ("PROXY-76: the same front by TCP does not count", flow(VIP, 53, DEAD), [port("TCP")], False),
        ("not a front", flow("8.8.8.8", 53, Target("8.8.8.8", 53)), [port()], False),
        ("another port of the address", flow(VIP, 54, DEAD), [port()], False),
    ],
)
def test_stale(sentence: str, found: Flow, ports: list[PortTraffic], stale: bool) -> None:
    """PROXY-73 to 76."""
    assert (plan_stale([found], ports) == [found]) is stale, sentence
