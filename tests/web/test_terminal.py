"""The picture as lines of text: what stands in them, and that they never leave their window."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.cli.fullscreen import keys_in
from kubesvc.web import model
from kubesvc.web.terminal import (
    Paint,
    fit,
    overview_keys,
    render_overview,
    render_picture,
    screen,
    shown_width,
    wrap,
)
from kubesvc.why.diagnose import diagnose_service
from tests.web.madeup import pods
from tests.why import planted as p

PLAIN = Paint(False)
ENTRY = {
    "at": "2026-01-01T01:02:03.456000Z", "what": "left", "address": "10.244.1.2", "pod": "web-1",
    "cause": "pod/web-1 is not Ready", "hops": {"totalMs": 5.25},
}  # fmt: skip


def items(*objects: Any, totals: dict[str, int] | None = None) -> dict[str, model.Item]:
    snapshot = p.cluster(*objects)
    picture, _ = model.picture_of(snapshot.services[("shop", "web")], snapshot)
    return model.with_traffic(picture, totals or {}, {})


def test_each_pod_has_a_line_with_its_rule_or_its_reason() -> None:
    found = items(p.service(), *pods(3, {1: {"ready": False}}), totals={"web-0": 1234})
    text = "\n".join(render_picture(found, {"x": ENTRY}, width=120, paint=PLAIN))
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith(("  ●", "  ○"))}
    assert "80/TCP → 8080, 1 of 2" in lines["web-0"] and "1,234" in lines["web-0"]
    assert "is not Ready" in lines["web-1"] and lines["web-1"].strip().startswith("○")
    assert "01:02:03.456 - web-1 left: pod/web-1 is not Ready" in text and "5.2 ms" in text


def test_a_broken_service_shows_the_command_that_repairs_it() -> None:
    text = "\n".join(render_picture(items(p.service(selector={"app": "wbe"}), p.pod()), {}, width=200, paint=PLAIN))
    assert "✗ svc/web" in text and "repair: kubectl -n shop patch service web" in text and "nobody answers" in text


@given(st.integers(20, 160), st.integers(5, 60), st.integers(0, 400), st.integers(0, 60))
@settings(max_examples=30, deadline=None)
def test_a_window_is_never_left(width: int, height: int, scroll: int, count: int) -> None:
    found = items(p.service(), *pods(count, {3: {"ready": False}}))
    lines = render_picture(found, {"x": ENTRY}, width=width, height=height, scroll=scroll)
    shown = screen(lines, width, height)
    rows = re.findall(r"\x1b\[(\d+);1H\x1b\[K(.*?)(?=\x1b\[\d+;1H|\x1b\[J|$)", shown, re.DOTALL)
    assert [int(number) for number, _ in rows] == list(range(1, min(len(lines), height) + 1))
    assert all(shown_width(row) <= width for _, row in rows)


def test_scrolling_reaches_the_last_pod_and_says_how_many_are_elsewhere() -> None:
    found = items(p.service(), *pods(60))
    top = "\n".join(render_picture(found, {}, width=100, height=24, paint=PLAIN))
    end = "\n".join(render_picture(found, {}, width=100, height=24, scroll=1000, paint=PLAIN))
    assert "web-0 " in top and "web-59" not in top and "below" in top
    assert "web-59" in end and "above" in end


@pytest.mark.parametrize("nasty", ["\x1b[2J", "\x9b31m", "a\r\nb", "\u202e", "\x07"])
def test_text_of_others_cannot_command_the_terminal(nasty: str) -> None:
    shown = fit(nasty, 20)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or c == "\u202e" for c in shown)
    assert len(shown) == 20


@given(st.text(max_size=40), st.integers(1, 30))
@settings(max_examples=150)
def test_fitted_text_is_as_wide_as_asked(text: str, width: int) -> None:
    assert shown_width(fit(text, width)) == width


@given(st.text("ab ", max_size=80), st.integers(1, 20))
@settings(max_examples=80)
def test_wrapped_text_is_whole_and_narrow(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_the_list_has_those_in_trouble_first_and_obeys_a_filter() -> None:
    snapshot = p.cluster(p.service(), *pods(2), p.service("api", clusterIP="10.96.0.8"))
    listed = {
        "/".join(k): model.summary_of(s, diagnose_service(s, snapshot), snapshot) for k, s in snapshot.services.items()
    }
    assert overview_keys(listed)[0] == "shop/api"
    assert overview_keys(listed, "WEB") == ["shop/web"]
    lines = render_overview(listed, width=100, chosen="shop/web", paint=PLAIN)
    assert lines[0] == "Services: 1 broken, 2 fine"
    assert any("✗ shop/api" in line for line in lines) and any("2/2" in line for line in lines)


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        ("\x1b[A\x1b[B", ["\x1b[A", "\x1b[B"]),
        ("\x1b", ["\x1b"]),
        ("/we", ["/", "w", "e"]),
        ("\x1b[5~q", ["\x1b[5~", "q"]),
        ("\x1b[1;5Cq", ["q"]),
        ("\x1b[200~x", ["x"]),
    ],
    ids=["arrows", "escape alone", "letters", "page up", "an unknown sequence", "another"],
)
def test_keys(sent: str, wanted: list[str]) -> None:
    assert list(keys_in(sent)) == wanted
