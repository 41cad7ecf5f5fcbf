"""What a node does with real Pods; each function runs alone in its own namespaces (see `world`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import struct
from typing import Any

from kubesvc.api.kinds import CONFIG_MAP, NODE, POD, SECRET, SERVICE
from kubesvc.kernel.links import NetlinkLinks

from .world import PATIENCE, World, condition, container_status, holds, is_ready, processes

WEB = {"image": "httpd", "ports": [{"name": "http", "containerPort": 80}]}
TCP_PROBE = {"tcpSocket": {"port": "http"}, "periodSeconds": 1}
HTTP_PROBE = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1}
FRAME = struct.Struct(">BI")


def shell(script: str, **fields: Any) -> dict[str, Any]:
    """A container that runs a script and ends at once when asked to."""
    return {"image": "busybox", "command": ["sh", "-c", f"trap 'exit 0' TERM; {script}"], **fields}


FOREVER = "while true; do sleep 9999 & wait $!; done"
"""Computes nothing, and still hears a signal at once that the shell has a trap for."""


async def web_server_becomes_ready_and_goes(world: World) -> None:
    """NODE-2, NODE-9 to 13, NODE-22, NODE-56, NODE-57, NODE-70: and nothing is left."""
    before = sorted(processes())
    await world.create("web", {**WEB, "readinessProbe": HTTP_PROBE})
    pod = await world.ready("web")
    status = pod["status"]
    assert status["phase"] == "Running"
    assert status["podIP"] == "10.244.1.2" and status["podIPs"] == [{"ip": "10.244.1.2"}]
    assert status["hostIP"] == "172.30.0.11"
    assert [c["type"] for c in status["conditions"]] == [
        "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled",
    ]  # fmt: skip
    assert container_status(pod)["containerID"].startswith("kubesvc://")
    reader, writer = await asyncio.open_connection("10.244.1.2", 80)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert b"It works!" in await reader.read()
    writer.close()
    reasons = [reason for reason, _ in await world.events("web")]
    assert {"Pulled", "StandIn", "Created", "Started"} <= set(reasons)
    with contextlib.closing(NetlinkLinks()) as links:
        assert [r.device for r in links.routes() if r.destination == "10.244.1.2/32"]
        await world.delete("web")
        await world.vanished("web")
        assert ("Killing", "Stopping container c") in await world.events("web")
        assert not [r for r in links.routes() if r.destination == "10.244.1.2/32"]
        await holds(
            lambda: not [link for link in links.links() if link.name.startswith("pod")], "removed by the kernel"
        )
    assert sorted(processes()) == before
    assert list((world.settings.state_dir / "pods").iterdir()) == []


async def readiness_follows_the_probe(world: World) -> None:
    """NODE-39, NODE-42, NODE-46: unready at the failureThreshold-th failure, ready again at the next success."""
    script = f"touch /tmp/ok; {FOREVER}"
    probe = {"exec": {"command": ["cat", "/tmp/ok"]}, "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 10}
    await world.create("flip", shell(script, readinessProbe=probe))
    pod = await world.ready("flip")
    started = container_status(pod)["state"]["running"]["startedAt"]
    await inside(world, "flip", "rm", "/tmp/ok")
    pod = await world.until("flip", lambda p: not is_ready(p), "unready", 4)
    ready = next(c for c in pod["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["reason"], ready["message"]) == ("ContainersNotReady", "containers with unready status: [c]")
    await inside(world, "flip", "touch", "/tmp/ok")
    pod = await world.ready("flip", 3)
    assert container_status(pod)["restartCount"] == 0
    assert container_status(pod)["state"]["running"]["startedAt"] == started
    assert any(r == "Unhealthy" and m.startswith("Readiness probe failed: ") for r, m in await world.events("flip"))


async def liveness_failure_restarts(world: World) -> None:
    """NODE-30, NODE-41, NODE-46: killed, restarted, and said so."""
    # Nothing fails before the script has come so far: until it has its trap, it is deaf to the signal that ends it.
    dead = {"exec": {"command": ["test", "!", "-e", "/tmp/dead"]}}
    probe = {**dead, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 10}
    script = f"sleep 1.5; touch /tmp/dead; {FOREVER}"
    await world.create("live", shell(script, livenessProbe=probe))
    pod = await world.until("live", lambda p: container_status(p).get("restartCount") == 1, "restarted", 8)
    assert container_status(pod)["lastState"]["terminated"]["exitCode"] == 0
    assert ("Killing", "Container c failed liveness probe, will be restarted") in await world.events("live")


async def exits_and_phases(world: World) -> None:
    """NODE-3, NODE-17, NODE-20, NODE-23, NODE-24, NODE-27: what becomes of Pods whose containers end."""
    await world.create("good", shell("echo done > /dev/termination-log"), restartPolicy="Never")
    await world.create("bad", shell("exit 3"), restartPolicy="OnFailure")
    await world.create("once", shell("kill -9 $$"), restartPolicy="Never")
    good, once, bad = await asyncio.gather(  # all are watched from now on: the first back-off lasts for 10 s only
        world.until("good", lambda p: p["status"].get("phase") == "Succeeded", "succeeded"),
        world.until("once", lambda p: p["status"].get("phase") == "Failed", "failed"),
        world.until("bad", waiting_for("CrashLoopBackOff"), "waiting"),
    )
    end = container_status(good)["state"]["terminated"]
    assert (end["exitCode"], end["reason"], end["message"]) == (0, "Completed", "done\n")
    assert condition(good, "Ready") == "False" and condition(good, "Initialized") == "True"
    # A process that is the first of its namespace is deaf to its own SIGKILL: the shell goes on and ends well or not.
    assert container_status(once)["state"]["terminated"]["reason"] in ("Error", "Completed")
    waiting = container_status(bad)["state"]["waiting"]
    uid = bad["metadata"]["uid"]
    assert waiting["reason"] == "CrashLoopBackOff"
    assert waiting["message"] == f"back-off 10s restarting failed container=c pod=bad_default({uid})"
    assert bad["status"]["phase"] == "Running" and container_status(bad)["restartCount"] == 1
    assert container_status(bad)["lastState"]["terminated"]["exitCode"] == 3


async def init_containers_and_sidecars(world: World) -> None:
    """NODE-7, NODE-11, NODE-29, NODE-69: in order, the sidecar before and after the rest."""
    shared = {"volumeMounts": [{"name": "d", "mountPath": "/shared"}]}
    say = "echo $(cat /proc/uptime | cut -d' ' -f1) {} >> /shared/order"
    init = [
        {"name": "first", **shell("sleep 0.1; " + say.format("first")), **shared},
        {
            "name": "side",
            **shell("trap 'echo side-end >> /shared/order; exit 0' TERM; " + say.format("side") + "; " + FOREVER),
            **shared,
            "restartPolicy": "Always",
            "startupProbe": {
                "exec": {"command": ["grep", "-q", "side", "/shared/order"]},
                "periodSeconds": 1,
                "timeoutSeconds": 10,
                "failureThreshold": 60,
            },
        },
        {"name": "second", **shell(say.format("second")), **shared},
    ]
    main = shell("trap 'echo main-end >> /shared/order; exit 0' TERM; " + say.format("main") + "; " + FOREVER, **shared)
    await world.create("both", main, initContainers=init, volumes=[{"name": "d", "emptyDir": {}}])
    pod = await world.ready("both")
    order = world.settings.state_dir / "pods" / pod["metadata"]["uid"] / "volumes/d/order"
    await holds(lambda: "main" in order.read_text(), "begun")
    assert [line.split()[-1] for line in order.read_text().splitlines()] == ["first", "side", "second", "main"]
    shown = [(s["name"], s["ready"]) for s in pod["status"]["initContainerStatuses"]]
    assert shown == [("first", True), ("side", True), ("second", True)]
    kept = order.open()
    await world.delete("both")
    await world.vanished("both")
    assert [line.split()[-1] for line in kept.read().splitlines()][4:] == ["main-end", "side-end"]


async def volumes_environment_and_names(world: World) -> None:
    """NODE-74 to NODE-81, DNS-58: everything that a container finds."""
    await world.client.create(CONFIG_MAP, {"metadata": {"name": "conf"}, "data": {"a.txt": "A", "B": "b"}}, "default")
    await world.client.create(SECRET, {"metadata": {"name": "sec"}, "data": {"key": "czNjcmV0"}}, "default")
    port = {"name": "http", "port": 80, "targetPort": 8080}
    service = {"metadata": {"name": "my-svc"}, "spec": {"clusterIP": "10.96.7.7", "ports": [port]}}
    await world.client.create(SERVICE, service, "default")
    await holds(lambda: any(s.name == "my-svc" for s in world.agent.services.values()), "seen by the agent")
    script = "; ".join(
        (
            "cat /conf/a.txt", "echo", "cat /sec/key", "echo", "cat /down/labels", "echo", "cat /nest/deep.txt", "echo",
            "echo $MY_SVC_SERVICE_HOST $MY_SVC_PORT_80_TCP", "echo $B $POD_IP $LONG", "cat /etc/resolv.conf",
            "hostname -s || hostname", "tail -1 /etc/hosts", "touch /readonly-test && echo writable",
            "touch /conf/x 2>/dev/null || echo conf-readonly", "ls -d " + str(world.settings.state_dir) + "/pods",
        )
    )  # fmt: skip
    env = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "LONG", "value": "$(POD_IP)-$(NOPE)-$$(POD_IP)"},
    ]
    mounts = [
        {"name": "conf", "mountPath": "/conf"},
        {"name": "sec", "mountPath": "/sec"},
        {"name": "down", "mountPath": "/down"},
        {"name": "conf", "mountPath": "/nest/deep.txt", "subPath": "a.txt"},
    ]
    volumes = [
        {"name": "conf", "configMap": {"name": "conf"}},
        {"name": "sec", "secret": {"secretName": "sec"}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    container = shell(script, env=env, envFrom=[{"configMapRef": {"name": "conf"}}], volumeMounts=mounts)
    await world.create(
        "all", container, metadata={"labels": {"app": "all"}}, volumes=volumes, restartPolicy="Never", subdomain="sub"
    )
    pod = await world.until("all", lambda p: p["status"].get("phase") in ("Succeeded", "Failed"), "ended")
    lines = [line for line in world.log_text(pod).splitlines() if not line.startswith("topology")]
    assert lines[:4] == ["A", "s3cret", 'app="all"', "A"], lines
    assert lines[4:6] == ["10.96.7.7 tcp://10.96.7.7:80", "b 10.244.1.2 10.244.1.2-$(NOPE)-$(POD_IP)"], lines
    assert lines[6].startswith("search default.svc.cluster.local svc.cluster.local cluster.local"), lines
    assert "nameserver 10.96.0.10" in lines and "options ndots:5" in lines
    assert "all" in lines and "10.244.1.2\tall.sub.default.svc.cluster.local\tall" in lines, lines
    assert "writable" in lines and "conf-readonly" in lines, lines
    assert not any(str(world.settings.state_dir) in line and "cannot" not in line for line in lines), lines
    assert not os.path.exists("/readonly-test")


async def missing_things_wait(world: World) -> None:
    """NODE-19, NODE-28, NODE-78: the words for what is not there, and that it comes."""
    reference = {"name": "V", "valueFrom": {"configMapKeyRef": {"name": "later", "key": "k"}}}
    await world.create("conf", shell(FOREVER, env=[reference]))
    await world.create("img", {"image": "example.org/no/such:1"})
    await world.create("name", {"image": "Not A Name"})
    await world.create("exec", {"image": "busybox", "command": ["no-such-program"]})
    expected = {"conf": "CreateContainerConfigError", "img": "ErrImagePull", "name": "InvalidImageName"}
    # "img" shows its reason for a second: all are watched from now on
    await asyncio.gather(*(world.until(name, waiting_for(reason), reason) for name, reason in expected.items()))
    pod = await world.get("conf")
    assert container_status(pod)["state"]["waiting"]["message"] == 'configmap "later" not found'
    await world.until("img", waiting_for("ImagePullBackOff"), "ImagePullBackOff", 4)
    pod = await world.until("exec", lambda p: "message" in str(container_status(p)), "failed")
    assert 'exec: "no-such-program": executable file not found in $PATH' in json.dumps(pod["status"]).replace("\\", "")
    await world.client.create(CONFIG_MAP, {"metadata": {"name": "later"}, "data": {"k": "v"}}, "default")
    await world.ready("conf", 5)


def waiting_for(reason: str) -> Any:
    return lambda pod: container_status(pod).get("state", {}).get("waiting", {}).get("reason") == reason


async def deletion_takes_the_grace_it_has(world: World) -> None:
    """NODE-62, NODE-65, NODE-66, NODE-71, BUG-27: a deaf process gets its time, then SIGKILL; force does not wait."""
    loop = asyncio.get_running_loop()
    deaf = {"image": "busybox", "command": ["sh", "-c", f"trap '' TERM; {FOREVER}"]}
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "sleep 0.3; touch /mark/stopped"]}}}
    mark = [{"name": "m", "mountPath": "/mark"}]
    polite = shell(f"echo run; {FOREVER}", lifecycle=hook, volumeMounts=mark)
    await world.create("deaf", deaf)
    await world.create("forced", deaf)
    await world.create("polite", polite, volumes=[{"name": "m", "emptyDir": {}}])
    for name in ("deaf", "forced", "polite"):
        await world.ready(name)
    await world.said(await world.get("polite"), "run")  # without its trap it is deaf
    began = loop.time()
    await world.delete("polite")
    await world.until("polite", lambda p: "deletionTimestamp" in p["metadata"], "deleted")
    assert is_ready(await world.get("polite"))  # NODE-64
    await world.vanished("polite")
    assert 0.3 <= loop.time() - began < 20, "its grace is 30 s"
    began = loop.time()
    await world.delete("forced", grace_seconds=0)
    await world.delete("deaf", grace_seconds=1)
    await world.vanished("forced", 3)
    await world.vanished("deaf", 6)
    assert 2 <= loop.time() - began < 25
    await holds(lambda: not [c for c in processes() if "trap '' TERM" in c], "ended")


async def agent_comes_back(world: World) -> None:
    """NODE-45, NODE-99: a new agent adopts what runs, restarts what does not, removes what is unwanted."""
    names = ("kept", "lost", "unwanted", "leaving")
    for name in names:
        await world.create(name, shell(f"echo run; {FOREVER}", env=[{"name": "MINE", "value": name}]))
    before = {name: await world.ready(name) for name in names}
    for pod in before.values():  # until it has its trap, it is deaf to the signal that ends it
        await world.said(pod, "run")
    await world.create("ended", shell("echo last words"), restartPolicy="Never")
    await world.until("ended", lambda p: p["status"].get("phase") == "Succeeded", "ended")
    lost = world.agent.worker("default", "lost")
    assert lost is not None and lost.pause is not None and lost.runners["c"].process is not None
    pids = (lost.pause.pid, lost.runners["c"].process.pid)
    await world.agent.stop()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it is dead already
    await world.delete("unwanted", grace_seconds=0)
    await world.delete("leaving")
    await world.start_agent()
    await world.vanished("leaving", 3)
    first, reader, _ = await world.ask("log default ended c {}")
    assert first == {"ok": True} and await reader.read() == b"last words\n"
    pod = await world.until("lost", lambda p: container_status(p).get("restartCount") == 1 and is_ready(p), "restarted")
    assert container_status(pod)["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert pod["metadata"]["uid"] == before["lost"]["metadata"]["uid"]
    pod = await world.get("kept")
    assert container_status(pod) == container_status(before["kept"]), (container_status(pod), before["kept"]["status"])
    assert pod["status"]["podIP"] == before["kept"]["status"]["podIP"]
    assert not (world.settings.state_dir / "pods" / before["unwanted"]["metadata"]["uid"]).exists()
    code, out, _ = await execute(world, "kept", ["sh", "-c", "echo still $MINE"])
    assert (code, out) == (0, b"still kept\n")
    for name in ("kept", "lost"):
        await world.delete(name)
        await world.vanished(name)
    assert not [c for c in processes() if c.startswith(("sh -c", "sleep"))]


async def door_lets_in(world: World) -> None:
    """Flows, logs and exec through the node's door; NODE-96, NODE-97, NODE-106, NODE-112, NODE-114."""
    await world.create("web", {**WEB, "readinessProbe": TCP_PROBE})
    udp = {"image": "agnhost", "args": ["netexec", "--http-port=8080", "--udp-port=8081"]}
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}
    await world.create("net", {**udp, "readinessProbe": probe})
    await world.create("talk", shell(f"echo one; echo two >&2; echo three; {FOREVER}"))
    address = (await world.ready("web"))["status"]["podIP"]
    for request in (f"tcp {address} 80", "podtcp default web 80"):
        first, reader, writer = await world.ask(request)
        assert first == {"ok": True}, first
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert b"200 OK" in await reader.read()
        writer.close()
    address = (await world.ready("net"))["status"]["podIP"]
    first, reader, writer = await world.ask(f"udp {address} 8081")
    assert first == {"ok": True}
    writer.write(struct.pack(">H", 9) + b"echo ding")
    assert await reader.readexactly(6) == struct.pack(">H", 4) + b"ding"
    writer.close()
    first, _, _ = await world.ask(f"tcp {address} 9")
    assert first["error"].endswith("refused") or "refused" in first["error"].lower()
    talk = await world.ready("talk")
    await holds(lambda: len(world.log_text(talk).split()) == 3, "said")
    first, reader, _ = await world.ask("log default talk c {}")
    assert sorted((await reader.read()).split()) == [b"one", b"three", b"two"]
    first, reader, _ = await world.ask('log default talk c {"stream":"Stderr","timestamps":true}')
    assert (await reader.read()).endswith(b"Z two\n")
    first, _, _ = await world.ask('log default talk c {"previous":true}')
    assert first["error"] == 'previous terminated container "c" in pod "talk" not found'
    assert (await world.ask("log default nobody c {}"))[0]["code"] == 404
    assert await execute(world, "talk", ["sh", "-c", "echo out; echo err >&2; exit 7"]) == (7, b"out\n", b"err\n")
    assert await execute(world, "talk", ["cat"], b"through") == (0, b"through", b"")
    code, out, _ = await execute(world, "talk", ["sh", "-c", "tty; stty size; hostname"], tty=True)
    assert (code == 0 and out.split() == [b"/dev/pts/0", b"30", b"100", b"talk"]) or b"30 100" in out, out
    code, _, err = await execute(world, "talk", ["no-such"])
    assert code != 0 and b"no-such" in err


