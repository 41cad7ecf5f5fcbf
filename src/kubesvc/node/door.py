"""The node's door: a unix socket through which others reach into the node's namespaces.

It is `node.sock` in the node's state directory, so it can be opened from any network namespace of the machine; who may
open it is decided by that directory's mode. One connection is one request, a line of text:

    tcp IP PORT                       a TCP connection from inside the node's network
    udp IP PORT                       datagrams from inside it
    podtcp NAMESPACE POD PORT         a TCP connection to the loopback address inside a Pod (NODE-112)
    log NAMESPACE POD CONTAINER JSON  a container's log; the JSON has the names of `LogOptions` and "previous"
    exec JSON                         a process in a container, or in the node itself (NODE-100 to NODE-106)
    attach JSON                       a running container's own streams, framed like an exec's
    volume make NAME                  a directory for a volume; its path follows
    volume remove PATH                … and its end, with all that it holds
    connections                       how many translated connections went where, as lines of JSON while they come

The answer begins with one line of JSON, {"ok": true} or {"error": "words", "code": 400}; then the bytes follow, both
ways, until either side closes. Datagrams are framed by two bytes of length. An exec is framed by one byte of channel
and four of length: from the client 0 stdin, 4 resize {"Width":80,"Height":24}, 255 with payload 00: end of stdin; to
the client 1 stdout, 2 stderr, 3 the end {"exitCode": 0} or {"error": "words"}. Numbers are big-endian.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import select
import signal
import socket
import struct
import termios
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import msgspec

from kubesvc.clock import Clock
from kubesvc.kernel.flowevents import FlowCounter
from kubesvc.kernel.namespaces import nsexec_command
from kubesvc.kernel.nsexec import END, FAILED
from kubesvc.kernel.process import Spawn, Spawner, WatchedProcess

from .attach import LOOK_SECONDS, ContainerInput, has_left, linger, pass_input
from .containers import ContainerRunner
from .execution import go_words
from .localvolumes import LocalVolumes
from .logs import LogOptions, read_log
from .podworker import PodWorker
from .probes import dial_words, join_host

log = logging.getLogger(__name__)

SOCKET_NAME = "node.sock"
LINE_BYTES = 1 << 20
PIECE_BYTES = 1 << 15
CONNECT_SECONDS = 10.0
QUIET_SECONDS = 5.0
"""How long an exec whose process has ended waits for more of its output, while none comes."""
COUNT_SECONDS, COUNTED_AT_ONCE = 0.1, 500
STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
FRAME = struct.Struct(">BI")
DATAGRAM = struct.Struct(">H")
WINDOW = struct.Struct("HHHH")

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


class Refusal(Exception):
    """A request that cannot be met; `code` is the HTTP code that fits."""

    def __init__(self, message: str, code: int = 400) -> None:
        super().__init__(message)
        self.code = code


class ExecRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What runs where: in a container of a Pod, or with `node` in the node's own namespaces."""

    command: list[str]
    namespace: str = ""
    pod: str = ""
    container: str = ""
    node: bool = False
    stdin: bool = False
    tty: bool = False
    width: int = 80
    height: int = 24
    env: dict[str, str] = {}


class AttachRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which container's streams are wanted."""

    namespace: str
    pod: str
    container: str = ""
    stdin: bool = False
    tty: bool = False


class LogRequest(msgspec.Struct, frozen=True, kw_only=True):
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since_seconds: int | None = None
    since_time: str = ""
    tail_lines: int | None = None
    limit_bytes: int | None = None
    stream: str = "All"


class Pods(Protocol):
    """Finds the worker of a Pod."""

    def worker(self, namespace: str, name: str) -> PodWorker | None: ...

    def page(self, path: str) -> str | None:
        """The text of one of the agent's own pages, None if there is none of this path."""
        ...


