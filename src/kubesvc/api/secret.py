"""Secret: named values that are shown to few."""

from __future__ import annotations

from .kind import Column, Kind, Since
from .meta import Typed


class Secret(Typed, frozen=True):
    data: dict[str, str] | None = None
    """Values in base64, as the wire has them."""
    type: str = ""
    immutable: bool | None = None


SECRET = Kind(
    group="",
    version="v1",
    name="Secret",
    plural="secrets",
    namespaced=True,
    type=Secret,
    schema="io.k8s.api.core.v1.Secret",
    columns=(
        Column("Name", lambda s: s.name, format="name"),
        Column("Type", lambda s: s.type),
        Column("Data", lambda s: len(s.data or {})),  # KCTL-25
        Column("Age", lambda s: Since(s.metadata.creation_timestamp)),
    ),
    fields={"type": lambda s: s.type},
)
