"""Service ranges that are made and deleted (CIDR-5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from kubesvc.api.errors import NotFound
from kubesvc.api.ipaddress import IP_ADDRESS, IPAddress
from kubesvc.api.meta import Object, typed
from kubesvc.api.service import SERVICE
from kubesvc.api.servicecidr import FINALIZER, SERVICE_CIDR, ServiceCIDR
from kubesvc.controllers.servicecidr_plan import READY_MESSAGE, TERMINATING_MESSAGE, Step, plan_step

from .house import House, in_house


def cidr(name: str, *ranges: str, deleted: bool = False, ready: str = "True", held: bool = True) -> ServiceCIDR:
    meta: dict[str, Any] = {"name": name, "uid": name, "finalizers": [FINALIZER] if held else []}
    if deleted:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    reason = "Terminating" if ready == "False" else ""
    conditions = [{"type": "Ready", "status": ready, "reason": reason}] if ready else []
    return typed({"metadata": meta, "spec": {"cidrs": ranges}, "status": {"conditions": conditions}}, ServiceCIDR)


@dataclass(frozen=True)
class Case:
    name: str
    cidr: ServiceCIDR
    step: Step
    others: tuple[ServiceCIDR, ...] = ()
    held: tuple[str, ...] = ("10.1.0.5",)
    since: float = 60.0


RANGE = "10.1.0.0/24"
KEEP = Step(ready="False", reason="Terminating", message=TERMINATING_MESSAGE)

CASES = (
    Case("a new one is held and ready", cidr("a", RANGE, ready="", held=False),
         Step(hold=True, ready="True", message=READY_MESSAGE)),
    Case("nothing to do", cidr("a", RANGE), Step()),
    Case("deleted and unused: goes", cidr("a", RANGE, deleted=True), Step(release=True), held=()),
    Case("deleted and unused: not before ten seconds", cidr("a", RANGE, deleted=True), Step(again_seconds=6.0),
         held=(), since=4.0),
    Case("deleted and used: stays, not ready", cidr("a", RANGE, deleted=True), KEEP),
    Case("deleted and used: said already", cidr("a", RANGE, deleted=True, ready="False"), Step()),
    Case("deleted, and another one covers the address", cidr("a", RANGE, deleted=True), Step(release=True),
         (cidr("b", "10.1.0.0/16"),)),
    Case("deleted, and the one that covers it is too", cidr("a", RANGE, deleted=True), KEEP,
         (cidr("b", "10.1.0.0/16", deleted=True),)),
    Case("deleted, and another one covers but part", cidr("a", RANGE, deleted=True), KEEP,
         (cidr("b", "10.1.0.0/30"),)),
    Case("an address outside does not hold it", cidr("a", RANGE, deleted=True), Step(release=True), held=("10.2.0.1",)),
    Case("the second family holds it too", cidr("a", RANGE, "fd00::/112", deleted=True), KEEP, held=("fd00::7",)),
    Case("no longer held by us", cidr("a", RANGE, deleted=True, held=False), Step()),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_step(case: Case) -> None:
    held = [typed({"metadata": {"name": name}}, IPAddress) for name in case.held]
    assert plan_step(case.cidr, [case.cidr, *case.others], held, case.since) == case.step


def test_a_range_stays_until_its_last_address_is_given_back() -> None:
    async def story(house: House) -> None:
        house.start(("service-cidr",))
        await house.client.create(SERVICE_CIDR, {"metadata": {"name": "more"}, "spec": {"cidrs": [RANGE]}})
        await house.settle(1)

        async def more() -> Object:
            return await house.client.get(SERVICE_CIDR, "more")

        found = await more()
        assert found["metadata"]["finalizers"] == [FINALIZER]
        assert [(c["type"], c["status"]) for c in found["status"]["conditions"]] == [("Ready", "True")]
        default = await house.client.get(SERVICE_CIDR, "kubernetes")
        assert default["metadata"]["finalizers"] == [FINALIZER]
        assert default["status"]["conditions"][0]["message"] == "Kubernetes default Service CIDR is ready"
        await house.service(clusterIP="10.1.0.9")
        await house.client.delete(SERVICE_CIDR, "more")
        await house.settle(30)
        [condition] = (await more())["status"]["conditions"]
        assert (condition["status"], condition["reason"]) == ("False", "Terminating")
        await house.client.delete(SERVICE, "web", "ns")
        assert [a for a in await house.every(IP_ADDRESS, "") if a["metadata"]["name"] == "10.1.0.9"] == []
        await house.settle(1)
        with pytest.raises(NotFound):
            await more()

    in_house(story)


def test_an_unused_range_goes_after_its_grace() -> None:
    async def story(house: House) -> None:
        house.start(("service-cidr",))
        await house.client.create(SERVICE_CIDR, {"metadata": {"name": "more"}, "spec": {"cidrs": [RANGE]}})
        await house.settle(1)
        await house.client.delete(SERVICE_CIDR, "more")
        await house.settle(8)
        await house.client.get(SERVICE_CIDR, "more")
        await house.settle(5)
        with pytest.raises(NotFound):
            await house.client.get(SERVICE_CIDR, "more")

    in_house(story)


def test_the_server_holds_again_what_somebody_let_go() -> None:
    """REPAIR-1: an IPAddress deleted under a living Service is back within a minute."""

    async def story(house: House) -> None:
        address = (await house.service())["spec"]["clusterIP"]
        await house.client.delete(IP_ADDRESS, address)
        await house.settle(61)
        parent = (await house.client.get(IP_ADDRESS, address))["spec"]["parentRef"]
        assert (parent["namespace"], parent["name"]) == ("ns", "web")

    in_house(story)
