"""Why a selector matches no Pod: misspelt, elsewhere, on the workload only, or asking too much (EP101 to EP106). Pure.

Whether it matches is the endpoint controllers' own answer (`Snapshot.matching`); only the near misses are found here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kubesvc.api.pod import POD, Pod
from kubesvc.api.selectors import equality_selector
from kubesvc.api.service import Service

from . import commands
from .commands import selector_text, some
from .diagnosis import Finding
from .nearest import alike, distance
from .snapshot import Snapshot, Workload

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NearMiss:
    """How labels fall short of a selector.

    meant:  wrong key of the selector to the (key, value) that was probably meant
    lacking: keys for which there is nothing like them
    """

    meant: Mapping[str, tuple[str, str]]
    lacking: tuple[str, ...]
    cost: int


def near_miss(selector: Labels, labels: Labels) -> NearMiss:
    """Compare pair by pair."""
    meant: dict[str, tuple[str, str]] = {}
    lacking: list[str] = []
    cost = 0
    for key, value in sorted(selector.items()):
        if labels.get(key) == value:
            continue
        found = nearest_pair(key, value, labels, taken=selector)
        if found is None:
            lacking.append(key)
            cost += 100
        else:
            meant[key] = found[1]
            cost += found[0]
    return NearMiss(meant, tuple(lacking), cost)


def nearest_pair(key: str, value: str, labels: Labels, taken: Labels) -> tuple[int, tuple[str, str]] | None:
    """(distance, pair) of the label that was meant: the same key with a value alike, or a key alike with the value or
    one alike."""
    options: list[tuple[int, tuple[str, str]]] = []
    for k, v in sorted(labels.items()):
        if k == key:
            if alike(value, v):
                options.append((distance(value, v), (k, v)))
        elif k not in taken and (alike_keys(key, k) or v == value) and (v == value or alike(value, v)):
            options.append((distance(key, k) + distance(value, v), (k, v)))
    return min(options, default=None)


def alike_keys(a: str, b: str) -> bool:
    """Keys alike, or equal but for their prefix (`app` and `app.kubernetes.io/app`)."""
    return alike(a, b) or a.rpartition("/")[2] == b.rpartition("/")[2]


def explain_selection(service: Service, snapshot: Snapshot) -> list[Finding]:
    """The findings for a Service whose selector no Pod matches and for which no template would make one."""
    selector = service.spec.selector or {}
    seen = [f"selector of svc/{service.name}: {selector_text(selector)}", shown_labels(service.namespace, snapshot)]
    found = on_workload_only(service, snapshot, seen)
    if found is not None:
        return [found]
    closest = closest_labels(service, snapshot)
    if closest is not None and not closest[0].lacking and closest[0].cost <= 3:
        return [misspelt(service, *closest, seen, equally_near(service, closest[0], snapshot))]
    others = snapshot.matching_elsewhere(service)
    if others:
        return [elsewhere(service, others, snapshot, seen)]
    if closest is not None and not closest[0].lacking:
        return [misspelt(service, *closest, seen, equally_near(service, closest[0], snapshot))]
    if closest is not None and len(closest[0].lacking) < len(selector):
        return [asks_too_much(service, *closest, seen)]
    return [nothing_like_it(service, snapshot, seen)]


def shown_labels(namespace: str, snapshot: Snapshot) -> str:
    pods = snapshot.in_namespace(POD, namespace)
    if not pods:
        return f"no Pods in namespace {namespace}"
    kept = [e.labels for e in snapshot.labellings(namespace) if e.pods]
    shown = "; ".join(selector_text(labels) or "no labels" for labels in kept[:4])
    more = f" and {len(kept) - 4} other sets" if len(kept) > 4 else ""
    return f"labels of the {commands.count(len(pods), 'Pod')} in namespace {namespace}: {shown}{more}"


def closest_labels(service: Service, snapshot: Snapshot) -> tuple[NearMiss, str, int] | None:
    """The nearest labels among Pods and templates: how they differ, of whom, and how many Pods have them."""
    selector = service.spec.selector or {}
    best: tuple[int, str, NearMiss] | None = None
    number: dict[tuple[tuple[str, tuple[str, str]], ...], int] = {}
    for entry in snapshot.labellings(service.namespace):
        miss = near_miss(selector, entry.labels)
        option = (miss.cost, entry.who, miss)
        number[same(miss)] = number.get(same(miss), 0) + entry.pods
        if best is None or option[:2] < best[:2]:
            best = option
    return (best[2], best[1], number[same(best[2])]) if best is not None else None


def same(miss: NearMiss) -> tuple[tuple[str, tuple[str, str]], ...]:
    """What is equal for Pods that fall short in the same way, whatever other labels they have."""
    return (*sorted(miss.meant.items()), *((key, ("", "")) for key in miss.lacking))


def equally_near(service: Service, miss: NearMiss, snapshot: Snapshot) -> list[str]:
    """Other labels of Pods that may have been meant as well."""
    selector = service.spec.selector or {}
    others = [near_miss(selector, e.labels) for e in snapshot.labellings(service.namespace) if e.pods]
    return sorted(
        {selector_text(dict(o.meant.values())) for o in others if o.cost == miss.cost and same(o) != same(miss)}
    )


def corrected(service: Service, miss: NearMiss) -> str:
    """The command that turns what was written in the selector into what was meant."""
    right = dict(miss.meant.values())
    patch = {k: None for k in miss.meant if k not in right} | right
    return commands.merge(service.namespace, "service", service.name, {"spec": {"selector": patch}})


def misspelt(
    service: Service, miss: NearMiss, who: str, number: int, seen: list[str], others: Sequence[str]
) -> Finding:
    """EP101 and EP102; where `others` are as near, nobody knows which was meant."""
    wrong = {k: v for k, v in (service.spec.selector or {}).items() if k in miss.meant}
    right = dict(miss.meant.values())
    key_wrong = any(k != meant[0] for k, meant in miss.meant.items())
    has = f"{commands.count(number, 'Pod')} {'has' if number == 1 else 'have'}" if number else f"{who} has"
    return Finding(
        "EP102" if key_wrong else "EP101",
        "broken",
        f"no Pod has the label {selector_text(wrong)}; {has} {selector_text(right)}"
        + (
            f", others {some(others)}; did you mean one of these?"
            if others
            else f": did you mean {selector_text(right)}?"
        ),
        commands.kubectl(service.namespace, "get", "pods", "--show-labels") if others else corrected(service, miss),
        not others,
        tuple(seen),
    )


def on_workload_only(service: Service, snapshot: Snapshot, seen: Sequence[str]) -> Finding | None:
    """EP104: the workload's own labels fulfil the selector, its template's do not."""
    selector = service.spec.selector or {}
    wanted = equality_selector(selector)
    for workload in snapshot.workloads(service.namespace):
        if wanted.matches(workload.labels) and not wanted.matches(workload.template_labels):
            lacking = {k: v for k, v in selector.items() if workload.template_labels.get(k) != v}
            if any(k in selected_keys(workload) for k in lacking):
                continue  # the template's label is what the workload selects by: it cannot be changed
            template = {"spec": {"template": {"metadata": {"labels": lacking}}}}
            return Finding(
                "EP104",
                "broken",
                f"the label {selector_text(lacking)} is on {workload.ref} itself, but not in its Pod template",
                commands.merge(service.namespace, workload.kind.singular_name, workload.obj.name, template),
                True,
                (*seen, f"template labels of {workload.ref}: {selector_text(workload.template_labels) or 'none'}"),
            )
    return None


def selected_keys(workload: Workload) -> set[str]:
    selector = getattr(workload.obj, "spec").selector  # noqa: B009 - every workload has one, of its own type
    pairs = selector if isinstance(selector, dict) else getattr(selector, "match_labels", None)
    return set(pairs or {})


def elsewhere(service: Service, others: Sequence[Pod], snapshot: Snapshot, seen: Sequence[str]) -> Finding:
    """EP103."""
    namespaces = sorted({p.namespace for p in others})
    other = next((n for n in namespaces if (n, service.name) not in snapshot.services), "")
    there = {"metadata": {"name": service.name, "namespace": other}}
    whole = commands.manifest(service)
    whole["metadata"] = {**whole["metadata"], **there["metadata"]}
    return Finding(
        "EP103",
        "broken",
        f"no Pod of namespace {service.namespace} has {selector_text(service.spec.selector)}, but "
        f"{commands.count(len(others), 'Pod')} of namespace {some(namespaces)} "
        f"{'has' if len(others) == 1 else 'have'}; a Service selects in its own namespace only",
        commands.apply(whole) if other else "",
        bool(other),
        (*seen, f"matching: {some(f'{p.namespace}/{p.name}' for p in others)}"),
    )


def asks_too_much(service: Service, miss: NearMiss, who: str, number: int, seen: Sequence[str]) -> Finding:
    """EP106."""
    selector = service.spec.selector or {}
    lacking = {k: selector[k] for k in miss.lacking}
    patch: dict[str, str | None] = dict.fromkeys(lacking)
    patch |= {k: None for k, (right, _) in miss.meant.items() if k != right} | dict(miss.meant.values())
    others = {k: v for k, v in selector.items() if k not in lacking}
    have = f"{commands.count(number, 'Pod')} with" if number else f"{who} has"
    return Finding(
        "EP106",
        "broken",
        f"no Pod has all of {selector_text(selector)}: {have} {selector_text(others)} but not with "
        f"{selector_text(lacking)}",
        commands.merge(service.namespace, "service", service.name, {"spec": {"selector": patch}}),
        True,
        tuple(seen),
    )


def nothing_like_it(service: Service, snapshot: Snapshot, seen: Sequence[str]) -> Finding:
    """EP105."""
    pods = snapshot.in_namespace(POD, service.namespace)
    many = "there are no Pods" if not pods else f"none of the {commands.count(len(pods), 'Pod')} is like it"
    return Finding(
        "EP105",
        "broken",
        f"nothing in namespace {service.namespace} has the label {selector_text(service.spec.selector)}; {many}",
        commands.kubectl(service.namespace, "get", "pods", "--show-labels"),
        False,
        tuple(seen),
    )
