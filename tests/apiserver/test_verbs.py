"""Verbs in process: what is stored, what is kept, what is refused (META, WRITE, LIST, DEL)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kubesvc.api.errors import AlreadyExists, ApiError, BadRequest, Conflict, Expired, Forbidden, Invalid, NotFound
from kubesvc.api.kinds import CONFIG_MAP, DEPLOYMENT, NAMESPACE, NODE, POD
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.options import ListOptions
from kubesvc.client.interface import WatchEvent

from .running import config_map, pod, with_server

Step = Callable[[ApiServer], Awaitable[object]]


def test_a_new_object_gets_its_system_metadata() -> None:
    async def run(s: ApiServer) -> None:
        sent = config_map("a", uid="mine", creationTimestamp="2000-01-01T00:00:00Z", selfLink="x")
        made = await s.client.create(CONFIG_MAP, sent, "default")
        meta = made["metadata"]  # META-1, META-2
        assert meta["uid"] != "mine" and len(meta["uid"]) == 36
        assert meta["creationTimestamp"] > "2020" and meta["creationTimestamp"].endswith("Z")
        assert int(meta["resourceVersion"]) > 0 and "selfLink" not in meta and "generation" not in meta
        assert sent["metadata"]["uid"] == "mine"  # the caller's object is not touched
        assert await s.client.get(CONFIG_MAP, "a", "default") == made

    with_server(run)


def test_generated_names_use_the_base_and_five_characters() -> None:
    async def run(s: ApiServer) -> None:
        made = await s.client.create(CONFIG_MAP, {"metadata": {"generateName": "web" * 30}}, "default")
        name = made["metadata"]["name"]  # META-4
        assert name.startswith(("web" * 30)[:58]) and len(name) == 63
        assert set(name[58:]) <= set("bcdfghjklmnpqrstvwxz2456789")

    with_server(run)


async def bad_namespace(s: ApiServer) -> object:
    return await s.client.create(CONFIG_MAP, config_map("a", "other"), "default")


async def no_namespace(s: ApiServer) -> object:
    return await s.client.create(CONFIG_MAP, config_map("a", "none"), "none")


async def twice(s: ApiServer) -> object:
    await s.client.create(CONFIG_MAP, config_map("a"), "default")
    return await s.client.create(CONFIG_MAP, config_map("a"), "default")


async def nameless(s: ApiServer) -> object:
    return await s.client.create(CONFIG_MAP, {"metadata": {}}, "default")


async def versioned(s: ApiServer) -> object:
    return await s.client.create(CONFIG_MAP, config_map("a", resourceVersion="5"), "default")


async def stale(s: ApiServer) -> object:
    made = await s.client.create(CONFIG_MAP, config_map("a"), "default")
    await s.client.update(CONFIG_MAP, {**made, "data": {"x": "1"}})
    return await s.client.update(CONFIG_MAP, {**made, "data": {"x": "2"}})


async def other_uid(s: ApiServer) -> object:
    made = await s.client.create(CONFIG_MAP, config_map("a"), "default")
    meta = {**made["metadata"], "uid": "11111111-2222-3333-4444-555555555555"}
    return await s.client.update(CONFIG_MAP, {**made, "metadata": meta})


async def put_missing(s: ApiServer) -> object:
    return await s.client.update(CONFIG_MAP, config_map("a"))


async def wrong_precondition(s: ApiServer) -> object:
    await s.client.create(CONFIG_MAP, config_map("a"), "default")
    return await s.client.delete(CONFIG_MAP, "a", "default", uid="x")


async def protected(s: ApiServer) -> object:
    return await s.client.delete(NAMESPACE, "default")


async def new_finalizer(s: ApiServer) -> object:
    made = await s.client.create(CONFIG_MAP, config_map("a", finalizers=["a/b"]), "default")
    await s.client.delete(CONFIG_MAP, "a", "default")
    made["metadata"].pop("resourceVersion")
    made["metadata"]["finalizers"] = ["a/b", "a/c"]
    return await s.client.update(CONFIG_MAP, made)


REFUSALS: tuple[tuple[str, Step, type[ApiError], str], ...] = (
    ("WRITE-1: the body's namespace is another", bad_namespace, BadRequest, "does not match the namespace sent"),
    ("WRITE-12: the namespace is missing", no_namespace, NotFound, 'namespaces "none" not found'),
    ("WRITE-7: the name is taken", twice, AlreadyExists, 'configmaps "a" already exists'),
    ("META-5: no name at all", nameless, Invalid, "metadata.name: Required value: name or generateName is required"),
    ("META-3: a resourceVersion in a create", versioned, ApiError, "resourceVersion should not be set"),
    ("WRITE-3: an old resourceVersion", stale, Conflict, "the object has been modified"),
    ("WRITE-4: another uid", other_uid, Conflict, "Precondition failed: UID in precondition: 1111"),
    ("WRITE-6: PUT does not create config maps", put_missing, NotFound, 'configmaps "a" not found'),
    ("DEL-3: precondition", wrong_precondition, Conflict, r"the UID in the precondition \(x\) does not match"),
    ("KSVC-7: default stays", protected, Forbidden, "this namespace may not be deleted"),
    ("META-12: no new finalizers while going", new_finalizer, Invalid, "no new finalizers can be added"),
)


@pytest.mark.parametrize(("name", "step", "kind", "text"), REFUSALS, ids=lambda v: v if isinstance(v, str) else "")
def test_refused(name: str, step: Step, kind: type[ApiError], text: str) -> None:
    async def run(s: ApiServer) -> None:
        with pytest.raises(kind, match=text):
            await step(s)

    with_server(run)


def test_a_write_that_changes_nothing_keeps_the_revision_and_is_not_told() -> None:
    async def run(s: ApiServer) -> None:
        made = await s.client.create(CONFIG_MAP, config_map("a"), "default")
        before = s.cache.revision
        again = await s.client.update(CONFIG_MAP, made)  # META-8
        patched = await s.client.patch(CONFIG_MAP, "a", "default", {"data": {"k": "v"}}, "merge")  # PATCH-9
        assert again["metadata"]["resourceVersion"] == patched["metadata"]["resourceVersion"]
        assert s.cache.revision == before

    with_server(run)


def test_racing_patches_all_land() -> None:
    async def run(s: ApiServer) -> None:
        await s.client.create(CONFIG_MAP, config_map("a"), "default")
        patches = [s.client.patch(CONFIG_MAP, "a", "default", {"data": {f"k{i}": "v"}}, "merge") for i in range(20)]
        await asyncio.gather(*patches)  # PATCH-3
        assert len((await s.client.get(CONFIG_MAP, "a", "default"))["data"]) == 21

    with_server(run)


def test_status_and_spec_do_not_reach_each_other() -> None:
    async def run(s: ApiServer) -> None:
        await s.client.create(POD, pod("p", nodeName="n"), "default")
        sent = {"status": {"phase": "Running"}, "spec": {"nodeName": "other"}, "metadata": {"annotations": {"a": "b"}}}
        after = await s.client.patch(POD, "p", "default", sent, "merge", subresource="status")  # WRITE-10, SUB-2
        assert after["status"]["phase"] == "Running" and after["spec"]["nodeName"] == "n"
        assert after["metadata"]["annotations"] == {"a": "b"}
        main = await s.client.patch(POD, "p", "default", {"status": {"phase": "Failed"}}, "merge")
        assert main["status"]["phase"] == "Running"

    with_server(run)


def test_the_last_finalizer_takes_the_object_along() -> None:
    async def run(s: ApiServer) -> None:
        await s.client.create(CONFIG_MAP, config_map("a", finalizers=["a/b"]), "default")
        pending = await s.client.delete(CONFIG_MAP, "a", "default")
        assert pending["metadata"]["deletionTimestamp"]  # DEL-4: pending, so the object and no Status
        await s.client.patch(CONFIG_MAP, "a", "default", {"metadata": {"finalizers": None}}, "merge")
        with pytest.raises(NotFound):  # WRITE-8
            await s.client.get(CONFIG_MAP, "a", "default")

    with_server(run)


def test_nothing_new_in_a_namespace_that_goes() -> None:
    async def run(s: ApiServer) -> None:
        await s.client.create(NAMESPACE, {"metadata": {"name": "ns"}})
        gone = await s.client.delete(NAMESPACE, "ns")
        assert gone["status"]["phase"] == "Terminating"
        with pytest.raises(Forbidden) as caught:
            await s.client.create(CONFIG_MAP, config_map("a", "ns"), "ns")
        assert caught.value.has_cause("NamespaceTerminating")  # WRITE-12
        gone["spec"] = {}
        await s.client.update(NAMESPACE, gone, subresource="finalize")  # NS-3
        with pytest.raises(NotFound):
            await s.client.get(NAMESPACE, "ns")

    with_server(run)


def test_pods_are_completed_on_their_way_in() -> None:
    async def run(s: ApiServer) -> None:
        zone = {"topology.kubernetes.io/zone": "z1"}
        await s.client.create(NODE, {"metadata": {"name": "n1", "labels": zone}})
        node = await s.client.get(NODE, "n1")
        assert node["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]  # NODE-2
        made = await s.client.create(POD, pod("p", nodeName="n1"), "default")
        keys = [t["key"] for t in made["spec"]["tolerations"]]
        assert keys == ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]  # POD-1
        assert made["spec"]["priority"] == 0 and made["metadata"]["labels"]["topology.kubernetes.io/zone"] == "z1"

    with_server(run)


def test_binding_sets_the_node_once() -> None:
    async def run(s: ApiServer) -> None:
        await s.client.create(POD, pod("p"), "default")
        binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
        await s.client.create(POD, binding, "default", name="p", subresource="binding")  # SUB-5
        bound = await s.client.get(POD, "p", "default")
        assert bound["spec"]["nodeName"] == "n1" and bound["status"]["conditions"][0]["type"] == "PodScheduled"
        assert bound["metadata"]["generation"] == 1  # META-7
        with pytest.raises(Conflict, match='pod p is already assigned to node "n1"'):
            await s.client.create(POD, binding, "default", name="p", subresource="binding")

    with_server(run)


def test_scale_changes_only_replicas() -> None:
    async def run(s: ApiServer) -> None:
        template = {"metadata": {"labels": {"app": "d"}}, "spec": pod("x")["spec"]}
        spec = {"replicas": 1, "selector": {"matchLabels": {"app": "d"}}, "template": template}
        await s.client.create(DEPLOYMENT, {"metadata": {"name": "d"}, "spec": spec}, "default")
        scale = await s.client.get(DEPLOYMENT, "d", "default", subresource="scale")  # SUB-3
        assert scale["kind"] == "Scale" and scale["status"]["selector"] == "app=d"
        after = await s.client.patch(
            DEPLOYMENT, "d", "default", {"spec": {"replicas": 3}}, "merge", subresource="scale"
        )
        assert after["spec"]["replicas"] == 3
        with pytest.raises(Invalid, match=r'Scale.autoscaling "d" is invalid: spec.replicas'):
            await s.client.patch(DEPLOYMENT, "d", "default", {"spec": {"replicas": -1}}, "merge", subresource="scale")

    with_server(run)


def test_pages_of_one_list_show_one_state() -> None:
    async def run(s: ApiServer) -> None:
        for name in "cab":
            await s.client.create(CONFIG_MAP, config_map(name), "default")
        page = await s.client.list_raw(CONFIG_MAP, "default", limit=2)
        assert len(page.items) == 2 and b'"name":"a"' in page.items[0]  # LIST-2
        await s.client.delete(CONFIG_MAP, "c", "default")
        await s.client.create(CONFIG_MAP, config_map("d"), "default")
        rest = await s.client.list_raw(CONFIG_MAP, "default", limit=2, continue_token=page.continue_token)
        assert rest.resource_version == page.resource_version and not rest.continue_token  # LIST-3
        assert [b'"name":"c"' in i for i in rest.items] == [True]
        await s.compact()
        with pytest.raises(Expired) as caught:
            await s.client.list_raw(CONFIG_MAP, "default", limit=2, continue_token=page.continue_token)
        token = caught.value.metadata["continue"]  # LIST-6
        late = await s.client.list_raw(CONFIG_MAP, "default", continue_token=token)
        assert [b'"name":"d"' in i for i in late.items] == [True]
        asked = ListOptions(resource_version=page.resource_version, match="Exact")
        with pytest.raises(Expired, match="too old"):  # LIST-7
            await s.registry.list_page(CONFIG_MAP, "default", asked)

    with_server(run)


async def events_of(s: ApiServer, most: int, **options: Any) -> list[tuple[str, dict[str, Any]]]:
    import json

    found: list[tuple[str, dict[str, Any]]] = []
    stream = s.client.watch(CONFIG_MAP, "default", **options)
    async with asyncio.timeout(60):
        event: WatchEvent
        async for event in stream:
            found.append((event.type, json.loads(event.object)))
            if len(found) == most:
                break
    await stream.aclose()
    return found


def test_a_selecting_watch_sees_objects_come_and_go_by_their_labels() -> None:
    async def run(s: ApiServer) -> None:
        begin = str(s.cache.revision)
        await s.client.create(CONFIG_MAP, config_map("a", labels={"t": "x"}), "default")
        await s.client.patch(CONFIG_MAP, "a", "default", {"data": {"k": "2"}}, "merge")
        left = await s.client.patch(CONFIG_MAP, "a", "default", {"metadata": {"labels": {"t": "y"}}}, "merge")
        await s.client.patch(CONFIG_MAP, "a", "default", {"data": {"k": "3"}}, "merge")
        await s.client.patch(CONFIG_MAP, "a", "default", {"metadata": {"labels": {"t": "x"}}}, "merge")
        seen = await events_of(s, 4, label_selector="t=x", resource_version=begin)
        assert [t for t, _ in seen] == ["ADDED", "MODIFIED", "DELETED", "ADDED"]  # WATCH-12
        assert seen[2][1]["metadata"]["labels"] == {"t": "x"}
        assert seen[2][1]["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]

    with_server(run)


def test_initial_events_end_with_the_annotated_bookmark() -> None:
    async def run(s: ApiServer) -> None:
        for name in "ab":
            await s.client.create(CONFIG_MAP, config_map(name), "default")
        seen = await events_of(s, 3, initial_events=True, bookmarks=True)
        assert [t for t, _ in seen] == ["ADDED", "ADDED", "BOOKMARK"]  # WATCH-6
        assert seen[2][1]["kind"] == "ConfigMap"
        assert seen[2][1]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(seen[2][1]["metadata"]["resourceVersion"]) >= int(seen[1][1]["metadata"]["resourceVersion"])

    with_server(run)


def test_a_watch_from_before_all_history_is_expired() -> None:
    async def run(s: ApiServer) -> None:
        made = await s.client.create(CONFIG_MAP, config_map("a"), "default")
        await s.client.delete(CONFIG_MAP, "a", "default")
        await s.compact()
        with pytest.raises(Expired, match="too old resource version"):  # WATCH-10
            await events_of(s, 1, resource_version=made["metadata"]["resourceVersion"])

    with_server(run)


def test_the_server_makes_its_own_objects() -> None:
    async def run(s: ApiServer) -> None:
        names = [n.decode() for n in (await s.client.list_raw(NAMESPACE)).items]
        assert all(any(f'"name":"{n}"' in found for found in names) for n in ("default", "kube-system"))  # KSVC-7
        assert s.health.report("readyz", "", [], verbose=False) == (200, "ok")

    with_server(run)
