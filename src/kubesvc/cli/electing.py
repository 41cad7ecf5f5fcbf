"""What commands that may run several times at once share: one of them leads, by Lease, with upstream's flags and
defaults."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kubesvc.clock import Clock, Random

from . import Failure
from .flags import seconds, truth

if TYPE_CHECKING:
    from kubesvc.client import Client

    from .alone import Part


def add_election_arguments(parser: argparse.ArgumentParser, lease: str) -> None:
    group = parser.add_argument_group("leader election")
    group.add_argument(
        "--leader-elect", type=truth, nargs="?", const=True, metavar="true|false",
        help="wait until no other one works, by Lease (default: true)",
    )  # fmt: skip
    group.add_argument("--leader-elect-resource-name", default=lease, metavar="NAME", help="of the Lease")
    group.add_argument(
        "--leader-elect-resource-namespace", default="kube-system", metavar="NAMESPACE", help="of the Lease"
    )
    group.add_argument(
        "--leader-elect-lease-duration",
        type=seconds,
        default=15.0,
        metavar="SECONDS",
        help="how long others wait before they take over",
    )
    group.add_argument(
        "--leader-elect-renew-deadline",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long to try to keep the Lease",
    )
    group.add_argument(
        "--leader-elect-retry-period", type=seconds, default=2.0, metavar="SECONDS", help="between tries"
    )


def elected(args: argparse.Namespace, part: Part) -> Part:
    """The part as it is, or only while leading; who loses the lead ends with a Failure, to be started again."""
    if args.leader_elect is False:
        return part
    from kubesvc.client.leader import LeaderElector, LeaderSettings, LeadershipLost

    try:
        settings = LeaderSettings(
            namespace=args.leader_elect_resource_namespace,
            name=args.leader_elect_resource_name,
            lease_duration=args.leader_elect_lease_duration,
            renew_deadline=args.leader_elect_renew_deadline,
            retry_period=args.leader_elect_retry_period,
        )
    except ValueError as error:
        raise Failure(str(error), status=64) from error

    async def led(client: Client, clock: Clock, random: Random) -> None:
        identity = f"{socket.gethostname()}_{os.getpid()}_{random.getrandbits(64):016x}"
        elector = LeaderElector(client.as_manager("leader-election"), settings, identity, clock, random)

        def work() -> Coroutine[Any, Any, None]:
            return part(client, clock, random)

        try:
            await elector.run(work)
        except LeadershipLost as error:
            raise Failure(str(error)) from error

    return led
