"""Ingress: which Service answers for which host and path."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from . import addresses, fields, names, shape, workload
from .checks import items, part, texts
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Object, Struct, Typed

SPEC = Path("spec")
CLASS_ANNOTATION = "kubernetes.io/ingress.class"
PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
INVALID_IN_PATH = ("//", "/./", "/../", "%2f", "%2F")
INVALID_AT_END = ("/..", "/.")
WILDCARD = re.compile(r"\*\." + names.SUBDOMAIN_FORM)
WILDCARD_TEXT = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', "
    f"regex used for validation is '\\*\\.{names.SUBDOMAIN_FORM}')"
)


class ServiceBackendPort(Struct, frozen=True):
    name: str = ""
    number: int = 0


class IngressServiceBackend(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("name",)

    name: str = ""
    port: ServiceBackendPort = ServiceBackendPort()


class IngressBackend(Struct, frozen=True):
    service: IngressServiceBackend | None = None
    resource: dict[str, Any] | None = None


class HTTPIngressPath(Struct, frozen=True):
    path: str = ""
    path_type: str | None = None
    backend: IngressBackend = IngressBackend()


class HTTPIngressRuleValue(Struct, frozen=True):
    paths: list[HTTPIngressPath] | None = None


class IngressRule(Struct, frozen=True):
    host: str = ""
    http: HTTPIngressRuleValue | None = None


class IngressTLS(Struct, frozen=True):
    hosts: list[str] | None = None
    secret_name: str = ""


class IngressSpec(Struct, frozen=True):
    ingress_class_name: str | None = None
    default_backend: IngressBackend | None = None
    tls: list[IngressTLS] | None = None
    rules: list[IngressRule] | None = None


class IngressPortStatus(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("port", "protocol")

    port: int = 0
    protocol: str = ""
    error: str | None = None


class IngressLoadBalancerIngress(Struct, frozen=True):
    ip: str = ""
    hostname: str = ""
    ports: list[IngressPortStatus] | None = None


class IngressLoadBalancerStatus(Struct, frozen=True):
    ingress: list[IngressLoadBalancerIngress] | None = None


class IngressStatus(Struct, frozen=True):
    load_balancer: IngressLoadBalancerStatus = IngressLoadBalancerStatus()


class Ingress(Typed, frozen=True):
    spec: IngressSpec = IngressSpec()
    status: IngressStatus = IngressStatus()


def default(obj: Object) -> None:
    shape.normalize(obj, Ingress)


def prepare_create(obj: Object) -> None:
    obj["status"] = {"loadBalancer": {}}


def validate(obj: Object, _: Situation) -> Errors:
    errors = validate_spec(part(obj, "spec"))
    named, class_name = annotated_class(obj), part(obj, "spec").get("ingressClassName")
    if named is not None and class_name is not None and named != class_name:
        text = "must match `ingressClassName` when both are specified"
        errors.append(fields.invalid(f"annotations.{CLASS_ANNOTATION}", named, text))
    return errors


def annotated_class(obj: Object) -> str | None:
    """The old way to say the class."""
    found: str | None = (part(obj, "metadata").get("annotations") or {}).get(CLASS_ANNOTATION)
    return found


def warnings(new: Object, old: Object | None) -> list[str]:
    if old is not None or annotated_class(new) is None:
        return []
    return [f"annotation {fields.quote(CLASS_ANNOTATION)} is deprecated, please use 'spec.ingressClassName' instead"]


def validate_spec(spec: Object) -> Errors:
    errors: Errors = []
    if not items(spec, "rules") and spec.get("defaultBackend") is None:
        errors.append(fields.invalid(SPEC, None, "either `defaultBackend` or `rules` must be specified"))
    if (backend := spec.get("defaultBackend")) is not None:
        errors += validate_backend(backend, SPEC / "defaultBackend")
    for i, rule in enumerate(items(spec, "rules")):
        errors += validate_rule(rule, SPEC / "rules" @ i)
    for i, entry in enumerate(items(spec, "tls")):
        for j, host in enumerate(items(entry, "hosts")):
            errors += validate_host(host, SPEC / "tls" @ i / "hosts" @ j)
        if secret := entry.get("secretName"):
            errors += texts(SPEC / "tls" @ i / "secretName", secret, names.dns_subdomain(secret))
    if (class_name := spec.get("ingressClassName")) is not None:
        errors += texts(SPEC / "ingressClassName", class_name, names.dns_subdomain(class_name))
    return errors


def validate_rule(rule: Object, path: Path) -> Errors:
    errors: Errors = []
    if host := rule.get("host"):
        if addresses.parse(host) is not None:
            errors.append(fields.invalid(path / "host", host, "must be a DNS name, not an IP address"))
        errors += validate_host(host, path / "host")
    http = rule.get("http")
    if http is None:
        return errors
    if not items(http, "paths"):
        errors.append(fields.required(path / "http" / "paths"))
    for i, entry in enumerate(items(http, "paths")):
        errors += validate_path(entry, path / "http" / "paths" @ i)
    return errors


def validate_host(host: str, path: Path) -> Errors:
    if "*" not in host:
        return texts(path, host, names.dns_subdomain(host))
    found = ["must be no more than 253 characters"] if len(host) > 253 else []
    return texts(path, host, found if WILDCARD.fullmatch(host) else [*found, WILDCARD_TEXT])


def validate_path(entry: Object, path: Path) -> Errors:
    type_, place = entry.get("pathType"), entry.get("path") or ""
    if type_ is None:
        return [fields.required(path / "pathType", "pathType must be specified")]
    errors: Errors = []
    if type_ in ("Exact", "Prefix"):
        if not place.startswith("/"):
            errors.append(fields.invalid(path / "path", place, "must be an absolute path"))
        if place:
            errors += [
                fields.invalid(path / "path", place, f"must not contain '{part_}'")
                for part_ in INVALID_IN_PATH
                if part_ in place
            ]
            errors += [
                fields.invalid(path / "path", place, f"cannot end with '{end}'")
                for end in INVALID_AT_END
                if place.endswith(end)
            ]
    elif type_ == "ImplementationSpecific":
        if place and not place.startswith("/"):
            errors.append(fields.invalid(path / "path", place, "must be an absolute path"))
    else:
        errors.append(fields.not_supported(path / "pathType", type_, PATH_TYPES))
    return errors + validate_backend(part(entry, "backend"), path / "backend")


def validate_backend(backend: Object, path: Path) -> Errors:
    """A Service and one of its ports, or some other object; not both."""
    service, resource = backend.get("service"), backend.get("resource")
    if resource is not None and service is not None:
        return [fields.invalid(path, "", "cannot set both resource and service backends")]
    if resource is not None:
        return [fields.required(path / "resource" / f) for f in ("kind", "name") if not resource.get(f)]
    if service is None:
        return [fields.invalid(path, "", "resource or service backend is required")]
    errors: Errors = []
    name, port = service.get("name") or "", part(service, "port")
    if not name:
        errors.append(fields.required(path / "service" / "name"))
    else:
        errors += texts(path / "service" / "name", name, names.dns_label(name))
    port_name, number, here = port.get("name") or "", port.get("number") or 0, path / "service" / "port"
    if port_name and number:
        errors.append(fields.invalid(path, "", "cannot set both port name & port number"))
    elif port_name:
        errors += texts(here / "name", port_name, names.port_name(port_name))
    elif number:
        errors += texts(here / "number", number, names.port_number(number))
    else:
        errors.append(fields.required(path, "port name or number is required"))
    return errors


def validate_update(new: Object, _: Object, __: Situation) -> Errors:
    return validate_spec(part(new, "spec"))


def hosts(ingress: Ingress) -> str:
    """At most three hosts, `*` if none is named."""
    rules = ingress.spec.rules or []
    places = [i for i, r in enumerate(rules) if r.host][:3]
    text = ",".join(rules[i].host for i in places) or "*"
    more = len(places) == 3 and places[-1] < len(rules) - 1
    return f"{text} + {len(rules) - 3} more..." if more else text


def address(ingress: Ingress) -> str:
    return ",".join(sorted({i.ip or i.hostname for i in ingress.status.load_balancer.ingress or ()} - {""}))


INGRESS = Kind(
    group="networking.k8s.io",
    version="v1",
    name="Ingress",
    plural="ingresses",
    namespaced=True,
    type=Ingress,
    schema="io.k8s.api.networking.v1.Ingress",
    short_names=("ing",),
    subresources=(Subresource(name="status"),),
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    warn=warnings,
    generation=workload.spec_changed,
    columns=(  # KCTL-31a
        Column("Name", lambda i: i.name, format="name"),
        Column("Class", lambda i: i.spec.ingress_class_name or "<none>"),
        Column("Hosts", hosts),
        Column("Address", address),
        Column("Ports", lambda i: "80, 443" if i.spec.tls else "80"),
        Column("Age", lambda i: Since(i.metadata.creation_timestamp)),
    ),
    has_status=True,
)
