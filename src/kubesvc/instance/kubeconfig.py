"""The admin kubeconfig that `up` writes, readable by its owner alone."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from .pki import Pki


def render_kubeconfig(name: str, server: str, pki: Pki) -> str:
    """A kubeconfig with one context `kubesvc-<name>`, credentials inline. JSON, which is YAML too."""

    def inline(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    context = f"kubesvc-{name}"
    user = {"client-certificate-data": inline(pki.admin_cert), "client-key-data": inline(pki.admin_key)}
    cluster = {"server": server, "certificate-authority-data": inline(pki.ca_cert)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [{"name": context, "cluster": cluster}],
        "users": [{"name": context, "user": user}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
    }
    return json.dumps(config, indent=2) + "\n"


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    os.replace(draft, path)
