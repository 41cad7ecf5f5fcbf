"""Machines join another machine's control plane: three network namespaces on one wire stand for three machines."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kubesvc.kernel.namespaces import nsexec_command

from .harness import Instance, condition, eventually, fresh_instance, ready_pods

pytestmark = pytest.mark.e2e

SERVER = "10.99.0.1"
ADDRESSES = {"nb": "10.99.0.2", "nc": "10.99.0.3"}
ASK = """
import socket, struct, sys
name = b"".join(bytes([len(p)]) + p.encode() for p in sys.argv[1].split(".")) + b"\\0"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(30)
s.sendto(struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1), (sys.argv[2], 53))
print(socket.inet_ntoa(s.recv(512)[-4:]))
"""


FETCH = """
import ssl, sys, urllib.request
for url in sys.argv[1:]:
    print(urllib.request.urlopen(url, timeout=30, context=ssl._create_unverified_context()).status)
"""


KNOCK = """
import socket, sys
s = socket.create_connection((sys.argv[1], 10250), 30)
s.settimeout(30)
s.sendall(b"log default x c {}\\n")
try:
    while s.recv(4096):  # its greeting, which asks for a proof
        pass
except ConnectionError:
    pass
print("closed")
"""


@dataclass
class Control(Instance):
    """A control plane in a namespace of its own."""

    ground: int = 0

    def placed(self, *words: str) -> list[str]:
        return inside(self.ground, *words)


def inside(ground: int, *words: str) -> list[str]:
    return nsexec_command("--net", str(ground), program=words)


def do(ground: int, *words: str) -> str:
    done = subprocess.run(inside(ground, *words), capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.returncode} {done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def machines(count: int) -> Iterator[list[int]]:
    """Network namespaces 10.99.0.1, .2, …, all on a bridge in the first; named by a process in each."""
    grounds: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            grounds.append(subprocess.Popen(nsexec_command("--new-net", program=["sleep", "infinity"])))
        pids = [g.pid for g in grounds]
        own = Path("/proc/self/ns/net").readlink()
        eventually(lambda: all(Path(f"/proc/{p}/ns/net").readlink() != own for p in pids))
        do(pids[0], "ip", "link", "add", "wire", "type", "bridge")
        for i, pid in enumerate(pids[1:]):
            do(pids[0], "ip", "link", "add", f"to{i}", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
            do(pids[0], "ip", "link", "set", f"to{i}", "master", "wire", "up")
        for i, pid in enumerate(pids):
            device = "eth0" if i else "wire"
            do(pid, "ip", "address", "add", f"10.99.0.{i + 1}/24", "dev", device)
            do(pid, "ip", "link", "set", device, "up")
            do(pid, "ip", "link", "set", "lo", "up")
        yield pids
    finally:
        for ground in grounds:
            ground.kill()
            ground.wait()


@dataclass
class Joiner:
    """A machine that is to be a node."""

    control: Control
    ground: int
    node: str
    process: subprocess.Popen[str] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.control.home / f"{self.node}.log"

    @property
    def environment(self) -> dict[str, str]:
        return {**self.control.environment(), "XDG_STATE_HOME": str(self.control.home / self.node)}

    @property
    def kubeconfig(self) -> Path:
        return self.control.home / self.node / "kubesvc" / "alone" / self.node / "kubeconfig"

    def command(self, *words: str) -> list[str]:
        return inside(self.ground, sys.executable, "-m", "kubesvc", "join", "--node", self.node, *words)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """To its end, which is near for what is refused."""
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, env=self.environment, timeout=180, check=False
        )

    def start(self, *words: str) -> None:
        with self.log.open("w") as log:
            self.process = subprocess.Popen(self.command(*words), stderr=log, env=self.environment, text=True)

    def said(self) -> str:
        return self.log.read_text()

    def until(self, words: str) -> str:
        def look() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                pytest.fail(f"node {self.node} ended: {self.said()}")
            return words in self.said()

        eventually(look)
        return self.said()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(120)
        self.process = None
        return status

    def kubectl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Stock kubectl in the node's own name."""
        return self.control.try_kubectl("--kubeconfig", str(self.kubeconfig), *words)

    def python(self, program: str, *words: str) -> list[str]:
        """What a short program says there, line by line."""
        command = inside(self.ground, sys.executable, "-I", "-S", "-c", program, *words)
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")[:-1]


