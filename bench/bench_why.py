"""`kubesvc why` on a large cluster, over HTTP: `python -m bench why [--full]`.

An API server without controllers holds 10,000 Pods in 100 namespaces and 1,000 Services; then 5,000 for --all. Each
figure is of a whole process, from its start to its end, as a user waits for it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kubesvc.api.kinds import NAMESPACE, POD, SERVICE
from kubesvc.client.http import HttpClient
from kubesvc.client.kubeconfig import load_kubeconfig

from .figures import head, say_median

NAMESPACES, PODS, FEW, MANY = 100, 10_000, 1_000, 5_000
AT_ONCE = 32
NAME = "bench-why"


def pod(number: int) -> dict[str, Any]:
    labels = {"app": f"app-{number % FEW}"}
    spec = {"containers": [{"name": "c", "image": "web:1", "ports": [{"name": "http", "containerPort": 8080}]}]}
    return {"metadata": {"name": f"pod-{number}", "labels": labels}, "spec": spec}


def service(number: int) -> dict[str, Any]:
    spec = {"selector": {"app": f"app-{number % FEW}"}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"metadata": {"name": f"svc-{number}"}, "spec": spec}


def namespace_of(number: int) -> str:
    return f"ns-{number % FEW % NAMESPACES}"


async def fill(kubeconfig: str, services: range, pods: range) -> None:
    """Make the objects, many at a time."""
    client = HttpClient.from_access(load_kubeconfig(kubeconfig).access(None), "bench")
    gate = asyncio.Semaphore(AT_ONCE)

    async def make(kind: Any, obj: dict[str, Any], namespace: str = "") -> None:
        async with gate:
            await client.create(kind, {"apiVersion": kind.api_version, "kind": kind.name, **obj}, namespace)

    try:
        if pods:
            await asyncio.gather(*(make(NAMESPACE, {"metadata": {"name": f"ns-{i}"}}) for i in range(NAMESPACES)))
        await asyncio.gather(*(make(POD, pod(i), namespace_of(i)) for i in pods))
        await asyncio.gather(*(make(SERVICE, service(i), namespace_of(i)) for i in services))
    finally:
        await client.close()


def ask(environment: dict[str, str], *words: str) -> tuple[float, float, float]:
    """(wall seconds, processor seconds, MiB at most) of one `kubesvc why`."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "kubesvc", "why", "--name", NAME, *words], stdout=subprocess.DEVNULL, env=environment
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        raise RuntimeError(f"kubesvc why {' '.join(words)}: {process.returncode}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def measure(environment: dict[str, str], runs: int, title: str, seconds: float, *words: str) -> None:
    found = [ask(environment, *words) for _ in range(runs)]
    say_median(title, [w * 1000 for w, _, _ in found], "ms", goal=seconds * 1000)
    say_median("  processor time of that", [c * 1000 for _, c, _ in found], "ms")
    say_median("  memory at most", [m for _, _, m in found], "MiB", goal=200)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="more runs")
    runs = 7 if parser.parse_args(argv).full else 3
    with tempfile.TemporaryDirectory(prefix="kb-", dir="/tmp") as home:
        environment = {**os.environ, "XDG_STATE_HOME": home}
        environment.pop("KUBECONFIG", None)
        up = [sys.executable, "-m", "kubesvc", "up", "--name", NAME, "--nodes", "0", "--store", "memory"]
        subprocess.run(
            [*up, "--controllers", "", "--disable-admission-plugins", "ServiceAccount", "--detach"],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        try:
            kubeconfig = str(Path(home) / "kubesvc" / NAME / "kubeconfig")
            asyncio.run(fill(kubeconfig, range(FEW), range(PODS)))
            head(f"{PODS:,} Pods, {FEW:,} Services")
            measure(environment, runs, "why svc/x, its Pods not ready", 1.0, "svc/svc-7", "-n", "ns-7")
            measure(environment, runs, "why svc/x, no such Service", 1.0, "svc/none", "-n", "ns-7")
            measure(environment, runs, "why pod/x", 1.0, "pod/pod-7", "-n", "ns-7")
            asyncio.run(fill(kubeconfig, range(FEW, MANY), range(0)))
            head(f"{PODS:,} Pods, {MANY:,} Services")
            measure(environment, runs, "why --all", 5.0, "--all")
        finally:
            subprocess.run(
                [sys.executable, "-m", "kubesvc", "down", "--name", NAME], env=environment, check=False,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
