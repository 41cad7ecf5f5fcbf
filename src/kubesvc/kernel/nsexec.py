"""`python -m kubesvc.kernel.nsexec [FLAGS] -- PROGRAM [ARGUMENTS]`: exec a program inside namespaces.

It stands between a spawn and the program, single-threaded, and does there what only such a process can: join a user
namespace, be alone in a new one, mount a /proc for its own process namespace, change its root. Standard library only
and quick (about 10 ms); start it by `kubesvc.kernel.namespaces.nsexec_command`, which leaves `site` out.

    --user PID|PATH  --net …  --pid …  --mnt …  --uts …  --ipc …   join (user first, mount last)
    --new-user --new-net --new-pid --new-mnt --new-uts --new-ipc   make new ones
    --map-ids        map all subordinate ids granted to the caller (newuidmap), else one; implied by --new-user
    --mount-proc     mount /proc anew (implies a private copy of the mounts)
    --ignore-sigchld the kernel reaps the program's orphans; survives exec
    --hostname NAME  --chdir DIR  --setuid N  --setgid N  --groups N,N… (with --setgid)
    --capabilities N keep no capability outside this bit mask
    --cgroup P:P…    enter control groups first, by the paths of their cgroup.procs
    --ctty           in a session of its own, with stdin as its terminal
    --own-group      in a process group of its own (with --ctty it leads one anyway); it hears SIGHUP and END as a whole
    --report FD      write the program's process id (as the caller sees it) and a newline to this descriptor
    --status FD      when a step fails write "step: words" to this descriptor instead; a successful exec closes it
    --detach         with a new or joined process namespace: do not wait for the program
    --spec FD        read a marshalled dictionary from this descriptor instead (see `run_spec`)

With --pid or --new-pid it forks once, so that the program is inside; the parent then passes signals on and ends as
the program ended. Whoever wants the program's end at once sends it END instead of SIGKILL: a program whose parent went
first is reaped by whoever adopts it, if at all, and the first process of its namespace cannot end before it is.
Exit status 125 and one line on stderr when a step fails.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # see syscalls
if TYPE_CHECKING:
    import signal
    from typing import Any, NoReturn
else:
    import _signal as signal  # what `signal` wraps in enumerations, for which it loads a dozen modules

if __package__:
    from . import rootfs
    from . import syscalls as sc
else:  # pragma: no cover - started by path, see namespaces.nsexec_command
    import rootfs  # type: ignore[import-not-found,no-redef]
    import syscalls as sc  # type: ignore[import-not-found,no-redef]

KINDS = {
    "user": sc.CLONE_NEWUSER,
    "net": sc.CLONE_NEWNET,
    "uts": sc.CLONE_NEWUTS,
    "ipc": sc.CLONE_NEWIPC,
    "pid": sc.CLONE_NEWPID,
    "mnt": sc.CLONE_NEWNS,
}
"""Namespace names in the order of joining: user first, for the rights it gives; mnt last, for the paths it takes."""

FAILED = 125
END = signal.SIGALRM
"""Ends the program (with --own-group its whole group) by SIGKILL; its parent stays to reap it."""
VALUES = ("hostname", "chdir", "setuid", "setgid", "groups", "capabilities", "cgroup", "report", "status", "spec")
WITH_VALUE = {f"--{k}" for k in (*KINDS, *VALUES)}
SWITCHES = ("map-ids", "mount-proc", "ignore-sigchld", "detach", "ctty", "own-group")
FLAGS = {f"--new-{k}" for k in KINDS} | {f"--{k}" for k in SWITCHES}


def parse(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """(options, program with arguments); ValueError for an unknown flag or no program."""
    options: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if name in WITH_VALUE:
            if not equals:
                if not rest:
                    raise ValueError(f"{name} needs a value")
                value = rest.pop(0)
            options[name[2:]] = value
        elif word in FLAGS:
            options[word[2:]] = True
        else:
            rest.insert(0, word)
            break
        if name == "--spec":
            return options, []
    if rest and rest[0].startswith("--"):
        raise ValueError(f"unknown flag {rest[0]}")
    if not rest:
        raise ValueError("no program given")
    return options, rest


def open_namespace(kind: str, where: str) -> int:
    """A descriptor of the namespace of the process `where`, or at the path `where`."""
    if not where.isdigit():
        return os.open(where, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.open(f"/proc/{where}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # not to be taken for a program that is not there
        raise ProcessLookupError(3, f"process {where} has ended") from None


def subordinate(path: str, user: int) -> tuple[int, int] | None:
    """The first (start, count) granted to `user` in /etc/subuid or /etc/subgid."""
    try:
        import pwd

        names = {str(user), pwd.getpwuid(user).pw_name}
    except KeyError:
        names = {str(user)}
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                parts = line.strip().split(":")
                if len(parts) == 3 and parts[0] in names:
                    return int(parts[1]), int(parts[2])
    except (OSError, ValueError):
        pass
    return None


def id_maps(user: int, group: int) -> tuple[list[list[int]], list[list[int]]]:
    """(uid map, gid map) as rows inside, outside, count: the caller is root inside, its subordinate ids follow."""
    uids, gids = [[0, user, 1]], [[0, group, 1]]
    granted_uids, granted_gids = subordinate("/etc/subuid", user), subordinate("/etc/subgid", user)
    if granted_uids and granted_gids:
        uids.append([1, *granted_uids])
        gids.append([1, *granted_gids])
    return uids, gids


def write_maps(pid: int, user: int, group: int) -> None:
    """Give the user namespace of `pid` its ids: everything for root, newuidmap where granted, else the one id."""
    if user == 0 and os.path.exists("/proc/self/uid_map"):
        with open("/proc/self/uid_map", encoding="utf-8") as file:
            rows = [[int(n) for n in line.split()] for line in file]
        for name in ("uid_map", "gid_map"):
            write(f"/proc/{pid}/{name}", "".join(f"{inside} {inside} {count}\n" for inside, _, count in rows))
        return
    uids, gids = id_maps(user, group)
    if len(uids) > 1:
        helpers = (("newuidmap", uids), ("newgidmap", gids))
        if all(run([name, str(pid), *(str(n) for row in rows for n in row)]) == 0 for name, rows in helpers):
            return
    write(f"/proc/{pid}/setgroups", "deny")
    for name, rows in (("uid_map", uids), ("gid_map", gids)):
        inside, outside, count = rows[0]
        write(f"/proc/{pid}/{name}", f"{inside} {outside} {count}\n")


def write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def run(command: list[str]) -> int:
    try:
        pid = os.posix_spawnp(command[0], command, dict(os.environ))
    except OSError:
        return 127
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def new_user_namespace() -> None:
    """Become root in a new user namespace. A helper, forked before, writes the maps from outside."""
    me, user, group = os.getpid(), os.geteuid(), os.getegid()
    ready_read, ready_write = os.pipe()
    helper = os.fork()
    if helper == 0:
        status = 1
        try:
            os.close(ready_write)
            if os.read(ready_read, 1):
                write_maps(me, user, group)
                status = 0
        except OSError as error:
            complain(f"id maps: {error}")
        finally:
            os._exit(status)
    sc.unshare(sc.CLONE_NEWUSER)
    os.write(ready_write, b"+")
    os.close(ready_write)
    os.close(ready_read)
    if os.waitpid(helper, 0)[1] != 0:
        raise OSError(1, "the ids of the new user namespace could not be mapped")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def enter(options: dict[str, Any]) -> bool:
    """Join and make the namespaces that `options` name; whether children will be in another process namespace."""
    if options.get("ctty"):
        import fcntl  # noqa: F401 - while its file can still be found
        import termios  # noqa: F401
    for entrance in filter(None, options.get("cgroup", "").split(":")):
        write(entrance, "0")
    opened = {kind: open_namespace(kind, options[kind]) for kind in KINDS if kind in options}
    working_directory = os.getcwd()
    for kind, fd in opened.items():
        sc.setns(fd, KINDS[kind])
        os.close(fd)
        if kind == "user":
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
    if options.get("new-user"):
        new_user_namespace()
    flags = 0
    for kind, flag in KINDS.items():
        if kind != "user" and options.get(f"new-{kind}"):
            flags |= flag
    if options.get("mount-proc"):
        flags |= sc.CLONE_NEWNS
    if flags:
        sc.unshare(flags)
    if "mnt" in options:
        try:
            os.chdir(working_directory)
        except OSError:
            os.chdir("/")
    return "pid" in options or bool(options.get("new-pid"))


def settle(options: dict[str, Any]) -> None:
    """What happens inside, last before exec."""
    if options.get("new-mnt") or options.get("mount-proc"):
        sc.mount("none", "/", "", sc.MS_REC | sc.MS_PRIVATE)
    if options.get("mount-proc"):
        sc.mount("proc", "/proc", "proc", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    if "hostname" in options:
        import socket

        socket.sethostname(options["hostname"])
    if "chdir" in options:
        os.chdir(options["chdir"])
    if options.get("ctty"):
        import fcntl
        import termios

        if os.getsid(0) != os.getpid():
            os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    elif options.get("own-group"):
        os.setpgid(0, 0)
    if "setgid" in options:
        become_group(int(options["setgid"]), [int(n) for n in options.get("groups", "").split(",") if n])
    if "capabilities" in options:
        sc.limit_capabilities(int(options["capabilities"]))
    if "setuid" in options:
        become_user(int(options["setuid"]))
    hear_all_signals()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN if options.get("ignore-sigchld") else signal.SIG_DFL)


UNHEARD = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTSTP,
    signal.SIGTTIN, signal.SIGTTOU,
)  # fmt: skip
"""What Python ignores, and what whoever started us may have had ignored, such as nohup or a shell in the background."""


def hear_all_signals() -> None:
    """Ignored signals stay ignored through exec: a program is to find them as it expects."""
    for number in UNHEARD:
        signal.signal(number, signal.SIG_DFL)


NO_SUCH_ID = "no such {} here: {} (only ids that are mapped exist; subordinate ids need newuidmap and /etc/subuid)"


def become_group(group: int | None, groups: list[int] | None) -> None:
    """Take on a group and supplementary groups. Where the kernel forbids changing the latter (a user namespace of one
    id), nothing but root's own may be asked for."""
    if groups is not None:
        try:
            os.setgroups(groups)
        except OSError as error:
            if set(groups) - {0}:
                raise OSError(error.errno, NO_SUCH_ID.format("group", groups)) from None
    if group is not None:
        try:
            os.setresgid(group, group, group)
        except OSError as error:
            raise OSError(error.errno, NO_SUCH_ID.format("group", group)) from None


