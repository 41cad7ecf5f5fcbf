"""What a ClusterIP costs a new connection, from pod to pod by way of the node: `python -m bench proxy_path [--full]`.

Connections through ClusterIPs and straight to endpoints take turns, and are counted per second of the client's
processor time, which holds the kernel's work for both sides too, as everything happens on the client's behalf. Beside
our rules stands the least that any proxy can do, one rule that translates by one lookup. Three network namespaces that
end with the process; needs root.

Many addresses are used in turn, and connections are reset: with one address the ports run out, and the search for a
free one is what would be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import itertools
import os
import random
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

from kubesvc.clock import RealClock
from kubesvc.kernel.syscalls import CLONE_NEWNET, setns, unshare
from kubesvc.proxy import Proxy, ProxySettings
from kubesvc.proxy.choice import ModeUnavailable, open_backends

from .bench_proxy_sync import Server, in_child, pod, vip
from .figures import head, percentile, say

GOAL = 0.95
SERVICES, ENDPOINTS, USED = 1000, 10, 100
CLIENT, SERVERS, GATEWAY = "10.64.0.1", "10.200.0.1", "169.254.1.1"
ROUND_SECONDS = 0.02
RESET = struct.pack("ii", 1, 0)


class Place:
    """A client's namespace, a node's and one where every pod of the Services is, with the wires between."""

    def __init__(self) -> None:
        self.node, self.client, self.servers = (self._new() for _ in range(3))
        for device, namespace in (("v0", self.client), ("v1", self.servers)):
            there = f"/proc/{os.getpid()}/fd/{namespace}"
            self.ip(self.node, f"link add {device} type veth peer name eth0 netns {there}")
            self.ip(self.node, f"link set {device} up")
            self.ip(self.node, f"address add {GATEWAY}/32 dev {device} scope link")
            self.ip(namespace, "link set eth0 up")
        self.ip(self.client, f"address add {CLIENT}/32 dev eth0")
        self.ip(self.servers, f"address add {SERVERS}/32 dev eth0")
        self.ip(self.servers, f"route add local 10.128.0.0/9 dev lo src {SERVERS}")
        for namespace in (self.client, self.servers):
            self.ip(namespace, f"route add {GATEWAY}/32 dev eth0 scope link")
            self.ip(namespace, f"route add default via {GATEWAY} dev eth0")
        self.ip(self.node, f"route add {CLIENT}/32 dev v0")
        # By way of one neighbour: a thousand would fill the kernel's table of them, which all namespaces share.
        self.ip(self.node, f"route add 10.128.0.0/9 via {SERVERS} dev v1 onlink")
        setns(self.node, CLONE_NEWNET)
        with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
            file.write("1")
        setns(self.servers, CLONE_NEWNET)
        self.listener = socket.create_server(("0.0.0.0", 8080), backlog=4096)
        self.listener.setblocking(False)
        setns(self.node, CLONE_NEWNET)

    def _new(self) -> int:
        unshare(CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return os.open("/proc/self/ns/net", os.O_RDONLY)

    def hang_up(self) -> None:
        """Take what waits to be taken: between rounds, so that nobody competes with the client, and nothing piles up
        until connections are dropped."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.listener.accept()[0].close()

    def ip(self, namespace: int, words: str) -> None:
        setns(namespace, CLONE_NEWNET)
        subprocess.run(["ip", *words.split()], check=True, pass_fds=())


def cost(place: Place, addresses: Iterator[str], port: int) -> float:
    """Seconds of processor time that a connection takes."""
    place.hang_up()
    count, began = 0, time.thread_time()
    while time.thread_time() < began + ROUND_SECONDS:
        for _ in range(20):
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                s.connect((next(addresses), port))
        count += 20
    return (time.thread_time() - began) / count


def compare(place: Place, what: str, to: Sequence[str], port: int, rounds: int, *, goal: float = 0.0) -> None:
    """Print what connections to these addresses cost beside direct ones."""
    there, direct = itertools.cycle(to), itertools.cycle([pod(n * ENDPOINTS + 3) for n in range(USED)])
    ratios, costs = [], []
    for _ in range(rounds):
        before, used, after = cost(place, direct, 8080), cost(place, there, port), cost(place, direct, 8080)
        ratios.append((before + after) / 2 / used)
        costs.append(used)
    quarter, _, three = statistics.quantiles(ratios, n=4)
    note = f"half of {rounds} rounds from {quarter:.3f} to {three:.3f}; {percentile(costs, 0.5) * 1e6:.1f} µs each"
    say(f"new connections per CPU second, {what}, to direct ones", percentile(ratios, 0.5), "", goal=goal, note=note)


async def write_rules(mode: Any) -> None:
    """Bring the rules of a proxy into this namespace; they stay."""
    server = Server(SERVICES, ENDPOINTS)
    told = ProxySettings(
        mode=mode, families=("IPv4",), cluster_cidrs=("10.0.0.0/8",), service_cidrs=("10.96.0.0/16",), health_port=0
    )
    clock, chance = RealClock(), random.Random(1)
    opened = await open_backends(told, clock, chance)
    proxy = Proxy(server, "n1", opened.backends, clock, chance, told, conntrack=opened.conntrack)  # type: ignore[arg-type]
    task = asyncio.create_task(proxy.run())
    await proxy.families[0].applied.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def write_one_rule(to: Sequence[str]) -> None:
    """The least a proxy can do: every address to one endpoint, by one lookup."""
    pairs = ", ".join(f"{address} . 80 : {pod(n)} . 8080" for n, address in enumerate(to))
    text = f"""table ip least {{
        map m {{
            type ipv4_addr . inet_service : ipv4_addr . inet_service
            elements = {{ {pairs} }}
        }}
        chain nat-prerouting {{
            type nat hook prerouting priority dstnat
            dnat ip to ip daddr . tcp dport map @m
        }}
    }}"""
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def measure(what: str, rounds: int) -> None:
    place = Place()
    last = range(SERVICES - USED, SERVICES)  # where rules are walked one by one, the first would be found too soon
    to, port, goal = [vip(n) for n in last], 80, 0.0
    match what:
        case "no rules at all":
            to, port = [pod(n * ENDPOINTS + 5) for n in last], 8080
        case "one rule, the least there can be":
            write_one_rule(to)
        case _:
            try:
                asyncio.run(write_rules(what))
            except ModeUnavailable as error:
                head(f"   {what} not run: {error}")
                return
            goal = GOAL
    setns(place.client, CLONE_NEWNET)
    compare(place, what, to, port, rounds, goal=goal)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--full", action="store_true", help="more rounds")
    args = parser.parse_args(argv)
    if os.geteuid() != 0:
        head("   not run: it needs root")
        return
    for what in ("no rules at all", "one rule, the least there can be", "nftables", "iptables"):
        in_child(functools.partial(measure, what, 120 if args.full else 40))


if __name__ == "__main__":
    main()
