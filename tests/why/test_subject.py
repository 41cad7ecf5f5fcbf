"""Words of the command line as what is asked about."""

from __future__ import annotations

import pytest

from kubesvc.why.nearest import alike, distance, nearest
from kubesvc.why.subject import BadSubject, Subject, parse_subject

GOOD = (
    ("svc/web", Subject(service="web")),
    ("service/web", Subject(service="web")),
    ("svc web", Subject(service="web")),
    ("pod/a", Subject(pod="a")),
    ("po/a svc/web", Subject(service="web", pod="a")),
    ("svc/web pod/a", Subject(service="web", pod="a")),
    ("10.96.0.1", Subject(address="10.96.0.1")),
    ("10.96.0.1:80", Subject(address="10.96.0.1", port=80)),
    ("[fd00::7]:80", Subject(address="fd00::7", port=80)),
    ("fd00::7", Subject(address="fd00::7")),
    ("http://web.shop:80/", Subject(name="web.shop", port=80)),
    ("https://web.shop/healthz?deep=1", Subject(name="web.shop")),
    ("web", Subject(name="web")),
    ("_http._tcp.web.shop.svc.cluster.local.", Subject(name="_http._tcp.web.shop.svc.cluster.local.")),
)
BAD = (
    "",
    "deploy/web",
    "svc/",
    "svc/a svc/b",
    "svc/a 10.0.0.1",
    "a b",
    "10.0.0.1:99999",
    "web:http",
    "web:²",
    "[fd00::7]:²",
    "we b/c",
    "..",
    "-x",
)


@pytest.mark.parametrize(("words", "subject"), GOOD)
def test_good_words(words: str, subject: Subject) -> None:
    assert parse_subject(words.split()) == subject


@pytest.mark.parametrize("words", BAD)
def test_bad_words(words: str) -> None:
    with pytest.raises(BadSubject):
        parse_subject(words.split())


def test_distance_counts_a_swap_once() -> None:
    assert [distance(a, b) for a, b in (("web", "wbe"), ("web", "web"), ("", "ab"), ("kitten", "sitting"))] == [
        1,
        0,
        2,
        3,
    ]
    assert alike("Web", "wEB") and alike("front", "front-end") and not alike("web", "db") and not alike("a", "b")


def test_nearest_is_the_nearest_and_never_the_word_itself() -> None:
    assert (
        nearest("wbe", ["web", "wbes", "db", "wbe"]) == "wbes" or nearest("wbe", ["web", "wbes", "db", "wbe"]) == "web"
    )
    assert nearest("xyz", ["web"]) == "" and nearest("web", ["web"]) == ""
