"""What kinds that make pods from a template share: its check, their labels, and table cells (KCTL-35, KCTL-36)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import checks, fields, podcheck, podspec
from .checks import part
from .fields import Errors, Path
from .kind import Column
from .meta import Object
from .pod import LabelSelector, PodTemplateSpec
from .selectors import label_selector_of

SPEC = Path("spec")
TEMPLATE = SPEC / "template"
STATUS = Path("status")
NONE = "<none>"


def default_template(obj: Object) -> None:
    """The defaults of a pod template's spec."""
    spec = part(part(part(obj, "spec"), "template"), "spec")
    if spec or part(part(obj, "spec"), "template"):
        podspec.default_pod_spec(spec)


def validate_selector(spec: Object, kind: str, *, required: bool = True) -> Errors:
    """A selector that selects something."""
    selector = spec.get("selector")
    if selector is None:
        return [fields.required(SPEC / "selector")] if required else []
    errors = checks.label_selector(selector, SPEC / "selector")
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        errors.append(fields.invalid(SPEC / "selector", selector, f"empty selector is invalid for {kind}"))
    return errors


def validate_template(
    spec: Object, policies: tuple[str, ...] = ("Always",), name: str = "ReplicaSet", *, deadline: bool = False
) -> Errors:
    """The template, that the selector takes it, and that its pods restart as the kind needs."""
    template = part(spec, "template")
    pod = part(template, "spec")
    errors: Errors = []
    labels = part(template, "metadata").get("labels")
    if not selects(spec.get("selector"), labels):
        errors.append(
            fields.invalid(TEMPLATE / "metadata" / "labels", labels, "`selector` does not match template `labels`")
        )
    errors += podcheck.validate_template(template, TEMPLATE)
    policy = pod.get("restartPolicy")
    if policy in podcheck.RESTART_POLICIES and policy not in policies:
        errors.append(fields.not_supported(TEMPLATE / "spec" / "restartPolicy", policy, policies, in_order=True))
    if not deadline and pod.get("activeDeadlineSeconds") is not None:
        errors.append(
            fields.forbidden(
                TEMPLATE / "spec" / "activeDeadlineSeconds", f"activeDeadlineSeconds in {name} is not Supported"
            )
        )
    return errors


def selects(selector: Any, labels: Mapping[str, str] | None) -> bool:
    """Whether a template's labels match. No selector selects nothing; an empty or broken one is not looked at."""
    if selector is None:
        return False
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        return True
    try:
        return label_selector_of(selector).matches(labels)
    except ValueError:
        return True  # the selector itself was refused


LIMIT_TEXTS = {"replicas": "status.replicas", "readyReplicas": "readyReplicas"}


def validate_counts(status: Object, counts: tuple[str, ...], limits: tuple[tuple[str, str], ...]) -> Errors:
    """Counts are not negative; of each pair in `limits` the first is no greater than the second."""
    errors: Errors = []
    for count in counts:
        errors += checks.nonnegative(status, count, STATUS)
    for count, limit in limits:
        value = status.get(count) or 0
        if value > (status.get(limit) or 0):
            errors.append(fields.invalid(STATUS / count, value, f"cannot be greater than {LIMIT_TEXTS[limit]}"))
    return errors


def spec_changed(new: Object, old: Object) -> bool:
    """META-7 for most kinds."""
    return bool((new.get("spec") or {}) != (old.get("spec") or {}))


def containers(template: PodTemplateSpec) -> str:
    return ",".join(c.name for c in template.spec.containers or ())


def images(template: PodTemplateSpec) -> str:
    return ",".join(c.image for c in template.spec.containers or ())


def label_text(labels: Mapping[str, str] | None) -> str:
    """`k=v,k2=v2` by key (KCTL-35)."""
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or NONE


def selector_text(selector: LabelSelector | None) -> str:
    """A selector as its text, requirements by key (KCTL-35)."""
    if selector is None:
        return NONE
    found = [(k, f"{k}={v}") for k, v in (selector.match_labels or {}).items()]
    for requirement in selector.match_expressions or ():
        key, values = requirement.key, f"({','.join(sorted(requirement.values or ()))})"
        text = {
            "In": f"{key} in {values}",
            "NotIn": f"{key} notin {values}",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }.get(requirement.operator, key)
        found.append((key, text))
    return ",".join(text for _, text in sorted(found)) or NONE


CONTAINERS = Column("Containers", lambda o: containers(o.spec.template), wide=True)
IMAGES = Column("Images", lambda o: images(o.spec.template), wide=True)
SELECTOR = Column("Selector", lambda o: selector_text(o.spec.selector), wide=True)
