"""What objects count for against ResourceQuotas, and what a refusal says. Pure.

A `Footprint` is what one object uses: amounts by the names that quotas use for them, and the scopes it is in. Amounts
are `Quantity`s; plain counts are quantities too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kubesvc.api import quantity
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import PERSISTENT_VOLUME_CLAIM, POD, SERVICE
from kubesvc.api.meta import Object
from kubesvc.api.quantity import ZERO, Quantity

COUNTED = frozenset(
    {"configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"}
)
"""Core resources that quotas may also name without `count/`."""
COMPUTE = ("cpu", "memory", "ephemeral-storage")
DEMANDED = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
"""What every container must state where a quota limits it."""
DONE = ("Succeeded", "Failed")

Amounts = dict[str, Quantity]


@dataclass(frozen=True, slots=True)
class Footprint:
    """scopes: those a pod is in; other objects are in none and count only for quotas without scopes.
    missing: names of containers that do not state an amount, by the amount's name."""

    amounts: Amounts = field(default_factory=dict)
    scopes: frozenset[str] = frozenset()
    priority_class: str = ""
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def count(number: int) -> Quantity:
    return Quantity(number * quantity.NANO)


def amounts_of(listed: Any) -> Amounts:
    """A resource list as quantities; what is none is left out."""
    found: Amounts = {}
    for name, text in (listed or {}).items():
        try:
            found[name] = quantity.parse(text)
        except (ValueError, TypeError):
            continue
    return found


def add(into: Amounts, more: Mapping[str, Quantity]) -> None:
    for name, amount in more.items():
        into[name] = into.get(name, ZERO) + amount


def subtract(into: Amounts, less: Mapping[str, Quantity]) -> None:
    for name, amount in less.items():
        into[name] = into.get(name, ZERO) - amount


def footprint_of(kind: Kind, obj: Object) -> Footprint:
    """What an object uses."""
    amounts: Amounts = {f"count/{kind.resource}": count(1)}
    if not kind.group and kind.plural in COUNTED and kind is not POD:
        amounts[kind.plural] = count(1)
    if kind is POD:
        return pod_footprint(obj, amounts)
    if kind is SERVICE:
        add(amounts, service_amounts(obj.get("spec") or {}))
    elif kind is PERSISTENT_VOLUME_CLAIM:
        add(amounts, claim_amounts(obj.get("spec") or {}))
    return Footprint(amounts)


def service_amounts(spec: Object) -> Amounts:
    ports = spec.get("ports") or []
    if spec.get("type") == "NodePort":
        return {"services.nodeports": count(len(ports))}
    if spec.get("type") == "LoadBalancer":
        allocated = ports
        if spec.get("allocateLoadBalancerNodePorts") is False:
            allocated = [p for p in ports if p.get("nodePort")]
        return {"services.loadbalancers": count(1), "services.nodeports": count(len(allocated))}
    return {}


def claim_amounts(spec: Object) -> Amounts:
    storage = amounts_of((spec.get("resources") or {}).get("requests")).get("storage", ZERO)
    amounts = {"requests.storage": storage}
    if name := spec.get("storageClassName"):
        base = f"{name}.storageclass.storage.k8s.io"
        amounts |= {f"{base}/requests.storage": storage, f"{base}/persistentvolumeclaims": count(1)}
    return amounts


def pod_footprint(pod: Object, amounts: Amounts) -> Footprint:
    spec = pod.get("spec") or {}
    if (pod.get("status") or {}).get("phase") in DONE:
        return Footprint(amounts)
    amounts["pods"] = count(1)
    requests, limits = pod_total(spec, "requests"), pod_total(spec, "limits")
    for name, amount in requests.items():
        amounts[f"requests.{name}"] = amount
        if name in COMPUTE:
            amounts[name] = amount
    for name, amount in limits.items():
        amounts[f"limits.{name}"] = amount
    scopes = {"Terminating" if spec.get("activeDeadlineSeconds") is not None else "NotTerminating"}
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    stated = any((c.get("resources") or {}).get(k) for c in containers for k in ("requests", "limits"))
    scopes.add("NotBestEffort" if stated else "BestEffort")
    if crosses_namespaces(spec.get("affinity") or {}):
        scopes.add("CrossNamespacePodAffinity")
    priority_class = spec.get("priorityClassName") or ""
    if priority_class:
        scopes.add("PriorityClass")
    missing: dict[str, tuple[str, ...]] = {}
    for demanded in DEMANDED:
        part, _, name = demanded.rpartition(".")
        part = part or "requests"
        without = [c.get("name") or "" for c in containers if name not in ((c.get("resources") or {}).get(part) or {})]
        if without:
            missing[demanded] = tuple(sorted(without))
    return Footprint(amounts, frozenset(scopes), priority_class, missing)