@pytest.fixture
def wired(machine: None) -> Iterator[tuple[Control, list[Joiner]]]:
    """A control plane that others reach, and two machines that have not joined yet."""
    with machines(3) as grounds, fresh_instance() as fresh:
        control = Control(fresh.home, fresh.name, ground=grounds[0])
        joiners = [Joiner(control, ground, node) for ground, node in zip(grounds[1:], ADDRESSES, strict=True)]
        try:
            yield control, joiners
        finally:
            for joiner in joiners:
                if joiner.process is not None:
                    joiner.process.kill()
                    joiner.process.wait()
                joiner.run("--leave")
            if control.process is not None:
                control.interrupt()


def token(control: Control, *options: str) -> tuple[Path, str]:
    """A bootstrap kubeconfig, and the token's id."""
    done = control.run("token", "--name", control.name, "create", *options)
    content = json.loads(done.stdout)
    secret = content["users"][0]["user"]["token"]
    assert content["clusters"][0]["cluster"]["server"].startswith(f"https://{SERVER}:")
    assert secret not in done.stderr and "kubesvc join" in done.stderr
    path = control.home / f"{secret[:6]}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(done.stdout)
    return path, secret[:6]


def requests(control: Control) -> list[list[str]]:
    """The rows of `kubectl get csr`."""
    return [line.split() for line in control.kubectl("get", "csr", "--no-headers").splitlines()]


def deployment(replicas: int) -> dict[str, Any]:
    pod = {"containers": [{"name": "c", "image": "nginx", "readinessProbe": {"httpGet": {"port": 80},
           "periodSeconds": 1}}], "terminationGracePeriodSeconds": 0}  # fmt: skip
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": pod}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}}  # fmt: skip


def test_machines_join_and_are_nodes(wired: tuple[Control, list[Joiner]]) -> None:
    control, (first, second) = wired
    line = control.up("--nodes", "0", "--store", "memory", "--bind-address", SERVER)
    assert f"https://{SERVER}:" in line
    assert control.process is not None and control.process.stderr is not None
    assert (
        f"the API answers on {SERVER}, to every machine that reaches that address" in control.process.stderr.readline()
    )

    bootstrap, id = token(control)
    assert id in control.run("token", "--name", control.name, "list").stdout
    refused_at_the_door(control, first, bootstrap)
    waiting_for_approval(control, second, bootstrap)

    first.start(str(bootstrap), "--set-forwarding")
    first.until("node nb (10.99.0.2) is ready")
    row = next(r for r in requests(control) if r[-1] == "Approved,Issued" and r[3] == f"system:bootstrap:{id}")
    assert re.fullmatch(r"node-csr-[\w-]{43}", row[0]) and row[2] == "kubernetes.io/kube-apiserver-client-kubelet"
    assert first.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert not first.kubeconfig.with_name("kubeconfig.key").exists()

    second.until("node nc (10.99.0.3) is ready")

    def free() -> dict[str, str]:
        """Of the nodes that are ready and may be given Pods, the Pods' addresses."""
        nodes = control.get("nodes")["items"]
        usable = [n for n in nodes if condition(n, "Ready") == "True" and not n["spec"].get("taints")]
        return {n["metadata"]["name"]: n["spec"]["podCIDR"] for n in usable}

    ranges = eventually(lambda: len(found := free()) == 2 and found)
    assert set(ranges) == {"nb", "nc"} and len(set(ranges.values())) == 2

    traffic(control, (first, second))
    streams(control, (first, second))
    storage(control)
    only_what_concerns_them(control, first, second)
    revoked(control, first, bootstrap, id)
    left(control, (first, second))


