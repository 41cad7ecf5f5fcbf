"""Kubeconfig files: which server, trusted how, and in whose name.

`load_kubeconfig` reads one or several files (the first that names something wins, as with $KUBECONFIG);
`Kubeconfig.access` picks a context and reads certificates and keys. Whatever is wrong is a `KubeconfigError` that names
the file and the field. `render_kubeconfig` is the way back, for all that this program writes. Nothing here opens a
connection; the exec plugin is described and run by the HTTP client.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec


class KubeconfigError(Exception):
    """A kubeconfig that cannot be used; the text names the file, the field, and what would do."""


class _Node(msgspec.Struct, frozen=True, rename="kebab", kw_only=True):
    """Base of the file's structs: kebab-case names, unknown fields ignored."""


class _Cluster(_Node, frozen=True):
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""


class _ExecVariable(msgspec.Struct, frozen=True):
    name: str
    value: str = ""


class _Exec(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    command: str = ""
    api_version: str = ""
    args: list[str] | None = None
    env: list[_ExecVariable] | None = None
    install_hint: str = ""
    provide_cluster_info: bool = False


class _User(_Node, frozen=True):
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = msgspec.field(name="tokenFile", default="")
    username: str = ""
    password: str = ""
    exec: _Exec | None = None
    auth_provider: Any = None


class _Context(_Node, frozen=True):
    cluster: str = ""
    user: str = ""
    namespace: str = ""


class _NamedCluster(_Node, frozen=True):
    name: str = ""
    cluster: _Cluster | None = None


class _NamedUser(_Node, frozen=True):
    name: str = ""
    user: _User | None = None


class _NamedContext(_Node, frozen=True):
    name: str = ""
    context: _Context | None = None


class _File(_Node, frozen=True):
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None
    current_context: str = ""


@dataclass(frozen=True, slots=True)
class ExecPlugin:
    """A program that prints an ExecCredential: how to call it."""

    command: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    api_version: str
    install_hint: str
    where: str
    """File and field, for error texts."""


@dataclass(frozen=True, slots=True)
class Access:
    """All a client needs to reach one cluster as one user. Certificates and keys are PEM bytes, b"" if none."""

    server: str
    namespace: str = ""
    ca: bytes = b""
    insecure: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    client_certificate: bytes = b""
    client_key: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)
    token_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    plugin: ExecPlugin | None = None


