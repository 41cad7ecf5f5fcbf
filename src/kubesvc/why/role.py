"""The least permission that `kubesvc why` needs, as objects to apply. Pure."""

from __future__ import annotations

from typing import Any

from .snapshot import READ

NAME = "kubesvc-why"


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
