"""Processes in namespaces, and the plan of a container's root."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from kubesvc.clock import run_virtual
from kubesvc.kernel import nsexec
from kubesvc.kernel.mounts import Mount, RootPlan, carried_mounts, is_below, plan_steps
from kubesvc.kernel.namespaces import Namespaces, identity, nsexec_command
from kubesvc.kernel.nsexec import id_maps, parse
from kubesvc.kernel.process import (
    KILLED_SECONDS,
    Spawn,
    Spawner,
    StartFailed,
    StillRunning,
    WatchedProcess,
    end_for_good,
    start_time,
)

ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 120))


# -- without privilege ------------------------------------------------------------------------------------------------


def test_flags() -> None:
    options, program = parse(["--net", "7", "--new-pid", "--hostname=x", "--", "prog", "--net"])
    assert options == {"net": "7", "new-pid": True, "hostname": "x"} and program == ["prog", "--net"]
    for wrong in (["--nett", "1", "x"], ["--net"], [], ["--new-pid"]):
        with pytest.raises(ValueError, match=r"flag|value|program"):
            parse(wrong)


@pytest.mark.parametrize(("arguments", "code"), [(("--wrong", "x"), 64), (("--net", "1000000000", "--", "true"), 125)])
def test_nsexec_says_what_is_wrong(arguments: tuple[str, ...], code: int) -> None:
    done = subprocess.run(nsexec_command(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == code and done.stderr.startswith("nsexec: ")


def test_maps_of_a_user_without_subordinate_ids() -> None:
    assert id_maps(54321, 54322) == ([[0, 54321, 1]], [[0, 54322, 1]])


def test_identity() -> None:
    assert identity("self", "net") == identity(os.getpid(), "net") != identity("self", "mnt")
    with pytest.raises(ProcessLookupError):
        identity(1 << 30, "net")
    with pytest.raises(ProcessLookupError):
        Namespaces.of(1 << 30, ("net",))


MOUNTINFO = """\
1 0 8:1 / / rw - ext4 /dev/sda rw
2 1 8:2 / /home rw - ext4 /dev/sdb rw
3 2 8:3 / /home/a\\040b rw - ext4 /dev/sdc rw
4 1 0:1 / /proc rw - proc proc rw
5 4 0:2 / /proc/sys/x rw - y y rw
6 1 0:3 / /run/user/1 rw - tmpfs t rw
7 1 0:4 / /var/lib/state/x rw - tmpfs t rw
8 1 0:5 / /srv rw - ext4 z rw
"""


def test_which_mounts_are_carried_over() -> None:
    assert carried_mounts(MOUNTINFO.splitlines(), ["/var/lib/state"]) == ["/home", "/srv"]
    assert is_below("/a/b", "/a") and is_below("/a", "/a/") and not is_below("/ab", "/a")


def test_steps_of_a_root() -> None:
    plan = RootPlan(
        fresh=("/etc/nginx",),
        files={"/etc/nginx/x": ("text", 0o644)},
        kept=("/opt/py", "/tmp/py"),
        hidden=("/var/secret",),
        mounts=[Mount("/s/deep", "/data/deep"), Mount("/s/v", "/data", below="a"), Mount("/s/h", "/etc/hosts", True)],
        layer_bytes=100,
    )
    steps = plan_steps(plan)
    assert steps[0] == ("overlay", "/", 100, "")
    targets = [s[2] if s[0] == "bind" else s[3] for s in steps if s[0] in ("bind", "bind_below")]
    assert targets == ["/tmp/py", "/data", "/data/deep", "/etc/hosts"]  # /opt/py is seen anyway
    order = [s[:2] for s in steps]
    assert order.index(("tmpfs", "/etc/nginx")) < order.index(("text", "/etc/nginx/x"))
    assert order.index(("tmpfs", "/tmp")) < order.index(("bind", "/tmp/py")) < order.index(("proc",))
    assert ("tmpfs", "/var/secret") in order
    mirror = plan_steps(RootPlan(overlay=False, mounts=plan.mounts))
    assert mirror[0] == ("mirror", "/", 256 << 20, ["/data", "/data/deep", "/etc/hosts"])
    sealed = [s[0] for s in plan_steps(RootPlan(read_only=True, mounts=plan.mounts))]
    assert sealed.index("place_for") < sealed.index("seal") < sealed.index("bind")


def test_exit_codes_and_signals() -> None:
    async def scene() -> None:
        for argv, expected in ((("sh", "-c", "exit 7"), 7), (("sh", "-c", "kill -TERM $$"), -signal.SIGTERM)):
            process = await plain(argv)
            assert await process.wait() == expected and process.done()
            process.signal(signal.SIGKILL)  # gone: nothing happens

    run(scene())


async def plain(argv: tuple[str, ...]) -> WatchedProcess:
    """A watched child in the namespaces of the test."""
    child = subprocess.Popen(argv)  # noqa: ASYNC220
    return WatchedProcess(child.pid, os.pidfd_open(child.pid), child)


def test_adoption_checks_the_start_time() -> None:
    """A number alone says nothing: it may have been given to another process."""

    async def scene() -> None:
        process = await plain(("sleep", "30"))
        assert WatchedProcess.adopt(process.pid, process.start_time + 1) is None
        assert WatchedProcess.adopt(1 << 30, 1) is None
        adopted = WatchedProcess.adopt(process.pid, start_time(process.pid))
        assert adopted is not None
        adopted.signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        assert await adopted.wait() in (-signal.SIGKILL, None)  # older kernels do not tell

    run(scene())


# -- as root ----------------------------------------------------------------------------------------------------------


async def contained(spawner: Spawner, place: Path, script: str, plan: RootPlan, **spec: Any) -> tuple[int | None, str]:
    """(exit code, output) of a script in a root of its own."""
    read, write = os.pipe()
    spawn = Spawn(argv=("sh", "-c", script), env=ENV, cwd="/", new=("pid", "uts", "ipc"), stdout=write, stderr=write)
    place.mkdir(exist_ok=True)
    prepared = await spawner.prepare_container(spawn, {"place": str(place), **spec}, plan_steps(plan))
    os.close(write)
    try:
        process = await prepared.go()
        code = await process.wait()
        with os.fdopen(read, "rb") as file:
            return code, file.read().decode()
    except BaseException:
        prepared.close()
        raise


@pytest.mark.e2e
@pytest.mark.parametrize("overlay", [True, False], ids=["overlay", "mirror"])
def test_a_root_of_ones_own(tmp_path: Path, overlay: bool) -> None:
    """Volumes at places that do not exist, files instead of the machine's, nothing written through, links held in."""
    volume, hidden = tmp_path / "volume", tmp_path / "hidden"
    volume.mkdir()
    hidden.mkdir()
    (volume / "f").write_text("volume")
    (volume / "trap").symlink_to("/")
    (hidden / "secret").write_text("secret")
    plan = RootPlan(
        overlay=overlay,
        layer_bytes=1 << 20,
        hidden=(str(hidden),),
        fresh=("/etc/nginx",),
        files={"/etc/nginx/conf": ("conf\n", 0o600)},
        links={"/etc/nginx/link": "conf"},
        mounts=[
            Mount(str(volume), "/new/place"),
            Mount(str(volume / "f"), "/etc/hosts", read_only=True),
            Mount(str(volume), "/inside", below="trap/f"),
        ],
    )
    script = (
        "cat /new/place/f /etc/hosts /inside /etc/nginx/link; echo x > /new/place/written; echo $$;"
        f"ls {hidden} 2>/dev/null; (echo y > /etc/hosts) 2>/dev/null || echo readonly"
    )

    async def scene() -> None:
        spawner = Spawner()
        code, out = await contained(spawner, tmp_path / "room", script, plan)
        assert code == 0, out
        lines = out.splitlines()
        assert lines[0] == "volumevolumevolumeconf" and lines[1] == "1" and lines[2] == "readonly", out
        assert "secret" not in out
        spawner.close()

    run(scene())
    assert (volume / "written").read_text() == "x\n"
    assert (volume / "f").is_file() and not os.path.exists("/new")


