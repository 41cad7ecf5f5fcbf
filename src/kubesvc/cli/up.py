"""Start an instance: an API server, the controllers, and nodes whose Pods are real processes.

Runs until Ctrl-C and then leaves the machine as it was; the objects stay in the store, so that the next `up` continues
where this one ended. With --detach it runs on in the background until `kubesvc down`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import ipaddress
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from kubesvc.instance.options import MOST_NODES, UpOptions
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.record import InstanceRecord, ProcessId, read_record, write_record
from kubesvc.instance.wholefile import FULL
from kubesvc.instance.wiring import NODE_NETWORK, NODE_NETWORK_6

from . import WORLDS_FAULT, Failure, first_of, refused
from .flags import (
    address,
    bind_address,
    comma,
    count,
    duration,
    issuer,
    mirror,
    modes,
    networks,
    pool,
    port,
    port_range,
    token_life,
    truth,
)
from .runtimes import add_runtime, checked_runtime
from .target import add_name, instance_paths

Group = argparse._ArgumentGroup

DETACHED_PATIENCE_SECONDS = 90.0
USUAL = ("*", "service-events")
"""The controllers of upstream, and ours that says on a Service what happened to its endpoints."""
USUAL_POOL, USUAL_POOL_6 = "172.31.0.0/24", "fd00:172:31::/112"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [options]"
    add_name(parser)
    parser.add_argument("--detach", action="store_true", help="run in the background until `kubesvc down`")
    parser.add_argument(
        "--store", default="", metavar="PATH|memory|etcd://…",
        help="where objects are kept (default: the instance's own file); in an etcd several API servers share them: "
        "etcd://HOST:PORT[,HOST:PORT][/PREFIX], or etcds://…?cacert=FILE&cert=FILE&key=FILE",
    )  # fmt: skip
    parser.add_argument(
        "--web", type=port, nargs="?", const=0, metavar="PORT",
        help="serve the live picture as a web page on loopback; the link is printed (docs/web.md)",
    )  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="log to the terminal too")
    parser.add_argument("--ready-fd", type=int, default=-1, help=argparse.SUPPRESS)
    parser.add_argument("--until-fd", type=int, default=-1, help=argparse.SUPPRESS)
    add_nodes(parser.add_argument_group("nodes"))
    add_images(parser.add_argument_group("what runs in Pods"))
    add_networks(parser.add_argument_group("addresses"))
    add_controllers(parser.add_argument_group("controllers"))
    add_access(parser.add_argument_group("the API server: who may what"))
    add_limits(parser.add_argument_group("the API server: load and records"))


def add_nodes(group: Group) -> None:
    group.add_argument("--nodes", type=count, default=1, metavar="N", help="real nodes (default: 1; 0: API only)")
    group.add_argument(
        "--simulated-nodes", type=count, default=0, metavar="N", help="further nodes whose Pods are simulated"
    )
    group.add_argument("--zones", type=comma, default=(), metavar="A,B", help="zones of the nodes, in turn")
    group.add_argument(
        "--proxy-mode", choices=("auto", "nftables", "iptables", "userspace"), default="auto",
        help="how nodes steer packets (auto: the first of the others that works; `kubesvc status` says which and why)",
    )  # fmt: skip


def add_images(group: Group) -> None:
    group.add_argument(
        "--images", default="stand-ins", choices=("stand-ins", "registries", "offline"),
        help="what this machine can stand in for runs at once, all else is pulled (stand-ins, the default); pull "
        "everything (registries); pull nothing (offline)",
    )  # fmt: skip
    group.add_argument("--images-map", default="", metavar="FILE", help="image pattern to command (docs/images.md)")
    group.add_argument(
        "--registry-mirror", type=mirror, action="append", default=[], metavar="REGISTRY=URL",
        help="ask there instead: docker.io=http://127.0.0.1:5000",
    )  # fmt: skip
    add_runtime(group)


def add_networks(group: Group) -> None:
    group.add_argument("--port", type=port, default=0, metavar="PORT", help="of the API server (default: any free)")
    group.add_argument(
        "--bind-address", type=bind_address, default="", metavar="IP",
        help="where the API answers, so that other machines can join (docs/join.md; default: loopback)",
    )  # fmt: skip
    group.add_argument(
        "--advertise-address", type=address, default="", metavar="IP", help="of this API server, for clients in Pods"
    )
    group.add_argument(
        "--service-cluster-ip-range", type=networks, default=("10.96.0.0/16",), metavar="CIDR[,CIDR]",
        help="ClusterIPs, one range of each family (default: 10.96.0.0/16)",
    )  # fmt: skip
    group.add_argument(
        "--service-node-port-range", type=port_range, default=(30000, 32767), metavar="FIRST-LAST",
        help="node ports (default: 30000-32767)",
    )  # fmt: skip
    group.add_argument(
        "--cluster-cidr", type=networks, default=("10.244.0.0/16",), metavar="CIDR[,CIDR]",
        help="Pods' addresses, one range of each family (default: 10.244.0.0/16)",
    )  # fmt: skip
    group.add_argument(
        "--load-balancer-range", type=pool, default=None, metavar="CIDR[,CIDR]|none",
        help="addresses for Services of type LoadBalancer, one range of each family (default: 172.31.0.0/24, and with "
        "IPv6 fd00:172:31::/112)",
    )  # fmt: skip


def add_controllers(group: Group) -> None:
    group.add_argument(
        "--controllers", type=comma, default=USUAL, metavar="*,NAME,-NAME",
        help="which to run (default: *,service-events)",
    )  # fmt: skip
    group.add_argument(
        "--node-monitor-grace-period", type=duration, default=50.0, metavar="DURATION",
        help="how long a node may be silent before it counts as gone (default: 50s)",
    )  # fmt: skip
    group.add_argument(
        "--explain-slices", action="store_true",
        help="say on every EndpointSlice what was decided about each Pod (annotation kubesvc.dev/decisions)",
    )  # fmt: skip
    group.add_argument(
        "--service-warnings", type=truth, default=True, metavar="true|false",
        help="warn whoever writes a Service that selects nothing (default: true)",
    )  # fmt: skip


def add_access(group: Group) -> None:
    group.add_argument(
        "--authorization-mode", type=modes, default="Node,RBAC", metavar="MODE[,MODE]",
        help="of Node, RBAC, AlwaysAllow (default: Node,RBAC)",
    )  # fmt: skip
    group.add_argument("--token-auth-file", default="", metavar="FILE", help='lines of token,user,uid,"groups"')
    group.add_argument(
        "--anonymous-auth", type=truth, default=None, metavar="true|false",
        help="let nobody in particular ask for anything (default: for health and version only)",
    )  # fmt: skip
    group.add_argument(
        "--service-account-issuer", type=issuer, action="append", default=[], metavar="URL",
        help="whose name service account tokens carry; given again, whose tokens are taken too "
        "(default: https://kubernetes.default.svc)",
    )  # fmt: skip
    group.add_argument(
        "--service-account-max-token-expiration", type=token_life, default=0, metavar="DURATION",
        help="longest life of a token, from 1h (default: as long as is asked for)",
    )  # fmt: skip
    group.add_argument(
        "--enable-admission-plugins", type=comma, default=(), metavar="NAME[,NAME]", help="beside the usual ones"
    )
    group.add_argument(
        "--disable-admission-plugins", type=comma, default=(), metavar="NAME[,NAME]", help="of the usual ones"
    )


def add_limits(group: Group) -> None:
    group.add_argument(
        "--max-requests-inflight",
        type=count,
        default=400,
        metavar="N",
        help="reads at once (default: 400; 0: no limit)",
    )
    group.add_argument(
        "--max-mutating-requests-inflight", type=count, default=200, metavar="N",
        help="writes at once (default: 200; 0: no limit)",
    )  # fmt: skip
    group.add_argument(
        "--audit-log", "--audit-log-path", default="", metavar="FILE", help="one line of JSON per request"
    )
    group.add_argument(
        "--audit-level", default="Metadata", choices=("Metadata", "Request", "RequestResponse"),
        help="Request: bodies too; RequestResponse: answers too",
    )  # fmt: skip
    group.add_argument("--audit-policy-file", default="", metavar="FILE", help="rules that say what is logged")
    group.add_argument(
        "--audit-log-maxsize", type=count, default=0, metavar="MB", help="size at which the log is put aside (0: 100)"
    )
    group.add_argument("--audit-log-maxbackup", type=count, default=0, metavar="N", help="logs kept aside (0: all)")
    group.add_argument("--audit-log-maxage", type=count, default=0, metavar="DAYS", help="and for how long (0: ever)")


def options_of(args: argparse.Namespace) -> UpOptions:
    if args.nodes + args.simulated_nodes > MOST_NODES:
        raise Failure(f"--nodes: at most {MOST_NODES} nodes fit on the network between them", status=64)
    if args.load_balancer_range is None:
        args.load_balancer_range = usual_pool(args.cluster_cidr, args.service_cluster_ip_range)
    if clash := overlap(args):
        raise Failure(clash, status=64)
    for name in ("images_map", "token_auth_file", "audit_policy_file"):
        path = getattr(args, name)
        if path and not Path(path).is_file():
            raise Failure(f"--{name.replace('_', '-')} {path}: no such file", status=64)
    from kubesvc.controllers.registry import CONTROLLERS
    from kubesvc.controllers.runner import select
    from kubesvc.store import is_address, open_store

    try:
        if args.controllers:
            select(args.controllers, CONTROLLERS)
    except ValueError as error:
        raise Failure(str(error), status=64) from error
    store = args.store
    if is_address(store):
        try:
            open_store(store)
        except ValueError as error:
            raise Failure(str(error), status=64) from None
    elif store and store != "memory":
        store = os.path.abspath(store)
    return UpOptions(
        nodes=args.nodes,
        simulated_nodes=args.simulated_nodes,
        zones=args.zones,
        store=store,
        port=args.port,
        bind_address=args.bind_address,
        advertise_address=args.advertise_address,
        controllers=args.controllers,
        authorization_mode=args.authorization_mode,
        token_auth_file=args.token_auth_file,
        anonymous_auth=args.anonymous_auth,
        service_cluster_ip_range=args.service_cluster_ip_range,
        service_node_port_range=args.service_node_port_range,
        cluster_cidr=args.cluster_cidr,
        load_balancer_range=args.load_balancer_range,
        proxy_mode=args.proxy_mode,
        node_monitor_grace_period=args.node_monitor_grace_period,
        max_requests_inflight=args.max_requests_inflight,
        max_mutating_requests_inflight=args.max_mutating_requests_inflight,
        audit_log=args.audit_log if args.audit_log in ("", "-") else os.path.abspath(args.audit_log),
        audit_log_max_size=args.audit_log_maxsize,
        audit_log_max_backup=args.audit_log_maxbackup,
        audit_log_max_age=args.audit_log_maxage,
        service_account_issuer=tuple(args.service_account_issuer),
        most_token_seconds=args.service_account_max_token_expiration,
        audit_level=args.audit_level,
        service_warnings=args.service_warnings,
        explain_slices=args.explain_slices,
        web=args.web,
        audit_policy_file=os.path.abspath(args.audit_policy_file) if args.audit_policy_file else "",
        enable_admission_plugins=args.enable_admission_plugins,
        disable_admission_plugins=args.disable_admission_plugins,
        images=args.images,
        registry_mirrors=tuple(args.registry_mirror),
        images_map=os.path.abspath(args.images_map) if args.images_map else "",
        runtime=str(args.runtime or ""),
    )


def overlap(args: argparse.Namespace) -> str:
    """What is wrong with the load balancers' range beside the other ranges, "" if nothing."""
    others = [("the network between nodes", NODE_NETWORK), ("the network between nodes", NODE_NETWORK_6)]
    others += [("--service-cluster-ip-range", r) for r in args.service_cluster_ip_range]
    others += [("--cluster-cidr", r) for r in args.cluster_cidr]
    for own in args.load_balancer_range:
        if ":" in own and not any(":" in cidr for cidr in args.cluster_cidr):
            return (
                f"--load-balancer-range {own}: nodes have IPv6 addresses only where Pods have\nnext: leave it out, or "
                "--cluster-cidr 10.244.0.0/16,fd00:244::/56"
            )
        for name, other in others:
            one, two = ipaddress.ip_network(own), ipaddress.ip_network(other)
            if one.version == two.version and one.overlaps(two):
                return f"--load-balancer-range {own} overlaps {name} {other}; choose another range, or none"
    return ""


