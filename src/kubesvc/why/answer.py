"""From what was asked to its diagnosis: Services, Pods, addresses and names (EP801 to EP807). Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from kubesvc.api.kind import Kind
from kubesvc.api.namespace import NAMESPACE
from kubesvc.api.pod import POD, Pod
from kubesvc.api.selectors import equality_selector
from kubesvc.api.service import SERVICE, Service, ServicePort
from kubesvc.controllers.pod_endpoints import selects
from kubesvc.dns.explain import Step
from kubesvc.proxy.traffic import canonical

from . import commands, governing, naming, witness
from .commands import selector_text, some
from .diagnose import absences, any_broken, diagnose_service, report_pod
from .diagnosis import WORST, Diagnosis, Finding, Link, PodReport, sorted_findings
from .listing import list_service
from .nearest import nearest
from .podstate import explain_pod
from .ports import declared_ports, port_text
from .selection import NearMiss, corrected, near_miss
from .snapshot import Snapshot
from .subject import Subject

REFUSED_USER = re.compile(r'\bUser "([^"]+)" cannot list')
"""Whom an API server refuses, in its own words."""


def diagnose(subject: Subject, snapshot: Snapshot, namespace: str = "default", node: str = "") -> Diagnosis:
    """The answer about one subject, names taken to be in `namespace`; from `node` only if one is named."""
    if subject.service and subject.pod:
        return diagnose_pair(subject.pod, subject.service, snapshot, namespace)
    if subject.service:
        service = snapshot.services.get((namespace, subject.service))
        if service is None:
            return no_service(subject.service, namespace, snapshot)
        return diagnose_service(service, snapshot, node)
    if subject.pod:
        pod = snapshot.pods.get((namespace, subject.pod))
        return diagnose_pod(pod, snapshot) if pod else no_pod(subject.pod, namespace, snapshot)
    if subject.address:
        return diagnose_address(subject.address, subject.port, snapshot, node)
    return diagnose_name(subject.name, subject.port, snapshot, namespace, node)


def diagnose_all(snapshot: Snapshot, node: str = "") -> list[Diagnosis]:
    """Every Service, the worst first, then by namespace and name; EP807 alone if Services could not be read."""
    if not snapshot.knows(SERVICE):
        return [unknown("every Service", snapshot, SERVICE)]
    found = [diagnose_service(snapshot.services[k], snapshot, node) for k in sorted(snapshot.services)]
    return sorted(found, key=lambda d: WORST[d.status])


# ---------------------------------------------------------------- what is not there


def unknown(subject: str, snapshot: Snapshot, *kinds: Kind) -> Diagnosis:
    """EP807: a kind that the answer hangs on was not read."""
    missing = snapshot.unread(*kinds)
    who = next((m[1] for g in snapshot.gaps if (m := REFUSED_USER.search(g.reason))), "")
    grant = ("--grant", who) if who else ()
    command = f"{shlex.join(('kubesvc', 'why', '--print-role', *grant))} | kubectl apply -f -"
    if snapshot.absent and not snapshot.gaps:
        lacking = ",".join(k.plural for k in kinds if not snapshot.knows(k))
        command = commands.kubectl("", "get", lacking, "-A", "-o", "json")
    gaps = (*map(str, snapshot.gaps), *absences(snapshot))
    finding = Finding("EP807", "suspect", missing, command, bool(who), gaps[:4])
    return Diagnosis(subject, "unknown", f"{subject}: cannot tell: {missing}", (finding,), (), (), gaps)


def alone(subject: str, finding: Finding, snapshot: Snapshot, chain: Sequence[Link] = ()) -> Diagnosis:
    """A diagnosis that is one finding."""
    return Diagnosis(
        subject, "broken", f"{subject}: {finding.text}", (finding,), tuple(chain), (), tuple(map(str, snapshot.gaps))
    )


def no_service(name: str, namespace: str, snapshot: Snapshot) -> Diagnosis:
    """EP801."""
    subject = f"svc/{name}"
    if not snapshot.knows(SERVICE):
        return unknown(subject, snapshot, SERVICE)
    here = [n for ns, n in snapshot.services if ns == namespace]
    others = sorted(ns for ns, n in snapshot.services if n == name)
    meant = nearest(name, here)
    text, command = f"there is no Service {name} in namespace {namespace}", ""
    if snapshot.objects.get(NAMESPACE) and namespace not in snapshot.namespaces:
        text = f"there is no namespace {namespace}, and so no Service {name} in it"
    if others:
        text += f", but there is one in {some(others)}"
        command = f"kubesvc why svc/{name} -n {others[0]}"
    elif meant:
        text += f"; did you mean {meant}?"
        command = commands.kubectl(namespace, "get", "service", meant)
    else:
        command = commands.kubectl(namespace, "get", "services")
    seen = (f"Services in namespace {namespace}: {some(here, 6) or 'none'}",)
    return alone(subject, Finding("EP801", "broken", text, command, False, seen), snapshot)


def no_pod(name: str, namespace: str, snapshot: Snapshot) -> Diagnosis:
    """EP802."""
    subject = f"pod/{name}"
    if not snapshot.knows(POD):
        return unknown(subject, snapshot, POD)
    here = [n for ns, n in snapshot.pods if ns == namespace]
    begun = [n for n in here if n.startswith(f"{name}-")]
    meant = begun[0] if begun else nearest(name, here)
    text = f"there is no Pod {name} in namespace {namespace}" + (f"; did you mean {meant}?" if meant else "")
    seen = (f"Pods in namespace {namespace}: {some(here, 6) or 'none'}",)
    command = commands.kubectl(namespace, "get", "pods", "-o", "wide")
    return alone(subject, Finding("EP802", "broken", text, command, False, seen), snapshot)


# ---------------------------------------------------------------- Pods


def services_of(pod: Pod, snapshot: Snapshot) -> list[Service]:
    """The Services whose endpoints list the Pod, as the controllers see it."""
    return [
        s for s in snapshot.in_namespace(SERVICE, pod.namespace)
        if selects(s) and equality_selector(s.spec.selector).matches(pod.metadata.labels)
    ]  # fmt: skip


def diagnose_pod(pod: Pod, snapshot: Snapshot) -> Diagnosis:
    """Whether a Pod takes traffic, of which Services, and if not, why."""
    subject = f"pod/{pod.name} in namespace {pod.namespace}"
    ref = f"pod/{pod.name}"
    mine = services_of(pod, snapshot)
    state = explain_pod(pod, snapshot)
    address, on = next(iter(pod.ips), "no address"), pod.spec.node_name or "none"
    chain = [
        Link("pod", "broken" if state else "ok", f"{pod.status.phase or 'unknown'}, {address}, node {on}"),
        Link("services", "ok" if mine else "broken", f"selected by {some([f'svc/{s.name}' for s in mine]) or 'none'}"),
    ]  # fmt: skip
    gaps = tuple(map(str, snapshot.gaps))
    if not mine:
        if not snapshot.knows(SERVICE):
            return unknown(subject, snapshot, SERVICE)
        findings = [state] if state else []
        findings.append(unselected(pod, snapshot))
        findings = sorted_findings(findings)
        text = f"{ref} takes no traffic: {findings[0].text}"
        return Diagnosis(subject, "broken", text, tuple(findings), tuple(chain), (), gaps)
    reports: list[PodReport] = []
    findings, served = [], []
    for service in mine:
        listing = list_service(service, snapshot)
        position = next(i for i, p in enumerate(listing.pods) if p.name == pod.name)
        report = report_pod(service, pod, listing.candidates[position], snapshot)
        reports.append(report)
        findings += [report.finding] if report.finding else []
        listed = report.takes_traffic
        text = "listed as ready" if listed else "not listed as ready"
        slices = snapshot.slices.get((service.namespace, service.name), ())
        deaf = witness.deaf(service, slices, snapshot, pod.ips) if listed else []
        findings += deaf
        served += [service.name] if listed and not any_broken(deaf) else []
        text += ", and does not answer" if deaf else ""
        chain.append(Link(f"svc/{service.name}", "ok" if listed and not deaf else "broken", text))
    findings = sorted_findings(findings)
    names = some([f"svc/{s.name}" for s in mine])
    if findings:
        text = f"{ref} takes no traffic of {names}: {findings[0].text}" if not served else f"{ref}: {findings[0].text}"
        return Diagnosis(subject, "broken", text, tuple(findings), tuple(chain), (), gaps)
    return Diagnosis(subject, "healthy", f"{ref} takes traffic of {names}", (), tuple(chain), (), gaps)


def unselected(pod: Pod, snapshot: Snapshot) -> Finding:
    """EP806, with the Service that comes nearest."""
    labels = pod.metadata.labels or {}
    options = []
    for s in snapshot.in_namespace(SERVICE, pod.namespace):
        if selects(s):
            miss = near_miss(s.spec.selector or {}, labels)
            if not miss.lacking:
                options.append((miss.cost, s.name, s, miss))
    text = f"no Service of namespace {pod.namespace} selects it"
    command, repairs = "", False
    if options:
        _, _, service, miss = min(options, key=lambda o: o[:2])
        text += f"; svc/{service.name} almost does, with {selector_text(service.spec.selector)}"
        # The label of a Pod that something made is what holds the two together: the selector has to give way.
        command = corrected(service, miss) if pod.metadata.controller else label_command(pod, service, snapshot)
        repairs = True
    return Finding(
        "EP806", "broken", text, command, repairs, (f"labels of pod/{pod.name}: {selector_text(labels) or 'none'}",)
    )


def label_command(pod: Pod, service: Service, snapshot: Snapshot) -> str:
    """The command that gives the Pod what the selector lacks: in the template of what makes it, if something does; ""
    where that would take the Pod from its maker."""
    lacking = {k: v for k, v in (service.spec.selector or {}).items() if pod.metadata.label(k) != v}
    if pod.metadata.controller is not None:
        above = snapshot.owner(pod)
        if above is None or any(k in (pod.metadata.labels or {}) for k in lacking):
            return ""
        patch = {"spec": {"template": {"metadata": {"labels": lacking}}}}
        return commands.merge(pod.namespace, above[0].singular_name, above[1].name, patch)
    pairs = [f"{k}={v}" for k, v in sorted(lacking.items())]
    return commands.kubectl(pod.namespace, "label", "pod", pod.name, *pairs, "--overwrite")


def selector_command(service: Service, miss: NearMiss, snapshot: Snapshot) -> str:
    """The command that corrects a selector which is misspelt, and matches nobody who would be lost; else ""."""
    return corrected(service, miss) if not miss.lacking and not snapshot.matching(service) else ""


def diagnose_pair(pod_name: str, service_name: str, snapshot: Snapshot, namespace: str) -> Diagnosis:
    """A Pod and a Service: whether the Service leads to the Pod; for a Pod that is plainly none of its endpoints,
    whether it reaches the Service from its node."""
    pod = snapshot.pods.get((namespace, pod_name))
    if pod is None:
        return no_pod(pod_name, namespace, snapshot)
    service = snapshot.services.get((namespace, service_name))
    if service is None:
        return no_service(service_name, namespace, snapshot)
    subject = f"pod/{pod_name} and svc/{service_name} in namespace {namespace}"
    wanted = equality_selector(service.spec.selector)
    if selects(service) and wanted.matches(pod.metadata.labels):
        listing = list_service(service, snapshot)
        position = next(i for i, p in enumerate(listing.pods) if p.name == pod.name)
        report = report_pod(service, pod, listing.candidates[position], snapshot)
        whole = diagnose_service(service, snapshot, pod.spec.node_name)
        if report.finding is None:
            text = f"svc/{service.name} leads to pod/{pod.name}"
            slices = snapshot.slices.get((namespace, service_name), ())
            if deaf := witness.deaf(service, slices, snapshot, pod.ips):
                others = [f for f in whole.findings if f.code != deaf[0].code]
                verdict = f"{text}, which does not answer: {deaf[0].text}"
                return replace(
                    whole, subject=subject, status="broken", verdict=verdict, findings=(*deaf, *others), pods=(report,)
                )
            if whole.status in ("healthy", "degraded"):
                return replace(whole, subject=subject, status="healthy", verdict=text, pods=(report,), findings=())
            return replace(whole, subject=subject, pods=(report,))
        findings = tuple(sorted_findings([replace(report.finding, severity="broken"), *whole.findings]))
        text = f"svc/{service.name} does not lead to pod/{pod.name}: {report.finding.text}"
        return replace(whole, subject=subject, status="broken", verdict=text, findings=findings, pods=(report,))
    miss = near_miss(service.spec.selector or {}, pod.metadata.labels or {})
    if service.spec.selector and (len(miss.lacking) < len(service.spec.selector)):
        lacking = {k: v for k, v in service.spec.selector.items() if pod.metadata.label(k) != v}
        finding = Finding(
            "EP805",
            "broken",
            f"svc/{service.name} does not select pod/{pod.name}: the Pod lacks the label {selector_text(lacking)}",
            (command := label_command(pod, service, snapshot) or selector_command(service, miss, snapshot)),
            bool(command),
            (
                f"selector of svc/{service.name}: {selector_text(service.spec.selector)}",
                f"labels of pod/{pod.name}: {selector_text(pod.metadata.labels) or 'none'}",
            ),
        )
        return replace(alone(subject, finding, snapshot), verdict=finding.text)
    whole = diagnose_service(service, snapshot, pod.spec.node_name)
    return replace(whole, subject=subject, verdict=f"from pod/{pod.name} on node {pod.spec.node_name}: {whole.verdict}")


# ---------------------------------------------------------------- addresses and names


def diagnose_address(address: str, port: int, snapshot: Snapshot, node: str) -> Diagnosis:
    """Whose address it is, and whether it answers there."""
    asked = f"{address}:{port}" if port and ":" not in address else f"[{address}]:{port}" if port else address
    wanted = canonical(address)
    if (service := service_at(address, snapshot)) is not None:
        found = diagnose_port(service, port, asked, snapshot, node)
        return replace(found, subject=f"{asked}, which is svc/{service.name} in namespace {service.namespace}")
    for key in sorted(snapshot.pods):
        pod = snapshot.pods[key]
        if wanted in map(canonical, pod.ips) and not pod.terminal and not pod.spec.host_network:
            return diagnose_pod_address(pod, port, asked, snapshot)
    for name in sorted(snapshot.nodes):
        if wanted in (canonical(a.address) for a in snapshot.nodes[name].status.addresses or ()):
            return diagnose_node_port(name, port, asked, snapshot)
    if not snapshot.knows(SERVICE) or not snapshot.knows(POD):
        return unknown(asked, snapshot, SERVICE, POD)
    finding = Finding(
        "EP803",
        "broken",
        "no Service, Pod or node has this address; if it was a ClusterIP, its Service was made anew",
        commands.kubectl("", "get", "services", "-A"),
        False,
        (f"looked at {len(snapshot.services)} Services, {len(snapshot.pods)} Pods, {len(snapshot.nodes)} nodes",),
    )
    return alone(asked, finding, snapshot)


def service_at(address: str, snapshot: Snapshot) -> Service | None:
    """The Service that has this address, of whatever sort, as its own."""
    wanted = canonical(address)
    for key in sorted(snapshot.services):
        service = snapshot.services[key]
        ingress = service.status.load_balancer.ingress or ()
        fronts = (*service.addresses, *(service.spec.external_ips or ()), *(i.ip for i in ingress if i.ip))
        if wanted in map(canonical, fronts):
            return service
    return None


def service_meant(subject: Subject, snapshot: Snapshot, namespace: str) -> Service | None:
    """The Service that a question is about, however it is asked, of several the first; None if it is about none that
    exists."""
    if subject.service:
        return snapshot.services.get((namespace, subject.service))
    if subject.pod:
        pod = snapshot.pods.get((namespace, subject.pod))
        return next(iter(services_of(pod, snapshot)), None) if pod is not None else None
    if subject.address:
        return service_at(subject.address, snapshot)
    return service_behind(steps_to(subject.name, snapshot, namespace), snapshot) if subject.name else None


def steps_to(name: str, snapshot: Snapshot, namespace: str) -> list[Step]:
    """What the resolver of a Pod in `namespace` does with a name."""
    scope = [snapshot.services[k] for k in sorted(snapshot.services)]
    slices = [s for listed in snapshot.slices.values() for s in listed]
    names = naming.names_of(sorted(snapshot.namespaces), scope, slices, snapshot.now)
    return naming.ask(name, namespace, names)


def service_behind(steps: Sequence[Step], snapshot: Snapshot) -> Service | None:
    """The Service at or above the name that answered last, else at the first step that names one."""
    for step in (steps[-1], *steps):
        if (key := service_key(step.name)) and key in snapshot.services:
            return snapshot.services[key]
    return None


def diagnose_port(service: Service, port: int, asked: str, snapshot: Snapshot, node: str) -> Diagnosis:
    """One port of a Service; any if `port` is 0."""
    whole = diagnose_service(service, snapshot, node)
    ports = service.spec.ports or ()
    if service.headless and port and (found := untranslated(service, port)) is not None:
        verdict = f"{asked} does not answer: {found.text}"
        return replace(whole, status="broken", verdict=verdict, findings=(found, *whole.findings))
    if not port or any(p.port == port for p in ports) or service.headless:
        return whole
    shown = some(map(port_text, ports)) or "none"
    step: tuple[str, str, object] = ("add", "/spec/ports/-", new_port(port, ports))
    hint = ""
    behind = next((p for p in ports if p.target_port == port), None)
    if behind is not None:
        hint = f"; {port} is the target port of {port_text(behind)}"
    elif any(p.node_port == port for p in ports):
        hint = f"; {port} is its node port, which answers at the nodes' addresses"
    finding = Finding(
        "EP804",
        "broken",
        f"svc/{service.name} has no port {port}, so {asked} refuses; it has {shown}{hint}",
        commands.json_patch(service.namespace, "service", service.name, step) if all(p.name for p in ports) else "",
        False,
        (f"ports of svc/{service.name}: {shown}",),
    )
    findings = (finding, *whole.findings)
    return replace(whole, status="broken", verdict=f"{asked} does not answer: {finding.text}", findings=findings)


def untranslated(service: Service, port: int) -> Finding | None:
    """EP406, where the port that was asked is one that a headless Service does not translate."""
    for p in service.spec.ports or ():
        if p.port == port and p.target_port not in (None, 0, port):
            return Finding(
                "EP406",
                "broken",
                f"svc/{service.name} is headless, so nothing translates port {port}: ask for {p.target_port} instead",
                seen=(f"port {port}, targetPort {p.target_port}, clusterIP None",),
            )
    return None


def new_port(port: int, ports: Sequence[ServicePort]) -> dict[str, object]:
    target = next((p.target_port for p in ports if p.target_port), port)
    return {"name": f"port-{port}", "port": port, "protocol": "TCP", "targetPort": target}


def diagnose_pod_address(pod: Pod, port: int, asked: str, snapshot: Snapshot) -> Diagnosis:
    found = diagnose_pod(pod, snapshot)
    subject = f"{asked}, which is pod/{pod.name} in namespace {pod.namespace}"
    state = explain_pod(pod, snapshot)
    declared = sorted({p.container_port for p in declared_ports(pod)})
    if state is None and port and declared and port not in declared:
        finding = Finding(
            "EP403",
            "suspect",
            f"pod/{pod.name} is ready, but declares no port {port} (it declares {', '.join(map(str, declared))}); "
            "whether something listens there cannot be seen from here",
        )
        verdict = f"{asked} may not answer: {finding.text}"
        return replace(found, subject=subject, status="unknown", verdict=verdict, findings=(finding, *found.findings))
    if state is None:
        verdict = f"{asked} is pod/{pod.name}, which is ready"
        return replace(found, subject=subject, status="healthy", verdict=verdict, findings=())
    return replace(found, subject=subject)


def diagnose_node_port(node: str, port: int, asked: str, snapshot: Snapshot) -> Diagnosis:
    """An address of a node: the Service that has this node port."""
    subject = f"{asked}, which is node {node}"
    for key in sorted(snapshot.services):
        service = snapshot.services[key]
        for p in service.spec.ports or ():
            if port and p.node_port == port:
                return replace(
                    diagnose_service(service, snapshot, node), subject=f"{subject}, node port of svc/{service.name}"
                )
    same = [s for s in snapshot.services.values() if any(p.port == port for p in s.spec.ports or ())]
    if port and same and same[0].spec.type == "ClusterIP":
        service = same[0]
        finding = Finding(
            "EP612",
            "broken",
            f"no Service has the node port {port}; svc/{service.name} has the port {port}, but is of type ClusterIP, "
            "which nodes do not answer for",
            commands.merge(service.namespace, "service", service.name, {"spec": {"type": "NodePort"}}),
            False,
            (f"type of svc/{service.name}: ClusterIP",),
        )
        return alone(subject, finding, snapshot)
    every = [(p.node_port, s.name) for s in snapshot.services.values() for p in s.spec.ports or ()]
    others = some(f"{number} (svc/{name})" for number, name in every if number)
    finding = Finding(
        "EP803",
        "broken",
        f"no Service has the node port {port}; node ports in use: {others or 'none'}",
        commands.kubectl("", "get", "services", "-A"),
    )
    return alone(subject, finding, snapshot)


def diagnose_name(name: str, port: int, snapshot: Snapshot, namespace: str, node: str) -> Diagnosis:
    """A name, as the resolver of a Pod in `namespace` asks for it."""
    steps = steps_to(name, snapshot, namespace)
    tried = [
        Link(
            "asked",
            "ok" if s.records else "broken",
            f"{s.name} {s.outcome}: {', '.join(s.records[:3]) or s.reason}",
        )
        for s in steps
    ]
    last = steps[-1]
    service = service_behind(steps, snapshot)
    if service is not None:
        if (lost := name_below(name, service, steps, tried, snapshot)) is not None:
            return lost
        whole = diagnose_port(service, port, f"{name}:{port}", snapshot, node)
        gone = [s for s in tried if s.state == "ok"] or tried[-1:]
        about = f"{name}, which is svc/{service.name} in namespace {service.namespace}"
        return replace(whole, subject=about, chain=(*gone, *whole.chain))
    if last.outcome == "ELSEWHERE":
        if (lost := name_below_none(name, namespace, tried, snapshot)) is not None:
            return lost
        text = f"{name} is not a name of this cluster: other resolvers are asked"
        labels = name.rstrip(".").split(".")
        if len(labels) == 1 or (len(labels) == 2 and labels[1] in snapshot.namespaces):
            return name_missing(name, namespace, tried, steps[len(labels) - 1].reason, snapshot)
        return Diagnosis(name, "unknown", text, (), tuple(tried), (), tuple(map(str, snapshot.gaps)))
    if any(s.records for s in steps):
        return Diagnosis(name, "healthy", f"{name} resolves: {', '.join(last.records)}", (), tuple(tried))
    return name_missing(name, namespace, tried, last.reason, snapshot)


def name_below(
    name: str, service: Service, steps: Sequence[Step], tried: Sequence[Link], snapshot: Snapshot
) -> Diagnosis | None:
    """A name below an existing Service, such as `web-0.web`, that does not resolve; None for others."""
    step = next((s for s in steps if service_key(s.name) == (service.namespace, service.name)), None)
    below = labels_below(step.name) if step is not None else []
    if step is None or not below or step.outcome != "NXDOMAIN":
        return None
    subject = f"{name}, below svc/{service.name} in namespace {service.namespace}"
    host, asked = below[-1], [t for s, t in zip(steps, tried, strict=True) if s is step]
    finding = governing.unnamed(host, service, snapshot, step.reason) if len(below) == 1 else None
    if finding is None and (service.namespace, host) in snapshot.pods and len(below) == 1:
        found = diagnose_pair(host, service.name, snapshot, service.namespace)
        if found.status != "healthy":
            return replace(found, subject=subject, chain=(*asked, *found.chain))
    finding = finding or governing.no_such_name(service, step.reason)
    return replace(alone(name, finding, snapshot, asked), subject=subject)


def name_below_none(name: str, namespace: str, tried: Sequence[Link], snapshot: Snapshot) -> Diagnosis | None:
    """EP708 for a name that a Pod would have if the Service existed that its subdomain names; None for others."""
    labels = name.rstrip(".").removesuffix(f".svc.{naming.ZONE.text}").removesuffix(".svc").split(".")
    if len(labels) not in (2, 3) or not snapshot.knows(SERVICE):
        return None
    host, governor, where = labels if len(labels) == 3 else (*labels, namespace)
    key = (where, governor)
    pod = next(
        (p for p in snapshot.in_namespace(POD, where) if (p.spec.hostname, p.spec.subdomain) == (host, governor)), None
    )
    if pod is None or snapshot.has_service(key):
        return None
    services = [s for s in services_of(pod, snapshot) if s.headless]
    meant = nearest(governor, [s.name for s in services])
    service = next((s for s in services if s.name == meant), services[0] if services else None)
    if service is None:
        return None
    found = governing.no_names(service, [pod], snapshot, "broken")
    hint = f"; did you mean {host}.{meant}?" if meant else ""
    text = f"pod/{pod.name} has this name as its own, and there is no Service {governor} in namespace {where}{hint}"
    return alone(name, replace(found, text=text), snapshot, tried[:2])


def name_missing(name: str, namespace: str, tried: Sequence[Link], reason: str, snapshot: Snapshot) -> Diagnosis:
    """EP704, with the Service that was meant."""
    if not snapshot.knows(SERVICE):
        return unknown(name, snapshot, SERVICE)
    labels = name.rstrip(".").removesuffix(f".svc.{naming.ZONE.text}").removesuffix(".svc").split(".")
    where = labels[1] if len(labels) > 1 else namespace
    meant = nearest(labels[0], [n for ns, n in snapshot.services if ns == where])
    if not meant:
        other = sorted(ns for ns, n in snapshot.services if n == labels[0])
        meant, where = (labels[0], other[0]) if other else ("", where)
    hint = f"; did you mean {meant}.{where}?" if meant else ""
    command = commands.kubectl(where, "get", "service", meant) if meant else commands.kubectl(where, "get", "services")
    finding = Finding("EP704", "broken", f"there is no such name: {reason}{hint}", command)
    return alone(name, finding, snapshot, tried)


def labels_below(name: str) -> list[str]:
    """What stands left of the Service in a full name."""
    labels = name.rstrip(".").split(".")
    return labels[: -len(["svc", *naming.ZONE.text.split(".")]) - 2]


def service_key(name: str) -> tuple[str, str] | None:
    """Namespace and name of the Service at or above a full name."""
    labels = name.rstrip(".").split(".")
    suffix = ["svc", *naming.ZONE.text.split(".")]
    if labels[-len(suffix) :] != suffix or len(labels) < len(suffix) + 2:
        return None
    return labels[-len(suffix) - 1], labels[-len(suffix) - 2]
