"""Scenarios about the way there (EP601 to EP616), names (EP701 to EP707) and the question itself (EP801 to EP807)."""

from __future__ import annotations

from .scenario import Scenario, by_hand, container, deployment, patch, pod, run, service, stateful_set

BALANCED = patch(
    "service", "web", '{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.7"}]}}}', "merge", "--subresource=status"
)
CUT, HEAL = "kubesvc nodes partition $NODE2", "kubesvc nodes heal $NODE2"
ROLLED_OUT = "kubectl -n $NAMESPACE rollout status deployment/web --timeout=120s"
FAULT = "kubesvc shell --node $NODE2 -- $PYTHON -m kubesvc.cli.faults"
"""A fault inside the second node, which only its kernel can have."""
ECHO = container(
    args=["netexec", "--http-port=8080", "--udp-port=8081"], ports=[{"containerPort": 8081, "protocol": "UDP"}]
)
DATAGRAMS = [{"port": 80, "targetPort": 8081, "protocol": "UDP"}]


def hinted(address: str, zone: str) -> dict[str, object]:
    return {"addresses": [address], "zone": zone, "hints": {"forZones": [{"name": zone}]}}


WAYS = (
    Scenario(
        name="other-proxy", code="EP601",
        story="The endpoints are listed, and no node has a rule. The Service wears a label that the proxy minds.",
        objects=(service(meta={"labels": {"service.kubernetes.io/service-proxy-name": "other"}}), deployment()),
    ),
    Scenario(
        name="internal-local", code="EP602", status="degraded",
        story="From one node it works, from another connections time out.",
        objects=(service(internalTrafficPolicy="Local"), deployment()),
    ),
    Scenario(
        name="external-local", code="EP603", status="healthy",
        story="The node port answers on some nodes only. That keeps the client's address; is it worth it?",
        objects=(service(type="NodePort", externalTrafficPolicy="Local"), deployment()),
    ),
    Scenario(
        name="topology", code="EP604", status="healthy",
        story="Three endpoints, and one gets all requests of its zone.",
        objects=(
            service(selector=None),
            by_hand(hinted("$ADDRESS", "a"), hinted("172.30.0.201", "b"), hinted("172.30.0.202", "b")),
        ),
        repair=(
            patch("endpointslice", "by-hand", '{"endpoints":[{"addresses":["$ADDRESS"]}]}'),
        ),
    ),
    Scenario(
        name="source-ranges", code="EP605", status="healthy",
        story="The load balancer answers some clients and ignores others.",
        objects=(
            service(
                type="LoadBalancer",
                loadBalancerClass="example.com/none",
                loadBalancerSourceRanges=["203.0.113.0/24"],
            ),
            deployment(),
        ),
        steps=(BALANCED,),
        repair=(patch("service", "web", '{"spec":{"loadBalancerSourceRanges":null}}'),),
    ),
    Scenario(
        name="external-ip", code="EP606", status="healthy",
        story="The Service answers at an address of the world, if only packets for it came to a node.",
        objects=(service(externalIPs=["203.0.113.7"]), deployment()),
        repair=(patch("service", "web", '{"spec":{"externalIPs":null}}'),),
    ),
    Scenario(
        name="no-balancer", code="EP607", status="degraded",
        story="EXTERNAL-IP says <pending>. Who should give it an address?",
        objects=(service(type="LoadBalancer", loadBalancerClass="example.com/none"), deployment()),
        repair=(BALANCED,),
    ),
    Scenario(
        name="network-policy", code="EP608", status="healthy",
        story="A policy isolates the Pods. Whether it does depends on who enforces it.",
        objects=(
            service(),
            deployment(),
            {
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny"},
                "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]},
            },
        ),
        repair=("kubectl -n $NAMESPACE delete networkpolicy deny",),
    ),
    Scenario(
        name="no-kube-proxy", code="EP609", alone="it makes a DaemonSet in kube-system",
        story="The list is right, and no node acts on it.",
        objects=(
            service(),
            deployment(),
            {
                "apiVersion": "apps/v1", "kind": "DaemonSet",
                "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
                "spec": {
                    "selector": {"matchLabels": {"k8s-app": "kube-proxy"}},
                    "template": {
                        "metadata": {"labels": {"k8s-app": "kube-proxy"}},
                        "spec": {"nodeSelector": {"example.com/none": "here"}, "containers": [container()]},
                    },
                },
            },
        ),
        repair=("kubectl -n kube-system delete daemonset kube-proxy",),
    ),
    Scenario(
        name="affinity", code="EP610", status="healthy",
        story="Two Pods, and every request of yours meets the same one.",
        objects=(service(sessionAffinity="ClientIP"), deployment(2)),
        repair=(patch("service", "web", '{"spec":{"sessionAffinity":"None"}}'),),
    ),
    Scenario(
        name="only-terminating", code="EP611", status="degraded",
        story="It still works. For how long?",
        objects=(
            service(),
            pod(
                terminationGracePeriodSeconds=300,
                containers=[container(lifecycle={"preStop": {"exec": {"command": ["sleep", "300"]}}})],
            ),
        ),
        steps=(
            "kubectl -n $NAMESPACE wait --for=condition=Ready pod/web-1 --timeout=120s",
            "kubectl -n $NAMESPACE delete pod web-1 --wait=false",
        ),
        repair=(run(),),
    ),
    Scenario(
        name="no-node-port", code="EP612", ask="$ADDRESS:8099",
        story="A node is asked for the port of a Service. Is the Service of a type that nodes answer for?",
        objects=(service(ports=[{"port": 8099, "targetPort": 8080}]), deployment()),
        repair=(patch("service", "web", '{"spec":{"type":"NodePort"}}'),),
        after="svc/web",
    ),
    Scenario(
        name="stopped-node", code="EP613", looks=True, alone="it stops the process of a node for a moment",
        story="From one node the Service leads to where it led before.",
        objects=(service(ports=[{"port": 80, "targetPort": 8081}]), deployment()),
        steps=(
            ROLLED_OUT,
            "kubesvc wait svc/web -n $NAMESPACE --listed --timeout 120",
            "kill -STOP $PID2",
            patch("service", "web", '[{"op":"replace","path":"/spec/ports/0/targetPort","value":8080}]', "json"),
        ),
    ),
    Scenario(
        name="cut-off-node", code="EP614", looks=True, alone="it cuts a node off from the others for a moment",
        story="From one node the Service leads to where it led before, and everything there runs.",
        objects=(service(ports=[{"port": 80, "targetPort": 8081}]), deployment(pod={"nodeName": "$NODE"})),
        steps=(
            ROLLED_OUT,
            "kubesvc wait svc/web -n $NAMESPACE --programmed --timeout 120",
            CUT,
            patch("service", "web", '[{"op":"replace","path":"/spec/ports/0/targetPort","value":8080}]', "json"),
        ),
        undo=HEAL,
    ),
    Scenario(
        name="old-flow", code="EP615", status="degraded", looks=True,
        story="The list is right, and so is every rule. One client talks on with somebody who is on no list. It keeps "
        "its socket; what does the kernel keep?",
        objects=(
            service(ports=DATAGRAMS), pod(containers=[ECHO]), pod("old", labels={"app": "old"}, containers=[ECHO]),
        ),
        steps=(
            "kubectl -n $NAMESPACE wait --for=condition=Ready pod/web-1 pod/old --timeout=120s",
            "kubesvc wait svc/web -n $NAMESPACE --programmed --timeout 120",
            f"{FAULT} flow $(kubectl -n $NAMESPACE get service web -o jsonpath={{.spec.clusterIP}}) 80 "
            "$(kubectl -n $NAMESPACE get pod old -o jsonpath={.status.podIP}) 8081 >/dev/null 2>&1 &",
        ),
        undo=f"{FAULT} end-flow",
    ),
    Scenario(
        name="taken-port", code="EP616", looks=True, mode="userspace",
        story="The node port leads nowhere on the node, and the ClusterIP works. A port has one owner. Who is it?",
        objects=(
            pod(
                "neighbour", labels={"app": "neighbour"}, hostNetwork=True, nodeName="$NODE",
                containers=[container(args=["netexec", "--http-port=30616"], ports=[{"containerPort": 30616}])],
            ),
            deployment(),
        ),
        steps=(
            "kubectl -n $NAMESPACE wait --for=condition=Ready pod/neighbour --timeout=120s",
            "kubectl -n $NAMESPACE create service nodeport web --tcp=80:8080 --node-port=30616",
        ),
        repair=(patch("service", "web", '[{"op":"replace","path":"/spec/ports/0/nodePort","value":30617}]', "json"),),
    ),
)  # fmt: skip

