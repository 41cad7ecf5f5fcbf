"""`kubesvc scenario` where it needs no cluster: the list, the objects, and what is said to words that mean nothing."""

from __future__ import annotations

import json

import pytest
import yaml

from kubesvc.cli import main
from kubesvc.why.causes import BY_CODE
from kubesvc.why.scenarios import SCENARIOS, Scenario


def test_the_list_gives_hints_and_answers_only_if_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenario"]) == 0
    listed = capsys.readouterr().out
    assert main(["scenario", "list"]) == 0
    assert capsys.readouterr().out == listed
    assert all(s.name in listed for s in SCENARIOS) and "EP101" not in listed
    assert main(["scenario", "list", "--answers"]) == 0
    answered = capsys.readouterr().out
    assert all(f"{s.code} {BY_CODE[s.code].title}" in answered for s in SCENARIOS)
    assert main(["scenario", "list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == [s.name for s in SCENARIOS]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_every_scenario_can_be_shown(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    """As YAML that kubectl takes, with every word replaced."""

    assert main(["scenario", "show", scenario.name]) == 0
    text = capsys.readouterr().out
    assert not any(f"${w}" in text for w in ("NAMESPACE", "OTHER", "NODE", "ADDRESS", "PID")) and all(
        d["kind"] for d in yaml.safe_load_all(text)
    )


WRONG = (
    # sentence, words, what is said
    ("a name misspelt", ("start", "typo-valeu"), "did you mean typo-value?"),
    ("no name", ("check",), "check what?"),
    ("an unknown action", ("begin",), "invalid choice"),
)


@pytest.mark.parametrize(("sentence", "words", "said"), WRONG, ids=[w[0] for w in WRONG])
def test_wrong_words(sentence: str, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["scenario", *words])
    except SystemExit as stopped:
        status = int(str(stopped.code))
    assert status == 64 and said in capsys.readouterr().err
