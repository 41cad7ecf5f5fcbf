"""A real instance for end-to-end tests: started by the command a user types, asked with stock kubectl.

Each instance has a state directory of its own below a short temporary path, and must leave nothing behind.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubesvc.instance.ground import marked_processes
from kubesvc.instance.kubectl import find_kubectl
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.record import InstanceRecord, read_record
from kubesvc.kernel.cgroups import find_hierarchies

from .hostnetwork import differences, host_network

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PATIENCE_SECONDS = 120.0
"""For what will come: generous, since the machine may be busy; a test that passes does not wait for it."""


def need_machine() -> None:
    """Fail, never skip: these tests are run where nodes can live, and a machine that cannot is a finding."""
    from kubesvc.instance.doctor import examine

    missing = [f"{f.name}: {f.text} (remedy: {f.remedy})" for f in examine() if f.verdict == "missing"]
    assert not missing, "nodes cannot live here:\n" + "\n".join(missing)


NOT_YET = (AssertionError, LookupError, OSError, ValueError, http.client.HTTPException, subprocess.SubprocessError)
"""How a check fails of which another try may be the better."""


def eventually(check: Callable[[], Any], seconds: float = PATIENCE_SECONDS, *, every: float = 0.05) -> Any:
    """The first true answer of `check`; the last failure or answer is what an impatient test is told. What is not there
    yet, does not answer yet or is half written fails a check as a wrong answer does."""
    deadline = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < deadline:
        try:
            last = check()
            if last:
                return last
        except NOT_YET as error:
            last = error
        time.sleep(every)
    raise AssertionError(f"not within {seconds:.0f} s; last: {last!r}")


@dataclass
class Instance:
    """One instance under test. `user` runs it as that user instead of root; `grant` first gives that user subordinate
    ids, in mounts of its own, so that the machine's files stay as they are."""

    home: Path
    name: str = "t"
    user: str = ""
    grant: bool = False
    process: subprocess.Popen[str] | None = None
    ready_line: str = ""
    said: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.home / "kubesvc" / self.name

    @property
    def record(self) -> InstanceRecord:
        found = read_record(self.root / "instance.json")
        assert found is not None, f"no record in {self.root}"
        return found

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k not in ("KUBECONFIG", "NOTIFY_SOCKET")}
        own = {"XDG_STATE_HOME": str(self.home), "HOME": str(self.home), "TZ": "UTC"}
        if self.user:
            own["PYTHONPATH"] = os.pathsep.join(python_for(self.user)[1])
        return {**kept, **own}

    def credentials(self) -> dict[str, Any]:
        if not self.user:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def command(self, *words: str) -> list[str]:
        python = python_for(self.user)[0] if self.user else sys.executable
        return self.placed(python, "-m", "kubesvc", *words)

    def placed(self, *words: str) -> list[str]:
        """The command line by which a program runs where the instance is."""
        return list(words)

    def run(
        self, *words: str, stdin: str = "", check: bool = True, seconds: float = PATIENCE_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run `kubesvc WORDS` to its end."""
        done = subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment(),
            timeout=seconds,
            check=False,
            **self.credentials(),
        )
        if check and done.returncode != 0:
            raise AssertionError(f"kubesvc {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def up(self, *options: str, seconds: float = PATIENCE_SECONDS) -> str:
        """Start it in the foreground of its own session; returns the line it prints when ready."""
        if "--images" not in options:
            options = ("--images", "offline", *options)  # no test asks a registry that it did not start
        command, credentials = self.command("up", "--name", self.name, *options), self.credentials()
        if self.grant:
            command, credentials = self.granted(command), {}
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(),
            start_new_session=True,
            umask=0o077,  # as on strict machines: it must not reach into Pods
            **credentials,
        )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else ""
        if line.endswith("\n"):
            self.ready_line = line.strip()
            return self.ready_line
        self.process.kill()
        _, errors = self.process.communicate()
        self.process = None
        raise AssertionError(f"up did not become ready: {line}{errors}\n{self.logs()}")

    def granted(self, command: list[str]) -> list[str]:
        """The command run as `user`, in a mount namespace where the files that grant subordinate ids name that user."""
        entry = pwd.getpwnam(self.user)
        grants = self.home / "subordinate"
        grants.write_text(f"{self.user}:100000:65536\n")
        script = (
            'mount --bind "$1" /etc/subuid && mount --bind "$1" /etc/subgid && shift && '
            f'exec setpriv --reuid {entry.pw_uid} --regid {entry.pw_gid} --clear-groups "$@"'
        )
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(grants), *command]

    def logs(self) -> str:
        """The last words of every part."""
        parts = [self.root / "control.log", *self.root.glob("nodes/*/node.log")]
        return "\n".join(f"--- {p}\n{p.read_text(errors='replace')[-3000:]}" for p in parts if p.exists())

    def interrupt(self, number: int = signal.SIGINT, seconds: float = PATIENCE_SECONDS) -> int:
        """What Ctrl-C does; returns the exit status, which must not be a failure's."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            _, errors = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"up has not ended after {seconds:.0f} s:\n{self.logs()}") from None
        status, self.process = self.process.returncode, None
        assert status == 0, f"up ended with {status}:\n{errors}\n{self.logs()}"
        return status

    def down(self) -> str:
        return self.run("down", "--name", self.name).stdout

    def kubectl(self, *words: str, stdin: str = "", check: bool = True) -> str:
        """Standard output of stock kubectl."""
        return self.try_kubectl(*words, stdin=stdin, check=check).stdout

    def try_kubectl(
        self, *words: str, stdin: str = "", check: bool = False, seconds: float = PATIENCE_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        program = find_kubectl()
        assert program is not None, "the extra `kubectl` is not installed"
        done = subprocess.run(
            self.placed(str(program), *words),
            input=stdin,
            capture_output=True,
            text=True,
            env={**self.environment(), "KUBECONFIG": str(self.root / "kubeconfig")},
            timeout=seconds,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def get(self, *words: str) -> Any:
        """An object, or a list, as kubectl gives it in JSON."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, *manifests: str | Path | dict[str, Any]) -> str:
        """Apply files (by path) and objects."""
        said = ""
        for manifest in manifests:
            if isinstance(manifest, Path):
                said += self.kubectl("apply", "-f", str(manifest))
            else:
                text = manifest if isinstance(manifest, str) else json.dumps(manifest)
                said += self.kubectl("apply", "-f", "-", stdin=text)
        return said

    def curl(
        self, url: str, *options: str, node: str = "n1", seconds: float = 20.0
    ) -> subprocess.CompletedProcess[str]:
        """A request from inside a node; look at returncode (7: refused, 28: timed out) and stdout."""
        flags = ("-sS", "-m", str(seconds), *options)
        return self.run("curl", "--name", self.name, "--node", node, *flags, url, check=False)

    def inside(self, *command: str, node: str = "n1", check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command inside a node."""
        return self.run("shell", "--name", self.name, "--node", node, "--", *command, check=check)

    def left_behind(self) -> list[str]:
        """What is still on the machine of it: processes, sockets, mounts, control groups."""
        left = [f"process {p.pid}" for p in marked_processes(self.root)]
        left += [f"socket {p}" for p in self.root.rglob("*.sock")]
        mounts = Path("/proc/mounts").read_text()
        left += [f"mount {line}" for line in mounts.splitlines() if str(self.home) in line]
        groups = [h.parent / InstancePaths(self.root).group for h in find_hierarchies()]
        left += [f"control group {g}" for g in groups if g.exists()]
        return left


class UnixConnection(http.client.HTTPConnection):
    """HTTP to the API through an instance's own socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self.path))


@functools.cache
def python_for(user: str) -> tuple[str, tuple[str, ...]]:
    """An interpreter that this user may run, and what PYTHONPATH must hold: ours may lie in root's own home."""
    entry = pwd.getpwnam(user)
    paths = (str(ROOT / "src"), sysconfig.get_path("purelib"))
    tried = []
    for python in (sys.executable, "/usr/bin/python3"):
        code = "import kubesvc.cli, aiohttp, msgspec, cryptography"
        try:
            done = subprocess.run(
                [python, "-c", code],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                user=entry.pw_uid,
                group=entry.pw_gid,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            tried.append(f"{python}: {error}")
            continue
        if done.returncode == 0:
            return python, paths
        tried.append(f"{python}: {done.stderr.strip().splitlines()[-1]}")
    raise AssertionError(f"no Python that user {user} may run has kubesvc: {'; '.join(tried)}")


@contextlib.contextmanager
def fresh_instance(
    user: str = "", name: str = "t", *, grant: bool = False, home: Path | None = None
) -> Iterator[Instance]:
    """An instance that is not started yet; whatever the test does, it is gone at the end, and the host as before.

    home: a directory of the caller's that several instances share, each with a name of its own; None for its own
    """
    before = host_network()
    place = home or Path(tempfile.mkdtemp(prefix="ks-", dir="/tmp"))
    if user:
        shutil.chown(place, user)
    instance = Instance(place, name, user, grant)
    try:
        yield instance
        instance.down()
        assert instance.left_behind() == []
    finally:
        if instance.process is not None:
            instance.process.kill()
            instance.process.wait()
        instance.run("down", "--name", name, check=False)
        if home is None:
            shutil.rmtree(place, ignore_errors=True)
    changed = differences(before, host_network())
    assert not changed, "the host's network is not as it was found:\n" + "\n".join(changed)


@contextlib.contextmanager
def running_instance(
    *options: str, user: str = "", name: str = "t", grant: bool = False, home: Path | None = None
) -> Iterator[Instance]:
    """An instance that is up."""
    with fresh_instance(user, name, grant=grant, home=home) as instance:
        instance.up(*options)
        yield instance


@contextlib.contextmanager
def running_kubectl(instance: Instance, *words: str) -> Iterator[subprocess.Popen[str]]:
    """kubectl in the background for at most two minutes, its two outputs as one."""
    program = find_kubectl()
    assert program is not None
    environment = {**instance.environment(), "KUBECONFIG": str(instance.root / "kubeconfig")}
    process = subprocess.Popen(
        [str(program), *words], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    patience = threading.Timer(PATIENCE_SECONDS, process.kill)
    patience.start()
    try:
        yield process
    finally:
        patience.cancel()
        process.kill()
        process.communicate()


@contextlib.contextmanager
def running_operator(instance: Instance, namespace: str, program: Path) -> Iterator[None]:
    """An operator of kopf in a namespace; what it logged stands beside an assertion that fails meanwhile."""
    with tempfile.TemporaryFile("w+") as log:
        operator = subprocess.Popen(
            [sys.executable, "-m", "kopf", "run", "--standalone", "-n", namespace, str(program)],
            env={**os.environ, "KUBECONFIG": str(instance.root / "kubeconfig")},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        except AssertionError as error:
            log.seek(0)
            raise AssertionError(f"{error}\n{log.read()[-4000:]}") from None
        finally:
            operator.terminate()
            operator.wait(PATIENCE_SECONDS)


def ready_pods(instance: Instance, selector: str, count: int, seconds: float = PATIENCE_SECONDS) -> list[Any]:
    """The pods of a selector once `count` of them, and no others, are there and ready."""

    def look() -> list[Any] | None:
        pods = [p for p in instance.get("pods", "-l", selector)["items"] if "deletionTimestamp" not in p["metadata"]]
        ready = [p for p in pods if condition(p, "Ready") == "True"]
        return pods if len(pods) == len(ready) == count else None

    found: list[Any] = eventually(look, seconds, every=0.1)
    return found


def condition(obj: Any, type: str) -> str:
    return next((c["status"] for c in obj["status"].get("conditions", ()) if c["type"] == type), "")


def addresses(pods: Sequence[Any]) -> list[str]:
    return sorted(p["status"]["podIP"] for p in pods)
