"""Scenarios about Pods that are there and are not endpoints (EP301 to EP319)."""

from __future__ import annotations

from typing import Any

from .scenario import Scenario, container, deployment, patch, pod, run, service, shell

GHOST = "scenario-ghost-$NAMESPACE"
"""A node that is only an object: whatever is bound to it stays as it was made, and nothing is scheduled there."""


def ghost(name: str = GHOST) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"unschedulable": True}}


def node_status(ready: str, name: str = GHOST) -> str:
    beat = '"lastHeartbeatTime":"\'$(date -u +%Y-%m-%dT%H:%M:%SZ)\'"'
    change = f'{{"status":{{"conditions":[{{"type":"Ready","status":"{ready}","reason":"Scenario",{beat}}}]}}}}'
    return f"kubectl patch node {name} --subresource=status --type merge -p '{change}'"


def pod_status(name: str, status: str) -> str:
    return patch("pod", name, f'{{"status":{status}}}', "merge", "--subresource=status")


def replace_in_probe(path: str, value: str) -> str:
    """A patch of the readiness probe in the template."""
    step = f'[{{"op":"replace","path":"/spec/template/spec/containers/0/readinessProbe/{path}","value":{value}}}]'
    return patch("deployment", "web", step, "json")


PODS = (
    Scenario(
        name="probe-404", code="EP301",
        story="The Pod runs and is not Ready. Its readiness probe asks a page; what does the program answer?",
        objects=(
            service(),
            deployment(readinessProbe={"httpGet": {"path": "/nothing", "port": 8080}, "periodSeconds": 1}),
        ),
        repair=(replace_in_probe("httpGet/path", '"/"'),),
    ),
    Scenario(
        name="readiness-gate", code="EP302",
        story="All containers are ready, and the Pod is not: it waits for a word from outside.",
        objects=(service(), deployment(pod={"readinessGates": [{"conditionType": "example.com/attached"}]})),
    ),
    Scenario(
        name="startup-probe", code="EP303",
        story="As long as the startup probe has not succeeded, nobody even asks whether the Pod is ready.",
        objects=(
            service(),
            deployment(
                startupProbe={"exec": {"command": ["test", "-e", "/tmp/started"]}, "periodSeconds": 1,
                              "failureThreshold": 600},
            ),
        ),
        repair=("kubectl -n $NAMESPACE exec deployment/web -- touch /tmp/started",),
    ),
    Scenario(
        name="probe-port", code="EP304",
        story="The probe is refused. Does it ask where the program listens?",
        objects=(
            service(),
            deployment(readinessProbe={"httpGet": {"path": "/healthz", "port": 9999}, "periodSeconds": 1}),
        ),
    ),
    Scenario(
        name="missing-volume", code="EP305",
        story="The Pod has a node and no address. Something that it needs before it can have one is missing; its "
        "events tell what.",
        objects=(
            service(),
            deployment(
                pod={"volumes": [{"name": "v", "configMap": {"name": "settings"}}]},
                volumeMounts=[{"name": "v", "mountPath": "/etc/settings"}],
            ),
        ),
        repair=("kubectl -n $NAMESPACE create configmap settings --from-literal=a=1",),
    ),
    Scenario(
        name="leaving", code="EP306", status="healthy",
        story="One Pod is being deleted and takes its time. It is no fault; but it takes no new connections.",
        objects=(
            service(),
            deployment(),
            pod(
                "web-old",
                terminationGracePeriodSeconds=300,
                containers=[container(lifecycle={"preStop": {"exec": {"command": ["sleep", "300"]}}})],
            ),
        ),
        steps=(
            "kubectl -n $NAMESPACE wait --for=condition=Ready pod/web-old --timeout=120s",
            "kubectl -n $NAMESPACE rollout status deployment/web --timeout=120s",
            "kubectl -n $NAMESPACE delete pod web-old --wait=false",
        ),
        repair=("kubectl -n $NAMESPACE delete pod web-old --grace-period=0 --force",),
    ),
    Scenario(
        name="ended", code="EP307",
        story="The Pod did what it was told, and ended. A server must not end.",
        objects=(service(), pod(restartPolicy="Never", containers=[shell("exit 0")])),
        repair=("kubectl -n $NAMESPACE delete pod web-1", run()),
    ),
    Scenario(
        name="node-not-ready", code="EP308",
        story="The Pod's node has stopped to report.",
        objects=(ghost(), service(), pod(nodeName=GHOST)),
        steps=(node_status("False"),),
        repair=(
            "kubectl -n $NAMESPACE delete pod web-1 --grace-period=0 --force",
            f"kubectl delete node {GHOST}",
            run(),
        ),
    ),
    Scenario(
        name="unschedulable", code="EP309",
        story="The Pod is Pending and has no node. What does it ask of one?",
        objects=(service(), deployment(pod={"nodeSelector": {"example.com/scenario-unschedulable": "ssd"}})),
    ),
    Scenario(
        name="image", code="EP310",
        story="The rollout of a new version hangs. The old one was fine.",
        objects=(service(), deployment(strategy={"type": "Recreate"})),
        steps=(
            "kubectl -n $NAMESPACE rollout status deployment/web --timeout=120s",
            "kubectl -n $NAMESPACE set image deployment/web c=registry.example/none:2",
        ),
    ),
    Scenario(
        name="crash", code="EP311",
        story="The container starts, and starts, and starts.",
        objects=(service(), deployment(command=["sh", "-c", "echo the database does not answer; exit 3"], args=[])),
        repair=(
            patch(
                "deployment", "web",
                '[{"op":"remove","path":"/spec/template/spec/containers/0/command"},'
                '{"op":"add","path":"/spec/template/spec/containers/0/args","value":["netexec","--http-port=8080"]}]',
                "json",
            ),
        ),
    ),
    Scenario(
        name="missing-config", code="EP312",
        story="The image is there, and the container cannot be put together.",
        objects=(
            service(),
            deployment(env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}]),
        ),
        repair=("kubectl -n $NAMESPACE create configmap settings --from-literal=a=1",),
    ),
    Scenario(
        name="init-waits", code="EP313",
        story="Before the application starts an init container has to come to its end. It waits for something.",
        objects=(
            service(),
            deployment(
                pod={"initContainers": [shell("until [ -e /tmp/go ]; do sleep 0.1; done", name="wait")]}
            ),
        ),
        repair=(
            "kubectl -n $NAMESPACE exec $(kubectl -n $NAMESPACE get pods -l app=web -o name | head -n1) -c wait -- "
            "touch /tmp/go",
        ),
    ),
    Scenario(
        name="flapping", code="EP314", status="degraded",
        story="It works, mostly. Look at the events of the Pod: how often did its probe fail?",
        objects=(
            service(),
            deployment(
                readinessProbe={
                    "exec": {"command": ["sh", "-c", "echo x >> /tmp/n; test $(($(wc -l < /tmp/n) % 2)) = 0"]},
                    "periodSeconds": 1, "failureThreshold": 1,
                },
                strategy={"type": "Recreate"},
            ),
        ),
        repair=(
            replace_in_probe("exec/command", '["true"]'),
        ),
    ),
    Scenario(
        name="host-port", code="EP315", status="degraded",
        story="Of two Pods one waits for a node. Both want the same port of it.",
        objects=(
            service(),
            deployment(
                2,
                pod={"nodeSelector": {"kubernetes.io/hostname": "$NODE"}},
                ports=[{"name": "http", "containerPort": 8080, "hostPort": 18080}],
            ),
        ),
        repair=("kubectl -n $NAMESPACE scale deployment/web --replicas=1",),
    ),
    Scenario(
        name="no-word", code="EP316",
        story="Not Ready, and nobody says why. So much can be known and no more.",
        objects=(ghost(), service(), pod(nodeName=GHOST)),
        steps=(
            node_status("True"),
            pod_status(
                "web-1",
                '{"phase":"Running","podIP":"10.244.250.7","podIPs":[{"ip":"10.244.250.7"}],'
                '"conditions":[{"type":"Ready","status":"False"}]}',
            ),
        ),
        repair=(pod_status("web-1", '{"conditions":[{"type":"Ready","status":"True"}]}'),),
    ),
    Scenario(
        name="node-is-gone", code="EP317", status="degraded",
        story="One of the Pods says that it is on a node which does not exist any more.",
        objects=(service(), deployment(), ghost(), pod(nodeName=GHOST)),
        steps=(
            pod_status(
                "web-1",
                '{"phase":"Running","podIP":"10.244.250.8","podIPs":[{"ip":"10.244.250.8"}],'
                '"conditions":[{"type":"Ready","status":"True"}]}',
            ),
            f"kubectl delete node {GHOST}",
            "kubectl -n $NAMESPACE rollout status deployment/web --timeout=120s",
        ),
    ),
    Scenario(
        name="published-unready", code="EP318", status="degraded",
        story="Every Pod is listed, and some requests fail all the same. Who told the list to be so generous?",
        objects=(
            service(publishNotReadyAddresses=True),
            deployment(),
            pod(
                "web-slow",
                containers=[container(readinessProbe={"exec": {"command": ["false"]}, "periodSeconds": 1})],
            ),
        ),
        steps=("kubectl -n $NAMESPACE rollout status deployment/web --timeout=120s",),
        healed="degraded",
    ),
    Scenario(
        name="scheduling-gate", code="EP319",
        story="The scheduler does not even look at the Pod.",
        objects=(service(), pod(schedulingGates=[{"name": "example.com/quota"}])),
        repair=(patch("pod", "web-1", '[{"op":"remove","path":"/spec/schedulingGates"}]', "json"),),
    ),
)  # fmt: skip
