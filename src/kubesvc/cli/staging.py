"""Puts a scenario on a cluster, asks `why` about it, repairs it as told, and takes it away again."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kubesvc.api.errors import AlreadyExists, ApiError, Conflict, Forbidden, NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import by_kind
from kubesvc.api.namespace import NAMESPACE
from kubesvc.api.node import NODE
from kubesvc.api.serviceaccount import SERVICE_ACCOUNT
from kubesvc.client.http import HttpClient
from kubesvc.client.kubeconfig import Access, load_kubeconfig, render_kubeconfig
from kubesvc.clock import Clock, RealClock
from kubesvc.instance.kubeconfig import write_private
from kubesvc.instance.kubectl import find_kubectl
from kubesvc.instance.paths import state_home
from kubesvc.lifetime import await_end
from kubesvc.why.answer import diagnose
from kubesvc.why.collect import read_for
from kubesvc.why.diagnosis import Diagnosis
from kubesvc.why.dump import read_manifests
from kubesvc.why.planned import plan_manifests
from kubesvc.why.scenarios import Object, Scenario
from kubesvc.why.subject import parse_subject

from .cluster import Cluster
from .sights import look_into
from .target import load_record

PATIENCE_SECONDS = 60.0
COMMAND_SECONDS = 150.0
SUGGESTION_SECONDS = 15.0
"""How long a suggestion is waited for: what is planted may look otherwise for a moment, as a container does that starts
once more between two crashes, or a node that is slow to say what it sees."""
LOOK_SECONDS = 30.0
"""Longer than who only asks would like to wait: without a look a scenario that needs one cannot be judged."""
OURS = "example.com/scenario-"
"""A label that a repair puts on a node is this and the scenario's name; `stop` takes it off."""
RUNS_ON = "kubesvc controllers"
"""A repair that begins so runs on until the Service works, and is ended then."""


class StageFailed(Exception):
    """A scenario could not be made, or did not do as it says; the text says what was seen."""


def words_for(scenario: Scenario, found: Mapping[str, str]) -> dict[str, str]:
    """What stands for the words with a dollar in a scenario."""
    own = {"NAMESPACE": f"scenario-{scenario.name}", "OTHER": f"scenario-{scenario.name}-other"}
    usual = {
        "NODE": "n1", "NODE2": "n2", "ADDRESS": "172.30.0.11", "ADDRESS2": "172.30.0.12", "PID2": "0",
        "PYTHON": shlex.quote(sys.executable),
    }  # fmt: skip
    return {**usual, **found, **own}


def filled(value: Any, words: Mapping[str, str]) -> Any:
    """An object, or text, with its words replaced; longer words first."""
    if isinstance(value, dict):
        return {filled(k, words): filled(v, words) for k, v in value.items()}
    if isinstance(value, list):
        return [filled(v, words) for v in value]
    if isinstance(value, str) and "$" in value:
        for word in sorted(words, key=len, reverse=True):
            value = value.replace(f"${word}", words[word])
    return value


