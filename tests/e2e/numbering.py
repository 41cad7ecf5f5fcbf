"""Run inside a Pod or node by `test_rolling_traffic.py`: `serve NAME PORT`, or `send ADDRESS PORT SECONDS`, which
writes one line of JSON about everything it saw.

The sender keeps one UDP socket for all its messages and a new TCP connection for each; every message has a number. A
watcher reads the kernel's own rules and flows all the while, and notes when an endpoint was last seen in either.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import time


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
    while True:
        connection, _ = tcp.accept()
        with connection:
            connection.settimeout(2)
            try:
                connection.sendall(name.encode() + b" " + connection.recv(64))
            except OSError:
                pass


def watch(address: str, seen: dict[str, list[tuple[float, bool]]], ended: threading.Event) -> None:
    """Note, whenever it changes, whether each endpoint of the front is still in the rules or in a flow."""
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

    while not ended.is_set():
        before = time.monotonic()
        there = asyncio.run(look())
        for name in {*seen, *there}:
            states = seen.setdefault(name, [])
            if not states or states[-1][1] != (name in there):
                # It was gone at the latest when the look ended; it was there at the earliest when it began.
                states.append((before if name in there else time.monotonic(), name in there))
        time.sleep(0.004)


def send(address: str, port: int, seconds: float) -> None:
    seen: dict[str, list[tuple[float, bool]]] = {}
    ended = threading.Event()
    watcher = threading.Thread(target=watch, args=(address, seen, ended))
    watcher.start()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.connect((address, port))
    udp.settimeout(0.2)
    messages: list[tuple[str, int, float, str]] = []
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        number += 1
        sent = time.monotonic()
        try:
            udp.send(str(number).encode())
            while (answer := udp.recv(64).decode().split())[1] != str(number):
                pass
            messages.append(("udp", number, sent, answer[0]))
        except OSError as error:
            messages.append(("udp", number, sent, f"! {error}"))
        sent = time.monotonic()
        try:
            with socket.create_connection((address, port), timeout=5) as tcp:
                tcp.sendall(str(number).encode())
                messages.append(("tcp", number, sent, tcp.recv(64).decode().split()[0]))
        except (OSError, IndexError) as error:
            messages.append(("tcp", number, sent, f"! {error}"))
        time.sleep(0.001)
    ended.set()
    watcher.join()
    print(json.dumps({"messages": messages, "seen": seen}))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        send(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
