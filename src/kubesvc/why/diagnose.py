"""The diagnosis of a Service: the chain from its selector to its name, and what is wrong on the way. Pure.

Every link asks the plan of the part that does the work: `listing` the endpoint controllers, `reach` the proxy, `naming`
the DNS server. A verdict says no more than was seen; where something could not be seen it says that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.kind import Kind
from kubesvc.api.node import NODE
from kubesvc.api.pod import POD, Pod
from kubesvc.api.service import Service
from kubesvc.controllers.endpoint_cache import Candidate

from . import commands, governing, manual, naming, ports, reach, witness
from .commands import count, selector_text, some
from .diagnosis import Diagnosis, Finding, Link, LinkState, PodReport, Status, sorted_findings
from .listing import Listing, list_service
from .planned import STAND_INS
from .podstate import explain_pod, flapping
from .selection import explain_selection
from .snapshot import ESSENTIAL, Snapshot
from .workloads import explain_workload, makers

STALE_AFTER_SECONDS = 15.0
"""How long slices may lag behind a Pod before that is a finding."""


def diagnose_service(service: Service, snapshot: Snapshot, node: str = "") -> Diagnosis:
    """Why a Service works or does not.

    node: look from this node only, by name; "" from everywhere
    """
    if service.spec.type == "ExternalName":
        return naming.diagnose_external(service, snapshot)
    if not service.spec.selector:
        return conclude(service, snapshot, manual.without_selector(service, snapshot), node)
    return conclude(service, snapshot, with_selector(service, snapshot), node)


def with_selector(service: Service, snapshot: Snapshot) -> manual.Course:
    """The chain up to the slices, for a Service whose endpoints the controllers write."""
    listing = list_service(service, snapshot)
    findings: list[Finding] = []
    chain = [Link("service", "ok", about(service))]
    if (portless := ports.portless(service, snapshot)) is not None:
        findings.append(portless)
    selected = selector_text(service.spec.selector)
    if not listing.pods:
        none = no_pods(service, snapshot)
        findings += none
        chain.append(Link("selector", "broken" if snapshot.knows(POD) else "unknown", f"{selected} matches no Pod"))
        return manual.Course(findings, chain, [], slices_for(listing, snapshot), [])
    chain.append(Link("selector", "ok", f"{selected} matches {count(len(listing.pods), 'Pod')}"))
    reports = report_pods(service, listing, snapshot)
    taking = [r for r in reports if r.takes_traffic]
    dying = [] if taking else last_resort(listing)
    works: LinkState = "ok" if taking or dying else "broken"
    if dying:
        findings.append(only_terminating(service, dying))
    if works == "ok":
        findings += unserved_ports(service, listing)
    findings += pod_findings(service, reports, works == "ok")
    chain.append(Link("pods", works, phases(listing.pods)))
    ready = sum(p.ready and not p.terminating for p in listing.pods)
    more = f", {len(dying)} terminating and still serving" if dying else ""
    chain.append(Link("readiness", works, f"{ready} of {count(len(listing.pods), 'Pod')} ready{more}"))
    findings += [f for p in listing.pods if (f := flapping(p, snapshot)) is not None]
    if service.spec.publish_not_ready_addresses and ready < len(listing.pods):
        findings.append(
            Finding(
                "EP318",
                "warning",
                f"svc/{service.name} lists Pods that are not ready, as publishNotReadyAddresses asks: "
                f"{len(listing.pods) - ready} of {len(listing.pods)} are not",
                commands.merge(
                    service.namespace, "service", service.name, {"spec": {"publishNotReadyAddresses": False}}
                ),
                True,
                ("spec.publishNotReadyAddresses: true",),
            )
        )
    findings += ports.undeclared(service, [p for p in listing.pods if p.ready])
    findings += ports.other_protocol(service, [p for p in listing.pods if p.ready])
    findings += ports.untranslated(service, snapshot)
    findings += governing.nameless(service, listing.pods, snapshot)
    slices = slices_for(listing, snapshot)
    stale = manual.stale(service, listing, snapshot, STALE_AFTER_SECONDS)
    findings += stale
    findings += manual.left_behind(service, snapshot)
    findings += manual.truncated(service, snapshot)
    findings += manual.overwritten(service, snapshot)
    return manual.Course(findings, chain, reports, slices, stale)


def unserved_ports(service: Service, listing: Listing) -> list[Finding]:
    """EP401 and EP402 for ports that no Pod serves while others are served."""
    served = {
        (p.name, p.protocol)
        for c in listing.candidates
        if any(e.ready or (e.serving and e.terminating) for _, e in c.endpoints.values())
        for p in c.ports
    }
    found = []
    for position, port in enumerate(service.spec.ports or ()):
        if (port.name, port.protocol or "TCP") not in served and isinstance(port.target_port, str):
            found.append(ports.missing_name(service, position, port, listing.pods[0]))
    return found


def last_resort(listing: Listing) -> list[str]:
    """Addresses that serve while they terminate: what proxies use when nothing is ready (PROXY-25)."""
    found = [e for c in listing.candidates if c.ports for _, e in c.endpoints.values()]
    return sorted({e.address for e in found if e.serving and e.terminating})


def only_terminating(service: Service, addresses: Sequence[str]) -> Finding:
    """EP611."""
    return Finding(
        "EP611",
        "warning",
        f"svc/{service.name} has only terminating endpoints left ({some(addresses)})",
        commands.kubectl(service.namespace, "get", "pods", "-l", selector_text(service.spec.selector), "-o", "wide"),
        False,
        tuple(f"{a}: terminating, still serving" for a in addresses[:3]),
    )


def slices_for(listing: Listing, snapshot: Snapshot) -> list[object]:
    """The slices that proxies and DNS go by; where nobody could read them, those that should have been written."""
    planned = snapshot.source == "manifests" or not snapshot.knows(ENDPOINT_SLICE)
    return list(listing.planned if planned else listing.stored)


def about(service: Service) -> str:
    """What the Service is, in a few words."""
    shown = [ports.port_text(p) for p in service.spec.ports or ()]
    given = service.spec.cluster_ip not in ("", *STAND_INS)
    address = "headless" if service.headless else service.spec.cluster_ip if given else "with an address to be given"
    return f"{service.spec.type} {address}, {'ports' if len(shown) > 1 else 'port'} {', '.join(shown) or 'none'}"


def no_pods(service: Service, snapshot: Snapshot) -> list[Finding]:
    """A selector without Pods: by what should make them, else by the labels."""
    if not snapshot.knows(POD):
        return []
    made_by = makers(service, snapshot)
    if made_by:
        return [explain_workload(w, snapshot) for w in made_by]
    return explain_selection(service, snapshot)


def phases(pods: Sequence[Pod]) -> str:
    """`3 Running, 1 Pending`."""
    words = Counter("Terminating" if p.terminating else p.status.phase or "Unknown" for p in pods)
    return ", ".join(f"{n} {word}" for word, n in sorted(words.items(), key=lambda w: (-w[1], w[0])))


def report_pods(service: Service, listing: Listing, snapshot: Snapshot) -> list[PodReport]:
    """One line for each Pod."""
    return [
        report_pod(service, pod, candidate, snapshot)
        for pod, candidate in zip(listing.pods, listing.candidates, strict=True)
    ]


def report_pod(service: Service, pod: Pod, candidate: Candidate, snapshot: Snapshot) -> PodReport:
    """Whether the controllers list a Pod as ready, and the first reason if not."""
    listed = [e for _, e in candidate.endpoints.values()]
    wanted = len(service.spec.ports or ())
    complete = len(candidate.ports) == wanted or (not service.spec.ports and service.headless)
    ready = any(e.ready for e in listed)
    finding: Finding | None = None
    if candidate.missing_node is not None:
        finding = missing_node(pod, candidate.missing_node)
    elif not ready:
        finding = explain_pod(pod, snapshot) or unexplained(pod)
    elif (family := ports.explain_family(service, pod)) is not None:
        finding = family
    elif not complete and (lacking := ports.explain_ports(service, pod)):
        finding = lacking[0]
    takes = ready and bool(candidate.ports or service.headless) and (finding is None or finding.code not in ("EP404",))
    return PodReport(pod.namespace, pod.name, next(iter(pod.ips), ""), pod.spec.node_name, takes, finding)


def unexplained(pod: Pod) -> Finding:
    return Finding(
        "EP316",
        "broken",
        f"pod/{pod.name} is not listed as ready, and its status gives no reason",
        commands.kubectl(pod.namespace, "describe", "pod", pod.name),
    )


def missing_node(pod: Pod, node: str) -> Finding:
    """EP317 (SLICE-12)."""
    return Finding(
        "EP317",
        "broken",
        f"pod/{pod.name} is on node {node}, which does not exist any more, so it is left out",
        commands.kubectl(pod.namespace, "delete", "pod", pod.name, "--grace-period=0", "--force"),
        True,
        (f"spec.nodeName of pod/{pod.name}: {node}",),
    )


def pod_findings(service: Service, reports: Sequence[PodReport], any_taking: bool) -> list[Finding]:
    """One finding for each cause that keeps Pods out, the most frequent first; a warning where others take traffic."""
    groups: dict[str, list[PodReport]] = {}
    for r in reports:
        if r.finding is not None:
            groups.setdefault(r.finding.code, []).append(r)
    found = []
    # A Pod on its way out or at its end says less about the Service than one that should work.
    for code, group in sorted(groups.items(), key=lambda g: (g[0] in ("EP306", "EP307"), -len(g[1]), g[0])):
        first = group[0].finding
        assert first is not None
        others = [r.name for r in group[1:]]
        text = first.text + (f" (and, for the same cause, {some(others)})" if others else "")
        severity = first.severity if not any_taking else "warning"
        if any_taking and code == "EP306":
            severity = "note"
        found.append(Finding(code, severity, text, first.command, first.repairs, first.seen))
    return found


def conclude(service: Service, snapshot: Snapshot, course: manual.Course, node: str) -> Diagnosis:
    """Add rules and name to the chain, and say the verdict."""
    chain, findings = list(course.chain), list(course.findings)
    chain.append(slice_link(course, snapshot))
    rules = reach.look(service, course.endpoint_slices, snapshot, node, routes=not any_broken(findings))
    chain.append(rules.link)
    findings += rules.findings
    name = naming.look(service, course.endpoint_slices, snapshot)
    chain.append(name.link)
    findings += name.findings
    if snapshot.sights:
        findings = [f for f in findings if not witness.settled(f, service, course.endpoint_slices, snapshot)]
        findings += witness.look(service, course.endpoint_slices, snapshot, node)
        if (answers := witness.link(service, course.endpoint_slices, snapshot)) is not None:
            chain.append(answers)
            rules.some_port_works &= answers.state == "ok"
    gaps = gaps_of(snapshot, ESSENTIAL if service.spec.selector else [k for k in ESSENTIAL if k is not POD])
    findings = sorted_findings(findings)
    status = status_of(findings, chain, gaps, course)
    ref = f"svc/{service.name}"
    verdict = verdict_of(ref, service, status, findings, chain, course, rules, gaps, snapshot)
    unseen = tuple(f"node {s.node} could not be looked into: {s.unseen}" for s in snapshot.sights if s.unseen)
    all_gaps = (*map(str, snapshot.gaps), *absences(snapshot), *unseen)
    return Diagnosis(
        f"{ref} in namespace {service.namespace}", status, verdict, tuple(findings), tuple(chain),
        tuple(course.pods), all_gaps,
    )  # fmt: skip


def any_broken(findings: Sequence[Finding]) -> bool:
    return any(f.severity == "broken" for f in findings)


def slice_link(course: manual.Course, snapshot: Snapshot) -> Link:
    slices = course.endpoint_slices
    entries = [e for s in slices for e in s.endpoints or ()]
    ready = sum(e.ready for e in entries)
    usable = ready or any(e.serving and e.terminating for e in entries)
    state: LinkState = "ok" if usable else "broken"
    if course.stale:
        state = "broken"
    would = "would be " if snapshot.source == "manifests" else ""
    text = f"{would}{count(len(slices), 'slice')} with {count(len(entries), 'endpoint')}, {ready} ready"
    if course.stale:
        text += "; out of date"
    if not snapshot.knows(ENDPOINT_SLICE):
        why = "not in the dump" if ENDPOINT_SLICE.plural in snapshot.absent else "could not be read"
        return Link("slices", "unknown", f"{why}; should be {text}")
    return Link("slices", state, text)


def gaps_of(snapshot: Snapshot, kinds: Sequence[Kind]) -> list[Kind]:
    return [k for k in kinds if not snapshot.knows(k)]


def absences(snapshot: Snapshot) -> list[str]:
    """What a dump does not hold, and how it would."""
    if not snapshot.absent:
        return []
    listed = sorted(snapshot.absent)
    left_out = " (kubectl cluster-info dump leaves them out)" if LEFT_OUT & snapshot.absent else ""
    return [
        f"{', '.join(listed)} are not in the dump{left_out}; with a file beside it of what "
        f"`kubectl get {','.join(listed)} -A -o json` prints they are"
    ]


LEFT_OUT = frozenset({"endpoints", "endpointslices"})
"""What `kubectl cluster-info dump` never writes, of all that a diagnosis asks for."""


def status_of(
    findings: Sequence[Finding], chain: Sequence[Link], gaps: Sequence[Kind], course: manual.Course
) -> Status:
    if any_broken(findings):
        return "broken"
    if gaps or any(f.severity == "suspect" for f in findings):
        return "unknown"
    if any(link.state == "broken" for link in chain):
        return "broken"
    del course
    return "degraded" if any(f.severity == "warning" for f in findings) else "healthy"


def verdict_of(
    ref: str,
    service: Service,
    status: Status,
    findings: Sequence[Finding],
    chain: Sequence[Link],
    course: manual.Course,
    rules: reach.Rules,
    gaps: Sequence[Kind],
    snapshot: Snapshot,
) -> str:
    """The first line: the state and its one reason."""
    first = findings[0] if findings else None
    would = "would route" if snapshot.source == "manifests" else "routes"
    if status == "broken":
        if first is None or first.severity != "broken":
            link = next(link for link in chain if link.state == "broken")
            return f"{ref} does not route: {link.name}: {link.text}"
        partly = rules.some_port_works
        word = "routes only in part" if partly else "does not route"
        if snapshot.source == "manifests":
            word = "would route only in part" if partly else "would not route"
        return f"{ref} {word}: {first.text}"
    if status == "unknown":
        if gaps == [ENDPOINT_SLICE] and rules.some_port_works:
            taking = sum(r.takes_traffic for r in course.pods)
            besides = f"; {first.text}" if first is not None and first.severity == "warning" else ""
            return f"{ref} should route to {count(taking, 'Pod')}, but {snapshot.unread(*gaps)}{besides}"
        if gaps:
            return f"{ref}: cannot tell: {snapshot.unread(*gaps)}"
        assert first is not None
        return f"{ref} may not work: {first.text}"
    taking = sum(r.takes_traffic for r in course.pods)
    to = f"{count(taking, 'Pod')}" if course.pods else f"{count(rules.targets, 'endpoint')}"
    if course.pods and taking < len(course.pods):
        to = f"{taking} of {count(len(course.pods), 'Pod')}"
    if status == "degraded":
        assert first is not None
        if course.pods and not taking:
            return f"{ref} still {would}: {first.text}"
        return f"{ref} {would} to {to}; {first.text}"
    return f"{ref} {would} to {to}"


__all__ = ["NODE", "diagnose_service"]
