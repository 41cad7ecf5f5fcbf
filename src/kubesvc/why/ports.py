"""Why a Pod that is well is not listed for a port: names, protocols, families (EP401 to EP406). Pure.

A port's number on a Pod is `pod_endpoints.resolved_number`, the controllers' own.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubesvc.api.container import ContainerPort
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service, ServicePort
from kubesvc.controllers.pod_endpoints import address_types, facts_of, resolved_number

from . import commands
from .commands import some
from .diagnosis import Finding
from .nearest import nearest
from .podstate import probe_port, resolved
from .snapshot import Snapshot


def declared_ports(pod: Pod) -> list[ContainerPort]:
    """Where named ports are looked up: ordinary containers, then sidecars."""
    return [p for c in (*(pod.spec.containers or ()), *pod.spec.sidecars) for p in c.ports or ()]


def port_text(port: ServicePort) -> str:
    name = f" ({port.name})" if port.name else ""
    return f"{port.port}/{port.protocol or 'TCP'}{name}"


def explain_ports(service: Service, pod: Pod) -> list[Finding]:
    """EP401 and EP402: the ports of the Service that this Pod does not have."""
    found = []
    for position, port in enumerate(service.spec.ports or ()):
        if resolved_number(port, pod) is None:
            found.append(missing_name(service, position, port, pod))
    return found


def missing_name(service: Service, position: int, port: ServicePort, pod: Pod) -> Finding:
    wanted, protocol = str(port.target_port), port.protocol or "TCP"
    declared = declared_ports(pod)
    path = f"/spec/ports/{position}"
    namesake = next((p for p in declared if p.name == wanted), None)
    shown = [f"{p.name or 'no name'}={p.container_port}/{p.protocol or 'TCP'}" for p in declared]
    seen = (
        f"port {port_text(port)} of svc/{service.name}: targetPort {wanted}",
        f"ports of pod/{pod.name}: {some(shown, 6) or 'none declared'}",
    )
    if namesake is not None:
        right = namesake.protocol or "TCP"
        return Finding(
            "EP402",
            "broken",
            f"port {port_text(port)} asks for the target port {wanted} over {protocol}, but the containers declare "
            f"{wanted} as {right}",
            commands.json_patch(service.namespace, "service", service.name, ("replace", f"{path}/protocol", right)),
            True,
            seen,
        )
    same = [p for p in declared if (p.protocol or "TCP") == protocol]
    names = [p.name for p in same if p.name]
    free = [p for p in same if p.container_port not in targets_of_others(service, position, [pod])]
    meant: str | int = nearest(wanted, names)
    if not meant and len(same) == 1 and free:
        meant = free[0].name or free[0].container_port
    has = f"they have {some(shown, 4)}" if shown else "they declare no ports"
    return Finding(
        "EP401",
        "broken",
        f"port {port_text(port)} goes to the target port named {wanted}, which no container has; {has}"
        + (f"; did you mean {meant}?" if meant else ""),
        commands.json_patch(service.namespace, "service", service.name, ("replace", f"{path}/targetPort", meant))
        if meant
        else "",
        bool(meant),
        seen,
    )


def targets_of_others(service: Service, position: int, pods: Sequence[Pod]) -> set[int]:
    """The numbers that the Service's other ports lead to on these Pods: what one of them has is hardly meant twice."""
    others = [p for i, p in enumerate(service.spec.ports or ()) if i != position]
    return {n for p in others for pod in pods if (n := resolved_number(p, pod)) is not None}


def explain_family(service: Service, pod: Pod) -> Finding | None:
    """EP404: addresses, but none of a family that the Service has."""
    families = address_types(service)
    addresses = facts_of(pod).addresses
    if not addresses or any(family in families for family, _ in addresses):
        return None
    theirs = list(dict.fromkeys(family for family, _ in addresses))
    made = commands.manifest(
        service, ipFamilies=theirs[:1], ipFamilyPolicy="SingleStack",
        clusterIP="None" if service.headless else None,
    )  # fmt: skip
    return Finding(
        "EP404",
        "broken",
        f"svc/{service.name} is {' and '.join(families)}, and pod/{pod.name} has only {' and '.join(theirs)} addresses",
        commands.both(commands.kubectl(service.namespace, "delete", "service", service.name), commands.apply(made)),
        True,
        (f"ipFamilies of svc/{service.name}: {', '.join(families)}", f"podIPs of pod/{pod.name}: {', '.join(pod.ips)}"),
    )


