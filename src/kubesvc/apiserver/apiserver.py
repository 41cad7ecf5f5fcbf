"""`ApiServer`: the parts put together, started and stopped in their order."""

from __future__ import annotations

import asyncio
import logging
import re

from kubesvc.api.errors import ApiError
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import KINDS, NAMESPACE
from kubesvc.client.events import EventRecorder
from kubesvc.client.interface import Client
from kubesvc.clock import Clock, Random
from kubesvc.store import Moved, Put, Store, StoreError

from .allocators import Allocations
from .apistore import ApiStore
from .audit import MEBIBYTE, MEBIBYTES, AuditLog, Rotation
from .auditpolicy import read_policy, simple_policy
from .authentication import ADMIN, ALL_AUTHENTICATED, MASTERS, Authenticator, User, read_token_file, requester
from .authorization import AlwaysAllow, AnyOf, Attributes, Authorizer
from .bootstrap import Bootstrap
from .bootstraptokens import BootstrapTokens
from .cache import Cache, Event
from .defaultroles import make_default_roles
from .definitions import Definitions
from .discovery import Discovery
from .eventexpiry import EventExpiry
from .guards import drop_quotas, repair_ports
from .health import VERSION, Health
from .hooks import Observer, WriteHooks
from .inflight import InFlight
from .kindset import Derived, KindSet
from .local import LocalClient
from .metrics import EVENT_LABELS, REQUEST_LABELS, Metrics
from .nodeauthorizer import NodeAuthorizer
from .openapi import OpenApi
from .rbac import RbacAuthorizer
from .registry import Registry
from .repair import Repairer
from .resources import Resources
from .reviews import Reviews
from .server import HttpServer, Listener
from .servers import Leases
from .service_rest import ServiceHooks
from .settings import ApiServerSettings
from .storage import decode
from .subresources import Backends, Subresources
from .tokens import TokenIssuer, new_key
from .watching import WatchRequests

log = logging.getLogger("kubesvc.apiserver")

EXPIRY_SECONDS = 60.0
COMPACTION_TURNS = 5
TOKEN_KEY = "/keys/service-accounts"
"""Where servers that share a store keep the key that signs service accounts' tokens."""


