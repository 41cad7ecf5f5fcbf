"""The picture in a terminal: lines of text from items, as wide and high as the window. Pure.

Colours are those of the terminal's own palette, so that they fit light and dark ones; everything that a colour says is
also said by a sign or a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .model import EdgeItem, GapItem, Item, PodItem, RuleItem, ServiceItem, SliceItem, Summary, TrafficItem, natural

BOLD, DIM, REVERSE = "1", "2", "7"
RED, GREEN, YELLOW, CYAN = "31", "32", "33", "36"
SIGNS = {"healthy": ("✓", GREEN), "degraded": ("!", YELLOW), "broken": ("✗", RED), "unknown": ("?", DIM)}
STATES = {"ready": ("●", GREEN), "leaving": ("◐", YELLOW), "out": ("○", RED)}
BARS = " ▁▂▃▄▅▆▇█"
TIMELINE_LINES = 7


@dataclass(frozen=True)
class Paint:
    """Adds colours, or leaves them out."""

    colours: bool = True

    def __call__(self, text: str, *codes: str) -> str:
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if self.colours and codes else text


def plain(text: str) -> str:
    """Text of others, without anything that a terminal would obey."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in text)


def columns_of(c: str) -> int:
    """How many columns a character takes."""
    return 0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1


def fit(text: str, width: int) -> str:
    """Exactly `width` columns of plain text, cut with … or filled with spaces."""
    text = plain(text)
    if sum(map(columns_of, text)) <= width:
        return text + " " * (width - sum(map(columns_of, text)))
    kept, used = "", 0
    for c in text:
        if used + columns_of(c) > width - 1:
            break
        kept, used = kept + c, used + columns_of(c)
    return (kept + "…" + " " * (width - used - 1))[: max(width, 0)] if width > 0 else ""


ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def shown_width(line: str) -> int:
    """Columns that a painted line takes."""
    return sum(map(columns_of, ESCAPE.sub("", line)))


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at spaces where that is possible."""
    lines, line = [], ""
    for word in plain(text).split():
        while len(word) > width:
            lines += [line] if line else []
            lines.append(word[:width])
            line, word = "", word[width:]
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line] if line else lines or [""]


# ---------------------------------------------------------------- one Service


def render_picture(
    items: Mapping[str, Item],
    entries: Mapping[str, Mapping[str, Any]],
    *,
    width: int,
    height: int = 0,
    scroll: int = 0,
    paint: Paint = Paint(),
    uncounted: str = "",
) -> list[str]:
    """The picture of one Service.

    height: of the whole picture in lines, 0 for as many as it takes
    scroll: how many Pods are passed over
    """
    service = items.get("service")
    if not isinstance(service, ServiceItem):
        return ["This Service is gone."]
    lines = head_lines(service, items.get("traffic"), width, paint, uncounted)
    lines += slice_lines(items, width, paint)
    rows = pod_lines(items, width, paint)
    told = timeline_lines(entries, width, paint)
    if height:
        room = max(1, height - len(lines) - len(told) - 1)
        if len(rows) > room:
            scroll = max(0, min(scroll, len(rows) - room + 1))
            left = len(rows) - scroll - (room - 1)
            rows = rows[scroll : scroll + room - 1]
            above = f"{scroll} above, " if scroll else ""
            rows.append(paint(fit(f"  {above}{max(left, 0)} below: ↑ ↓", width), DIM))
        rows += [""] * (room - len(rows))
    return [*lines, *rows, *told]


def head_lines(s: ServiceItem, traffic: Item | None, width: int, paint: Paint, uncounted: str) -> list[str]:
    sign, colour = SIGNS[s.status]
    lines = [
        paint(f"{sign} svc/{plain(s.name)}", BOLD, colour) + paint(f"  {plain(s.namespace)}  {plain(s.about)}", DIM)
    ]
    lines += ["  " + line for line in wrap(s.verdict, width - 4)]
    command = next((f for f in s.findings if f.command), None)
    if command is not None and s.status != "healthy":
        word = "repair: " if command.repairs else "look:   "
        parts = wrap(command.command, width - 12)
        lines += [paint(f"  {word if not i else ' ' * 8}", DIM) + paint(part, CYAN) for i, part in enumerate(parts)]
    lines += [paint(fit(f"  not seen: {g}", width), YELLOW) for g in s.gaps]
    if isinstance(traffic, TrafficItem) and traffic.counted:
        least = "at least " if traffic.partial else ""
        lines.append(f"  {least}{number(traffic.total)} connections, {traffic.rate:.1f}/s")
    elif uncounted:
        lines.append(paint(fit(f"  connections: {uncounted}", width), DIM))
    return [*lines, ""]


def slice_lines(items: Mapping[str, Item], width: int, paint: Paint) -> list[str]:
    lines = []
    for id_, item in items.items():
        edge = items.get(f"edge/service>{id_}")
        grey = isinstance(edge, EdgeItem) and edge.state != "live"
        why = f"  {edge.reason}" if isinstance(edge, EdgeItem) and edge.reason else ""
        if isinstance(item, SliceItem):
            ports = ", ".join(item.ports) or "no ports"
            text = f"{'┄' if grey else '─'} {item.name}  {item.family}  {ports}  {item.ready}/{item.total} ready{why}"
            lines.append(paint(fit(f"  {text}", width), *((DIM,) if grey else ())))
        elif isinstance(item, GapItem):
            lines.append(paint(fit("  ┄ nobody answers", width), RED))
    return [*lines, ""]


def pod_lines(items: Mapping[str, Item], width: int, paint: Paint) -> list[str]:
    """A head and one line for each Pod; where one takes no traffic, its reason stands in place of its rule."""
    pods = sorted((i for i in items.values() if isinstance(i, PodItem)), key=lambda p: natural(p.name))
    if not pods:
        return []
    longest = max(len(p.name) for p in pods)
    name = min(max(longest, 6), max(16, width // 4)) + 2
    address = min(max(len(", ".join(p.addresses)) for p in pods) + 2, 28) if width >= 70 else 0
    node = min(max(max(len(p.node) for p in pods), 4) + 2, 18) if width >= 90 else 0
    numbers = 20 if width >= 80 else 9
    rest = max(8, width - 4 - name - address - node - numbers)
    titles = fit("POD", name) + fit("ADDRESS", address) + fit("NODE", node) + fit("RULE, OR WHY NOT", rest)
    lines = [paint("    " + titles + "CONNECTIONS".rjust(numbers), DIM)]
    rates = [t.rate for i, t in items.items() if isinstance(t, TrafficItem) and i != "traffic"]
    most = max([*rates, 1.0])
    for p in pods:
        sign, colour = STATES[p.state]
        rule, traffic = items.get(f"rule/{p.name}"), items.get(f"traffic/{p.name}")
        grey = reason_of(items, p.name)
        text = rule_text(rule) if isinstance(rule, RuleItem) and rule.fronts else grey
        line = paint(f"  {sign} ", colour) + fit(p.name, name) + paint(fit(", ".join(p.addresses), address), DIM)
        line += paint(fit(p.node, node), DIM) + paint(fit(text, rest), *(() if p.state == "ready" else (colour,)))
        lines.append(line + numbers_of(traffic, most, numbers, paint))
    return lines


def reason_of(items: Mapping[str, Item], name: str) -> str:
    """Why a Pod has no rule: of the first edge on the way to it that is not live."""
    found = [i for i in items.values() if isinstance(i, EdgeItem) and i.state != "live" and i.reason]
    for target in (f"pod/{name}", f"rule/{name}"):
        for edge in found:
            if edge.target == target:
                return edge.reason + (f" ({edge.code})" if edge.code else "")
    return "no rule"


def rule_text(rule: RuleItem) -> str:
    chance = f", 1 of {rule.share}" if rule.share > 1 else ""
    only = f", from {', '.join(rule.only)} only" if rule.only else ""
    return ", ".join(rule.fronts) + chance + only


def numbers_of(traffic: Item | None, most: float, width: int, paint: Paint) -> str:
    if not isinstance(traffic, TrafficItem) or not traffic.counted:
        return paint("-".rjust(width), DIM)
    if width < 20:
        return f"{traffic.rate:.1f}/s".rjust(width)
    bar = BARS[min(8, round(traffic.rate / most * 8))] if traffic.rate else " "
    return f"{number(traffic.total):>9}{traffic.rate:>8.1f}/s" + paint(bar, GREEN)


def number(value: int) -> str:
    return f"{value:,}"


def timeline_lines(entries: Mapping[str, Mapping[str, Any]], width: int, paint: Paint) -> list[str]:
    """The newest moves, the newest first."""
    if not entries:
        return ["", paint("  Timeline: nothing has joined or left since this began", DIM)]
    lines = ["", paint("  TIMELINE", DIM)]
    for _, e in sorted(entries.items(), reverse=True)[: TIMELINE_LINES - 2]:
        joined = e["what"] == "joined"
        hops = e.get("hops") or {}
        took = f"{hops['totalMs']:.1f} ms" if "totalMs" in hops else ""
        what = f"{e.get('pod') or e['address']} {e['what']}: {e['cause']}"
        head = paint(f"  {e['at'][11:23]} ", DIM) + paint("+ " if joined else "- ", GREEN if joined else RED)
        lines.append(head + fit(what, width - 17 - 12) + paint(took.rjust(12), DIM))
    return lines


# ---------------------------------------------------------------- all Services


def render_overview(
    services: Mapping[str, Summary],
    *,
    width: int,
    height: int = 0,
    chosen: str = "",
    paint: Paint = Paint(),
    words: str = "",
    gaps: Sequence[str] = (),
) -> list[str]:
    """The list of Services, those in trouble first.

    chosen: the one the cursor is on, NAMESPACE/NAME
    words:  a filter, as typed
    gaps:   what could not be read
    """
    keys = overview_keys(services, words)
    counts = {status: sum(s.status == status for s in services.values()) for status in SIGNS}
    told = ", ".join(f"{counts[k]} {w}" for k, w in WORDS.items() if counts[k]) or "no Service yet"
    lines = [paint(f"Services: {told}", BOLD)]
    lines += [*(paint(fit(f"  not seen: {g}", width), YELLOW) for g in gaps), ""]
    name = min(max([len(k) for k in keys] + [7]) + 2, max(20, width // 3))
    lines.append(paint(fit("    SERVICE", name + 4) + fit("TYPE", 14) + fit("PODS", 8) + "VERDICT", DIM))
    room = max(1, height - len(lines)) if height else len(keys)
    at = keys.index(chosen) if chosen in keys else 0
    first = max(0, min(at - room // 2, len(keys) - room))
    for key in keys[first : first + room]:
        s = services[key]
        sign, colour = SIGNS[s.status]
        pods = f"{s.taking}/{s.pods}" if s.pods else "-"
        verdict = s.verdict.partition(": ")[2] if s.status == "broken" else s.verdict
        rest = fit(verdict, max(4, width - name - 26))
        line = f"{fit(key, name)}{fit(s.type, 14)}{fit(pods, 8)}{rest}"
        lines.append(paint(f"  {sign} ", colour) + (paint(line, REVERSE) if key == chosen else line))
    return lines


WORDS = {"broken": "broken", "unknown": "unclear", "degraded": "with a flaw", "healthy": "fine"}


def overview_keys(services: Mapping[str, Summary], words: str = "") -> list[str]:
    """The Services that a filter leaves, those in trouble first."""
    order = list(WORDS)
    left = [k for k in services if words.lower() in k.lower()]
    return sorted(left, key=lambda k: (order.index(services[k].status), k))


def screen(lines: Sequence[str], width: int, height: int) -> str:
    """Lines as a full screen; each is cleared before it is written: behind the last column a cursor stands on it."""
    kept = [line if shown_width(line) <= width else fit(ESCAPE.sub("", line), width) for line in lines[:height]]
    body = "".join(f"\x1b[{i};1H\x1b[K{line}" for i, line in enumerate(kept, 1))
    return body + ("\x1b[J" if len(kept) < height else "")
