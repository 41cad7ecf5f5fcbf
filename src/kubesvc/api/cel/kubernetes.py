"""What Kubernetes adds to the language: URLs, quantities, addresses, formats of names, versions, and the authorizer."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from urllib.parse import SplitResult, unquote_plus, urlsplit

from .. import addresses, formats, names
from ..quantity import NANO, Quantity, parse
from .values import NONE, CelError, Opaque, Optional

if TYPE_CHECKING:
    from .evaluate import Frame

LONGEST = 4096
"""Longer texts are neither addresses, versions nor quantities."""


class Value(Opaque):
    """A value that is compared by what `same` gives."""

    @property
    def same(self) -> Any:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.same == other.same

    def __hash__(self) -> int:
        return hash(self.same)


# ---------------------------------------------------------------- URLs


class Url(Value):
    type_name: ClassVar[str] = "kubernetes.URL"

    def __init__(self, text: str, parts: SplitResult) -> None:
        self.text, self.parts = text, parts

    @property
    def same(self) -> str:
        return self.text


def read_url(text: str) -> Url | str:
    """A URL with a scheme, or a path from the root; else what is wrong."""
    failure = f'URL parse error during conversion from string: parse "{text[:200]}": invalid URI for request'
    if any(c <= " " or c == "\x7f" for c in text) or "[" in text.partition("?")[0].partition("://")[2].split("/")[1:]:
        return failure
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return failure
    if not (parts.scheme and (parts.netloc or parts.path)) and not text.startswith("/"):
        return failure
    if not parts.scheme and text.startswith("/") and text.startswith("//") and not parts.netloc:
        return failure
    return Url(text, parts)


def url(text: str) -> Url:
    found = read_url(text)
    if isinstance(found, str):
        raise CelError(found)
    return found


def host_name(of: Url) -> str:
    host = of.parts.netloc.rpartition("@")[2]
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def query(frame: Frame, of: Url) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    frame.spend(len(of.parts.query) // 2)
    for pair in of.parts.query.split("&"):
        if pair and ";" not in pair:
            key, _, value = pair.partition("=")
            out.setdefault(unquote_plus(key), []).append(unquote_plus(value))
    return out


# ---------------------------------------------------------------- quantities


class Amount(Value):
    type_name: ClassVar[str] = "kubernetes.Quantity"

    def __init__(self, quantity: Quantity) -> None:
        self.quantity = quantity

    @property
    def same(self) -> int:
        return self.quantity.nanos


def read_amount(text: str) -> Amount | str:
    if len(text) > LONGEST or text != text.strip():
        return "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    try:
        return Amount(parse(text))
    except ValueError as e:
        return str(e)


def amount(text: str) -> Amount:
    found = read_amount(text)
    if isinstance(found, str):
        raise CelError(found)
    return found


def as_integer(of: Amount) -> int:
    if not is_integer(of):
        raise CelError("cannot convert value to integer")
    return of.quantity.nanos // NANO


def is_integer(of: Amount) -> bool:
    return of.quantity.nanos % NANO == 0


def quantity_of(other: Any) -> Quantity:
    return other.quantity if isinstance(other, Amount) else Quantity(int(other) * NANO)


def sign(value: Any) -> int:
    return int(value > 0) - int(value < 0)


# ---------------------------------------------------------------- addresses


class Address(Value):
    type_name: ClassVar[str] = "net.IP"

    def __init__(self, address: addresses.Address) -> None:
        self.address = address

    @property
    def same(self) -> addresses.Address:
        return self.address


class Range(Value):
    """An address with the length of a prefix; the address need not be the range's first."""

    type_name: ClassVar[str] = "net.CIDR"

    def __init__(self, address: addresses.Address, network: addresses.Network) -> None:
        self.address, self.network = address, network

    @property
    def same(self) -> Any:
        return (self.address, self.network.prefixlen)

    @property
    def text(self) -> str:
        return f"{self.address}/{self.network.prefixlen}"


def read_address(text: str) -> Address | str:
    if len(text) <= LONGEST and "%" in text:
        return f"IP address {names_quote(text)} with zone value is not allowed"
    try:
        found = ipaddress.ip_address(text) if len(text) <= LONGEST else None
    except ValueError:
        found = None
    if found is None:
        found_text = names_quote(text[:100])
        failure = f"IP Address {found_text} parse error during conversion from string: ParseAddr({found_text})"
        return f"{failure}: unable to parse IP"
    if addresses.mapped(found):
        return f"IPv4-mapped IPv6 address {names_quote(text)} is not allowed"
    return Address(found)


def names_quote(text: str) -> str:
    from .textformat import go_quote

    return go_quote(text)


def address(text: str) -> Address:
    found = read_address(text)
    if isinstance(found, str):
        raise CelError(found)
    return found


