"""What a Service must be: field errors in the order in which the API finds them (SVC, FAM, SVCX-3), and warnings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from . import addresses, fields, names
from .fields import Errors, Path
from .kind import Situation
from .meta import Object
from .service_update import externally_accessible, headless, needs_health_port

SPEC = Path("spec")
INGRESS = Path("status.loadBalancer.ingress")
ANNOTATIONS = Path("metadata") / "annotations"
TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"
TOPOLOGY_HINTS = "service.kubernetes.io/topology-aware-hints"
SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
PROTOCOLS = ("SCTP", "TCP", "UDP")
AFFINITIES = ("ClientIP", "None")
TRAFFIC_POLICIES = ("Cluster", "Local")
DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
FAMILIES = ("IPv4", "IPv6")
FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
INGRESS_MODES = ("Proxy", "VIP")
AGENT_PORT = 10250
"""Load balancers may not expose the node agent's port."""
LONGEST_AFFINITY_SECONDS = 86400
LOAD_BALANCER_ONLY = "may only be used when `type` is 'LoadBalancer'"
ONCE = "may not change once set"


def validate(obj: Object, _: Situation) -> Errors:
    """All errors of a new Service, metadata's own excluded."""
    return content_errors(obj, {})


def validate_update(new: Object, old: Object, _: Situation) -> Errors:
    """What may not change (FAM-11 to FAM-13, SVC-19, SVC-21), then what `validate` finds."""
    after, before = new["spec"], old["spec"]
    errors = cluster_ips_change_errors(after, before) + families_change_errors(after, before)
    name, stays_balanced = after.get("loadBalancerClass"), after.get("type") == before.get("type") == "LoadBalancer"
    if stays_balanced and name != before.get("loadBalancerClass"):
        errors.append(fields.invalid(SPEC / "loadBalancerClass", name, ONCE))
    stays_local = needs_health_port(after) and needs_health_port(before)
    if stays_local and after.get("healthCheckNodePort") != before.get("healthCheckNodePort"):
        errors.append(fields.forbidden(SPEC / "healthCheckNodePort", "field is immutable"))
    return errors + content_errors(new, before)


def content_errors(obj: Object, before: Object) -> Errors:
    """Errors of the content; addresses that stand in `before`, the old spec or {}, are not looked at again (SVC-40)."""
    spec, annotations = obj["spec"], (obj.get("metadata") or {}).get("annotations") or {}
    return (
        annotation_errors(annotations)
        + type_needs_errors(spec)
        + ports_errors(spec)
        + selector_errors(spec)
        + affinity_errors(spec)
        + cluster_ips_errors(spec, before.get("clusterIPs") or ())
        + external_ips_errors(spec, before.get("externalIPs") or ())
        + type_errors(spec)
        + duplicate_ports_errors(spec)
        + load_balancer_errors(spec, annotations, before.get("loadBalancerSourceRanges") or ())
        + traffic_errors(spec)
    )


def annotation_errors(annotations: Object) -> Errors:
    """SVC-28."""
    mode, hints = annotations.get(TOPOLOGY_MODE), annotations.get(TOPOLOGY_HINTS)
    if mode is None or hints is None or mode == hints:
        return []
    return [
        fields.invalid(
            ANNOTATIONS.key(TOPOLOGY_MODE), mode, f"must match annotations[{TOPOLOGY_HINTS}] when both are specified"
        )
    ]


def type_needs_errors(spec: Object) -> Errors:
    """What each type needs and excludes (SVC-3, SVC-25, SVC-30, SVC-31)."""
    kind, errors = spec.get("type"), Errors()
    if not spec.get("ports") and not headless(spec) and kind != "ExternalName":
        errors.append(fields.required(SPEC / "ports"))
    if kind == "LoadBalancer":
        text = f"may not expose port {AGENT_PORT} externally since it is used by kubelet"
        for i, port in enumerate(spec.get("ports") or ()):
            if port.get("port") == AGENT_PORT:
                errors.append(fields.invalid(SPEC / "ports" @ i / "port", AGENT_PORT, text))
    if kind in ("LoadBalancer", "NodePort") and headless(spec):
        first = (spec.get("clusterIPs") or [spec.get("clusterIP")])[0]
        errors.append(fields.invalid(SPEC / "clusterIPs" @ 0, first, f"may not be set to 'None' for {kind} services"))
    if kind == "ExternalName":
        for name in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(name) or (name == "ipFamilyPolicy" and spec.get(name) is not None):
                errors.append(fields.forbidden(SPEC / name, "may not be set for ExternalName services"))
        target = (spec.get("externalName") or "").removesuffix(".")
        if not target:
            errors.append(fields.required(SPEC / "externalName"))
        errors += [fields.invalid(SPEC / "externalName", target, t) for t in names.dns_subdomain(target) if target]
    return errors


