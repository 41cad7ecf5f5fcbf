"""A runtime that answers as told: its health in words, its containers' ends, its logs, its calls for a network."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api.container import Container
from kubesvc.cli import Failure
from kubesvc.cli.runtimes import checked_runtime
from kubesvc.clock import RealClock
from kubesvc.kernel.process import Spawner
from kubesvc.node.cri import cni, process, wire
from kubesvc.node.cri.client import CriClient, RuntimeProblem, explain_socket, meaning, socket_of
from kubesvc.node.cri.health import plan_troubles
from kubesvc.node.cri.network import NetworkDoor, find_agents, plan_files, write_cni
from kubesvc.node.cri.output import FollowedLog
from kubesvc.node.cri.process import CriExecution, CriProcess
from kubesvc.node.cri.runtime import id_of, takes_systemd_groups
from kubesvc.node.logs import LogOptions, read_log
from kubesvc.node.sandbox import FakeSandboxes

Answer = dict[str, Any] | RuntimeProblem


class FakeRuntime(CriClient):
    """Answers each method with its list in turn, the last one for ever."""

    def __init__(self, **answers: list[Answer]) -> None:
        super().__init__(Path("/fake.sock"))
        self.answers = answers
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    async def call(self, method: str, request: Mapping[str, Any] | None = None, seconds: float = 1.0) -> dict[str, Any]:
        self.asked.append((method, request or {}))
        left = self.answers[method]
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, RuntimeProblem):
            raise answer
        await asyncio.sleep(0)
        return answer


def status(state: int, code: int = 0, reason: str = "") -> Answer:
    return {"status": {"state": state, "exit_code": code, "reason": reason}, "info": {}}


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work()

    asyncio.run(bounded())


# -- the runtime's address and health ---------------------------------------------------------------------------------


def test_a_runtime_is_named_by_its_socket(tmp_path: Path) -> None:
    assert socket_of("cri=unix:///run/x.sock") == Path("/run/x.sock")
    for wrong in ("", "containerd", "cri=/run/x.sock", "cri=unix://run/x.sock", "docker=unix:///x", "cri=tcp://1:2"):
        with pytest.raises(ValueError, match="must be cri=unix:///PATH"):
            socket_of(wrong)
    (tmp_path / "file").touch()
    assert "is the runtime running?" in explain_socket(tmp_path / "none")
    assert explain_socket(tmp_path / "file").endswith("is no socket")


def test_an_answer_that_is_no_message_is_a_problem(tmp_path: Path) -> None:
    """Not None, which gRPC makes of it, and over which the look after the runtime's health would end for good."""
    grpc, aio = pytest.importorskip("grpc"), pytest.importorskip("grpc.aio")

    async def say(request: bytes, context: Any) -> bytes:
        return b"\x0a\xff"

    async def work() -> None:
        server, path = aio.server(), tmp_path / "s"
        handler = grpc.unary_unary_rpc_method_handler(say)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("runtime.v1.RuntimeService", {"Version": handler}),)
        )
        server.add_insecure_port(f"unix://{path}")
        await server.start()
        client = CriClient(path)
        try:
            with pytest.raises(RuntimeProblem, match="no VersionResponse"):
                await client.call("Version", {"version": "v1"})
        finally:
            await client.close()
            await server.stop(None)

    run(work)


def test_an_ordinary_user_is_told_that_it_takes_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Failure, match="by root only"):
        checked_runtime(Path("/run/containerd/containerd.sock"))


MEANINGS = [
    ("UNIMPLEMENTED", "unknown service runtime.v1.RuntimeService", "not to CRI v1"),
    ("UNAVAILABLE", "connection refused", "is the runtime running?"),
    ("DEADLINE_EXCEEDED", "", "did not answer in time"),
    ("NOT_FOUND", "no such container", "no such container"),
    ("UNKNOWN", "", "UNKNOWN"),
]


@pytest.mark.parametrize(("code", "details", "words"), MEANINGS)
def test_refusals_say_what_to_do(code: str, details: str, words: str) -> None:
    assert words in meaning(code, details, Path("/nowhere/x.sock"))


