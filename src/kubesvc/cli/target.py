"""Which cluster a command means: the first given of --kubeconfig/--context, --name, $KUBECONFIG, the instance
`default`."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kubesvc.instance.paths import BadName, InstancePaths, all_instances
from kubesvc.instance.record import InstanceRecord, read_record

from . import WRONG_USAGE, Failure


@dataclass(frozen=True)
class Target:
    """A cluster to talk to; `instance` is set when it is one of this machine's own instances."""

    kubeconfig: Path
    context: str = ""
    instance: InstancePaths | None = None


def add_name(parser: argparse.ArgumentParser) -> None:
    """The option that every command takes."""
    parser.add_argument("--name", type=given, help="the instance (default: default)", metavar="NAME")


def given(name: str) -> str:
    """A name that says something: an empty one, as from a variable that is not set, must not mean `default`."""
    if not name:
        raise argparse.ArgumentTypeError("is empty; leave it out for the instance `default`")
    return name


def add_instance(parser: argparse.ArgumentParser) -> None:
    """Options that choose a running instance of this machine."""
    add_name(parser)
    parser.add_argument("--kubeconfig", default="", metavar="FILE", help="the instance that wrote this kubeconfig")


def add_target(parser: argparse.ArgumentParser) -> None:
    """Options that choose a cluster, for commands that also work on clusters of others."""
    parser.add_argument("--kubeconfig", metavar="FILE", help="the cluster of this kubeconfig")
    parser.add_argument("--context", metavar="CONTEXT", help="the context of the kubeconfig (default: its current one)")
    add_name(parser)


def instance_paths(name: str | None, kubeconfig: str = "") -> InstancePaths:
    """The instance a command means: whose kubeconfig is given, the named one, the one $KUBECONFIG belongs to,
    `default`. A $KUBECONFIG of another cluster names no instance. Failure if what is given is none."""
    if kubeconfig:
        found = owner_of(kubeconfig)
        if found is None:
            raise Failure(f"--kubeconfig {kubeconfig} belongs to no instance of this user\nnext: kubesvc status --all")
        return found
    if not name and (found := owner_of(os.environ.get("KUBECONFIG", ""))):
        return found
    try:
        return InstancePaths.of(name or "default")
    except BadName as error:
        raise Failure(str(error), status=64) from error


def existing(name: str) -> InstancePaths:
    """The instance of this name, running or not. Failure, which names what it may have been mistyped from, if there
    never was one, or it was purged: nothing is made for a name that nobody knows."""
    paths = instance_paths(name)
    if paths.root.is_dir():
        return paths
    raise Failure(
        f"there is no instance {name!r}{meant(paths)}\nnext: kubesvc up --name {name}, or kubesvc status --all"
    )


def meant(paths: InstancePaths) -> str:
    """What to add where an instance is told not to be there: the one that the name may have been mistyped from, or
    those there are; "" for one that is there."""
    others = [] if paths.root.is_dir() else [i.name for i in all_instances()]
    near = difflib.get_close_matches(paths.name, others, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there is {', '.join(map(repr, others))}" if others else ""


def owner_of(kubeconfig: str) -> InstancePaths | None:
    """The instance that wrote this kubeconfig, if one did."""
    if not kubeconfig:
        return None
    wanted = Path(kubeconfig).expanduser().resolve()
    return next((i for i in all_instances() if i.kubeconfig.resolve() == wanted), None)


def running(name: str | None, kubeconfig: str = "") -> tuple[InstancePaths, InstanceRecord]:
    """The instance meant (`instance_paths`), which must be running and ready."""
    paths = instance_paths(name, kubeconfig)
    record = load_record(paths)
    flag = "" if paths.name == "default" else f" --name {paths.name}"
    if record is None or record.control is None or not record.control.alive():
        raise Failure(f"no instance {paths.name!r} is running{meant(paths)}\nnext: kubesvc up{flag}")
    if not record.ready:
        raise Failure(f"the instance {paths.name!r} is still starting\nnext: kubesvc status{flag}")
    return paths, record


def service_named(words: Sequence[str], wanted: str) -> str:
    """The name in `svc/NAME`, for commands about one Service. Failure, which says what was wanted, if it is none."""
    from kubesvc.why.subject import BadSubject, parse_subject

    try:
        subject = parse_subject(words)
    except BadSubject as error:
        raise Failure(str(error), status=WRONG_USAGE) from error
    if not subject.service or subject.pod:
        raise Failure(f"{' '.join(words)}: {wanted}: svc/NAME", status=WRONG_USAGE)
    return subject.service


def no_service(args: argparse.Namespace, name: str, namespace: str, *, status: int) -> Failure:
    """A Service that was asked for is not there; `why` knows those that are like it."""
    ask = f"kubesvc why svc/{name}{same_cluster(args)}"
    return Failure(f"there is no Service {name} in namespace {namespace}\nnext: {ask}", status=status)


def load_record(paths: InstancePaths) -> InstanceRecord | None:
    try:
        return read_record(paths.record)
    except ValueError as error:
        raise Failure(f"{error}\nnext: remove {paths.root} once nothing of it runs") from error


def same_cluster(args: argparse.Namespace) -> str:
    """The options, with a space before each, by which another command that is suggested asks the same place."""
    options = ("namespace", "-n"), ("name", "--name"), ("kubeconfig", "--kubeconfig"), ("context", "--context")
    return "".join(f" {flag} {value}" for field, flag in options if (value := getattr(args, field, None)))


def kubectl_for(args: argparse.Namespace) -> str:
    """How kubectl is called so that it asks the cluster of these options: `kubectl` alone where it would anyway."""
    if args.kubeconfig or args.context:
        words = [f"{flag} {v}" for flag, v in (("--kubeconfig", args.kubeconfig), ("--context", args.context)) if v]
        return " ".join(("kubectl", *words))
    own = "kubesvc kubectl" + (f" --name {args.name}" if args.name else "")
    if not args.name:
        return "kubectl" if os.environ.get("KUBECONFIG") else own
    return "kubectl" if owner_of(os.environ.get("KUBECONFIG", "")) == instance_paths(args.name) else own


def find_target(args: argparse.Namespace) -> Target:
    """The cluster that the options and the environment name."""
    if args.kubeconfig or args.context:
        path = args.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        if not Path(path).is_file():
            raise Failure(f"kubeconfig {path}: {'is no file' if Path(path).exists() else 'no such file'}")
        return Target(Path(path), args.context or "")
    if not args.name and (path := os.environ.get("KUBECONFIG", "")):
        if not any(Path(part).is_file() for part in path.split(os.pathsep) if part):
            raise Failure(f"KUBECONFIG names {path}, which is no file\nnext: unset KUBECONFIG, or use --name")
        return Target(Path(path))
    paths, _ = running(args.name)
    return Target(paths.kubeconfig, "", paths)
