"""The `Client` over HTTP: a unix socket of our own instance, or TLS to any cluster.

    client = HttpClient.unix("/run/.../api.sock", manager="kubesvc-proxy")
    client = HttpClient.from_kubeconfig("~/.kube/config", context="prod", manager="kubesvc")
    ...
    await client.close()

Whatever the server refuses is raised as the `ApiError` its Status describes; a server that cannot be reached, or a
connection that breaks, is `Unreachable`. Every request has a deadline; a watch has the one it asked the server for,
and some. aiohttp is imported with the first request, so that commands which make none do not pay for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import msgspec

from kubesvc.api.errors import ApiError, TooManyRequests, Unauthorized, from_status
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object

from .interface import Answer, EventType, PatchType, RawList, Unreachable, WatchEvent
from .kubeconfig import Access, ExecPlugin, KubeconfigError, load_kubeconfig

if TYPE_CHECKING:
    import aiohttp

REQUEST_SECONDS = 60.0
CONNECT_SECONDS = 10.0
WATCH_GRACE_SECONDS = 30.0
LONGEST_WATCH_SECONDS = 3600
"""What a server does at most with a watch that asks for no end (WATCH-14)."""
READ_RETRIES = 5
"""Tries of a read that the server refuses as too much (429) before the refusal is raised."""
TOKEN_FILE_SECONDS = 60.0
"""How long a token read from a file is used before the file is read again."""
PLUGIN_SECONDS = 60.0

CONTENT_TYPES: Mapping[PatchType, str] = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class _ListMeta(msgspec.Struct, frozen=True):
    resource_version: str = msgspec.field(name="resourceVersion", default="")
    continue_token: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct, frozen=True):
    metadata: _ListMeta = _ListMeta()
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


_decode_list = msgspec.json.Decoder(_List).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class LineSplitter:
    """Cuts a stream of chunks into lines; a line may come in many chunks and a chunk may hold many lines."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines this chunk completes, without their ends; empty lines are left out."""
        if b"\n" not in chunk:
            self._rest.append(chunk)
            return []
        first, *lines = chunk.split(b"\n")
        whole = [b"".join((*self._rest, first)), *lines[:-1]]
        self._rest = [lines[-1]] if lines[-1] else []
        return [line for line in whole if line.strip()]

    def end(self) -> bytes:
        """What came after the last line end."""
        rest, self._rest = b"".join(self._rest), []
        return rest


