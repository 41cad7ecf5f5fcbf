"""Planted causes: each small cluster, what is asked, and the code, verdict and command that must come first."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api.meta import Object
from kubesvc.api.pod import POD
from kubesvc.api.service import SERVICE
from kubesvc.why.answer import diagnose, service_meant
from kubesvc.why.causes import BY_CODE, CAUSES, FAMILIES, render_page
from kubesvc.why.diagnosis import Diagnosis
from kubesvc.why.render import exit_status, render_text
from kubesvc.why.sight import Sight
from kubesvc.why.snapshot import Gap, Snapshot
from kubesvc.why.subject import parse_subject

from .planted import (
    CHANGED,
    SHOP,
    at,
    cluster,
    endpoint_slice,
    endpoints,
    event,
    meta,
    node,
    pod,
    service,
    workload,
)


@dataclass(frozen=True)
class Planted:
    """One row. verdict: the first line; command: the suggested command, "" for none, None: not looked at."""

    sentence: str
    code: str
    objects: Sequence[Object]
    verdict: str
    command: str | None = None
    ask: str = "svc/web"
    status: str = "broken"
    options: dict[str, Any] = field(default_factory=dict)


SINCE = f"since {CHANGED} (5m)"
PROBE = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10, "failureThreshold": 3}
HOST_PORT = {"containerPort": 8080, "hostPort": 18080}
EXEC = {"exec": {"command": ["test", "-e", "/tmp/ready"]}}


def waiting(reason: str, message: str = "", **more: Any) -> Object:
    return pod(ready=False, phase="Pending", ip="", state={"waiting": {"reason": reason, "message": message}}, **more)


def members(governor: str = "wbe", **more: Any) -> tuple[Object, ...]:
    """A StatefulSet with two Pods whose names of their own are below `governor`."""
    named: dict[str, Any] = {"subdomain": governor, **more} if governor else more
    pods = (
        pod(f"web-{i}", owner="StatefulSet/web", ip=f"10.244.1.{i + 2}", hostname=f"web-{i}", **named) for i in (0, 1)
    )
    return (workload("web", "StatefulSet", serviceName=governor), *pods)


def quota() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": meta("small"),
        "spec": {"hard": {"pods": "1"}},
        "status": {"hard": {"pods": "1"}, "used": {"pods": "1"}},
    }


def policy(ingress: Sequence[Object]) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta("deny"),
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": list(ingress)},
    }


def external(name: str) -> Object:
    obj = service("web", {}, type="ExternalName", clusterIP="", externalName=name)
    del obj["spec"]["clusterIPs"], obj["spec"]["ipFamilies"]
    return obj


REFUSED = 'Readiness probe failed: Get "http://10.244.1.2:9999/healthz": dial tcp 10.244.1.2:9999: connect: connection refused'  # noqa: E501
BAD_PROBE = {"readinessProbe": {"httpGet": {"path": "/healthz", "port": 9999}}}
PATCH = "kubectl -n shop patch service web --type merge -p "

PLANTED = (
    Planted(
        "two letters of the value swapped",
        "EP101",
        [service(selector={"app": "wbe"}), pod(), pod("web-2", ip="10.244.1.3")],
        "svc/web does not route: no Pod has the label app=wbe; 2 Pods have app=web: did you mean app=web?",
        PATCH + '\'{"spec":{"selector":{"app":"web"}}}\'',
    ),
    Planted(
        "the value in capitals",
        "EP101",
        [service(selector={"app": "Web"}), pod()],
        "svc/web does not route: no Pod has the label app=Web; 1 Pod has app=web: did you mean app=web?",
        PATCH + '\'{"spec":{"selector":{"app":"web"}}}\'',
    ),
    Planted(
        "a value cut short, among Pods of others",
        "EP101",
        [
            service(selector={"app": "front", "tier": "x"}),
            pod(labels={"app": "front-end", "tier": "x"}),
            pod("db", {"app": "db", "tier": "x"}),
        ],
        "svc/web does not route: no Pod has the label app=front; 1 Pod has app=front-end: did you mean app=front-end?",
        PATCH + '\'{"spec":{"selector":{"app":"front-end"}}}\'',
    ),
    Planted(
        "only the template shows what was meant, its Pods being away",
        "EP101",
        [service(selector={"app": "wbe"}), workload(replicas=0)],
        "svc/web does not route: no Pod has the label app=wbe; the template of deployment/web has app=web: "
        "did you mean app=web?",
        PATCH + '\'{"spec":{"selector":{"app":"web"}}}\'',
    ),
    Planted(
        "a letter too many in the key",
        "EP102",
        [service(selector={"appp": "web"}), pod()],
        "svc/web does not route: no Pod has the label appp=web; 1 Pod has app=web: did you mean app=web?",
        PATCH + '\'{"spec":{"selector":{"appp":null,"app":"web"}}}\'',
    ),
    Planted(
        "the key of another convention",
        "EP102",
        [service(selector={"app": "web"}), pod(labels={"app.kubernetes.io/name": "web"})],
        "svc/web does not route: no Pod has the label app=web; 1 Pod has app.kubernetes.io/name=web: did you mean "
        "app.kubernetes.io/name=web?",
        PATCH + '\'{"spec":{"selector":{"app":null,"app.kubernetes.io/name":"web"}}}\'',
    ),
    Planted(
        "the Pods are one namespace further",
        "EP103",
        [service(), pod(namespace="prod")],
        "svc/web does not route: no Pod of namespace shop has app=web, but 1 Pod of namespace prod has; a Service "
        "selects in its own namespace only",
        'echo \'{"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"prod"},"spec":{"selector":'
        '{"app":"web"},"ports":[{"port":80,"protocol":"TCP","targetPort":8080}],'
        ""
        ""
        ""
        ""
        ""
        '"type":"ClusterIP"}}\' | kubectl apply -f -',
    ),
    Planted(
        "the label stands on the Deployment only",
        "EP104",
        [
            service(selector={"tier": "front"}),
            workload("web", labels={"tier": "front"}),
            pod(labels={"app": "web"}),
        ],
        "svc/web does not route: the label tier=front is on deployment/web itself, but not in its Pod template",
        "kubectl -n shop patch deployment web --type merge -p "
        '\'{"spec":{"template":{"metadata":{"labels":{"tier":"front"}}}}}\'',
    ),
    Planted(
        "nothing like it",
        "EP105",
        [service(selector={"app": "billing"}), pod()],
        "svc/web does not route: nothing in namespace shop has the label app=billing; none of the 1 Pod is like it",
        "kubectl -n shop get pods --show-labels",
    ),
    Planted(
        "an empty namespace",
        "EP105",
        [service()],
        "svc/web does not route: nothing in namespace shop has the label app=web; there are no Pods",
        "kubectl -n shop get pods --show-labels",
    ),
    Planted(
        "one pair too many",
        "EP106",
        [service(selector={"app": "web", "version": "v2"}), pod()],
        "svc/web does not route: no Pod has all of app=web,version=v2: 1 Pod with app=web but not with version=v2",
        PATCH + '\'{"spec":{"selector":{"version":null}}}\'',
    ),
    Planted(
        "scaled to nothing",
        "EP201",
        [service(), workload(replicas=0)],
        "svc/web does not route: deployment/web is scaled to 0 replicas, so there are no Pods",
        "kubectl -n shop scale deployment/web --replicas=1",
    ),
    Planted(
        "a quota in the way",
        "EP202",
        [
            service(),
            workload(),
            workload("web-1", "ReplicaSet", owner="web", template={"app": "web"}),
            quota(),
            event(
                "ReplicaSet/web-1",
                "FailedCreate",
                'Error creating: pods "web-1-x" is forbidden: exceeded quota: small, requested: '
                ""
                ""
                ""
                ""
                ""
                "pods=1, used: pods=1, limited: pods=1",
            ),
        ],
        "svc/web does not route: quota small forbids the Pods of deployment/web: small, requested: pods=1, used: "
        "pods=1, limited: pods=1",
        'kubectl -n shop patch resourcequota small --type merge -p \'{"spec":{"hard":{"pods":"3"}}}\'',
    ),
    Planted(
        "refused by admission",
        "EP203",
        [
            service(),
            workload(
                status={
                    "conditions": [
                        {
                            "type": "ReplicaFailure",
                            "status": "True",
                            "message": 'pods "x" is forbidden: error looking up service account shop/builder',
                        }
                    ]
                }
            ),
        ],
        'svc/web does not route: the Pods of deployment/web cannot be created: pods "x" is forbidden: error looking up '
        "service account shop/builder",
        "kubectl -n shop describe deployment web",
    ),
    Planted(
        "paused at birth",
        "EP204",
        [service(), workload(paused=True)],
        "svc/web does not route: deployment/web is paused and has not made its first Pod",
        "kubectl -n shop rollout resume deployment/web",
    ),
    Planted(
        "a StatefulSet that nobody acts upon",
        "EP205",
        [service(), workload(kind="StatefulSet", replicas=3)],
        "svc/web does not route: statefulset/web asks for 3 Pods and nothing has made any",
        "kubectl -n shop describe statefulset web",
    ),
    Planted(
        "a DaemonSet that fits no node",
        "EP206",
        [service(), workload(kind="DaemonSet", replicas=None, status={"desiredNumberScheduled": 0})],
        "svc/web does not route: no node fits daemonset/web, so it makes no Pods",
    ),
    Planted(
        "the probe gets a 500",
        "EP301",
        [
            service(),
            pod(ready=False, container={"readinessProbe": PROBE}),
            event("Pod/web-1", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 500", count=31),
        ],
        f"svc/web does not route: pod/web-1 runs but is not Ready {SINCE}: the readiness probe of container c (GET "
        "/healthz on port 8080) fails: HTTP probe failed with statuscode: 500; it failed "
        "31 times since 2026-01-01T00:00:00Z, and succeeded in between",
        "kubectl -n shop logs web-1 -c c",
    ),
    Planted(
        "a command fails in three Pods alike",
        "EP301",
        [
            service(),
            *(pod(f"web-{i}", ip=f"10.244.1.{i}", ready=False, container={"readinessProbe": EXEC}) for i in (1, 2, 3)),
        ],
        f"svc/web does not route: pod/web-1 runs but is not Ready {SINCE}: the readiness probe "
        f"of "
        f""
        f""
        f""
        f""
        f"container c (exec test "
        "-e /tmp/ready) has not succeeded, and no result of it is known (and, for the same "
        "cause, web-2, "
        "web-3)",
    ),
    Planted(
        "a gate that nobody sets",
        "EP302",
        [
            service(),
            pod(
                ready=False,
                readinessGates=[{"conditionType": "example.com/attached"}],
                status={
                    "conditions": [
                        {"type": "Ready", "status": "False", "lastTransitionTime": CHANGED, "message": "gates"},
                        {"type": "ContainersReady", "status": "True"},
                    ]
                },
            ),
        ],
        f"svc/web does not route: pod/web-1 runs but is not Ready {SINCE}: its readiness gate example.com/attached is "
        "not set to True",
        "kubectl -n shop patch pod web-1 --subresource=status -p "
        '\'{"status":{"conditions":[{"type":"example.com/attached","status":"True"}]}}\'',
    ),
    Planted(
        "slow to start",
        "EP303",
        [
            service(),
            pod(
                ready=False,
                container={"startupProbe": PROBE},
                status={
                    "containerStatuses": [{"name": "c", "ready": False, "started": False, "state": {"running": {}}}]
                },
            ),
            event("Pod/web-1", "Unhealthy", "Startup probe failed: HTTP probe failed with statuscode: 503"),
        ],
        f"svc/web does not route: pod/web-1 runs but is not Ready {SINCE}: the startup probe of container c (GET "
        "/healthz on port 8080) fails: HTTP probe failed with statuscode: 503",
    ),
    Planted(
        "misspelt, and Pods that differ in what nobody asks for",
        "EP101",
        [
            service(selector={"app": "wbe"}),
            pod("a", {"app": "web", "zone": "a"}),
            pod("b", {"app": "web", "zone": "b"}),
        ],
        "svc/web does not route: no Pod has the label app=wbe; 2 Pods have app=web: did you mean app=web?",
        PATCH + '\'{"spec":{"selector":{"app":"web"}}}\'',
    ),
    Planted(
        "misspelt, and two that are as near",
        "EP101",
        [service(selector={"app": "ap"}), pod("a", {"app": "api"}), pod("b", {"app": "app"})],
        "svc/web does not route: no Pod has the label app=ap; 1 Pod has app=api, others app=app; did you mean one of "
        "these?",
        "kubectl -n shop get pods --show-labels",
    ),
    Planted(
        "a port by name that nobody has, beside one that has the only port there is",
        "EP401",
        [
            service(
                ports=[
                    {"name": "http", "port": 80, "targetPort": "http"},
                    {"name": "metrics", "port": 9100, "targetPort": "metrics"},
                ]
            ),
            pod(),
        ],
        "svc/web routes only in part: port 9100/TCP (metrics) goes to the target port named metrics, which no "
        "container has; they have http=8080/TCP",
        "",
    ),
    Planted(
        "the probe asks for a port by a name that is none",
        "EP304",
        [
            service(),
            workload(),
            workload("web-1", "ReplicaSet", owner="web", template={"app": "web"}),
            pod(
                "web-1-a",
                ready=False,
                owner="ReplicaSet/web-1",
                container={"readinessProbe": {"httpGet": {"path": "/", "port": "htp"}}},
            ),
            event("Pod/web-1-a", "Unhealthy", "Readiness probe errored: couldn't find port: htp"),
        ],
        f"svc/web does not route: pod/web-1-a runs but is not Ready {SINCE}: the readiness probe of container c (GET / "
        "on port htp) asks for the port named htp, which the container does not declare; did you mean http?",
        "kubectl -n shop patch deployment web --type json -p "
        '\'[{"op":"replace","path":"/spec/template/spec/containers/0/readinessProbe/httpGet/port","value":8080}]\'',
    ),
    Planted(
        "its liveness probe ends it",
        "EP311",
        [
            service(),
            pod(
                ready=False,
                container={"livenessProbe": {"httpGet": {"path": "/nope", "port": 8080}}},
                status={
                    "containerStatuses": [
                        {
                            "name": "c",
                            "ready": False,
                            "restartCount": 7,
                            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                            "lastState": {"terminated": {"exitCode": 137, "reason": "Error"}},
                        }
                    ]
                },
            ),
            event("Pod/web-1", "Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 404"),
        ],
        "svc/web does not route: container c of pod/web-1 is ended again and again because its liveness probe (GET "
        "/nope on port 8080) fails: HTTP probe failed with statuscode: 404 (7 restarts, last: exit code 137, Error)",
        "kubectl -n shop logs web-1 -c c --previous",
    ),
    Planted(
        "the probe asks the wrong port",
        "EP304",
        [
            service(),
            workload(),
            workload("web-1", "ReplicaSet", owner="web", template={"app": "web"}),
            pod("web-1-a", ready=False, container=BAD_PROBE, owner="ReplicaSet/web-1"),
            event("Pod/web-1-a", "Unhealthy", REFUSED),
        ],
        f"svc/web does not route: pod/web-1-a runs but is not Ready {SINCE}: the readiness probe of container c (GET "
        "/healthz on port 9999) asks port 9999, which no container declares and where nobody answers; it declares 8080",
        "kubectl -n shop patch deployment web --type json -p "
        '\'[{"op":"replace","path":"/spec/template/spec/containers/0/'
        'readinessProbe/httpGet/port",'
        '"value":8080}]\'',
    ),
    Planted(
        "no address yet",
        "EP305",
        [
            service(),
            waiting("ContainerCreating"),
            event("Pod/web-1", "FailedMount", "MountVolume.SetUp failed: no such Secret"),
        ],
        "svc/web does not route: pod/web-1 has no IP address yet: MountVolume.SetUp failed: no such Secret",
        "kubectl -n shop describe pod web-1",
    ),
    Planted(
        "on its way out",
        "EP306",
        [service(), pod(ready=False, metadata={"deletionTimestamp": CHANGED})],
        f"svc/web does not route: pod/web-1 is being deleted; its time ends at {CHANGED}",
    ),
    Planted(
        "ended with an error",
        "EP307",
        [service(), pod(ready=False, phase="Failed", state={"terminated": {"exitCode": 3}})],
        "svc/web does not route: pod/web-1 has run to its end (Failed): exit code 3",
        "kubectl -n shop logs web-1 --all-containers",
    ),
    Planted(
        "the node has gone silent",
        "EP308",
        [service(), pod(ready=False), node("n1", ready=False)],
        f"svc/web does not route: pod/web-1 is on node n1, which is not ready {SINCE}: the node stopped reporting",
        "kubectl describe node n1",
    ),
    Planted(
        "every node is cordoned",
        "EP309",
        [
            service(),
            pod(
                ready=False,
                phase="Pending",
                node="",
                ip="",
                conditions=[
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "message": "0/1 nodes are available: 1 node(s) were unschedulable.",
                    }
                ],
            ),
            node("n1", unschedulable=True),
        ],
        "svc/web does not route: pod/web-1 cannot be scheduled: 0/1 nodes are available: 1 node(s) were unschedulable.",
        "kubectl uncordon n1",
    ),
    Planted(
        "no node has the wanted label",
        "EP309",
        [
            service(),
            pod(ready=False, phase="Pending", node="", ip="", nodeSelector={"disk": "ssd"}),
            event(
                "Pod/web-1",
                "FailedScheduling",
                "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.",
            ),
        ],
        "svc/web does not route: pod/web-1 cannot be scheduled: 0/2 nodes are available: 2 node(s) didn't match Pod's "
        "node affinity/selector.",
        "kubectl label node n1 disk=ssd --overwrite",
    ),
    Planted(
        "an image that does not exist, after one that did",
        "EP310",
        [
            service(),
            workload(image="web:typo"),
            workload("web-1", "ReplicaSet", owner="web", template={"app": "web"}, replicas=0),
            workload("web-2", "ReplicaSet", owner="web", template={"app": "web"}, image="web:typo"),
            waiting(
                "ImagePullBackOff", "Back-off pulling image", owner="ReplicaSet/web-2", container={"image": "web:typo"}
            ),
        ],
        "svc/web does not route: container c of pod/web-1 waits for its image web:typo: Back-off pulling image",
        "kubectl -n shop rollout undo deployment/web",
    ),
    Planted(
        "it crashes",
        "EP311",
        [
            service(),
            pod(
                ready=False,
                status={
                    "containerStatuses": [
                        {
                            "name": "c",
                            "ready": False,
                            "restartCount": 7,
                            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                            "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
                        }
                    ]
                },
            ),
        ],
        "svc/web does not route: container c of pod/web-1 crashes again and again (7 restarts, "
        ""
        ""
        ""
        ""
        "last: "
        "exit code 1, Error)",
        "kubectl -n shop logs web-1 -c c --previous",
    ),
    Planted(
        "a ConfigMap that is not there",
        "EP312",
        [service(), waiting("CreateContainerConfigError", 'configmap "settings" not found')],
        'svc/web does not route: container c of pod/web-1 cannot be made: configmap "settings" not found',
    ),
    Planted(
        "an init container that waits",
        "EP313",
        [
            service(),
            pod(
                ready=False,
                phase="Pending",
                initContainers=[{"name": "wait", "image": "i"}],
                status={
                    "initContainerStatuses": [{"name": "wait", "state": {"running": {}}}],
                    "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "PodInitializing"}}}],
                },
            ),
        ],
        "svc/web does not route: init container wait of pod/web-1 is running, and the application waits for it",
        "kubectl -n shop logs web-1 -c wait",
    ),
    Planted(
        "ready now, but it flaps",
        "EP314",
        [
            service(),
            pod(container={"readinessProbe": PROBE}),
            event("Pod/web-1", "Unhealthy", "Readiness probe failed: context deadline exceeded", count=12),
        ],
        "svc/web routes to 1 Pod; the readiness probe of pod/web-1 failed 12 times, the last time at "
        "2026-01-01T01:04:59Z: context deadline exceeded",
        status="degraded",
    ),
    Planted(
        "two on one host port",
        "EP315",
        [
            service(),
            pod(ready=False, phase="Pending", node="", ip="", hostNetwork=True),
            event(
                "Pod/web-1",
                "FailedScheduling",
                "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
            ),
        ],
        "svc/web does not route: pod/web-1 finds no node on which its host ports are free: 0/1 nodes are available: 1 "
        "node(s) didn't have free ports for the requested pod ports.",
    ),
    Planted(
        "who has the host port is named, of any namespace, and only where the Pod could be",
        "EP315",
        [
            service(),
            node("n1"),
            node("n2"),
            node("n3", unschedulable=True),
            pod(ready=False, phase="Pending", node="", ip="", ports=[HOST_PORT]),
            pod("gate", {"app": "gate"}, namespace="edge", ports=[HOST_PORT]),
            pod("gate-2", {"app": "gate"}, node="n2", ip="10.244.2.3", ports=[{**HOST_PORT, "hostIP": "10.0.0.1"}]),
            pod("gate-3", {"app": "gate"}, node="n3", ip="10.244.3.3", ports=[HOST_PORT]),
            pod("ended", {"app": "gate"}, phase="Succeeded", ports=[HOST_PORT]),
            pod("other", {"app": "gate"}, node="n2", ip="10.244.2.4", ports=[{**HOST_PORT, "protocol": "UDP"}]),
            event(
                "Pod/web-1",
                "FailedScheduling",
                "0/3 nodes are available: 2 node(s) didn't have free ports for the "
                "requested pod ports, 1 node(s) were unschedulable.",
            ),
        ],
        "svc/web does not route: pod/web-1 finds no node on which its host ports are free: 18080/TCP of node n1 is "
        "held by pod/gate in namespace edge, 18080/TCP of node n2 is held by pod/gate-2",
        "kubectl -n edge get pod gate -o wide",
    ),
    Planted(
        "not ready, and nobody says why",
        "EP316",
        [service(), pod(ready=False, status={"containerStatuses": []})],
        f"svc/web does not route: pod/web-1 is not Ready {SINCE}: no reason given",
    ),
    Planted(
        "the node was removed",
        "EP317",
        [service(), pod(node="n9")],
        "svc/web does not route: pod/web-1 is on node n9, which does not exist any more, so it is left out",
        "kubectl -n shop delete pod web-1 --grace-period=0 --force",
    ),
    Planted(
        "bound to a node that never was",
        "EP317",
        [service(), pod(node="n9", ready=False, ip="", phase="Pending")],
        "svc/web does not route: pod/web-1 is bound to node n9, which does not exist",
        "kubectl get nodes",
    ),
    Planted(
        "a probe that fails now and then, at a moment in which it fails",
        "EP301",
        [
            service(),
            pod(ready=False, container={"readinessProbe": EXEC}),
            event("Pod/web-1", "Unhealthy", "Readiness probe failed: ", count=7),
        ],
        f"svc/web does not route: pod/web-1 runs but is not Ready {SINCE}: the readiness probe of container c (exec "
        "test -e /tmp/ready) fails, and says nothing; it failed 7 times since 2026-01-01T00:00:00Z, and "
        "succeeded in between",
    ),
    Planted(
        "listed though not ready",
        "EP318",
        [service(publishNotReadyAddresses=True), pod(ready=False), pod("web-2", ip="10.244.1.3")],
        "svc/web routes to 2 Pods; svc/web lists Pods that are not ready, as "
        ""
        ""
        ""
        ""
        ""
        "publishNotReadyAddresses asks: 1 of 2 are not",
        PATCH + '\'{"spec":{"publishNotReadyAddresses":false}}\'',
        status="degraded",
    ),
    Planted(
        "held by a gate",
        "EP319",
        [
            service(),
            pod(ready=False, phase="Pending", node="", ip="", schedulingGates=[{"name": "example.com/budget"}]),
        ],
        "svc/web does not route: pod/web-1 is held by scheduling gates: example.com/budget",
    ),
    Planted(
        "a target port by a name that no container has",
        "EP401",
        [service(ports=[{"port": 80, "targetPort": "htpt"}]), pod()],
        "svc/web does not route: port 80/TCP goes to the target port named htpt, which no container has; they have "
        "http=8080/TCP; did you mean http?",
        "kubectl -n shop patch service web --type json -p "
        '\'[{"op":"replace","path":"/spec/ports/0/targetPort","value":"http"}]\'',
    ),
    Planted(
        "only one of two ports has no namesake",
        "EP401",
        [
            service(
                ports=[
                    {"name": "a", "port": 80, "targetPort": 8080},
                    {"name": "m", "port": 90, "targetPort": "metrics"},
                ]
            ),
            pod(ports=({"name": "http", "containerPort": 8080}, {"name": "metricz", "containerPort": 9090})),
        ],
        "svc/web routes only in part: port 90/TCP (m) goes to the target port named metrics, which no container has; "
        "they have http=8080/TCP, metricz=9090/TCP; did you mean metricz?",
        "kubectl -n shop patch service web --type json -p "
        '\'[{"op":"replace","path":"/spec/ports/1/targetPort","value":"metricz"}]\'',
    ),
    Planted(
        "the right name, the wrong protocol",
        "EP402",
        [
            service(ports=[{"port": 53, "targetPort": "dns"}]),
            pod(ports=({"name": "dns", "containerPort": 53, "protocol": "UDP"},)),
        ],
        "svc/web does not route: port 53/TCP asks for the target port dns over TCP, but the "
        ""
        ""
        ""
        ""
        ""
        "containers declare dns as UDP",
        "kubectl -n shop patch service web --type json -p "
        '\'[{"op":"replace","path":"/spec/ports/0/protocol","value":"UDP"}]\'',
    ),
    Planted(
        "a number that nobody declares",
        "EP403",
        [service(ports=[{"port": 80, "targetPort": 80}]), pod()],
        "svc/web may not work: port 80/TCP goes to port 80, which no container declares (they declare 8080); whether "
        "something listens there cannot be seen from here",
        "kubectl -n shop patch service web --type json -p "
        '\'[{"op":"add","path":"/spec/ports/0/targetPort","value":8080}]\'',
        status="unknown",
    ),
    Planted(
        "IPv6 only, Pods IPv4 only",
        "EP404",
        [service(clusterIP="fd00::7", ipFamilies=["IPv6"]), pod()],
        "svc/web does not route: svc/web is IPv6, and pod/web-1 has only IPv4 addresses",
        'kubectl -n shop delete service web && echo \'{"apiVersion":"v1","kind":"Service","metadata":{"name":'
        '"web","namespace":"shop"},"spec":{"selector":{"app":"web"},"ports":[{"port":80,"protocol":"TCP","targetPort":'
        '8080}],"type":"ClusterIP","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack"}}\' | kubectl apply -f -',
    ),
    Planted(
        "no ports",
        "EP405",
        [service(ports=[]), pod()],
        "svc/web does not route: svc/web has no ports; its Pods declare 8080/TCP",
        "kubectl -n shop patch service web --type json -p "
        '\'[{"op":"add","path":"/spec/ports","value":[{"port":8080,"protocol":"TCP"}]}]\'',
    ),
    Planted(
        "no ports, and nobody declares any",
        "EP405",
        [service(ports=[]), pod(ports=())],
        "svc/web does not route: svc/web has no ports",
        "",
    ),
    Planted(
        "headless, and ports that differ",
        "EP406",
        [service(clusterIP="None"), pod()],
        "svc/web routes to 1 Pod",
        status="healthy",
    ),
    Planted(
        "neither selector nor Endpoints",
        "EP501",
        [service(selector={}), pod()],
        "svc/web does not route: svc/web has no selector, and nobody has listed endpoints for "
        ""
        "it; "
        ""
        "1 "
        ""
        "Pod here has app=web",
        PATCH + '\'{"spec":{"selector":{"app":"web"}}}\'',
    ),
    Planted(
        "Endpoints of another name",
        "EP502",
        [service(selector={}), endpoints("wbe", "192.0.2.1")],
        "svc/web does not route: svc/web has no Endpoints of its own name; endpoints/wbe exist and no Service has that "
        "name: did you mean web?",
    ),
    Planted(
        "mirroring switched off",
        "EP503",
        [
            service(selector={}),
            endpoints("web", "192.0.2.1", labels={"endpointslice.kubernetes.io/skip-mirror": "true"}),
        ],
        "svc/web does not route: endpoints/web exist but are not mirrored into slices: their label "
        "endpointslice.kubernetes.io/skip-mirror=true forbids it",
        "kubectl -n shop label endpoints web endpointslice.kubernetes.io/skip-mirror-",
    ),
    Planted(
        "a slice for a misspelt Service",
        "EP504",
        [service(selector={}), endpoint_slice("by-hand", "wbe", at("192.0.2.1"))],
        "svc/web does not route: endpointslice/by-hand seems meant for svc/web, but its label "
        "kubernetes.io/service-name says wbe",
        "kubectl -n shop label endpointslice by-hand kubernetes.io/service-name=web --overwrite",
    ),
    Planted(
        "a slice for nobody",
        "EP504",
        [service(selector={}), endpoint_slice("web-1", "", at("192.0.2.1"))],
        "svc/web does not route: endpointslice/web-1 seems meant for svc/web, but it has no label "
        "kubernetes.io/service-name",
        "kubectl -n shop label endpointslice web-1 kubernetes.io/service-name=web --overwrite",
    ),
    Planted(
        "port names that do not meet",
        "EP505",
        [service(selector={}, ports=[{"name": "http", "port": 80}]), endpoint_slice("web-1", "web", at("192.0.2.1"))],
        "svc/web does not route: port http (80/TCP) of svc/web has no namesake in the slices, which have no name/TCP",
        "kubectl -n shop patch endpointslice web-1 --type json -p "
        ""
        ""
        ""
        ""
        ""
        '\'[{"op":"add","path":"/ports/0/name","value":"http"}]\'',
    ),
    Planted(
        "the controller is dead",
        "EP506",
        [service(), pod()],
        "svc/web does not route: the EndpointSlices of svc/web are out of date for 300 s (missing or outdated: "
        "10.244.1.2): their controller does not run or cannot write",
        "kubectl -n kube-system get lease kube-controller-manager -o yaml",
        options={"written": False},
    ),
    Planted(
        "over a thousand",
        "EP507",
        [
            service(),
            pod(),
            endpoints(
                "web",
                "10.244.1.2",
                annotations={"endpoints.kubernetes.io/over-capacity": "truncated"},
                labels={"endpoints.kubernetes.io/managed-by": "endpoint-controller"},
            ),
        ],
        "svc/web routes to 1 Pod",
        status="healthy",
    ),
    Planted(
        "Endpoints by hand beside a selector",
        "EP508",
        [service(), pod(), endpoints("web", "192.0.2.9")],
        "svc/web routes to 1 Pod; endpoints/web were written by hand (192.0.2.9), but svc/web has a selector, so the "
        "endpoints controller overwrites them",
        status="degraded",
    ),
    Planted(
        "the mirror is blind",
        "EP509",
        [service(selector={}), endpoints("web", "192.0.2.1")],
        "svc/web does not route: endpoints/web exist, and no slice mirrors them: the mirroring controller does not run "
        "or cannot write",
    ),
    Planted(
        "listed by hand as not ready",
        "EP510",
        [service(selector={}), endpoint_slice("web-1", "web", at("192.0.2.1", ready=False))],
        "svc/web does not route: every endpoint listed by hand for svc/web (1) is marked as not ready",
        "kubectl -n shop patch endpointslice web-1 --type json -p "
        '\'[{"op":"add","path":"/endpoints/0/conditions/ready","value":true}]\'',
    ),
    Planted(
        "left to another proxy",
        "EP601",
        [service(meta={"labels": {"service.kubernetes.io/service-proxy-name": "cilium"}}), pod()],
        "svc/web does not route: svc/web is left to the proxy 'cilium' by its label "
        "service.kubernetes.io/service-proxy-name, so the standard proxy makes no rules for it",
        "kubectl -n shop label service web service.kubernetes.io/service-proxy-name-",
    ),
    Planted(
        "policy Local, and one node without a Pod",
        "EP602",
        [service(internalTrafficPolicy="Local"), pod()],
        "svc/web routes to 1 Pod; internalTrafficPolicy is Local and n2 has no endpoint of svc/web: connections to the "
        "ClusterIP there are dropped",
        PATCH + '\'{"spec":{"internalTrafficPolicy":"Cluster"}}\'',
        status="degraded",
    ),
    Planted(
        "policy Local, asked by a Pod of that node",
        "EP602",
        [service(internalTrafficPolicy="Local"), pod(), pod("client", {"run": "client"}, node="n2", ip="10.244.2.9")],
        "from pod/client on node n2: svc/web routes only in part: internalTrafficPolicy is "
        "Local "
        ""
        ""
        ""
        "and "
        "n2 has no endpoint "
        "of svc/web: connections to the ClusterIP there are "
        ""
        ""
        ""
        "dropped",
        PATCH + '\'{"spec":{"internalTrafficPolicy":"Cluster"}}\'',
        ask="pod/client svc/web",
    ),
    Planted(
        "external policy Local",
        "EP603",
        [
            service(
                type="NodePort",
                externalTrafficPolicy="Local",
                ports=[{"port": 80, "targetPort": 8080, "nodePort": 30080}],
            ),
            pod(),
        ],
        "svc/web routes to 1 Pod",
        status="healthy",
    ),
    Planted(
        "a zone with one endpoint of four",
        "EP604",
        [
            service(selector={}),
            node("n1", "a"),
            node("n2", "b"),
            endpoint_slice(
                "web-1",
                "web",
                *(at(f"10.244.1.{i}", hints={"forZones": [{"name": "a" if i == 1 else "b"}]}) for i in (1, 2, 3, 4)),
            ),
        ],
        "svc/web routes to 4 endpoints",
        status="healthy",
    ),
    Planted(
        "some sources only",
        "EP605",
        [
            service(type="LoadBalancer", loadBalancerSourceRanges=["192.0.2.0/24"])
            | {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}}},
            pod(),
        ],
        "svc/web routes to 1 Pod",
        status="healthy",
    ),
    Planted(
        "an external IP",
        "EP606",
        [service(externalIPs=["198.51.100.7"]), pod()],
        "svc/web routes to 1 Pod",
        status="healthy",
    ),
    Planted(
        "a load balancer without an address",
        "EP607",
        [service(type="LoadBalancer"), pod()],
        "svc/web routes to 1 Pod; svc/web is of type LoadBalancer, and nothing has given it an address",
        status="degraded",
    ),
    Planted(
        "a policy that admits nobody, elsewhere",
        "EP608",
        [service(), pod(), policy([])],
        "svc/web may not work: networkpolicy/deny selects pod/web-1 and admits nobody to port 8080/TCP; it blocks if "
        "this cluster's network enforces policies",
        "kubectl -n shop describe networkpolicy deny",
        status="unknown",
    ),
    Planted(
        "a policy that admits nobody, on our nodes",
        "EP608",
        [service(), pod(), policy([]), node("n1", ours=True)],
        "svc/web routes to 1 Pod",
        status="healthy",
    ),
    Planted(
        "no kube-proxy anywhere",
        "EP609",
        [
            service(),
            pod(),
            {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta("kube-proxy", "kube-system"), "spec": {}},
            pod("kube-proxy-x", {"k8s-app": "kube-proxy"}, namespace="kube-system", ready=False),
        ],
        "svc/web routes only in part: kube-proxy does not run on n1, so the rules there are old or missing",
        "kubectl -n kube-system get pods -l k8s-app=kube-proxy -o wide",
    ),
    Planted(
        "sticky", "EP610", [service(sessionAffinity="ClientIP"), pod()], "svc/web routes to 1 Pod", status="healthy"
    ),
    Planted(
        "only the dying are left",
        "EP611",
        [service(), pod(metadata={"deletionTimestamp": CHANGED})],
        "svc/web still routes: svc/web has only terminating endpoints left (10.244.1.2)",
        "kubectl -n shop get pods -l app=web -o wide",
        status="degraded",
    ),
    Planted(
        "only the dying are left, by hand",
        "EP611",
        [
            service(selector={}),
            endpoint_slice(
                "web-1",
                "web",
                {"addresses": ["10.244.1.2"], "conditions": {"ready": False, "serving": True, "terminating": True}},
            ),
        ],
        "svc/web routes to 1 endpoint; svc/web has only terminating endpoints left (10.244.1.2)",
        status="degraded",
    ),
    Planted(
        "headless has no address",
        "EP701",
        [service(clusterIP="None", ports=[{"port": 8080, "targetPort": 8080}]), pod()],
        "svc/web routes to 1 Pod",
        status="healthy",
    ),
    Planted(
        "headless, asked at a port that nothing translates",
        "EP406",
        [service(clusterIP="None"), pod()],
        "web.shop:80 does not answer: svc/web is headless, so nothing translates port 80: ask for 8080 instead",
        ask="web.shop:80",
    ),
    Planted(
        "a node asked for a port of a ClusterIP",
        "EP612",
        [service(), pod()],
        "172.30.0.11:80, which is node n1: no Service has the node port 80; svc/web has the port 80, but is of type "
        "ClusterIP, which nodes do not answer for",
        ask="172.30.0.11:80",
    ),
    Planted(
        "an alias to an address",
        "EP702",
        [external("192.0.2.5")],
        "svc/web does not resolve: its externalName 192.0.2.5 is an IP address, and DNS knows no alias to an address",
    ),
    Planted(
        "DNS is down",
        "EP703",
        [
            service(),
            pod(),
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": meta("kube-dns", "kube-system"),
                "spec": {"clusterIP": "10.96.0.10"},
            },
        ],
        "svc/web routes only in part: cluster DNS has no ready endpoint (svc/kube-dns in kube-system), so no Pod can "
        "resolve names",
        "kubectl -n kube-system get pods -l k8s-app=kube-dns -o wide",
        options={"dns": False},
    ),
    Planted(
        "a misspelt name",
        "EP704",
        [service(), pod()],
        "wbe.shop: there is no such name: there is no Service shop/wbe; did you mean web.shop?",
        ask="wbe.shop",
    ),
    Planted(
        "a StatefulSet whose serviceName is misspelt: the Service works, the Pods have no names",
        "EP708",
        [service(clusterIP="None"), *members()],
        "svc/web routes to 2 Pods; the names web-0.web, web-1.web do not resolve: statefulset/web names wbe as its "
        "governing Service, which does not exist; did you mean web?",
        "kubectl -n shop get statefulset web -o yaml | sed 's/^  serviceName: wbe$/  serviceName: web/' | "
        "kubectl -n shop replace --force --cascade=orphan -f - && kubectl -n shop rollout restart statefulset/web",
        status="degraded",
    ),
    Planted(
        "the same, asked by the name that was meant",
        "EP708",
        [service(clusterIP="None"), *members()],
        "web-0.web.shop: the name web-0.web does not resolve: statefulset/web names wbe as its governing Service, "
        "which does not exist; did you mean web?",
        ask="web-0.web.shop",
    ),
    Planted(
        "the same, asked by the name that the Pod says it has",
        "EP708",
        [service(clusterIP="None"), *members()],
        "web-0.wbe.shop: pod/web-0 has this name as its own, and there is no Service wbe in namespace shop; did you "
        "mean web-0.web?",
        ask="web-0.wbe.shop",
    ),
    Planted(
        "a governing Service that nobody made: it is made, since the Pods name it already",
        "EP708",
        [service(clusterIP="None"), *members("members")],
        "svc/web routes to 2 Pods; the names web-0.web, web-1.web do not resolve: statefulset/web names members as its "
        "governing Service, which does not exist",
        'echo \'{"apiVersion":"v1","kind":"Service","metadata":{"name":"members","namespace":"shop"},"spec":{'
        '"selector":{"app":"web"},"ports":[{"port":80,"protocol":"TCP","targetPort":8080}],"clusterIP":"None"}}\' | '
        "kubectl apply -f -",
        status="degraded",
    ),
    Planted(
        "serviceName is right by now, and the Pods are from before",
        "EP708",
        [service(clusterIP="None"), *members(), workload("web", "StatefulSet", serviceName="web")],
        "svc/web routes to 2 Pods; the names web-0.web, web-1.web do not resolve: they were made when statefulset/web "
        "still named wbe",
        "kubectl -n shop rollout restart statefulset/web",
        status="degraded",
    ),
    Planted(
        "a set that replaces no Pod by itself",
        "EP708",
        [
            service(clusterIP="None"),
            *members(),
            workload("web", "StatefulSet", serviceName="web", updateStrategy={"type": "OnDelete"}),
        ],
        "svc/web routes to 2 Pods; the names web-0.web, web-1.web do not resolve: they were made when statefulset/web "
        "still named wbe",
        "kubectl -n shop delete pod web-0 web-1",
        status="degraded",
    ),
    Planted(
        "a name of a Pod that has none",
        "EP704",
        [service(clusterIP="None"), pod()],
        "web-1.web.shop: there is no such name: pod/web-1 has no name of its own: it has no hostname",
        ask="web-1.web.shop",
    ),
    Planted(
        "a name of a set without a governing Service",
        "EP704",
        [service(clusterIP="None"), *members("")],
        "web-0.web.shop: there is no such name: pod/web-0 has no name of its own: it has no subdomain, since "
        "statefulset/web names no governing Service",
        ask="web-0.web.shop",
    ),
    Planted(
        "a name of nobody",
        "EP704",
        [service(clusterIP="None"), *members("web")],
        "web-7.web.shop: there is no such name: Service shop/web has no ready endpoint web-7 (2 of 2 endpoints ready)",
        ask="web-7.web.shop",
    ),
    Planted(
        "a name that is below another Service",
        "EP704",
        [service(clusterIP="None"), service("members", {"app": "web"}, clusterIP="None"), *members("members")],
        "web-0.web.shop: there is no such name: the name of pod/web-0 is web-0.members.shop, below the Service that "
        "its subdomain names",
        ask="web-0.web.shop",
    ),
    Planted(
        "a name whose Pod is not ready: the Pod is what is wrong",
        "EP316",
        [service(clusterIP="None"), *members("web", ready=False, status={"containerStatuses": []})],
        f"svc/web does not lead to pod/web-0: pod/web-0 is not Ready {SINCE}: no reason given",
        ask="web-0.web.shop",
    ),
    Planted(
        "a name whose Pod the Service does not select",
        "EP805",
        [service(clusterIP="None"), pod("web-0", {"app": "wbe"}, hostname="web-0", subdomain="web")],
        "svc/web does not select pod/web-0: the Pod lacks the label app=web",
        ask="web-0.web.shop",
    ),
    Planted(
        "an alias to a Service that is not there",
        "EP705",
        [external("dbb.shop.svc.cluster.local"), service("db")],
        "svc/web does not resolve: its externalName dbb.shop.svc.cluster.local names a Service "
        ""
        ""
        ""
        "that "
        ""
        "does not exist; did "
        "you mean db.shop.svc.cluster.local?",
        PATCH + '\'{"spec":{"externalName":"db.shop.svc.cluster.local"}}\'',
    ),
    Planted(
        "no such Service",
        "EP801",
        [service(), pod()],
        "svc/wbe: there is no Service wbe in namespace shop; did you mean web?",
        ask="svc/wbe",
    ),
    Planted(
        "no such Pod",
        "EP802",
        [service(), pod("web-7f9-abc")],
        "pod/web-7f9: there is no Pod web-7f9 in namespace shop; did you mean web-7f9-abc?",
        ask="pod/web-7f9",
    ),
    Planted(
        "nobody's address",
        "EP803",
        [service(), pod()],
        "10.96.7.7:80: no Service, Pod or node has this address; if it was a ClusterIP, its Service was made anew",
        ask="10.96.7.7:80",
    ),
    Planted(
        "a port that the Service does not have",
        "EP804",
        [service(), pod()],
        "10.96.0.7:8080 does not answer: svc/web has no port 8080, so 10.96.0.7:8080 refuses; it has 80/TCP; 8080 is "
        "the target port of 80/TCP",
        ask="10.96.0.7:8080",
    ),
    Planted(
        "a Pod that lacks a label",
        "EP805",
        [
            service(selector={"app": "web", "tier": "a"}),
            pod(labels={"app": "web", "tier": "a"}),
            pod("odd", {"app": "web"}, ip="10.244.1.9"),
        ],
        "svc/web does not select pod/odd: the Pod lacks the label tier=a",
        "kubectl -n shop label pod odd tier=a --overwrite",
        ask="pod/odd svc/web",
    ),
    Planted(
        "a Pod of a Deployment that a misspelt Service misses",
        "EP806",
        [
            service(selector={"app": "wbe"}),
            workload(),
            workload("web-1", "ReplicaSet", owner="web", template={"app": "web"}),
            pod("web-1-a", owner="ReplicaSet/web-1"),
        ],
        "pod/web-1-a takes no traffic: no Service of namespace shop selects it; svc/web almost does, with app=wbe",
        PATCH + '\'{"spec":{"selector":{"app":"web"}}}\'',
        ask="pod/web-1-a",
    ),
    Planted(
        "a Pod of a Deployment that lacks a label: the template has to get it",
        "EP805",
        [
            service(selector={"app": "web", "tier": "a"}),
            workload(),
            workload("web-1", "ReplicaSet", owner="web", template={"app": "web"}),
            pod("web-1-a", owner="ReplicaSet/web-1"),
        ],
        "svc/web does not select pod/web-1-a: the Pod lacks the label tier=a",
        "kubectl -n shop patch deployment web --type merge -p "
        '\'{"spec":{"template":{"metadata":{"labels":{"tier":"a"}}}}}\'',
        ask="pod/web-1-a svc/web",
    ),
    Planted(
        "a Pod of a Deployment whose Service is misspelt and selects nobody",
        "EP805",
        [
            service(selector={"app": "wbe", "tier": "a"}),
            workload(),
            workload("web-1", "ReplicaSet", owner="web", template={"app": "web", "tier": "a"}),
            pod("web-1-a", {"app": "web", "tier": "a"}, owner="ReplicaSet/web-1"),
        ],
        "svc/web does not select pod/web-1-a: the Pod lacks the label app=wbe",
        'kubectl -n shop patch service web --type merge -p \'{"spec":{"selector":{"app":"web"}}}\'',
        ask="pod/web-1-a svc/web",
    ),
    Planted(
        "a Pod that no Service selects",
        "EP806",
        [service(), pod(labels={"app": "wbe"})],
        "pod/web-1 takes no traffic: no Service of namespace shop selects it; svc/web almost does, with app=web",
        "kubectl -n shop label pod web-1 app=web --overwrite",
        ask="pod/web-1",
    ),
    Planted(
        "seen: the target port refuses, another declared one answers",
        "EP407",
        [service(ports=[{"port": 80, "targetPort": 8081}]), pod()],
        "svc/web does not route: port 80/TCP leads to port 8081 of pod/web-1, where nobody listens: connections are "
        "refused; it answers at 8080",
        "kubectl -n shop patch service web --type json -p "
        '\'[{"op":"add","path":"/spec/ports/0/targetPort","value":8080}]\'',
        options={"sights": (Sight("n1", answers={"10.244.1.2:8081": "refused", "10.244.1.2:8080": "open"}),)},
    ),
    Planted(
        "seen: one of two Pods refuses",
        "EP407",
        [service(), pod(), pod("web-2", ip="10.244.1.3")],
        "svc/web routes to 2 Pods; port 80/TCP leads to port 8080 of pod/web-2, where nobody listens: connections are "
        "refused",
        "kubectl -n shop logs web-2 --all-containers",
        status="degraded",
        options={"sights": (Sight("n1", answers={"10.244.1.2:8080": "open", "10.244.1.3:8080": "refused"}),)},
    ),
    Planted(
        "UDP to a port that is declared for TCP",
        "EP408",
        [service(ports=[{"port": 53, "targetPort": 8080, "protocol": "UDP"}]), pod()],
        "svc/web may not work: port 53/UDP goes to port 8080 over UDP, which the containers declare for TCP only; "
        "whether something listens there cannot be seen from here",
        "kubectl -n shop patch service web --type json -p "
        '\'[{"op":"add","path":"/spec/ports/0/protocol","value":"TCP"}]\'',
        status="unknown",
    ),
    Planted(
        "seen: an address by hand that nobody has",
        "EP409",
        [service(selector={}), endpoint_slice("by-hand", "web", at("10.9.9.9"))],
        "svc/web does not route: 10.9.9.9:8080 of svc/web does not answer: connections there time out",
        options={"sights": (Sight("n1", answers={"10.9.9.9:8080": "silent"}),)},
    ),
    Planted(
        "a slice of a controller that is gone, beside the right one",
        "EP511",
        [
            service(),
            pod(),
            endpoint_slice(
                "old",
                "web",
                at("10.244.1.9", targetRef={"kind": "Pod", "namespace": SHOP, "name": "web-0", "uid": "x"}),
                labels={"endpointslice.kubernetes.io/managed-by": "old.example.com"},
            ),
        ],
        "svc/web routes to 1 Pod; endpointslice/old, written by old.example.com, lists 10.244.1.9 as ready for web-0, "
        "which does not exist: part of the traffic goes nowhere",
        "kubectl -n shop delete endpointslice old",
        status="degraded",
    ),
    Planted(
        "a slice by hand, one of whose Pods was made anew",
        "EP511",
        [
            service(selector={}),
            pod(metadata={"uid": "uid-new"}),
            pod("web-2", ip="10.244.1.3"),
            endpoint_slice(
                "old",
                "web",
                at("10.244.1.2", targetRef={"kind": "Pod", "namespace": SHOP, "name": "web-1", "uid": "uid-old"}),
                at("10.244.1.3", targetRef={"kind": "Pod", "namespace": SHOP, "name": "web-2"}),
            ),
        ],
        "svc/web routes to 2 endpoints; endpointslice/old, written by hand, lists 10.244.1.2 as ready for web-1, "
        "which does not exist: part of the traffic goes nowhere",
        'kubectl -n shop patch endpointslice old --type json -p \'[{"op":"remove","path":"/endpoints/0"}]\'',
        status="degraded",
    ),
    Planted(
        "seen: a node's process is stopped and its rules are old",
        "EP613",
        [service(), pod()],
        "svc/web routes only in part: the process of node n2 (agent, proxy and DNS) is stopped; its rules are old: "
        "10.96.0.7:80/TCP leads to nothing instead of 10.244.1.2:8080",
        "kill -CONT 4711",
        options={"sights": (Sight("n2", "stopped", 4711, rules={"10.96.0.7:80/TCP": ()}),)},
    ),
    Planted(
        "seen: a node's process is gone, its rules are right still",
        "EP613",
        [service(), pod()],
        "svc/web routes to 1 Pod; the process of node n2 (agent, proxy and DNS) does not run, so rules, names and "
        "Pods there stay as they were",
        "kubesvc status",
        status="degraded",
        options={"sights": (Sight("n2", "gone", rules={"10.96.0.7:80/TCP": ("10.244.1.2:8080",)}),)},
    ),
    Planted(
        "seen: the kernel's rules are not the plan's",
        "EP614",
        [service(), pod()],
        "svc/web routes only in part: the kernel's rules of node n1 lead 10.96.0.7:80/TCP to 10.244.1.9:8080, and "
        "should lead it to 10.244.1.2:8080: its proxy is behind",
        options={"sights": (Sight("n1", rules={"10.96.0.7:80/TCP": ("10.244.1.9:8080",)}),)},
    ),
    Planted(
        "seen: the rules of a node that was cut off",
        "EP614",
        [service(), pod()],
        "svc/web routes only in part: the kernel's rules of node n1 lead 10.96.0.7:80/TCP to nothing, and "
        "should lead it to 10.244.1.2:8080: the node is cut off from the API",
        "kubesvc nodes heal n1",
        options={"sights": (Sight("n1", rules={"10.96.0.7:80/TCP": ()}, failure="cut off"),)},
    ),
    Planted(
        "seen: a node without power",
        "EP613",
        [service(), pod()],
        "svc/web routes to 1 Pod; node n2 has no power: neither Pods nor rules nor names are there",
        "kubesvc nodes start n2",
        status="degraded",
        options={"sights": (Sight("n1"), Sight("n2", "gone", failure="off"))},
    ),
    Planted(
        "seen: a UDP flow to an endpoint that is none any more",
        "EP615",
        [service(), pod()],
        "svc/web routes to 1 Pod; the kernel of node n1 still sends 1 UDP flow of svc/web to endpoints that are none "
        "any more (172.30.0.11:40000 to 10.96.0.7:80 goes to 10.244.1.9:8080)",
        "kubesvc rules svc/web -n shop --forget-stale",
        status="degraded",
        options={"sights": (Sight("n1", stale=("172.30.0.11:40000 to 10.96.0.7:80 goes to 10.244.1.9:8080",)),)},
    ),
    Planted(
        "seen: the kernel refused the rules",
        "EP616",
        [service(), pod()],
        "svc/web routes only in part: the kernel of node n1 does not take the rules of svc/web: Invalid argument",
        options={"sights": (Sight("n1", refused="Invalid argument"),)},
    ),
    Planted(
        "seen: the node's DNS is silent",
        "EP706",
        [service(), pod()],
        "svc/web routes only in part: the DNS server of node n1 does not answer",
        "kubesvc nodes stop n1 && kubesvc nodes start n1",
        options={"sights": (Sight("n1", dns="silent"),)},
    ),
    Planted(
        "seen: the node's DNS says what was",
        "EP707",
        [service(), pod()],
        "svc/web routes only in part: the DNS server of node n1 says A 10.96.0.99 to web.shop.svc.cluster.local, and "
        "should say A 10.96.0.7: it is behind",
        options={"sights": (Sight("n1", dns="answers", records=("A 10.96.0.99",)),)},
    ),
)


def answer(row: Planted) -> Diagnosis:
    return diagnose(parse_subject(row.ask.split()), cluster(*row.objects, **row.options), SHOP)


@pytest.mark.parametrize("row", PLANTED, ids=[f"{p.code} {p.sentence}" for p in PLANTED])
def test_the_planted_cause_comes_first(row: Planted) -> None:
    found = answer(row)
    assert found.verdict == row.verdict
    assert found.status == row.status
    codes = [f.code for f in found.findings]
    assert row.code in codes
    if row.status != "healthy":
        assert found.code == row.code
    if row.command is not None:
        assert next(f for f in found.findings if f.code == row.code).command == row.command
    assert exit_status([found]) == {"healthy": 0, "degraded": 0, "broken": 1, "unknown": 2}[row.status]


@pytest.mark.parametrize("row", PLANTED, ids=[f"{p.code} {p.sentence}" for p in PLANTED])
def test_every_command_is_one_that_a_shell_reads(row: Planted) -> None:
    for finding in answer(row).findings:
        if finding.command:
            words = shlex.split(finding.command)
            assert words[0] in ("kubectl", "echo", "kubesvc", "kill")
            assert words[0] == "kill" or "kubectl" in words or "kubesvc" in words


def test_what_is_not_in_the_first_line_is_said_below() -> None:
    """EP603: nothing is wrong, so that the verdict is silent; what it is about is said all the same."""
    row = next(p for p in PLANTED if p.code == "EP603")
    found = answer(row)
    assert found.findings[0].text not in found.verdict
    said = render_text(found)
    assert f"  {found.findings[0].text}\n" in said and "To repair it" not in said


def test_every_cause_is_planted() -> None:
    elsewhere = {"EP807"}
    assert {p.code for p in PLANTED} | elsewhere == set(BY_CODE)


def test_looking_settles_what_objects_only_suspect() -> None:
    """EP403 is a suspicion as long as nobody asked the port; an answer there clears it."""
    objects = (service(ports=[{"port": 80, "targetPort": 9090}]), pod())
    assert diagnose(parse_subject(["svc/web"]), cluster(*objects), SHOP).code == "EP403"
    seen = Sight("n1", answers={"10.244.1.2:9090": "open"}, rules={"10.96.0.7:80/TCP": ("10.244.1.2:9090",)})
    found = diagnose(parse_subject(["svc/web"]), cluster(*objects, sights=(seen,)), SHOP)
    assert (found.status, found.findings) == ("healthy", ())
    assert found.chain[-1].text == "1 of 1 target accepts"


DEAF = Sight("n1", answers={"10.244.1.2:8080": "refused"}, rules={"10.96.0.7:80/TCP": ("10.244.1.2:8080",)})
NOBODY = "port 80/TCP leads to port 8080 of pod/web-1, where nobody listens: connections are refused"
HOWEVER = (
    ("svc/web", f"svc/web does not route: {NOBODY}"),
    ("pod/web-1", f"pod/web-1 takes no traffic of svc/web: {NOBODY}"),
    ("pod/web-1 svc/web", f"svc/web leads to pod/web-1, which does not answer: {NOBODY}"),
    ("10.96.0.7:80", f"svc/web does not route: {NOBODY}"),
    ("web.shop", f"svc/web does not route: {NOBODY}"),
)


@pytest.mark.parametrize(("words", "verdict"), HOWEVER, ids=[h[0] for h in HOWEVER])
def test_who_does_not_answer_is_told_however_it_is_asked(words: str, verdict: str) -> None:
    """EP407: what was seen in the nodes counts for each way to ask about the same Service."""
    snapshot = cluster(service(), pod(), sights=(DEAF,))
    meant = service_meant(parse_subject(words.split()), snapshot, SHOP)
    assert meant is not None and meant.name == "web"
    found = diagnose(parse_subject(words.split()), snapshot, SHOP)
    assert (found.code, found.status, found.verdict) == ("EP407", "broken", verdict)


def test_one_pod_of_two_that_does_not_answer_is_broken_for_who_asks_about_it() -> None:
    objects = (service(), pod(), pod("web-2", ip="10.244.1.3"))
    answers = {"10.244.1.2:8080": "refused", "10.244.1.3:8080": "open"}
    snapshot = cluster(*objects, sights=(Sight("n1", answers=answers),))  # type: ignore[arg-type]
    asked = {w: diagnose(parse_subject(w.split()), snapshot, SHOP).status for w in ("svc/web", "pod/web-1 svc/web",
             "pod/web-2 svc/web", "pod/web-1", "pod/web-2")}  # fmt: skip
    assert asked == {
        "svc/web": "degraded", "pod/web-1 svc/web": "broken", "pod/web-2 svc/web": "healthy",
        "pod/web-1": "broken", "pod/web-2": "healthy",
    }  # fmt: skip


FAST = {"exec": {"command": ["x"]}, "periodSeconds": 1}
OUTAGES = (
    # sentence, how often, the first and the last time, the probe, since when the container runs, whether it flaps
    ("fails at every other turn", 6, "01:00:00", "01:00:10", FAST, "00:50:00", True),
    ("a slow start: fails at each turn until it is up", 30, "01:00:00", "01:00:29", FAST, "01:00:00", False),
    ("an outage of a while: fails at each turn", 7, "01:00:00", "01:00:06", FAST, "00:50:00", False),
    ("each failure takes its timeout", 4, "01:00:00", "01:00:15", {**FAST, "timeoutSeconds": 5}, "00:50:00", False),
    ("twice only", 2, "01:00:00", "01:04:00", FAST, "00:50:00", False),
    ("so often that events were held back, long after the start", 40, "00:10:00", "01:04:00", FAST, "00:00:00", True),
    ("so often that events were held back, from the start on", 40, "00:10:02", "01:04:00", FAST, "00:10:00", False),
)


@pytest.mark.parametrize(("sentence", "times", "first", "last", "probe", "began", "flaps"), OUTAGES,
                         ids=[o[0] for o in OUTAGES])  # fmt: skip
def test_only_a_probe_that_succeeds_in_between_flaps(
    sentence: str, times: int, first: str, last: str, probe: Object, began: str, flaps: bool
) -> None:
    """EP314: a Pod that was slow to start, or away once, is none that flaps."""
    failed = event("Pod/web-1", "Unhealthy", "Readiness probe failed: no", count=times)
    failed |= {"firstTimestamp": f"2026-01-01T{first}Z", "lastTimestamp": f"2026-01-01T{last}Z"}
    running = {"running": {"startedAt": f"2026-01-01T{began}Z"}}
    turned = {"type": "Ready", "status": "True", "lastTransitionTime": f"2026-01-01T{last}Z"}
    well = cluster(
        service(), pod(container={"readinessProbe": probe}, state=running, status={"conditions": [turned]}), failed
    )
    found = diagnose(parse_subject(["svc/web"]), well, SHOP)
    assert (found.code, found.status) == (("EP314", "degraded") if flaps else ("", "healthy"))
    turned = {"type": "Ready", "status": "False", "lastTransitionTime": f"2026-01-01T{first}Z"}
    away = cluster(
        service(),
        pod(container={"readinessProbe": probe}, state=running, ready=False, status={"conditions": [turned]}),
        failed,
    )
    found = diagnose(parse_subject(["svc/web"]), away, SHOP)
    assert found.code == "EP301" and ("succeeded in between" in found.verdict) is flaps


TURNED = ((True, "01:00:03", True), (True, "01:00:06", False), (False, "01:00:02", False), (False, "01:00:20", True))


@pytest.mark.parametrize(("ready", "turned", "flaps"), TURNED)
def test_when_readiness_turned_tells_whether_a_probe_succeeded_in_between(
    ready: bool, turned: str, flaps: bool
) -> None:
    """Ready before the last failure, or until long after the first one."""
    failed = event("Pod/web-1", "Unhealthy", "Readiness probe failed: no", count=7)
    failed |= {"firstTimestamp": "2026-01-01T01:00:00Z", "lastTimestamp": "2026-01-01T01:00:06Z"}
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": f"2026-01-01T{turned}Z"}
    asked = pod(container={"readinessProbe": FAST}, ready=ready, status={"conditions": [condition]})
    found = diagnose(parse_subject(["svc/web"]), cluster(service(), asked, failed), SHOP)
    assert (found.code == "EP314" or "succeeded in between" in found.verdict) is flaps


def test_a_narrow_snapshot_knows_only_the_pods_it_asked_for() -> None:
    """EP511 must not call a Pod missing that was merely not read."""
    ref = {"kind": "Pod", "namespace": SHOP, "name": "other"}
    objects = (service(), pod(), endpoint_slice("by-hand", "web", at("10.244.1.9", targetRef=ref)))
    narrow = cluster(*objects, narrow=True, scope=SHOP)
    assert diagnose(parse_subject(["svc/web"]), narrow, SHOP).status == "healthy"
    asked = cluster(*objects, narrow=True, scope=SHOP, asked=frozenset({(SHOP, "other")}))
    assert diagnose(parse_subject(["svc/web"]), asked, SHOP).code == "EP511"


def test_healthy_is_said_plainly() -> None:
    found = diagnose(
        parse_subject(["svc/web"]), cluster(service(), pod(), pod("web-2", ip="10.244.2.2", node="n2")), SHOP
    )
    assert (found.status, found.verdict, found.findings) == ("healthy", "svc/web routes to 2 Pods", ())
    assert [link.name for link in found.chain] == [
        "service",
        "selector",
        "pods",
        "readiness",
        "slices",
        "rules",
        "name",
    ]
    assert {link.state for link in found.chain} == {"ok"}


def test_one_pod_of_two_out_is_degraded_and_says_why() -> None:
    found = diagnose(
        parse_subject(["svc/web"]), cluster(service(), pod(), pod("web-2", ip="10.244.1.3", ready=False)), SHOP
    )
    assert found.status == "degraded"
    assert found.verdict.startswith("svc/web routes to 1 of 2 Pods; pod/web-2 is not Ready")
    assert [(p.name, p.takes_traffic) for p in found.pods] == [("web-1", True), ("web-2", False)]


def test_without_permission_for_pods_nothing_is_claimed() -> None:
    """EP807: the gap is named, and the absence of Pods is not taken for a fact."""
    snapshot = cluster(service(), gaps=(Gap(POD, "not permitted"),))
    found = diagnose(parse_subject(["svc/web"]), snapshot, SHOP)
    assert (found.status, found.verdict) == ("unknown", "svc/web: cannot tell: pods could not be read")
    assert found.gaps == ("pods could not be listed: not permitted",)
    address = diagnose(parse_subject(["10.1.2.3"]), snapshot, SHOP)
    assert (address.code, address.status) == ("EP807", "unknown")


def test_who_was_refused_is_granted_by_name() -> None:
    """EP807: the API server says who asked, so the command can say whom to grant what is missing."""
    reason = 'not permitted (services is forbidden: User "jane doe" cannot list resource "services")'
    found = diagnose(parse_subject(["svc/web"]), cluster(gaps=(Gap(SERVICE, reason),)), SHOP)
    assert found.command == "kubesvc why --print-role --grant 'jane doe' | kubectl apply -f -"
    assert found.findings[0].repairs


def test_the_page_is_made_from_the_catalogue() -> None:
    page = Path(__file__).parents[2] / "docs" / "causes.md"
    assert page.read_text() == render_page(), "run tools/make_causes.py"


def test_codes_are_well_formed_and_unique() -> None:
    codes = [c.code for c in CAUSES]
    assert codes == sorted(set(codes))
    assert all(re.fullmatch(r"EP[1-8]\d\d", c) and c[:3] in FAMILIES for c in codes)


def test_a_snapshot_is_not_changed_by_asking() -> None:
    snapshot: Snapshot = cluster(service(selector={"app": "wbe"}), pod())
    before = [snapshot.objects[k] for k in snapshot.objects]
    diagnose(parse_subject(["svc/web"]), snapshot, SHOP)
    assert [snapshot.objects[k] for k in snapshot.objects] == before