def ports_errors(spec: Object) -> Errors:
    ports: list[Object] = spec.get("ports") or []
    taken: set[str] = set()
    errors: Errors = []
    for i, port in enumerate(ports):
        errors += port_errors(SPEC / "ports" @ i, port, taken, named=len(ports) > 1)
    return errors


def port_errors(path: Path, port: Object, taken: set[str], *, named: bool) -> Errors:
    """SVC-4 to SVC-9; `taken` collects the names seen."""
    errors: Errors = []
    name = port.get("name") or ""
    if name:
        errors += [fields.invalid(path / "name", name, text) for text in names.dns_label(name)]
        if name in taken:
            errors.append(fields.duplicate(path / "name", name))
        taken.add(name)
    elif named:
        errors.append(fields.required(path / "name"))
    number = port.get("port") or 0
    errors += [fields.invalid(path / "port", number, text) for text in names.port_number(number)]
    protocol = port.get("protocol") or ""
    if not protocol:
        errors.append(fields.required(path / "protocol"))
    elif protocol not in PROTOCOLS:
        errors.append(fields.not_supported(path / "protocol", protocol, PROTOCOLS))
    errors += target_port_errors(path / "targetPort", port.get("targetPort") or 0)
    if (app := port.get("appProtocol")) is not None:
        errors += [fields.invalid(path / "appProtocol", app, text) for text in names.qualified_name(app)]
    return errors


def target_port_errors(path: Path, target: Any) -> Errors:
    texts = names.port_name(target) if isinstance(target, str) else names.port_number(target)
    return [fields.invalid(path, target, text) for text in texts]


def selector_errors(spec: Object) -> Errors:
    """SVC-12."""
    errors: Errors = []
    for key, value in sorted((spec.get("selector") or {}).items()):
        errors += [fields.invalid(SPEC / "selector", key, text) for text in names.label_key(key)]
        errors += [fields.invalid(SPEC / "selector", value, text) for text in names.label_value(value)]
    return errors


def affinity_errors(spec: Object) -> Errors:
    """SVC-14, SVC-16; a missing config was filled in by defaulting."""
    affinity = spec.get("sessionAffinity") or ""
    if not affinity:
        return [fields.required(SPEC / "sessionAffinity")]
    if affinity not in AFFINITIES:
        return [fields.not_supported(SPEC / "sessionAffinity", affinity, AFFINITIES)]
    if affinity != "ClientIP":
        return []
    seconds = spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"]
    if 0 < seconds <= LONGEST_AFFINITY_SECONDS:
        return []
    path = SPEC / "sessionAffinityConfig" / "clientIP" / "timeoutSeconds"
    return [fields.invalid(path, seconds, "must be greater than 0 and less than 86400")]


def cluster_ips_errors(spec: Object, kept: Collection[str] = ()) -> Errors:
    """The form of clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy, and whether they fit (FAM-1, FAM-10)."""
    if spec.get("type") == "ExternalName":
        return []
    path, listed, one = SPEC / "clusterIPs", spec.get("clusterIPs") or [], spec.get("clusterIP") or ""
    errors: Errors = []
    if one and not listed:
        errors.append(fields.required(path))
    elif one and listed[0] != one:
        errors.append(fields.invalid(path, listed, "first value must match `clusterIP`"))
    elif not one and listed:
        errors.append(fields.invalid(path, listed, "must be empty when `clusterIP` is not specified"))
    errors += families_form_errors(spec)
    form = address_form_errors(path, listed, kept)
    errors += form
    if len(listed) > 2:
        errors.append(fields.invalid(path, listed, "may only hold up to 2 values"))
    if form:
        return errors
    if len(listed) > 1 and len({addresses.family_of(a) for a in listed}) < 2:
        errors.append(fields.invalid(path, listed, "may specify no more than one IP for each IP family"))
    if not headless(spec):
        for i, (address, family) in enumerate(zip(listed, spec.get("ipFamilies") or (), strict=False)):
            if family in FAMILIES and addresses.family_of(address) != family:
                text = f"expected an {family} value as indicated by `ipFamilies[{i}]`"
                errors.append(fields.invalid(path @ i, address, text))
    return errors


