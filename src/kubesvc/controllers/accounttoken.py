"""Fills Secrets of type `kubernetes.io/service-account-token` with a token of the account that they name, and removes
those whose account is gone."""

from __future__ import annotations

import base64
from collections.abc import Callable

from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.kinds import SECRET, SERVICE_ACCOUNT
from kubesvc.api.meta import Object
from kubesvc.api.secret import ACCOUNT_NAME, TOKEN, Secret
from kubesvc.api.serviceaccount import ServiceAccount
from kubesvc.client.workqueue import Key

from .runner import Controller, ControllerContext, key_of

ACCOUNT_UID = "kubernetes.io/service-account.uid"


class AccountTokenController(Controller):
    """Keys are Secrets. Without `settings.account_token` nobody can sign, and nothing is done."""

    name = "serviceaccount-token-controller"
    component = "tokens-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.secrets = ctx.informers.of(SECRET)
        self.accounts = ctx.informers.of(SERVICE_ACCOUNT)
        self.secrets.on_change(self.secret_moved)
        self.accounts.on_change(self.account_moved)

    def secret_moved(self, _: Secret | None, new: Secret | None) -> None:
        if new is not None and new.type == TOKEN:
            self.queue.add(key_of(new))

    def account_moved(self, old: ServiceAccount | None, new: ServiceAccount | None) -> None:
        moved = new or old
        assert moved is not None
        for secret in self.secrets.in_namespace(moved.metadata.namespace):
            if secret.type == TOKEN and secret.metadata.annotation(ACCOUNT_NAME) == moved.name:
                self.queue.add(key_of(secret))

    async def reconcile(self, key: Key) -> None:
        secret, sign = self.secrets.get(key), self.ctx.settings.account_token
        if sign is None or secret is None or secret.type != TOKEN or secret.metadata.deletion_timestamp:
            return
        name = secret.metadata.annotation(ACCOUNT_NAME) or ""
        try:
            account = await self.client.get(SERVICE_ACCOUNT, name, key[0])
        except NotFound:
            account = None
        wanted_uid = secret.metadata.annotation(ACCOUNT_UID)
        if account is None or (wanted_uid and wanted_uid != account["metadata"]["uid"]):
            await self.remove(secret)
            return
        live = await self.client.get(SECRET, secret.name, key[0])
        lacking = {k: v for k, v in self.contents(account, live, sign).items() if not (live.get("data") or {}).get(k)}
        annotations = live["metadata"].setdefault("annotations", {})
        if not lacking and annotations.get(ACCOUNT_UID) == account["metadata"]["uid"]:
            return
        annotations[ACCOUNT_UID] = account["metadata"]["uid"]
        live["data"] = {**(live.get("data") or {}), **lacking}
        await self.client.update(SECRET, live)

    def contents(self, account: Object, secret: Object, sign: Callable[[Object, str], str]) -> dict[str, str]:
        """What such a Secret holds, in base64; the certificate only where it is known."""
        texts = {"namespace": account["metadata"]["namespace"]}
        if self.ctx.settings.root_ca:
            texts["ca.crt"] = self.ctx.settings.root_ca
        if not (secret.get("data") or {}).get("token"):
            texts["token"] = sign(account, secret["metadata"]["name"])
        return {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}

    async def remove(self, secret: Secret) -> None:
        meta = secret.metadata
        try:
            await self.client.delete(
                SECRET, secret.name, meta.namespace, uid=meta.uid, resource_version=meta.resource_version
            )
        except (NotFound, Conflict):
            return  # gone, or changed meanwhile: then its change is looked at
