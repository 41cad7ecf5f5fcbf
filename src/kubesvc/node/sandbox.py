"""The sandbox of a Pod: namespaces held open by a sleeping process, and the Pod's end of a routed link.

The Pod's `eth0` holds its address as /32 (/128) and sends everything to a link-local gateway that exists on every
node; the node holds one host route per Pod. No bridge carries Pod traffic, so that replies between Pods of one node
pass the node's conntrack like any others.
"""

from __future__ import annotations

import contextlib
import hashlib
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from kubesvc.api.pod import Pod
from kubesvc.clock import Random
from kubesvc.kernel.links import Links, NetlinkLinks, Route, write_sysctls
from kubesvc.kernel.namespaces import Namespaces, nsexec_command
from kubesvc.kernel.process import Spawn, Spawner, WatchedProcess

GATEWAY = "169.254.1.1"
GATEWAY6 = "fe80::1"
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"
KINDS = ("net", "uts", "ipc")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharing:
    """What a Pod shares with its node, and its containers with each other.

    processes: whom a container sees: itself alone, the whole Pod (shareProcessNamespace), or the node (hostPID)
    """

    network: bool = False
    ipc: bool = False
    processes: Literal["container", "pod", "node"] = "container"

    @property
    def own(self) -> tuple[str, ...]:
        """The Pod's own namespaces, besides that of its processes."""
        mine = {"net": not self.network, "uts": True, "ipc": not self.ipc}
        return tuple(kind for kind in KINDS if mine[kind])


def sharing_of(pod: Pod) -> Sharing:
    spec = pod.spec
    return Sharing(
        network=spec.host_network,
        ipc=spec.host_ipc,
        processes="node" if spec.host_pid else "pod" if spec.share_process_namespace else "container",
    )


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """One Pod's sandbox: the process that holds it, its addresses, the name of the node's end of its link.

    With the node's own network `device` is "" and `ips` are the node's.
    """

    pid: int
    start_time: int
    ips: tuple[str, ...]
    device: str = ""
    host_network: bool = False
    sharing: Sharing = Sharing()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The namespaces that its containers join."""
        return (*self.sharing.own, *(("pid",) if self.sharing.processes == "pod" else ()))

    @property
    def new(self) -> tuple[str, ...]:
        """The namespaces that each of its containers gets for itself."""
        return ("pid",) if self.sharing.processes == "container" else ()


def device_name(uid: str) -> str:
    """The node's end of a Pod's link; 15 bytes are all a name may have."""
    return "pod" + hashlib.sha256(uid.encode()).hexdigest()[:11]


class Sandboxes(Protocol):
    """Makes and removes sandboxes."""

    async def prepare_node(self) -> None:
        """Make the node's namespace route for its Pods."""
        ...

    async def start(self, uid: str, *, sharing: Sharing, hostname: str) -> WatchedProcess:
        """Start the process that holds the namespaces; it has no network yet."""
        ...

    async def connect(self, uid: str, pid: int, ips: Sequence[str]) -> str:
        """Give the sandbox its addresses and the node its routes; the name of the node's end."""
        ...

    def disconnect(self, device: str, ips: Sequence[str]) -> None:
        """Remove the routes to a sandbox that is about to end; its link ends with its namespace. Nothing happens if
        they are gone."""
        ...

    async def close(self) -> None: ...


