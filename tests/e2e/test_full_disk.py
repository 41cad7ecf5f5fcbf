"""An instance whose state directory is on a disk without room."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

SCRIPT = """
mount -t tmpfs -o size=16k none "$XDG_STATE_HOME" || exit 99
"$@"
status=$?
find "$XDG_STATE_HOME" -path '*/pki/*' -size 0 -o -name '*.new'
exit $status
"""


def test_a_detached_start_on_a_full_disk_says_what_to_do_and_leaves_nothing_half(tmp_path: Path) -> None:
    """What the control process met is told here, though no file could hold it; what was made is whole."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here, which makes a mount namespace")
    inside = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no mount namespace may be made here")
    command = [sys.executable, "-m", "kubesvc", "up", "--name", "full", "--detach", "--nodes", "0"]
    done = subprocess.run(
        [*inside, "sh", "-c", SCRIPT, "sh", *command],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == 99:
        pytest.skip(f"no file system may be mounted here: {done.stderr}")
    said = done.stderr.splitlines()
    assert done.returncode == 1 and len(said) == 2, done.stderr
    assert said[0].startswith(f"kubesvc up: {tmp_path}/kubesvc/full/pki/"), said
    assert said[0].endswith(": No space left on device") and said[1].startswith("next: free some space there"), said
    assert done.stdout == "", "files that are empty, or drafts"
