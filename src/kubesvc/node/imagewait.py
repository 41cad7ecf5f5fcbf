"""How a container comes by its image: found here, or pulled, or waited for (NODE-28, NODE-86)."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

import msgspec

from kubesvc.api.container import Container
from kubesvc.api.pod import Pod

from .context import NodeContext
from .images import Image, ImageProblem, full_name
from .pulling import Login, Told, Wanted, ask_pull
from .registry import HUB, PullFailed
from .restart_plan import BackOff, advance, go_duration

LOOK_SECONDS = 10.0
"""How often a container looks again for what nobody will pull."""
SHOWN_SECONDS = 1.0
"""How long a failed pull is shown as ErrImagePull before it is shown as waiting for its back-off."""


class Waiting(Protocol):
    """What getting an image needs of its container.

    wait_for: shows the container as waiting, with a reason and a message
    late:     it will take longer than others need to wait for
    """

    node: NodeContext
    container: Container

    @property
    def pod(self) -> Pod: ...
    def wait_for(self, reason: str, message: str = "") -> None: ...
    def event(self, severity: Literal["Normal", "Warning"], reason: str, message: str) -> None: ...
    def late(self) -> None: ...


async def await_image(waiting: Waiting) -> Image:
    """The container's image, waited for with back-off while it cannot be had."""
    node, name = waiting.node, waiting.container.image
    back_off: BackOff | None = None
    while True:
        try:
            return await node.runtime.find_image(waiting)
        except ImageProblem as error:
            waiting.late()
            if error.reason in ("InvalidImageName", "ErrImageNeverPull"):
                waiting.wait_for(error.reason, str(error))
                event = "InspectFailed" if error.reason == "InvalidImageName" else error.reason
                waiting.event("Warning", event, str(error))
                await asyncio.sleep(LOOK_SECONDS)
                continue
            waiting.event("Warning", "Failed", f'Failed to pull image "{name}": {error}')
            waiting.event("Warning", "Failed", "Error: ErrImagePull")
            waiting.wait_for("ErrImagePull", str(error))
            back_off = advance(back_off, node.clock.monotonic(), node.settings.image_back_off_cap_seconds)
            await asyncio.sleep(min(SHOWN_SECONDS, back_off.seconds))
            words = f'Back-off pulling image "{name}"'
            waiting.event("Normal", "BackOff", words)
            waiting.event("Warning", "Failed", "Error: ImagePullBackOff")
            waiting.wait_for("ImagePullBackOff", f"{words}: ErrImagePull: {error}")
            await asyncio.sleep(max(0.0, back_off.seconds - SHOWN_SECONDS))


async def find_or_pull(waiting: Waiting) -> Image:
    """The image as the pull policy wants it: what is here, or what a registry has now. ImageProblem."""
    node, name = waiting.node, waiting.container.image
    policy = waiting.container.image_pull_policy
    held = node.held_image(name)
    if held is not None and (policy != "Always" or not held.origin or node.settings.pull_socket is None):
        waiting.event("Normal", "Pulled", f'Container image "{name}" already present on machine')
        return said(waiting, held)
    if policy == "Never":
        raise ImageProblem("ErrImageNeverPull", f'Container image "{name}" is not present with pull policy of Never')
    first = None if node.settings.registries_first else node.stand_in(name)
    if first is not None:
        waiting.event("Normal", "Pulled", f'Container image "{name}" already present on machine')
        return said(waiting, first)
    waiting.event("Normal", "Pulling", f'Pulling image "{name}"')
    try:
        told = await pull(waiting)
    except PullFailed as error:
        last = node.stand_in(name)
        if last is not None:
            return said(waiting, last, f"; {error}")
        raise ImageProblem("ErrImagePull", f"{error}{node.image_advice(name)}") from None
    waiting.event("Normal", "Pulled", pulled_words(name, told))
    found = node.held_image(name)
    if found is None:
        raise ImageProblem("ErrImagePull", f'image "{full_name(name)}" was removed as soon as it was pulled')
    return found


def said(waiting: Waiting, image: Image, why: str = "") -> Image:
    """Say aloud that something only stands in for the image."""
    if not image.identity:
        waiting.event("Normal", "StandIn", f'Image "{waiting.container.image}" is stood in for by {image.said}{why}')
    return image


async def pull(waiting: Waiting) -> Told:
    """Have it pulled into the store. PullFailed."""
    socket = waiting.node.settings.pull_socket
    if socket is None:
        raise PullFailed("no program stands for this image on this node, and nothing is pulled here")
    waiting.late()
    return await ask_pull(socket, Wanted(waiting.container.image, tuple(await pod_logins(waiting))))


async def pod_logins(waiting: Waiting) -> list[Login]:
    """The logins in the Pod's pull secrets, those that are there."""
    node, pod = waiting.node, waiting.pod
    logins: list[Login] = []
    for reference in pod.spec.image_pull_secrets or ():
        if reference.name and (secret := await node.secret(pod.namespace, reference.name)) is not None:
            logins += logins_of(secret)
    return logins


def logins_of(secret: Mapping[str, bytes]) -> Iterable[Login]:
    """The logins in a pull secret, of either form (`.dockerconfigjson`, `.dockercfg`); what cannot be read is none."""
    try:
        if ".dockerconfigjson" in secret:
            found = msgspec.json.decode(secret[".dockerconfigjson"])
            found = found.get("auths") if isinstance(found, dict) else None
        else:
            found = msgspec.json.decode(secret.get(".dockercfg", b"{}"))
    except msgspec.MsgspecError:
        return
    for address, entry in (found if isinstance(found, dict) else {}).items():
        if not isinstance(entry, dict):
            continue
        user, password = entry.get("username"), entry.get("password")
        if isinstance(entry.get("auth"), str):
            try:
                user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                continue
        if isinstance(user, str) and isinstance(password, str):
            yield Login(registry_of(str(address)), user, password)


def registry_of(address: str) -> str:
    """The registry that a pull secret's key means: `https://index.docker.io/v1/` is docker.io."""
    host = address.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return HUB if host in ("index.docker.io", "registry-1.docker.io") else host


def pulled_words(name: str, told: Told) -> str:
    took, waited = go_duration(told.seconds), go_duration(told.waited_seconds)
    return (
        f'Successfully pulled image "{name}" in {took} ({waited} including waiting). '
        f"Image size: {told.size_bytes} bytes."
    )
