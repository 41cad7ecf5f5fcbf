"""`etcd://host:port[,host:port…][/prefix]` and `etcds://…?cacert=FILE&cert=FILE&key=FILE`: where an etcd is. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

DEFAULT_PORT = 2379
DEFAULT_PREFIX = "/kubesvc/"
FORM = "etcd://HOST:PORT[,HOST:PORT][/PREFIX], or etcds://…?cacert=FILE[&cert=FILE&key=FILE] for TLS"
FILES = ("cacert", "cert", "key")


@dataclass(frozen=True, slots=True)
class EtcdAddress:
    """Where an etcd is and which of its keys are ours.

    endpoints:         "host:port" of members, tried in this order
    prefix:            ends with a slash; every key of ours begins with it
    cacert, cert, key: paths of PEM files, "" for the system's CAs and for no client certificate
    """

    endpoints: tuple[str, ...]
    prefix: str = DEFAULT_PREFIX
    tls: bool = False
    cacert: str = ""
    cert: str = ""
    key: str = ""

    @property
    def shown(self) -> str:
        """For messages."""
        return f"etcd at {', '.join(self.endpoints)}"


def parse_address(text: str) -> EtcdAddress:
    """Read an address; ValueError with what was found and what is allowed."""

    def wrong(why: str) -> ValueError:
        return ValueError(f"--store {text}: {why}: must be {FORM}")

    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise wrong(str(error)) from None
    if parts.scheme not in ("etcd", "etcds"):
        raise wrong(f"{parts.scheme!r} is no known scheme")
    if "@" in parts.netloc:
        raise wrong("users and passwords are not supported, use a client certificate")
    if parts.fragment:
        raise wrong("nothing may follow a #")
    endpoints = tuple(endpoint_of(part, wrong) for part in parts.netloc.split(","))
    query = parse_qs(parts.query, keep_blank_values=True)
    unknown = sorted(set(query) - set(FILES))
    if unknown:
        raise wrong(f"{unknown[0]!r} is no option")
    tls = parts.scheme == "etcds"
    if query and not tls:
        raise wrong("certificates need the scheme etcds")
    files = {name: query[name][-1] for name in FILES if query.get(name, [""])[-1]}
    if ("cert" in files) != ("key" in files):
        raise wrong("cert and key go together")
    prefix = unquote(parts.path).strip("/")
    return EtcdAddress(endpoints, f"/{prefix}/" if prefix else DEFAULT_PREFIX, tls, **files)


def endpoint_of(text: str, wrong: Callable[[str], ValueError]) -> str:
    """`host:port` of one member; the port is etcd's usual one if none is given."""
    host, colon, port = text.rpartition(":")
    if not colon or "]" in port:
        host, port = text, str(DEFAULT_PORT)
    if not host or ("[" in host) != ("]" in host) or (":" in host and not host.startswith("[")):
        raise wrong(f"{text!r} is no HOST:PORT")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise wrong(f"{port!r} is no port")
    return f"{host}:{port}"
