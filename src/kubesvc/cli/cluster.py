"""The cluster that a command's options name, opened: its client, the namespace that names are in, and the instance of
this machine that it is, if it is one."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.record import InstanceRecord

from . import Failure, first_of
from .target import find_target, load_record, owner_of

if TYPE_CHECKING:
    from kubesvc.api.errors import ApiError
    from kubesvc.client import Unreachable
    from kubesvc.client.http import HttpClient
    from kubesvc.client.kubeconfig import Access

CANNOT_TELL = 2


@dataclass(frozen=True)
class Cluster:
    """kubeconfig: the path or paths, for messages. instance, record: of this machine's own instance, else None."""

    client: HttpClient
    namespace: str
    kubeconfig: str
    instance: InstancePaths | None = None
    record: InstanceRecord | None = None
    access: Access | None = None
    """What the client was made from."""


def open_cluster(args: argparse.Namespace, manager: str) -> Cluster:
    """Open the cluster of --kubeconfig, --context, --name or $KUBECONFIG; the caller closes the client.

    args: with the options of `target.add_target`, and `namespace`
    Raises Failure (status 2) for a kubeconfig that cannot be used.
    """
    from kubesvc.client.http import HttpClient
    from kubesvc.client.kubeconfig import KubeconfigError, load_kubeconfig

    try:
        target = find_target(args)
    except Failure as failure:
        raise Failure(str(failure), status=failure.status if failure.status != 1 else CANNOT_TELL) from None
    paths = [os.path.expanduser(p) for p in str(target.kubeconfig).split(os.pathsep) if p]
    try:
        access = load_kubeconfig(*paths).access(target.context or None)
        client = HttpClient.from_access(access, manager)
    except KubeconfigError as error:
        raise Failure(str(error), status=CANNOT_TELL) from error
    namespace = args.namespace or getattr(access, "namespace", "") or "default"
    instance = target.instance or (owner_of(paths[0]) if len(paths) == 1 and not target.context else None)
    record = load_record(instance) if instance is not None else None
    if record is None or record.control is None or not record.control.alive():
        instance = record = None
    return Cluster(client, namespace, str(target.kubeconfig), instance, record, access)


@contextlib.asynccontextmanager
async def asking_cluster(args: argparse.Namespace, manager: str) -> AsyncIterator[Cluster]:
    """`open_cluster`, closed at the end; what the cluster refuses or cannot be asked is a Failure (status 2). Of tasks
    that failed as a group, the user is told what the first one met."""
    from kubesvc.api.errors import ApiError
    from kubesvc.client import Unreachable

    cluster = open_cluster(args, manager)
    try:
        yield cluster
    except (Unreachable, ApiError) as error:
        raise failure_of(error, cluster) from error
    except BaseExceptionGroup as group:
        cause = first_of(group)
        if isinstance(cause, (Unreachable, ApiError)):
            raise failure_of(cause, cluster) from cause
        if isinstance(cause, (Failure, BrokenPipeError, KeyboardInterrupt)):
            raise cause from None
        raise
    finally:
        await cluster.client.close()


def failure_of(error: Unreachable | ApiError, cluster: Cluster) -> Failure:
    """What a user is told of a cluster that does not answer, or does not want to."""
    from kubesvc.client import Unreachable

    if isinstance(error, Unreachable):
        said = f"the cluster of {cluster.kubeconfig} cannot be reached: {error}"
        return Failure(f"{said}\nnext: start it, or name another by --kubeconfig or --name", status=CANNOT_TELL)
    return Failure(f"the cluster of {cluster.kubeconfig} refuses: {error.message}", status=CANNOT_TELL)