def render_kubeconfig(access: Access, name: str, extensions: Mapping[str, Any] | None = None) -> str:
    """A kubeconfig of one context that reads back as `access`, certificates and keys inline. JSON, which is YAML too.

    name:       of the context, its cluster and its user
    extensions: stand at the cluster, by name, for programs that know them; others ignore them
    Raises ValueError for an exec plugin: only the file that names one knows how to call it.
    """
    if access.plugin is not None:
        raise ValueError(f"{access.plugin.where}: an exec plugin cannot be carried into another kubeconfig")
    cluster = _given({
        "server": access.server,
        "certificate-authority-data": _inline(access.ca),
        "insecure-skip-tls-verify": access.insecure,
        "tls-server-name": access.tls_server_name,
        "proxy-url": access.proxy_url,
        "extensions": [{"name": key, "extension": value} for key, value in (extensions or {}).items()],
    })  # fmt: skip
    user = _given({
        "client-certificate-data": _inline(access.client_certificate),
        "client-key-data": _inline(access.client_key),
        "token": access.token,
        "tokenFile": access.token_file,
        "username": access.username,
        "password": access.password,
    })  # fmt: skip
    context = _given({"cluster": name, "user": name, "namespace": access.namespace})
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": context}],
    }
    return json.dumps(config, indent=2) + "\n"


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that say something."""
    return {key: value for key, value in fields.items() if value}


def _inline(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


@dataclass(frozen=True, slots=True)
class _Entry:
    """A named entry and where it stands."""

    value: Any
    file: Path
    field: str


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """The merged content of one or several files."""

    files: tuple[Path, ...]
    clusters: Mapping[str, _Entry]
    users: Mapping[str, _Entry]
    contexts: Mapping[str, _Entry]
    current_context: str

    def access(self, context: str | None = None) -> Access:
        """How to reach the cluster of `context` (None: the current one), with all referenced files read."""
        listed = ", ".join(map(str, self.files)) or "no file"
        name = context or self.current_context
        if not name:
            raise KubeconfigError(f"{listed}: current-context: not set; name a context: {_names(self.contexts)}")
        if name not in self.contexts:
            field_name = "contexts" if context else "current-context"
            raise KubeconfigError(f"{listed}: {field_name}: no context {name!r}; there are {_names(self.contexts)}")
        entry = self.contexts[name]
        chosen: _Context = entry.value
        cluster_entry = self._named(self.clusters, chosen.cluster, entry, "cluster")
        if cluster_entry is None:
            raise KubeconfigError(f"{entry.file}: {entry.field}.cluster: not set")
        user_entry = self._named(self.users, chosen.user, entry, "user")
        return _access(chosen, cluster_entry, user_entry)

    @staticmethod
    def _named(entries: Mapping[str, _Entry], name: str, at: _Entry, what: str) -> _Entry | None:
        if not name:
            return None
        if name not in entries:
            raise KubeconfigError(f"{at.file}: {at.field}.{what}: no {what} {name!r}; there are {_names(entries)}")
        return entries[name]


def kubeconfig_paths(environ: Mapping[str, str]) -> list[Path]:
    """The files stock clients would read: those of $KUBECONFIG, else `~/.kube/config`."""
    listed = [p for p in environ.get("KUBECONFIG", "").split(os.pathsep) if p]
    if listed:
        return [Path(p) for p in dict.fromkeys(listed)]
    return [Path(environ.get("HOME", "~")).expanduser() / ".kube" / "config"]


def load_kubeconfig(*paths: str | Path) -> Kubeconfig:
    """Read and merge the files. With several, a missing one is skipped; with one it is an error."""
    files: list[Path] = []
    clusters: dict[str, _Entry] = {}
    users: dict[str, _Entry] = {}
    contexts: dict[str, _Entry] = {}
    current = ""
    for path in map(Path, paths):
        if len(paths) > 1 and not path.exists():
            continue
        content = _read_file(path)
        files.append(path)
        _merge(clusters, path, "clusters", "cluster", content.clusters or ())
        _merge(users, path, "users", "user", content.users or ())
        _merge(contexts, path, "contexts", "context", content.contexts or ())
        current = current or content.current_context
    if not files:
        raise KubeconfigError(f"{', '.join(map(str, paths)) or 'kubeconfig'}: no such file")
    return Kubeconfig(tuple(files), clusters, users, contexts, current)


def _read_file(path: Path) -> _File:
    import yaml

    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise KubeconfigError(f"{path}: no such file") from None
    except OSError as error:
        raise KubeconfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise KubeconfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise KubeconfigError(
            f"{path}: not a kubeconfig: found a {type(content).__name__}, expected clusters, users and contexts"
        )
    try:
        return msgspec.convert(content, _File)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        raise KubeconfigError(f"{path}: {where.strip('`').removeprefix('$.') or 'content'}: {what}") from None


def _merge(into: dict[str, _Entry], path: Path, plural: str, part: str, found: Sequence[Any]) -> None:
    for i, item in enumerate(found):
        if not item.name:
            raise KubeconfigError(f"{path}: {plural}[{i}].name: not set")
        value = getattr(item, part)
        if value is None:
            raise KubeconfigError(f"{path}: {plural}[{i}].{part}: not set (name {item.name!r})")
        into.setdefault(item.name, _Entry(value, path, f"{plural}[{i}].{part}"))


def _access(context: _Context, cluster_entry: _Entry, user_entry: _Entry | None) -> Access:
    cluster: _Cluster = cluster_entry.value
    if not cluster.server:
        raise KubeconfigError(f"{cluster_entry.file}: {cluster_entry.field}.server: not set")
    if not cluster.server.startswith(("http://", "https://")):
        raise KubeconfigError(
            f"{cluster_entry.file}: {cluster_entry.field}.server: {cluster.server!r}: must begin with https:// or http://"
        )
    ca = _pem(cluster_entry, "certificate-authority", cluster.certificate_authority, cluster.certificate_authority_data)
    user: _User = user_entry.value if user_entry else _User()
    certificate = key = b""
    if user_entry:
        if user.auth_provider is not None:
            raise KubeconfigError(
                f"{user_entry.file}: {user_entry.field}.auth-provider: no longer supported; use exec or a token"
            )
        certificate = _pem(user_entry, "client-certificate", user.client_certificate, user.client_certificate_data)
        key = _pem(user_entry, "client-key", user.client_key, user.client_key_data)
        if bool(certificate) != bool(key):
            missing = "client-key" if certificate else "client-certificate"
            raise KubeconfigError(f"{user_entry.file}: {user_entry.field}.{missing}: not set, but its counterpart is")
    return Access(
        server=cluster.server.rstrip("/"),
        namespace=context.namespace,
        ca=ca,
        insecure=cluster.insecure_skip_tls_verify,
        tls_server_name=cluster.tls_server_name,
        proxy_url=cluster.proxy_url,
        client_certificate=certificate,
        client_key=key,
        token="" if user.token_file else user.token,
        token_file=str(_beside(user_entry, user.token_file)) if user_entry and user.token_file else "",
        username=user.username,
        password=user.password,
        plugin=_plugin(user_entry, user.exec) if user_entry and user.exec else None,
    )


def _plugin(entry: _Entry, plugin: _Exec) -> ExecPlugin:
    where = f"{entry.file}: {entry.field}.exec"
    if not plugin.command:
        raise KubeconfigError(f"{where}.command: not set")
    if not plugin.api_version.startswith("client.authentication.k8s.io/v1"):
        raise KubeconfigError(
            f"{where}.apiVersion: {plugin.api_version!r}: must be client.authentication.k8s.io/v1 or v1beta1"
        )
    command = plugin.command
    if "/" in command and not os.path.isabs(command):
        command = str(_beside(entry, command))
    return ExecPlugin(
        command=command,
        args=tuple(plugin.args or ()),
        env={v.name: v.value for v in plugin.env or ()},
        api_version=plugin.api_version,
        install_hint=plugin.install_hint,
        where=where,
    )


def _pem(entry: _Entry, name: str, file: str, data: str) -> bytes:
    """The bytes of `name-data` (base64, wins) or of the file `name`, which is relative to the kubeconfig."""
    if data:
        try:
            found = base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError):
            raise KubeconfigError(f"{entry.file}: {entry.field}.{name}-data: not base64") from None
        where = f"{entry.file}: {entry.field}.{name}-data"
    elif file:
        path = _beside(entry, file)
        where = f"{entry.file}: {entry.field}.{name}: {path}"
        try:
            found = path.read_bytes()
        except OSError as error:
            raise KubeconfigError(f"{where}: {error.strerror or error}") from None
    else:
        return b""
    if b"-----BEGIN " not in found:
        raise KubeconfigError(f"{where}: not PEM (no BEGIN line)")
    return found


def _beside(entry: _Entry, path: str) -> Path:
    """A path of the file's, relative to the directory it stands in."""
    return entry.file.parent / Path(path).expanduser()


def _names(entries: Mapping[str, _Entry]) -> str:
    return ", ".join(sorted(entries)) or "none"
