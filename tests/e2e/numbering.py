"""Run inside a Pod or node by `test_rolling_traffic.py`: `serve NAME PORT`, or `send ADDRESS PORT`, which sends until
its standard input ends. It says `there ADDRESS` of each endpoint when it sees it first or again and `gone ADDRESS` when
it is gone, and at its end writes one line of JSON about everything it saw.

The sender keeps one UDP socket for all its messages and a new TCP connection for each; every message has a number. A
watcher reads the kernel's own rules and flows all the while, and notes when an endpoint was last seen in either.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import sys
import threading
import time

LEAST_MESSAGES = 100
"""Of each protocol, however soon it is to end."""


def serve(name: str, port: int) -> None:
    """Answer "number" by "name number", over UDP and TCP."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("", port))
    tcp = socket.create_server(("", port))

    def datagrams() -> None:
        while True:
            data, client = udp.recvfrom(64)
            udp.sendto(name.encode() + b" " + data, client)

    threading.Thread(target=datagrams, daemon=True).start()
    print("serving", flush=True)
    while True:
        connection, _ = tcp.accept()
        with connection:
            connection.settimeout(60)
            try:
                connection.sendall(name.encode() + b" " + connection.recv(64))
            except OSError:
                pass


def watch(address: str, gone: dict[str, list[list[float]]], ended: threading.Event) -> None:
    """Note for each endpoint when it was surely in no rule and no flow: from the end of the first look that did not
    find it to the beginning of the last one."""
    from kubesvc.kernel.conntrack import KernelConntrack
    from kubesvc.kernel.nft import KernelNft
    from kubesvc.kernel.nft.fields import pack_address
    from kubesvc.kernel.nft.table import NFPROTO_IPV4
    from kubesvc.proxy.frame import ENDPOINTS, Words, sets

    nft, conntrack = KernelNft(), KernelConntrack()
    (spec,) = [s for s in sets(Words("IPv4")) if s.name == ENDPOINTS]
    front = pack_address(address)

    async def look() -> set[str]:
        held = await nft.read_elements(NFPROTO_IPV4, "kubesvc", spec)
        found = {socket.inet_ntoa(v[:4]) for k, v in held.items() if k.startswith(front) and isinstance(v, bytes)}
        flows = await conntrack.udp_flows(socket.AF_INET)
        return found | {f.reply_source for f in flows if f.destination == address}

    absent: set[str] = set()
    while not ended.is_set():
        before = time.monotonic()
        there = asyncio.run(look())
        for name in sorted(there - gone.keys()):
            gone[name] = []
            print("there", name, flush=True)
        for name, spans in gone.items():
            if name in there:
                if name in absent and spans[-1][1]:
                    print("there", name, flush=True)
                absent.discard(name)
            elif name in absent:
                if not spans[-1][1]:
                    print("gone", name, flush=True)
                spans[-1][1] = before
            else:
                absent.add(name)
                spans.append([time.monotonic(), 0.0])
        time.sleep(0.004)


def send(address: str, port: int) -> None:
    gone: dict[str, list[list[float]]] = {}
    ended = threading.Event()
    watcher = threading.Thread(target=watch, args=(address, gone, ended))
    watcher.start()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.connect((address, port))
    udp.settimeout(0.2)
    messages: list[tuple[str, int, float, float, str]] = []
    number = 0
    while number < LEAST_MESSAGES or not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        sent = time.monotonic()
        try:
            udp.send(str(number).encode())
            while (answer := udp.recv(64).decode().split())[1] != str(number):
                pass
            messages.append(("udp", number, sent, time.monotonic(), answer[0]))
        except OSError as error:
            messages.append(("udp", number, sent, time.monotonic(), f"! {error}"))
        sent = time.monotonic()
        try:
            with socket.create_connection((address, port), timeout=60) as tcp:
                tcp.sendall(str(number).encode())
                who = tcp.recv(64).decode().split()[0]
                messages.append(("tcp", number, sent, time.monotonic(), who))
        except (OSError, IndexError) as error:
            messages.append(("tcp", number, sent, time.monotonic(), f"! {error}"))
        time.sleep(0.001)
    ended.set()
    watcher.join()
    print(json.dumps({"messages": messages, "gone": gone}))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        send(sys.argv[2], int(sys.argv[3]))
