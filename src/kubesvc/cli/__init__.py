"""The command line: one module per command, imported only when it is called, so that each feels instant.

A command module has a docstring (its help; the first line is the summary), `add_arguments(parser)` and `run(args)`
returning the exit status: 0 done, 1 it failed and said why, 2 it cannot tell, 64 wrong usage. With TAKES_COMMAND, what
stands after `--` is in args.command.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

WRONG_USAGE = 64

COMMANDS = {
    "up": "start an instance: API server, controllers and nodes",
    "down": "stop an instance and remove everything it left on the machine",
    "status": "show what an instance runs and where it answers",
    "why": "say why a Service, a Pod, an address or a name works or does not, and what repairs it",
    "wait": "wait until a Service routes: listed, programmed, and answering",
    "top": "watch a Service live: its slices, Pods, rules and connections; --web as a page",
    "timeline": "show when each address joined and left a Service, why, and how long each hop took",
    "rehearse": "roll a Deployment under load and count the requests lost, and in which gap",
    "scenario": "start a Service broken in a known way, find out why, repair it",
    "trace": "say what becomes of a connection: rules, endpoints, odds; with --live, try it",
    "rules": "show the kernel's rules of one Service, explained",
    "resolve": "say what a name resolves to inside a Pod, step by step",
    "demo": "watch a Service of real Pods work, break and be repaired",
    "doctor": "say what this machine can and cannot do, and how to change it",
    "kubectl": "run stock kubectl against an instance",
    "curl": "make an HTTP request from inside a node, where ClusterIPs answer",
    "shell": "open a shell inside a node, where ClusterIPs answer",
    "image": "load images for Pods from files, list and remove them",
    "ready": "flip what a Pod's readiness probe sees",
    "nodes": "list nodes, and let them lose power or their network",
    "outside": "add, remove and use hosts outside the cluster",
    "apiserver": "run the API server alone",
    "controllers": "run controllers alone, against any cluster",
    "scheduler": "run the scheduler alone, against any cluster",
    "proxy": "run the service proxy of one node alone, against any cluster",
    "dns": "run cluster DNS alone, against any cluster",
    "node": "run a node agent alone, against any cluster",
    "token": "make, list and delete tokens with which other machines join",
    "join": "make this machine, or network namespace, a node of another machine's instance",
    "version": "print the version",
}


class Failure(Exception):
    """A command cannot go on. The text says what was found and what to do next; it is printed without a traceback."""

    def __init__(self, text: str, *, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The innermost first exception of a group."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


class Helper(argparse.RawDescriptionHelpFormatter):
    """The text as it is written, and the default of every option whose help does not tell it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told, default = action.help, action.default
        plain = isinstance(default, (str, int, float)) and not isinstance(default, bool) and default != ""
        if not told or not plain or "default" in told or not action.option_strings or action.nargs == 0:
            return told
        if default == argparse.SUPPRESS:
            return told
        return f"{told} (default: {f'{default:g}' if isinstance(default, float) else default})"


class Parser(argparse.ArgumentParser):
    """argparse, but options are never abbreviated and wrong usage exits 64."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs["allow_abbrev"] = False
        kwargs.setdefault("formatter_class", Helper)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}\nhint: {self.prog} --help", file=sys.stderr)
        raise SystemExit(WRONG_USAGE)


def overview() -> str:
    """The text of `kubesvc --help`."""
    width = max(map(len, COMMANDS))
    lines = ["usage: kubesvc COMMAND [options]", "", "Kubernetes Services, whole and real, from pip.", ""]
    lines += [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    lines += ["", "First steps: kubesvc demo, or kubesvc up in one terminal and kubesvc kubectl get nodes in another."]
    lines += ["Help of one command: kubesvc COMMAND --help"]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    speak_plainly()
    try:
        status = obey(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:  # a second one, while the first was being answered
        return 130
    except BrokenPipeError:
        # The reader of our output went away; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


SPOKEN = {"✓": "+", "✗": "x", "…": "...", "→": "->", "─": "-", "↑": "^", "↓": "v", "·": ".", "●": "*", "○": "o"}
"""What is written where the terminal's character set lacks our signs."""


