"""What a Service's writer is told at once, and when nothing is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.api.pod import POD
from kubesvc.api.service import Service
from kubesvc.clock import RealClock
from kubesvc.controllers.slimpod import SlimPod
from kubesvc.why.advice import MOST_A_SECOND, ServiceAdviser, advise

from .planted import pod, service, typed, workload


def told(wanted: Object, *others: Object) -> str:
    pairs = [typed(o) for o in others]
    found = typed(wanted)[1]
    assert isinstance(found, Service)
    pods: list[Any] = [msgspec.convert(o, SlimPod) for o in others if o["kind"] == "Pod"]  # as controllers' caches hold
    return advise(found, pods, [(kind, o) for kind, o in pairs if kind is not POD], 0.0)


@dataclass(frozen=True)
class Row:
    """A Service, what else is in its namespace, and what its writer is told."""

    sentence: str
    service: Object
    others: tuple[Object, ...]
    said: str


NOW = "this Service selects nothing now: "
ROWS = (
    Row("a misspelt value", service(selector={"app": "wbe"}), (pod(),),
        NOW + "no Pod has the label app=wbe; 1 Pod has app=web: did you mean app=web? [EP101]"),
    Row("one label too many", service(selector={"app": "web", "v": "2"}), (pod(),),
        NOW + "no Pod has all of app=web,v=2: 1 Pod with app=web but not with v=2 [EP106]"),
    Row("a label of the Deployment only", service(selector={"tier": "a"}), (workload(labels={"tier": "a"}), pod()),
        NOW + "the label tier=a is on deployment/web itself, but not in its Pod template [EP104]"),
    Row("nothing there yet", service(), (),
        NOW + "nothing in namespace shop has the label app=web; there are no Pods [EP105]"),
    Row("a Deployment whose Pods will come", service(), (workload(),), ""),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.sentence)
def test_what_is_said(row: Row) -> None:
    assert told(row.service, *row.others) == row.said


class Still:
    """An informer of objects that do not change."""

    def __init__(self, objects: list[Any]) -> None:
        import asyncio

        self.objects = objects
        self.synced = asyncio.Event()
        self.synced.set()

    def in_namespace(self, namespace: str) -> list[Any]:
        return [o for o in self.objects if o.namespace == namespace]

    def count(self, namespace: str) -> int:
        return len(self.in_namespace(namespace))

    def index(self, name: str, of: Any) -> Any:
        from kubesvc.why.snapshot import _StillIndex

        del name
        return _StillIndex(self.objects, of)


class Factory:
    def __init__(self, *objects: Object) -> None:
        self.objects = objects

    def of(self, kind: Kind, *, decoded_as: Any = None) -> Still:
        return Still([msgspec.convert(o, decoded_as or kind.type) for o in self.objects if o["kind"] == kind.name])


def adviser(*objects: Object) -> ServiceAdviser:
    factory: Any = Factory(*objects)
    return ServiceAdviser(factory, RealClock())


def test_a_service_that_selects_something_is_not_spoken_of() -> None:
    assert adviser(pod()).warnings(service(), None) == []
    assert adviser(pod()).warnings(service(selector={}), None) == []
    assert adviser(pod()).warnings(service(selector={"app": "x"}, type="ExternalName"), None) == []


def test_only_a_change_of_what_is_selected_is_spoken_of() -> None:
    one = adviser(pod())
    wrong = service(selector={"app": "wbe"})
    assert len(one.warnings(wrong, None)) == 1
    assert one.warnings({**wrong, "metadata": {**wrong["metadata"], "labels": {"a": "b"}}}, wrong) == []
    assert len(one.warnings(wrong, service())) == 1


def test_a_flood_is_not_answered() -> None:
    one = adviser(pod())
    said = [len(one.warnings(service(selector={"app": f"x{i}"}), None)) for i in range(MOST_A_SECOND * 2)]
    assert sum(said) < MOST_A_SECOND * 2 and sum(said) >= MOST_A_SECOND


def test_where_many_pods_are_nobody_looks() -> None:
    many = [pod(f"p-{i}", {"app": f"a{i}"}, ip=f"10.1.{i // 250}.{i % 250}") for i in range(501)]
    assert adviser(*many).warnings(service(selector={"app": "a7x"}), None) == []