async def execute(
    world: World, pod: str, command: list[str], data: bytes = b"", tty: bool = False, container: str = "c"
) -> tuple[int, bytes, bytes]:
    """(exit code, stdout, stderr) of a command in a Pod's container, through the door."""
    wanted: dict[str, Any] = {"namespace": "default", "pod": pod, "container": container, "command": command}
    wanted |= {"stdin": bool(data), "tty": tty, "width": 100, "height": 30}
    first, reader, writer = await world.ask("exec " + json.dumps(wanted))
    assert first == {"ok": True}, first
    if data:
        writer.write(FRAME.pack(0, len(data)) + data + FRAME.pack(255, 1) + b"\0")
    streams = {1: b"", 2: b""}
    async with asyncio.timeout(10 * PATIENCE):
        while True:
            channel, size = FRAME.unpack(await reader.readexactly(FRAME.size))
            payload = await reader.readexactly(size)
            if channel == 3:
                writer.close()
                end = json.loads(payload)
                return end.get("exitCode", -1), streams[1], streams[2] + end.get("error", "").encode()
            streams[channel] += payload


async def inside(world: World, pod: str, *command: str) -> None:
    code, out, err = await execute(world, pod, list(command))
    assert code == 0, out + err


async def floods_and_forks_are_bounded(world: World) -> None:
    """A log without end is rotated and cut; children of a container end with it."""
    await world.create("flood", shell("yes 0123456789012345678901234567890123456789"))
    await world.create("forks", shell(f"for i in 1 2 3 4 5 6 7 8; do setsid sleep 1000 & done; {FOREVER}"))
    flood, _ = await world.ready("flood"), await world.ready("forks")
    await asyncio.sleep(1.5)
    directory = world.settings.state_dir / "pods" / flood["metadata"]["uid"] / "containers/c"
    assert sum(p.stat().st_size for p in directory.glob("0.log*")) <= 5 * (1 << 20) * 1.3
    loop = asyncio.get_running_loop()
    late = []
    for _ in range(20):
        began = loop.time()
        await asyncio.sleep(0.01)
        late.append(loop.time() - began - 0.01)
    assert sorted(late)[10] < 0.5, late
    await holds(lambda: len([c for c in processes() if c.startswith("sleep 1000")]) == 8, "forked")
    await world.delete("forks")
    await world.delete("flood", grace_seconds=1)
    await world.vanished("forks")
    assert not [c for c in processes() if c.startswith("sleep 1000")]
    await world.vanished("flood")


