"""Audit policies: how much of which request is told, read from a file of audit.k8s.io/v1. Pure but for the reading.

Rules are tried in their order and the first that fits decides; where none fits, nothing is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from kubesvc.api.fields import quote

from .authentication import User
from .routing import Target, path_matches

Level = Literal["None", "Metadata", "Request", "RequestResponse"]
Stage = Literal["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"]
LEVELS: tuple[Level, ...] = get_args(Level)
STAGES: tuple[Stage, ...] = get_args(Stage)
API_VERSION = "audit.k8s.io/v1"
POLICY_FIELDS = ("apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields")
RULE_FIELDS = (
    "level", "users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs", "omitStages",
    "omitManagedFields",
)  # fmt: skip
RESOURCE_FIELDS = ("group", "resources", "resourceNames")
QUIET = ("/livez*", "/readyz*", "/healthz*", "/version*", "/metrics*")
"""Paths that are asked all the time and tell nothing."""


class BadPolicy(ValueError):
    """A policy that cannot be used; the text lists where what is wrong."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources of one group. `resources`: plain, `pods/log`, `pods/*`, `*/log` or `*`; () for all of the group."""

    group: str = ""
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def holds(self, target: Target) -> bool:
        if target.group != self.group:
            return False
        if not self.resources:
            return True
        if self.names and target.name not in self.names:
            return False
        resource, sub = target.resource, target.subresource
        whole = f"{resource}/{sub}" if sub else resource
        wanted = {whole, "*"}
        if sub:
            wanted |= {f"{resource}/*", f"*/{sub}"}
        return any(r in wanted for r in self.resources)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; () of anything means that it does not matter."""

    level: Level
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    resources: tuple[Resources, ...] = ()
    namespaces: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    omitted: frozenset[str] = frozenset()
    without_managed_fields: bool = False

    def holds(self, user: User, target: Target) -> bool:
        """Whether the rule is about a request."""
        if self.users and user.name not in self.users:
            return False
        if self.groups and not set(self.groups) & set(user.groups):
            return False
        if self.verbs and target.verb not in self.verbs:
            return False
        if self.namespaces or self.resources:
            if not target.is_resource or (self.namespaces and target.namespace not in self.namespaces):
                return False
            return not self.resources or any(r.holds(target) for r in self.resources)
        if self.urls:
            return not target.is_resource and any(path_matches(u, target.path) for u in self.urls)
        return True


UNTOLD = Rule("None", omitted=frozenset(STAGES))


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in their order."""

    rules: tuple[Rule, ...]

    def rule_for(self, user: User, target: Target) -> Rule:
        """What is told of a request."""
        return next((rule for rule in self.rules if rule.holds(user, target)), UNTOLD)


def simple_policy(level: Level) -> Policy:
    """One level for everything but quiet paths; never the bodies that hold secrets, nor the arrival of a request."""
    late = frozenset({"RequestReceived"})
    secretive = (
        Resources("", ("secrets", "configmaps", "serviceaccounts/token")),
        Resources("authentication.k8s.io", ("tokenreviews",)),
    )
    rules = [Rule("None", urls=QUIET)]
    if level != "Metadata":
        rules.append(Rule("Metadata", resources=secretive, omitted=late))
    return Policy((*rules, Rule(level, omitted=late)))


