"""What is refused in a pod's spec, whether it stands alone or in a template (POD-2, POD-3, NODE-31 to 36).

Plain objects in, field errors out, in the order in which the API finds them. Defaults were applied before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from . import addresses, checks, fields, names, quantity
from .checks import INT32, descending, items, nonnegative, one_of, part, texts
from .fields import Errors, Path
from .meta import Object
from .objectmeta import validate_annotations, validate_labels
from .placementcheck import validate_affinity, validate_scheduling_gates, validate_spread, validate_tolerations
from .podspec import VOLUME_SOURCES
from .securitycheck import validate_pod_security, validate_security

RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
PROTOCOLS = ("SCTP", "TCP", "UDP")
MESSAGE_POLICIES = ("File", "FallbackToLogsOnError")
HOST_PATH_TYPES = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip
ENV_NAME_TEXT = "a valid environment variable name must consist only of printable ASCII characters other than '='"
ENV_NAME = re.compile(r"[ -<>-~]+")
HEADER = re.compile(r"[-A-Za-z0-9]+")
HEADER_TEXT = (
    "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for "
    "validation is '[-A-Za-z0-9]+')"
)
MODE_TEXT = "must be a number between 0 and 0777 (octal), both inclusive"
ENV_FIELDS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
AMOUNT_FIELDS = (
    "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage",
    "requests.memory",
)  # fmt: skip
CPU_UNITS = ("1m", "1")
BYTE_UNITS = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
UNITS_OF = {"cpu": "cpu", "memory": "memory", "ephemeral-storage": "local ephemeral storage"}
VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
KNOWN_FIELDS = frozenset({*ENV_FIELDS, *VOLUME_FIELDS, "spec.restartPolicy", "spec.schedulerName", "status.phase"})
SUBSCRIPT = re.compile(r"(metadata\.(?:annotations|labels))\['(.*)'\]")


def validate_template(template: Object | None, path: Path) -> Errors:
    """A pod template: labels, annotations, spec; `path` ends in `template`."""
    found = template or {}
    meta = part(found, "metadata")
    spec = part(found, "spec")
    errors = validate_labels(meta.get("labels"), path / "labels")
    errors += validate_annotations(meta.get("annotations"), path / "annotations")
    errors += validate_pod_spec(spec, path / "spec")
    if items(spec, "ephemeralContainers"):
        errors.append(
            fields.forbidden(path / "spec" / "ephemeralContainers", "ephemeral containers not allowed in pod template")
        )
    return errors


def validate_pod_spec(spec: Object, path: Path) -> Errors:
    """All errors of a pod's spec."""
    errors: Errors = []
    volumes = validate_volumes(items(spec, "volumes"), path / "volumes", errors)
    errors += validate_containers(spec, volumes, path)
    errors += validate_init_containers(spec, volumes, path)
    errors += validate_ephemeral_containers(spec, volumes, path / "ephemeralContainers")
    errors += one_of(spec.get("restartPolicy"), RESTART_POLICIES, path / "restartPolicy", in_order=True)
    errors += one_of(spec.get("dnsPolicy"), DNS_POLICIES, path / "dnsPolicy", in_order=True)
    errors += validate_labels(spec.get("nodeSelector"), path / "nodeSelector")
    errors += validate_host_network(spec, path)
    if (context := part(spec, "securityContext")) or spec.get("shareProcessNamespace"):
        errors += validate_pod_security(context, spec, path / "securityContext")
    if affinity := part(spec, "affinity"):  # what is seldom there is not gone into: every Pod comes through here
        errors += validate_affinity(affinity, path / "affinity")
    if spec.get("dnsConfig") or spec.get("dnsPolicy") == "None":
        errors += validate_dns_config(spec, path / "dnsConfig")
    for i, gate in enumerate(items(spec, "readinessGates")):
        here = path / "readinessGates" @ i / "conditionType"
        errors += texts(here, gate.get("conditionType", ""), names.qualified_name(gate.get("conditionType") or ""))
    if gates := items(spec, "schedulingGates"):
        errors += validate_scheduling_gates(gates, path / "schedulingGates")
    if constraints := items(spec, "topologySpreadConstraints"):
        errors += validate_spread(constraints, path / "topologySpreadConstraints")
    if account := spec.get("serviceAccountName"):
        errors += texts(path / "serviceAccountName", account, names.dns_subdomain(account))
    if node := spec.get("nodeName"):
        errors += texts(path / "nodeName", node, names.dns_subdomain(node))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= INT32:
        errors.append(
            fields.invalid(path / "activeDeadlineSeconds", deadline, f"must be between 1 and {INT32}, inclusive")
        )
    for field in ("hostname", "subdomain"):
        if value := spec.get(field):
            errors += texts(path / field, value, names.dns_label(value))
    if (override := spec.get("hostnameOverride")) is not None:
        errors += validate_hostname_override(override, spec, path)
    errors += validate_tolerations(items(spec, "tolerations"), path / "tolerations")
    if aliases := items(spec, "hostAliases"):
        errors += validate_host_aliases(aliases, path / "hostAliases")
    if name := spec.get("priorityClassName"):
        errors += texts(path / "priorityClassName", name, names.dns_subdomain(name))
    if name := spec.get("runtimeClassName"):
        errors += texts(path / "runtimeClassName", name, names.dns_subdomain(name))
    if policy := spec.get("preemptionPolicy"):
        errors += one_of(policy, ("PreemptLowerPriority", "Never"), path / "preemptionPolicy", in_order=True)
    if os := part(spec, "os"):
        errors += one_of(os.get("name"), ("linux", "windows"), path / "os" / "name")
    return errors


