"""The admin kubeconfig that `up` writes, readable by its owner alone."""

from __future__ import annotations

import os
from pathlib import Path

from kubesvc.client.kubeconfig import Access, render_kubeconfig

from .pki import Pki


def admin_kubeconfig(name: str, server: str, pki: Pki) -> str:
    """A kubeconfig of the admin of instance `name`, with one context `kubesvc-<name>`."""
    access = Access(
        server,
        ca=pki.ca_cert.read_bytes(),
        client_certificate=pki.admin_cert.read_bytes(),
        client_key=pki.admin_key.read_bytes(),
    )
    return render_kubeconfig(access, f"kubesvc-{name}")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
