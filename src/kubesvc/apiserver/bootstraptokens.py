"""Bootstrap tokens: `id.secret`, held by a Secret of their own type in kube-system, with which a machine that has no
other credentials asks to join.

Reads the cache at each request: a Secret that is deleted, or whose time has come, counts no more at that moment.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Sequence

from kubesvc.api.bootstraptoken import BootstrapToken, parse_token, secret_name
from kubesvc.api.kinds import SECRET
from kubesvc.clock import Clock

from .authentication import ALL_AUTHENTICATED, User
from .cache import Cache

NAMESPACE = "kube-system"


class BootstrapTokens:
    """Knows the users of bootstrap tokens. audiences: whom the API server's tokens are meant for."""

    def __init__(self, cache: Cache, clock: Clock, audiences: Sequence[str]) -> None:
        self.cache = cache
        self.clock = clock
        self.audiences = tuple(audiences)

    def user_of(self, token: str, audiences: Sequence[str] = ()) -> User | None:
        """The user a token speaks for; None for what is no such token, or is not (or no longer) accepted."""
        parts = parse_token(token)
        if parts is None or (audiences and not set(audiences) & set(self.audiences)):
            return None
        id, secret = parts
        item = self.cache.of(SECRET).get(NAMESPACE, secret_name(id))
        if item is None or item.terminating:
            return None
        data = json.loads(item.value).get("data") or {}
        held = BootstrapToken.of(
            item.field("type"), {k: base64.b64decode(v or "").decode(errors="replace") for k, v in data.items()}
        )
        if held is None or held.id != id or not hmac.compare_digest(held.secret.encode(), secret.encode()):
            return None
        if held.expired(self.clock.now()) or not held.authenticates or held.groups is None:
            return None
        return User(f"system:bootstrap:{id}", groups=(*held.groups, ALL_AUTHENTICATED))
