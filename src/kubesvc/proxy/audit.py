"""Whether the kernel's rules, whoever wrote them, do what the API says: packets are walked through them one front at a
time, and what becomes of them is compared with the decision. Pure; nothing is changed.

So rules are judged by what they do, not by how they look: the tables of kube-proxy in either mode and our own are held
to the same measure. Not judged: masquerading (which depends on how a proxy was told to know Pods), the drop of
addresses without a Service, and affinity (what clients did before).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from kubesvc.kernel.iptables.rules import Jump, Reject, front_of
from kubesvc.kernel.iptables.tables import Tables
from kubesvc.kernel.iptables.walk import outcomes as iptables_outcomes
from kubesvc.kernel.nft import Table
from kubesvc.kernel.nft.fields import PROTOCOL_NUMBERS, text_of, width
from kubesvc.kernel.nft.walk import Host, Outcome, Packet
from kubesvc.kernel.nft.walk import outcomes as nft_outcomes

from .decision import NewFlow, Surroundings, decide
from .fronts import claims_of
from .traffic import PortTraffic, ServicePortName

Front = tuple[str, int, str]
"""address, port, protocol"""
KUBE_PROXY_TABLE = "kube-proxy"
KUBE_PROXY_CHAIN = re.compile(
    r"KUBE-(SERVICES|EXTERNAL-SERVICES|NODEPORTS|POSTROUTING|MARK-MASQ|FORWARD|PROXY-FIREWALL|PROXY-CANARY"
    r"|(SVC|SVL|EXT|FW|SEP)-[A-Z2-7]{16})"
)
"""Chains of the proxy; the node agent has others of the same prefix (KUBE-FIREWALL, KUBE-KUBELET-CANARY)."""
FRONT_MAPS = ("service-ips", "no-endpoint-services", "services", "no-endpoints")
"""Maps, of kube-proxy and of ours, whose keys are fronts."""
OUTSIDER = {4: "198.51.100.77", 6: "2001:db8::77"}
"""Addresses of nobody, set aside for examples."""


@dataclass(frozen=True, slots=True)
class Sender:
    """From where a packet is tried. interface: "" for a process of the node."""

    name: str
    address: str
    interface: str = "eth0"


@dataclass(frozen=True, slots=True)
class Difference:
    """One front, and what the kernel does with packets to it that the API does not say, or does not do that it says.

    service: "" for what the API does not know at all
    """

    service: str
    front: str
    sender: str
    wanted: tuple[str, ...]
    found: tuple[str, ...]

    def __str__(self) -> str:
        who = f"{self.service}: " if self.service else ""
        wanted, found = ", ".join(self.wanted) or "nothing", ", ".join(self.found) or "nothing"
        if not self.service:
            return f"{self.front}: the kernel has rules ({found}), and no Service has this address and port"
        return f"{who}{self.front} from {self.sender}: should be {wanted}; is {found}"


class Rules:
    """Rules of one family, whoever wrote them, ready to be walked.

    owner: in words; fronts: what they know, for finding what the API does not
    """

    def __init__(self, owner: str, walk: Callable[[Packet, Host], Iterable[Outcome]], fronts: Iterable[Front]) -> None:
        self.owner = owner
        self.walk = walk
        self.fronts = sorted(set(fronts))


def rules_of_table(table: Table, owner: str) -> Rules:
    """An nftables table. What clients left in its dynamic sets is not heeded."""
    still = table.draft()
    still.elements = {
        name: {} if still.sets[name].dynamic else held for name, held in table.elements.items() if name in still.sets
    }
    return Rules(owner, lambda packet, host: nft_outcomes(still, packet, host), _table_fronts(still))


def _table_fronts(table: Table) -> Iterable[Front]:
    for name in FRONT_MAPS:
        spec = table.sets.get(name)
        if spec is None or len(spec.key) != 3:
            continue
        for key in table.elements.get(name, {}):
            address, protocol, port = text_of(spec.key, key[: width(spec.key)]).split(" . ")
            yield address, int(port), protocol.upper()


def rules_of_chains(tables: Tables, owner: str) -> Rules:
    """iptables chains. What clients left in the lists of `recent` is not heeded."""
    return Rules(owner, lambda packet, host: iptables_outcomes(tables, packet, host), _chain_fronts(tables))


def _chain_fronts(tables: Tables) -> Iterable[Front]:
    """Addresses and ports that KUBE-SERVICES knows."""
    for table in tables.values():
        for rule in table.rules.get("KUBE-SERVICES", ()):
            front = front_of(rule)
            if front is not None and front[0] and isinstance(rule.target, Jump | Reject):
                yield front


def is_proxy_chain(name: str) -> bool:
    """Whether kube-proxy writes this chain, or it is a built-in one, where its jumps stand."""
    return KUBE_PROXY_CHAIN.fullmatch(name) is not None or (not name.startswith("KUBE-") and name.isupper())


def audit(rules: Rules, ports: Sequence[PortTraffic], at: Surroundings, senders: Sequence[Sender]) -> list[Difference]:
    """Every difference between these rules and the service ports of their family, in order of the services.

    at:      of the node whose rules they are
    senders: from where each front is tried; one whose kind the rules may know otherwise than `at` is best left out
    """
    host = Host(frozenset(at.own_addresses))
    claimed: dict[Front, list[PortTraffic]] = {}
    for port in sorted(ports, key=lambda p: p.name):
        for front in fronts_of(port, at):
            claimed.setdefault(front, []).append(port)
    found: list[Difference] = []
    for front, claimants in claimed.items():
        for sender in senders:
            difference = _compare(rules, claimants, at, host, front, sender)
            if difference is not None:
                found.append(difference)
    for front in rules.fronts:
        if front not in claimed:
            address, number, protocol = front
            said = _walked(
                rules, Packet(OUTSIDER[_version(address)], address, number, PROTOCOL_NUMBERS[protocol]), host
            )
            found.append(Difference("", _text(front), "outside", (), said))
    return found


def fronts_of(port: PortTraffic, at: Surroundings) -> list[Front]:
    """Where a service port is reached."""
    return [(claim.address, claim.port, port.name.protocol) for claim in claims_of(port, at.node_addresses)]


def _compare(
    rules: Rules, claimants: Sequence[PortTraffic], at: Surroundings, host: Host, front: Front, sender: Sender
) -> Difference | None:
    address, number, protocol = front
    decision = decide(claimants, NewFlow(sender.address, address, number, protocol), at)
    match decision.verdict:
        case "endpoint":
            wanted = tuple(sorted(f"to {t.address}:{t.port}" for t in decision.targets))
        case "refuse":
            wanted = ("refused",)
        case "drop":
            wanted = ("dropped",)
        case _:
            wanted = ("left alone",)
    packet = Packet(sender.address, address, number, PROTOCOL_NUMBERS[protocol], interface=sender.interface)
    found = _walked(rules, packet, host)
    if set(found) == set(wanted):
        return None
    name: ServicePortName = decision.port or claimants[0].name
    shown = f"svc/{name.name} ({name.namespace})" + (f" port {name.port}" if name.port else "")
    return Difference(shown, _text(front), sender.name, wanted, found)


def _walked(rules: Rules, packet: Packet, host: Host) -> tuple[str, ...]:
    """All that may become of a packet, in words."""
    try:
        outcomes = list(rules.walk(packet, host))
    except (KeyError, NotImplementedError, AssertionError, ValueError) as error:
        return (f"not to be followed: {type(error).__name__} {error}",)
    found = set()
    for outcome in outcomes:
        if outcome.verdict == "drop":
            found.add("dropped")
        elif outcome.verdict.startswith("reject"):
            found.add("refused")
        elif (outcome.destination, outcome.port) == (packet.destination, packet.port):
            found.add("left alone")
        else:
            found.add(f"to {outcome.destination}:{outcome.port}")
    return tuple(sorted(found))


def _text(front: Front) -> str:
    address, port, protocol = front
    return f"[{address}]:{port}/{protocol}" if ":" in address else f"{address}:{port}/{protocol}"


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def senders_of(own_addresses: Sequence[str], pod_range: str, version: int) -> list[Sender]:
    """From where to try: outside, the node itself, and, if it is known which addresses are Pods', a Pod."""
    found = [Sender("outside", OUTSIDER[version])]
    found += [Sender("the node", a, "") for a in own_addresses[:1]]
    if pod_range:
        network = ipaddress.ip_network(pod_range, strict=False)
        found.append(Sender("a Pod", str(network.broadcast_address - 1), "veth0"))
    return found


class Report(msgspec.Struct, frozen=True):
    """What was looked at, and what is different."""

    owners: tuple[str, ...]
    fronts: int
    differences: tuple[Difference, ...]


def as_json(report: Report) -> Mapping[str, object]:
    return {
        "rules": list(report.owners),
        "fronts": report.fronts,
        "differences": [
            {"service": d.service or None, "front": d.front, "from": d.sender, "wanted": list(d.wanted),
             "found": list(d.found), "text": str(d)}
            for d in report.differences
        ],
    }  # fmt: skip


def render(report: Report) -> str:
    lines = [str(d) for d in report.differences]
    what = " and ".join(report.owners)
    count = len(report.differences)
    lines.append(
        f"{what}: {report.fronts} fronts, "
        + (f"{count} difference{'s' if count != 1 else ''}" if count else "all as the API says")
    )
    return "\n".join(lines)