def read_range(text: str) -> Range | str:
    start = "network address parse error during conversion from string: netip.ParsePrefix"
    failure = f"{start}({names_quote(text[:100])})"
    first, slash, length = text.partition("/")
    if len(text) > LONGEST or not slash:
        return f"{failure}: no '/'"
    wrong_bits = f"{failure}: bad bits after slash: {names_quote(length[:100])}"
    if not (length.isascii() and length.isdigit()) or (len(length) > 1 and length[0] == "0"):
        return wrong_bits
    inner = read_address(first)
    if isinstance(inner, str):
        return f"{failure}: {inner}"
    try:
        return Range(inner.address, ipaddress.ip_network(text, strict=False))
    except ValueError:
        return wrong_bits


def cidr(text: str) -> Range:
    found = read_range(text)
    if isinstance(found, str):
        raise CelError(found)
    return found


def holds(of: Range, inner: addresses.Address) -> bool:
    return inner.version == of.network.version and inner in of.network


def holds_range(of: Range, inner: Range) -> bool:
    return (
        inner.network.version == of.network.version
        and inner.network.prefixlen >= of.network.prefixlen
        and inner.address in of.network
    )


def link_local_multicast(of: Address) -> bool:
    v4 = of.address.version == 4
    return of.address in (addresses.LINK_LOCAL_MULTICAST_4 if v4 else addresses.LINK_LOCAL_MULTICAST_6)


def global_unicast(of: Address) -> bool:
    one = of.address
    broadcast = one.version == 4 and int(one) == 2**32 - 1
    return not (one.is_unspecified or one.is_loopback or one.is_multicast or one.is_link_local or broadcast)


# ---------------------------------------------------------------- formats of names


class Format(Value):
    """A format that texts may have; `errors` tells what is wrong with one."""

    type_name: ClassVar[str] = "kubernetes.NamedFormat"

    def __init__(self, name: str, errors: Callable[[str], list[str]]) -> None:
        self.name, self.errors = name, errors

    @property
    def same(self) -> str:
        return self.name


DNS1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def dns1035_label(text: str) -> list[str]:
    out = [] if len(text) <= 63 else ["must be no more than 63 characters"]
    if not DNS1035.fullmatch(text):
        out.append(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
            "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
            "validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
        )
    return out


def prefix_of(check: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    return lambda text: check(names.generate_name_base(text))


def by_format(name: str, failure: str) -> Callable[[str], list[str]]:
    return lambda text: [] if formats.FORMATS[name](text) else [failure]


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("dns1123Label", names.dns_label),
        Format("dns1123Subdomain", names.dns_subdomain),
        Format("dns1035Label", dns1035_label),
        Format("qualifiedName", names.qualified_name),
        Format("dns1123LabelPrefix", prefix_of(names.dns_label)),
        Format("dns1123SubdomainPrefix", prefix_of(names.dns_subdomain)),
        Format("dns1035LabelPrefix", prefix_of(dns1035_label)),
        Format("labelValue", names.label_value),
        Format("uri", lambda text: [u for u in (read_url(text),) if isinstance(u, str)]),
        Format("uuid", by_format("uuid", "does not match the UUID format")),
        Format("byte", by_format("byte", "invalid base64")),
        Format("date", by_format("date", "invalid date")),
        Format("datetime", by_format("datetime", "invalid datetime")),
    )
}


def validated(frame: Frame, of: Format, text: str) -> Optional:
    frame.spend(1 + len(text))
    if len(text) > LONGEST and of.name not in ("uri", "byte"):
        return Optional([f"must be no more than {LONGEST} characters"])
    found = of.errors(text)
    return Optional(found) if found else NONE


# ---------------------------------------------------------------- versions

SEMVER = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
    r"(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
)


