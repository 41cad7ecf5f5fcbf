"""Tokens with which other machines join an instance (docs/join.md).

kubesvc up --nodes 0 --bind-address 192.0.2.10     a control plane that others can reach
kubesvc token create > join.kubeconfig             what the other machine needs; keep it secret until it expires
kubesvc join join.kubeconfig                       there, as root

kubesvc token list
kubesvc token delete abcdef                        nobody joins by it any more; nodes that have joined stay
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import ipaddress
import json
import sys
from typing import TYPE_CHECKING, Any

from kubesvc.clock import RealClock, fresh_letters, rfc3339

from . import WRONG_USAGE, Failure
from .flags import duration
from .target import add_name, instance_paths, running

if TYPE_CHECKING:
    from kubesvc.api.meta import Object
    from kubesvc.client import Client
    from kubesvc.instance.joining import ClusterFacts
    from kubesvc.instance.record import InstanceRecord

NAMESPACE = "kube-system"
GROUP = "system:bootstrappers:kubesvc:join"
NODES = "system:nodes"
LONGEST_DAYS = 3650
CLIENT_ROLE = "system:certificates.k8s.io:certificatesigningrequests:nodeclient"
RENEWAL_ROLE = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"
NODE_ROLE = "kubesvc:joined-node"
READ = ["get", "list", "watch"]
NODE_RULES: list[Object] = [
    {"apiGroups": [""], "resources": ["nodes", "services", "namespaces"], "verbs": READ},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": READ},
    {"apiGroups": ["networking.k8s.io"], "resources": ["servicecidrs"], "verbs": READ},
]
"""What a node's proxy, DNS and routes need to read, beyond what every node may."""
BINDINGS = {
    "kubesvc:node-bootstrapper": ("system:node-bootstrapper", GROUP),
    "kubesvc:node-autoapprove-bootstrap": (CLIENT_ROLE, GROUP),
    "kubesvc:node-autoapprove-certificate-rotation": (RENEWAL_ROLE, NODES),
    NODE_ROLE: (NODE_ROLE, NODES),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_name(parser)
    acts = parser.add_subparsers(dest="act", required=True, metavar="create|list|delete")
    create = acts.add_parser("create", help="make a token; prints a kubeconfig to join with")
    create.add_argument(
        "--ttl", type=ttl, default=86400.0, metavar="DURATION", help="how long it is good (default: 24h; 0: for ever)"
    )
    create.add_argument(
        "--server",
        default="",
        metavar="URL",
        help="where the other machine reaches the API (default: its --bind-address)",
    )
    create.add_argument("--description", default="", metavar="TEXT", help="whom it is for; the list shows it")
    listing = acts.add_parser("list", help="list the tokens, without their secrets")
    listing.add_argument("--json", action="store_true", help="for programs")
    acts.add_parser("delete", help="let nobody join by a token any more").add_argument(
        "id", metavar="ID", help="the token's public half, as `kubesvc token list` shows it"
    )


def ttl(text: str) -> float:
    seconds = 0.0 if text == "0" else duration(text)
    if seconds > LONGEST_DAYS * 86400:
        raise argparse.ArgumentTypeError(f"{text}: must be at most {LONGEST_DAYS * 24}h, or 0 for ever")
    return seconds


def run(args: argparse.Namespace) -> int:
    from kubesvc.api.errors import ApiError
    from kubesvc.client import Unreachable

    _, record = running(args.name)
    try:
        return asyncio.run(act(args, record))
    except Unreachable as error:
        raise Failure(f"the instance cannot be reached: {error}") from error
    except ApiError as error:
        raise Failure(error.message) from error


async def act(args: argparse.Namespace, record: InstanceRecord) -> int:
    from kubesvc.client.http import HttpClient

    paths = instance_paths(args.name)
    client = HttpClient.from_kubeconfig(paths.kubeconfig, manager="kubesvc-token")
    try:
        if args.act == "create":
            return await create(args, record, client)
        if args.act == "delete":
            return await delete(args.id, client)
        return await show(args, client)
    finally:
        await client.close()


async def create(args: argparse.Namespace, record: InstanceRecord, client: Client) -> int:
    """Make the token and what its bearers need, and print the kubeconfig on stdout, the next command on stderr."""
    from kubesvc.api.bootstraptoken import TYPE, secret_name
    from kubesvc.api.kinds import SECRET
    from kubesvc.client.kubeconfig import Access, load_kubeconfig
    from kubesvc.instance.joining import render_join_kubeconfig

    if not record.bind or ipaddress.ip_address(record.bind).is_loopback:
        raise Failure(
            f"the API of this instance answers on {record.bind or record.loopback} alone, where no other machine "
            "reaches it\nnext: kubesvc up --bind-address IP, with an address of this machine"
        )
    server = args.server or record.server
    if not server.startswith("https://"):
        raise Failure(f"--server {server}: must begin with https://", status=WRONG_USAGE)
    await make_rights(client)
    id, secret = fresh_letters(6), fresh_letters(16)
    data = {
        "token-id": id,
        "token-secret": secret,
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "auth-extra-groups": GROUP,
        "description": args.description or "made by kubesvc token create",
    }
    if args.ttl:
        data["expiration"] = rfc3339(RealClock().now() + args.ttl)
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret_name(id), "namespace": NAMESPACE},
        "type": TYPE,
        "data": {k: base64.b64encode(v.encode()).decode() for k, v in data.items()},
    }
    await client.create(SECRET, body, NAMESPACE)
    own = load_kubeconfig(instance_paths(args.name).kubeconfig).access()
    bearer = Access(server, ca=own.ca, token=f"{id}.{secret}")
    print(render_join_kubeconfig(bearer, facts_of(record)), end="")
    until = f"until {data['expiration']}" if args.ttl else "for ever"
    print(
        f"token {id} is good {until}; keep the kubeconfig above secret.\n"
        "On the other machine, as root, with that kubeconfig as join.kubeconfig:\n"
        "  kubesvc join join.kubeconfig",
        file=sys.stderr,
    )
    return 0


