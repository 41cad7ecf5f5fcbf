"""The service proxy: which endpoints a packet may reach (`traffic`), the rules that send it there (`frame`,
`nftables`, `delta`), and the loop that keeps the kernel in line (`sync`)."""

from .settings import ProxySettings
from .sync import Proxy

__all__ = ["Proxy", "ProxySettings"]
