"""How long a start takes, and how much memory it leaves in use: `python -m bench start [--full]`.

"Ready" is the line that `up` prints, timed from the start of its process. Because a line may come early, the deeds are
timed too: a controller has written an object; on every node a ClusterIP accepts a connection and DNS answers.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import statistics
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.e2e.harness import Instance, UnixConnection, fresh_instance

from .figures import say, say_median

MIB = 1024 * 1024
PATIENCE_SECONDS = 20.0
DNS_QUERY = (
    b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
    b"\x0akubernetes\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01"
)


def controllers_work(instance: Instance) -> bool:
    """Whether a controller has written: the root CA in the namespace `default`."""
    connection = UnixConnection(instance.root / "api.sock")
    connection.request("GET", "/api/v1/namespaces/default/configmaps/kube-root-ca.crt")
    return connection.getresponse().status == 200


def opened(instance: Instance, node: str, request: str) -> socket.socket | None:
    """A stream from inside a node, through its door; None if it was refused."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.settimeout(2)
    try:
        door.connect(str(instance.root / "nodes" / node / "node.sock"))
        door.sendall(request.encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            piece = door.recv(1)
            if not piece:
                break
            answer += piece
        if b'"ok"' in answer:
            return door
    except OSError:
        pass
    door.close()
    return None


def node_works(instance: Instance, node: str) -> bool:
    """Whether the API's ClusterIP accepts a connection there and the cluster's DNS knows its name."""
    stream = opened(instance, node, "tcp 10.96.0.1 443")
    if stream is None:
        return False
    stream.close()
    flow = opened(instance, node, "udp 10.96.0.10 53")
    if flow is None:
        return False
    with flow:
        flow.settimeout(0.2)
        flow.sendall(struct.pack(">H", len(DNS_QUERY)) + DNS_QUERY)
        try:
            answer = flow.recv(512)
        except OSError:
            return False
    return len(answer) > 8 and answer[8:10] != b"\x00\x00"  # the count of answers, behind two bytes of length


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not until():
        if time.monotonic() > deadline:
            raise SystemExit("it did not begin to work")
        time.sleep(0.003)


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


def cpu_ms(pid: int) -> float:
    """Processor time a process has used; what a start costs on an idle machine, whatever else runs on this one."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e3 / os.sysconf("SC_CLK_TCK")


def said_ms(instance: Instance) -> float:
    found = re.search(r"ready in (\d+) ms", instance.ready_line)
    assert found, instance.ready_line
    return float(found[1])


def api_alone(runs: int) -> None:
    """API and controllers without nodes."""
    said, works, cpu, memory = [], [], [], []
    for _ in range(runs):
        with fresh_instance() as instance:
            began = time.monotonic()
            instance.up("--nodes", "0", "--store", "memory")
            wait(lambda i=instance: controllers_work(i))  # type: ignore[misc]
            works.append((time.monotonic() - began) * 1e3)
            assert instance.process is not None
            cpu.append(cpu_ms(instance.process.pid))
            said.append(said_ms(instance))
            time.sleep(1)
            memory.append(memory_mib(instance.process.pid))
            instance.interrupt()
    say_median("API and controllers: ready line", said, "ms", goal=700)
    say_median("API and controllers: a controller has written, incl. fork and exec", works, "ms", goal=700)
    say_median("API and controllers: processor time of that", cpu, "ms")
    say("control process, idle, store in memory", statistics.median(memory), "MiB", goal=80)


def two_nodes(runs: int) -> None:
    """Two real nodes with proxy and DNS, on a store that is new and on one that is not."""
    for kind in ("new store", "same store again"):
        said, works, cpu, control, node = [], [], [], [], []
        for _ in range(runs if kind == "new store" else max(1, runs // 2)):
            with fresh_instance() as instance:
                if kind != "new store":
                    instance.up("--nodes", "2")
                    instance.interrupt()
                began = time.monotonic()
                instance.up("--nodes", "2")
                said.append(said_ms(instance))
                for name in ("n1", "n2"):
                    wait(lambda i=instance, n=name: node_works(i, n))  # type: ignore[misc]
                works.append((time.monotonic() - began) * 1e3)
                record = instance.record
                assert record.control is not None
                pids = [record.control.pid, *(n.agent.pid for n in record.nodes if n.agent is not None)]
                cpu.append(sum(map(cpu_ms, pids)))
                time.sleep(1)
                control.append(memory_mib(record.control.pid))
                node += [memory_mib(n.agent.pid) for n in record.nodes if n.agent is not None]
                instance.interrupt()
        say_median(f"two nodes, {kind}: ready line", said, "ms", goal=1500)
        say_median(f"two nodes, {kind}: ClusterIP and DNS answer on both", works, "ms", goal=1500)
        if kind == "new store":
            say_median("two nodes: processor time of that, all three processes", cpu, "ms")
            say("control process with two nodes, store on disk", statistics.median(control), "MiB", goal=80)
            say("node process (agent, proxy, DNS, relay)", statistics.median(node), "MiB")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--full", action="store_true")
    args = parser.parse_args(argv)
    api_alone(9 if args.full else 3)
    two_nodes(7 if args.full else 2)


if __name__ == "__main__":
    main()
