"""PriorityLevelConfiguration: how much of the server requests of one importance may take. Stored and checked, and never
followed; whoever writes one is told so.
"""

from __future__ import annotations

from typing import ClassVar

from . import checks, fields, shape, workload
from .checks import part
from .fields import Errors, Path
from .flowschema import GROUP, SPEC, UNFOLLOWED, FlowStatus, validate_status
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Object, Struct, Typed


class Queuing(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("queues", "hand_size", "queue_length_limit")

    queues: int = 0
    hand_size: int = 0
    queue_length_limit: int = 0


class LimitResponse(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("type",)

    type: str = ""
    queuing: Queuing | None = None


class Limited(Struct, frozen=True):
    nominal_concurrency_shares: int | None = None
    limit_response: LimitResponse | None = None
    lendable_percent: int | None = None
    borrowing_limit_percent: int | None = None


class Exempt(Struct, frozen=True):
    nominal_concurrency_shares: int | None = None
    lendable_percent: int | None = None


class PrioritySpec(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("type",)

    type: str = ""
    limited: Limited | None = None
    exempt: Exempt | None = None


class PriorityLevelConfiguration(Typed, frozen=True):
    spec: PrioritySpec = PrioritySpec()
    status: FlowStatus = FlowStatus()


def default(obj: Object) -> None:
    shape.normalize(obj, PriorityLevelConfiguration)
    spec = part(obj, "spec")
    if isinstance(exempt := spec.get("exempt"), dict):
        exempt.setdefault("nominalConcurrencyShares", 0)
        exempt.setdefault("lendablePercent", 0)
    if isinstance(limited := spec.get("limited"), dict):
        limited.setdefault("nominalConcurrencyShares", 30)
        limited.setdefault("lendablePercent", 0)
        if isinstance(queuing := part(limited, "limitResponse").get("queuing"), dict):
            for name, usual in (("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)):
                queuing[name] = queuing.get(name) or usual


def prepare_create(obj: Object) -> None:
    obj["status"] = {}


def validate(obj: Object, _: Situation) -> Errors:
    spec, name = part(obj, "spec"), (obj.get("metadata") or {}).get("name")
    type = spec.get("type") or ""
    if type == "Exempt":
        if spec.get("limited") is not None:
            return [fields.forbidden(SPEC / "limited", "must be nil if the type is not Limited")]
        exempt, path = part(spec, "exempt"), SPEC / "exempt"
        return [
            *checks.nonnegative(exempt, "nominalConcurrencyShares", path),
            *percent(exempt, "lendablePercent", path),
        ]
    if name == "exempt":
        return [fields.invalid(SPEC / "type", type, "must be 'Exempt'")]
    if type != "Limited":
        return [fields.not_supported(SPEC / "type", type, ("Exempt", "Limited"))]
    if spec.get("exempt") is not None:
        return [fields.forbidden(SPEC / "exempt", "must be nil if the type is Limited")]
    if spec.get("limited") is None:
        return [fields.required(SPEC / "limited", "must not be empty when type is Limited")]
    return validate_limited(part(spec, "limited"), SPEC / "limited")


def validate_limited(limited: Object, path: Path) -> Errors:
    """How much at once, how much of that may be lent, and what becomes of more."""
    errors = checks.nonnegative(limited, "nominalConcurrencyShares", path)
    errors += percent(limited, "lendablePercent", path)
    if (most := limited.get("borrowingLimitPercent")) is not None and most < 0:
        text = "if specified, must be a non-negative integer"
        errors.append(fields.invalid(path / "borrowingLimitPercent", most, text))
    response, path = part(limited, "limitResponse"), path / "limitResponse"
    type, queuing = response.get("type") or "", response.get("queuing")
    if type == "Reject" and queuing is not None:
        errors.append(fields.forbidden(path / "queuing", "must be nil if limited.limitResponse.type is not Limited"))
    elif type == "Queue" and queuing is None:
        errors.append(fields.required(path / "queuing", "must not be empty if limited.limitResponse.type is Limited"))
    elif type == "Queue":
        errors += validate_queuing(part(response, "queuing"), path / "queuing")
    elif type != "Reject":
        errors.append(fields.not_supported(path / "type", type, ("Queue", "Reject")))
    return errors


def validate_queuing(queuing: Object, path: Path) -> Errors:
    """Every request is dealt a hand of the queues."""
    errors: Errors = []
    for name in ("queueLengthLimit", "queues", "handSize"):
        if (queuing.get(name) or 0) <= 0:
            errors.append(fields.invalid(path / name, queuing.get(name) or 0, "must be positive"))
    hand, queues = queuing.get("handSize") or 0, queuing.get("queues") or 0
    if hand > queues:
        text = f"should not be greater than queues ({queues})"
        errors.append(fields.invalid(path / "handSize", hand, text))
    return errors


def percent(obj: Object, name: str, path: Path) -> Errors:
    value = obj.get(name)
    if value is None or 0 <= value <= 100:
        return []
    return [fields.invalid(path / name, value, "must be between 0 and 100, inclusive")]


def validate_update(new: Object, _: Object, situation: Situation) -> Errors:
    return validate(new, situation)


def warn(_: Object, __: Object | None) -> list[str]:
    return [UNFOLLOWED.format("PriorityLevelConfiguration")]


def shares(level: PriorityLevelConfiguration) -> int | str:
    chosen = level.spec.limited or level.spec.exempt
    if chosen is None or chosen.nominal_concurrency_shares is None:
        return "<none>"
    return chosen.nominal_concurrency_shares


def queue_text(level: PriorityLevelConfiguration, name: str) -> int | str:
    response = level.spec.limited.limit_response if level.spec.limited else None
    queuing = response.queuing if response else None
    return "<none>" if queuing is None else int(getattr(queuing, name))


PRIORITY_LEVEL_CONFIGURATION = Kind(
    group=GROUP,
    version="v1",
    name="PriorityLevelConfiguration",
    plural="prioritylevelconfigurations",
    namespaced=False,
    type=PriorityLevelConfiguration,
    schema="io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
    subresources=(Subresource(name="status"),),
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    validate_status=validate_status,
    warn=warn,
    generation=workload.spec_changed,
    columns=(
        Column("Name", lambda p: p.name, format="name"),
        Column("Type", lambda p: p.spec.type),
        Column("NominalConcurrencyShares", shares),
        Column("Queues", lambda p: queue_text(p, "queues")),
        Column("HandSize", lambda p: queue_text(p, "hand_size")),
        Column("QueueLengthLimit", lambda p: queue_text(p, "queue_length_limit")),
        Column("Age", lambda p: Since(p.metadata.creation_timestamp)),
    ),
    has_status=True,
)
