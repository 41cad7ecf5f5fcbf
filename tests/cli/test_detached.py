"""`kubesvc up --detach`: Ctrl-C leaves no process behind, whatever moment it comes at."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kubesvc.cli import up
from kubesvc.instance.paths import InstancePaths


def test_an_interrupt_while_the_process_is_being_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered once the process is known, which is then ended: in its own session it would hear nothing."""
    made: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def interrupted(command: list[str], **more: Any) -> subprocess.Popen[bytes]:
        made.append(start(["sleep", "600"], **more))
        os.kill(os.getpid(), signal.SIGINT)
        return made[-1]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    paths = InstancePaths(tmp_path / "detached")
    try:
        with pytest.raises(KeyboardInterrupt):
            up.run_detached(argparse.Namespace(), paths)
        assert made[0].returncode == -signal.SIGTERM
        assert list(paths.root.glob("up.*")) == []
    finally:
        for process in made:
            process.kill()
            process.wait()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_once_it_is_ready_an_interrupt_is_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else it would end with 130, and what it started would run."""
    made: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def ready(command: list[str], **more: Any) -> subprocess.Popen[bytes]:
        (told,) = more["pass_fds"]
        made.append(start(["sh", "-c", f'echo \'{{"ready": "it is"}}\' > /dev/fd/{told}; exec sleep 600'], **more))
        return made[-1]

    monkeypatch.setattr(subprocess, "Popen", ready)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert up.run_detached(argparse.Namespace(), InstancePaths(tmp_path / "detached")) == 0
        os.kill(os.getpid(), signal.SIGINT)
        assert capsys.readouterr().out == "it is\n"
    finally:
        signal.signal(signal.SIGINT, before)
        for process in made:
            os.kill(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    """As in the background of a shell; and so it is for what is started."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with up.interrupted_later():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