def refused_at_the_door(control: Control, joiner: Joiner, bootstrap: Path) -> None:
    """What is wrong is said, and what to do; nothing is left of it."""
    done = joiner.run(str(bootstrap))
    assert done.returncode == 1 and "net.ipv4.ip_forward is 0" in done.stderr and "--set-forwarding" in done.stderr
    wrong = control.home / "wrong.kubeconfig"
    wrong.touch(mode=0o600)
    wrong.write_text(re.sub(r'("token": "\w{6})\.\w{16}"', r'\1.aaaaaaaaaaaaaaaa"', bootstrap.read_text()))
    done = joiner.run(str(wrong), "--set-forwarding")
    assert done.returncode == 1 and "does not know the token (401 Unauthorized)" in done.stderr
    assert "kubesvc token create" in done.stderr
    short, _ = token(control, "--ttl", "1s")
    time.sleep(1.5)
    done = joiner.run(str(short), "--set-forwarding")
    assert done.returncode == 1 and "has expired, or was deleted" in done.stderr
    assert do(joiner.ground, "cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"
    assert requests(control) == []


def waiting_for_approval(control: Control, joiner: Joiner, bootstrap: Path) -> None:
    """Without the binding that approves unseen, somebody looks at a request: denies it, or approves it."""
    binding = control.get("clusterrolebinding", "kubesvc:node-autoapprove-bootstrap")
    control.kubectl("delete", "clusterrolebinding", "kubesvc:node-autoapprove-bootstrap")
    joiner.start(str(bootstrap), "--set-forwarding")
    name = re.search(r"kubectl certificate approve (\S+)", joiner.until("waiting for somebody to approve it"))
    assert name is not None
    ((*_, state),) = requests(control)
    assert state == "Pending"
    assert "denied" in control.kubectl("certificate", "deny", name[1])
    assert joiner.process is not None and joiner.process.wait(120) == 1
    assert "was denied" in joiner.said()
    joiner.start(str(bootstrap), "--set-forwarding")
    name = re.search(r"kubectl certificate approve (\S+)", joiner.until("waiting for somebody to approve it"))
    assert name is not None
    assert "approved" in control.kubectl("certificate", "approve", name[1])
    del binding["metadata"]["resourceVersion"], binding["metadata"]["uid"]
    control.apply(binding)


def storage(control: Control) -> None:
    """A claim gets a directory on the machine of its Pod, and takes it away when it goes."""
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    container = {"name": "c", "image": "busybox", "command": ["sh", "-c", "echo kept > /data/file; sleep 600"],
                 "volumeMounts": [{"name": "v", "mountPath": "/data"}]}  # fmt: skip
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}  # fmt: skip
    control.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": wanted},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "keeper"}, "spec": spec},
    )
    eventually(lambda: condition(control.get("pod", "keeper"), "Ready") == "True")
    place = Path(control.get("pv")["items"][0]["spec"]["hostPath"]["path"])
    assert not place.is_relative_to(control.root)
    eventually(lambda: (place / "file").exists() and (place / "file").read_text() == "kept\n")
    control.kubectl("delete", "pod", "keeper")
    control.kubectl("delete", "pvc", "data")
    eventually(lambda: not place.exists() and not control.get("pv")["items"])


def traffic(control: Control, joiners: Sequence[Joiner]) -> None:
    """Pods on both nodes, reached from both: by their own addresses, by the Service, and found by its name."""
    control.apply(deployment(4))
    control.kubectl("expose", "deployment", "web", "--port", "80")
    pods = ready_pods(control, "app=web", 4)
    assert {p["spec"]["nodeName"] for p in pods} == {"nb", "nc"}
    found = sorted(p["status"]["podIP"] for p in pods)
    listed = "jsonpath={.items[*].endpoints[*].addresses[*]}"
    label = "kubernetes.io/service-name=web"
    eventually(lambda: sorted(control.kubectl("get", "endpointslices", "-l", label, "-o", listed).split()) == found)
    address = control.get("service", "web")["spec"]["clusterIP"]
    urls = [*(f"http://{a}/" for a in (*found, address)), "https://10.96.0.1/version"]
    asked = (ASK, "web.default.svc.cluster.local", "10.96.0.10")
    for joiner in joiners:
        eventually(lambda joiner=joiner: joiner.python(FETCH, *urls) == ["200"] * len(urls))  # type: ignore[misc]
        eventually(lambda joiner=joiner: joiner.python(*asked) == [address])  # type: ignore[misc]


