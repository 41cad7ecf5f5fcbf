"""Images for Pods: pulled from registries, or loaded from files (OCI layouts, `docker save`, `podman save`).

  docker save shop:1 | gzip > shop.tar.gz
  kubesvc image load shop.tar.gz         Pods with `image: shop:1` run it from now on
  kubesvc image load layout/ --tag shop:1
  kubesvc image pull ghcr.io/shop/web:1  what a Pod that needs it would do by itself
  kubesvc image list
  kubesvc image rm shop:1

Names are those that Pods write. An instance keeps its images until they are removed or it is purged.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import Failure
from .flags import mirror
from .target import add_name, existing, instance_paths

if TYPE_CHECKING:
    from kubesvc.node.imagestore import ImageStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_name(parser)
    acts = parser.add_subparsers(dest="act", required=True, metavar="pull|load|list|rm")
    pull = acts.add_parser("pull", help="pull images from registries")
    pull.add_argument("image", nargs="+", help="such as ghcr.io/shop/web:1")
    pull.add_argument(
        "--registry-mirror", type=mirror, action="append", default=[], metavar="REGISTRY=URL", help="ask there instead"
    )
    load = acts.add_parser("load", help="load images from archives or layouts")
    load.add_argument("file", nargs="+", type=Path, help="an archive, or the directory of an OCI layout")
    load.add_argument("--tag", action="append", default=[], metavar="IMAGE", help="name it so, not as it names itself")
    acts.add_parser("list", help="list the images that were loaded")
    rm = acts.add_parser("rm", help="remove images")
    rm.add_argument("image", nargs="+", help="as `kubesvc image list` names it")


def run(args: argparse.Namespace) -> int:
    from kubesvc.lifetime import set_umask
    from kubesvc.node.imagestore import ImageStore

    set_umask()
    paths = existing(args.name) if args.name else instance_paths(None)
    store = ImageStore(paths.images)
    if args.act == "pull":
        return asyncio.run(pull(store, args.image, dict(args.registry_mirror)))
    if args.act == "load":
        return load(store, args.file, tuple(args.tag))
    if args.act == "rm":
        return remove(store, args.image, paths.root)
    rows = [("IMAGE", "ID", "SIZE")]
    for name, identity in store.names().items():
        found = store.loaded(identity)
        rows.append((name, identity.removeprefix("sha256:")[:12], size_text(found.size_bytes if found else 0)))
    width = max(len(row[0]) for row in rows)
    for name, identity, size in rows:
        print(f"{name:<{width}}  {identity:<12}  {size}")
    return 0


LOADABLE = "next: a file of `docker save` or `podman save`, gzip or not, or a directory with an OCI layout"


def load(store: ImageStore, files: list[Path], tags: tuple[str, ...]) -> int:
    from kubesvc.node.tarstream import BadArchive

    for file in files:
        if not file.exists():  # before a store is made for it
            raise Failure(f"{file}: no such file\n{LOADABLE}")
    for file in files:
        try:
            loaded = store.load(file, tags)
        except BadArchive as error:
            raise Failure(f"{file}: not loaded, nothing has changed: {error}\n{LOADABLE}") from None
        except OSError as error:
            raise Failure(f"{file}: not loaded, nothing has changed: {error.strerror or error}") from None
        for name, identity in loaded:
            print(f"{name}  {identity.removeprefix('sha256:')[:12]}")
    return 0


async def pull(store: ImageStore, images: list[str], mirrors: dict[str, str]) -> int:
    """Pull one after the other; what is there stays when a later one fails."""
    from kubesvc.clock import RealClock
    from kubesvc.node.pulling import Puller, Wanted
    from kubesvc.node.registry import PullFailed

    puller = Puller(store, RealClock(), mirrors)
    for image in images:
        shown = Meter(image)
        try:
            told = await puller.pull(Wanted(image), shown.show)
        except PullFailed as error:
            shown.clear()
            raise Failure(str(error)) from None
        shown.clear()
        print(f"{image}  {told.identity.removeprefix('sha256:')[:12]}")
    return 0


class Meter:
    """How far a pull is, on one line of a terminal; nothing where nobody looks."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.alive = sys.stderr.isatty()
        self.said = ""

    def show(self, here: int, whole: int) -> None:
        line = f"{self.image}: {size_text(here)} of {size_text(whole)}"
        if self.alive and line != self.said:
            self.said = line
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.said:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def remove(store: ImageStore, images: list[str], root: Path) -> int:
    from kubesvc.node.images import ImageProblem, full_name
    from kubesvc.node.records import image_users

    for image in images:
        try:
            identity = store.names().get(full_name(image))
            if identity is None:
                raise Failure(f"there is no image {image!r}\nnext: kubesvc image list")
            users = image_users(root, identity)
            if users:
                raise Failure(f"{image}: runs in {', '.join(users)}\nnext: delete these Pods first")
            store.remove(image)
        except ImageProblem as error:
            raise Failure(str(error)) from None
        print(f"{image}: removed")
    return 0


def size_text(size_bytes: int) -> str:
    """A size for people."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
