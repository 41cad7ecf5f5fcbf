"""Make an HTTP request from inside a node, where ClusterIPs and cluster names answer.

kubesvc curl [--name NAME] [--node N] ARGUMENTS. The arguments are curl's; where curl is not installed, one URL (and
-s, -S, -i, -f, -m SECONDS) is understood by a stand-in.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from . import Failure
from .inside import exec_inside, ground_of_node
from .target import running


def run_words(words: Sequence[str]) -> int:
    rest, ours = list(words), {"--name": None, "--node": None, "--kubeconfig": None}
    while rest and (rest[0] in ours or rest[0].partition("=")[0] in ours):
        option, equals, value = rest.pop(0).partition("=")
        if not equals:
            if not rest:
                raise Failure(f"{option} needs a value", status=64)
            value = rest.pop(0)
        ours[option] = value  # type: ignore[assignment]
    if not rest or rest[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if rest else 64
    paths, record = running(ours["--name"], ours["--kubeconfig"] or "")
    curl = shutil.which("curl")
    program = [curl, *rest] if curl else [sys.executable, "-m", "kubesvc.cli.fetch", *rest]
    exec_inside(paths, record, ground_of_node(record, ours["--node"]), program)
