"""What stock kubectl creates itself, it sends as protobuf: each must be stored as its JSON form would be (WRITE-11)."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api import decode
from kubesvc.api.decode import Decoded, Target
from kubesvc.apiserver import ApiServerSettings
from kubesvc.apiserver.__main__ import make_certificate
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.clock import RealClock
from kubesvc.instance.kubectl import find_kubectl
from kubesvc.store.memory import MemoryStore

KUBECTL = find_kubectl()

CREATED = (
    ("namespace {n}", "namespace"),
    ("service clusterip {n} --tcp=80:8080 --tcp=443:https", "service"),
    ("service clusterip {n} --clusterip=None", "service"),
    ("service nodeport {n} --tcp=80", "service"),
    ("service loadbalancer {n} --tcp=80:8080", "service"),
    ("service externalname {n} --external-name=example.com", "service"),
    ("deployment {n} --image=nginx --image=busybox --replicas=0", "deployment"),
    ("deployment {n} --image=nginx:1.25 --port=80 -- sleep 3600", "deployment"),
    ("configmap {n} --from-literal=k=v --from-literal=empty= --from-file=binary={dir}/binary", "configmap"),
    ("configmap {n}", "configmap"),
    ("secret generic {n} --from-literal=password=xyz --from-file={dir}/binary", "secret"),
    ("secret docker-registry {n} --docker-username=u --docker-password=p", "secret"),
    ("secret tls {n} --cert={dir}/tls.crt --key={dir}/tls.key", "secret"),
    ("serviceaccount {n}", "serviceaccount"),
    ("role {n} --verb=get,list --resource=pods,deployments.apps --resource-name=a", "role"),
    ("rolebinding {n} --role=r --user=u --group=g --serviceaccount=ns:sa", "rolebinding"),
    ("clusterrole {n} --verb=get --non-resource-url=/logs/*", "clusterrole"),
    ("clusterrole {n} --aggregation-rule=a=b,c=d", "clusterrole"),
    ("clusterrolebinding {n} --clusterrole=view --serviceaccount=ns:sa", "clusterrolebinding"),
    ("job {n} --image=busybox -- date", "job"),
    ("cronjob {n} --image=busybox --schedule=*/1_*_*_*_* -- date", "cronjob"),
    ("ingress {n} --class=c --rule=foo.com/bar*=svc1:8080,tls=my-cert --rule=/=s:http", "ingress"),
    ("ingress {n} --default-backend=s:80 --annotation=a=b", "ingress"),
    ("quota {n} --hard=cpu=1,memory=1.5Gi,pods=2 --scopes=NotBestEffort", "resourcequota"),
    ("priorityclass {n} --value=-10 --description=low --preemption-policy=Never", "priorityclass"),
    ("poddisruptionbudget {n} --selector=app=rails --min-available=50%", "poddisruptionbudget"),
    ("poddisruptionbudget {n} --selector=app=rails --max-unavailable=0", "poddisruptionbudget"),
)
"""Arguments of `kubectl create` (`_` is a blank within one), and the resource they make."""

OTHERS = (
    ("autoscale deployment target --name={n} --min=2 --max=5 --cpu=80%", "horizontalpodautoscaler"),
    ("autoscale deployment target --name={n} --max=3 --memory=200Mi", "horizontalpodautoscaler"),
    ("create job {n} --from=cronjob/source", "job"),
)
"""Commands that make something of a Deployment `target` or a CronJob `source`."""


WAITS = 20


class Kubectl:
    """Runs stock kubectl against one server."""

    def __init__(self, server: str, directory: Path) -> None:
        self.server = server
        self.directory = directory

    async def __call__(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Exit status, output and errors."""
        process = await asyncio.create_subprocess_exec(
            str(KUBECTL), "--server", self.server, "--token", "admintoken", "--insecure-skip-tls-verify",
            "--kubeconfig", "/dev/null", "--cache-dir", str(self.directory / "cache"), *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, errors = await process.communicate(stdin.encode())
        return process.returncode or 0, output.decode(), errors.decode()

    async def good(self, *arguments: str, stdin: str = "") -> str:
        """Output of a command that must succeed."""
        code, output, errors = await self(*arguments, stdin=stdin)
        assert code == 0, (arguments, errors)
        return output

    def arguments(self, text: str, name: str) -> list[str]:
        return [a.replace("_", " ").format(n=name, dir=self.directory) for a in text.split()]


def with_kubectl(test: Callable[[Kubectl], Awaitable[None]]) -> None:
    """Run a test with kubectl and a fresh server behind TLS."""
    if KUBECTL is None:
        pytest.skip("the stock kubectl of the extra `kubectl` is not installed")

    async def main() -> None:
        store = MemoryStore()
        await store.start()
        settings = ApiServerSettings(disabled_admission=frozenset({"ServiceAccount"}), admin_token="admintoken")
        server = ApiServer(store, settings, RealClock(), random.Random(1))
        with tempfile.TemporaryDirectory() as text:
            directory = Path(text)
            certificate, key = make_certificate(directory, "127.0.0.1")
            (directory / "binary").write_bytes(bytes(range(256)))
            port = await server.listen_tls("127.0.0.1", 0, certificate, key)
            await server.start()
            try:
                await test(Kubectl(f"https://127.0.0.1:{port}", directory))
            finally:
                await server.stop(0.2)
                await store.close()

    asyncio.run(main())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kinds of the protobuf bodies that were read."""
    found: list[str] = []
    read = decode.decode_protobuf

    def watched(raw: bytes, target: Target) -> Decoded:
        found.append(target.name)
        return read(raw, target)

    monkeypatch.setattr(decode, "decode_protobuf", watched)
    return found


CHOSEN = ("resourceVersion", "creationTimestamp", "time", "clusterIP", "clusterIPs", "nodePort")
"""Fields whose values the server chooses anew each time."""


FIRST, SECOND = "made-first", "made-second"


def same(text: str) -> Any:
    """A printed object, named alike, without what differs from one creation to the next."""
    uid = json.loads(text)["metadata"]["uid"]
    found = settled(json.loads(text.replace(uid, "<uid>").replace(SECOND, FIRST)))
    managers = found["metadata"].get("managedFields", [])
    managers.sort(key=lambda m: m["manager"])  # they stand in the order of their seconds
    return found


def settled(value: Any) -> Any:
    """An object without what differs from one creation to the next."""
    if isinstance(value, dict):
        return {
            k: settled(v)
            for k, v in value.items()
            if k not in CHOSEN or (k in ("clusterIP", "clusterIPs") and v in ("None", ["None"]))
        }
    return [settled(v) for v in value] if isinstance(value, list) else value


async def compare(kubectl: Kubectl, command: str, resource: str, seen: list[str]) -> None:
    """Create one object the command's way and one from its JSON; both must be the same."""
    sent = len(seen)
    await kubectl.good(*with_manager(kubectl.arguments(command, FIRST)))
    assert len(seen) == sent + 1, f"{command}: not sent as protobuf"
    printed = await kubectl.good(*with_manager(kubectl.arguments(command, SECOND), "--dry-run=client", "-o", "json"))
    await kubectl.good("create", "--field-manager=m", "-f", "-", stdin=printed)
    assert len(seen) == sent + 1
    show = ("get", resource, "-o", "json", "--show-managed-fields")
    for patience in range(WAITS, -1, -1):  # the status of a quota comes a moment after it
        first, second = await asyncio.gather(kubectl.good(*show, FIRST), kubectl.good(*show, SECOND))
        if not patience or same(first) == same(second):
            break
        await asyncio.sleep(0.1)
    assert same(first) == same(second), command
    await kubectl.good("delete", resource, FIRST, SECOND, "--wait=false", "--grace-period=0", "--force")


def with_manager(arguments: list[str], *more: str) -> list[str]:
    """The arguments with options before a `--`."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return [*arguments[:at], "--field-manager=m", *more, *arguments[at:]]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_what_kubectl_creates_is_stored_as_its_json_would_be(part: int, seen: list[str]) -> None:
    async def run(kubectl: Kubectl) -> None:
        for arguments, resource in CREATED[part::3]:
            await compare(kubectl, f"create {arguments}", resource, seen)

    with_kubectl(run)


@pytest.mark.slow
def test_what_other_commands_create(seen: list[str]) -> None:
    async def run(kubectl: Kubectl) -> None:
        await kubectl.good("create", "deployment", "target", "--image=nginx", "--port=80", "--replicas=0")
        await kubectl.good("create", "cronjob", "source", "--image=busybox", "--schedule=* * * * *")
        for command, resource in OTHERS:
            await compare(kubectl, command, resource, seen)

    with_kubectl(run)


NODE = json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})


@pytest.mark.slow
def test_tokens_reviews_and_evictions(seen: list[str]) -> None:
    async def run(kubectl: Kubectl) -> None:
        await kubectl.good("create", "serviceaccount", "sa")
        token = await kubectl.good("create", "token", "sa", "--duration=20m", "--audience=a")
        assert token.count(".") == 2 and seen[-1] == "TokenRequest"
        await kubectl.good("create", "secret", "generic", "s")
        await kubectl.good("create", "token", "sa", "--bound-object-kind=Secret", "--bound-object-name=s")
        assert await kubectl.good("auth", "can-i", "create", "pods") == "yes\n"
        assert "admin" in await kubectl.good("auth", "whoami", "-o", "json")
        assert {"SelfSubjectAccessReview", "SelfSubjectReview"} <= set(seen)
        await kubectl.good("create", "-f", "-", stdin=NODE)
        await kubectl.good("run", "p", "--image=x", "--overrides", '{"spec":{"nodeName":"n1"}}')
        output = await kubectl.good("drain", "n1", "--force", "--grace-period=0", "--timeout=120s")
        assert "pod/p evicted" in output
        assert await kubectl("get", "pod", "p") == (1, "", 'Error from server (NotFound): pods "p" not found\n')

    with_kubectl(run)


@pytest.mark.slow
def test_errors_are_those_of_json_bodies(seen: list[str]) -> None:
    async def run(kubectl: Kubectl) -> None:
        await kubectl.good("create", "configmap", "one")
        code, _, errors = await kubectl("create", "configmap", "one")
        assert (code, errors) == (1, 'error: failed to create configmap: configmaps "one" already exists\n')
        code, _, errors = await kubectl("create", "service", "clusterip", "one", "--tcp=80", "--clusterip=9.9.9.9")
        assert code == 1 and "spec.clusterIPs: Invalid value: " in errors and "9.9.9.9" in errors
        code, _, errors = await kubectl("create", "configmap", "one", "-n", "nosuch")
        assert (code, errors) == (1, 'error: failed to create configmap: namespaces "nosuch" not found\n')
        assert set(seen) == {"ConfigMap", "Service"}

    with_kubectl(run)
