"""CertificateSigningRequest: somebody asks for a certificate, somebody approves it, a signer issues it.

Who asked is written by the server and never changes; the spec is what was asked for and never changes either.
`cryptography` is imported when a request is checked, and by nobody who only reads such objects.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from . import ages, fields, names, shape
from .checks import items, part
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Object, Struct, Typed
from .secret import decoded

if TYPE_CHECKING:
    from cryptography.x509 import CertificateSigningRequest as X509Request

GROUP = "certificates.k8s.io"
APPROVED, DENIED, FAILED = "Approved", "Denied", "Failed"
JUDGEMENTS = (APPROVED, DENIED)
CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY = "kubernetes.io/legacy-unknown"
LEAST_SECONDS = 600
USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip
"""All a request may ask its certificate to be good for."""
LONGEST_DOMAIN, LONGEST_SIGNER = 253, 571
PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s(.*?)-----END \1-----", re.DOTALL)


class CertificateSigningRequestSpec(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("request", "signer_name")

    request: str = ""
    """PEM in base64, as the wire has it."""
    signer_name: str = ""
    expiration_seconds: int | None = None
    usages: list[str] | None = None
    username: str = ""
    uid: str = ""
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class CertificateSigningRequestCondition(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("type", "status", "last_update_time", "last_transition_time")

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_update_time: str | None = None
    last_transition_time: str | None = None


class CertificateSigningRequestStatus(Struct, frozen=True):
    conditions: list[CertificateSigningRequestCondition] | None = None
    certificate: str = ""
    """PEM in base64, "" until it is issued."""

    def condition(self, type_: str) -> CertificateSigningRequestCondition | None:
        return next((c for c in self.conditions or () if c.type == type_), None)


class CertificateSigningRequest(Typed, frozen=True):
    spec: CertificateSigningRequestSpec = CertificateSigningRequestSpec()
    status: CertificateSigningRequestStatus = CertificateSigningRequestStatus()


class BadRequest(ValueError):
    """What stands in spec.request is no request; the text says why."""


def parse_request(encoded: str) -> X509Request:
    """The request that `spec.request` (PEM in base64) holds, its signature not yet checked. Raises BadRequest."""
    from cryptography import x509

    found = PEM_BLOCK.search(decoded(encoded))
    if found is None or found[1] != b"CERTIFICATE REQUEST":
        raise BadRequest("PEM block type must be CERTIFICATE REQUEST")
    try:
        return x509.load_pem_x509_csr(found[0])
    except ValueError:
        raise BadRequest("asn1: structure error: malformed certificate request") from None


def request_problem(encoded: str) -> str:
    """What is wrong with `spec.request`, "" if nothing: it must parse, and be signed by the key that it names."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    try:
        request = parse_request(encoded)
        if request.is_signature_valid:
            return ""
        key = request.public_key()
    except BadRequest as error:
        return str(error)
    except (UnsupportedAlgorithm, ValueError):
        return "x509: cannot verify signature: algorithm unimplemented"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "x509: ECDSA verification failure"
    return "crypto/rsa: verification error" if isinstance(key, rsa.RSAPublicKey) else "x509: verification failure"


def certificate_problem(encoded: str) -> str:
    """What is wrong with `status.certificate`, "" if nothing: one PEM block or more, all of certificates."""
    from cryptography import x509

    if not encoded:
        return ""
    blocks = list(PEM_BLOCK.finditer(decoded(encoded)))
    for block in blocks:
        if block[1] != b"CERTIFICATE":
            return f"only CERTIFICATE PEM blocks are allowed, found {fields.quote(block[1].decode())}"
        if b":" in block[2]:
            return "no PEM block headers are permitted"
        try:
            x509.load_pem_x509_certificate(block[0])
        except ValueError:
            return "x509: malformed certificate"
    return "" if blocks else "must contain at least one CERTIFICATE PEM block"


# What a write may be


def default(obj: Object) -> None:
    shape.normalize(obj, CertificateSigningRequest)


def prepare_create(obj: Object) -> None:
    """Nobody approves or issues by creating."""
    obj["status"] = {}