NAMES = (
    Scenario(
        name="headless", code="EP701", status="healthy",
        story="Somebody looks for the ClusterIP of this Service. It has none, on purpose.",
        objects=(service(clusterIP="None", ports=[{"port": 8080}]), deployment()),
        repair=(
            "kubectl -n $NAMESPACE delete service web",
            "kubectl -n $NAMESPACE expose deployment web --port=80 --target-port=8080",
        ),
    ),
    Scenario(
        name="external-name-ip", code="EP702",
        story="An ExternalName is an alias in DNS. To what?",
        objects=(service(selector=None, type="ExternalName", externalName="$ADDRESS", ports=[{"port": 53}]),),
    ),
    Scenario(
        name="no-dns", code="EP703", alone="it takes the endpoints of cluster DNS away",
        story="Every Service works by its address, and none by its name.",
        objects=(
            service(selector=None, ports=[{"port": 80, "targetPort": 53}]),
            by_hand(),
            {
                **service("kube-dns", selector=None, ports=[{"port": 53, "protocol": "UDP"}]),
                "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            },
        ),
        without=("cluster-dns",),
        repair=("kubectl -n kube-system delete service kube-dns",),
    ),
    Scenario(
        name="wrong-name", code="EP704", ask="wbe.$NAMESPACE", after="svc/web",
        story="The client asks for a name, and the answer is NXDOMAIN.",
        objects=(service(), deployment()),
        repair=("kubectl -n $NAMESPACE expose deployment web --name=wbe --port=80 --target-port=8080",),
    ),
    Scenario(
        name="alias-to-nowhere", code="EP705",
        story="The alias is a name of this cluster. Is there a Service of that name?",
        objects=(
            service("web", selector=None, ports=None, type="ExternalName",
                    externalName="wbb.$NAMESPACE.svc.cluster.local"),
            service("wbe"),
            deployment(),
        ),
    ),
    Scenario(
        name="mute-dns", code="EP706", looks=True, alone="it silences the DNS server of a node for a moment",
        story="Pods of one node cannot resolve anything, and cluster DNS is said to be well. All else there runs.",
        objects=(service(), deployment(pod={"nodeName": "$NODE"})),
        steps=(ROLLED_OUT, f"{FAULT} mute-dns $ADDRESS2"),
        undo=f"{FAULT} unmute-dns",
    ),
    Scenario(
        name="old-name", code="EP707", looks=True, alone="it cuts a node off from the others for a moment",
        story="The name says one thing on one node and another on the next.",
        objects=(
            service(clusterIP="None", ports=[{"port": 8080}]),
            deployment(pod={"nodeName": "$NODE"}),
        ),
        steps=(
            ROLLED_OUT,
            "kubesvc wait svc/web -n $NAMESPACE --listed --timeout 120",
            CUT,
            "kubectl -n $NAMESPACE scale deployment web --replicas=2",
            ROLLED_OUT,
        ),
        undo=HEAL,
    ),
    Scenario(
        name="governing-service", code="EP708", status="degraded",
        story="The Service's name leads to all its Pods. Each Pod of a StatefulSet has a name of its own below it: "
        "web-0.web. Ask for that one. Who says what stands behind the dot?",
        objects=(service(clusterIP="None", ports=[{"port": 8080}]), stateful_set("wbe")),
        steps=("kubectl -n $NAMESPACE rollout status statefulset/web --timeout=120s",),
    ),
)  # fmt: skip

QUESTIONS = (
    Scenario(
        name="no-such-service", code="EP801", ask="svc/wbe",
        story="Sometimes it is the question that is wrong.",
        objects=(service(), deployment()),
        repair=("kubectl -n $NAMESPACE expose deployment web --name=wbe --port=80 --target-port=8080",),
    ),
    Scenario(
        name="no-such-pod", code="EP802", ask="pod/web-2",
        story="The Pod that is asked about does not exist. Perhaps it did, once.",
        objects=(service(), pod()),
        repair=(run(),),
    ),
    Scenario(
        name="old-address", code="EP803", ask="10.96.250.3:80",
        story="A client kept a ClusterIP in its settings. Whose was it?",
        objects=(service(), deployment()),
        repair=(
            "kubectl -n $NAMESPACE delete service web",
            """echo '{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"clusterIP":"10.96.250.3",\
"selector":{"app":"web"},"ports":[{"port":80,"targetPort":8080}]}}' | kubectl -n $NAMESPACE apply -f -""",
        ),
    ),
    Scenario(
        name="no-such-port", code="EP804", ask="10.96.250.4:8080",
        story="The address is right. Which ports does the Service have, and which do its Pods?",
        objects=(service(clusterIP="10.96.250.4"), deployment()),
        repair=(patch("service", "web", '[{"op":"replace","path":"/spec/ports/0/port","value":8080}]', "json"),),
    ),
    Scenario(
        name="pod-not-selected", code="EP805", ask="pod/odd svc/web",
        story="Two Pods do the same work, and the Service knows one of them.",
        objects=(
            service(selector={"app": "web", "tier": "a"}), pod(labels={"app": "web", "tier": "a"}),
            pod("odd", labels={"app": "web"}),
        ),
    ),
    Scenario(
        name="pod-alone", code="EP806", ask="pod/web-1",
        story="The Pod is well. Nobody leads to it.",
        objects=(service(), pod(labels={"app": "wbe"})),
    ),
    Scenario(
        name="not-allowed", code="EP807", status="unknown", account="clerk",
        story="Who asks may see Pods and slices, and not a single Service. An answer would be a guess; is there one?",
        objects=(
            service(),
            deployment(),
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "clerk"}},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "clerk"},
                "rules": [
                    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
                    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"]},
                ],
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "clerk"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "clerk"},
                "subjects": [{"kind": "ServiceAccount", "name": "clerk", "namespace": "$NAMESPACE"}],
            },
        ),
        undo="kubectl delete clusterrolebinding kubesvc-why:system:serviceaccount:$NAMESPACE:clerk",
    ),
)  # fmt: skip
