"""Role based access control over HTTP, and what rules cover (AUTH-3, AUTH-4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api.clusterrole import CLUSTER_ROLE
from kubesvc.api.clusterrolebinding import CLUSTER_ROLE_BINDING
from kubesvc.api.rbac import PolicyRule, Subject
from kubesvc.api.role import ROLE
from kubesvc.api.rolebinding import ROLE_BINDING
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.authentication import User
from kubesvc.apiserver.authorization import Attributes
from kubesvc.apiserver.defaultroles import AUTO_UPDATE, make_default_roles
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


ROLES = f"/apis/{GROUP}/v1/clusterroles"


async def grant(server: ApiServer, user: str, *rules: dict[str, object]) -> None:
    """A ClusterRole of these rules, bound to a user."""
    await server.client.create(CLUSTER_ROLE, {"metadata": {"name": f"of-{user}"}, "rules": list(rules)})
    reference = {"apiGroup": GROUP, "kind": "ClusterRole", "name": f"of-{user}"}
    subjects = [{"apiGroup": GROUP, "kind": "User", "name": user}]
    binding = {"metadata": {"name": f"of-{user}"}, "roleRef": reference, "subjects": subjects}
    await server.client.create(CLUSTER_ROLE_BINDING, binding)


def plain(verbs: str, groups: str, resources: str, names: str = "") -> dict[str, object]:
    found: dict[str, object] = {
        "verbs": verbs.split(),
        "apiGroups": ["" if g == "core" else g for g in groups.split()],
        "resources": resources.split(),
    }
    if names:
        found["resourceNames"] = names.split()
    return found


HELD = (
    plain("create update patch get", GROUP, "roles clusterroles rolebindings clusterrolebindings"),
    plain("get list", "core", "pods"),
)
NOT_HELD = "is attempting to grant RBAC permissions not currently held:\n"
GRANTS = (
    # what is granted, the status, the rights told as missing
    ("what is held", [plain("get", "core", "pods")], 201, ""),
    ("a name of what is held", [plain("get", "core", "pods", "p")], 201, ""),
    ("one verb too many", [plain("get list watch", "core", "pods")], 403,
     '{APIGroups:[""], Resources:["pods"], Verbs:["watch"]}'),
    ("missing verbs of one resource together", [plain("create delete get", "core", "pods")], 403,
     '{APIGroups:[""], Resources:["pods"], Verbs:["create" "delete"]}'),
    ("each resource alone, sorted", [plain("get", "core", "services configmaps pods")], 403,
     '{APIGroups:[""], Resources:["configmaps"], Verbs:["get"]}\n'
     '{APIGroups:[""], Resources:["services"], Verbs:["get"]}'),
    ("names told with the resource", [plain("get", "core", "secrets", "a b")], 403,
     '{APIGroups:[""], Resources:["secrets"], ResourceNames:["a"], Verbs:["get"]}\n'
     '{APIGroups:[""], Resources:["secrets"], ResourceNames:["b"], Verbs:["get"]}'),
    ("paths", [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}], 403,
     '{NonResourceURLs:["/metrics"], Verbs:["get"]}'),
    ("paths that discovery gives everybody", [{"verbs": ["get"], "nonResourceURLs": ["/api/*", "/version"]}], 201, ""),
    ("everything", [plain("*", "*", "*")], 403, '{APIGroups:["*"], Resources:["*"], Verbs:["*"]}'),
)  # fmt: skip


def test_what_is_told_to_be_missing(tmp_path: Path) -> None:
    """AUTH-3: the single rights that are not held, gathered by resource."""
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("at,alice,u1\n")

    async def run(s: ApiServer, http: Http) -> None:
        await grant(s, "alice", *HELD)
        for i, (name, rules, wanted, missing) in enumerate(GRANTS):
            body = {"metadata": {"name": f"r{i}"}, "rules": rules}
            status, _, answer = await http.request("POST", ROLES, body, Authorization="Bearer at")
            assert status == wanted, (name, answer)
            if missing:
                assert answer["message"].endswith(NOT_HELD + missing), (name, answer["message"])

    with_http(run, replace(SETTINGS, authorization="RBAC", token_file=str(tokens)))


def test_who_may_escalate_and_who_may_bind(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("at,alice,u1\nbt,bob,u2\nct,carol,u3\n")

    async def run(s: ApiServer, http: Http) -> None:
        writing = plain("create update patch get", GROUP, "clusterroles clusterrolebindings rolebindings")
        await grant(s, "alice", writing, plain("escalate", GROUP, "clusterroles"))
        await grant(s, "bob", writing, plain("bind", GROUP, "clusterroles", "view"))
        await grant(s, "carol", writing)
        more = {"metadata": {"name": "more"}, "rules": [plain("*", "*", "*")]}
        assert (await http.request("POST", ROLES, more, Authorization="Bearer bt"))[0] == 403
        assert (await http.request("POST", ROLES, more, Authorization="Bearer at"))[0] == 201
        # an update that changes but finalizers is the garbage collector's, and needs no right but to write
        patch: dict[str, Any] = {"metadata": {"finalizers": ["x/y"]}}
        merge = "application/merge-patch+json"
        one = f"{ROLES}/more"
        assert (await http.request("PATCH", one, patch, Authorization="Bearer ct", Content_Type=merge))[0] == 200
        patch = {"metadata": {"labels": {"a": "b"}}}
        assert (await http.request("PATCH", one, patch, Authorization="Bearer ct", Content_Type=merge))[0] == 403

        def binding(role: str, kind: str = "ClusterRole") -> dict[str, object]:
            reference = {"apiGroup": GROUP, "kind": kind, "name": role}
            subjects = [{"apiGroup": GROUP, "kind": "User", "name": "carol"}]
            return {"metadata": {"name": f"to-{role}"}, "roleRef": reference, "subjects": subjects}

        path = f"/apis/{GROUP}/v1/namespaces/default/rolebindings"
        assert (await http.request("POST", path, binding("view"), Authorization="Bearer bt"))[0] == 201
        assert (await http.request("POST", path, binding("edit"), Authorization="Bearer bt"))[0] == 403
        status, _, answer = await http.request("POST", path, binding("none"), Authorization="Bearer bt")
        assert status == 404 and answer["message"] == f'clusterrole.{GROUP} "none" not found'
        status, _, answer = await http.request("POST", path, binding("none", "Role"), Authorization="Bearer bt")
        assert status == 404 and answer["message"] == f'role.{GROUP} "none" not found'

    with_http(run, replace(SETTINGS, authorization="RBAC", token_file=str(tokens)))


def test_only_those_who_hold_everything_let_a_role_gather_others(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("at,alice,u1\nbt,bob,u2\n")

    async def run(s: ApiServer, http: Http) -> None:
        await grant(s, "alice", *HELD)
        await grant(s, "bob", plain("*", "*", "*"), {"verbs": ["*"], "nonResourceURLs": ["*"]})
        selectors: list[dict[str, dict[str, str]]] = [{"matchLabels": {"a": "b"}}]
        body: dict[str, Any] = {"metadata": {"name": "g"}, "aggregationRule": {"clusterRoleSelectors": selectors}}
        status, _, answer = await http.request("POST", ROLES, body, Authorization="Bearer at")
        assert status == 403 and answer["message"] == (
            f'clusterroles.{GROUP} "g" is forbidden: must have cluster-admin privileges to use the aggregationRule'
        )
        assert (await http.request("POST", ROLES, body, Authorization="Bearer bt"))[0] == 201
        selectors[0]["matchLabels"] = {"bad label": "b"}
        body["metadata"] = {"name": "h"}
        status, _, answer = await http.request("POST", ROLES, body, Authorization="Bearer bt")
        assert status == 422 and "aggregationRule.clusterRoleSelectors[0].matchLabels" in answer["message"]

    with_http(run, replace(SETTINGS, authorization="RBAC", token_file=str(tokens)))


def test_bindings_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("at,alice,u1\n")

    async def run(s: ApiServer, http: Http) -> None:
        subjects = [{"apiGroup": GROUP, "kind": "User", "name": "alice"}]
        for name, kind in (("x", "ClusterRole"), ("y", "Role")):
            reference = {"apiGroup": GROUP, "kind": kind, "name": name}
            binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects}
            await s.client.create(ROLE_BINDING, binding, "default")
        path = "/api/v1/namespaces/default/pods"
        _, _, answer = await http.request("GET", path, Authorization="Bearer at")
        assert answer["message"].endswith(
            f'in the namespace "default": RBAC: [clusterrole.{GROUP} "x" not found, role.{GROUP} "y" not found]'
        )

    with_http(run, replace(SETTINGS, authorization="RBAC", token_file=str(tokens)))


def test_default_roles_are_mended_and_left_alone_where_they_say_so() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        client = s.client
        view = await client.get(CLUSTER_ROLE, "view")
        assert view["aggregationRule"] and view["rules"] and "secrets" not in str(view["rules"])
        admin = await client.get(CLUSTER_ROLE, "admin")
        assert [r for r in view["rules"] if r not in admin["rules"]] == []
        basic = await client.get(CLUSTER_ROLE, "system:basic-user")
        basic["rules"] = [plain("get", "core", "pods")]
        await client.update(CLUSTER_ROLE, basic)
        kept = await client.get(CLUSTER_ROLE, "system:discovery")
        kept["metadata"]["annotations"][AUTO_UPDATE] = "false"
        kept["rules"] = []
        await client.update(CLUSTER_ROLE, kept)
        bound = await client.get(CLUSTER_ROLE_BINDING, "system:basic-user")
        bound["subjects"] = [{"kind": "User", "apiGroup": GROUP, "name": "alice"}]
        await client.update(CLUSTER_ROLE_BINDING, bound)
        await client.delete(CLUSTER_ROLE, "edit")
        await make_default_roles(client)
        mended = await client.get(CLUSTER_ROLE, "system:basic-user")
        assert len(mended["rules"]) == 3 and mended["rules"][0] == basic["rules"][0]
        assert not (await client.get(CLUSTER_ROLE, "system:discovery"))["rules"]
        subjects = (await client.get(CLUSTER_ROLE_BINDING, "system:basic-user"))["subjects"]
        assert [x["name"] for x in subjects] == ["alice", "system:authenticated"]
        assert (await client.get(CLUSTER_ROLE, "edit"))["rules"]
        before = s.cache.revision
        await make_default_roles(client)
        assert s.cache.revision == before  # nothing lacked

    with_http(run, replace(SETTINGS, authorization="RBAC"))


AUTHENTICATION = "authentication.k8s.io"
IMPERSONATIONS: tuple[tuple[str, list[Any], dict[str, str], int, str], ...] = (
    # rights of alice, headers, status, message or who she then is
    ("nothing", [], {"Impersonate-User": "bob"}, 403, "cannot impersonate-on:user-info:create resource"),
    ("the old right", [plain("impersonate", "core", "users")], {"Impersonate-User": "bob"}, 201, "bob"),
    ("the old right, of one name", [plain("impersonate", "core", "users", "bob")], {"Impersonate-User": "bob"}, 201,
     "bob"),
    ("of another name", [plain("impersonate", "core", "users", "carol")], {"Impersonate-User": "bob"}, 403,
     "user-info"),
    ("a group besides", [plain("impersonate", "core", "users")],
     {"Impersonate-User": "bob", "Impersonate-Group": "devs"}, 403, "user-info"),
    ("a group that may be", [plain("impersonate", "core", "users groups")],
     {"Impersonate-User": "bob", "Impersonate-Group": "devs"}, 201, "devs"),
    ("a uid", [plain("impersonate", "core", "users")], {"Impersonate-User": "bob", "Impersonate-Uid": "7"}, 403,
     "user-info"),
    ("a uid that may be", [plain("impersonate", "core", "users"), plain("impersonate", AUTHENTICATION, "uids")],
     {"Impersonate-User": "bob", "Impersonate-Uid": "7"}, 201, "'uid': '7'"),
    ("an attribute", [plain("impersonate", "core", "users")],
     {"Impersonate-User": "bob", "Impersonate-Extra-Scopes": "view"}, 403, "user-info"),
    ("an attribute that may be",
     [plain("impersonate", "core", "users"), plain("impersonate", AUTHENTICATION, "userextras/scopes", "view")],
     {"Impersonate-User": "bob", "Impersonate-Extra-Scopes": "view"}, 201, "{'scopes': ['view']}"),
    ("an escaped attribute",
     [plain("impersonate", "core", "users"), plain("impersonate", AUTHENTICATION, "userextras/a.b/c")],
     {"Impersonate-User": "bob", "Impersonate-Extra-A.b%2fC": "1"}, 201, "{'a.b/c': ['1']}"),
    ("an account", [plain("impersonate", "core", "serviceaccounts")],
     {"Impersonate-User": "system:serviceaccount:ns:robot"}, 201,
     "'system:serviceaccounts:ns', 'system:authenticated'"),
    ("an account, as a user", [plain("impersonate", "core", "users")],
     {"Impersonate-User": "system:serviceaccount:ns:robot"}, 403, "impersonate-on:serviceaccount:create"),
    ("a node", [plain("impersonate", "core", "users")], {"Impersonate-User": "system:node:n1"}, 201, "system:node:n1"),
    ("nobody", [plain("impersonate", "core", "users")], {"Impersonate-User": "system:anonymous"}, 403,
     'User "system:anonymous" cannot create resource'),
    ("constrained: half", [plain("impersonate:user-info", "authentication.k8s.io", "users")],
     {"Impersonate-User": "bob"}, 403, "impersonate-on:user-info:create"),
    ("constrained: the other half", [plain("impersonate-on:user-info:create", "*", "*")],
     {"Impersonate-User": "bob"}, 403, 'users.authentication.k8s.io "bob" is forbidden: User "alice" cannot '
     'impersonate:user-info resource "users" in API group "authentication.k8s.io" at the cluster scope'),
    ("constrained: both", [plain("impersonate:user-info", "authentication.k8s.io", "users"),
     plain("impersonate-on:user-info:create", "authentication.k8s.io", "selfsubjectreviews")],
     {"Impersonate-User": "bob"}, 201, "bob"),
    ("constrained: never the masters", [plain("impersonate:user-info", "authentication.k8s.io", "users groups"),
     plain("impersonate-on:user-info:create", "*", "*")],
     {"Impersonate-User": "bob", "Impersonate-Group": "system:masters"}, 403,
     "impersonating the system:masters group is not allowed"),
    ("constrained: a node", [plain("impersonate:arbitrary-node", "authentication.k8s.io", "nodes"),
     plain("impersonate-on:arbitrary-node:create", "*", "*")],
     {"Impersonate-User": "system:node:n1"}, 201, "'system:nodes', 'system:authenticated'"),
    ("no name", [], {"Impersonate-Uid": "7", "Impersonate-Extra-B": "2"}, 400,
     'requested &user.DefaultInfo{Name:"", UID:"7", Groups:[]string(nil), Extra:map[string][]string{"b":[]string{"2"}}}'
     " without impersonating a user name"),
)  # fmt: skip


def test_who_may_act_as_whom(tmp_path: Path) -> None:
    """AUTH-3, and the modes that allow it."""
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("at,alice,u1\n")

    async def run(s: ApiServer, http: Http) -> None:
        await grant(s, "alice")
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        for name, rules, headers, wanted, says in IMPERSONATIONS:
            role = await s.client.get(CLUSTER_ROLE, "of-alice")
            await s.client.update(CLUSTER_ROLE, {**role, "rules": rules})
            status, _, answer = await http.request("POST", path, {}, Authorization="Bearer at", **headers)
            assert status == wanted, (name, answer)
            assert says in str(answer["message"] if wanted >= 400 else answer["status"]["userInfo"]), (name, answer)

    with_http(run, replace(SETTINGS, authorization="RBAC", token_file=str(tokens)))


def test_a_name_in_a_field_selector_counts_as_the_objects(tmp_path: Path) -> None:
    """A list or watch of one object by its name asks for that object's right."""
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("at,alice,u1\n")

    async def run(s: ApiServer, http: Http) -> None:
        await grant(s, "alice", plain("list watch", "core", "secrets", "mine"))
        path = "/api/v1/namespaces/default/secrets"
        for query, wanted in (
            ("", 403), ("?fieldSelector=metadata.name%3Dmine", 200), ("?fieldSelector=metadata.name%3Dother", 403),
            ("?fieldSelector=metadata.name%21%3Dmine", 403), ("?fieldSelector=%2C%2C", 403),
            ("?watch=1&timeoutSeconds=1&resourceVersion=0&fieldSelector=metadata.name%3Dmine", 200),
        ):  # fmt: skip
            status, _, answer = await http.request("GET", path + query, Authorization="Bearer at")
            assert status == wanted, (query, answer)

    with_http(run, replace(SETTINGS, authorization="RBAC", token_file=str(tokens)))
