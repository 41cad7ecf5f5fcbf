"""`Kind`: everything the system knows of one kind of object, as a value. Nothing here stores, serves or watches.

Each `api/<kind>.py` starts with the typed struct and ends with its `Kind`. The functions of a kind work on plain
objects (decoded JSON), are pure but for the object they are given to change, and never raise for bad content: what is
wrong comes back as field errors, in the order in which upstream finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .fields import Errors
from .meta import Object, Typed

if TYPE_CHECKING:
    from .customkind import CustomForm

Cell = str | int | bool | None
"""One value of a Table row."""

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Since:
    """A cell that holds an age: rendered at the moment of answering, by `ages.render_since` (KCTL-33, KCTL-34)."""

    timestamp: str | None
    until: str | None = None
    """Where the span ends; None: it goes on."""
    before: str = ""
    """Text in front of the age, as in `5 (3m ago)` (KCTL-43)."""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a Table: its name, how to read its cell from the typed object, and how it is announced."""

    name: str
    cell: Callable[[Any], Cell | Since]
    type: str = "string"
    format: str = ""
    wide: bool = False
    """Priority 1: always sent, shown by kubectl in wide output only (KCTL-3)."""
    priority: int = 0
    """As a custom kind's author numbers it; above 0 is wide."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """What strategy functions may need to know of the server besides the object itself.

    families:  the address families of the configured service ranges, the primary first ("IPv4", "IPv6")
    """

    families: tuple[str, ...] = ("IPv4",)


Default = Callable[[Object], None]
Prepare = Callable[[Object], None]
PrepareUpdate = Callable[[Object, Object], None]
Validate = Callable[[Object, Situation], Errors]
ValidateUpdate = Callable[[Object, Object, Situation], Errors]
Warn = Callable[[Object, "Object | None"], Sequence[str]]


def nothing(*_: Any) -> None:
    """A strategy step that this kind does not need."""


def same(obj: Object) -> Object:
    """The form that needs no change."""
    return obj


def no_errors(*_: Any) -> Errors:
    return []


def no_warnings(*_: Any) -> Sequence[str]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Subresource:
    """A part of an object with an address of its own, such as `status` or `scale` (SUB)."""

    name: str
    verbs: tuple[str, ...] = ("get", "patch", "update")
    kind: str = ""
    """Kind of the body; "" means the parent's."""
    group: str = ""
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of object. Frozen; compared by identity; found through `kubesvc.api.kinds`."""

    group: str
    version: str
    name: str
    plural: str
    namespaced: bool
    type: type[Typed]
    """Struct with the fields that columns, selectors and controllers use; decodes any stored object of the kind."""
    schema: str
    """Name of its definition in the schema table, e.g. "io.k8s.api.core.v1.Pod"."""

    custom: CustomForm | None = None
    """What a CustomResourceDefinition says of its objects, for kinds that come from one."""
    singular: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Subresource, ...] = ()

    default: Default = nothing
    """Fills in defaults, in place; runs on every decoded body and on every patch result (WRITE-9)."""
    prepare_create: Prepare = nothing
    """Strategy on create, in place: drop status, set what the server owns. Runs after defaulting."""
    prepare_update: PrepareUpdate = nothing
    """Strategy on update (new, old), `new` in place: restore what this endpoint must not change. The caller has
    already restored `status` (main resource) or everything but status and metadata (status subresource)."""
    validate: Validate = no_errors
    """All field errors of a new object, metadata excluded (the caller checks that by `name_errors`)."""
    validate_update: ValidateUpdate = no_errors
    """All field errors of (new, old), immutability included; metadata excluded."""
    validate_status: ValidateUpdate = no_errors
    """All field errors of a write to /status (new, old)."""
    validate_parts: Mapping[str, ValidateUpdate] = field(default_factory=dict)
    """As `validate_update`, for writes through subresources that have rules of their own, by name."""
    restore: Callable[[Object, Object, str], None] = nothing
    """After a write was kept to its part of the object (new, old, subresource), `new` in place: what it must not reach
    besides."""
    warn: Warn = no_warnings
    """Warning texts for (new, old or None), WARN-3."""
    name_errors: Callable[[str], Sequence[str]] | None = None
    """Texts of what is wrong with a name; None means DNS subdomain."""

    columns: tuple[Column, ...] = ()
    """Table columns; empty means the default of KCTL-8 (Name, Created At)."""
    row_conditions: Callable[[Any], list[Object]] = field(default=lambda _: [])
    """Conditions of a Table row (KCTL-6)."""
    fields: Mapping[str, Callable[[Any], str]] = field(default_factory=dict)
    """Field selectors besides metadata.name and metadata.namespace (SEL-3): label to reader of the typed object."""

    has_status: bool = False
    """Whether main-resource writes leave `.status` alone and /status exists."""
    generation: Callable[[Object, Object], bool] | None = None
    """Whether (new, old) raises metadata.generation; None: the kind has no generation (META-6, META-7)."""
    create_on_put: bool = False
    """WRITE-6."""
    unversioned_update: bool = True
    """WRITE-5: whether PUT without resourceVersion is allowed."""
    delete_returns_object: bool = False
    """DEL-4."""
    graceful: bool = False
    """Whether deletion may take time: pods and namespaces (DEL-5)."""

    shown: Callable[[bytes], bytes] | None = None
    """What is sent of a stored value of the kind, for kinds that keep more than they show; None: all of it."""

    stored: Kind | None = None
    """The kind whose stored objects these are in another form (events.k8s.io over core events; EVENT-2); None: its
    own. A server stores, watches and counts only `stored`, whose default, prepare and validate apply; bodies pass
    through the two functions below. Columns and fields of this kind read the typed object of `stored`."""
    stored_fields: Mapping[str, str] = field(default_factory=dict)
    """What `stored` calls the fields that this kind's selectors have other names for."""
    to_stored: Callable[[Object], Object] = same
    """A body of this kind as an object of `stored`: apiVersion and kind included; a new object."""
    from_stored: Callable[[Object], Object] = same
    """A stored object in this kind's form; a new object."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_name(self) -> str:
        return self.list_kind or f"{self.name}List"

    @property
    def resource(self) -> str:
        """Plural with group, as errors name it: `services`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular_name(self) -> str:
        return self.singular or self.name.lower()

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """URL path of the collection, one object or a subresource of it; `namespace` "" means all or none."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if self.namespaced and namespace:
            base += f"/namespaces/{namespace}"
        base += f"/{self.plural}"
        if name:
            base += f"/{name}"
        return f"{base}/{subresource}" if subresource else base

    def __hash__(self) -> int:
        return hash((self.group, self.version, self.plural))

    def __eq__(self, other: object) -> bool:
        return self is other
