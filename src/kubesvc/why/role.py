"""The least permission that `kubesvc why` needs, as objects to apply. Pure."""

from __future__ import annotations

from typing import Any

from .snapshot import READ

NAME = "kubesvc-why"
ACCOUNT = "system:serviceaccount:"


def render_role() -> dict[str, Any]:
    """A ClusterRole that may list what is read, and nothing else."""
    groups: dict[str, list[str]] = {}
    for kind in READ:
        groups.setdefault(kind.group, []).append(kind.plural)
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": NAME},
        "rules": [
            {"apiGroups": [group], "resources": sorted(plurals), "verbs": ["list"]}
            for group, plurals in sorted(groups.items())
        ],
    }


def render_grant(user: str) -> dict[str, Any]:
    """The role, and the binding that gives it to a user, as one list.

    user: as the API server calls it, such as `jane` or `system:serviceaccount:NAMESPACE:NAME`
    """
    group, kind, name = "rbac.authorization.k8s.io", "User", user
    subject: dict[str, str] = {"apiGroup": group, "kind": kind, "name": name}
    if user.startswith(ACCOUNT) and user.count(":") == 3:
        _, _, namespace, name = user.split(":")
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"{NAME}:{user}"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": NAME},
        "subjects": [subject],
    }
    return {"apiVersion": "v1", "kind": "List", "items": [render_role(), binding]}
