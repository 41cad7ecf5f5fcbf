"""Certificate signing requests get judged, signed and forgotten; bootstrap tokens end."""

from __future__ import annotations

import base64
import functools
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kubesvc.api.certificatesigningrequest import (
    CLIENT,
    KUBELET_CLIENT,
    KUBELET_SERVING,
    CertificateSigningRequest,
    CertificateSigningRequestSpec,
)
from kubesvc.api.errors import NotFound
from kubesvc.api.kinds import CERTIFICATE_SIGNING_REQUEST as CSR
from kubesvc.api.kinds import SECRET
from kubesvc.api.meta import Object, typed
from kubesvc.clock import rfc3339
from kubesvc.controllers import ControllerSettings
from kubesvc.controllers.certificates_plan import Authority, NotAllowed, is_due, is_open, is_over, node_permissions

from .house import House, in_house

EPOCH = 1_767_225_600.0
NODE_USAGES = ["digital signature", "client auth"]
NAMES = ("certificatesigningrequest-approving-controller", "certificatesigningrequest-signing-controller",
         "certificatesigningrequest-cleaner-controller", "token-cleaner-controller")  # fmt: skip


@functools.cache
def authority() -> tuple[bytes, bytes]:
    """A CA that ends 400 days after the epoch: certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    start = datetime.fromtimestamp(EPOCH, UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(start - timedelta(days=1)).not_valid_after(start + timedelta(days=400))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), private


@functools.cache
def asked(name: str, groups: tuple[str, ...], dns: tuple[str, ...] = ()) -> str:
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, g) for g in groups]
    subject.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if dns:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(d) for d in dns]), critical=False)
    key = ec.generate_private_key(ec.SECP256R1())
    return base64.b64encode(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)).decode()


def request(name: str = "system:node:n1", groups: tuple[str, ...] = ("system:nodes",), signer: str = KUBELET_CLIENT,
            usages: list[str] | None = None, dns: tuple[str, ...] = (), **spec: Any) -> Object:  # fmt: skip
    whole = {"request": asked(name, groups, dns), "signerName": signer, "usages": usages or NODE_USAGES, **spec}
    return {"metadata": {"name": "r"}, "spec": whole}


def of(obj: Object) -> CertificateSigningRequest:
    return typed(obj, CertificateSigningRequest)


class Right(NamedTuple):
    name: str
    request: Object
    rights: list[str]


SELF, ANY = "selfnodeclient", "nodeclient"
RIGHTS = (
    Right("a machine that wants to be a node", request(username="system:bootstrap:abcdef"), [ANY]),
    Right("a node that renews", request(username="system:node:n1"), [SELF, ANY]),
    Right("another node is no help", request(username="system:node:n2"), [ANY]),
    Right("RSA keys encipher", request(usages=["key encipherment", *NODE_USAGES]), [ANY]),
    Right("no server", request(usages=["server auth", "digital signature"]), []),
    Right("no further names", request(dns=("n1",)), []),
    Right("no further groups", request(groups=("system:nodes", "system:masters")), []),
    Right("no other name", request(name="ann"), []),
    Right("no other signer", request(signer=CLIENT), []),
    Right("nothing that cannot be read", {**request(), "spec": {**request()["spec"], "request": "AAAA"}}, []),
)


@pytest.mark.parametrize("case", RIGHTS, ids=lambda c: c.name)
def test_which_right_lets_a_request_pass_unseen(case: Right) -> None:
    assert [right for right, _ in node_permissions(of(case.request))] == case.rights


class Signed(NamedTuple):
    name: str
    request: Object
    refused: str
    """"" for a request that is signed."""


SIGNED = (
    Signed("a node's own", request(), ""),
    Signed("not in another group", request(groups=("staff",)), "subject organization is not system:nodes"),
    Signed("a node's server", request(signer=KUBELET_SERVING, dns=("n1",), usages=["server auth", "digital signature"]),
        ""),
    Signed("which needs a name", request(signer=KUBELET_SERVING, usages=["server auth", "digital signature"]),
        "DNS or IP subjectAltName is required"),
    Signed("anybody's", request(name="ann", groups=("staff",), signer=CLIENT, usages=["client auth"]), ""),
    Signed("but no server's", request(name="ann", groups=(), signer=CLIENT, usages=["server auth"]),
        "usages did not match [client auth digital signature key encipherment]"),
)  # fmt: skip


@pytest.mark.parametrize("case", SIGNED, ids=lambda c: c.name)
def test_what_is_signed(case: Signed) -> None:
    signer = Authority(*authority(), 3600.0)
    if case.refused:
        with pytest.raises(NotAllowed) as error:
            signer.issue(of(case.request), 7, EPOCH)
        assert str(error.value) == case.refused
        return
    pem = base64.b64decode(signer.issue(of(case.request), 7, EPOCH))
    found = x509.load_pem_x509_certificate(pem)
    wanted = x509.load_pem_x509_csr(base64.b64decode(case.request["spec"]["request"]))
    assert found.subject == wanted.subject and found.serial_number == 7
    ca = x509.load_pem_x509_certificate(authority()[0])
    found.verify_directly_issued_by(ca)
    uses = list(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    server = "server auth" in case.request["spec"]["usages"]
    assert uses == [ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


DAY = 86400.0
LIVES = (
    ("as long as a signer allows", None, 30 * DAY, 30 * DAY - 300),
    ("or as asked for", 10 * 3600, 30 * DAY, 10 * 3600 - 300),
    ("short ones in full", 3600, 30 * DAY, 3600),
    ("never more than is allowed", 60 * int(DAY), 30 * DAY, 30 * DAY - 300),
    ("never beyond the authority's own end", None, 4000 * DAY, 400 * DAY),
)


@pytest.mark.parametrize(("name", "wanted", "longest", "lives"), LIVES, ids=[c[0] for c in LIVES])
def test_how_long_it_lives(name: str, wanted: int | None, longest: float, lives: float) -> None:
    spec: dict[str, Any] = {} if wanted is None else {"expirationSeconds": wanted}
    pem = Authority(*authority(), longest).issue(of(request(**spec)), 7, EPOCH)
    found = x509.load_pem_x509_certificate(base64.b64decode(pem))
    assert found.not_valid_before_utc.timestamp() == EPOCH - 300, name
    assert found.not_valid_after_utc.timestamp() == EPOCH + lives


def judged(*kinds: str, ago: float, certificate: str = "") -> CertificateSigningRequest:
    when = rfc3339(EPOCH - ago)
    conditions = [{"type": k, "status": "True", "lastUpdateTime": when} for k in kinds]
    meta = {"name": "r", "creationTimestamp": rfc3339(EPOCH - ago)}
    return of({**request(), "metadata": meta, "status": {"conditions": conditions, "certificate": certificate}})


@functools.cache
def issued(longest: float) -> str:
    return Authority(*authority(), longest).issue(of(request()), 7, EPOCH - 3000)


OVER = (
    ("one that waits stays a day", (), 86_000, "", False),
    ("and no longer", (), 87_000, "", True),
    ("one that was denied an hour", ("Denied",), 3500, "", False),
    ("and no longer", ("Denied",), 3700, "", True),
    ("one that failed too", ("Approved", "Failed"), 3700, "", True),
    ("one that nobody signs a day", ("Approved",), 80_000, "", False),
    ("and no longer", ("Approved",), 87_000, "", True),
    ("one that was issued an hour", ("Approved",), 3500, "long", False),
    ("and no longer", ("Approved",), 3700, "long", True),
    ("unless its certificate has ended", ("Approved",), 10, "short", True),
)


@pytest.mark.parametrize(("name", "kinds", "ago", "certificate", "over"), OVER, ids=[c[0] + str(c[2]) for c in OVER])
def test_when_it_is_forgotten(name: str, kinds: tuple[str, ...], ago: float, certificate: str, over: bool) -> None:
    found = {"": "", "long": issued(30 * DAY), "short": issued(600.0)}[certificate]
    assert is_over(judged(*kinds, ago=ago, certificate=found), EPOCH) is over, name


def test_states() -> None:
    assert is_open(judged(ago=0)) and not is_open(judged("Denied", ago=0))
    assert is_due(judged("Approved", ago=0)) and not is_due(judged("Approved", "Denied", ago=0))
    assert not is_due(judged("Approved", ago=0, certificate="x")) and not is_due(judged("Approved", "Failed", ago=0))


def test_a_node_gets_its_certificate_and_others_wait() -> None:
    """Approved for who has the right, signed, and nobody else's."""

    def may(spec: CertificateSigningRequestSpec, group: str, resource: str, subresource: str, verb: str) -> bool:
        assert (group, resource, verb) == ("certificates.k8s.io", "certificatesigningrequests", "create")
        return subresource == ANY and "system:bootstrappers" in (spec.groups or ())

    async def story(house: House) -> None:
        certificate, key = authority()
        settings = ControllerSettings(may=may, signing_certificate=certificate, signing_key=key)
        house.start(NAMES, settings)
        from kubesvc.apiserver.authentication import User, requester

        for name, groups in (("mine", ("system:bootstrappers",)), ("other", ("staff",))):
            held = requester.set(User(f"u-{name}", groups=groups))
            await house.client.create(CSR, {**request(), "metadata": {"name": name}})
            requester.reset(held)
        await house.settle(10)
        mine = await house.client.get(CSR, "mine")
        (condition,) = mine["status"]["conditions"]
        assert (condition["type"], condition["reason"]) == ("Approved", "AutoApproved")
        assert condition["message"] == "Auto approving kubelet client certificate after SubjectAccessReview."
        found = x509.load_pem_x509_certificate(base64.b64decode(mine["status"]["certificate"]))
        assert found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:n1"
        other = await house.client.get(CSR, "other")
        assert other["status"] == {}
        # Somebody approves by hand what its signer does not sign: that is told.
        wrong = {**request(groups=("staff",)), "metadata": {"name": "wrong"}}
        made = await house.client.create(CSR, wrong)
        made["status"] = {"conditions": [{"type": "Approved", "status": "True"}]}
        await house.client.update(CSR, made, subresource="approval")
        await house.settle(10)
        kinds = {c["type"]: c for c in (await house.client.get(CSR, "wrong"))["status"]["conditions"]}
        assert kinds["Failed"]["reason"] == "SignerValidationFailure"
        assert kinds["Failed"]["message"] == "subject organization is not system:nodes"
        await house.settle(3 * 3600)
        with pytest.raises(NotFound):
            await house.client.get(CSR, "mine")
        assert await house.client.get(CSR, "other")

    in_house(story)


def test_tokens_end_at_their_time() -> None:
    async def story(house: House) -> None:
        house.start(NAMES)

        async def token(id: str, **data: str) -> None:
            whole = {"token-id": id, "token-secret": "0123456789abcdef", **data}
            values = {k: base64.b64encode(v.encode()).decode() for k, v in whole.items()}
            body = {"metadata": {"name": f"bootstrap-token-{id}"}, "type": "bootstrap.kubernetes.io/token",
                    "data": values}  # fmt: skip
            await house.client.create(SECRET, body, "kube-system")

        async def left() -> set[str]:
            found = await house.every(SECRET, "kube-system")
            return {s["metadata"]["name"].removeprefix("bootstrap-token-") for s in found}

        await token("stays0")
        await token("ended0", expiration=rfc3339(EPOCH - 1))
        await token("later0", expiration=rfc3339(EPOCH + 1000))
        await house.settle(5)
        assert await left() == {"stays0", "later0"}
        await house.settle(1000)
        assert await left() == {"stays0"}

    in_house(story)
