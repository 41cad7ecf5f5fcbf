"""A small kopf operator: every Service labelled `wants=card` gets a ConfigMap that tells its cluster address."""

from __future__ import annotations

from typing import Any

import kopf
from kubernetes_asyncio import client, config


@kopf.on.startup()
async def prepare(settings: kopf.OperatorSettings, **_: Any) -> None:
    await config.load_kube_config()
    settings.persistence.finalizer = "cards.example.com/finalizer"


def card(name: str, spec: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"card-{name}"},
        "data": {"address": spec["clusterIP"], "port": str(spec["ports"][0]["port"])},
    }
    kopf.adopt(body)
    return body


@kopf.on.create("services", labels={"wants": "card"})
@kopf.on.update("services", labels={"wants": "card"}, field="spec.ports")
async def written(name: str, namespace: str | None, spec: Any, patch: kopf.Patch, **_: Any) -> str:
    async with client.ApiClient() as api:
        core: Any = client.CoreV1Api(api)
        body = card(name, spec)
        try:
            await core.create_namespaced_config_map(namespace, body)
        except client.ApiException as error:
            if error.status != 409:
                raise
            await core.replace_namespaced_config_map(f"card-{name}", namespace, body)
    patch.metadata.annotations["cards.example.com/port"] = str(spec["ports"][0]["port"])
    return "written"


@kopf.on.delete("services", labels={"wants": "card"})
async def removed(name: str, namespace: str | None, **_: Any) -> None:
    async with client.ApiClient() as api:
        core: Any = client.CoreV1Api(api)
        await core.delete_namespaced_config_map(f"card-{name}", namespace)
