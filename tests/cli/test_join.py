"""What `up --bind-address`, `token` and `join` refuse before anything happens."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from typing import Any, cast

import pytest

from kubesvc.cli import Failure, main
from kubesvc.cli.joined import failure_of
from kubesvc.cli.token import create, ttl
from kubesvc.instance.options import UpOptions
from kubesvc.instance.record import InstanceRecord


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("up", "--bind-address", "0.0.0.0"), "must be one address of this machine, which others reach"),
        (("up", "--bind-address", "::"), "must be one address of this machine, which others reach"),
        (("up", "--bind-address", "here"), "'here'"),
        (("token", "create", "--ttl", "soon"), "must be a duration such as 50s"),
        (("token", "create", "--ttl", "90000h"), "must be at most 87600h"),
        (("token",), "create|list|delete"),
        (("node", "--bootstrap-kubeconfig", "x", "--node", "n"), "--kubeconfig FILE says where"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else "",
)
def test_wrong_usage(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(words)
    except SystemExit as ended:
        status = cast(int, ended.code)
    assert status == 64 and said in capsys.readouterr().err


def test_how_long_a_token_is_good() -> None:
    assert (ttl("24h"), ttl("0")) == (86400.0, 0.0)


@pytest.mark.parametrize("bind", ["", "127.0.0.5", "::1"])
def test_nobody_joins_what_is_on_loopback(bind: str) -> None:
    args = argparse.Namespace(server="", name=None)
    record = InstanceRecord(loopback="127.0.0.1", bind=bind, port=6443)
    with pytest.raises(Failure, match="alone, where no other machine reaches it") as failure:
        asyncio.run(create(args, record, cast(Any, None)))
    assert "next: kubesvc up --bind-address" in str(failure.value)


@pytest.mark.parametrize(
    ("address", "reachable"), [("", False), ("127.0.0.9", False), ("192.0.2.1", True), ("2001:db8::1", True)]
)
def test_which_addresses_others_reach(address: str, reachable: bool) -> None:
    assert UpOptions(bind_address=address).reachable is reachable


@pytest.mark.parametrize(
    ("record", "url"),
    [
        (InstanceRecord(loopback="127.0.0.2", port=1), "https://127.0.0.2:1"),
        (InstanceRecord(loopback="127.0.0.2", bind="192.0.2.1", port=1), "https://192.0.2.1:1"),
        (InstanceRecord(loopback="127.0.0.2", bind="2001:db8::1", port=1), "https://[2001:db8::1]:1"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_where_an_instance_answers(record: InstanceRecord, url: str) -> None:
    assert record.server == url


def test_what_is_said_when_a_part_of_the_node_fails() -> None:
    """Words of ours come first, however deep they are; anything else is named."""
    inner = ExceptionGroup("node", [OSError("odd"), Failure("no port 53")])
    assert str(failure_of(ExceptionGroup("all", [inner]))) == "no port 53"
    said = str(failure_of(ExceptionGroup("all", [ExceptionGroup("node", [OSError("odd")])])))
    assert said.startswith("a part of the node failed: OSError: odd\nnext: ")


def test_joining_with_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is missing; a node that has never been here; no right to make namespaces."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(("join", str(tmp_path / "none"))) == 1
    assert "none: no such file" in capsys.readouterr().err
    assert main(("join", "--leave", "--node", "n9")) == 1
    assert "no node 'n9' has run on this machine" in capsys.readouterr().err
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(("join", "--node", "n9")) == 1
    assert "needs root" in capsys.readouterr().err
