"""A laboratory of network namespaces: a node that routes, two pods behind it, another node, a host outside.

    outside ── eth0 node eth1 ── far (node n2, whose pod c is an address of it)
                    │  └ va ── pod a        pods by point-to-point veth, their address as /32, a link-local gateway
                    └ vb ── pod b

Everything is made in namespaces of its own, named after this process, and removed at the end; what a process that was
killed left behind is removed by the next one. Sockets are opened in a namespace by a thread that enters it, and keep
it.
"""

from __future__ import annotations

import ctypes
import os
import re
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from kubesvc.proxy.traffic import Family

from .objects import ADDRESSES, ALSO_HERE, BALANCERS, HERE, OUTSIDE, POD_CIDRS, SERVICE_CIDRS, A, B, C

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
FAR = "far"
GATEWAY = {"IPv4": "169.254.1.1", "IPv6": "fe80::1"}
LINK: dict[str, dict[str, str]] = {
    "IPv4": {HERE: ALSO_HERE["IPv4"], FAR: "172.30.1.2"},
    "IPv6": {HERE: ALSO_HERE["IPv6"], FAR: "fd00:172:31::2"},
}
PORTS = (8080, 9090)
HOMES = {A: A, B: B, C: FAR, HERE: HERE, OUTSIDE: OUTSIDE}
FAMILIES: tuple[Family, ...] = ("IPv4", "IPv6")
AF = {"IPv4": socket.AF_INET, "IPv6": socket.AF_INET6}


NAMED = Path("/run/netns")
OURS = re.compile(r"kt(\d+)x(\d+)-")
"""Who made a namespace: its process id, and when that process started, since ids are used again."""


def made_by(pid: int) -> str:
    """How the names of a process's namespaces begin; "" if there is no such process."""
    try:
        # After the name, which may hold anything but ends with the last parenthesis, the 20th word is the start.
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
    return f"kt{pid}x{started}-"


def remove_leftovers() -> list[str]:
    """Remove the namespaces of processes that are gone; returns their names."""
    found = []
    for name in sorted(os.listdir(NAMED)) if NAMED.exists() else []:
        if (match := OURS.match(name)) and made_by(int(match[1])) != match[0]:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
            found.append(name)
    return found


