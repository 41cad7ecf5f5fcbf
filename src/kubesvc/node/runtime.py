"""What makes a node's sandboxes and containers: the agent itself (`native`), or a container runtime (`cri`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kubesvc.api.container import Container
from kubesvc.api.pod import Pod
from kubesvc.kernel.mounts import Mount
from kubesvc.kernel.process import WatchedProcess

from .execution import Execution
from .images import Image
from .imagewait import Waiting
from .output import ContainerOutput
from .records import ContainerRecord, PodRecord

if TYPE_CHECKING:
    from .containers import ContainerRunner


class CreateFailed(Exception):
    """A container that could not even be made ready to start (CreateContainerError); what may be mended is tried again,
    and no run is counted."""


class Runtime(Protocol):
    """Makes, finds again and ends sandboxes and containers. What it makes outlives the agent."""

    @property
    def version(self) -> str:
        """Name and version as Node statuses have them: `kubesvc://0.1.0`, `containerd://1.6.20`."""
        ...

    @property
    def trouble(self) -> str:
        """Why no Pods can run at the moment, as the Node's condition says it; "" if they can."""
        ...

    async def open(self) -> None:
        """Get to know it, before anything else. OSError with what stands in the way."""
        ...

    async def clean_up(self, known: Sequence[PodRecord]) -> None:
        """Remove what an earlier agent of this node has made and none of these records names."""
        ...

    async def close(self) -> None:
        """Let go of it; what runs goes on running."""
        ...

    async def start_sandbox(
        self, pod: Pod, record: PodRecord, hostname: str, save: Callable[[], None]
    ) -> WatchedProcess:
        """Make the Pod's namespaces with its network, by the addresses of its record: the process that holds them.

        What is made is put into the record, and `save` called, before it is used. OSError if it cannot be made; what
        was made is then for `end_sandbox`.
        """
        ...

    async def end_sandbox(self, record: PodRecord) -> None:
        """End a sandbox and all its containers, at once; nothing happens if there is none."""
        ...

    async def find_image(self, waiting: Waiting) -> Image:
        """A container's image as its pull policy wants it. ImageProblem."""
        ...

    def first_environment(self, runner: ContainerRunner, image: Image) -> dict[str, str]:
        """The variables that a container has beside its own."""
        ...

    def output(self, directory: Path, container: Container) -> ContainerOutput:
        """What keeps the streams of a container's runs."""
        ...

    async def launch(
        self, runner: ContainerRunner, image: Image, environment: Mapping[str, str], mounts: Sequence[Mount]
    ) -> Execution:
        """Start a container's next run. CreateFailed, StartFailed or OSError if it cannot be; what was made for it is
        gone then."""
        ...

    def adopt_process(self, record: ContainerRecord) -> WatchedProcess | None:
        """The process of a run that an earlier agent has started, if it still runs."""
        ...

    def adopt(self, runner: ContainerRunner, process: WatchedProcess) -> Execution:
        """Take over such a run."""
        ...
