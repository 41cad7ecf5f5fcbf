"""Settings for all tests: properties are never timed and say how to repeat a failure; their examples are the same each
time where a change is judged, and fresh in long runs and by hand (samples of kills, fuzz and histories are always fresh
and print their seed). The many programs that tests start are compiled once, also where Python may not write beside its
sources."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "house", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.register_profile("same", settings.get_profile("house"), derandomize=True)
settings.load_profile("house")

COMPILED = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Where nothing compiled is to be written (PYTHONDONTWRITEBYTECODE), every `kubesvc` that a test starts would
    compile all it imports, for half of its time; so that goes to a directory which ends with the session. And Ctrl-C
    ends what tests start, wherever they run."""
    if "not soak" in config.option.markexpr:
        settings.load_profile("same")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell; programs inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("PYTHONDONTWRITEBYTECODE") and not os.environ.get("PYTHONPYCACHEPREFIX"):
        directory = config.stash[COMPILED] = Path(tempfile.mkdtemp(prefix="kubesvc-compiled-"))
        directory.chmod(0o755)  # other users, as whom some tests run programs, may read it
        del os.environ["PYTHONDONTWRITEBYTECODE"]
        os.environ["PYTHONPYCACHEPREFIX"] = str(directory)


def pytest_unconfigure(config: pytest.Config) -> None:
    if (directory := config.stash.get(COMPILED, None)) is not None:
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        del os.environ["PYTHONPYCACHEPREFIX"]
        shutil.rmtree(directory, ignore_errors=True)