def facts_of(record: InstanceRecord) -> ClusterFacts:
    """What a node must know of this instance."""
    from kubesvc.instance.joining import ClusterFacts

    return ClusterFacts(
        cluster_dns=record.cluster_dns,
        cluster_cidrs=tuple(record.cluster_cidrs),
        service_ranges=tuple(record.service_ranges),
    )


async def make_rights(client: Client) -> None:
    """The role and the bindings that joining machines and joined nodes need; what is there already is left alone."""
    from kubesvc.api.clusterrole import CLUSTER_ROLE
    from kubesvc.api.clusterrolebinding import CLUSTER_ROLE_BINDING
    from kubesvc.api.errors import AlreadyExists

    group = "rbac.authorization.k8s.io"
    wanted: list[tuple[Any, Object]] = [(CLUSTER_ROLE, {"metadata": {"name": NODE_ROLE}, "rules": NODE_RULES})]
    for name, (role, subject) in BINDINGS.items():
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": "Group", "name": subject}],
        }
        wanted.append((CLUSTER_ROLE_BINDING, binding))
    for kind, body in wanted:
        try:
            await client.create(kind, {"apiVersion": kind.api_version, "kind": kind.name, **body})
        except AlreadyExists:
            continue


async def tokens(client: Client) -> list[Any]:
    """All bootstrap tokens of the instance, by id."""
    from kubesvc.api.bootstraptoken import TYPE, BootstrapToken
    from kubesvc.api.kinds import SECRET

    listed = await client.list_raw(SECRET, NAMESPACE, field_selector=f"type={TYPE}")
    found = []
    for raw in listed.items:
        data = {k: base64.b64decode(v or "").decode() for k, v in (json.loads(raw).get("data") or {}).items()}
        token = BootstrapToken.of(TYPE, data)
        if token is not None:
            found.append(token)
    return sorted(found, key=lambda t: t.id)


async def show(args: argparse.Namespace, client: Client) -> int:
    from kubesvc.api.bootstraptoken import AT_ONCE, NEVER

    def until(expires: float) -> str:
        return "never" if expires == NEVER else "at once" if expires == AT_ONCE else rfc3339(expires)

    found = await tokens(client)
    if args.json:
        print(json.dumps([{"id": t.id, "expires": until(t.expires), "description": t.description} for t in found]))
        return 0
    if not found:
        print("no tokens; next: kubesvc token create")
        return 0
    print(f"{'ID':<8}{'EXPIRES':<22}DESCRIPTION")
    for t in found:
        print(f"{t.id:<8}{until(t.expires):<22}{t.description}")
    return 0


async def delete(id: str, client: Client) -> int:
    from kubesvc.api.bootstraptoken import secret_name
    from kubesvc.api.errors import NotFound
    from kubesvc.api.kinds import SECRET

    try:
        await client.delete(SECRET, secret_name(id.partition(".")[0]), NAMESPACE)
    except NotFound:
        raise Failure(f"no token {id.partition('.')[0]!r}\nnext: kubesvc token list") from None
    print(
        f"token {id.partition('.')[0]} is deleted; nodes that joined by it stay until they are deleted (docs/join.md)"
    )
    return 0
