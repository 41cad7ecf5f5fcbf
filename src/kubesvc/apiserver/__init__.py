"""The API server: verbs, admission, allocation, list and watch streams, tables; its registry is a `Client`.

server = ApiServer(store, ApiServerSettings(), clock, random)
port = await server.listen_tls("127.0.0.1", 0, certfile, keyfile, client_ca)
await server.start()          # caches, then the server's own objects
await server.client.get(POD, "web", "default")
await server.stop()
"""

from typing import TYPE_CHECKING

from .settings import ApiServerSettings

if TYPE_CHECKING:
    from .apiserver import ApiServer

__all__ = ["ApiServer", "ApiServerSettings"]


def __getattr__(name: str) -> object:
    """`ApiServer` on first use: it needs the HTTP library, which takes long to import."""
    if name == "ApiServer":
        from .apiserver import ApiServer

        return ApiServer
    raise AttributeError(name)