class Version(Value):
    type_name: ClassVar[str] = "kubernetes.Semver"

    def __init__(self, numbers: tuple[int, int, int], pre: tuple[str, ...]) -> None:
        self.numbers, self.pre = numbers, pre

    @property
    def same(self) -> Any:
        # A version without a pre-release comes after all with one; numbers come before words.
        return (self.numbers, not self.pre, tuple((not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in self.pre))


def normalized(text: str) -> str:
    """`v1.02` as `1.2.0`."""
    text = text.removeprefix("v")
    head = re.match(r"[0-9.]*", text)
    core = head[0] if head else ""
    rest = text[len(core) :]
    numbers = [p.lstrip("0") or "0" for p in core.split(".")]
    numbers += ["0"] * (3 - len(numbers))
    return ".".join(numbers) + rest


@lru_cache(maxsize=1024)
def read_version(text: str, normalize: bool = False) -> Version | None:
    if len(text) > 256:
        return None
    found = SEMVER.fullmatch(normalized(text) if normalize else text)
    if not found:
        return None
    pre = tuple(found[4].split(".")) if found[4] else ()
    if any(p.isdigit() and len(p) > 1 and p[0] == "0" for p in pre):
        return None
    return Version((int(found[1]), int(found[2]), int(found[3])), pre)


def version(text: str, normalize: bool = False) -> Version:
    found = read_version(text, normalize)
    if found is None:
        raise CelError(
            "No Major.Minor.Patch elements found"
            if text.count(".") < 2
            else f"Invalid character(s) found in version {names_quote(text[:100])}"
        )
    return found


# ---------------------------------------------------------------- who may do what


class Judge(Protocol):
    """Tells whether somebody may do something: (allowed, why)."""

    def __call__(self, user: Any, attributes: dict[str, str]) -> tuple[bool, str]: ...


class Authorizer(Value):
    """Asks about a user. `user`: of the request, or ("namespace", "name") of a service account."""

    type_name: ClassVar[str] = "kubernetes.authorization.Authorizer"

    def __init__(self, judge: Judge, user: Any) -> None:
        self.judge, self.user = judge, user

    @property
    def same(self) -> Any:
        return id(self)


class Check(Value):
    """What is asked about so far."""

    def __init__(self, authorizer: Authorizer, attributes: dict[str, str]) -> None:
        self.authorizer, self.attributes = authorizer, attributes

    @property
    def same(self) -> Any:
        return tuple(sorted(self.attributes.items()))

    def with_(self, **more: str) -> dict[str, str]:
        return {**self.attributes, **more}


class PathCheck(Check):
    type_name: ClassVar[str] = "kubernetes.authorization.PathCheck"


class GroupCheck(Check):
    type_name: ClassVar[str] = "kubernetes.authorization.GroupCheck"


class ResourceCheck(Check):
    type_name: ClassVar[str] = "kubernetes.authorization.ResourceCheck"


class Decision(Value):
    type_name: ClassVar[str] = "kubernetes.authorization.Decision"

    def __init__(self, allowed: bool, why: str) -> None:
        self.allowed, self.why = allowed, why

    @property
    def same(self) -> Any:
        return (self.allowed, self.why)


CHECK_COST = 350_000
"""As upstream: an expression can ask the authorizer about twice."""


def asked(frame: Frame, check: Check, verb: str) -> Decision:
    frame.spend(CHECK_COST)
    return Decision(*check.authorizer.judge(check.authorizer.user, check.with_(verb=verb)))


def of_path(authorizer: Authorizer, path: str) -> PathCheck:
    if not path.strip():
        raise CelError("path must not be empty")
    return PathCheck(authorizer, {"path": path})


def of_account(authorizer: Authorizer, namespace: str, name: str) -> Authorizer:
    for text, found in ((namespace, names.dns_label(namespace)), (name, names.dns_subdomain(name))):
        if found:
            sort = "namespace" if text is namespace else "service account name"
            raise CelError(f"Invalid {sort}" if sort != "namespace" else "Invalid service account namespace")
    return Authorizer(authorizer.judge, (namespace, name))


def resource_step(field: str) -> Callable[[ResourceCheck, str], ResourceCheck]:
    return lambda check, value: ResourceCheck(check.authorizer, check.with_(**{field: value}))


# ---------------------------------------------------------------- the table


def register(add: Callable[..., None], add_priced: Callable[..., None]) -> None:
    """Tell the library of all functions."""
    add_priced("isURL(string) -> bool", lambda t: not isinstance(read_url(t), str), 10)
    add_priced("url(string) -> kubernetes.URL", url, 10)
    for name, read in (
        ("getScheme", lambda u: u.parts.scheme),
        ("getHost", lambda u: u.parts.netloc.rpartition("@")[2]),
        ("getHostname", host_name),
        ("getPort", lambda u: str(u.parts.port) if u.parts.port is not None else ""),
        ("getEscapedPath", lambda u: u.parts.path),
    ):
        add(f"<kubernetes.URL>.{name}() -> string", read)
    add("<kubernetes.URL>.getQuery() -> map(string, list(string))", query, costly=True)

    q = "kubernetes.Quantity"
    add_priced("isQuantity(string) -> bool", lambda t: not isinstance(read_amount(t), str), 10)
    add_priced(f"quantity(string) -> {q}", amount, 10)
    add(f"<{q}>.isInteger() -> bool", is_integer)
    add(f"<{q}>.asInteger() -> int", as_integer)
    add(f"<{q}>.asApproximateFloat() -> double", lambda a: a.quantity.nanos / NANO)
    add(f"<{q}>.sign() -> int", lambda a: sign(a.quantity.nanos))
    add(f"<{q}>.isGreaterThan({q}) -> bool", lambda a, b: a.same > b.same)
    add(f"<{q}>.isLessThan({q}) -> bool", lambda a, b: a.same < b.same)
    add(f"<{q}>.compareTo({q}) -> int", lambda a, b: sign(a.same - b.same))
    for other in (q, "int"):
        add(f"<{q}>.add({other}) -> {q}", lambda a, b: Amount(a.quantity + quantity_of(b)))
        add(f"<{q}>.sub({other}) -> {q}", lambda a, b: Amount(a.quantity - quantity_of(b)))

    add_priced("isIP(string) -> bool", lambda t: not isinstance(read_address(t), str), 10)
    add_priced("ip(string) -> net.IP", address, 10)
    add_priced("ip.isCanonical(string) -> bool", lambda t: str(address(t).address) == t, 10)
    add("string(net.IP) -> string", lambda a: str(a.address))
    add("<net.IP>.family() -> int", lambda a: a.address.version)
    add("<net.IP>.isUnspecified() -> bool", lambda a: a.address.is_unspecified)
    add("<net.IP>.isLoopback() -> bool", lambda a: a.address.is_loopback)
    add("<net.IP>.isLinkLocalMulticast() -> bool", link_local_multicast)
    add("<net.IP>.isLinkLocalUnicast() -> bool", lambda a: a.address.is_link_local)
    add("<net.IP>.isGlobalUnicast() -> bool", global_unicast)
    add_priced("isCIDR(string) -> bool", lambda t: not isinstance(read_range(t), str), 10)
    add_priced("cidr(string) -> net.CIDR", cidr, 10)
    add("string(net.CIDR) -> string", lambda r: r.text)
    add_priced("<net.CIDR>.containsIP(string) -> bool", lambda r, t: holds(r, address(t).address), 10)
    add("<net.CIDR>.containsIP(net.IP) -> bool", lambda r, a: holds(r, a.address))
    add_priced("<net.CIDR>.containsCIDR(string) -> bool", lambda r, t: holds_range(r, cidr(t)), 10)
    add("<net.CIDR>.containsCIDR(net.CIDR) -> bool", holds_range)
    add("<net.CIDR>.ip() -> net.IP", lambda r: Address(r.address))
    add("<net.CIDR>.masked() -> net.CIDR", lambda r: Range(r.network.network_address, r.network))
    add("<net.CIDR>.prefixLength() -> int", lambda r: r.network.prefixlen)

    f = "kubernetes.NamedFormat"
    add(f"format.named(string) -> optional_type({f})", lambda n: Optional(FORMATS[n]) if n in FORMATS else NONE)
    for name, one in FORMATS.items():
        add(f"format.{name}() -> {f}", lambda one=one: one)
    add(f"<{f}>.validate(string) -> optional_type(list(string))", validated, costly=True)

    add_priced("jsonpatch.escapeKey(string) -> string", lambda t: t.replace("~", "~0").replace("/", "~1"), 1)

    s = "kubernetes.Semver"
    for extra in ("", ", bool"):
        add_priced(f"isSemver(string{extra}) -> bool", lambda t, n=False: read_version(t, n) is not None, 5)
        add_priced(f"semver(string{extra}) -> {s}", version, 5)
    for place, name in enumerate(("major", "minor", "patch")):
        add(f"<{s}>.{name}() -> int", lambda v, place=place: v.numbers[place])
    add(f"<{s}>.isGreaterThan({s}) -> bool", lambda a, b: a.same > b.same)
    add(f"<{s}>.isLessThan({s}) -> bool", lambda a, b: a.same < b.same)
    add(f"<{s}>.compareTo({s}) -> int", lambda a, b: (a.same > b.same) - (a.same < b.same))

    space = "kubernetes.authorization"
    authorizer, resource = f"{space}.Authorizer", f"{space}.ResourceCheck"
    add(f"<{authorizer}>.path(string) -> {space}.PathCheck", of_path)
    add(f"<{authorizer}>.group(string) -> {space}.GroupCheck", lambda a, g: GroupCheck(a, {"group": g}))
    add(f"<{authorizer}>.serviceAccount(string, string) -> {authorizer}", of_account)
    add(
        f"<{space}.GroupCheck>.resource(string) -> {resource}",
        lambda c, r: ResourceCheck(c.authorizer, c.with_(resource=r)),
    )
    for field in ("subresource", "namespace", "name"):
        add(f"<{resource}>.{field}(string) -> {resource}", resource_step(field))
    add(f"<{resource}>.check(string) -> {space}.Decision", asked, costly=True)
    add(f"<{space}.PathCheck>.check(string) -> {space}.Decision", asked, costly=True)
    add(f"<{space}.Decision>.allowed() -> bool", lambda d: d.allowed)
    add(f"<{space}.Decision>.reason() -> string", lambda d: d.why)
    add(f"<{space}.Decision>.errored() -> bool", lambda d: False)
    add(f"<{space}.Decision>.error() -> string", lambda d: "")
