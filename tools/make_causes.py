"""Write docs/causes.md from the catalogue of causes."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))


def main() -> int:
    from kubesvc.why.causes import render_page

    (ROOT / "docs" / "causes.md").write_text(render_page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
