"""Admission of claims and volumes: the default class, protection while in use, growth."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from kubesvc.api.errors import Forbidden, Invalid
from kubesvc.api.kinds import PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.client.interface import Client

from .running import SETTINGS, with_server

DEFAULT = "storageclass.kubernetes.io/is-default-class"
OLD_DEFAULT = "storageclass.beta.kubernetes.io/is-default-class"
WANTED: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


def served(story: Callable[[Client], Awaitable[None]], *disabled: str) -> None:
    async def run(server: ApiServer) -> None:
        await story(server.client)

    settings = replace(SETTINGS, disabled_admission=SETTINGS.disabled_admission | set(disabled))
    with_server(run, settings)


async def make_class(client: Client, name: str, annotation: str = DEFAULT, **more: Any) -> None:
    meta = {"name": name, "annotations": {annotation: "true"} if annotation else {}}
    await client.create(STORAGE_CLASS, {"metadata": meta, "provisioner": "example.com/p", **more})


async def make_claim(client: Client, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> Any:
    body = {"metadata": {"name": name, "annotations": annotations}, "spec": {**WANTED, **spec}}
    return await client.create(PERSISTENT_VOLUME_CLAIM, body, "default")


def test_a_claim_that_names_no_class_gets_the_default_one() -> None:
    async def story(client: Client) -> None:
        assert "storageClassName" not in (await make_claim(client, "before"))["spec"]
        await make_class(client, "plain", "")
        await make_class(client, "main", OLD_DEFAULT)
        assert (await make_claim(client, "none"))["spec"]["storageClassName"] == "main"
        assert (await make_claim(client, "empty", storageClassName=""))["spec"]["storageClassName"] == ""
        assert (await make_claim(client, "own", storageClassName="plain"))["spec"]["storageClassName"] == "plain"
        old = await make_claim(client, "old", {"volume.beta.kubernetes.io/storage-class": "plain"})
        assert "storageClassName" not in old["spec"]

    served(story)


def test_what_may_be_in_use_is_protected() -> None:
    async def story(client: Client) -> None:
        assert (await make_claim(client, "c"))["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
        spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
        body = {"metadata": {"name": "v", "finalizers": ["example.com/f"]}, "spec": spec}
        made = await client.create(PERSISTENT_VOLUME, body)
        assert made["metadata"]["finalizers"] == ["example.com/f", "kubernetes.io/pv-protection"]
        assert made["status"]["lastPhaseTransitionTime"] == made["metadata"]["creationTimestamp"]

    served(story)


def test_plugins_can_be_left_out() -> None:
    async def story(client: Client) -> None:
        await make_class(client, "main")
        made = await make_claim(client, "c")
        assert "storageClassName" not in made["spec"] and "finalizers" not in made["metadata"]

    served(story, "DefaultStorageClass", "StorageObjectInUseProtection")


async def bound_claim(client: Client, name: str, chosen: str) -> None:
    await make_claim(client, name, storageClassName=chosen)
    status = {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
    await client.patch(PERSISTENT_VOLUME_CLAIM, name, "default", status, "merge", subresource="status")


async def resize(client: Client, name: str, size: str) -> Any:
    change = {"spec": {"resources": {"requests": {"storage": size}}}}
    return await client.patch(PERSISTENT_VOLUME_CLAIM, name, "default", change, "merge")


def test_claims_grow_only_where_their_class_lets_them() -> None:
    async def story(client: Client) -> None:
        await make_class(client, "wide", "", allowVolumeExpansion=True)
        await make_class(client, "fixed", "")
        await bound_claim(client, "grows", "wide")
        assert (await resize(client, "grows", "2Gi"))["spec"]["resources"]["requests"]["storage"] == "2Gi"
        with pytest.raises(Invalid, match=r"storage: Forbidden: field can not be less than status.capacity"):
            await resize(client, "grows", "1Mi")
        assert (await resize(client, "grows", "1500Mi"))["spec"]["resources"]["requests"]["storage"] == "1500Mi"
        for name, chosen in (("stays", "fixed"), ("alone", "")):
            await bound_claim(client, name, chosen)
            with pytest.raises(Forbidden, match="only dynamically provisioned pvc can be resized and the storageclass"):
                await resize(client, name, "2Gi")
            with pytest.raises(Invalid, match=r"storage: Forbidden: field can not be less than"):
                await resize(client, name, "1Mi")
        await make_claim(client, "pending", storageClassName="wide")
        with pytest.raises(Invalid, match=r"spec is immutable after creation except resources\.requests"):
            await resize(client, "pending", "2Gi")

    served(story)


def test_a_class_may_still_be_given_to_a_claim_that_has_none() -> None:
    async def story(client: Client) -> None:
        await make_claim(client, "c")
        for chosen, allowed in (("first", True), ("second", False)):
            change = {"spec": {"storageClassName": chosen}}
            if allowed:
                await client.patch(PERSISTENT_VOLUME_CLAIM, "c", "default", change, "merge")
            else:
                with pytest.raises(Invalid, match="spec is immutable"):
                    await client.patch(PERSISTENT_VOLUME_CLAIM, "c", "default", change, "merge")

    served(story)
