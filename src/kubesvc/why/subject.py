"""What is asked about: a Service, a Pod, both, an address or a name, as words of a command line. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

SERVICE_WORDS = ("svc", "service", "services")
POD_WORDS = ("po", "pod", "pods")
NAME = re.compile(r"_?[A-Za-z0-9*]([-A-Za-z0-9_]*[A-Za-z0-9])?(\.[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9])?)*\.?")


class BadSubject(ValueError):
    """The words name nothing that can be asked about; the text says what can."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Exactly one of (service, pod, both), address, name; `port` 0 if none was given."""

    service: str = ""
    pod: str = ""
    address: str = ""
    name: str = ""
    port: int = 0


HELP = "what can be asked about: svc/NAME, pod/NAME, pod/NAME svc/NAME, IP, IP:PORT, a DNS name; or --all"


def parse_subject(words: Sequence[str]) -> Subject:
    """Read the words; BadSubject if they name nothing."""
    if len(words) == 2 and "/" not in words[0] and words[0] in (*SERVICE_WORDS, *POD_WORDS):
        words = [f"{words[0]}/{words[1]}"]
    words = [w.partition("://")[2].partition("/")[0] if w.startswith(("http://", "https://")) else w for w in words]
    if len(words) == 1 and words[0] in (*SERVICE_WORDS, *POD_WORDS):
        raise BadSubject(f"{words[0]} what? {HELP}")
    service = pod = ""
    rest = []
    for word in words:
        kind, slash, name = word.partition("/")
        if not slash:
            rest.append(word)
        elif kind in SERVICE_WORDS and name and not service:
            service = name
        elif kind in POD_WORDS and name and not pod:
            pod = name
        else:
            raise BadSubject(f"{word}: {HELP}")
    if rest and (service or pod or len(rest) > 1):
        raise BadSubject(f"{' '.join(words)}: {HELP}")
    if not rest:
        if not service and not pod:
            raise BadSubject(HELP)
        return Subject(service=service, pod=pod)
    return parse_place(rest[0])


def parse_place(text: str) -> Subject:
    """An address or a name, with a port or without."""
    host, port = text, 0
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::([0-9]+))?", text)
    if bracketed:
        host, port = bracketed[1], int(bracketed[2] or 0)
    elif text.count(":") == 1:
        host, _, number = text.partition(":")
        if not (number.isascii() and number.isdigit()):
            raise BadSubject(f"{text}: {number!r} is no port")
        port = int(number)
    if port > 65535:
        raise BadSubject(f"{text}: ports end at 65535")
    try:
        return Subject(address=str(ipaddress.ip_address(host)), port=port)
    except ValueError:
        pass
    if not NAME.fullmatch(host):
        raise BadSubject(f"{text}: {HELP}")
    return Subject(name=host, port=port)
