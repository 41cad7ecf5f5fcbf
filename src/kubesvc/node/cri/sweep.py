"""Removes what nodes have left with a container runtime: `python -m kubesvc.node.cri.sweep SOCKET STATE_DIR...`.

It is for whoever ends a node from outside, when its agent is gone. Prints what stayed, and ends with 1 then.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from .client import CriClient, RuntimeProblem
from .config import OWNER
from .runtime import SUBPATHS
from .subpaths import free_all

CALL_SECONDS = 20.0


async def sweep(socket: Path, owners: list[str]) -> list[str]:
    """Remove every sandbox of these owners with its containers; words on each that stayed."""
    client = CriClient(socket)
    stayed = []
    try:
        for owner in owners:
            request = {"filter": {"label_selector": {OWNER: owner}}}
            items = (await client.call("ListPodSandbox", request, CALL_SECONDS))["items"]
            done = await asyncio.gather(*(remove(client, item["id"]) for item in items), return_exceptions=True)
            stayed += [f"sandbox {i['id']}: {e}" for i, e in zip(items, done, strict=True) if e is not None]
    except RuntimeProblem as error:
        stayed.append(str(error))
    finally:
        await client.close()
    for owner in owners:
        for directory in Path(owner, SUBPATHS).glob("*"):
            free_all(directory)
    return stayed


async def remove(client: CriClient, id: str) -> None:
    for method in ("StopPodSandbox", "RemovePodSandbox"):
        try:
            await client.call(method, {"pod_sandbox_id": id}, CALL_SECONDS)
        except RuntimeProblem as error:
            if error.code != "NOT_FOUND":
                raise


def main() -> int:
    stayed = asyncio.run(sweep(Path(sys.argv[1]), sys.argv[2:]))
    for words in stayed:
        sys.stderr.write(f"{words}\n")
    return 1 if stayed else 0


if __name__ == "__main__":
    sys.exit(main())
