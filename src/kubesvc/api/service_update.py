"""What becomes of a Service's fields when it is written: what a client left out is kept, what no longer fits goes.

All in place on the new plain object, before families are settled and addresses allocated (FAM-1 to FAM-3, TYPE, NP-6).
"""

from __future__ import annotations

from .meta import Object

EXTERNAL_TYPES = ("NodePort", "LoadBalancer")


def needs_address(spec: Object) -> bool:
    """Whether Services of this type have cluster addresses (headless ones say None instead)."""
    return bool(spec.get("type") != "ExternalName")


def needs_node_ports(spec: Object) -> bool:
    return spec.get("type") in EXTERNAL_TYPES


def allocates_node_ports(spec: Object) -> bool:
    """Whether ports without a node port get one (NP-2)."""
    if spec.get("type") == "LoadBalancer":
        return spec.get("allocateLoadBalancerNodePorts") is not False
    return spec.get("type") == "NodePort"


def needs_health_port(spec: Object) -> bool:
    """NP-10."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def externally_accessible(spec: Object) -> bool:
    """Whether traffic may come from outside by an address of its own (SVC-17)."""
    return needs_node_ports(spec) or (spec.get("type") == "ClusterIP" and bool(spec.get("externalIPs")))


def headless(spec: Object) -> bool:
    listed: list[str | None] = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return listed[0] == "None"


def node_ports(spec: Object) -> list[int]:
    """Numbers of the ports that have one, in their order."""
    return [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]


def prepare_create(obj: Object) -> None:
    """Status is the server's, and one address means a list of one (FAM-1, SVCX-4)."""
    obj["status"] = {"loadBalancer": {}}
    spec = obj["spec"]
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]


def prepare_update(new: Object, old: Object) -> None:
    """Keep what was left out, follow changed addresses, clear what the new type has no use for."""
    before, after = old["spec"], new["spec"]
    keep_allocated(after, before)
    settle_addresses(after, before)
    drop_unfitting(after, before)
    if before.get("type") == "LoadBalancer" and after.get("type") != "LoadBalancer":
        new["status"] = {**(new.get("status") or {}), "loadBalancer": {}}  # its conditions stay (TYPE-6)


def keep_allocated(after: Object, before: Object) -> None:
    """Fill in allocated values that the client did not send (FAM-3, NP-6)."""
    if needs_address(after) and needs_address(before):
        if not after.get("clusterIP") and before.get("clusterIP"):
            after["clusterIP"] = before["clusterIP"]
        if not after.get("clusterIPs"):
            copy_field("clusterIPs", after, before)
    if allocates_node_ports(after) and needs_node_ports(before):
        keep_node_ports(after, before)
    if needs_health_port(after) and needs_health_port(before) and not after.get("healthCheckNodePort"):
        copy_field("healthCheckNodePort", after, before)


def copy_field(name: str, after: Object, before: Object) -> None:
    if before.get(name):
        value = before[name]
        after[name] = list(value) if isinstance(value, list) else value


def keep_node_ports(after: Object, before: Object) -> None:
    """A port without a number gets that of the old port of its name, unless another port has taken it over."""
    numbers = {port.get("name") or "": port.get("nodePort") or 0 for port in before.get("ports") or ()}
    used = set(node_ports(before)) & set(node_ports(after))
    for port in after.get("ports") or ():
        number = numbers.get(port.get("name") or "", 0)
        if not port.get("nodePort") and number and number not in used:
            port["nodePort"] = number
            used.add(number)


def settle_addresses(after: Object, before: Object) -> None:
    """clusterIP and clusterIPs follow each other (FAM-2)."""
    one, was_one = after.get("clusterIP") or "", before.get("clusterIP") or ""
    all_, was_all = after.get("clusterIPs") or [], before.get("clusterIPs") or []
    if one == was_one:
        if was_all and not all_:
            after["clusterIPs"] = list(was_all)
    elif all_ == was_all:
        if one:
            after["clusterIPs"] = [one]
        else:
            after.pop("clusterIPs", None)


def drop_unfitting(after: Object, before: Object) -> None:
    """Clear what the old type needed and the new one does not, where the client left it as it was (TYPE)."""
    if needs_address(before) and not needs_address(after):
        if same("clusterIP", after, before) and same("clusterIPs", after, before):
            drop(after, "clusterIP", "clusterIPs")
        for name in ("ipFamilies", "ipFamilyPolicy"):
            if same(name, after, before):
                drop(after, name)
    if needs_node_ports(before) and not needs_node_ports(after) and set(node_ports(after)) <= set(node_ports(before)):
        for port in after.get("ports") or ():
            port.pop("nodePort", None)
    if needs_health_port(before) and not needs_health_port(after) and same("healthCheckNodePort", after, before):
        drop(after, "healthCheckNodePort")
    if before.get("type") == "LoadBalancer" and after.get("type") != "LoadBalancer":
        for name in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if same(name, after, before):
                drop(after, name)
    if (
        externally_accessible(before)
        and not externally_accessible(after)
        and same("externalTrafficPolicy", after, before)
    ):
        drop(after, "externalTrafficPolicy")


def same(name: str, after: Object, before: Object) -> bool:
    """Whether the client left a field as it was; empty texts and lists are the same as none."""
    now, was = (None if spec.get(name) in ("", []) else spec.get(name) for spec in (after, before))
    return bool(now == was)


def drop(spec: Object, *names: str) -> None:
    for name in names:
        spec.pop(name, None)
