"""Endpoints and slices that nobody's selector writes, and slices that their controller has left behind (EP501 to
EP510). Pure; what is mirrored is `mirroring_plan.mirrors`, what belongs in a slice `slice_plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kubesvc.api.endpoints import ENDPOINTS, Endpoints
from kubesvc.api.endpointslice import ENDPOINT_SLICE, MANAGED_BY_LABEL, SERVICE_NAME_LABEL, Endpoint, EndpointSlice
from kubesvc.api.meta import plain
from kubesvc.api.pod import POD
from kubesvc.api.selectors import equality_selector
from kubesvc.api.service import Service
from kubesvc.clock import parse_rfc3339
from kubesvc.controllers import endpoints_plan, mirroring_plan, slice_plan
from kubesvc.controllers.slice_plan import is_owned

from . import commands
from .commands import count, some
from .diagnosis import Finding, Link, PodReport
from .listing import Listing, states
from .nearest import nearest
from .snapshot import Snapshot


@dataclass(slots=True)
class Course:
    """How far the way from the Service to its slices was followed."""

    findings: list[Finding]
    chain: list[Link]
    pods: list[PodReport]
    slices: Sequence[Any]
    stale: list[Finding] = field(default_factory=list)

    @property
    def endpoint_slices(self) -> list[EndpointSlice]:
        return [s for s in self.slices if isinstance(s, EndpointSlice)]


def stale(service: Service, listing: Listing, snapshot: Snapshot, patience_seconds: float) -> list[Finding]:
    """EP506: what is stored is not what the plan gives, and nothing changed lately that would excuse it."""
    if snapshot.source == "manifests" or not snapshot.knows(ENDPOINT_SLICE) or listing.up_to_date:
        return []
    changed = latest(service, listing)
    age = snapshot.now - changed
    if age < patience_seconds:
        return []
    have = states(listing.stored)
    want = states(listing.planned)
    lacking = sorted({a for _, i, *_ in want - have for a in i[0]})
    extra = sorted({a for _, i, *_ in have - want for a in i[0]} - set(lacking))
    parts = [f"missing or outdated: {some(lacking)}"] if lacking else []
    parts += [f"listed without reason: {some(extra)}"] if extra else []
    look = (
        "kubesvc status"
        if snapshot.ours
        else commands.kubectl("kube-system", "get", "lease", "kube-controller-manager", "-o", "yaml")
    )
    return [
        Finding(
            "EP506",
            "broken",
            f"the EndpointSlices of svc/{service.name} are out of date for {int(age)} s "
            f"({'; '.join(parts) or 'other ports'}): their controller does not run or cannot write",
            look,
            False,
            tuple(f"{s.name}: {count(len(s.endpoints or ()), 'endpoint')}" for s in listing.stored[:4]),
        )
    ]  # fmt: skip


def latest(service: Service, listing: Listing) -> float:
    """When something last changed that slices depend on, as far as objects tell."""
    stamps = [service.metadata.creation_timestamp]
    for pod in listing.pods:
        stamps += [pod.metadata.creation_timestamp, pod.metadata.deletion_timestamp]
        stamps += [c.last_transition_time for c in pod.status.conditions or ()]
    moments = []
    for stamp in stamps:
        try:
            moments.append(parse_rfc3339(stamp) if stamp else 0.0)
        except ValueError:
            continue
    return max(moments, default=0.0)


def left_behind(service: Service, snapshot: Snapshot) -> list[Finding]:
    """EP511: slices by other hands than the controller's that list Pods which do not exist: whoever wrote them is gone.

    An endpoint counts if its targetRef names a Pod of the namespace that is known to be missing, or to be another one
    of the same name. Without a targetRef nobody can tell whose an address is.
    """
    if not snapshot.knows(POD) or snapshot.source == "manifests":
        return []
    found = []
    slices = snapshot.slices.get((service.namespace, service.name), ())
    for s in slices:
        manager = s.metadata.label(MANAGED_BY_LABEL)
        if manager in (slice_plan.MANAGED_BY, mirroring_plan.MANAGED_BY):
            continue
        dead = [e for e in s.endpoints or () if e.ready and e.target_ref and names_nobody(e, s, snapshot)]
        if not dead:
            continue
        alive = [e for e in s.endpoints or () if e not in dead]
        command = commands.kubectl(s.namespace, "delete", "endpointslice", s.name)
        if alive:
            steps = [
                ("remove", f"/endpoints/{i}", None)
                for i, e in reversed(list(enumerate(s.endpoints or ())))
                if e in dead
            ]
            command = commands.json_patch(s.namespace, "endpointslice", s.name, *steps)
        by = f"by {manager}" if manager else "by hand"
        part = "part of" if any(e.ready for other in slices for e in other.endpoints or () if e not in dead) else "all"
        found.append(
            Finding(
                "EP511",
                "warning" if part != "all" else "broken",
                f"endpointslice/{s.name}, written {by}, lists {some(e.address for e in dead)} as ready for "
                f"{some(e.target_ref.name for e in dead if e.target_ref)}, which "
                f"{'does' if len(dead) == 1 else 'do'} not exist: {part} the traffic goes nowhere",
                command,
                True,
                tuple(f"endpointslice/{s.name}: {e.address}, {e.target_ref.name}" for e in dead[:3] if e.target_ref),
            )
        )
    return found


def names_nobody(endpoint: Endpoint, s: EndpointSlice, snapshot: Snapshot) -> bool:
    """Whether an endpoint's targetRef is a Pod that is known not to exist, or no longer to be the same one."""
    ref = endpoint.target_ref
    if ref is None or ref.kind not in ("", "Pod") or (ref.namespace or s.namespace) != s.namespace:
        return False
    pod = snapshot.pods.get((s.namespace, ref.name))
    if pod is not None:
        return bool(ref.uid) and pod.metadata.uid != ref.uid
    return not snapshot.narrow or (s.namespace, ref.name) in snapshot.asked


