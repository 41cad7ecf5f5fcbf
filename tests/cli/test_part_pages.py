"""The pages about parts that run alone name options that exist, and all of them."""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
EVERYWHERE = {"--help", "--context", "--name", "--verbose", "--json"}
"""Options that every command of this kind has; pages need not list them."""


def options_of(command: str) -> set[str]:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"kubesvc.cli.{command}").add_arguments(parser)
    shown = (a for a in parser._actions if a.help != argparse.SUPPRESS)
    return {option for action in shown for option in action.option_strings if option.startswith("--")}


def pages() -> list[Path]:
    return [DOCS / "proxy.md", DOCS / "dns.md"]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_commands_on_the_page_have_these_options(page: Path) -> None:
    found = 0
    for command, rest in re.findall(r"kubesvc ([a-z]+)((?: [^`#\n]*)?)", page.read_text()):
        if (options := set(OPTION.findall(rest))) and options - options_of(command):
            raise AssertionError(f"{page.name}: kubesvc {command} has no {', '.join(options - options_of(command))}")
        found += bool(options)
    assert found


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_every_option_is_told_of(page: Path) -> None:
    told = set(OPTION.findall(page.read_text())) | EVERYWHERE
    assert options_of(page.stem) - told == set()
