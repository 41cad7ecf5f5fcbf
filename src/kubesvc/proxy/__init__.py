"""The service proxy: which endpoints a packet may reach (`traffic`), the rules that send it there (`frame`,
`nftables`, `delta`; or `iptables`, or sockets in `userspace`), the seam between (`backend`), and the loop that
keeps them in line (`sync`, `family`)."""

from .nftbackend import NftBackends
from .settings import ProxySettings
from .sync import Proxy

__all__ = ["NftBackends", "Proxy", "ProxySettings"]
