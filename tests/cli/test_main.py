"""The command line as a stranger meets it: help, wrong words, wrong targets."""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubesvc import __version__
from kubesvc.cli import COMMANDS, WRONG_USAGE, Parser, main

from .test_top import NOWHERE


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """(exit status, everything printed)"""
    try:
        status = main(words)
    except SystemExit as ended:
        status = int(ended.code or 0)
    out, err = capsys.readouterr()
    return status, out + err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"kubesvc.cli.{name}")
    assert module.__doc__
    if name in ("demo", "version"):
        return
    status, text = said(capsys, name, "--help")
    assert status == 0 and module.__doc__.splitlines()[0][:40] in text


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    status, text = said(capsys, "--help")
    assert status == 0 and all(name in text for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "--version") == (0, f"kubesvc {__version__}\n")


WRONG = (
    (("frob",), "'frob' is no command"),
    (("statsu",), "did you mean 'status'?"),
    (("up", "--node", "2"), "unrecognized arguments: --node"),  # options are never abbreviated
    (("up", "--nodes", "-1"), "must be a whole number, 0 or more"),
    (("up", "--nodes", "201"), "at most 200 nodes"),
    (("up", "--service-node-port-range", "9-3"), "must be FIRST-LAST"),
    (("up", "--port", "99999"), "must be from 0 to 65535"),
    (("up", "--authorization-mode", "AlwaysDeny"), "must be of AlwaysAllow, Node, RBAC"),
    (("up", "--service-cluster-ip-range", "bogus"), "does not appear to be an IPv4 or IPv6 network"),
    (("up", "--cluster-cidr", "10.0.0.0/16,10.1.0.0/16"), "one of each family"),
    (("up", "--load-balancer-range", "172.16.0.0/12"), "must be a /16 or smaller"),
    (("up", "--load-balancer-range", "fd31::/64"), "must be a /112 or smaller"),
    (("up", "--load-balancer-range", "fd31::/112,fd32::/112"), "one of each family"),
    (("up", "--load-balancer-range", "172.30.0.128/25"), "overlaps the network between nodes 172.30.0.0/24"),
    (("up", "--load-balancer-range", "fd31::/112"), "nodes have IPv6 addresses only where Pods have"),
    (("up", "--load-balancer-range", "fd24::/112", "--cluster-cidr", "fd24::/56"), "overlaps --cluster-cidr fd24::/56"),
    (("up", "--controllers", "nosuch"), "no controller 'nosuch'; there are "),
    (("up", "--images-map", "/nowhere.toml"), "/nowhere.toml: no such file"),
    (("up", "--service-account-issuer", ":kube"), "must be a URL such as https://"),
    (("up", "--service-account-max-token-expiration", "59m"), "must be from 1h to 2^32 seconds"),
    (("up", "--audit-log-maxsize", "-1"), "must be a whole number, 0 or more"),
    (("status", "--name", "No/Way"), "cannot be the name of an instance"),
    (("status", "--name", ""), "is empty; leave it out for the instance `default`"),
    (("node", "--address", "10.0.0.1,frob"), "--address: 'frob' does not appear to be an IPv4 or IPv6 address"),
    (("outside", "frob"), "invalid choice: 'frob'"),
    (("controllers", "--controllers", "nosuch"), "no controller 'nosuch'; there are "),
    (("dns", "--address", "here"), "must be IP:PORT"),
)


