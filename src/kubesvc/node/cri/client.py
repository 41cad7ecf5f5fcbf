"""Calls to a container runtime over CRI v1: one unix socket, unary calls, refusals in words that help."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .wire import Message, decode, encode

CALL_SECONDS = 120.0
"""As long as a kubelet waits for one answer; CNI plugins and image stores take their time."""
PULL_SECONDS = 1800.0
CONNECT_SECONDS = 10.0
"""How long a runtime may take to greet. A call fails with the attempt to connect that it waits for."""
RUNTIME, IMAGES = "runtime.v1.RuntimeService", "runtime.v1.ImageService"
IMAGE_METHODS = ("ImageStatus", "PullImage")
OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)
FORMS = "cri=unix:///PATH, such as cri=unix:///run/containerd/containerd.sock or cri=unix:///run/crio/crio.sock"


class RuntimeProblem(OSError):
    """The runtime cannot be asked, or has refused; `code` is gRPC's name for it (NOT_FOUND, UNAVAILABLE …)."""

    def __init__(self, message: str, code: str = "UNKNOWN") -> None:
        super().__init__(message)
        self.code = code


def socket_of(text: str) -> Path:
    """The socket that `--runtime` names. ValueError with what is allowed."""
    kind, equals, address = text.partition("=")
    path = address.removeprefix("unix://")
    if kind != "cri" or not equals or not address.startswith("unix://") or not path.startswith("/"):
        raise ValueError(f"{text!r}: must be {FORMS}")
    return Path(path)


def explain_socket(path: Path) -> str:
    """What stands in the way of connecting to a runtime's socket, "" if nothing does."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"{path} is not there: is the runtime running? (systemctl status containerd, or crio)"
    except OSError as error:
        return f"{path} cannot be looked at: {error.strerror}"
    if not stat.S_ISSOCK(mode):
        return f"{path} is no socket"
    if not os.access(path, os.W_OK):
        return f"{path} may not be opened by this user: a container runtime needs root"
    return ""


def meaning(code: str, details: str, path: Path) -> str:
    """A refusal in words. `code`: gRPC's."""
    if code == "UNIMPLEMENTED" and "unknown service" in details:
        return (
            f"{path} answers, but not to CRI v1 ({details}): it takes containerd 1.6, CRI-O 1.23 or later, "
            "with its CRI plugin on (disabled_plugins in /etc/containerd/config.toml)"
        )
    if code == "UNAVAILABLE":
        return explain_socket(path) or f"{path} does not answer: {details}"
    if code == "DEADLINE_EXCEEDED":
        return f"{path} did not answer in time"
    return details or code


class CriClient:
    """One runtime. The channel is made at the first call, and made good by gRPC when the runtime comes back."""

    def __init__(self, path: Path, connect_seconds: float = CONNECT_SECONDS) -> None:
        self.path = path
        self.connect_seconds = connect_seconds
        self.channel: Any = None
        self.calls: dict[str, Any] = {}
        self.errors: Any = None

    def open(self) -> None:
        """RuntimeProblem if the extra is not installed."""
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what goes wrong is told in our words, once
        try:
            import grpc
            import grpc.aio
        except ImportError as error:
            raise RuntimeProblem(
                f"{error}: container runtimes need one more package: pip install 'kubesvc[cri]'"
            ) from None
        self.errors = grpc.aio.AioRpcError
        # The authority of a unix socket is not a host name, and some servers refuse what is made of its path.
        greeting = ("grpc.min_reconnect_backoff_ms", round(self.connect_seconds * 1000))  # which is what that bounds
        options = (*OPTIONS, greeting, ("grpc.default_authority", "localhost"))
        self.channel = grpc.aio.insecure_channel(f"unix://{self.path}", options)

    async def call(
        self, method: str, request: Mapping[str, Any] | None = None, seconds: float = CALL_SECONDS
    ) -> Message:
        """One call. RuntimeProblem if it fails."""
        if self.channel is None:
            self.open()
        if method not in self.calls:
            service = IMAGES if method in IMAGE_METHODS else RUNTIME
            self.calls[method] = self.channel.unary_unary(
                f"/{service}/{method}",
                request_serializer=lambda value: encode(f"{method}Request", value),
                response_deserializer=lambda data: decode(f"{method}Response", data),
            )
        try:
            found: Message | None = await self.calls[method](request or {}, timeout=seconds)
        except self.errors as error:
            code = error.code().name
            raise RuntimeProblem(meaning(code, error.details() or "", self.path), code) from None
        if found is None:  # what gRPC makes of bytes that `decode` refuses
            raise RuntimeProblem(f"{self.path} answered {method} with what is no {method}Response")
        return found

    async def close(self) -> None:
        if self.channel is not None:
            await self.channel.close()
            self.channel = None
            self.calls.clear()