def spell(error: UnicodeError) -> tuple[str, int]:
    """A codec's error handler: signs become words, other characters question marks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(SPOKEN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def speak_plainly() -> None:
    """Let no locale be a reason to fail: what it cannot show is spelled."""
    import codecs

    codecs.register_error("kubesvc.spell", spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="kubesvc.spell")


def obey(words: list[str]) -> int:
    """Run the command that these words are."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if words else WRONG_USAGE
    if words[0] == "--version":
        words[0] = "version"
    name = words[0]
    if name not in COMMANDS:
        near = nearest(name)
        print(
            f"kubesvc: {name!r} is no command"
            + (f"; did you mean {near!r}?" if near else "")
            + "\nhint: kubesvc --help",
            file=sys.stderr,
        )
        return WRONG_USAGE
    told = argparse.Namespace(command=[])
    try:
        module = importlib.import_module(f"kubesvc.cli.{name}")
        if hasattr(module, "run_words"):  # passes most of its words on untouched
            return int(module.run_words(words[1:]))
        parser = Parser(prog=f"kubesvc {name}", description=module.__doc__)
        module.add_arguments(parser)
        ours = words[1:]
        if "--" in ours and getattr(module, "TAKES_COMMAND", False):
            at = ours.index("--")
            ours, told.command = ours[:at], ours[at + 1 :]
        if getattr(module, "TAKES_COMMAND", False):  # options may stand between the words
            return int(module.run(parser.parse_intermixed_args(ours, told)))
        return int(module.run(parser.parse_args(ours, told)))
    except Failure as failure:
        return report(name, failure, told)
    except KeyboardInterrupt:
        fall_silent()
        return 130
    except (OSError, BaseExceptionGroup) as error:
        cause = first_of(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(cause, BrokenPipeError):
            raise cause from None
        if not isinstance(cause, OSError) or cause.errno not in WORLDS_FAULT:
            raise
        return report(name, Failure(refused(cause)), told)


WORLDS_FAULT = {
    errno.EACCES: "do it as whoever owns that, or set XDG_STATE_HOME to a directory of yours",
    errno.EPERM: "do it as whoever owns that, or as root",
    errno.EROFS: "set XDG_STATE_HOME to a directory that can be written",
    errno.ENOSPC: "free some space there, or set XDG_STATE_HOME to a directory with more",
    errno.EDQUOT: "free some space there, or ask for more",
    errno.EMFILE: "allow more open files: ulimit -n 65536",
    errno.ENFILE: "end some programs, or allow more open files: sysctl fs.file-max",
}
"""What the machine refuses anywhere and no command expects, and what to do about it; else it is a mistake of ours."""


def refused(error: OSError, place: str = "") -> str:
    """What a user is told of something in WORLDS_FAULT. place: where it must have been, if the error does not say"""
    assert error.errno is not None
    where = error.filename or place or "the output, or a file without a name"
    return f"{where}: {os.strerror(error.errno)}\nnext: {WORLDS_FAULT[error.errno]}"


def fall_silent() -> None:
    """After Ctrl-C: what is torn down halfway, by a second one too, is nothing that anybody wants to read."""
    import logging
    import signal
    import warnings

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.unraisablehook = lambda unraisable: None
    warnings.simplefilter("ignore")  # of coroutines that were never awaited
    logging.disable()


def report(name: str, failure: Failure, told: argparse.Namespace) -> int:
    """Print a failure, and where JSON was asked for, that too; the exit status."""
    if getattr(told, "json", False) or getattr(told, "output", "") == "json":
        print(render_failure(failure))
    print(f"kubesvc {name}: {failure}", file=sys.stderr)
    return failure.status


def render_failure(failure: Failure) -> str:
    """What `--json` prints of a failure: one line, whose `next` is what to do, "" where nothing is known."""
    import json

    error, _, advice = str(failure).partition("\nnext: ")
    said = {"schema": "kubesvc.error/v1", "error": error, "next": advice, "exitStatus": failure.status}
    return json.dumps(said, ensure_ascii=False)


def nearest(word: str) -> str:
    import difflib

    return next(iter(difflib.get_close_matches(word, COMMANDS, n=1)), "")


def kubectl_why() -> int:
    """Entry point `kubectl-why`, which kubectl finds as the plugin `kubectl why`.

    Without KUBECONFIG it asks, as kubectl does, the cluster of ~/.kube/config.
    """
    usual = os.path.expanduser("~/.kube/config")
    if not os.environ.get("KUBECONFIG") and os.path.isfile(usual):
        os.environ["KUBECONFIG"] = usual
    return main(["why", *sys.argv[1:]])
