"""What scenarios do besides objects: manifests in files, and what a node's proxy says that it could not have."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import pytest

from kubesvc.cli.cluster import Cluster
from kubesvc.cli.sights import flow_text, refusal
from kubesvc.cli.staging import Stage, StageFailed, to_file
from kubesvc.clock import LoopClock, run_virtual
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.proxyreport import SERVICE_PORTS, ProxyReport
from kubesvc.instance.record import NodeRecord
from kubesvc.kernel.conntrack import Flow
from kubesvc.proxy.backend import Mode
from kubesvc.why.diagnosis import Diagnosis, Finding
from kubesvc.why.scenarios import BY_NAME


def test_a_suggested_patch_is_done_to_the_file_of_its_object(tmp_path: Path) -> None:
    """The same patch, nothing asked of a cluster, and the file replaced whole."""
    patch = '[{"op":"add","path":"/spec/ports","value":[{"port":8080}]}]'
    asked = shlex.join(["kubectl", "-n", "shop", "patch", "service", "web", "--type", "json", "-p", patch])
    first, _, last = to_file(asked, tmp_path / "a b").partition(" && ")
    file = str(tmp_path / "a b" / "service-web.yaml")
    words = shlex.split(first)
    assert words[:5] == ["kubectl", "patch", "--local", "-f", file] and patch in words
    assert shlex.split(last) == ["mv", words[-1], file]


def test_a_command_that_takes_too_long_ends_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell has started holds its pipe: to kill the shell alone would be to wait for that for ever."""
    monkeypatch.setattr("kubesvc.cli.staging.COMMAND_SECONDS", 0.5)
    monkeypatch.setattr(Stage, "environment", lambda *_: {"PATH": "/usr/bin:/bin"})
    stage = Stage(Cluster.__new__(Cluster))
    with pytest.raises(StageFailed, match=r"sleep 600; true: took more than"):
        asyncio.run(asyncio.wait_for(stage.execute("sleep 600; true", {}), 120))


SEEN = (
    # sentence, what `why` finds at one look after the other, what is run (or why nothing is)
    ("what is there at once", [("EP311", True)], "repair"),
    ("a cause that looks otherwise for a moment", [("EP313", True), ("EP311", True)], "repair"),
    ("a cause whose repair is known a moment later", [("EP311", False), ("EP311", True)], "repair"),
    ("a cause that does not come back", [("EP313", True)], "nothing to repair: it is broken"),
    ("a cause that nothing repairs", [("EP311", False)], "suggests nothing that repairs: text"),
)


@pytest.mark.parametrize(("sentence", "looks", "said"), SEEN, ids=[s[0] for s in SEEN])
def test_a_suggestion_is_waited_for(
    sentence: str, looks: list[tuple[str, bool]], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def examine(*_: object) -> Diagnosis:
        code, repairs = looks.pop(0) if len(looks) > 1 else looks[0]
        finding = Finding(code, "broken", "text", "repair", repairs)
        return Diagnosis("svc/web", "broken", "it is broken", (finding,))

    async def ask() -> str:
        stage = Stage(Cluster.__new__(Cluster), clock=LoopClock(asyncio.get_running_loop()))
        try:
            return await stage.suggested(BY_NAME["crash"])
        except StageFailed as error:
            return str(error)

    monkeypatch.setattr(Stage, "examine", examine)
    assert said in run_virtual(ask())


LISTED = b"""{"fronts": [
  {"service": "shop/web", "kind": "node port", "front": "*:30616", "protocol": "TCP", "error": "Address in use"},
  {"service": "shop/web", "kind": "cluster IP", "front": "10.96.0.7:80", "protocol": "TCP", "at": "127.0.0.1:4"},
  {"service": "shop/other", "kind": "node port", "front": "*:30617", "protocol": "SCTP", "error": "no SCTP"}
]}"""
REFUSALS: tuple[tuple[str, Mode | None, dict[str, str], str], ...] = (
    # sentence, mode, refused, what is said of shop/web
    ("no report yet", None, {}, ""),
    ("the kernel took all", "nftables", {"IPv4 shop/other": "Invalid argument"}, ""),
    ("the kernel refused", "nftables", {"IPv4 shop/web": "Invalid argument"}, "Invalid argument"),
    ("a port that another has", "userspace", {}, "*:30616/TCP: Address in use"),
)


@pytest.mark.parametrize(("sentence", "mode", "refused", "said"), REFUSALS, ids=[r[0] for r in REFUSALS])
def test_what_a_proxy_could_not_have(
    sentence: str, mode: Mode | None, refused: dict[str, str], said: str, tmp_path: Path
) -> None:
    """EP616, in every mode."""
    paths, node = InstancePaths(tmp_path), NodeRecord(name="n1", address="172.30.0.11", pod_cidr="10.244.1.0/24")
    paths.node("n1").mkdir(parents=True)
    (paths.node("n1") / SERVICE_PORTS).write_bytes(LISTED)
    report = ProxyReport(mode, "because", refused) if mode is not None else None
    assert refusal(paths, node, report, "shop/web") == said


def test_a_flow_in_words() -> None:
    assert flow_text(Flow("fd00::1", 1, "fd00:96::7", 80, "fd00:244::9", 81)) == (
        "[fd00::1]:1 to [fd00:96::7]:80 goes to [fd00:244::9]:81"
    )
