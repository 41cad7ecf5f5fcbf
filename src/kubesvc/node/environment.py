"""The environment of a container: service variables, envFrom, env, the downward API (NODE-74 to NODE-79). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal

from kubesvc.api.container import Container, EnvVar, ObjectFieldSelector, ResourceFieldSelector
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service


class MissingSource(Exception):
    """A ConfigMap, Secret or key that a container needs does not exist (NODE-78)."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What values may come from; a map that is absent does not exist.

    config_maps, secrets:  by name, in the Pod's namespace
    services:              those of the Pod's namespace and default/kubernetes
    host_ips, pod_ips:     primary first;  allocatable: of the node, for limits that are not set
    """

    config_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    services: Iterable[Service] = ()
    host_ips: tuple[str, ...] = ()
    pod_ips: tuple[str, ...] = ()
    node_name: str = ""
    allocatable: Mapping[str, str | int | float] = field(default_factory=dict)


# -- services ---------------------------------------------------------------------------------------------------------


def variable_name(name: str) -> str:
    return name.upper().replace("-", "_")


def service_variables(service: Service) -> dict[str, str]:
    """The variables of one Service (NODE-74); none without a cluster address (NODE-75)."""
    address = service.spec.cluster_ip
    ports = service.spec.ports or ()
    if address in ("", "None") or service.spec.type == "ExternalName" or not ports:
        return {}
    prefix = variable_name(service.name)
    found = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0].port)}
    for port in ports:
        if port.name:
            found[f"{prefix}_SERVICE_PORT_{variable_name(port.name)}"] = str(port.port)
    host = f"[{address}]" if ":" in address else address
    for number, port in enumerate(ports):
        protocol = port.protocol or "TCP"
        url = f"{protocol.lower()}://{host}:{port.port}"
        if number == 0:
            found[f"{prefix}_PORT"] = url
        base = f"{prefix}_PORT_{port.port}_{protocol}"
        found[base] = url
        found[f"{base}_PROTO"] = protocol.lower()
        found[f"{base}_PORT"] = str(port.port)
        found[f"{base}_ADDR"] = address
    return found


def all_service_variables(pod: Pod, services: Iterable[Service]) -> dict[str, str]:
    """Those of the Pod's namespace, and of default/kubernetes (NODE-74, NODE-76)."""
    links = pod.spec.enable_service_links is not False
    chosen: dict[str, Service] = {}
    for service in sorted(services, key=lambda s: (s.namespace, s.name)):
        if service.namespace == pod.namespace and links:
            chosen[service.name] = service
        elif service.namespace == "default" and service.name == "kubernetes":
            chosen.setdefault("kubernetes", service)
    found: dict[str, str] = {}
    for name in sorted(chosen):
        found.update(service_variables(chosen[name]))
    return found


