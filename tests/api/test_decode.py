"""Bodies: what is read, what is dropped and told, and the words for what is refused (WRITE-2, OPT-2 to OPT-4)."""

from __future__ import annotations

import copy
import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.decode import Target, decode_body, decode_plain
from kubesvc.api.errors import BadRequest, UnsupportedMediaType
from kubesvc.api.exact import Pairs, Walk, literal
from kubesvc.api.quick import quick_json, quick_plain
from kubesvc.api.schema import definition

CORE = "io.k8s.api.core.v1."
SERVICE = Target("", "v1", "Service", CORE + "Service")
POD = Target("", "v1", "Pod", CORE + "Pod")
CONFIG_MAP = Target("", "v1", "ConfigMap", CORE + "ConfigMap")
SECRET = Target("", "v1", "Secret", CORE + "Secret")
DEPLOYMENT = Target("apps", "v1", "Deployment", "io.k8s.api.apps.v1.Deployment")
AS_SERVICE = 'Service in version "v1" cannot be handled as a Service: '
UNRECOGNIZED = "the object provided is unrecognized (must be of type Service): "
JSON_ERROR = UNRECOGNIZED + "couldn't get version/kind; json parse error: "


class Refusal(NamedTuple):
    name: str
    body: Any
    message: str
    target: Target = SERVICE
    media: str = "application/json"
    validation: str = "Warn"


def port(value: Any) -> dict[str, Any]:
    return {"spec": {"ports": [value]}}


REFUSALS = (
    Refusal("OPT-4: a text for a number", port({"port": "80"}),
            AS_SERVICE
            + "json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32"),
    Refusal("OPT-4: a fraction for a whole number", port({"port": 80.5}),
            AS_SERVICE
            + "json: cannot unmarshal number 80.5 into Go struct field ServicePort.spec.ports.port of type int32"),
    Refusal("OPT-4: 80.0 is no integer in Go", b'{"spec":{"ports":[{"port":80.0}]}}',
            AS_SERVICE
            + "json: cannot unmarshal number 80.0 into Go struct field ServicePort.spec.ports.port of type int32"),
    Refusal("OPT-4: past 32 bits", port({"port": 2**31}),
            AS_SERVICE
            + "json: cannot unmarshal number 2147483648 into Go struct field "
            "ServicePort.spec.ports.port of type int32"),
    Refusal("OPT-4: an object for a list", {"spec": {"ports": {"port": 80}}},
            AS_SERVICE
            + "json: cannot unmarshal object into Go struct field ServiceSpec.spec.ports of type []v1.ServicePort"),
    Refusal("OPT-4: a list for an object", {"spec": []},
            AS_SERVICE + "json: cannot unmarshal array into Go struct field Service.spec of type v1.ServiceSpec"),
    Refusal("OPT-4: a number in a map of texts", {"spec": {"selector": {"a": 1}}},
            AS_SERVICE + "json: cannot unmarshal number into Go struct field ServiceSpec.spec.selector of type string"),
    Refusal("OPT-4: a text for a boolean", {"spec": {"publishNotReadyAddresses": "true"}},
            AS_SERVICE + "json: cannot unmarshal string into Go struct field "
            "ServiceSpec.spec.publishNotReadyAddresses of type bool"),
    Refusal("OPT-4: a named text type", {"spec": {"type": 1}},
            AS_SERVICE
            + "json: cannot unmarshal number into Go struct field ServiceSpec.spec.type of type v1.ServiceType"),
    Refusal("OPT-4: a boolean for a port that may be a name", port({"port": 1, "targetPort": True}),
            AS_SERVICE + "json: cannot unmarshal bool into Go struct field "
            "ServicePort.spec.ports.targetPort of type int32"),
    Refusal("OPT-4: the first wrong type is told", {"metadata": {"name": 1}, "spec": []},
            AS_SERVICE + "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string"),
    Refusal("a time that is none", {"metadata": {"creationTimestamp": "x"}},
            AS_SERVICE + 'parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006"'),
    Refusal("a month that is none", {"metadata": {"creationTimestamp": "2024-13-01T00:00:00Z"}},
            AS_SERVICE + 'parsing time "2024-13-01T00:00:00Z": month out of range'),
    Refusal("a quantity that is none", {"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}},
            'Pod in version "v1" cannot be handled as a Pod: quantities must match the regular expression '
            "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'", POD),
    Refusal("bytes that are no base64", {"data": {"a": "not base64!"}},
            'Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte 3', SECRET),
    Refusal("OPT-2: unknown fields, in the order of the body",
            {"spec": {"ports": [{"port": 80, "prot": 1}], "bogus": 1}},
            AS_SERVICE + 'strict decoding error: unknown field "spec.ports[0].prot", unknown field "spec.bogus"',
            validation="Strict"),
    Refusal("OPT-3: names are case-sensitive", {"spec": {"Ports": []}},
            AS_SERVICE + 'strict decoding error: unknown field "spec.Ports"', validation="Strict"),
    Refusal("OPT-2: keys given twice", b'{"metadata":{"name":"a","name":"b"},"spec":{"selector":{"a":"1","a":"2"}}}',
            AS_SERVICE + 'strict decoding error: duplicate field "metadata.name", duplicate field "spec.selector.a"',
            validation="Strict"),
    Refusal("OPT-3: YAML keys given twice, by line", b"metadata:\n  name: a\n  name: b\nbogus: 1\n",
            AS_SERVICE + 'strict decoding error: yaml: unmarshal errors:\n  line 3: key "name" already set in map, '
            'unknown field "bogus"', media="application/yaml", validation="Strict"),
    Refusal("WRITE-2: a version nobody knows", {"apiVersion": "v2", "kind": "Service"},
            'Service in version "v2" cannot be handled as a Service: no kind "Service" is registered for version "v2" '
            'in scheme "pkg/api/legacyscheme/scheme.go:30"'),
    Refusal("WRITE-2: a kind nobody knows", {"apiVersion": "v1", "kind": "Svc"},
            'Svc in version "v1" cannot be handled as a Service: no kind "Svc" is registered for version "v1" '
            'in scheme "pkg/api/legacyscheme/scheme.go:30"'),
    Refusal("WRITE-2: another known kind", {"apiVersion": "v1", "kind": "Pod"},
            'Pod in version "v1" cannot be handled as a Service: converting (v1.Pod) to (core.Service): '
            "unknown conversion"),
    Refusal("WRITE-2: a version that once was", {"apiVersion": "apps/v1beta1", "kind": "Deployment"},
            "the API version in the data (apps/v1beta1) does not match the expected API version (apps/v1)", DEPLOYMENT),
    Refusal("no JSON at all", b'{"a":', JSON_ERROR + 'unexpected end of JSON input ({"a":)'),
    Refusal("an empty body", b"", JSON_ERROR + "unexpected end of JSON input (<empty>)"),
    Refusal("a list", b"[]", JSON_ERROR + "json: cannot unmarshal array into Go value of type struct { APIVersion "
            'string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" } (5b5d)'),
    Refusal("something after the object", b'{"metadata":{"name":"web-with-a-long-name"}}x', JSON_ERROR
            + "invalid character 'x' after top-level value ({\"metadata\":{\"name\":\"web-with- ...)"),
    Refusal("no YAML", b"a: [b", UNRECOGNIZED + "yaml: line 1: did not find expected ',' or ']' (613a205b62)",
            media="application/yaml"),
    Refusal("y is a boolean in YAML 1.1", b"metadata:\n  name: y\n",
            AS_SERVICE + "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.name of type string",
            media="application/yaml"),
    Refusal("nesting without end", b'{"a":' + b"[" * 20_000, JSON_ERROR + "exceeded max depth ("
            + '{"a":' + "[" * 25 + " ...)"),
)  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS, ids=lambda c: c.name)
def test_refused(case: Refusal) -> None:
    raw = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    with pytest.raises(BadRequest) as e:
        decode_body(raw, case.media, case.target, case.validation)
    assert e.value.message == case.message


