"""Which cluster a command means: the first given of --kubeconfig/--context, --name, $KUBECONFIG, the instance
`default`."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from kubesvc.instance.paths import BadName, InstancePaths
from kubesvc.instance.record import InstanceRecord, read_record

from . import Failure


@dataclass(frozen=True)
class Target:
    """A cluster to talk to; `instance` is set when it is one of this machine's own instances."""

    kubeconfig: Path
    context: str = ""
    instance: InstancePaths | None = None


def add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="the instance (default: default)", metavar="NAME")


def add_target(parser: argparse.ArgumentParser) -> None:
    """Options that choose a cluster, for commands that also work on clusters of others."""
    parser.add_argument("--kubeconfig", metavar="FILE", help="the cluster of this kubeconfig")
    parser.add_argument("--context", metavar="CONTEXT", help="the context of the kubeconfig (default: its current one)")
    add_name(parser)


def instance_paths(name: str | None) -> InstancePaths:
    """Paths of the named instance, `default` if none is named; Failure if the name is none."""
    try:
        return InstancePaths.of(name or "default")
    except BadName as error:
        raise Failure(str(error), status=64) from error


def running(name: str | None) -> tuple[InstancePaths, InstanceRecord]:
    """The named instance, which must be running and ready."""
    paths = instance_paths(name)
    record = load_record(paths)
    flag = "" if paths.name == "default" else f" --name {paths.name}"
    if record is None or record.control is None or not record.control.alive():
        raise Failure(f"no instance {paths.name!r} is running\nnext: kubesvc up{flag}")
    if not record.ready:
        raise Failure(f"the instance {paths.name!r} is still starting\nnext: kubesvc status{flag}")
    return paths, record


def load_record(paths: InstancePaths) -> InstanceRecord | None:
    try:
        return read_record(paths.record)
    except ValueError as error:
        raise Failure(f"{error}\nnext: remove {paths.root} once nothing of it runs") from error


def find_target(args: argparse.Namespace) -> Target:
    """The cluster that the options and the environment name."""
    if args.kubeconfig or args.context:
        path = args.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        if not Path(path).is_file():
            raise Failure(f"kubeconfig {path}: no such file")
        return Target(Path(path), args.context or "")
    if not args.name and (path := os.environ.get("KUBECONFIG", "")):
        if not any(Path(part).is_file() for part in path.split(os.pathsep) if part):
            raise Failure(f"KUBECONFIG names {path}, which is no file\nnext: unset KUBECONFIG, or use --name")
        return Target(Path(path))
    paths, _ = running(args.name)
    return Target(paths.kubeconfig, "", paths)
