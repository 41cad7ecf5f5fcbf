"""Where an instance keeps its files."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from kubesvc.kernel.cgroups import PREFIX

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")
ALONE = "alone"
"""Beside the instances: the state of nodes that run by themselves; no instance can have this name."""
LONGEST_SOCKET_PATH = 107  # sockaddr_un holds 108 bytes with the closing zero


class BadName(ValueError):
    """An instance name that is none, or a state directory that cannot hold sockets."""


def state_home() -> Path:
    """The directory of all instances: $XDG_STATE_HOME/kubesvc, by default ~/.local/state/kubesvc."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "kubesvc"


@dataclass(frozen=True)
class InstancePaths:
    """The files of one instance; nothing is created by asking for a path."""

    root: Path

    @classmethod
    def of(cls, name: str) -> InstancePaths:
        """Paths of the instance with this name. Raises BadName."""
        if not NAME.fullmatch(name):
            raise BadName(
                f"{name!r} cannot be the name of an instance: use lower-case letters, digits and '-', at most 32, "
                "beginning and ending with a letter or digit"
            )
        if name == ALONE:
            raise BadName(f"{name!r} cannot be the name of an instance: nodes that joined keep their state there")
        paths = cls(state_home() / name)
        longest = paths.node("n" * 12) / "door.sock"
        if len(os.fsencode(str(longest))) > LONGEST_SOCKET_PATH:
            raise BadName(
                f"the state directory {paths.root} is too long a path for unix sockets "
                f"(at most {LONGEST_SOCKET_PATH} bytes): set XDG_STATE_HOME to a shorter directory"
            )
        return paths

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def lock(self) -> Path:
        return self.root / "instance.lock"

    @property
    def record(self) -> Path:
        return self.root / "instance.json"

    @property
    def outside(self) -> Path:
        return self.root / "outside.json"

    @property
    def store(self) -> Path:
        return self.root / "store.db"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def api_socket(self) -> Path:
        return self.root / "api.sock"

    @property
    def api_tls_socket(self) -> Path:
        return self.root / "api-tls.sock"

    @property
    def control_socket(self) -> Path:
        """Where commands ask the control process for what only it can do."""
        return self.root / "control.sock"

    @property
    def dns_socket(self) -> Path:
        return self.root / "dns.sock"

    @property
    def pull_socket(self) -> Path:
        """Where nodes, which have no way out of their own, ask for images."""
        return self.root / "pull.sock"

    @property
    def log(self) -> Path:
        return self.root / "control.log"

    @property
    def images(self) -> Path:
        """Images that were loaded from files."""
        return self.root / "images"

    @property
    def group(self) -> str:
        """The name of its control group: the instance's, and a digest of where it is, since others may be named so."""
        return f"{PREFIX}{self.root.name}-{hashlib.sha256(str(self.root).encode()).hexdigest()[:8]}"

    def node(self, name: str) -> Path:
        """State directory of one node."""
        return self.root / "nodes" / name

    def volumes(self, node: str) -> Path:
        """The directories that volumes of this node are made of."""
        return self.node(node) / "local-path-provisioner"


def all_instances() -> list[InstancePaths]:
    """Every instance that has a state directory, by name."""
    home = state_home()
    if not home.is_dir():
        return []
    found = (p for p in sorted(home.iterdir()) if p.name != ALONE and NAME.fullmatch(p.name))
    return [InstancePaths(p) for p in found if p.is_dir()]
