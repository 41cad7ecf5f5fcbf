"""What is refused in the security contexts of Pods and their containers.

Plain objects in, field errors out, in the order in which the API finds them.
"""

from __future__ import annotations

import re

from . import fields
from .checks import INT32, descending, items, one_of, part
from .fields import Errors, Path
from .meta import Object

ID_TEXT = "must be between 0 and 2147483647, inclusive"
PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
PROC_MOUNTS = ("Default", "Unmasked")
SYSCTL_BYTES = 253
SYSCTL_FORM = r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
SYSCTL = re.compile(r"([a-z0-9][-_a-z0-9]*(?<![-_])[./])*[a-z0-9][-_a-z0-9]*(?<![-_])")
ESCALATION = "cannot set `allowPrivilegeEscalation` to false and"


def validate_security(context: Object, path: Path) -> Errors:
    """A container's."""
    errors: Errors = []
    for field in ("runAsUser", "runAsGroup"):
        errors += user_id(context, field, path)
    if (mount := context.get("procMount")) is not None:
        errors += one_of(mount, PROC_MOUNTS, path / "procMount", in_order=True)
    errors += validate_profile(context, "seccompProfile", "seccomp", path)
    if context.get("allowPrivilegeEscalation") is False:
        contradictions = []
        if context.get("privileged"):
            contradictions.append("`privileged` to true")
        if "CAP_SYS_ADMIN" in items(part(context, "capabilities"), "add"):  # and not its other name, as upstream
            contradictions.append("`capabilities.Add` CAP_SYS_ADMIN")
        errors += [
            fields.invalid(path, fields.Spelled(spelled_security(context)), f"{ESCALATION} {what}")
            for what in contradictions
        ]
    return errors + validate_profile(context, "appArmorProfile", "AppArmor", path)


def validate_profile(context: Object, field: str, word: str, path: Path) -> Errors:
    """A profile of the runtime's, or one of the node's own, which has a name."""
    if (profile := context.get(field)) is None:
        return []
    here, type_, name = path / field, profile.get("type") or "", profile.get("localhostProfile")
    errors: Errors = []
    if not type_:
        errors.append(fields.required(here / "type", f"type is required when {field} is set"))
    elif type_ not in PROFILES:
        errors.append(fields.not_supported(here / "type", type_, PROFILES))
    if type_ == "Localhost":
        if name is None:
            errors.append(fields.required(here / "localhostProfile", f"must be set when {word} type is Localhost"))
        else:
            errors += descending(name, here / "localhostProfile")
    elif name is not None:
        text = f"can only be set when {word} type is Localhost"
        errors.append(fields.invalid(here / "localhostProfile", profile if word == "seccomp" else name, text))
    return errors


def spelled_security(context: Object) -> str:
    """A security context under Go's names, nothing omitted (ERR-3)."""
    capabilities = context.get("capabilities")
    return fields.spell(
        {
            "Capabilities": None
            if capabilities is None
            else {"Add": capabilities.get("add"), "Drop": capabilities.get("drop")},
            "Privileged": context.get("privileged"),
            "SELinuxOptions": context.get("seLinuxOptions"),
            "WindowsOptions": context.get("windowsOptions"),
            "RunAsUser": context.get("runAsUser"),
            "RunAsGroup": context.get("runAsGroup"),
            "RunAsNonRoot": context.get("runAsNonRoot"),
            "ReadOnlyRootFilesystem": context.get("readOnlyRootFilesystem"),
            "AllowPrivilegeEscalation": context.get("allowPrivilegeEscalation"),
            "ProcMount": context.get("procMount"),
            "SeccompProfile": context.get("seccompProfile"),
            "AppArmorProfile": context.get("appArmorProfile"),
        }
    )


def user_id(context: Object, field: str, path: Path) -> Errors:
    value = context.get(field)
    if value is not None and not 0 <= value <= INT32:
        return [fields.invalid(path / field, value, ID_TEXT)]
    return []


def validate_pod_security(context: Object, spec: Object, path: Path) -> Errors:
    """A Pod's, whose spec says what it shares with its node."""
    errors: Errors = []
    for field in ("fsGroup", "runAsUser", "runAsGroup"):
        errors += user_id(context, field, path)
    for i, group in enumerate(items(context, "supplementalGroups")):
        if not 0 <= group <= INT32:
            errors.append(fields.invalid(path / "supplementalGroups" @ i, group, ID_TEXT))
    errors += word(context, "supplementalGroupsPolicy", ("Merge", "Strict"), path)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        text = "ShareProcessNamespace and HostPID cannot both be enabled"
        errors.append(fields.invalid(path / "shareProcessNamespace", True, text))
    errors += validate_sysctls(items(context, "sysctls"), path / "sysctls")
    errors += word(context, "fsGroupChangePolicy", ("Always", "OnRootMismatch"), path)
    errors += word(context, "seLinuxChangePolicy", ("MountOption", "Recursive"), path)
    errors += validate_profile(context, "seccompProfile", "seccomp", path)
    return errors + validate_profile(context, "appArmorProfile", "AppArmor", path)


def word(context: Object, field: str, supported: tuple[str, ...], path: Path) -> Errors:
    """A word of a closed set, if there is one."""
    value = context.get(field)
    return [] if value is None or value in supported else [fields.not_supported(path / field, value, supported)]


def validate_sysctls(sysctls: list[Object], path: Path) -> Errors:
    errors: Errors = []
    seen: set[str] = set()
    for i, sysctl in enumerate(sysctls):
        name, here = sysctl.get("name") or "", path @ i / "name"
        if not name:
            errors.append(fields.required(here))
        elif len(name) > SYSCTL_BYTES or not SYSCTL.fullmatch(name):
            text = f"must have at most {SYSCTL_BYTES} characters and match regex {SYSCTL_FORM}"
            errors.append(fields.invalid(here, name, text))
        elif name in seen:
            errors.append(fields.duplicate(here, name))
        seen.add(name)
    return errors