def truncated(service: Service, snapshot: Snapshot) -> list[Finding]:
    """EP507."""
    found = snapshot.endpoints.get((service.namespace, service.name))
    if found is None or found.metadata.annotation(endpoints_plan.OVER_CAPACITY) != endpoints_plan.TRUNCATED:
        return []
    return [
        Finding(
            "EP507",
            "note",
            f"endpoints/{service.name} hold {endpoints_plan.CAPACITY} addresses at most and are truncated; the slices "
            "hold all",
            seen=(f"annotation {endpoints_plan.OVER_CAPACITY}: {endpoints_plan.TRUNCATED}",),
        )
    ]


def overwritten(service: Service, snapshot: Snapshot) -> list[Finding]:
    """EP508: addresses in the Endpoints that no selected Pod has, written by other hands than the controller's."""
    found = snapshot.endpoints.get((service.namespace, service.name))
    if found is None or found.metadata.label(endpoints_plan.MANAGED_BY_LABEL) == endpoints_plan.MANAGED_BY:
        return []
    own = {ip for pod in snapshot.matching(service) for ip in pod.ips}
    strangers = [a for a in addresses(found) if a not in own]
    if not strangers:
        return []
    return [
        Finding(
            "EP508",
            "warning",
            f"endpoints/{service.name} were written by hand ({some(strangers)}), but svc/{service.name} has a "
            "selector, so the endpoints controller overwrites them",
            seen=(f"no label {endpoints_plan.MANAGED_BY_LABEL}={endpoints_plan.MANAGED_BY}",),
        )
    ]


def addresses(endpoints: Endpoints) -> list[str]:
    return [a.ip for s in endpoints.subsets or () for a in (*(s.addresses or ()), *(s.not_ready_addresses or ()))]


# ---------------------------------------------------------------- Services without a selector


def without_selector(service: Service, snapshot: Snapshot) -> Course:
    """The chain for a Service whose endpoints are made by hand."""
    key = (service.namespace, service.name)
    chain = [Link("service", "ok", summary(service))]
    slices = list(snapshot.slices.get(key, ()))
    endpoints = snapshot.endpoints.get(key)
    findings: list[Finding] = []
    if snapshot.source == "manifests" and mirroring_plan.mirrors(endpoints, service):
        assert endpoints is not None
        plan = mirroring_plan.plan_mirror(endpoints, slices, 1000).plan
        slices = [*plan.create, *plan.update, *plan.unchanged]
    if not slices:
        findings = unlisted(service, endpoints, snapshot)
        text = "no selector, and nothing listed by hand" if endpoints is None else "no selector; Endpoints by hand"
        chain.append(Link("selector", "broken", text))
        return Course(findings, chain, [], [])
    origin = "Endpoints by hand, mirrored" if any(is_mirrored(s) for s in slices) else "slices by hand"
    chain.append(Link("selector", "ok", f"none: {origin}"))
    findings += left_behind(service, snapshot)
    findings += port_names(service, slices)
    findings += not_ready(service, endpoints, slices)
    findings += outdated_mirror(service, endpoints, slices, snapshot)
    return Course(findings, chain, [], slices)


def summary(service: Service) -> str:
    numbers = ", ".join(f"{p.port}/{p.protocol or 'TCP'}" for p in service.spec.ports or ())
    address = "headless" if service.headless else service.spec.cluster_ip or "no address yet"
    return f"{service.spec.type} {address}, port {numbers or 'none'}"


