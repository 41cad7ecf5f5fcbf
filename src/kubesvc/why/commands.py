"""Shell commands for kubectl that do what a cause needs. Pure; everything is quoted."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kubesvc.api.service import Service


def kubectl(namespace: str, *words: str) -> str:
    """`kubectl -n NAMESPACE WORDS`, quoted for a shell; without -n for "" and cluster-scoped things."""
    scope = ("-n", namespace) if namespace else ()
    return shlex.join(("kubectl", *scope, *words))


def merge(namespace: str, kind: str, name: str, patch: Mapping[str, Any]) -> str:
    """A JSON merge patch."""
    return kubectl(namespace, "patch", kind, name, "--type", "merge", "-p", compact(patch))


def json_patch(namespace: str, kind: str, name: str, *steps: tuple[str, str, Any]) -> str:
    """A JSON patch of (op, path, value) steps; the value of a `remove` is left out."""
    listed = [{"op": op, "path": path, **({"value": value} if op != "remove" else {})} for op, path, value in steps]
    return kubectl(namespace, "patch", kind, name, "--type", "json", "-p", compact(listed))


def apply(*objects: Mapping[str, Any]) -> str:
    """Objects that are written out in the command itself."""
    whole: Mapping[str, Any] = objects[0]
    if len(objects) > 1:
        whole = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    return f"echo {shlex.quote(compact(whole))} | kubectl apply -f -"


CALLS = re.compile(r"(^|\| |&& )kubectl ")
OUR_CALLS = re.compile(r"(?:^|(?<= && ))kubesvc (?:(?! \| | && ).)+")
GRANTING = "kubesvc why --print-role"


def addressed(command: str, kubectl: str) -> str:
    """A suggested command that asks the right cluster: `kubectl` as it has to be called there, and a command of ours
    with the instance's name."""
    if kubectl == "kubectl":
        return command
    name = re.search(r" --name \S+", kubectl)
    if command.startswith(GRANTING) and not name:
        return command  # for somebody who may more than who asked
    if command.startswith("kubesvc ") and name:
        command = OUR_CALLS.sub(lambda m: m[0] + name[0], command)
    return CALLS.sub(lambda m: f"{m[1]}{kubectl} ", command)


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def both(*commands: str) -> str:
    return " && ".join(commands)


def selector_text(pairs: Mapping[str, str] | None) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted((pairs or {}).items()))


def manifest(service: Service, **changes: Any) -> dict[str, Any]:
    """A Service to be applied anew, without what a cluster allocates; `changes` to spec, None leaves a field out."""
    spec: dict[str, Any] = {
        "selector": service.spec.selector,
        "ports": [
            {
                k: v
                for k, v in (
                    ("name", p.name), ("port", p.port), ("protocol", p.protocol), ("targetPort", p.target_port),
                )
                if v not in (None, "")
            }
            for p in service.spec.ports or ()
        ],
        "type": service.spec.type,
        **changes,
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service.name,
            "namespace": service.namespace,
            **({"labels": service.metadata.labels} if service.metadata.labels else {}),
        },
        "spec": {k: v for k, v in spec.items() if v is not None},
    }


def some(names: Iterable[str], most: int = 3) -> str:
    """A few names and how many more."""
    listed: Sequence[str] = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def count(number: int, noun: str) -> str:
    """`1 Pod`, `2 Pods`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