class ApiServer:
    """One API server over a started store. Listen before or after `start`; until then requests wait for the caches.

    Raises OSError if the token file cannot be read, ValueError if it is malformed.
    """

    def __init__(
        self, store: Store, settings: ApiServerSettings, clock: Clock, random: Random, *, token_key: bytes = b""
    ) -> None:
        self.store = store = ApiStore(store, clock)
        self.settings = settings
        self.clock = clock
        self.random = random
        self.cache = Cache(KINDS, store, clock, settings.history_events)
        self.events = EventExpiry(self.cache, store, clock, settings.event_ttl_seconds)
        self.allocations = Allocations(settings.service_ranges, settings.node_ports)
        service_hooks = ServiceHooks(self.allocations, random)
        service = next((k for k in KINDS if k.plural == "services" and not k.group), None)
        hooks: dict[Kind, WriteHooks] = {service: service_hooks} if service else {}
        self.observers: list[Observer] = [service_hooks]
        self.kinds = KindSet(KINDS)
        self.registry = Registry(self.cache, store, settings, clock, random, hooks, self.kinds)
        self.tokens = TokenIssuer(
            settings.service_account_issuers, clock, random, token_key, settings.most_token_seconds
        )
        self.tokens.cache = self.cache
        self.subresources = Subresources(self.registry, self.tokens)
        users = read_token_file(settings.token_file) if settings.token_file else {}
        if settings.admin_token:
            users[settings.admin_token] = User("admin", "admin-uid", (MASTERS, ALL_AUTHENTICATED))
        self.authenticator = Authenticator(users, anonymous=settings.anonymous_auth)
        self.authenticator.audiences = self.tokens.audiences
        self.authenticator.others.append(self.tokens.user_of)
        self.authenticator.others.append(BootstrapTokens(self.cache, clock, self.tokens.audiences).user_of)
        self.authorizer: Authorizer = self._authorizer()
        self.registry.admission.nodes.audience_allowed = self._audience_allowed
        self.registry.admission.certificates.allowed = self.allows
        self.registry.admission.policies.judge = self.authorizer.allows
        self.registry.admission.changes.judge = self.authorizer.allows
        self.health = Health()
        self.metrics = Metrics()
        self.inflight = InFlight(settings.readers_in_flight, settings.writers_in_flight)
        self.audit = self._audit_log()
        self.watches = WatchRequests(self.registry, clock, self.metrics.events)
        resources = Resources(self.registry, self.watches, self.subresources)
        resources.authorizer = self.authorizer
        self.http = HttpServer(
            resources,
            Reviews(self.authenticator, self.authorizer, self.subresources, clock),
            Derived(self.kinds, Discovery),
            Derived(self.kinds, OpenApi),
            self.authenticator,
            self.authorizer,
            self.health,
            self.metrics,
            clock,
            random,
            self.inflight,
            self.audit,
        )
        self.port = 0
        self.local = LocalClient(self.registry, self.subresources, "kube-apiserver")
        self.definitions = Definitions(self.cache, self.kinds, self.local, clock)
        leases = Leases(store, clock)
        self.bootstrap = Bootstrap(self.local, settings, clock, self._advertised_port, self.ready, leases)
        self.stopping = False
        self._roles_made = not settings.bootstrap or "RBAC" not in settings.authorization_modes
        self._tasks: list[asyncio.Task[None]] = []
        self.health.follow_store(lambda: not store.trouble)
        self.health.ready["informer-sync"] = lambda: self.cache.loaded
        self.health.ready["poststarthook/start-system-namespaces-controller"] = lambda: (
            self.bootstrap.done or not settings.bootstrap
        )
        self.health.ready["poststarthook/rbac/bootstrap-roles"] = lambda: self._roles_made
        self.health.ready["shutdown"] = lambda: not self.stopping
        self._measure()

    def _measure(self) -> None:
        """Register what is read at each scrape."""
        gauge, counter = self.metrics.gauge, self.metrics.counter
        self.store.answered = self.metrics.stored
        gauge("apiserver_registered_watchers", "Open watches.", lambda: len(self.watches.open))
        gauge(
            "apiserver_longrunning_requests",
            "Streams under way.",
            lambda: {(*labels, "apiserver"): n for labels, n in self.inflight.lasting.items()},
            *REQUEST_LABELS[1:],
            "component",
        )
        gauge(
            "apiserver_current_inflight_requests",
            "Requests under way.",
            lambda: {"readOnly": self.inflight.now["readOnly"], "mutating": self.inflight.now["mutating"]},
            "request_kind",
        )
        counter(
            "apiserver_dropped_requests_total",
            "Requests refused with 429.",
            lambda: {"readOnly": self.inflight.refused["readOnly"], "mutating": self.inflight.refused["mutating"]},
            "request_kind",
        )
        counter("apiserver_watch_events_total", "Events sent to watchers.", self.metrics.events.totals, *EVENT_LABELS)
        gauge(
            "apiserver_storage_objects",
            "Stored objects.",
            lambda: {kind.resource: len(c.items) for kind, c in self.cache.kinds.items()},
            "resource",
        )
        gauge(
            "apiserver_resource_objects",
            "Stored objects.",
            lambda: {(kind.group, kind.plural): len(c.items) for kind, c in self.cache.kinds.items()},
            "group",
            "resource",
        )
        if self.audit is not None:
            audit = self.audit
            counter("apiserver_audit_event_total", "Events told to the audit log.", lambda: audit.told)
            counter("apiserver_audit_error_total", "Events that could not be told.", lambda: audit.failed)
        told = ("major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler")
        gauge(
            "kubernetes_build_info",
            "Which version this is.",
            lambda: {tuple(str(VERSION[name]) for name in (*told, "platform")): 1},
            *(re.sub("[A-Z]", lambda found: "_" + found[0].lower(), name) for name in (*told, "platform")),
        )
        gauge("apiserver_storage_revision", "Newest revision of the store.", lambda: self.cache.revision)

    @property
    def client(self) -> Client:
        """Objects without HTTP, for the parts that live in this process."""
        return self.local

    def serve_backends(self, backends: Backends | None) -> None:
        """Say who reaches nodes and pods for logs, exec, port forwarding and proxies."""
        self.subresources.backends = backends
        self.registry.admission.webhooks.dialer = getattr(backends, "dialer", None)

    def _authorizer(self) -> Authorizer:
        """Everything that is asked whether a request is allowed, in the order of the settings."""
        made: dict[str, Authorizer] = {"AlwaysAllow": AlwaysAllow()}
        if "RBAC" in self.settings.authorization_modes:
            made["RBAC"] = RbacAuthorizer(self.cache)
        if "Node" in self.settings.authorization_modes:
            made["Node"] = NodeAuthorizer(self.cache)
        return AnyOf([made[mode] for mode in self.settings.authorization_modes])

    def _audit_log(self) -> AuditLog | None:
        """Where requests are told, None for nowhere. Raises OSError, BadPolicy."""
        settings = self.settings
        if not settings.audit_log:
            return None
        policy = read_policy(settings.audit_policy) if settings.audit_policy else simple_policy(settings.audit_level)
        rotation = Rotation(
            (settings.audit_log_max_size or MEBIBYTES) * MEBIBYTE,
            settings.audit_log_max_backup,
            settings.audit_log_max_age * 24 * 3600.0,
        )
        return AuditLog(settings.audit_log, policy, self.clock, rotation)

    def _audience_allowed(self, audience: str, namespace: str, account: str) -> bool:
        """Whether the requester, a node, may ask for tokens with an audience that no pod of its own names."""
        user = requester.get()
        verb = "request-serviceaccounts-token-audience"
        return self.authorizer.allows(Attributes(user, verb, "", "", audience, "", namespace, account))[0]

    def allows(self, access: Attributes) -> bool:
        """Whether somebody may do something, as the authorizers have it."""
        return access.user.may_everything or self.authorizer.allows(access)[0]

    def ready(self) -> bool:
        """Whether /readyz is good."""
        answer = self.health.report("readyz", "", (), verbose=False)
        return answer is not None and answer[0] == 200

    def _advertised_port(self) -> int:
        return self.settings.advertise_port or self.port or 6443

    async def start(self) -> None:
        """Load the caches, make the server's own objects, and begin to look after them."""
        if self.store.shared:
            self.tokens.key_pem = await self._shared_key()
            await self.registry.commits.guards.start()
        await self.cache.start()
        self.definitions.start()
        self._tasks.append(asyncio.create_task(self.definitions.run(), name="definitions"))
        self._observe()
        await self._repair_guards()
        quotas = self.registry.admission.quotas
        quotas.start()
        self._tasks.append(asyncio.create_task(quotas.run(self.local), name="quotas"))
        if self.settings.bootstrap:
            await self.bootstrap.once()
            if "RBAC" in self.settings.authorization_modes:
                await make_default_roles(self.local)
                self._roles_made = True
            self._tasks.append(asyncio.create_task(self.bootstrap.run(), name="bootstrap"))
            self._repair()
        self._tasks.append(asyncio.create_task(self._tidy(), name="tidy"))

    async def _repair_guards(self) -> None:
        if self.store.shared:
            await repair_ports(self.store, self.registry.fresh, self.allocations.port_users)
            await drop_quotas(self.store, self.registry.fresh, self.cache.of(NAMESPACE).items)

    async def _shared_key(self) -> bytes:
        """The signing key of all servers on this store: that of the server which came first."""
        stored = await self.store.get(TOKEN_KEY)
        if stored is None:
            own = self.tokens.key_pem or await asyncio.to_thread(new_key)
            try:
                await self.store.commit(Put(TOKEN_KEY, own, expect=0))
            except Moved as e:
                assert e.found is not None
                stored = e.found
            else:
                return own
        return stored.value

    def _repair(self) -> None:
        """Begin to keep IPAddresses in line with Services (REPAIR-1 to REPAIR-3)."""
        events = EventRecorder(self.local, "ipallocator-repair-controller", clock=self.clock, random=self.random)
        settings = self.settings
        repairer = Repairer(self.local, settings.service_ranges, settings.node_ports, self.clock, events)
        self._tasks.append(asyncio.create_task(events.run(), name="repair events"))
        self._tasks.append(asyncio.create_task(repairer.run(), name="repair"))

    def _observe(self) -> None:
        """Tell observers of everything stored, and of every change from now on."""
        for observer in self.observers:
            for kind in observer.observed:
                cache = self.cache.kinds.get(kind)
                if cache is None:
                    continue
                for item in cache.items.values():
                    observer.observe(kind, None, decode(item.value, item.revision))

                def sink(events: list[Event], kind: Kind = kind, observer: Observer = observer) -> None:
                    for event in events:
                        old = decode(event.old.value, event.old.revision) if event.old else None
                        gone = event.type == "DELETED"
                        new = None if gone else decode(event.new.value, event.new.revision)
                        observer.observe(kind, old, new)

                cache.sinks.append(sink)

    async def listen_tls(self, host: str, port: int, certfile: str, keyfile: str, client_ca: str | None = None) -> int:
        """Serve HTTPS; the port it got. OSError if the address cannot be had."""
        found = await self.http.listen_tls(host, port, certfile, keyfile, client_ca)
        self.port = self.port or found
        return found

    async def listen_unix(self, path: str, user: User = ADMIN) -> Listener:
        """Serve plain HTTP on a unix socket whose peers are trusted to be `user`."""
        return await self.http.listen_unix(path, user)

    async def listen_tls_unix(self, path: str, certfile: str, keyfile: str, client_ca: str | None = None) -> Listener:
        """Serve HTTPS on a unix socket, for relays from other network namespaces."""
        return await self.http.listen_tls_unix(path, certfile, keyfile, client_ca)

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """End cleanly: readyz first, then watches, requests in flight, and the own address (HEALTH-3, KSVC-8)."""
        self.stopping = True
        try:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks.clear()
            if self.settings.bootstrap and self.bootstrap.done:
                try:
                    await self.bootstrap.withdraw()
                except (ApiError, StoreError) as e:
                    log.warning("own address not withdrawn: %s", e)
            if self.subresources.backends is not None:
                self.subresources.backends.stop()
            await self.http.close(grace_seconds)
        finally:  # also when nobody waits for the end any more
            if self.audit is not None:
                self.audit.close()
            self.cache.stop()

    async def compact(self) -> None:
        """Forget all history now: older revisions can no longer be read or watched from."""
        await self.store.compact(self.cache.revision)
        self.cache.forget_all()

    async def _tidy(self) -> None:
        """Drop old history and old Events, for ever (LIST-6, EVENT-2)."""
        revision_then = self.cache.revision
        turn = 0
        while True:
            await asyncio.sleep(min(EXPIRY_SECONDS, self.settings.history_seconds / COMPACTION_TURNS))
            turn += 1
            self.cache.forget_before(self.clock.monotonic() - self.settings.history_seconds)
            try:
                await self.events.expire()
                if turn % COMPACTION_TURNS == 0:
                    await self._repair_guards()
                    if revision_then > self.store.compacted:
                        await self.store.compact(revision_then)
                    revision_then = self.cache.revision
            except (ApiError, StoreError) as e:
                log.warning("history not tidied: %s", e)
