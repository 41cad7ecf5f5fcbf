"""CronJobs: when a schedule is due, and what the controller does about it on a real server in virtual time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.cronjob import CronJob
from kubesvc.api.cronschedule import Calendar, parse_schedule
from kubesvc.api.errors import Invalid, NotFound
from kubesvc.api.kinds import CRON_JOB, EVENT, JOB, POD
from kubesvc.api.meta import Object, typed
from kubesvc.clock import parse_rfc3339, rfc3339
from kubesvc.controllers.cronjob_plan import plan_due, seconds_to_next

from .house import House
from .kubelet import Kubelet
from .test_statefulset import with_kubelet

NEXT: tuple[tuple[str, str, str, str, str], ...] = (
    ("every minute", "* * * * *", "", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
    ("later than asked, never the same", "0 * * * *", "", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
    ("steps of a star", "*/15 * * * *", "", "2026-01-01T00:14:59Z", "2026-01-01T00:15:00Z"),
    ("a number with a step goes on to the end", "20/15 * * * *", "", "2026-01-01T00:36:00Z", "2026-01-01T00:50:00Z"),
    ("ranges with steps, and lists", "1-10/4,30 * * * *", "", "2026-01-01T00:09:00Z", "2026-01-01T00:30:00Z"),
    ("names of months and days, in any case", "0 0 * Feb MON", "", "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"),
    ("a day of month alone", "0 0 15 * *", "", "2026-01-16T00:00:00Z", "2026-02-15T00:00:00Z"),
    ("both day fields: either is enough", "0 0 15 * fri", "", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
    ("a stepped star of days is no star", "0 0 */10 * fri", "", "2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z"),
    ("a question mark is a star", "0 0 ? * fri", "", "2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z"),
    ("leap years are waited for", "0 0 29 2 *", "", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
    ("@hourly", "@hourly", "", "2026-01-01T00:10:00Z", "2026-01-01T01:00:00Z"),
    ("@weekly is Sunday", "@weekly", "", "2026-01-01T00:10:00Z", "2026-01-04T00:00:00Z"),
    ("@yearly", "@yearly", "", "2026-01-01T00:10:00Z", "2027-01-01T00:00:00Z"),
    ("@every counts from the last time", "@every 1h30m", "", "2026-01-01T00:10:07Z", "2026-01-01T01:40:07Z"),
    ("local time", "30 6 * * *", "Europe/Berlin", "2026-01-01T00:00:00Z", "2026-01-01T05:30:00Z"),
    ("local time in summer", "30 6 * * *", "Europe/Berlin", "2026-07-01T00:00:00Z", "2026-07-01T04:30:00Z"),
    ("an hour that is skipped does not come", "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z",
     "2026-03-30T00:30:00Z"),
    ("an hour that is repeated comes twice", "30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z",
     "2026-10-25T01:30:00Z"),
    ("a zone before the fields counts", "CRON_TZ=Asia/Tokyo 0 9 * * *", "", "2026-01-01T12:00:00Z",
     "2026-01-02T00:00:00Z"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "text", "zone", "after", "expected"), NEXT, ids=[n[0] for n in NEXT])
def test_next(name: str, text: str, zone: str, after: str, expected: str) -> None:
    found = parse_schedule(text, zone).next(parse_rfc3339(after))
    assert found is not None and rfc3339(found) == expected


def test_what_never_comes_is_none() -> None:
    assert parse_schedule("0 0 30 2 *").next(parse_rfc3339("2026-01-01T00:00:00Z")) is None


REFUSED = (
    ("", "empty spec string"),
    ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
    ("60 * * * *", "end of range (60) above maximum (59): 60"),
    ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
    ("* * * * 7", "end of range (7) above maximum (6): 7"),
    ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
    ("*/0 * * * *", "step of range should be a positive number: */0"),
    ("1/2/3 * * * *", "too many slashes: 1/2/3"),
    ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
    ("x * * * *", "failed to parse int from x"),
    ("@fortnightly", "unrecognized descriptor: @fortnightly"),
    ("@every soon", "failed to parse duration @every soon"),
    ("TZ=Mars/Base * * * * *", "unknown time zone Mars/Base"),
)


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_schedule(text)
    assert str(error.value) == message


FIELD = st.sampled_from(["*", "*/7", "3", "1-5", "2,4", "1-6/2"])
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "America/Havana", "Australia/Lord_Howe")


@settings(max_examples=60, deadline=None)
@given(st.tuples(FIELD, FIELD, FIELD, FIELD, FIELD), st.sampled_from(ZONES), st.integers(0, 366 * 1440))
def test_next_is_the_first_minute_that_fits(fields: tuple[str, ...], zone: str, minute: int) -> None:
    """Beside a search that looks at each minute of local time, for two days around any moment of a year."""
    schedule = parse_schedule(" ".join(fields), zone)
    assert isinstance(schedule, Calendar)
    after = parse_rfc3339("2026-01-01T00:00:00Z") + minute * 60
    slow = None
    for at in range(int(after) + 60, int(after) + 2 * 86400, 60):
        local = datetime.fromtimestamp(at, ZoneInfo(zone) if zone != "UTC" else UTC)
        if (
            local.minute in schedule.minutes and local.hour in schedule.hours and local.month in schedule.months
            and schedule.fits_day(local)
        ):  # fmt: skip
            slow = float(at)
            break
    fast = schedule.next(after)
    assert fast == slow or (slow is None and (fast is None or fast >= after + 2 * 86400 - 60))


@given(st.text("0123456789*/-,? @everymonsh=TZ", max_size=24))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        parse_schedule(text).next(parse_rfc3339("2026-01-01T00:00:00Z"))
    except ValueError:
        pass


def cron_job(last: str | None = None, **spec: Any) -> CronJob:
    meta = {"name": "tick", "namespace": "ns", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    status = {"lastScheduleTime": last} if last else {}
    return typed({"metadata": meta, "spec": spec, "status": status}, CronJob)


DUE: tuple[tuple[str, str, CronJob, str, str | None, int], ...] = (
    ("nothing has come", "0 * * * *", cron_job(), "2026-01-01T00:59:59Z", None, 0),
    ("one has come", "0 * * * *", cron_job(), "2026-01-01T01:00:00Z", "2026-01-01T01:00:00Z", 0),
    ("of several the latest", "0 * * * *", cron_job(), "2026-01-01T05:30:00Z", "2026-01-01T05:00:00Z", 5),
    ("counted from the last start", "0 * * * *", cron_job("2026-01-01T05:00:00Z"), "2026-01-01T05:30:00Z", None, 0),
    ("too old ones do not count", "0 * * * *", cron_job(startingDeadlineSeconds=60), "2026-01-01T05:30:00Z", None, 0),
    ("many", "* * * * *", cron_job(), "2026-01-01T05:00:30Z", "2026-01-01T05:00:00Z", 300),
    (
        "irregular ones too, their number a guess",
        "59 6 * * 1-5",
        cron_job(),
        "2026-01-12T12:00:00Z",
        "2026-01-12T06:59:00Z",
        12,
    ),
)


@pytest.mark.parametrize(("name", "text", "of", "now", "latest", "missed"), DUE, ids=[d[0] for d in DUE])
def test_due(name: str, text: str, of: CronJob, now: str, latest: str | None, missed: int) -> None:
    due = plan_due(of, parse_schedule(text), parse_rfc3339(now), deadline=True)
    assert (rfc3339(due.latest) if due.latest else None, due.missed) == (latest, missed)


def test_the_next_look_is_a_moment_after_the_next_time() -> None:
    now = parse_rfc3339("2026-01-01T00:10:00Z")
    left = seconds_to_next(cron_job(), parse_schedule("0 * * * *"), now)
    assert left == pytest.approx(50 * 60 + 0.1)


# -------------------------------------------------------------------- the controller


async def make(house: House, schedule: str = "* * * * *", **spec: Any) -> None:
    pod = {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 1}}  # fmt: skip
    job = {"metadata": {"labels": {"app": "tick"}, "annotations": {"a": "b"}}, "spec": {"template": pod}}
    whole = {"schedule": schedule, "jobTemplate": job, **spec}
    await house.client.create(CRON_JOB, {"metadata": {"name": "tick"}, "spec": whole}, "ns")


async def finish(house: House, kubelet: Kubelet, phase: str = "Succeeded") -> None:
    for pod in await house.every(POD):
        if pod["status"]["phase"] == "Running":
            await kubelet.report(pod["metadata"], phase, ready=False)


async def jobs(house: House) -> list[str]:
    return sorted(j["metadata"]["name"] for j in await house.every(JOB))


async def status(house: House) -> Object:
    found: Object = (await house.client.get(CRON_JOB, "tick", "ns")).get("status") or {}
    return found


async def told(house: House) -> list[str]:
    """Events about the CronJob, in order."""
    events = await house.every(EVENT)
    return [f"{e['reason']}: {e['message']}" for e in events if e["involvedObject"]["kind"] == "CronJob"]


MINUTE = int(parse_rfc3339("2026-01-01T00:01:00Z")) // 60
WHOLE = ("cronjob", "job", "garbage-collector")


def test_jobs_come_by_the_minute_and_go_by_the_limits() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, successfulJobsHistoryLimit=2)
        await house.settle(65)
        assert await jobs(house) == [f"tick-{MINUTE}"]
        [job] = await house.every(JOB)
        assert job["metadata"]["labels"] == {"app": "tick"}
        assert job["metadata"]["annotations"] == {
            "a": "b", "batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-01-01T00:01:00Z",
        }  # fmt: skip
        [owner] = job["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["controller"], owner["blockOwnerDeletion"]) == ("CronJob", True, True)
        now = await status(house)
        assert now["lastScheduleTime"] == "2026-01-01T00:01:00Z"
        assert [a["name"] for a in now["active"]] == [f"tick-{MINUTE}"] and "lastSuccessfulTime" not in now
        for _ in range(4):
            await finish(house, kubelet)
            await house.settle(60)
        await finish(house, kubelet)
        await house.settle(5)
        assert await jobs(house) == [f"tick-{MINUTE + 3}", f"tick-{MINUTE + 4}"]
        now = await status(house)
        assert "active" not in now and now["lastSuccessfulTime"] > now["lastScheduleTime"]
        said = await told(house)
        assert said[:2] == [
            f"SuccessfulCreate: Created job tick-{MINUTE}",
            f"SawCompletedJob: Saw completed job: tick-{MINUTE}, condition: Complete",
        ]
        assert f"SuccessfulDelete: Deleted job tick-{MINUTE}" in said

    with_kubelet(story, WHOLE)


@pytest.mark.parametrize(
    ("policy", "left", "reason"),
    [
        ("Allow", [0, 1, 2], "SuccessfulCreate: Created job"),
        ("Forbid", [0], "JobAlreadyActive: Not starting job because prior execution is running and concurrency policy"),
        ("Replace", [2], "SuccessfulDelete: Deleted job"),
    ],
)
def test_what_becomes_of_those_that_still_run(policy: str, left: list[int], reason: str) -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, concurrencyPolicy=policy)
        await house.settle(185)
        assert await jobs(house) == [f"tick-{MINUTE + n}" for n in left]
        assert any(text.startswith(reason) for text in await told(house))

    with_kubelet(story, WHOLE)


def test_a_suspended_one_starts_nothing_and_then_the_latest_it_missed() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, suspend=True)
        await house.settle(305)
        assert await jobs(house) == []
        await house.client.patch(CRON_JOB, "tick", "ns", {"spec": {"suspend": False}}, "merge")
        await house.settle(5)
        assert await jobs(house) == [f"tick-{MINUTE + 4}"]

    with_kubelet(story, WHOLE)


def test_what_is_too_late_is_told_and_not_started() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, "0 * * * *", startingDeadlineSeconds=30, suspend=True)
        await house.settle(3600 + 29.5)
        await house.client.patch(CRON_JOB, "tick", "ns", {"spec": {"suspend": False}}, "merge")
        await house.settle(10)
        assert len(await jobs(house)) == 1
        await house.client.patch(CRON_JOB, "tick", "ns", {"spec": {"suspend": True}}, "merge")
        await house.settle(3600 + 60)
        await house.client.patch(CRON_JOB, "tick", "ns", {"spec": {"suspend": False}}, "merge")
        await house.settle(10)
        assert len(await jobs(house)) == 1

    with_kubelet(story, WHOLE)


def test_a_new_schedule_starts_with_its_next_time() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, "0 0 1 7 *")
        await house.settle(600)
        await house.client.patch(CRON_JOB, "tick", "ns", {"spec": {"schedule": "*/5 * * * *"}}, "merge")
        await house.settle(30)
        assert await jobs(house) == []
        await house.settle(300)
        assert await jobs(house) == [f"tick-{MINUTE + 14}"]

    with_kubelet(story, WHOLE)


def test_many_missed_times_are_told() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, suspend=True)
        await house.settle(102 * 60)
        await house.client.patch(CRON_JOB, "tick", "ns", {"spec": {"suspend": False}}, "merge")
        await house.settle(5)
        assert len(await jobs(house)) == 1
        assert (await told(house))[0] == (
            "TooManyMissedTimes: too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check "
            "clock skew"
        )

    with_kubelet(story, WHOLE)


def test_local_time_is_in_the_annotation() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, "30 6 * * *", timeZone="Europe/Berlin")
        await house.settle(5 * 3600 + 1805)
        [job] = await house.every(JOB)
        stamp = job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]
        assert stamp == "2026-01-01T06:30:00+01:00"

    with_kubelet(story, WHOLE)


def test_a_job_that_is_gone_leaves_the_list_and_a_stranger_is_told() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house)
        await house.settle(65)
        await house.client.delete(JOB, f"tick-{MINUTE}", "ns", propagation="Background")
        await house.settle(5)
        assert "active" not in await status(house)
        owner = (await house.client.get(CRON_JOB, "tick", "ns"))["metadata"]
        template = {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}}
        reference = {
            "apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": owner["uid"], "controller": True,
        }  # fmt: skip
        meta = {"name": "stranger", "ownerReferences": [reference]}
        await house.client.create(JOB, {"metadata": meta, "spec": {"template": template}}, "ns")
        await house.settle(5)
        said = await told(house)
        assert f"MissingJob: Active job went missing: tick-{MINUTE}" in said
        assert "UnexpectedJob: Saw a job that the controller did not create or forgot: stranger" in said

    with_kubelet(story, WHOLE)


def test_jobs_go_with_their_cron_job() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house)
        await house.settle(125)
        await house.client.delete(CRON_JOB, "tick", "ns", propagation="Background")
        await house.settle(60)
        with pytest.raises(NotFound):
            await status(house)
        assert await jobs(house) == [] and await house.every(POD) == []

    with_kubelet(story, WHOLE)


def test_trouble_starts_nothing_twice() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        house.trouble.odds = 0.3
        await make(house, "*/2 * * * *", successfulJobsHistoryLimit=50)
        for turn in range(20):
            if turn == 15:
                house.trouble.odds = 0.0
            await house.settle(60)
            await finish(house, kubelet)
        names = await jobs(house)
        assert 5 <= len(names) <= 10 and len(set(names)) == len(names)

    with_kubelet(story, WHOLE)


SAID: tuple[tuple[dict[str, Any], str], ...] = (
    ({"schedule": "* * * *"}, 'spec.schedule: Invalid value: "* * * *": expected exactly 5 fields, found 4: [* * * *]'),
    (
        {"schedule": "61 * * * *"},
        'spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59): 61',
    ),
    (
        {"schedule": "TZ=UTC * * * * *"},
        'spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field '
        "instead",
    ),
    ({"timeZone": "Mars/Base"}, 'spec.timeZone: Invalid value: "Mars/Base": unknown time zone Mars/Base'),
    ({"timeZone": ""}, 'spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string'),
    (
        {"timeZone": "Local"},
        'spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as defined in '
        "https://www.iana.org/time-zones",
    ),
)


@pytest.mark.parametrize(("spec", "message"), SAID)
def test_what_cannot_be_meant_is_refused_at_the_door(spec: dict[str, Any], message: str) -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        with pytest.raises(Invalid) as error:
            await make(house, **spec)
        assert error.value.message == f'CronJob.batch "tick" is invalid: {message}'

    with_kubelet(story, ())
