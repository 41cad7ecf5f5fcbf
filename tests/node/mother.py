"""Where scenarios come from: for each mode one process that has imported everything, forked once for every scenario.

Importing the API server and the agent takes longer than most scenarios compute. `Mother.run` has a scenario run in new
network, process and mount namespaces, and for an ordinary user in a new user namespace. Nothing outside is touched, and
when the scenario ends the kernel removes everything that was made.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NoReturn

from kubesvc.kernel import nsexec
from kubesvc.kernel.cgroups import remove_recorded
from kubesvc.kernel.trees import remove_tree
from tests.e2e.harness import Instance, python_for

from . import (
    scenario_hostile,
    scenario_images,
    scenario_limits,
    scenario_refusals,
    scenario_rules,
    scenario_sharing,
    scenario_starts,
    scenarios,
)
from .world import Mode, serve

MODULES = (
    scenarios,
    scenario_limits,
    scenario_sharing,
    scenario_starts,
    scenario_images,
    scenario_hostile,
    scenario_rules,
    scenario_refusals,
)

ROOT = Path(__file__).parents[2]
USER = "nobody"
LIMIT_SECONDS = 180
MOST_REQUEST_BYTES = 4096


class Mother:
    """The test's end: starts the process of one mode, asks it for scenarios, many at once if wanted, and ends it."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.home = Path(tempfile.mkdtemp(prefix="kubesvc-test-", dir="/tmp"))
        python, paths = (sys.executable, (str(ROOT / "src"),)) if mode == "root" else python_for(USER)
        command = [python, "-m", "tests.node.mother"]
        if mode == "subordinate ids":
            command = Instance(self.home, user=USER).granted(command)
        elif mode == "one id":
            who = ("--reuid", USER, "--regid", str(pwd.getpwnam(USER).pw_gid), "--clear-groups")
            command = ["setpriv", *who, *command]
        if mode != "root":
            shutil.chown(self.home, USER)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((*paths, str(ROOT))), "KUBESVC_TEST_MODE": mode}
        self.requests, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far, open(self.home / "errors", "wb") as errors:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=far.fileno(), stderr=errors)

    def run(self, scenario: str) -> None:
        """One scenario in a directory of its own; AssertionError with its output if it fails."""
        directory = Path(tempfile.mkdtemp(dir=self.home))
        if self.mode != "root":
            shutil.chown(directory, USER)
        try:
            near, far = os.pipe()
            with open(near, "rb") as answer:
                try:
                    socket.send_fds(self.requests, [f"{scenario} {directory}".encode()], [far])
                except BrokenPipeError:
                    raise AssertionError(f"no scenarios as {self.mode}: {(self.home / 'errors').read_text()}") from None
                finally:
                    os.close(far)
                words, _, status = answer.read().decode(errors="replace").rpartition("\n")
            stayed = remove_recorded(directory / "state" / "cgroups")  # of Pods that ended with their namespaces
        finally:
            remove_tree(directory)
        assert not stayed, f"control groups in use: {stayed}"
        assert status == "0", f"{scenario} as {self.mode}: {status or 'lost'}\n{words[-9000:]}"

    def close(self) -> None:
        """After its last scenario."""
        self.requests.close()
        self.process.wait()
        remove_tree(self.home)


# -- in the process itself --------------------------------------------------------------------------------------------


def bear(scenario: str, directory: Path, user: bool) -> int:
    """Run a scenario in a child inside new namespaces; its exit status, 137 if it took too long."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kinds = ("net", "pid", "user", "ipc", "uts") if user else ("net", "pid")
    options: dict[str, Any] = {**{f"new-{kind}": True for kind in kinds}, "mount-proc": True}
    nsexec.enter(options)
    child = os.fork()
    if child:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
        signal.alarm(LIMIT_SECONDS)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return code if code >= 0 else 128 - code
    nsexec.settle(options)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    function = next(found for module in MODULES if (found := getattr(module, scenario, None)))
    asyncio.run(serve(function, directory / "state", getattr(function, "options", {})))
    return 0


def main() -> NoReturn:
    requests = socket.socket(fileno=0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps them
    gc.freeze()
    user = os.environ["KUBESVC_TEST_MODE"] != "root"
    while True:
        wanted, ends, _, _ = socket.recv_fds(requests, MOST_REQUEST_BYTES, 1)
        if not wanted:
            os._exit(0)
        if os.fork() == 0:
            break
        os.close(ends[0])
    scenario, _, directory = wanted.decode().partition(" ")
    null = os.open(os.devnull, os.O_RDONLY)
    for number, end in enumerate((null, ends[0], ends[0])):
        os.dup2(end, number)
    born, status = os.getpid(), 1
    try:
        status = bear(scenario, Path(directory), user)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.getpid() == born:
        os.write(1, f"\n{status}".encode())
    os._exit(status)


if __name__ == "__main__":
    main()