@pytest.mark.parametrize(("words", "text"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_wrong_usage_exits_64_and_says_what_would_do(
    words: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, printed = said(capsys, *words)
    assert status == WRONG_USAGE and text in printed and "Traceback" not in printed


NOT_RUNNING = (("kubectl", "get", "pods"), ("curl", "http://web"), ("shell",), ("outside", "list"), ("scheduler",))


@pytest.mark.parametrize("act", (("load", "x.tar"), ("pull", "shop:1"), ("rm", "shop:1"), ("list",)))
def test_images_of_an_instance_that_never_was_are_refused(
    act: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A mistyped name makes nothing, and is told from what it may have been meant."""
    (tmp_path / "kubesvc" / "shop").mkdir(parents=True)
    status, printed = said(capsys, "image", "--name", "shpo", *act)
    assert status == 1 and "there is no instance 'shpo'; did you mean 'shop'?" in printed
    assert [p.name for p in (tmp_path / "kubesvc").iterdir()] == ["shop"]


def test_a_map_of_images_is_read_before_anything_starts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "images.toml"
    path.write_text('[images."shop/*"]\ncomand = ["x"]\n')
    status, printed = said(capsys, "up", "--images-map", str(path))
    assert status == WRONG_USAGE and str(path) in printed and "comand" in printed


MISTYPED = (
    (("status", "--name", "shpo"), 1, "shpo: not running; did you mean 'shop'?\nnext: kubesvc up --name shpo"),
    (("down", "--name", "shpo"), 0, "shpo: was not running; did you mean 'shop'?"),
    (("down", "--name", "other"), 0, "other: was not running; there is 'shop'"),
    (("down", "--name", "shop"), 0, "shop: was not running\n"),
    (("why", "svc/x", "--name", "shpo"), 2, "no instance 'shpo' is running; did you mean 'shop'?\nnext: kubesvc up"),
    (("image", "load", "/nowhere"), 1, "/nowhere: no such file\nnext: a file of"),
    (("node", "--address", "10.0.0.1"), 1, "no instance 'default' is running; there is 'shop'"),
)


@pytest.mark.parametrize(("words", "status", "text"), MISTYPED, ids=[" ".join(m[0]) for m in MISTYPED])
def test_what_is_mistyped_is_told_from_what_was_meant_and_makes_nothing(
    words: tuple[str, ...], status: int, text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "kubesvc" / "shop").mkdir(parents=True)
    found, printed = said(capsys, *words)
    assert found == status and text in printed
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == ["kubesvc", "kubesvc/shop"]


@pytest.mark.parametrize("words", NOT_RUNNING, ids=lambda w: w[0])
def test_without_an_instance_the_next_step_is_named(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = said(capsys, *words)
    assert status == 1 and "no instance 'default' is running\nnext: kubesvc up" in printed


def test_status_and_down_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "status") == (1, "default: not running\nnext: kubesvc up\n")
    assert said(capsys, "down") == (0, "default: was not running\n")


def test_kubeconfig_wins_over_name_and_must_exist(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    status, printed = said(capsys, "scheduler", "--kubeconfig", "/nowhere", "--name", "x")
    assert status == 1 and "kubeconfig /nowhere: no such file" in printed
    monkeypatch.setenv("KUBECONFIG", "/elsewhere")
    status, printed = said(capsys, "scheduler")
    assert status == 1 and "KUBECONFIG names /elsewhere, which is no file" in printed
    some = tmp_path / "some"
    some.write_text("{}")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none:{some}")  # several, of which one is there
    status, printed = said(capsys, "scheduler")
    assert status == 1 and "which is no file" not in printed
    status, printed = said(capsys, "scheduler", "--name", "x")
    assert status == 1 and "no instance 'x' is running" in printed


ASKED_BY_PROGRAMS = (
    ("why", "svc/x"), ("why", "--all"), ("wait", "svc/x"), ("top",), ("rehearse", "deployment/x"),
    ("trace", "svc/x:80"), ("rules", "svc/x"), ("resolve", "x"), ("proxy", "--audit"),
)  # fmt: skip


@pytest.mark.parametrize("words", ASKED_BY_PROGRAMS, ids=" ".join)
def test_what_fails_is_json_where_json_was_asked_for(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A server at whose port nobody listens is told in plain words, once, on standard output as JSON."""
    config = tmp_path / "config"
    config.write_text(NOWHERE)
    assert main((*words, "--json", "--kubeconfig", str(config))) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "kubesvc.error/v1" and told["exitStatus"] == 2 and told["next"]
    assert told["error"] == f"the cluster of {config} cannot be reached: http://127.0.0.1:9: Connection refused"


def test_a_failure_before_anything_is_asked_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("nodes", "--json")) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["error"] == "no instance 'default' is running" and told["next"] == "kubesvc up"


def test_what_the_machine_refuses_is_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk may be met by any command; a mistake of ours stays one."""
    from kubesvc.cli import status

    met = [OSError(errno.ENOSPC, "No space left on device", "/there/it"), OSError(errno.EINVAL, "ours")]
    monkeypatch.setattr(status, "run", lambda args: raised(met.pop(0)))
    code, text = said(capsys, "status")
    assert code == 1 and text.startswith("kubesvc status: /there/it: No space left on device\nnext: free some space")
    with pytest.raises(OSError, match="ours"):
        main(("status",))
    group = BaseExceptionGroup("parts", [OSError(errno.ENOSPC, "No space left on device")])
    monkeypatch.setattr(status, "run", lambda args: raised(group))
    code, text = said(capsys, "status")
    assert code == 1 and text.startswith("kubesvc status: the output, or a file without a name: No space left")


def raised(error: BaseException) -> int:
    raise error


def test_a_terminal_without_our_signs_gets_others(tmp_path: Path) -> None:
    """In a locale whose character set has no ticks nothing fails; one can still tell good from bad."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    manifest = tmp_path / "svc.yaml"
    spec = {"selector": {"a": "b"}, "ports": [{"port": 80}]}
    manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}))
    words = [sys.executable, "-m", "kubesvc", "why", "svc/web", "-f", str(manifest)]
    done = subprocess.run(words, capture_output=True, env=environment, check=False)
    assert done.returncode == 1 and b"\n  + service" in done.stdout and b"\n  x selector" in done.stdout, done


