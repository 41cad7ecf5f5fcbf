"""Running one of our own programs inside a node for a moment: a question goes in, its answer comes out."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from kubesvc.instance import ground
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.record import InstanceRecord, ProcessId
from kubesvc.kernel.nsexec import END
from kubesvc.lifetime import await_end


async def ask_inside(
    paths: InstancePaths, record: InstanceRecord, where: ProcessId, module: str, question: bytes, seconds: float
) -> tuple[bytes, bytes]:
    """What `python -m MODULE` says inside these namespaces, and what it complains of. TimeoutError if it takes longer;
    then, too, it is gone."""
    assert record.fabric is not None
    process = await asyncio.create_subprocess_exec(
        *ground.enter_command(record.fabric, where, [sys.executable, "-m", module]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ground.environment(paths.root),
    )
    try:
        async with asyncio.timeout(seconds):
            return await process.communicate(question)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(END)  # what runs inside is a child of its own, and ends before it
            await await_end(process, module)