def restore(new: Object, old: Object, subresource: str) -> None:
    """What was asked for stays; /approval reaches no certificate, and /status no judgement as long as their number
    stays (more or fewer are refused)."""
    new["spec"] = old["spec"]
    status = new.get("status")
    if not isinstance(status, dict):
        status = new["status"] = {}
    before = part(old, "status")
    if subresource == "approval":
        status.pop("certificate", None)
        if "certificate" in before:
            status["certificate"] = before["certificate"]
    elif subresource == "status":
        conditions = items(status, "conditions")
        for judgement in JUDGEMENTS:
            theirs = [i for i, c in enumerate(conditions) if c.get("type") == judgement]
            ours = [c for c in items(before, "conditions") if c.get("type") == judgement]
            if len(theirs) == len(ours):
                for i, condition in zip(theirs, ours, strict=True):
                    conditions[i] = condition


def fill_times(new: Object, old: Object, now: str) -> None:
    """Conditions tell when they were written and when their status changed, in place. now: RFC 3339."""
    before = items(part(old, "status"), "conditions")
    for condition in items(part(new, "status"), "conditions"):
        if not condition.get("lastUpdateTime"):
            condition["lastUpdateTime"] = now
        if not condition.get("lastTransitionTime"):
            kind = (condition.get("type"), condition.get("status"))
            same = (c for c in before if (c.get("type"), c.get("status")) == kind)
            condition["lastTransitionTime"] = next((t for c in same if (t := c.get("lastTransitionTime"))), now)


SPEC, STATUS = Path("spec"), Path("status")
CONDITIONS = STATUS / "conditions"


def validate(obj: Object, _: Situation) -> Errors:
    return validate_against(obj, None)


def validate_against(new: Object, old: Object | None) -> Errors:
    """All errors of an object. What an older state had wrong already may stay so."""
    spec, before = part(new, "spec"), part(old, "spec")
    errors: Errors = []
    if old is None and (problem := request_problem(spec.get("request") or "")):
        errors.append(fields.invalid(SPEC / "request", spec.get("request") or "", problem))
    usages = items(spec, "usages")
    if not usages:
        errors.append(fields.required(SPEC / "usages"))
    if not set(items(before, "usages")) - set(USAGES):
        for i, usage in enumerate(usages):
            if usage not in USAGES:
                errors.append(fields.not_supported(SPEC / "usages" @ i, usage, USAGES))
    if len(set(items(before, "usages"))) == len(items(before, "usages")):
        for i, usage in enumerate(usages):
            if usage in usages[:i]:
                errors.append(fields.duplicate(SPEC / "usages" @ i, usage))
    signer = spec.get("signerName") or ""
    if signer == LEGACY and before.get("signerName") != LEGACY:
        errors.append(
            fields.invalid(SPEC / "signerName", signer, "the legacy signerName is not allowed via this API version")
        )
    else:
        errors += signer_errors(signer, SPEC / "signerName")
    seconds = spec.get("expirationSeconds")
    if isinstance(seconds, int) and seconds < LEAST_SECONDS:
        text = "may not specify a duration less than 600 seconds (10 minutes)"
        errors.append(fields.invalid(SPEC / "expirationSeconds", seconds, text))
    errors += condition_errors(new, old)
    certificate, issued = (part(o, "status").get("certificate") or "" for o in (new, old))
    if certificate != issued and (problem := certificate_problem(certificate)) and not certificate_problem(issued):
        errors.append(fields.invalid(STATUS / "certificate", "<certificate data>", problem))
    return errors


def signer_errors(signer: str, path: Path) -> Errors:
    """A signer is a domain of two labels or more, a slash, and a name."""
    if not signer:
        return [fields.required(path)]
    segments = signer.split("/")
    if len(segments) != 2:
        text = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        return [fields.invalid(path, signer, text)]
    domain, name = segments
    errors: Errors = []
    if len(domain) > LONGEST_DOMAIN:
        errors.append(fields.too_long(path, LONGEST_DOMAIN))
    for shown, check in ((domain, names.dns_label), (name, names.dns_subdomain)):
        wrong = next((label for label in shown.split(".") if check(label)), None)
        if wrong is not None:
            errors += [
                fields.invalid(path, shown, f"validating label {fields.quote(wrong)}: {t}") for t in check(wrong)
            ]
        if shown is domain and "." not in domain:
            text = "should be a domain with at least two segments separated by dots"
            errors.append(fields.invalid(path, domain, text))
    if len(signer) > LONGEST_SIGNER:
        errors.append(fields.too_long(path, LONGEST_SIGNER))
    return errors