class LinuxSandboxes:
    """Sandboxes by the kernel, in the network namespace in which the agent runs."""

    def __init__(
        self, spawner: Spawner, random: Random, node_addresses: Sequence[str], mtu: int = 0, own_network: bool = True
    ) -> None:
        self.spawner = spawner
        self.random = random
        self.node_addresses = tuple(node_addresses)
        self.mtu = mtu
        self.own_network = own_network
        self.node_links: Links | None = None
        self.sources: dict[bool, str] | None = None

    @property
    def links(self) -> Links:
        if self.node_links is None:
            self.node_links = NetlinkLinks()
        return self.node_links

    async def prepare_node(self) -> None:
        if not self.own_network:
            return
        await self.spawner.call(forward)
        self.links.set_up("lo")
        self.links.add_address("lo", f"{GATEWAY}/32")  # answers the Pods' ARP on every link

    def source(self, ip: str) -> str:
        """The node's address that its packets to a Pod bear, if it really has it; else the kernel's choice."""
        if self.sources is None:
            held = {a.partition("/")[0] for link in self.links.links() for a in self.links.addresses(link.name)}
            ours = [a for a in self.node_addresses if a in held]
            self.sources = {v6: next((a for a in ours if (":" in a) == v6), "") for v6 in (False, True)}
        return self.sources[":" in ip]

    async def start(self, uid: str, *, sharing: Sharing, hostname: str) -> WatchedProcess:
        new = sharing.own
        program = ["sleep", "infinity"]
        if sharing.processes == "pod":  # it is the first process for all containers, and leaves no zombies
            new, program = (*new, "pid"), nsexec_command("--ignore-sigchld", program=program)
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "KUBESVC_SANDBOX": uid}

        def name() -> None:
            socket.sethostname(hostname)

        process = await self.spawner.spawn(Spawn(argv=program, env=environment, new=new))
        try:
            await self.spawner.call(name, inside=process.pid, kinds=("uts",))
        except BaseException:  # no record names it yet
            end(process)
            raise
        return process

    async def connect(self, uid: str, pid: int, ips: Sequence[str]) -> str:
        device = device_name(uid)
        mac = ":".join(f"{byte:02x}" for byte in (2, *self.random.randbytes(5)))
        sources = {ip: self.source(ip) for ip in ips}
        with Namespaces.of(pid, ("net",)) as namespace:
            self.links.delete_link(device)
            self.links.add_veth(
                device, "eth0", peer_namespace=namespace.fds["net"], mtu=self.mtu, mac=GATEWAY_MAC, peer_mac=mac
            )
        await self.spawner.call(inner_network(ips), inside=pid, kinds=("net",))
        self.links.set_up(device)
        for ip in ips:
            if ":" in ip:
                self.links.add_address(device, f"{GATEWAY6}/64")
                self.links.replace_route(Route(f"{ip}/128", device=device, source=sources[ip]))
            else:
                self.links.replace_route(Route(f"{ip}/32", device=device, source=sources[ip]))
            self.links.replace_neighbour(device, ip, mac)
        return device

    def disconnect(self, device: str, ips: Sequence[str]) -> None:
        # Deleting a link makes the kernel wait for tens of milliseconds, and everything in this process with it; when
        # the namespace of its other end goes, the kernel does the same on its own time.
        for ip in ips if device else ():
            self.links.delete_route(Route(f"{ip}/{128 if ':' in ip else 32}", device=device))

    async def close(self) -> None:
        if self.node_links is not None:
            self.node_links.close()
            self.node_links = None


def forward() -> None:
    """Let this namespace, the node's, route between its links."""
    write_sysctls([("net/ipv4/ip_forward", "1")])
    try:
        write_sysctls([("net/ipv6/conf/all/forwarding", "1")])
    except FileNotFoundError:
        pass  # a kernel without IPv6


def inner_network(ips: Sequence[str]) -> Callable[[], None]:
    """What is done inside a Pod's namespace: addresses and the ways out."""

    def settle() -> None:
        links = NetlinkLinks()
        try:
            links.set_up("lo")
            with contextlib.suppress(OSError):
                # Unprivileged programs in a Pod may listen on any port, as container runtimes have it.
                write_sysctls([("net/ipv4/ip_unprivileged_port_start", "0")])
            links.set_up("eth0")
            for ip in ips:
                if ":" in ip:
                    links.add_address("eth0", f"{ip}/128")
                    links.replace_neighbour("eth0", GATEWAY6, GATEWAY_MAC)
                    links.replace_route(Route("default6", gateway=GATEWAY6, device="eth0"))
                else:
                    links.add_address("eth0", f"{ip}/32")
                    links.replace_neighbour("eth0", GATEWAY, GATEWAY_MAC)
                    links.replace_route(Route(f"{GATEWAY}/32", device="eth0"))
                    links.replace_route(Route("default", gateway=GATEWAY, device="eth0", onlink=True))
        finally:
            links.close()

    return settle


class FakeSandboxes:
    """Sandboxes without namespaces: processes run where the agent runs, addresses are only noted."""

    def __init__(self, spawner: Spawner) -> None:
        self.spawner = spawner
        self.connected: dict[str, tuple[str, ...]] = {}

    async def prepare_node(self) -> None:
        pass

    async def start(self, uid: str, *, sharing: Sharing, hostname: str) -> WatchedProcess:
        environment = {"PATH": "/usr/bin:/bin", "KUBESVC_SANDBOX": uid}
        return await self.spawner.spawn(Spawn(argv=("sleep", "infinity"), env=environment))

    async def connect(self, uid: str, pid: int, ips: Sequence[str]) -> str:
        self.connected[device_name(uid)] = tuple(ips)
        return device_name(uid)

    def disconnect(self, device: str, ips: Sequence[str]) -> None:
        self.connected.pop(device, None)

    async def close(self) -> None:
        pass


def end(process: WatchedProcess) -> None:
    """End a sandbox's process, and with it the last hold on its namespaces."""
    process.signal(signal.SIGKILL)
