"""The controllers of certificate signing requests: one approves what nodes ask for, one signs, one forgets."""

from __future__ import annotations

import asyncio
from functools import cached_property

from kubesvc.api.certificatesigningrequest import GROUP, CertificateSigningRequest
from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.kinds import CERTIFICATE_SIGNING_REQUEST
from kubesvc.api.meta import Object
from kubesvc.client.workqueue import Key
from kubesvc.clock import rfc3339

from .certificates_plan import Authority, NotAllowed, is_due, is_open, is_over, node_permissions
from .runner import Controller, ControllerContext, ExpectedFailure, key_of

CLEANING_SECONDS = 3600.0
SERIAL_BITS = 127


class CertificateController(Controller):
    """What approver and signer share: keys are requests that nobody has issued yet."""

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.requests = ctx.informers.of(CERTIFICATE_SIGNING_REQUEST)
        self.requests.on_change(self.moved)

    def moved(self, _: CertificateSigningRequest | None, new: CertificateSigningRequest | None) -> None:
        if new is not None and not new.status.certificate:
            self.queue.add(key_of(new))

    async def conclude(
        self, request: CertificateSigningRequest, subresource: str, condition: Object | None, certificate: str = ""
    ) -> None:
        """Add a condition, or the certificate, to the request as it was seen."""
        body = await self.client.get(CERTIFICATE_SIGNING_REQUEST, request.name)
        if body["metadata"]["resourceVersion"] != request.metadata.resource_version:
            raise Conflict("the request has changed meanwhile")
        status = body.setdefault("status", {})
        if condition is not None:
            now = rfc3339(self.ctx.clock.now())
            status["conditions"] = [*(status.get("conditions") or ()), {"lastUpdateTime": now, **condition}]
        if certificate:
            status["certificate"] = certificate
        await self.client.update(CERTIFICATE_SIGNING_REQUEST, body, subresource=subresource)


class CertificateApprover(CertificateController):
    """Approves a node's request for its client certificate if who asks has the right to get it unseen."""

    name = "certificatesigningrequest-approving-controller"

    async def reconcile(self, key: Key) -> None:
        request, may = self.requests.get(key), self.ctx.settings.may
        if request is None or may is None or not is_open(request):
            return
        permissions = node_permissions(request)
        for subresource, message in permissions:
            if may(request.spec, GROUP, "certificatesigningrequests", subresource, "create"):
                condition = {"type": "Approved", "status": "True", "reason": "AutoApproved", "message": message}
                await self.conclude(request, "approval", condition)
                return
        if permissions:
            tried = " ".join(subresource for subresource, _ in permissions)
            raise ExpectedFailure(
                f"recognized csr {request.name!r} as [{tried}] but subject access review was not approved"
            )


class CertificateSigner(CertificateController):
    """Issues what was approved, for the signers of the cluster itself. Without a CA's key it does nothing."""

    name = "certificatesigningrequest-signing-controller"

    @cached_property
    def authority(self) -> Authority:
        settings = self.ctx.settings
        return Authority(settings.signing_certificate, settings.signing_key, settings.cluster_signing_duration)

    async def reconcile(self, key: Key) -> None:
        request = self.requests.get(key)
        if request is None or not self.ctx.settings.signing_key or not is_due(request):
            return
        serial = self.ctx.random.getrandbits(SERIAL_BITS) + 1
        try:
            certificate = self.authority.issue(request, serial, self.ctx.clock.now())
        except NotAllowed as error:
            reason = "SignerValidationFailure"
            condition = {"type": "Failed", "status": "True", "reason": reason, "message": str(error)}
            await self.conclude(request, "status", condition)
            return
        await self.conclude(request, "status", None, certificate)


class CertificateCleaner(Controller):
    """Forgets requests that have been kept long enough, each hour."""

    name = "certificatesigningrequest-cleaner-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.requests = ctx.informers.of(CERTIFICATE_SIGNING_REQUEST)

    async def run_beside(self) -> None:
        while True:
            for request in list(self.requests.values()):
                if is_over(request, self.ctx.clock.now()):
                    await self.forget(request)
            await asyncio.sleep(CLEANING_SECONDS)

    async def forget(self, request: CertificateSigningRequest) -> None:
        try:
            await self.client.delete(CERTIFICATE_SIGNING_REQUEST, request.name, "", uid=request.metadata.uid)
        except (NotFound, Conflict):
            return
