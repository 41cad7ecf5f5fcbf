"""Scenarios of Pods that mean no good: the Pod's status says so, the node and its neighbours go on."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Hashable
from typing import Any

from kubesvc.node.eventflow import EventFlow

from .scenarios import FOREVER, execute, shell
from .world import World, container_status, holds, is_ready, mode_here, processes

ODD_SERVER = """
import socket, sys, threading, time
def serve(listener, talk):
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=run, args=(peer, talk), daemon=True).start()
def run(peer, talk):
    try:
        peer.recv(1000)
        talk(peer)
    except OSError:
        pass
    peer.close()
def never(peer):
    time.sleep(1000)
def forever(peer):
    peer.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
    while True: peer.sendall(b"x" * 65536)
def headers(peer):
    peer.sendall(b"HTTP/1.1 200 OK\\r\\n")
    while True: peer.sendall(b"A: " + b"x" * 60000 + b"\\r\\n")
def interim(peer):
    while True: peer.sendall(b"HTTP/1.1 102 Processing\\r\\n\\r\\n" * 500)
def drip(peer):
    for letter in b"HTTP/1.1 200 OK\\r\\n": peer.sendall(bytes([letter])); time.sleep(0.3)
def garbage(peer):
    peer.sendall(bytes(range(256)) * 200)
def frames(peer):
    peer.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    while True: peer.sendall(b"\\x00\\x00\\x08\\x06\\x00\\x00\\x00\\x00\\x00" + b"p" * 8)
def shut(peer):
    pass
def length(peer):
    peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: " + b"9" * 5000 + b"\\r\\n\\r\\nx")
def nowhere(peer):
    peer.sendall(b"HTTP/1.1 302 Found\\r\\nLocation: http://[x\\r\\n\\r\\n")
def gopher(peer):
    peer.sendall(b"HTTP/1.1 302 Found\\r\\nLocation: gopher://127.0.0.1/\\r\\n\\r\\n")
talks = [never, forever, headers, interim, drip, garbage, frames, shut, length, nowhere, gopher]
for number, talk in enumerate(talks):
    listener = socket.create_server(("", 8000 + number))
    threading.Thread(target=serve, args=(listener, talk), daemon=True).start()
print("serving", flush=True)
time.sleep(1000)
"""
NEVER, ENDLESS, HEADERS, INTERIM, DRIP, GARBAGE, FRAMES, SHUT, LENGTH, NOWHERE, GOPHER = range(8000, 8011)
"""The ports of the odd server, each with its own way to answer."""


def http(port: int) -> dict[str, Any]:
    return {"httpGet": {"port": port}}


PROBES: tuple[tuple[str, dict[str, Any], bool, str], ...] = (
    ("http that never answers", http(NEVER), False, "context deadline exceeded (Client.Timeout exceeded"),
    ("http whose body never ends counts by its status", http(ENDLESS), True, ""),
    ("http whose headers never end", http(HEADERS), False, "server response headers exceeded"),
    ("http that says 102 for ever", http(INTERIM), False, "too many 1xx informational responses"),
    ("http that drips", http(DRIP), False, "context deadline exceeded"),
    ("http garbage", http(GARBAGE), False, "malformed HTTP response"),
    ("http with a length that is no number", http(LENGTH), True, ""),
    ("http that leads to no address", http(NOWHERE), False, "failed to parse Location header"),
    ("http that leads to another protocol", http(GOPHER), False, 'unsupported protocol scheme "gopher"'),
    ("http that hangs up", http(SHUT), False, "EOF"),
    ("https to what speaks none", {"httpGet": {"port": GARBAGE, "scheme": "HTTPS"}}, False, "tls: "),
    ("grpc that never answers", {"grpc": {"port": NEVER}}, False, "within 1s: context deadline exceeded"),
    ("grpc that pings for ever", {"grpc": {"port": FRAMES}}, False, "within 1s: context deadline exceeded"),
    ("grpc garbage", {"grpc": {"port": GARBAGE}}, False, "error: health rpc probe failed"),
    ("exec that never ends", {"exec": {"command": ["sh", "-c", "sleep 1234"]}}, False, "timed out"),
    ("exec that says too much", {"exec": {"command": ["sh", "-c", "yes | head -c 99999; exit 1"]}}, False, "y\ny\n"),
    ("exec that says no end of it", {"exec": {"command": ["yes"]}}, False, "timed out"),
    ("exec that leaves children", {"exec": {"command": ["sh", "-c", "sleep 4321 & exit 1"]}}, False, ""),
)
"""What is probed: a sentence, the probe's handler, whether it succeeds, what the Event says."""


