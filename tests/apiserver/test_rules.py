"""Rules of the API asked over HTTP, one small story each; a story has a namespace of its own."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kubesvc.api.errors import Forbidden, NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import CONFIG_MAP, NAMESPACE, POD, SERVICE_ACCOUNT
from kubesvc.apiserver import serviceaccounts
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.clock import RealClock
from kubesvc.controllers import run_controllers
from kubesvc.controllers.settings import ControllerSettings

from .running import SETTINGS, Http, config_map, pod, running, with_server

DUAL = replace(SETTINGS, service_ranges=("10.96.0.0/16", "fd00:10:96::/112"), bookmark_seconds=0.4)
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


class Space:
    """One namespace of the shared server."""

    def __init__(self, server: ApiServer, http: Http, name: str) -> None:
        self.server = server
        self.http = http
        self.name = name

    def path(self, plural: str, name: str = "", group: str = "") -> str:
        root = f"/apis/{group}" if group else "/api/v1"
        return f"{root}/namespaces/{self.name}/{plural}" + (f"/{name}" if name else "")

    async def ask(self, method: str, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        found, _, answer = await self.http.request(method, path, body, **headers)
        assert found == status, (method, path, found, answer)
        return answer

    async def make(self, plural: str, name: str, status: int = 201, group: str = "", **content: Any) -> Any:
        body = {"metadata": {"name": name}, **content}
        return await self.ask("POST", self.path(plural, group=group), body, status)

    async def service(self, name: str, status: int = 201, **spec: Any) -> Any:
        spec.setdefault("ports", [{"port": 80}])
        return await self.make("services", name, status, spec=spec)

    async def put(self, plural: str, obj: Any, status: int = 200, group: str = "") -> Any:
        return await self.ask("PUT", self.path(plural, obj["metadata"]["name"], group), obj, status)

    async def watch(
        self, query: str, most: int, accept: str = "application/json", plural: str = "configmaps"
    ) -> list[Any]:
        """The first events of a watch."""
        url = f"http://api{self.path(plural)}?watch=1&{query}"
        events: list[Any] = []
        async with self.http.session.get(url, headers={"Accept": accept}) as response, asyncio.timeout(120):
            assert response.status == 200, await response.text()
            while len(events) < most and (line := await response.content.readline()):
                events.append(json.loads(line))
        return events


Story = Callable[[Space], Awaitable[None]]
STORIES: dict[str, Story] = {}


def story(sentence: str) -> Callable[[Story], Story]:
    def keep(function: Story) -> Story:
        STORIES[sentence] = function
        return function

    return keep


# ---------------------------------------------------------------- lists


@story("LIST-1: a list of nothing has items, and a watch from its revision misses and repeats nothing")
async def _(s: Space) -> None:
    path = s.path("configmaps")
    empty = await s.ask("GET", path + "?labelSelector=a%3Db")
    assert list(empty) == ["kind", "apiVersion", "metadata", "items"] and empty["items"] == []
    await s.ask("POST", path, config_map("a", s.name), 201)
    listed = await s.ask("GET", path)
    assert listed["kind"] == "ConfigMapList" and [i["metadata"]["name"] for i in listed["items"]] == ["a"]
    for name in "bc":
        await s.ask("POST", path, config_map(name, s.name), 201)
    events = await s.watch(f"resourceVersion={listed['metadata']['resourceVersion']}", 2)
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [("ADDED", "b"), ("ADDED", "c")]


@story("LIST-4, LIST-12: tokens are base64url without padding and hold the revision; an absent namespace is empty")
async def _(s: Space) -> None:
    for name in "abc":
        await s.ask("POST", s.path("configmaps"), config_map(name, s.name), 201)
    page = await s.ask("GET", s.path("configmaps") + "?limit=2")
    token = page["metadata"]["continue"]
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    found = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    assert found["v"] == "meta.k8s.io/v1" and str(found["rv"]) == page["metadata"]["resourceVersion"]
    assert found["start"].endswith("b\0") and page["metadata"]["remainingItemCount"] == 1
    rest = await s.ask("GET", s.path("configmaps") + f"?limit=2&continue={token}")
    assert [i["metadata"]["name"] for i in rest["items"]] == ["c"] and "continue" not in rest["metadata"]
    nowhere = await s.ask("GET", "/api/v1/namespaces/nowhere/services")
    assert nowhere["items"] == []
    everywhere = await s.ask("GET", "/api/v1/configmaps?limit=1")
    assert len(everywhere["items"]) == 1 and everywhere["metadata"]["continue"]


@story("LIST-8: a revision of the future is waited for, then 504 with the time to come back")
async def _(s: Space) -> None:
    began = asyncio.get_running_loop().time()
    path = s.path("configmaps") + "?resourceVersion=999999999"
    status, headers, answer = await s.http.request("GET", path)
    assert 2.5 < asyncio.get_running_loop().time() - began < 60
    assert status == 504 and headers["Retry-After"] == "1" and answer["reason"] == "Timeout"
    current = s.server.cache.revision
    assert answer["message"].startswith("Timeout: Too large resource version: 999999999, current: ")
    assert int(answer["message"].rpartition(" ")[2]) <= current
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    assert answer["details"] == {"causes": [cause], "retryAfterSeconds": 1}


@story("LIST-10, LIST-11: initial events are not for lists, a timeout is, odd parameters do not matter, export does")
async def _(s: Space) -> None:
    path = s.path("services")
    for value in ("true", "false"):
        answer = await s.ask("GET", f"{path}?sendInitialEvents={value}", status=422)
        assert "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list" in answer["message"]
    await s.ask("GET", f"{path}?timeoutSeconds=5&nonsense=1&export=false")
    answer = await s.ask("GET", f"{path}?export=true", status=400)
    assert answer["message"] == "the export parameter, deprecated since v1.14, is no longer supported"


@story("LIST-13: a selector by name is a list of one; it may not contradict the path")
async def _(s: Space) -> None:
    for name in "ab":
        await s.ask("POST", s.path("configmaps"), config_map(name, s.name), 201)
    listed = await s.ask("GET", s.path("configmaps") + "?fieldSelector=metadata.name%3Db")
    assert [i["metadata"]["name"] for i in listed["items"]] == ["b"]
    events = await s.watch("fieldSelector=metadata.name%3Db&timeoutSeconds=1&resourceVersion=0", 9)
    assert [e["object"]["metadata"]["name"] for e in events if e["type"] == "ADDED"] == ["b"]
    legacy = f"/api/v1/watch/namespaces/{s.name}/configmaps/a?timeoutSeconds=1&fieldSelector=metadata.name%3Db"
    await s.ask("GET", legacy, status=400)


# ---------------------------------------------------------------- watches


@story("WATCH-1: by parameter or by the old path; JSON lines in chunks")
async def _(s: Space) -> None:
    await s.ask("POST", s.path("configmaps"), config_map("a", s.name), 201)
    collection = s.path("configmaps")
    for path in (
        f"{collection}?watch=1", f"{collection}?watch=true", f"{collection}?watch",
        f"/api/v1/watch/namespaces/{s.name}/configmaps", f"/api/v1/watch/namespaces/{s.name}/configmaps/a",
    ):  # fmt: skip
        joint = "&" if "?" in path else "?"
        async with s.http.session.get(f"http://api{path}{joint}timeoutSeconds=1&resourceVersion=0") as response:
            assert response.headers["Transfer-Encoding"] == "chunked"
            assert response.headers["Content-Type"] == "application/json"
            event = json.loads(await response.content.readline())
            assert list(event) == ["type", "object"] and event["type"] == "ADDED", path


@story("WATCH-4, WATCH-7, WATCH-16: a watch without revision begins with what there is, and says when that is all")
async def _(s: Space) -> None:
    made = await s.ask("POST", s.path("configmaps"), config_map("a", s.name), 201)
    for query in ("", "resourceVersion=0&", "resourceVersion=&"):
        events = await s.watch(f"{query}timeoutSeconds=60&allowWatchBookmarks=true", 2)
        assert [e["type"] for e in events] == ["ADDED", "BOOKMARK"], query
        annotations = events[1]["object"]["metadata"]["annotations"]
        assert annotations == {"k8s.io/initial-events-end": "true"}
    informer = "allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&timeoutSeconds=60"
    events = await s.watch(informer, 2)
    assert [e["type"] for e in events] == ["ADDED", "BOOKMARK"]
    assert int(events[1]["object"]["metadata"]["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])
    waiting = asyncio.create_task(s.watch(f"{informer}&resourceVersion={s.server.cache.revision + 1}", 3))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await s.ask("POST", s.path("configmaps"), config_map("b", s.name), 201)
    assert [e["type"] for e in await waiting] == ["ADDED", "ADDED", "BOOKMARK"]


@story("WATCH-8: bookmarks hold the kind and a revision, and come only to who asked for them")
async def _(s: Space) -> None:
    revision = s.server.cache.revision
    events = await s.watch(
        f"resourceVersion={revision}&allowWatchBookmarks=true&timeoutSeconds=3", 1, plural="services"
    )
    obj = events[0]["object"]
    assert events[0]["type"] == "BOOKMARK" and (obj["kind"], obj["apiVersion"]) == ("Service", "v1")
    assert int(obj["metadata"]["resourceVersion"]) >= revision and "name" not in obj["metadata"]
    assert not any(obj.get(part) for part in ("spec",))
    assert await s.watch(f"resourceVersion={revision}&timeoutSeconds=1", 1) == []


@story("WATCH-17: watches of tables and of metadata only")
async def _(s: Space) -> None:
    made = await s.ask("POST", s.path("configmaps"), config_map("a", s.name), 201)
    since = int(made["metadata"]["resourceVersion"])
    await s.ask("PATCH", s.path("configmaps", "a"), {"data": {"k": "w"}}, Content_Type=MERGE)
    await s.ask("DELETE", s.path("configmaps", "a"))
    tables = await s.watch(f"resourceVersion={since}&timeoutSeconds=60", 2, TABLE)
    assert [e["type"] for e in tables] == ["MODIFIED", "DELETED"]
    assert all(e["object"]["kind"] == "Table" and len(e["object"]["rows"]) == 1 for e in tables)
    bare = await s.watch(f"resourceVersion={since}&timeoutSeconds=60", 2, METADATA)
    assert [e["type"] for e in bare] == ["MODIFIED", "DELETED"]
    assert all(e["object"]["kind"] == "PartialObjectMetadata" and "data" not in e["object"] for e in bare)


COLUMNS = (
    ("/api/v1/services", "Name Type Cluster-IP External-IP Port(s) Age | Selector"),
    ("/api/v1/endpoints", "Name Endpoints Age"),
    ("/apis/discovery.k8s.io/v1/endpointslices", "Name AddressType Ports Endpoints Age"),
    ("/apis/networking.k8s.io/v1/ipaddresses", "Name ParentRef"),
    ("/apis/networking.k8s.io/v1/servicecidrs", "Name CIDRs Age"),
)


@story("TABLE-5: columns, those after the bar for wide tables only")
async def _(s: Space) -> None:
    for path, wanted in COLUMNS:
        found = (await s.ask("GET", path, Accept=TABLE))["columnDefinitions"]
        narrow, _, wide = wanted.partition(" | ")
        assert [c["name"] for c in found if c["priority"] == 0] == narrow.split(), path
        assert [c["name"] for c in found if c["priority"]] == wide.split(), path


# ---------------------------------------------------------------- deletion and discovery


@story("DEL-9, DEL-10: what a selector names goes, each under its own rules; what is absent is 404")
async def _(s: Space) -> None:
    for name, labels in (("a", {"x": "1"}), ("b", {"x": "1"}), ("c", {})):
        body = config_map(name, s.name, labels=labels, finalizers=["x/y"] if name == "b" else [])
        await s.ask("POST", s.path("configmaps"), body, 201)
    gone = await s.ask("DELETE", s.path("configmaps") + "?labelSelector=x%3D1&limit=5")
    assert gone["kind"] == "ConfigMapList" and [i["metadata"]["name"] for i in gone["items"]] == ["a", "b"]
    left = await s.ask("GET", s.path("configmaps"))
    assert [i["metadata"]["name"] for i in left["items"] if i["metadata"]["name"] in "abc"] == ["b", "c"]
    assert left["items"][[i["metadata"]["name"] for i in left["items"]].index("b")]["metadata"]["deletionTimestamp"]
    await s.ask("DELETE", s.path("configmaps", "a"), status=404)
    await s.ask("DELETE", "/api/v1/namespaces", status=405)
    await s.ask("PATCH", s.path("configmaps", "b"), {"metadata": {"finalizers": None}}, Content_Type=MERGE)


@story("DISC-5: the groups that are needed")
async def _(s: Space) -> None:
    found = {v["groupVersion"] for g in (await s.ask("GET", "/apis"))["groups"] for v in g["versions"]}
    wanted = (
        "apps discovery.k8s.io networking.k8s.io autoscaling authentication.k8s.io authorization.k8s.io "
        "coordination.k8s.io events.k8s.io rbac.authorization.k8s.io policy"
    )
    assert {f"{group}/v1" for group in wanted.split()} <= found
    assert (await s.ask("GET", "/api"))["versions"] == ["v1"]
    assert [v for v in found if v.startswith("discovery.k8s.io/")] == ["discovery.k8s.io/v1"]
    networking = (await s.ask("GET", "/apis/networking.k8s.io/v1"))["resources"]
    names = {"ingresses", "ingressclasses", "networkpolicies", "ipaddresses", "servicecidrs"}
    assert names <= {r["name"] for r in networking}
    autoscaling = next(g for g in (await s.ask("GET", "/apis"))["groups"] if g["name"] == "autoscaling")
    assert autoscaling["preferredVersion"] == {"groupVersion": "autoscaling/v2", "version": "v2"}


# ---------------------------------------------------------------- Services


@story("SVC-13, SVC-26, SVC-29, SVCX-1: what a new Service shows of itself")
async def _(s: Space) -> None:
    made = await s.service("a")
    spec = made["spec"]
    assert spec["clusterIPs"] == [spec["clusterIP"]] and spec["ipFamilies"] == ["IPv4"]
    assert spec["ipFamilyPolicy"] == "SingleStack" and made["status"] == {"loadBalancer": {}}
    assert not spec.get("publishNotReadyAddresses") and "generation" not in made["metadata"]
    made["spec"]["publishNotReadyAddresses"] = True
    changed = await s.put("services", made)
    assert changed["spec"]["publishNotReadyAddresses"] is True and "generation" not in changed["metadata"]
    assert "observedGeneration" not in changed["status"]


@story("FAM-3, NP-6: who leaves out addresses and node ports keeps them, ports by their name")
async def _(s: Space) -> None:
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    made = await s.service("a", type="NodePort", ports=ports)
    first, second = (p["nodePort"] for p in made["spec"]["ports"])

    async def put(*wanted: tuple[str, int, int]) -> list[int]:
        listed = [{"name": n, "port": p, **({"nodePort": node} if node else {})} for n, p, node in wanted]
        body: Any = {"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": listed}}
        live = await s.ask("GET", s.path("services", "a"))
        body["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
        changed = await s.put("services", body)
        assert changed["spec"]["clusterIP"] == made["spec"]["clusterIP"]
        return [p["nodePort"] for p in changed["spec"]["ports"]]

    assert await put(("a", 80, 0), ("b", 81, 0)) == [first, second]
    assert await put(("b", 81, 0), ("a", 80, 0)) == [second, first]  # by name, not by place
    assert await put(("a", 8080, 0), ("b", 81, 0)) == [first, second]
    assert await put(("a", 80, second), ("b", 81, first)) == [second, first]  # two may swap
    renamed = await put(("a", 80, 0), ("c", 81, 0))
    assert renamed[0] == second and renamed[1] not in (first, second)
    assert await put(("a", 80, 0), ("d", 81, second)) != [second, second]  # its number was asked for by another
    unnamed = await s.service("u", type="NodePort")
    unnamed["spec"]["ports"][0].pop("nodePort")
    number = (await s.ask("GET", s.path("services", "u")))["spec"]["ports"][0]["nodePort"]
    assert (await s.put("services", unnamed))["spec"]["ports"][0]["nodePort"] == number


@story("FAM-6, FAM-15: families follow addresses and policy; headless ones take none")
async def _(s: Space) -> None:
    both = ["IPv4", "IPv6"]
    for name, spec, families, policy in (
        ("plain", {}, ["IPv4"], "SingleStack"),
        ("prefer", {"ipFamilyPolicy": "PreferDualStack"}, both, "PreferDualStack"),
        ("require", {"ipFamilyPolicy": "RequireDualStack"}, both, "RequireDualStack"),
        ("six", {"ipFamilies": ["IPv6"]}, ["IPv6"], "SingleStack"),
        ("six-first", {"ipFamilies": ["IPv6"], "ipFamilyPolicy": "PreferDualStack"}, both[::-1], "PreferDualStack"),
        ("address", {"clusterIP": "fd00:10:96::5555"}, ["IPv6"], "SingleStack"),
        ("headless", {"clusterIP": "None", "selector": {"a": "b"}}, ["IPv4"], "SingleStack"),
        ("headless-both", {"clusterIP": "None", "selector": {"a": "b"}, "ipFamilyPolicy": "PreferDualStack"}, both,
         "PreferDualStack"),
    ):  # fmt: skip
        made = (await s.service(name, **spec))["spec"]
        assert (made["ipFamilies"], made["ipFamilyPolicy"]) == (families, policy), name
        if spec.get("clusterIP") == "None":
            assert made["clusterIPs"] == ["None"]
        else:
            assert [":" in a for a in made["clusterIPs"]] == [f == "IPv6" for f in families], name
    held = (await s.ask("GET", "/apis/networking.k8s.io/v1/ipaddresses"))["items"]
    mine = [i["spec"]["parentRef"]["name"] for i in held if i["spec"]["parentRef"].get("namespace") == s.name]
    assert sorted(mine) == [
        "address",
        "plain",
        "prefer",
        "prefer",
        "require",
        "require",
        "six",
        "six-first",
        "six-first",
    ]


@story("TYPE-1, TYPE-2: to ExternalName and back")
async def _(s: Space) -> None:
    made = await s.service("a", type="LoadBalancer", externalTrafficPolicy="Local", selector={"a": "b"})
    address, spec = made["spec"]["clusterIP"], made["spec"]
    assert spec["healthCheckNodePort"] and spec["ports"][0]["nodePort"]
    made["spec"].update(type="ExternalName", externalName="example.com")
    outside = (await s.put("services", made))["spec"]
    gone = {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy", "externalTrafficPolicy",
            "healthCheckNodePort"}  # fmt: skip
    assert not gone & set(outside), outside
    assert outside["ports"] == [{"port": 80, "targetPort": 80, "protocol": "TCP"}] and outside["selector"] == {"a": "b"}
    await s.ask("GET", f"/apis/networking.k8s.io/v1/ipaddresses/{address}", status=404)
    live = await s.ask("GET", s.path("services", "a"))
    live["spec"].update(type="ClusterIP")
    back = (await s.put("services", live))["spec"]
    assert back["clusterIPs"] == [back["clusterIP"]] and back["ipFamilies"] == ["IPv4"]
    assert back["internalTrafficPolicy"] == "Cluster" and back["externalName"] == "example.com"
    bare = {"metadata": {"name": "b"}, "spec": {"type": "ExternalName"}}
    answer = await s.ask("POST", s.path("services"), bare, 422)
    assert "spec.externalName" in answer["message"]


@story("NP-11: a dry run takes no port and no address")
async def _(s: Space) -> None:
    before = dict(await s.ask("GET", "/apis/networking.k8s.io/v1/ipaddresses"))["items"]
    body = {"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 31999}]}}
    for _ in range(2):
        made = await s.ask("POST", s.path("services") + "?dryRun=All", body, 201)
        assert made["spec"]["clusterIP"] and made["spec"]["ports"][0]["nodePort"] == 31999
    await s.ask("GET", s.path("services", "a"), status=404)
    assert dict(await s.ask("GET", "/apis/networking.k8s.io/v1/ipaddresses"))["items"] == before
    await s.ask("POST", s.path("services"), body, 201)
    await s.ask("POST", s.path("services"), {**body, "metadata": {"name": "b"}}, 422)


@story("CIDR-4: the default range, made at the start and ready")
async def _(s: Space) -> None:
    found = await s.ask("GET", "/apis/networking.k8s.io/v1/servicecidrs/kubernetes")
    assert found["spec"]["cidrs"] == list(DUAL.service_ranges)
    (condition,) = found["status"]["conditions"]
    told = {k: condition[k] for k in ("type", "status", "reason", "message")}
    message = "Kubernetes default Service CIDR is ready"
    assert told == {"type": "Ready", "status": "True", "reason": "", "message": message}


@story("SVCX-7: the API server leaves a Service's slices to garbage collection")
async def _(s: Space) -> None:
    made = await s.service("a")
    owner = {"apiVersion": "v1", "kind": "Service", "name": "a", "uid": made["metadata"]["uid"], "controller": True}
    group = "discovery.k8s.io/v1"
    body = {"metadata": {"name": "a-x", "ownerReferences": [owner]}, "addressType": "IPv4", "endpoints": []}
    await s.ask("POST", s.path("endpointslices", group=group), body, 201)
    await s.ask("DELETE", s.path("services", "a"))
    await s.ask("GET", s.path("endpointslices", "a-x", group))


# ---------------------------------------------------------------- Endpoints, slices, pods


@story("EPAPI-1, EPAPI-8, EPAPI-9: PUT makes Endpoints, a strategic patch replaces all subsets, each answer warns")
async def _(s: Space) -> None:
    def subset(address: str) -> dict[str, Any]:
        return {"addresses": [{"ip": address}], "ports": [{"port": 80}]}

    warning = '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"'
    path = s.path("endpoints", "a.b")
    body = {"metadata": {"name": "a.b"}, "subsets": [subset("10.1.1.1")]}
    status, headers, made = await s.http.request("PUT", path, body)
    assert status == 201 and headers["Warning"] == warning
    assert "generation" not in made["metadata"] and "status" not in made
    status, headers, made = await s.http.request(
        "PATCH", path, {"subsets": [subset("10.1.1.2")]}, Content_Type=STRATEGIC
    )
    assert status == 200 and headers["Warning"] == warning
    assert [x["ip"] for part in made["subsets"] for x in part["addresses"]] == ["10.1.1.2"]
    for method, where in (("GET", path), ("GET", s.path("endpoints")), ("DELETE", path)):
        assert (await s.http.request(method, where))[1]["Warning"] == warning
    many = [{"ip": f"10.1.{i // 250}.{i % 250 + 1}"} for i in range(1500)]
    await s.make("endpoints", "large", subsets=[{"addresses": many, "ports": [{"port": 80}]}])
    await s.ask("POST", s.path("endpoints"), {"metadata": {"name": "Not_A_Name"}}, 422)


@story("SLAPI-1, SLAPI-11: PUT makes no slice; labels are a convention; the generation grows with the endpoints")
async def _(s: Space) -> None:
    group = "discovery.k8s.io/v1"
    body: dict[str, Any] = {"metadata": {"name": "a.b"}, "addressType": "IPv4", "endpoints": []}
    await s.ask("PUT", s.path("endpointslices", "a.b", group), body, 404)
    made = await s.ask("POST", s.path("endpointslices", group=group), body, 201)
    assert made["metadata"]["generation"] == 1 and "labels" not in made["metadata"]
    made["metadata"]["labels"] = {"endpointslice.kubernetes.io/managed-by": "me"}
    made = await s.put("endpointslices", made, group=group)
    made["endpoints"] = [{"addresses": ["10.1.1.1"]}]
    before = made["metadata"]["generation"]
    made = await s.put("endpointslices", made, group=group)
    assert made["metadata"]["generation"] == before + 1
    await s.ask("POST", s.path("endpointslices", group=group), {**body, "metadata": {"name": "A"}}, 422)


@story("POD-3: hostname and subdomain are DNS labels, the override has at most 64 characters")
async def _(s: Space) -> None:
    containers = [{"name": "c", "image": "i"}]
    for field in ("hostname", "subdomain"):
        for value, status in (("a-b", 201), ("a.b", 422), ("A", 422), ("x" * 63, 201), ("x" * 64, 422)):
            name = f"{field}-{len(value)}-{status}" + ("-dot" if "." in value else "")
            await s.make("pods", name, status, spec={"containers": containers, field: value})
    for length, status in ((64, 201), (65, 422)):
        await s.make("pods", f"o{length}", status, spec={"containers": containers, "hostnameOverride": "x" * length})


@story("SUB-4: a pod's resources are resized, and debug containers added, within their rules; the generation tells")
async def _(s: Space) -> None:
    await s.ask("POST", "/api/v1/nodes", {"metadata": {"name": "n"}}, 201)
    resources = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}}
    first = {"name": "a", "image": "i", "resources": resources}
    await s.make("pods", "p", spec={"nodeName": "n", "containers": [first, {"name": "b", "image": "i"}]})

    async def resize(container: dict[str, Any], status: int = 200) -> Any:
        path = s.path("pods", "p") + "/resize"
        return await s.ask("PATCH", path, {"spec": {"containers": [container]}}, status, Content_Type=STRATEGIC)

    done = await resize({"name": "a", "image": "other", "resources": {"requests": {"cpu": "1500m"}}})
    assert done["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1500m", "memory": "1Gi"}
    assert done["spec"]["containers"][0]["image"] == "i" and done["metadata"]["generation"] == 2
    for container, says in (
        ({"name": "a", "resources": {"requests": {"cpu": "3"}}}, "must be less than or equal to cpu limit of 2"),
        ({"name": "a", "resources": {"requests": {"memory": None}}}, "resource requests cannot be removed"),
        ({"name": "a", "resources": {"requests": {"ephemeral-storage": "1Gi"}}}, "only cpu and memory resources are"),
        ({"name": "a", "resources": {"requests": {"cpu": "-1"}}}, "must be greater than or equal to 0"),
    ):
        assert says in (await resize(container, 422))["message"], container
    await s.make("pods", "best", spec={"nodeName": "n", "containers": [{"name": "a", "image": "i"}]})
    patch: Any = {"spec": {"containers": [first]}}
    answer = await s.ask("PATCH", s.path("pods", "best") + "/resize", patch, 422, Content_Type=STRATEGIC)
    assert "Pod QOS Class may not change as a result of resizing" in answer["message"]

    async def debug(container: dict[str, Any], status: int = 200) -> Any:
        path = s.path("pods", "p") + "/ephemeralcontainers"
        return await s.ask(
            "PATCH", path, {"spec": {"ephemeralContainers": [container]}}, status, Content_Type=STRATEGIC
        )

    done = await debug({"name": "d", "image": "i", "targetContainerName": "a"})
    assert done["spec"]["ephemeralContainers"][0]["terminationMessagePolicy"] == "File"
    assert done["metadata"]["generation"] == 3
    more: Any
    for more, says in (
        ({"name": "a", "image": "i"}, 'Duplicate value: "a"'),
        ({"name": "e"}, "image: Required value"),
        ({"name": "e", "image": "i", "ports": [{"containerPort": 1}]}, "cannot be set for an Ephemeral Container"),
        ({"name": "e", "image": "i", "targetContainerName": "x"}, 'targetContainerName: Not found: "x"'),
        ({"name": "d", "image": "j"}, "existing ephemeral containers"),
    ):
        assert says in (await debug(more, 422))["message"], more


@story("POD-7: only a pod that is ready and has not ended is told as ready")
async def _(s: Space) -> None:
    await s.make("pods", "p", spec={"containers": [{"name": "c", "image": "i"}]})
    path = s.path("pods", "p")
    for phase, ready, column, status in (
        ("Running", "True", "1/1", "Running"), ("Running", "False", "0/1", "Running"),
        ("Succeeded", "False", "0/1", "Succeeded"), ("Failed", "False", "0/1", "Failed"),
    ):  # fmt: skip
        condition = {"type": "Ready", "status": ready}
        state = {"running": {}} if phase == "Running" else {"terminated": {"exitCode": 0}}
        one = {"name": "c", "ready": ready == "True", "restartCount": 0, "image": "i", "imageID": "i", "state": state}
        patch = {"status": {"phase": phase, "conditions": [condition], "containerStatuses": [one]}}
        await s.ask("PATCH", path + "/status", patch, Content_Type=MERGE)
        row = (await s.ask("GET", path, Accept=TABLE))["rows"][0]["cells"]
        assert row[1] == column, (phase, ready, row)
        listed = await s.ask("GET", s.path("pods") + f"?fieldSelector=status.phase%3D{status}")
        assert len(listed["items"]) == 1


# ---------------------------------------------------------------- clients


@story("CLIENT-3, CLIENT-5, CLIENT-8: what kubectl and the Python client send to write")
async def _(s: Space) -> None:
    query = "fieldManager=kubectl-client-side-apply&fieldValidation=Strict"
    annotation = "kubectl.kubernetes.io/last-applied-configuration"
    body = {"metadata": {"name": "a", "annotations": {annotation: "{}"}}, "spec": {"ports": [{"port": 80}]}}
    made = await s.ask("POST", f"{s.path('services')}?{query}", body, 201)
    assert made["metadata"]["managedFields"][0]["manager"] == "kubectl-client-side-apply"
    one = s.path("services", "a")
    patch = {
        "spec": {"$setElementOrder/ports": [{"port": 81}], "ports": [{"port": 81}, {"$patch": "delete", "port": 80}]}
    }
    patched = await s.ask("PATCH", f"{one}?{query}", patch, Content_Type=STRATEGIC)
    assert [p["port"] for p in patched["spec"]["ports"]] == [81]
    await s.ask("PATCH", f"{one}?fieldManager=kubectl-label", {"metadata": {"labels": {"x": "y"}}}, Content_Type=MERGE)
    applied = b"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 81, protocol: TCP}]}\n"
    path = f"{one}?fieldManager=kubectl&force=false&fieldValidation=Strict"
    await s.ask("PATCH", path, applied, Content_Type="application/apply-patch+yaml")
    steps = [{"op": "test", "path": "/metadata/labels/x", "value": "y"}, {"op": "remove", "path": "/metadata/labels/x"}]
    left = await s.ask("PATCH", one, steps, Content_Type="application/json-patch+json")
    assert "labels" not in left["metadata"]


@story("CLIENT-4: a deletion is followed by uid until it is told")
async def _(s: Space) -> None:
    made = await s.ask("POST", s.path("configmaps"), config_map("a", s.name), 201)
    since = made["metadata"]["resourceVersion"]
    body = {"propagationPolicy": "Background"}
    gone = await s.ask("DELETE", s.path("configmaps", "a"), body)
    assert gone["details"]["uid"] == made["metadata"]["uid"]
    await s.ask("GET", s.path("configmaps", "a"), status=404)
    events = await s.watch(f"fieldSelector=metadata.name%3Da&resourceVersion={since}&timeoutSeconds=60", 1)
    assert events[0]["type"] == "DELETED" and events[0]["object"]["metadata"]["uid"] == made["metadata"]["uid"]


@story("CLIENT-6: what describe asks about a Service")
async def _(s: Space) -> None:
    made = await s.service("a")
    group = "discovery.k8s.io/v1"
    for name, of in (("a-1", "a"), ("b-1", "b")):
        labels = {"kubernetes.io/service-name": of}
        body = {"metadata": {"name": name, "labels": labels}, "addressType": "IPv4", "endpoints": []}
        await s.ask("POST", s.path("endpointslices", group=group), body, 201)
        about = {"kind": "Service", "namespace": s.name, "name": of, "uid": made["metadata"]["uid"]}
        await s.make("events", f"e{name}", involvedObject=about, reason="X", message="m")
    path = s.path("endpointslices", group=group) + "?labelSelector=kubernetes.io%2Fservice-name%3Da&limit=500"
    assert [i["metadata"]["name"] for i in (await s.ask("GET", path))["items"]] == ["a-1"]
    wanted = {"name": "a", "namespace": s.name, "kind": "Service", "uid": made["metadata"]["uid"]}
    selector = "%2C".join(f"involvedObject.{k}%3D{v}" for k, v in wanted.items())
    found = (await s.ask("GET", f"{s.path('events')}?fieldSelector={selector}"))["items"]
    assert [i["metadata"]["name"] for i in found] == ["ea-1"]


@story("CLIENT-1, CLIENT-2, CLIENT-7: what clients accept, and the answer in the first form that can be had")
async def _(s: Space) -> None:
    aggregated = (
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
    )
    for path in ("/api", "/apis"):
        _, headers, answer = await s.http.request("GET", path, Accept=aggregated)
        assert answer["kind"] == "APIGroupDiscoveryList" and headers["ETag"]
        again = await s.http.request("GET", path, Accept=aggregated, If_None_Match=headers["ETag"])
        assert again[0] == 304
    protobuf = "application/vnd.kubernetes.protobuf,application/json"
    _, headers, _ = await s.http.request("GET", s.path("services"), Accept=protobuf)
    assert headers["Content-Type"] == "application/json"
    tables = f"{TABLE},application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
    for name in "abc":
        await s.service(name)
    page = await s.ask("GET", s.path("services") + "?limit=2", Accept=tables)
    assert page["kind"] == "Table" and len(page["rows"]) == 2
    path = f"{s.path('services')}?limit=2&continue={page['metadata']['continue']}"
    assert len((await s.ask("GET", path, Accept=tables))["rows"]) == 1


@story("CLIENT-9: what kopf asks before it works")
async def _(s: Space) -> None:
    for path in ("/api", "/apis", "/api/v1", "/apis/apps/v1", "/api/v1/namespaces"):
        await s.ask("GET", path)
    made = await s.ask("POST", s.path("configmaps"), config_map("a", s.name), 201)
    patch = {"metadata": {"finalizers": ["kopf.zalando.org/KopfFinalizerMarker"], "annotations": {"kopf.dev/x": "{}"}}}
    await s.ask("PATCH", s.path("configmaps", "a"), patch, Content_Type=MERGE)
    await s.ask("PATCH", s.path("configmaps", "a") + "/status", {"status": {}}, 404, Content_Type=MERGE)
    about = {"kind": "ConfigMap", "namespace": s.name, "name": "a", "uid": made["metadata"]["uid"]}
    body = {
        "metadata": {"generateName": "kopf-event-"},
        "involvedObject": about,
        "type": "Normal",
        "reason": "Logging",
        "message": "m",
        "source": {"component": "kopf"},
        "firstTimestamp": "2026-01-01T00:00:00.000000Z",
    }
    await s.ask("POST", s.path("events"), body, 201)
    await s.ask("PATCH", s.path("configmaps", "a"), {"metadata": {"finalizers": []}}, Content_Type=MERGE)


# ---------------------------------------------------------------- running them


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[asyncio.Runner, ApiServer, Http]]:
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as directory:
        context = running(DUAL)
        server = runner.run(context.__aenter__())
        path = str(Path(directory) / "api.sock")

        async def connect() -> aiohttp.ClientSession:
            await server.listen_unix(path)
            return aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=path))

        session = runner.run(connect())
        yield runner, server, Http(session)
        runner.run(session.close())
        runner.run(context.__aexit__(None, None, None))


@pytest.mark.parametrize("sentence", STORIES)
def test_rule(sentence: str, served: tuple[asyncio.Runner, ApiServer, Http]) -> None:
    runner, server, http = served

    async def tell() -> None:
        name = f"story-{list(STORIES).index(sentence)}"
        await http.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        await STORIES[sentence](Space(server, http, name))

    runner.run(tell())


# ---------------------------------------------------------------- accounts of namespaces and pods


async def eventually(check: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(60):
        while not (found := await check()):
            await asyncio.sleep(0.02)
        return found


def test_each_namespace_has_its_account_and_certificate() -> None:
    """AUTH-8: soon after it is made, and again when they are deleted or edited."""

    async def run(s: ApiServer) -> None:
        client, settings = s.client, ControllerSettings(root_ca="the certificate")
        names = ("serviceaccount", "root-ca-certificate-publisher")
        working = asyncio.create_task(
            run_controllers(client, names, clock=RealClock(), random=random.Random(1), settings=settings)
        )

        async def find(kind: Kind, name: str) -> Any:
            try:
                return await client.get(kind, name, "shop")
            except NotFound:
                return None

        async def certificate() -> bool:
            found = await find(CONFIG_MAP, "kube-root-ca.crt")
            return bool(found) and found["data"] == {"ca.crt": "the certificate"}

        try:
            await client.create(NAMESPACE, {"metadata": {"name": "shop"}})
            account = await eventually(lambda: find(SERVICE_ACCOUNT, "default"))
            await eventually(certificate)
            published = await find(CONFIG_MAP, "kube-root-ca.crt")
            assert "CA bundle" in published["metadata"]["annotations"]["kubernetes.io/description"]
            await client.delete(SERVICE_ACCOUNT, "default", "shop")
            again = await eventually(lambda: find(SERVICE_ACCOUNT, "default"))
            assert again["metadata"]["uid"] != account["metadata"]["uid"]
            await client.patch(CONFIG_MAP, "kube-root-ca.crt", "shop", {"data": {"x": "y"}}, type="merge")
            await eventually(certificate)
            await client.delete(CONFIG_MAP, "kube-root-ca.crt", "shop")
            await eventually(certificate)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    with_server(run)


def test_pods_get_an_account_and_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """AUTH-9: unless it does not exist, or nobody wants it."""
    monkeypatch.setattr(serviceaccounts, "PATIENCE_SECONDS", (0.03, 0.03))

    async def run(s: ApiServer) -> None:
        client = s.client
        with pytest.raises(
            Forbidden, match='error looking up service account default/default: serviceaccount "default"'
        ):
            await client.create(POD, pod("p"), "default")
        monkeypatch.setattr(serviceaccounts, "PATIENCE_SECONDS", (600, 600))
        early = asyncio.create_task(client.create(POD, pod("early"), "default"))
        await asyncio.sleep(0.05)  # a namespace was made, and its account comes a moment later
        with pytest.raises(Forbidden, match='serviceaccount "robot" not found'):
            await client.create(POD, pod("q", serviceAccountName="robot"), "default")
        assert not early.done()
        await client.create(SERVICE_ACCOUNT, {"metadata": {"name": "default"}}, "default")
        assert (await early)["spec"]["serviceAccountName"] == "default"
        both: Any = {
            "containers": [{"name": n, "image": "i"} for n in "ab"],
            "initContainers": [{"name": "i", "image": "i"}],
        }
        spec = (await client.create(POD, pod("p", **both), "default"))["spec"]
        assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
        (volume,) = spec["volumes"]
        name = volume["name"]
        assert name.startswith("kube-api-access-") and len(name) == len("kube-api-access-") + 5
        mount = {"name": name, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
        assert all(c["volumeMounts"] == [mount] for c in (*spec["containers"], *spec["initContainers"]))
        token, certificate, namespace = volume["projected"]["sources"]
        assert token == {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
        assert certificate["configMap"]["name"] == "kube-root-ca.crt"
        assert namespace["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"] == "metadata.namespace"
        assert volume["projected"]["defaultMode"] == 420
        spec = (await client.create(POD, pod("q", automountServiceAccountToken=False), "default"))["spec"]
        assert "volumes" not in spec
        quiet = {"metadata": {"name": "quiet"}, "automountServiceAccountToken": False}
        await client.create(SERVICE_ACCOUNT, quiet, "default")
        spec = (await client.create(POD, pod("r", serviceAccountName="quiet"), "default"))["spec"]
        assert "volumes" not in spec and spec["serviceAccount"] == "quiet"

    with_server(run, replace(SETTINGS, disabled_admission=frozenset()))
