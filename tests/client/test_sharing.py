"""Equal parts of objects are kept once, and nothing about the objects changes."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.meta import Object
from kubesvc.api.pod import Pod
from kubesvc.client import sharing
from kubesvc.client.sharing import Sharing


def made(name: str, image: str, app: str, node: str) -> Object:
    return {
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": image}], "nodeSelector": {"app": app}},
        "status": {"phase": "Running", "podIP": name},
    }


WORD = st.sampled_from("abc")


@given(st.lists(st.builds(made, WORD, WORD, WORD, WORD), max_size=8))
def test_shared_objects_are_equal_to_what_they_were(objects: list[Object]) -> None:
    shares = Sharing()
    for plain in objects:
        raw = msgspec.json.encode(plain)
        pod = msgspec.json.decode(raw, type=Pod)
        shares.share(pod)
        assert pod == msgspec.json.decode(raw, type=Pod)


def test_equal_parts_are_one() -> None:
    shares = Sharing()
    pods = [msgspec.convert(made(f"p{n}", "i", "web", f"n{n}"), Pod) for n in range(3)]
    for pod in pods:
        shares.share(pod)
    assert pods[0].spec.containers is pods[1].spec.containers is pods[2].spec.containers
    assert pods[0].metadata.labels is pods[2].metadata.labels
    assert [p.spec.node_name for p in pods] == ["n0", "n1", "n2"]
    other = msgspec.convert(made("q", "j", "web", "n1"), Pod)
    shares.share(other)
    assert other.spec.containers is not pods[0].spec.containers and other.metadata.labels is pods[0].metadata.labels


def test_what_is_remembered_is_bounded() -> None:
    shares = Sharing()
    for n in range(sharing.MOST + 10):
        shares.share(msgspec.convert(made("p", f"i{n}", "web", "n"), Pod))
    assert len(shares.known) <= sharing.MOST
