"""Admission by quotas, limit ranges and priority classes: what is counted, what is filled in, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.errors import ApiError, Forbidden, ServiceUnavailable
from kubesvc.api.kinds import (
    CONFIG_MAP,
    LIMIT_RANGE,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    PRIORITY_CLASS,
    RESOURCE_QUOTA,
    SERVICE,
)
from kubesvc.apiserver import quotas
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.limits import fill_in, problems_of_pod
from kubesvc.apiserver.options import WriteOptions
from kubesvc.apiserver.quota import footprint_of, matches, refusal_of, used_by
from kubesvc.client.interface import Client

from .running import config_map, pod, with_server

# ---------------------------------------------------------------- what counts, and for what


def container(name: str = "c", **resources: Any) -> dict[str, Any]:
    return {"name": name, "image": "i", "resources": resources}


def quota(hard: dict[str, str], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "q"}, "spec": {"hard": hard, **spec}}


FOOTPRINTS = (
    # sentence, kind, object, amount by name
    ("a pod counts twice over", POD, pod("p"), {"pods": "1", "count/pods": "1"}),
    (
        "containers of a pod add up", POD,
        pod("p", containers=[container(requests={"cpu": "100m"}), container("d", requests={"cpu": "1"})]),
        {"requests.cpu": "1100m", "cpu": "1100m"},
    ),
    (
        "one that runs before them counts if it needs more", POD,
        pod("p", containers=[container(limits={"memory": "1Gi"})],
            initContainers=[container(limits={"memory": "2Gi"})]),
        {"limits.memory": "2Gi"},
    ),
    (
        "one that stays beside them is added", POD,
        pod("p", containers=[container(requests={"cpu": "1"})],
            initContainers=[{**container(requests={"cpu": "2"}), "restartPolicy": "Always"}]),
        {"requests.cpu": "3"},
    ),
    (
        "a pod that ended uses no more than its name", POD, {**pod("p"), "status": {"phase": "Succeeded"}},
        {"count/pods": "1", "pods": None},
    ),
    (
        "a node port per port", SERVICE, {"spec": {"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}},
        {"services": "1", "services.nodeports": "2", "services.loadbalancers": None},
    ),
    (
        "a load balancer without node ports", SERVICE,
        {"spec": {"type": "LoadBalancer", "ports": [{"port": 1}], "allocateLoadBalancerNodePorts": False}},
        {"services.nodeports": "0", "services.loadbalancers": "1"},
    ),
    (
        "a claim counts for its class too", PERSISTENT_VOLUME_CLAIM,
        {"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "3Gi"}}}},
        {"requests.storage": "3Gi", "fast.storageclass.storage.k8s.io/requests.storage": "3Gi"},
    ),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "kind", "obj", "amounts"), FOOTPRINTS, ids=[r[0] for r in FOOTPRINTS])
def test_footprint(sentence: str, kind: Any, obj: Any, amounts: dict[str, str | None]) -> None:
    found = footprint_of(kind, obj).amounts
    assert {n: str(found[n]) if n in found else None for n in amounts} == amounts


SCOPES: tuple[Any, ...] = (
    ("no scopes: everything", {}, pod("p"), True),
    ("BestEffort: a pod that asks for nothing", {"scopes": ["BestEffort"]}, pod("p"), True),
    ("NotBestEffort: not that one", {"scopes": ["NotBestEffort"]}, pod("p"), False),
    ("Terminating: one with a deadline", {"scopes": ["Terminating"]}, pod("p", activeDeadlineSeconds=5), True),
    ("both must hold", {"scopes": ["BestEffort", "Terminating"]}, pod("p"), False),
    (
        "a class by name",
        {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["x"]}]}},
        pod("p", priorityClassName="x"), True,
    ),
    (
        "a class not by that name",
        {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "NotIn", "values": ["x"]}]}},
        pod("p", priorityClassName="x"), False,
    ),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "spec", "obj", "wanted"), SCOPES, ids=[r[0] for r in SCOPES])
def test_scope(sentence: str, spec: dict[str, Any], obj: Any, wanted: bool) -> None:
    assert matches(quota({"pods": "1"}, **spec), footprint_of(POD, obj)) is wanted


def test_refusals_in_the_apis_words() -> None:
    limited = quota({"pods": "2", "requests.cpu": "1"})
    small = footprint_of(POD, pod("a", containers=[container(requests={"cpu": "600m"})]))
    used = used_by(limited, [small])
    assert refusal_of(limited, used, small, None) == (
        "exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1"
    )
    assert refusal_of(limited, used, footprint_of(POD, pod("b")), None) == (
        "failed quota: q: must specify requests.cpu for: c"
    )
    assert refusal_of(limited, used, small, small) == "", "a write that uses no more is not judged"


# ---------------------------------------------------------------- enforced


Test = Callable[[ApiServer, Client], Awaitable[None]]


DRY = WriteOptions(manager="tests", dry_run=True)


def served(test: Test) -> None:
    async def run(server: ApiServer) -> None:
        await test(server, server.client)

    with_server(run)


async def told(client: Client, wanted: dict[str, str]) -> None:
    """Wait until the quota's status says that so much is used, which it does in its time."""
    found: Any = None
    for _ in range(3000):
        found = (await client.get(RESOURCE_QUOTA, "q", "default")).get("status", {}).get("used")
        if found == wanted:
            return
        await asyncio.sleep(0.02)
    assert found == wanted


