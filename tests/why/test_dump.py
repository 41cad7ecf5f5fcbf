"""Dumps and manifests: what can be read is diagnosed, what cannot is said, skipped and counted."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubesvc.api.meta import Object
from kubesvc.why.answer import diagnose, diagnose_all
from kubesvc.why.dump import read_dump, read_manifests
from kubesvc.why.planned import plan_manifests
from kubesvc.why.snapshot import Snapshot
from kubesvc.why.subject import parse_subject

from .planted import SHOP, at, cluster, endpoint_slice, endpoints, node, pod, service, workload

TYPO = [service(selector={"app": "wbe"}), pod(), endpoint_slice("web-1", "web")]


def verdict(snapshot: Snapshot) -> str:
    return diagnose(parse_subject(["svc/web"]), snapshot, SHOP).verdict


SAID = "svc/web does not route: no Pod has the label app=wbe; 1 Pod has app=web: did you mean app=web?"


def as_list(kind: str, *items: Object) -> Object:
    """As kubectl writes lists: items without kind and apiVersion."""
    bare = [{k: v for k, v in i.items() if k not in ("kind", "apiVersion")} for i in items]
    return {"kind": f"{kind}List", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": bare}


def test_a_dump_as_kubectl_makes_it(tmp_path: Path) -> None:
    """`cluster-info dump` holds Services and Pods, but no slices: a typo is certain, health is not."""
    (tmp_path / "shop" / "web-1").mkdir(parents=True)
    (tmp_path / "nodes.json").write_text(json.dumps(as_list("Node", node())))
    (tmp_path / "shop" / "services.json").write_text(json.dumps(as_list("Service", service(selector={"app": "wbe"}))))
    (tmp_path / "shop" / "pods.json").write_text(json.dumps(as_list("Pod", pod())))
    (tmp_path / "shop" / "events.json").write_text(json.dumps(as_list("Event")))
    (tmp_path / "shop" / "web-1" / "logs.txt").write_text("==== START logs ====\n")
    snapshot = read_dump(tmp_path)
    assert verdict(snapshot) == SAID and not snapshot.skipped
    (tmp_path / "shop" / "services.json").write_text(json.dumps(as_list("Service", service())))
    found = diagnose(parse_subject(["svc/web"]), read_dump(tmp_path), SHOP)
    assert (found.status, found.verdict) == (
        "unknown",
        "svc/web should route to 1 Pod, but the dump holds no EndpointSlices",
    )
    assert next(link.text for link in found.chain if link.name == "slices") == (
        "not in the dump; should be 1 slice with 1 endpoint, 1 ready"
    )
    assert found.gaps[0].startswith(
        "daemonsets, deployments, endpoints, endpointslices, replicasets are not in the dump (kubectl cluster-info "
        "dump leaves them out); with a file beside it of what `kubectl get"
    )
    (tmp_path / "slices.json").write_text(json.dumps(as_list("Endpoints")))
    (tmp_path / "more.json").write_text(
        json.dumps({"apiVersion": "v1", "kind": "List", "items": [endpoint_slice("web-1", "web", at("10.244.1.2"))]})
    )
    found = diagnose(parse_subject(["svc/web"]), read_dump(tmp_path), SHOP)
    assert (found.status, found.verdict) == ("healthy", "svc/web routes to 1 Pod")


def test_a_dump_without_services_says_so_and_how_to_get_them(tmp_path: Path) -> None:
    """EP807 of a dump is about the dump, not about permissions."""
    (tmp_path / "pods.json").write_text(json.dumps(as_list("Pod", pod())))
    found = diagnose(parse_subject(["svc/web"]), read_dump(tmp_path), SHOP)
    assert (found.code, found.status, found.verdict) == (
        "EP807", "unknown", "svc/web: cannot tell: the dump holds no Services"
    )  # fmt: skip
    assert found.command == "kubectl get services -A -o json"


FLOW = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}],}}"


@pytest.mark.parametrize("text", [FLOW, f"{FLOW}\n---\n{FLOW.replace('web', 'web2')}"], ids=["one", "two"])
def test_yaml_that_begins_like_json_is_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(text)
    given = read_manifests([tmp_path / "web.yaml"], SHOP)
    assert len(given.services) == text.count("---") + 1 and not given.skipped
    (tmp_path / "web.yaml").write_text('{"kind": "Service", "spec": {')
    assert [s.where for s in read_manifests([tmp_path / "web.yaml"], SHOP).skipped] == ["web.yaml:1"]


def test_a_list_that_is_empty_is_in_the_dump_whatever_holds_it(tmp_path: Path) -> None:
    """A directory, an archive, and one file say the same of what they hold and what they do not."""
    lists = {"services": as_list("Service", service()), "pods": as_list("Pod"), "events": as_list("Event")}
    directory, archive, file = tmp_path / "dump", tmp_path / "dump.tar", tmp_path / "dump.txt"
    directory.mkdir()
    for name, listed in lists.items():
        (directory / f"{name}.json").write_text(json.dumps(listed))
    with tarfile.open(archive, "w") as tar:
        tar.add(directory, "dump")
    file.write_text("\n".join(json.dumps(listed, indent=1) for listed in lists.values()))
    absent = [read_dump(path).absent for path in (directory, archive, file)]
    assert absent[0] == absent[1] == absent[2]
    assert "pods" not in absent[0] and "nodes" in absent[0]


def test_a_dump_to_standard_output_with_text_between_the_objects(tmp_path: Path) -> None:
    text = "\n".join(
        [json.dumps(as_list("Service", TYPO[0]), indent=4), "==== START logs for container c ====", "{not json}",
         "==== END logs ====", json.dumps(as_list("Pod", TYPO[1]), indent=4), json.dumps(TYPO[2])]
    )  # fmt: skip
    file = tmp_path / "dump.json"
    file.write_text(text)
    snapshot = read_dump(file)
    assert verdict(snapshot) == SAID
    assert len(snapshot.skipped) == 1 and snapshot.skipped[0].where.startswith("dump.json:")


def archive(path: Path, files: dict[str, str]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as z:
            for name, text in files.items():
                z.writestr(name, text)
        return path
    with tarfile.open(path, "w:gz") as t:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            t.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize("name", ["dump.zip", "dump.tar.gz"])
def test_an_archive_is_read_in_place(tmp_path: Path, name: str) -> None:
    files = {"a/all.yaml": yaml.safe_dump_all(TYPO), "a/readme.md": "{"}
    assert verdict(read_dump(archive(tmp_path / name, files))) == SAID
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]


def test_a_torn_archive_is_said(tmp_path: Path) -> None:
    whole = archive(tmp_path / "dump.tar.gz", {"all.yaml": yaml.safe_dump_all(TYPO) * 50})
    whole.write_bytes(whole.read_bytes()[:200])
    assert "the archive is broken" in read_dump(whole).skipped[0].reason


BROKEN_PARTS = (
    # sentence, text of a document, where and why it is skipped
    ("a document that is no YAML", "a: [1, 2\nb: }", "all.yaml (document 2)", "no YAML"),
    ("a document that is no object", "- 1\n- 2", "all.yaml (document 2)", "no object but a list"),
    ("an object without kind", "metadata: {name: x}", "all.yaml (document 2)", "no kind"),
    ("a field of another type", "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: 7}}",
     "all.yaml (document 2)", "no Pod: Expected `array | null`, got `int` - at `$.spec.containers`"),
    ("an object without a name", "{apiVersion: v1, kind: Pod, metadata: {}}", "all.yaml (document 2)",
     "a Pod without a name"),
    ("an object of an unknown kind", "{apiVersion: example.com/v1, kind: Widget, metadata: {name: x}}",
     "example.com/v1/Widget", "an object of an unknown kind"),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "part", "where", "reason"), BROKEN_PARTS, ids=[b[0] for b in BROKEN_PARTS])
def test_what_is_broken_costs_only_itself(tmp_path: Path, sentence: str, part: str, where: str, reason: str) -> None:
    docs = [yaml.safe_dump(o) for o in TYPO]
    (tmp_path / "all.yaml").write_text("---\n".join([docs[0], part + "\n", *docs[1:]]))
    snapshot = read_dump(tmp_path)
    assert verdict(snapshot) == SAID
    assert [(s.where, s.reason.startswith(reason)) for s in snapshot.skipped] == [(where, True)], snapshot.skipped


# ---------------------------------------------------------------- manifests


def manifests(tmp_path: Path, *objects: Object, base: Snapshot | None = None) -> Snapshot:
    plain = [{k: v for k, v in o.items() if k != "status"} for o in objects]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(plain))
    return plan_manifests(read_manifests([tmp_path], SHOP), base)


def fresh(**spec: Any) -> Object:
    """A Service as people write it: no address, no defaults."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}], **spec},
    }