class Patient(EventFlow):
    """Lets a Pod say more than usual before it is cut short; that it is at all keeps what is to be written short where
    the machine is busy. How Events are bounded has a scenario of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.admitted: Counter[Hashable] = Counter()

    def admits(self, about: Hashable, at: float) -> bool:
        self.admitted[about] += 1
        return self.admitted[about] <= 100


async def odd_probes(world: World) -> None:
    """NODE-33, NODE-46, NODE-48, NODE-50, NODE-52, NODE-53: a probe that never answers, answers for ever, or sends
    garbage fails in its time and in words; nothing piles up, and a neighbour's probe is asked on."""
    assert world.agent.context is not None
    world.agent.context.events.flow = Patient()  # a probe that met something else first shall not use up its Events
    probe = {**http(80), "periodSeconds": 1, "timeoutSeconds": 10}
    await world.create("neighbour", {"image": "httpd", "readinessProbe": probe})
    await world.create("odd", {"image": "python", "command": ["python3", "-c", ODD_SERVER]})
    await world.ready("neighbour")
    address = (await world.ready("odd"))["status"]["podIP"]
    await world.until("odd", lambda p: "serving" in world.log_text(p), "serving")

    def probed(number: int) -> dict[str, Any]:
        probe = {**PROBES[number][1], "periodSeconds": 3, "timeoutSeconds": 1, "failureThreshold": 1}
        if "httpGet" in probe:
            probe["httpGet"] = {**probe["httpGet"], "host": address}
        return shell(FOREVER, name=f"c{number}", readinessProbe=probe)

    groups: list[list[int]] = [[], *([] for _ in range(len(PROBES) // 3 + 1))]
    for number, (_, handler, _, _) in enumerate(PROBES):  # few in one Pod, whose Events are bounded
        if "grpc" in handler:  # it has no host, the Pod's own is asked
            groups[0].append(number)
        else:
            min(groups[1:], key=len).append(number)
    server: dict[str, Any] = {
        "name": "s",
        "image": "python",
        "command": ["python3", "-c", ODD_SERVER],
        "restartPolicy": "Always",
        "startupProbe": {"tcpSocket": {"port": GOPHER}, "periodSeconds": 1, "failureThreshold": 60},  # listened at last
    }
    for index, group in enumerate(groups):
        await world.create(f"g{index}", *map(probed, group), initContainers=[] if index else [server])
    where = {number: f"g{index}" for index, group in enumerate(groups) for number in group}
    said: list[Any] = []
    for number, (sentence, _, good, words) in enumerate(PROBES):
        name = f"c{number}"
        if good:
            await world.until(where[number], lambda p, n=name: bool(container_status(p, n).get("ready")), sentence)  # type: ignore[misc]
            continue

        def fails(event: dict[str, Any], name: str = name, words: str = words) -> bool:
            place = event["involvedObject"].get("fieldPath")
            return (event["reason"], place) == ("Unhealthy", f"spec.containers{{{name}}}") and words in event["message"]

        said += await world.told(where[number], lambda es, f=fails: any(map(f, es)), sentence, 20)  # type: ignore[misc]
        pod = await world.get(where[number])
        assert not container_status(pod, f"c{number}")["ready"], sentence
    assert all(len(e["message"]) <= 1024 for e in said), "an Event's message is bounded"
    await asyncio.sleep(3.5)  # one more of each
    await odd_leftovers()
    assert is_ready(await world.get("neighbour"))
    late = [m for r, m in await world.events("neighbour") if r == "Unhealthy" and "deadline" in m]
    assert not late, late


async def odd_leftovers() -> None:
    """What timed out probes have started ends."""
    await holds(lambda: len([c for c in processes() if "sleep 1234" in c or c.startswith("yes")]) <= 6, "ended")


async def bombs_and_floods(world: World) -> None:
    """A fork bomb meets its limit of processes, a flood of short lines the loop's patience, a full disk its own bound;
    the neighbour's probes go on in time."""
    probe = {**http(80), "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 1}
    await world.create("neighbour", {"image": "httpd", "readinessProbe": probe})
    await world.ready("neighbour")
    bomb = "bomb() { bomb | bomb & }; bomb; " + FOREVER
    mounts = [{"name": "v", "mountPath": "/v"}]
    await world.create("bomb", shell(bomb), restartPolicy="Never", terminationGracePeriodSeconds=1)
    await world.create("flood", shell("yes ''"), terminationGracePeriodSeconds=1)
    await world.create(
        "full",
        shell(
            f"dd if=/dev/zero of=/big bs=1M count=200 2>&1 | head -1; echo full; {FOREVER}",
        ),
        terminationGracePeriodSeconds=1,
    )
    deep = "import os\nos.chdir('/v')\nfor n in range(3000): os.mkdir('d'); os.chdir('d')\nprint('deep', flush=True)\n"
    wait = "import time; time.sleep(1000)"
    await world.create(
        "deep",
        {"image": "python", "command": ["python3", "-c", deep + wait], "volumeMounts": mounts},
        volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}],
        securityContext={"fsGroup": 0},
        terminationGracePeriodSeconds=1,
    )
    for name in ("flood", "full", "deep"):
        await world.ready(name)
    full = await world.get("full")
    deep_one = await world.get("deep")
    await holds(lambda: "full" in world.log_text(full) and "deep" in world.log_text(deep_one), "done")
    assert "No space left" in world.log_text(full), world.log_text(full)
    loop = asyncio.get_running_loop()
    late = []
    for _ in range(100):
        began = loop.time()
        await asyncio.sleep(0.01)
        late.append(loop.time() - began - 0.01)
    assert sorted(late)[50] < 0.5, sorted(late)[::10]
    assert len([c for c in processes() if "bomb()" in c]) <= 64 + 5
    told = [m for r, m in await world.events("neighbour") if r == "Unhealthy" and "deadline" in m]
    assert not told, told
    code, out, err = await execute(world, "neighbour", ["echo", "fine"])
    assert (code, out) == (0, b"fine\n"), err
    for name in ("bomb", "flood", "full", "deep"):
        await world.delete(name)
    for name in ("bomb", "flood", "full", "deep"):
        await world.vanished(name, 15)
    assert not [c for c in processes() if "bomb()" in c or c.startswith("yes")]
    left = sorted(p.name for p in (world.settings.state_dir / "pods").iterdir())
    assert left == [(await world.get("neighbour"))["metadata"]["uid"]], left


bombs_and_floods.options = {  # type: ignore[attr-defined]
    "pod_pids_limit": 64, "volume_look_seconds": 0.3, "writable_layer_bytes": 20 << 20, "log_file_bytes": 1 << 20,
}  # fmt: skip


async def links_lead_nowhere_else(world: World) -> None:
    """A volume's links, rewritten all the while, never lead a subPath out of the volume, nor what the agent itself does
    with it: giving it to a group, looking at its size, removing it."""
    secret = world.settings.state_dir.parent / "secret"
    secret.mkdir(mode=0o700)
    (secret / "file").write_text("not for Pods")
    before = os.stat(secret)
    race = (
        "while true; do rm -rf /v/here; mkdir /v/here; rm -rf /v/here; ln -s " + str(secret) + " /v/here; "
        "rm -f /v/up; ln -s ../../../../../../../../etc /v/up; done"
    )
    mounts = [{"name": "v", "mountPath": "/v"}]
    volumes = [{"name": "v", "hostPath": {"path": str(world.settings.state_dir.parent / "shared"), "type": ""}}]
    await world.create("racer", shell(race, volumeMounts=mounts), volumes=volumes, terminationGracePeriodSeconds=1)
    await world.ready("racer")
    looks = "cat /w/file 2>/dev/null; ls /w; ls /u 2>/dev/null; exit 0"
    inner = [{"name": "v", "mountPath": "/w", "subPath": "here"}, {"name": "v", "mountPath": "/u", "subPath": "up"}]
    for number in range(20):
        name = f"look{number}"
        await world.create(name, shell(looks, volumeMounts=inner), volumes=volumes, restartPolicy="Never")
    for number in range(20):
        pod = await world.until(
            f"look{number}",
            lambda p: (
                p["status"].get("phase") in ("Succeeded", "Failed")
                or (
                    "waiting" in container_status(p).get("state", {})
                    and container_status(p)["state"]["waiting"]["reason"].endswith("Error")
                )
            ),
            "ended",
        )
        with contextlib.suppress(FileNotFoundError):
            said = world.log_text(pod)
            assert "not for Pods" not in said and "passwd" not in said, said
    owned = {"fsGroup": 4242 if mode_here() != "one id" else 0}
    empty = [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]
    await world.create(
        "owned", shell(race, volumeMounts=mounts), volumes=empty, securityContext=owned, terminationGracePeriodSeconds=1
    )
    await world.ready("owned")
    await asyncio.sleep(0.5)
    for name in ("owned", "racer"):
        await world.delete(name)
        await world.vanished(name)
    after = os.stat(secret)
    assert (secret / "file").read_text() == "not for Pods"
    assert (after.st_gid, after.st_mode, os.stat(secret / "file").st_gid) == (
        before.st_gid, before.st_mode, before.st_gid,
    )  # fmt: skip


links_lead_nowhere_else.options = {"volume_look_seconds": 0.05}  # type: ignore[attr-defined]
