"""`python -m kubesvc`, and what the command `kubesvc` starts: little, so that Ctrl-C is quiet from the first moment."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as typing has it, which is not loaded yet
if TYPE_CHECKING:
    from sys import UnraisableHookArgs

AGAIN_SECONDS = 0.01


def interrupt_again(unraisable: UnraisableHookArgs) -> None:
    """Tell of errors that nobody could catch; but Ctrl-C that met code which can raise nothing, such as the end of one
    of importing's locks while a command is being loaded, comes once more: else it would be lost."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    import _thread
    import os
    import signal
    import time

    def send() -> None:
        time.sleep(AGAIN_SECONDS)
        os.kill(os.getpid(), signal.SIGINT)

    _thread.start_new_thread(send, ())


def main() -> int:
    """Run this process's command line; the exit status."""
    sys.unraisablehook = interrupt_again
    try:
        from kubesvc.cli import main as obey

        return obey()
    except KeyboardInterrupt:  # while the rest was being imported
        return 130


if __name__ == "__main__":
    sys.exit(main())