def test_many_at_once_get_no_further_than_the_limit() -> None:
    """Twenty creates at the same moment, five places: exactly five succeed, and the figures say so."""

    async def run(server: ApiServer, client: Client) -> None:
        await client.create(RESOURCE_QUOTA, quota({"configmaps": "5", "count/configmaps": "7"}), "default")
        wanted = [client.create(CONFIG_MAP, config_map(f"c{i}"), "default") for i in range(20)]
        done = await asyncio.gather(*wanted, return_exceptions=True)
        refused = [d for d in done if isinstance(d, Forbidden)]
        assert len(refused) == 15
        assert refused[0].message.endswith(
            "exceeded quota: q, requested: configmaps=1, used: configmaps=5, limited: configmaps=5"
        )
        await told(client, {"configmaps": "5", "count/configmaps": "5"})
        names = sorted(d["metadata"]["name"] for d in done if isinstance(d, dict))
        await client.delete(CONFIG_MAP, names[0], "default")
        await told(client, {"configmaps": "4", "count/configmaps": "4"})
        with pytest.raises(ApiError, match="already exists"):
            await client.create(CONFIG_MAP, config_map(names[1]), "default")
        await client.create(CONFIG_MAP, config_map("again"), "default")
        ledger = server.registry.admission.quotas.ledgers["default"]
        assert not ledger.pending, "nothing stays held"
        await client.delete(RESOURCE_QUOTA, "q", "default")
        await client.create(CONFIG_MAP, config_map("free"), "default")
        assert not server.registry.admission.quotas.ledgers

    served(run)


def test_a_quota_counts_what_was_there_before_it_and_follows_changes() -> None:
    async def run(_: ApiServer, client: Client) -> None:
        ports = [{"name": "a", "port": 1}, {"name": "b", "port": 2}]
        service = {"metadata": {"name": "s"}, "spec": {"type": "ClusterIP", "ports": ports}}
        await client.create(SERVICE, service, "default")
        await client.create(RESOURCE_QUOTA, quota({"services": "5", "services.nodeports": "1"}), "default")
        await told(client, {"services": "2", "services.nodeports": "0"})  # with Service kubernetes
        patch = {"spec": {"type": "NodePort"}}
        with pytest.raises(Forbidden, match=r"requested: services\.nodeports=2, used: services\.nodeports=0"):
            await client.patch(SERVICE, "s", "default", patch, "merge")
        await client.patch(RESOURCE_QUOTA, "q", "default", {"spec": {"hard": {"services.nodeports": "2"}}}, "merge")
        await client.patch(SERVICE, "s", "default", patch, "merge")
        await told(client, {"services": "2", "services.nodeports": "2"})
        await client.patch(SERVICE, "s", "default", {"metadata": {"labels": {"a": "b"}}}, "merge")

    served(run)


def test_figures_that_could_not_be_written_are_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "AGAIN_SECONDS", 0.01)

    async def run(server: ApiServer, client: Client) -> None:
        patch, refusals = server.local.patch, iter(range(3))

        async def refuse(*given: Any, **named: Any) -> Any:
            if next(refusals, None) is not None:
                raise ServiceUnavailable("the store is away")
            return await patch(*given, **named)

        monkeypatch.setattr(server.local, "patch", refuse)
        await client.create(RESOURCE_QUOTA, quota({"configmaps": "5"}), "default")
        await told(client, {"configmaps": "0"})
        assert next(refusals, None) is None, "all of them were met"

    served(run)


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["create", "delete", "quota", "dry"]), max_size=25))
def test_ledgers_never_drift(steps: list[str]) -> None:
    """Whatever happens: what is used by the ledger is what is stored, and nothing stays held."""

    async def run(server: ApiServer, client: Client) -> None:
        await client.create(RESOURCE_QUOTA, quota({"configmaps": "3"}), "default")
        quotas = server.registry.admission.quotas
        for i, step in enumerate(steps):
            try:
                if step == "create":
                    await client.create(CONFIG_MAP, config_map(f"c{i % 7}"), "default")
                elif step == "delete":
                    await client.delete(CONFIG_MAP, f"c{(i * 3) % 7}", "default")
                elif step == "dry":
                    await server.registry.create(CONFIG_MAP, "default", config_map(f"d{i}"), DRY, [])
                else:
                    patch = {"spec": {"hard": {"configmaps": str(i % 5)}}}
                    await client.patch(RESOURCE_QUOTA, "q", "default", patch, "merge")
            except ApiError:
                pass
        stored = sum(1 for _ in server.cache.of(CONFIG_MAP).select("default"))
        found = quotas.quotas_in("default")[0]
        assert quotas.ledgers["default"].stored(found)["configmaps"].value == stored
        assert not quotas.ledgers["default"].pending

    served(run)


