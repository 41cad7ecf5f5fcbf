"""kubectl's streams on a running cluster: exec, attach, cp, logs, port-forward, proxy; and the Python client's."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from kubesvc.instance.kubectl import find_kubectl

from .harness import Instance, condition, eventually

pytestmark = pytest.mark.e2e

NAMESPACE = "streams"
SPDY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
CARRIERS = pytest.mark.parametrize("carrier", [{}, SPDY], ids=["WebSocket", "SPDY"])
MIRROR = """
import socket
server = socket.create_server(("127.0.0.1", 9100))
print("listening", flush=True)
connection, _ = server.accept()
connection.sendall(connection.makefile("rb").read())
"""
PROBE = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1, "failureThreshold": 60}
"""Ready is who listens, and stays so when the machine stands still."""
TICKS = "echo oops >&2; i=0; while true; do echo tick $i; i=$((i+1)); sleep 0.2; done"


def pod(name: str, image: str, *command: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": image, **({"command": list(command)} if command else {}), **spec}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, "restartPolicy": "Never"},
    }


@dataclass
class Streams:
    """The cluster, and kubectl with streams."""

    instance: Instance

    def environment(self, **more: str) -> dict[str, str]:
        return {**self.instance.environment(), "KUBECONFIG": str(self.instance.root / "kubeconfig"), **more}

    def command(self, *words: str) -> list[str]:
        program = find_kubectl()
        assert program is not None
        return [str(program), "-n", NAMESPACE, *words]

    def run(
        self, *words: str, stdin: bytes = b"", seconds: float = 180.0, more: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            env=self.environment(**more),
            timeout=seconds,
            check=False,
        )

    @contextlib.contextmanager
    def running(self, *words: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
        """kubectl in the background, ended with the block."""
        process = subprocess.Popen(
            self.command(*words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=self.environment(**more),
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    @contextlib.contextmanager
    def forwarding(self, target: str, *ports: int, **more: str) -> Iterator[list[int]]:
        """The local ports of a port-forward that stands."""
        with self.running("port-forward", target, *(f":{p}" for p in ports), **more) as process:
            assert process.stdout is not None
            found: list[int] = []
            while len(found) < len(ports):
                ready, _, _ = select.select([process.stdout], [], [], 120)
                line = process.stdout.readline().decode() if ready else ""
                assert line, "port-forward did not begin"
                if local := re.search(r"127\.0\.0\.1:(\d+) ->", line):
                    found.append(int(local[1]))
            yield found


@pytest.fixture(scope="module")
def streams(shared: Instance) -> Iterator[Streams]:
    shared.kubectl("create", "namespace", NAMESPACE)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 8000, "targetPort": 80}]},
    }
    shared.apply(
        pod("web", "nginx", ports=[{"containerPort": 80}], readinessProbe=PROBE),
        pod("ticks", "busybox", "sh", "-c", TICKS),
        pod("shell", "busybox", "cat", stdin=True),
        service,
    )
    for name in ("web", "ticks", "shell"):
        eventually(lambda n=name: condition(shared.get("pod", "-n", NAMESPACE, n), "Ready") == "True")  # type: ignore[misc]
    yield Streams(shared)
    shared.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def at_terminal(
    command: list[str], environment: dict[str, str], steps: list[tuple[bytes, bytes | int]]
) -> tuple[str, int]:
    """Run a program at a terminal of 100 columns and 40 rows; (everything it printed, its exit code).

    steps: what to wait for in the output, then what to type, or the number of columns to change to
    """
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        os.execve(command[0], command, environment)
    said, deadline = b"", time.monotonic() + 120
    seen = 0
    try:
        while time.monotonic() < deadline:
            if steps and steps[0][0] in said[seen:]:
                awaited, act = steps.pop(0)
                seen = said.index(awaited, seen) + len(awaited)
                if isinstance(act, int):
                    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, act, 0, 0))
                    os.kill(child, signal.SIGWINCH)
                else:
                    os.write(terminal, act)
                continue
            ready, _, _ = select.select([terminal], [], [], 0.1)
            if not ready:
                continue
            try:
                said += os.read(terminal, 65536)
            except OSError:  # the program has left
                break
        else:
            os.kill(child, signal.SIGKILL)
            raise AssertionError(f"still waiting for {steps[:1]}: {said!r}")
    finally:
        _, status = os.waitpid(child, 0)
        os.close(terminal)
    return said.decode(errors="replace"), os.waitstatus_to_exitcode(status)


def sized(columns: int) -> bytes:
    """What to type at a shell to be told the terminal's size once it has so many columns: kubectl sends sizes beside
    what is typed, and another size first to what it attaches to, so that it is drawn anew."""
    return f"until stty size | grep -q ' {columns}$'; do sleep 0.1; done; stty size\n".encode()


# -- exec -------------------------------------------------------------------------------------------------------------


@CARRIERS
def test_exec_has_both_outputs_and_the_exit_code(streams: Streams, carrier: dict[str, str]) -> None:
    """NODE-106."""
    done = streams.run("exec", "ticks", "--", "sh", "-c", "echo out; echo err >&2; exit 7", more=carrier)
    assert (done.returncode, done.stdout) == (7, b"out\n")
    assert done.stderr == b"err\ncommand terminated with exit code 7\n"


@CARRIERS
def test_exec_carries_input_to_its_end_and_all_output(streams: Streams, carrier: dict[str, str]) -> None:
    """NODE-103: half-close of stdin; nothing is lost before the status."""
    data = os.urandom(5_000_000)
    done = streams.run("exec", "-i", "ticks", "--", "cat", stdin=data, more=carrier)
    assert (done.returncode, hashlib.sha256(done.stdout).digest()) == (0, hashlib.sha256(data).digest())


@CARRIERS
def test_exec_at_a_terminal_follows_its_size(streams: Streams, carrier: dict[str, str]) -> None:
    """NODE-105."""
    said, code = at_terminal(
        streams.command("exec", "-it", "ticks", "--", "sh"),
        streams.environment(**carrier),
        [(b"# ", sized(100)), (b"40 100", 77), (b"# ", sized(77)), (b"40 77", b"exit 6\n")],
    )
    assert code == 6, said


OWN_TERMINAL = b"t=$(tty); [ -c $t ] && echo written to $t > $t; ls /dev/pts; [ -w /dev/ptmx ] && exit 6\n"


@pytest.mark.parametrize("user", [0, 1000])
def test_the_terminal_is_one_of_the_pods_own(streams: Streams, user: int) -> None:
    """NODE-100, NODE-106: a program in a Pod can name its terminal and open it by that name, whoever it runs as; of
    the node's terminals, and of other containers', it sees none."""
    name = f"tty{user}"
    made = pod(name, "busybox", "sleep", "9999", securityContext={"runAsUser": user})
    streams.instance.apply(made)
    eventually(lambda: condition(streams.instance.get("pod", "-n", NAMESPACE, name), "Ready") == "True")
    prompt = b"# " if user == 0 else b"$ "
    said, code = at_terminal(
        streams.command("exec", "-it", name, "--", "sh"), streams.environment(), [(prompt, OWN_TERMINAL)]
    )
    assert code == 6 and "written to /dev/pts/0\r\n0  ptmx\r" in said, said
    streams.instance.kubectl("-n", NAMESPACE, "delete", "pod", name, "--wait=false")


def test_what_is_executed_ends_with_its_client(streams: Streams) -> None:
    """No process stays behind when kubectl is killed, even one that ignores SIGHUP."""
    sleep = f"sleep {1_000_000 + os.getpid()}"  # not that of another run of these tests
    with streams.running("exec", "ticks", "--", "sh", "-c", f"trap '' HUP; exec {sleep}"):
        eventually(lambda: processes(sleep))
    eventually(lambda: not processes(sleep))


def processes(command: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().replace(b"\0", b" ").strip() == command.encode():
                found.append(path.parent.name)
    return found


def test_exec_where_it_cannot_be(streams: Streams) -> None:
    """NODE-96, NODE-114."""
    streams.instance.apply(pod("done", "busybox", "true"))
    eventually(lambda: streams.instance.get("pod", "-n", NAMESPACE, "done")["status"]["phase"] == "Succeeded")
    url = f"/api/v1/namespaces/{NAMESPACE}/pods/done/exec?command=ls&stdout=true"
    assert "Upgrade request required" in streams.run("get", "--raw", url).stderr.decode()
    unknown = streams.run("exec", "ticks", "-c", "nope", "--", "true").stderr.decode()
    assert "container nope" in unknown and "ticks" in unknown


def test_exec_of_what_is_no_program(streams: Streams) -> None:
    done = streams.run("exec", "ticks", "--", "no-such-program")
    assert (done.returncode, done.stdout) == (1, b"")
    assert 'exec: "no-such-program": executable file not found in $PATH' in done.stderr.decode()


def test_debug_adds_a_container_and_attaches(streams: Streams) -> None:
    said, code = at_terminal(
        streams.command("debug", "web", "--image=busybox", "-it", "--", "sh"),
        streams.environment(),
        [(b"enter", b"\n"), (b"# ", b"echo at $HOSTNAME; exit 0\n")],
    )
    assert (code, "at web" in said) == (0, True), said


# -- attach, run, cp --------------------------------------------------------------------------------------------------


@CARRIERS
def test_attach_shows_what_is_written_from_now_on(streams: Streams, carrier: dict[str, str]) -> None:
    with streams.running("attach", "ticks", **carrier) as process:
        assert process.stdout is not None
        found = 0
        for _ in range(20):
            ready, _, _ = select.select([process.stdout], [], [], 120)
            found += bool(ready and process.stdout.readline().startswith(b"tick "))
            if found >= 3:
                return
    raise AssertionError("no ticks were seen")


def test_attach_reaches_stdin(streams: Streams) -> None:
    """A container whose stdin is not stdinOnce reads on when its client has left."""
    for word in (b"first\n", b"second\n"):
        done = subprocess.Popen(
            streams.command("attach", "-i", "shell"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=streams.environment(),
        )  # fmt: skip
        assert done.stdin is not None and done.stdout is not None
        with done:
            done.stdin.write(word)
            done.stdin.flush()
            assert select.select([done.stdout], [], [], 120)[0] and done.stdout.readline() == word
            done.kill()
    assert streams.run("logs", "shell").stdout == b"first\nsecond\n"


def test_run_with_input(streams: Streams) -> None:
    """`kubectl run -i --rm`: attach, stdin to its end, the exit code."""
    done = streams.run(
        "run", "once", "-i", "--rm", "--quiet", "--restart=Never", "--image=busybox", "--",
        "sh", "-c", "read x; echo got $x; cat >/dev/null; exit 3", stdin=b"a line\nand more\n",
    )  # fmt: skip
    assert b"got a line" in done.stdout and done.returncode == 3, done


def test_run_at_a_terminal(streams: Streams) -> None:
    """KCTL-74: the Pod, attached to at once; its exit code; then it is deleted. Its terminal is its own too."""
    said, code = at_terminal(
        streams.command("run", "tty", "-it", "--rm", "--restart=Never", "--image=busybox", "--", "sh"),
        streams.environment(),
        [(b"enter", b"\n"), (b"# ", sized(100)), (b"40 100", OWN_TERMINAL)],
    )
    assert code == 6 and "written to /dev/pts/0\r\n0  ptmx\r" in said, said


def test_cp_both_ways(streams: Streams, tmp_path: Path) -> None:
    source, back = tmp_path / "there", tmp_path / "back"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_bytes(os.urandom(1_000_000))
    (source / "small").write_text("small")
    assert streams.run("cp", str(source), "ticks:/tmp/copied").returncode == 0
    assert streams.run("cp", "ticks:/tmp/copied", str(back)).returncode == 0
    assert (back / "deep" / "file").read_bytes() == (source / "deep" / "file").read_bytes()
    assert (back / "small").read_text() == "small"


# -- logs -------------------------------------------------------------------------------------------------------------


def test_logs_by_their_options(streams: Streams) -> None:
    """NODE-95, NODE-98."""
    eventually(lambda: b"tick 10\n" in streams.run("logs", "ticks").stdout)
    everything = streams.run("logs", "ticks").stdout
    assert b"oops\n" in everything and b"tick 0\n" in everything
    assert len(streams.run("logs", "ticks", "--tail=3").stdout.splitlines()) == 3
    assert streams.run("logs", "ticks", "--limit-bytes=5").stdout == everything[:5]
    stamped = streams.run("logs", "ticks", "--timestamps", "--tail=1").stdout.decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z tick \d+\n", stamped)
    assert eventually(lambda: lines_since(streams, 3)) > 0


def lines_since(streams: Streams, seconds: int) -> int:
    """How many lines `logs --since` must have told, and has; a failure if it told others than it may have.

    Which they are depends on when the node looked, between the beginning and the end of the command: so there are lines
    that must be there, lines that must not, and a few that may.
    """
    asked = datetime.now(UTC)
    recent = streams.run("logs", "ticks", "--timestamps", f"--since={seconds}s").stdout.decode().splitlines()
    told = datetime.now(UTC)
    times = {
        line: datetime.fromisoformat(line.partition(" ")[0])
        for line in streams.run("logs", "ticks", "--timestamps").stdout.decode().splitlines()
    }
    since = timedelta(seconds=seconds)
    must = [line for line, at in times.items() if told - since < at < asked]
    may = [line for line, at in times.items() if asked - since <= at <= told]
    if not set(must) <= set(recent) <= set(may):
        pytest.fail(f"asked at {asked}, told at {told}: {recent} of {times}")
    return len(must) if len(may) < len(times) else 0


def test_followed_logs_come_line_by_line_and_end_with_the_container(streams: Streams) -> None:
    streams.instance.apply(pod("short", "busybox", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.5; done"))
    eventually(lambda: streams.instance.get("pod", "-n", NAMESPACE, "short")["status"]["phase"] != "Pending")
    began = time.monotonic()
    done = streams.run("logs", "-f", "short")
    assert (done.returncode, done.stdout) == (0, b"1\n2\n3\n")
    assert time.monotonic() - began < 90
    assert streams.run("logs", "short").stdout == b"1\n2\n3\n", "they stay after the end (NODE-99)"


def test_logs_of_the_run_before(streams: Streams) -> None:
    """NODE-97."""
    restarting = pod("again", "busybox", "sh", "-c", "date +%N; sleep 0.3; exit 1")
    restarting["spec"]["restartPolicy"] = "OnFailure"
    streams.instance.apply(restarting)

    def restarted() -> bool:
        statuses = streams.instance.get("pod", "-n", NAMESPACE, "again")["status"].get("containerStatuses") or [{}]
        return bool(statuses[0].get("restartCount", 0) >= 1)

    eventually(restarted)
    assert streams.run("logs", "again", "--previous").stdout.strip().isdigit()
    none = streams.run("logs", "ticks", "--previous")
    assert none.returncode == 1
    assert none.stderr.decode() == (
        'Error from server (BadRequest): previous terminated container "main" in pod "ticks" not found\n'
    )


def test_logs_where_there_are_none(streams: Streams) -> None:
    """NODE-96, KCTL-84."""
    two = pod("two", "busybox", "sleep", "1000")
    two["spec"]["containers"].append({"name": "second", "image": "no.such/image:1"})
    streams.instance.apply(two)
    eventually(lambda: "nodeName" in streams.instance.get("pod", "-n", NAMESPACE, "two")["spec"])
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/two/log"
    said = streams.run("get", "--raw", path).stderr.decode()
    assert "a container name must be specified for pod two, choose one of: [main second]" in said

    def waiting() -> str:
        return streams.run("logs", "two", "-c", "second").stderr.decode()

    eventually(lambda: 'container "second" in pod "two" is waiting to start: ' in waiting())
    assert streams.run("logs", "nowhere").stderr.decode() == (
        'error: error from server (NotFound): pods "nowhere" not found in namespace "streams"\n'
    )


# -- port-forward -----------------------------------------------------------------------------------------------------


def fetch(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as response:
        body: bytes = response.read()
        return body


@CARRIERS
@pytest.mark.parametrize(("target", "port"), [("pod/web", 80), ("service/web", 8000)])
def test_port_forward(streams: Streams, target: str, port: int, carrier: dict[str, str]) -> None:
    """NODE-109 to NODE-112, KCTL-85, BUG-29: one session, many connections, in turn and at once."""
    with streams.forwarding(target, port, **carrier) as (local,):
        for _ in range(5):
            assert b"nginx" in fetch(local)
        idle = [socket.create_connection(("127.0.0.1", local)) for _ in range(8)]
        assert b"nginx" in fetch(local)
        for connection in idle:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        for connection in idle:
            with connection, connection.makefile("rb") as answer:
                assert b"nginx" in answer.read()


@CARRIERS
def test_port_forward_keeps_half_closes_and_every_byte(streams: Streams, carrier: dict[str, str]) -> None:
    """What ends in one direction goes on in the other."""
    name = "mirror-" + ("spdy" if carrier else "ws")
    streams.instance.apply(pod(name, "busybox", "python3", "-c", MIRROR))
    eventually(lambda: condition(streams.instance.get("pod", "-n", NAMESPACE, name), "Ready") == "True")
    eventually(lambda: b"listening" in streams.run("logs", name).stdout)
    data = os.urandom(3_000_000)
    with (
        streams.forwarding(f"pod/{name}", 9100, **carrier) as (local,),
        socket.create_connection(("127.0.0.1", local)) as connection,
    ):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answer:
            assert hashlib.sha256(answer.read()).digest() == hashlib.sha256(data).digest()


def test_port_forward_to_a_port_where_nobody_listens(streams: Streams) -> None:
    """NODE-110: the client is told, in the node's words."""
    with streams.running("port-forward", "pod/web", ":81") as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        local = re.search(r"127\.0\.0\.1:(\d+) ->", line)
        assert local is not None, line
        with socket.create_connection(("127.0.0.1", int(local[1]))) as connection:
            connection.recv(1)
        said = process.stdout.read().decode()
        assert "error forwarding port 81 to pod web_streams" in said and "connection refused" in said