def validate_hostname_override(override: str, spec: Object, path: Path) -> Errors:
    here = path / "hostnameOverride"
    errors = texts(here, override, names.dns_subdomain(override))
    if len(override) > 64:
        errors.append(fields.too_long(here, 64))
    if spec.get("setHostnameAsFQDN"):
        errors.append(fields.forbidden(here, "may not be specified when setHostnameAsFQDN is true"))
    if spec.get("hostNetwork"):
        errors.append(fields.forbidden(here, "may not be specified when hostNetwork is true"))
    return errors


def grace(spec: Object) -> int:
    """How long the Pod has to end, seconds."""
    seconds: int = spec.get("terminationGracePeriodSeconds", 30)
    return seconds


def validate_containers(spec: Object, volumes: Mapping[str, Object], path: Path) -> Errors:
    """Ordinary containers: at least one, each with a name of its own."""
    here = path / "containers"
    containers = items(spec, "containers")
    if not containers:
        return [fields.required(here)]
    errors: Errors = []
    seen: set[str] = set()
    for i, container in enumerate(containers):
        errors += validate_container(container, volumes, here @ i)
        name = container.get("name", "")
        if name in seen:
            errors.append(fields.duplicate(here @ i / "name", name))
        seen.add(name)
        errors += validate_restart_rules(container, here @ i, init=False)
        errors += validate_lifecycle(part(container, "lifecycle"), grace(spec), here @ i / "lifecycle")
        errors += validate_probes(container, here @ i)
    return errors + validate_host_ports(containers, here)


def validate_init_containers(spec: Object, volumes: Mapping[str, Object], path: Path) -> Errors:
    """Init containers: only sidecars have probes and a lifecycle."""
    here = path / "initContainers"
    errors: Errors = []
    seen = {c.get("name", "") for c in items(spec, "containers")}
    for i, container in enumerate(items(spec, "initContainers")):
        place = here @ i
        sidecar = container.get("restartPolicy") == "Always"
        errors += validate_container(container, volumes, place)
        errors += validate_restart_rules(container, place, init=True)
        name = container.get("name", "")
        if name in seen:
            errors.append(fields.duplicate(place / "name", name))
        elif name:
            seen.add(name)
        errors += validate_host_ports([container], here, first=i)
        if sidecar:
            errors += validate_lifecycle(part(container, "lifecycle"), grace(spec), place / "lifecycle")
            errors += validate_probes(container, place)
            continue
        if container.get("lifecycle") is not None:
            errors.append(
                fields.forbidden(place / "lifecycle", "may not be set for init containers without restartPolicy=Always")
            )
        errors += [
            fields.forbidden(place / probe, "may not be set for init containers without restartPolicy=Always")
            for probe in ("livenessProbe", "readinessProbe", "startupProbe")
            if container.get(probe) is not None
        ]
    return errors


