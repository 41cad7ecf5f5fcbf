"""Publishes the cluster's root certificate as ConfigMap `kube-root-ca.crt` in each active namespace (AUTH-8)."""

from __future__ import annotations

from kubesvc.api.configmap import ConfigMap
from kubesvc.api.errors import AlreadyExists, NotFound
from kubesvc.api.kinds import CONFIG_MAP, NAMESPACE
from kubesvc.api.meta import Object
from kubesvc.api.namespace import Namespace
from kubesvc.client.workqueue import Key

from .runner import Controller, ControllerContext, key_of

NAME = "kube-root-ca.crt"
DESCRIPTION_KEY = "kubernetes.io/description"
DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


class RootCaPublisher(Controller):
    """Keys are namespaces. Without `settings.root_ca` it publishes nothing."""

    name = "root-ca-certificate-publisher-controller"
    component = "root-ca-cert-publisher"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.namespaces = ctx.informers.of(NAMESPACE)
        self.maps = ctx.informers.of(CONFIG_MAP)
        self.namespaces.on_change(self.namespace_moved)
        self.maps.on_change(self.map_moved)

    def namespace_moved(self, _: Namespace | None, new: Namespace | None) -> None:
        if new is not None:
            self.queue.add(key_of(new))

    def map_moved(self, old: ConfigMap | None, new: ConfigMap | None) -> None:
        moved = new or old
        assert moved is not None
        if moved.name == NAME:
            self.queue.add(("", moved.namespace))

    async def reconcile(self, key: Key) -> None:
        namespace = self.namespaces.get(key)
        certificate = self.ctx.settings.root_ca
        if namespace is None or not certificate:
            return
        if namespace.metadata.deletion_timestamp or namespace.status.phase == "Terminating":
            return
        current = self.maps.get((namespace.name, NAME))
        if current is not None and right(current, certificate):
            return
        body: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": NAME,
                "namespace": namespace.name,
                "annotations": {
                    **((current.metadata.annotations if current else None) or {}),
                    DESCRIPTION_KEY: DESCRIPTION,
                },
            },
            "data": {"ca.crt": certificate},
        }
        try:
            if current is None:
                await self.client.create(CONFIG_MAP, body, namespace.name)
            else:
                await self.client.update(CONFIG_MAP, body)
        except (AlreadyExists, NotFound):
            return


def right(current: ConfigMap, certificate: str) -> bool:
    return current.data == {"ca.crt": certificate} and current.metadata.annotation(DESCRIPTION_KEY) == DESCRIPTION
