"""What a scenario is, and short ways to write its objects. Values only.

Words that are replaced when a scenario starts, in objects, questions and commands: $NAMESPACE (its own), $OTHER (a
second one), $NODE and $NODE2 (names of real nodes), $ADDRESS and $ADDRESS2 (theirs), $PYTHON (the program kubesvc
runs in).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.60"
BUSYBOX = "busybox"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A Service that is broken in one way.

    code:    the cause that is planted, and that `why` must name first
    story:   what a learner should know before looking, without the answer
    objects: applied in order; a namespaced one without a namespace goes into $NAMESPACE
    steps:   shell commands that plant what objects alone cannot
    ask:     what `why` is asked
    status:  of the diagnosis as long as it is broken
    repair:  shell commands for those causes where `why` can only show more; () where its own command repairs
    after:   what `why` is asked after the repair, "" for the same; healed: the status it must have then
    looks:   whether it takes a look into the nodes to find it
    undo:    shell command that `stop` runs first, for what outlives the namespace; it may fail if all is well
    alone:   why the whole instance is disturbed meanwhile, "" if it is not
    without: controllers that must not run, for causes that are the absence of one
    mode:    how the nodes must steer packets, "" for any
    account: a service account of $NAMESPACE that asks, "" for the user; it may do what the objects grant
    files:   whether the objects are manifests in files that nobody has applied
    """

    name: str
    code: str
    story: str
    objects: tuple[Object, ...]
    steps: tuple[str, ...] = ()
    ask: str = "svc/web"
    status: str = "broken"
    repair: tuple[str, ...] = ()
    after: str = ""
    healed: str = "healthy"
    looks: bool = False
    undo: str = ""
    alone: str = ""
    without: tuple[str, ...] = ()
    mode: str = ""
    account: str = ""
    files: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """Options of `kubesvc up` without which this cannot be planted."""
        less = ("--controllers", f"*,{','.join(f'-{w}' for w in self.without)}") if self.without else ()
        return (*less, *(("--proxy-mode", self.mode) if self.mode else ()))


def service(name: str = "web", *, meta: Object | None = None, **spec: Any) -> Object:
    """Port 80 to 8080 of app=web, unless said otherwise; None leaves a field out."""
    whole = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
    whole = {k: v for k, v in whole.items() if v is not None}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, **(meta or {})}, "spec": whole}


def container(**more: Any) -> Object:
    """A web server on port 8080."""
    return {
        "name": "c",
        "image": AGNHOST,
        "args": ["netexec", "--http-port=8080"],
        "ports": [{"name": "http", "containerPort": 8080}],
        **more,
    }


def shell(script: str, **more: Any) -> Object:
    """A container that runs a shell script."""
    return {"name": "c", "image": BUSYBOX, "command": ["sh", "-c", script], **more}


def deployment(
    replicas: int = 1,
    *,
    name: str = "web",
    labels: Mapping[str, str] | None = None,
    meta: Object | None = None,
    pod: Object | None = None,
    strategy: Object | None = None,
    paused: bool = False,
    **of_container: Any,
) -> Object:
    """A Deployment of web servers labelled app=web; `pod` adds to the Pods' spec, the rest to their container."""
    spec: Object = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web", **(labels or {})}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container(**of_container)], **(pod or {})},
        },
    }
    if strategy:
        spec["strategy"] = strategy
    if paused:
        spec["paused"] = True
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, **(meta or {})},
        "spec": spec,
    }


def stateful_set(governor: str, name: str = "web") -> Object:
    """A StatefulSet of one web server labelled app=web, whose governing Service is said to be `governor`."""
    made = deployment(name=name)
    return {**made, "kind": "StatefulSet", "spec": {**made["spec"], "serviceName": governor}}


def pod(
    name: str = "web-1", *, labels: Mapping[str, str] | None = None, meta: Object | None = None, **spec: Any
) -> Object:
    """A Pod of its own, labelled app=web; `containers` in place of the web server."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels or {"app": "web"}), **(meta or {})},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container()], **spec},
    }


def endpoints(name: str = "web", *, ready: bool = True, port: int = 53, **meta: Any) -> Object:
    """Endpoints by hand that list the DNS of a node, which answers over TCP in any case."""
    listed = {"addresses" if ready else "notReadyAddresses": [{"ip": "$ADDRESS"}], "ports": [{"port": port}]}
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name, **meta}, "subsets": [listed]}


def by_hand(
    *addresses: Any, of: str = "web", name: str = "by-hand", port: Object | None = None, **labels: str
) -> Object:
    """A slice by hand; an address is a text or a whole endpoint."""
    named = {"kubernetes.io/service-name": of} if of else {}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {**named, **labels}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [a]} if isinstance(a, str) else a for a in addresses or ("$ADDRESS",)],
        "ports": [{"name": "", "protocol": "TCP", "port": 53, **(port or {})}],
    }


def patch(kind: str, name: str, change: str, type_: str = "merge", *more: str) -> str:
    """A kubectl patch in $NAMESPACE."""
    words = " ".join(("kubectl -n $NAMESPACE patch", kind, name, f"--type {type_}", *more))
    return f"{words} -p '{change}'"


def run(name: str = "web-2", app: str = "web") -> str:
    """What a user types to have a web server labelled app=APP."""
    return (
        f"kubectl -n $NAMESPACE run {name} --image={AGNHOST} --labels=app={app} --port=8080 -- netexec --http-port=8080"
    )
