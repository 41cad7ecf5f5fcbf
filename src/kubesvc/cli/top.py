"""Watch Services live: who is listed, who answers, which rules lead there, how many connections, and why not.

  kubesvc top                         all Services; arrows choose one, Enter opens it
  kubesvc top svc/web -n shop         one Service
  kubesvc top svc/web --once          print it once; so it is too where the output is no terminal
  kubesvc top svc/web --json          one JSON object per change
  kubesvc top --web                   the same as a web page on loopback, for this or any cluster
  kubesvc top svc/web --web           and that Service first
  kubesvc top --export picture.html   this moment as one file that opens anywhere

Keys: q quit, Esc back, / filter, arrows and Page keys move. Connections are counted on instances of this machine.
docs/web.md tells what is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from kubesvc.clock import Random, RealClock, fresh_token

from . import Failure
from .flags import port
from .target import add_target, kubectl_for, no_service, service_named

if TYPE_CHECKING:
    from kubesvc.web.feed import Feed

    from .cluster import Cluster

DRAWN_SECONDS = 0.1
"""A terminal is drawn at most so often."""
COUNTING_SECONDS = 1.2
"""What is printed or kept once has counted connections for so long."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", nargs="*", help="svc/NAME (default: all Services)")
    parser.add_argument("-n", "--namespace", metavar="NAMESPACE", help="of the Service (default: the context's)")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--once", action="store_true", help="print one picture and end")
    way.add_argument("--json", action="store_true", help="for programs: one object per change, until Ctrl-C")
    way.add_argument(
        "--web", type=port, nargs="?", const=0, metavar="PORT", help="serve the web page on loopback until Ctrl-C"
    )
    way.add_argument("--export", metavar="FILE.html", help="write this moment as one file")
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    service = service_named(args.subject, "the picture of what? of a Service") if args.subject else ""
    return asyncio.run(watch(args, service))


async def watch(args: argparse.Namespace, service: str) -> int:
    """Open the cluster, keep its picture, and show it in the way that was asked for."""
    from kubesvc.api.errors import NotFound
    from kubesvc.api.service import SERVICE

    from .cluster import CANNOT_TELL, asking_cluster

    async with asking_cluster(args, "kubesvc-top") as cluster:
        if service:
            try:
                await cluster.client.get(SERVICE, service, cluster.namespace)
            except NotFound:
                raise no_service(args, service, cluster.namespace, status=CANNOT_TELL) from None
        key = (cluster.namespace, service) if service else None
        async with feeding(cluster, "kubectl" if args.json else kubectl_for(args)) as feed:
            return await show(args, feed, key)


@contextlib.asynccontextmanager
async def feeding(cluster: Cluster, kubectl: str = "kubectl") -> AsyncIterator[Feed]:
    """A feed of the cluster that runs meanwhile; of an own instance with its journals and its nodes' counters.

    kubectl: how it is called to ask that cluster
    """
    from kubesvc.client.informer import InformerFactory
    from kubesvc.instance.journals import Journals
    from kubesvc.instance.nodekeeper import DOOR_SOCKET
    from kubesvc.instance.traffic import NodeTraffic
    from kubesvc.web.feed import Feed

    clock, paths = RealClock(), cluster.instance
    informers = InformerFactory(cluster.client, clock, Random())
    traffic, uncounted = None, "connections are counted on kubesvc's own nodes only"
    if paths is not None and cluster.record is not None:
        names = [n.name for n in cluster.record.nodes if not n.simulated]
        traffic = NodeTraffic(lambda: {n: paths.node(n) / DOOR_SOCKET for n in names}) if names else None
        uncounted = "this instance has no nodes of its own, so nobody counts connections"
    label = f"instance {paths.name}" if paths is not None else Path(cluster.kubeconfig).name
    lines = Journals(paths.root) if paths is not None else None
    feed = Feed(informers, clock, label, traffic=traffic, uncounted=uncounted, lines=lines, kubectl=kubectl)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(informers.run()), group.create_task(feed.run())]
        try:
            yield feed
        finally:
            for task in tasks:
                task.cancel()


async def show(args: argparse.Namespace, feed: Feed, key: tuple[str, str] | None) -> int:
    if args.export:
        return await export(args.export, feed, key)
    if args.web is not None:
        return await serve(args.web, feed, key)
    if args.json:
        return await stream(feed, key)
    if args.once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return await once(feed, key)
    from .fullscreen import FullScreen

    return await FullScreen(feed, key).run()


async def export(path: str, feed: Feed, key: tuple[str, str] | None) -> int:
    """Write the file whole or not at all."""
    from kubesvc.instance.wholefile import replace_file
    from kubesvc.web.export import render

    changes = feed.changes(key)
    await anext(changes)
    await count(feed)
    text = render(await feed.export(), "/".join(key) if key else "")
    await changes.aclose()
    try:
        replace_file(Path(path), text.encode())
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from error
    print(f"{path}: {len(text.encode()) // 1024} KiB; opens in any browser, without a network")
    return 0


async def serve(number: int, feed: Feed, key: tuple[str, str] | None) -> int:
    """Serve the page until Ctrl-C; its link opens the Service that was named."""
    from kubesvc.lifetime import stop_event
    from kubesvc.web.server import TOKEN_BYTES, PageServer

    server, stop = PageServer(feed, fresh_token(TOKEN_BYTES)), stop_event()
    place = f"#{'/'.join(key)}" if key else ""
    page = asyncio.ensure_future(
        server.serve(
            "127.0.0.1", number, lambda link: print(f"live picture: {link}{place}\nCtrl-C ends it", flush=True)
        )
    )
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({page, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if page.done():
            page.result()
        return 0
    except OSError as error:
        raise Failure(
            f"127.0.0.1:{number} cannot be listened on: {os.strerror(error.errno or 0)}\nnext: --web without a port"
        ) from None
    finally:
        for task in (page, stopping):
            task.cancel()
        await asyncio.gather(page, stopping, return_exceptions=True)


async def stream(feed: Feed, key: tuple[str, str] | None) -> int:
    import msgspec

    async for message in feed.changes(key):
        said = {"schema": "kubesvc.picture/v1", **message}
        print(msgspec.json.encode(said).decode(), flush=True)
    return 0


async def count(feed: Feed) -> None:
    """Give the nodes time to tell of connections."""
    if feed.traffic is not None:
        await asyncio.sleep(COUNTING_SECONDS)


async def once(feed: Feed, key: tuple[str, str] | None) -> int:
    """Print one picture, or the list; with connections per second where they are counted."""
    from kubesvc.web.terminal import Paint, render_overview, render_picture

    width = shutil.get_terminal_size((120, 40)).columns
    paint = Paint(sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    changes = feed.changes(key)
    await anext(changes)
    if key is not None:
        await count(feed)
    state = feed.state(key)
    await changes.aclose()
    if key is None:
        gaps = [str(g) for g in feed.gaps]
        lines = render_overview(state["services"], width=width, paint=paint, gaps=gaps)
    else:
        lines = render_picture(state["items"], state["entries"], width=width, paint=paint, uncounted=feed.uncounted)
    print("\n".join(line.rstrip() for line in lines))
    return 0