@pytest.mark.e2e
def test_a_start_that_fails_says_at_which_step(tmp_path: Path) -> None:
    async def scene() -> None:
        spawner = Spawner()
        for plan, spec, words in (
            (RootPlan(mounts=[Mount("/no/such", "/x")]), {}, "mount: bind /no/such"),
            (RootPlan(), {"limits": {7: (5, 3)}}, "limits: "),
        ):
            with pytest.raises(StartFailed, match=words):
                await contained(spawner, tmp_path / "room", "true", plan, **spec)
        spawner.close()

    run(scene())


@pytest.mark.e2e
def test_what_is_not_told_to_go_ends(tmp_path: Path) -> None:
    """A container whose agent died between spawn and record leaves nothing."""

    async def scene() -> None:
        spawner = Spawner()
        (tmp_path / "room").mkdir()
        spawn = Spawn(argv=("sleep", "60"), env=ENV, cwd="/", new=("pid",))
        prepared = await spawner.prepare_container(spawn, {"place": str(tmp_path / "room")}, [])
        assert start_time(prepared.process.pid)
        prepared.close()
        assert await prepared.process.wait() == 125
        spawner.close()

    run(scene())


@pytest.mark.parametrize(("program", "expected"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", -9)])
def test_the_end_of_an_adopted_process_is_known(program: str, expected: int) -> None:
    """Not our child: its parent ignores its children, as the first process of a node does, so the kernel reaps it."""
    code = f"""
import os, signal, sys, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if (pid := os.fork()) == 0:
    sys.stdin.read()
    {program}
print(pid, flush=True)
os.close(0)
time.sleep(20)
"""

    command = [sys.executable, "-I", "-S", "-c", code]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdin is not None and parent.stdout is not None
    pid = int(parent.stdout.readline())

    async def scene() -> None:
        process = WatchedProcess.adopt(pid, start_time(pid))
        assert process is not None and parent.stdin is not None
        parent.stdin.close()
        told = tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 15)
        assert await process.wait() == (expected if told else None)

    try:
        run(scene())
    finally:
        parent.kill()
        parent.stdout.close()
        parent.wait()


def test_who_gives_up_before_his_turn_starts_nothing(tmp_path: Path) -> None:
    """Or those who come after would wait for what nobody wants."""

    async def scene() -> None:
        spawner, begun = Spawner(), threading.Event()
        busy = asyncio.create_task(spawner.call(lambda: begun.wait(60)))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(spawner.spawn(Spawn(argv=("touch", str(tmp_path / "there")), env=ENV)))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        begun.set()
        await busy
        last = await spawner.spawn(Spawn(argv=("true",), env=ENV))
        assert await last.wait() == 0 and not (tmp_path / "there").exists()
        spawner.close()

    run(scene())


class Immortal:
    """A process that hangs in the kernel."""

    pid, start_time = os.getpid(), 0

    def __init__(self) -> None:
        self.signals: list[int] = []

    def done(self) -> bool:
        return False

    async def wait(self) -> int | None:
        await asyncio.Event().wait()
        return None

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def close(self) -> None:
        pass


def test_what_does_not_end_by_sigkill_is_named() -> None:
    async def scene() -> None:
        process = Immortal()
        with pytest.raises(StillRunning) as told:
            await end_for_good(process, "container web")
        assert process.signals == [signal.SIGKILL] and asyncio.get_running_loop().time() >= KILLED_SECONDS
        words = rf"container web: process {process.pid} \(.+, state [A-Z] .+\) has not ended 30 s after SIGKILL"
        assert re.fullmatch(words, str(told.value)), told.value

    run_virtual(scene())


def test_what_ends_by_sigkill_says_so() -> None:
    async def scene() -> None:
        assert await end_for_good(await plain(("sleep", "60")), "sleep") == -signal.SIGKILL

    run(scene())


def test_programs_hear_what_their_starter_ignores() -> None:
    """As under nohup, or in the background of a shell."""
    command = nsexec_command("--chdir", "/", program=("cat", "/proc/self/status"))
    script = ("sh", "-c", 'trap "" HUP INT QUIT PIPE TSTP; exec "$@"', "sh", *command)
    said = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    ignored = int(next(line for line in said.splitlines() if line.startswith("SigIgn:")).split()[1], 16)
    trapped = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTSTP)
    assert not [s for s in trapped if ignored & 1 << s - 1], said