# -- proxies ----------------------------------------------------------------------------------------------------------


def test_proxies(streams: Streams) -> None:
    """SVCX-8, CONF-6."""
    base = f"/api/v1/namespaces/{NAMESPACE}"

    def raw(path: str) -> str:
        done = streams.run("get", "--raw", path)
        return (done.stdout + done.stderr).decode()

    for id in (
        "services/web",
        "services/web:8000",
        "services/web:http",
        "services/http:web:http",
        "pods/web",
        "pods/web:80",
    ):
        wanted = f"{base}/{id}/proxy/"
        if id == "services/web":
            assert 'no service port  found for service "web"' in raw(wanted)  # its port has a name
        else:
            assert "nginx" in raw(wanted), id
    assert "error trying to reach service: dial tcp" in raw(f"{base}/pods/web:81/proxy/")
    assert 'services "nope" not found' in raw(f"{base}/services/nope/proxy/")
    assert raw("/api/v1/nodes/n1/proxy/healthz") == "ok"
    assert "# TYPE prober_probe_total counter\n" in raw("/api/v1/nodes/n1/proxy/metrics/probes")  # NODE-55
    assert 'kubelet_node_name{node="n1"} 1\n' in raw("/api/v1/nodes/n1:10250/proxy/metrics")
    assert "(NotFound)" in raw("/api/v1/nodes/n1/proxy/nothing")
    assert 'nodes "n9" not found' in raw("/api/v1/nodes/n9/proxy/healthz")
    names = {
        p["metadata"]["name"] for n in ("n1", "n2") for p in json.loads(raw(f"/api/v1/nodes/{n}/proxy/pods"))["items"]
    }
    assert {"web", "ticks"} <= names


