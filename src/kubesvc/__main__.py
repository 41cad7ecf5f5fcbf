"""`python -m kubesvc`, and what the command `kubesvc` starts: little, so that Ctrl-C is quiet from the first moment."""

import sys


def main() -> int:
    """Run this process's command line; the exit status."""
    try:
        from kubesvc.cli import main as obey

        return obey()
    except KeyboardInterrupt:  # while the rest was being imported
        return 130


if __name__ == "__main__":
    sys.exit(main())
