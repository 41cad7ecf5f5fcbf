"""Certificate signing requests: what may be asked, what a change may reach, what kubectl shows."""

from __future__ import annotations

import base64
import copy
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kubesvc.api.bootstraptoken import AT_ONCE, NEVER, BootstrapToken, parse_token
from kubesvc.api.certificatesigningrequest import (
    CERTIFICATE_SIGNING_REQUEST as CSR,
)
from kubesvc.api.certificatesigningrequest import (
    CertificateSigningRequest,
    fill_times,
    request_problem,
)
from kubesvc.api.kind import Situation
from kubesvc.api.meta import typed

SITUATION = Situation()


def request_pem(name: str = "system:node:n1", group: str = "system:nodes") -> bytes:
    subject = x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, group), x509.NameAttribute(NameOID.COMMON_NAME, name)
    ])  # fmt: skip
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(
        serialization.Encoding.PEM
    )


def encoded(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def tampered(pem: bytes) -> bytes:
    """The same request with another name, which its signature does not fit."""
    der = x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER)
    changed = der.replace(b"system:node:n1", b"system:node:n2")
    body = base64.encodebytes(changed)
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"


PEM = request_pem()
OF_ANOTHER_SORT = encoded(b"-----BEGIN X-----\nAA==\n-----END X-----\n")


def request(conditions: list[dict[str, Any]] | None = None, certificate: str = "", **spec: Any) -> dict[str, Any]:
    whole = {"request": encoded(PEM), "signerName": "example.com/signer", "usages": ["client auth"], **spec}
    status: dict[str, Any] = {"conditions": conditions} if conditions else {}
    if certificate:
        status["certificate"] = certificate
    return {"metadata": {"name": "r"}, "spec": whole, "status": status}


class Refused(NamedTuple):
    name: str
    spec: dict[str, Any]
    errors: list[str]


FORM = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
REFUSED = (
    Refused("a complete one is fine", {}, []),
    Refused("a request is needed", {"request": ""},
        ['spec.request: Invalid value: "": PEM block type must be CERTIFICATE REQUEST']),
    Refused("of that sort and no other", {"request": OF_ANOTHER_SORT},
        [f'spec.request: Invalid value: "{OF_ANOTHER_SORT}": PEM block type must be CERTIFICATE REQUEST']),
    Refused("usages are needed", {"usages": []}, ["spec.usages: Required value"]),
    Refused("a usage twice", {"usages": ["client auth", "client auth"]},
        ['spec.usages[1]: Duplicate value: "client auth"']),
    Refused("a signer is needed", {"signerName": ""}, ["spec.signerName: Required value"]),
    Refused("a signer has a domain", {"signerName": "signer"},
        [f'spec.signerName: Invalid value: "signer": {FORM}']),
    Refused("and one name", {"signerName": "a.b/c/d"}, [f'spec.signerName: Invalid value: "a.b/c/d": {FORM}']),
    Refused("a domain of two labels", {"signerName": "example/x"},
        ['spec.signerName: Invalid value: "example": should be a domain with at least two segments separated by dots']),
    Refused("the signer of old is gone", {"signerName": "kubernetes.io/legacy-unknown"},
        ['spec.signerName: Invalid value: "kubernetes.io/legacy-unknown": the legacy signerName is not allowed via '
         "this API version"]),
    Refused("ten minutes at least", {"expirationSeconds": 599},
        ["spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)"]),
)  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.name)
def test_what_may_be_asked(case: Refused) -> None:
    assert [str(e) for e in CSR.validate(request(**case.spec), SITUATION)] == case.errors


def test_an_unknown_usage_is_answered_with_those_there_are() -> None:
    (error,) = CSR.validate(request(usages=["walking"]), SITUATION)
    assert str(error).startswith('spec.usages[0]: Unsupported value: "walking": supported values: "any", "cert sign", ')


def test_a_request_is_signed_by_its_own_key() -> None:
    assert request_problem(encoded(PEM)) == ""
    assert request_problem(encoded(tampered(PEM))) == "x509: ECDSA verification failure"


APPROVED = {"type": "Approved", "status": "True", "reason": "r", "message": "m"}
DENIED = {**APPROVED, "type": "Denied"}
FAILED = {**APPROVED, "type": "Failed"}
OTHER = {**APPROVED, "type": "Looked"}


class Change(NamedTuple):
    name: str
    way: str
    old: dict[str, Any]
    new: dict[str, Any]
    errors: list[str]


CONDITIONS = "status.conditions: "
CHANGES = (
    Change("approval approves", "approval", request(), request([APPROVED]), []),
    Change("but never both", "approval", request([APPROVED]), request([APPROVED, DENIED]),
        [CONDITIONS + 'Invalid value: "Denied": Approved and Denied conditions are mutually exclusive']),
    Change("a judgement is true", "approval", request(), request([{**APPROVED, "status": "False"}]),
        ['status.conditions[0].status: Unsupported value: "False": supported values: "True"']),
    Change("nobody takes it back", "approval", request([APPROVED]), request(),
        [CONDITIONS + 'Forbidden: updates may not remove a condition of type "Approved"']),
    Change("a signer approves nothing", "status", request(), request([APPROVED]),
        [CONDITIONS + 'Forbidden: updates may not add a condition of type "Approved"']),
    Change("but says that it failed", "status", request([APPROVED]), request([APPROVED, FAILED]), []),
    Change("and what else it likes", "status", request(), request([OTHER]), []),
    Change("a condition once", "status", request(), request([OTHER, OTHER]),
        ['status.conditions[1].type: Duplicate value: "Looked"']),
    Change("a certificate is one", "status", request([APPROVED]), request([APPROVED], encoded(b"no")),
        ['status.certificate: Invalid value: "<certificate data>": must contain at least one CERTIFICATE PEM block']),
    Change("and of the right sort", "status", request([APPROVED]), request([APPROVED], encoded(PEM)),
        ['status.certificate: Invalid value: "<certificate data>": only CERTIFICATE PEM blocks are allowed, found '
         '"CERTIFICATE REQUEST"']),
)  # fmt: skip


