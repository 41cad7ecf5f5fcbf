"""Scenarios of starts that fail, and of sandboxes that are lost while the agent lives."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

from kubesvc.api.kinds import SECRET
from kubesvc.api.meta import Object
from kubesvc.node.imagestore import ImageStore

from .imagemaking import docker_save
from .scenario_images import small_layer
from .scenarios import FOREVER, execute, inside, shell, waiting_for
from .world import World, condition, container_status, holds, is_ready, processes

STRICT = {"runAsNonRoot": True}


async def what_cannot_start_says_so(world: World) -> None:
    """NODE-19, NODE-78, NODE-89: each step's own reason, and the words of what stands in the way."""
    store = world.settings.image_store
    assert store is not None
    for name, settings in (
        ("empty", {}), ("ghost", {"User": "ghost", "Cmd": ["/bin/sh"]}), ("web", {"User": "web", "Cmd": ["/bin/sh"]}),
        ("band", {"User": "0:band", "Cmd": ["/bin/sh"]}),
    ):  # fmt: skip
        path = docker_save(store.parent / f"{name}.tar", [small_layer()], [f"{name}:1"], **settings)
        ImageStore(store).load(path)
    await world.client.create(SECRET, {"metadata": {"name": "sec"}, "data": {"a": "YQ=="}}, "default")
    key = {"name": "V", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "b"}}}
    env = {"envFrom": [{"secretRef": {"name": "none"}}]}
    config, create = "CreateContainerConfigError", "CreateContainerError"
    cases: dict[str, tuple[dict[str, Any], str, str]] = {
        "key": (shell(FOREVER, env=[key]), config, "couldn't find key b in Secret default/sec"),
        "secret": (shell(FOREVER, **env), config, 'secret "none" not found'),
        "root": (shell(FOREVER, securityContext=STRICT), config,
                 "container has runAsNonRoot and image will run as root (pod: {pod}, container: c)"),
        "zero": (shell(FOREVER, securityContext={**STRICT, "runAsUser": 0}), config,
                 "container's runAsUser breaks non-root policy (pod: {pod}, container: c)"),
        "named": ({"image": "web:1", "securityContext": STRICT}, config,
                  "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root "
                  "(pod: {pod}, container: c)"),
        "empty": ({"image": "empty:1"}, create, "no command specified"),
        "ghost": ({"image": "ghost:1"}, create, "unable to find user ghost: no matching entries in passwd file"),
        "band": ({"image": "band:1"}, create, "unable to find group band: no matching entries in group file"),
        "program": ({"image": "busybox", "command": ["no-such-program"]}, "RunContainerError",
                    'exec: "no-such-program": executable file not found in $PATH'),
        "path": ({"image": "busybox", "command": ["/no/such"]}, "RunContainerError",
                 'exec: "/no/such": stat /no/such: no such file or directory'),
        "denied": ({"image": "busybox", "command": ["/etc/passwd"]}, "RunContainerError",
                   'exec: "/etc/passwd": permission denied'),
        "place": (shell(FOREVER, workingDir="/etc/passwd"), "RunContainerError",
                  'chdir to cwd ("/etc/passwd") set in config.json failed: not a directory'),
    }  # fmt: skip
    for name, (container, _, _) in cases.items():
        await world.create(name, container)
    seen = await asyncio.gather(*(world.until(name, waiting_for(case[1]), case[1]) for name, case in cases.items()))
    for (name, (_, reason, message)), pod in zip(cases.items(), seen, strict=True):
        status, uid = container_status(pod), pod["metadata"]["uid"]
        wanted = message.replace("{pod}", f'"{name}_default({uid})"')
        assert status["state"]["waiting"]["message"] == wanted, (name, status)
        assert ("Failed", f"Error: {wanted}") in await world.events(name), name
        if reason == "RunContainerError":
            end = status["lastState"]["terminated"] if status["lastState"] else None
            assert end is None or (end["exitCode"], end["reason"]) == (128, "StartError"), status
        else:  # there was no run
            assert (status["restartCount"], status["lastState"]) == (0, {}), status
            assert pod["status"]["phase"] == "Pending"
    again = await world.until("program", waiting_for("CrashLoopBackOff"), "backing off")
    assert container_status(again)["lastState"]["terminated"]["reason"] == "StartError"
    await world.create("once", {"image": "busybox", "command": ["no-such-program"]}, restartPolicy="Never")
    once = await world.until("once", lambda p: p["status"].get("phase") == "Failed", "failed")
    end = container_status(once)["state"]["terminated"]
    assert (end["exitCode"], end["reason"]) == (128, "StartError")
    await world.client.create(SECRET, {"metadata": {"name": "none"}, "data": {"a": "YQ=="}}, "default")
    await world.ready("secret")
    # What is not there can be made: a working directory; and a container's own word goes before its Pod's.
    allowed = shell("pwd; " + FOREVER, workingDir="/no/such/place", securityContext={"runAsNonRoot": False})
    await world.create("allowed", allowed, securityContext=STRICT)
    pod = await world.ready("allowed")
    await holds(lambda: world.log_text(pod) == "/no/such/place\n", "where it was told to be")
    for name in (*cases, "once", "allowed"):
        await world.delete(name, grace_seconds=0)