def families_form_errors(spec: Object) -> Errors:
    errors: Errors = []
    seen: set[str] = set()
    for i, family in enumerate(spec.get("ipFamilies") or ()):
        if family not in FAMILIES:
            errors.append(fields.not_supported(SPEC / "ipFamilies" @ i, family, FAMILIES))
        if family in seen:
            errors.append(fields.duplicate(SPEC / "ipFamilies" @ i, family))
        seen.add(family)
    if (policy := spec.get("ipFamilyPolicy")) is not None and policy not in FAMILY_POLICIES:
        errors.append(fields.not_supported(SPEC / "ipFamilyPolicy", policy, FAMILY_POLICIES))
    return errors


def address_form_errors(path: Path, listed: list[str], kept: Collection[str]) -> Errors:
    errors: Errors = []
    for i, address in enumerate(listed):
        if i == 0 and address == "None":
            if len(listed) > 1:
                errors.append(fields.invalid(path, listed, "'None' must be the first and only value"))
        elif address not in kept:
            errors += [fields.invalid(path @ i, address, text) for text in addresses.errors(address)]
    return errors


def external_ips_errors(spec: Object, kept: Collection[str]) -> Errors:
    """SVC-24."""
    errors: Errors = []
    for i, address in enumerate(spec.get("externalIPs") or ()):
        texts = [] if address in kept else addresses.errors(address)
        errors += [fields.invalid(SPEC / "externalIPs" @ i, address, t) for t in texts or addresses.reserved(address)]
    return errors


def type_errors(spec: Object) -> Errors:
    """SVC-2, SVC-8."""
    kind, errors = spec.get("type") or "", Errors()
    if not kind:
        errors.append(fields.required(SPEC / "type"))
    elif kind not in TYPES:
        errors.append(fields.not_supported(SPEC / "type", kind, TYPES))
    if kind == "ClusterIP":
        for i, port in enumerate(spec.get("ports") or ()):
            if port.get("nodePort"):
                path = SPEC / "ports" @ i / "nodePort"
                errors.append(fields.forbidden(path, "may not be used when `type` is 'ClusterIP'"))
    return errors


def duplicate_ports_errors(spec: Object) -> Errors:
    """SVC-10, SVC-11."""
    ports: list[Object] = spec.get("ports") or []
    errors: Errors = []
    taken: set[tuple[str, int]] = set()
    for i, port in enumerate(ports):
        if number := port.get("nodePort"):
            if (port["protocol"], number) in taken:
                errors.append(fields.duplicate(SPEC / "ports" @ i / "nodePort", number))
            taken.add((port["protocol"], number))
    seen: set[tuple[str, int]] = set()
    for i, port in enumerate(ports):
        protocol, number = port.get("protocol") or "", port.get("port") or 0
        if (protocol, number) in seen:
            key = {
                "Name": "",
                "Protocol": protocol,
                "AppProtocol": None,
                "Port": number,
                "TargetPort": 0,
                "NodePort": 0,
            }
            errors.append(fields.duplicate(SPEC / "ports" @ i, key))
        seen.add((protocol, number))
    return errors


def load_balancer_errors(spec: Object, annotations: Object, kept: Collection[str]) -> Errors:
    """SVC-20, SVC-21, SVC-23."""
    balanced = spec.get("type") == "LoadBalancer"
    errors = source_ranges_errors(spec, annotations, kept)
    allocate = spec.get("allocateLoadBalancerNodePorts")
    if allocate is not None and not balanced:
        errors.append(fields.forbidden(SPEC / "allocateLoadBalancerNodePorts", LOAD_BALANCER_ONLY))
    if (name := spec.get("loadBalancerClass")) is not None:
        path = SPEC / "loadBalancerClass"
        if balanced:
            errors += [fields.invalid(path, name, text) for text in names.qualified_name(name)]
        else:
            errors.append(fields.forbidden(path, LOAD_BALANCER_ONLY))
    return errors


