"""The service proxy: which endpoints a packet may reach (`traffic`), the rules that send it there (`frame`,
`nftables`, `delta`; or `iptables`, or sockets in `userspace`), the seam between (`backend`), and the loop that
keeps them in line (`sync`, `family`)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .nftbackend import NftBackends
    from .settings import ProxySettings
    from .sync import Proxy

HOMES = {
    "NftBackends": "nftbackend",
    "Proxy": "sync",
    "ProxySettings": "settings",
}
"""The module of each name, loaded when it is first asked for: who wants one plan needs no kernel and no sockets."""

__all__ = ["NftBackends", "Proxy", "ProxySettings"]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