# ---------------------------------------------------------------- limit ranges

RANGE = {
    "metadata": {"name": "r"},
    "spec": {
        "limits": [
            {
                "type": "Container",
                "default": {"cpu": "500m", "memory": "1Gi"},
                "defaultRequest": {"cpu": "100m"},
                "min": {"cpu": "50m"},
                "max": {"cpu": "1"},
                "maxLimitRequestRatio": {"cpu": "5"},
            },
            {"type": "Pod", "max": {"cpu": "2"}},
        ]
    },
}


def test_containers_get_what_they_do_not_state() -> None:
    found = pod("p", containers=[container(), container("own", limits={"cpu": "200m"})])
    fill_in(found, [RANGE])
    first, second = found["spec"]["containers"]
    assert first["resources"] == {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "1Gi"}}
    assert second["resources"]["limits"] == {"cpu": "200m", "memory": "1Gi"}
    assert found["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu request for container c; cpu, memory limit for container c; "
        "cpu request for container own; memory limit for container own"
    )


BOUNDS: tuple[Any, ...] = (
    ("within", {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}, []),
    (
        "too little", {"requests": {"cpu": "10m"}, "limits": {"cpu": "50m"}},
        ["minimum cpu usage per Container is 50m, but request is 10m"],
    ),
    (
        "too much", {"requests": {"cpu": "500m"}, "limits": {"cpu": "1500m"}},
        ["maximum cpu usage per Container is 1, but limit is 1500m"],
    ),
    (
        "nothing said", {},
        ["minimum cpu usage per Container is 50m.  No request is specified",
         "maximum cpu usage per Container is 1.  No limit is specified",
         "cpu max limit to request ratio per Container is 5, but no request is specified or request is 0",
         "maximum cpu usage per Pod is 2.  No limit is specified"],
    ),
    (
        "too wide", {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}},
        ["cpu max limit to request ratio per Container is 5, but provided ratio is 10.000000"],
    ),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "resources", "problems"), BOUNDS, ids=[r[0] for r in BOUNDS])
def test_bounds(sentence: str, resources: dict[str, Any], problems: list[str]) -> None:
    assert problems_of_pod(pod("p", containers=[container(**resources)]), [RANGE]) == problems


def test_limit_ranges_are_enforced() -> None:
    async def run(_: ApiServer, client: Client) -> None:
        await client.create(LIMIT_RANGE, RANGE, "default")
        made = await client.create(POD, pod("p"), "default")
        assert made["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "100m"
        wide = pod("w", containers=[container(requests={"cpu": "2"}, limits={"cpu": "2"})])
        with pytest.raises(
            Forbidden, match=r'pods "w" is forbidden: \[?maximum cpu usage per Container is 1, but limit'
        ):
            await client.create(POD, wide, "default")
        most = {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}
        await client.create(LIMIT_RANGE, {"metadata": {"name": "s"}, "spec": {"limits": [most]}}, "default")
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}
        with pytest.raises(
            Forbidden, match="maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"
        ):
            await client.create(PERSISTENT_VOLUME_CLAIM, {"metadata": {"name": "v"}, "spec": spec}, "default")

    served(run)


# ---------------------------------------------------------------- priority classes


def test_pods_get_the_priority_of_their_class() -> None:
    async def run(server: ApiServer, client: Client) -> None:
        names = [i.name for i in server.cache.of(PRIORITY_CLASS).select()]
        assert names == ["system-cluster-critical", "system-node-critical"]
        plain = await client.create(POD, pod("plain"), "default")
        assert plain["spec"]["priority"] == 0 and "priorityClassName" not in plain["spec"]
        with pytest.raises(Forbidden, match="no PriorityClass with name high was found"):
            await client.create(POD, pod("early", priorityClassName="high"), "default")
        high = {"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}
        await client.create(PRIORITY_CLASS, high)
        made = await client.create(POD, pod("h", priorityClassName="high"), "default")
        assert (made["spec"]["priority"], made["spec"]["preemptionPolicy"]) == (1000, "Never")
        with pytest.raises(Forbidden, match=r"priority \(7\) must not be provided in pod spec"):
            await client.create(POD, pod("x", priorityClassName="high", priority=7), "default")
        usual = {"metadata": {"name": "usual"}, "value": 5, "globalDefault": True}
        await client.create(PRIORITY_CLASS, usual)
        made = await client.create(POD, pod("u"), "default")
        assert (made["spec"]["priority"], made["spec"]["priorityClassName"]) == (5, "usual")
        with pytest.raises(Forbidden, match="PriorityClass usual is already marked as default"):
            await client.create(PRIORITY_CLASS, {**usual, "metadata": {"name": "other"}})

    served(run)
