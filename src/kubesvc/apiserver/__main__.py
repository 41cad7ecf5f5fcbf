"""`python -m kubesvc.apiserver`: an API server alone, for development and for replaying recordings.

    python -m kubesvc.apiserver --store memory --port 0 --token-auth-file tokens.csv

It makes its own certificate, says where it listens on standard error, and runs until interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import ipaddress
import logging
import random
import signal
import sys
import tempfile
from pathlib import Path

from kubesvc.clock import RealClock
from kubesvc.store import open_store

from .settings import ApiServerSettings


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kubesvc.apiserver", description=__doc__, allow_abbrev=False)
    parser.add_argument("--store", default="memory", help="memory, etcd://HOST:PORT, or the path of a store")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--unix", default="", help="also serve plain HTTP on this unix socket, trusted")
    parser.add_argument("--token-auth-file", default="")
    parser.add_argument("--admin-token", default="")
    parser.add_argument("--service-cluster-ip-range", default="10.96.0.0/16", help="one or two CIDRs, comma separated")
    parser.add_argument("--authorization-mode", default="AlwaysAllow", help="AlwaysAllow, RBAC, or Node,RBAC")
    parser.add_argument("--advertise-address", default="172.30.0.1")
    parser.add_argument("--anonymous-auth", default="false", choices=("true", "false"))
    parser.add_argument("--enable-admission-plugins", action="append", default=[])
    parser.add_argument("--disable-admission-plugins", action="append", default=[])
    return parser.parse_args(arguments)


def make_certificate(directory: Path, host: str) -> tuple[str, str]:
    """A self-signed certificate for `host`; paths of certificate and key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubesvc")])
    start = datetime.datetime.fromtimestamp(RealClock().now(), datetime.UTC) - datetime.timedelta(hours=1)
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(host))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = directory / "tls.crt", directory / "tls.key"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    key_path.chmod(0o600)
    return str(cert_path), str(key_path)


async def serve(arguments: argparse.Namespace) -> None:
    from .apiserver import ApiServer

    store = open_store(arguments.store)
    await store.start()
    enabled = frozenset(p for text in arguments.enable_admission_plugins for p in text.split(","))
    disabled = frozenset(p for text in arguments.disable_admission_plugins for p in text.split(","))
    settings = ApiServerSettings(
        service_ranges=tuple(arguments.service_cluster_ip_range.split(",")),
        advertise_address=arguments.advertise_address,
        authorization=arguments.authorization_mode,
        token_file=arguments.token_auth_file,
        admin_token=arguments.admin_token,
        anonymous_auth=arguments.anonymous_auth == "true",
        enabled_admission=enabled,
        disabled_admission=disabled,
    )
    server = ApiServer(store, settings, RealClock(), random.SystemRandom())
    stop, compact = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, compact.set)
    with tempfile.TemporaryDirectory(prefix="kubesvc-apiserver-") as directory:
        cert, key = make_certificate(Path(directory), arguments.host)
        port = await server.listen_tls(arguments.host, arguments.port, cert, key)
        await server.start()
        if arguments.unix:
            await server.listen_unix(arguments.unix)
        sys.stderr.write(f"https://{arguments.host}:{port}\n")
        sys.stderr.flush()
        waiting = asyncio.create_task(stop.wait())
        while not waiting.done():
            pressed = asyncio.create_task(compact.wait())
            await asyncio.wait({waiting, pressed}, return_when=asyncio.FIRST_COMPLETED)
            if pressed.done():
                compact.clear()
                await server.compact()
            pressed.cancel()
        await server.stop()
    await store.close()


def main(arguments: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    asyncio.run(serve(parse_arguments(arguments)))


if __name__ == "__main__":
    main()