@pytest.mark.e2e
def test_nsexec_makes_and_joins() -> None:
    read, write = os.pipe()
    command = nsexec_command(
        "--new-net", "--new-pid", "--mount-proc", "--ignore-sigchld", "--report", str(write), program=("sleep", "30")
    )
    parent = subprocess.Popen(command, pass_fds=(write,))
    os.close(write)
    pid = int(os.read(read, 32))
    os.close(read)
    try:
        assert identity(pid, "net") != identity("self", "net")
        inside = nsexec_command(
            "--net",
            str(pid),
            "--pid",
            str(pid),
            "--mnt",
            str(pid),
            program=("sh", "-c", "ls /proc | grep -c '^1$'; exit 9"),
        )
        done = subprocess.run(inside, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (9, "1\n")
    finally:
        os.kill(pid, signal.SIGKILL)
        assert parent.wait() == 128 + signal.SIGKILL


def test_the_program_between_loads_little() -> None:
    """It runs once for each container, probe and exec; and what it runs may find Python's own files out of sight."""
    code = f"import sys; sys.path.append({str(Path(nsexec.__file__).parent)!r}); import nsexec; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert "nsexec" in said.split()
    assert not {"typing", "signal", "re", "enum", "functools", "collections", "platform"} & set(said.split())


@pytest.mark.parametrize(
    ("sentence", "program", "path", "words"),
    [
        ("along PATH", "there", "{0}/no:{0}/file:{0}/bin", ""),
        ("by its path", "{0}/bin/there", "", ""),
        ("nowhere", "absent", "{0}/bin", "No such file or directory"),
        ("one that may not be run, though another place has none", "denied", "{0}/bin:{0}/no", "Permission denied"),
        ("one that may be run after one that may not", "there", "{0}/other:{0}/bin", ""),
    ],
)
def test_a_program_is_found_as_a_shell_finds_it(
    sentence: str, program: str, path: str, words: str, tmp_path: Path
) -> None:
    for name, mode in (("bin/there", 0o755), ("bin/denied", 0o644), ("other/there", 0o644), ("file", 0o644)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\necho $1\n")
        (tmp_path / name).chmod(mode)
    command = nsexec_command("--chdir", "/", program=(program.format(tmp_path), "ran"))
    done = subprocess.run(
        command, env={"PATH": path.format(tmp_path)}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout) == ((0, "ran\n") if not words else (125, "")), done
    assert words in done.stderr


ADOPTING = """
import os, random, signal, subprocess, sys, time
from kubesvc.kernel import syscalls
from kubesvc.kernel.namespaces import nsexec_command
from kubesvc.kernel.nsexec import END

syscalls.prctl(36, 1)  # whoever loses its parent is ours, and we reap nobody
loop = ["sh", "-c", "while :; do sleep 0.05; done"]
first = subprocess.Popen(nsexec_command("--new-pid", "--report", "1", program=loop), stdout=subprocess.PIPE)
pid = int(first.stdout.readline())
chance = random.Random(7)
for _ in range(30):
    joined = nsexec_command("--own-group", "--pid", str(pid), program=["sh", "-c", "sleep 100 & sleep 100"])
    child = subprocess.Popen(joined, start_new_session=True)
    time.sleep(chance.uniform(0.005, 0.05))
    child.send_signal(END)
    child.wait(60)
os.kill(pid, signal.SIGKILL)
first.wait(60)
"""


@pytest.mark.e2e
def test_what_joined_a_process_namespace_ends_without_holding_up_its_first() -> None:
    """NODE-52, NODE-65: at any moment of its start, and where nobody reaps what lost its parent (the first process of
    many a container does not); a namespace's first process cannot end before all others in it are reaped."""
    done = subprocess.run([sys.executable, "-c", ADOPTING], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
