"""The condition DisruptionTarget: a pod ends for a reason that is not its own, which Jobs may leave uncounted."""

from __future__ import annotations

from kubesvc.api.kinds import POD
from kubesvc.api.meta import Object
from kubesvc.api.pod import Pod
from kubesvc.client.interface import Client
from kubesvc.clock import Clock, rfc3339


async def mark(client: Client, clock: Clock, pod: Pod, reason: str, message: str, *, phase: str = "") -> None:
    """Write the condition, and the phase if one is given, before the pod is deleted; NotFound if it is gone already.

    message: "" for the phase alone
    """
    status: Object = {"phase": phase} if phase else {}
    said = pod.status.condition("DisruptionTarget")
    if message and (said is None or said.status != "True" or said.reason != reason):
        at = rfc3339(clock.now())
        condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
        status["conditions"] = [{**condition, "lastTransitionTime": at}]
    if status:
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": status}
        await client.patch(POD, pod.name, pod.namespace, patch, "strategic", subresource="status")
