"""What a Pod and its containers are held to: by control groups where they can be, else by rlimits (pure)."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence

from kubesvc.api.container import Container
from kubesvc.api.pod import Pod
from kubesvc.api.quantity import NANO, parse
from kubesvc.kernel.cgroups import CONTROLLERS, Limits

from .podstatus import init_containers, ordinary

SHARES_OF_A_PROCESSOR = 1024
LEAST_SHARES = 2


def amount(held: Mapping[str, str | int | float] | None, name: str) -> float | None:
    """A limit or request as a number of units, None if there is none; a wrong quantity counts as none."""
    value = (held or {}).get(name)
    if value is None:
        return None
    try:
        return parse(value).nanos / NANO
    except ValueError:
        return None


def container_limits(container: Container) -> Limits:
    """A container's own limits. A limit of 0 is none."""
    limits, requests = container.resources.limits, container.resources.requests
    memory, cpus = amount(limits, "memory"), amount(limits, "cpu")
    asked = amount(requests, "cpu")
    if asked is None:
        asked = cpus
    return Limits(
        memory_bytes=int(memory) if memory else None,
        cpus=cpus or None,
        cpu_shares=max(LEAST_SHARES, int(asked * SHARES_OF_A_PROCESSOR)) if asked is not None else None,
    )


def pod_limits(pod: Pod, pids: int | None) -> Limits:
    """What the Pod as a whole is held to: the sum of its containers' limits where each has one, and its processes.

    Init containers run one after another, before the others: the largest of them counts, if it is more.
    """
    own = {c.name: container_limits(c) for c in [*ordinary(pod), *init_containers(pod)]}
    together = [c.name for c in ordinary(pod)] + [c.name for c in init_containers(pod) if c.sidecar]
    alone = [c.name for c in init_containers(pod) if not c.sidecar]

    def most(values: Mapping[str, float | None]) -> float | None:
        if any(value is None for value in values.values()):
            return None
        return max([sum(values[n] or 0 for n in together), *(values[n] or 0 for n in alone)])

    memory = most({name: limits.memory_bytes for name, limits in own.items()})
    shares = [limits.cpu_shares for limits in own.values() if limits.cpu_shares is not None]
    return Limits(
        memory_bytes=int(memory) if memory is not None else None,
        cpus=most({name: limits.cpus for name, limits in own.items()}),
        cpu_shares=sum(shares) if shares else None,
        pids=pids,
    )


def needed_controllers(pod: Pod, pids: int | None) -> tuple[str, ...]:
    """The controllers in which this Pod's containers have groups."""
    every = [pod_limits(pod, pids), *map(container_limits, [*ordinary(pod), *init_containers(pod)])]
    wanted = {name for limits in every for name in limits.controllers()}
    return tuple(name for name in CONTROLLERS if name in wanted)


def rlimits(limits: Limits, pids: int | None, held: Sequence[str]) -> dict[int, tuple[int, int]]:
    """What stands for limits whose controller is not held: by resource number, (soft, hard).

    Memory becomes a bound on each process's own writable memory; processes are bounded for the container's user as a
    whole, which is more than the container; processor time has no such stand-in.
    """
    found = {}
    if "memory" not in held and limits.memory_bytes is not None:
        found[resource.RLIMIT_DATA] = (limits.memory_bytes, limits.memory_bytes)
    if "pids" not in held and pids is not None:
        found[resource.RLIMIT_NPROC] = (pids, pids)
    return found
