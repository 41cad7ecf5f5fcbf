"""Whether a container runs again after its end, and how long it waits (NODE-24 to NODE-28). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from kubesvc.api.container import Container

FIRST_SECONDS = 10.0
CAP_SECONDS = 300.0
FORGET_SECONDS = 600.0
"""A back-off not touched for so long is forgotten (NODE-25)."""


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long the next wait is, and when that was last decided (seconds of any one clock)."""

    seconds: float
    updated: float


def advance(back_off: BackOff | None, now: float, cap_seconds: float = CAP_SECONDS) -> BackOff:
    """The back-off after one more start: none yet gives the first wait, then doubled up to the cap."""
    if back_off is None or now - back_off.updated > FORGET_SECONDS:
        return BackOff(min(FIRST_SECONDS, cap_seconds), now)
    return BackOff(min(back_off.seconds * 2, cap_seconds), now)


def wait_seconds(back_off: BackOff | None, finished_at: float, now: float) -> float:
    """How long a container that ended at `finished_at` still waits; 0 for at once."""
    if back_off is None or now - back_off.updated > FORGET_SECONDS:
        return 0.0
    return max(0.0, finished_at + back_off.seconds - now)


def restarts(policy: str, container: Container, exit_code: int, *, init: bool = False) -> bool:
    """Whether a container that ended with this code runs again (NODE-24).

    policy:  the Pod's restartPolicy; "" counts as Always
    init:    an init container that is no sidecar: it is done with code 0, and Always means OnFailure for it
    """
    for rule in container.restart_policy_rules or ():
        wanted = rule.exit_codes
        if wanted is None or rule.action != "Restart":
            continue
        listed = exit_code in (wanted.values or ())
        if listed == (wanted.operator == "In"):
            return True
    policy = container.restart_policy or policy or "Always"
    if init and policy == "Always" and not container.sidecar:
        policy = "OnFailure"
    if policy == "Always":
        return True
    return policy == "OnFailure" and exit_code != 0


def back_off_message(seconds: float, container: str, pod: str, namespace: str, uid: str) -> str:
    """NODE-27."""
    wait = go_duration(int(seconds))
    return f"back-off {wait} restarting failed container={container} pod={pod}_{namespace}({uid})"


def go_duration(seconds: float) -> str:
    """A span as Go prints it, to the millisecond: 850ms, 1.25s, 20s, 1m20s, 5m0s, 2h0m0s."""
    thousandths = round(seconds * 1000)
    if thousandths < 1000:
        return f"{thousandths}ms" if thousandths else "0s"
    minutes, rest = divmod(thousandths, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if minutes < 60:
        return f"{minutes}m{text}" if minutes else text
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}"