def test_kubectl_proxy(streams: Streams) -> None:
    with streams.running("proxy", "--port=0") as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        port = re.search(r":(\d+)", line)
        assert port is not None, line
        url = f"http://127.0.0.1:{port[1]}/api/v1/namespaces/{NAMESPACE}/services/web:http/proxy/"
        with urllib.request.urlopen(url, timeout=60) as response:
            assert b"nginx" in response.read()


# -- the Python client ------------------------------------------------------------------------------------------------


def python_client(streams: Streams) -> Any:
    import kubernetes

    config: Any = kubernetes.config
    api_client = config.new_client_from_config(str(streams.instance.root / "kubeconfig"))
    return kubernetes.client.CoreV1Api(api_client)


def test_python_client_executes(streams: Streams) -> None:
    """NODE-102."""
    from kubernetes.stream import stream

    api = python_client(streams)
    command = ["sh", "-c", "read x; echo got $x; echo err >&2; exit 4"]
    held = stream(
        api.connect_get_namespaced_pod_exec, "ticks", NAMESPACE, command=command, stdin=True, stdout=True, stderr=True,
        tty=False, _preload_content=False,
    )  # fmt: skip
    held.write_stdin("hello\n")
    held.run_forever(timeout=60)
    assert (held.read_stdout(), held.read_stderr(), held.returncode) == ("got hello\n", "err\n", 4)


def test_python_client_forwards_ports(streams: Streams) -> None:
    """NODE-111."""
    from kubernetes.stream import portforward

    held = portforward(python_client(streams).connect_get_namespaced_pod_portforward, "web", NAMESPACE, ports="80")
    connection = held.socket(80)
    connection.setblocking(True)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
    answer = b""
    while data := connection.recv(65536):
        answer += data
    connection.close()
    assert answer.startswith(b"HTTP/1.1 200") and b"nginx" in answer
    assert held.error(80) is None


def test_python_client_reads_logs(streams: Streams) -> None:
    api = python_client(streams)
    assert api.read_namespaced_pod_log("ticks", NAMESPACE, tail_lines=2).count("\n") == 2
