"""`kubesvc why` as a command: what it prints, its exit statuses, and what it never needs a cluster for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from kubesvc.api.meta import Object
from kubesvc.cli import kubectl_why, main
from tests.why.planted import DNS, endpoint_slice, node, pod, service


def dump(tmp_path: Path, *objects: Object) -> str:
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all([*objects, *DNS, node()]))
    return str(file)


BROKEN = (service(selector={"app": "wbe"}), pod(), endpoint_slice("web-1", "web"))
HEALTHY = (service(selector={}), endpoint_slice("web-1", "web", {"addresses": ["10.244.1.2"]}))

STATUSES = (
    # sentence, objects, words, exit status
    ("it works", HEALTHY, ("svc/web", "-n", "shop"), 0),
    ("it is broken", BROKEN, ("svc/web", "-n", "shop"), 1),
    ("slices are missing from the dump", (service(), pod()), ("svc/web", "-n", "shop"), 1),
    ("every Service works", HEALTHY, ("--all",), 0),
    ("one of all is broken", BROKEN, ("--all",), 1),
    ("there is no such Service", HEALTHY, ("svc/nosuch", "-n", "shop"), 1),
)


@pytest.mark.parametrize(("sentence", "objects", "words", "status"), STATUSES, ids=[s[0] for s in STATUSES])
def test_exit_status(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    sentence: str,
    objects: tuple[Object, ...],
    words: tuple[str, ...],
    status: int,
) -> None:
    assert main(["why", "--dump", dump(tmp_path, *objects), *words]) == status, capsys.readouterr()


def test_the_first_line_is_the_verdict_and_the_command_follows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["why", "--dump", dump(tmp_path, *BROKEN), "svc/web", "-n", "shop"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "svc/web does not route: no Pod has the label app=wbe; 1 Pod has app=web: did you mean app=web?  [EP101]"
    )
    at = lines.index("To repair it")
    assert lines[at + 1].strip().startswith("kubectl -n shop patch service web ")
    main(["why", "--brief", "--dump", dump(tmp_path, *BROKEN), "svc/web", "-n", "shop"])
    assert capsys.readouterr().out.splitlines() == lines[:1]


FIELDS = {"subject", "status", "verdict", "code", "command", "findings", "chain", "pods", "gaps"}
FINDING_FIELDS = {"code", "title", "severity", "text", "command", "repairs", "seen"}


def test_json_has_a_version_and_every_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", "--json", "--dump", dump(tmp_path, *BROKEN), "svc/web", "-n", "shop"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "kubesvc.why/v1" and found["exitStatus"] == 1 and found["source"] == "dump"
    assert set(found) == {"schema", "source", "at", "exitStatus", "results", "gaps", "skipped"}
    (result,) = found["results"]
    assert set(result) == FIELDS and set(result["findings"][0]) == FINDING_FIELDS
    assert [link["name"] for link in result["chain"]] == ["service", "selector", "slices", "rules", "name"]


def test_what_was_skipped_is_counted_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = dump(tmp_path, *HEALTHY)
    Path(path).write_text(Path(path).read_text() + "---\na: [\n")
    assert main(["why", "--dump", path, "svc/web", "-n", "shop"]) == 0
    assert "1 skipped that could not be read" in capsys.readouterr().err


def test_manifests_need_no_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fit for pre-commit: every Service of the files, exit status 1 if one would have no endpoints."""
    web = Path(__file__).parents[2] / "examples"
    assert main(["why", "-f", str(web / "web-deployment.yaml"), "-f", str(web / "web-svc.yaml")]) == 0
    assert "healthy   default/web-svc" in capsys.readouterr().out
    assert main(["why", "-f", str(web / "web-svc.yaml")]) == 1


USAGE = (
    ("nothing is asked", ()),
    ("a kind that nobody asks about", ("deploy/web",)),
    ("all and one", ("--all", "svc/web")),
    ("a dump and manifests", ("--dump", ".", "-f", ".", "svc/web")),
    ("a dump that is not there", ("--dump", "/nonexistent", "svc/web")),
    ("an option that does not exist", ("--nosuch",)),
)


@pytest.mark.parametrize(("sentence", "words"), USAGE, ids=[u[0] for u in USAGE])
def test_wrong_usage(sentence: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["why", *words])
    except SystemExit as stopped:
        status = int(str(stopped.code))
    assert status == 64
    assert capsys.readouterr().err


def test_the_role_may_list_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", "--print-role"]) == 0
    role = json.loads(capsys.readouterr().out)
    assert role["kind"] == "ClusterRole"
    assert all(rule["verbs"] == ["list"] for rule in role["rules"])
    assert "secrets" not in {r for rule in role["rules"] for r in rule["resources"]}


def test_kubectl_finds_it_as_a_plugin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["kubectl-why", "--dump", dump(tmp_path, *BROKEN), "svc/web", "-n", "shop"]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kubectl_why() == 1
    assert "[EP101]" in capsys.readouterr().out


def test_as_a_plugin_it_asks_the_cluster_that_kubectl_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """~/.kube/config, where KUBECONFIG names none; a server that cannot be reached is exit status 2."""
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    config = {
        "clusters": [cluster],
        "contexts": [context],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c",
    }
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(json.dumps(config))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", "")
    monkeypatch.setattr("sys.argv", ["kubectl-why", "svc/web"])
    assert kubectl_why() == 2
    assert f"the cluster of {tmp_path / '.kube' / 'config'} cannot be reached" in capsys.readouterr().err
