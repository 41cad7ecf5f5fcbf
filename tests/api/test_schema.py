"""The schema table: what it must know for merging and decoding (3.3)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from kubesvc.api import kinds, schema
from kubesvc.api.kind import Kind

CORE = "io.k8s.api.core.v1."


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda k: f"{k.name}.{k.api_version}")
def test_every_kind_has_its_definition(kind: Kind) -> None:
    found = schema.by_kind(kind.group, kind.version, kind.name)
    assert found is not None
    assert found.name == kind.schema
    assert found.fields["metadata"].ref.endswith(".ObjectMeta")


def test_every_reference_leads_somewhere() -> None:
    for name in schema.names():
        for field in schema.definition(name).fields.values():
            inner: schema.Field | None = field
            while inner is not None:
                if inner.ref:
                    assert schema.definition(inner.ref).name == inner.ref
                inner = inner.items


MERGING = (
    # object, field, key of strategic merges, strategy, keys of apply, type of list
    (CORE + "ServiceSpec", "ports", "port", ("merge",), ("port", "protocol"), "map"),
    (CORE + "ServiceSpec", "externalIPs", "", (), (), "atomic"),
    (CORE + "PodSpec", "containers", "name", ("merge",), ("name",), "map"),
    (CORE + "PodSpec", "volumes", "name", ("merge", "retainKeys"), ("name",), "map"),
    (CORE + "PodSpec", "tolerations", "", (), (), "atomic"),
    (CORE + "Container", "ports", "containerPort", ("merge",), ("containerPort", "protocol"), "map"),
    (CORE + "Endpoints", "subsets", "", (), (), "atomic"),
    ("io.k8s.api.discovery.v1.EndpointSlice", "endpoints", "", (), (), "atomic"),
    ("io.k8s.api.discovery.v1.Endpoint", "addresses", "", (), (), "set"),
    (CORE + "PodStatus", "conditions", "type", ("merge",), ("type",), "map"),
    (CORE + "PodStatus", "podIPs", "ip", ("merge",), ("ip",), "map"),
    (CORE + "PodStatus", "hostIPs", "ip", ("merge",), (), "atomic"),
    (CORE + "PodSpec", "hostAliases", "ip", ("merge",), ("ip",), "map"),
    (
        CORE + "PodSpec",
        "topologySpreadConstraints",
        "topologyKey",
        ("merge",),
        ("topologyKey", "whenUnsatisfiable"),
        "map",
    ),
    (CORE + "NodeSpec", "podCIDRs", "", ("merge",), (), "set"),
    (CORE + "NodeSpec", "taints", "", (), (), "atomic"),
    (CORE + "ServiceAccount", "secrets", "name", ("merge",), ("name",), "map"),
    (CORE + "ServiceAccount", "imagePullSecrets", "", (), (), "atomic"),
    (CORE + "ServiceStatus", "conditions", "type", ("merge",), ("type",), "map"),
    (CORE + "NodeStatus", "addresses", "type", ("merge",), ("type",), "map"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers", "", ("merge",), (), "set"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "ownerReferences", "uid", ("merge",), ("uid",), "map"),
)


@pytest.mark.parametrize("row", MERGING, ids=lambda r: f"{r[0].rsplit('.', 1)[1]}.{r[1]}")
def test_merge_keys(row: tuple[str, str, str, tuple[str, ...], tuple[str, ...], str]) -> None:
    """3.3."""
    name, field_name, key, strategy, keys, list_type = row
    field = schema.definition(name).fields[field_name]
    assert (field.patch_merge_key, field.patch_strategy) == (key, strategy)
    assert (tuple(sorted(field.list_map_keys)), field.list_type) == (tuple(sorted(keys)), list_type)


def test_the_table_is_the_one_its_maker_makes() -> None:
    """Made twice it is the same, and the checkout's is not older than the maker."""
    pytest.importorskip("kubernetes_validate", reason="the definitions the table is made from are not installed")
    script = Path(__file__).parents[2] / "tools" / "make_schemas.py"
    spec = importlib.util.spec_from_file_location("make_schemas", script)
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.build() == schema.FILE.read_bytes()


def test_fields_are_found_by_path() -> None:
    port = schema.field_at(CORE + "Service", "spec", "ports", "port")
    assert port is not None and (port.type, port.format, port.zero_absent) == ("integer", "int32", False)
    assert schema.field_at(CORE + "Service", "spec", "nosuch") is None
    assert schema.by_kind("", "v1", "NoSuch") is None
    assert schema.definition(CORE + "ServiceSpec").go == "v1.ServiceSpec"


def test_descriptions_are_loaded_by_themselves() -> None:
    assert "port" in schema.description(CORE + "ServicePort").fields["port"]


def test_importing_reads_nothing() -> None:
    """A process that never asks for a schema never pays for the table."""
    code = "from kubesvc.api import schema; assert schema.section.cache_info().currsize == 0"
    source = Path(schema.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=source, env={"PYTHONPATH": str(source)})
