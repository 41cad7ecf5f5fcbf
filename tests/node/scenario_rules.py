"""Scenarios of what users see of a Pod's life beside its phases: hooks, restarts, Events, metrics, the Node itself."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from kubesvc.api.kinds import EVENT, LEASE, NODE, POD
from kubesvc.api.meta import Object

from .scenarios import FOREVER, TCP_PROBE, WEB, execute, inside, shell, waiting_for
from .world import NODE_ADDRESS, PATIENCE, World, condition, container_status, holds, is_ready, processes

LISTENER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.path, self.headers["User-Agent"], flush=True)
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("", 8080), Handler).serve_forever()
"""


async def hooks_run_and_fail(world: World) -> None:
    """NODE-67, NODE-68: hooks by exec, HTTP and sleep; a failed preStop is told and stops nothing, a failed postStart
    ends the container."""
    listener = {"image": "python", "command": ["python3", "-c", LISTENER]}
    await world.create("listener", {**listener, "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}})
    heard = await world.ready("listener")
    ask = {"httpGet": {"host": heard["status"]["podIP"], "port": 8080, "path": "/asked"}}
    fail = {"exec": {"command": ["sh", "-c", "exit 3"]}}
    await world.create("asks", shell(FOREVER, lifecycle={"postStart": ask, "preStop": {"sleep": {"seconds": 1}}}))
    await world.create("stubborn", shell(FOREVER, lifecycle={"preStop": fail}))
    await world.create("never", shell(FOREVER, lifecycle={"postStart": fail}), terminationGracePeriodSeconds=2)
    for name in ("asks", "stubborn"):
        await world.ready(name)
    await world.until("listener", lambda _: "/asked kube-lifecycle/1.36" in world.log_text(heard), "asked")
    hooked: list[Object] = []

    def restarted(pod: Object) -> bool:
        hooked.append(container_status(pod))
        return bool(hooked[-1].get("restartCount", 0) >= 1 and "waiting" in hooked[-1]["state"])

    pod = await world.until("never", restarted, "restarted", 15)
    assert "terminated" in container_status(pod)["lastState"]
    shown = [s["state"]["waiting"] for s in hooked if "waiting" in s.get("state", {})]
    said = f'Exec lifecycle hook ([sh -c exit 3]) for Container "c" in Pod "never_default({pod["metadata"]["uid"]})" '
    said += "failed - error: command 'sh -c exit 3' exited with 3: , message: \"\""
    assert {"reason": "PostStartHookError", "message": said} in shown, shown
    assert ("FailedPostStartHook", "PostStartHook failed") in await world.events("never")
    loop = asyncio.get_running_loop()
    began = loop.time()
    await world.delete("asks")
    await world.delete("stubborn")
    await world.vanished("stubborn")
    assert ("FailedPreStopHook", "PreStopHook failed") in await world.events("stubborn")
    await world.vanished("asks")
    assert 1.0 <= loop.time() - began < 25, "a hook that sleeps takes its time out of the grace"


async def hooks_end_with_their_container(world: World) -> None:
    """NODE-29, NODE-62, NODE-67: a container is not called running before its postStart hook is over; and no hook holds
    up the end of what it is for, wherever its own processes live."""
    endless = {"exec": {"command": ["sleep", "1234"]}}
    hooked = shell("touch /tmp/runs; " + FOREVER, lifecycle={"postStart": endless})
    slow = shell(FOREVER, lifecycle={"preStop": {"sleep": {"seconds": 500}}})
    await world.create("own", hooked)
    await world.create("shared", hooked, shareProcessNamespace=True)
    await world.create("slow", slow, terminationGracePeriodSeconds=600)
    await world.ready("slow")
    for name in ("own", "shared"):
        await world.told(name, lambda es: "Started" in {e["reason"] for e in es}, "started")
        await inside(world, name, "sh", "-c", "until [ -e /tmp/runs ]; do sleep 0.1; done")
    await holds(lambda: processes().count("sleep 1234 ") == 2, "under way")
    for name in ("own", "shared"):
        pod = await world.get(name)
        assert waiting_for("ContainerCreating")(pod) and not is_ready(pod), pod["status"]
    await world.delete("slow")
    await world.until("slow", lambda p: "deletionTimestamp" in p["metadata"], "deleted")
    for name in ("own", "shared", "slow"):
        await world.delete(name, grace_seconds=1)
    for name in ("own", "shared", "slow"):
        await world.vanished(name)
    assert not [c for c in processes() if "sleep 1234" in c]


async def a_pod_serves_until_it_has_stopped(world: World) -> None:
    """NODE-44, NODE-64, NODE-70, NODE-72: while a Pod terminates its network works both ways, its readiness probe goes
    on and may turn, liveness is asked no more; only when its containers have stopped is the last status written."""
    script = "import http.server, signal, threading, time\nsignal.signal(signal.SIGTERM, lambda *a: None)\n" + LISTENER
    server = {"image": "python", "command": ["python3", "-c", script]}
    often = {"periodSeconds": 1, "timeoutSeconds": 10}
    ready = {"exec": {"command": ["test", "!", "-e", "/tmp/unready"]}, **often, "failureThreshold": 1}
    alive = {"exec": {"command": ["sh", "-c", "echo x >> /tmp/alive"]}, **often}
    await world.create("web", {**WEB, "readinessProbe": TCP_PROBE})
    other = (await world.ready("web"))["status"]["podIP"]
    hook = {"preStop": {"exec": {"command": ["sleep", "1000"]}}}
    await world.create("leaver", {**server, "readinessProbe": ready, "livenessProbe": alive, "lifecycle": hook})
    pod = await world.ready("leaver")
    address = pod["status"]["podIP"]
    await inside(world, "leaver", "sh", "-c", "until [ -e /tmp/alive ]; do sleep 0.1; done")
    await world.delete("leaver", grace_seconds=1000)
    worker = world.agent.worker("default", "leaver")
    assert worker is not None and world.agent.context is not None
    await holds(lambda: worker.stopping and len(worker.runners["c"].prober.tasks) == 1, "asked for readiness alone")
    await world.agent.context.spawner.call(lambda: None)  # what was to be started before this has been
    await holds(lambda: not [c for c in processes() if "/tmp/alive" in c], "answered if it was asked just before")
    code, asked, _ = await execute(world, "leaver", ["cat", "/tmp/alive"])
    assert code == 0 and asked
    reader, writer = await asyncio.open_connection(address, 8080)
    writer.write(b"GET /in HTTP/1.0\r\n\r\n")
    assert b"200 OK" in await reader.read()
    fetch = f"import urllib.request; print(urllib.request.urlopen('http://{other}/').status)"
    code, out, err = await execute(world, "leaver", ["python3", "-c", fetch])
    assert (code, out) == (0, b"200\n"), err
    assert is_ready(await world.get("leaver"))
    await asyncio.sleep(1)  # time enough for liveness to be asked
    await execute(world, "leaver", ["touch", "/tmp/unready"])
    pod = await world.until("leaver", lambda p: not is_ready(p), "unready while it terminates")
    assert "deletionTimestamp" in pod["metadata"] and "running" in container_status(pod)["state"]
    _, later, _ = await execute(world, "leaver", ["cat", "/tmp/alive"])
    assert later == asked, "liveness was asked although the Pod terminates"
    await world.delete("leaver", grace_seconds=1)  # NODE-62: less time than it was given at first
    await world.vanished("leaver")


async def what_happened_is_told(world: World) -> None:
    """NODE-21, NODE-58, NODE-59, NODE-87 to NODE-94: restarts, addresses, and Events with reason, source, field and
    count."""
    await world.create("twice", shell("echo once; exit 1"))
    await world.create("ended", shell("exit 0"), restartPolicy="Never")
    await world.create("host", shell(FOREVER), hostNetwork=True)
    probe = {"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 9, "timeoutSeconds": 10}
    await world.create("unready", shell(FOREVER, readinessProbe=probe))
    await world.create("nowhere", shell(FOREVER), volumes=[{"name": "v", "configMap": {"name": "nope"}}])
    pod = await world.until("twice", lambda p: container_status(p).get("restartCount") == 1, "restarted")
    status = container_status(pod)
    end = status["lastState"]["terminated"]
    assert end["exitCode"] == 1 and end["containerID"].startswith("kubesvc://")
    assert status["containerID"].startswith("kubesvc://") and status["containerID"] != end["containerID"]
    ended = await world.until("ended", lambda p: p["status"].get("phase") == "Succeeded", "ended")
    assert ended["status"]["podIP"] and ended["status"]["podIPs"] == [{"ip": ended["status"]["podIP"]}]
    host = await world.ready("host")
    assert host["status"]["podIP"] == NODE_ADDRESS == host["status"]["hostIP"]
    for name, severity, reason, words in (
        ("twice", "Normal", "Created", "Container created"),
        ("twice", "Normal", "Started", "Container started"),
        ("twice", "Warning", "BackOff", "Back-off restarting failed container c in pod twice_default("),
        ("unready", "Warning", "Unhealthy", "Readiness probe failed: dial tcp "),
        ("nowhere", "Warning", "FailedMount", 'MountVolume.SetUp failed for volume "v" : configmap "nope" not found'),
    ):

        def fits(event: Object, reason: str = reason, words: str = words) -> bool:
            return bool(event["reason"] == reason and event["message"].startswith(words))

        told = [e for e in await world.told(name, lambda es: any(map(fits, es)), reason) if fits(e)]
        assert {e["type"] for e in told} == {severity}
        assert told[0]["source"] == {"component": "kubelet", "host": "n1"}
        assert told[0]["reportingComponent"] == "kubelet" and told[0]["reportingInstance"] == "n1"
        about = told[0]["involvedObject"]
        assert about["kind"] == "Pod" and about["uid"] == (await world.get(name))["metadata"]["uid"]
        if reason != "FailedMount":
            assert about["fieldPath"] == "spec.containers{c}"
    counted = await world.told("unready", lambda es: any(e["count"] >= 2 for e in es), "the same once more")
    assert len([e for e in counted if e["reason"] == "Unhealthy"]) == 1, counted
    reasons = [json.loads(e)["reason"] for e in (await world.client.list_raw(EVENT, "default")).items]
    assert {"Starting", "NodeReady"} <= set(reasons)
    await world.delete("twice", grace_seconds=1)
    await world.delete("unready", grace_seconds=1)
    await world.vanished("unready")
    assert ("Killing", "Stopping container c") in await world.events("unready")


async def floods_of_events_are_bounded(world: World) -> None:
    """NODE-94: what is said again is counted; what is said ever anew about one Pod is combined, and after a while said
    seldom."""
    script = "cat /proc/sys/kernel/random/uuid; exit 1"
    probe = {"exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1}
    await world.create("talker", shell(FOREVER, readinessProbe=probe))
    worker = None
    async with asyncio.timeout(10 * PATIENCE):
        while worker is None or "c" not in worker.runners or not worker.runners["c"].running:
            worker = world.agent.worker("default", "talker")
            await asyncio.sleep(0.01)
    for number in range(60):
        worker.runners["c"].event("Warning", "Unhealthy", f"Readiness probe failed: {number}")
    told = [e for e in await world.events_of("talker") if e["reason"] == "Unhealthy"]
    combined = [e for e in told if e["message"].startswith("(combined from similar events): Readiness probe failed: ")]
    assert len(combined) == 1 and combined[0]["count"] > 1, told
    assert len(told) <= 11, len(told)
    assert sum(e["count"] for e in await world.events_of("talker")) <= 26


async def probes_are_counted_and_leave_no_connections(world: World) -> None:
    """NODE-43, NODE-54, NODE-55: a dying backend is seen in its time; the node's page of metrics counts each result;
    connections of probes do not gather in TIME_WAIT."""
    probe = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 2}
    await world.create("web", {**WEB, "readinessProbe": probe, "livenessProbe": {**TCP_PROBE, "failureThreshold": 99}})
    pod = await world.ready("web")
    results, loop = world.agent.context.probe_results, asyncio.get_running_loop()  # type: ignore[union-attr]
    asked = ("Readiness", "successful", "c", "web", "default")
    await holds(lambda: results.get(asked, 0) >= 3, "asked often")
    waiting = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [w for w in waiting if w[3] == "06" and w[2].endswith(":0050")] == []
    worker = world.agent.worker("default", "web")
    assert worker is not None and worker.runners["c"].process is not None
    before = results[asked]
    await holds(lambda: results[asked] > before, "asked once more")  # no other try is under way, and none has failed
    worker.runners["c"].process.signal(19)  # SIGSTOP: it accepts connections and answers nothing
    began = loop.time()
    await world.until("web", lambda p: not is_ready(p), "unready")
    assert 2 <= loop.time() - began <= 30, "2 timeouts; within periodSeconds x failureThreshold + timeoutSeconds"
    first, reader, _ = await world.ask("page /metrics/probes")
    assert first == {"ok": True}
    text = (await reader.read()).decode()
    uid = pod["metadata"]["uid"]
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    label = f'container="c",namespace="default",pod="web",pod_uid="{uid}"'
    assert int(lines[f'prober_probe_total{{{label},probe_type="Readiness",result="successful"}}']) >= 3, text
    assert int(lines[f'prober_probe_total{{{label},probe_type="Readiness",result="failed"}}']) >= 2, text
    assert int(lines[f'prober_probe_total{{{label},probe_type="Liveness",result="successful"}}']) >= 3, text
    first, reader, _ = await world.ask("page /metrics")
    text = (await reader.read()).decode()
    assert "\nkubelet_running_pods 1\n" in text and 'kubelet_running_containers{container_state="running"} 1' in text
    assert (await world.ask("page /nothing"))[0]["code"] == 404
    worker.runners["c"].process.signal(18)
    await world.delete("web", grace_seconds=1)
    await world.vanished("web")
    await holds(lambda: "prober_probe_total{" not in str(world.agent.page("/metrics/probes")), "forgotten with the Pod")


async def the_node_shows_itself(world: World) -> None:
    """NODE-83, NODE-84, NODE-93: the Lease is renewed all the while, the Node written only when it says something new,
    and Events tell when it takes no more Pods and when it does again."""
    lease = await world.client.get(LEASE, "n1", "kube-node-lease")
    assert lease["spec"]["holderIdentity"] == "n1" and lease["spec"]["leaseDurationSeconds"] == 40
    node = await world.client.get(NODE, "n1")
    for _ in range(3):  # some renewals, beside each of which the Node could have been written
        before = lease["spec"]["renewTime"]
        async with asyncio.timeout(10 * PATIENCE):
            while lease["spec"]["renewTime"] == before:
                await asyncio.sleep(0.05)
                lease = await world.client.get(LEASE, "n1", "kube-node-lease")
        assert lease["spec"]["renewTime"] > before
    assert (await world.client.get(NODE, "n1"))["metadata"]["resourceVersion"] == node["metadata"]["resourceVersion"]
    found = {c["type"]: (c["status"], c["reason"]) for c in node["status"]["conditions"]}
    assert found == {
        "MemoryPressure": ("False", "KubeletHasSufficientMemory"),
        "DiskPressure": ("False", "KubeletHasNoDiskPressure"),
        "PIDPressure": ("False", "KubeletHasSufficientPID"),
        "Ready": ("True", "KubeletReady"),
    }
    addresses = [(a["type"], a["address"]) for a in node["status"]["addresses"]]
    assert addresses == [("InternalIP", NODE_ADDRESS), ("Hostname", "n1")]
    assert node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 10250
    for unschedulable, reason in ((True, "NodeNotSchedulable"), (None, "NodeSchedulable")):
        await world.client.patch(NODE, "n1", "", {"spec": {"unschedulable": unschedulable}}, "merge")
        await world.told("n1", lambda es, r=reason: r in {e["reason"] for e in es}, reason)  # type: ignore[misc]
    events = await world.events_of("n1")
    told = [e["message"].removeprefix("Node n1 status is now: ") for e in events if e["reason"].startswith("Node")]
    assert told == [
        "NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady", "NodeNotSchedulable",
        "NodeSchedulable",
    ], told  # fmt: skip


the_node_shows_itself.options = {"lease_renew_seconds": 0.2, "status_seconds": 0.2}  # type: ignore[attr-defined]


async def without_a_network_only_the_nodes_own_runs(world: World) -> None:
    """NODE-60: a node that has no range for Pods is not ready and says so at the Pods; those with the node's own
    network run, the others as soon as there is a range."""

    async def shown(status: str) -> Object:
        async with asyncio.timeout(10 * PATIENCE):
            while True:
                node = await world.client.get(NODE, "n1")
                found: Object = next(c for c in node["status"]["conditions"] if c["type"] == "Ready")
                if found["status"] == status:
                    return found
                await asyncio.sleep(0.01)

    ready = await shown("False")
    assert ready["reason"] == "KubeletNotReady"
    assert ready["message"].startswith("container runtime network not ready: NetworkReady=false")
    await world.create("own", shell(FOREVER), hostNetwork=True)
    await world.create("waits", shell(FOREVER))
    await world.ready("own")
    pod = await world.until("waits", lambda p: condition(p, "PodReadyToStartContainers") == "False", "looked at")
    assert "podIP" not in pod["status"]
    words = "network is not ready: container runtime network not ready: "
    await world.told(
        "waits", lambda es: any(e["reason"] == "NetworkNotReady" and e["message"].startswith(words) for e in es), words
    )
    patch: dict[str, Any] = {"spec": {"podCIDR": "10.244.5.0/24", "podCIDRs": ["10.244.5.0/24"]}}
    await world.client.patch(NODE, "n1", "", patch, "merge")
    pod = await world.ready("waits")
    assert pod["status"]["podIP"] == "10.244.5.2"
    await shown("True")


without_a_network_only_the_nodes_own_runs.options = {"pod_cidrs": ()}  # type: ignore[attr-defined]


async def gates_of_others_are_kept(world: World) -> None:
    """NODE-13, NODE-16, NODE-18, BUG-28: what another controller has written of a readiness gate counts at once, and
    no status that the agent writes takes it away."""
    gates = [{"conditionType": "example.org/balanced"}]
    await world.create("gated", shell("until [ -e /tmp/go ]; do sleep 0.1; done; exit 1"), readinessGates=gates)
    pod = await world.until("gated", lambda p: condition(p, "ContainersReady") == "True", "its containers ready")
    found = next(c for c in pod["status"]["conditions"] if c["type"] == "Ready")
    assert (found["status"], found["reason"]) == ("False", "ReadinessGatesNotReady")

    async def say(status: str) -> None:
        mine = {"type": "example.org/balanced", "status": status, "reason": "Told", "lastTransitionTime": None}
        patch = {"status": {"conditions": [mine]}}
        await world.client.patch(POD, "gated", "default", patch, "strategic", subresource="status")

    await say("True")
    await world.until("gated", is_ready, "ready")
    await inside(world, "gated", "touch", "/tmp/go")
    await world.until("gated", lambda p: container_status(p)["restartCount"] == 1, "restarted")
    pod = await world.ready("gated")
    assert condition(pod, "example.org/balanced") == "True"
    await say("False")
    pod = await world.until("gated", lambda p: not is_ready(p), "unready")
    found = next(c for c in pod["status"]["conditions"] if c["type"] == "Ready")
    assert found["message"] == 'the status of pod readiness gate "example.org/balanced" is not "True", but False'
    await world.delete("gated", grace_seconds=0)