@dataclasses.dataclass
class Stage:
    """A cluster on which scenarios are played; several may be at once.

    patience_seconds: how long a cause may take to show, and a repair to help
    """

    cluster: Cluster
    found: dict[str, str] = dataclasses.field(default_factory=dict)
    clock: Clock = dataclasses.field(default_factory=RealClock)
    patience_seconds: float = PATIENCE_SECONDS

    async def find_words(self) -> None:
        """Names and addresses of the cluster's first real nodes."""
        if self.cluster.record is not None:
            real = [n for n in self.cluster.record.nodes if not n.simulated]
            for word, node in zip(("NODE", "NODE2"), real, strict=False):
                self.found[word] = node.name
            if real:
                self.found["ADDRESS"] = real[0].address
                last = real[-1]
                self.found["NODE2"], self.found["ADDRESS2"] = last.name, last.address
                self.found["PID2"] = str(last.agent.pid) if last.agent else "0"
            return
        listed = [json.loads(raw) for raw in (await self.cluster.client.list_raw(NODE, limit=2)).items]
        for word, obj in zip(("NODE", "NODE2"), listed, strict=False):
            self.found[word] = obj["metadata"]["name"]
        for entry in (listed[0].get("status", {}).get("addresses") or ()) if listed else ():
            if entry["type"] == "InternalIP":
                self.found.setdefault("ADDRESS", entry["address"])

    def words(self, scenario: Scenario) -> dict[str, str]:
        return words_for(scenario, self.found)

    # ------------------------------------------------------------ making and removing

    async def started(self, scenario: Scenario) -> bool:
        try:
            await self.cluster.client.get(NAMESPACE, self.words(scenario)["NAMESPACE"])
        except NotFound:
            return False
        return True

    async def start(self, scenario: Scenario) -> None:
        """Make everything; StageFailed if it is there already, or if a step fails."""
        words = self.words(scenario)
        objects = [filled(o, words) for o in scenario.objects]
        names = [words["NAMESPACE"]]
        if any(o["metadata"].get("namespace") == words["OTHER"] for o in objects):
            names.append(words["OTHER"])
        for name in names:
            made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            try:
                await self.cluster.client.create(NAMESPACE, made)
            except AlreadyExists:
                said = f"{scenario.name} is started already"
                raise StageFailed(f"{said}\nnext: kubesvc scenario stop {scenario.name}") from None
        if scenario.files:
            self.write_manifests(scenario, objects)
        else:
            for obj in objects:
                await self.create(obj, words["NAMESPACE"])
        if scenario.account:
            await self.write_account(scenario)
        for step in scenario.steps:
            await self.execute(step, words)

    def place(self, scenario: Scenario) -> Path:
        """The directory for a scenario's files."""
        instance = self.cluster.instance
        return (instance.root / "scenarios" if instance else state_home() / ".scenarios") / scenario.name

    def manifests(self, scenario: Scenario) -> Path:
        """The directory of manifests that are not applied."""
        return self.place(scenario) / "manifests"

    def account(self, scenario: Scenario) -> Path:
        """The kubeconfig of a scenario's own user."""
        return self.place(scenario) / "kubeconfig"

    def write_manifests(self, scenario: Scenario, objects: Sequence[Object]) -> None:
        """A file for each object."""
        import yaml

        directory = self.manifests(scenario)
        directory.mkdir(parents=True, exist_ok=True)
        for obj in objects:
            manifest_of(directory, obj["kind"], obj["metadata"]["name"]).write_text(
                yaml.safe_dump(obj, sort_keys=False)
            )

    async def write_account(self, scenario: Scenario) -> None:
        """A token for the scenario's service account, and a kubeconfig that holds it."""
        namespace, name = self.words(scenario)["NAMESPACE"], scenario.account
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86400}}
        made = await self.cluster.client.create(SERVICE_ACCOUNT, asked, namespace, name=name, subresource="token")
        access = self.cluster.access
        assert access is not None
        bearer = Access(
            access.server, namespace, access.ca, access.insecure, access.tls_server_name, access.proxy_url,
            token=made["status"]["token"],
        )  # fmt: skip
        file = self.account(scenario)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_private(file, render_kubeconfig(bearer, name))

    async def create(self, obj: Object, namespace: str) -> None:
        """One object; again for a while if the namespace is so new that Pods are refused in it: they want to run as its
        service account, which a controller makes."""
        kind = kind_of(obj)
        where = obj["metadata"].get("namespace") or namespace if kind.namespaced else ""
        until = self.clock.monotonic() + self.patience_seconds
        while True:
            try:
                await self.cluster.client.create(kind, obj, where)
                return
            except Forbidden as error:
                if "service account" not in error.message or self.clock.monotonic() > until:
                    raise
                await asyncio.sleep(0.1)
            except AlreadyExists:
                if where == namespace:
                    raise
                return  # what is made outside of the scenario's own namespace may be there

    async def stop(self, scenario: Scenario) -> None:
        """Remove it all; what is gone already is no error."""
        words = self.words(scenario)
        if any("$PID2" in step for step in scenario.steps) and int(words["PID2"]):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(words["PID2"]), signal.SIGCONT)
        if scenario.undo:
            with contextlib.suppress(StageFailed):
                await self.execute(filled(scenario.undo, words), words)
        for obj in () if scenario.files else (filled(o, words) for o in scenario.objects):
            kind, where = kind_of(obj), obj["metadata"].get("namespace", "")
            if not kind.namespaced or where not in ("", words["NAMESPACE"], words["OTHER"]):
                with contextlib.suppress(NotFound):
                    await self.cluster.client.delete(kind, obj["metadata"]["name"], where)
        for name in (words["NAMESPACE"], words["OTHER"]):
            with contextlib.suppress(NotFound, Conflict):
                await self.cluster.client.delete(NAMESPACE, name)
        await self.take_label_off(f"{OURS}{scenario.name}")
        shutil.rmtree(self.place(scenario), ignore_errors=True)

    async def take_label_off(self, label: str) -> None:
        for raw in (await self.cluster.client.list_raw(NODE)).items:
            meta = json.loads(raw)["metadata"]
            if label in (meta.get("labels") or ()):
                patch = {"metadata": {"labels": {label: None}}}
                with contextlib.suppress(ApiError):
                    await self.cluster.client.patch(NODE, meta["name"], "", patch, "merge")

    # ------------------------------------------------------------ asking

    def question(self, scenario: Scenario, *, after: bool) -> tuple[str, list[str]]:
        """(namespace, words for `why`)."""
        words = self.words(scenario)
        asked = filled((scenario.after if after else "") or scenario.ask, words).split()
        if asked[0] == words["OTHER"]:
            return asked[0], asked[1:]
        return words["NAMESPACE"], asked

    async def examine(self, scenario: Scenario, *, after: bool = False) -> Diagnosis:
        """What `why` says now."""
        namespace, words = self.question(scenario, after=after)
        subject = parse_subject(words)
        if scenario.files:
            self.demand(scenario, self.manifests(scenario))
            given = read_manifests([self.manifests(scenario)], namespace)
            return diagnose(subject, plan_manifests(given, None), namespace)
        if scenario.account:
            self.demand(scenario, self.account(scenario))
            access = load_kubeconfig(str(self.account(scenario))).access()
            client = HttpClient.from_access(access, "kubesvc-scenario")
            try:
                return diagnose(subject, await read_for(client, self.clock, subject, namespace), namespace)
            finally:
                await client.close()
        snapshot = await read_for(self.cluster.client, self.clock, subject, namespace)
        service = snapshot.services.get((namespace, subject.service))
        instance = self.cluster.instance
        if scenario.looks and service is not None and instance is not None:
            record = load_record(instance)  # anew: scenarios let nodes fail
            if record is not None:
                snapshot = await look_into(instance, record, service, snapshot, most_seconds=LOOK_SECONDS)
        return diagnose(subject, snapshot, namespace)

    def demand(self, scenario: Scenario, file: Path) -> None:
        """StageFailed unless the file is there."""
        if not file.exists():
            said = f"{scenario.name} was started only in part: {file} is missing"
            raise StageFailed(f"{said}\nnext: kubesvc scenario stop {scenario.name}")

    async def planted(self, scenario: Scenario) -> Diagnosis:
        """The diagnosis once the planted cause comes first; StageFailed if it does not."""
        until = self.clock.monotonic() + self.patience_seconds
        while True:
            found = await self.examine(scenario)
            if found.code == scenario.code and found.status == scenario.status:
                return found
            if self.clock.monotonic() > until:
                break
            await asyncio.sleep(0.3)
        raise StageFailed(
            f"{scenario.name}: why should name {scenario.code} ({scenario.status}) first and says: {found.verdict} "
            f"[{found.code or 'no cause'}, {found.status}]"
        )

    def is_healed(self, scenario: Scenario, found: Diagnosis) -> bool:
        certain = found.status == scenario.healed
        return certain and scenario.code not in {f.code for f in found.findings}

    async def repair(self, scenario: Scenario) -> list[str]:
        """Run what `why` suggests, or where that only shows more what the scenario knows; the commands."""
        if scenario.repair:
            commands = [filled(c, self.words(scenario)) for c in scenario.repair]
        else:
            command = await self.suggested(scenario)
            commands = [to_file(command, self.manifests(scenario)) if scenario.files else command]
        for command in commands:
            if command.startswith(RUNS_ON):
                await self.run_meanwhile(command, scenario)
            else:
                await self.execute(command, self.words(scenario))
        return commands

    async def suggested(self, scenario: Scenario) -> str:
        """The command that `why` suggests against the planted cause; StageFailed if there is none that repairs."""
        until = self.clock.monotonic() + SUGGESTION_SECONDS
        while True:
            found = await self.examine(scenario)
            first = next((f for f in found.findings if f.code == scenario.code), None)
            if first is not None and first.repairs:
                return first.command
            if self.clock.monotonic() > until:
                break
            await asyncio.sleep(0.3)
        if first is None:
            raise StageFailed(f"{scenario.name}: nothing to repair: {found.verdict}")
        raise StageFailed(f"{scenario.name}: why suggests nothing that repairs: {first.text}")

    async def healed(self, scenario: Scenario) -> Diagnosis:
        """The diagnosis once all is well; StageFailed if that does not come."""
        until = self.clock.monotonic() + self.patience_seconds
        while True:
            found = await self.examine(scenario, after=True)
            if self.is_healed(scenario, found):
                return found
            if self.clock.monotonic() > until:
                break
            await asyncio.sleep(0.3)
        codes = ", ".join(f.code for f in found.findings)
        raise StageFailed(f"{scenario.name}: repaired, and still: {found.verdict} [{codes}, {found.status}]")

    # ------------------------------------------------------------ commands

    def environment(self, words: Mapping[str, str]) -> dict[str, str]:
        """Where `kubectl` and `kubesvc` are on the PATH and mean this cluster."""
        paths = [os.environ.get("PATH", "")]
        if self.cluster.instance is not None:
            paths.insert(0, str(programs(self.cluster.instance.root / "bin")))
        config = os.path.abspath(os.path.expanduser(self.cluster.kubeconfig))
        return {**os.environ, **words, "PATH": os.pathsep.join(paths), "KUBECONFIG": config}

    async def execute(self, command: str, words: Mapping[str, str]) -> None:
        """Run one line in a shell, as a user would paste it. StageFailed if it fails."""
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", command,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=self.environment(words), start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                said, _ = await process.communicate()
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):  # with all that the shell started, which holds its pipe open
                os.killpg(process.pid, signal.SIGKILL)
            await await_end(process, command)
            if isinstance(error, TimeoutError):
                raise StageFailed(f"{command}: took more than {COMMAND_SECONDS:.0f} s") from None
            raise
        if process.returncode != 0:
            raise StageFailed(f"{command}: {said.decode(errors='replace').strip() or f'status {process.returncode}'}")

    async def run_meanwhile(self, command: str, scenario: Scenario) -> None:
        """Run a part until the Service works, then end it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *command.split(),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            env=self.environment(self.words(scenario)),
        )  # fmt: skip
        try:
            await self.healed(scenario)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await await_end(process, command)


def manifest_of(directory: Path, kind: str, name: str) -> Path:
    return directory / f"{kind.lower()}-{name}.yaml"


def to_file(command: str, directory: Path) -> str:
    """The `kubectl patch KIND NAME …` of a suggestion, done to the manifest in a file instead of to a cluster."""
    words = shlex.split(command)
    at = words.index("patch")
    file = manifest_of(directory, words[at + 1], words[at + 2])
    patched = shlex.join(["kubectl", "patch", "--local", "-f", str(file), *words[at + 3 :], "-o", "yaml"])
    fresh = file.with_suffix(".new")
    return f"{patched} > {shlex.quote(str(fresh))} && mv {shlex.quote(str(fresh))} {shlex.quote(str(file))}"


def kind_of(obj: Object) -> Kind:
    kind = by_kind(obj["apiVersion"], obj["kind"])
    assert kind is not None, obj["kind"]
    return kind


def programs(directory: Path) -> Path:
    """A directory with `kubectl` (stock, if installed with us) and `kubesvc` (this one)."""
    directory.mkdir(exist_ok=True)
    stock = find_kubectl()
    if stock is not None:
        replace(directory / "kubectl", f'#!/bin/sh\nexec "{stock}" "$@"\n')
    replace(directory / "kubesvc", f'#!/bin/sh\nexec "{sys.executable}" -m kubesvc "$@"\n')
    return directory


def replace(path: Path, text: str) -> None:
    """Write a program, unless it is there as it should be; several commands may do so at once."""
    with contextlib.suppress(OSError):
        if path.read_text() == text:
            return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text)
    fresh.chmod(0o755)
    fresh.replace(path)
