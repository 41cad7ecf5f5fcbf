"""What was decided about each Pod, written on the slices themselves: an annotation that upstream does not have. Pure.

Off unless asked for (`ControllerSettings.explain_slices`). The value is a JSON object, Pod name to a few words: "in: …"
takes traffic, "out: …" does not, "last resort: …" only while nobody else does. A slice tells of the Pods it lists, and
the first slice of each address type, by name, also of those that no slice lists. Where there are more than `MOST`
Pods to tell of, those that take traffic are left out first, and the key "…" says how many were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from kubesvc.api.endpointslice import Endpoint, EndpointSlice
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service

from .endpoint_cache import Candidate
from .slice_plan import SlicePlan

DECISIONS = "kubesvc.dev/decisions"
MOST = 200
"""Pods in one annotation: with names of full length that stays under a third of what annotations may hold together."""
FURTHER = "…"
NEW = "\uffff"
"""Where a slice without a name yet stands among the others: at the end."""


def decided(service: Service, pod: Pod, candidate: Candidate, address_type: str) -> str:
    """What becomes of one Pod that the selector matches, in the slices of one address type."""
    if pod.terminal:
        return f"out: ended ({pod.status.phase})"
    if candidate.missing_node is not None:
        return f"out: node {candidate.missing_node} does not exist"
    found = candidate.endpoints.get(address_type)
    if found is None:
        return f"out: no {address_type} address" if pod.ips else "out: no address yet"
    lacking = len(service.spec.ports or ()) - len(candidate.ports)
    partly = f", but {lacking} of {len(service.spec.ports or ())} ports are none of its own" if lacking > 0 else ""
    return of_endpoint(found[1]) + partly


def of_endpoint(endpoint: Endpoint) -> str:
    """By its conditions (SLICE-14)."""
    conditions = endpoint.conditions
    serving, terminating = bool(conditions and conditions.serving), endpoint.terminating
    if endpoint.ready:
        return "in: ready" if serving and not terminating else "in: not ready, but published all the same"
    if terminating:
        return "last resort: terminating, and still ready" if serving else "out: terminating"
    return "out: not ready"


def explained(
    plan: SlicePlan, service: Service, pods: Sequence[Pod], candidates: Sequence[Candidate], address_type: str
) -> SlicePlan:
    """The plan of one address type with decisions on all its slices; one that only lacks these is updated."""
    words = {
        pod.name: decided(service, pod, candidate, address_type)
        for pod, candidate in zip(pods, candidates, strict=True)
    }
    slices = sorted((*plan.create, *plan.update, *plan.unchanged), key=lambda s: s.name or NEW)
    listed = {name for s in slices for name in pods_of(s)}
    left_out = {name: said for name, said in words.items() if name not in listed}
    first = slices[0] if slices else None

    def written(s: EndpointSlice) -> EndpointSlice:
        mine = {name: words[name] for name in pods_of(s) if name in words}
        return with_text(s, render({**mine, **left_out} if s is first else mine))

    return laid_over(plan, written)


def unexplained(plan: SlicePlan) -> SlicePlan:
    """The plan without decisions: what was written before they were switched off is true no more."""
    slices = (*plan.create, *plan.update, *plan.unchanged)
    if not any(DECISIONS in (s.metadata.annotations or ()) for s in slices):
        return plan
    return laid_over(plan, lambda s: with_text(s, ""))


def laid_over(plan: SlicePlan, change: Callable[[EndpointSlice], EndpointSlice]) -> SlicePlan:
    """Change every slice; those that were to stay as they are, and do not, are updated."""
    create, update = [change(s) for s in plan.create], [change(s) for s in plan.update]
    unchanged = []
    for s in plan.unchanged:
        wanted = change(s)
        if wanted.metadata.annotations == s.metadata.annotations:
            unchanged.append(s)
        else:
            update.append(wanted)
    return replace(plan, create=create, update=update, unchanged=unchanged)


def pods_of(s: EndpointSlice) -> Iterable[str]:
    for e in s.endpoints or ():
        if e.target_ref is not None and e.target_ref.kind == "Pod":
            yield e.target_ref.name


def render(words: Mapping[str, str]) -> str:
    """JSON, in order of names; of too many those that take traffic are left out first."""
    kept = sorted(words, key=lambda name: (words[name].startswith("in: "), name))[:MOST]
    shown = {name: words[name] for name in sorted(kept)}
    if len(words) > len(kept):
        shown[FURTHER] = f"and {len(words) - len(kept)} more"
    return msgspec.json.encode(shown).decode()


def with_text(s: EndpointSlice, text: str) -> EndpointSlice:
    """With this annotation; without it for ""."""
    annotations = {k: v for k, v in (s.metadata.annotations or {}).items() if k != DECISIONS}
    if text:
        annotations[DECISIONS] = text
    return msgspec.structs.replace(s, metadata=msgspec.structs.replace(s.metadata, annotations=annotations or None))
