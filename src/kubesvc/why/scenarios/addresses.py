"""Scenarios about ports and families (EP401 to EP409), and about endpoints by hand (EP501 to EP511)."""

from __future__ import annotations

from .pods import GHOST, ghost
from .scenario import Scenario, by_hand, deployment, endpoints, patch, pod, service

PORTS = (
    Scenario(
        name="port-name", code="EP401",
        story="The Service sends to a port by name. Which names do the containers know?",
        objects=(service(ports=[{"port": 80, "targetPort": "htpt"}]), deployment()),
    ),
    Scenario(
        name="port-protocol", code="EP402",
        story="The name is right and still nobody is listed. A port is a name, a number and a protocol.",
        objects=(service(ports=[{"port": 80, "targetPort": "http", "protocol": "UDP"}]), deployment()),
    ),
    Scenario(
        name="port-undeclared", code="EP403", status="unknown",
        story="The Pods are Ready and listed. Does anybody listen where the Service sends? Objects cannot tell; they "
        "only make it unlikely.",
        objects=(service(ports=[{"port": 80, "targetPort": 9090}]), deployment()),
    ),
    Scenario(
        name="family", code="EP404",
        story="The Service speaks IPv6 only. Do its Pods?",
        objects=(service(ipFamilies=["IPv6"], ipFamilyPolicy="SingleStack"), deployment()),
    ),
    Scenario(
        name="no-ports", code="EP405", files=True,
        story="These manifests are not applied yet. Would the Service have endpoints? An API server would refuse it; "
        "this is found before anybody asks one.",
        objects=(service(ports=None), deployment()),
    ),
    Scenario(
        name="headless-port", code="EP406", status="healthy",
        story="The name leads straight to the Pods. Who should turn port 80 into 8080?",
        objects=(service(clusterIP="None"), deployment()),
        repair=(patch("service", "web", '[{"op":"replace","path":"/spec/ports/0/port","value":8080}]', "json"),),
    ),
    Scenario(
        name="nobody-listens", code="EP407", looks=True,
        story="Every object is in order, the Pod is Ready, and connections are refused. Ready means that the probe is "
        "content, and here nobody probes.",
        objects=(service(ports=[{"port": 80, "targetPort": 8081}]), deployment()),
    ),
    Scenario(
        name="udp-to-tcp", code="EP408", status="unknown",
        story="The number of the port is right. What is spoken there?",
        objects=(service(ports=[{"port": 80, "targetPort": 8080, "protocol": "UDP"}]), deployment()),
    ),
    Scenario(
        name="nobody-there", code="EP409", looks=True,
        story="An address was listed by hand, and connections time out.",
        objects=(service(selector=None), by_hand("172.30.0.250")),
        repair=(patch("endpointslice", "by-hand", '{"endpoints":[{"addresses":["$ADDRESS"]}]}'),),
    ),
)  # fmt: skip

SKIP = "endpointslice.kubernetes.io/skip-mirror"
HAND_MADE = service(selector=None, ports=[{"port": 80, "targetPort": 53}])
"""A Service without a selector."""

HANDS = (
    Scenario(
        name="no-selector", code="EP501",
        story="The Service has no selector, so no controller does anything for it.",
        objects=(service(selector=None), deployment()),
    ),
    Scenario(
        name="endpoints-name", code="EP502",
        story="Endpoints belong to the Service of exactly their name.",
        objects=(HAND_MADE, endpoints("wbe")),
    ),
    Scenario(
        name="not-mirrored", code="EP503",
        story="The Endpoints are right, and no proxy hears of them: proxies read slices.",
        objects=(HAND_MADE, endpoints(labels={SKIP: "true"})),
    ),
    Scenario(
        name="slice-label", code="EP504",
        story="A slice says by a label whose it is. This one says nothing.",
        objects=(service(selector=None), by_hand(of="", name="web-by-hand")),
    ),
    Scenario(
        name="slice-port-name", code="EP505",
        story="Slice and Service meet by the names of their ports.",
        objects=(
            service(selector=None, ports=[{"name": "http", "port": 80}]), by_hand(port={"name": "https"}),
        ),
    ),
    Scenario(
        name="stale-slices", code="EP506",
        story="A Pod is Ready for a while now, and no slice lists it. Who writes slices?",
        objects=(service(), ghost(), pod(nodeName=GHOST)),
        steps=(
            "kubectl patch -n $NAMESPACE pod web-1 --subresource=status --type merge -p "
            '\'{"status":{"phase":"Running","podIP":"10.244.250.9","podIPs":[{"ip":"10.244.250.9"}],'
            '"conditions":[{"type":"Ready","status":"True"}]}}\'',
        ),
        without=("endpointslice-controller",),
        repair=("kubesvc controllers --controllers endpointslice-controller",),
    ),
    Scenario(
        name="truncated", code="EP507", status="healthy",
        story="Old tools that read Endpoints see a thousand addresses. There are more.",
        objects=(service(), pod(), endpoints()),
        steps=(
            "kubectl -n $NAMESPACE wait --for=condition=Ready pod/web-1 --timeout=120s",
            "kubectl -n $NAMESPACE label endpoints web endpoints.kubernetes.io/managed-by=endpoint-controller",
            "kubectl -n $NAMESPACE annotate endpoints web endpoints.kubernetes.io/over-capacity=truncated",
        ),
        without=("endpoints-controller",),
        repair=("kubectl -n $NAMESPACE annotate endpoints web endpoints.kubernetes.io/over-capacity-",),
    ),
    Scenario(
        name="overwritten", code="EP508", status="degraded",
        story="Somebody wrote Endpoints for a Service that has a selector. Whose word counts?",
        objects=(service(), pod(), endpoints()),
        without=("endpoints-controller",),
        repair=("kubectl -n $NAMESPACE delete endpoints web",),
    ),
    Scenario(
        name="mirroring-stopped", code="EP509",
        story="Endpoints by hand, and no slice that mirrors them. Nothing forbids it; nobody does it.",
        objects=(HAND_MADE, endpoints()),
        without=("endpointslice-mirroring-controller",),
        repair=("kubesvc controllers --controllers endpointslice-mirroring-controller",),
    ),
    Scenario(
        name="listed-not-ready", code="EP510",
        story="The address is on the list, in the wrong column.",
        objects=(HAND_MADE, endpoints(ready=False)),
    ),
    Scenario(
        name="dead-controller", code="EP511", status="degraded",
        story="Half of the connections fail, and every Pod is well. Is every listed address a Pod's?",
        objects=(
            service(),
            deployment(),
            by_hand(
                {
                    "addresses": ["10.244.250.10"],
                    "targetRef": {"kind": "Pod", "namespace": "$NAMESPACE", "name": "web-0"},
                },
                name="left-over",
                port={"port": 8080},
                **{"endpointslice.kubernetes.io/managed-by": "old-controller.example.com"},
            ),
        ),
        steps=("kubectl -n $NAMESPACE rollout status deployment/web --timeout=120s",),
    ),
)  # fmt: skip
