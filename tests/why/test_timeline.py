"""The timeline: moves joined with the hops of the nodes' journals, by time, and never with another change's."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from kubesvc.controllers.service_events_plan import Moved
from kubesvc.why.timeline import (
    Hop,
    decode_hops,
    decode_moved,
    keys_of,
    plain_entry,
    plan_entries,
    plan_entry,
    render_entry,
)

LEFT = Moved(100.010, "shop", "web", "left", "10.0.0.1", "pod/web-1 is not Ready", "web-1", "n1", 100.008, "7")
PROBE = Hop(100.005, "probe", "shop/web-1", "Readiness probe of c: failed 3 times: statuscode: 500")


def test_a_probe_that_says_a_whole_page_stays_on_one_line() -> None:
    """As one does that fetches a page; programs get all of it."""
    page = "Readiness probe of c: failed 3 times: <!DOCTYPE html>\n<html>\n" + "<p>hello</p>\n" * 100
    entry = plan_entry(LEFT, {"n1": [Hop(100.005, "probe", "shop/web-1", page)]})
    first = render_entry(entry).splitlines()[0]
    assert first.endswith("…") and len(first) < 220 and "<!DOCTYPE html> <html> <p>hello" in first
    assert len(render_entry(entry).splitlines()) == 2 and plain_entry(entry)["probe"] == page
    came = msgspec.structs.replace(LEFT, what="joined", cause="pod/web-1 is Ready")
    well = plan_entry(came, {"n1": [Hop(100.005, "probe", "shop/web-1", "Readiness probe of c: succeeded: <p>\n</p>")]})
    assert render_entry(well).splitlines()[0].endswith("; Readiness probe of c: succeeded")
    page = "Startup probe of c: succeeded 2 times, now after 3 ms: <p>\n</p>"
    timed = plan_entry(came, {"n1": [Hop(100.005, "probe", "shop/web-1", page)]})
    assert render_entry(timed).splitlines()[0].endswith("; Startup probe of c: succeeded 2 times, now after 3 ms")


@dataclass(frozen=True)
class Row:
    """Hops of two nodes, and which of them belong to LEFT."""

    sentence: str
    n1: tuple[Hop, ...] = ()
    n2: tuple[Hop, ...] = ()
    probe_at: float = 0.0
    rules: tuple[tuple[str, float], ...] = ()


ROWS = (
    Row("all hops known", (PROBE, Hop(100.012, "rules", "shop/web")), (Hop(100.014, "rules", "shop/web"),), 100.005,
        (("n1", 100.012), ("n2", 100.014))),
    Row("nothing known"),
    Row("a probe of another node's Pod of the same name is not it", n2=(PROBE,)),
    Row("a probe that turned long before", (Hop(90.0, "probe", "shop/web-1"),)),
    Row("a probe that turned afterwards", (Hop(100.009, "probe", "shop/web-1"),)),
    Row("of two turns the later counts", (Hop(99.0, "probe", "shop/web-1"), PROBE), probe_at=100.005),
    Row("rules from before are another change's", (Hop(99.9, "rules", "shop/web"),)),
    Row("a node may hear a moment earlier", (Hop(100.0095, "rules", "shop/web"),), rules=(("n1", 100.0095),)),
    Row("even where others were told in between", (Hop(99.97, "rules", "shop/web"),), rules=(("n1", 99.97),)),
    Row("of those a moment earlier the last counts", (Hop(99.98, "rules", "shop/web"), Hop(100.0, "rules", "shop/web")),
        rules=(("n1", 100.0),)),
    Row("but not if one afterwards is nearer", (Hop(99.98, "rules", "shop/web"), Hop(100.03, "rules", "shop/web"),
        Hop(100.035, "rules", "shop/web")), rules=(("n1", 100.03),)),
    Row("nor if that is another change's", (Hop(100.0, "rules", "shop/web"), Hop(100.5, "rules", "shop/web")),
        rules=(("n1", 100.0),)),
    Row("the first sync afterwards counts", (Hop(100.02, "rules", "shop/web"), Hop(100.5, "rules", "shop/web")),
        rules=(("n1", 100.02),)),
    Row("much later is another change", (Hop(140.0, "rules", "shop/web"),)),
    Row("another Service's rules", (Hop(100.02, "rules", "shop/other"),)),
)  # fmt: skip


WELL = Hop(100.005, "probe", "shop/web-1", "Readiness probe of c: succeeded: HTTP 200")
CAUSES = (
    # sentence, what happened, why, which probe it follows from
    ("a failed probe takes an address away", "left", "pod/web-1 is not Ready", (WELL, PROBE), PROBE),
    ("a probe that succeeded does not", "left", "pod/web-1 is not Ready", (WELL,), None),
    ("nor does any probe where the Pod was deleted", "left", "pod/web-1 is being deleted", (PROBE,), None),
    ("one that succeeds brings it", "joined", "pod/web-1 is Ready", (PROBE, WELL), WELL),
    ("one that fails does not", "joined", "pod/web-1 is listed though it is not Ready", (PROBE,), None),
)


@pytest.mark.parametrize(("sentence", "what", "cause", "probes", "wanted"), CAUSES, ids=[c[0] for c in CAUSES])
def test_which_probe_a_move_follows_from(
    sentence: str, what: str, cause: str, probes: tuple[Hop, ...], wanted: Hop | None
) -> None:
    moved = msgspec.structs.replace(LEFT, what=what, cause=cause)
    assert plan_entry(moved, {"n1": probes}).probe == (wanted.text if wanted else "")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.sentence)
def test_which_hops_belong_to_a_move(row: Row) -> None:
    (entry,) = plan_entries([LEFT], {"n1": row.n1, "n2": row.n2})
    assert entry.probe_at == row.probe_at
    assert tuple(entry.rules.items()) == row.rules


def test_text_and_json_say_each_hop_in_milliseconds() -> None:
    names = Hop(100.0115, "names", "shop/web")
    (entry,) = plan_entries([LEFT], {"n1": (PROBE, names, Hop(100.012, "rules", "shop/web"))})
    first, second = render_entry(entry).splitlines()
    assert "- 10.0.0.1" in first and first.endswith("Ready; Readiness probe of c: failed 3 times: statuscode: 500")
    assert second.strip() == (
        "probe to status 3.0 ms, to slice 2.0 ms, to rules n1 2.0 ms, to names n1 1.5 ms, in all 7.0 ms"
    )
    plain = plain_entry(entry)
    assert plain["schema"] == "kubesvc.timeline/v1" and plain["what"] == "left"
    assert plain["hops"] == {
        "statusMs": 3.0, "sliceMs": 2.0, "totalMs": 7.0, "rulesMs": {"n1": 2.0}, "namesMs": {"n1": 1.5},
    }  # fmt: skip


def test_what_is_not_known_is_left_out() -> None:
    (entry,) = plan_entries([Moved(1.0, "shop", "web", "joined", "10.0.0.1", "listed by hand")], {})
    assert plain_entry(entry)["hops"] == {} and len(render_entry(entry).splitlines()) == 1


def test_torn_and_strange_lines_cost_only_themselves() -> None:
    lines = [b"{", b"[]", b'{"at":"x"}', msgspec.json.encode(LEFT), b'{"at":1,"namespace":"a","service":"web"}']
    assert decode_moved(lines, "shop", "web") == [LEFT]
    assert decode_moved(lines, "shop", "other") == []
    keys = keys_of([LEFT])
    assert keys == {"shop/web", "shop/web-1"}
    assert decode_hops([b"\xff", msgspec.json.encode(PROBE), b'{"at":1,"hop":"rules","key":"a/b"}'], keys) == [PROBE]