def made(**template: Any) -> Object:
    """A Deployment as people write it."""
    spec = {"containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}]}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"tier": "front"}},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec, **template},
        },
    }


MANIFESTS = (
    # sentence, objects, status, verdict
    ("they fit", [fresh(), made()], "healthy", "svc/web would route to 1 Pod"),
    ("a typo", [fresh(selector={"app": "wbe"}), made()], "broken",
     "svc/web would not route: no Pod has the label app=wbe; 1 Pod has app=web: did you mean app=web?"),
    ("the label on the Deployment only", [fresh(selector={"tier": "front"}), made()], "broken",
     "svc/web would not route: the label tier=front is on deployment/web itself, but not in its Pod template"),
    ("a named port that is not there", [fresh(ports=[{"port": 80, "targetPort": "htp"}]), made()], "broken",
     "svc/web would not route: port 80/TCP goes to the target port named htp, which no container has; they have "
     "http=80/TCP; did you mean http?"),
    ("a headless Service", [fresh(clusterIP="None"), made()], "healthy", "svc/web would route to 1 Pod"),
    ("an address of one's own choice", [fresh(clusterIP="10.96.0.7"), made()], "healthy",
     "svc/web would route to 1 Pod"),
    ("a governing Service that is misspelt", [fresh(clusterIP="None"), {**made(), "kind": "StatefulSet", "spec": {
        **made()["spec"], "serviceName": "wbe"}}], "degraded",
     "svc/web would route to 1 Pod; the name web-0.web would not resolve: statefulset/web names wbe as its governing "
     "Service, which does not exist; did you mean web?"),
    ("no workload at all", [fresh()], "broken",
     "svc/web would not route: nothing in namespace shop has the label app=web; there are no Pods"),
    ("a port that nobody declares", [fresh(ports=[{"port": 81}]), made()], "unknown",
     "svc/web may not work: port 81/TCP goes to port 81, which no container declares (they declare 80); whether "
     "something listens there cannot be seen from here"),
    ("Endpoints by hand", [fresh(selector=None), endpoints("web", "192.0.2.1")], "healthy",
     "svc/web would route to 1 endpoint"),
    ("a slice by hand", [fresh(selector=None), endpoint_slice("web-x", "web", at("192.0.2.1"))], "healthy",
     "svc/web would route to 1 endpoint"),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "objects", "status", "said"), MANIFESTS, ids=[m[0] for m in MANIFESTS])
