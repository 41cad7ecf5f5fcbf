"""Why there are no Pods though a template would make matching ones (EP201 to EP206). Pure."""

from __future__ import annotations

from kubesvc.api.daemonset import DaemonSet
from kubesvc.api.deployment import DEPLOYMENT, Deployment
from kubesvc.api.meta import Typed
from kubesvc.api.replicaset import ReplicaSet
from kubesvc.api.selectors import equality_selector
from kubesvc.api.service import Service

from . import commands
from .diagnosis import Finding
from .snapshot import Snapshot, Workload

PATIENCE_SECONDS = 5.0
"""How long a controller may take before its inaction is a finding."""


def makers(service: Service, snapshot: Snapshot) -> list[Workload]:
    """The workloads whose Pods the Service would select."""
    wanted = equality_selector(service.spec.selector)
    return [w for w in snapshot.workloads(service.namespace) if wanted.matches(w.template_labels)]


def explain_workload(workload: Workload, snapshot: Snapshot) -> Finding:
    """Why a workload has no Pods at all."""
    namespace, kind, name = workload.obj.namespace, workload.kind.singular_name, workload.obj.name
    if workload.replicas == 0:
        return Finding(
            "EP201",
            "broken",
            f"{workload.ref} is scaled to 0 replicas, so there are no Pods",
            commands.kubectl(namespace, "scale", workload.ref, "--replicas=1"),
            True,
            (f"spec.replicas of {workload.ref}: 0",),
        )
    refused = refusal(workload, snapshot)
    if refused:
        return quota(workload, refused, snapshot) or Finding(
            "EP203",
            "broken",
            f"the Pods of {workload.ref} cannot be created: {refused}",
            commands.kubectl(namespace, "describe", kind, name),
            False,
            (f"refused: {refused}",),
        )
    obj = workload.obj
    if isinstance(obj, Deployment) and obj.spec.paused and not snapshot.replica_sets(obj):
        return Finding(
            "EP204",
            "broken",
            f"{workload.ref} is paused and has not made its first Pod",
            commands.kubectl(namespace, "rollout", "resume", workload.ref),
            True,
            (f"spec.paused of {workload.ref}: true",),
        )
    if isinstance(obj, DaemonSet) and obj.status.observed_generation and not obj.status.desired_number_scheduled:
        return Finding(
            "EP206",
            "broken",
            f"no node fits {workload.ref}, so it makes no Pods",
            commands.kubectl(namespace, "describe", kind, name),
            False,
            (f"status.desiredNumberScheduled of {workload.ref}: 0",),
        )
    return Finding(
        "EP205",
        "broken",
        f"{workload.ref} asks for {pods_wanted(workload)} and nothing has made any",
        commands.kubectl(namespace, "describe", kind, name),
        False,
        (f"no Pod, no event and no condition of {workload.ref} says why",),
    )


def pods_wanted(workload: Workload) -> str:
    return "Pods" if workload.replicas is None else commands.count(workload.replicas, "Pod")


def refusal(workload: Workload, snapshot: Snapshot) -> str:
    """Why the API server does not take the workload's Pods, "" if it does not say so."""
    sources: list[tuple[str, Typed]] = [(workload.kind.name, workload.obj)]
    if workload.kind is DEPLOYMENT and isinstance(workload.obj, Deployment):
        sources += [("ReplicaSet", r) for r in reversed(snapshot.replica_sets(workload.obj))]
    for kind, obj in sources:
        if isinstance(obj, Deployment | ReplicaSet):
            for condition in obj.status.conditions or ():
                if condition.type == "ReplicaFailure" and condition.status == "True":
                    return condition.message
        failed = snapshot.events(kind, obj, "FailedCreate")
        if failed:
            return failed[-1].message
    return ""


def quota(workload: Workload, refused: str, snapshot: Snapshot) -> Finding | None:
    """EP202, with the quota that says no: the first one used up that the message names."""
    if "exceeded quota" not in refused:
        return None
    namespace = workload.obj.namespace
    for one in snapshot.quotas(namespace):
        hard, used = one.status.hard or one.spec.hard or {}, one.status.used or {}
        if f"exceeded quota: {one.name}" not in refused:
            continue
        full = [n for n in hard if n in ("pods", "count/pods") and str(used.get(n, 0)) == str(hard[n])]
        command = commands.kubectl(namespace, "describe", "resourcequota", one.name)
        if full:
            more = int(str(hard[full[0]])) + max(1, workload.replicas or 1)
            command = commands.merge(namespace, "resourcequota", one.name, {"spec": {"hard": {full[0]: str(more)}}})
        text = f"quota {one.name} forbids the Pods of {workload.ref}: {refused.partition('exceeded quota: ')[2]}"
        return Finding("EP202", "broken", text, command, bool(full), (f"refused: {refused}",))
    return Finding(
        "EP202",
        "broken",
        f"a quota forbids the Pods of {workload.ref}: {refused}",
        commands.kubectl(namespace, "describe", "resourcequota"),
        False,
        (f"refused: {refused}",),
    )