async def a_lost_sandbox_is_made_anew(world: World) -> None:
    """NODE-10, NODE-92: the process that holds a Pod's namespaces is killed under the agent. What the Pod's policy lets
    run again does, in new namespaces under another address; the rest has ended."""
    init = [{"name": "first", **shell("echo first")}]
    trapping = {"image": "busybox", "command": ["sh", "-c", f"trap 'exit 0' TERM; touch /tmp/set; {FOREVER}"]}
    web = {**trapping, "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/set"]}, "periodSeconds": 1}}
    await world.create("always", web, initContainers=init)
    await world.create("shared", shell(FOREVER), shareProcessNamespace=True)
    beside = {"name": "d", "image": "busybox", "command": ["true"]}
    await world.create("failure", web, beside, restartPolicy="OnFailure")
    await world.create("never", web, restartPolicy="Never")
    before = {name: await world.ready(name) for name in ("always", "shared", "never")}
    before["failure"] = await world.until(
        "failure", lambda p: "terminated" in str(container_status(p, "d")) and container_status(p)["ready"], "ended"
    )
    for name in before:
        worker = world.agent.worker("default", name)
        assert worker is not None and worker.pause is not None
        os.kill(worker.pause.pid, signal.SIGKILL)
    seen: list[tuple[str, str]] = []

    def again(pod: Object) -> bool:
        shown = pod["status"].get("podIP", ""), condition(pod, "PodReadyToStartContainers")
        seen.extend([shown] if shown not in seen else [])
        return is_ready(pod) and container_status(pod)["restartCount"] == 1

    pod = await world.until("always", again, "ready again")
    old, new = before["always"]["status"]["podIP"], pod["status"]["podIP"]
    assert seen[0][0] == old and ("False" in {c for _, c in seen}), seen
    assert new != old and {ip for ip, _ in seen} == {old, new}, seen
    assert pod["status"]["podIPs"] == [{"ip": new}]
    end = container_status(pod)["lastState"]["terminated"]
    assert (end["exitCode"], end["reason"]) == (0, "Completed"), end  # it was given its time
    assert pod["status"]["initContainerStatuses"][0]["restartCount"] == 1
    await inside(world, "always", "sh", "-c", f"grep -q '^{new}' /etc/hosts")
    told = [(e["type"], e["message"]) for e in await world.events_of("always") if e["reason"] == "SandboxChanged"]
    assert told == [("Normal", "Pod sandbox changed, it will be killed and re-created.")]
    pod = await world.until("shared", lambda p: is_ready(p) and container_status(p)["restartCount"] == 1, "again")
    assert container_status(pod)["lastState"]["terminated"]["exitCode"] == 137
    pod = await world.until("failure", lambda p: is_running(p) and container_status(p)["restartCount"] == 1, "again")
    assert container_status(pod, "d")["restartCount"] == 0 and "terminated" in container_status(pod, "d")["state"]
    pod = await world.until("never", lambda p: p["status"]["phase"] == "Succeeded", "over")
    assert "SandboxChanged" not in [reason for reason, _ in await world.events("never")]
    for name in before:
        await world.delete(name, grace_seconds=1)
    for name in before:
        await world.vanished(name)
    assert not [c for c in processes() if "trap" in c]


async def what_joined_a_container_does_not_hold_up_its_end(world: World) -> None:
    """NODE-52, NODE-65: a probe and an exec are under way when their container is told to end. The first process of a
    namespace, be it the container's or the Pod's, ends last of all that is in it; and here nobody reaps what lost its
    parent. What an exec has started ends also when its client leaves."""
    probe = {"exec": {"command": ["sh", "-c", "sleep 1000 & sleep 1000"]}, "timeoutSeconds": 1000}
    program = ["sh", "-c", f"trap 'exit 0' TERM; {FOREVER}"]
    await world.create("probed", {"image": "busybox", "command": program, "livenessProbe": probe})
    await world.create("together", {"image": "busybox", "command": program}, shareProcessNamespace=True)
    for name in ("probed", "together"):
        await world.ready(name)
    talks = ["sh", "-c", "sleep 1000 & sleep 1000"], ["sh", "-c", "setsid sleep 1000 & sleep 1000"]
    both = [asyncio.create_task(execute(world, n, c)) for n, c in zip(("probed", "together"), talks, strict=True)]
    wanted = {"namespace": "default", "pod": "probed", "container": "c", "command": ["sh", "-c", "sleep 2000; true"]}
    first, _, writer = await world.ask("exec " + json.dumps(wanted))
    assert first == {"ok": True}
    await holds(lambda: processes().count("sleep 1000 ") == 6 and "sleep 2000 " in processes(), "under way")
    writer.close()
    await holds(lambda: not [c for c in processes() if "sleep 2000" in c], "ended with its client")
    for asking in both:
        asking.cancel()
    await asyncio.wait(both)
    for name in ("probed", "together"):
        await world.delete(name)
    for name in ("probed", "together"):
        await world.vanished(name, 4.0)
    assert not [c for c in processes() if "sleep 1000" in c]


def is_running(pod: Object) -> bool:
    return "running" in container_status(pod).get("state", {})


async def terminals_are_the_pods_own(world: World) -> None:
    """NODE-100: of a container with a tty and of an exec: by the name that the program has for it, in the Pod alone."""
    named = "t=$(tty); [ -c $t ] && echo $t > $t"
    await world.create("tty", shell(f"{named}; {FOREVER}", tty=True, stdin=True))
    pod = await world.ready("tty")
    for number in (1, 2):  # the container's own is the first, and an exec's number is given again when that has ended
        code, out, _ = await execute(world, "tty", ["sh", "-c", f"sleep 0.1; {named}"], tty=True)
        assert (code, out) == (0, b"/dev/pts/1\r\n"), (number, out)
    await holds(lambda: world.log_text(pod) == "/dev/pts/0\n", "the first")
    code, out, _ = await execute(world, "tty", ["ls", "/dev/pts"])
    assert out.split() == [b"0", b"ptmx"]
    await world.delete("tty", grace_seconds=0)
