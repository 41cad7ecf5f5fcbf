"""Watch a Service of real Pods work, break and be repaired, live, with stock kubectl.

Starts an instance of its own (one node, in memory), walks through a Service's good and bad days, and leaves nothing
behind. Exit status 0 when everything came out as it says.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kubesvc.instance.kubectl import find_kubectl
from kubesvc.instance.leftovers import end_instance
from kubesvc.instance.paths import InstancePaths

from . import Failure

WAIT_SECONDS = 20.0
BOLD, DIM, PLAIN = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if sys.stdout.isatty() else ("", "", "")

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: nginx
        image: nginx
        ports: [{containerPort: 80}]
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1, failureThreshold: 2}
"""
WEB_SVC = """\
apiVersion: v1
kind: Service
metadata: {name: web-svc}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 80}]
"""
PAGE = "/usr/share/nginx/html/index.html"


class NotAsSaid(Exception):
    """Something the demo promised did not happen; the text says what was seen instead."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", action="store_true", help="leave the instance `demo` running at the end")


class Stage:
    """The instance of the demo, and the commands shown on it."""

    def __init__(self, paths: InstancePaths, kubectl: Path) -> None:
        self.paths = paths
        self.program = kubectl
        self.environment = {**os.environ, "KUBECONFIG": str(paths.kubeconfig)}

    def say(self, text: str) -> None:
        print(f"\n{BOLD}{text}{PLAIN}", flush=True)

    def kubectl(self, *words: str, stdin: str = "", aloud: bool = False) -> str:
        """Run kubectl; its standard output. Raises NotAsSaid. aloud: show its warnings."""
        done = subprocess.run(
            [str(self.program), *words], input=stdin, capture_output=True, text=True, env=self.environment, check=False
        )
        if done.returncode != 0:
            raise NotAsSaid(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
        if aloud and done.stderr.strip():
            print(done.stderr.strip(), flush=True)
        return done.stdout

    def show(self, *words: str, stdin: str = "") -> str:
        """Run kubectl as a person would type it, and show command and output."""
        print(f"{DIM}$ kubectl {shlex.join(words)}{PLAIN}", flush=True)
        output = self.kubectl(*words, stdin=stdin, aloud=True)
        if output:
            print(output.rstrip(), flush=True)
        return output

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def curl(self, *urls: str) -> tuple[int, str]:
        """(curl's exit status, headers and pages) of requests from inside the node."""
        command = [sys.executable, "-m", "kubesvc", "curl", "--name", self.paths.name, "-sS", "-i", "-m", "2", *urls]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    def until(self, what: str, check: Callable[[], Any]) -> Any:
        """Wait for `check` to be true. Raises NotAsSaid."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            if found := check():
                return found
            time.sleep(0.1)
        raise NotAsSaid(f"within {WAIT_SECONDS:.0f} s this did not happen: {what}")

    def listed(self) -> list[str]:
        """The addresses that Endpoints web-svc lists as ready."""
        found = self.get("endpoints", "web-svc").get("subsets") or []
        return sorted(a["ip"] for s in found for a in s.get("addresses") or [])

    def pods(self) -> dict[str, str]:
        """Address by name of the pods of `web`."""
        return {p["metadata"]["name"]: p["status"].get("podIP", "") for p in self.get("pods", "-l", "app=web")["items"]}


def run(args: argparse.Namespace) -> int:
    kubectl = find_kubectl()
    if kubectl is None:
        raise Failure("the demo shows stock kubectl, which is not installed\nnext: pip install 'kubesvc[kubectl]'")
    paths = InstancePaths.of("demo")
    started = time.monotonic()
    with instance(paths, keep=args.keep):
        stage = Stage(paths, kubectl)
        try:
            for act in (serve, break_selector, unready, repair, ports, outside):
                act(stage)
        except NotAsSaid as surprise:
            raise Failure(f"{surprise}\nnext: kubesvc doctor; the log is {paths.log}") from None
        stage.say(f"All of it was real, and took {time.monotonic() - started:.1f} s.")
    if args.keep:
        print("It still runs. next: kubesvc kubectl --name demo get all; kubesvc down --name demo")
    else:
        print("Nothing is left of it. next: kubesvc up, and kubesvc kubectl apply -f with manifests of yours.")
    return 0


@contextlib.contextmanager
def instance(paths: InstancePaths, *, keep: bool) -> Iterator[None]:
    """The instance `demo`, started in the background and ended with everything it made."""
    end_instance(paths)
    print("starting an API server, controllers and one node …", flush=True)
    command = [sys.executable, "-m", "kubesvc", "up", "--name", paths.name, "--store", "memory", "--detach"]
    finished = False
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(begin(command).partition(";")[0], flush=True)
        yield
        finished = True
    finally:
        signal.signal(signal.SIGTERM, before)
        if not (keep and finished):
            end_instance(paths)
            shutil.rmtree(paths.root, ignore_errors=True)


def begin(command: Sequence[str]) -> str:
    """Start the instance; the line that it is ready with. Whoever interrupts waits until it has given up: what has just
    begun is in no record by which it could be ended."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said, trouble = process.communicate()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    if process.returncode != 0:
        raise Failure(trouble.strip().removeprefix("kubesvc up: "), status=process.returncode)
    return said.strip()


def serve(stage: Stage) -> None:
    """A Deployment, its Service, and requests that arrive."""
    stage.say("1. Three web servers and a Service that selects them")
    stage.show("apply", "-f", "-", stdin=WEB)
    stage.show("apply", "-f", "-", stdin=WEB_SVC)
    stage.until("three Pods are ready and listed", lambda: len(stage.listed()) == 3)
    stage.show("get", "service", "web-svc")
    stage.show("get", "pods", "-l", "app=web", "-o", "wide")
    stage.show("get", "pods", "--show-labels")
    stage.show("get", "endpoints", "web-svc")
    if stage.listed() != sorted(stage.pods().values()):
        raise NotAsSaid(f"the list {stage.listed()} is not the Pods' addresses {stage.pods()}")
    stage.show("describe", "service", "web-svc")
    ask(stage, "http://web-svc", 5)


def ask(stage: Stage, url: str, times: int) -> None:
    """Requests through the ClusterIP, by name, from inside the node; all must be answered."""
    print(f"{DIM}$ kubesvc curl {url}    # {times} times, from inside the node{PLAIN}")
    status, answers = stage.curl(*[url] * times)
    good = answers.count("HTTP/1.1 200 ")
    print(f"{good} of {times} requests were answered", flush=True)
    if status != 0 or good != times:
        raise NotAsSaid(f"{times - good} of {times} requests failed (curl's status {status}): {answers}")


def break_selector(stage: Stage) -> None:
    """A Service whose selector is misspelt: <none>, and refused at once."""
    stage.say("2. A Service whose selector matches no Pod")
    stage.show("create", "service", "clusterip", "typo", "--tcp=80:80")
    stage.show("set", "selector", "service", "typo", "app=wbe")
    stage.until("an empty list", lambda: "subsets" not in stage.get("endpoints", "typo"))
    stage.show("get", "endpoints", "typo")
    stage.until("refusal", lambda: stage.curl("http://typo")[0] == 7)
    print("<none>: no Pod has the label app=wbe. A request is refused at once (curl's status 7).", flush=True)
    stage.show("delete", "service", "typo")


def unready(stage: Stage) -> None:
    """A Pod fails its readiness probe: off the list, no traffic; all of them: an empty cell."""
    stage.say("3. A Pod that runs but fails its readiness probe")
    victim, address = sorted(stage.pods().items())[0]
    stage.show("exec", victim, "--", "rm", PAGE)
    stage.until("the address leaves the list", lambda: address not in stage.listed())
    stage.show("get", "pods", "-l", "app=web")
    stage.show("get", "endpoints", "web-svc")
    print(f"{address} is off the list. Its Pod still runs; the Service sends it nothing:", flush=True)
    ask(stage, "http://web-svc", 5)
    for other in sorted(stage.pods())[1:]:
        stage.show("exec", other, "--", "rm", PAGE)
    stage.until("an empty list", lambda: not stage.listed())
    stage.show("get", "endpoints", "web-svc")
    stage.until("refusal", lambda: stage.curl("http://web-svc")[0] == 7)
    print("An empty cell, not <none>: there are Pods, and none of them is ready. Requests are refused.", flush=True)


def repair(stage: Stage) -> None:
    """The probes pass again, and everything is back."""
    stage.say("4. Repaired")
    for name in sorted(stage.pods()):
        stage.show("exec", name, "--", "sh", "-c", f"echo nginx is back > {PAGE}")
    stage.until("all Pods are back on the list", lambda: len(stage.listed()) == 3)
    stage.show("get", "endpoints", "web-svc")
    ask(stage, "http://web-svc", 5)


THREE = """\
apiVersion: v1
kind: Pod
metadata:
  name: three
  labels: {app: three}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: registry.k8s.io/e2e-test-images/agnhost:2.60
    args: [netexec, --http-port=3000]
    ports: [{name: app, containerPort: 3000}]
"""


def ports(stage: Stage) -> None:
    """A Service port is not the Pod's: 8080 to 3000, by number and by name."""
    stage.say("5. A Pod that listens on 3000, behind port 8080")
    stage.show("apply", "-f", "-", stdin=THREE)
    for name, target in (("by-number", "3000"), ("by-name", "app")):
        stage.show("expose", "pod", "three", f"--name={name}", "--port=8080", f"--target-port={target}")
        url = f"http://{name}:8080/hostname"
        stage.until("an answer", lambda url=url: stage.curl(url)[1].endswith("three"))  # type: ignore[misc]
        print(f"{DIM}$ kubesvc curl {url}{PLAIN}\nthree", flush=True)
    stage.show("get", "endpoints", "by-name")


DATABASE = """\
apiVersion: v1
kind: Service
metadata: {name: external-database-service}
spec: {ports: [{port: 5432, targetPort: 5432}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: external-database-service}
subsets: [{addresses: [{ip: 192.168.49.1}], ports: [{port: 5432}]}]
"""


def outside(stage: Stage) -> None:
    """A Service without a selector: Endpoints made by hand lead to a host outside the cluster."""
    stage.say("6. A database outside the cluster")
    server = str(Path(__file__).parents[1] / "node" / "standins" / "web.py")
    words = ["outside", "add", "db", "--name", stage.paths.name, "--address", "192.168.49.1/24", "--"]
    command = [
        sys.executable,
        "-m",
        "kubesvc",
        *words,
        sys.executable,
        "-I",
        "-S",
        server,
        "netexec",
        "--http-port=5432",
    ]
    print(f"{DIM}$ kubesvc outside add db --address 192.168.49.1/24 -- (a server on port 5432){PLAIN}", flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotAsSaid(f"kubesvc outside add: {done.stderr.strip()}")
    stage.show("apply", "-f", "-", stdin=DATABASE)
    url = "http://external-database-service:5432/hostname"
    stage.until("the host outside answers", lambda: stage.curl(url)[0] == 0)
    print(f"{DIM}$ kubesvc curl {url}{PLAIN}\n{stage.curl(url)[1].splitlines()[-1]}", flush=True)
    stage.show("get", "endpointslices", "-l", "kubernetes.io/service-name=external-database-service")