def validate_ephemeral_containers(spec: Object, volumes: Mapping[str, Object], path: Path) -> Errors:
    errors: Errors = []
    others = {c.get("name", "") for c in (*items(spec, "containers"), *items(spec, "initContainers"))}
    targets = {c.get("name", "") for c in items(spec, "containers")}
    seen: set[str] = set()
    for i, container in enumerate(items(spec, "ephemeralContainers")):
        errors += validate_container(container, volumes, path @ i)
        name = container.get("name", "")
        if name in seen or name in others:
            errors.append(fields.duplicate(path @ i / "name", name))
        seen.add(name)
        target = container.get("targetContainerName")
        if target and target not in targets | others:
            errors.append(fields.not_found(path @ i / "targetContainerName", target))
        for field in ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"):
            if container.get(field):
                errors.append(fields.forbidden(path @ i / field, "cannot be set for an Ephemeral Container"))
        if part(container, "resources"):
            errors.append(fields.forbidden(path @ i / "resources", "cannot be set for an Ephemeral Container"))
    return errors


def validate_container(container: Object, volumes: Mapping[str, Object], path: Path) -> Errors:
    """What containers of all sorts share."""
    errors: Errors = []
    name, image = container.get("name") or "", container.get("image") or ""
    if not name:
        errors.append(fields.required(path / "name"))
    else:
        errors += texts(path / "name", name, names.dns_label(name))
    if not image:
        errors.append(fields.required(path / "image"))
    elif image != image.strip():
        errors.append(fields.invalid(path / "image", image, "must not have leading or trailing whitespace"))
    errors += one_of(
        container.get("terminationMessagePolicy"), MESSAGE_POLICIES, path / "terminationMessagePolicy", in_order=True
    )
    if ports := items(container, "ports"):
        errors += validate_ports(ports, path / "ports")
    if variables := items(container, "env"):
        errors += validate_env(variables, path / "env")
    if sources := items(container, "envFrom"):
        errors += validate_env_from(sources, path / "envFrom")
    if mounts := items(container, "volumeMounts"):
        privileged = bool(part(container, "securityContext").get("privileged"))
        errors += validate_mounts(mounts, volumes, path / "volumeMounts", privileged=privileged)
    errors += one_of(container.get("imagePullPolicy"), PULL_POLICIES, path / "imagePullPolicy")
    if resources := part(container, "resources"):
        errors += validate_resources(resources, path / "resources")
    if policies := items(container, "resizePolicy"):
        errors += validate_resizing(policies, path / "resizePolicy")
    if context := part(container, "securityContext"):
        errors += validate_security(context, path / "securityContext")
    return errors


def validate_restart_rules(container: Object, path: Path, *, init: bool) -> Errors:
    """A container's own restart policy and rules."""
    errors: Errors = []
    policy = container.get("restartPolicy")
    if policy is not None:
        errors += one_of(policy, RESTART_POLICIES, path / "restartPolicy")
    rules = items(container, "restartPolicyRules")
    if rules and policy is None:
        errors.append(fields.required(path / "restartPolicy", "must specify restartPolicy when restart rules are used"))
    for i, rule in enumerate(rules):
        here = path / "restartPolicyRules" @ i
        errors += one_of(rule.get("action"), ("Restart", "RestartAllContainers"), here / "action")
        exit_codes = part(rule, "exitCodes")
        if not exit_codes:
            errors.append(fields.required(here / "exitCodes", "must be specified"))
        else:
            errors += one_of(exit_codes.get("operator"), ("In", "NotIn"), here / "exitCodes" / "operator")
    return errors


def validate_ports(ports: list[Object], path: Path) -> Errors:
    """POD-2."""
    errors: Errors = []
    seen: set[str] = set()
    for i, port in enumerate(ports):
        here = path @ i
        if name := port.get("name"):
            if found := names.port_name(name):
                errors += texts(here / "name", name, found)
            elif name in seen:
                errors.append(fields.duplicate(here / "name", name))
            seen.add(name)
        number = port.get("containerPort") or 0
        if not number:
            errors.append(fields.required(here / "containerPort"))
        else:
            errors += texts(here / "containerPort", number, names.port_number(number))
        if host := port.get("hostPort"):
            errors += texts(here / "hostPort", host, names.port_number(host))
        errors += one_of(port.get("protocol"), PROTOCOLS, here / "protocol")
    return errors