@pytest.mark.parametrize("case", CHANGES, ids=lambda c: c.name)
def test_what_a_change_may_be(case: Change) -> None:
    validate = CSR.validate_parts.get(case.way, CSR.validate_status)
    assert [str(e) for e in validate(case.new, case.old, SITUATION)] == case.errors


def test_what_a_write_reaches() -> None:
    """The spec never changes; /approval reaches no certificate; /status no judgement."""
    old = request([APPROVED], "issued")
    for way in ("", "approval", "status"):
        new = request([{**APPROVED, "message": "other"}], "other", signerName="other.com/x")
        CSR.restore(new, old, way)
        assert new["spec"] == old["spec"]
        assert new["status"]["certificate"] == ("issued" if way == "approval" else "other")
        assert new["status"]["conditions"][0]["message"] == ("m" if way == "status" else "other")


def test_times_of_conditions() -> None:
    """A condition that stays keeps the time of its change; each write has its own."""
    old = request([{**APPROVED, "lastTransitionTime": "then", "lastUpdateTime": "then"}])
    new = request([copy.deepcopy(APPROVED), copy.deepcopy(FAILED)])
    fill_times(new, old, "now")
    times = [(c["lastUpdateTime"], c["lastTransitionTime"]) for c in new["status"]["conditions"]]
    assert times == [("now", "then"), ("now", "now")]


ROWS = (
    (request(), ["r", "example.com/signer", "", "<none>", "Pending"]),
    (
        request([APPROVED], username="ann", expirationSeconds=3600),
        ["r", "example.com/signer", "ann", "60m", "Approved"],
    ),
    (request([DENIED]), ["r", "example.com/signer", "", "<none>", "Denied"]),
    (request([APPROVED, FAILED]), ["r", "example.com/signer", "", "<none>", "Approved,Failed"]),
    (request([APPROVED], "x"), ["r", "example.com/signer", "", "<none>", "Approved,Issued"]),
)


@pytest.mark.parametrize(("obj", "cells"), ROWS, ids=lambda v: v[-1] if isinstance(v, list) else "")
def test_its_row(obj: dict[str, Any], cells: list[str]) -> None:
    found = typed(obj, CertificateSigningRequest)
    assert [c.name for c in CSR.columns] == [
        "Name", "Age", "SignerName", "Requestor", "RequestedDuration", "Condition"
    ]  # fmt: skip
    assert [c.cell(found) for c in CSR.columns if c.name != "Age"] == cells


# -- bootstrap tokens

TOKEN = {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}
TYPE = "bootstrap.kubernetes.io/token"
MARKED = ("system:bootstrappers",)


class Held(NamedTuple):
    name: str
    type: str
    data: dict[str, str]
    found: BootstrapToken | None


HELD = (
    Held("a token", TYPE, TOKEN, BootstrapToken("abcdef", "0123456789abcdef", NEVER, True, MARKED)),
    Held("of another type it is none", "Opaque", TOKEN, None),
    Held("without a secret it is none", TYPE, {"token-id": "abcdef"}, None),
    Held("it may end", TYPE, {**TOKEN, "expiration": "1970-01-01T00:01:00Z"},
        BootstrapToken("abcdef", "0123456789abcdef", 60.0, True, MARKED)),
    Held("at a time nobody can read", TYPE, {**TOKEN, "expiration": "soon"},
        BootstrapToken("abcdef", "0123456789abcdef", AT_ONCE, True, MARKED)),
    Held("it may serve other ends", TYPE, {**TOKEN, "usage-bootstrap-authentication": "yes"},
        BootstrapToken("abcdef", "0123456789abcdef", NEVER, False, MARKED)),
    Held("with groups", TYPE, {**TOKEN, "auth-extra-groups": "system:bootstrappers:b,system:bootstrappers:a"},
        BootstrapToken("abcdef", "0123456789abcdef", NEVER, True,
            ("system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:b"))),
    Held("never with groups of others", TYPE, {**TOKEN, "auth-extra-groups": "system:masters"},
        BootstrapToken("abcdef", "0123456789abcdef", NEVER, True, None)),
)  # fmt: skip


@pytest.mark.parametrize("case", HELD, ids=lambda c: c.name)
def test_what_a_secret_says_of_a_token(case: Held) -> None:
    assert BootstrapToken.of(case.type, case.data) == case.found


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("abcdef.0123456789abcdef", ("abcdef", "0123456789abcdef")),
        ("ABCDEF.0123456789abcdef", None),
        ("abcdef.0123456789abcde", None),
        ("abcdef.0123456789abcdef\n", None),
        ("abcdef0123456789abcdef", None),
    ],
)
def test_the_form_of_a_token(text: str, parts: tuple[str, str] | None) -> None:
    assert parse_token(text) == parts