def health(ready: bool = True, network: bool = True, plugins: str | None = None) -> dict[str, Any]:
    conditions = [
        {"type": "RuntimeReady", "status": ready, "reason": "Starting", "message": "soon"},
        {"type": "NetworkReady", "status": network, "reason": "NetworkPluginNotReady", "message": "no config"},
    ]
    info = {}
    if plugins is not None:
        kinds = ["loopback", *filter(None, plugins.split(","))]
        networks = [
            {"Config": {"Name": f"net-{k}", "Plugins": [{"Network": {"type": k}, "Source": '{"agents": "/agents"}'}]}}
            for k in kinds
        ]
        info["cniconfig"] = json.dumps({"Networks": networks})
    return {"status": {"conditions": conditions}, "info": info}


HEALTH = [
    ("a well one has none", health(plugins="kubesvc-cni"), []),
    ("one that tells nothing of its networks is believed", health(), []),
    ("one that is not ready", health(ready=False), ["is not ready: Starting soon"]),
    ("one without a network is told where ours is to be had", health(network=False, plugins=""), ["--write-cni"]),
    ("one with another network", health(plugins="bridge"), ["net-bridge (bridge) and not kubesvc's"]),
    ("one without a status is not ready", {"status": None, "info": {}}, ["does not tell", "does not tell"]),
]


@pytest.mark.parametrize(("sentence", "said", "wanted"), HEALTH, ids=[row[0] for row in HEALTH])
def test_troubles(sentence: str, said: dict[str, Any], wanted: list[str]) -> None:
    found = plan_troubles(said, Path("/x.sock"))
    assert len(found) == len(wanted) and all(w in f for w, f in zip(wanted, found, strict=True))


def test_agents_are_where_the_network_says() -> None:
    assert find_agents(health(plugins="kubesvc-cni"))[0] == Path("/agents")
    assert find_agents({"status": {}, "info": {"cniconfig": "no json"}})[0] is not None
    assert takes_systemd_groups({"info": {"config": '{"options": {"SystemdCgroup": true}}'}})
    assert not takes_systemd_groups({"info": {"config": '{"systemdCgroup":false}'}})
    assert id_of("containerd://ab") == "ab"


# -- ends -------------------------------------------------------------------------------------------------------------

GONE = RuntimeProblem("no such container", "NOT_FOUND")
AWAY = RuntimeProblem("nobody answers", "UNAVAILABLE")
ENDS: list[tuple[str, list[Answer], int | None, str]] = [
    ("known at once", [status(wire.EXITED, 3, "Error")], 3, "Error"),
    ("known a little later", [status(wire.RUNNING), status(wire.EXITED, 0, "Completed")], 0, "Completed"),
    ("its memory ran out", [status(wire.EXITED, 137, "OOMKilled")], 137, "OOMKilled"),
    (
        "killed, and that memory ran out is known later",
        [
            status(wire.EXITED, 137, "Error"),
            status(wire.EXITED, 137, "OOMKilled"),
        ],
        137,
        "OOMKilled",
    ),
    ("killed, and then forgotten", [status(wire.EXITED, 137, "Error"), GONE], 137, "Error"),
    ("killed, and nothing explains it", [status(wire.EXITED, 137, "Error")], 137, "Error"),
    ("known when the runtime is back", [AWAY, AWAY, status(wire.EXITED, 4, "Error")], 4, "Error"),
    ("forgotten by the runtime", [GONE], None, ""),
]


@pytest.mark.parametrize(("sentence", "answers", "code", "reason"), ENDS, ids=[row[0] for row in ENDS])
def test_an_end_is_the_runtimes_to_tell(sentence: str, answers: list[Answer], code: int | None, reason: str) -> None:
    async def work() -> None:
        runtime = FakeRuntime(ContainerStatus=answers)
        ended = CriProcess.of(runtime, "id", 0)
        assert tuple(await asyncio.gather(ended.wait(), ended.wait())) == (code, code)
        assert ended.reason == reason and ended.pid == 0

    run(work)


def test_a_process_is_told_from_another_of_its_number() -> None:
    async def work() -> None:
        runtime = FakeRuntime(ContainerStatus=[status(wire.EXITED, 1)])
        mine = CriProcess.of(runtime, "id", os.getpid())
        assert mine.pid == os.getpid() and not mine.done()
        mine.close()
        other = CriProcess.of(runtime, "id", os.getpid(), started=1)
        assert other.pid == 0 and await other.wait() == 1

    run(work)


