"""Images from files, as root and as an ordinary user: loaded by the command, run by Pods, removed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node.imagemaking import docker_save
from tests.node.scenario_images import small_layer

from .harness import Instance, condition, eventually, running_instance

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", params=["", "nobody"], ids=["root", "ordinary user"])
def instance(machine: None, request: pytest.FixtureRequest) -> Iterator[Instance]:
    with running_instance("--store", "memory", user=request.param) as found:
        yield found


def test_images_are_loaded_run_and_removed(instance: Instance) -> None:
    archive = docker_save(instance.home / "shop.tar", [small_layer()], ["shop:1"], Entrypoint=["/bin/sleep", "600"])
    words = ("image", "--name", instance.name)
    assert "docker.io/library/shop:1" in instance.run(*words, "load", str(archive)).stdout
    assert "docker.io/library/shop:1" in instance.run(*words, "list").stdout
    spec = {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "shop:1"}]}
    instance.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shop"}, "spec": spec})
    eventually(lambda: condition(instance.get("pod", "shop"), "Ready") == "True")
    assert "home" not in instance.kubectl("exec", "shop", "--", "ls", "/").split(), "the machine's own files"
    kept = instance.run(*words, "rm", "shop:1", check=False)
    assert kept.returncode == 1 and "default/shop" in kept.stderr
    instance.kubectl("delete", "pod", "shop", "--now")
    eventually(lambda: instance.run(*words, "rm", "shop:1", check=False).returncode == 0)
    assert "shop" not in instance.run(*words, "list").stdout


def test_what_is_no_image_is_refused_in_words(instance: Instance) -> None:
    (instance.home / "junk").write_bytes(b"junk" * 500)
    failed = instance.run("image", "--name", instance.name, "load", str(instance.home / "junk"), check=False)
    assert failed.returncode == 1 and "nothing has changed" in failed.stderr and "Traceback" not in failed.stderr
