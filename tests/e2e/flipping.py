"""Programs that run inside nodes and Pods during the traffic test. Standard library only, so that any Python runs them.

    flipping.py steer ADDRESS PORT SEED          answers readiness probes, GET /POD, and so decides who is ready
    flipping.py connect HOST PORT RATE SECONDS   opens connections and says who answered

Each prints one JSON array a line. Times are CLOCK_MONOTONIC seconds, which all processes of a machine share.
"""

from __future__ import annotations

import json
import random
import select
import socket
import sys
import time

SETTLED_SECONDS = 1.0
"""How long a Pod has been told to be ready before another one may lean on it."""
FLIP_CHANCE = 0.85


class Steering:
    """Which Pods are ready: they flip at nearly every probe, but one that has settled always stays."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.ready_since: dict[str, float] = {}
        self.flipping = False

    def verdict(self, pod: str, now: float) -> bool:
        """What this probe of the Pod is answered."""
        if not self.flipping:
            self.ready_since.setdefault(pod, now)
            return True
        if self.random.random() > FLIP_CHANCE:
            return pod in self.ready_since
        if pod not in self.ready_since:
            self.ready_since[pod] = now
        elif any(now - since > SETTLED_SECONDS for other, since in self.ready_since.items() if other != pod):
            del self.ready_since[pod]
        return pod in self.ready_since


def steer(address: str, port: int, seed: int) -> None:
    """Answer probes until killed. GET /begin starts the flipping, GET /end makes every Pod ready again."""
    steering = Steering(seed)
    listener = socket.create_server((address, port), backlog=256)
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(2)
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = connection.recv(4096)
                    if not piece:
                        break
                    head += piece
                word = head.split(b" ")[1].decode().strip("/")
                if word in ("begin", "end"):
                    steering.flipping = word == "begin"
                    ready = True
                else:
                    ready = steering.verdict(word, time.monotonic())
                    print(json.dumps([time.monotonic(), word, ready]), flush=True)
                status = b"200 OK" if ready else b"503 Service Unavailable"
                connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            except (OSError, IndexError):
                continue


def connect(host: str, port: int, rate: float, seconds: float) -> None:
    """Open so many connections a second, ask each who answers, and print [started, connected, who, error].

    Ends after so many seconds, or when standard input is closed.
    """
    request = f"GET /hostname HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    begin = due = time.monotonic()
    while (now := time.monotonic()) < begin + seconds:
        if select.select([sys.stdin], [], [], max(0.0, due - now))[0]:
            break
        due = max(due + 1 / rate, time.monotonic() - 0.1)
        started = time.monotonic()
        connected, who, failed = 0.0, "", ""
        try:
            with socket.create_connection((host, port), 3) as connection:
                connected = time.monotonic()
                connection.sendall(request)
                answer = b""
                while piece := connection.recv(4096):
                    answer += piece
            who = answer.partition(b"\r\n\r\n")[2].decode()
        except OSError as error:
            failed = f"{type(error).__name__}: {error}"
        print(json.dumps([started, connected, who, failed]))


if __name__ == "__main__":
    if sys.argv[1] == "steer":
        steer(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        connect(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
