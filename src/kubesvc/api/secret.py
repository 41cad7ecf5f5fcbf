"""Secret: named values that are shown to few."""

from __future__ import annotations

import base64
import binascii

import msgspec

from . import checks, fields, gojson, names, shape
from .checks import part
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation
from .meta import Object, Typed


class Secret(Typed, frozen=True):
    data: dict[str, str] | None = None
    """Values in base64, as the wire has them."""
    type: str = ""
    immutable: bool | None = None


DATA = Path("data")
MOST_BYTES = 1024 * 1024
BASIC_AUTH, SSH_AUTH = "kubernetes.io/basic-auth", "kubernetes.io/ssh-auth"
TLS, TOKEN = "kubernetes.io/tls", "kubernetes.io/service-account-token"
DOCKER_OLD, DOCKER = "kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson"
ACCOUNT_NAME = "kubernetes.io/service-account.name"


def default(obj: Object) -> None:
    """Opaque; what came as text in stringData is data from now on."""
    shape.normalize(obj, Secret)
    plain_texts = obj.pop("stringData", None)
    if plain_texts:
        encoded = {k: base64.b64encode((v or "").encode()).decode() for k, v in plain_texts.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}
    obj.setdefault("type", "Opaque")


def decoded(value: str) -> bytes:
    """What a text in base64 holds; nothing for what is none."""
    try:
        return base64.b64decode(value or "", validate=True)
    except (ValueError, binascii.Error):
        return b""  # refused when it was decoded


def validate(obj: Object, _: Situation) -> Errors:
    """Keys are file names, and known types have their keys."""
    data = part(obj, "data")
    errors: Errors = []
    for key in data:
        errors += checks.texts(DATA.key(key), key, names.config_key(key))
    if sum(len(decoded(v)) for v in data.values()) > MOST_BYTES:
        errors.append(fields.too_long(DATA, MOST_BYTES))
    type_ = obj.get("type")
    if type_ == TOKEN and not (part(obj, "metadata").get("annotations") or {}).get(ACCOUNT_NAME):
        errors.append(fields.required((Path("metadata") / "annotations").key(ACCOUNT_NAME)))
    elif type_ in (DOCKER_OLD, DOCKER):
        key = ".dockercfg" if type_ == DOCKER_OLD else ".dockerconfigjson"
        errors += validate_json(data, key)
    elif type_ == BASIC_AUTH and not data.keys() & {"username", "password"}:
        errors += [fields.required(DATA.key(k)) for k in ("username", "password")]
    elif type_ == SSH_AUTH and not data.get("ssh-privatekey"):
        errors.append(fields.required(DATA.key("ssh-privatekey")))
    elif type_ == TLS:
        errors += [fields.required(DATA.key(k)) for k in ("tls.crt", "tls.key") if k not in data]
    return errors


def validate_json(data: Object, key: str) -> Errors:
    if key not in data:
        return [fields.required(DATA.key(key))]
    text = decoded(data[key])
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        problem = gojson.syntax_error(text)
    else:
        what = "" if found is None or isinstance(found, dict) else gojson.type_word(found)
        problem = f"json: cannot unmarshal {what} into Go value of type map[string]interface {{}}" if what else ""
    return [fields.invalid(DATA.key(key), "<secret contents redacted>", problem)] if problem else []


def prepare_update(new: Object, old: Object) -> None:
    """A type that is not given stays."""
    if not new.get("type"):
        new["type"] = old.get("type", "Opaque")


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """The type is for ever, and so is all of an immutable secret."""
    errors = checks.immutable(new, old, "type", Path())
    if old.get("immutable"):
        if not new.get("immutable"):
            errors.append(fields.forbidden("immutable", "field is immutable when `immutable` is set"))
        if part(new, "data") != part(old, "data"):
            errors.append(fields.forbidden("data", "field is immutable when `immutable` is set"))
    return errors + validate(new, situation)


SECRET = Kind(
    group="",
    version="v1",
    name="Secret",
    plural="secrets",
    namespaced=True,
    type=Secret,
    schema="io.k8s.api.core.v1.Secret",
    default=default,
    prepare_update=prepare_update,
    validate=validate,
    validate_update=validate_update,
    columns=(
        Column("Name", lambda s: s.name, format="name"),
        Column("Type", lambda s: s.type),
        Column("Data", lambda s: len(s.data or {})),  # KCTL-25
        Column("Age", lambda s: Since(s.metadata.creation_timestamp)),
    ),
    fields={"type": lambda s: s.type},
)