def streams(control: Control, joiners: Sequence[Joiner]) -> None:
    """Logs, commands and ports of Pods on another machine; and nobody but the API server gets in there."""
    for joiner in joiners:
        on = f"--field-selector=spec.nodeName={joiner.node}"
        (pod, *_) = control.get("pods", "-l", "app=web", on)["items"]
        name = pod["metadata"]["name"]
        eventually(lambda name=name: "GET / " in control.kubectl("logs", name))  # type: ignore[misc]
        assert control.kubectl("exec", name, "--", "cat", "/etc/hostname").strip() == name
        done = control.try_kubectl("exec", name, "--", "sh", "-c", "exit 3")
        assert done.returncode == 3, done.stderr
        assert "nginx" in control.kubectl("get", "--raw", f"/api/v1/namespaces/default/pods/{name}/proxy/")
    address = ADDRESSES[joiners[0].node]
    assert joiners[1].python(KNOCK, address) == ["closed"]


def only_what_concerns_them(control: Control, first: Joiner, second: Joiner) -> None:
    """A node reads the Secrets of its own Pods and no others, and writes no other Node."""
    for joiner in (first, second):
        control.kubectl("create", "secret", "generic", f"of-{joiner.node}", "--from-literal", "a=b")
        container = {"name": "c", "image": "nginx",
                     "envFrom": [{"secretRef": {"name": f"of-{joiner.node}"}}]}  # fmt: skip
        spec = {"nodeName": joiner.node, "containers": [container], "terminationGracePeriodSeconds": 0}
        control.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"on-{joiner.node}"}, "spec": spec})
    assert "system:node:nb" in first.kubectl("auth", "whoami").stdout
    assert "of-nb" in eventually(lambda: first.kubectl("get", "secret", "of-nb").stdout)
    for words in (("get", "secret", "of-nc"), ("get", "secrets"), ("label", "node", "nc", "a=b"),
                  ("delete", "pod", "on-nc"), ("get", "secret", "-n", "kube-system")):  # fmt: skip
        done = first.kubectl(*words)
        assert done.returncode == 1 and "forbidden" in done.stderr.lower(), (words, done.stdout, done.stderr)
    for name in ("on-nb", "on-nc"):
        eventually(lambda name=name: condition(control.get("pod", name), "Ready") == "True")  # type: ignore[misc]


def revoked(control: Control, joiner: Joiner, bootstrap: Path, id: str) -> None:
    """A token that is deleted lets nobody in; who has joined needs it no more."""
    control.run("token", "--name", control.name, "delete", id)
    assert control.run("token", "--name", control.name, "delete", id, check=False).returncode == 1
    other = Joiner(control, joiner.ground, "nd")
    done = other.run(str(bootstrap), "--set-forwarding")
    assert done.returncode == 1 and "401 Unauthorized" in done.stderr
    assert joiner.stop() == 0
    pods = {p["metadata"]["name"]: p["status"] for p in control.get("pods")["items"]}
    joiner.start("--set-forwarding")
    joiner.until("node nb (10.99.0.2) is ready")
    for name, status in pods.items():
        now = control.get("pod", name)["status"]
        assert now["containerStatuses"][0]["containerID"] == status["containerStatuses"][0]["containerID"], name


def left(control: Control, joiners: Sequence[Joiner]) -> None:
    for joiner in joiners:
        assert joiner.stop() == 0
        done = joiner.run("--leave")
        assert done.returncode == 0 and f"node {joiner.node} has left" in done.stdout, done.stderr
        routes = [line.split()[0] for line in do(joiner.ground, "ip", "route").splitlines()]
        assert routes == ["10.99.0.0/24"]
        assert do(joiner.ground, "ip", "-brief", "link").count("\n") == 2
        assert do(joiner.ground, "nft", "list", "ruleset") == ""
        assert do(joiner.ground, "cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"
        assert joiner.run("--leave").returncode == 1