class Lab:
    """The namespaces and their servers; a context manager."""

    def __init__(self) -> None:
        self.prefix = made_by(os.getpid())
        self.files: dict[str, int] = {}
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.servers: Servers | None = None

    def __enter__(self) -> Self:
        remove_leftovers()
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self.servers:
            self.servers.close()
        for name, file in self.files.items():
            os.close(file)
            subprocess.run(["ip", "netns", "delete", f"{self.prefix}{name}"], check=False)
        self.files = {}

    def ip(self, name: str, *words: str) -> None:
        subprocess.run(["ip", "-n", f"{self.prefix}{name}", *words], check=True, capture_output=True)

    def write(self, name: str, path: str, value: str) -> None:
        """Set a sysctl of a namespace."""

        def act() -> None:
            if os.path.exists(f"/proc/sys/{path}"):
                with open(f"/proc/sys/{path}", "w") as file:
                    file.write(value)

        self.inside(name, act)

    def inside(self, name: str, act: Callable[[], T]) -> T:
        """Do something in a thread that has entered a namespace."""
        result: list[T] = []
        trouble: list[BaseException] = []

        def run() -> None:
            try:
                if self.libc.setns(self.files[name], CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
                result.append(act())
            except BaseException as error:
                trouble.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if trouble:
            raise trouble[0]
        return result[0]

    def _make(self) -> None:
        for name in (OUTSIDE, HERE, FAR, A, B):
            subprocess.run(["ip", "netns", "add", f"{self.prefix}{name}"], check=True)
            self.files[name] = os.open(f"/run/netns/{self.prefix}{name}", os.O_RDONLY | os.O_CLOEXEC)
            self.ip(name, "link", "set", "lo", "up")
            for key in ("accept_dad", "dad_transmits"):
                self.write(name, f"net/ipv6/conf/default/{key}", "0")
        # A redirect to a pod that reached itself would use up the pod's share of ICMP, and "refused" would get lost.
        for key in ("all", "default"):
            self.write(HERE, f"net/ipv4/conf/{key}/send_redirects", "0")
        node = f"{self.prefix}{HERE}"
        for at, device, peer in (
            (OUTSIDE, "eth0", "eth0"),
            (FAR, "eth1", "eth0"),
            (A, "va", "eth0"),
            (B, "vb", "eth0"),
        ):
            words = ("link", "add", device, "type", "veth", "peer", "name", peer, "netns", f"{self.prefix}{at}")
            subprocess.run(["ip", "-n", node, *words], check=True)
            self.ip(HERE, "link", "set", device, "up")
            self.ip(at, "link", "set", peer, "up")
        self.write(HERE, "net/ipv4/ip_forward", "1")
        self.write(HERE, "net/ipv6/conf/all/forwarding", "1")
        self.write(HERE, "net/bridge/bridge-nf-call-iptables", "0")
        self.write(HERE, "net/bridge/bridge-nf-call-ip6tables", "0")
        for family in FAMILIES:
            self._address(family)
        self.servers = Servers(self)

    def _address(self, family: Family) -> None:
        own, wide, net = ADDRESSES[family], *((("32", "24")) if family == "IPv4" else ("128", "64"))
        v = () if family == "IPv4" else ("-6",)
        self.ip(HERE, *v, "address", "add", f"{own[HERE]}/{net}", "dev", "eth0")
        self.ip(OUTSIDE, *v, "address", "add", f"{own[OUTSIDE]}/{net}", "dev", "eth0")
        self.ip(HERE, *v, "address", "add", f"{LINK[family][HERE]}/{net}", "dev", "eth1")
        self.ip(FAR, *v, "address", "add", f"{LINK[family][FAR]}/{net}", "dev", "eth0")
        self.ip(FAR, *v, "address", "add", f"{own[C]}/{wide}", "dev", "lo")
        self.ip(OUTSIDE, *v, "route", "add", "default", "via", own[HERE])
        self.ip(FAR, *v, "route", "add", "default", "via", LINK[family][HERE])
        self.ip(HERE, *v, "route", "add", f"{own[C]}/{wide}", "via", LINK[family][FAR])
        self.ip(HERE, *v, "route", "add", "default", "via", own[OUTSIDE])
        for pod, device in ((A, "va"), (B, "vb")):
            gateway = GATEWAY[family]
            scope = ("scope", "link") if family == "IPv4" else ()
            self.ip(
                HERE, *v, "address", "add", f"{gateway}/{'32' if family == 'IPv4' else '64'}", "dev", device, *scope
            )
            self.ip(HERE, *v, "route", "add", f"{own[pod]}/{wide}", "dev", device)
            self.ip(pod, *v, "address", "add", f"{own[pod]}/{wide}", "dev", "eth0")
            if family == "IPv4":
                self.ip(pod, "route", "add", f"{gateway}/32", "dev", "eth0", "scope", "link")
            self.ip(pod, *v, "route", "add", "default", "via", gateway, "dev", "eth0")
        for range_ in (SERVICE_CIDRS[family], POD_CIDRS[family], BALANCERS[family]):
            assert range_  # reached by the default routes through the node

    def open(self, name: str, family: Family, kind: socket.SocketKind) -> socket.socket:
        """A socket in the namespace of a pod, node or host."""
        return self.inside(HOMES[name], lambda: socket.socket(AF[family], kind))

    def ask(self, sender: str, family: Family, to: str, port: int, protocol: str, *, seconds: float = 10.0) -> str:
        """Connect or send once: `who address-they-saw`, "refused", or "dropped" after a while without answer."""
        kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
        with self.open(sender, family, kind) as s:
            if sender == C:
                s.bind((ADDRESSES[family][C], 0))
            return self.ask_by(s, to, port, seconds=seconds)

    @staticmethod
    def ask_by(s: socket.socket, to: str, port: int, *, seconds: float = 10.0) -> str:
        """The same with a socket that stays the caller's."""
        s.settimeout(seconds)
        try:
            s.connect((to, port))
            if s.type == socket.SOCK_DGRAM:
                s.send(b"who")
            answer = s.recv(200).decode()
        except ConnectionRefusedError:
            return "refused"
        except (TimeoutError, OSError) as error:
            return "dropped" if isinstance(error, TimeoutError) else f"error {error}"
        return answer


class Servers:
    """Everybody answers on their addresses, TCP and UDP, with their name and the address they see."""

    def __init__(self, lab: Lab) -> None:
        self.selector = selectors.DefaultSelector()
        self.names: dict[int, str] = {}
        for who in (A, B, C, HERE):
            for family in FAMILIES:
                for port in PORTS:
                    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                        self._listen(lab, who, family, port, kind)
        self.stopped = False
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _listen(self, lab: Lab, who: str, family: Family, port: int, kind: socket.SocketKind) -> None:
        s = lab.open(who, family, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deadline = time.monotonic() + 60
        while True:
            try:
                s.bind((ADDRESSES[family][who], port))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        if kind == socket.SOCK_STREAM:
            s.listen(64)
        s.setblocking(False)
        self.selector.register(s, selectors.EVENT_READ, who)

    def _serve(self) -> None:
        while not self.stopped:
            for key, _ in self.selector.select(0.1):
                s = key.fileobj
                assert isinstance(s, socket.socket)
                try:
                    if s.type == socket.SOCK_STREAM:
                        connection, peer = s.accept()
                        with connection:
                            connection.send(f"{key.data} {peer[0]}".encode())
                    else:
                        _, peer = s.recvfrom(100)
                        s.sendto(f"{key.data} {peer[0]}".encode(), peer)
                except OSError:
                    pass  # the client went away

    def close(self) -> None:
        self.stopped = True
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self.selector.close()
