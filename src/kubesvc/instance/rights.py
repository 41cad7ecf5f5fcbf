"""What the parts inside nodes may do with the API, beyond what the default roles give them.

The agents are known as nodes, to the authorization mode Node, and the proxies by the default binding
`system:node-proxier`. DNS is an addition to a cluster, so its role comes with whoever adds it: here.
"""

from __future__ import annotations

from kubesvc.api.errors import AlreadyExists
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, SERVICE_ACCOUNT
from kubesvc.api.meta import Object
from kubesvc.client.interface import Client

DNS_NAMESPACE, DNS_ACCOUNT, DNS_ROLE = "kube-system", "coredns", "system:coredns"
RBAC = "rbac.authorization.k8s.io"


def needed_rights(authorization_mode: str) -> list[tuple[Kind, Object]]:
    """The objects that must be there before a node starts.

    authorization_mode: as the flag has it; without the mode Node, nodes get the default role `system:node` instead
    """
    watched = {"verbs": ["list", "watch"]}
    rules = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], **watched},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], **watched},
    ]
    account = {"kind": "ServiceAccount", "name": DNS_ACCOUNT, "namespace": DNS_NAMESPACE}
    found: list[tuple[Kind, Object]] = [
        (SERVICE_ACCOUNT, {"metadata": {"name": DNS_ACCOUNT, "namespace": DNS_NAMESPACE}}),
        (CLUSTER_ROLE, {"metadata": {"name": DNS_ROLE}, "rules": rules}),
        (CLUSTER_ROLE_BINDING, binding(DNS_ROLE, DNS_ROLE, account)),
    ]
    if "Node" not in authorization_mode.split(","):
        nodes = {"kind": "Group", "apiGroup": RBAC, "name": "system:nodes"}
        found.append((CLUSTER_ROLE_BINDING, binding("kubesvc:nodes", "system:node", nodes)))
    return found


def binding(name: str, role: str, subject: Object) -> Object:
    reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}
    return {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}


async def grant(client: Client, authorization_mode: str) -> None:
    """Make what `needed_rights` names, where it is not there yet."""
    for kind, obj in needed_rights(authorization_mode):
        full = {"apiVersion": kind.api_version, "kind": kind.name, **obj}
        try:
            await client.create(kind, full, obj["metadata"].get("namespace", ""))
        except AlreadyExists:
            pass  # of an earlier start, or changed by whoever wanted it otherwise
