"""Files that are written whole or not at all, whatever ends the writer and however full the disk is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
"""What the kernel says where there is no more room."""


def replace_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Put `content` in the place of what `path` holds, if anything, in one step.

    private: only the owner may read it, from the first byte on
    Raises OSError, which names the file; then it is as it was, and nothing lies beside it.
    """
    draft = path.with_name(path.name + ".new")
    try:
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666), "wb") as file:
            file.write(content)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error


def overwrite_file(path: Path, content: bytes) -> None:
    """Write `content` over what `path` holds, in the room that it has already; for a full disk, where there is none
    beside it. A crash may tear it. Raises OSError, which names the file, if it has not got that much room."""
    if os.stat(path).st_blocks * 512 < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    with path.open("r+b", buffering=0) as file:
        file.write(content)
        file.truncate(len(content))