def is_mirrored(s: EndpointSlice) -> bool:
    return s.metadata.label(MANAGED_BY_LABEL) == mirroring_plan.MANAGED_BY


def unlisted(service: Service, endpoints: Endpoints | None, snapshot: Snapshot) -> list[Finding]:
    """Why no slice belongs to the Service: EP501 to EP504, EP509."""
    if not snapshot.knows(ENDPOINT_SLICE):
        return []
    if endpoints is not None and addresses(endpoints):
        return [unmirrored(service, endpoints)]
    found = misnamed_slice(service, snapshot) or misnamed_endpoints(service, snapshot)
    if found is not None:
        return [found]
    meant = {"app": service.name}
    has = [
        p for p in snapshot.in_namespace(POD, service.namespace) if equality_selector(meant).matches(p.metadata.labels)
    ]
    command = ""
    if has:
        command = commands.merge(service.namespace, "service", service.name, {"spec": {"selector": meant}})
    hint = f"; {count(len(has), 'Pod')} here {'has' if len(has) == 1 else 'have'} app={service.name}" if has else ""
    return [
        Finding(
            "EP501",
            "broken",
            f"svc/{service.name} has no selector, and nobody has listed endpoints for it{hint}",
            command,
            bool(command),
            ("spec.selector: none", f"no EndpointSlice with the label {SERVICE_NAME_LABEL}={service.name}"),
        )
    ]


def unmirrored(service: Service, endpoints: Endpoints) -> Finding:
    """EP503 or EP509."""
    name, namespace = endpoints.name, endpoints.namespace
    listed = f"endpoints/{name}: {some(addresses(endpoints))}"
    if not mirroring_plan.mirrors(endpoints, service):
        label = endpoints.metadata.label(mirroring_plan.SKIP_LABEL)
        if label == "true":
            why = f"their label {mirroring_plan.SKIP_LABEL}=true forbids it"
            command = commands.kubectl(namespace, "label", "endpoints", name, f"{mirroring_plan.SKIP_LABEL}-")
        else:
            why = f"they have the annotation {mirroring_plan.LEADER_ANNOTATION}"
            command = commands.kubectl(namespace, "annotate", "endpoints", name, f"{mirroring_plan.LEADER_ANNOTATION}-")
        return Finding(
            "EP503",
            "broken",
            f"endpoints/{name} exist but are not mirrored into slices: {why}",
            command,
            True,
            (listed,),
        )
    return Finding(
        "EP509",
        "broken",
        f"endpoints/{name} exist, and no slice mirrors them: the mirroring controller does not run or cannot write",
        commands.kubectl(namespace, "get", "events", "--field-selector", f"involvedObject.name={name}"),
        False,
        (listed, "no EndpointSlice of them"),
    )


def misnamed_endpoints(service: Service, snapshot: Snapshot) -> Finding | None:
    """EP502: Endpoints without a Service whose name is much like this one's."""
    orphans = {
        e.name: e
        for e in snapshot.in_namespace(ENDPOINTS, service.namespace)
        if (e.namespace, e.name) not in snapshot.services and addresses(e)
    }
    name = nearest(service.name, orphans) or (next(iter(orphans)) if len(orphans) == 1 else "")
    if not name:
        return None
    right = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": service.name, "namespace": service.namespace},
        "subsets": plain(orphans[name]).get("subsets"),
    }
    return Finding(
        "EP502",
        "broken",
        f"svc/{service.name} has no Endpoints of its own name; endpoints/{name} exist and no Service has that name: "
        f"did you mean {service.name}?",
        commands.both(commands.apply(right), commands.kubectl(service.namespace, "delete", "endpoints", name)),
        True,
        (f"endpoints/{name}: {some(addresses(orphans[name]))}",),
    )


def misnamed_slice(service: Service, snapshot: Snapshot) -> Finding | None:
    """EP504: a slice whose label names no Service, and might mean this one."""
    for s in snapshot.in_namespace(ENDPOINT_SLICE, service.namespace):
        label = s.metadata.label(SERVICE_NAME_LABEL)
        if label and (s.namespace, label) in snapshot.services:
            continue
        if not (nearest(service.name, [label]) if label else s.name.startswith(service.name)):
            continue
        said = f"its label {SERVICE_NAME_LABEL} says {label}" if label else f"it has no label {SERVICE_NAME_LABEL}"
        return Finding(
            "EP504",
            "broken",
            f"endpointslice/{s.name} seems meant for svc/{service.name}, but {said}",
            commands.kubectl(
                s.namespace, "label", "endpointslice", s.name, f"{SERVICE_NAME_LABEL}={service.name}", "--overwrite"
            ),
            True,
            (f"endpointslice/{s.name}: {some(e.address for e in s.endpoints or ())}",),
        )
    return None


