"""Images pulled from a real registry: Debian's docker-registry, started here on loopback, with and without a login."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.freeports import free_port
from tests.node.imagemaking import oci_files
from tests.node.scenario_images import small_layer

from .harness import ROOT, Instance, condition, eventually, running_instance

pytestmark = pytest.mark.e2e

PROGRAM = ROOT / ".peers/usr/bin/docker-registry"
HTPASSWD = "me:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"  # of the password "secret"
LOGIN = {"Authorization": "Basic " + b64encode(b"me:secret").decode()}


@dataclass
class Registry:
    port: int
    headers: dict[str, str]

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream") -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {**self.headers, "Content-Type": kind})
            answer = connection.getresponse()
            answer.read()
            assert answer.status < 300, (method, path, answer.status)
            return answer
        finally:
            connection.close()

    def push(self, name: str, tag: str, **config: Any) -> str:
        """Push a small image as any client does; its manifest's digest."""
        files = oci_files([small_layer()], config)
        found = json.loads(files["index.json"])["manifests"][1]["digest"]
        manifest = json.loads(files[f"blobs/sha256/{found[7:]}"])
        for path, data in files.items():
            digest = "sha256:" + path.rpartition("/")[2]
            if path.startswith("blobs/") and digest != found:
                where = self.ask("POST", f"/v2/{name}/blobs/uploads/").headers["Location"]
                where = where[where.index("/v2/") :]
                self.ask("PUT", f"{where}{'&' if '?' in where else '?'}digest={digest}", data)
        types = {
            "config": "application/vnd.oci.image.config.v1+json",
            "layer": "application/vnd.oci.image.layer.v1.tar+gzip",
        }
        manifest["config"]["mediaType"] = types["config"]
        for described in manifest["layers"]:
            described["mediaType"] = types["layer"]
        kind = "application/vnd.oci.image.manifest.v1+json"
        full = {"schemaVersion": 2, "mediaType": kind, **manifest}
        answer = self.ask("PUT", f"/v2/{name}/manifests/{tag}", json.dumps(full).encode(), kind)
        return str(answer.headers["Docker-Content-Digest"])


@contextmanager
def registry(directory: Path, *, login: bool) -> Iterator[Registry]:
    """A registry on a free port, ended with the block."""
    port = free_port()
    directory.mkdir()
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if login:
        (directory / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "shop", "path": str(directory / "htpasswd")}}
    (directory / "config.yml").write_text(json.dumps(config))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    process = subprocess.Popen(
        [PROGRAM, "serve", directory / "config.yml"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, "the registry did not start"
                time.sleep(0.05)
        yield Registry(port, LOGIN if login else {})
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def instance(machine: None) -> Iterator[Instance]:
    if not PROGRAM.exists():
        pytest.skip("docker-registry is not there (tools/bootstrap.py fetches it): pulling from it is not tried")
    with running_instance("--nodes", "2", "--store", "memory", "--images", "stand-ins") as found:
        yield found


def pod(name: str, image: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": image, "command": ["/bin/sleep", "600"]}
    more = {"terminationGracePeriodSeconds": 0, "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": more}


def waiting(instance: Instance, name: str) -> tuple[str, str]:
    state = instance.get("pod", name)["status"]["containerStatuses"][0]["state"].get("waiting", {})
    return state.get("reason", ""), state.get("message", "")


def events(instance: Instance, name: str) -> str:
    return instance.kubectl("events", "--for", f"pod/{name}")


def test_pods_run_what_a_registry_has(instance: Instance, tmp_path: Path) -> None:
    """NODE-19, NODE-28, NODE-86."""
    with registry(tmp_path / "registry", login=False) as there:
        digest = there.push("shop/web", "1")
        instance.apply(pod("first", f"{there.host}/shop/web:1"), pod("none", f"{there.host}/shop/web:2"))
        eventually(lambda: condition(instance.get("pod", "first"), "Ready") == "True")
        status = instance.get("pod", "first")["status"]["containerStatuses"][0]
        assert status["imageID"] == f"{there.host}/shop/web@{digest}"
        eventually(lambda: f'Successfully pulled image "{there.host}/shop/web:1" in ' in events(instance, "first"))
        assert f'Pulling image "{there.host}/shop/web:1"' in events(instance, "first")
        eventually(lambda: waiting(instance, "none")[0] == "ImagePullBackOff")
        assert f"{there.host}/shop/web:2: not found" in waiting(instance, "none")[1]
        there.push("shop/web", "2")
        by_digest = pod("digest", f"{there.host}/shop/web@{digest}", nodeName="n2")
        instance.apply(by_digest)
        eventually(lambda: condition(instance.get("pod", "digest"), "Ready") == "True")
        said = instance.run("image", "--name", instance.name, "pull", f"{there.host}/shop/web:2").stdout
        assert said.startswith(f"{there.host}/shop/web:2  ")
        assert f"{there.host}/shop/web:2" in instance.run("image", "--name", instance.name, "list").stdout
    gone = instance.run("image", "--name", instance.name, "pull", f"{there.host}/shop/web:3", check=False)
    assert gone.returncode == 1 and "failed to do request" in gone.stderr and "Traceback" not in gone.stderr


def test_a_login_comes_from_the_pods_pull_secret(instance: Instance, tmp_path: Path) -> None:
    with registry(tmp_path / "registry", login=True) as there:
        there.push("shop/secret", "1")
        instance.kubectl(
            "create", "secret", "docker-registry", "login", f"--docker-server={there.host}", "--docker-username=me",
            "--docker-password=secret",
        )  # fmt: skip
        image = f"{there.host}/shop/secret:1"
        instance.apply(pod("stranger", image), pod("guest", image, imagePullSecrets=[{"name": "login"}]))
        eventually(lambda: condition(instance.get("pod", "guest"), "Ready") == "True")
        eventually(lambda: waiting(instance, "stranger")[0] in ("ErrImagePull", "ImagePullBackOff"))
        assert "pull access denied" in waiting(instance, "stranger")[1]