def usual_pool(cluster_cidrs: Sequence[str], service_ranges: Sequence[str]) -> tuple[str, ...]:
    """The load balancers' ranges where none is asked for: of IPv6 where Pods and Services have it, of IPv4 but where
    Services are of IPv6 alone."""
    six = all(any(":" in r for r in ranges) for ranges in (cluster_cidrs, service_ranges))
    four = any(":" not in r for r in service_ranges) or not six
    return (*((USUAL_POOL,) if four else ()), *((USUAL_POOL_6,) if six else ()))


def check_images_map(path: Path) -> None:
    """Failure if the map is none. Nodes read it anew for each container, so later mistakes are told by the Pods."""
    from kubesvc.node.images import ImageProblem, load_map

    try:
        load_map(path)
    except ImageProblem as error:
        raise Failure(f"--images-map {error}\nnext: docs/images.md tells what it may hold", status=64) from None


def run(args: argparse.Namespace) -> int:
    options = options_of(args)
    if args.runtime is not None:
        if args.images_map or args.registry_mirror:
            name = "--images-map" if args.images_map else "--registry-mirror"
            raise Failure(
                f"{name}: with --runtime images are the runtime's own affair; leave one of both out", status=64
            )
        checked_runtime(args.runtime)
    if options.images_map:
        check_images_map(Path(options.images_map))
    from kubesvc.lifetime import set_umask

    paths = instance_paths(args.name)
    set_umask()
    if args.detach:
        return run_detached(args, paths)
    try:
        return run_here(args, options, paths)
    except Failure as failure:
        tell(args, {"failed": str(failure), "status": failure.status})
        raise