def source_ranges_errors(spec: Object, annotations: Object, kept: Collection[str]) -> Errors:
    balanced = spec.get("type") == "LoadBalancer"
    errors: Errors = []
    if ranges := spec.get("loadBalancerSourceRanges"):
        path = SPEC / "LoadBalancerSourceRanges"
        if not balanced:
            errors.append(fields.forbidden(path, LOAD_BALANCER_ONLY))
        for i, text in enumerate(ranges):
            if text not in kept:
                cidr = text.strip()  # blanks around were always let through
                errors += [fields.invalid(path @ i, cidr, t) for t in addresses.cidr_errors(cidr)]
    elif (annotation := annotations.get(SOURCE_RANGES)) is not None:
        path = ANNOTATIONS.key(SOURCE_RANGES)
        if not balanced:
            return [fields.forbidden(path, LOAD_BALANCER_ONLY)]
        for text in annotation.strip().split(",") if annotation.strip() else ():
            errors += [fields.invalid(path, text.strip(), t) for t in addresses.cidr_errors(text.strip())]
    return errors


def traffic_errors(spec: Object) -> Errors:
    """SVC-17 to SVC-19, SVC-27."""
    errors: Errors = []
    path, policy = SPEC / "externalTrafficPolicy", spec.get("externalTrafficPolicy") or ""
    if not externally_accessible(spec):
        if policy:
            errors.append(fields.invalid(path, policy, "may only be set for externally-accessible services"))
    elif not policy:
        errors.append(fields.required(path))
    elif policy not in TRAFFIC_POLICIES:
        errors.append(fields.not_supported(path, policy, TRAFFIC_POLICIES))
    errors += health_port_errors(spec)
    path, policy = SPEC / "internalTrafficPolicy", spec.get("internalTrafficPolicy")
    if policy is None:
        if spec.get("type") in ("ClusterIP", "NodePort", "LoadBalancer"):
            errors.append(fields.required(path))
    elif policy not in TRAFFIC_POLICIES:
        errors.append(fields.not_supported(path, policy, TRAFFIC_POLICIES))
    wish = spec.get("trafficDistribution")
    if wish is not None and wish not in DISTRIBUTIONS:
        errors.append(fields.not_supported(SPEC / "trafficDistribution", wish, DISTRIBUTIONS, in_order=True))
    return errors


def health_port_errors(spec: Object) -> Errors:
    path, number = SPEC / "healthCheckNodePort", spec.get("healthCheckNodePort") or 0
    if needs_health_port(spec):
        return [fields.invalid(path, number, text) for text in names.port_number(number)]
    if not number:
        return []
    text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
    return [fields.invalid(path, number, text)]


# Changes


def cluster_ips_change_errors(after: Object, before: Object) -> Errors:
    """The addresses of a Service are for life, but the second may come and go (FAM-11 to FAM-13)."""
    if "ExternalName" in (after.get("type"), before.get("type")) or (headless(after) and headless(before)):
        return []
    path = SPEC / "clusterIPs"
    now, was = after.get("clusterIPs") or [], before.get("clusterIPs") or []
    if len(now) == len(was):
        return [fields.invalid(path @ i, now, ONCE) for i in range(len(now)) if now[i] != was[i]]
    errors: Errors = []
    if not now:
        errors.append(fields.invalid(path @ 0, now, "primary clusterIP can not be unset"))
    if now and was and now[0] != was[0]:
        errors.append(fields.invalid(path @ 0, now, ONCE))
    if len(was) > len(now) == 1 and after.get("ipFamilyPolicy") != "SingleStack":
        text = "must be 'SingleStack' to release the secondary clusterIP"
        errors.append(fields.invalid(SPEC / "ipFamilyPolicy", after.get("ipFamilyPolicy"), text))
    return errors