def test_other_media_types_are_refused() -> None:
    """WRITE-11."""
    with pytest.raises(UnsupportedMediaType, match="unknown format"):
        decode_body(b"x", "text/plain", SERVICE)


class Reading(NamedTuple):
    name: str
    body: Any
    part: Any
    warnings: tuple[str, ...] = ()
    target: Target = SERVICE


READINGS = (
    Reading("null is absent", {"metadata": {"creationTimestamp": None, "labels": None}, "spec": None},
            {"metadata": {}}),
    Reading("a zero that means absent goes, one that does not stays",
            {"spec": {"clusterIP": "", "ports": [{"port": 0, "nodePort": 0}], "allocateLoadBalancerNodePorts": False}},
            {"spec": {"ports": [{"port": 0}], "allocateLoadBalancerNodePorts": False}}),
    Reading("empty lists and maps go, empty objects stay",
            {"spec": {"selector": {}, "externalIPs": []}, "status": {"loadBalancer": {}}},
            {"spec": {}, "status": {"loadBalancer": {}}}),
    Reading("an empty managedFields says something (APPLY-6)", {"metadata": {"managedFields": []}},
            {"metadata": {"managedFields": []}}),
    Reading("unknown fields go and are told (OPT-2)", {"metadata": {"name": "a"}, "spec": {"x": {"y": 1}}},
            {"metadata": {"name": "a"}, "spec": {}}, ('unknown field "spec.x"',)),
    Reading("the last of two keys counts, objects given twice are one",
            b'{"metadata":{"name":"a"},"metadata":{"namespace":"n","namespace":"m"}}',
            {"metadata": {"name": "a", "namespace": "m"}},
            ('duplicate field "metadata"', 'duplicate field "metadata.namespace"')),
    Reading("a null in a map of texts is an empty text", {"spec": {"selector": {"a": None}}},
            {"spec": {"selector": {"a": ""}}}),
    Reading("quantities become canonical",
            {"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1000m", "memory": 1024}}}]}},
            {"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1024"}}}]}},
            target=POD),
    Reading("times become UTC and whole seconds", {"metadata": {"creationTimestamp": "2024-01-02T03:04:05.6+01:00"}},
            {"metadata": {"creationTimestamp": "2024-01-02T02:04:05Z"}}),
    Reading("base64 is written the usual way", {"data": {"a": "YW\nJj"}}, {"data": {"a": "YWJj"}}, target=SECRET),
    Reading("half a surrogate pair is no character",
            b'{"metadata":{"name":"a\\ud800"}}', {"metadata": {"name": "a\ufffd"}}),
    Reading("bytes that are no UTF-8", b'{"metadata":{"name":"a\xff"}}', {"metadata": {"name": "a\ufffd"}}),
    Reading("numbers and names of ports", {"spec": {"ports": [{"port": 1, "targetPort": "http"}]}},
            {"spec": {"ports": [{"port": 1, "targetPort": "http"}]}}),
)  # fmt: skip


