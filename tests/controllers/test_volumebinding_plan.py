"""Which volume a claim gets: a table of what fits, and what holds for any claims and volumes at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.meta import Object, typed
from kubesvc.api.node import Node
from kubesvc.api.persistentvolume import PersistentVolume
from kubesvc.api.persistentvolumeclaim import PersistentVolumeClaim
from kubesvc.api.pod import Pod
from kubesvc.api.quantity import parse
from kubesvc.api.storageclass import StorageClass
from kubesvc.controllers import volumebinding_plan as plan
from kubesvc.controllers.podvolumes_plan import NO_VOLUME, PodClaims, choose_volumes, divide_claims
from kubesvc.controllers.volumebinding_plan import find_volume

DEFAULTS = {"storageclass.kubernetes.io/is-default-class": "true"}


def claim(name: str = "data", size: str = "1Gi", *, uid: str = "", annotations: Any = None, **spec: Any) -> Any:
    whole = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    meta = {"name": name, "namespace": "ns", "uid": uid or f"uid-{name}", "annotations": annotations}
    return typed({"metadata": meta, "spec": whole, "status": {"phase": "Pending"}}, PersistentVolumeClaim)


def volume(
    name: str, size: str = "1Gi", *, phase: str = "Available", labels: Any = None, annotations: Any = None,
    deleted: bool = False, of: str = "", uid: str = "", node: str = "", **spec: Any,
) -> Any:  # fmt: skip
    """of: the claim it names, with a uid when it is bound; node: the only one that reaches it"""
    whole: Object = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, **spec}
    if of:
        whole["claimRef"] = {"namespace": "ns", "name": of, "uid": uid}
    if node:
        terms = [{"matchExpressions": [{"key": "host", "operator": "In", "values": [node]}]}]
        whole["nodeAffinity"] = {"required": {"nodeSelectorTerms": terms}}
    meta = {
        "name": name, "labels": labels, "annotations": annotations,
        "deletionTimestamp": "2026-01-01T00:00:00Z" if deleted else None,
    }  # fmt: skip
    return typed({"metadata": meta, "spec": whole, "status": {"phase": phase}}, PersistentVolume)


def node(name: str) -> Node:
    return typed({"metadata": {"name": name, "labels": {"host": name}}}, Node)


def storage_class(name: str, provisioner: str = "example.com/p", *, waits: bool = False, **more: Any) -> StorageClass:
    mode = "WaitForFirstConsumer" if waits else "Immediate"
    return typed(
        {"metadata": {"name": name, **more}, "provisioner": provisioner, "volumeBindingMode": mode}, StorageClass
    )


FITS = (
    # sentence, claim, volumes, name of the one taken
    ("the smallest that is large enough", claim(), [volume("l", "3Gi"), volume("m", "2Gi"), volume("s", "1Mi")], "m"),
    ("of equal ones the first by name", claim(), [volume("b"), volume("a")], "a"),
    ("fewest modes before size", claim(),
     [volume("any", accessModes=["ReadWriteOnce", "ReadOnlyMany"]), volume("one", "9Gi")], "one"),
    ("all modes asked for", claim(accessModes=["ReadWriteOnce", "ReadWriteMany"]), [volume("a")], ""),
    ("the class is the same", claim(storageClassName="fast"),
     [volume("a"), volume("b", storageClassName="slow"), volume("c", "2Gi", storageClassName="fast")], "c"),
    ("no class is a class", claim(storageClassName=""), [volume("a", storageClassName="fast")], ""),
    ("the class of old times", claim(annotations={"volume.beta.kubernetes.io/storage-class": "fast"}),
     [volume("a"), volume("b", storageClassName="fast")], "b"),
    ("a block device is no file system", claim(), [volume("a", volumeMode="Block")], ""),
    ("a block device for who wants one", claim(volumeMode="Block"), [volume("a"), volume("b", volumeMode="Block")],
     "b"),
    ("labels are selected", claim(selector={"matchLabels": {"disk": "ssd"}}),
     [volume("a"), volume("b", "2Gi", labels={"disk": "ssd"})], "b"),
    ("its attributes' class is the same", claim(volumeAttributesClassName="gold"),
     [volume("a"), volume("b", "2Gi", volumeAttributesClassName="gold")], "b"),
    ("not one that is going", claim(), [volume("a", deleted=True)], ""),
    ("not one that was released", claim(), [volume("a", phase="Released", of="data", uid="uid-before")], ""),
    ("not one that nobody has looked at yet", claim(), [volume("a", phase="Pending")], ""),
    ("not one kept for another", claim(), [volume("a", of="other")], ""),
    ("one kept for it before a better one", claim(), [volume("a"), volume("b", "9Gi", of="data")], "b"),
    ("one kept for it, of whatever class and labels", claim(selector={"matchLabels": {"x": "y"}}),
     [volume("b", of="data", storageClassName="other")], "b"),
    ("one kept for it, but too small", claim(), [volume("b", "1Mi", of="data")], ""),
    ("one that names it by uid, whatever its phase", claim(), [volume("b", of="data", uid="uid-data", phase="")], "b"),
)  # fmt: skip


@pytest.mark.parametrize(("wanted", "volumes", "name"), [row[1:] for row in FITS], ids=[row[0] for row in FITS])
def test_what_fits(wanted: PersistentVolumeClaim, volumes: Sequence[PersistentVolume], name: str) -> None:
    found = find_volume(wanted, volumes, delayed=False)
    assert (found.name if found else "") == name


def test_who_waits_for_a_consumer_takes_only_what_is_kept_for_it_until_the_node_is_known() -> None:
    disks = [volume("far", "1Gi", node="n2"), volume("near", "2Gi", node="n1"), volume("own", of="other", node="n2")]
    assert find_volume(claim(), disks, delayed=True) is None
    assert find_volume(claim("other"), disks, delayed=True) is disks[2]
    assert find_volume(claim(), disks, delayed=True, node=node("n1")) is disks[1]
    assert find_volume(claim(), disks, delayed=True, node=node("n1"), taken={"near"}) is None
    assert find_volume(claim("other"), disks, delayed=True, node=node("n1")) is None, "its own one is elsewhere"


VOLUME_STEPS = (
    ("nobody's", volume("a", phase="Pending"), None, plan.VolumePlan(phase="Available")),
    ("kept by hand", volume("a", of="data"), None, plan.VolumePlan(phase="Available")),
    ("its claim does not know yet", volume("a", of="data", uid="uid-data"), claim(), plan.VolumePlan(wake=True)),
    ("bound", volume("a", of="data", uid="uid-data"), claim(volumeName="a"), plan.VolumePlan(phase="Bound")),
    ("its claim took another", volume("a", of="data", uid="uid-data"), claim(volumeName="b"),
     plan.VolumePlan(phase="Available", unbind=True)),
    ("made for a claim that took another",
     volume("a", of="data", uid="uid-data", persistentVolumeReclaimPolicy="Delete",
            annotations={"pv.kubernetes.io/provisioned-by": "example.com/p"}),
     claim(volumeName="b"), plan.VolumePlan(phase="Released")),
    ("its claim is gone", volume("a", phase="Bound", of="data", uid="uid-data", persistentVolumeReclaimPolicy="Retain"),
     None, plan.VolumePlan(phase="Released")),
    ("its claim is another of the name",
     volume("a", phase="Bound", of="data", uid="uid-before", persistentVolumeReclaimPolicy="Retain"), claim(),
     plan.VolumePlan(phase="Released")),
    ("released already", volume("a", phase="Released", of="data", uid="u", persistentVolumeReclaimPolicy="Retain"),
     None, plan.VolumePlan()),
    ("its provisioner removes it",
     volume("a", phase="Bound", of="data", uid="u", persistentVolumeReclaimPolicy="Delete",
            annotations={"pv.kubernetes.io/provisioned-by": "example.com/p"}), None, plan.VolumePlan(phase="Released")),
    ("nobody recycles", volume("a", phase="Bound", of="data", uid="u", persistentVolumeReclaimPolicy="Recycle"), None,
     plan.VolumePlan("Failed", "No recycler plugin found for the volume!",
                     ("Warning", "VolumeFailedRecycle", "No recycler plugin found for the volume!"))),
)  # fmt: skip


@pytest.mark.parametrize(("of", "with_", "step"), [r[1:] for r in VOLUME_STEPS], ids=[r[0] for r in VOLUME_STEPS])
def test_what_becomes_of_a_volume(
    of: PersistentVolume, with_: PersistentVolumeClaim | None, step: plan.VolumePlan
) -> None:
    assert plan.plan_volume(of, with_) == step


BOUND = {"pv.kubernetes.io/bind-completed": "yes"}
CLAIM_STEPS = (
    # sentence, claim, the volume it names, what the plan has
    ("its volume is gone", claim(annotations=BOUND, volumeName="a"), None,
     {"phase": "Lost", "said": ("Warning", "ClaimLost",
                                "Bound claim has lost its PersistentVolume. Data on the volume is lost!")}),
    ("its volume's name is gone", claim(annotations=BOUND), None,
     {"phase": "Lost", "said": ("Warning", "ClaimLost",
                                "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")}),
    ("another has its volume", claim(annotations=BOUND, volumeName="a"), volume("a", of="x", uid="uid-x"),
     {"phase": "Lost", "said": ("Warning", "ClaimMisbound",
                                "Two claims are bound to the same volume, this one is bound incorrectly")}),
    ("the volume it asks for is not there yet", claim(volumeName="a"), None, {"phase": "Pending", "said": None}),
    ("the volume it asks for is another's", claim(volumeName="a"), volume("a", of="x", uid="uid-x"),
     {"phase": "Pending", "said": ("Warning", "FailedBinding", 'volume "a" already bound to a different claim.')}),
)  # fmt: skip


@pytest.mark.parametrize(("of", "named", "wanted"), [r[1:] for r in CLAIM_STEPS], ids=[r[0] for r in CLAIM_STEPS])
def test_what_becomes_of_a_claim(of: PersistentVolumeClaim, named: PersistentVolume | None, wanted: Object) -> None:
    step = plan.plan_claim(of, named, [], {}, [])
    assert {name: getattr(step, name) for name in wanted} == wanted
    assert step.bind is None


def test_whom_a_claim_waits_for() -> None:
    classes = {"slow": storage_class("slow", waits=True)}
    waiting = claim(storageClassName="slow")
    said = [plan.plan_claim(waiting, None, [], classes, pods).said for pods in ([], ["p"], ["p", "q"])]
    assert said == [
        ("Normal", "WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
        ("Normal", "WaitForPodScheduled", "waiting for pod p to be scheduled"),
        ("Normal", "WaitForPodScheduled", "waiting for pods p,q to be scheduled"),
    ]
    chosen = claim(storageClassName="slow", annotations={"volume.kubernetes.io/selected-node": "n1"})
    assert plan.plan_claim(chosen, None, [], classes, []).provisioner == "example.com/p"


def test_the_youngest_default_class_is_the_one() -> None:
    old = storage_class("old", annotations=DEFAULTS, creationTimestamp="2026-01-01T00:00:00Z")
    young = storage_class("young", annotations=DEFAULTS, creationTimestamp="2026-01-02T00:00:00Z")
    same = storage_class("zero", annotations=DEFAULTS, creationTimestamp="2026-01-02T00:00:00Z")
    classes = {c.name: c for c in (old, same, young, storage_class("other"))}
    assert plan.default_of(classes) == "young"
    assert plan.plan_claim(claim(), None, [], classes, []).assign == "young"
    assert plan.plan_claim(claim(storageClassName=""), None, [], classes, []).assign == ""


# ---------------------------------------------------------------- for any claims and volumes

SIZES = st.sampled_from(["1Mi", "1Gi", "1500M", "2Gi", "5Gi"])
MODES = st.lists(
    st.sampled_from(["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]), min_size=1, max_size=3, unique=True
)
CLASSES = st.sampled_from(["", "fast", "slow"])
NAMES = st.sampled_from(["c0", "c1", "c2", "c3"])
CLAIMS = st.lists(
    st.builds(claim, NAMES, SIZES, accessModes=MODES, storageClassName=CLASSES), unique_by=lambda c: c.name, max_size=4
)
VOLUMES = st.lists(
    st.builds(
        volume, st.sampled_from([f"v{i}" for i in range(6)]), SIZES, accessModes=MODES, storageClassName=CLASSES,
        of=st.one_of(st.just(""), NAMES), node=st.sampled_from(["", "n1", "n2"]),
        phase=st.sampled_from(["Available", "Available", "Released", "Bound"]),
    ),
    unique_by=lambda v: v.name, max_size=6,
)  # fmt: skip


def fits(found: PersistentVolume, wanted: PersistentVolumeClaim) -> None:
    held = parse((found.spec.capacity or {})["storage"])
    assert not held < plan.requested(wanted), "never smaller than what is asked for"
    assert set(wanted.spec.access_modes or ()) <= set(found.spec.access_modes or ())
    if found.spec.claim_ref is None:
        assert found.status.phase == "Available"
        assert plan.volume_class(found) == plan.claim_class(wanted)
    else:
        assert plan.meant_for(found, wanted)


def bound(found: PersistentVolume, wanted: PersistentVolumeClaim) -> PersistentVolume:
    """The volume as it is after the patch of its side."""
    patch = plan.volume_bond(found, wanted)
    plain = msgspec.to_builtins(found)
    plain["spec"] |= patch.get("spec", {})
    plain["status"]["phase"] = "Bound"
    return typed(plain, PersistentVolume)


@settings(max_examples=150)
@given(CLAIMS, VOLUMES, st.randoms(use_true_random=False))
def test_a_volume_is_bound_to_one_claim_and_large_enough(claims: Any, volumes: Any, random: Any) -> None:
    """In whatever order claims are looked at, again and again: each volume ends with one claim, and it fits."""
    held = {v.name: v for v in volumes}
    given_to: dict[str, str] = {}
    for _ in range(2):
        random.shuffle(claims)
        for wanted in claims:
            found = find_volume(wanted, list(held.values()), delayed=False)
            before = next((v for v, c in given_to.items() if c == wanted.name), None)
            if before is not None:
                assert found is not None and found.name == before, "bound stays bound"
                continue
            if found is None:
                continue
            fits(found, wanted)
            assert found.name not in given_to
            given_to[found.name] = wanted.name
            held[found.name] = bound(found, wanted)
            assert plan.volume_bond(held[found.name], wanted) == {}, "a second look writes nothing"
    for name, owner in given_to.items():
        reference = held[name].spec.claim_ref
        assert reference is not None and reference.name == owner and reference.uid == f"uid-{owner}"


@settings(max_examples=150)
@given(CLAIMS, VOLUMES)
def test_what_a_pod_gets_on_a_node_can_be_reached_from_there(claims: Any, volumes: Any) -> None:
    classes = {
        "fast": storage_class("fast", waits=True),
        "slow": storage_class("slow", plan.NO_PROVISIONER, waits=True),
    }
    for here in (node("n1"), node("n2")):
        choice = choose_volumes(PodClaims(waiting=claims), here, {}, volumes, classes)
        names = [v.name for _, v in choice.taken]
        assert len(set(names)) == len(names)
        for wanted, found in choice.taken:
            assert plan.reached_from(found, here)
            assert not plan.capacity(found) < plan.requested(wanted)
        assert {plan.claim_class(c) for c in choice.made} <= {"fast"}
        served = {c.name for c, _ in choice.taken} | {c.name for c in choice.made}
        assert (choice.problems == [NO_VOLUME]) == (served != {c.name for c in claims})


@given(CLAIMS, VOLUMES)
def test_a_pod_is_never_placed_before_its_claims_are_known(claims: Any, volumes: Any) -> None:
    sources = [{"name": c.name, "persistentVolumeClaim": {"claimName": c.name}} for c in claims]
    pod = typed({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"volumes": sources}}, Pod)
    divided = divide_claims(pod, {c.name: c for c in claims[1:]}, {}, {})
    if claims:
        assert divided.problem == f'persistentvolumeclaim "{claims[0].name}" not found'
    known = divide_claims(pod, {c.name: c for c in claims}, {}, {})
    assert bool(known.problem) == bool(claims), "none is bound, and none waits for a consumer"
