"""The live picture of a real instance: Pods that are processes, rules in the kernel, connections through them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

from tests.web.browser import browser, missing

from .harness import Instance, eventually, ready_pods, running_instance

pytestmark = pytest.mark.e2e

PROBE = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 30}
"""It fails where the test says so, and not because the machine stood still."""


@pytest.fixture(scope="module")
def watched(machine: None) -> Iterator[Instance]:
    """An instance with a page, and a Service of two Pods."""
    with running_instance("--web", "--store", "memory") as instance:
        for name in ("web-1", "web-2"):
            spec = {"containers": [{"name": "c", "image": "nginx", "readinessProbe": PROBE}]}
            meta = {"name": name, "namespace": "default", "labels": {"app": "web"}}
            instance.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        ports = [{"port": 80, "targetPort": 80}]
        service = {
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "ports": ports},
        }
        instance.apply({"apiVersion": "v1", "kind": "Service", **service})
        ready_pods(instance, "app=web", 2)
        listed, both = ("endpointslices", "-l", "kubernetes.io/service-name=web"), [True, True]
        eventually(lambda: [e["conditions"]["ready"] for e in instance.get(*listed)["items"][0]["endpoints"]] == both)
        instance.run("wait", "svc/web", "--name", instance.name, "--timeout", "120")
        yield instance


def link(instance: Instance) -> str:
    return str(eventually(lambda: instance.record.page))


def items(instance: Instance, *more: str) -> dict[str, Any]:
    """The picture of svc/web as a kept file has it."""
    file = instance.home / "kept.html"
    instance.run("top", "svc/web", "--name", instance.name, "--export", str(file), *more)
    found = re.search(r'<script type="application/json" id="moment">(.*?)</script>', file.read_text())
    assert found is not None
    return dict(json.loads(found[1])["pictures"]["default/web"])


def test_connections_are_counted_at_the_node_by_the_endpoint_they_reach(watched: Instance) -> None:
    before = items(watched)["traffic"].get("total", 0)
    address = watched.get("service", "web")["spec"]["clusterIP"]
    connect = f"import socket\nfor _ in range(6): socket.create_connection(({address!r}, 80), 5).close()"
    watched.run("shell", "--name", watched.name, "--", sys.executable, "-c", connect)

    def counted() -> dict[str, Any] | None:
        found = items(watched)
        return found if found["traffic"].get("total", 0) >= before + 6 and found["service"]["rulesOn"] else None

    found = eventually(counted)
    each = [found[f"traffic/web-{n}"].get("total", 0) for n in (1, 2)]
    assert sum(each) == found["traffic"]["total"]
    assert found["service"]["rulesOn"] == ["n1"]


def test_a_printed_picture_and_a_list(watched: Instance) -> None:
    text = watched.run("top", "svc/web", "--name", watched.name, "--once").stdout
    assert "✓ svc/web" in text and "web-1" in text and "80/TCP → 80, 1 of 2" in text and "joined" in text
    listed = watched.run("top", "--name", watched.name).stdout
    assert "default/web" in listed and "kube-system/kube-dns" in listed
    assert "there is no Service nobody" in watched.run("top", "svc/nobody", "--name", watched.name, check=False).stderr


def test_another_cluster_is_shown_without_counters(watched: Instance, tmp_path: Path) -> None:
    config = tmp_path / "config"
    shutil.copy(watched.root / "kubeconfig", config)
    text = watched.run("top", "svc/web", "--kubeconfig", str(config), "--once").stdout
    assert "80/TCP → 80, 1 of 2" in text and "connections are counted on kubesvc's own nodes only" in text


def test_who_may_see_little_is_shown_that_and_told_the_rest(watched: Instance, tmp_path: Path) -> None:
    watched.kubectl("create", "serviceaccount", "looker")
    seen = "services,pods,endpointslices.discovery.k8s.io,nodes,namespaces"
    watched.kubectl("create", "clusterrole", "look", "--verb=get,list,watch", f"--resource={seen}")
    watched.kubectl("create", "clusterrolebinding", "look", "--clusterrole=look", "--serviceaccount=default:looker")
    token = watched.kubectl("create", "token", "looker").strip()
    cluster = {"server": f"https://{watched.record.loopback}:{watched.record.port}"}
    cluster |= {"certificate-authority": str(watched.root / "pki" / "ca.crt")}
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    file = tmp_path / "config"
    file.write_text(json.dumps(config))
    text = watched.run("top", "svc/web", "--kubeconfig", str(file), "--once").stdout
    assert "web-1" in text and "1 of 2" in text
    assert "not seen: events could not be listed" in text and "not permitted" in text


def test_a_terminal_is_filled_follows_its_size_and_is_put_back(watched: Instance) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
    before = termios.tcgetattr(slave)
    command = watched.command("top", "--name", watched.name)
    environment = {k: v for k, v in watched.environment().items() if k not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment | {"TERM": "xterm"})
    said = bytearray()

    def shows(text: str) -> bool:
        while select.select([master], [], [], 0)[0]:
            said.extend(os.read(master, 65536))
        return text in said.decode(errors="replace")

    def drawn() -> list[list[int]]:
        """The rows of each picture but the last, of which a part may not have come yet. A key asks for one more."""
        os.write(master, b"\x1b[A")
        shows("")
        pictures = said.decode(errors="replace").split("\x1b[1;1H")[1:-1]
        return [[int(n) for n in re.findall(r"\x1b\[(\d+);1H", p)] for p in pictures]

    try:
        eventually(lambda: shows("default/web"))
        os.write(master, b"/web\r")
        eventually(lambda: shows("filter: web"))
        os.write(master, b"\r")
        eventually(lambda: shows("1 of 2") and shows("TIMELINE"))
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 50, 0, 0))
        process.send_signal(signal.SIGWINCH)
        small = list(range(2, 13))
        eventually(lambda: small in drawn())
        found = drawn()
        assert all(rows == small for rows in found[found.index(small) :]), found
        os.write(master, b"q")
        eventually(lambda: shows("\x1b[?1049l") and process.poll() is not None)
        assert process.returncode == 0 and shows("\x1b[?25h")
        assert termios.tcgetattr(slave) == before
    finally:
        if process.poll() is None:
            process.kill()
        os.close(master)
        os.close(slave)


def test_the_link_is_told_again_and_opens_the_page(watched: Instance) -> None:
    told = watched.run("status", "--name", watched.name).stdout
    assert link(watched) in told
    opener = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(CookieJar()), urllib.request.ProxyHandler({})
    )
    with opener.open(link(watched)) as page:
        assert page.url.endswith("/") and b"<title>kubesvc</title>" in page.read()


@pytest.mark.skipif(bool(missing()), reason=missing() or "there is one")
def test_a_real_pod_that_turns_unready_is_grey_within_a_second_and_comes_back(watched: Instance) -> None:
    card = "return (document.querySelector('[data-id=\"pod/web-1\"]')?.className || '').includes('{}')"
    took: list[float] = []
    with browser() as window:
        window.open(link(watched) + "#default/web")
        window.until(card.format("live"))
        while not took or (took[-1] > 1.5 and len(took) < 5):  # a busy machine may be late, but not always
            before = left(watched)
            watched.run("ready", "pod/web-1", "off", "--name", watched.name)
            eventually(lambda before=before: left(watched) > before)  # type: ignore[misc]
            window.until(card.format("grey"))
            seen = window.run("return performance.timeOrigin + performance.now()") / 1000
            took.append(seen - left(watched))  # half a second of it for the test's own questions
            assert "readiness probe" in window.run("return document.querySelector('[data-id=\"pod/web-1\"]').innerText")
            window.until("return document.querySelector('#entries li.left')?.innerText.includes('web-1')")
            watched.run("ready", "pod/web-1", "auto", "--name", watched.name)
            window.until(card.format("live"))
    assert min(took) < 1.0 + 0.5, took


def left(instance: Instance) -> float:
    """When web-1 last left the slice, by the journal; 0 if it has not."""
    *lines, _ = (instance.root / "timeline.jsonl").read_text().split("\n")  # the last may be half written
    found = [m for m in map(json.loads, lines) if m["what"] == "left" and m.get("pod") == "web-1"]
    return float(found[-1]["at"]) if found else 0.0
