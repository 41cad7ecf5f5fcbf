"""Ages as tables print them: `119s`, `2m`, `7d23h` (KCTL-33, KCTL-34)."""

from __future__ import annotations

from kubesvc.clock import parse_rfc3339

from .kind import Since

MINUTE, HOUR, DAY = 60, 3600, 86400
YEAR = 365 * DAY
UNKNOWN, INVALID = "<unknown>", "<invalid>"


def render_age(seconds: float) -> str:
    """A span in seconds in at most two units, the finer one left out when it is 0.

    Spans that ended up to a second before they began count as 0 (clocks differ), longer ones are `<invalid>`.
    """
    whole = int(seconds)  # cut towards zero, so that -1.9 s is still forgiven
    if whole < -1:
        return INVALID
    whole = max(0, whole)
    minutes, hours, days = whole // MINUTE, whole // HOUR, whole // DAY
    if whole < 2 * MINUTE:
        return f"{whole}s"
    if minutes < 10:
        return two(minutes, "m", whole % MINUTE, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return two(days, "d", hours % 24, "h")
    if days < 2 * 365:
        return f"{days}d"
    if days < 8 * 365:
        return two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def two(coarse: int, coarse_unit: str, fine: int, fine_unit: str) -> str:
    return f"{coarse}{coarse_unit}{fine}{fine_unit}" if fine else f"{coarse}{coarse_unit}"


def render_since(cell: Since, now: float) -> str:
    """The text of an age cell at `now` (seconds since 1970)."""
    if not cell.timestamp:
        return f"{cell.before}{UNKNOWN}{cell.after}"
    end = now if cell.until is None else parse_rfc3339(cell.until)
    return f"{cell.before}{render_age(end - parse_rfc3339(cell.timestamp))}{cell.after}"