def port_names(service: Service, slices: Sequence[EndpointSlice]) -> list[Finding]:
    """EP505: ports of the Service that have no namesake in any slice."""
    have = {(p.name or "", p.protocol or "TCP") for s in slices for p in s.ports or ()}
    found = []
    for port in service.spec.ports or ():
        if (port.name, port.protocol or "TCP") in have:
            continue
        command, where = "", ""
        for s in slices:
            for i, p in enumerate(s.ports or ()):
                right = (p.protocol or "TCP") == (port.protocol or "TCP") and p.name not in {
                    q.name for q in service.spec.ports or ()
                }
                if right and not command and not is_mirrored(s):
                    step = ("add", f"/ports/{i}/name", port.name)
                    command = commands.json_patch(s.namespace, "endpointslice", s.name, step)
                elif right and not command:
                    command = endpoints_port(service, port.name, s)
        where = some(f"{name or 'no name'}/{protocol}" for name, protocol in sorted(have))
        found.append(
            Finding(
                "EP505",
                "broken",
                f"port {port.name or 'without a name'} ({port.port}/{port.protocol or 'TCP'}) of svc/{service.name} "
                f"has no namesake in the slices, which have {where or 'no ports'}",
                command,
                bool(command),
                tuple(f"endpointslice/{s.name}" for s in slices[:3]),
            )
        )
    return found


def endpoints_port(service: Service, name: str, s: EndpointSlice) -> str:
    """The command that renames the port in mirrored Endpoints of one subset and port."""
    if len(s.ports or ()) != 1:
        return ""
    return commands.json_patch(service.namespace, "endpoints", service.name, ("add", "/subsets/0/ports/0/name", name))


def not_ready(service: Service, endpoints: Endpoints | None, slices: Sequence[EndpointSlice]) -> list[Finding]:
    """EP510."""
    entries = [e for s in slices for e in s.endpoints or ()]
    if not entries or any(e.ready or (e.serving and e.terminating) for e in entries):
        return []
    command = ""
    if endpoints is not None and any(is_mirrored(s) for s in slices) and len(endpoints.subsets or ()) == 1:
        whole = [{"ip": a} for a in addresses(endpoints)]
        command = commands.json_patch(
            service.namespace, "endpoints", service.name,
            ("add", "/subsets/0/addresses", whole), ("remove", "/subsets/0/notReadyAddresses", None),
        )  # fmt: skip
    elif len(slices) == 1:
        steps = [("add", f"/endpoints/{i}/conditions/ready", True) for i, _ in enumerate(slices[0].endpoints or ())]
        command = commands.json_patch(service.namespace, "endpointslice", slices[0].name, *steps)
    return [
        Finding(
            "EP510",
            "broken",
            f"every endpoint listed by hand for svc/{service.name} ({len(entries)}) is marked as not ready",
            command,
            bool(command),
            tuple(f"{e.address}: not ready" for e in entries[:4]),
        )
    ]


def outdated_mirror(
    service: Service, endpoints: Endpoints | None, slices: Sequence[EndpointSlice], snapshot: Snapshot
) -> list[Finding]:
    """EP509: mirrored slices that are not what the Endpoints say. Endpoints tell no time of their last change, so this
    is a suspicion where they are still there, and certain where they are gone."""
    mirrored = [s for s in slices if is_mirrored(s)]
    if not mirrored or snapshot.source == "manifests" or not snapshot.knows(ENDPOINTS):
        return []
    if endpoints is None:
        return [
            Finding(
                "EP509", "warning",
                f"the mirrored slices of svc/{service.name} are left over: their Endpoints are gone",
                commands.kubectl(service.namespace, "delete", "endpointslice", *(s.name for s in mirrored)), True,
                tuple(f"endpointslice/{s.name}" for s in mirrored[:3]),
            )
        ]  # fmt: skip
    if all(is_owned(s, endpoints.metadata.uid) for s in mirrored):
        plan = mirroring_plan.plan_mirror(endpoints, mirrored, 1000).plan
        if states((*plan.create, *plan.update, *plan.unchanged)) == states(mirrored):
            return []
    return [
        Finding(
            "EP509",
            "suspect",
            f"the slices of svc/{service.name} do not hold what endpoints/{endpoints.name} say; the mirroring "
            "controller may be behind, or not run",
            commands.kubectl(service.namespace, "get", "endpoints,endpointslices", "-o", "wide"),
            False,
            (f"endpoints/{endpoints.name}: {some(addresses(endpoints))}",),
        )
    ]
