"""What the proxies make of a Service: whom each port reaches, from everywhere or from one node (EP601 to EP612). Pure;
the proxy's own plan (`proxy.traffic`) decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kubesvc.api.daemonset import DAEMON_SET
from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.networkpolicy import NetworkPolicy, NetworkPolicyIngressRule
from kubesvc.api.node import Node
from kubesvc.api.pod import POD, LabelSelector, Pod
from kubesvc.api.selectors import label_selector_of
from kubesvc.api.service import Service
from kubesvc.proxy.traffic import LABEL_PROXY_NAME, Family, Place, PortTraffic, endpoints_by_port, plan_service

from . import commands
from .commands import count, some
from .diagnosis import Finding, Link, LinkState
from .ports import declared_ports
from .snapshot import Snapshot

FAMILIES: tuple[Family, ...] = ("IPv4", "IPv6")
ZONE = "topology.kubernetes.io/zone"


@dataclass(slots=True)
class Rules:
    """What was found on the way through the proxies."""

    link: Link
    findings: list[Finding] = field(default_factory=list)
    some_port_works: bool = False
    targets: int = 0


def place_of(node: Node | None) -> Place:
    """Where a node's proxy stands; without a node, a place that is on none of them."""
    if node is None:
        return Place("")
    addresses = tuple(a.address for a in node.status.addresses or () if a.type in ("InternalIP", "ExternalIP"))
    return Place(node.name, node.metadata.label(ZONE), addresses)


def planned_ports(service: Service, slices: Sequence[EndpointSlice], place: Place) -> list[PortTraffic]:
    """Every service port in every family, from one place."""
    return [p for family in FAMILIES for p in plan_service(service, slices, place, family)]


def look(
    service: Service, slices: Sequence[EndpointSlice], snapshot: Snapshot, node: str = "", *, routes: bool = True
) -> Rules:
    """Follow the Service through the proxies.

    node:   only this node's view, "" for all
    routes: whether everything before was in order, so that missing targets are news
    """
    ref = f"svc/{service.name}"
    if service.headless:
        ready = {e.address for s in slices for e in s.endpoints or () if e.ready}
        state: LinkState = "ok" if ready else "broken"
        text = "none needed: headless, clients go to the Pods"
        return Rules(Link("rules", state, text), [no_cluster_ip(service)], bool(ready), len(ready))
    if LABEL_PROXY_NAME in (service.metadata.labels or {}):
        other = service.metadata.label(LABEL_PROXY_NAME)
        finding = Finding(
            "EP601",
            "broken",
            f"{ref} is left to the proxy {other!r} by its label {LABEL_PROXY_NAME}, so the standard proxy makes no "
            "rules for it",
            commands.kubectl(service.namespace, "label", "service", service.name, f"{LABEL_PROXY_NAME}-"),
            True,
            (f"label {LABEL_PROXY_NAME}={other}",),
        )
        return Rules(Link("rules", "broken", "none: left to another proxy"), [finding])
    ports = planned_ports(service, slices, place_of(snapshot.nodes.get(node)))
    if not ports:
        return Rules(Link("rules", "unknown" if not service.spec.cluster_ip else "broken", "no ClusterIP, no rules"))
    works = [p for p in ports if p.usable]
    findings: list[Finding] = []
    targets = {t.address for p in ports for t in p.cluster or p.serving}
    if works:
        findings += local_policy(service, slices, snapshot, node)
        findings += last_resort(service, slices)
        findings += hints(service, slices, snapshot)
        findings += traps(service)
        findings += policies(service, slices, snapshot)
    findings += proxies(snapshot, node)
    text = "; ".join(port_line(p) for p in ports)
    all_work = bool(ports) and len(works) == len(ports)
    state = "ok" if all_work and not any(f.severity == "broken" for f in findings) else "broken"
    del routes
    return Rules(Link("rules", state, text), findings, bool(works), len(targets))


def no_cluster_ip(service: Service) -> Finding:
    """EP701."""
    return Finding(
        "EP701",
        "note",
        f"svc/{service.name} is headless: it has no ClusterIP to ask, its name leads to the Pods' own addresses",
        seen=("spec.clusterIP: None",),
    )


def port_line(port: PortTraffic) -> str:
    """`80/TCP -> 10.244.1.2:80, 10.244.2.2:80`, or what becomes of the connection."""
    front = f"{port.port}/{port.name.protocol}"
    targets = port.internal_targets or port.cluster
    if not port.usable:
        return f"{front}: refused, no endpoint"
    return f"{front} -> {some(map(str, targets), 3)}" if targets else f"{front} -> endpoints on their own node only"


