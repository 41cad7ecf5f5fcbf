"""Containers made by a real container runtime: Debian's containerd, started here, asked by nodes over CRI v1.

The runtime has root, state and socket in a directory of its own, our CNI plugin, and an image that is made here.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kubesvc.instance.doctor import look_at_runtime
from kubesvc.node.images import STANDINS
from tests.node.imagemaking import docker_save
from tests.node.scenario_images import small_layer

from .harness import ROOT, Instance, condition, eventually, ready_pods, running_instance, running_kubectl
from .test_registry import PROGRAM as REGISTRY
from .test_registry import registry

pytestmark = pytest.mark.e2e

PROGRAMS = ROOT / ".peers/usr/bin", ROOT / ".peers/usr/sbin"
CONFIGURATION = """
version = 2
root = "{home}/root"
state = "{home}/state"
[grpc]
  address = "{home}/containerd.sock"
[ttrpc]
  address = "{home}/containerd.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{home}/cni/bin"
  conf_dir = "{home}/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  BinaryName = "{runc}"
"""


@dataclass
class Containerd:
    """A running containerd. `home` is its own directory."""

    home: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.home / "containerd.sock"

    @property
    def option(self) -> str:
        return f"cri=unix://{self.socket}"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": ":".join([*map(str, PROGRAMS), os.environ["PATH"]])}

    def start(self) -> None:
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAMS[0] / "containerd", "-c", self.home / "config.toml"],
                env=self.environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 120
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.skip(f"containerd does not run on this machine; its last words: {self.log()[-1500:]}")
            time.sleep(0.05)

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as asked:
            return asked.connect_ex(str(self.socket)) == 0

    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def ctr(self, *words: str) -> str:
        done = subprocess.run(
            [PROGRAMS[0] / "ctr", "-a", self.socket, "-n", "k8s.io", *words],
            env=self.environment, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"ctr {words}: {done.stdout} {done.stderr}"
        return done.stdout

    def containers(self) -> list[str]:
        """Every container, sandboxes included."""
        return self.ctr("containers", "list", "-q").split()

    def shims(self) -> list[int]:
        """The processes that hold its containers."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if b"containerd-shim" in words[0] and str(self.socket).encode() in words:
                        found.append(int(entry.name))
        return found

    def mounts(self) -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [point for line in lines if (point := line.split()[4]).startswith(f"{self.home}/")]


