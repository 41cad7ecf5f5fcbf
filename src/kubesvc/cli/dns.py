"""Run cluster DNS alone, against any cluster.

  kubesvc dns --kubeconfig FILE --address 10.0.0.5:53
  kubesvc dns --kubeconfig FILE --upstream 192.0.2.53,192.0.2.54 --stub-domain corp.example=192.0.2.9
  kubesvc dns --kubeconfig FILE --workers 4                  processes that share the port

Names outside the cluster are asked of --upstream, by default the resolvers of /etc/resolv.conf. /health answers on port
8080, /ready on 8181 and /metrics on 9153 of the same address; with --workers the metrics of each worker have a port of
their own, from 9153 on.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import WRONG_USAGE, Failure
from .alone import add_part_arguments, run_part
from .flags import count

if TYPE_CHECKING:
    from kubesvc.client import Client
    from kubesvc.clock import Clock, Random
    from kubesvc.dns import DnsSettings
    from kubesvc.dns.forward import ForwardSettings

MOST_WORKERS = 64
RESTART_SECONDS = 1.0
PATIENCE_SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_part_arguments(parser)
    parser.add_argument("--address", default="127.0.0.1:5353", metavar="IP:PORT", help="where to answer")
    parser.add_argument("--cluster-domain", default="cluster.local", metavar="NAME", help="the zone to answer for")
    parser.add_argument("--ttl", type=count, default=5, metavar="SECONDS", help="of records, 0 to 3600 (default: 5)")
    parser.add_argument(
        "--negative-ttl", type=count, default=None, metavar="SECONDS", help="of `no such name` (default: as --ttl)"
    )
    parser.add_argument(
        "--pods", choices=("disabled", "insecure", "verified"), default="insecure", help="which names of Pods to answer"
    )
    parser.add_argument(
        "--upstream", default="", metavar="IP[:PORT],…|none", help="resolvers for other names (default: this host's)"
    )
    parser.add_argument(
        "--stub-domain", action="append", default=[], metavar="DOMAIN=IP[:PORT],…", help="resolvers for one domain"
    )
    parser.add_argument("--workers", type=count, default=1, metavar="N", help="processes that share the port")
    parser.add_argument("--health-port", type=count, default=8080, metavar="PORT", help="0: nowhere")
    parser.add_argument("--ready-port", type=count, default=8181, metavar="PORT", help="0: nowhere")
    parser.add_argument("--metrics-port", type=count, default=9153, metavar="PORT", help="0: nowhere")
    parser.add_argument("--worker", type=int, default=-1, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    from kubesvc.dns import DnsServer
    from kubesvc.lifetime import set_collector

    settings = settings_of(args)
    if args.workers > 1 and args.worker < 0:
        return supervise(args)

    async def serve(client: Client, clock: Clock, random: Random) -> None:
        # What the first lists left behind is never looked at again: no answer waits for that.
        await DnsServer(client, settings, clock, random, settled=set_collector).run()

    return run_part(args, "dns", serve)


def settings_of(args: argparse.Namespace) -> DnsSettings:
    """What the options ask for. Failure (64) if that makes no sense."""
    from kubesvc.dns import DnsSettings

    if not 1 <= args.workers <= MOST_WORKERS:
        raise Failure(f"--workers {args.workers}: must be from 1 to {MOST_WORKERS}", status=WRONG_USAGE)
    address = place(args.address, "--address", None)
    if args.workers > 1 and not address[1]:
        raise Failure("--workers needs a port that all can share; --address with port 0 has none", status=WRONG_USAGE)
    number = max(args.worker, 0)
    try:
        return DnsSettings(
            zone=args.cluster_domain,
            addresses=(address,),
            ttl=args.ttl,
            negative_ttl=args.negative_ttl,
            pods=args.pods,
            forward=forward_of(args),
            shared=args.workers > 1,
            health_port=args.health_port,
            ready_port=args.ready_port,
            metrics_port=args.metrics_port + number if args.metrics_port else 0,
        )
    except ValueError as error:
        raise Failure(f"{error}", status=WRONG_USAGE) from error


def forward_of(args: argparse.Namespace) -> ForwardSettings | None:
    """Whom to ask about other names."""
    from kubesvc.dns.forward import ForwardSettings, Place, upstreams_of

    stubs: dict[str, tuple[Place, ...]] = {}
    for text in args.stub_domain:
        domain, equals, listed = text.partition("=")
        if not equals or not domain:
            raise Failure(f"--stub-domain {text}: must be DOMAIN=IP[:PORT],…", status=WRONG_USAGE)
        stubs[domain] = tuple(place(p, "--stub-domain", 53) for p in listed.split(",") if p)
    if args.upstream == "none":
        upstreams: tuple[Place, ...] = ()
    elif args.upstream:
        upstreams = tuple(place(p.strip(), "--upstream", 53) for p in args.upstream.split(",") if p.strip())
    else:
        try:
            upstreams = upstreams_of(Path("/etc/resolv.conf").read_text())
        except OSError:
            upstreams = ()
    return ForwardSettings(upstreams=upstreams, stub_domains=stubs) if upstreams or stubs else None


def place(text: str, option: str, default: int | None) -> tuple[str, int]:
    """An address and port: 10.0.0.5:53, [fd00::5]:53, and with a default port also without."""
    import ipaddress

    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    number = port or ("" if default is None else str(default))
    try:
        ipaddress.ip_address(host)
        if not number.isdigit() or int(number) > 65535:
            raise ValueError
    except ValueError:
        wanted = "IP:PORT" if default is None else "IP or IP:PORT"
        raise Failure(f"{option} {text}: must be {wanted}", status=WRONG_USAGE) from None
    return host, int(number)


def supervise(args: argparse.Namespace) -> int:
    """Run the workers, each with the same options; one that ends is started again. Ends them all when told to."""
    words = [sys.executable, "-m", "kubesvc", *sys.argv[1:]]
    workers: dict[int, subprocess.Popen[bytes]] = {}

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    quick = 0
    try:
        while True:
            for number in range(args.workers):
                if number in workers and workers[number].poll() is None:
                    continue
                if number in workers:
                    quick += 1
                    if quick > 5 * args.workers:
                        raise Failure(f"the workers keep ending, the last with status {workers[number].returncode}")
                workers[number] = subprocess.Popen([*words, "--worker", str(number)], start_new_session=True)
            time.sleep(RESTART_SECONDS)
    except KeyboardInterrupt:
        return 0
    finally:
        for worker in workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.terminate()
        for worker in workers.values():
            try:
                worker.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                worker.kill()
                try:
                    worker.wait(PATIENCE_SECONDS)
                except subprocess.TimeoutExpired:
                    print(f"kubesvc dns: worker {worker.pid} has not ended after SIGKILL", file=sys.stderr)
