"""Role based access control over HTTP, and what rules cover (AUTH-3, AUTH-4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kubesvc.api.rbac import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING, PolicyRule, Subject
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.authentication import User
from kubesvc.apiserver.authorization import Attributes
from kubesvc.apiserver.rbac import applies, covered, rule_allows

from .running import SETTINGS, Http, with_http

ALICE = User("alice", groups=("devs", "system:authenticated"))
GROUP = "rbac.authorization.k8s.io"


def rule(verbs: str, groups: str, resources: str, names: str = "") -> PolicyRule:
    return PolicyRule(
        verbs=verbs.split(),
        api_groups=["" if g == "core" else g for g in groups.split()],
        resources=resources.split(),
        resource_names=names.split() or None,
    )


RULES = (
    ("the very resource", rule("get", "core", "pods"), Attributes(ALICE, "get", resource="pods"), True),
    ("another verb", rule("get", "core", "pods"), Attributes(ALICE, "list", resource="pods"), False),
    ("another group", rule("get", "apps", "pods"), Attributes(ALICE, "get", resource="pods"), False),
    ("everything", rule("*", "*", "*"), Attributes(ALICE, "get", "x", "v1", "y", "status"), True),
    (
        "a resource is not its subresource", rule("get", "core", "pods"),
        Attributes(ALICE, "get", resource="pods", subresource="log"), False,
    ),
    (
        "a subresource of any resource", rule("get", "core", "*/log"),
        Attributes(ALICE, "get", resource="pods", subresource="log"), True,
    ),
    ("a name", rule("get", "core", "pods", "p"), Attributes(ALICE, "get", resource="pods", name="p"), True),
    ("a list names nothing", rule("list", "core", "pods", "p"), Attributes(ALICE, "list", resource="pods"), False),
    (
        "a path below a star", PolicyRule(verbs=["get"], non_resource_urls=["/api/*"]),
        Attributes(ALICE, "get", path="/api/v1"), True,
    ),
    ("rules for resources open no path", rule("*", "*", "*"), Attributes(ALICE, "get", path="/api"), False),
)  # fmt: skip


@pytest.mark.parametrize(("name", "given", "access", "allowed"), RULES, ids=lambda v: v if isinstance(v, str) else "")
def test_rule(name: str, given: PolicyRule, access: Attributes, allowed: bool) -> None:
    assert rule_allows(given, access) is allowed


def test_subjects_are_users_groups_and_accounts() -> None:
    assert applies([Subject(kind="User", name="alice")], ALICE, "ns") == 'User "alice"'
    assert applies([Subject(kind="Group", name="devs")], ALICE, "ns") == 'Group "devs"'
    account = User("system:serviceaccount:ns:robot")
    assert applies([Subject(kind="ServiceAccount", name="robot")], account, "ns") == 'ServiceAccount "robot/ns"'
    assert applies([Subject(kind="ServiceAccount", name="robot", namespace="other")], account, "ns") == ""
    assert applies([Subject(kind="Group", name="alice")], ALICE, "ns") == ""


def test_several_rules_may_cover_one() -> None:
    held = [rule("get", "core", "pods"), rule("list", "core", "pods services")]
    assert covered(rule("get list", "core", "pods"), held)
    assert not covered(rule("get list", "core", "pods services"), held)
    assert not covered(rule("*", "core", "pods"), held)
    assert not covered(rule("get", "core", "pods"), [rule("get", "core", "pods", "only-this")])


def test_a_binding_opens_a_namespace_and_no_more(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv"
    tokens.write_text('at,alice,u1,"devs"\nbt,bob,u2\n')

    async def run(s: ApiServer, http: Http) -> None:
        services = "/api/v1/namespaces/default/services"
        status, _, refused = await http.request("GET", services, Authorization="Bearer at")
        assert status == 403 and refused["message"] == (
            'services is forbidden: User "alice" cannot list resource "services" in API group "" in the namespace '
            '"default"'
        )
        rules = [{"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "watch"]}]
        await s.client.create(ROLE, {"metadata": {"name": "r"}, "rules": rules}, "default")
        reference = {"apiGroup": GROUP, "kind": "Role", "name": "r"}
        subjects = [{"apiGroup": GROUP, "kind": "Group", "name": "devs"}]
        binding = {"metadata": {"name": "b"}, "roleRef": reference, "subjects": subjects}
        await s.client.create(ROLE_BINDING, binding, "default")
        assert (await http.request("GET", services, Authorization="Bearer at"))[0] == 200
        assert (await http.request("GET", "/api/v1/services", Authorization="Bearer at"))[0] == 403
        assert (await http.request("GET", services, Authorization="Bearer bt"))[0] == 403
        assert (await http.request("GET", "/api", Authorization="Bearer bt"))[0] == 200  # system:discovery
        await s.client.delete(ROLE_BINDING, "b", "default")
        assert (await http.request("GET", services, Authorization="Bearer at"))[0] == 403

    with_http(run, replace(SETTINGS, authorization="RBAC", token_file=str(tokens)))


def test_nobody_gives_away_what_they_do_not_hold(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("at,alice,u1\n")

    async def run(s: ApiServer, http: Http) -> None:
        rules = [{"apiGroups": [GROUP], "resources": ["rolebindings"], "verbs": ["create"]}]
        await s.client.create(CLUSTER_ROLE, {"metadata": {"name": "binder"}, "rules": rules})
        subjects = [{"apiGroup": GROUP, "kind": "User", "name": "alice"}]
        reference = {"apiGroup": GROUP, "kind": "ClusterRole", "name": "binder"}
        await s.client.create(
            CLUSTER_ROLE_BINDING, {"metadata": {"name": "b"}, "roleRef": reference, "subjects": subjects}
        )
        path = f"/apis/{GROUP}/v1/namespaces/default/rolebindings"
        wanted = {"metadata": {"name": "more"}, "roleRef": {**reference, "name": "cluster-admin"}, "subjects": subjects}
        status, _, refused = await http.request("POST", path, wanted, Authorization="Bearer at")
        assert status == 403 and "is attempting to grant RBAC permissions not currently held" in refused["message"]
        same = {"metadata": {"name": "same"}, "roleRef": reference, "subjects": subjects}
        assert (await http.request("POST", path, same, Authorization="Bearer at"))[0] == 201

    with_http(run, replace(SETTINGS, authorization="RBAC", token_file=str(tokens)))
