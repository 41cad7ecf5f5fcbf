"""What is refused of where a Pod wants to run: affinity, spreading, tolerations, gates.

Plain objects in, field errors out, in the order in which the API finds them.
"""

from __future__ import annotations

from . import checks, fields, names
from .checks import items, part, texts
from .fields import Errors, Path
from .meta import Object

TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
INCLUSIONS = ("Honor", "Ignore")
"""Whether Pods on nodes that a Pod may not use count where it is spread."""


def validate_affinity(affinity: Object, path: Path) -> Errors:
    errors: Errors = []
    node = part(affinity, "nodeAffinity")
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    if (selector := node.get(required)) is not None:
        errors += validate_node_selector(selector, path / "nodeAffinity" / required)
    for i, choice in enumerate(items(node, preferred)):
        here = path / "nodeAffinity" / preferred @ i
        errors += weight(choice, here)
        errors += validate_node_term(part(choice, "preference"), here / "preference")
    for name in ("podAffinity", "podAntiAffinity"):
        for i, term in enumerate(items(part(affinity, name), required)):
            errors += validate_pod_term(term, path / name / required @ i)
        for i, choice in enumerate(items(part(affinity, name), preferred)):
            here = path / name / preferred @ i
            errors += weight(choice, here)
            errors += validate_pod_term(part(choice, "podAffinityTerm"), here / "podAffinityTerm")
    return errors


def validate_node_selector(selector: Object, path: Path) -> Errors:
    """What is wrong with a choice of nodes by terms, any of which may hold."""
    here = path / "nodeSelectorTerms"
    terms = items(selector, "nodeSelectorTerms")
    errors: Errors = [] if terms else [fields.required(here, "must have at least one node selector term")]
    for i, term in enumerate(terms):
        errors += validate_node_term(term, here @ i)
    return errors


def weight(choice: Object, path: Path) -> Errors:
    value = choice.get("weight") or 0
    return [] if 1 <= value <= 100 else [fields.invalid(path / "weight", value, "must be in the range 1-100")]


