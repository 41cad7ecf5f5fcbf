"""What the proxy keeps of objects says the same of traffic as the whole objects do."""

from __future__ import annotations

import msgspec
import pytest

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.service import Service
from kubesvc.proxy.metrics import TRIGGER_TIME
from kubesvc.proxy.slim import SlimService, SlimSlice
from kubesvc.proxy.traffic import Family, plan_service, service_of

from .objects import place
from .packets import CASES, Case

ROWS = [(case, family) for case in CASES for family in case.families]

WHOLE = b"""{"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
"metadata": {"name": "web-x", "namespace": "shop", "uid": "u1", "resourceVersion": "7", "generation": 3,
  "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"kubernetes.io/service-name": "web", "app": "web"},
  "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:01Z", "other": "thing"},
  "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "u0"}],
  "managedFields": [{"manager": "m"}]},
"addressType": "IPv4",
"endpoints": [
  {"addresses": ["10.244.1.2"], "conditions": {"ready": true, "serving": true, "terminating": false}, "nodeName": "n1",
   "zone": "z1", "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1", "uid": "u2"},
   "hints": {"forZones": [{"name": "z1"}]}},
  {"addresses": ["10.244.2.2"], "conditions": {"ready": true, "serving": true, "terminating": false}, "nodeName": "n2"},
  {"addresses": ["10.244.2.3"], "conditions": {}}],
"ports": [{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "http"}]}"""


@pytest.mark.parametrize(("case", "family"), ROWS, ids=lambda row: row.name if isinstance(row, Case) else str(row))
def test_traffic_is_planned_the_same(case: Case, family: Family) -> None:
    """Of every row of the packet table."""
    services, slices = case.make(family)
    slim = [msgspec.json.decode(msgspec.json.encode(s), type=SlimSlice) for s in slices]
    for service in services:
        small = msgspec.json.decode(msgspec.json.encode(service), type=SlimService)
        whole = plan_service(service, slices, place(case.zone), family)
        assert plan_service(small, slim, place(case.zone), family) == whole  # type: ignore[arg-type]


def test_a_whole_slice_is_read_and_equal_parts_are_kept_once() -> None:
    slim = msgspec.json.decode(WHOLE, type=SlimSlice)
    whole = msgspec.json.decode(WHOLE, type=EndpointSlice)
    assert service_of(slim) == service_of(whole) == ("shop", "web")  # type: ignore[arg-type]
    assert slim.metadata.annotation(TRIGGER_TIME) == "2026-01-01T00:00:01Z"
    assert slim.endpoints
    first, second = slim.endpoints[:2]
    assert first.conditions is second.conditions and first.conditions is not None


def test_what_is_not_kept_cannot_be_read_by_mistake() -> None:
    slim = msgspec.json.decode(WHOLE, type=SlimSlice)
    for read in (slim.metadata.label, slim.metadata.annotation):
        with pytest.raises(KeyError, match="app: not kept"):
            read("app")


@pytest.mark.parametrize("labels", [b"{}", b"null"])
def test_a_slice_without_labels_is_no_service_s(labels: bytes) -> None:
    """PROXY-9."""
    bare = b'{"metadata": {"name": "x", "namespace": "shop", "labels": ' + labels + b', "annotations": null}}'
    slim = msgspec.json.decode(bare, type=SlimSlice)
    assert service_of(slim) is None and slim.metadata.annotation(TRIGGER_TIME) == ""  # type: ignore[arg-type]


def test_annotations_of_services_are_not_kept() -> None:
    plain = (
        b'{"metadata": {"name": "web", "annotations": {"a": "b"}, "labels": {"c": "d"}}, "spec": {"type": "NodePort"}}'
    )
    slim, whole = msgspec.json.decode(plain, type=SlimService), msgspec.json.decode(plain, type=Service)
    assert slim.metadata.labels == {"c": "d"} and (slim.spec, slim.status) == (whole.spec, whole.status)
    assert not hasattr(slim.metadata, "annotations")
