"""The API over HTTP: forms, headers, errors and streams, through a unix socket."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api.errors import Unauthorized
from kubesvc.api.kinds import CONFIG_MAP
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.authentication import ANONYMOUS, Authenticator, read_token_file, user_of_certificate
from kubesvc.apiserver.settings import MAX_BODY_BYTES

from .running import SETTINGS, Http, config_map, pod, with_http

CONFIGS = "/api/v1/namespaces/default/configmaps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def test_create_get_and_delete() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        status, headers, made = await http.request("POST", CONFIGS, config_map("a"), User_Agent="me/1")
        assert status == 201 and headers["Content-Type"] == "application/json" and "Audit-Id" in headers
        assert made["metadata"]["managedFields"][0]["manager"] == "me"  # APPLY-6
        assert (await http.request("GET", f"{CONFIGS}/a"))[2] == made
        status, _, gone = await http.request("DELETE", f"{CONFIGS}/a")
        assert status == 200 and gone["status"] == "Success"  # DEL-4
        assert gone["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
        status, _, missing = await http.request("GET", f"{CONFIGS}/a")
        assert status == 404 and missing["details"] == {"name": "a", "kind": "configmaps"}  # READ-2

    with_http(run)


ERRORS: tuple[tuple[str, str, str, Any, dict[str, str], int, str], ...] = (
    ("DISC-8: an unknown group", "GET", "/apis/nosuch.example.com/v1/x", None, {}, 404, "404 page not found"),
    ("DISC-8: an unknown path", "GET", "/nosuch", None, {}, 404, "404 page not found"),
    ("DISC-8: an unknown resource", "GET", "/api/v1/nosuch", None, {}, 404, "could not find the requested resource"),
    ("DISC-8: a made-up method", "FROB", CONFIGS, None, {}, 405, "does not allow this method"),
    ("LIST-9", "GET", f"{CONFIGS}?resourceVersion=abc", None, {}, 400, "invalid resource version"),
    ("READ-1", "GET", f"{CONFIGS}/a?resourceVersion=abc", None, {}, 500, "strconv.ParseUint"),
    ("SEL-1", "GET", f"{CONFIGS}?labelSelector=a+b", None, {}, 400, "found 'b'"),
    ("SEL-2", "GET", f"{CONFIGS}?fieldSelector=x=y", None, {}, 400, "is not a known field selector"),
    ("LIST-5", "GET", f"{CONFIGS}?continue=bogus", None, {}, 400, "illegal base64 data at input byte 4"),
    ("PATCH-1", "PATCH", f"{CONFIGS}/a", {}, {"Content_Type": "application/json"}, 415, "415: Unsupported Media Type"),
    ("WRITE-11", "POST", CONFIGS, b"x", {"Content_Type": "text/plain"}, 415, "unknown format"),
    ("WRITE-11: too long", "POST", CONFIGS, b" " * (MAX_BODY_BYTES + 1), {}, 413, "limit is 3145728"),
    ("WRITE-2: no JSON", "POST", CONFIGS, b"{", {}, 400, "couldn't get version/kind; json parse error"),
    ("WRITE-11: no protobuf", "POST", CONFIGS, b"k8s\0\xff", {"Content_Type": "application/vnd.kubernetes.protobuf"},
     400, "must be of type ConfigMap): unexpected EOF (6b387300ff)"),
    ("TABLE-2", "GET", f"{CONFIGS}?includeObject=x", None, {"Accept": TABLE}, 400, "includeObject: Invalid value"),
    ("READ-1", "GET", f"{CONFIGS}?resourceVersion={'1' * 5000}", None, {}, 400, "value out of range"),
    ("LIST-5", "GET", f"{CONFIGS}?limit={'1' * 5000}", None, {}, 400, "value out of range"),
    ("LIST-5", "GET", f"{CONFIGS}?limit=%D9%A3", None, {}, 400, "invalid syntax"),
    ("WATCH-5", "GET", f"{CONFIGS}?watch=1&resourceVersion={'1' * 5000}", None, {}, 400, "value out of range"),
    ("DEL-1", "DELETE", f"{CONFIGS}/a?gracePeriodSeconds=x", None, {}, 400, "strconv.ParseInt"),
    ("AUTH-3", "GET", CONFIGS, None, {"Impersonate_Group": "x"}, 400, "without impersonating a user name"),
    ("AUTH-1: a bad token", "GET", CONFIGS, None, {"Authorization": "Bearer x"}, 401, "Unauthorized"),
)  # fmt: skip


@pytest.mark.parametrize("case", ERRORS, ids=lambda c: c[0])
def test_errors(case: tuple[str, str, str, Any, dict[str, str], int, str]) -> None:
    _, method, path, body, headers, code, text = case

    async def run(s: ApiServer, http: Http) -> None:
        status, _, answer = await http.request(method, path, body, **headers)
        assert status == code, answer
        if isinstance(answer, str):
            assert answer.startswith(text)
        else:
            assert answer["kind"] == "Status" and answer["code"] == code and text in answer["message"]  # ERR-1

    with_http(run)


def test_a_bug_is_a_500_with_the_requests_id_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def run(s: ApiServer, http: Http) -> None:
        def broken(*_: object) -> object:
            raise RuntimeError("secret")

        s.http.resources.get = broken  # type: ignore[method-assign,assignment]
        status, headers, answer = await http.request("GET", f"{CONFIGS}/a")
        assert status == 500 and headers["Audit-Id"] in answer["message"] and "secret" not in json.dumps(answer)

    with_http(run)
    assert "RuntimeError: secret" in caplog.text


def test_tables_metadata_and_yaml() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        await http.request("POST", CONFIGS, config_map("a"))
        _, _, table = await http.request("GET", CONFIGS, Accept=TABLE)
        assert [c["name"] for c in table["columnDefinitions"]] == ["Name", "Data", "Age"]
        assert table["rows"][0]["cells"][:2] == ["a", 1]
        assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"  # KCTL-4
        _, _, bare = await http.request("GET", f"{CONFIGS}?includeObject=None", Accept=TABLE)
        assert bare["rows"][0]["object"] is None
        form = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
        _, _, partial = await http.request("GET", CONFIGS, Accept=form)
        assert set(partial["items"][0]) == {"kind", "apiVersion", "metadata"}  # TABLE-3
        _, headers, text = await http.request("GET", f"{CONFIGS}/a", Accept="application/yaml")
        assert headers["Content-Type"] == "application/yaml" and "data:\n  k: v\n" in text
        _, _, curl = await http.request("GET", f"{CONFIGS}/a", User_Agent="curl/8", Accept="application/json")
        assert curl["data"] == {"k": "v"}

    with_http(run)


def test_kinds_without_a_printer() -> None:
    """KCTL-8: name and date of creation; no rows are null for them, where kinds with columns have an empty list."""

    async def run(s: ApiServer, http: Http) -> None:
        roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles"
        _, _, none = await http.request("GET", roles, Accept=TABLE)
        columns = [(c["name"], c["type"], c["format"], c["priority"]) for c in none["columnDefinitions"]]
        assert columns == [("Name", "string", "name", 0), ("Created At", "date", "", 0)]
        assert none["rows"] is None
        assert (await http.request("GET", CONFIGS, Accept=TABLE))[2]["rows"] == []
        made = (await http.request("POST", roles, {"metadata": {"name": "r"}, "rules": []}))[2]
        _, _, table = await http.request("GET", roles, Accept=TABLE)
        assert [r["cells"] for r in table["rows"]] == [["r", made["metadata"]["creationTimestamp"]]]
        for unknown in ("as=Tabel;v=v1;g=meta.k8s.io", "as=Table;v=v9;g=meta.k8s.io", "as=Table;v=v1;g=x"):
            status, _, refusal = await http.request("GET", CONFIGS, Accept=f"application/json;{unknown}")
            assert (status, refusal["reason"]) == (406, "NotAcceptable"), unknown

    with_http(run)


def test_table_of_a_scale() -> None:
    """KCTL-31: four columns, the numbers as integers; the row bears what it was asked to."""

    async def run(s: ApiServer, http: Http) -> None:
        path = "/apis/apps/v1/namespaces/default/deployments"
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        spec = {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": template}
        made = (await http.request("POST", path, {"metadata": {"name": "d"}, "spec": spec}))[2]
        status, _, table = await http.request("GET", f"{path}/d/scale", Accept=TABLE)
        assert (status, table["kind"]) == (200, "Table")
        columns = [(c["name"], c["type"], c["format"], c["priority"]) for c in table["columnDefinitions"]]
        assert columns == [
            ("Name", "string", "name", 0), ("Desired", "integer", "", 0), ("Available", "integer", "", 0),
            ("Age", "string", "", 0),
        ]  # fmt: skip
        [row] = table["rows"]
        assert row["cells"][:3] == ["d", 3, 0] and row["cells"][3].endswith("s")
        assert row["object"]["kind"] == "PartialObjectMetadata"
        assert row["object"]["metadata"]["uid"] == made["metadata"]["uid"]
        merge = {"Content_Type": "application/merge-patch+json", "Accept": TABLE}
        patched = (await http.request("PATCH", f"{path}/d/scale", {"spec": {"replicas": 0}}, **merge))[2]
        assert patched["rows"][0]["cells"][:3] == ["d", 0, 0]
        whole = (await http.request("GET", f"{path}/d/scale?includeObject=Object", Accept=TABLE))[2]
        assert whole["rows"][0]["object"]["kind"] == "Scale"
        alone = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
        assert "spec" not in (await http.request("GET", f"{path}/d/scale", Accept=alone))[2]
        several = alone.replace("Metadata;", "MetadataList;")
        assert (await http.request("GET", f"{path}/d/scale", Accept=several))[0] == 406

    with_http(run)


def test_big_answers_are_compressed_for_those_who_ask() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        big = {**config_map("a"), "data": {"k": "v" * 200_000}}
        await http.request("POST", CONFIGS, big)
        _, headers, answer = await http.request("GET", f"{CONFIGS}/a", Accept_Encoding="gzip")
        assert headers["Content-Encoding"] == "gzip" and answer["data"] == big["data"]  # TABLE-7

    with_http(run)


def test_aggregated_discovery_has_an_etag() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        status, headers, answer = await http.request("GET", "/apis", Accept=accept)
        assert status == 200 and answer["kind"] == "APIGroupDiscoveryList"  # DISC-2
        assert headers["Vary"] == "Accept" and headers["ETag"].startswith('"')
        status, _, _ = await http.request("GET", "/apis", Accept=accept, If_None_Match=headers["ETag"])
        assert status == 304

    with_http(run)


def test_unknown_fields_are_warnings() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        status, headers, _ = await http.request("POST", CONFIGS, {**config_map("a"), "bogus": 1})
        assert status == 201 and headers["Warning"] == '299 - "unknown field \\"bogus\\""'  # OPT-2, WARN-1

    with_http(run)


def test_dry_run_stores_nothing() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        status, _, answer = await http.request("POST", f"{CONFIGS}?dryRun=All", config_map("a"))
        assert status == 201 and answer["metadata"]["uid"] and "resourceVersion" not in answer["metadata"]  # OPT-1
        assert (await http.request("GET", f"{CONFIGS}/a"))[0] == 404

    with_http(run)


def test_a_lone_event_goes_out_at_once_and_a_stream_ends_on_time() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        loop = asyncio.get_running_loop()
        watching = asyncio.create_task(http.watch(f"{CONFIGS}?watch=1&resourceVersion={s.cache.revision}", 1))
        while not s.watches.open:
            await asyncio.sleep(0.005)
        began = loop.time()
        await s.client.create(CONFIG_MAP, config_map("a"), "default")
        events = await watching
        assert events[0][0] == "ADDED" and events[0][1]["kind"] == "ConfigMap"  # WATCH-2
        assert loop.time() - began < 10
        events = await http.watch(f"{CONFIGS}?watch=1&timeoutSeconds=1", 99)  # WATCH-14: a clean end
        assert [t for t, _ in events] == ["ADDED"]

    with_http(run)


def test_a_table_watch_tells_its_columns_once() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        for name in "ab":
            await s.client.create(CONFIG_MAP, config_map(name), "default")
        http.session.headers["Accept"] = TABLE
        events = await http.watch(f"{CONFIGS}?watch=1&timeoutSeconds=1", 99)
        assert [len(o["columnDefinitions"]) > 0 for _, o in events] == [True, False]  # TABLE-6, KCTL-7

    with_http(run)


def test_an_expired_watch_is_an_event_in_a_200() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        begin = s.cache.revision
        await s.client.create(CONFIG_MAP, config_map("a"), "default")
        await s.compact()
        events = await http.watch(f"{CONFIGS}?watch=1&resourceVersion={begin}", 9)
        assert [t for t, _ in events] == ["ERROR"] and events[0][1]["code"] == 410  # WATCH-10

    with_http(run)


def test_a_slow_watcher_is_cut_off_and_nobody_waits_for_it() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        stream = s.client.watch(CONFIG_MAP, "default", resource_version=str(s.cache.revision))
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.01)
        await s.client.create(CONFIG_MAP, config_map("first"), "default")
        assert (await first).type == "ADDED"
        for i in range(10):  # nobody reads meanwhile
            await s.client.create(CONFIG_MAP, config_map(f"c{i}"), "default")
        with pytest.raises(StopAsyncIteration):  # WATCH-18
            await anext(stream)

    with_http(run, replace(SETTINGS, watch_buffer_events=4))


def test_streams_end_cleanly_when_the_server_stops() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        watching = asyncio.create_task(http.watch(f"{CONFIGS}?watch=1", 9))
        while not s.watches.open:
            await asyncio.sleep(0.005)
        began = asyncio.get_running_loop().time()
        await s.stop(60)
        assert asyncio.get_running_loop().time() - began < 30  # idle connections do not hold it up
        assert await watching == []  # WATCH-15, HEALTH-3
        assert s.health.report("readyz", "", [], verbose=False)[0] == 500  # type: ignore[index]

    with_http(run)


def test_health_version_and_metrics() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        assert (await http.request("GET", "/readyz"))[2] == "ok"  # HEALTH-2
        _, _, verbose = await http.request("GET", "/livez?verbose")
        assert verbose.startswith("[+]ping ok\n") and verbose.endswith("livez check passed\n")
        assert (await http.request("GET", "/readyz/nosuch"))[0] == 404
        assert (await http.request("GET", "/version"))[2]["minor"] == "36"  # HEALTH-1
        assert 'apiserver_request_total{code="200"' in (await http.request("GET", "/metrics"))[2]

    with_http(run)


def test_logs_of_a_pod_without_a_node_are_empty() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        pods = "/api/v1/namespaces/default/pods"
        await http.request("POST", pods, pod("p"))
        assert (await http.request("GET", f"{pods}/p/log"))[0] == 204  # KCTL-84
        status, _, refused = await http.request("GET", f"{pods}/p/exec?command=ls")
        assert status == 400 and refused["message"] == "pod p does not have a host assigned"  # KCTL-83
        await http.request("POST", pods, pod("q", nodeName="gone"))
        status, _, refused = await http.request("GET", f"{pods}/q/log")
        assert status == 404 and refused["message"] == 'pods "gone" not found'

    with_http(run)


def test_who_is_calling(tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text('t1,alice,u1,"devs,testers"\nt2,bob,u2\n')
    authenticator = Authenticator(read_token_file(str(file)), anonymous=False)
    alice = authenticator.user_of("Bearer t1", None, open_path=False)
    assert (alice.name, alice.uid, alice.groups) == ("alice", "u1", ("devs", "testers", "system:authenticated"))
    assert authenticator.user_of("", None, open_path=True) is ANONYMOUS
    for header in ("", "Bearer nope", "Basic x"):
        with pytest.raises(Unauthorized):
            authenticator.user_of(header, None, open_path=False)
    subject = ((("organizationName", "system:masters"),), (("commonName", "admin"),))
    user = user_of_certificate({"subject": subject})  # AUTH-2
    assert user is not None and user.name == "admin" and user.may_everything


def test_a_protobuf_body_is_stored_as_its_json_would_be() -> None:
    # `kubectl create configmap a --from-literal=k=v`, as it is sent.
    body = bytes.fromhex(
        "6b387300 0a0f 0a027631 1209436f6e6669674d6170 121b 0a11 0a0161 1200 1a00 2200 2a00 3200 3800 4200"
        "1206 0a016b 120176 1a00 2200"
    )

    async def run(s: ApiServer, http: Http) -> None:
        kind = "application/vnd.kubernetes.protobuf"
        status, _, made = await http.request("POST", CONFIGS, body, Content_Type=kind)  # WRITE-11
        assert status == 201 and made["metadata"]["name"] == "a" and made["data"] == {"k": "v"}

    with_http(run)
