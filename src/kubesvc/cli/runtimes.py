"""The option --runtime: a container runtime that makes the containers of nodes, looked at before anything starts."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from . import Failure


def add_runtime(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--runtime", type=runtime, default=None, metavar="cri=unix:///PATH",
        help="have a container runtime make the containers (CRI v1: containerd, CRI-O), with real images; as root",
    )  # fmt: skip


def runtime(text: str) -> Path:
    from kubesvc.node.cri.client import socket_of

    try:
        return socket_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def checked_runtime(path: Path) -> str:
    """Name and version of a runtime that can run Pods. Failure with what stands in the way of one that cannot."""
    from kubesvc.node.cri.client import RuntimeProblem
    from kubesvc.node.cri.health import examine_runtime

    if os.geteuid() != 0:
        raise Failure(
            "--runtime: a container runtime's sandboxes can be wired by root only; next: sudo, or no --runtime"
        )
    try:
        version, troubles = asyncio.run(examine_runtime(path))
    except RuntimeProblem as error:
        raise Failure(f"--runtime: {error}") from None
    if troubles:
        raise Failure("--runtime: " + "\n".join(troubles))
    return version
