"""Tokens of service accounts: issued on request, known again when they come back (AUTH-5 to AUTH-7).

There are two sorts. Those of TokenRequests expire and are bound to objects; they end with what they are bound to. Those
that Secrets of their own type hold do neither, and end with the Secret. `documents` tells others how to check the
first sort.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kubesvc.api import fields
from kubesvc.api.errors import BadRequest
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import NODE, POD, SECRET, SERVICE_ACCOUNT
from kubesvc.api.meta import Object
from kubesvc.clock import Clock, Random, parse_rfc3339, rfc3339

from . import refusals
from .authentication import BadToken, User, account_user
from .bookkeeping import new_uid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from .cache import Cache
    from .registry import Registry

DEFAULT_SECONDS = 3600
LEAST_SECONDS = 600
MOST_SECONDS = 1 << 32
MOST_KNOWN = 4096
WARN_SECONDS = 3607
"""Who asks for just this gets a token that lives longer and only warns after it: old clients never read it again."""
EXTENDED_SECONDS = 365 * 24 * 3600
LEEWAY_SECONDS = 60
BOUND_KINDS = {"Pod": POD, "Secret": SECRET, "Node": NODE}
LEGACY_ISSUER = "kubernetes/serviceaccount"
LEGACY = "kubernetes.io/serviceaccount/"
JWKS_PATH = "/openid/v1/jwks"
CONFIGURATION_PATH = "/.well-known/openid-configuration"
GROUP, KIND = "authentication.k8s.io", "TokenRequest"


def new_key() -> bytes:
    """A signing key, as PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class TokenIssuer:
    """Signs and checks service account tokens with one EC key, made when first needed if none is given."""

    def __init__(
        self, issuers: Sequence[str], clock: Clock, random: Random, key_pem: bytes = b"", most_seconds: int = 0
    ) -> None:
        """issuers: the name that is put into tokens, and further ones that are known in them; most_seconds: how long a
        token may live that is asked for, 0 for as long as can be said"""
        self.issuers = tuple(issuers)
        self.issuer = self.issuers[0]
        self.most_seconds = most_seconds
        self.clock = clock
        self.random = random
        self.key_pem = key_pem
        self.cache: Cache | None = None
        self._key: EllipticCurvePrivateKey | None = None
        self._key_id = ""
        self._known: dict[str, dict[str, Any]] = {}  # verified tokens and their claims

    @property
    def audiences(self) -> list[str]:
        """The API server's own."""
        return list(self.issuers)

    def key(self) -> EllipticCurvePrivateKey:
        """The signing key; `cryptography` is only imported here."""
        if self._key is None:
            import hashlib

            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric import ec

            if self.key_pem:
                loaded = serialization.load_pem_private_key(self.key_pem, None)
                assert isinstance(loaded, ec.EllipticCurvePrivateKey)
                self._key = loaded
            else:
                self._key = ec.generate_private_key(ec.SECP256R1())
            public = self._key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            self._key_id = base64.urlsafe_b64encode(hashlib.sha256(public).digest()).rstrip(b"=").decode()
        return self._key

    async def issue(self, registry: Registry, account: Object, request: Object, warnings: list[str]) -> Object:
        """The TokenRequest with its token. Raises the 4xx of AUTH-6."""
        import jwt

        meta = account["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        sent, spec = request.get("metadata") or {}, request.get("spec") or {}
        wrong: fields.Errors = []
        if sent.get("name") and sent["name"] != name:
            wrong.append(
                fields.invalid("metadata.name", sent["name"], "must match the service account name if specified")
            )
        if sent.get("namespace") and sent["namespace"] != namespace:
            wrong.append(
                fields.invalid(
                    "metadata.namespace", sent["namespace"], "must match the service account namespace if specified"
                )
            )
        if wrong:
            raise fields.invalid_object(GROUP, KIND, name, wrong)
        if sent.get("uid") and sent["uid"] != meta["uid"]:
            raise refusals.conflict(
                SERVICE_ACCOUNT,
                name,
                f"the UID in the token request ({sent['uid']}) does not match the UID of the service account "
                f"({meta['uid']})",
            )
        seconds = spec.get("expirationSeconds")
        seconds = DEFAULT_SECONDS if seconds is None else seconds
        path = "spec.expirationSeconds"
        if seconds < LEAST_SECONDS:
            wrong.append(fields.invalid(path, seconds, "may not specify a duration less than 10 minutes"))
        if seconds > MOST_SECONDS:
            wrong.append(fields.invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
        if wrong:
            raise fields.invalid_object(GROUP, KIND, "", wrong)
        if self.most_seconds and seconds > self.most_seconds:
            warnings.append(f"requested expiration of {seconds} seconds shortened to {self.most_seconds} seconds")
            seconds = self.most_seconds
        bound = await self.bound_object(registry, namespace, spec.get("boundObjectRef"))
        now = int(self.clock.now())
        private: Object = {"namespace": namespace, "serviceaccount": {"name": name, "uid": meta["uid"]}, **bound}
        audiences = spec.get("audiences") or self.audiences
        lifetime = seconds
        if seconds == WARN_SECONDS and "pod" in bound and set(audiences) <= set(self.audiences):
            private["warnafter"], lifetime = now + seconds, EXTENDED_SECONDS
        claims = {
            "aud": audiences,
            "exp": now + lifetime,
            "iat": now,
            "iss": self.issuer,
            "jti": new_uid(self.random),
            "kubernetes.io": private,
            "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        key = self.key()
        token = jwt.encode(claims, key, algorithm="ES256", headers={"kid": self._key_id})
        answered: Object = {"audiences": audiences, "expirationSeconds": seconds}
        answered["boundObjectRef"] = spec.get("boundObjectRef")
        return {
            "kind": KIND,
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": meta["uid"],
                "creationTimestamp": rfc3339(now),
            },
            "spec": answered,
            "status": {"token": token, "expirationTimestamp": rfc3339(now + seconds)},
        }

    async def bound_object(self, registry: Registry, namespace: str, reference: Object | None) -> Object:
        """The claims of the object a token is bound to, which must exist."""
        if not reference:
            return {}
        kind_name, version = reference.get("kind") or "", reference.get("apiVersion") or ""
        kind = BOUND_KINDS.get(kind_name)
        if kind is None or version != "v1":
            raise BadRequest(f"cannot bind token to object of type /{version}, Kind={kind_name}")
        name, uid = reference.get("name") or "", reference.get("uid") or ""
        item = await registry.get(kind, namespace if kind.namespaced else "", name)
        found = item.typed().metadata.uid
        if uid and uid != found:
            raise refusals.conflict(
                kind,
                name,
                f"the UID in the bound object reference ({uid}) does not match the UID in record. The object might "
                "have been deleted and then recreated",
            )
        claims: Object = {kind_name.lower(): {"name": name, "uid": found}}
        node_name = getattr(getattr(item.typed(), "spec", None), "node_name", "") if kind is POD else ""
        if node_name:
            node = registry.of(NODE).get("", node_name)
            claims["node"] = {"name": node_name}
            if node is not None:
                claims["node"]["uid"] = node.typed().metadata.uid
        return claims

    def user_of(self, token: str, audiences: Sequence[str] = ()) -> User | None:
        """The account a token speaks for; None if it is no token of this issuer, Unauthorized if it is not valid.

        audiences: for one of which the token must be meant; () stands for the API server's own
        """
        claims = self._known.get(token)
        if claims is None:
            claims = self.verified(token)
            if claims is None:
                return None
            if len(self._known) >= MOST_KNOWN:
                self._known.pop(next(iter(self._known)))
            self._known[token] = claims
        now = self.clock.now()
        wanted = audiences or self.audiences
        if claims["iss"] == LEGACY_ISSUER:
            return self.user_of_legacy(token, claims, wanted)
        if claims["exp"] <= now - LEEWAY_SECONDS:
            raise BadToken("service account token has expired")
        if claims["nbf"] > now + LEEWAY_SECONDS:
            raise BadToken("service account token is not valid yet")
        if not set(wanted) & set(claims["aud"]):
            found, target = (json.dumps(list(a), separators=(" ", ":")) for a in (claims["aud"], wanted))
            raise BadToken(f"token audiences {found} is invalid for the target audiences {target}")
        private = claims["kubernetes.io"]
        namespace, account = private["namespace"], private["serviceaccount"]
        self.check_alive(SERVICE_ACCOUNT, namespace, account)
        for part, kind in (("pod", POD), ("secret", SECRET)):
            if part in private:
                self.check_alive(kind, namespace, private[part])
        if "node" in private and "pod" not in private:  # beside a pod it only tells where that runs
            self.check_alive(NODE, "", private["node"])
        extra = {"authentication.kubernetes.io/credential-id": (f"JTI={claims['jti']}",)}
        for part in ("node", "pod"):
            if part in private:
                extra[f"authentication.kubernetes.io/{part}-name"] = (private[part]["name"],)
                if "uid" in private[part]:
                    extra[f"authentication.kubernetes.io/{part}-uid"] = (private[part]["uid"],)
        return account_user(namespace, account["name"], account["uid"], extra)

    def check_alive(self, kind: Kind, namespace: str, reference: Object) -> None:
        """AUTH-7: what a token is bound to still exists, and is not long on its way out."""
        item = self.cache.of(kind).get(namespace, reference["name"]) if self.cache is not None else None
        account = kind is SERVICE_ACCOUNT
        if item is None:
            gone = f"serviceaccounts {fields.quote(reference['name'])} not found"
            raise BadToken(gone if account else "service account token has been invalidated")
        meta = item.typed().metadata
        deleted = meta.deletion_timestamp
        if deleted and parse_rfc3339(deleted) < self.clock.now() - LEEWAY_SECONDS:
            what = "service account" if account else "service account token"
            raise BadToken(f"{what} has been {'deleted' if account else 'invalidated'}")
        if meta.uid != reference["uid"]:
            what = "service account UID" if account else f"{kind.name.lower()} UID"
            claim = "claim" if account else f"service account {kind.name.lower()} ref claim"
            raise BadToken(f"{what} ({meta.uid}) does not match {claim} ({reference['uid']})")

    def user_of_legacy(self, token: str, claims: Mapping[str, Any], wanted: Sequence[str]) -> User | None:
        """The account of a token that a Secret holds; Unauthorized if the Secret does so no more."""
        if not set(wanted) & set(self.audiences):
            return None
        namespace, account = str(claims[LEGACY + "namespace"]), str(claims[LEGACY + "service-account.name"])
        uid = str(claims[LEGACY + "service-account.uid"])
        self.check_alive(SERVICE_ACCOUNT, namespace, {"name": account, "uid": uid})
        secret = str(claims[LEGACY + "secret.name"])
        item = self.cache.of(SECRET).get(namespace, secret) if self.cache is not None else None
        held = (json.loads(item.value).get("data") or {}).get("token") or "" if item is not None else ""
        if item is None or item.terminating:
            raise BadToken("service account token has been invalidated")
        if base64.b64decode(held) != token.encode():
            raise BadToken("service account token does not match server's copy")
        return account_user(namespace, account, uid)

    def audiences_of(self, token: str) -> list[str] | None:
        """Whom a token of this issuer is meant for; None if it is none, or of the sort that is meant for the server."""
        claims = self._known.get(token)
        return None if claims is None or claims["iss"] == LEGACY_ISSUER else list(claims["aud"])

    def legacy_token(self, account: Object, secret: str) -> str:
        """A token for a Secret to hold: it neither expires nor says whom it is meant for."""
        import jwt

        meta = account["metadata"]
        claims = {
            "iss": LEGACY_ISSUER,
            LEGACY + "namespace": meta["namespace"],
            LEGACY + "secret.name": secret,
            LEGACY + "service-account.name": meta["name"],
            LEGACY + "service-account.uid": meta["uid"],
            "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
        }
        key = self.key()
        return jwt.encode(claims, key, algorithm="ES256", headers={"kid": self._key_id})

    def configuration(self, address: str) -> Object:
        """The discovery document of the issuer. `address`: host and port at which the keys are found."""
        return {
            "issuer": self.issuer,
            "jwks_uri": f"https://{address}{JWKS_PATH}",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    def key_set(self) -> Object:
        """The public keys that check tokens."""
        numbers = self.key().public_key().public_numbers()

        def coordinate(number: int) -> str:
            return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()

        key = {
            "use": "sig",
            "kty": "EC",
            "kid": self._key_id,
            "crv": "P-256",
            "alg": "ES256",
            "x": coordinate(numbers.x),
            "y": coordinate(numbers.y),
        }
        return {"keys": [key]}

    def verified(self, token: str) -> dict[str, Any] | None:
        """The claims of a token signed here; None for anything else."""
        if token.count(".") != 2:
            return None
        try:
            part = token.split(".")[1]
            if json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))).get("iss") not in (
                *self.issuers,
                LEGACY_ISSUER,
            ):
                return None
        except (ValueError, AttributeError):
            return None
        import jwt

        try:
            options = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
            found: dict[str, Any] = jwt.decode(
                token,
                self.key().public_key(),
                algorithms=["ES256"],
                options=options,  # type: ignore[arg-type]
            )
        except jwt.InvalidTokenError:
            raise BadToken from None
        if found["iss"] == LEGACY_ISSUER:
            parts = ("namespace", "service-account.name", "service-account.uid", "secret.name")
            return found if all(LEGACY + part in found for part in parts) else None
        if not isinstance(found.get("aud"), list):
            found["aud"] = [found.get("aud")]
        return found
