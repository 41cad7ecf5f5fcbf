"""A Pod that waits for its storage is told by the name of its claim, and what to look at next (EP309)."""

from __future__ import annotations

import pytest

from kubesvc.why.podstate import explain_pod

from .planted import cluster, event, pod

NODES = "0/1 nodes are available: "
CASES = (
    ("unbound, as the scheduler says without a name", ["data"],
     f"{NODES}pod has unbound immediate PersistentVolumeClaims.",
     "because of its claim data: 0/1 nodes", "kubectl -n shop describe pvc data"),
    ("one of two is missing", ["a", "b"], f'{NODES}persistentvolumeclaim "b" not found.',
     "because of its claim b: ", "kubectl -n shop describe pvc b"),
    ("the volumes are elsewhere", ["a", "b"], f"{NODES}1 node(s) didn't match PersistentVolume's node affinity.",
     "because of its claims a, b: ", "kubectl -n shop describe pvc a b"),
    ("nothing is said, the volume is being made", ["data"], "",
     "because of its claim data: no scheduler has taken it up, or the volume is still being made",
     "kubectl -n shop describe pvc data"),
    ("something else is in the way", ["data"], f"{NODES}1 Insufficient cpu.",
     "cannot be scheduled: 0/1 nodes are available: 1 Insufficient cpu.", "kubectl -n shop describe pod web-1"),
)  # fmt: skip


@pytest.mark.parametrize(("claims", "said", "words", "command"), [row[1:] for row in CASES], ids=[r[0] for r in CASES])
def test_the_claim_is_named(claims: list[str], said: str, words: str, command: str) -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": said}
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
    waiting = pod(ready=False, phase="Pending", node="", ip="", conditions=[condition] if said else [], volumes=volumes)
    snapshot = cluster(waiting)
    found = explain_pod(next(iter(snapshot.pods.values())), snapshot)
    assert found is not None and found.code == "EP309"
    assert words in found.text
    assert found.command == command


def test_what_went_wrong_with_the_claim_is_told_too() -> None:
    """The Pod itself is told nothing while its volume is being made."""
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    words = "failed to provision volume: NodePath only supports ReadWriteOnce"
    snapshot = cluster(
        pod(ready=False, phase="Pending", node="", ip="", volumes=volumes),
        {**event("PersistentVolumeClaim/data", "ExternalProvisioning", "Waiting for a volume"), "type": "Normal"},
        event("PersistentVolumeClaim/data", "ProvisioningFailed", words),
    )
    found = explain_pod(next(iter(snapshot.pods.values())), snapshot)
    assert found is not None
    assert found.text == f"pod/web-1 cannot be scheduled, because of its claim data: {words}"
    assert f"ProvisioningFailed of pvc/data: {words}" in found.seen
