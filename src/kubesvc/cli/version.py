"""Print the version of kubesvc."""

from __future__ import annotations

import argparse

from kubesvc import __version__


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(_: argparse.Namespace) -> int:
    print(f"kubesvc {__version__}")
    return 0
