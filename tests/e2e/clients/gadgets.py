"""A small kopf operator on a kind of its own: every Gadget gets a ConfigMap with its colour, and a status."""

from __future__ import annotations

from typing import Any

import kopf
from kubernetes_asyncio import client, config


@kopf.on.startup()
async def prepare(settings: kopf.OperatorSettings, **_: Any) -> None:
    await config.load_kube_config()
    settings.persistence.finalizer = "factory.example.com/finalizer"


@kopf.on.create("factory.example.com", "v1", "gadgets")
async def made(name: str, namespace: str | None, spec: Any, patch: kopf.Patch, **_: Any) -> None:
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"paint-{name}"},
        "data": {"colour": spec["colour"]},
    }
    kopf.adopt(body)
    async with client.ApiClient() as api:
        core: Any = client.CoreV1Api(api)
        await core.create_namespaced_config_map(namespace, body)
    patch.status["replicas"] = spec["replicas"]
    patch.status["conditions"] = [{"type": "Ready", "status": "True"}]


@kopf.on.field("factory.example.com", "v1", "gadgets", field="spec.replicas")
async def scaled(new: Any, patch: kopf.Patch, **_: Any) -> None:
    patch.status["replicas"] = new


@kopf.on.delete("factory.example.com", "v1", "gadgets")
async def unmade(**_: Any) -> None:
    """Only the finalizer is wanted: what a Gadget owns is collected."""
