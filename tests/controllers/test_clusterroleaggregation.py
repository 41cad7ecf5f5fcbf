"""ClusterRoles that gather the rules of others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.clusterrole import CLUSTER_ROLE, ClusterRole, aggregated_rules
from kubesvc.api.meta import typed

from .house import House, in_house


def role(name: str, rules: list[str], labels: dict[str, str] | None = None, gathers: list[Any] | None = None) -> Any:
    """A role whose rules allow to read resources."""
    made: dict[str, Any] = {
        "metadata": {"name": name, "labels": labels or {}},
        "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [r]} for r in rules],
    }
    if gathers is not None:
        made["aggregationRule"] = {"clusterRoleSelectors": gathers}
    return made


A, B = {"matchLabels": {"to": "a"}}, {"matchLabels": {"to": "b"}}
CASES: tuple[tuple[str, Any, list[Any], list[str] | None], ...] = (
    ("gathers nothing", role("g", ["x"]), [], None),
    ("finds nobody: no rules", role("g", ["x"], gathers=[A]), [], []),
    ("those with the label, by name", role("g", [], gathers=[A]),
     [role("z", ["pods"], {"to": "a"}), role("b", ["services"], {"to": "a"}), role("c", ["nodes"])],
     ["services", "pods"]),
    ("never itself", role("g", ["x"], {"to": "a"}, [A]), [role("b", ["pods"], {"to": "a"})], ["pods"]),
    ("each rule once", role("g", [], gathers=[A, B]),
     [role("b", ["pods"], {"to": "a"}), role("c", ["pods", "nodes"], {"to": "b"})], ["pods", "nodes"]),
    ("selector by selector", role("g", [], gathers=[B, A]),
     [role("b", ["pods"], {"to": "a"}), role("c", ["nodes"], {"to": "b"})], ["nodes", "pods"]),
    ("gathered ones too", role("g", [], gathers=[A]), [role("h", ["pods"], {"to": "a"}, [B])], ["pods"]),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "gathering", "others", "wanted"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_gathered_rules(name: str, gathering: Any, others: list[Any], wanted: list[str] | None) -> None:
    everybody = [typed(r, ClusterRole) for r in (*others, gathering)]
    found = aggregated_rules(typed(gathering, ClusterRole), everybody)
    assert (None if found is None else [r.resources[0] for r in found if r.resources]) == wanted


@given(st.permutations([role(n, [n], {"to": "a"}) for n in "bcde"]))
def test_the_order_in_which_roles_come_changes_nothing(others: list[Any]) -> None:
    gathering = typed(role("g", [], gathers=[A]), ClusterRole)
    found = aggregated_rules(gathering, [typed(r, ClusterRole) for r in others])
    assert found is not None and [r.resources for r in found] == [["b"], ["c"], ["d"], ["e"]]


def test_rules_follow_labels_and_what_is_written_by_hand_is_overwritten() -> None:
    async def story(house: House) -> None:
        house.start(("clusterrole-aggregation",))
        client = house.client

        async def resources() -> list[str]:
            found = await client.get(CLUSTER_ROLE, "g")
            return [r["resources"][0] for r in found.get("rules") or ()]

        await client.create(CLUSTER_ROLE, role("g", ["mine"], gathers=[A]))
        await client.create(CLUSTER_ROLE, role("b", ["pods"], {"to": "a"}))
        await house.settle(1)
        assert await resources() == ["pods"]
        await client.create(CLUSTER_ROLE, role("a", ["nodes"], {"to": "a"}))
        await house.settle(1)
        assert await resources() == ["nodes", "pods"]
        await client.patch(CLUSTER_ROLE, "b", "", {"metadata": {"labels": None}}, type="merge")
        await house.settle(1)
        assert await resources() == ["nodes"]
        await client.patch(CLUSTER_ROLE, "g", "", {"rules": role("x", ["mine"])["rules"]}, type="merge")
        await house.settle(1)
        assert await resources() == ["nodes"]
        await client.delete(CLUSTER_ROLE, "a")
        await house.settle(1)
        assert await resources() == []
        before = (await client.get(CLUSTER_ROLE, "g"))["metadata"]["resourceVersion"]
        await house.settle(30)
        assert (await client.get(CLUSTER_ROLE, "g"))["metadata"]["resourceVersion"] == before

    in_house(story)
