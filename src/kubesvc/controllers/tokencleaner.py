"""Deletes bootstrap tokens whose time has come."""

from __future__ import annotations

from kubesvc.api.bootstraptoken import NEVER, BootstrapToken
from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.kinds import SECRET
from kubesvc.api.secret import Secret, decoded
from kubesvc.client.workqueue import Key

from .runner import Controller, ControllerContext, key_of

NAMESPACE = "kube-system"


class TokenCleaner(Controller):
    """Keys are Secrets of kube-system that hold a token."""

    name = "token-cleaner-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.secrets = ctx.informers.of(SECRET)
        self.secrets.on_change(self.moved)

    def moved(self, _: Secret | None, new: Secret | None) -> None:
        if new is not None and new.namespace == NAMESPACE and token_of(new) is not None:
            self.queue.add(key_of(new))

    async def reconcile(self, key: Key) -> None:
        secret = self.secrets.get(key)
        token = token_of(secret) if secret is not None else None
        if secret is None or token is None or token.expires == NEVER:
            return
        left = token.expires - self.ctx.clock.now()
        if left > 0:
            self.queue.add_after(key, left)
            return
        meta = secret.metadata
        try:
            await self.client.delete(
                SECRET, secret.name, NAMESPACE, uid=meta.uid, resource_version=meta.resource_version
            )
        except (NotFound, Conflict):
            return  # gone, or changed meanwhile: then its change is looked at


def token_of(secret: Secret) -> BootstrapToken | None:
    """The token a Secret holds, if it holds one."""
    data = {k: decoded(v).decode(errors="replace") for k, v in (secret.data or {}).items()}
    return BootstrapToken.of(secret.type, data)
