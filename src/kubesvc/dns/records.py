"""Which records a name has: the whole knowledge of cluster DNS, as one pure function over a snapshot (DNS-8 to DNS-43).

<svc>.<ns>.svc.<zone>                    addresses of a Service, or of its endpoints when headless, or a CNAME
<label>.<svc>.<ns>.svc.<zone>            one endpoint
_<port>._<proto>.<svc>.<ns>.svc.<zone>   SRV of a named port
<dashed address>.<ns>.pod.<zone>         a Pod's address
dns-version.<zone>, the apex             the zone itself
d.c.b.a.in-addr.arpa, ….ip6.arpa         back from an address to the name
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kubesvc.api.service import Service

from . import wire
from .snapshot import Key, Port, Published, Snapshot, packed
from .wire import CNAME, NOERROR, NXDOMAIN, SRV, Data, Name, Question, Record, Soa, Srv, name_of

SCHEMA_VERSION = b"1.1.0"
SCHEMA_TTL = 28800
MOST_LINKS = 10
"""Longest chain of CNAMEs that is followed (DNS-28)."""
SOA_TTL = 300

IN_ADDR: Name = (b"in-addr", b"arpa")
IP6: Name = (b"ip6", b"arpa")

DASHED = frozenset("0123456789abcdef-")

PodNames = Literal["disabled", "insecure", "verified"]


@dataclass(frozen=True, slots=True)
class Zone:
    """What the operator chose.

    name:      the cluster's domain, in lower case
    ttl:       of every record but dns-version, in seconds, 0..3600 (DNS-44)
    pods:      which Pod names are answered (DNS-30)
    service:   namespace and name of the Service through which Pods reach this DNS
    addresses: packed addresses of the servers themselves, for `ns.dns.<zone>` while that Service is unknown
    negative_ttl: how long "no such name" may be kept, the minimum of the SOA; None: as long as a record (DNS-36, 37)
    """

    name: Name = (b"cluster", b"local")
    ttl: int = 5
    pods: PodNames = "insecure"
    service: Key = ("kube-system", "kube-dns")
    addresses: tuple[bytes, ...] = ()
    negative_ttl: int | None = None

    @property
    def text(self) -> str:
        return b".".join(self.name).decode("ascii")


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say to one question.

    follow: the outside name that a CNAME in `answers` ends at, whose addresses are to be looked up and appended
    (DNS-25); () when there is none
    depends: the one Service whose change could change this answer; None when other changes could, too
    """

    rcode: int = NOERROR
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    follow: Name = ()
    authoritative: bool = True
    depends: Key | None = None


FAMILY = {wire.A: 4, wire.AAAA: 16}
"""Bytes of an address by the type that carries it."""


def answer_for(question: Question, snapshot: Snapshot, zone: Zone) -> Answer | None:
    """The answer to `question`; None for names that are not the cluster's and belong to other resolvers.

    Names compare without regard to case; owners in the answer are spelled as asked (DNS-6). Zone transfers and
    classes other than IN are refused (DNS-7, DNS-41). Before the snapshot is synced: SERVFAIL (DNS-42).
    """
    if question.klass != wire.IN or question.type in (wire.AXFR, wire.IXFR):
        return Answer(wire.REFUSED, authoritative=False)
    name = wire.lower(question.name)
    if name[-len(zone.name) :] == zone.name:
        if not snapshot.synced:
            return Answer(wire.SERVFAIL, authoritative=False)
        return Lookup(question, snapshot, zone).forward(name[: -len(zone.name)])
    address = reverse_address(name)
    if address:
        if not snapshot.synced:
            return Answer(wire.SERVFAIL, authoritative=False)
        return Lookup(question, snapshot, zone).reverse(address)
    return None


def reverse_address(name: Name) -> bytes:
    """The address whose reverse name this is, in lower case; b"" if it is none or not a whole one."""
    if name[-2:] == IN_ADDR and len(name) == 6 and all(label.isdigit() for label in name[:4]):
        return packed(".".join(label.decode("ascii") for label in name[3::-1]))
    if name[-2:] == IP6 and len(name) == 34 and all(len(label) == 1 for label in name[:32]):
        try:
            return bytes.fromhex(b"".join(name[31::-1]).decode("ascii"))
        except ValueError:
            return b""
    return b""