def become_user(user: int) -> None:
    try:
        os.setresuid(user, user, user)
    except OSError as error:
        raise OSError(error.errno, NO_SUCH_ID.format("user", user)) from None


PASSED_ON = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, END,
)  # fmt: skip
HEARD = (*PASSED_ON, signal.SIGCHLD)
"""What a parent waits for, and no handler: one that came just before a call that waits would not end that call."""


def wait_for(pid: int, own_group: bool) -> NoReturn:
    """Pass signals on to the child and end as it ended. What it hears is blocked since before the child was made."""
    while True:
        number = signal.sigwait(HEARD)
        if number == signal.SIGCHLD:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
        else:
            send(os.kill, pid, signal.SIGKILL if number == END else number)
            if own_group and number in (END, signal.SIGHUP):
                send(os.killpg, pid, signal.SIGKILL if number == END else number)


def send(kill: Any, pid: int, number: int) -> None:
    try:
        kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def execute(program: list[str], environment: dict[str, str]) -> NoReturn:
    """Exec a program, found along PATH as a shell finds it. Not os.execvpe: that imports a module, and by now the files
    of Python may be out of sight, or not this user's to read."""
    name, refusal = program[0], None
    places = [""] if "/" in name else environment.get("PATH", os.defpath).split(":")
    for place in places:
        try:
            os.execve(os.path.join(place, name), program, environment)
        except (FileNotFoundError, NotADirectoryError) as error:
            missing = error
        except OSError as error:
            refusal = refusal or error
    raise refusal or missing


