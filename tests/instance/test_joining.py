"""Joining: what stands in kubeconfigs, what becomes of requests, which routes are a node's, who gets in at its door."""

from __future__ import annotations

import asyncio
import base64
import functools
import gc
import json
import socket
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kubesvc.api.certificatesigningrequest import CertificateSigningRequest, request_problem
from kubesvc.api.errors import Forbidden, Unauthorized
from kubesvc.api.meta import typed
from kubesvc.client import Unreachable
from kubesvc.client.kubeconfig import Access, KubeconfigError, load_kubeconfig
from kubesvc.clock import RealClock
from kubesvc.controllers.certificates_plan import Authority
from kubesvc.instance.joining import (
    ClusterFacts,
    Identity,
    JoinFailed,
    access_of_identity,
    held_identity,
    key_pem,
    pending_key,
    read_facts,
    refusal,
    render_join_kubeconfig,
    render_request,
    routes_lacking,
    routes_of_node,
    seconds_to_renewal,
    verdict,
)
from kubesvc.instance.pki import Pki, ensure_pki
from kubesvc.instance.remotedoor import RemoteDoors, serve_door
from kubesvc.kernel.links import Route
from tests.freeports import free_port

NOW = RealClock().now()
FACTS = ClusterFacts("10.97.0.10", "x.local", ("10.245.0.0/16",), ("10.97.0.0/16",))
SERVER = "https://192.0.2.1:6443"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return ensure_pki(tmp_path_factory.mktemp("pki"), ["127.0.0.1"], ["kubernetes"], NOW)


