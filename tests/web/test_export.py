"""The kept file: it is whole, loads nothing, and lets no text of others become a script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter

import pytest

from kubesvc.web import export
from kubesvc.web.server import FILES, read_static

MOMENT = {"label": "made up", "key": "a/b", "services": {}, "pictures": {"a/b": {}, "c/d": {}}, "timelines": {}}


def test_it_refers_to_nothing_outside_itself() -> None:
    text = export.render(MOMENT)
    found = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", text)
    assert [f for f in found if not f.startswith(("#", "`"))] == []
    assert "@import" not in text and "url(" not in text


def test_its_policy_allows_its_one_script_and_no_loading() -> None:
    text = export.render(MOMENT)
    script = re.search(r'<script type="module">(.*?)</script>', text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in text
    assert "connect-src" not in text


def test_names_of_the_modules_do_not_clash_when_joined() -> None:
    names = [
        name
        for file in export.MODULES
        for name in re.findall(
            r"^(?:export )?(?:const|let|function|class|async function) (\w+)", read_static(file), re.M
        )
    ]
    assert [n for n, c in Counter(names).items() if c > 1] == []
    joined = export.bundle({f: read_static(f) for f in export.MODULES})
    assert not re.search(r"^(?:import|export)\b", joined, re.M)


@pytest.mark.parametrize("nasty", ["</script><script>alert(1)</script>", "<!--", "\u2028", "'\"&`${1}"])
def test_text_of_others_stays_text(nasty: str) -> None:
    text = export.render({**MOMENT, "label": nasty})
    assert text.count("<script") == export.render(MOMENT).count("<script")
    assert text.count("</script>") == export.render(MOMENT).count("</script>")


def test_it_opens_at_the_service_that_was_asked_for() -> None:
    assert '"key":"c/d"' in export.render(MOMENT, "c/d")
    assert '"key":"a/b"' in export.render(MOMENT, "no/such")


def test_every_file_that_the_page_names_is_served() -> None:
    page = read_static("page.html")
    named = set(re.findall(r'(?:src|href)="/static/([^"]+)"', page))
    for file in export.MODULES:
        named |= set(re.findall(r'^import [^;]* from "\./([^"]+)";', read_static(file), re.M))
    assert named <= set(FILES)
    for name in FILES:
        assert read_static(name)