def local_policy(service: Service, slices: Sequence[EndpointSlice], snapshot: Snapshot, node: str) -> list[Finding]:
    """EP602 and EP603: nodes that a policy Local leaves without endpoints."""
    if "Local" not in (service.spec.internal_traffic_policy, service.spec.external_traffic_policy):
        return []
    found: list[Finding] = []
    for code, field_name, inside in (
        ("EP602", "internalTrafficPolicy", True),
        ("EP603", "externalTrafficPolicy", False),
    ):
        bare: list[str] = []
        served: list[str] = []
        for name in sorted(snapshot.nodes):
            views = planned_ports(service, slices, place_of(snapshot.nodes[name]))
            concerned = [v for v in views if v.usable and (v.internal_local if inside else v.external_local)]
            if concerned:
                (bare if any(not v.local for v in concerned) else served).append(name)
        if not bare:
            continue
        if node and node not in bare:
            continue
        certain = not served or node in bare
        reaches = "connections to the ClusterIP" if inside else "connections from outside"
        found.append(
            Finding(
                code,
                "broken" if certain and (inside or not served) else "warning" if inside else "note",
                f"{field_name} is Local and {some([node] if node else bare)} "
                f"{'has' if node or len(bare) == 1 else 'have'} no endpoint of svc/{service.name}: {reaches} there "
                "are dropped",
                commands.merge(service.namespace, "service", service.name, {"spec": {field_name: "Cluster"}}),
                True,
                (f"nodes with an endpoint: {some(served) or 'none'}", f"nodes without: {some(bare)}"),
            )
        )
    return found


def last_resort(service: Service, slices: Sequence[EndpointSlice]) -> list[Finding]:
    """EP611, for endpoints that no selector tells of."""
    every = [
        e for f in FAMILIES for listed in endpoints_by_port(slices, Place(""), f).values() for e in listed if e.usable
    ]
    if service.spec.selector or not every or any(e.ready for e in every):
        return []
    left = some(sorted({e.target.address for e in every}))
    return [
        Finding(
            "EP611",
            "warning",
            f"svc/{service.name} has only terminating endpoints left ({left})",
            commands.kubectl(service.namespace, "get", "endpointslices", "-o", "wide"),
        )
    ]


def hints(service: Service, slices: Sequence[EndpointSlice], snapshot: Snapshot) -> list[Finding]:
    """EP604: a node whose traffic hints lead to one endpoint of several."""
    if not any(e.hints for s in slices for e in s.endpoints or ()):
        return []
    for name in sorted(snapshot.nodes):
        place = place_of(snapshot.nodes[name])
        for port in planned_ports(service, slices, place):
            everywhere = {
                t for p in planned_ports(service, slices, Place("")) if p.name == port.name for t in p.cluster
            }
            if port.cluster and len(everywhere) >= 3 and len(port.cluster) * 3 <= len(everywhere):
                return [
                    Finding(
                        "EP604",
                        "note",
                        f"topology hints lead all traffic of node {name}"
                        f"{' in zone ' + place.zone if place.zone else ''} to {len(port.cluster)} of "
                        f"{len(everywhere)} endpoints ({some(map(str, port.cluster))})",
                        seen=(f"from node {name}: {some(map(str, port.cluster))}",),
                    )
                ]
    return []


def traps(service: Service) -> list[Finding]:
    """EP605 to EP607 and EP610: what is so on purpose and still surprises."""
    spec, ref = service.spec, f"svc/{service.name}"
    found = []
    if spec.type == "LoadBalancer" and not service.status.load_balancer.ingress:
        numbers = some(f"{p.port}:{p.node_port}" for p in spec.ports or () if p.node_port)
        found.append(
            Finding(
                "EP607",
                "warning",
                f"{ref} is of type LoadBalancer, and nothing has given it an address"
                + (f"; it answers at its node ports ({numbers})" if numbers else ""),
                commands.kubectl(service.namespace, "describe", "service", service.name),
                seen=("status.loadBalancer.ingress: none",),
            )
        )
    if spec.load_balancer_source_ranges:
        ranges = some(spec.load_balancer_source_ranges)
        found.append(Finding("EP605", "note", f"{ref} admits clients of {ranges} only at its load balancer's address"))
    if spec.external_ips:
        found.append(
            Finding(
                "EP606", "note", f"{ref} answers at {some(spec.external_ips)} only if the network leads them to a node"
            )
        )
    if spec.session_affinity == "ClientIP":
        config = spec.session_affinity_config
        seconds = config.client_ip.timeout_seconds if config and config.client_ip else 10800
        found.append(
            Finding("EP610", "note", f"{ref} keeps each client with one endpoint for {seconds} s (sessionAffinity)")
        )
    return found


