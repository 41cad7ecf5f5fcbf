"""Admission of CertificateSigningRequests: who asks is written into them, and who may judge and sign is checked.

The plugins are upstream's CertificateApproval, CertificateSigning and CertificateSubjectRestriction. A right to judge
or sign for a signer is a right on the made-up resource `signers`, by the signer's name or by its domain,
`example.com/*`.
"""

from __future__ import annotations

from collections.abc import Callable

from kubesvc.api.certificatesigningrequest import (
    CERTIFICATE_SIGNING_REQUEST,
    CLIENT,
    GROUP,
    BadRequest,
    fill_times,
    parse_request,
)
from kubesvc.api.fields import quote
from kubesvc.api.meta import Object
from kubesvc.clock import Clock, rfc3339

from . import refusals
from .authentication import MASTERS, User, requester, user_info
from .authorization import Attributes

Allowed = Callable[[Attributes], bool]
"""Whether an access is allowed by the server's authorizers."""


def name_requester(obj: Object, user: User) -> None:
    """Write who asks into the spec, in place, whatever the client put there."""
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        spec = obj["spec"] = {}
    for name in ("username", "uid", "groups", "extra"):
        spec.pop(name, None)
    spec.update(user_info(user))


class CertificateAdmission:
    """Judges writes of certificate signing requests. Pure but for the time of conditions."""

    def __init__(self, clock: Clock, enabled: Callable[[str], bool]) -> None:
        self.clock = clock
        self.enabled = enabled
        self.allowed: Allowed = lambda access: True

    def create(self, obj: Object) -> None:
        """Name who asks, in place."""
        name_requester(obj, requester.get())

    def validate_create(self, obj: Object) -> None:
        """Nobody becomes a master by a certificate that a client asked for. Raises Forbidden."""
        spec = obj.get("spec") or {}
        if spec.get("signerName") != CLIENT or not self.enabled("CertificateSubjectRestriction"):
            return
        from cryptography.x509.oid import NameOID

        try:
            subject = parse_request(spec.get("request") or "").subject
        except BadRequest:
            return  # refused by validation
        if any(a.value == MASTERS for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)):
            why = f"use of {CLIENT} signer with {MASTERS} group is not allowed"
            raise refusals.forbidden(CERTIFICATE_SIGNING_REQUEST, obj["metadata"].get("name") or "", why)

    def update(self, new: Object, old: Object, subresource: str) -> None:
        """Judge a write to /approval or /status, and fill in its conditions' times. Raises Forbidden."""
        if subresource not in ("approval", "status"):
            return
        fill_times(new, old, rfc3339(self.clock.now()))
        signer = (old.get("spec") or {}).get("signerName") or ""
        name = old["metadata"]["name"]
        if subresource == "approval":
            if self.enabled("CertificateApproval") and not self.may("approve", signer):
                why = f"user not permitted to approve requests with signerName {quote(signer)}"
                raise refusals.forbidden(CERTIFICATE_SIGNING_REQUEST, name, why)
            return
        after, before = new.get("status") or {}, old.get("status") or {}
        if all(after.get(part) == before.get(part) for part in ("certificate", "conditions")):
            return
        if self.enabled("CertificateSigning") and not self.may("sign", signer):
            why = f"user not permitted to sign requests with signerName {quote(signer)}"
            raise refusals.forbidden(CERTIFICATE_SIGNING_REQUEST, name, why)

    def may(self, verb: str, signer: str) -> bool:
        """Whether the requester has a right on a signer, or on all of its domain."""
        user = requester.get()
        names = (signer, signer.partition("/")[0] + "/*")
        return any(self.allowed(Attributes(user, verb, GROUP, "*", "signers", name=n)) for n in names)