floods_and_forks_are_bounded.options = {"log_file_bytes": 1 << 20}  # type: ignore[attr-defined]


async def simulated_pods_follow_their_script(world: World) -> None:
    """NODE-116 to NODE-120: endpoints without processes, a hundred at once."""
    before = processes()
    key = world.settings.simulated_script
    await asyncio.gather(*(world.create(f"p{n}", {"image": "x"}) for n in range(100)))
    pods = [await world.ready(f"p{n}") for n in range(100)]
    assert len({p["status"]["podIP"] for p in pods}) == 100
    annotations = {key: "ready after 3s; fail after 3s"}
    gates = [{"conditionType": "example.org/gate"}]
    await world.create("gated", {"image": "x"}, readinessGates=gates)
    await world.ready("gated", 3)
    await world.create("late", {"image": "x"}, metadata={"annotations": annotations}, restartPolicy="Never")
    assert not is_ready(await world.until("late", lambda p: "podIP" in p["status"], "addressed"))
    await world.ready("late")
    failed = await world.until("late", lambda p: p["status"]["phase"] == "Failed", "failed")
    assert condition(failed, "Ready") == "False"
    await world.delete("p0")
    await world.vanished("p0")
    assert processes() == before
    node = await world.client.get(NODE, "n1")
    assert node["spec"]["podCIDR"] == "10.244.1.0/24"
    assert {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"] == "True"
    assert node["metadata"]["labels"]["topology.kubernetes.io/zone"] == "a"
    assert POD.name == "Pod"


simulated_pods_follow_their_script.options = {"simulated": True}  # type: ignore[attr-defined]