def tell(args: argparse.Namespace, words: dict[str, Any]) -> None:
    """Tell whoever waits for this process, if anybody still does; once. Not by a file: a full disk would take none."""
    if args.ready_fd >= 0:
        with contextlib.suppress(OSError), os.fdopen(args.ready_fd, "w") as pipe:
            args.ready_fd = -1
            pipe.write(json.dumps(words) + "\n")


def take_lock(paths: InstancePaths) -> IO[str]:
    """The instance's lock, held while this file is open. Failure if another process has it."""
    try:
        paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = paths.lock.open("a+")
    except OSError as error:
        do = "free some space there, or " if error.errno in FULL else ""
        raise Failure(
            f"the state directory {paths.root} cannot be written: {error.strerror}\n"
            f"next: {do}set XDG_STATE_HOME to a directory of yours"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        flag = "" if paths.name == "default" else f" --name {paths.name}"
        raise Failure(
            f"an instance {paths.name!r} is running already\n"
            f"next: kubesvc status{flag}, kubesvc down{flag}, or kubesvc up --name ANOTHER"
        ) from None
    return lock


def run_here(args: argparse.Namespace, options: UpOptions, paths: InstancePaths) -> int:
    """Be the control process."""
    from kubesvc.instance.journal import forget_journals
    from kubesvc.instance.leftovers import choose_loopback, end_instance, forget_volumes

    lock = take_lock(paths)
    try:
        before = read_record(paths.record)
    except ValueError:
        before = None
    if before is not None and before.processes():
        end_instance(paths)  # what a crash left
    if options.store == "memory":
        forget_journals(paths.root)
        forget_volumes(paths)
    me = ProcessId.of(os.getpid())
    record = InstanceRecord(
        control=me,
        loopback=choose_loopback(paths),
        started=time.time(),
        rootless=os.geteuid() != 0,
        store=options.store,
        service_ranges=list(options.service_cluster_ip_range),
        bind=options.bind_address,
        cluster_dns=options.dns_address,
        cluster_cidrs=list(options.cluster_cidr),
        load_balancer_ranges=list(options.load_balancer_range),
    )
    write_record(paths.record, record)
    log_to(paths.log, verbose=args.verbose)
    if args.until_fd >= 0:
        threading.Thread(target=end_with, args=(args.until_fd,), name="until", daemon=True).start()
    warn_of_reach(options)

    from kubesvc.api.errors import ApiError
    from kubesvc.app import StartFailed, run_control
    from kubesvc.lifetime import run_loop

    def announce(ready: InstanceRecord) -> None:
        text = ready_line(paths, ready, milliseconds_since_start())
        if args.ready_fd >= 0:
            tell(args, {"ready": text})
        else:
            print(text, flush=True)

    def progress(text: str) -> None:
        if sys.stderr.isatty() and args.ready_fd < 0:
            print(text, file=sys.stderr, flush=True)

    try:
        return run_loop(run_control(options, paths, record, announce, progress))
    except StartFailed as error:
        raise Failure(str(error)) from None
    except OSError as error:
        if error.errno not in WORLDS_FAULT:
            raise
        raise Failure(refused(error, str(paths.root))) from None
    except BaseExceptionGroup as group:
        said_why, others = group.split(StartFailed)
        if said_why is not None:
            raise Failure(str(first_of(said_why))) from None
        assert others is not None
        if isinstance(cause := first_of(others), KeyboardInterrupt):
            raise cause from None
        if isinstance(cause, OSError) and cause.errno in WORLDS_FAULT:
            raise Failure(refused(cause, str(paths.root))) from None
        if isinstance(cause, ApiError) and not record.ready:  # the server's own: it tells of its store
            raise Failure(f"{cause.message}\nnext: mend that, then kubesvc up") from None
        logging.getLogger("kubesvc").error("a part of the control process failed", exc_info=others)
        said = f"{type(cause).__name__}: {cause}"
        raise Failure(f"a part of the control process failed: {said}\nnext: see {paths.log}, kubesvc up") from None
    finally:
        end_rest(paths)
        lock.close()


def end_with(fd: int) -> None:
    """Wait until the other end of a pipe is closed, whatever closed it, and then end as by SIGTERM."""
    while os.read(fd, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def warn_of_reach(options: UpOptions) -> None:
    """What it means that others reach the API, said before it is so."""
    if not options.reachable:
        return
    lines = [
        f"kubesvc up: the API answers on {options.bind_address}, to every machine that reaches that address; who has "
        "no credentials of this instance gets nothing but its health and version"
    ]
    if options.nodes:
        lines.append(
            "kubesvc up: nodes of the instance itself live in namespaces that other machines do not reach: Pods there "
            "and on joined nodes do not meet; --nodes 0 makes a control plane alone"
        )
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def end_rest(paths: InstancePaths) -> None:
    """End what may be left of the nodes of an instance whose control process, this one, ends."""
    from kubesvc.instance.leftovers import end_instance

    record = read_record(paths.record)
    if record is not None and record.processes():
        end_instance(paths)


class LogFile(logging.FileHandler):
    """The log, which says once on the terminal that it cannot be written, and goes on when it can."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="w")
        self.failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.failed:
            self.failed = True
            more = f"\nnext: {WORLDS_FAULT[error.errno]}" if error.errno in WORLDS_FAULT else ""
            print(f"kubesvc up: {self.baseFilename}: {error.strerror}{more}", file=sys.stderr, flush=True)


def log_to(path: Path, *, verbose: bool) -> None:
    handlers: list[logging.Handler] = [LogFile(path)]
    if verbose:
        handlers.append(logging.StreamHandler())
    logging.basicConfig(level=logging.INFO, handlers=handlers, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def milliseconds_since_start() -> int:
    """Since this process was started by exec."""
    me = ProcessId.of(os.getpid())
    if me is None:
        return 0
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    return round((uptime - me.start_ticks / os.sysconf("SC_CLK_TCK")) * 1000)


def ready_line(paths: InstancePaths, record: InstanceRecord, milliseconds: int) -> str:
    """The one line (address, KUBECONFIG, time, next command) that `up` prints when everything is ready."""
    flag = "" if paths.name == "default" else f" --name {paths.name}"
    nodes = len(record.nodes)
    said = f"{nodes} node{'s' if nodes != 1 else ''}" if nodes else "no nodes"
    return (
        f"kubesvc is ready in {milliseconds} ms: {record.server}, {said}; "
        f"export KUBECONFIG={paths.kubeconfig}; next: kubesvc kubectl{flag} get nodes"
        + (f"\nlive picture: {record.page}" if record.page else "")
    )


@contextlib.contextmanager
def interrupted_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block: it would leave a process that is just being made to nobody. Who ignores
    it, or answers it in a way of his own, goes on doing so."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    came: list[int] = []
    signal.signal(
        signal.SIGINT, lambda number, _: came.append(number)
    )  # a program that is executed does not inherit it
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt


def run_detached(args: argparse.Namespace, paths: InstancePaths) -> int:
    """Start the control process in the background and wait until it is ready or says why not."""
    take_lock(paths).close()  # refuse at once, in this terminal, what the child would refuse
    read, write = os.pipe()
    words = [w for w in sys.argv[1:] if w != "--detach"]
    command = [sys.executable, "-m", "kubesvc", *words, "--ready-fd", str(write)]
    errors = paths.root / f"up.{os.getpid()}.err"  # two may start at once, of which one is refused
    process: subprocess.Popen[bytes] | None = None
    told: dict[str, Any] = {}
    try:
        with errors.open("wb") as output, interrupted_later():
            process = subprocess.Popen(
                command,
                pass_fds=(write,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
                start_new_session=True,
            )
        os.close(write)
        with os.fdopen(read) as pipe:
            line = pipe.readline()
        told = json.loads(line) if line else {}
        if "ready" in told:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # it runs: all that is left is to say so
        status = 0 if "ready" in told else process.wait(DETACHED_PATIENCE_SECONDS)
        said = errors.read_text(errors="replace").strip()
    except KeyboardInterrupt:  # it has a session of its own, where no Ctrl-C arrives
        if process is not None:
            process.terminate()
            process.wait(DETACHED_PATIENCE_SECONDS)
        raise
    finally:
        with contextlib.suppress(OSError):  # purged meanwhile
            if "ready" in told:
                errors.replace(paths.root / "up.err")
            else:
                errors.unlink()
    if "ready" in told:
        process.returncode = 0  # it lives on, and is not waited for: no reason to warn of it
        print(said, end="\n" if said else "", file=sys.stderr)
        print(told["ready"])
        return 0
    if "failed" in told:
        raise Failure(told["failed"], status=told["status"])
    ended = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    raise Failure(said.removeprefix("kubesvc up: ") or f"it {ended} before it was ready\nnext: see {paths.log}")
