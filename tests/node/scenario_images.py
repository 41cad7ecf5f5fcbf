"""Scenarios of images that were loaded from files: they run on their own files, as their configuration says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from kubesvc.node.imagestore import ImageStore

from .imagemaking import docker_save, entry, layer
from .scenarios import execute, inside, waiting_for
from .world import World, container_status

PROGRAMS = ("sh", "cat", "ls", "id", "sleep", "touch")


def small_layer(*more: Path) -> bytes:
    """A few programs of this machine with the libraries that they need, and what else is wanted of it."""
    wanted = {str(path).lstrip("/"): path for path in more}
    for name in PROGRAMS:
        found = shutil.which(name, path="/usr/bin:/bin")
        assert found is not None
        wanted[f"bin/{name}"] = Path(found)
        said = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
        for path in re.findall(r"(/\S+) \(0x", said):
            wanted[path.lstrip("/")] = Path(path)
    entries: list[Any] = [entry(name, "file", path.read_bytes()) for name, path in sorted(wanted.items())]
    accounts = entry("etc/passwd", "file", "web:x:33:44::/:\n", 0o644), entry("etc/group", "file", "www:x:55:\n", 0o644)
    return layer(*entries, *accounts, entry("gone", "file", "x"), entry("tmp/", "dir", mode=0o1777))


async def loaded_images_run(world: World) -> None:
    """Entrypoint, command, environment, user, working directory; the Pod's own settings go before them."""
    store = world.settings.image_store
    assert store is not None
    top = layer(entry(".wh.gone"), entry("motto", "file", "layered\n", 0o644), entry("tmp/kept", "file", "", 0o644))
    archive = docker_save(
        store.parent / "shop.tar", [small_layer(), top], ["shop:1"], Entrypoint=["/bin/sh", "-c"],
        Cmd=["echo $MODE in $(pwd); id; while :; do sleep 0.1; done"], Env=["MODE=sold", "PATH=/bin"], User="web:www",
        WorkingDir="/srv/shop",
    )  # fmt: skip
    await world.create("early", {"image": "shop:1"})
    await world.until("early", waiting_for("ErrImagePull"), "waits for its image")
    ImageStore(store).load(archive)
    await world.create("shop", {"image": "shop:1"})
    pod = await world.ready("shop")
    status = container_status(pod)
    assert status["image"] == "docker.io/library/shop:1" and status["imageID"].startswith("sha256:")
    assert "StandIn" not in [reason for reason, _ in await world.events("shop")]
    await inside(
        world, "shop", "sh", "-c", "read x < /motto && [ $x = layered ] && [ ! -e /gone ] && [ ! -e /usr/bin ]"
    )
    assert world.agent.context is not None
    if world.agent.context.overlay is not None:
        await inside(world, "shop", "sh", "-c", "[ -e /tmp/kept ] && touch /tmp/new && ! touch /motto 2>/dev/null")
    else:  # no layer can be laid over it: the usual scratch places are empty and writable, the rest as it is
        await inside(world, "shop", "sh", "-c", "[ ! -e /tmp/kept ] && touch /tmp/new && ! touch /motto 2>/dev/null")
    _, out, _ = await execute(world, "shop", ["ls", "/"])
    assert {"bin", "etc", "motto", "proc", "srv", "tmp"} <= set(out.decode().split()), out
    said = world.log_text(pod)
    assert said.startswith("sold in /srv/shop\nuid=33(web) gid=55(www)"), said
    mine = {"image": "shop:1", "args": ["echo $MODE; id"], "env": [{"name": "MODE", "value": "given"}]}
    who = {"runAsUser": 0, "runAsGroup": 0}
    await world.create("own", {**mine, "securityContext": who}, restartPolicy="Never")
    pod = await world.until("own", lambda p: p["status"].get("phase") == "Succeeded", "succeeded")
    assert world.log_text(pod).startswith("given\nuid=0 gid=0")
    assert "MODE" not in (Path(ImageStore(store).find("shop:1").directory) / "motto").read_text()  # type: ignore[union-attr]
    for name in ("early", "shop", "own"):
        await world.delete(name, grace_seconds=1)
