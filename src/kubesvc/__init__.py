"""kubesvc: Kubernetes Services, whole and real, from pip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubesvc.cli.wait import NotRoutable, wait_routable
    from kubesvc.testing import Cluster, CommandFailed, NotStarted, start

__version__ = "0.1.0"
__all__ = ["Cluster", "CommandFailed", "NotRoutable", "NotStarted", "__version__", "start", "wait_routable"]


def __getattr__(name: str) -> Any:
    """What programs call, loaded when it is first asked for: importing kubesvc costs nothing."""
    if name in ("NotRoutable", "wait_routable"):
        from kubesvc.cli import wait

        return getattr(wait, name)
    if name in ("Cluster", "CommandFailed", "NotStarted", "start"):
        from kubesvc import testing

        return getattr(testing, name)
    raise AttributeError(f"module 'kubesvc' has no attribute {name!r}")
