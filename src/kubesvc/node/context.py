"""What the agent's workers share: doors, settings, caches. One per agent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.kinds import CONFIG_MAP, SECRET, SERVICE_ACCOUNT
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service
from kubesvc.client import Client
from kubesvc.clock import Clock, Random
from kubesvc.kernel.cgroups import Cgroups
from kubesvc.kernel.ids import ALL_IDS, Ids
from kubesvc.kernel.process import Spawner

from .environment import Sources
from .events import NodeEvents
from .hostports import HostPorts
from .images import Image, advice, load_map, mapped_image, stand_in
from .imagestore import ImageStore
from .ipam import AddressPool
from .records import Records
from .sandbox import Sandboxes
from .settings import NodeSettings
from .volumes import Material, bytes_of_config_map, bytes_of_secret

if TYPE_CHECKING:
    from .runtime import Runtime

TOKEN_LIFE = 0.8
"""The part of a token's life after which a new one is asked for."""


@dataclass(kw_only=True)
class NodeContext:
    """The agent's doors and what its workers must agree on.

    services:  lists all Services known now
    runtime:   makes sandboxes and containers; set before the first worker is made
    overlay:   options by which a writable layer can be laid over the machine's files, None: it cannot
    pools:     where the Pods' addresses come from, primary family first
    carried:   mounts of the machine that containers see too
    ids:       which users and groups containers may have
    groups:    makes control groups; None: there are none
    host_ports: passes host ports on to Pods; None: nobody does
    """

    client: Client
    settings: NodeSettings
    clock: Clock
    random: Random
    spawner: Spawner
    sandboxes: Sandboxes
    records: Records
    events: NodeEvents
    services: Callable[[], Iterable[Service]]
    runtime: Runtime = field(init=False)
    overlay: str | None = None
    pools: list[AddressPool] = field(default_factory=list)
    carried: list[str] = field(default_factory=list)
    ids: Ids = ALL_IDS
    groups: Cgroups | None = None
    host_ports: HostPorts | None = None
    allocatable: Mapping[str, str | int | float] = field(default_factory=dict)
    verdict_told: Callable[[str, str, str], None] | None = None
    """Told of each turn of a probe's verdict: the Pod's namespace and name, and what the probe met, in words."""
    probe_results: dict[tuple[str, str, str, str, str], int] = field(default_factory=dict)
    """Counts by probe type, result, container, pod, namespace (NODE-55)."""

    network_trouble: str = ""
    """Why no Pod can have a network of its own here now; "" if it can (NODE-60)."""
    tokens: dict[tuple[str, str, int], tuple[str, float]] = field(default_factory=dict)
    """By Pod uid, audience and seconds: the token, and when a new one is due."""

    def held_image(self, name: str) -> Image | None:
        """What the user's map says or the store holds now; None if neither does. ImageProblem for what is no name."""
        return mapped_image(name, load_map(self.settings.images_map)) or self.loaded_image(name)

    def stand_in(self, name: str) -> Image | None:
        """What of this machine stands in for an image, None if nothing does."""
        return stand_in(name)

    def image(self, name: str) -> Image | None:
        """What an image runs here as things are now, without pulling it."""
        return self.held_image(name) or self.stand_in(name)

    def image_advice(self, name: str) -> str:
        """What a user can do about an image that is not to be had."""
        return f"; {advice(name, self.settings.images_map)}"

    def loaded_image(self, name: str) -> Image | None:
        """An image that was loaded from a file."""
        store = self.settings.image_store
        return ImageStore(store).find(name) if store is not None else None

    async def config_map(self, namespace: str, name: str) -> dict[str, bytes] | None:
        """Its values, None if it does not exist."""
        try:
            found = await self.client.get(CONFIG_MAP, name, namespace)
        except NotFound:
            return None
        return bytes_of_config_map(found.get("data"), found.get("binaryData"))

    async def secret(self, namespace: str, name: str) -> dict[str, bytes] | None:
        try:
            found = await self.client.get(SECRET, name, namespace)
        except NotFound:
            return None
        return bytes_of_secret(found.get("data"))

    async def token(self, pod: Pod, audience: str, seconds: int) -> str | None:
        """A token of the Pod's account, bound to the Pod; the same until most of its life is over. None where the
        server gives none."""
        key = (pod.metadata.uid, audience, seconds)
        now = self.clock.now()
        held = self.tokens.get(key)
        if held is not None and now < held[1]:
            return held[0]
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": max(600, seconds),
                "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod.name, "uid": pod.metadata.uid},
            },
        }
        account = pod.spec.service_account_name or "default"
        try:
            answer = await self.client.create(
                SERVICE_ACCOUNT, request, pod.namespace, name=account, subresource="token"
            )
        except ApiError:
            return None
        token = (answer.get("status") or {}).get("token")
        if not isinstance(token, str):
            return None
        self.tokens[key] = (token, now + TOKEN_LIFE * max(600, seconds))
        return token

    def forget(self, pod: Pod) -> None:
        """A Pod is gone: drop what was kept for it."""
        for token in [k for k in self.tokens if k[0] == pod.metadata.uid]:
            del self.tokens[token]
        for counted in [k for k in self.probe_results if k[3:] == (pod.name, pod.namespace)]:
            del self.probe_results[counted]

    def sources(
        self,
        pod: Pod,
        ips: Iterable[str],
        maps: Mapping[str, dict[str, bytes]],
        secrets: Mapping[str, dict[str, bytes]],
    ) -> Sources:
        """What environment values come from, for one Pod now."""
        return Sources(
            config_maps={n: text_values(v) for n, v in maps.items()},
            secrets={n: text_values(v) for n, v in secrets.items()},
            services=self.services(),
            host_ips=self.settings.node_addresses,
            pod_ips=tuple(ips),
            node_name=self.settings.node_name,
            allocatable=self.allocatable,
        )

    async def fetch(
        self, namespace: str, maps: Iterable[str], secrets: Iterable[str]
    ) -> tuple[dict[str, dict[str, bytes]], dict[str, dict[str, bytes]]]:
        """The named ConfigMaps and Secrets that exist."""
        found_maps = {n: v for n in sorted(maps) if (v := await self.config_map(namespace, n)) is not None}
        found_secrets = {n: v for n in sorted(secrets) if (v := await self.secret(namespace, n)) is not None}
        return found_maps, found_secrets

    async def material(
        self, pod: Pod, ips: Iterable[str], needed: tuple[set[str], set[str], set[tuple[str, int]]]
    ) -> Material:
        """What the Pod's volumes are filled with."""
        maps, secrets = await self.fetch(pod.namespace, needed[0], needed[1])
        tokens = {}
        for audience, seconds in sorted(needed[2]):
            token = await self.token(pod, audience, seconds)
            if token is not None:
                tokens[audience, seconds] = token
        return Material(config_maps=maps, secrets=secrets, tokens=tokens, sources=self.sources(pod, ips, maps, secrets))


def text_values(values: Mapping[str, bytes]) -> dict[str, str]:
    """Values as environment variables can hold them."""
    return {key: value.decode(errors="replace") for key, value in values.items()}
