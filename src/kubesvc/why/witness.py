"""What looking into the nodes adds to what objects tell (EP407, EP409, EP613 to EP616, EP706, EP707). Pure.

The wish is what the proxy's and the DNS server's own plans make of the objects; a finding is where what was seen
differs from it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.service import Service
from kubesvc.dns import wire
from kubesvc.proxy.traffic import PortTraffic, Target

from . import commands, naming, reach
from .commands import some
from .diagnosis import Finding, Link
from .ports import declared_ports, port_text, targets_of_others
from .sight import Sight
from .snapshot import Snapshot


def look(service: Service, slices: Sequence[EndpointSlice], snapshot: Snapshot, node: str = "") -> list[Finding]:
    """Everything that the sights say against a Service; [] where nobody looked.

    slices: as stored; node: heed only what was seen of this node's own process, "" for all
    """
    seen = [s for s in snapshot.sights if not node or s.node == node]
    found = deaf(service, slices, snapshot)
    for sight in seen:
        behind = differences(service, slices, snapshot, sight)
        if sight.state != "running":
            found.append(not_running(service, sight, behind))
            continue
        if sight.refused:
            found.append(rules_refused(service, sight))
        elif behind:
            found.append(rules_behind(service, sight, behind))
        found += names(service, slices, snapshot, sight)
        if sight.stale:
            found.append(stale_flows(service, sight))
    return found


CUT_OFF = "the node is cut off from the API"


def heal(sight: Sight) -> str:
    return f"kubesvc nodes heal {sight.node}"


# ---------------------------------------------------------------- who answers


def replies(snapshot: Snapshot) -> dict[str, str]:
    """What each address was seen to do, by whichever node asked; an open port counts before a closed one."""
    found: dict[str, str] = {}
    for sight in snapshot.sights:
        for place, reply in sight.answers.items():
            if found.get(place) != "open":
                found[place] = reply
    return found


def targets_of(service: Service, slices: Sequence[EndpointSlice], snapshot: Snapshot) -> list[tuple[str, Target]]:
    """(port name, target) for every TCP target that takes traffic of the Service from anywhere, each once.

    Where traffic policies are Local every node's list counts. A headless Service's targets are its ready endpoints.
    """
    if service.headless:
        return [
            (p.name or "", Target(e.address, p.port))
            for s in slices for e in s.endpoints or () if e.ready
            for p in s.ports or () if p.port and (p.protocol or "TCP") == "TCP"
        ]  # fmt: skip
    places = [reach.place_of(n) for n in snapshot.nodes.values()] if uses_local(service) else []
    views = [p for place in (*places, reach.place_of(None)) for p in reach.planned_ports(service, slices, place)]
    listed = [(p.name.port, t) for p in views if p.name.protocol == "TCP" for t in (*p.cluster, *p.local)]
    return list(dict.fromkeys(listed))


def uses_local(service: Service) -> bool:
    return "Local" in (service.spec.internal_traffic_policy, service.spec.external_traffic_policy)


def deaf(
    service: Service, slices: Sequence[EndpointSlice], snapshot: Snapshot, only: Sequence[str] | None = None
) -> list[Finding]:
    """EP407 and EP409: targets that refuse or never answer, port by port.

    only: addresses of which alone this is asked; None for all
    """
    heard = replies(snapshot)
    by_port: dict[str, list[Target]] = {}
    for name, target in targets_of(service, slices, snapshot):
        if only is None or target.address in only:
            by_port.setdefault(name, []).append(target)
    found = []
    for name, targets in by_port.items():
        known = [t for t in targets if str(t) in heard]
        refusing = [t for t in known if heard[str(t)] == "refused"]
        silent = [t for t in known if heard[str(t)] == "silent"]
        if refusing:
            found.append(nobody_listens(service, name, refusing, len(refusing) == len(targets), heard, snapshot))
        if silent:
            found.append(no_answer(service, name, silent, len(silent) == len(targets)))
    return found


def nobody_listens(
    service: Service, name: str, refusing: Sequence[Target], every: bool, heard: dict[str, str], snapshot: Snapshot
) -> Finding:
    """EP407; the right port is the one other port that all refusing Pods declare and answer at."""
    by_address = {ip: p for p in snapshot.matching(service) for ip in p.ips}
    pods = [by_address[t.address] for t in refusing if t.address in by_address]
    position = next((i for i, p in enumerate(service.spec.ports or ()) if p.name == name), -1)
    right: int | None = None
    for number in sorted({p.container_port for pod in pods for p in declared_ports(pod)}):
        if all(heard.get(str(Target(t.address, number))) == "open" for t in refusing):
            right = number if right is None else 0
    command, repairs = "", False
    if right and position >= 0 and right not in targets_of_others(service, position, pods):
        step = ("add", f"/spec/ports/{position}/targetPort", right)
        command = commands.json_patch(service.namespace, "service", service.name, step)
        repairs = True
    elif pods:
        command = commands.kubectl(service.namespace, "logs", pods[0].name, "--all-containers")
    what = port_text((service.spec.ports or [])[position]) if position >= 0 else name or "without a name"
    whom = some([f"pod/{p.name}" for p in pods] or [t.address for t in refusing])
    hint = f"; it answers at {right}" if right else ""
    return Finding(
        "EP407",
        "broken" if every else "warning",
        f"port {what} leads to port {refusing[0].port} of {whom}, where nobody listens: connections are refused{hint}",
        command,
        repairs,
        tuple(f"TCP connection to {t}: refused" for t in refusing[:3]),
    )


def no_answer(service: Service, name: str, silent: Sequence[Target], every: bool) -> Finding:
    """EP409."""
    shown = some(map(str, silent))
    return Finding(
        "EP409",
        "broken" if every else "warning",
        f"{shown} of svc/{service.name}{f' (port {name})' if name else ''} "
        f"{'does' if len(silent) == 1 else 'do'} not answer: connections there time out",
        commands.kubectl(
            service.namespace, "get", "endpointslices", "-l", f"kubernetes.io/service-name={service.name}", "-o", "yaml"
        ),
        False,
        tuple(f"TCP connection to {t}: no answer" for t in silent[:3]),
    )


def link(service: Service, slices: Sequence[EndpointSlice], snapshot: Snapshot) -> Link | None:
    """Who answers, as a link of the chain; None where nobody asked."""
    heard = replies(snapshot)
    asked = {str(t): heard[str(t)] for _, t in targets_of(service, slices, snapshot) if str(t) in heard}
    if not asked:
        return None
    fine = [t for t, reply in asked.items() if reply == "open"]
    bad = [f"{t} {'refuses' if reply == 'refused' else 'is silent'}" for t, reply in asked.items() if reply != "open"]
    text = f"{len(fine)} of {commands.count(len(asked), 'target')} {'accepts' if len(asked) == 1 else 'accept'}"
    return Link("answers", "ok" if fine else "broken", text + (f"; {some(bad)}" if bad else ""))


def settled(finding: Finding, service: Service, slices: Sequence[EndpointSlice], snapshot: Snapshot) -> bool:
    """Whether looking has settled a suspicion that objects alone could not: EP403 once every target was asked."""
    if finding.code != "EP403":
        return False
    heard, targets = replies(snapshot), targets_of(service, slices, snapshot)
    return bool(targets) and all(str(t) in heard for _, t in targets)


# ---------------------------------------------------------------- rules


def front(port: PortTraffic) -> str:
    """The ClusterIP of a service port as sights name it."""
    return f"{Target(port.cluster_ip, port.port)}/{port.name.protocol}"


def differences(
    service: Service, slices: Sequence[EndpointSlice], snapshot: Snapshot, sight: Sight
) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """(front, wanted, seen) for each ClusterIP port whose rules on a node are not what the plan says.

    With session affinity a subset is right, since the client that was played may be bound to an endpoint.
    """
    if sight.rules is None or service.headless:
        return []
    found = []
    for port in reach.planned_ports(service, slices, reach.place_of(snapshot.nodes.get(sight.node))):
        if front(port) not in sight.rules:
            continue
        want, have = {str(t) for t in port.internal_targets}, set(sight.rules[front(port)])
        fits = bool(have) <= bool(want) and have <= want if port.affinity_seconds else have == want
        if not fits:
            found.append((front(port), tuple(sorted(want)), tuple(sorted(have))))
    return found


def rules_behind(
    service: Service, sight: Sight, behind: Sequence[tuple[str, tuple[str, ...], tuple[str, ...]]]
) -> Finding:
    """EP614."""
    at, want, have = behind[0]
    cut = sight.failure == "cut off"
    return Finding(
        "EP614",
        "broken",
        f"the kernel's rules of node {sight.node} lead {at} to {some(have) or 'nothing'}, and should lead it to "
        f"{some(want) or 'nothing'}: {CUT_OFF if cut else 'its proxy is behind'}",
        heal(sight) if cut else "kubesvc status",
        cut,
        tuple(f"rules of node {sight.node}, {a}: {some(h) or 'no endpoint'}" for a, _, h in behind[:3]),
    )


def rules_refused(service: Service, sight: Sight) -> Finding:
    """EP616."""
    return Finding(
        "EP616",
        "broken",
        f"the kernel of node {sight.node} does not take the rules of svc/{service.name}: {sight.refused}",
        commands.kubectl(service.namespace, "get", "service", service.name, "-o", "yaml"),
        False,
        (f"node {sight.node}: {sight.refused}",),
    )


def not_running(
    service: Service, sight: Sight, behind: Sequence[tuple[str, tuple[str, ...], tuple[str, ...]]]
) -> Finding:
    """EP613: broken if the rules that the process left differ from what they should be, else a warning."""
    state = "is stopped" if sight.state == "stopped" else "does not run"
    left = "; its rules are old: " + "; ".join(
        f"{at} leads to {some(have) or 'nothing'} instead of {some(want) or 'nothing'}" for at, want, have in behind[:2]
    ) if behind else ", so rules, names and Pods there stay as they were"  # fmt: skip
    wake = sight.state == "stopped" and sight.pid > 0
    if sight.failure == "off":
        text = f"node {sight.node} has no power: neither Pods nor rules nor names are there"
        return Finding("EP613", "warning", text, f"kubesvc nodes start {sight.node}", True, ("kubesvc nodes: stopped",))
    return Finding(
        "EP613",
        "broken" if behind else "warning",
        f"the process of node {sight.node} (agent, proxy and DNS) {state}{left}",
        f"kill -CONT {sight.pid}" if wake else "kubesvc status",
        wake,
        (f"process {sight.pid or 'of the node'}: {sight.state}",),
    )


def stale_flows(service: Service, sight: Sight) -> Finding:
    """EP615."""
    return Finding(
        "EP615",
        "warning",
        f"the kernel of node {sight.node} still sends {commands.count(len(sight.stale), 'UDP flow')} of "
        f"svc/{service.name} to endpoints that are none any more ({some(sight.stale, 2)})",
        shlex.join(("kubesvc", "rules", f"svc/{service.name}", "-n", service.namespace, "--forget-stale")),
        True,
        sight.stale[:4],
    )


# ---------------------------------------------------------------- names


def names(service: Service, slices: Sequence[EndpointSlice], snapshot: Snapshot, sight: Sight) -> list[Finding]:
    """EP706 and EP707: what the node's DNS says to the Service's name."""
    if not sight.dns:
        return []
    name = f"{service.name}.{service.namespace}.svc.{naming.ZONE.text}"
    if sight.dns == "silent":
        return [
            Finding(
                "EP706",
                "broken",
                f"the DNS server of node {sight.node} does not answer",
                f"kubesvc nodes stop {sight.node} && kubesvc nodes start {sight.node}",
                True,
                (f"question for {name}: no answer",),
            )
        ]
    want, have = wanted_records(service, slices, snapshot), set(sight.records)
    if want == have:
        return []
    cut = sight.failure == "cut off"
    return [
        Finding(
            "EP707",
            "broken",
            f"the DNS server of node {sight.node} says {some(sorted(have)) or 'nothing'} to {name}, and should say "
            f"{some(sorted(want)) or 'nothing'}: {CUT_OFF if cut else 'it is behind'}",
            heal(sight) if cut else "kubesvc status",
            cut,
            tuple(f"{name}: {r}" for r in sorted(have)[:4]),
        )
    ]


def record_type(service: Service) -> int:
    """A, or AAAA for a Service whose first family is IPv6."""
    families = service.spec.ip_families or []
    return wire.AAAA if families and families[0] == "IPv6" else wire.A


def wanted_records(service: Service, slices: Iterable[EndpointSlice], snapshot: Snapshot) -> set[str]:
    """The records that the DNS server's own plan gives for the Service's full name."""
    known = naming.names_of([service.namespace], [service], slices, snapshot.now)
    full = f"{service.name}.{service.namespace}.svc.{naming.ZONE.text}."
    return set(naming.ask(full, service.namespace, known, record_type(service))[-1].records)