@dataclass
class _Connection:
    """What all managers of one client share: the session, the way to the server, the credentials."""

    base: str
    unix_path: str = ""
    access: Access | None = None
    session: aiohttp.ClientSession | None = None
    under_way: dict[aiohttp.ClientSession, int] = field(default_factory=dict)
    """How many requests, streams among them, go on over each session."""
    retired: dict[aiohttp.ClientSession, None] = field(default_factory=dict)
    """Sessions of former credentials, each until its last request ends."""
    token: str = ""
    token_until: float = 0.0
    plugin_certificate: tuple[bytes, bytes] | None = None
    renewals: int = 0
    """How often credentials have been renewed; who asks for new ones says how many renewals it knows of."""
    renewing: asyncio.Lock = field(default_factory=asyncio.Lock)
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def open(self) -> aiohttp.ClientSession:
        """The session; of many who ask for it at the start, one makes it."""
        if self.session is not None and not self.session.closed:
            return self.session
        async with self.opening:
            return await self._open()

    async def _open(self) -> aiohttp.ClientSession:
        if self.session is not None and not self.session.closed:
            return self.session
        if self.access is not None and self.access.plugin is not None and not self.token_until:
            await self.renew(self.renewals)
        import aiohttp

        connector: aiohttp.BaseConnector
        if self.unix_path:
            connector = aiohttp.UnixConnector(path=self.unix_path, limit=0)
        else:
            access = cast(Access, self.access)
            context = await asyncio.to_thread(tls_context, access, self.plugin_certificate)
            connector = aiohttp.TCPConnector(ssl=context if context is not None else True, limit=0)
        self.session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=True,
            skip_auto_headers=("User-Agent", "Content-Type"),
            read_bufsize=2**18,
            json_serialize=lambda value: _encode(value).decode(),
        )
        return self.session

    @asynccontextmanager
    async def borrowed(self, session: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
        """For as long as a request goes on over a session; the last one closes a session that has been retired."""
        self.under_way[session] = self.under_way.get(session, 0) + 1
        try:
            yield
        finally:
            self.under_way[session] -= 1
            if not self.under_way[session]:
                del self.under_way[session]
                if session in self.retired:
                    del self.retired[session]
                    await session.close()

    async def retire(self) -> None:
        """Have new requests open a session of their own; those under way go on to their end."""
        former, self.session = self.session, None
        if former is None:
            return
        if former in self.under_way:
            self.retired[former] = None
        else:
            await former.close()

    async def close(self) -> None:
        """Close all sessions, whatever goes on there."""
        sessions = [*self.retired, *([self.session] if self.session is not None else [])]
        self.retired.clear()
        self.session = None
        for session in sessions:
            await session.close()

    async def authorization(self) -> str:
        """The Authorization header; "" when certificates, or the socket itself, say who we are."""
        access = self.access
        if access is None:
            return ""
        if access.token:
            return f"Bearer {access.token}"
        if access.token_file or access.plugin is not None:
            if asyncio.get_running_loop().time() >= self.token_until:
                await self.renew(self.renewals)
            return f"Bearer {self.token}" if self.token else ""
        if access.username:
            import base64

            pair = f"{access.username}:{access.password}".encode()
            return "Basic " + base64.b64encode(pair).decode()
        return ""

    @property
    def renewable(self) -> bool:
        return self.access is not None and bool(self.access.token_file or self.access.plugin)

    async def renew(self, known: int) -> None:
        """Read the token file, or ask the plugin, again; of many who found the same credentials wanting, one does.

        known: `renewals` as it was when the credentials that are of no use any more were taken
        """
        access = cast(Access, self.access)
        async with self.renewing:
            if self.renewals != known:
                return
            now = asyncio.get_running_loop().time()
            if access.token_file:
                try:
                    self.token = (await asyncio.to_thread(Path(access.token_file).read_text)).strip()
                except OSError as error:
                    raise Unreachable(f"token file {access.token_file}: {error.strerror or error}") from None
                self.token_until = now + TOKEN_FILE_SECONDS
            elif access.plugin is not None:
                credential = await run_plugin(access.plugin)
                self.token = credential.token
                if credential.certificate and credential.key:
                    changed = self.plugin_certificate != (credential.certificate, credential.key)
                    self.plugin_certificate = (credential.certificate, credential.key)
                    if changed:
                        await self.retire()
                self.token_until = now + credential.lifetime_seconds
            self.renewals += 1


class HttpClient:
    """A `Client` that speaks HTTP. Copies made by `as_manager` share the connection; close any one of them."""

    def __init__(self, connection: _Connection, manager: str) -> None:
        self._connection = connection
        self.manager = manager

    @classmethod
    def unix(cls, path: str | Path, manager: str = "kubesvc") -> HttpClient:
        """To the API behind a unix socket, plain HTTP: its peers are trusted by who may open it."""
        return cls(_Connection("http://localhost", unix_path=str(path)), manager)

    @classmethod
    def from_kubeconfig(cls, path: str | Path, context: str | None = None, manager: str = "kubesvc") -> HttpClient:
        """To the cluster of a kubeconfig (several files joined by the path separator are merged); KubeconfigError."""
        files = [os.path.expanduser(p) for p in str(path).split(os.pathsep) if p]
        return cls.from_access(load_kubeconfig(*files).access(context), manager)

    @classmethod
    def from_access(cls, access: Access, manager: str = "kubesvc") -> HttpClient:
        return cls(_Connection(access.server, access=access), manager)

    def as_manager(self, manager: str) -> HttpClient:
        return HttpClient(self._connection, manager)

    async def use(self, access: Access) -> None:
        """Speak as somebody else from now on; what is under way goes on to its end in the old name."""
        connection = self._connection
        async with connection.opening:
            connection.access = access
            connection.token, connection.token_until, connection.plugin_certificate = "", 0.0, None
            await connection.retire()

    async def close(self) -> None:
        await self._connection.close()

    async def reach(self) -> None:
        """Return when the server answers anything at all; Unreachable when it does not."""
        try:
            await self._send("GET", "/version")
        except ApiError:
            pass
        except KubeconfigError as error:
            raise Unreachable(str(error)) from None

    # ---------------------------------------------------------------- reads

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Object:
        return await self._object("GET", _path(kind, namespace, name, subresource))

    async def list_raw(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> RawList:
        query = _query(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            resourceVersion=resource_version,
            limit=str(limit) if limit else "",
        )
        query |= {"continue": continue_token} if continue_token else {}
        body = await self._send("GET", _path(kind, namespace), query)
        try:
            found = _decode_list(body)
        except msgspec.MsgspecError as error:
            raise Unreachable(f"{kind.plural}: the answer is no list: {error}") from None
        items = [bytes(item) for item in found.items or ()]
        return RawList(found.metadata.resource_version, items, found.metadata.continue_token)

    async def watch(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        initial_events: bool = False,
        bookmarks: bool = True,
        timeout_seconds: int | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Events until the server ends the stream; ApiError for an ERROR event or a refusal, Unreachable if cut."""
        query = _query(
            watch="true",
            labelSelector=label_selector,
            fieldSelector=field_selector,
            resourceVersion=resource_version,
            allowWatchBookmarks="true" if bookmarks else "",
            timeoutSeconds="" if timeout_seconds is None else str(timeout_seconds),
        )
        if initial_events:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        aiohttp = _aiohttp()
        silent = (timeout_seconds or LONGEST_WATCH_SECONDS) + WATCH_GRACE_SECONDS
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silent)
        try:
            async with self._request("GET", _path(kind, namespace), query, None, timeout) as (response, _):
                if response.status != 200:
                    raise _error(response.status, await response.read(), response.headers)
                lines = LineSplitter()
                async for chunk in response.content.iter_any():
                    for line in lines.feed(chunk):
                        yield _event(line)
                if rest := lines.end().strip():
                    yield _event(rest)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(_reason(error, self._connection)) from error

    # ---------------------------------------------------------------- writes

    async def create(
        self, kind: Kind, obj: Object, namespace: str = "", *, name: str = "", subresource: str = ""
    ) -> Object:
        inside = namespace or str((obj.get("metadata") or {}).get("namespace") or "")
        return await self._object("POST", _path(kind, inside, name, subresource), body=obj)

    async def update(self, kind: Kind, obj: Object, *, subresource: str = "") -> Object:
        meta = obj["metadata"]
        path = _path(kind, meta.get("namespace") or "", meta["name"], subresource)
        return await self._object("PUT", path, body=obj)

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str,
        patch: Any,
        type: PatchType,
        *,
        subresource: str = "",
        force: bool = False,
    ) -> Object:
        query = _query(fieldManager=self.manager if type == "apply" else "", force="true" if force else "")
        path = _path(kind, namespace, name, subresource)
        return await self._object("PATCH", path, query, patch, CONTENT_TYPES[type])

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        grace_seconds: int | None = None,
        propagation: str = "",
        uid: str = "",
        resource_version: str = "",
    ) -> Object:
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if propagation:
            options["propagationPolicy"] = propagation
        if preconditions := _query(uid=uid, resourceVersion=resource_version):
            options["preconditions"] = preconditions
        return await self._object("DELETE", _path(kind, namespace, name), body=options)

    async def delete_collection(
        self, kind: Kind, namespace: str, *, label_selector: str = "", grace_seconds: int | None = None
    ) -> None:
        query = _query(
            labelSelector=label_selector, gracePeriodSeconds="" if grace_seconds is None else str(grace_seconds)
        )
        await self._send("DELETE", _path(kind, namespace), query)

    # ---------------------------------------------------------------- one request

    async def _object(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Answer:
        raw = await self._send(method, path, query, body, content_type)
        try:
            found = _decode(raw)
        except msgspec.MsgspecError as error:
            raise Unreachable(f"{method} {path}: the answer is no JSON: {error}") from None
        if not isinstance(found, dict):
            raise Unreachable(f"{method} {path}: the answer is no object")
        return Answer(found, len(raw))

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> bytes:
        """One request and its whole answer. Renewed credentials get a second try; refused reads (429) a few."""
        aiohttp = _aiohttp()
        data = None if body is None else _encode(body)
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS)
        renewed = False
        tries = 0
        while True:
            try:
                async with self._request(method, path, query, data, timeout, content_type) as (response, known):
                    raw: bytes = await response.read()
                    if response.status < 300:
                        return raw
                    error = _error(response.status, raw, response.headers)
            except (aiohttp.ClientError, OSError, TimeoutError) as broken:
                raise Unreachable(_reason(broken, self._connection)) from broken
            if isinstance(error, Unauthorized) and self._connection.renewable and not renewed:
                renewed = True
                await self._connection.renew(known)
            elif isinstance(error, TooManyRequests) and method == "GET" and tries < READ_RETRIES:
                tries += 1
                await asyncio.sleep(min(error.retry_after_seconds or 1, 10))
            else:
                raise error

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        data: bytes | None,
        timeout: aiohttp.ClientTimeout,
        content_type: str = "application/json",
    ) -> AsyncGenerator[tuple[aiohttp.ClientResponse, int], None]:
        """One request on an open session, until its answer is read; besides, by which renewal's credentials."""
        from yarl import URL

        connection = self._connection
        headers = {"Accept": "application/json", "User-Agent": f"{self.manager}/kubesvc"}
        if data is not None:
            headers["Content-Type"] = content_type
        await connection.open()
        if authorization := await connection.authorization():
            headers["Authorization"] = authorization
        session = await connection.open()  # a plugin may have brought another certificate
        known = connection.renewals
        access = connection.access
        options: dict[str, Any] = {}
        if connection.unix_path:
            headers["Accept-Encoding"] = "identity"
        elif access is not None:
            if access.tls_server_name:
                options["server_hostname"] = access.tls_server_name
            if access.proxy_url:
                options["proxy"] = access.proxy_url
        url = URL(connection.base + path, encoded=True)
        request = session.request(
            method,
            url.with_query(query) if query else url,
            data=data,
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            **options,
        )
        async with connection.borrowed(session), request as response:
            yield response, known


@dataclass(frozen=True, slots=True)
class PluginCredential:
    """What an exec plugin printed: a token, a certificate with its key, and for how long they are good."""

    token: str
    certificate: bytes
    key: bytes
    lifetime_seconds: float


async def run_plugin(plugin: ExecPlugin, now: Callable[[], float] | None = None) -> PluginCredential:
    """Run the credential plugin of a kubeconfig user; KubeconfigError with the plugin's own words if it fails."""
    info = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
    try:
        process = await asyncio.create_subprocess_exec(
            plugin.command,
            *plugin.args,
            env={**os.environ, **plugin.env, "KUBERNETES_EXEC_INFO": json.dumps(info)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        hint = f"; {plugin.install_hint}" if plugin.install_hint else ""
        raise KubeconfigError(f"{plugin.where}.command: {plugin.command}: {error.strerror or error}{hint}") from None
    try:
        async with asyncio.timeout(PLUGIN_SECONDS):
            out, err = await process.communicate()
    except BaseException as error:
        with suppress(ProcessLookupError):  # with all that it started, which holds its pipes open
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if isinstance(error, TimeoutError):
            words = f"no answer in {PLUGIN_SECONDS:.0f} s"
            raise KubeconfigError(f"{plugin.where}.command: {plugin.command}: {words}") from None
        raise
    if process.returncode:
        words = " ".join(err.decode(errors="replace").split())[-500:]
        raise KubeconfigError(f"{plugin.where}.command: {plugin.command}: exit status {process.returncode}: {words}")
    try:
        status = json.loads(out)["status"]
        token = str(status.get("token") or "")
        certificate = str(status.get("clientCertificateData") or "").encode()
        key = str(status.get("clientKeyData") or "").encode()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KubeconfigError(f"{plugin.where}.command: {plugin.command}: printed no ExecCredential") from None
    return PluginCredential(token, certificate, key, _lifetime(status.get("expirationTimestamp"), now))


def _lifetime(expires: Any, now: Callable[[], float] | None) -> float:
    """Seconds until a minute before the credential expires; a day when it does not say."""
    from kubesvc.clock import RealClock, parse_rfc3339

    if not expires:
        return 86400.0
    try:
        return max(1.0, parse_rfc3339(str(expires)) - (now or RealClock().now)() - 60.0)
    except ValueError:
        return 60.0


def tls_context(access: Access, plugin_certificate: tuple[bytes, bytes] | None = None) -> ssl.SSLContext | None:
    """The TLS side of an access; None for plain http. KubeconfigError if certificate or key are of no use."""
    if access.server.startswith("http://"):
        return None
    try:
        context = ssl.create_default_context(cadata=access.ca.decode("ascii") if access.ca else None)
    except (ssl.SSLError, ValueError) as error:
        raise KubeconfigError(f"certificate-authority: not usable: {error}") from None
    if access.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    pair = (access.client_certificate, access.client_key) if access.client_certificate else plugin_certificate
    if pair is None:
        return context
    # The ssl module loads certificates from files only: a private one, gone before anybody else runs.
    descriptor, name = tempfile.mkstemp(prefix="kubesvc-", suffix=".pem")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pair[0] + b"\n" + pair[1])
        context.load_cert_chain(name)
    except (ssl.SSLError, ValueError) as error:
        raise KubeconfigError(f"client-certificate and client-key: not usable together: {error}") from None
    finally:
        os.unlink(name)
    return context


def _aiohttp() -> Any:
    import aiohttp

    return aiohttp


def _path(kind: Kind, namespace: str, name: str = "", subresource: str = "") -> str:
    return quote(kind.path(namespace, name, subresource), safe="/:@!$&'()*+,;=~")


def _query(**parts: str) -> dict[str, str]:
    return {name: value for name, value in parts.items() if value}


def _event(line: bytes) -> WatchEvent:
    """One line of a watch; an ERROR event is raised as what its Status says (WATCH-10, WATCH-11)."""
    try:
        event = _decode_event(line)
    except msgspec.MsgspecError as error:
        raise Unreachable(f"the watch sent a line that is no event: {error}") from None
    raw = bytes(event.object)
    if event.type == "ERROR":
        raise from_status(_decode(raw), 500)
    return WatchEvent(cast(EventType, event.type), raw)


def _error(status: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
    """The error of an answer that is no success; a body that is no Status is quoted."""
    try:
        found = _decode(body)
    except msgspec.MsgspecError:
        found = None
    if isinstance(found, dict) and found.get("kind") == "Status":
        error = from_status(found, status)
    else:
        text = " ".join(body.decode(errors="replace").split())[:500]
        error = from_status({"message": text or f"HTTP {status}", "reason": _REASONS.get(status, "")}, status)
    if error.retry_after_seconds is None and headers.get("Retry-After", "").isdigit():
        error.retry_after_seconds = int(headers["Retry-After"])
    return error


_REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 429: "TooManyRequests", 503: "ServiceUnavailable"}


def _reason(error: BaseException, connection: _Connection) -> str:
    """Where, and what went wrong there, in plain words; aiohttp's own name the address a second time."""
    where = connection.unix_path or connection.base
    untrusted = getattr(error, "certificate_error", None)
    if isinstance(untrusted, ssl.SSLCertVerificationError):
        return f"{where}: its certificate is not trusted: {untrusted.verify_message}"
    cause = getattr(error, "os_error", None)
    if isinstance(cause, ssl.SSLError):
        return f"{where}: no TLS there: {cause.reason or cause}"
    if isinstance(cause, OSError) and cause.errno:
        named = cause.strerror if isinstance(cause, socket.gaierror) else os.strerror(cause.errno)
        return f"{where}: {named}"
    if isinstance(error, TimeoutError):
        return f"{where}: {str(error) or 'no answer in time'}"
    return f"{where}: {str(error) or type(error).__name__}"