def validate_host_ports(containers: list[Object], path: Path, *, first: int = 0) -> Errors:
    """Each host port is asked for once."""
    errors: Errors = []
    seen: set[str] = set()
    for i, container in enumerate(containers):
        for j, port in enumerate(items(container, "ports")):
            if not port.get("hostPort"):
                continue
            text = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{port['hostPort']}"
            if text in seen:
                errors.append(fields.duplicate(path @ (i + first) / "ports" @ j / "hostPort", text))
            seen.add(text)
    return errors


def validate_host_network(spec: Object, path: Path) -> Errors:
    """A pod in the node's own network listens on the very ports it names."""
    if not spec.get("hostNetwork"):
        return []
    return [
        fields.invalid(
            path / "containers" @ i / "ports" @ j / "containerPort",
            port.get("containerPort", 0),
            "must match `hostPort` when `hostNetwork` is true",
        )
        for i, container in enumerate(items(spec, "containers"))
        for j, port in enumerate(items(container, "ports"))
        if port.get("hostPort") and port["hostPort"] != port.get("containerPort")
    ]


def validate_env(variables: list[Object], path: Path) -> Errors:
    errors: Errors = []
    for i, variable in enumerate(variables):
        name = variable.get("name") or ""
        if not name:
            errors.append(fields.required(path @ i / "name"))
        elif not ENV_NAME.fullmatch(name):
            errors.append(fields.invalid(path @ i / "name", name, ENV_NAME_TEXT))
        if (source := variable.get("valueFrom")) is not None:
            errors += validate_env_source(source, bool(variable.get("value")), path @ i / "valueFrom")
    return errors


def validate_env_source(source: Object, has_value: bool, path: Path) -> Errors:
    errors: Errors = []
    count = 0
    if (ref := source.get("fieldRef")) is not None:
        count += 1
        errors += validate_field_ref(ref, ENV_FIELDS, path / "fieldRef")
    if (ref := source.get("resourceFieldRef")) is not None:
        count += 1
        errors += validate_resource_field(ref, path / "resourceFieldRef")
    for field in ("configMapKeyRef", "secretKeyRef"):
        if (ref := source.get(field)) is not None:
            count += 1
            errors += validate_key_ref(ref, path / field)
    if source.get("fileKeyRef") is not None:
        count += 1
    if not count:
        errors.append(
            fields.invalid(
                path,
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `fileKeyRef` or "
                "`secretKeyRef`",
            )
        )
    elif has_value:
        errors.append(fields.invalid(path, "", "may not be specified when `value` is not empty"))
    elif count > 1:
        errors.append(fields.invalid(path, "", "may not have more than one field specified at a time"))
    return errors


def validate_resource_field(ref: Object, path: Path, *, file: bool = False) -> Errors:
    """How much a container may have, in units that fit; a file must say whose."""
    name, divisor = ref.get("resource") or "", amount_of(ref.get("divisor") or "0")
    errors: Errors = []
    if file and not ref.get("containerName"):
        errors.append(fields.required(path / "containerName"))
    elif not name:
        errors.append(fields.required(path / "resource"))
    elif name not in AMOUNT_FIELDS and not name.startswith(("limits.hugepages-", "requests.hugepages-")):
        errors.append(fields.not_supported(path / "resource", name, AMOUNT_FIELDS))
    kind = name.partition(".")[2]
    units = CPU_UNITS if kind == "cpu" else BYTE_UNITS
    if divisor and kind in UNITS_OF and str(divisor) not in units:
        text = f"only divisor's values {listed_units(units)} are supported with the {UNITS_OF[kind]} resource"
        errors.append(fields.invalid(path / "divisor", name, text))
    return errors


def listed_units(units: tuple[str, ...]) -> str:
    return " and ".join(units) if len(units) == 2 else ", ".join(units)


def validate_field_ref(ref: Object, supported: tuple[str, ...], path: Path) -> Errors:
    """A field of the pod itself, or one label or annotation of it."""
    if not ref.get("apiVersion"):
        return [fields.required(path / "apiVersion")]
    field = ref.get("fieldPath") or ""
    if not field:
        return [fields.required(path / "fieldPath")]
    if subscript := SUBSCRIPT.fullmatch(field):
        what = "annotation" if subscript[1].endswith("annotations") else "label"
        key = subscript[2].lower() if what == "annotation" else subscript[2]
        return texts(path, subscript[2], names.qualified_name(key))
    if field == "spec.host":
        field = "spec.nodeName"
    if field not in KNOWN_FIELDS:
        return [
            fields.invalid(path / "fieldPath", field, f"error converting fieldPath: field label not supported: {field}")
        ]
    return [] if field in supported else [fields.not_supported(path / "fieldPath", field, supported)]


