"""LimitRanges enforced: what pods and claims get that do not say, and between which bounds they must stay. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubesvc.api import quantity
from kubesvc.api.meta import Object
from kubesvc.api.quantity import ZERO, Quantity

from .quota import Amounts, amounts_of, pod_total

ANNOTATION = "kubernetes.io/limit-ranger"


def items_of(ranges: Iterable[Object], type: str) -> list[Object]:
    """The limits of a type in all ranges of a namespace."""
    return [i for r in ranges for i in (r.get("spec") or {}).get("limits") or () if i.get("type") == type]


def fill_in(pod: Object, ranges: Iterable[Object]) -> None:
    """Give containers the requests and limits that they do not state, in place, and say so in an annotation."""
    spec = pod.get("spec") or {}
    items = items_of(ranges, "Container")
    said = []
    for word, containers in (("container", spec.get("containers")), ("init container", spec.get("initContainers"))):
        for container in containers or ():
            resources = dict(container.get("resources") or {})
            for part, source in (("requests", "defaultRequest"), ("limits", "default")):
                wanted: dict[str, Any] = {}
                for item in items:
                    wanted = {**(item.get(source) or {}), **wanted}
                missing = {k: v for k, v in sorted(wanted.items()) if k not in (resources.get(part) or {})}
                if missing:
                    resources[part] = {**(resources.get(part) or {}), **missing}
                    names = ", ".join(missing)
                    said.append(f"{names} {part.removesuffix('s')} for {word} {container.get('name') or ''}")
            if resources:
                container["resources"] = resources
    if said:
        meta = pod["metadata"]
        text = "LimitRanger plugin set: " + "; ".join(said)
        meta["annotations"] = {**(meta.get("annotations") or {}), ANNOTATION: text}


def problems_of_pod(pod: Object, ranges: Iterable[Object]) -> list[str]:
    """What of a pod is out of bounds."""
    ranges = list(ranges)
    spec = pod.get("spec") or {}
    problems: list[str] = []
    for item in items_of(ranges, "Container"):
        for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
            resources = container.get("resources") or {}
            requests, limits = amounts_of(resources.get("requests")), amounts_of(resources.get("limits"))
            problems += problems_of(item, "Container", requests, limits)
    for item in items_of(ranges, "Pod"):
        problems += problems_of(item, "Pod", pod_total(spec, "requests"), pod_total(spec, "limits"))
    return problems


def problems_of_claim(claim: Object, ranges: Iterable[Object]) -> list[str]:
    """What a PersistentVolumeClaim asks for out of bounds."""
    requests = amounts_of((((claim.get("spec") or {}).get("resources")) or {}).get("requests"))
    problems: list[str] = []
    for item in items_of(ranges, "PersistentVolumeClaim"):
        problems += problems_of(item, "PersistentVolumeClaim", requests, {}, with_limits=False)
    return problems


def problems_of(item: Object, type: str, requests: Amounts, limits: Amounts, *, with_limits: bool = True) -> list[str]:
    """How one set of amounts breaks one item of a LimitRange."""
    found = []
    for name, least in sorted(amounts_of(item.get("min")).items()):
        about = f"minimum {name} usage per {type} is {least}"
        if name not in requests:
            found.append(f"{about}.  No request is specified")
        elif requests[name] < least:
            found.append(f"{about}, but request is {requests[name]}")
        if with_limits and name in limits and limits[name] < least:
            found.append(f"{about}, but limit is {limits[name]}")
    for name, most in sorted(amounts_of(item.get("max")).items()):
        about = f"maximum {name} usage per {type} is {most}"
        if with_limits:
            if name not in limits:
                found.append(f"{about}.  No limit is specified")
            elif limits[name] > most:
                found.append(f"{about}, but limit is {limits[name]}")
        if name in requests and requests[name] > most:
            found.append(f"{about}, but request is {requests[name]}")
    for name, ratio in sorted(amounts_of(item.get("maxLimitRequestRatio")).items()):
        if problem := ratio_problem(name, type, ratio, requests.get(name, ZERO), limits.get(name, ZERO)):
            found.append(problem)
    return found


def ratio_problem(name: str, type: str, ratio: Quantity, request: Quantity, limit: Quantity) -> str:
    about = f"{name} max limit to request ratio per {type} is {ratio}, but"
    if not request:
        return f"{about} no request is specified or request is 0"
    if not limit:
        return f"{about} no limit is specified or limit is 0"
    if limit.nanos * quantity.NANO > ratio.nanos * request.nanos:
        return f"{about} provided ratio is {limit.nanos / request.nanos:f}"
    return ""


def aggregate(problems: list[str]) -> str:
    """Several texts in one, as Go joins errors."""
    unique = list(dict.fromkeys(problems))
    return unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]"
