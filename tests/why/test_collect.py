"""Reading a running cluster: a real API server in this process, and one that refuses some of its kinds."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.errors import Forbidden, NotFound
from kubesvc.api.event import EVENT
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import by_kind
from kubesvc.api.meta import Object
from kubesvc.api.node import NODE
from kubesvc.api.pod import POD
from kubesvc.api.service import SERVICE
from kubesvc.client import Client, RawList
from kubesvc.clock import RealClock
from kubesvc.why.answer import diagnose, diagnose_all
from kubesvc.why.collect import PAGE, read_for
from kubesvc.why.diagnosis import Diagnosis
from kubesvc.why.render import exit_status, render_all
from kubesvc.why.snapshot import Snapshot
from kubesvc.why.subject import parse_subject
from tests.apiserver.running import running

SHOP = "shop"


class Refusing:
    """A client that may not list some kinds, and remembers what was listed: (kind, namespace, selectors, items).

    absent: kinds that the server does not have, as one that is too old
    """

    def __init__(self, client: Client, refused: Sequence[Kind] = (), absent: Sequence[Kind] = ()) -> None:
        self.client = client
        self.refused = refused
        self.absent = absent
        self.asked: list[tuple[Kind, str, str, int]] = []

    async def list_raw(self, kind: Kind, namespace: str = "", **options: Any) -> RawList:
        if kind in self.refused:
            raise Forbidden(f"{kind.plural} is forbidden")
        if kind in self.absent:
            raise NotFound("the server could not find the requested resource")
        found = await self.client.list_raw(kind, namespace, **options)
        selectors = f"{options.get('label_selector', '')}{options.get('field_selector', '')}"
        self.asked.append((kind, namespace, selectors, len(found.items)))
        return found


def service(selector: dict[str, str], namespace: str = SHOP) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": selector, "ports": [{"port": 80}]},
    }


def pod(name: str, labels: dict[str, str], namespace: str = SHOP) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }


def asking(
    objects: Sequence[Object],
    words: str,
    refused: Sequence[Kind] = (),
    absent: Sequence[Kind] = (),
    client: type[Refusing] = Refusing,
) -> tuple[Snapshot, Diagnosis, list[tuple[Kind, str, str, int]]]:
    """Put the objects into a server, ask, and say what was listed."""

    async def main() -> tuple[Snapshot, Diagnosis, list[tuple[Kind, str, str, int]]]:
        async with running() as server:
            for name in (SHOP, "prod"):
                meta = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                kind = by_kind("v1", "Namespace")
                assert kind is not None
                await server.client.create(kind, meta)
            for obj in objects:
                kind = by_kind(obj["apiVersion"], obj["kind"])
                assert kind is not None
                await server.client.create(kind, copy.deepcopy(obj), obj["metadata"]["namespace"])
            asker = client(server.client, refused, absent)
            subject = parse_subject(words.split())
            snapshot = await read_for(cast(Client, asker), RealClock(), subject, SHOP)
            return snapshot, diagnose(subject, snapshot, SHOP), asker.asked

    return asyncio.run(main())


def ported(name: str, namespace: str, node: str = "") -> Object:
    """A Pod with a host port, on a node or waiting for one."""
    made = pod(name, {"app": name.partition("-")[0]}, namespace)
    made["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 8000}]
    return {**made, "spec": {**made["spec"], **({"nodeName": node} if node else {})}}


@pytest.mark.parametrize("words", ["svc/web", "pod/web-1"])
def test_pods_with_host_ports_are_read_where_one_finds_its_own_nowhere_free(words: str) -> None:
    waiting = {
        "apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": "FailedScheduling",
        "metadata": {"name": "e", "namespace": SHOP},
        "involvedObject": {"kind": "Pod", "namespace": SHOP, "name": "web-1"},
        "message": "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
    }  # fmt: skip
    objects = [service({"app": "web"}), ported("web-1", SHOP), waiting]
    others = [ported("gate-1", "prod", "n1"), pod("plain", {}, "prod"), ported("idle", "prod")]
    snapshot, found, asked = asking([*objects, *others], words)
    assert found.code == "EP315" and "8000/TCP of node n1 is held by pod/gate-1 in namespace prod" in found.verdict
    assert [p.name for p in snapshot.neighbours] == ["gate-1"]
    assert (POD, "", "spec.nodeName!=", 1) in asked
    _, _, asked = asking([service({"app": "web"}), ported("web-1", SHOP, "n1"), *others], words)
    assert not [a for a in asked if a[0] is POD and a[1] == ""]


def test_a_typo_is_found_and_other_namespaces_are_asked_by_selector_only() -> None:
    objects = [service({"app": "wbe"}), *(pod(f"web-{i}", {"app": "web"}) for i in range(3)), pod("x", {}, "prod")]
    _, found, asked = asking(objects, "svc/web")
    assert found.verdict.endswith("no Pod has the label app=wbe; 3 Pods have app=web: did you mean app=web?")
    everywhere = [a for a in asked if a[0] is POD and a[1] == ""]
    assert everywhere == [(POD, "", "app=wbe", 0)]


def test_pods_of_another_namespace_are_found() -> None:
    _, found, _ = asking([service({"app": "web"}), pod("web-1", {"app": "web"}, "prod")], "svc/web")
    assert found.code == "EP103"


@pytest.mark.parametrize(("namespace", "code"), [("prod", "EP705"), ("nowhere", "EP705"), ("other", "")])
def test_an_alias_is_followed_into_another_namespace(namespace: str, code: str) -> None:
    """Whether the Service that it names is there is read, not guessed; of what may not be read nothing is claimed."""

    class OwnOnly(Refusing):
        async def list_raw(self, kind: Kind, namespace: str = "", **options: Any) -> RawList:
            if namespace == "other":
                raise Forbidden(f"{kind.plural} is forbidden")
            return await super().list_raw(kind, namespace, **options)

    alias = service({})
    alias["spec"] = {"type": "ExternalName", "externalName": f"db.{namespace}.svc.cluster.local"}
    _, found, _ = asking([alias], "svc/web", client=OwnOnly)
    assert found.code == code and found.status == ("broken" if code else "healthy")


def test_a_service_whose_pods_are_found_reads_no_others() -> None:
    objects = [service({"app": "web"}), pod("web-1", {"app": "web"}), *(pod(f"o{i}", {"app": "o"}) for i in range(20))]
    snapshot, found, asked = asking(objects, "svc/web")
    assert [p.name for p in snapshot.pods.values()] == ["web-1"]
    assert found.code == "EP309"
    assert sum(n for kind, _, _, n in asked if kind is POD) == 1


REFUSALS: tuple[tuple[Sequence[Kind], str, str], ...] = (
    # what may not be listed, the status, what the verdict says
    ((NODE,), "broken", "did you mean app=web?"),
    ((EVENT,), "broken", "did you mean app=web?"),
    ((ENDPOINT_SLICE,), "broken", "did you mean app=web?"),
    ((POD,), "unknown", "cannot tell: pods could not be read"),
    ((POD, ENDPOINT_SLICE), "unknown", "could not be read"),
)


@pytest.mark.parametrize(
    ("refused", "status", "said"), REFUSALS, ids=[" ".join(k.plural for k in r[0]) for r in REFUSALS]
)
def test_a_refusal_is_a_gap_and_the_rest_is_diagnosed(refused: Sequence[Kind], status: str, said: str) -> None:
    snapshot, found, _ = asking([service({"app": "wbe"}), pod("web-1", {"app": "web"})], "svc/web", refused)
    assert (found.status, said in found.verdict) == (status, True), found.verdict
    assert [g.kind for g in snapshot.gaps] == sorted(refused, key=lambda k: [ENDPOINT_SLICE, POD, NODE, EVENT].index(k))
    assert all("not permitted" in gap for gap in found.gaps)


def test_a_server_that_is_too_old_is_a_named_gap() -> None:
    """Without EndpointSlices (before 1.21) the selector is diagnosed all the same, and nothing is said of slices."""
    objects = [service({"app": "wbe"}), pod("web-1", {"app": "web"})]
    snapshot, found, _ = asking(objects, "svc/web", absent=[ENDPOINT_SLICE])
    assert found.code == "EP101" and found.status == "broken"
    assert [str(g) for g in snapshot.gaps] == [
        "endpointslices.discovery.k8s.io could not be listed: this server does not have it"
    ]
    links = {link.name: link.state for link in found.chain}
    assert links["slices"] == "unknown"


def test_a_pod_that_only_a_slice_names_is_asked_for_by_name() -> None:
    """EP511: one that exists under other labels is alive, one that does not is dead."""

    def listing(name: str, of: str) -> Object:
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": SHOP, "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.9"], "targetRef": {"kind": "Pod", "namespace": SHOP, "name": of}}],
            "ports": [{"name": "", "port": 80}],
        }

    pods = [pod("web-1", {"app": "web"}), pod("other", {"app": "x"})]
    snapshot, alive, asked = asking([service({"app": "web"}), *pods, listing("a", "other")], "svc/web")
    assert "EP511" not in {f.code for f in alive.findings}
    assert (POD, SHOP, "metadata.name=other", 1) in asked and snapshot.asked == {(SHOP, "other")}
    _, dead, _ = asking([service({"app": "web"}), *pods, listing("b", "gone")], "svc/web")
    assert "EP511" in {f.code for f in dead.findings}


def test_long_lists_come_page_by_page() -> None:
    objects = [service({"app": "wbe"}), *(pod(f"web-{i:04}", {"app": "web"}) for i in range(PAGE + 1))]
    _, found, asked = asking(objects, "svc/web")
    assert f"{PAGE + 1} Pods have app=web" in found.verdict
    assert [n for kind, ns, selector, n in asked if kind is POD and ns == SHOP and not selector] == [PAGE, 1]


QUESTIONS: tuple[tuple[str, Callable[[Diagnosis], bool]], ...] = (
    ("pod/web-1", lambda d: d.code in ("EP309", "EP806")),
    ("web", lambda d: d.subject.startswith("web, which is svc/web")),
    ("svc/nosuch", lambda d: d.code == "EP801"),
    ("10.255.0.1", lambda d: d.code == "EP803"),
)


@pytest.mark.parametrize(("words", "fits"), QUESTIONS, ids=[q[0] for q in QUESTIONS])
def test_other_questions(words: str, fits: Callable[[Diagnosis], bool]) -> None:
    _, found, _ = asking([service({"app": "web"}), pod("web-1", {"app": "web"})], words)
    assert fits(found), found


def test_all_without_permission_for_services_claims_nothing() -> None:
    async def main() -> list[Diagnosis]:
        async with running() as server:
            snapshot = await read_for(cast(Client, Refusing(server.client, (SERVICE,))), RealClock(), None, "")
            return diagnose_all(snapshot)

    (found,) = asyncio.run(main())
    assert (found.code, exit_status([found])) == ("EP807", 2)
    assert "every Service: cannot tell" in render_all([found])


def test_all_of_one_namespace_reads_no_other() -> None:
    async def main() -> list[tuple[Kind, str, str, int]]:
        async with running() as server:
            client = Refusing(server.client)
            await read_for(cast(Client, client), RealClock(), None, "default")
            return client.asked

    asked = asyncio.run(main())
    assert {ns for kind, ns, _, _ in asked if kind.namespaced} == {"default", "kube-system"}
