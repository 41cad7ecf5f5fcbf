"""The Service through which Pods reach the cluster's DNS."""

from __future__ import annotations

from kubesvc.api.kinds import ENDPOINT_SLICE, NODE, SERVICE
from kubesvc.controllers import ControllerSettings

from .house import House, in_house


def test_it_is_there_as_clients_expect_it() -> None:
    """DNS-56: name, label, the tenth address, and the ports dns, dns-tcp and metrics; each node's own DNS stands behind
    it, and when it is deleted it comes back."""

    async def story(house: House) -> None:
        status = {"status": {"addresses": [{"type": "InternalIP", "address": "172.30.0.11"}]}}
        await house.client.patch(NODE, "n1", "", status, "merge", subresource="status")
        from kubesvc.api.namespace import NAMESPACE

        if "kube-system" not in {n["metadata"]["name"] for n in await house.every(NAMESPACE, "")}:
            await house.namespace("kube-system")
        house.start(("cluster-dns",), ControllerSettings(cluster_dns="10.96.0.10"))
        await house.settle()
        for _ in range(2):
            found = await house.client.get(SERVICE, "kube-dns", "kube-system")
            assert found["metadata"]["labels"]["k8s-app"] == "kube-dns"
            assert found["spec"]["clusterIP"] == "10.96.0.10"
            ports = [(p["name"], p["protocol"], p["port"]) for p in found["spec"]["ports"]]
            assert ports == [("dns", "UDP", 53), ("dns-tcp", "TCP", 53), ("metrics", "TCP", 9153)]
            (listed,) = await house.every(ENDPOINT_SLICE, "kube-system")
            assert [(e["nodeName"], e["addresses"]) for e in listed["endpoints"]] == [("n1", ["172.30.0.11"])]
            assert {p["name"] for p in listed["ports"]} == {"dns", "dns-tcp", "metrics"}
            await house.client.delete(SERVICE, "kube-dns", "kube-system")
            await house.settle()

    in_house(story)