# -- references -------------------------------------------------------------------------------------------------------


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` replaced where NAME is known, `$$` for a dollar; everything else stays (NODE-77)."""

    def replacement(match: re.Match[str]) -> str:
        if match.group() == "$$":
            return "$"
        return values.get(match.group(1), match.group())

    return re.sub(r"\$\$|\$\(([^()]*)\)", replacement, text)


SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]")


def field_value(selector: ObjectFieldSelector, pod: Pod, sources: Sources) -> str:
    """The value of a field of the Pod (NODE-79). KeyError for a field that cannot be had."""
    path = selector.field_path
    meta = pod.metadata
    if match := SUBSCRIPT.fullmatch(path):
        held = meta.labels if match[1] == "labels" else meta.annotations
        return (held or {}).get(match[2], "")
    values = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "metadata.labels": labels_text(meta.labels),
        "metadata.annotations": labels_text(meta.annotations),
        "spec.nodeName": sources.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.hostIP": next(iter(sources.host_ips), ""),
        "status.hostIPs": ",".join(sources.host_ips),
        "status.podIP": next(iter(sources.pod_ips), ""),
        "status.podIPs": ",".join(sources.pod_ips),
    }
    return values[path]


def labels_text(values: Mapping[str, str] | None) -> str:
    """All labels or annotations as a downward file holds them: sorted, one `key="value"` per line."""
    lines = []
    for key in sorted(values or {}):
        value = (values or {})[key].replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        lines.append(f'{key}="{value}"')
    return "\n".join(lines)


SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(10**3),
    "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip
QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([numkMGTPE]|[KMGTPE]i)?")


def quantity(text: str | int | float) -> Decimal:
    """The number that a resource quantity stands for; ValueError if it is none."""
    match = QUANTITY.fullmatch(str(text))
    if not match:
        raise ValueError(f"{text!r}: not a quantity")
    return Decimal(match[1]) * SUFFIXES[match[2] or ""]


def resource_value(selector: ResourceFieldSelector, pod: Pod, container: Container, sources: Sources) -> str:
    """A limit or request in units of the divisor, rounded up; without a limit the node's allocatable."""
    containers = [*(pod.spec.containers or ()), *(pod.spec.init_containers or ())]
    if selector.container_name:
        container = next(c for c in containers if c.name == selector.container_name)
    kind, _, name = selector.resource.partition(".")
    limits, requests = container.resources.limits or {}, container.resources.requests or {}
    held: str | int | float | None = (limits if kind == "limits" else requests).get(name)
    if held is None and kind == "requests":
        held = limits.get(name)
    if held is None:
        held = sources.allocatable.get(name, 0) if kind == "limits" else 0
    divisor = quantity(selector.divisor) if selector.divisor not in ("", "0", 0) else Decimal(1)
    return str(int((quantity(held) / divisor).to_integral_value(ROUND_CEILING)))


# -- the whole --------------------------------------------------------------------------------------------------------


def plan_environment(pod: Pod, container: Container, sources: Sources, image: Mapping[str, str]) -> dict[str, str]:
    """All variables of a container: env over envFrom over service variables over the image's (NODE-77).

    MissingSource, with the words of the container's waiting message, when something needed is not there (NODE-78).
    """
    from_services = all_service_variables(pod, sources.services)
    found: dict[str, str] = {**image, **from_services}
    for source in container.env_from or ():
        found.update(whole_source(source.prefix, source.config_map_ref, "configmap", sources.config_maps))
        found.update(whole_source(source.prefix, source.secret_ref, "secret", sources.secrets))
    known = dict(found)
    for variable in container.env or ():
        value = variable_value(variable, pod, container, sources, known)
        if value is not None:
            found[variable.name] = known[variable.name] = value
    return found


def whole_source(prefix: str, reference: object, what: str, held: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
    """Every key of one ConfigMap or Secret, as variables."""
    name = getattr(reference, "name", "")
    if reference is None or not name:
        return {}
    if name not in held:
        if getattr(reference, "optional", False):
            return {}
        raise MissingSource(f'{what} "{name}" not found')
    return {prefix + key: value for key, value in sorted(held[name].items())}


def variable_value(
    variable: EnvVar, pod: Pod, container: Container, sources: Sources, known: Mapping[str, str]
) -> str | None:
    """The value of one entry of env; None for an optional one that does not exist."""
    origin = variable.value_from
    if origin is None:
        return expand(variable.value, known)
    if origin.field_ref is not None:
        try:
            return field_value(origin.field_ref, pod, sources)
        except KeyError:
            raise MissingSource(f"unsupported fieldPath: {origin.field_ref.field_path}") from None
    if origin.resource_field_ref is not None:
        return resource_value(origin.resource_field_ref, pod, container, sources)
    for reference, what, held in (
        (origin.config_map_key_ref, "configmap", sources.config_maps),
        (origin.secret_key_ref, "secret", sources.secrets),
    ):
        if reference is None:
            continue
        if reference.name not in held:
            if reference.optional:
                return None
            raise MissingSource(f'{what} "{reference.name}" not found')
        if reference.key not in held[reference.name]:
            if reference.optional:
                return None
            title = "ConfigMap" if what == "configmap" else "Secret"
            raise MissingSource(f"couldn't find key {reference.key} in {title} {pod.namespace}/{reference.name}")
        return held[reference.name][reference.key]
    return ""


def needed_sources(pod: Pod) -> tuple[set[str], set[str]]:
    """Names of the ConfigMaps and Secrets that the environments of the Pod's containers name."""
    maps: set[str] = set()
    secrets: set[str] = set()
    for container in [*(pod.spec.init_containers or ()), *(pod.spec.containers or ())]:
        for source in container.env_from or ():
            if source.config_map_ref is not None:
                maps.add(source.config_map_ref.name)
            if source.secret_ref is not None:
                secrets.add(source.secret_ref.name)
        for variable in container.env or ():
            if variable.value_from is not None and variable.value_from.config_map_key_ref is not None:
                maps.add(variable.value_from.config_map_key_ref.name)
            if variable.value_from is not None and variable.value_from.secret_key_ref is not None:
                secrets.add(variable.value_from.secret_key_ref.name)
    return maps, secrets