def complain(text: str) -> None:
    os.write(2, f"nsexec: {text}\n".encode())


# -- a container's program, described by a dictionary -----------------------------------------------------------------


def run_spec(fd: int) -> NoReturn:
    """Become the program that a marshalled dictionary describes; the process is already in its namespaces but mnt.

    Keys: argv, env, cwd; steps and place (see rootfs.build; absent: the mounts stay shared); uid, gid, groups;
    capabilities (mask to keep, absent: all), no_new_privileges; terminal (one of the new root becomes stdin, stdout,
    stderr and the controlling one, and its near end goes to this socket; where there is none, stdin is one already);
    limits {resource number: (soft, hard)}; go (a descriptor: when the root stands, one byte must arrive, its end means
    that the parent died); status (a descriptor: on failure gets one line "step: words"; closed by a successful exec).
    """
    import marshal

    with os.fdopen(fd, "rb") as file:
        spec: dict[str, Any] = marshal.loads(file.read())
    step = "prepare"
    try:
        os.set_inheritable(spec["status"], False)
        os.set_inheritable(spec["go"], False)
        if spec.get("terminal"):  # imported before the files are out of sight
            import fcntl
            import socket
            import termios

            terminals()
        if spec.get("limits"):
            import resource
        if "steps" in spec:
            step = "mount"
            sc.unshare(sc.CLONE_NEWNS)
            rootfs.build(spec["steps"], spec["place"])
        if spec.get("terminal"):
            step = "terminal"
            with socket.socket(fileno=spec["terminal"]) as console:
                move_to_terminal(console, spec.get("uid") or 0)
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if os.read(spec["go"], 1) != b"+":
            os._exit(FAILED)
        step = "limits"
        if spec.get("limits"):
            for number, pair in spec["limits"].items():
                resource.setrlimit(number, pair)
        os.umask(0o022)
        step = "identity"
        if spec.get("no_new_privileges"):
            sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
        become_group(spec.get("gid"), spec.get("groups"))
        if spec.get("capabilities") is not None and not spec.get("uid"):
            sc.limit_capabilities(spec["capabilities"])
        if spec.get("uid"):
            become_user(spec["uid"])
        step = "working directory"
        os.chdir(spec.get("cwd") or "/")
        hear_all_signals()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        step = "exec"
        execute(spec["argv"], spec["env"])
    except OSError as error:
        tell(spec["status"], f"{step}: {error.strerror or error}")
    except Exception as error:
        tell(spec["status"], f"{step}: {type(error).__name__}: {error}")
    os._exit(FAILED)


