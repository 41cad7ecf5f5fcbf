"""A namespace that is being deleted is emptied, pods first, and says what holds it (NS-2 to NS-5)."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.errors import Forbidden, NotFound
from kubesvc.api.kinds import CONFIG_MAP, NAMESPACE, POD, SERVICE
from kubesvc.controllers.namespace import Remains, plan_conditions

from .house import MINE, House, in_house

HELD = "example.com/held"

CONDITIONS: tuple[tuple[str, Remains, dict[str, tuple[str, str]]], ...] = (
    ("all gone", Remains(), {
        "NamespaceDeletionContentFailure": ("False", "ContentDeleted"),
        "NamespaceContentRemaining": ("False", "ContentRemoved"),
        "NamespaceFinalizersRemaining": ("False", "ContentHasNoFinalizers")}),
    ("objects with finalizers", Remains({"configmaps.": 1}, {"example.com/f": 1}), {
        "NamespaceDeletionContentFailure": ("False", "ContentDeleted"),
        "NamespaceContentRemaining": ("True", "SomeResourcesRemain"),
        "NamespaceFinalizersRemaining": ("True", "SomeFinalizersRemain")}),
    ("a kind that could not be emptied", Remains(failures=["secrets: 500"]), {
        "NamespaceDeletionContentFailure": ("True", "ContentDeletionFailed"),
        "NamespaceContentRemaining": ("False", "ContentRemoved"),
        "NamespaceFinalizersRemaining": ("False", "ContentHasNoFinalizers")}),
)  # fmt: skip


@pytest.mark.parametrize(("what", "remains", "wanted"), CONDITIONS, ids=[row[0] for row in CONDITIONS])
def test_conditions(what: str, remains: Remains, wanted: dict[str, tuple[str, str]]) -> None:
    found = plan_conditions(remains)
    assert list(found) == [
        "NamespaceDeletionDiscoveryFailure", "NamespaceDeletionGroupVersionParsingFailure",
        "NamespaceDeletionContentFailure", "NamespaceContentRemaining", "NamespaceFinalizersRemaining",
    ]  # fmt: skip
    assert {name: said[:2] for name, said in found.items() if name in wanted} == wanted
    assert found["NamespaceDeletionDiscoveryFailure"][:2] == ("False", "ResourcesDiscovered")


def config_map(name: str, *finalizers: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "finalizers": list(finalizers)}}


async def conditions(house: House) -> dict[str, tuple[str, str]]:
    found = await house.client.get(NAMESPACE, "ns")
    assert found["status"]["phase"] == "Terminating"
    return {c["type"]: (c["status"], c["message"]) for c in found["status"].get("conditions") or ()}


def test_pods_go_first_then_the_rest_then_the_namespace() -> None:
    """NS-3: while a pod is left nothing else is touched; then what a finalizer holds is named; then all is gone."""

    async def story(house: House) -> None:
        house.start((*MINE, "namespace"))
        await house.service()
        await house.client.create(CONFIG_MAP, config_map("held", HELD), "ns")
        await house.client.create(CONFIG_MAP, config_map("free"), "ns")
        spec = {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 0}
        await house.client.create(POD, {"metadata": {"name": "p", "finalizers": [HELD]}, "spec": spec}, "ns")
        await house.settle(3)
        await house.client.delete(NAMESPACE, "ns")
        await house.settle(20)
        said = await conditions(house)
        assert said["NamespaceContentRemaining"] == (
            "True", "Some resources are remaining: pods. has 1 resource instances",
        )  # fmt: skip
        assert await house.client.get(SERVICE, "web", "ns") and await house.client.get(CONFIG_MAP, "free", "ns")
        with pytest.raises(Forbidden, match="because it is being terminated"):  # NS-2
            await house.client.create(CONFIG_MAP, config_map("late"), "ns")
        await house.client.patch(POD, "p", "ns", {"metadata": {"finalizers": None}}, "merge")
        await house.settle(20)
        for kind, name in ((POD, "p"), (SERVICE, "web"), (CONFIG_MAP, "free")):
            with pytest.raises(NotFound):
                await house.client.get(kind, name, "ns")
        said = await conditions(house)
        assert said["NamespaceContentRemaining"] == (
            "True", "Some resources are remaining: configmaps. has 1 resource instances",
        )  # fmt: skip
        assert said["NamespaceFinalizersRemaining"] == (
            "True", f"Some content in the namespace has finalizers remaining: {HELD} in 1 resource instances",
        )  # fmt: skip
        again = await house.client.delete(NAMESPACE, "ns")
        assert again["metadata"]["deletionTimestamp"] and again["status"]["phase"] == "Terminating"
        await house.client.patch(CONFIG_MAP, "held", "ns", {"metadata": {"finalizers": None}}, "merge")
        await house.settle(20)
        with pytest.raises(NotFound):
            await house.client.get(NAMESPACE, "ns")

    in_house(story)


def test_controllers_give_up_quietly_in_a_namespace_that_ends() -> None:
    """NS-5, SLICE-27, EP-22: they make nothing there any more, and do not spin."""

    async def story(house: House) -> None:
        house.start(MINE)  # nobody empties it
        await house.service()
        await house.settle(3)
        await house.client.delete(NAMESPACE, "ns")
        tried: list[str] = []
        create = house.server.registry.create

        async def counted(*words: Any, **more: Any) -> Any:
            tried.append(words[0].name)
            return await create(*words, **more)

        house.server.registry.create = counted  # type: ignore[method-assign]
        for s in await house.slices():
            await house.client.delete(ENDPOINT_SLICE, s["metadata"]["name"], "ns")
        await house.settle(300)
        assert 1 <= tried.count("EndpointSlice") <= 3, "they try, and do not spin"
        assert await house.slices() == []

    in_house(story)
