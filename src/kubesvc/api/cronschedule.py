"""Schedules of CronJobs: five fields, names, steps, macros and time zones, as upstream's parser reads them. Pure.

    parse_schedule("*/5 9-17 * * MON-FRI", "Europe/Berlin").next(now)        # seconds since 1970, or None

A schedule is a set of minutes of local time. A minute that a change of clocks skips does not come, one that it repeats
comes twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo

YEARS_AHEAD = 5
"""How far a schedule is searched for its next time: `0 0 30 2 *` never comes."""
MONTHS = {n: i for i, n in enumerate(re.findall("...", "janfebmaraprmayjunjulaugsepoctnovdec"), 1)}
DAYS = {n: i for i, n in enumerate(re.findall("...", "sunmontuewedthufrisat"))}
MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
BOUNDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, MONTHS),
    (0, 6, DAYS),
)
DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Schedule(Protocol):
    """When something is due. Times are seconds since 1970."""

    def next(self, after: float) -> float | None:
        """The first time later than `after`; None if there is none within five years."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """`@every 90s`: so long after the last time, in whole seconds."""

    seconds: int

    def next(self, after: float) -> float | None:
        return float(int(after) + self.seconds)


@dataclass(frozen=True, slots=True)
class Calendar:
    """Minutes of local time. A day must fit both day fields if one of them is a star, else either."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    zone: tzinfo

    def next(self, after: float) -> float | None:
        at = (int(after) // 60 + 1) * 60
        local = datetime.fromtimestamp(at, self.zone)
        last_year = local.year + YEARS_AHEAD
        while local.year <= last_year:
            if local.month not in self.months:
                at = self.midnight(local.replace(day=1) + timedelta(days=32), at, first=True)
            elif not self.fits_day(local):
                at = self.midnight(local + timedelta(days=1), at)
            elif local.hour not in self.hours:
                at += 3600 - local.minute * 60 - local.second
            elif local.minute not in self.minutes:
                at += 60 - local.second
            else:
                return float(at)
            local = datetime.fromtimestamp(at, self.zone)
        return None

    def fits_day(self, local: datetime) -> bool:
        day, weekday = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return day and weekday if self.any_day else day or weekday

    def midnight(self, local: datetime, after: int, *, first: bool = False) -> int:
        """The moment this local day, or the first of its month, begins; always later than `after`."""
        start = datetime(local.year, local.month, 1 if first else local.day, tzinfo=self.zone)
        return max(int(start.timestamp()), after + 60)


def parse_schedule(text: str, zone: str = "") -> Schedule:
    """Read a schedule; ValueError in words that tell which part is wrong.

    text: five fields, a macro, or `@every DURATION`; may begin with `TZ=NAME ` or `CRON_TZ=NAME `, which then counts
    zone: an IANA name; "" is UTC
    """
    if not text:
        raise ValueError("empty spec string")
    if text.startswith(("TZ=", "CRON_TZ=")):
        head, _, text = text.partition(" ")
        zone, text = head.partition("=")[2], text.strip()
    if text.startswith("@every "):
        return Every(max(1, int(duration_seconds(text.removeprefix("@every ")))))
    if text.startswith("@"):
        if text not in MACROS:
            raise ValueError(f"unrecognized descriptor: {text}")
        text = MACROS[text]
    fields = text.split()
    if len(fields) != 5:
        raise ValueError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    found = [parse_field(f, *bounds) for f, bounds in zip(fields, BOUNDS, strict=True)]
    minutes, hours, days, months, weekdays = (values for values, _ in found)
    return Calendar(minutes, hours, days, months, weekdays, found[2][1] or found[4][1], zone_of(zone))


def zone_of(name: str) -> tzinfo:
    """A time zone by its name; ValueError if nobody knows it."""
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise ValueError(f"unknown time zone {name}") from None


def parse_field(text: str, low: int, high: int, names: dict[str, int]) -> tuple[frozenset[int], bool]:
    """The values of one field, and whether it is a star, which leaves the choice to the other day field."""
    values: set[int] = set()
    star = False
    for part in text.split(","):
        some, is_star = parse_range(part, low, high, names)
        values |= some
        star = star or is_star
    return frozenset(values), star


def parse_range(text: str, low: int, high: int, names: dict[str, int]) -> tuple[set[int], bool]:
    """`*`, `?`, `3`, `1-5`, `mon-fri`, each with `/step` or without."""
    span, *steps = text.split("/")
    first, *lasts = span.split("-")
    if len(steps) > 1:
        raise ValueError(f"too many slashes: {text}")
    star = first in ("*", "?")
    if star:
        start, end = low, high
    elif len(lasts) > 1:
        raise ValueError(f"too many hyphens: {text}")
    else:
        start = number(first, names)
        end = number(lasts[0], names) if lasts else start
    step = 1
    if steps:
        step = number(steps[0], {})
        if not lasts and not star:
            end = high  # `3/5` goes on to the end
        star = star and step <= 1
    if start < low:
        raise ValueError(f"beginning of range ({start}) below minimum ({low}): {text}")
    if end > high:
        raise ValueError(f"end of range ({end}) above maximum ({high}): {text}")
    if start > end:
        raise ValueError(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    if step == 0:
        raise ValueError(f"step of range should be a positive number: {text}")
    return set(range(start, end + 1, step)), star


def number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"failed to parse int from {text}")
    return int(text)


def duration_seconds(text: str) -> float:
    """`1h30m` in seconds; ValueError for what is no positive duration."""
    if not text or DURATION.sub("", text):
        raise ValueError(f"failed to parse duration @every {text}")
    return sum(float(count) * SECONDS[unit] for count, unit in DURATION.findall(text))
