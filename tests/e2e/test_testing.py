"""`kubesvc.start` and the fixtures for pytest, as people use them in the tests of their own controllers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import kubesvc
from kubesvc import testing
from kubesvc.instance.record import read_record

from .harness import EXAMPLES, ROOT, eventually

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state directory of our own, short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="kt-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(path))
        patch.delenv("KUBECONFIG", raising=False)
        yield path
    assert not list((path / "kubesvc").iterdir()), "something was left behind"
    (path / "kubesvc").rmdir()
    path.rmdir()


def test_an_instance_from_python(home: Path, tmp_path: Path) -> None:
    """Objects from files and dicts, the cause in the exception, and nothing left; also from a running event loop."""
    by_hand = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "open"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"port": 80}],
    }  # fmt: skip
    manifest = tmp_path / "open.yaml"
    manifest.write_text("{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Service, metadata: {name: open}, "
                        "spec: {ports: [{port: 80}]}}]}")  # fmt: skip
    with kubesvc.start("from-python", nodes=0) as cluster:
        assert cluster.kubeconfig.is_file() and "no nodes" in cluster.ready_line
        with pytest.raises(kubesvc.NotStarted, match="is running already"):
            kubesvc.start("from-python", nodes=0)
        cluster.apply(tmp_path, by_hand)
        assert cluster.wait("svc/open") == "listed: 192.0.2.1:80"

        async def inside() -> None:
            cluster.apply(EXAMPLES / "web-svc.yaml", EXAMPLES / "web-svc.yaml")
            with pytest.raises(kubesvc.NotRoutable, match=r"no ready endpoint .*\nwhy: svc/web-svc does not route: "):
                cluster.wait("web-svc", timeout=0.2)

        asyncio.run(inside())
        first = cluster.why("svc/web-svc")["results"][0]
        assert (first["status"], first["code"]) == ("broken", "EP105")
        with pytest.raises(kubesvc.CommandFailed, match="NotFound") as caught:
            cluster.kubectl("get", "pod", "none")
        assert caught.value.status == 1
    assert cluster.process.returncode == 0
    assert not cluster.root.exists()
    with pytest.raises(kubesvc.NotStarted, match="unrecognized arguments: --nonsense"):
        kubesvc.start(nodes=0, options=("--nonsense",))
    with pytest.raises(kubesvc.NotStarted, match="cannot be the name of an instance"):
        kubesvc.start("No Name")


def test_a_program_that_cannot_be_run_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no memory for another process")

    testing.environment()  # what is imported late is so by now
    monkeypatch.setattr(subprocess, "Popen", fail)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="no memory") as caught:
        kubesvc.start("never", nodes=0)
    assert set(os.listdir("/proc/self/fd")) <= before, caught.traceback  # what others left may be closed meanwhile


def test_who_is_killed_takes_its_instance_along(home: Path) -> None:
    """SIGKILL leaves a program no time to end anything."""
    program = (
        "import kubesvc, time; c = kubesvc.start('orphan', nodes=0); print(c.process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        instance = int(starter.stdout.readline())
        starter.send_signal(signal.SIGKILL)
    eventually(lambda: state(instance) in ("", "Z"))
    record = read_record(home / "kubesvc" / "orphan" / "instance.json")
    assert record is not None and not record.processes()
    shutil.rmtree(home / "kubesvc" / "orphan")


def state(pid: int) -> str:
    """That of a process, "" for one that is gone: FileNotFoundError before it is looked at, else ProcessLookupError."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


TESTS = """
    import pytest

    SERVICE = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }

    def test_a_namespace_of_its_own(kubesvc_instance, kubesvc_namespace):
        kubesvc_instance.apply(SERVICE, namespace=kubesvc_namespace)
        assert kubesvc_namespace == "test-a-namespace-of-its-own-1"

    @pytest.mark.parametrize("case", ["A b"])
    def test_that_fails(kubesvc_instance, kubesvc_namespace, case):
        kubesvc_instance.apply(SERVICE, namespace=kubesvc_namespace)
        kubesvc_instance.wait("web", kubesvc_namespace, timeout=0.2)
"""


def test_fixtures(home: Path, tmp_path: Path) -> None:
    """One instance, a namespace for each test, and the cause beside a failure."""
    (tmp_path / "test_mine.py").write_text(textwrap.dedent(TESTS))
    (tmp_path / "pytest.ini").write_text("[pytest]\nkubesvc_nodes = 0\nkubesvc_options = --controllers '*,-cronjob'\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "kubesvc.pytest_plugin", "-p", "no:cacheprovider", "."]
    paths = os.pathsep.join((str(ROOT / "src"), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=300
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "- kubesvc why -" in done.stdout
    assert "broken    test-that-fails-a-b-2/web  EP105" in done.stdout
