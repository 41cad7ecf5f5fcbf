"""Gives each active namespace its ServiceAccount `default`, and again when it is deleted (AUTH-8)."""

from __future__ import annotations

from kubesvc.api.errors import AlreadyExists, NotFound
from kubesvc.api.kinds import NAMESPACE, SERVICE_ACCOUNT
from kubesvc.api.namespace import Namespace
from kubesvc.api.serviceaccount import ServiceAccount
from kubesvc.client.workqueue import Key

from .runner import Controller, ControllerContext, key_of

DEFAULT = "default"


class ServiceAccountController(Controller):
    """Keys are namespaces."""

    name = "serviceaccount-controller"
    component = "service-account-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.namespaces = ctx.informers.of(NAMESPACE)
        self.accounts = ctx.informers.of(SERVICE_ACCOUNT)
        self.namespaces.on_change(self.namespace_moved)
        self.accounts.on_change(self.account_moved)

    def namespace_moved(self, _: Namespace | None, new: Namespace | None) -> None:
        if new is not None:
            self.queue.add(key_of(new))

    def account_moved(self, old: ServiceAccount | None, new: ServiceAccount | None) -> None:
        if new is None and old is not None and old.name == DEFAULT:
            self.queue.add(("", old.namespace))

    async def reconcile(self, key: Key) -> None:
        namespace = self.namespaces.get(key)
        if namespace is None or namespace.metadata.deletion_timestamp or namespace.status.phase == "Terminating":
            return
        if self.accounts.get((namespace.name, DEFAULT)) is not None:
            return
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": DEFAULT}}
        try:
            await self.client.create(SERVICE_ACCOUNT, body, namespace.name)
        except (AlreadyExists, NotFound):
            return