def undeclared(service: Service, pods: Sequence[Pod]) -> list[Finding]:
    """EP403: ready Pods that declare ports, but not the one that is sent to, and no probe vouches for it."""
    found = []
    for position, port in enumerate(service.spec.ports or ()):
        if not pods or isinstance(port.target_port, str):
            continue
        protocol, target = port.protocol or "TCP", port.target_port or port.port
        lists = [[p for p in declared_ports(pod) if (p.protocol or "TCP") == protocol] for pod in pods]
        if any(not listed or any(p.container_port == target for p in listed) for listed in lists):
            continue
        if any(vouched(pod, target) for pod in pods):
            continue
        numbers = sorted({p.container_port for listed in lists for p in listed})
        command = ""
        if len(numbers) == 1 and numbers[0] not in targets_of_others(service, position, pods):
            step = ("add", f"/spec/ports/{position}/targetPort", numbers[0])
            command = commands.json_patch(service.namespace, "service", service.name, step)
        found.append(
            Finding(
                "EP403",
                "suspect",
                f"port {port_text(port)} goes to port {target}, which no container declares (they declare "
                f"{', '.join(map(str, numbers))}); whether something listens there cannot be seen from here",
                command,
                bool(command),
                (f"ports that the Pods declare: {', '.join(map(str, numbers))}",),
            )
        )
    return found


def other_protocol(service: Service, pods: Sequence[Pod]) -> list[Finding]:
    """EP408: ready Pods that declare the target port's number, all of them for another protocol only."""
    found = []
    for position, port in enumerate(service.spec.ports or ()):
        if not pods or isinstance(port.target_port, str):
            continue
        protocol, target = port.protocol or "TCP", port.target_port or port.port
        lists = [{p.protocol or "TCP" for p in declared_ports(pod) if p.container_port == target} for pod in pods]
        if any(not theirs or protocol in theirs for theirs in lists):
            continue
        right = sorted(set.intersection(*lists))
        command = ""
        if len(right) == 1:
            step = ("add", f"/spec/ports/{position}/protocol", right[0])
            command = commands.json_patch(service.namespace, "service", service.name, step)
        found.append(
            Finding(
                "EP408",
                "suspect",
                f"port {port_text(port)} goes to port {target} over {protocol}, which the containers declare for "
                f"{' and '.join(right) or 'other protocols'} only; whether something listens there cannot be seen "
                "from here",
                command,
                bool(command),
                (f"port {target} of pod/{pods[0].name}: {' and '.join(sorted(lists[0]))}",),
            )
        )
    return found


def vouched(pod: Pod, number: int) -> bool:
    """Whether a readiness or liveness probe of the Pod asks this very port: then it answers there."""
    for container in (*(pod.spec.containers or ()), *pod.spec.sidecars):
        for probe in (container.readiness_probe, container.liveness_probe):
            port = probe_port(probe) if probe is not None else None
            if port is not None and resolved(port, container) == number:
                return True
    return False


def portless(service: Service, snapshot: Snapshot) -> Finding | None:
    """EP405; the ports to add are those that every selected Pod declares."""
    if service.spec.ports or service.headless or service.spec.type == "ExternalName":
        return None
    pods = snapshot.matching(service) if service.spec.selector else []
    listed = [{(p.container_port, p.protocol or "TCP"): p.name for p in declared_ports(pod)} for pod in pods]
    shared = [key for key in (listed[0] if listed else ()) if all(key in other for other in listed)]
    several = len(shared) > 1
    ports = [
        {**({"name": listed[0][n, protocol] or f"port-{n}"} if several else {}), "port": n, "protocol": protocol}
        for n, protocol in shared
    ]
    command = ""
    if ports:
        command = commands.json_patch(service.namespace, "service", service.name, ("add", "/spec/ports", ports))
    declared = some([f"{n}/{protocol}" for n, protocol in shared], 6)
    text = f"svc/{service.name} has no ports" + (f"; its Pods declare {declared}" if declared else "")
    return Finding("EP405", "broken", text, command, bool(command), ("spec.ports: none",))


def untranslated(service: Service, snapshot: Snapshot) -> list[Finding]:
    """EP406: ports of a headless Service that lead elsewhere than they seem."""
    del snapshot
    found = []
    for port in service.spec.ports or ():
        target = port.target_port
        if service.headless and target not in (None, 0, port.port):
            found.append(
                Finding(
                    "EP406",
                    "note",
                    f"svc/{service.name} is headless, so nothing translates port {port.port} to {target}: clients "
                    f"must use {target} themselves",
                    seen=(f"port {port.port}, targetPort {target}, clusterIP None",),
                )
            )
    return found
