"""NetworkPolicy: which packets may reach or leave a pod."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import ClassVar

from msgspec import field

from . import addresses, checks, fields, names, shape, workload
from .checks import items, part, texts
from .container import IntOrString
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation
from .meta import Object, Struct, Typed
from .pod import LabelSelector

SPEC = Path("spec")


class NetworkPolicyPort(Struct, frozen=True):
    protocol: str | None = None
    port: IntOrString | None = None
    end_port: int | None = None


class IPBlock(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("cidr",)

    cidr: str = ""
    except_: list[str] | None = field(default=None, name="except")


class NetworkPolicyPeer(Struct, frozen=True):
    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class NetworkPolicyIngressRule(Struct, frozen=True):
    ports: list[NetworkPolicyPort] | None = None
    from_: list[NetworkPolicyPeer] | None = field(default=None, name="from")


class NetworkPolicyEgressRule(Struct, frozen=True):
    ports: list[NetworkPolicyPort] | None = None
    to: list[NetworkPolicyPeer] | None = None


class NetworkPolicySpec(Struct, frozen=True):
    pod_selector: LabelSelector = LabelSelector()
    ingress: list[NetworkPolicyIngressRule] | None = None
    egress: list[NetworkPolicyEgressRule] | None = None
    policy_types: list[str] | None = None


class NetworkPolicy(Typed, frozen=True):
    spec: NetworkPolicySpec = NetworkPolicySpec()


def default(obj: Object) -> None:
    """TCP; incoming, and outgoing too if there are rules for it."""
    shape.normalize(obj, NetworkPolicy)
    spec = part(obj, "spec")
    for rule in (*items(spec, "ingress"), *items(spec, "egress")):
        for port in items(rule, "ports"):
            port.setdefault("protocol", "TCP")
    if not items(spec, "policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if items(spec, "egress") else ["Ingress"]


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors = checks.label_selector(spec.get("podSelector"), SPEC / "podSelector")
    for name, side in (("ingress", "from"), ("egress", "to")):
        for i, rule in enumerate(items(spec, name)):
            for j, port in enumerate(items(rule, "ports")):
                errors += validate_port(port, SPEC / name @ i / "ports" @ j)
            for j, peer in enumerate(items(rule, side)):
                errors += validate_peer(peer, SPEC / name @ i / side @ j)
    types = items(spec, "policyTypes")
    if len(types) > 2:
        return [*errors, fields.invalid(SPEC / "policyTypes", types, "may not specify more than two policyTypes")]
    for i, type_ in enumerate(types):
        if type_ not in ("Ingress", "Egress"):
            errors.append(fields.not_supported(SPEC / "policyTypes" @ i, type_, ("Ingress", "Egress"), in_order=True))
    return errors


def validate_port(port: Object, path: Path) -> Errors:
    errors: Errors = []
    protocol = port.get("protocol")
    if protocol is not None and protocol not in ("TCP", "UDP", "SCTP"):
        errors.append(fields.not_supported(path / "protocol", protocol, ("SCTP", "TCP", "UDP")))
    number, end = port.get("port"), port.get("endPort")
    if isinstance(number, str):
        errors += texts(path / "port", number, names.port_name(number))
        if end is not None:
            errors.append(fields.invalid(path / "endPort", end, "may not be specified when `port` is non-numeric"))
    elif number is not None:
        errors += texts(path / "port", number, names.port_number(number))
        if end is not None:
            if end < number:
                errors.append(fields.invalid(path / "endPort", end, "must be greater than or equal to `port`"))
            errors += texts(path / "endPort", end, names.port_number(end))
    elif end is not None:
        errors.append(fields.invalid(path / "endPort", end, "may not be specified when `port` is not specified"))
    return errors


def validate_peer(peer: Object, path: Path) -> Errors:
    """A selector or two, or a block of addresses."""
    given = [f for f in ("podSelector", "namespaceSelector", "ipBlock") if peer.get(f) is not None]
    errors: Errors = []
    for name in ("podSelector", "namespaceSelector"):
        errors += checks.label_selector(peer.get(name), path / name)
    if (block := peer.get("ipBlock")) is not None:
        here = path / "ipBlock"
        if not block.get("cidr"):
            errors.append(fields.required(here / "cidr"))
        else:
            errors += validate_block(block, here)
    if not given:
        errors.append(fields.required(path, "must specify a peer"))
    elif "ipBlock" in given and len(given) > 1:
        errors.append(fields.forbidden(path, "may not specify both ipBlock and another peer"))
    return errors


def validate_block(block: Object, path: Path) -> Errors:
    """A range of addresses, and smaller ones in it that are left out."""
    errors = texts(path / "cidr", block["cidr"], addresses.cidr_errors(block["cidr"]))
    if not errors:
        whole = ip_network(block["cidr"])
        for i, cidr in enumerate(items(block, "except")):
            if wrong := texts(path / "except" @ i, cidr, addresses.cidr_errors(cidr)):
                errors += wrong
            elif not is_within(ip_network(cidr), whole):
                errors.append(fields.invalid(path / "except" @ i, cidr, "must be a strict subset of `cidr`"))
    return errors


def is_within(inner: IPv4Network | IPv6Network, outer: IPv4Network | IPv6Network) -> bool:
    """Whether a range is in another, and not all of it."""
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner != outer and inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner != outer and inner.subnet_of(outer)
    return False


def validate_update(new: Object, _: Object, situation: Situation) -> Errors:
    return validate(new, situation)


NETWORK_POLICY = Kind(
    group="networking.k8s.io",
    version="v1",
    name="NetworkPolicy",
    plural="networkpolicies",
    namespaced=True,
    type=NetworkPolicy,
    schema="io.k8s.api.networking.v1.NetworkPolicy",
    short_names=("netpol",),
    default=default,
    validate=validate,
    validate_update=validate_update,
    generation=workload.spec_changed,
    columns=(
        Column("Name", lambda n: n.name, format="name"),
        Column("Pod-Selector", lambda n: workload.selector_text(n.spec.pod_selector)),
        Column("Age", lambda n: Since(n.metadata.creation_timestamp)),
    ),
)