def read_policy(path: str) -> Policy:
    """The policy in a file, YAML or JSON. OSError if it cannot be read, BadPolicy if it cannot be used."""
    import yaml

    raw = Path(path).read_bytes()
    try:
        document = yaml.load(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BadPolicy(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    problems: list[str] = []
    policy = parse_policy(document, problems)
    if problems:
        raise BadPolicy(f"{path}: " + "; ".join(problems))
    return policy


def parse_policy(document: Any, problems: list[str]) -> Policy:
    """The policy of a decoded document; what is wrong with it, and where, is added to `problems`."""
    if not isinstance(document, dict):
        problems.append("must be a Policy of audit.k8s.io/v1, a mapping with apiVersion, kind and rules")
        return Policy(())
    if (document.get("apiVersion"), document.get("kind")) != (API_VERSION, "Policy"):
        found = f"{document.get('apiVersion')}, kind {document.get('kind')}"
        problems.append(f"apiVersion {found}: must be apiVersion {API_VERSION}, kind Policy")
        return Policy(())
    unknown_fields(document, POLICY_FIELDS, "", problems)
    omitted = stages(document, "omitStages", problems)
    without = truth(document, "omitManagedFields", "omitManagedFields", problems)
    rules = document.get("rules")
    if not isinstance(rules, list) or not rules:
        problems.append("rules: Required value: a policy needs at least one rule")
        return Policy(())
    return Policy(tuple(parse_rule(r, f"rules[{i}]", omitted, bool(without), problems) for i, r in enumerate(rules)))


def parse_rule(rule: Any, at: str, omitted: frozenset[str], without: bool, problems: list[str]) -> Rule:
    if not isinstance(rule, dict):
        problems.append(f"{at}: must be a mapping")
        return UNTOLD
    unknown_fields(rule, RULE_FIELDS, at + ".", problems)
    level = rule.get("level")
    if level not in LEVELS:
        supported = ", ".join(quote(v) for v in LEVELS)
        problems.append(
            f"{at}.level: Unsupported value: {quote(str(level))}: supported values: {supported}"
            if level
            else f"{at}.level: Required value: one of {supported}"
        )
    urls = texts(rule, "nonResourceURLs", at, problems)
    resources = parse_resources(rule.get("resources"), f"{at}.resources", problems)
    namespaces = texts(rule, "namespaces", at, problems)
    if urls and (resources or namespaces):
        problems.append(f"{at}.nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs")
    for i, url in enumerate(urls):
        here = f"{at}.nonResourceURLs[{i}]: Invalid value: {quote(url)}"
        if url != "*" and not url.startswith("/"):
            problems.append(f"{here}: non-resource URL rules must begin with a '/' character")
        elif "*" in url[:-1]:
            problems.append(f"{here}: non-resource URL wildcards '*' must be the final character of the rule")
    own = truth(rule, "omitManagedFields", f"{at}.omitManagedFields", problems)
    return Rule(
        level if level in LEVELS else "None",
        texts(rule, "users", at, problems),
        texts(rule, "userGroups", at, problems),
        texts(rule, "verbs", at, problems),
        resources,
        namespaces,
        urls,
        omitted | stages(rule, "omitStages", problems, at + "."),
        without if own is None else own,
    )


def parse_resources(found: Any, at: str, problems: list[str]) -> tuple[Resources, ...]:
    if found is None:
        return ()
    if not isinstance(found, list):
        problems.append(f"{at}: must be a list")
        return ()
    parsed = []
    for i, entry in enumerate(found):
        here = f"{at}[{i}]"
        if not isinstance(entry, dict):
            problems.append(f"{here}: must be a mapping with group and resources")
            continue
        unknown_fields(entry, RESOURCE_FIELDS, here + ".", problems)
        group = entry.get("group") or ""
        if not isinstance(group, str) or "/" in group:
            problems.append(f"{here}.group: Invalid value: {quote(str(group))}: must be a group without a version")
        resources = texts(entry, "resources", here, problems)
        names = texts(entry, "resourceNames", here, problems)
        if names and not resources:
            problems.append(f"{here}.resourceNames: Invalid value: using resourceNames requires at least one resource")
        parsed.append(Resources(str(group), resources, names))
    return tuple(parsed)


def texts(found: Mapping[str, Any], name: str, at: str, problems: list[str]) -> tuple[str, ...]:
    value = found.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        problems.append(f"{at}.{name}: must be a list of texts")
        return ()
    return tuple(value)


def stages(found: Mapping[str, Any], name: str, problems: list[str], at: str = "") -> frozenset[str]:
    value = found.get(name)
    if value is None:
        return frozenset()
    listed = value if isinstance(value, list) else [value]
    for i, stage in enumerate(listed):
        if stage not in STAGES:
            problems.append(
                f"{at}{name}[{i}]: Invalid value: {quote(str(stage))}: allowed stages are {','.join(STAGES)}"
            )
    return frozenset(s for s in listed if s in STAGES)


def truth(found: Mapping[str, Any], name: str, at: str, problems: list[str]) -> bool | None:
    value = found.get(name)
    if value is not None and not isinstance(value, bool):
        problems.append(f"{at}: must be true or false")
        return None
    return value


def unknown_fields(found: Mapping[Any, Any], known: Sequence[str], at: str, problems: list[str]) -> None:
    problems += [f'unknown field "{at}{name}": must be of {", ".join(known)}' for name in found if name not in known]