class NodeDoor:
    """Serves the door until closed."""

    def __init__(self, path: Path, pods: Pods, spawner: Spawner, clock: Clock, volumes: LocalVolumes) -> None:
        self.path = path
        self.pods = pods
        self.volumes = volumes
        self.spawner = spawner
        self.clock = clock
        self.server: asyncio.Server | None = None
        self.requests: dict[str, Callable[[str, Reader, Writer], Awaitable[None]]] = {
            "tcp": self.tcp,
            "udp": self.udp,
            "podtcp": self.pod_tcp,
            "log": self.log,
            "exec": self.execute,
            "attach": self.attach,
            "connections": self.connections,
            "volume": self.volume,
            "page": self.page,
        }

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self.server = await asyncio.start_unix_server(self.serve, str(self.path), limit=LINE_BYTES)
        self.path.chmod(0o600)

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()
            self.path.unlink(missing_ok=True)

    async def serve(self, reader: Reader, writer: Writer) -> None:
        try:
            line = (await reader.readline()).decode()
            name, _, rest = line.strip().partition(" ")
            handler = self.requests.get(name)
            if handler is None:
                raise Refusal(f"unknown request {name!r}: one of {', '.join(self.requests)}")
            await handler(rest, reader, writer)
        except Refusal as refusal:
            answer(writer, {"error": str(refusal), "code": refusal.code})
        except (ValueError, msgspec.MsgspecError) as error:
            answer(writer, {"error": str(error), "code": 400})
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except OSError as error:
            answer(writer, {"error": error.strerror or str(error), "code": 500})
        except Exception as error:
            log.exception("request at the door")
            answer(writer, {"error": repr(error), "code": 500})
        finally:
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()

    async def page(self, rest: str, reader: Reader, writer: Writer) -> None:
        text = self.pods.page(rest)
        if text is None:
            raise Refusal("404 page not found", 404)
        answer(writer, {"ok": True})
        writer.write(text.encode())
        await writer.drain()

    async def volume(self, rest: str, reader: Reader, writer: Writer) -> None:
        verb, _, what = rest.partition(" ")
        try:
            if verb == "make":
                path = str(await asyncio.to_thread(self.volumes.make, what))
            elif verb == "remove":
                await asyncio.to_thread(self.volumes.remove, what)
                path = ""
            else:
                raise Refusal(f"unknown request {verb!r} for volumes: make or remove")
        except OSError as error:
            raise Refusal(error.strerror or str(error), 500) from None
        answer(writer, {"ok": True})
        writer.write(path.encode())
        await writer.drain()

    # -- flows --------------------------------------------------------------------------------------------------------

    async def tcp(self, rest: str, reader: Reader, writer: Writer) -> None:
        host, port = host_and_port(rest)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                far_reader, far_writer = await asyncio.open_connection(host, port)
        except TimeoutError:
            raise Refusal(f"dial tcp {host}:{port}: i/o timeout", 504) from None
        except OSError as error:
            raise Refusal(f"dial tcp {join_host(host, port)}: {dial_words(error)}", 502) from None
        answer(writer, {"ok": True})
        await join(reader, writer, far_reader, far_writer)

    async def pod_tcp(self, rest: str, reader: Reader, writer: Writer) -> None:
        namespace, name, port = rest.split()
        worker = self.worker(namespace, name)
        if worker.held_sandbox is None:
            raise Refusal(f"pod {namespace}/{name} is not running", 400)
        inside = worker.held_sandbox
        errors = []
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            kinds = () if inside.host_network else ("net",)
            raw = await self.spawner.call(lambda f=family: socket.socket(f), inside=inside.pid, kinds=kinds)  # type: ignore[misc]
            raw.setblocking(False)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await asyncio.get_running_loop().sock_connect(raw, (address, int(port)))
            except OSError as error:  # TimeoutError is one
                raw.close()
                words = "i/o timeout" if isinstance(error, TimeoutError) else dial_words(error)
                errors.append(f"dial tcp {join_host(address, int(port))}: {words}")
                continue
            far_reader, far_writer = await asyncio.open_connection(sock=raw)
            answer(writer, {"ok": True})
            await join(reader, writer, far_reader, far_writer)
            return
        raise Refusal("; ".join(errors), 502)

    async def udp(self, rest: str, reader: Reader, writer: Writer) -> None:
        host, port = host_and_port(rest)
        loop = asyncio.get_running_loop()

        class Datagrams(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                if writer.transport.get_write_buffer_size() < LINE_BYTES:  # else it is lost, as datagrams may be
                    writer.write(DATAGRAM.pack(len(data)) + data)

        transport, _ = await loop.create_datagram_endpoint(Datagrams, remote_addr=(host, port))
        try:
            answer(writer, {"ok": True})
            while True:
                (size,) = DATAGRAM.unpack(await reader.readexactly(2))
                transport.sendto(await reader.readexactly(size))
        finally:
            transport.close()

    async def connections(self, rest: str, reader: Reader, writer: Writer) -> None:
        """Count connections for as long as somebody listens: {"totals": [[protocol, address, port, endpoint, its port,
        total], ...], "partial": false}, totals that have changed. At most so many are heard each time, so that counting
        costs a node no more than a tenth of a core; beyond that the kernel drops messages and `partial` says so."""
        del rest
        counter = FlowCounter()
        gone = asyncio.ensure_future(reader.read(1))
        try:
            answer(writer, {"ok": True})
            first = True
            while not gone.done():
                changed = counter.take(COUNTED_AT_ONCE)
                if changed or first:
                    told = {"totals": [[*key, total] for key, total in changed.items()], "partial": counter.partial}
                    writer.write(msgspec.json.encode(told) + b"\n")
                    await writer.drain()
                first = False
                await asyncio.wait({gone}, timeout=COUNT_SECONDS)
        finally:
            gone.cancel()
            counter.close()

    # -- Pods ---------------------------------------------------------------------------------------------------------

    def worker(self, namespace: str, name: str) -> PodWorker:
        worker = self.pods.worker(namespace, name)
        if worker is None:
            raise Refusal(f'pods "{name}" not found', 404)
        return worker

    def runner(self, namespace: str, name: str, container: str) -> ContainerRunner:
        worker = self.worker(namespace, name)
        names = list(worker.runners)
        if not container and len(names) == 1:
            container = names[0]
        if container not in worker.runners:
            words = f"container {container} is not valid for pod {name}"
            if not container:
                words = f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
            raise Refusal(words, 400)
        return worker.runners[container]

    async def log(self, rest: str, reader: Reader, writer: Writer) -> None:
        namespace, name, container, *options = rest.split(" ", 3)
        wanted = msgspec.json.decode(options[0] if options else "{}", type=LogRequest)
        worker = self.worker(namespace, name)
        if not worker.runners:  # ended before this agent started: only its files are left (NODE-99)
            await self.stored_log(worker, container, wanted, writer)
            return
        runner = self.runner(namespace, name, "" if container == "-" else container)
        attempt = runner.attempt - 1 if wanted.previous else runner.attempt
        path = runner.directory / f"{attempt}.log"
        if not path.exists():
            if wanted.previous:
                words = f'previous terminated container "{runner.name}" in pod "{name}" not found'
                raise Refusal(words, 400)
            waiting = runner.state.waiting
            reason = waiting.reason if waiting is not None else "ContainerCreating"
            shown = {
                "ErrImagePull": "trying and failing to pull image",
                "ImagePullBackOff": "trying and failing to pull image",
                "InvalidImageName": "image can't be pulled",
            }.get(reason, reason)
            raise Refusal(f'container "{runner.name}" in pod "{name}" is waiting to start: {shown}', 400)
        answer(writer, {"ok": True})
        given = {f: getattr(wanted, f) for f in wanted.__struct_fields__ if f != "previous"}
        live = None if wanted.previous else runner.output.log_file
        pieces = read_log(path, LogOptions(**given), self.clock, live)
        gone = asyncio.ensure_future(reader.read(1))
        try:
            while True:
                piece = asyncio.ensure_future(anext(pieces, None))
                await asyncio.wait({piece, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not piece.done():
                    piece.cancel()
                    return
                data = piece.result()
                if data is None:
                    return
                writer.write(data)
                await writer.drain()
        finally:
            gone.cancel()

    async def stored_log(self, worker: PodWorker, container: str, wanted: LogRequest, writer: Writer) -> None:
        """The log of a container that nobody runs any more."""
        names = [c.name for c in worker.pod.spec.containers or ()]
        if container == "-" and len(names) == 1:
            container = names[0]
        known = [*names, *(c.name for c in worker.pod.spec.init_containers or ())]
        if container not in known:
            raise Refusal(f"container {container} is not valid for pod {worker.pod.name}", 400)
        directory = worker.directory / "containers" / container
        attempts = sorted(int(p.stem) for p in directory.glob("*.log") if p.stem.isdigit())
        if len(attempts) <= int(wanted.previous):
            what = "previous terminated container" if wanted.previous else "container"
            raise Refusal(f'{what} "{container}" in pod "{worker.pod.name}" not found', 400)
        answer(writer, {"ok": True})
        given = {f: getattr(wanted, f) for f in wanted.__struct_fields__ if f != "previous"}
        path = directory / f"{attempts[-2 if wanted.previous else -1]}.log"
        async for piece in read_log(path, LogOptions(**given), self.clock):
            writer.write(piece)
            await writer.drain()

    async def attach(self, rest: str, reader: Reader, writer: Writer) -> None:
        wanted = msgspec.json.decode(rest, type=AttachRequest)
        runner = self.runner(wanted.namespace, wanted.pod, wanted.container)
        if runner.process is None:
            raise Refusal(f'container not found ("{runner.name}")', 500)
        answer(writer, {"ok": True})
        await runner.output.attach(reader, writer, stdin=wanted.stdin)

    async def execute(self, rest: str, reader: Reader, writer: Writer) -> None:
        wanted = msgspec.json.decode(rest, type=ExecRequest)
        if not wanted.command:
            raise Refusal("you must specify at least one command for the container")
        if wanted.node:
            command, environment = list(wanted.command), {**os.environ, **wanted.env}
            flags, open_terminal = ["--ctty"] if wanted.tty else [], os.openpty
        else:
            runner = self.runner(wanted.namespace, wanted.pod, wanted.container)
            run = runner.execution
            if run is None:
                raise Refusal(f'container not found ("{runner.name}")', 500)
            command, environment = list(wanted.command), {**run.environment, **wanted.env}
            flags, open_terminal = run.enter_flags(), run.open_terminal
            flags += ["--ctty"] if wanted.tty else []
            if wanted.tty:
                environment.setdefault("TERM", "xterm")
        session = Session(self.spawner, wanted, flags, command, environment, reader, writer, open_terminal)
        await session.run()


class Session:
    """One exec: its process, its streams, its terminal."""

    def __init__(
        self,
        spawner: Spawner,
        wanted: ExecRequest,
        flags: list[str],
        command: list[str],
        environment: dict[str, str],
        reader: Reader,
        writer: Writer,
        open_terminal: Callable[[], tuple[int, int]] = os.openpty,
    ) -> None:
        self.open_terminal = open_terminal
        self.spawner = spawner
        self.wanted = wanted
        self.flags = flags
        self.command = command
        self.environment = environment
        self.reader = reader
        self.writer = writer
        self.terminal = -1
        self.input: ContainerInput | None = None
        self.carried = 0
        """Bytes of output that the client has been given."""
        self.outputs: set[int] = set()
        self.giving = 0
        """How many outputs wait for the client to read."""

    async def run(self) -> None:
        outputs: list[asyncio.Task[None]] = []
        if self.wanted.tty:
            self.terminal, far = self.open_terminal()
            self.resize(self.wanted.width, self.wanted.height)
            ends = (far, far, far)
            near: list[tuple[int, int]] = [(os.dup(self.terminal), STDOUT)]
            stdin_end = os.dup(self.terminal)
        else:
            stdin_far, stdin_end = os.pipe()
            out_near, out_far = os.pipe()
            err_near, err_far = os.pipe()
            ends = (stdin_far, out_far, err_far)
            near = [(out_near, STDOUT), (err_near, STDERR)]
        failure_near, failure_far = os.pipe()
        argv = nsexec_command(*self.flags, "--status", str(failure_far), program=self.command)
        try:
            process = await self.spawner.spawn(
                Spawn(
                    argv=argv,
                    env=self.environment,
                    stdin=ends[0],
                    stdout=ends[1],
                    stderr=ends[2],
                    pass_fds=(failure_far,),
                )
            )
        except OSError as error:
            for fd in {*(e[0] for e in near), stdin_end, failure_near}:
                os.close(fd)
            raise Refusal(error.strerror or str(error), 500) from None
        finally:
            for fd in {*ends, failure_far}:
                os.close(fd)
        answer(self.writer, {"ok": True})
        self.input = ContainerInput(stdin_end)
        if not self.wanted.stdin and not self.wanted.tty:
            self.input.close()
        for fd, channel in near:
            outputs.append(asyncio.create_task(self.pump(fd, channel)))
        input_task = asyncio.create_task(self.read_input(process))
        try:
            code = await process.wait()
            await self.rest_of(outputs)
            code = 0 if code is None else code if code >= 0 else 128 - code
            end: dict[str, Any] = {"exitCode": code}
            if code == FAILED and (words := failure_words(failure_near)):
                reason = go_words(words, self.command)
                end = {"error": f"failed to exec in container: unable to start container process: {reason}"}
            self.send(STATUS, json.dumps(end).encode())
            await self.writer.drain()
            input_task.cancel()
            await asyncio.wait({input_task})
            await linger(self.reader)
        finally:
            input_task.cancel()
            for task in outputs:
                task.cancel()
            self.input.close()
            os.close(failure_near)
            if self.terminal >= 0:
                os.close(self.terminal)

    async def rest_of(self, outputs: list[asyncio.Task[None]]) -> None:
        """Wait until all is carried that the process has said, as slowly as its client reads. A grandchild may hold the
        streams open for ever: when nothing has come for a while, nothing more is waited for."""
        left = set(outputs)
        while left:
            before = self.carried
            _, left = await asyncio.wait(left, timeout=QUIET_SECONDS)
            if self.carried == before and not self.giving and not readable(self.outputs):
                return

    def send(self, channel: int, payload: bytes) -> None:
        self.writer.write(FRAME.pack(channel, len(payload)) + payload)

    async def pump(self, fd: int, channel: int) -> None:
        """Carry one output to the client, no faster than it reads."""
        os.set_blocking(fd, False)
        self.outputs.add(fd)
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    data = os.read(fd, PIECE_BYTES)
                except BlockingIOError:
                    ready = loop.create_future()
                    loop.add_reader(fd, lambda f=ready: f.done() or f.set_result(None))  # type: ignore[misc]
                    try:
                        await ready
                    finally:
                        loop.remove_reader(fd)
                    continue
                except OSError:  # a terminal without a process
                    return
                if not data:
                    return
                self.send(channel, data)
                self.giving += 1
                try:
                    await self.writer.drain()
                finally:
                    self.giving -= 1
                self.carried += len(data)
        finally:
            self.outputs.discard(fd)
            os.close(fd)

    async def read_input(self, process: WatchedProcess) -> None:
        """Carry frames from the client; when it is gone, so is the process."""
        assert self.input is not None
        try:
            while True:
                channel, size = FRAME.unpack(await self.reader.readexactly(FRAME.size))
                if size > LINE_BYTES:
                    raise ConnectionError
                payload = await self.reader.readexactly(size)
                if channel == STDIN:
                    await pass_input(self.input, payload, self.writer)
                elif channel == CLOSE:
                    if self.terminal >= 0:
                        await pass_input(self.input, b"\x04", self.writer)
                    else:
                        self.input.close()
                elif channel == RESIZE:
                    size_wanted = json.loads(payload)
                    self.resize(int(size_wanted["Width"]), int(size_wanted["Height"]))
        except (ConnectionError, asyncio.IncompleteReadError, ValueError, KeyError):
            process.signal(signal.SIGHUP)
            await asyncio.sleep(1.0)
            process.signal(signal.SIGKILL if self.wanted.node else END)

    def resize(self, width: int, height: int) -> None:
        if self.terminal >= 0:
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, WINDOW.pack(height, width, 0, 0))


def readable(fds: Iterable[int]) -> bool:
    """Whether one of these has something to read, or has ended, of which the loop has not heard yet."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def failure_words(fd: int) -> str:
    """What a program that could not begin left behind; "" for one that did."""
    os.set_blocking(fd, False)
    try:
        return os.read(fd, 4096).decode(errors="replace")
    except BlockingIOError:
        return ""


def host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.strip().partition(" ")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise Refusal(f"{text!r}: must be an address and a port")
    return host.strip("[]"), int(port)


def answer(writer: Writer, words: dict[str, Any]) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        writer.write(json.dumps(words).encode() + b"\n")


async def join(reader: Reader, writer: Writer, far_reader: Reader, far_writer: Writer) -> None:
    """Carry bytes both ways until both sides have ended; the end of one direction is passed on. A client that has left
    altogether looks at first like one that has only said all it had to say, so it is looked at again."""
    there, back = asyncio.create_task(carry(reader, far_writer)), asyncio.create_task(carry(far_reader, writer))
    try:
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        while not (there.done() and back.done()):
            await asyncio.wait({there, back}, timeout=LOOK_SECONDS if there.done() else None)
            if there.done() and has_left(writer):
                return
    finally:
        for task in (there, back):
            task.cancel()
        far_writer.close()


async def carry(source: Reader, sink: Writer) -> None:
    try:
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
    except OSError:
        sink.transport.abort()
