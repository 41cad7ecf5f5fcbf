"""The network of sandboxes that a container runtime makes: its CNI plugin asks here, and the node wires as for its own.

A runtime makes a network namespace for a Pod and calls its CNI plugin, ours (`cni.py`), which goes into the namespace
and connects to the agent. The directory of agents is named by the runtime's configuration of the network; for each Pod
that is being made, a link by its uid leads to the agent that waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..sandbox import Sandboxes
from .wire import Message

AGENTS = Path("/run/kubesvc/cni")
"""Where agents are found unless the network's configuration says otherwise."""
TYPE = "kubesvc-cni"
CONFIGURATION = "00-kubesvc.conflist"
MOST_BYTES = 1 << 16
CALL_SECONDS = 10.0


class NetworkDoor:
    """Where the CNI plugin finds this agent.

    agents:  the directory of agents
    owner:   what tells this agent from others, such as its state directory
    """

    def __init__(self, agents: Path, owner: str, sandboxes: Sandboxes) -> None:
        self.agents = agents
        self.path = agents / f".{hashlib.sha256(owner.encode()).hexdigest()[:16]}.sock"
        self.sandboxes = sandboxes
        self.expected: dict[str, Sequence[str] | None] = {}
        self.devices: dict[str, str] = {}
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        """OSError if the directory cannot be written."""
        self.agents.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self.server = await asyncio.start_unix_server(self.answer, str(self.path), limit=MOST_BYTES)
        self.path.chmod(0o600)

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()
            self.path.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def expect(self, uid: str, ips: Sequence[str] | None) -> AsyncIterator[None]:
        """Answer for this Pod while the block runs; None: with the node's own network."""
        link = self.agents / uid
        link.unlink(missing_ok=True)
        link.symlink_to(self.path.name)
        self.expected[uid] = ips
        try:
            yield
        finally:
            del self.expected[uid]
            link.unlink(missing_ok=True)

    def wired(self, uid: str) -> str | None:
        """The node's end of the Pod's link, made since it was last asked; None if the plugin never asked."""
        return self.devices.pop(uid, None)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One call of the plugin."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                told = await self.wire(json.loads(await reader.readline()), peer(writer))
        except (OSError, ValueError, KeyError, TypeError) as error:  # TimeoutError is an OSError
            told = {"error": str(error) or type(error).__name__}
        with contextlib.suppress(OSError):
            writer.write(json.dumps(told).encode() + b"\n")
            await writer.drain()
        # It stays in the namespace until it has read, so nothing is closed before that.
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CALL_SECONDS):
                await reader.read()
        writer.close()

    async def wire(self, asked: Any, pid: int) -> Message:
        uid = asked["uid"]
        if uid not in self.expected:
            return {"error": f"this node is not making Pod {uid}"}
        ips = self.expected[uid]
        if ips is None:
            self.devices[uid] = ""
            return {"share": True, "ips": ["127.0.0.1"]}
        if not pid:
            return {"error": "this node's agent does not see the host's processes"}
        self.devices[uid] = await self.sandboxes.connect(uid, pid, ips)
        return {"ips": list(ips)}


def peer(writer: asyncio.StreamWriter) -> int:
    """The process at the other end of a unix socket; 0 if it is in a process namespace that is not seen here."""
    connection = writer.get_extra_info("socket")
    found: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return found


def find_agents(status: Message) -> tuple[Path | None, list[str]]:
    """(the directory of agents, the networks that the runtime has) by a verbose Status answer; None where it has a
    network and that is not ours. Pure."""
    text = status["info"].get("cniconfig")
    if text is None:  # CRI-O does not tell
        return AGENTS, []
    names: list[str] = []
    try:
        for network in msgspec.json.decode(text).get("Networks") or ():
            for plugin in network["Config"]["Plugins"]:
                kind = plugin["Network"]["type"]
                if kind == TYPE:
                    return Path(msgspec.json.decode(plugin["Source"]).get("agents") or AGENTS), [TYPE]
                if kind != "loopback":
                    names.append(f"{network['Config']['Name']} ({kind})")
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
        return AGENTS, []
    return (None, names) if names else (AGENTS, [])


# -- what a runtime needs to call the plugin --------------------------------------------------------------------------


def plan_files(bin_dir: Path, conf_dir: Path, agents: Path = AGENTS) -> list[tuple[Path, str, int]]:
    """(path, text, mode) of the plugin's configuration and of the programs that a runtime calls."""
    network = {"cniVersion": "0.4.0", "name": "kubesvc", "plugins": [{"type": TYPE, "agents": str(agents)}]}
    source = Path(__file__).with_name("cni.py")
    program = f'#!{sys.executable} -IS\nimport runpy\n\nrunpy.run_path({str(source)!r}, run_name="__main__")\n'
    return [
        (bin_dir / TYPE, program, 0o755),
        (bin_dir / "loopback", program, 0o755),
        (conf_dir / CONFIGURATION, json.dumps(network, indent=2) + "\n", 0o644),
    ]


def write_cni(conf_dir: Path, bin_dir: Path, agents: Path = AGENTS) -> list[Path]:
    """Write them; a `loopback` that is there is left alone. Returns what was written. OSError."""
    written = []
    for path, text, mode in plan_files(bin_dir, conf_dir, agents):
        if path.name == "loopback" and path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(mode)
        os.replace(fresh, path)
        written.append(path)
    return written
