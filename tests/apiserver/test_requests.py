"""From paths and headers to what is meant: routing, negotiation, options. Pure."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.errors import ApiError, BadRequest, Invalid, NotAcceptable
from kubesvc.api.kinds import CONFIG_MAP
from kubesvc.apiserver.bookkeeping import uuid_text
from kubesvc.apiserver.calls import warning_headers
from kubesvc.apiserver.negotiation import Form, negotiate
from kubesvc.apiserver.options import delete_options, list_options, patch_options, write_options
from kubesvc.apiserver.routing import kind_of, parse_target

TARGETS = (
    ("GET", "/api/v1/pods", False, ("list", "", "pods", "", "", "")),
    ("GET", "/api/v1/pods", True, ("watch", "", "pods", "", "", "")),
    ("GET", "/api/v1/watch/namespaces/a/pods", False, ("watch", "", "pods", "a", "", "")),
    ("GET", "/api/v1/namespaces/a", False, ("get", "", "namespaces", "a", "a", "")),
    ("PUT", "/api/v1/namespaces/a/finalize", False, ("update", "", "namespaces", "a", "a", "finalize")),
    ("GET", "/api/v1/namespaces/a/pods/p/log", False, ("get", "", "pods", "a", "p", "log")),
    (
        "DELETE",
        "/apis/apps/v1/namespaces/a/deployments",
        False,
        ("deletecollection", "apps", "deployments", "a", "", ""),
    ),
    ("POST", "/apis/apps/v1/namespaces/a/deployments/", False, ("create", "apps", "deployments", "a", "", "")),
    ("GET", "/api/v1/namespaces/a/pods/p", True, ("get", "", "pods", "a", "p", "")),
)


@pytest.mark.parametrize(("method", "path", "watch", "wanted"), TARGETS, ids=lambda v: str(v))
def test_target(method: str, path: str, watch: bool, wanted: tuple[str, ...]) -> None:
    t = parse_target(method, path, watch=watch)
    assert (t.verb, t.group, t.resource, t.namespace, t.name, t.subresource) == wanted


REFUSED = (
    ("GET", "/api/v1/nosuch", 404),
    ("GET", "/api/v1/Pods", 404),
    ("GET", "/api/v1/namespaces/a/nodes", 404),
    ("GET", "/api/v1//pods", 404),
    ("GET", "/api/v1/pods/p", 404),
    ("GET", "/api/v1/namespaces/a/configmaps/c/status", 404),
    ("POST", "/api/v1/pods", 405),
    ("DELETE", "/api/v1/pods", 405),
    ("HEAD", "/api/v1/namespaces/a/pods", 405),
    ("OPTIONS", "/api/v1/namespaces/a/pods", 405),
    ("POST", "/api/v1/namespaces/a/finalize", 405),
    ("DELETE", "/api/v1/namespaces", 405),
    ("PUT", "/api/v1/namespaces/a/pods", 405),
)


@pytest.mark.parametrize(("method", "path", "code"), REFUSED, ids=lambda v: str(v))
def test_what_is_not_served_is_404_or_405(method: str, path: str, code: int) -> None:
    with pytest.raises(ApiError) as caught:  # DISC-8
        kind_of(parse_target(method, path, watch=False))
    assert caught.value.status_code == code


TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
FORMS = (
    ("", Form()),
    ("*/*", Form()),
    (f"{TABLE},application/json", Form("json", "Table", "v1")),
    ("application/vnd.kubernetes.protobuf,application/json", Form()),
    ("application/json;as=Table;v=v9;g=meta.k8s.io,application/yaml", Form("yaml")),
    ("application/json;q=0.1,application/yaml", Form("yaml")),
)


@pytest.mark.parametrize(("accept", "form"), FORMS, ids=lambda v: str(v))
def test_the_first_clause_that_can_be_served_wins(accept: str, form: Form) -> None:
    assert negotiate(accept, transforms=True) == form  # TABLE-1, TABLE-8


@pytest.mark.parametrize(
    ("accept", "start"),
    [("image/png", "406: Not Acceptable"), ("application/json;as=Nothing;g=meta.k8s.io;v=v1", "only the following")],
)
def test_what_cannot_be_served_is_406(accept: str, start: str) -> None:
    with pytest.raises(NotAcceptable, match=start):  # TABLE-4
        negotiate(accept, transforms=True)


def test_options_that_do_not_go_together() -> None:
    with pytest.raises(Invalid, match="resourceVersionMatch is forbidden unless resourceVersion is provided"):
        list_options(CONFIG_MAP, {"resourceVersionMatch": ["Exact"]}, watch=False)
    with pytest.raises(Invalid, match="sendInitialEvents requires setting resourceVersionMatch"):  # WATCH-5
        list_options(CONFIG_MAP, {"sendInitialEvents": ["true"]}, watch=True)
    with pytest.raises(BadRequest, match=r'ParseInt: parsing "x": invalid syntax'):  # LIST-5
        list_options(CONFIG_MAP, {"limit": ["x"]}, watch=False)
    with pytest.raises(Invalid, match="is required for apply patch"):  # APPLY-1
        patch_options({}, "kubectl/1", apply=True)
    with pytest.raises(Invalid, match="may not be specified for non-apply patch"):
        patch_options({"force": ["true"]}, "kubectl/1", apply=False)
    with pytest.raises(Invalid, match=r'dryRun: Unsupported value: \["Yes"\]'):  # OPT-1
        write_options({"dryRun": ["Yes"]}, "", "CreateOptions")
    with pytest.raises(Invalid, match="cannot be both set"):  # DEL-2
        delete_options({}, {"propagationPolicy": "Orphan", "orphanDependents": True}, "")


def test_the_manager_is_the_user_agent_up_to_the_slash() -> None:
    assert write_options({}, "kubectl/v1.37.1 (linux)", "CreateOptions").manager == "kubectl"  # APPLY-6
    assert write_options({"fieldManager": ["m"]}, "kubectl/v1", "CreateOptions").manager == "m"


LONG = "x" * 300
WARNINGS: tuple[tuple[str, list[str], list[str]], ...] = (
    ("each once, in order", ["b", "a", "b", ""], ['299 - "b"', '299 - "a"']),
    ("quotes and backslashes escaped", ['say "a\\b"'], ['299 - "say \\"a\\\\b\\""']),
    ("control characters never", ["a\nb", "c\x7f", "d\x85", "e\r\nX: y", "ok"], ['299 - "ok"']),
    ("nor half characters", ["a\ud800"], []),
    ("others as they are", ["é\u2028𝕏"], ['299 - "é\u2028𝕏"']),
    ("long ones whole while there is room", [LONG, "b"], [f'299 - "{LONG}"', '299 - "b"']),
    ("cut short when there is not", [LONG[:-2] + str(i).zfill(2) for i in range(14)],
     [f'299 - "{LONG[:256]}"' for i in range(14)]),
    ("and then left out", [str(i).zfill(3) + LONG for i in range(100)],
     [f'299 - "{str(i).zfill(3) + LONG[:253]}"' for i in range(16)]),
    ("many short ones all go", [f"w{i}" for i in range(300)], [f'299 - "w{i}"' for i in range(300)]),
)  # fmt: skip


@pytest.mark.parametrize(("name", "texts", "wanted"), WARNINGS, ids=lambda v: v if isinstance(v, str) else "")
def test_warnings_fit_into_headers(name: str, texts: list[str], wanted: list[str]) -> None:
    """WARN-1."""
    assert warning_headers(texts) == wanted


@given(st.integers(min_value=0, max_value=1 << 130))
def test_identifiers_are_uuids_of_version_4(bits: int) -> None:
    assert uuid_text(bits) == str(uuid.UUID(int=bits % (1 << 128), version=4))
