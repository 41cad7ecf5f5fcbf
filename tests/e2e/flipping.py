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

FLIP_CHANCE = 0.85


class Steering:
    """Which Pods are ready: they flip at nearly every probe."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.unready: set[str] = set()
        self.flipping = False

    def verdict(self, pod: str) -> bool:
        """What this probe of the Pod is answered."""
        if self.flipping and self.random.random() <= FLIP_CHANCE:
            self.unready ^= {pod}
        return pod not in self.unready


def steer(address: str, port: int, seed: int) -> None:
    """Answer probes until killed. GET /begin starts the flipping."""
    steering = Steering(seed)
    listener = socket.create_server((address, port), backlog=256)
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(30)
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = connection.recv(4096)
                    if not piece:
                        break
                    head += piece
                word = head.split(b" ")[1].decode().strip("/")
                if word == "begin":
                    steering.flipping = ready = True
                else:
                    ready = steering.verdict(word)
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
            with socket.create_connection((host, port), 30) as connection:
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