def condition_errors(new: Object, old: Object | None) -> Errors:
    """Judgements and failures are only ever true, and nobody is both approved and denied."""
    before = [c.get("type") or "" for c in items(part(old, "status"), "conditions")]
    both = set(JUDGEMENTS) <= set(before)
    errors: Errors = []
    seen: list[str] = []
    for i, condition in enumerate(items(part(new, "status"), "conditions")):
        kind, status = condition.get("type") or "", condition.get("status") or ""
        if not kind and "" not in before:
            errors.append(fields.required(CONDITIONS @ i / "type"))
        allowed = ("True",) if kind in (*JUDGEMENTS, FAILED) else ("False", "True", "Unknown")
        if not status:
            errors.append(fields.required(CONDITIONS @ i / "status"))
        elif status not in allowed:
            errors.append(fields.not_supported(CONDITIONS @ i / "status", status, allowed))
        if not both and kind in JUDGEMENTS and {APPROVED: DENIED, DENIED: APPROVED}[kind] in seen:
            errors.append(fields.invalid(CONDITIONS, kind, "Approved and Denied conditions are mutually exclusive"))
        if kind in seen and len(set(before)) == len(before):
            errors.append(fields.duplicate(CONDITIONS @ i / "type", kind))
        seen.append(kind)
    return errors


def update_errors(new: Object, old: Object, *, judges: bool = False, issues: bool = False) -> Errors:
    """All errors of a change. judges: it comes through /approval; issues: through /status."""
    errors = validate_against(new, old)

    def of(obj: Object, kind: str) -> list[Object]:
        return [c for c in items(part(obj, "status"), "conditions") if c.get("type") == kind]

    for kind in (*JUDGEMENTS, FAILED):
        if len(of(new, kind)) < len(of(old, kind)):
            text = f"updates may not remove a condition of type {fields.quote(kind)}"
            errors.append(fields.forbidden(CONDITIONS, text))
    for kind in () if judges else JUDGEMENTS:
        if len(of(new, kind)) > len(of(old, kind)):
            errors.append(fields.forbidden(CONDITIONS, f"updates may not add a condition of type {fields.quote(kind)}"))
    certificate, issued = (part(o, "status").get("certificate") or "" for o in (new, old))
    if certificate != issued:
        if not issues:
            errors.append(fields.forbidden(STATUS / "certificate", "updates may not set certificate content"))
        elif issued:
            text = "updates may not modify existing certificate content"
            errors.append(fields.forbidden(STATUS / "certificate", text))
    return errors


def validate_update(new: Object, old: Object, _: Situation) -> Errors:
    return update_errors(new, old)


def validate_status(new: Object, old: Object, _: Situation) -> Errors:
    return update_errors(new, old, issues=True)


def validate_approval(new: Object, old: Object, _: Situation) -> Errors:
    return update_errors(new, old, judges=True)


# Columns


def state_text(request: CertificateSigningRequest) -> str:
    """What has become of it: Pending, Approved or Denied; then Failed; then Issued."""
    status = request.status
    words = ["Denied" if status.condition(DENIED) else "Approved" if status.condition(APPROVED) else "Pending"]
    words += ["Failed"] * bool(status.condition(FAILED)) + ["Issued"] * bool(status.certificate)
    return ",".join(words)


def duration_text(request: CertificateSigningRequest) -> str:
    seconds = request.spec.expiration_seconds
    return "<none>" if seconds is None else ages.render_age(seconds)


CERTIFICATE_SIGNING_REQUEST = Kind(
    group=GROUP,
    version="v1",
    name="CertificateSigningRequest",
    plural="certificatesigningrequests",
    namespaced=False,
    type=CertificateSigningRequest,
    schema="io.k8s.api.certificates.v1.CertificateSigningRequest",
    short_names=("csr",),
    subresources=(Subresource(name="approval"), Subresource(name="status")),
    default=default,
    prepare_create=prepare_create,
    restore=restore,
    validate=validate,
    validate_update=validate_update,
    validate_status=validate_status,
    validate_parts={"approval": validate_approval},
    name_errors=lambda name: (),
    columns=(
        Column("Name", lambda r: r.name, format="name"),
        Column("Age", lambda r: Since(r.metadata.creation_timestamp)),
        Column("SignerName", lambda r: r.spec.signer_name),
        Column("Requestor", lambda r: r.spec.username),
        Column("RequestedDuration", duration_text),
        Column("Condition", state_text),
    ),
    fields={"spec.signerName": lambda r: r.spec.signer_name},
    has_status=True,
)