def test_the_kernel_is_believed_when_the_runtime_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PATIENCE_SECONDS", 0.1)

    async def work() -> None:
        found = CriProcess.of(FakeRuntime(ContainerStatus=[AWAY]), "id", 0)
        assert await found.ask_end(-9) == 137

    run(work)


# -- commands and stopping --------------------------------------------------------------------------------------------


def execution(runtime: CriClient, **more: Any) -> CriExecution:
    done = CriProcess.of(runtime, "id", 0)
    return CriExecution(
        spawner=Spawner.__new__(Spawner), container=Container(name="c"), process=done, client=runtime, id="id", **more
    )


def test_commands_are_the_runtimes_to_run() -> None:
    async def work() -> None:
        told = {"stdout": b"out", "stderr": b"err", "exit_code": 5}
        slow = RuntimeProblem("failed to exec in container: timeout 1s exceeded: context deadline exceeded")
        runtime = FakeRuntime(
            ExecSync=[told, slow, RuntimeProblem("late", "DEADLINE_EXCEEDED"), RuntimeProblem("no sh")]
        )
        run = execution(runtime)
        assert await run.execute(["sh"], 59.5) == (5, b"outerr")
        assert runtime.asked[0][1] == {"container_id": "id", "cmd": ["sh"], "timeout": 60}
        assert await run.execute(["sh"], 59.5) == (None, b"")
        assert await run.execute(["sh"], 59.5) == (None, b"")
        with pytest.raises(OSError, match="no sh"):
            await run.execute(["sh"], 59.5)

    run(work)


def test_stopping_is_the_runtimes_too() -> None:
    async def work() -> None:
        runtime = FakeRuntime(StopContainer=[{}], ContainerStatus=[status(wire.EXITED, 143, "Error")])
        await execution(runtime).stop(15, 2.2, print)
        assert ("StopContainer", {"container_id": "id", "timeout": 3}) in runtime.asked
        named = FakeRuntime(StopContainer=[{}], ContainerStatus=[status(wire.EXITED, 0)])
        await execution(named, own_signal=True).stop(10, 2.2, print)
        assert "StopContainer" not in [method for method, _ in named.asked]

    run(work)


# -- logs -------------------------------------------------------------------------------------------------------------


def test_a_log_that_the_runtime_writes_is_followed(tmp_path: Path) -> None:
    async def work() -> None:
        path = tmp_path / "0.log"
        path.write_text("2026-01-02T03:04:05.000000006Z stdout F first\n")
        live = FollowedLog(path, RealClock(), 60, 3)
        found: list[bytes] = []

        async def follow() -> None:
            async for piece in read_log(path, LogOptions(follow=True), RealClock(), live):
                found.append(piece)

        task = asyncio.create_task(follow())
        while not found:
            await asyncio.sleep(0.02)
        with path.open("a") as file:
            file.write("2026-01-02T03:04:06.000000006Z stderr F second\n")
        while b"second\n" not in b"".join(found):
            await asyncio.sleep(0.02)
        assert live.too_long()
        live.shift()
        path.write_text("2026-01-02T03:04:07.000000006Z stdout F third\n")
        while b"third\n" not in b"".join(found):
            await asyncio.sleep(0.02)
        live.close()
        await task
        assert b"".join(found) == b"first\nsecond\nthird\n" and not live.too_long()

    run(work)


# -- the network ------------------------------------------------------------------------------------------------------


async def ask(path: Path, uid: str) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(json.dumps({"uid": uid}).encode() + b"\n")
    told: dict[str, Any] = json.loads(await reader.readline())
    writer.close()
    return told


def test_a_sandbox_gets_the_addresses_that_its_pod_has(tmp_path: Path) -> None:
    async def work() -> None:
        sandboxes = FakeSandboxes(Spawner.__new__(Spawner))
        door = NetworkDoor(tmp_path / "agents", "/state", sandboxes)
        await door.start()
        try:
            async with door.expect("u-1", ["10.0.0.1", "fd00::1"]), door.expect("u-2", None):
                assert await ask(tmp_path / "agents/u-1", "u-1") == {"ips": ["10.0.0.1", "fd00::1"]}
                assert await ask(tmp_path / "agents/u-2", "u-2") == {"share": True, "ips": ["127.0.0.1"]}
                assert "not making Pod u-3" in (await ask(tmp_path / "agents/u-1", "u-3"))["error"]
            assert door.wired("u-1") in sandboxes.connected and door.wired("u-2") == "" and door.wired("u-3") is None
            assert not (tmp_path / "agents/u-1").is_symlink()
        finally:
            await door.close()
        assert list((tmp_path / "agents").iterdir()) == []

    run(work)


