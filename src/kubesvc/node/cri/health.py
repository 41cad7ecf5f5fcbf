"""Whether a container runtime is fit to run Pods here, and what to do if it is not."""

from __future__ import annotations

import asyncio
from pathlib import Path

from .client import CriClient, RuntimeProblem, explain_socket
from .network import find_agents
from .wire import Message

ASK_SECONDS = 20.0
GREETED_SECONDS = 3.0
"""Who looks at a socket for the first time does not wait long for what may be no runtime."""
REMEDY = "kubesvc node --write-cni CONF_DIR BIN_DIR (the runtime's own: mostly /etc/cni/net.d and /opt/cni/bin)"


def condition(status: Message, name: str) -> Message:
    """One condition of a Status answer; one that a runtime does not tell is taken for false."""
    found = [c for c in (status["status"] or {}).get("conditions", ()) if c["type"] == name]
    return found[0] if found else {"type": name, "status": False, "reason": "", "message": "the runtime does not tell"}


def plan_troubles(status: Message, path: Path) -> list[str]:
    """What a Status answer, verbose or not, has against running Pods, each with what to do. Pure."""
    found = []
    runtime, network = condition(status, "RuntimeReady"), condition(status, "NetworkReady")
    if not runtime["status"]:
        found.append(f"the runtime at {path} is not ready: {runtime['reason']} {runtime['message']}".rstrip())
    agents, networks = find_agents(status)
    if agents is None:
        found.append(f"the network of the runtime at {path} is {', '.join(networks)} and not kubesvc's: {REMEDY}")
    elif not network["status"]:
        words = f"{network['reason']}: {network['message']}"
        found.append(f"the runtime at {path} has no network for Pods ({words}); give it ours: {REMEDY}")
    return found


async def examine_runtime(path: Path) -> tuple[str, list[str]]:
    """(name and version, what stands in the way of Pods) of the runtime behind a socket. RuntimeProblem if it cannot
    be asked."""
    if words := explain_socket(path):
        raise RuntimeProblem(words, "UNAVAILABLE")
    client = CriClient(path, GREETED_SECONDS)
    try:
        async with asyncio.timeout(ASK_SECONDS):
            version = await client.call("Version", {"version": "v1"}, ASK_SECONDS / 2)
            status = await client.call("Status", {"verbose": True}, ASK_SECONDS / 2)
    except TimeoutError:
        raise RuntimeProblem(f"{path} did not answer in time", "DEADLINE_EXCEEDED") from None
    finally:
        await client.close()
    return shown_version(version), plan_troubles(status, path)


def shown_version(version: Message) -> str:
    """Name and version as Node statuses have them: `containerd://1.6.20`."""
    return f"{version['runtime_name']}://{version['runtime_version'].removeprefix('v')}"
