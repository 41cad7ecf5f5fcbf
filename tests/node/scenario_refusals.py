"""What cannot hold for an ordinary user, said in the words that users see (`REFUSALS` lists it)."""

from __future__ import annotations

import asyncio

from kubesvc.node.imagestore import ImageStore

from .imagemaking import docker_save
from .scenario_images import small_layer
from .scenarios import FOREVER, shell, waiting_for
from .world import World, condition, container_status, processes

NO_SUCH_GROUP, NO_SUCH_USER = "no such group here: ", "no such user here: "


async def no_control_groups(world: World) -> None:
    """An ordinary user may make no control group: the Node says which limits do not hold, and what stands for them."""
    assert world.agent.context is not None and world.agent.context.groups is not None
    assert world.agent.context.groups.controllers == ()
    told = [e["message"] for e in await world.events_of("n1") if e["reason"] == "LimitsNotHeld"]
    assert len(told) == 1 and "RLIMIT_DATA" in told[0] and "cpu limits do not hold" in told[0], told
    container = shell(FOREVER, resources={"limits": {"memory": "64Mi", "cpu": "100m"}})
    await world.create("limited", container)
    await world.ready("limited")


async def no_other_groups(world: World) -> None:
    """Of one id nothing can be given to another group or user: the Pod waits and says why."""
    volumes = [{"name": "v", "emptyDir": {}}]
    await world.create("group", shell(FOREVER), volumes=volumes, securityContext={"fsGroup": 2000})
    await world.create("user", shell(FOREVER), securityContext={"runAsUser": 1000})
    pod = await world.until("user", waiting_for("CreateContainerConfigError"), "refused")
    assert container_status(pod)["state"]["waiting"]["message"].startswith(f"{NO_SUCH_USER}1000"), pod["status"]
    pod = await world.until("group", lambda p: "conditions" in p["status"], "looked at")
    assert condition(pod, "Ready") == "False"
    words = NO_SUCH_GROUP + "2000"
    await world.told("group", lambda es: any(e["reason"] == "FailedMount" and words in e["message"] for e in es), words)


async def no_users_of_images(world: World) -> None:
    """An image whose user is not root does not run where that user does not exist."""
    store = world.settings.image_store
    assert store is not None
    archive = docker_save(store.parent / "shop.tar", [small_layer()], ["shop:1"], Cmd=["/bin/sh"], User="33")
    ImageStore(store).load(archive)
    await world.create("shop", {"image": "shop:1"})
    pod = await world.until("shop", waiting_for("CreateContainerConfigError"), "refused")
    assert container_status(pod)["state"]["waiting"]["message"].startswith(f"{NO_SUCH_USER}33"), pod["status"]


async def processes_are_bounded_by_user(world: World) -> None:
    """For an ordinary user the bound on processes is one for all that the user runs: it still ends a fork bomb, and
    the node lives, but who lives beside the bomb may find no room for a new process."""
    bomb = "bomb() { bomb | bomb & }; bomb; " + FOREVER
    await world.create("bomb", shell(bomb), restartPolicy="Never", terminationGracePeriodSeconds=1)
    await world.until("bomb", lambda p: p["status"].get("phase") in ("Running", "Succeeded", "Failed"), "started")
    await asyncio.sleep(1)
    assert len([c for c in processes() if "bomb()" in c]) <= LIMIT
    await world.delete("bomb")
    await world.vanished("bomb", 15)
    assert not [c for c in processes() if "bomb()" in c]
    await world.create("after", shell(FOREVER))
    await world.ready("after")


LIMIT = 150
processes_are_bounded_by_user.options = {"pod_pids_limit": LIMIT}  # type: ignore[attr-defined]
