"""Names of Pods' own, such as `web-0.web` (EP708): who has one, and why a name below a Service leads nowhere. Pure.

A Pod has such a name if it says a hostname and, as its subdomain, the name of a headless Service that selects it. A
StatefulSet gives its Pods both, the second from `serviceName`, which nothing checks and nothing can change later.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from kubesvc.api.daemonset import DAEMON_SET
from kubesvc.api.deployment import DEPLOYMENT
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Typed
from kubesvc.api.pod import Pod
from kubesvc.api.selectors import equality_selector
from kubesvc.api.service import SERVICE, Service
from kubesvc.api.statefulset import STATEFUL_SET, StatefulSet

from . import commands
from .commands import some
from .diagnosis import Finding
from .nearest import nearest
from .snapshot import Snapshot


def nameless(service: Service, pods: Sequence[Pod], snapshot: Snapshot) -> list[Finding]:
    """EP708: Pods of a headless Service whose subdomain names a Service that does not exist. The Service works all the
    same, so it is a warning."""
    if not service.headless or not snapshot.knows(SERVICE):
        return []
    lost: dict[str, list[Pod]] = {}
    for pod in pods:
        if pod.spec.hostname and misnamed(pod, service, snapshot):
            lost.setdefault(pod.spec.subdomain, []).append(pod)
    return [no_names(service, group, snapshot, "warning") for _, group in sorted(lost.items())]


def misnamed(pod: Pod, service: Service, snapshot: Snapshot) -> bool:
    """Whether a Pod's subdomain is no Service's name."""
    wanted = pod.spec.subdomain
    return bool(wanted) and wanted != service.name and not snapshot.has_service((pod.namespace, wanted))


def no_names(service: Service, pods: Sequence[Pod], snapshot: Snapshot, severity: str) -> Finding:
    """EP708 about Pods that share one subdomain.

    service: the headless Service that selects them, below which their names are missed
    """
    first = pods[0]
    wrong = first.spec.subdomain
    maker = snapshot.owner(first)
    meant = bool(nearest(wrong, [service.name]))
    controller = first.metadata.controller
    whose = f"{controller.kind.lower()}/{controller.name}" if controller else f"pod/{first.name}"
    if maker is not None:
        whose = f"{maker[0].singular_name}/{maker[1].name}"
    outdated = isinstance(maker[1], StatefulSet) and maker[1].spec.service_name == service.name if maker else False
    if outdated:
        said = f"they were made when {whose} still named {wrong}"
    else:
        called = "as its governing Service" if whose.startswith("statefulset/") else "as subdomain"
        said = f"{whose} names {wrong} {called}, which does not exist" + (
            f"; did you mean {service.name}?" if meant else ""
        )
    names = [f"{p.spec.hostname}.{service.name}" for p in pods]
    do = "would" if snapshot.source == "manifests" else "does" if len(names) == 1 else "do"
    if outdated or meant:
        command = renamed(service, pods, maker, snapshot)
    else:
        made = commands.manifest(service, clusterIP="None", type=None)
        made["metadata"]["name"] = wrong
        command = commands.apply(made)
    return Finding(
        "EP708",
        "broken" if severity == "broken" else "warning",
        f"the {'name' if len(names) == 1 else 'names'} {some(names)} {do} not resolve: {said}",
        command or commands.kubectl(first.namespace, "get", "pod", first.name, "-o", "yaml"),
        bool(command),
        (f"pod/{first.name}: hostname {first.spec.hostname}, subdomain {wrong}", *governor(maker)),
    )  # fmt: skip


def governor(maker: tuple[Kind, Typed] | None) -> tuple[str, ...]:
    if maker is None or not isinstance(maker[1], StatefulSet):
        return ()
    return (f"spec.serviceName of statefulset/{maker[1].name}: {maker[1].spec.service_name or 'none'}",)


def renamed(service: Service, pods: Sequence[Pod], maker: tuple[Kind, Typed] | None, snapshot: Snapshot) -> str:
    """The command after which the Pods have their names below the Service; "" for Pods that nothing makes anew."""
    namespace = service.namespace
    if maker is None or maker[0] not in (STATEFUL_SET, DEPLOYMENT, DAEMON_SET):
        return ""
    above = maker[1]
    if not isinstance(above, StatefulSet):
        patch = {"spec": {"template": {"spec": {"subdomain": service.name}}}}
        return commands.merge(namespace, maker[0].singular_name, above.name, patch)
    if snapshot.source == "manifests":
        step = ("replace", "/spec/serviceName", service.name)
        return commands.json_patch(namespace, "statefulset", above.name, step)
    anew = commands.kubectl(namespace, "rollout", "restart", f"statefulset/{above.name}")
    if above.spec.update_strategy.type == "OnDelete":
        anew = commands.kubectl(namespace, "delete", "pod", *(p.name for p in pods))
    if above.spec.service_name == service.name:
        return anew
    # The field cannot be changed: the set is made anew, beside its Pods and claims, and then takes them over.
    edit = f"s/^  serviceName: {above.spec.service_name}$/  serviceName: {service.name}/"
    got = commands.kubectl(namespace, "get", "statefulset", above.name, "-o", "yaml")
    put = commands.kubectl(namespace, "replace", "--force", "--cascade=orphan", "-f", "-")
    return commands.both(f"{got} | sed {shlex.quote(edit)} | {put}", anew)


def unnamed(host: str, service: Service, snapshot: Snapshot, reason: str) -> Finding | None:
    """Why the name HOST below an existing Service does not resolve; None if that follows from how its Pod is.

    reason: what the DNS server says
    """
    pod = snapshot.pods.get((service.namespace, host)) or next(
        (p for p in snapshot.matching(service) if p.spec.hostname == host), None
    )
    if pod is None:
        return no_such_name(service, reason)
    if not equality_selector(service.spec.selector).matches(pod.metadata.labels):
        return None
    if not pod.spec.hostname or not pod.spec.subdomain:
        lacks = "hostname" if not pod.spec.hostname else "subdomain"
        maker = snapshot.owner(pod)
        if maker is not None and isinstance(maker[1], StatefulSet):
            lacks = f"subdomain, since statefulset/{maker[1].name} names no governing Service"
        return no_such_name(service, f"pod/{pod.name} has no name of its own: it has no {lacks}")
    if pod.spec.subdomain == service.name:
        return None
    if misnamed(pod, service, snapshot):
        return no_names(service, [pod], snapshot, "broken")
    other = f"{pod.spec.hostname}.{pod.spec.subdomain}.{service.namespace}"
    return no_such_name(service, f"the name of pod/{pod.name} is {other}, below the Service that its subdomain names")


def no_such_name(service: Service, reason: str) -> Finding:
    """EP704."""
    selected = commands.selector_text(service.spec.selector)
    options = ("-l", selected) if selected else ()
    look = commands.kubectl(service.namespace, "get", "pods", *options, "-o", "wide")
    return Finding("EP704", "broken", f"there is no such name: {reason}", look)