def dashed_address(label: str) -> bytes:
    """The address a Pod's label means: `10-244-1-7`, or an IPv6 address with dashes for colons."""
    if not DASHED.issuperset(label):
        return b""
    dots = packed(label.replace("-", ".")) if label.count("-") == 3 and "--" not in label else b""
    return dots or packed(label.replace("-", ":"))


class Lookup:
    """One question on its way through the names. Pure: reads the snapshot, changes nothing but itself."""

    def __init__(self, question: Question, snapshot: Snapshot, zone: Zone) -> None:
        self.question = question
        self.owner = question.name
        self.type = question.type
        self.snapshot = snapshot
        self.zone = zone

    # What an answer may be

    def soa(self, owner: Name) -> Record:
        """DNS-36."""
        zone = self.zone
        ttl = zone.ttl if zone.negative_ttl is None else zone.negative_ttl
        data = Soa(
            (b"ns", b"dns", *zone.name), (b"hostmaster", *zone.name), self.snapshot.serial, 7200, 1800, 86400, ttl
        )
        return Record(owner, wire.SOA, min(ttl, SOA_TTL), data)

    def nothing(self, rcode: int, apex: Name = ()) -> Answer:
        """A negative answer always says how long it holds (DNS-37)."""
        return Answer(rcode, authority=(self.soa(apex or self.zone.name),))

    def no_data(self) -> Answer:
        return self.nothing(NOERROR)

    def no_name(self) -> Answer:
        return self.nothing(NXDOMAIN)

    def record(self, type_: int, data: Data) -> Record:
        return Record(self.owner, type_, self.zone.ttl, data)

    def addresses(self, addresses: Iterable[bytes]) -> Answer:
        """The addresses of the asked family, each once; NODATA without any, or when another type was asked."""
        size = FAMILY.get(self.type)
        fitting = [self.record(self.type, a) for a in dict.fromkeys(addresses) if len(a) == size]
        return Answer(answers=tuple(fitting)) if fitting else self.no_data()

    def name(self, *labels: str) -> Name:
        """A name below the zone, from its labels."""
        return (*(label.encode("ascii", "replace") for label in labels), *self.zone.name)

    # The zone

    def forward(self, labels: Name) -> Answer:
        """`labels`: what stands left of the zone, in lower case."""
        try:
            parts = tuple(label.decode("ascii") for label in labels)
        except UnicodeDecodeError:
            return self.no_name()
        match parts:
            case ():
                return self.apex()
            case ("dns-version",):
                return self.dns_version()
            case ("dns",) | ("ns", "dns") if self.own_addresses():
                return self.addresses(self.own_addresses() if len(parts) == 2 else ())
            case ("svc",) | ("pod",):
                return self.no_data()
            case (namespace, "svc" | "pod"):
                return self.no_data() if self.snapshot.has_namespace(namespace) else self.no_name()
            case (address, namespace, "pod"):
                return self.pod(address, namespace)
            case (name, namespace, "svc"):
                return self.depending(self.service((namespace, name)), (namespace, name))
            case (label, name, namespace, "svc"):
                return self.depending(self.endpoint(label, (namespace, name)), (namespace, name))
            case (port, protocol, name, namespace, "svc") if is_port(port) and is_port(protocol):
                return self.depending(self.port(port[1:], protocol[1:], (namespace, name)), (namespace, name))
        return self.no_name()

    def depending(self, answer: Answer, key: Key) -> Answer:
        """Records are a Service's own; the SOA of "nothing" and what a CNAME leads to change with the whole."""
        return replace(answer, depends=key) if answer.answers and answer.answers[0].type != CNAME else answer

    def dns_version(self) -> Answer:
        if self.type != wire.TXT:
            return self.no_data()
        return Answer(answers=(Record(self.owner, wire.TXT, SCHEMA_TTL, (SCHEMA_VERSION,)),))

    def apex(self) -> Answer:
        """SOA and NS; with the DNS Service's addresses as glue (DNS-35)."""
        if self.type == wire.SOA:
            return Answer(answers=(self.soa(self.owner),))
        if self.type != wire.NS:
            return self.no_data()
        key = self.zone.service
        service = self.snapshot.services.get(key)
        server, addresses = self.name("ns", "dns"), self.zone.addresses
        if service is not None:
            server, addresses = self.service_name(key), tuple(self.service_addresses(service, key))
        return Answer(
            answers=(self.record(wire.NS, server),), additional=self.address_records([(server, a) for a in addresses])
        )

    def own_addresses(self) -> tuple[bytes, ...]:
        """Of `ns.dns`, which the SOA names: those of the DNS Service, else of the servers themselves."""
        service = self.snapshot.services.get(self.zone.service)
        found = tuple(self.service_addresses(service, self.zone.service)) if service else ()
        return found or self.zone.addresses

    def pod(self, label: str, namespace: str) -> Answer:
        """DNS-30, DNS-31."""
        if self.zone.pods == "disabled" or not self.snapshot.has_namespace(namespace):
            return self.no_name()
        address = dashed_address(label)
        if not address or (self.zone.pods == "verified" and not self.snapshot.has_pod(namespace, address)):
            return self.no_name()
        return self.addresses((address,))

    # Services

    def service_name(self, key: Key) -> Name:
        return self.name(key[1], key[0], "svc")

    def service_addresses(self, service: Service, key: Key) -> Iterable[bytes]:
        """Its cluster addresses, or when headless those of its ready endpoints."""
        if service.headless:
            return [p.address for p in self.snapshot.published(key)]
        return [raw for raw in map(packed, service.addresses) if raw]

    def service(self, key: Key) -> Answer:
        service = self.snapshot.services.get(key)
        if service is None:
            return self.no_name()
        if service.spec.type == "ExternalName":
            return self.external(service)
        if service.headless and not self.snapshot.published(key):
            return self.no_name()  # DNS-16
        if self.type == SRV:
            return self.srv(service, key, None)
        return self.addresses(self.service_addresses(service, key))

    def external(self, service: Service) -> Answer:
        """A CNAME, and what it leads to as far as that is ours (DNS-25 to DNS-28)."""
        text = service.spec.external_name
        try:
            target = name_of(text)
        except wire.FormatError:
            target = ()
        if not target or packed(text):
            return self.no_name()
        if self.type not in (wire.A, wire.AAAA, CNAME):
            return self.no_data()
        link = self.record(CNAME, target)
        if self.type == CNAME:
            return Answer(answers=(link,))
        return self.followed(link, target)

    def followed(self, first: Record, target: Name) -> Answer:
        """The chain from `first` on: links inside the zone are walked, at most MOST_LINKS and none twice."""
        chain, seen, zone = [first], {wire.lower(first.name)}, self.zone.name
        while len(chain) < MOST_LINKS and (name := wire.lower(target)) not in seen:
            seen.add(name)
            if name[-len(zone) :] != zone:
                return Answer(answers=tuple(chain), follow=target)
            step = Lookup(Question(target, CNAME), self.snapshot, self.zone).forward(name[: -len(zone)])
            if step.answers and step.answers[0].type == CNAME:
                chain.append(step.answers[0])
                target = step.answers[0].data  # type: ignore[assignment]
                continue
            end = Lookup(Question(target, self.type), self.snapshot, self.zone).forward(name[: -len(zone)])
            return Answer(answers=(*chain, *end.answers))
        return Answer(answers=tuple(chain))

    def endpoint(self, label: str, key: Key) -> Answer:
        """One endpoint by its label, below any Service but ExternalName (DNS-17, DNS-23, DNS-28)."""
        service = self.snapshot.services.get(key)
        if service is None or service.spec.type == "ExternalName":
            return self.no_name()
        found = [p.address for p in self.snapshot.published(key) if p.label.lower() == label]
        return self.addresses(found) if found else self.no_name()

    # Ports

    def port(self, name: str, protocol: str, key: Key) -> Answer:
        """`_name._protocol`: SRV, and as an extension the addresses behind the port (DNS-10 to DNS-14, DNS-20)."""
        service = self.snapshot.services.get(key)
        if service is None or service.spec.type == "ExternalName":
            return self.no_name()
        wanted = (name, protocol)
        if service.headless:
            behind = [p.address for p in self.snapshot.published(key) if matching(p.ports, wanted)]
        else:
            behind = list(self.service_addresses(service, key)) if matching(ports_of(service), wanted) else []
        if not behind:
            return self.no_name()
        return self.srv(service, key, wanted) if self.type == SRV else self.addresses(behind)

    def srv(self, service: Service, key: Key, wanted: tuple[str, str] | None) -> Answer:
        """SRV records of the ports `wanted` (None: all), with the addresses of every target.

        Headless: one for each endpoint name and port of its slice (DNS-20). Else one for each Service port (DNS-10).
        """
        own = self.service_name(key)
        targets: list[tuple[Name, int]]
        located: list[tuple[Name, bytes]]
        if service.headless:
            named = [(self.endpoint_name(p, key), p) for p in self.snapshot.published(key)]
            targets = [(name, port.number) for name, p in named for port in matching(p.ports, wanted)]
            located = [(name, p.address) for name, p in named if matching(p.ports, wanted)]
        else:
            targets = [(own, port.number) for port in matching(ports_of(service), wanted)]
            located = [(own, address) for address in self.service_addresses(service, key)]
        targets = list(dict.fromkeys(targets))
        if not targets:
            return self.no_data()
        weight = max(1, 100 // len(targets))
        return Answer(
            answers=tuple(self.record(SRV, Srv(0, weight, port, target)) for target, port in targets),
            additional=self.address_records(located),
        )

    def endpoint_name(self, endpoint: Published, key: Key) -> Name:
        return self.name(endpoint.label, key[1], key[0], "svc")

    def address_records(self, located: Sequence[tuple[Name, bytes]]) -> tuple[Record, ...]:
        types = {4: wire.A, 16: wire.AAAA}
        return tuple(
            Record(name, types[len(address)], self.zone.ttl, address) for name, address in dict.fromkeys(located)
        )

    # Reverse

    def reverse(self, address: bytes) -> Answer | None:
        """Names of an address (DNS-32 to DNS-34); None if the cluster does not know it."""
        snapshot = self.snapshot
        names: list[Name] = [self.service_name(key) for key in sorted(snapshot.cluster_addresses.get(address, ()))]
        if not names:
            for key in sorted(snapshot.endpoint_addresses.get(address, ())):
                service = snapshot.services.get(key)
                if service is None or service.spec.type == "ExternalName":
                    continue
                names += [self.endpoint_name(p, key) for p in snapshot.published(key) if p.address == address]
        if not names:
            return None
        if self.type != wire.PTR:
            return self.nothing(NOERROR, IN_ADDR if len(address) == 4 else IP6)
        return Answer(answers=tuple(self.record(wire.PTR, name) for name in dict.fromkeys(names)))


def is_port(label: str) -> bool:
    return len(label) > 1 and label.startswith("_")


def ports_of(service: Service) -> list[Port]:
    return [Port(p.name.lower(), p.protocol.lower(), p.port) for p in service.spec.ports or ()]


def matching(ports: Iterable[Port], wanted: tuple[str, str] | None) -> list[Port]:
    """The ports with the wanted name and protocol; all when None."""
    return [p for p in ports if wanted is None or (p.name, p.protocol) == wanted]


def rotated(answer: Answer, turn: int) -> Answer:
    """The same answer with its last run of records of one type begun elsewhere, so that clients spread (DNS-24)."""
    records = answer.answers
    head = next((i for i, r in enumerate(records) if r.type != CNAME), len(records))
    run = records[head:]
    if len(run) < 2:
        return answer
    cut = turn % len(run)
    return replace(answer, answers=(*records[:head], *run[cut:], *run[:cut]))
