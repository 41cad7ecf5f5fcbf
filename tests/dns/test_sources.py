"""Where names come from: slices whoever made them, and what they say of readiness."""

from __future__ import annotations

from kubesvc.dns import wire
from kubesvc.dns.records import Zone, answer_for
from kubesvc.dns.wire import Question, name_of

from .cluster import HTTP, endpoint, endpoint_slice, headless, namespace, snapshot_of

S = "shop.svc.cluster.local."


def addresses(name: str, *objects: object) -> list[bytes]:
    found = answer_for(Question(name_of(name), wire.A), snapshot_of(namespace("shop"), *objects), Zone())  # type: ignore[arg-type]
    assert found is not None
    return sorted(r.data for r in found.answers if isinstance(r.data, bytes))


def test_not_ready_addresses_that_are_published_are_ready_in_their_slice() -> None:
    """DNS-3: publishNotReadyAddresses of the Service is not looked at; what counts is what the slice says."""
    early = headless("early", publishNotReadyAddresses=True)
    says_no = endpoint_slice("a", "early", endpoint("10.244.0.1", ready=False))
    says_yes = endpoint_slice("a", "early", endpoint("10.244.0.1", ready=True, serving=False))
    assert addresses(f"early.{S}", early, says_no) == []
    assert addresses(f"early.{S}", early, says_yes) == [bytes((10, 244, 0, 1))]


def test_slices_by_any_hand_are_published() -> None:
    """DNS-22: a headless Service without selector has the names of whatever slices carry its label."""
    by_hand = endpoint_slice("mine", "db", endpoint("192.0.2.1", hostname="one"), ports=(HTTP,))
    mirrored = endpoint_slice("mirrored", "db", endpoint("192.0.2.2"))
    mirrored.metadata.labels["endpointslice.kubernetes.io/managed-by"] = "endpointslicemirroring-controller.k8s.io"  # type: ignore[index]
    found = addresses(f"db.{S}", headless("db"), by_hand, mirrored)
    assert found == [bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))]
    assert addresses(f"one.db.{S}", headless("db"), by_hand) == [bytes((192, 0, 2, 1))]
