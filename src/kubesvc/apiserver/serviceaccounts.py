"""Service accounts of pods: which account a pod runs under, and the volume its token comes in (AUTH-9)."""

from __future__ import annotations

import asyncio

from kubesvc.api.fields import quote
from kubesvc.api.kinds import POD, SERVICE_ACCOUNT
from kubesvc.api.meta import Object
from kubesvc.clock import Random

from . import refusals
from .bookkeeping import GENERATED_ALPHABET
from .cache import Cache

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_SECONDS = 3607
DEFAULT_ACCOUNT = "default"
PATIENCE_SECONDS = (0.9, 1.8)
"""How long a pod may wait for the account `default` of its namespace: between these, by chance, as in upstream's nine
waits of 0.1 to 0.2 s."""
LOOK_SECONDS = 0.01


def account_of(pod: Object) -> str:
    """The name of the account that a pod runs under."""
    spec = pod["spec"]
    return spec.get("serviceAccountName") or spec.get("serviceAccount") or DEFAULT_ACCOUNT


async def await_default_account(cache: Cache, namespace: str, pod: Object, random: Random) -> None:
    """Give the controller that makes the account `default` of each namespace a moment, so that whoever makes one and
    then a pod in it is not refused. No other account is waited for."""
    accounts = cache.of(SERVICE_ACCOUNT)
    if account_of(pod) != DEFAULT_ACCOUNT or accounts.get(namespace, DEFAULT_ACCOUNT) is not None:
        return
    loop = asyncio.get_running_loop()
    until = loop.time() + random.uniform(*PATIENCE_SECONDS)
    while accounts.get(namespace, DEFAULT_ACCOUNT) is None and loop.time() < until:
        await asyncio.sleep(LOOK_SECONDS)


def admit_service_account(cache: Cache, namespace: str, pod: Object, random: Random) -> None:
    """Give a pod its account and, unless that is off, the projected token volume; in place. Forbidden if the account
    does not exist."""
    spec, name = pod["spec"], account_of(pod)
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = cache.of(SERVICE_ACCOUNT).get(namespace, name)
    if account is None:
        raise refusals.forbidden(
            POD,
            pod["metadata"].get("name") or "",
            f"error looking up service account {namespace}/{name}: serviceaccount {quote(name)} not found",
        )
    automount = spec.get("automountServiceAccountToken")
    if automount is None:
        automount = getattr(account.typed(), "automount_service_account_token", None)
    if automount is False:
        return
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    wanting = [c for c in containers if all(m.get("mountPath") != MOUNT_PATH for m in c.get("volumeMounts") or ())]
    if not wanting:
        return
    volume = "kube-api-access-" + "".join(random.choices(GENERATED_ALPHABET, k=5))
    for container in wanting:
        mount = {"name": volume, "readOnly": True, "mountPath": MOUNT_PATH}
        container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]
    spec["volumes"] = [*(spec.get("volumes") or ()), token_volume(volume)]


def token_volume(name: str) -> Object:
    """The projected volume with token, CA and namespace."""
    return {
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {
                    "downwardAPI": {
                        "items": [
                            {
                                "path": "namespace",
                                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                            }
                        ]
                    }
                },
            ],
            "defaultMode": 420,
        },
    }
