"""The admin kubeconfig that `up` writes, readable by its owner alone."""

from __future__ import annotations

from pathlib import Path

from kubesvc.client.kubeconfig import Access, render_kubeconfig

from .pki import Pki
from .wholefile import replace_file


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
    """Write a file that only its owner may read, whole or not at all. Raises OSError, which names it."""
    replace_file(path, text.encode(), private=True)