def proxies(snapshot: Snapshot, node: str) -> list[Finding]:
    """EP609: Pods of kube-proxy that are not ready, where kube-proxy is what the cluster uses."""
    if ("kube-system", "kube-proxy") not in snapshot.by_key(DAEMON_SET, Node):
        return []
    pods: list[Pod] = [
        p for p in snapshot.in_namespace(POD, "kube-system") if p.metadata.label("k8s-app") == "kube-proxy"
    ]
    down = [p for p in pods if not p.ready and not p.terminating and (not node or p.spec.node_name == node)]
    if not pods:
        where, certain = "any node", True
    elif down:
        where, certain = some(p.spec.node_name or p.name for p in down), bool(node) or len(down) == len(pods)
    else:
        return []
    return [
        Finding(
            "EP609",
            "broken" if certain else "warning",
            f"kube-proxy does not run on {where}, so the rules there are old or missing",
            commands.kubectl("kube-system", "get", "pods", "-l", "k8s-app=kube-proxy", "-o", "wide"),
            False,
            tuple(f"pod/{p.name}: not ready" for p in down[:3]),
        )
    ]


# ---------------------------------------------------------------- NetworkPolicies


def policies(service: Service, slices: Sequence[EndpointSlice], snapshot: Snapshot) -> list[Finding]:
    """EP608: policies that admit nobody to a port of a ready Pod of the Service."""
    listed = snapshot.policies(service.namespace)
    if not listed:
        return []
    numbers = [(p.port, p.protocol or "TCP") for s in slices for p in s.ports or () if p.port]
    names = {e.target_ref.name for s in slices for e in s.endpoints or () if e.target_ref and e.ready}
    for name in sorted(names):
        pod = snapshot.pods.get((service.namespace, name))
        if pod is None:
            continue
        mine = [p for p in listed if isolates(p, pod)]
        if not mine:
            continue
        rules = [r for p in mine for r in p.spec.ingress or ()]
        for number, protocol in dict.fromkeys(numbers):
            admitting = [r for r in rules if admits_port(r, number, protocol, pod)]
            whom = f"networkpolicy/{some([p.name for p in mine])}"
            enforced = snapshot.enforces_policies
            where = "this cluster's network does not enforce it" if enforced is False else (
                "it blocks if this cluster's network enforces policies"
            )  # fmt: skip
            describe = commands.kubectl(service.namespace, "describe", "networkpolicy", mine[0].name)
            if not admitting:
                return [
                    Finding(
                        "EP608",
                        "note" if enforced is False else "suspect",
                        f"{whom} selects pod/{name} and admits nobody to port {number}/{protocol}; {where}",
                        describe,
                        seen=tuple(f"networkpolicy/{p.name}" for p in mine[:3]),
                    )
                ]
            if all(r.from_ for r in admitting):
                return [
                    Finding(
                        "EP608",
                        "note",
                        f"{whom} admits only some clients to port {number}/{protocol} of pod/{name}; {where}",
                        describe,
                    )
                ]
    return []


def isolates(policy: NetworkPolicy, pod: Pod) -> bool:
    types = policy.spec.policy_types or ["Ingress"]
    return "Ingress" in types and selects(policy.spec.pod_selector, pod)


def selects(selector: LabelSelector, pod: Pod) -> bool:
    from kubesvc.api.meta import plain

    return label_selector_of(plain(selector)).matches(pod.metadata.labels)


def admits_port(rule: NetworkPolicyIngressRule, number: int, protocol: str, pod: Pod) -> bool:
    """Whether an ingress rule is about this port of this Pod."""
    if not rule.ports:
        return True
    for port in rule.ports:
        if (port.protocol or "TCP") != protocol:
            continue
        if port.port is None:
            return True
        if isinstance(port.port, str):
            declared = declared_ports(pod)
            if any(p.name == port.port and p.container_port == number for p in declared):
                return True
        elif port.port <= number <= (port.end_port or port.port):
            return True
    return False


__all__ = ["Rules", "count", "look", "planned_ports"]