def validate_node_term(term: Object, path: Path) -> Errors:
    errors: Errors = []
    for i, requirement in enumerate(items(term, "matchExpressions")):
        here = path / "matchExpressions" @ i
        operator, values = requirement.get("operator") or "", items(requirement, "values")
        if operator in ("In", "NotIn"):
            if not values:
                errors.append(fields.required(here / "values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                errors.append(
                    fields.forbidden(
                        here / "values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                    )
                )
        elif operator in ("Gt", "Lt"):
            if len(values) != 1:
                errors.append(
                    fields.required(here / "values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
                )
        else:
            errors.append(fields.invalid(here / "operator", operator, "not a valid selector operator"))
        key = requirement.get("key") or ""
        errors += texts(here / "key", key, names.label_key(key))
    for i, requirement in enumerate(items(term, "matchFields")):
        errors += validate_node_field(requirement, path / "matchFields" @ i)
    return errors


def validate_node_field(requirement: Object, path: Path) -> Errors:
    """Nodes are chosen by one field only, their name."""
    key, operator = requirement.get("key") or "", requirement.get("operator") or ""
    values = items(requirement, "values")
    errors: Errors = []
    if operator not in ("In", "NotIn"):
        errors.append(fields.invalid(path / "operator", operator, "not a valid selector operator"))
    elif len(values) != 1:
        text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        errors.append(fields.required(path / "values", text))
    if key != "metadata.name":
        return [*errors, fields.invalid(path / "key", key, "not a valid field selector key")]
    for i, value in enumerate(values):
        errors += texts(path / "values" @ i, value, names.dns_subdomain(value))
    return errors


def validate_pod_term(term: Object, path: Path) -> Errors:
    errors = checks.label_selector(term.get("labelSelector"), path / "labelSelector")
    errors += checks.label_selector(term.get("namespaceSelector"), path / "namespaceSelector")
    for name in items(term, "namespaces"):
        errors += texts(path / "namespace", name, names.dns_label(name))
    key = term.get("topologyKey") or ""
    if not key:
        errors.append(fields.required(path / "topologyKey", "can not be empty"))
    return errors + texts(path / "topologyKey", key, names.label_key(key))


def validate_scheduling_gates(gates: list[Object], path: Path) -> Errors:
    errors: Errors = []
    seen: set[str] = set()
    for i, gate in enumerate(gates):
        name = gate.get("name") or ""
        errors += texts(path @ i, name, names.qualified_name(name))
        if name in seen:
            errors.append(fields.duplicate(path @ i, name))
        seen.add(name)
    return errors


def validate_spread(constraints: list[Object], path: Path) -> Errors:
    errors: Errors = []
    kinds = [(c.get("topologyKey") or "", c.get("whenUnsatisfiable") or "") for c in constraints]
    for i, constraint in enumerate(constraints):
        here, (topology, when) = path @ i, kinds[i]
        skew = constraint.get("maxSkew") or 0
        if skew <= 0:
            errors.append(fields.invalid(here / "maxSkew", skew, checks.POSITIVE))
        if not topology:
            errors.append(fields.required(here / "topologyKey", "can not be empty"))
        if when not in ("DoNotSchedule", "ScheduleAnyway"):
            errors.append(fields.not_supported(here / "whenUnsatisfiable", when, ("DoNotSchedule", "ScheduleAnyway")))
        if kinds[i] in kinds[i + 1 :]:
            errors.append(fields.duplicate(here / "{topologyKey, whenUnsatisfiable}", f"{{{topology}, {when}}}"))
        if (least := constraint.get("minDomains")) is not None:
            errors += checks.positive(constraint, "minDomains", here)
            if when != "DoNotSchedule":
                text = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}"
                errors.append(fields.invalid(here / "minDomains", least, text))
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            policy = constraint.get(field)
            if policy is not None and policy not in INCLUSIONS:
                errors.append(fields.not_supported(here / field, policy, INCLUSIONS))
        errors += validate_label_keys(constraint, here / "matchLabelKeys")
        errors += checks.label_selector(constraint.get("labelSelector"), here / "labelSelector")
    return errors


def validate_label_keys(constraint: Object, path: Path) -> Errors:
    """Labels whose values are the Pod's own, beside a selector that does not name them."""
    keys, selector = items(constraint, "matchLabelKeys"), constraint.get("labelSelector")
    if not keys:
        return []
    if selector is None:
        return [fields.forbidden(path, "must not be specified when labelSelector is not set")]
    expressed = (e.get("key") for e in items(selector, "matchExpressions"))
    named = {*part(selector, "matchLabels"), *expressed}
    errors: Errors = []
    for i, key in enumerate(keys):
        errors += texts(path @ i, key, names.label_key(key))
        if key in named:
            errors.append(fields.invalid(path @ i, key, "exists in both matchLabelKeys and labelSelector"))
    return errors


def validate_tolerations(tolerations: list[Object], path: Path) -> Errors:
    errors: Errors = []
    for i, toleration in enumerate(tolerations):
        here = path @ i
        key, operator = toleration.get("key") or "", toleration.get("operator") or ""
        effect, value = toleration.get("effect") or "", toleration.get("value") or ""
        if key:
            errors += texts(here / "key", key, names.label_key(key))
        if not key and operator != "Exists":
            errors.append(
                fields.invalid(
                    here / "operator",
                    operator,
                    'operator must be Exists when `key` is empty, which means "match all values and all keys"',
                )
            )
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            errors.append(
                fields.invalid(here / "effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
            )
        if operator in ("", "Equal"):
            if found := names.label_value(value):
                errors.append(fields.invalid(here / "operator", value, ";".join(found)))
        elif operator == "Exists":
            if value:
                errors.append(
                    fields.invalid(
                        here / "operator",
                        {
                            "Key": key,
                            "Operator": operator,
                            "Value": value,
                            "Effect": effect,
                            "TolerationSeconds": toleration.get("tolerationSeconds"),
                        },
                        "value must be empty when `operator` is 'Exists'",
                    )
                )
        else:
            errors.append(fields.not_supported(here / "operator", operator, ("Equal", "Exists"), in_order=True))
        if effect and effect not in TAINT_EFFECTS:
            errors.append(fields.not_supported(here / "effect", effect, TAINT_EFFECTS, in_order=True))
    return errors
