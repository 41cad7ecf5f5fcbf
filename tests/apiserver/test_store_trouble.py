"""What becomes of a store's failures: the same Status over HTTP and for clients in this process, and unready checks."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from pathlib import Path

import aiohttp
import pytest

from kubesvc.api.errors import ApiError
from kubesvc.api.kinds import CONFIG_MAP
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.apistore import refusal_of
from kubesvc.clock import Random, RealClock
from kubesvc.store import Busy, SqliteStore, StoreError, TimedOut, TooLarge, Unavailable

from .running import BARE, Http, config_map

OUT_OF_TIME = "Timeout: request did not complete within requested timeout - context deadline exceeded"
CASES: tuple[tuple[StoreError, int, str, str], ...] = (
    (Unavailable("etcdserver: leader changed"), 500, "", "etcdserver: leader changed"),
    (Unavailable("x: the disk is full"), 500, "", "x: the disk is full"),
    (TimedOut("etcdserver: request timed out"), 500, "", "etcdserver: request timed out"),
    (TimedOut("etcd at x did not answer in time"), 504, "Timeout", OUT_OF_TIME),
    (Busy("etcdserver: too many requests"), 429, "TooManyRequests", "etcdserver: too many requests"),
    (TooLarge("etcdserver: request is too large"), 500, "", "etcdserver: request is too large"),
)


@pytest.mark.parametrize(("error", "code", "reason", "message"), CASES, ids=lambda v: str(v))
def test_a_failure_of_the_store_is_an_error_of_the_api(error: StoreError, code: int, reason: str, message: str) -> None:
    found = refusal_of(error)
    assert (found.status_code, found.reason, found.message) == (code, reason, message)


def test_a_full_disk_is_a_status_for_all_and_heals(tmp_path: Path) -> None:
    """WRITE on a full disk: 500 over HTTP and in process, reads go on, and later writes too."""

    async def main() -> None:
        store = SqliteStore(tmp_path / "store.db")
        await store.start()
        server = ApiServer(store, BARE, RealClock(), Random())
        await server.start()

        def pages(most: int) -> list[object]:
            return store.database.connection.execute(f"PRAGMA max_page_count = {most}").fetchall()

        try:
            with tempfile.TemporaryDirectory() as directory:
                path = str(Path(directory) / "api.sock")
                await server.listen_unix(path)
                async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=path)) as session:
                    http = Http(session)
                    url = "/api/v1/namespaces/default/configmaps"
                    assert (await http.request("POST", url, config_map("before")))[0] == 201
                    await store._call(lambda: pages(1))
                    big = config_map("big") | {"data": {"k": "x" * 500_000}}
                    status, _, body = await http.request("POST", url, big)
                    assert (status, body["kind"], body["code"]) == (500, "Status", 500)
                    assert "reason" not in body and "the disk is full" in body["message"]
                    with pytest.raises(ApiError) as caught:
                        await server.local.create(CONFIG_MAP, big, "default")
                    assert (caught.value.status_code, caught.value.message) == (500, body["message"])
                    assert (await http.request("GET", url + "/before"))[0] == 200
                    assert (await http.request("GET", url + "/big"))[0] == 404
                    await store._call(lambda: pages(100_000))
                    assert (await http.request("POST", url, big))[0] == 201
        finally:
            await server.stop(0.1)
            await store.close()

    asyncio.run(main())


def test_a_store_that_cannot_be_trusted_any_more_makes_the_server_unready(tmp_path: Path) -> None:
    """HEALTH-2: by upstream's names."""

    async def main() -> None:
        store = SqliteStore(tmp_path / "store.db")
        await store.start()
        server = ApiServer(store, BARE, RealClock(), Random())
        await server.start()
        try:
            report = server.health.report("readyz", "", [], verbose=True)
            assert report is not None and report[0] == 200
            assert report[1].startswith("[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]etcd-readiness ok\n")
            broken = sqlite3.OperationalError("disk I/O error")
            broken.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC

            def fail(_: object) -> None:
                raise Unavailable("the disk does not do as told") from broken

            store.database.write = fail  # type: ignore[method-assign, assignment]
            with pytest.raises(ApiError, match="does not do as told"):
                await server.local.create(CONFIG_MAP, config_map("a"), "default")
            for path in ("readyz", "livez", "healthz"):
                report = server.health.report(path, "", [], verbose=False)
                assert report is not None and report[0] == 500 and "[-]etcd failed: reason withheld\n" in report[1]
            excluded = server.health.report("livez", "", ["etcd"], verbose=False)
            assert excluded == (200, "ok")
        finally:
            await server.stop(0.1)
            await store.close()

    asyncio.run(main())