def test_the_plugin_and_its_configuration_are_written(tmp_path: Path) -> None:
    conf, programs = tmp_path / "net.d", tmp_path / "bin"
    written = write_cni(conf, programs, tmp_path / "agents")
    assert sorted(written) == sorted(path for path, _, _ in plan_files(programs, conf, tmp_path / "agents"))
    (programs / "loopback").write_text("another's")
    write_cni(conf, programs)
    assert (programs / "loopback").read_text() == "another's"
    network = json.loads((conf / "00-kubesvc.conflist").read_text())
    assert network["plugins"] == [{"type": "kubesvc-cni", "agents": "/run/kubesvc/cni"}]
    assert os.access(programs / "kubesvc-cni", os.X_OK)


CONF = json.dumps({"cniVersion": "0.4.0", "type": "kubesvc-cni", "agents": "/nowhere"})
CALLS: list[tuple[str, dict[str, str], str, str]] = [
    ("names its versions", {"CNI_COMMAND": "VERSION"}, "", "supportedVersions"),
    ("refuses a version it does not know", {"CNI_COMMAND": "ADD"}, '{"cniVersion": "9.0"}', "'9.0' is none of"),
    ("refuses what is no JSON", {"CNI_COMMAND": "ADD"}, "{", "is no JSON"),
    ("refuses a Pod without a uid", {"CNI_COMMAND": "ADD"}, CONF, "names no Pod"),
    ("refuses a uid that is a path", {"CNI_COMMAND": "ADD", "CNI_ARGS": "K8S_POD_UID=../x"}, CONF, "names no Pod"),
    ("refuses another interface", {"CNI_COMMAND": "ADD", "CNI_ARGS": "K8S_POD_UID=u", "CNI_IFNAME": "x"}, CONF, "eth0"),
    ("refuses a namespace that is not there",
     {"CNI_COMMAND": "ADD", "CNI_ARGS": "K8S_POD_UID=u", "CNI_NETNS": "/nowhere/ns"}, CONF, "network namespace"),
    ("refuses a command it does not know", {"CNI_COMMAND": "MAKE"}, CONF, "'MAKE' is none of"),
    ("takes a deletion of what is gone", {"CNI_COMMAND": "DEL", "CNI_NETNS": "/nowhere/ns"}, CONF, ""),
    ("takes a deletion without a namespace", {"CNI_COMMAND": "DEL"}, CONF, ""),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "environment", "text", "words"), CALLS, ids=[row[0] for row in CALLS])
def test_the_plugin(sentence: str, environment: dict[str, str], text: str, words: str) -> None:
    try:
        said = json.dumps(cni.run(environment, text))
    except cni.Refused as error:
        said = str(error)
    assert words in said and (words or said == "{}")


TOLD = {"process": {"user": {"uid": 33, "gid": 55, "additionalGids": [7]}, "env": ["A=b=c", "D="], "cwd": "/srv"}}


@pytest.mark.parametrize(
    ("told", "learnt"),
    [
        pytest.param(TOLD, ({"A": "b=c", "D": ""}, (33, 55), [7, 55], "/srv"), id="a specification is followed"),
        pytest.param(None, ({}, (0, 0), (0,), "/"), id="CRI-O without one: what its process shows stays"),
        pytest.param({"process": {"cwd": "/"}}, ({}, (0, 0), (0,), "/"), id="half a specification is none"),
    ],
)
def test_an_exec_is_as_the_runtime_says_its_container_is(told: Any, learnt: tuple[Any, ...]) -> None:
    """NODE-52: when a runtime says that it has started a container, its process may not be the program's yet."""

    async def scenario() -> None:
        client = CriClient(Path("/nowhere"))
        run = CriExecution(
            spawner=None,  # type: ignore[arg-type]
            container=Container(name="c"),
            process=CriProcess.of(client, "x", 0),
            client=client,
            id="x",
        )
        run.follow(told)
        assert (run.environment, run.user, run.groups, run.workdir) == learnt

    asyncio.run(scenario())