def families_change_errors(after: Object, before: Object) -> Errors:
    """As for addresses; which list is printed, and that the path is always the first family's, is a quirk (FAM-11)."""
    if "ExternalName" in (after.get("type"), before.get("type")) or headless(after) or headless(before):
        return []
    path = SPEC / "ipFamilies" @ 0
    now, was = after.get("ipFamilies") or [], before.get("ipFamilies") or []
    listed = after.get("clusterIPs") or []
    if len(now) == len(was):
        return [fields.invalid(path, now, ONCE) for i in range(len(now)) if now[i] != was[i]]
    errors: Errors = []
    if len(was) > len(now) and not listed:
        errors.append(fields.invalid(path, now, "primary ipFamily can not be unset"))
    if now and was and now[0] != was[0]:
        errors.append(fields.invalid(path, listed, ONCE))
    if len(was) > len(now) == 1 and after.get("ipFamilyPolicy") != "SingleStack":
        text = "must be 'SingleStack' to release the secondary ipFamily"
        errors.append(fields.invalid(SPEC / "ipFamilyPolicy", after.get("ipFamilyPolicy"), text))
    return errors


# Status


def validate_status(new: Object, old: Object, _: Situation) -> Errors:
    """Errors of a write to /status (SVCX-3)."""
    ingress = ingress_of(new)
    if ingress and new["spec"].get("type") != "LoadBalancer":
        return [fields.forbidden(INGRESS, "may only be used when `spec.type` is 'LoadBalancer'")]
    kept = {entry.get("ip") for entry in ingress_of(old)}
    errors: Errors = []
    for i, entry in enumerate(ingress):
        errors += ingress_errors(INGRESS @ i, entry, kept)
    return errors


def ingress_of(obj: Object) -> list[Object]:
    return ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []


def ingress_errors(path: Path, entry: Object, kept: Collection[str | None]) -> Errors:
    errors: Errors = []
    ip, mode, hostname = entry.get("ip") or "", entry.get("ipMode"), entry.get("hostname") or ""
    if ip and ip not in kept:
        errors += [fields.invalid(path / "ip", ip, text) for text in addresses.errors(ip)]
    if mode is None:
        if ip:
            errors.append(fields.required(path / "ipMode", "must be specified when `ip` is set"))
    elif not ip:
        errors.append(fields.forbidden(path / "ipMode", "may not be specified when `ip` is not set"))
    elif mode not in INGRESS_MODES:
        errors.append(fields.not_supported(path / "ipMode", mode, INGRESS_MODES))
    if hostname:
        errors += [fields.invalid(path / "hostname", hostname, text) for text in names.dns_subdomain(hostname)]
        if addresses.parse_leniently(hostname) is not None:
            errors.append(fields.invalid(path / "hostname", hostname, "must be a DNS name, not an IP address"))
    return errors


# Warnings


def warn(new: Object, _: Object | None) -> list[str]:
    """Texts about what works but should be otherwise (SVC-45)."""
    spec, found = new["spec"], []
    annotations = (new.get("metadata") or {}).get("annotations") or {}
    kind, external = spec.get("type"), spec.get("externalIPs") or []
    if TOPOLOGY_HINTS in annotations:
        found.append(f"annotation {TOPOLOGY_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead")
    if headless(spec):
        found += headless_warnings(spec)
    elif kind != "ExternalName":
        found += [addresses.warning(f"spec.clusterIPs[{i}]", a) for i, a in enumerate(spec.get("clusterIPs") or ())]
        if external:
            found.append("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
    found += [addresses.warning(f"spec.externalIPs[{i}]", a) for i, a in enumerate(external)]
    found.append(addresses.warning("spec.loadBalancerIP", spec.get("loadBalancerIP") or ""))
    ranges = spec.get("loadBalancerSourceRanges") or ()
    found += [addresses.cidr_warning(f"spec.loadBalancerSourceRanges[{i}]", c) for i, c in enumerate(ranges)]
    if kind == "ExternalName" and external:
        found.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if kind != "ExternalName" and spec.get("externalName"):
        found.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.get("trafficDistribution") == "PreferClose":
        found.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')
    return [text for text in found if text]


def headless_warnings(spec: Object) -> list[str]:
    found = []
    if spec.get("loadBalancerIP"):
        found.append("spec.loadBalancerIP is ignored for headless services")
    if spec.get("externalIPs"):
        found.append("spec.externalIPs is ignored for headless services")
    if spec.get("sessionAffinity") not in (None, "None"):
        found.append("spec.SessionAffinity is ignored for headless services")
    return found
