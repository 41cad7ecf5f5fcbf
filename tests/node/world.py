"""A node for tests, alone in namespaces of its own: API server, agent, and helpers to watch them.

`serve` runs a scenario with a `World`; `tests.node.mother` does so in new namespaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

from kubesvc.api.errors import NotFound
from kubesvc.api.kinds import CONFIG_MAP, EVENT, POD, SERVICE_ACCOUNT
from kubesvc.api.meta import Object
from kubesvc.apiserver import ApiServer, ApiServerSettings
from kubesvc.clock import RealClock
from kubesvc.kernel.links import NetlinkLinks
from kubesvc.kernel.trees import remove_tree
from kubesvc.node import NodeAgent, NodeSettings
from kubesvc.store import MemoryStore

NODE_ADDRESS = "172.30.0.11"
PATIENCE = 4.0
"""Whatever is waited for may take so many times as long: the machine is busy with other tests."""

Mode = Literal["root", "one id", "subordinate ids"]
"""Who runs the node: root, or an ordinary user in a user namespace, without and with subordinate ids."""


def mode_here() -> Mode:
    """Who runs the node in this process."""
    return os.environ.get("KUBESVC_TEST_MODE", "root")  # type: ignore[return-value]


class World:
    """The API server with one real node beside it."""

    def __init__(self, state_dir: Path, **settings: Any) -> None:
        self.clock = RealClock()
        self.random = random.Random(7)
        self.server = ApiServer(MemoryStore(), ApiServerSettings(), self.clock, self.random)
        usual: dict[str, Any] = {
            "node_name": "n1",
            "state_dir": state_dir,
            "pod_cidrs": ("10.244.1.0/24",),
            "node_addresses": (NODE_ADDRESS,),
            "cluster_dns": ("10.96.0.10",),
            "zone": "a",
            "image_store": state_dir.parent / "images",
        }
        self.settings = NodeSettings(**usual | settings)
        self.client: Any = None
        self.agent: NodeAgent
        self.task: asyncio.Task[None]

    async def start(self) -> None:
        await self.server.store.start()
        await self.server.start()
        self.client = self.server.client
        for kind, obj in (
            (SERVICE_ACCOUNT, {"metadata": {"name": "default"}}),
            (CONFIG_MAP, {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "x"}}),
        ):
            await self.client.create(kind, obj, "default")
        if not self.settings.simulated:
            with contextlib.closing(NetlinkLinks()) as links:
                links.set_up("lo")
                links.add_veth("eth0", "other")
                links.add_address("eth0", f"{NODE_ADDRESS}/24")
                links.set_up("eth0")
                links.set_up("other")
        await self.start_agent()

    async def start_agent(self) -> None:
        self.agent = NodeAgent(self.client, self.settings, self.clock, self.random)
        self.task = asyncio.create_task(self.agent.run())
        ready = asyncio.create_task(self.agent.ready.wait())
        await asyncio.wait({self.task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            self.task.result()
        assert ready.done()

    async def stop(self) -> None:
        await self.agent.stop()
        await self.server.stop()

    # -- Pods ----------------------------------------------------------------------------------------------------------

    async def create(self, name: str, *containers: Object, metadata: Object | None = None, **spec: Any) -> Object:
        pod = {
            "metadata": {"name": name, **(metadata or {})},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", **c} for c in containers], **spec},
        }
        created: Object = await self.client.create(POD, pod, "default")
        return created

    async def get(self, name: str) -> Object:
        found: Object = await self.client.get(POD, name, "default")
        return found

    async def delete(self, name: str, **options: Any) -> None:
        await self.client.delete(POD, name, "default", **options)

    async def until(self, name: str, true: Callable[[Object], bool], what: str, seconds: float = 10.0) -> Object:
        """The Pod once `true` holds for it; AssertionError with its status if that takes too long."""
        pod: Object = {}
        try:
            async with asyncio.timeout(seconds * PATIENCE):
                while True:
                    pod = await self.get(name)
                    if true(pod):
                        return pod
                    await asyncio.sleep(0.01)
        except TimeoutError:
            said = await self.events(name)
            raise AssertionError(f"{name} not {what}: {said} {json.dumps(pod.get('status'), indent=1)}") from None

    async def ready(self, name: str, seconds: float = 10.0) -> Object:
        return await self.until(name, is_ready, "ready", seconds)

    async def vanished(self, name: str, seconds: float = 10.0) -> None:
        try:
            async with asyncio.timeout(seconds * PATIENCE):
                while True:
                    try:
                        await self.get(name)
                    except NotFound:
                        return
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{name} has not vanished") from None

    async def events(self, name: str) -> list[tuple[str, str]]:
        """(reason, message) of every event about this Pod, those still waiting to be written included."""
        return [(e["reason"], e["message"]) for e in await self.events_of(name)]

    async def events_of(self, name: str) -> list[Object]:
        """Every event about this Pod, or, by its name, the Node."""
        assert self.agent.context is not None
        await asyncio.sleep(0.01)
        for _ in range(400):  # where things happen all the while there is always one more
            if not self.agent.context.events.waiting.is_set():
                break
            await asyncio.sleep(0.005)
        found = await self.client.list_raw(EVENT, "default")
        plain: list[Object] = [json.loads(item) for item in found.items]
        return [e for e in plain if e["involvedObject"]["name"] == name]

    async def told(
        self, name: str, true: Callable[[list[Object]], bool], what: str, seconds: float = 10.0
    ) -> list[Object]:
        """The events about this Pod or Node once `true` holds for them; AssertionError with them otherwise."""
        found: list[Object] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds * PATIENCE):
                while not true(found := await self.events_of(name)):
                    await asyncio.sleep(0.02)
                return found
        pod = {} if name == self.settings.node_name else await self.get(name)
        events = [(e["reason"], e["message"]) for e in found]
        raise AssertionError(f"{name}: not told {what}: {events} {json.dumps(pod.get('status'), indent=1)}")

    def log_text(self, pod: Object, container: str = "c", attempt: int = 0) -> str:
        """What a run of a container has written, times and marks cut off."""
        uid = pod["metadata"]["uid"]
        path = self.settings.state_dir / "pods" / uid / "containers" / container / f"{attempt}.log"
        return "".join(line.split(" ", 3)[3] for line in path.read_text().splitlines(keepends=True))

    async def said(self, pod: Object, words: str, container: str = "c") -> None:
        """Wait until the first run of a container has written these words."""

        def found() -> bool:
            with contextlib.suppress(FileNotFoundError):
                return words in self.log_text(pod, container)
            return False

        await holds(found, f"said: {words}")

    async def ask(self, request: str) -> tuple[Object, asyncio.StreamReader, asyncio.StreamWriter]:
        """One request at the node's door: the first line of the answer, and the streams."""
        reader, writer = await asyncio.open_unix_connection(str(self.settings.state_dir / "node.sock"))
        writer.write(request.encode() + b"\n")
        first: Object = json.loads(await reader.readline())
        return first, reader, writer


async def holds(check: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Wait until `check` finds what it looks for: in a log, a file, the processes. AssertionError if that takes too
    long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds * PATIENCE):
            while not check():
                await asyncio.sleep(0.02)
            return
    raise AssertionError(f"not {what}")


def condition(pod: Object, name: str) -> str:
    found = [c["status"] for c in pod.get("status", {}).get("conditions") or () if c["type"] == name]
    return found[0] if found else ""


def is_ready(pod: Object) -> bool:
    return condition(pod, "Ready") == "True"


def container_status(pod: Object, name: str = "c") -> Object:
    found: list[Object] = [s for s in pod["status"].get("containerStatuses") or () if s["name"] == name]
    return found[0] if found else {}


def processes() -> list[str]:
    """The commands of all processes of this process namespace but this one."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                found.append(Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return [command for command in found if command]


async def serve(scenario: Callable[[World], Awaitable[None]], directory: Path, options: dict[str, Any]) -> None:
    """Run a scenario with a world of its own, whose state is kept in `directory`."""
    world = World(directory, **options)
    await world.start()
    try:
        await scenario(world)
    finally:
        await world.stop()
        remove_tree(directory / "pods")
