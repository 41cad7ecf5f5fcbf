"""What the proxy's rules cost the kernel and us: full load, one change, a restart, by number of Services.

`python -m bench proxy_kernel [--full]`, or `python -m bench.bench_proxy_kernel [--services N[,N]] [--endpoints E]`.
Needs root or user namespaces; works in a network namespace of its own that ends with the process.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence

from kubesvc.kernel.nft import KernelNft, Transaction
from kubesvc.proxy.frame import FrameOptions
from kubesvc.proxy.nftables import Ruleset
from kubesvc.proxy.traffic import PortTraffic, ServiceKey, ServicePortName, Target

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


def own_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    flags = CLONE_NEWNET | (CLONE_NEWUSER if os.geteuid() else 0)
    if libc.unshare(flags):
        sys.exit(f"unshare: {os.strerror(ctypes.get_errno())}: run as root, or allow user namespaces")


def address(number: int) -> str:
    return f"10.{128 + number // 65536}.{number // 256 % 256}.{number % 256}"


def port_of(number: int, targets: Sequence[Target]) -> dict[ServiceKey, list[PortTraffic]]:
    name = ServicePortName("bench", f"s{number:05}", "http", "TCP")
    vip = f"10.96.{number // 256}.{number % 256}"
    traffic = PortTraffic(name, 80, vip, cluster=tuple(targets), usable=bool(targets), serving=tuple(targets))
    return {("bench", name.name): [traffic]}


async def run(nft: KernelNft, transactions: Sequence[Transaction]) -> None:
    for transaction in transactions:
        await nft.run(transaction)


class Bench:
    """One table of so many Services."""

    def __init__(self, services: int, endpoints: int) -> None:
        self.services, self.endpoints = services, endpoints
        self.nft = KernelNft()
        self.ruleset = Ruleset(FrameOptions("IPv4", pod_cidr="10.128.0.0/9", service_cidrs=("10.96.0.0/12",)))
        self.random = random.Random(1)
        self.targets = {
            n: [Target(address(n * endpoints + e), 8080) for e in range(endpoints)] for n in range(services)
        }
        self.next = services * endpoints

    def fresh(self) -> Target:
        self.next += 1
        return Target(address(self.next), 8080)

    async def load(self) -> None:
        started = time.perf_counter()
        changes: dict[ServiceKey, Sequence[PortTraffic]] = {}
        for number, targets in self.targets.items():
            changes |= port_of(number, targets)
        self.ruleset.change(changes)
        rendered = time.perf_counter()
        transactions = self.ruleset.repair(await self.nft.read(2, "kubesvc"))
        compared = time.perf_counter()
        await run(self.nft, transactions)
        ended = time.perf_counter()
        print(
            f"{self.services} x {self.endpoints}: full load {ended - started:.3f} s"
            f" (render {rendered - started:.3f}, compare {compared - rendered:.3f}, write {ended - compared:.3f};"
            f" {len(transactions)} transactions)"
        )

    async def restart(self) -> None:
        started = time.perf_counter()
        table = await self.nft.read(2, "kubesvc")
        read = time.perf_counter()
        transactions = self.ruleset.repair(table)
        print(
            f"  read everything back {read - started:.3f} s, compare {time.perf_counter() - read:.3f} s,"
            f" {len(transactions)} transactions to write"
        )

    async def change(self, name: str, alter: Callable[[list[Target]], object], count: int) -> None:
        planned, total = [], []
        for _ in range(count):
            number = self.random.randrange(self.services)
            alter(self.targets[number])
            started = time.perf_counter()
            transactions = self.ruleset.transactions(self.ruleset.change(port_of(number, self.targets[number])))
            planned.append(time.perf_counter() - started)
            await run(self.nft, transactions)
            total.append(time.perf_counter() - started)
        total.sort()
        p50, p99 = total[len(total) // 2], total[int(len(total) * 0.99)]
        plan = sum(planned) / len(planned)
        print(f"  {name}: p50 {p50 * 1e3:.3f} ms, p99 {p99 * 1e3:.3f} ms (of it planning {plan * 1e3:.3f} ms)")

    async def run(self, changes: int) -> None:
        await self.load()
        await self.restart()
        await self.change("replace one endpoint", self.replace, changes)
        await self.change("add one endpoint", lambda targets: targets.append(self.fresh()), changes)
        await self.change("remove one endpoint", lambda targets: targets.pop(0), changes)
        found = await self.nft.read(2, "kubesvc")
        if self.ruleset.repair(found):
            sys.exit("the kernel's table is not the wished one")
        self.nft.close()

    def replace(self, targets: list[Target]) -> None:
        targets[self.random.randrange(len(targets))] = self.fresh()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--services", default="1000,10000")
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--full", action="store_true", help="more changes of each kind")
    args = parser.parse_args(argv)
    if args.full:
        args.changes *= 5
    for services in map(int, args.services.split(",")):
        own_namespace()
        asyncio.run(Bench(services, args.endpoints).run(args.changes))
    print(f"memory at most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


if __name__ == "__main__":
    main()