@pytest.mark.parametrize("words", ["--help", "scenario list"])
def test_whoever_stops_reading_ends_us_quietly(words: str) -> None:
    """`kubesvc … | head -1`, but with nobody at the other end at all."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "kubesvc", *words.split()]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_ctrl_c_ends_with_130_and_not_a_word(tmp_path: Path) -> None:
    """While the cluster does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        config = tmp_path / "config"
        config.write_text(NOWHERE.replace(":9", f":{deaf.getsockname()[1]}"))
        words = [sys.executable, "-m", "kubesvc", "why", "--all", "--kubeconfig", str(config)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deaf.accept()  # it has asked
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=120) == (b"", b"")
        assert process.returncode == 130


LOST = """
import sys, time
class Lost:
    def __del__(self):
        raise KeyboardInterrupt
class Finder:
    def find_spec(name, *_):
        if name == "kubesvc.cli":
            Lost()
            time.sleep(600)
sys.meta_path.insert(0, Finder)
from kubesvc.__main__ import main
sys.exit(main())
"""
"""Ctrl-C, met by code that can raise nothing, before the command line is loaded."""


def test_ctrl_c_is_never_lost() -> None:
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def parsers() -> Iterator[Parser]:
    """Of all commands and their parts, but for those that pass their words on."""
    for name in COMMANDS:
        module = importlib.import_module(f"kubesvc.cli.{name}")
        if not hasattr(module, "run_words"):
            parser = Parser(prog=f"kubesvc {name}", description=module.__doc__)
            module.add_arguments(parser)
            yield parser
            parts = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
            yield from (part for a in parts for part in a.choices.values())


@pytest.mark.parametrize("parser", list(parsers()), ids=lambda p: p.prog)
def test_every_option_says_what_it_is_and_what_it_is_otherwise(parser: Parser) -> None:
    silent = [a.option_strings or a.dest for a in parser._actions
              if not a.help and not isinstance(a, argparse._SubParsersAction)]  # fmt: skip
    assert silent == []
    page = " ".join(parser.format_help().split())
    for action in parser._actions:
        if action.default == argparse.SUPPRESS or action.help == argparse.SUPPRESS or not action.option_strings:
            continue
        if type(action.default) in (int, float, str) and "default" not in (action.help or ""):
            told = f"{action.default:g}" if isinstance(action.default, float) else str(action.default)
            assert told in page, action.option_strings
