"""An instance for tests: started from Python, gone with the program that started it.

    import kubesvc

    with kubesvc.start(nodes=1) as cluster:
        cluster.apply("examples/web-deployment.yaml", "examples/web-svc.yaml")
        cluster.wait("svc/web-svc")
        assert "web-" in cluster.curl("http://web-svc.default/hostname")

Several may run at once, by different names, and none touches the host's own network. Whatever ends the program that
started one (an exception, Ctrl-C, SIGKILL) ends the instance too. With `nodes=0` there are API server and controllers
alone, which need neither Linux nor any privilege. For pytest see `kubesvc.pytest_plugin`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from kubesvc.lifetime import run_anywhere

if TYPE_CHECKING:
    from kubesvc.why.routable import Stage

START_SECONDS = 120.0
STOP_SECONDS = 60.0
COMMAND_SECONDS = 120.0

_numbers = itertools.count(1)


class NotStarted(Exception):
    """An instance could not be started; the text says what was found and what to do."""


class CommandFailed(Exception):
    """A command ended with a failure; the text is the command and what it said."""

    def __init__(self, words: Sequence[str], status: int, said: str) -> None:
        super().__init__(f"{' '.join(words)}: status {status}: {said.strip()}")
        self.status = status


def start(
    name: str = "",
    *,
    nodes: int = 1,
    options: Sequence[str] = (),
    timeout: float = START_SECONDS,
    keep_files: bool = False,
) -> Cluster:
    """Start an instance and wait until it is ready.

    name:       by which commands find it (`kubesvc why --name NAME`); "" for one that no other has
    nodes:      how many real nodes; 0 for API server and controllers alone
    options:    of `kubesvc up`, such as ("--zones", "a,b"); objects are kept in memory unless --store is among them
    timeout:    seconds until it must be ready
    keep_files: whether logs and store stay after the end

    Close what is returned, or use it as a context manager. Raises NotStarted.
    """
    from kubesvc.instance.paths import BadName, InstancePaths

    chosen = name or f"py-{os.getpid()}-{next(_numbers)}"
    try:
        paths = InstancePaths.of(chosen)
    except BadName as error:
        raise NotStarted(str(error)) from None
    words = ["up", "--name", chosen, "--nodes", str(nodes)]
    if not any(o.partition("=")[0] == "--store" for o in options):
        words += ["--store", "memory"]
    ready_read, ready_write = os.pipe()
    life_read, life_write = os.pipe()
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the cluster
    command = [sys.executable, "-m", "kubesvc", *words, *options]
    command += ["--ready-fd", str(ready_write), "--until-fd", str(life_read)]
    try:
        process = subprocess.Popen(
            command,
            pass_fds=(ready_write, life_read),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment(),
            start_new_session=True,  # Ctrl-C is this program's, which then ends the instance in order
        )
    except BaseException:
        for fd in (ready_read, life_write):
            os.close(fd)
        errors.close()
        raise
    finally:
        os.close(ready_write)
        os.close(life_read)
    cluster = Cluster(chosen, paths.root, process, life_write, errors, keep_files)
    try:
        line = read_line(ready_read, timeout)
        told = json.loads(line) if line else {}
        if "ready" not in told:
            raise NotStarted(told.get("failed") or cluster.complaint(timeout, ended=line is not None))
    except BaseException:
        cluster.stop()
        raise
    finally:
        os.close(ready_read)
    cluster.ready_line = told["ready"]
    return cluster


def environment() -> dict[str, str]:
    """That of this program, where the same kubesvc is found: a program may have put it on its path by itself."""
    home = str(Path(__file__).resolve().parents[1])
    before = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in (home, before) if p)}


def read_line(fd: int, timeout: float) -> str | None:
    """One line of a pipe; "" if it ends before, None if nothing came in time."""
    said = b""
    while not said.endswith(b"\n"):
        ready, _, _ = select.select([fd], [], [], timeout)
        if not ready:
            return None
        chunk = os.read(fd, 65536)
        if not chunk:
            return ""
        said += chunk
    return said.decode()


@dataclass(eq=False)
class Cluster:
    """A running instance; made by `start`."""

    name: str
    root: Path
    process: subprocess.Popen[bytes]
    _life: int
    _errors: IO[bytes]
    _keep_files: bool
    ready_line: str = ""
    _stopped: bool = field(default=False, repr=False)

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig, for any client library: `config.load_kube_config(str(cluster.kubeconfig))`."""
        return self.root / "kubeconfig"

    @property
    def environment(self) -> dict[str, str]:
        """For programs under test: this program's environment with KUBECONFIG."""
        return {**environment(), "KUBECONFIG": str(self.kubeconfig)}

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ------------------------------------------------------------ its end

    def stop(self) -> None:
        """End it and everything it made; a second call does nothing."""
        if self._stopped:
            return
        self._stopped = True
        with contextlib.suppress(OSError):
            os.close(self._life)
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._errors.close()
        with contextlib.suppress(OSError), (self.root / "instance.lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: it is another program's instance by now
            from kubesvc.instance.leftovers import end_instance
            from kubesvc.instance.paths import InstancePaths

            end_instance(InstancePaths(self.root))
            if not self._keep_files:
                from kubesvc.instance.leftovers import remove_files

                with contextlib.suppress(OSError):
                    remove_files(self.root)

    def complaint(self, timeout: float, *, ended: bool) -> str:
        """Why it did not become ready, in its own words."""
        if ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        if self.process.poll() is None:
            return f"the instance {self.name!r} was not ready within {timeout:.0f} s\nnext: kubesvc doctor"
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        return said.removeprefix("kubesvc up: ") or f"it ended with status {self.process.returncode}"

    # ------------------------------------------------------------ objects

    def apply(self, *manifests: str | Path | Mapping[str, Any], namespace: str = "default") -> None:
        """Apply manifests, server-side: paths of YAML or JSON files, or objects as dicts.

        namespace: of objects that name none. A kind that kubesvc has no notion of is left to kubectl.
        Raises ApiError if the server refuses one, OSError for a file that cannot be read.
        """
        objects: list[Mapping[str, Any]] = []
        for m in manifests:
            objects += [m] if isinstance(m, Mapping) else documents(Path(m))
        run_anywhere(self._apply(objects, namespace))

    async def _apply(self, objects: Sequence[Mapping[str, Any]], namespace: str) -> None:
        from kubesvc.api.kinds import by_kind
        from kubesvc.client.http import HttpClient

        client = HttpClient.unix(self.root / "api.sock", "kubesvc-testing")
        try:
            for obj in objects:
                kind = by_kind(str(obj.get("apiVersion")), str(obj.get("kind")))
                if kind is None:
                    words = ("-n", namespace, "apply", "--server-side", "-f", "-")
                    await asyncio.to_thread(self.kubectl, *words, stdin=json.dumps(obj))
                    continue
                meta = obj.get("metadata") or {}
                where = (meta.get("namespace") or namespace) if kind.namespaced else ""
                await client.patch(kind, str(meta.get("name", "")), where, dict(obj), "apply", force=True)
        finally:
            await client.close()

    def delete_namespace(self, name: str) -> None:
        """Remove a namespace and all that is in it, without waiting; one that is gone is no error."""
        run_anywhere(self._delete_namespace(name))

    async def _delete_namespace(self, name: str) -> None:
        from kubesvc.api.errors import Conflict, NotFound
        from kubesvc.api.namespace import NAMESPACE
        from kubesvc.client.http import HttpClient

        client = HttpClient.unix(self.root / "api.sock", "kubesvc-testing")
        try:
            with contextlib.suppress(NotFound, Conflict):
                await client.delete(NAMESPACE, name)
        finally:
            await client.close()

    # ------------------------------------------------------------ asking

    def wait(
        self, service: str, namespace: str = "default", *, timeout: float = 30.0, stage: Stage | None = None
    ) -> str:
        """Wait until a Service routes, as `kubesvc.wait_routable`; without real nodes, until it is listed."""
        from kubesvc.cli.wait import wait_routable

        chosen = stage or ("routable" if self._has_nodes() else "listed")
        return wait_routable(service, namespace, timeout=timeout, stage=chosen, kubeconfig=str(self.kubeconfig))

    def _has_nodes(self) -> bool:
        from kubesvc.instance.record import read_record

        record = read_record(self.root / "instance.json")
        return record is not None and any(not n.simulated for n in record.nodes)

    def why(self, *words: str, namespace: str = "default") -> dict[str, Any]:
        """What `kubesvc why WORDS --json` answers: `cluster.why("svc/web")["results"][0]["code"]`."""
        done = self.kubesvc("why", *words, "-n", namespace, "--json", check=False)
        if not done.stdout.startswith("{"):
            raise CommandFailed(("kubesvc", "why", *words), done.returncode, done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)
        if "results" not in found:  # nothing could be looked at
            raise CommandFailed(("kubesvc", "why", *words), done.returncode, done.stderr)
        return found

    def explain(self, namespace: str = "default") -> str:
        """What `kubesvc why --all` says of a namespace, for people."""
        done = self.kubesvc("why", "--all", "-n", namespace, check=False)
        return done.stdout.strip() or done.stderr.strip()

    def curl(self, *words: str) -> str:
        """What curl prints inside a node, where ClusterIPs and names of Services answer. Raises CommandFailed."""
        return self.kubesvc("curl", "-sS", "-f", "-m", "10", *words, named=True).stdout

    def kubectl(self, *words: str, stdin: str = "") -> str:
        """What stock kubectl prints (extra `kubectl`). Raises CommandFailed."""
        return self.kubesvc("kubectl", *words, stdin=stdin, named=True).stdout

    def kubesvc(
        self, command: str, *words: str, stdin: str = "", check: bool = True, named: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of kubesvc about this instance. Raises CommandFailed if it fails, unless `check` is false.

        named: whether to give it --name, for commands that take other programs' words; else KUBECONFIG says it
        """
        own = [command, "--name", self.name] if named else [command]
        done = subprocess.run(
            [sys.executable, "-m", "kubesvc", *own, *words],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if check and done.returncode != 0:
            raise CommandFailed(("kubesvc", command, *words), done.returncode, done.stderr or done.stdout)
        return done


def documents(path: Path) -> list[Mapping[str, Any]]:
    """The objects of a file of YAML or JSON, or of all such files of a directory; lists are taken apart."""
    import yaml

    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml", ".json"))
        return [obj for file in files for obj in documents(file)]
    found: list[Mapping[str, Any]] = []
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for document in yaml.load_all(path.read_text(), loader):
        if isinstance(document, Mapping):
            found += document["items"] if "items" in document and document.get("kind") == "List" else [document]
    return found


__all__ = ["Cluster", "CommandFailed", "NotStarted", "start"]