@functools.cache
def key_of(node: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def identity(pki: Pki, node: str, seconds: float = 86400.0) -> Identity:
    """What a node gets for its request."""
    key = key_of(node)
    request = typed(render_request(node, key), CertificateSigningRequest)
    authority = Authority(pki.ca_cert.read_bytes(), pki.ca_key.read_bytes(), seconds)
    return Identity(base64.b64decode(authority.issue(request, 5, NOW)), key_pem(key))


def test_a_request_is_that_of_a_node(tmp_path: Path) -> None:
    """Signed by its key, named after key and node, so that asking again asks for the same."""
    key = pending_key(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert key_pem(pending_key(tmp_path / "key")) == key_pem(key), "kept until the certificate is there"
    request = render_request("n1", key)
    assert request_problem(request["spec"]["request"]) == ""
    assert request["spec"]["signerName"] == "kubernetes.io/kube-apiserver-client-kubelet"
    subject = x509.load_pem_x509_csr(base64.b64decode(request["spec"]["request"])).subject
    assert [a.value for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["system:node:n1"]
    assert [a.value for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["system:nodes"]
    assert render_request("n1", key)["metadata"] == request["metadata"]
    assert render_request("n2", key)["metadata"] != request["metadata"]
    (tmp_path / "key").write_text("torn")
    assert key_pem(pending_key(tmp_path / "key")) != key_pem(key)


def test_kubeconfigs_of_joining(tmp_path: Path, pki: Pki) -> None:
    """What stock clients read, and beside it what a node must know; other files tell nothing of the latter."""
    path = tmp_path / "config"
    access = Access(SERVER, ca=pki.ca_cert.read_bytes(), token="abcdef.0123456789abcdef")
    path.write_text(render_join_kubeconfig(access, FACTS))
    found = load_kubeconfig(path).access()
    assert (found.server, found.ca, found.token) == (SERVER, access.ca, "abcdef.0123456789abcdef")
    assert read_facts(path) == FACTS
    content = json.loads(path.read_text())
    del content["clusters"][0]["cluster"]["extensions"]
    path.write_text(json.dumps(content))
    assert read_facts(path) is None
    for text in ("[]", "clusters: []", ": :"):
        path.write_text(text)
        with pytest.raises(KubeconfigError):
            read_facts(path)


def test_which_credentials_are_good(tmp_path: Path, pki: Pki) -> None:
    path = tmp_path / "config"
    assert held_identity(path, "n1", NOW) is None

    def write(found: Identity) -> None:
        access = Access(SERVER, ca=pki.ca_cert.read_bytes())
        path.write_text(render_join_kubeconfig(access_of_identity(access, found), FACTS))

    found = identity(pki, "n1")
    write(found)
    assert held_identity(path, "n1", NOW) == found
    assert held_identity(path, "n1", NOW + 86400) is None, "it ends too soon"
    with pytest.raises(JoinFailed, match="speaks for system:node:n1, not for node 'n2'"):
        held_identity(path, "n2", NOW)
    path.write_text("{}")
    with pytest.raises(JoinFailed, match="next:"):
        held_identity(path, "n1", NOW)


def test_when_a_certificate_is_renewed(pki: Pki) -> None:
    """At 70 to 90 percent of its life, which began five minutes before it was made."""
    found, life = identity(pki, "n1"), 86400.0
    assert seconds_to_renewal(found, NOW, 0.0) == pytest.approx(0.7 * life - 300, abs=2)
    assert seconds_to_renewal(found, NOW, 1.0) == pytest.approx(0.9 * life - 300, abs=2)
    assert seconds_to_renewal(found, NOW + life, 0.5) == 0


VERDICTS: tuple[tuple[str, dict[str, Any], tuple[str, str]], ...] = (
    ("nobody has looked", {}, ("pending", "")),
    ("approved, not signed", {"conditions": [{"type": "Approved"}]}, ("approved", "")),
    ("issued", {"conditions": [{"type": "Approved"}], "certificate": "x"}, ("issued", "x")),
    ("denied, with words", {"conditions": [{"type": "Denied", "message": "no"}]}, ("refused", "denied: no")),
    ("failed, with a reason", {"conditions": [{"type": "Approved"}, {"type": "Failed", "reason": "Bad"}]},
        ("refused", "failed: Bad")),
)  # fmt: skip


@pytest.mark.parametrize(("name", "status", "found"), VERDICTS, ids=[v[0] for v in VERDICTS])
def test_what_has_become_of_a_request(name: str, status: dict[str, Any], found: tuple[str, str]) -> None:
    assert verdict({"status": status}) == found, name


REFUSALS = (
    (Unauthorized("Unauthorized"), "does not know the token (401 Unauthorized): it is wrong, has expired, or was"),
    (Forbidden("no"), "refuses: no"),
    (Unreachable("refused"), "cannot be reached: refused"),
)  # fmt: skip


@pytest.mark.parametrize(("error", "words"), REFUSALS, ids=[type(r[0]).__name__ for r in REFUSALS])
def test_what_is_said_of_a_refusal(error: Any, words: str) -> None:
    said = refusal(error, SERVER)
    assert words in said and "\nnext: kubesvc " in said


class Lacking(NamedTuple):
    name: str
    present: list[Route]
    addresses: tuple[str, ...]
    added: list[Route]


RANGE = "10.96.0.0/16"
OURS = Route(RANGE, device="lo", source="192.0.2.7")
LACKING = (
    Lacking("no way at all", [Route("192.0.2.0/24", device="eth0")], ("192.0.2.7",), [OURS]),
    Lacking("a default route is a way", [Route("default", gateway="192.0.2.1")], ("192.0.2.7",), []),
    Lacking("that of the other family is none", [Route("default6", gateway="fe80::1")], ("192.0.2.7",), [OURS]),
    Lacking("so is a wider one", [Route("10.0.0.0/8", gateway="192.0.2.1")], ("192.0.2.7",), []),
    Lacking("a narrower one is none", [Route("10.96.0.0/24", gateway="192.0.2.1")], ("192.0.2.7",), [OURS]),
    Lacking("ours from before", [OURS], ("192.0.2.7",), []),
    Lacking("a node without an address of the family", [], ("2001:db8::7",), []),
)


@pytest.mark.parametrize("case", LACKING, ids=lambda c: c.name)
def test_ways_to_cluster_ips(case: Lacking) -> None:
    assert routes_lacking((RANGE,), case.present, case.addresses) == case.added


def test_which_routes_a_node_has_made() -> None:
    """Those to Pods and to ClusterIPs by loopback, and none of the machine's own."""
    facts = ClusterFacts(cluster_cidrs=("10.244.0.0/16",), service_ranges=(RANGE,))
    made = [Route("10.244.1.2/32", device="podx"), Route("10.244.2.0/24", gateway="192.0.2.8"), OURS]
    own = [Route("default", gateway="192.0.2.1"), Route("10.0.0.0/8", gateway="192.0.2.1"),
           Route(RANGE, gateway="192.0.2.1"), Route("default6", gateway="fe80::1")]  # fmt: skip
    assert routes_of_node(facts, [*own, *made]) == made


# -- the door


@asynccontextmanager
async def door_of(pki: Pki, node: str, directory: Path) -> AsyncIterator[int]:
    """A node's door with an agent behind it that says in capitals what it is told; the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            if line == b"bye\n":
                break
        writer.close()

    held = identity(pki, node)
    access = Access(SERVER, ca=pki.ca_cert.read_bytes(), client_certificate=held.certificate, client_key=held.key)
    port = free_port()
    agent = await asyncio.start_unix_server(answer, directory / "node.sock")
    task = asyncio.create_task(serve_door("127.0.0.1", port, directory / "node.sock", lambda: access))
    listens = f" 0100007F:{port:04X} 00000000:0000 0A "
    async with asyncio.timeout(60):
        while listens not in Path("/proc/net/tcp").read_text():
            await asyncio.sleep(0.01)
    try:
        yield port
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        agent.close()


async def talk(door: socket.socket, *lines: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(sock=door)
    for line in lines:
        writer.write(line)
    try:
        return await reader.read()
    finally:
        writer.close()


def test_the_api_server_gets_in_and_knows_where_it_is(tmp_path: Path, pki: Pki) -> None:
    async def story() -> None:
        doors = RemoteDoors(pki)
        async with door_of(pki, "n1", tmp_path) as port, asyncio.timeout(120):
            assert await talk(await doors.open("n1", "127.0.0.1", port), b"hello\n", b"bye\n") == b"HELLO\nBYE\n"
            with pytest.raises(OSError, match="is another node"):
                await doors.open("n2", "127.0.0.1", port)
        with pytest.raises(OSError):
            await doors.open("n1", "127.0.0.1", port)

    asyncio.run(story())


def test_a_door_without_an_agent_behind_it_leaves_nothing_open(tmp_path: Path, pki: Pki) -> None:
    """While the agent starts again, what came in is closed as a whole, not its socket below a living transport."""

    async def story() -> None:
        doors = RemoteDoors(pki)
        async with door_of(pki, "n1", tmp_path) as port, asyncio.timeout(120):
            (tmp_path / "node.sock").rename(tmp_path / "aside")
            for _ in range(5):
                assert await talk(await doors.open("n1", "127.0.0.1", port)) == b""
            (tmp_path / "aside").rename(tmp_path / "node.sock")
            assert await talk(await doors.open("n1", "127.0.0.1", port), b"hello\n", b"bye\n") == b"HELLO\nBYE\n"

    gc.collect()  # what earlier tests left is not ours
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(story())
        gc.collect()
    assert [str(w.message) for w in said if issubclass(w.category, ResourceWarning)] == []


def test_nobody_else_gets_in(tmp_path: Path, pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither with certificates of another authority, nor with a node's, nor without any."""
    stranger = ensure_pki(tmp_path_factory.mktemp("other"), ["127.0.0.1"], ["kubernetes"], NOW)
    other = identity(pki, "n2")
    node = tmp_path / "node.pem"
    node.write_bytes(other.certificate + other.key)

    async def story() -> None:
        async with door_of(pki, "n1", tmp_path) as port, asyncio.timeout(120):
            with pytest.raises(OSError):
                await RemoteDoors(stranger).open("n1", "127.0.0.1", port)
            as_node = RemoteDoors(pki)
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki.ca_cert))
            context.load_cert_chain(node)
            context.verify_mode = ssl.CERT_REQUIRED
            as_node.context = context
            with pytest.raises(OSError):
                assert await talk(await as_node.open("n1", "127.0.0.1", port), b"hello\n", b"bye\n") == b""
                raise ConnectionError("closed without a word")
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello\n")
            assert b"HELLO" not in await reader.read()
            writer.close()

    asyncio.run(story())
