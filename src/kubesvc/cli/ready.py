"""Flip what a Pod's readiness probe sees, and keep everything else real.

  kubesvc ready pod/web-1 off        the probe fails from now on: traffic moves away once its threshold is reached
  kubesvc ready pod/web-1 on         the probe succeeds, whatever the container says
  kubesvc ready pod/web-1 auto       the probe asks the container again

It writes the annotation kubesvc.dev/ready, so `kubectl annotate` does the same.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from . import WRONG_USAGE, Failure
from .target import add_target, find_target

if TYPE_CHECKING:
    from kubesvc.api.pod import Pod
    from kubesvc.node.steering import Steered


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pod", help="pod/NAME")
    parser.add_argument("state", choices=("on", "off", "auto"), help="as above")
    parser.add_argument("-n", "--namespace", metavar="NAMESPACE", help="the Pod's (default: the context's)")
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    kind, slash, name = args.pod.rpartition("/")
    if (slash and kind not in ("pod", "pods", "po")) or not name:
        raise Failure(f"{args.pod}: must be pod/NAME; only Pods have readiness", status=WRONG_USAGE)
    print(asyncio.run(steer(args, name)))
    return 0


async def steer(args: argparse.Namespace, name: str) -> str:
    """Write the annotation; what will come of it, in words."""
    from kubesvc.api.errors import ApiError, NotFound
    from kubesvc.api.kinds import POD
    from kubesvc.api.meta import typed
    from kubesvc.api.pod import Pod
    from kubesvc.client import Unreachable
    from kubesvc.client.http import HttpClient
    from kubesvc.client.kubeconfig import KubeconfigError, load_kubeconfig
    from kubesvc.node.steering import ANNOTATION

    target = find_target(args)
    try:
        access = load_kubeconfig(str(target.kubeconfig)).access(target.context or None)
        client = HttpClient.from_access(access, "kubesvc-ready")
    except KubeconfigError as error:
        raise Failure(str(error)) from error
    namespace = args.namespace or getattr(access, "namespace", "") or "default"
    value = None if args.state == "auto" else args.state
    try:
        patch = {"metadata": {"annotations": {ANNOTATION: value}}}
        pod = typed(await client.patch(POD, name, namespace, patch, "merge"), Pod)
    except NotFound:
        raise Failure(
            f"there is no pod {name!r} in namespace {namespace!r}\nnext: kubesvc kubectl get pods -A"
        ) from None
    except (ApiError, Unreachable) as error:
        raise Failure(str(error)) from error
    finally:
        await client.close()
    return explain(pod, args.state)


def explain(pod: Pod, state: str) -> str:
    """What the Pod's readiness will do, and when."""
    from kubesvc.node.steering import seconds_until

    if state == "auto":
        return f"pod/{pod.name}: its readiness probe asks the container again"
    value: Steered = "on" if state == "on" else "off"
    containers = pod.spec.containers or []
    if not any(c.readiness_probe for c in containers):
        words = "unready at once" if value == "off" else "ready while it runs"
        return f"pod/{pod.name}: it has no readiness probe; its containers are {words}"
    seconds = max(seconds_until(c, value) for c in containers)
    words = "succeeds" if value == "on" else "fails"
    return f"pod/{pod.name}: its readiness probe {words} from now on; Ready follows within {seconds:.0f} s"
