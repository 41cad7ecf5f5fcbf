"""Stop an instance and remove everything it left on the machine: processes, namespaces, sockets.

The store and the Pods' persistent volumes stay, so that the next `up` continues; --purge removes the instance's files
too.
"""

from __future__ import annotations

import argparse

from kubesvc.instance.leftovers import end_instance, remove_files
from kubesvc.instance.paths import all_instances

from . import Failure
from .target import add_instance, instance_paths, load_record, meant


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_instance(parser)
    parser.add_argument("--all", action="store_true", help="every instance of this user")
    parser.add_argument("--purge", action="store_true", help="remove the store, volumes, certificates and logs too")


def run(args: argparse.Namespace) -> int:
    for paths in all_instances() if args.all else [instance_paths(args.name, args.kubeconfig)]:
        record = load_record(paths)
        there = "" if args.all else meant(paths)
        was = record is not None and bool(record.processes())
        left = end_instance(paths)
        if left:
            pids = ", ".join(str(p.pid) for p in left)
            raise Failure(f"these processes of {paths.name!r} did not end: {pids}\nnext: see why in /proc/PID/stack")
        if args.purge and paths.root.exists():
            try:
                remove_files(paths.root)
            except OSError as error:
                raise Failure(
                    f"{error.filename or paths.root} cannot be removed: {error.strerror or error}\nnext: remove "
                    f"{paths.root} as whoever owns that file"
                ) from None
        print(
            f"{paths.name}: "
            + ("stopped" if was else f"was not running{there}")
            + (", files removed" if args.purge else "")
        )
    return 0
