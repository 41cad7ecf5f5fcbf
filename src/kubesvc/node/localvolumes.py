"""Directories of this node that volumes are made of: each below one place, named by whoever provisions them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kubesvc.kernel.trees import remove_tree

DIRECTORY = "local-path-provisioner"
"""Where they are, below the node's state."""
MODE = 0o777
"""Whoever a container runs as may write there."""
NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,254}")


class LocalVolumes:
    """Makes and removes them. Blocks; meant for a thread."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self, name: str) -> Path:
        """The directory of this name, made if it is not there. ValueError for what is no name, OSError if it cannot
        be."""
        place = self.place(name)
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(MODE)
        return place

    def remove(self, path: str) -> None:
        """Remove a directory with all that it holds; one that is gone already is no error. ValueError for a path that
        is none of these, OSError for what would not go."""
        place = Path(path)
        if place != self.place(place.name):
            raise ValueError(f"{path} is no volume of this node")
        remove_tree(place)
        if os.path.lexists(place):
            raise OSError(f"{path} could not be removed")

    def place(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a volume")
        return self.root / name