def test_manifests_before_they_are_applied(
    tmp_path: Path, sentence: str, objects: list[Object], status: str, said: str
) -> None:
    found = diagnose(parse_subject(["svc/web"]), manifests(tmp_path, *objects), SHOP)
    assert (found.status, found.verdict) == (status, said)


def test_manifests_are_laid_over_the_cluster(tmp_path: Path) -> None:
    """A Service alone has endpoints where its Pods run already; only Services that are given are asked about."""
    base = cluster(service("db"), pod("db-1", {"app": "db"}), workload("web"), pod("web-1"))
    asked = fresh(ports=[{"port": 80, "targetPort": "http"}])
    found = diagnose_all(manifests(tmp_path, asked, base=base))
    assert [(d.subject, d.status) for d in found] == [("svc/web in namespace shop", "healthy")]


def test_a_service_of_the_cluster_counts_though_it_is_not_asked_about(tmp_path: Path) -> None:
    """EP705 and EP708: an alias or a governing Service may lead to what is there already."""
    alias = {**fresh(), "spec": {"type": "ExternalName", "externalName": "db.shop.svc.cluster.local"}}
    members = {**made(), "kind": "StatefulSet", "spec": {**made()["spec"], "serviceName": "db"}}
    found = diagnose_all(manifests(tmp_path, alias, base=cluster(service("db"))))
    assert [(d.subject, d.status) for d in found] == [("svc/web in namespace shop", "healthy")]
    found = diagnose_all(manifests(tmp_path, fresh(clusterIP="None"), members, base=cluster(service("db"))))
    assert [(d.subject, d.status) for d in found] == [("svc/web in namespace shop", "healthy")]


def test_a_workload_that_is_new_to_the_cluster_runs_on_one_of_its_nodes(tmp_path: Path) -> None:
    found = diagnose_all(manifests(tmp_path, fresh(), made(), base=cluster(service("db"))))
    assert [(d.subject, d.status) for d in found] == [("svc/web in namespace shop", "healthy")]


def test_a_changed_template_takes_the_place_of_its_pods(tmp_path: Path) -> None:
    base = cluster(
        service(),
        workload("web"),
        workload("web-1", "ReplicaSet", owner="web", template={"app": "web"}),
        pod("web-1-a", owner="ReplicaSet/web-1"),
    )
    renamed = made(metadata={"labels": {"app": "web2"}})
    found = diagnose_all(manifests(tmp_path, fresh(), renamed, base=base))
    assert found[0].code == "EP101" and "did you mean app=web2?" in found[0].verdict