def tell(status: int, words: str) -> None:
    try:
        os.write(status, words.encode())
    except BrokenPipeError:
        pass  # the parent has died


def terminals() -> Any:
    """The module, which few programs need."""
    if __package__:
        from . import terminals
    else:  # pragma: no cover
        import terminals  # type: ignore[import-not-found,no-redef]
    return terminals


def move_to_terminal(console: Any, owner: int) -> None:
    """Open a terminal of this root and make its far end the first three descriptors; the near end goes out."""
    import socket

    try:
        near, far = terminals().open_pair("/dev/pts/ptmx")
    except OSError:
        return  # what the parent has opened stays
    os.fchown(far, owner, -1)
    socket.send_fds(console, [b"+"], [near])
    for number in range(3):
        os.dup2(far, number)


def main(arguments: list[str] | None = None) -> NoReturn:
    try:
        options, program = parse(sys.argv[1:] if arguments is None else arguments)
    except ValueError as error:
        complain(str(error))
        os._exit(64)
    if "spec" in options:
        run_spec(int(options["spec"]))
    step, status = "enter", int(options.get("status", -1))
    try:
        if status >= 0:
            os.set_inheritable(status, False)
        inside = enter(options)
        report = int(options["report"]) if "report" in options else -1
        if inside:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)  # none may end the parent before it knows the child
            pid = os.fork()
            if pid:
                if report >= 0:
                    os.write(report, f"{pid}\n".encode())
                if options.get("detach"):
                    os._exit(0)
                if status >= 0:
                    os.close(status)
                wait_for(pid, bool(options.get("own-group")))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
        elif report >= 0:
            os.write(report, f"{os.getpid()}\n".encode())
        if report >= 0:
            os.close(report)
        step = "settle"
        settle(options)
        step = "exec"
        execute(program, dict(os.environ))
    except OSError as error:
        if status >= 0:
            os.write(status, f"{step}: {error.strerror or error}".encode())
            os._exit(FAILED)
        complain(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    os._exit(FAILED)


if __name__ == "__main__":
    main()
