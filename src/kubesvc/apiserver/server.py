"""The HTTP server: listeners, who is calling and whether they may, and the way to whoever answers.

No routing framework: a path of the API has a fixed shape, which `routing` reads. Whatever goes wrong becomes a Status;
a bug becomes a 500 with the request's id, whose traceback is in the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from aiohttp import HttpVersion10, HttpVersion11, web

from kubesvc.api.errors import ApiError, BadRequest, InternalError, MethodNotAllowed, Unauthorized
from kubesvc.api.fields import quote
from kubesvc.clock import Clock, Random

from .audit import AuditLog
from .authentication import ADMIN, ANONYMOUS, Authenticator, User, audit_notes, requester
from .authorization import Attributes, Authorizer, attributes_of, further_access, refusal
from .bookkeeping import uuid_text
from .calls import Call
from .discovery import CREATE_ONLY, Discovery
from .health import VERSION, Health
from .impersonation import impersonate, wanted_user
from .inflight import InFlight
from .kindset import Derived
from .metrics import Metrics, request_labels
from .negotiation import negotiate
from .openapi import OpenApi
from .options import TRUE, Query, first
from .protocol import ApiHttpServer
from .resources import Resources
from .reviews import Reviews
from .routing import NO_METHOD, not_allowed, not_served, parse_target
from .swaggerproto import ASKED_AS, MEDIA_TYPE
from .tokens import CONFIGURATION_PATH, JWKS_PATH

log = logging.getLogger("kubesvc.apiserver")
requests = logging.getLogger("kubesvc.apiserver.requests")
"""Tells each request, by its id, where it is asked to: it is quiet by default."""

OPEN_PATHS = ("/livez", "/readyz", "/healthz", "/version")
"""Paths that answer anonymous users whatever the settings (HEALTH-1, HEALTH-2)."""
HEADER_BYTES = 64 * 1024
LINE_BYTES = 64 * 1024
LONGEST_ID = 64
ID_STEP = 0x9E3779B97F4A7C15F39CC0605CEDC835
"""Odd, so that identifiers of requests repeat after all others only, and each looks unlike the one before."""
NOT_FOUND_TEXT = "404 page not found\n"


def is_open(path: str) -> bool:
    """Whether a path answers everybody."""
    return path.startswith(OPEN_PATHS) and any(path == p or path.startswith(p + "/") for p in OPEN_PATHS)


def parse_query(text: str) -> Query:
    """All values of all parameters."""
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        query.setdefault(name, []).append(value)
    return query


class Listener:
    """One way in that can be taken away while the server goes on."""

    def __init__(self, server: asyncio.Server, runner: ApiHttpServer) -> None:
        self.server = server
        self.runner = runner

    def cut(self) -> None:
        """Let nobody in any more, and drop who is in, in the middle of a word."""
        self.server.close()
        for connection in self.runner.connections:
            if connection.transport is not None:
                connection.transport.abort()


class HttpServer:
    """Serves one API over any number of listeners."""

    def __init__(
        self,
        resources: Resources,
        reviews: Reviews,
        discovery: Derived[Discovery],
        openapi: Derived[OpenApi],
        authenticator: Authenticator,
        authorizer: Authorizer,
        health: Health,
        metrics: Metrics,
        clock: Clock,
        random: Random,
        inflight: InFlight,
        audit: AuditLog | None = None,
    ) -> None:
        self.inflight = inflight
        self.audit = audit
        self.resources = resources
        self.reviews = reviews
        self._discovery = discovery
        self._openapi = openapi
        self.authenticator = authenticator
        self.authorizer = authorizer
        self.health = health
        self.metrics = metrics
        self.clock = clock
        self.random = random
        self.address = ""
        self._ids = random.getrandbits(128)
        self._servers: list[asyncio.Server] = []
        self._runners: list[ApiHttpServer] = []
        self._paths: list[str] = []

    @property
    def discovery(self) -> Discovery:
        """Discovery of the kinds that are served now."""
        return self._discovery.now()

    @property
    def openapi(self) -> OpenApi:
        return self._openapi.now()

    # ------------------------------------------------------------------ listeners

    def _protocol(self, peer: User | None = None) -> ApiHttpServer:
        """peer: who speaks without saying so, None for nobody"""

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await self.handle(request, peer=peer)

        runner = ApiHttpServer(
            handle,
            access_log=None,
            auto_decompress=False,  # upstream reads bodies as they are sent, and a small one stays small
            tcp_keepalive=True,
            keepalive_timeout=120.0,
            max_line_size=LINE_BYTES,
            max_field_size=HEADER_BYTES,
        )
        self._runners.append(runner)
        return runner

    async def listen_tls(self, host: str, port: int, certfile: str, keyfile: str, client_ca: str | None = None) -> int:
        """Serve HTTPS on an address; the port, chosen by the system if 0 was asked. OSError if it cannot be had.

        client_ca: file of the CA whose client certificates name users; None: certificates are not asked for
        """
        context = tls_context(certfile, keyfile, client_ca)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._protocol(), host, port, ssl=context, backlog=512)
        self._servers.append(server)
        found: int = server.sockets[0].getsockname()[1]
        if not self.address:
            self.address = f"{host}:{found}"
        return found

    async def listen_unix(self, path: str, user: User = ADMIN) -> Listener:
        """Serve plain HTTP on a socket whose directory only the owner may enter: its peers are trusted to be `user`."""
        Path(path).unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        runner = self._protocol(user)
        server = await loop.create_unix_server(runner, path, backlog=512)
        os.chmod(path, 0o600)
        self._servers.append(server)
        self._paths.append(path)
        return Listener(server, runner)

    async def listen_tls_unix(self, path: str, certfile: str, keyfile: str, client_ca: str | None = None) -> Listener:
        """Serve HTTPS on a unix socket, for relays: peers are nobody until they authenticate."""
        Path(path).unlink(missing_ok=True)
        context = tls_context(certfile, keyfile, client_ca)
        loop = asyncio.get_running_loop()
        runner = self._protocol()
        server = await loop.create_unix_server(runner, path, ssl=context, backlog=512)
        os.chmod(path, 0o600)
        self._servers.append(server)
        self._paths.append(path)
        return Listener(server, runner)

    async def close(self, grace_seconds: float = 5.0) -> None:
        """Take no more connections, let requests in flight finish, and close (HEALTH-3)."""
        for server in self._servers:
            server.close()
        self.resources.watches.stop()
        for runner in self._runners:
            runner.pre_shutdown()  # idle connections have nothing to wait for
        await asyncio.gather(*(r.shutdown(grace_seconds) for r in self._runners), return_exceptions=True)
        for path in self._paths:
            Path(path).unlink(missing_ok=True)
        self._servers.clear()
        self._runners.clear()

    # ------------------------------------------------------------------ requests

    async def handle(self, request: web.BaseRequest, *, peer: User | None) -> web.StreamResponse:
        """Answer one request. Never raises but for cancellation."""
        began = self.clock.monotonic()
        speaks = request._version in (HttpVersion10, HttpVersion11)
        if not speaks:
            request._version = HttpVersion11  # what the answer is spoken in
        raw_path, _, raw_query = request.raw_path.partition("?")
        if not raw_path.startswith("/"):  # absolute form, or the * of OPTIONS
            raw_path = request.path
        query = parse_query(raw_query)
        watch = first(query, "watch") in TRUE or ("watch" in query and first(query, "watch") == "")
        target = parse_target(request.method, raw_path, watch=watch)
        call = Call(request, target, query, self.request_id(request), peer)
        applying = target.verb == "patch" and call.media_type == "application/apply-patch+yaml"
        labels = request_labels(
            target, applying=applying, dry_run="dryRun" in query, find=self.resources.registry.kinds.by_resource
        )
        followed = self.audit.follow(call) if self.audit is not None else None
        panicked = False
        response: web.StreamResponse
        try:
            if not speaks:
                raise BadRequest("malformed HTTP request: HTTP/1.0 and HTTP/1.1 are spoken here")
            call.user = self.authenticated(call)
            if followed is not None:
                followed.known(call.authenticated or call.user)
            requester.set(call.user)
            audit_notes.set(call.annotations)
            place = self.inflight.enter(target, call.user, labels[1:])
            try:
                self.authorize(call)
                response = await self.dispatch(call)
            finally:
                self.inflight.leave(place)
        except ApiError as e:
            response = call.error(e)
        except (asyncio.CancelledError, ConnectionError):
            if followed is not None:
                followed.broken_off()
            raise
        except Exception:
            panicked = True
            log.exception("request %s: %s %s", call.id, request.method, raw_path)
            response = call.error(InternalError(f"Internal error occurred: see the server's log for request {call.id}"))
        if not speaks:
            response.force_close()
        seconds = self.clock.monotonic() - began
        size = response.content_length if isinstance(response, web.Response) else 0
        self.metrics.request(labels, response.status, seconds, size or 0)
        if requests.isEnabledFor(logging.DEBUG):
            requests.debug(
                'verb="%s" URI=%s latency="%.6fs" userAgent=%s audit-ID="%s" srcIP="%s" user=%s resp=%d',
                target.verb.upper(), quote(request.raw_path), seconds, quote(call.user_agent), call.id,
                request.remote or "", quote(call.user.name), response.status,
            )  # fmt: skip
        if followed is not None:
            followed.answered(response.status, panicked=panicked)
        return response

    def request_id(self, request: web.BaseRequest) -> str:
        """What names a request in answers and logs: what its sender calls it, or else a new UUID."""
        given = request.headers.get("Audit-Id", "")
        if given and len(given) <= LONGEST_ID and given.isascii() and given.isprintable():
            return given
        self._ids += ID_STEP
        return uuid_text(self._ids)

    def authenticated(self, call: Call) -> User:
        """As `authenticate`, and counted."""
        try:
            user = self.authenticate(call)
        except Unauthorized:
            self.metrics.attempts["error" if "Authorization" in call.request.headers else "failure"] += 1
            raise
        self.metrics.attempts["success"] += 1
        return user

    def authenticate(self, call: Call) -> User:
        """The user, after impersonation (AUTH-1, AUTH-3)."""
        headers = call.request.headers
        if call.peer is not None and "Authorization" not in headers:
            user = call.peer
        else:
            transport = call.request.transport
            certificate: Mapping[str, Any] | None = transport.get_extra_info("peercert") if transport else None
            tls = transport.get_extra_info("ssl_object") if certificate and transport else None
            user = self.authenticator.user_of(
                headers.get("Authorization", ""),
                certificate,
                open_path=is_open(call.target.path),
                der=(tls.getpeercert(binary_form=True) or b"") if tls is not None else b"",
            )
        wanted = wanted_user(headers)
        if wanted is None:
            return user
        call.user = call.authenticated = user
        done = impersonate(attributes_of(call.target, user, call.query), wanted, self.may)
        call.constraint = done.constraint
        return done.user

    def may(self, access: Attributes) -> tuple[bool, str]:
        """Whether an access is allowed, and why."""
        return (True, "") if access.user.may_everything else self.authorizer.allows(access)

    def authorize(self, call: Call) -> None:
        if call.user.may_everything:
            call.decision = "allow"
            return
        access = attributes_of(call.target, call.user, call.query)
        allowed, reason = self.authorizer.allows(access)
        call.decision, call.reason = "allow" if allowed else "forbid", reason
        if allowed and (further := further_access(access)) is not None:
            access = further
            allowed, reason = self.authorizer.allows(access)
        if not allowed:
            if call.user is ANONYMOUS and not self.authenticator.anonymous:
                raise Unauthorized("Unauthorized")
            raise refusal(access, reason)

    async def dispatch(self, call: Call) -> web.StreamResponse:
        """Answer an admitted request."""
        target = call.target
        path = target.path
        if path == "/api" or path.startswith(("/api/", "/apis/")) or path == "/apis":
            return await self.api(call)
        if call.request.method not in ("GET", "HEAD"):
            return call.text(NOT_FOUND_TEXT, 404)
        parts = path.strip("/").split("/")
        if parts[0] in ("livez", "readyz", "healthz"):
            return self.health_answer(call, parts)
        if parts == ["version"]:
            return call.object(VERSION)
        if parts[0] == "openapi":
            return await self.openapi_answer(call, parts)
        if path in (CONFIGURATION_PATH, JWKS_PATH):
            return self.issuer_answer(call, path)
        if parts == ["metrics"]:
            answer = call.text(self.metrics.render())
            answer.headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
            return answer
        if parts == [""]:
            return call.object({"paths": self.paths()})
        return call.text(NOT_FOUND_TEXT, 404)

    def paths(self) -> list[str]:
        found = ["/api", "/api/v1", "/apis"]
        for group in self.discovery.groups:
            found.append(f"/apis/{group}")
            found += [f"/apis/{group}/{v}" for v in self.discovery.versions_of(group)]
        return [
            "/.well-known/openid-configuration",
            *found,
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/openid/v1/jwks",
            "/readyz",
            "/version",
        ]

    def issuer_answer(self, call: Call, path: str) -> web.Response:
        """How others check the tokens of service accounts."""
        tokens = self.reviews.subresources.tokens
        document, media_type = tokens.configuration(self.address), "application/json"
        if path == JWKS_PATH:
            document, media_type = tokens.key_set(), "application/jwk-set+json"
        response = web.Response(body=msgspec.json.encode(document), headers=call.headers())
        response.headers["Content-Type"] = media_type
        response.headers["Cache-Control"] = "public, max-age=3600"
        return response

    async def api(self, call: Call) -> web.StreamResponse:
        target = call.target
        if target.is_resource:
            if target.group and not self.discovery.has_group(target.group):
                return call.text(NOT_FOUND_TEXT, 404)
            known = self.resources.registry.kinds.by_resource
            if target.group in self.discovery.custom and known(target.group, target.version, target.resource) is None:
                return call.text(NOT_FOUND_TEXT, 404)
            virtual = next(
                (
                    c
                    for c in CREATE_ONLY
                    if (c.group, c.version, c.plural) == (target.group, target.version, target.resource)
                ),
                None,
            )
            if virtual is not None:
                return await self.reviews.handle(call, virtual)
            return await self.resources.handle(call)
        parts = [p for p in target.path.split("/") if p]
        if len(parts) >= 2 and parts[0] == "apis" and not self.discovery.has_group(parts[1]):
            return call.text(NOT_FOUND_TEXT, 404)
        if target.empty_segment:
            raise not_served()
        if call.request.method != "GET":
            raise not_allowed() if call.request.method != "HEAD" else MethodNotAllowed(NO_METHOD)
        return self.discovery_answer(call, parts)

    def discovery_answer(self, call: Call, parts: list[str]) -> web.Response:
        """DISC-1 to DISC-3."""
        discovery = self.discovery
        if len(parts) == 1:
            call.form = negotiate(call.accept, transforms=False, discovery=True)
            if call.form.as_kind:
                body, etag = discovery.core_aggregated if parts[0] == "api" else discovery.groups_aggregated
                return self.aggregated_answer(call, body, etag)
            if parts[0] == "api":
                return call.object(discovery.core_versions(self.address))
            return call.object(discovery.group_list())
        call.form = negotiate(call.accept, transforms=False)
        if parts[0] == "apis" and len(parts) == 2:
            return call.object(discovery.group_document(parts[1]))
        group, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2])
        document = discovery.resource_list(group, version)
        if document is None:
            raise not_served()
        return call.object(document)

    def aggregated_answer(self, call: Call, body: bytes, etag: str) -> web.Response:
        headers = {"ETag": etag, "Vary": "Accept", "Cache-Control": "public"}
        if call.request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={**call.headers(), **headers})
        media_type = f"application/{call.form.format};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        return call.formatted(body, 200, call.form.format, media_type, headers)

    def health_answer(self, call: Call, parts: list[str]) -> web.Response:
        excluded = list(call.query.get("exclude", ()))
        report = self.health.report(parts[0], "/".join(parts[1:]), excluded, verbose="verbose" in call.query)
        if report is None:
            return call.text(NOT_FOUND_TEXT, 404)
        return call.text(report[1], report[0])

    async def openapi_answer(self, call: Call, parts: list[str]) -> web.Response:
        """DISC-6."""
        if parts[1:] == ["v2"]:
            document, content_type = self.openapi.swagger(), "application/json"
            if ASKED_AS in call.request.headers.get("Accept", ""):
                document, content_type = self.openapi.swagger_protobuf(), MEDIA_TYPE
        elif parts[1:] == ["v3"]:
            document, content_type = self.openapi.index(), "text/plain; charset=utf-8"
        elif parts[1:2] == ["v3"] and len(parts) > 2:
            path = "/".join(parts[2:])
            found = self.openapi.group(path)
            if found is None:
                return call.text(NOT_FOUND_TEXT, 404)
            wanted = first(call.query, "hash")
            if wanted and wanted != found.hash:
                location = self.openapi.location(path)
                return web.Response(status=301, headers={**call.headers(), "Location": location})
            document, content_type = found, "application/json"
        else:
            return call.text(NOT_FOUND_TEXT, 404)
        headers = {"ETag": document.etag, "Vary": "Accept", "Cache-Control": "no-cache, private"}
        if first(call.query, "hash"):
            headers["Cache-Control"] = "public, immutable"
        if call.request.headers.get("If-None-Match") == document.etag:
            return web.Response(status=304, headers={**call.headers(), **headers})
        if call.takes_gzip and not call.pretty:
            return call.packed(document.packed, content_type, headers)
        return call.formatted(document.body, 200, "json", content_type, headers)


def tls_context(certfile: str, keyfile: str, client_ca: str | None) -> ssl.SSLContext:
    """The server side of TLS; client certificates are welcome where there is a CA for them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certfile, keyfile)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context
