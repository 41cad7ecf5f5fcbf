"""How long a Job waits before it replaces failed pods: 10 seconds after the first failure since its last success, twice
as long after each further one, at most ten minutes. Pure.

What was seen is kept as a record per Job, since ended pods may be gone before the next is due; a new controller begins
anew, as upstream's does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kubesvc.api.pod import Pod
from kubesvc.clock import parse_rfc3339

BASE_SECONDS = 10.0
CAP_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one Job. failures: since its last success; last: when, seconds since 1970"""

    failures: int = 0
    last: float = 0.0

    def after(self, succeeded: Iterable[Pod], failed: Iterable[Pod], now: float) -> Record:
        """With the ends that were not counted before. None is later than now: by a node's clock that is an hour fast
        the next pod would wait an hour."""
        won, lost = [finished_at(p, now) for p in succeeded], sorted(finished_at(p, now) for p in failed)
        if won:
            lost = [at for at in lost if at > max(won)]
            return Record(len(lost), min(lost[-1], now) if lost else 0.0)
        return Record(self.failures + len(lost), min(lost[-1], now)) if lost else self

    def seconds_left(self, now: float) -> float:
        """Until a pod may be made; 0 for at once."""
        return left_after(self.failures, self.last, now)


NONE = Record()


def left_after(failures: int, last: float, now: float) -> float:
    """The rest of the wait after so many failures, the last of them at `last`."""
    if not failures:
        return 0.0
    return max(0.0, last + min(BASE_SECONDS * 2.0 ** min(failures - 1, 20), CAP_SECONDS) - now)


def finished_at(pod: Pod, now: float) -> float:
    """When a pod ended: by its containers, else when it ceased to be ready, else when it was deleted, else now."""
    states = [s.state.terminated for s in pod.status.container_statuses or ()]
    times = [parse_rfc3339(t.finished_at) for t in states if t is not None and t.finished_at]
    if times and len(times) == len(states):
        return max(times)
    ready = pod.status.condition("Ready")
    if ready is not None and ready.status == "False" and ready.last_transition_time:
        return parse_rfc3339(ready.last_transition_time)
    if pod.metadata.deletion_timestamp is not None:
        return parse_rfc3339(pod.metadata.deletion_timestamp) - (pod.metadata.deletion_grace_period_seconds or 0)
    return now