@pytest.mark.parametrize("case", READINGS, ids=lambda c: c.name)
def test_read(case: Reading) -> None:
    raw = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    found = decode_body(raw, "", case.target)
    wanted = {"apiVersion": "v1", "kind": case.target.name, **case.part}
    assert found.obj == wanted
    assert found.warnings == case.warnings
    assert decode_body(raw, "", case.target, "Ignore").warnings == ()


def test_yaml_reads_like_json() -> None:
    text = b"apiVersion: v1\nkind: Service\nspec:\n  ports: [{port: 80, targetPort: 0x50}]\n  selector: {a: 'y'}\n"
    found = decode_body(text, "application/yaml", SERVICE)
    assert found.obj["spec"] == {"ports": [{"port": 80, "targetPort": 80}], "selector": {"a": "y"}}


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(BadRequest, match="excessive aliasing"):
        decode_body("\n".join(lines).encode(), "application/yaml", SERVICE)


def test_plain_objects_are_copied() -> None:
    given_: dict[str, Any] = {"metadata": {"labels": {"a": "b"}}, "spec": {"ports": [{"port": 1}]}}
    found = decode_plain(given_, SERVICE).obj
    found["metadata"]["labels"]["c"] = "d"
    found["spec"]["ports"][0]["port"] = 2
    assert given_ == {"metadata": {"labels": {"a": "b"}}, "spec": {"ports": [{"port": 1}]}}


SCALARS = st.sampled_from([None, "", "a", 'q"\\', "10.0.0.5", 0, 1, 80, -1, 2**31, 1.5, 80.0, True, False])
NAMES = st.sampled_from(
    ["metadata", "name", "labels", "annotations", "creationTimestamp", "spec", "ports", "port", "targetPort",
     "nodePort", "selector", "clusterIP", "type", "bogus", "status", "loadBalancer", "ingress", "ip", "managedFields",
     "fieldsV1"]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
VALID: dict[str, Any] = {
    "apiVersion": "v1", "kind": "Service",
    "metadata": {"name": "web", "labels": {"a": "b"}, "annotations": {"n": 'say "null": null'}},
    "spec": {"ports": [{"name": "h", "port": 80, "targetPort": "web", "nodePort": 30000}], "selector": {"a": "b"}},
    "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
}  # fmt: skip
PLACES = st.lists(st.sampled_from(["metadata", "spec", "status", "ports", "labels", "loadBalancer"]), max_size=3)


@settings(max_examples=300, deadline=None)
@given(place=PLACES, name=NAMES, value=VALUES, compact=st.booleans())
def test_both_readers_agree(place: list[str], name: str, value: Any, compact: bool) -> None:
    """Whatever the quick reader accepts, the exact one reads as the same object, without anything to tell."""
    body = copy.deepcopy(VALID)
    here: Any = body
    for step in place:
        here = here.get(step, here) if isinstance(here, dict) else here
        here = here[0] if isinstance(here, list) else here
    here[name] = value
    raw = json.dumps(body, separators=(",", ":") if compact else None).encode()
    quick = quick_json(raw, SERVICE.schema)
    plain = quick_plain(body, SERVICE.schema)
    if quick is None:
        return
    walk = Walk()
    pairs = json.loads(raw, object_pairs_hook=Pairs, parse_float=literal)
    assert walk.struct(pairs, definition(SERVICE.schema), "", "", {}) == quick
    assert (walk.error, walk.strict) == ("", [])
    assert plain is None or plain == quick


@settings(max_examples=100, deadline=None)
@given(value=VALUES)
def test_decoding_never_fails_otherwise_than_by_a_refusal(value: Any) -> None:
    raw = json.dumps(value).encode()
    for media in ("application/json", "application/yaml"):
        try:
            found = decode_body(raw, media, SERVICE)
        except BadRequest:
            continue
        assert decode_plain(found.obj, SERVICE).obj == found.obj


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for media in ("application/json", "application/yaml"):
        try:
            decode_body(raw, media, SERVICE)
        except BadRequest:
            pass
