"""One self-contained HTML file that shows a moment: the page, its style and scripts, and the data, all in one. Pure but
for reading the page's own files.

The file loads nothing: its content policy forbids all loading, and allows the one script by its digest.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re
from collections.abc import Mapping
from typing import Any

import msgspec

MODULES = ("words.js", "state.js", "layout.js", "picture.js", "page.js")
"""The scripts of the page, each after those that it imports."""


def bundle(sources: Mapping[str, str]) -> str:
    """The modules as one script: without their imports of each other, and without the word export."""
    parts = []
    for name in MODULES:
        text = re.sub(r"^import [^;]*;\n", "", sources[name], flags=re.MULTILINE)
        parts.append(re.sub(r"^export ", "", text, flags=re.MULTILINE))
    return "\n".join(parts)


def as_json(data: object) -> str:
    """JSON that may stand inside a script element."""
    return msgspec.json.encode(data).decode().replace("<", "\\u003c").replace("\u2028", "\\u2028")


def render(data: Mapping[str, Any], service: str = "") -> str:
    """The file.

    data:    what `Feed.export` gives
    service: NAMESPACE/NAME of the one to show first; "" for the one that the data name
    """
    folder = importlib.resources.files(__package__) / "static"
    page = (folder / "page.html").read_text("utf-8")
    style = (folder / "page.css").read_text("utf-8")
    script = bundle({name: (folder / name).read_text("utf-8") for name in MODULES})
    given = dict(data)
    if service in given.get("pictures", {}):
        given["key"] = service
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    page = re.sub(r"^\s*<link [^>]*>\n", "", page, flags=re.MULTILINE)
    page = re.sub(r"^\s*<script [^>]*></script>\n", "", page, flags=re.MULTILINE)
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>\n{style}</style>\n</head>'
    body = (
        f'<script type="application/json" id="moment">{as_json(given)}</script>\n'
        f'<script type="module">{script}</script>\n</body>'
    )
    return page.replace("</head>", head, 1).replace("</body>", body, 1)