def pod_total(spec: Object, part: str) -> Amounts:
    """What a pod's containers need together: all at once, or one of those that run before them, whichever is more."""

    def of(container: Object) -> Amounts:
        return amounts_of((container.get("resources") or {}).get(part))

    total: Amounts = {}
    for container in spec.get("containers") or ():
        add(total, of(container))
    beside: Amounts = {}
    most: Amounts = {}
    for container in spec.get("initContainers") or ():
        needed = of(container)
        if container.get("restartPolicy") == "Always":
            add(total, needed)
            add(beside, needed)
            needed = dict(beside)
        else:
            add(needed, beside)
        for name, amount in needed.items():
            most[name] = max(most.get(name, ZERO), amount)
    for name, amount in most.items():
        total[name] = max(total.get(name, ZERO), amount)
    for name, amount in amounts_of(spec.get("overhead")).items():
        if part == "requests" or name in total:
            add(total, {name: amount})
    return total


def crosses_namespaces(affinity: Object) -> bool:
    for sort in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(sort) or {}
        found = list(terms.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        weighted = terms.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        found += [w.get("podAffinityTerm") or {} for w in weighted]
        if any(t.get("namespaces") or t.get("namespaceSelector") is not None for t in found):
            return True
    return False


def matches(quota: Object, footprint: Footprint) -> bool:
    """Whether an object is in all scopes of a quota."""
    spec = quota.get("spec") or {}
    if not all(scope in footprint.scopes for scope in spec.get("scopes") or ()):
        return False
    for wanted in (spec.get("scopeSelector") or {}).get("matchExpressions") or ():
        scope, operator, values = wanted.get("scopeName"), wanted.get("operator"), wanted.get("values") or ()
        if scope != "PriorityClass" or operator in ("Exists", "DoesNotExist"):
            if (scope in footprint.scopes) is (operator == "DoesNotExist"):
                return False
        elif (footprint.priority_class in values) is (operator == "NotIn"):
            return False
    return True


def hard_of(quota: Object) -> Amounts:
    return amounts_of((quota.get("spec") or {}).get("hard"))


def used_by(quota: Object, footprints: Iterable[Footprint]) -> Amounts:
    """What the objects use of what a quota limits."""
    total: Amounts = dict.fromkeys(hard_of(quota), ZERO)
    for footprint in footprints:
        if matches(quota, footprint):
            add(total, {k: v for k, v in footprint.amounts.items() if k in total})
    return total


def refusal_of(quota: Object, used: Amounts, wanted: Footprint, before: Footprint | None) -> str:
    """Why a quota forbids a write, "" if it does not.

    used:   what is used now, what is under way included
    before: the footprint that `wanted` replaces; only what grows is judged
    """
    hard = hard_of(quota)
    if not matches(quota, wanted):
        return ""
    name = quota["metadata"]["name"]
    if before is None and (missing := [n for n in DEMANDED if n in hard and n in wanted.missing]):
        listed = "; ".join(f"{n} for: {','.join(wanted.missing[n])}" for n in sorted(missing))
        return f"failed quota: {name}: must specify {listed}"
    more = growth(wanted, before)
    over = sorted(n for n, amount in more.items() if n in hard and used.get(n, ZERO) + amount > hard[n])
    if not over:
        return ""

    def spelled(read: Callable[[str], Quantity]) -> str:
        return ",".join(f"{n}={read(n)}" for n in over)

    return (
        f"exceeded quota: {name}, requested: {spelled(more.__getitem__)}, "
        f"used: {spelled(lambda n: used.get(n, ZERO))}, limited: {spelled(hard.__getitem__)}"
    )


def growth(wanted: Footprint, before: Footprint | None) -> Amounts:
    """By how much a write raises what an object uses; what does not grow is left out."""
    had = before.amounts if before is not None else {}
    grown = {n: amount - had.get(n, ZERO) for n, amount in wanted.amounts.items()}
    return {n: amount for n, amount in grown.items() if amount > ZERO}
