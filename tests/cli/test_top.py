"""`kubesvc top`: what it refuses, and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubesvc.cli import main

NOWHERE = """
apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {}}]
"""


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["pod/web-1"], 64, "of a Service: svc/NAME"),
        (["svc/web", "--kubeconfig", "/no/such"], 2, "no such file"),
        (["svc/web", "--once"], 2, "cannot be reached"),
        (["--once"], 2, "cannot be reached"),
    ],
)
def test_refused(
    words: list[str], status: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = tmp_path / "config"
    config.write_text(NOWHERE)
    monkeypatch.setenv("KUBECONFIG", str(config))
    assert main(["top", *words]) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--once", "--json"], ["--web", "x"], ["--export"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["top", *words])
    assert ended.value.code == 64
    assert "hint: kubesvc top --help" in capsys.readouterr().err
