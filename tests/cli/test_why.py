"""`kubesvc why` as a command: what it prints, its exit statuses, and what it never needs a cluster for."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import pytest
import yaml

from kubesvc.api.meta import Object
from kubesvc.cli import kubectl_why, main
from kubesvc.cli.target import add_target, kubectl_for
from kubesvc.why.commands import addressed
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


def test_manifests_may_be_piped_in(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a templating program; nothing is shown as an address that no Service has yet."""
    web = service(selector={"app": "wbe"})
    spec = {k: v for k, v in web["spec"].items() if not k.startswith("clusterIP")}
    text = yaml.safe_dump_all([{**web, "spec": spec}, pod()])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["why", "-f", "-", "svc/web", "-n", "shop"]) == 1
    said = capsys.readouterr().out
    assert "To repair it, change the manifest as this would" in said and "0.0.0.0" not in said
    assert "ClusterIP with an address to be given" in said


def test_a_dump_without_a_subject_is_about_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", "--dump", dump(tmp_path, *BROKEN)]) == 1
    assert capsys.readouterr().out.startswith("2 Services: 1 broken, 1 healthy")


CANNOT_TELL = (
    # sentence, words, what is said
    ("no instance runs", ("svc/web", "--name", "nosuch"), "no instance 'nosuch' is running"),
    ("no such kubeconfig", ("svc/web", "--kubeconfig", "/nonexistent"), "no such file"),
    ("a dump of nothing", ("--dump", "."), "holds no object of Kubernetes"),
)


@pytest.mark.parametrize(("sentence", "words", "said"), CANNOT_TELL, ids=[c[0] for c in CANNOT_TELL])
def test_what_cannot_be_read_is_never_called_broken(
    tmp_path: Path,
    sentence: str,
    words: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["why", *words]) == 2
    assert said in capsys.readouterr().err


TOOLS = (
    # sentence, options, KUBECONFIG, how kubectl has to be called
    ("the instance of KUBECONFIG", (), "{home}/kubesvc/a/kubeconfig", "kubectl"),
    ("the same by name", ("--name", "a"), "{home}/kubesvc/a/kubeconfig", "kubectl"),
    ("another by name", ("--name", "b"), "{home}/kubesvc/a/kubeconfig", "kubesvc kubectl --name b"),
    ("the usual instance", (), "", "kubesvc kubectl"),
    ("a kubeconfig", ("--kubeconfig", "k"), "", "kubectl --kubeconfig k"),
    ("a context", ("--context", "prod"), "", "kubectl --context prod"),
)


@pytest.mark.parametrize(("sentence", "options", "environment", "tool"), TOOLS, ids=[t[0] for t in TOOLS])
def test_what_is_suggested_asks_the_same_cluster(
    tmp_path: Path,
    sentence: str,
    options: tuple[str, ...],
    environment: str,
    tool: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command that is pasted must never meet another cluster than the one that was looked at."""
    for name in ("a", "b"):
        (tmp_path / "kubesvc" / name).mkdir(parents=True)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", environment.format(home=tmp_path))
    parser = argparse.ArgumentParser()
    add_target(parser)
    assert kubectl_for(parser.parse_args(options)) == tool


COMMANDS = (
    ("kubectl -n a get pods", "kubesvc kubectl --name b -n a get pods"),
    ("kubectl -n a delete pod x && kubectl -n a get pods",
     "kubesvc kubectl --name b -n a delete pod x && kubesvc kubectl --name b -n a get pods"),
    ("echo 'kubectl x' | kubectl apply -f -", "echo 'kubectl x' | kubesvc kubectl --name b apply -f -"),
    ("kubesvc why --print-role | kubectl apply -f -",
     "kubesvc why --print-role --name b | kubesvc kubectl --name b apply -f -"),
    ("kubesvc status", "kubesvc status --name b"),
    ("kubesvc nodes stop n1 && kubesvc nodes start n1",
     "kubesvc nodes stop n1 --name b && kubesvc nodes start n1 --name b"),
    ("kill -CONT 7", "kill -CONT 7"),
)  # fmt: skip


@pytest.mark.parametrize(("command", "there"), COMMANDS, ids=[c[0] for c in COMMANDS])
def test_every_command_is_led_there(command: str, there: str) -> None:
    assert addressed(command, "kubesvc kubectl --name b") == there
    assert addressed(command, "kubectl") == command


def test_permission_is_granted_by_somebody_else() -> None:
    """The kubeconfig of the one who may not is no help in granting."""
    command = "kubesvc why --print-role --grant jane | kubectl apply -f -"
    assert addressed(command, "kubectl --kubeconfig jane.yaml") == command


USAGE = (
    ("a kind without a name", ("svc",)),
    ("manifests that are not there", ("-f", "/nonexistent")),
    ("nothing is asked", ()),
    ("a kind that nobody asks about", ("deploy/web",)),
    ("all and one", ("--all", "svc/web")),
    ("a dump and manifests", ("--dump", ".", "-f", ".", "svc/web")),
    ("a dump that is not there", ("--dump", "/nonexistent", "svc/web")),
    ("an option that does not exist", ("--nosuch",)),
    ("a grant of nothing", ("--grant", "jane", "svc/web")),
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


GRANTED = (
    ("jane", {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}),
    ("system:serviceaccount:shop:looker", {"kind": "ServiceAccount", "name": "looker", "namespace": "shop"}),
    ("system:serviceaccount:odd", {"apiGroup": "rbac.authorization.k8s.io", "kind": "User",
                                   "name": "system:serviceaccount:odd"}),
)  # fmt: skip


@pytest.mark.parametrize(("user", "subject"), GRANTED, ids=[g[0] for g in GRANTED])
def test_the_grant_binds_the_role_to_one_user(
    user: str, subject: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["why", "--print-role"]) == 0
    role = json.loads(capsys.readouterr().out)
    assert main(["why", "--print-role", "--grant", user]) == 0
    listed = json.loads(capsys.readouterr().out)["items"]
    assert listed[0] == role
    assert listed[1]["subjects"] == [subject] and listed[1]["roleRef"]["name"] == role["metadata"]["name"]


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


def test_manifests_were_read_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They tell no time themselves, and nobody read them in 1970."""
    file = tmp_path / "web.yaml"
    file.write_text(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {a: b}, ports: [{port: 80}]}}"
    )
    assert main(["why", "--json", "-f", str(file)]) == 1
    assert json.loads(capsys.readouterr().out)["at"] > "2020"
