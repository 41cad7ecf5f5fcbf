"""Certificates: made once, private, renewed when they no longer cover what they must."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import stat
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from kubesvc.instance.kubeconfig import admin_kubeconfig, write_private
from kubesvc.instance.pki import Pki, ensure_pki

NOW = 1_790_000_000.0


def make(directory: Path, *addresses: str) -> Pki:
    return ensure_pki(directory / "pki", addresses or ("127.0.0.1",), ("localhost",), NOW)


def test_everything_is_made_once_and_keys_are_private(tmp_path: Path) -> None:
    pki = make(tmp_path)
    before = {p.name: p.read_bytes() for p in (tmp_path / "pki").iterdir()}
    assert make(tmp_path) == pki
    assert {p.name: p.read_bytes() for p in (tmp_path / "pki").iterdir()} == before
    assert stat.S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700
    for key in (pki.ca_key, pki.server_key, pki.admin_key, pki.service_account_key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_new_address_renews_the_server_certificate_alone(tmp_path: Path) -> None:
    pki = make(tmp_path)
    ca, server, admin = (p.read_bytes() for p in (pki.ca_cert, pki.server_cert, pki.admin_cert))
    make(tmp_path, "127.0.0.1", "127.0.0.2")
    assert (pki.ca_cert.read_bytes(), pki.admin_cert.read_bytes()) == (ca, admin)
    assert pki.server_cert.read_bytes() != server


def test_a_lost_authority_renews_everything(tmp_path: Path) -> None:
    pki = make(tmp_path)
    admin = pki.admin_cert.read_bytes()
    pki.ca_key.unlink()
    make(tmp_path)
    assert pki.admin_cert.read_bytes() != admin


def test_the_admin_is_in_the_group_that_may_do_everything(tmp_path: Path) -> None:
    """AUTH-2, AUTH-4."""
    subject = x509.load_pem_x509_certificate(make(tmp_path).admin_cert.read_bytes()).subject
    assert [a.value for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["system:masters"]
    assert [a.value for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["kubernetes-admin"]


def test_server_and_admin_trust_each_other(tmp_path: Path) -> None:
    pki = make(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki.server_cert, pki.server_key)
    server.load_verify_locations(pki.ca_cert)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(pki.ca_cert))
    client.load_cert_chain(pki.admin_cert, pki.admin_key)

    async def talk() -> object:
        seen: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.set_result(writer.get_extra_info("peercert")["subject"])
            writer.close()

        listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=server)
        port = listener.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        subject = await asyncio.wait_for(seen, 60)
        writer.close()
        listener.close()
        return subject

    assert "kubernetes-admin" in str(asyncio.run(talk()))


def test_kubeconfig_holds_everything_inline(tmp_path: Path) -> None:
    pki = make(tmp_path)
    path = tmp_path / "kubeconfig"
    write_private(path, admin_kubeconfig("ci", "https://127.0.0.1:1", pki))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    config = json.loads(path.read_text())
    assert config["current-context"] == config["contexts"][0]["name"] == "kubesvc-ci"
    authority = config["clusters"][0]["cluster"]["certificate-authority-data"]
    assert base64.b64decode(authority) == pki.ca_cert.read_bytes()
