"""Fixtures for pytest; pytest finds them where kubesvc is installed.

    def test_my_controller(kubesvc_instance, kubesvc_namespace):
        kubesvc_instance.apply("deploy/", namespace=kubesvc_namespace)
        kubesvc_instance.wait("svc/web", kubesvc_namespace)

`kubesvc_instance` is one instance for the whole session (with xdist: one per worker), `kubesvc_namespace` a namespace
of its own for each test. When a test fails that uses it, the report says why the Services in it do not work. Settings:
`kubesvc_nodes` (default 1; 0 for API server and controllers alone) and `kubesvc_options` (of `kubesvc up`).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import Cluster

LONGEST_NAME = 40


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("kubesvc_nodes", "real nodes of the instance (0: API server and controllers alone)", default="1")
    parser.addini("kubesvc_options", "further options of `kubesvc up`", type="args", default=[])


@pytest.fixture(scope="session")
def kubesvc_instance(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """A running instance, shared by the tests of the session (`kubesvc.testing.Cluster`)."""
    from .testing import start

    nodes, options = int(pytestconfig.getini("kubesvc_nodes")), pytestconfig.getini("kubesvc_options")
    with start(nodes=nodes, options=tuple(options)) as cluster:
        yield cluster


@pytest.fixture
def kubesvc_namespace(kubesvc_instance: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a namespace that this test alone uses; removed afterwards."""
    name = name_for(request.node.name, request.session)
    kubesvc_instance.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    kubesvc_instance.delete_namespace(name)


def name_for(test: str, session: Any) -> str:
    """A name for a namespace that tells the test, and that no other test of the session has."""
    number = session.stash[NUMBER] = session.stash.get(NUMBER, 0) + 1
    text = re.sub("[^a-z0-9]+", "-", test.lower()).strip("-")[:LONGEST_NAME].strip("-")
    return f"{text or 'test'}-{number}"


NUMBER = pytest.StashKey[int]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Say beside a failure why the Services of the test's namespace do not work."""
    report = yield
    used = getattr(item, "funcargs", {})
    if call.when == "call" and report.failed and "kubesvc_namespace" in used:
        cluster: Cluster = used["kubesvc_instance"]
        report.sections.append(("kubesvc why", cluster.explain(used["kubesvc_namespace"])))
    return report