def base_python() -> str:
    """The Python below the virtual environment, whose own may be a copy far from its library."""
    return os.path.realpath(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")


def python_libraries() -> list[Path]:
    """The shared libraries of this Python, which itself comes into containers by hostPath."""
    said = subprocess.run(["ldd", base_python()], capture_output=True, text=True, check=True).stdout
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", said)]


@pytest.fixture(scope="module")
def runtime(machine: None) -> Iterator[Containerd]:
    if not (PROGRAMS[0] / "containerd").exists() or not (PROGRAMS[1] / "runc").exists():
        pytest.skip("containerd and runc are not there (tools/bootstrap.py fetches them): no runtime is tried")
    home = Path(tempfile.mkdtemp(prefix="kc-", dir="/tmp"))
    found = Containerd(home)
    try:
        (home / "config.toml").write_text(CONFIGURATION.format(home=home, runc=PROGRAMS[1] / "runc"))
        write = [sys.executable, "-m", "kubesvc", "node", "--write-cni", f"{home}/cni/net.d", f"{home}/cni/bin"]
        subprocess.run(write, check=True, capture_output=True, timeout=180)
        found.start()
        layers = [small_layer(*python_libraries())]
        images: dict[str, dict[str, Any]] = {
            "pause": {"Entrypoint": ["/bin/sleep", "infinity"]},
            "shop": {"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["exec sleep 600"], "Env": ["PATH=/bin", "MODE=sold"]},
        }
        for name, config in images.items():
            archive = docker_save(home / f"{name}.tar", layers, [f"localhost/{name}:1"], **config)
            found.ctr("images", "import", "--snapshotter", "native", str(archive))
        yield found
        assert found.containers() == []
        eventually(lambda: found.shims() == [])
        found.stop()
        assert found.mounts() == []
    finally:
        for pid in found.shims():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        found.stop()
        for point in sorted(found.mounts(), key=len, reverse=True):
            subprocess.run(["umount", "-l", point], check=False)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def instance(runtime: Containerd) -> Iterator[Instance]:
    with running_instance("--nodes", "1", "--store", "memory", "--runtime", runtime.option) as found:
        yield found
        found.kubectl("delete", "deployments,pods", "--all", "--now", "--wait=false")


def host_paths(*paths: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(volumes, mounts) that show paths of the machine at the same places, read-only."""
    volumes = [{"name": f"v{n}", "hostPath": {"path": path}} for n, path in enumerate(paths)]
    return volumes, [{"name": f"v{n}", "mountPath": path, "readOnly": True} for n, path in enumerate(paths)]


def pod_spec(script: str, **container: Any) -> dict[str, Any]:
    own = {"name": "c", "image": "localhost/shop:1", "imagePullPolicy": "Never", "args": [script], **container}
    return {"terminationGracePeriodSeconds": 1, "containers": [own]}


def pod(name: str, script: str, **container: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod_spec(script, **container)}


def web(name: str, replicas: int) -> list[dict[str, Any]]:
    """A Deployment of web servers that say their host names, ready by HTTP, and its Service."""
    python = base_python()
    volumes, mounts = host_paths(os.path.realpath(sys.base_prefix), str(STANDINS))
    script = f"exec {python} -I -S {STANDINS}/web.py serve-hostname --port 8080"
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 30}
    spec = pod_spec(script, volumeMounts=mounts, readinessProbe=probe, ports=[{"containerPort": 8080}])
    template = {"metadata": {"labels": {"app": name}}, "spec": {**spec, "volumes": volumes}}
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }  # fmt: skip
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    }  # fmt: skip
    return [deployment, service]


def status_of(instance: Instance, name: str) -> dict[str, Any]:
    found: dict[str, Any] = instance.get("pod", name)["status"]["containerStatuses"][0]
    return found


def told(instance: Instance, pod: str, *words: str) -> str:
    """The Events of a Pod once they hold all these words: they are written while the Pod goes on."""

    def look() -> str:
        found = instance.kubectl("events", "--for", f"pod/{pod}")
        return found if all(word in found for word in words) else ""

    found: str = eventually(look)
    return found


def test_a_service_leads_to_containers_of_the_runtime(instance: Instance, runtime: Containerd) -> None:
    """Real containers become endpoints by their readiness probe, answer through the ClusterIP, and leave nothing."""
    info = instance.get("node", "n1")["status"]["nodeInfo"]
    assert info["containerRuntimeVersion"].startswith("containerd://1.6")
    instance.apply(*web("web", 2))
    pods = ready_pods(instance, "app=web", 2)
    names = {p["metadata"]["name"] for p in pods}
    for found in pods:
        status = found["status"]["containerStatuses"][0]
        assert status["containerID"].removeprefix("containerd://") in runtime.containers()
        assert status["imageID"].startswith("sha256:") and status["image"] == "localhost/shop:1"
    address = instance.get("service", "web")["spec"]["clusterIP"]

    def answers() -> set[str]:
        return {instance.curl(f"http://{address}/").stdout.strip() for _ in range(8)}

    eventually(lambda: answers() == names)

    def ready() -> set[str]:
        slices = instance.get("endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
        return {e["targetRef"]["name"] for s in slices for e in s["endpoints"] if e["conditions"]["ready"]}

    eventually(lambda: ready() == names)
    told(instance, pods[0]["metadata"]["name"], "already present on machine", "Container created", "Container started")
    instance.kubectl("delete", "deployment,service", "web")
    eventually(lambda: runtime.containers() == [])


def test_a_container_is_what_its_pod_says(instance: Instance, runtime: Containerd) -> None:
    """Environment, user, files, limits, streams and the runtime's image, as `kubectl` sees them."""
    made = pod(
        "said", "echo begun >&2; echo $MODE $WHO; exec sleep 600",
        env=[{"name": "WHO", "value": "me"}], tty=False, workingDir="/tmp",
        resources={"limits": {"memory": "64Mi", "cpu": "500m"}}, securityContext={"runAsUser": 33, "runAsGroup": 55},
        volumeMounts=[{"name": "room", "mountPath": "/room"}, {"name": "room", "mountPath": "/part", "subPath": "a/b"}],
    )  # fmt: skip
    made["spec"]["volumes"] = [{"name": "room", "emptyDir": {}}]
    instance.apply(made)
    eventually(lambda: condition(instance.get("pod", "said"), "Ready") == "True")
    eventually(lambda: len(instance.kubectl("logs", "said").splitlines()) >= 2)  # it is ready before it says anything
    assert sorted(instance.kubectl("logs", "said").splitlines()) == ["begun", "sold me"]  # two streams, no order
    said = instance.kubectl(
        "exec", "said", "--", "sh", "-c", "id -u; id -g; pwd; touch /part/x; ls /room/a/b; echo $WHO"
    )
    assert said.split() == ["33", "55", "/tmp", "x", "me"]
    failed = instance.try_kubectl("exec", "said", "--", "sh", "-c", "exit 7")
    assert failed.returncode == 7
    missing = instance.try_kubectl("exec", "said", "--", "nothing-such")
    assert "executable file not found in $PATH" in missing.stderr
    assert instance.try_kubectl("exec", "-i", "said", "--", "cat", stdin="through\n").stdout == "through\n"
    own = instance.kubectl("exec", "said", "--", "cat", "/etc/hosts", "/etc/resolv.conf")
    assert f"{instance.get('pod', 'said')['status']['podIP']}\tsaid" in own and "svc.cluster.local" in own
    group = instance.kubectl("exec", "said", "--", "cat", "/proc/self/cgroup")
    assert status_of(instance, "said")["containerID"].removeprefix("containerd://") in group
    instance.kubectl("delete", "pod", "said")
    eventually(lambda: runtime.containers() == [])
    # The runtime's part of it goes first, then the agent's.
    eventually(lambda: f" {instance.root}/" not in Path("/proc/self/mountinfo").read_text())


def test_streams_of_a_running_container(instance: Instance, runtime: Containerd) -> None:
    """attach with and without stdin, a terminal, logs that follow, `kubectl run -i`."""
    ticks = pod("ticks", "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.1; done")
    asking = pod("asking", "while read x; do echo got $x >&2; done; exit 4", stdin=True)
    instance.apply(ticks, asking)
    eventually(lambda: all(condition(instance.get("pod", n), "Ready") == "True" for n in ("ticks", "asking")))
    with running_kubectl(instance, "attach", "ticks") as attached:
        assert attached.stdout is not None
        heard = iter(attached.stdout.readline, "")
        assert len(list(itertools.islice((line for line in heard if line.startswith("tick ")), 3))) == 3
    with running_kubectl(instance, "logs", "-f", "--tail=1", "ticks") as followed:
        assert followed.stdout is not None
        seen = [int(followed.stdout.readline().removeprefix("tick ")) for _ in range(5)]
        assert seen == list(range(seen[0], seen[0] + 5))
    for word in ("hello", "again"):  # without stdinOnce it reads on when its client has left
        with running_kubectl(instance, "attach", "-i", "asking") as talk:
            assert talk.stdin is not None and talk.stdout is not None
            talk.stdin.write(f"{word}\n")
            talk.stdin.flush()
            heard = iter(talk.stdout.readline, "")
            assert any(line == f"got {word}\n" for line in heard)
    terminal = instance.kubectl("exec", "ticks", "--", "sh", "-c", "[ -t 0 ] || echo none").strip()
    assert terminal == "none"
    debug = ("--image=localhost/shop:1", "--container=look", "--target=c", "--profile=general", "-q")
    instance.kubectl("debug", "ticks", *debug, "--", "sh", "-c", "cat /proc/1/cmdline; echo; exec sleep 600")
    eventually(lambda: "echo tick" in instance.try_kubectl("logs", "ticks", "-c", "look").stdout)
    override = {"spec": {"containers": [{"name": "once", "image": "localhost/shop:1", "imagePullPolicy": "Never",
                "args": ["cat; exit 5"], "stdin": True, "stdinOnce": True}]}}  # fmt: skip
    once = instance.try_kubectl(
        "run", "once", "-i", "--rm", "--restart=Never", "--image=localhost/shop:1", "--overrides", json.dumps(override),
        stdin="through and through\n",
    )  # fmt: skip
    assert "through and through" in once.stdout and once.returncode == 5, once
    instance.kubectl("delete", "pods", "--all")
    eventually(lambda: runtime.containers() == [])


def test_containers_end_as_the_runtime_says(instance: Instance, runtime: Containerd) -> None:
    """Exit codes, restarts with the logs before, liveness by exec, memory run out, an image that is not there."""
    crash = pod("crash", "echo run $(ls /room); touch /room/x; echo why > /dev/termination-log; exit 3",
                volumeMounts=[{"name": "room", "mountPath": "/room"}])  # fmt: skip
    crash["spec"] |= {"volumes": [{"name": "room", "emptyDir": {}}]}
    hungry = pod("hungry", "x=abcdefgh; while :; do x=$x$x; done", resources={"limits": {"memory": "24Mi"}})
    hungry["spec"] |= {"restartPolicy": "Never"}
    sick = pod("sick", "trap 'exit 0' TERM; while :; do sleep 0.1; done",
               livenessProbe={"exec": {"command": ["sh", "-c", "echo unwell; exit 1"]}, "periodSeconds": 1,
                              "timeoutSeconds": 30, "failureThreshold": 1})  # fmt: skip
    absent = pod("absent", "", image="localhost/nowhere:1")
    instance.apply(crash, hungry, sick, absent)
    ended = eventually(lambda: status_of(instance, "crash")["restartCount"] >= 1 and status_of(instance, "crash"))
    last = ended["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"], last["message"]) == (3, "Error", "why\n")
    assert instance.kubectl("logs", "crash", "--previous").startswith("run")
    eventually(lambda: instance.get("pod", "hungry")["status"]["phase"] == "Failed")
    assert status_of(instance, "hungry")["state"]["terminated"]["reason"] == "OOMKilled"
    eventually(lambda: status_of(instance, "sick")["restartCount"] >= 1)
    told(instance, "sick", "Liveness probe failed: unwell", "failed liveness probe, will be restarted")
    eventually(lambda: status_of(instance, "absent")["state"]["waiting"]["reason"] == "ErrImageNeverPull")
    instance.kubectl("delete", "pods", "--all")
    eventually(lambda: runtime.containers() == [])


def test_a_pod_may_leave_while_it_is_made(instance: Instance, runtime: Containerd) -> None:
    """Nothing stays of a Pod that is deleted while the runtime is about to make its sandbox or its container."""
    instance.apply(*(pod(f"brief{n}", "exec sleep 600") for n in range(3)))
    eventually(lambda: runtime.containers() != [], every=0.0)
    instance.kubectl("delete", "pods", "--all", "--now")
    eventually(lambda: runtime.containers() == [])
    pods = instance.root / "nodes/n1/pods"
    eventually(lambda: list(pods.iterdir()) == [])


def test_a_lost_sandbox_is_made_anew(instance: Instance, runtime: Containerd) -> None:
    """NODE-10, NODE-92: the process that holds a Pod's namespaces is killed. What may run again does, in a sandbox with
    another address, its init containers included; the rest has ended, and nothing stays of what was before."""
    script = "trap 'exit 0' TERM; touch /tmp/set; while :; do sleep 0.1; done"
    probe = {"exec": {"command": ["ls", "/tmp/set"]}, "periodSeconds": 1, "timeoutSeconds": 30}
    again = pod("again", script, readinessProbe=probe)
    first = {"name": "first", "image": "localhost/shop:1", "imagePullPolicy": "Never", "args": ["echo first"]}
    again["spec"] |= {"initContainers": [first], "terminationGracePeriodSeconds": 30}
    together = pod("together", script)
    together["spec"] |= {"shareProcessNamespace": True}
    over = pod("over", script)
    over["spec"] |= {"restartPolicy": "Never", "terminationGracePeriodSeconds": 30}
    names = ("again", "together", "over")
    instance.apply(again, together, over)
    eventually(lambda: all(condition(instance.get("pod", n), "Ready") == "True" for n in names))
    before = {n: instance.get("pod", n) for n in names}
    known = {status_of(instance, n)["containerID"].removeprefix("containerd://") for n in names}
    known.add(before["again"]["status"]["initContainerStatuses"][0]["containerID"].removeprefix("containerd://"))
    tasks = [line.split() for line in runtime.ctr("tasks", "list").splitlines()[1:]]
    held = {id: int(pid) for id, pid, _ in tasks if id not in known}
    assert len(held) == len(names), tasks
    for pid in held.values():
        os.kill(pid, signal.SIGKILL)

    def is_back(name: str) -> bool:
        return (
            status_of(instance, name)["restartCount"] == 1 and condition(instance.get("pod", name), "Ready") == "True"
        )

    eventually(lambda: all(map(is_back, ("again", "together"))))
    found = instance.get("pod", "again")["status"]
    assert found["podIP"] != before["again"]["status"]["podIP"] and found["podIPs"] == [{"ip": found["podIP"]}]
    assert found["initContainerStatuses"][0]["restartCount"] == 1
    end = status_of(instance, "again")["lastState"]["terminated"]
    assert (end["exitCode"], end["reason"]) == (0, "Completed"), end  # it was given its time
    end = status_of(instance, "together")["lastState"]["terminated"]
    assert end["exitCode"] == 137, end  # the sandbox's process was the first of its own
    hosts = instance.kubectl("exec", "again", "--", "cat", "/etc/hosts")
    assert f"{found['podIP']}\tagain" in hosts and before["again"]["status"]["podIP"] not in hosts
    told(instance, "again", "Pod sandbox changed, it will be killed and re-created.")
    eventually(lambda: instance.get("pod", "over")["status"]["phase"] == "Succeeded")
    assert "SandboxChanged" not in instance.kubectl("events", "--for", "pod/over")
    eventually(lambda: held.keys().isdisjoint(runtime.containers()))
    instance.kubectl("delete", "pods", "--all", "--now")
    eventually(lambda: runtime.containers() == [])


@pytest.mark.soak
def test_agent_and_runtime_may_come_back(instance: Instance, runtime: Containerd) -> None:
    """The agent's process and containerd are ended in turn: containers run on, and are known again."""
    instance.apply(pod("stays", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.2; done"))
    eventually(lambda: condition(instance.get("pod", "stays"), "Ready") == "True")
    before = status_of(instance, "stays")
    agent = instance.record.nodes[0].agent
    assert agent is not None
    os.kill(agent.pid, signal.SIGKILL)
    eventually(lambda: (now := instance.record.nodes[0].agent) is not None and now.pid != agent.pid)
    eventually(lambda: instance.try_kubectl("exec", "stays", "--", "sh", "-c", ":").returncode == 0)
    assert status_of(instance, "stays") == before
    runtime.stop()
    assert runtime.shims()
    eventually(lambda: condition(instance.get("node", "n1"), "Ready") == "False")
    ready = next(c for c in instance.get("node", "n1")["status"]["conditions"] if c["type"] == "Ready")
    assert ready["reason"] == "KubeletNotReady" and "container runtime is down" in ready["message"]
    runtime.start()
    eventually(lambda: condition(instance.get("node", "n1"), "Ready") == "True")
    eventually(lambda: runtime.containers() != [])
    eventually(lambda: instance.kubectl("logs", "stays", "--tail=1") != instance.kubectl("logs", "stays", "--tail=1"))
    assert status_of(instance, "stays") == before
    instance.apply(pod("new", "exec sleep 600"))
    eventually(lambda: condition(instance.get("pod", "new"), "Ready") == "True")
    instance.kubectl("delete", "pods", "--all")
    eventually(lambda: runtime.containers() == [])


@pytest.mark.soak
def test_a_node_without_power_has_no_containers(instance: Instance, runtime: Containerd) -> None:
    instance.apply(pod("gone", "exec sleep 600"))
    eventually(lambda: condition(instance.get("pod", "gone"), "Ready") == "True")
    instance.run("nodes", "--name", instance.name, "stop", "n1")
    assert runtime.containers() == []
    instance.run("nodes", "--name", instance.name, "start", "n1")
    eventually(lambda: condition(instance.get("pod", "gone"), "Ready") == "True" and runtime.containers())
    assert status_of(instance, "gone")["restartCount"] == 1
    instance.kubectl("delete", "pod", "gone")
    eventually(lambda: runtime.containers() == [])


def test_what_stands_in_the_way_is_said(runtime: Containerd, tmp_path: Path) -> None:
    """Before anything is started: no socket, no socket of a runtime, a wrong form."""
    asked = Instance(tmp_path)
    # containerd's other socket speaks another protocol
    with ThreadPoolExecutor(1) as beside:
        looking = beside.submit(look_at_runtime, f"{runtime.socket}.ttrpc")
        refused_before_anything(asked, runtime, tmp_path)
        silent = looking.result()
    assert silent.verdict == "limited" and "does not answer" in silent.text
    assert look_at_runtime(str(runtime.socket)).verdict == "ok"


def refused_before_anything(asked: Instance, runtime: Containerd, tmp_path: Path) -> None:
    missing = asked.run("up", "--runtime", f"cri=unix://{tmp_path}/none.sock", check=False)
    assert missing.returncode == 1 and "is the runtime running?" in missing.stderr
    wrong = asked.run("up", "--runtime", "docker", check=False)
    assert wrong.returncode != 0 and "must be cri=unix:///PATH" in wrong.stderr
    other = asked.run("up", "--runtime", f"{runtime.option}.ttrpc", check=False)
    assert other.returncode == 1 and "does not answer" in other.stderr and "Traceback" not in other.stderr
    alone = asked.run("node", "--address", "192.0.2.1", "--runtime", f"cri=unix://{tmp_path}/none.sock", check=False)
    assert alone.returncode == 1 and "is the runtime running?" in alone.stderr


def test_a_pod_of_the_nodes_network_is_in_the_nodes_network(instance: Instance, runtime: Containerd) -> None:
    """hostNetwork is the node's own network, not that of the machine on which the runtime runs."""
    made = pod("here", "cat /proc/net/fib_trie; exec sleep 600")
    made["spec"]["hostNetwork"] = True
    instance.apply(made)
    eventually(lambda: condition(instance.get("pod", "here"), "Ready") == "True")
    status = instance.get("pod", "here")["status"]
    assert status["podIP"] == status["hostIP"] == "172.30.0.11"
    eventually(lambda: "172.30.0.11" in instance.kubectl("logs", "here"))
    instance.kubectl("delete", "pod", "here")
    eventually(lambda: runtime.containers() == [])
    names = (name for _, *found in os.walk(runtime.home) for name in itertools.chain(*found))
    assert [name for name in names if name.startswith("cni-")] == []


@pytest.mark.soak
def test_the_runtime_pulls_as_the_pod_says(runtime: Containerd, tmp_path: Path) -> None:
    """Pulled from a registry by the runtime, with the Pod's login; what cannot be had is said and tried again."""
    if not REGISTRY.exists():
        pytest.skip("docker-registry is not there (tools/bootstrap.py fetches it): pulling from it is not tried")
    options = ("--nodes", "1", "--store", "memory", "--images", "registries", "--runtime", runtime.option)
    with running_instance(*options) as own, registry(tmp_path / "registry", login=True) as there:
        digest = there.push("shop/secret", "1")
        own.kubectl(
            "create", "secret", "docker-registry", "login", f"--docker-server={there.host}", "--docker-username=me",
            "--docker-password=secret",
        )  # fmt: skip
        image = f"{there.host}/shop/secret:1"
        for name in ("guest", "stranger"):
            made = pod(name, "600", image=image, imagePullPolicy="Always", command=["/bin/sleep"])
            made["spec"] |= {"imagePullSecrets": [{"name": "login"}]} if name == "guest" else {}
            own.apply(made)
        eventually(lambda: condition(own.get("pod", "guest"), "Ready") == "True")
        assert status_of(own, "guest")["imageID"] == f"{there.host}/shop/secret@{digest}"
        events = own.kubectl("events", "--for", "pod/guest")
        assert f'Pulling image "{image}"' in events and f'Successfully pulled image "{image}" in ' in events
        reasons = ("ErrImagePull", "ImagePullBackOff")
        waiting = eventually(lambda: (w := status_of(own, "stranger")["state"]["waiting"])["reason"] in reasons and w)
        assert "401 Unauthorized" in waiting["message"]
        assert own.process is not None
        own.process.kill()  # without a word, so that `down` finds containers that nobody looks after
        own.process.wait()
        assert runtime.containers() != []
    assert runtime.containers() == []