def validate_key_ref(ref: Object, path: Path) -> Errors:
    errors: Errors = [] if ref.get("name") else [fields.required(path / "name")]
    key = ref.get("key") or ""
    if not key:
        return [*errors, fields.required(path / "key")]
    return errors + texts(path / "key", key, names.config_key(key))


def validate_env_from(sources: list[Object], path: Path) -> Errors:
    errors: Errors = []
    for i, source in enumerate(sources):
        here = path @ i
        if (prefix := source.get("prefix")) and not ENV_NAME.fullmatch(prefix):
            errors.append(fields.invalid(here / "prefix", prefix, ENV_NAME_TEXT))
        given = [f for f in ("configMapRef", "secretRef") if source.get(f) is not None]
        errors += [fields.required(here / f / "name") for f in given if not source[f].get("name")]
        if not given:
            errors.append(fields.invalid(here, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(given) > 1:
            errors.append(fields.invalid(here, "", "may not have more than one field specified at a time"))
    return errors


def validate_mounts(mounts: list[Object], volumes: Mapping[str, Object], path: Path, *, privileged: bool) -> Errors:
    errors: Errors = []
    seen: set[str] = set()
    for i, mount in enumerate(mounts):
        here = path @ i
        name, place = mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            errors.append(fields.required(here / "name"))
        if name not in volumes:
            errors.append(fields.not_found(here / "name", name))
        if not place:
            errors.append(fields.required(here / "mountPath"))
        if place in seen:
            errors.append(fields.invalid(here / "mountPath", place, "must be unique"))
        seen.add(place)
        for field in ("subPath", "subPathExpr"):
            if value := mount.get(field):
                errors += descending(value, path / field)  # without the index: as the API has it
        if mount.get("subPath") and mount.get("subPathExpr"):
            errors.append(
                fields.invalid(
                    here / "subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive"
                )
            )
        if (propagation := mount.get("mountPropagation")) is not None:
            errors += one_of(propagation, ("None", "HostToContainer", "Bidirectional"), here / "mountPropagation")
            if propagation == "Bidirectional" and not privileged:
                text = "Bidirectional mount propagation is available only to privileged containers"
                errors.append(fields.forbidden(here / "mountPropagation", text))
    return errors


STANDARD_RESOURCES = frozenset({
    "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.ephemeral-storage",
    "limits.cpu", "limits.memory", "limits.ephemeral-storage", "pods", "resourcequotas", "services",
    "replicationcontrollers", "secrets", "configmaps", "persistentvolumeclaims", "storage", "requests.storage",
    "services.nodeports", "services.loadbalancers",
})  # fmt: skip
CONTAINER_RESOURCES = ("cpu", "memory", "ephemeral-storage")


def validate_resources(resources: Object, path: Path) -> Errors:
    """Amounts are not negative, and no request exceeds its limit."""
    errors: Errors = []
    limits, requests = part(resources, "limits"), part(resources, "requests")
    for where, amounts in (("limits", limits), ("requests", requests)):
        for name in sorted(amounts):
            here = (path / where).key(name)
            errors += validate_resource_name(name, here)
            value = amount_of(amounts[name])
            if value is None:
                continue
            if value.nanos < 0:
                errors.append(fields.invalid(here, str(value), checks.NONNEGATIVE))
            if where == "requests":
                errors += validate_request(name, value, limits, path)
    return errors


def validate_resource_name(name: str, path: Path) -> Errors:
    errors = texts(path, name, names.qualified_name(name))
    if "/" in name or name.startswith("hugepages-"):
        return errors
    if name not in STANDARD_RESOURCES:
        errors.append(fields.invalid(path, name, "must be a standard resource type or fully qualified"))
    if name not in CONTAINER_RESOURCES:
        errors.append(fields.invalid(path, name, "must be a standard resource for containers"))
    return errors


def validate_resizing(policies: list[Object], path: Path) -> Errors:
    """What becomes of a container whose resources change; errors name the list, as upstream's do."""
    errors: Errors = []
    seen: set[str] = set()
    for i, policy in enumerate(policies):
        name = policy.get("resourceName") or ""
        if name in seen:
            errors.append(fields.duplicate(path @ i, name))
        seen.add(name)
        errors += one_of(name, ("cpu", "memory"), path)
        errors += one_of(policy.get("restartPolicy"), ("NotRequired", "RestartContainer"), path)
    return errors


def validate_request(name: str, value: quantity.Quantity, limits: Object, path: Path) -> Errors:
    limit = amount_of(limits[name]) if name in limits else None
    overcommit = "/" not in name and not name.startswith("hugepages-")
    if limit is None:
        return (
            []
            if overcommit
            else [fields.required(path / "limits", "Limit must be set for non overcommitable resources")]
        )
    if value != limit and not overcommit:
        return [fields.invalid(path / "requests", str(value), f"must be equal to {name} limit of {limit}")]
    if value > limit:
        return [fields.invalid(path / "requests", str(value), f"must be less than or equal to {name} limit of {limit}")]
    return []


def amount_of(value: Any) -> quantity.Quantity | None:
    try:
        return quantity.parse(value)
    except (ValueError, TypeError):
        return None  # refused when it was decoded


def validate_lifecycle(lifecycle: Object, grace_seconds: int, path: Path) -> Errors:
    errors: Errors = []
    for field in ("postStart", "preStop"):
        if (handler := lifecycle.get(field)) is not None:
            errors += validate_handler(handler, path / field, grace_seconds)
    return errors


def validate_sleep(seconds: int, grace_seconds: int, path: Path) -> Errors:
    """Nobody sleeps longer than the Pod has to end."""
    if 0 <= seconds <= grace_seconds:
        return []
    text = f"must be non-negative and less than terminationGracePeriodSeconds ({grace_seconds})"
    return [fields.invalid(path, seconds, text)]


def validate_handler(handler: Object, path: Path, grace_seconds: int = 0) -> Errors:
    """Exactly one way to act. `grace_seconds`: how long the Pod has to end."""
    errors: Errors = []
    given = [h for h in ("exec", "httpGet", "tcpSocket", "grpc", "sleep") if handler.get(h) is not None]
    for i, name in enumerate(given):
        action, here = handler[name], path / name
        if i:
            errors.append(fields.forbidden(here, "may not specify more than 1 handler type"))
        elif name == "exec":
            if not action.get("command"):
                errors.append(fields.required(here / "command"))
        elif name == "httpGet":
            errors += validate_http_get(action, here)
        elif name == "tcpSocket":
            errors += port_number_or_name(action.get("port"), here / "port")
        elif name == "grpc":
            errors += texts(here / "port", action.get("port") or 0, names.port_number(action.get("port") or 0))
        elif name == "sleep":
            errors += validate_sleep(action.get("seconds") or 0, grace_seconds, here)
    if not given:
        errors.append(fields.required(path, "must specify a handler type"))
    return errors


def validate_http_get(action: Object, path: Path) -> Errors:
    errors: Errors = [] if action.get("path") else [fields.required(path / "path")]
    errors += port_number_or_name(action.get("port"), path / "port")
    if (scheme := action.get("scheme", "")) not in ("HTTP", "HTTPS"):
        errors.append(fields.not_supported(path / "scheme", scheme, ("HTTP", "HTTPS")))
    for header in items(action, "httpHeaders"):
        name = header.get("name") or ""
        if not HEADER.fullmatch(name):
            errors.append(fields.invalid(path / "httpHeaders", name, HEADER_TEXT))
    return errors


def port_number_or_name(port: Any, path: Path) -> Errors:
    if isinstance(port, str):
        return texts(path, port, names.port_name(port))
    return texts(path, port or 0, names.port_number(port or 0))


def validate_probes(container: Object, path: Path) -> Errors:
    """NODE-31 to 36."""
    errors: Errors = []
    for field in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(field)
        if probe is None:
            continue
        here = path / field
        errors += validate_handler({k: v for k, v in probe.items() if k != "sleep"}, here)
        for number in (
            "initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold",
        ):  # fmt: skip
            errors += nonnegative(probe, number, here)
        grace = probe.get("terminationGracePeriodSeconds")
        if grace is not None and grace <= 0:
            errors.append(fields.invalid(here / "terminationGracePeriodSeconds", grace, checks.POSITIVE))
        if field == "readinessProbe":
            if grace is not None:
                errors.append(
                    fields.invalid(here / "terminationGracePeriodSeconds", grace, "must not be set for readinessProbes")
                )
        elif probe.get("successThreshold") != 1:
            errors.append(fields.invalid(here / "successThreshold", probe.get("successThreshold") or 0, "must be 1"))
    return errors


def validate_volumes(volumes: list[Object], path: Path, errors: Errors) -> dict[str, Object]:
    """Appends to `errors`; the volumes that containers may mount, by name."""
    found: dict[str, Object] = {}
    for i, volume in enumerate(volumes):
        here = path @ i
        name = volume.get("name") or ""
        wrong = validate_volume_source(volume, here)
        if not name:
            wrong.append(fields.required(here / "name"))
        else:
            wrong += texts(here / "name", name, names.dns_label(name))
        if name in found:
            wrong.append(fields.duplicate(here / "name", name))
        if wrong:
            errors += wrong
        else:
            found[name] = volume
    return found


def validate_volume_source(volume: Object, path: Path) -> Errors:
    errors: Errors = []
    given = [s for s in VOLUME_SOURCES if volume.get(s) is not None]
    for i, name in enumerate(given):
        source, here = volume[name], path / name
        if i:
            errors.append(fields.forbidden(here, "may not specify more than 1 volume type"))
        elif name == "hostPath":
            errors += validate_host_path(source, here)
        elif name == "emptyDir":
            limit = amount_of(source.get("sizeLimit", "0"))
            if limit is not None and limit.nanos < 0:
                errors.append(fields.forbidden(here / "sizeLimit", "SizeLimit field must be a valid resource quantity"))
        elif name in ("configMap", "secret"):
            word = "name" if name == "configMap" else "secretName"
            if not source.get(word):
                errors.append(fields.required(here / word))
            errors += file_mode(source, "defaultMode", here)
            errors += validate_key_paths(items(source, "items"), here / "items")
        elif name == "downwardAPI":
            errors += file_mode(source, "defaultMode", here)
            errors += validate_downward_files(items(source, "items"), here)
        elif name == "projected":
            errors += file_mode(source, "defaultMode", here)
            errors += validate_projections(items(source, "sources"), here / "sources")
        elif name == "persistentVolumeClaim":
            if not source.get("claimName"):
                errors.append(fields.required(here / "claimName"))
        elif name == "ephemeral":
            errors += validate_claim_template(source, here / "volumeClaimTemplate")
        elif name == "csi":
            driver = source.get("driver") or ""
            wrong = texts(here / "driver", driver, names.dns_subdomain(driver.lower()))
            errors += wrong if driver else [fields.required(here / "driver")]
        elif name == "image":
            errors += one_of(source.get("pullPolicy"), PULL_POLICIES, here / "pullPolicy")
        elif name == "nfs":
            errors += [fields.required(here / f) for f in ("server", "path") if not source.get(f)]
            if source.get("path") and not source["path"].startswith("/"):
                errors.append(fields.invalid(here / "path", source["path"], "must be an absolute path"))
    if not given:
        errors.append(fields.required(path, "must specify a volume type"))
    return errors


def validate_claim_template(source: Object, path: Path) -> Errors:
    """The claim of an ephemeral volume."""
    from .persistentvolumeclaim import validate_spec  # which knows pods

    if source.get("volumeClaimTemplate") is None:
        return [fields.required(path)]
    return validate_spec(part(source["volumeClaimTemplate"], "spec"), path / "spec")


def validate_host_path(source: Object, path: Path) -> Errors:
    place = source.get("path") or ""
    if not place:
        return [fields.required(path / "path")]
    errors = checks.not_upwards(place, path / "path")
    if (kind := source.get("type") or "") not in HOST_PATH_TYPES:
        errors.append(fields.not_supported(path / "type", kind, HOST_PATH_TYPES))
    return errors


def file_mode(source: Object, field: str, path: Path) -> Errors:
    mode = source.get(field)
    return [fields.invalid(path / field, mode, MODE_TEXT)] if mode is not None and not 0 <= mode <= 0o777 else []


def validate_key_paths(entries: list[Object], path: Path) -> Errors:
    errors: Errors = []
    for i, entry in enumerate(entries):
        here = path @ i
        if not entry.get("key"):
            errors.append(fields.required(here / "key"))
        errors += validate_file_path(entry.get("path") or "", here / "path")
        errors += file_mode(entry, "mode", here)
    return errors


def validate_file_path(place: str, path: Path) -> Errors:
    if not place:
        return [fields.required(path)]
    errors = descending(place, path)
    if place.startswith("..") and not place.startswith("../") and place != "..":
        errors.append(fields.invalid(path, place, "must not start with '..'"))
    return errors


def validate_downward_files(entries: list[Object], path: Path) -> Errors:
    errors: Errors = []
    for entry in entries:
        errors += validate_file_path(entry.get("path") or "", path / "path")
        if (ref := entry.get("fieldRef")) is not None:
            errors += validate_field_ref(ref, VOLUME_FIELDS, path / "fieldRef")
            if entry.get("resourceFieldRef") is not None:
                errors.append(
                    fields.invalid(
                        path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"
                    )
                )
        elif (amount := entry.get("resourceFieldRef")) is not None:
            errors += validate_resource_field(amount, path / "resourceFieldRef", file=True)
        else:
            errors.append(fields.required(path / "fieldRef", "one of fieldRef and resourceFieldRef is required"))
        errors += file_mode(entry, "mode", path)
    return errors


def validate_projections(sources: list[Object], path: Path) -> Errors:
    errors: Errors = []
    for i, source in enumerate(sources):
        here = path @ i
        given = [s for s in source if source[s] is not None]
        for name in ("secret", "configMap"):
            if (found := source.get(name)) is not None:
                if not found.get("name"):
                    errors.append(fields.required(here / name / "name"))
                errors += validate_key_paths(items(found, "items"), here / name / "items")
        if (downward := source.get("downwardAPI")) is not None:
            errors += validate_downward_files(items(downward, "items"), here / "downwardAPI")
        if (token := source.get("serviceAccountToken")) is not None:
            seconds = token.get("expirationSeconds", 3600)
            if seconds < 600:
                errors.append(
                    fields.invalid(
                        here / "serviceAccountToken" / "expirationSeconds",
                        seconds,
                        "may not specify a duration less than 10 minutes",
                    )
                )
            errors += validate_file_path(token.get("path") or "", here / "serviceAccountToken" / "path")
        if len(given) > 1:
            errors.append(fields.forbidden(here, "may not specify more than 1 volume type per source"))
    return errors


def validate_dns_config(spec: Object, path: Path) -> Errors:
    """Resolver settings, needed when nothing else says how to resolve."""
    config = part(spec, "dnsConfig")
    servers = items(config, "nameservers")
    errors: Errors = []
    if spec.get("dnsPolicy") == "None" and not servers:
        errors.append(
            fields.required(path / "nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None")
            if config
            else fields.required(path, "must provide `dnsConfig` when `dnsPolicy` is None")
        )
    if len(servers) > 3:
        errors.append(fields.invalid(path / "nameservers", servers, "must not have more than 3 nameservers"))
    for i, server in enumerate(servers):
        errors += texts(path / "nameservers" @ i, server, addresses.errors(server))
    searches = items(config, "searches")
    if len(searches) > 32:
        errors.append(fields.invalid(path / "searches", searches, "must not have more than 32 search paths"))
    if sum(map(len, searches)) + max(0, len(searches) - 1) > 2048:
        errors.append(
            fields.invalid(
                path / "searches",
                searches,
                "must not have more than 2048 characters (including spaces) in the search list",
            )
        )
    for i, search in enumerate(searches):
        text = search.removesuffix(".") if search != "." else "a"
        errors += texts(path / "searches" @ i, search, names.dns_subdomain(text.replace("_", "a")))
    errors += [
        fields.required(path / "options" @ i, "must not be empty")
        for i, option in enumerate(items(config, "options"))
        if not option.get("name")
    ]
    return errors


def validate_host_aliases(aliases: list[Object], path: Path) -> Errors:
    errors: Errors = []
    for i, alias in enumerate(aliases):
        address = alias.get("ip") or ""
        errors += texts(path @ i / "ip", address, addresses.errors(address))
        for j, hostname in enumerate(items(alias, "hostnames")):
            errors += texts(path @ i / "hostnames" @ j, hostname, names.dns_subdomain(hostname))
    return errors
