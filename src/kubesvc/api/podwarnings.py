"""What is accepted in a pod but will hardly do what was meant: warnings for pods and templates (WARN-1)."""

from __future__ import annotations

from collections.abc import Iterator

from . import names
from .checks import items, part
from .fields import Path, quote
from .meta import Object
from .podcheck import amount_of

DEPRECATED_LABELS = {
    "beta.kubernetes.io/arch": ("v1.14", "kubernetes.io/arch"),
    "beta.kubernetes.io/os": ("v1.14", "kubernetes.io/os"),
    "failure-domain.beta.kubernetes.io/region": ("v1.17", "topology.kubernetes.io/region"),
    "failure-domain.beta.kubernetes.io/zone": ("v1.17", "topology.kubernetes.io/zone"),
    "beta.kubernetes.io/instance-type": ("v1.17", "node.kubernetes.io/instance-type"),
}
BYTES = ("memory", "ephemeral-storage")
SURPRISING = "which can result in surprising behavior; a DNS label is recommended"


def pod_warnings(new: Object, old: Object | None) -> list[str]:
    """Warnings of a pod when it is made. Of changes there are none, as upstream: they come often, and from programs."""
    if old is not None:
        return []
    return name_warnings(new, "the Pod's hostname") + spec_warnings(part(new, "spec"), Path("spec"))


def template_warnings(new: Object, old: Object | None) -> list[str]:
    """Warnings of a workload with a pod template, whenever the template is new."""
    template = part(part(new, "spec"), "template")
    if old is not None:
        before = part(part(old, "spec"), "template")
        return [] if template == before else spec_warnings(part(template, "spec"), Path("spec.template.spec"))
    found = name_warnings(new, "Pod names and hostnames")
    return found + spec_warnings(part(template, "spec"), Path("spec.template.spec"))


def name_warnings(obj: Object, use: str) -> list[str]:
    """A name with dots, or a long one, is no host name."""
    texts = names.dns_label(part(obj, "metadata").get("name") or "")
    return [f"metadata.name: this is used in {use}, {SURPRISING}: [{' '.join(texts)}]"] if texts else []


def spec_warnings(spec: Object, path: Path) -> list[str]:
    found = [
        f"{(path / 'nodeSelector').key(label)}: deprecated since {since}; use {quote(instead)} instead"
        for label, (since, instead) in DEPRECATED_LABELS.items()
        if label in part(spec, "nodeSelector")
    ]
    found += repeated(items(spec, "hostAliases"), "ip", path / "hostAliases")
    found += [
        f'{path / "imagePullSecrets" @ i / "name"}: invalid empty name ""'
        for i, secret in enumerate(items(spec, "imagePullSecrets"))
        if not secret.get("name")
    ]
    found += repeated(items(spec, "imagePullSecrets"), "name", path / "imagePullSecrets")
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        found.append(
            f"{path / 'terminationGracePeriodSeconds'}: must be >= 0; negative values are invalid and will be treated "
            "as 1"
        )
    for container, here in containers(spec, path):
        found += env_warnings(items(container, "env"), here / "env")
        found += amount_warnings(part(container, "resources"), here / "resources")
    return found + port_warnings(spec, path)


def containers(spec: Object, path: Path) -> Iterator[tuple[Object, Path]]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for i, container in enumerate(items(spec, field)):
            yield container, path / field @ i


def repeated(entries: list[Object], field: str, path: Path) -> list[str]:
    """Entries of a list with a key that a patch would merge."""
    seen: set[str] = set()
    found = []
    for i, entry in enumerate(entries):
        value = entry.get(field) or ""
        if value in seen:
            found.append(f"{path @ i / field}: duplicate {field} {quote(value)}")
        seen.add(value)
    return found


def env_warnings(variables: list[Object], path: Path) -> list[str]:
    """A variable that hides an earlier one without building on it."""
    seen: set[str] = set()
    found = []
    for i, variable in enumerate(variables):
        name = variable.get("name") or ""
        builds_on = f"$({name})" in (variable.get("value") or "") and variable.get("valueFrom") is None
        if name in seen and not builds_on:
            found.append(
                f"{path @ i}: hides previous definition of {quote(name)}, which may be dropped when using apply"
            )
        seen.add(name)
    return found


def amount_warnings(resources: Object, path: Path) -> list[str]:
    """Bytes come whole."""
    found = []
    for where in ("limits", "requests"):
        for name in BYTES:
            value = amount_of(part(resources, where).get(name, "0"))
            if value is not None and value.nanos % 10**9:
                found.append(
                    f"{(path / where).key(name)}: fractional byte value {quote(str(value))} is invalid, must be an "
                    "integer"
                )
    return found


def port_warnings(spec: Object, path: Path) -> list[str]:
    """The same port of one container twice: only one can be listened on."""
    found = []
    for container, here in containers(spec, path):
        seen: dict[tuple[object, ...], Path] = {}
        for i, port in enumerate(items(container, "ports")):
            key = tuple(port.get(f) for f in ("protocol", "containerPort", "hostPort", "hostIP"))
            place = here / "ports" @ i
            if key in seen:
                found.append(f"{place}: duplicate port definition with {seen[key]}")
            seen.setdefault(key, place)
    return found
