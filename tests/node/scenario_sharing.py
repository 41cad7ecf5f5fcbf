"""Scenarios of what Pods share and own: namespaces, volumes, host ports; and of ends that nobody saw."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from .scenarios import FOREVER, execute, shell
from .world import NODE_ADDRESS, PATIENCE, World, container_status, holds, processes


async def containers_share_what_they_say(world: World) -> None:
    """shareProcessNamespace, hostPID and hostIPC; nothing stays behind of a container that shared its processes."""
    both = [shell("setsid sleep 1111 & until [ -e /tmp/go ]; do sleep 0.1; done", name="a"), shell(FOREVER, name="b")]
    await world.create("shared", *both, shareProcessNamespace=True, restartPolicy="Never")
    await world.create("host", shell(FOREVER), hostPID=True, hostIPC=True)
    await world.create("alone", shell(FOREVER))
    for name in ("shared", "host", "alone"):
        await world.ready(name)
    await holds(lambda: any(c.startswith("sleep 1111") for c in processes()), "begun")
    code, out, err = await execute(world, "shared", ["sh", "-c", "cat /proc/*/cmdline | tr '\\0' ' '"], container="b")
    assert code == 0 and b"sleep 1111" in out and b"sleep infinity" in out, (out, err)
    _, out, _ = await execute(world, "alone", ["sh", "-c", "cat /proc/*/cmdline | tr '\\0' ' '"])
    assert b"sleep infinity" not in out and b"sleep 1111" not in out, out
    _, out, _ = await execute(world, "host", ["sh", "-c", "cat /proc/*/cmdline | tr '\\0' ' '"])
    assert b"sleep 1111" in out, out
    ipcs = [(await execute(world, n, ["readlink", "/proc/self/ns/ipc"]))[1].decode().strip() for n in ("host", "alone")]
    assert ipcs[0] == os.readlink("/proc/self/ns/ipc") != ipcs[1]
    await execute(world, "shared", ["touch", "/tmp/go"], container="a")
    await world.until("shared", lambda p: "terminated" in container_status(p, "a").get("state", {}), "ended")
    await holds(lambda: not [c for c in processes() if c.startswith("sleep 1111")], "ended with its container")
    for name in ("shared", "host", "alone"):
        await world.delete(name, grace_seconds=1)
    for name in ("shared", "host", "alone"):
        await world.vanished(name)
    assert not [c for c in processes() if c.startswith(("sh -c", "sleep 9999"))]


async def volumes_have_owners_and_sizes(world: World) -> None:
    """fsGroup, emptyDir in memory and its limit, eviction for a volume that outgrows its limit (NODE-73)."""
    mounts = [{"name": n, "mountPath": f"/{n}"} for n in ("disk", "memory", "labels")]
    volumes: list[dict[str, Any]] = [
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}},
        {"name": "labels", "downwardAPI": {"defaultMode": 256, "items": [
            {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]  # fmt: skip
    who = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000}
    await world.create("owned", shell(FOREVER, volumeMounts=mounts), volumes=volumes, securityContext=who)
    await world.ready("owned")
    for command, expected in (
        ("stat -c '%g %a' /disk /memory", "2000 2777 2000 2777"),
        ("echo x > /disk/file && stat -c '%u %g' /disk/file", "1000 2000"),
        ("cat /labels/name", "owned"),
        ("stat -f -c %T /memory", "tmpfs"),
        ("dd if=/dev/zero of=/memory/big bs=1M count=4 2>/dev/null; stat -c %s /memory/big", str(2 << 20)),
        ("id -G", "1000 2000"),
    ):
        code, out, err = await execute(world, "owned", ["sh", "-c", command])
        assert " ".join(out.decode().split()) == expected, (command, code, out, err)
    full = [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]
    mount = [{"name": "v", "mountPath": "/v"}]
    fill = shell(f"dd if=/dev/zero of=/v/x bs=1M count=3 2>/dev/null; {FOREVER}", volumeMounts=mount)
    await world.create("full", fill, volumes=full)
    pod = await world.until("full", lambda p: p["status"].get("phase") == "Failed", "evicted")
    assert pod["status"]["reason"] == "Evicted"
    assert pod["status"]["message"] == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
    for name in ("owned", "full"):
        await world.delete(name)
        await world.vanished(name)
    assert "/volumes/memory" not in Path("/proc/self/mountinfo").read_text()


volumes_have_owners_and_sizes.options = {"volume_look_seconds": 0.2}  # type: ignore[attr-defined]


async def host_ports_lead_to_pods(world: World) -> None:
    """NODE-61, CONF-4: by the node's address, from the node and from the Pod itself; gone with the Pod; equal ports of
    different protocols live side by side."""
    serve = {"image": "agnhost", "args": ["netexec", "--http-port=8080", "--udp-port=8081"]}
    ports = [{"containerPort": 8080, "hostPort": 9000}, {"containerPort": 8081, "hostPort": 9000, "protocol": "UDP"}]
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}
    await world.create("served", {**serve, "ports": ports, "readinessProbe": probe})
    await world.ready("served")
    await world.create("client", shell(FOREVER))
    await world.ready("client")

    async def fetch(first: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        assert first == {"ok": True}, first
        writer.write(b"GET /hostname HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(10 * PATIENCE):
            return (await reader.read()).rpartition(b"\n")[2].strip()

    assert await fetch(*await world.ask(f"tcp {NODE_ADDRESS} 9000")) == b"served"
    code = "import socket; s = socket.create_connection(('%s', 9000)); s.send(b'GET /hostname HTTP/1.0\\r\\n\\r\\n');"
    code = code % NODE_ADDRESS + "print(s.makefile().read().split()[-1])"
    for pod in ("client", "served"):
        status, out, err = await execute(world, pod, ["python3", "-c", code])
        assert (status, out) == (0, b"served\n"), (pod, err)
    first, reader, writer = await world.ask(f"udp {NODE_ADDRESS} 9000")
    writer.write(b"\x00\x0decho datagrams"[:2] + b"echo datagram")
    async with asyncio.timeout(10 * PATIENCE):
        assert await reader.readexactly(10) == b"\x00\x08datagram"
    writer.close()
    await world.agent.stop()
    await world.start_agent()
    await world.ready("served")
    assert await fetch(*await world.ask(f"tcp {NODE_ADDRESS} 9000")) == b"served"
    await world.delete("served", grace_seconds=1)
    await world.vanished("served")
    first, _, _ = await world.ask(f"tcp {NODE_ADDRESS} 9000")
    assert "refused" in first["error"]


async def ends_of_adopted_containers_are_known(world: World) -> None:
    """A container that an earlier agent started ends with its own exit code, not an unknown one."""
    wait = "while [ ! -e /flag/go ]; do sleep 0.05; done; exit 7"
    mount = [{"name": "f", "mountPath": "/flag"}]
    pod = await world.create(
        "adopted", shell(wait, volumeMounts=mount), restartPolicy="Never", volumes=[{"name": "f", "emptyDir": {}}]
    )
    await world.ready("adopted")
    await world.agent.stop()
    await world.start_agent()
    await world.ready("adopted")
    (world.settings.state_dir / "pods" / pod["metadata"]["uid"] / "volumes/f/go").touch()
    found = await world.until("adopted", lambda p: p["status"].get("phase") == "Failed", "failed")
    end = container_status(found)["state"]["terminated"]
    assert (end["exitCode"], end["reason"]) == (7, "Error"), end
