"""The iptables renderer: from service ports to the text for `iptables-restore`, in upstream's chain layout. Pure.

    nat     PREROUTING, OUTPUT -> KUBE-SERVICES -> KUBE-SVC-x (any endpoint), KUBE-SVL-x (those here) -> KUBE-SEP-y
                                                -> KUBE-EXT-x (from outside) -> KUBE-SVC-x, KUBE-SVL-x
                                                -> KUBE-FW-x (source ranges) -> KUBE-EXT-x
                                                -> KUBE-NODEPORTS -> KUBE-EXT-x
            POSTROUTING -> KUBE-POSTROUTING; KUBE-MARK-MASQ marks what is masqueraded there
    filter  KUBE-SERVICES, KUBE-EXTERNAL-SERVICES (refused or dropped), KUBE-PROXY-FIREWALL (not in the source ranges),
            KUBE-NODEPORTS (health checks), KUBE-FORWARD, KUBE-FIREWALL (strangers at loopback node ports)

So what is written about `iptables -L` and `iptables -t nat -S` on a Kubernetes node holds here too. A change writes the
chains of its own Services and the shared ones, which name every front; the chains of other Services are not touched.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .frame import FrameOptions
from .fronts import BALANCER_IP, CLUSTER_IP, EXTERNAL_IP, Claim, Fronts, move_all
from .traffic import PortTraffic, ServiceKey, ServicePortName, Target

SERVICES, NODE_PORTS, POSTROUTING, MARK_MASQ = (
    "KUBE-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-MARK-MASQ",
)
EXTERNAL, FORWARD, FIREWALL, LOCAL_FIREWALL, CANARY = (
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    "KUBE-FIREWALL",
    "KUBE-PROXY-CANARY",
)
MARKER = "KUBESVC-PROXY"
"""An empty chain that tells our rules from kube-proxy's, which have the same names."""
OWN_CHAINS = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-")
"""How chains of single Services begin: those of them that nobody wants are ours to remove."""
TABLES = ("nat", "filter", "mangle")
SHARED_CHAINS = {
    "nat": (SERVICES, NODE_PORTS, POSTROUTING, MARK_MASQ),
    "filter": (SERVICES, EXTERNAL, FIREWALL, NODE_PORTS, FORWARD, LOCAL_FIREWALL),
    "mangle": (),
}
MANY_ENDPOINTS = 1000
"""Above this, rules of single endpoints carry no comment (PROXY-113)."""
LONGEST_COMMENT = 255

NEW = "-m conntrack --ctstate NEW "
Jump = tuple[str, str, str]
"""Table, built-in chain, rule."""
JUMPS: tuple[Jump, ...] = (  # PROXY-108
    ("filter", "INPUT", f'{NEW}-m comment --comment "kubernetes externally-visible service portals" -j {EXTERNAL}'),
    ("filter", "FORWARD", f'{NEW}-m comment --comment "kubernetes externally-visible service portals" -j {EXTERNAL}'),
    ("filter", "INPUT", f'-m comment --comment "kubernetes health check service ports" -j {NODE_PORTS}'),
    ("filter", "FORWARD", f'{NEW}-m comment --comment "kubernetes service portals" -j {SERVICES}'),
    ("filter", "OUTPUT", f'{NEW}-m comment --comment "kubernetes service portals" -j {SERVICES}'),
    ("filter", "FORWARD", f'-m comment --comment "kubernetes forwarding rules" -j {FORWARD}'),
    ("filter", "INPUT", f'{NEW}-m comment --comment "kubernetes load balancer firewall" -j {FIREWALL}'),
    ("filter", "OUTPUT", f'{NEW}-m comment --comment "kubernetes load balancer firewall" -j {FIREWALL}'),
    ("filter", "FORWARD", f'{NEW}-m comment --comment "kubernetes load balancer firewall" -j {FIREWALL}'),
    ("nat", "OUTPUT", f'-m comment --comment "kubernetes service portals" -j {SERVICES}'),
    ("nat", "PREROUTING", f'-m comment --comment "kubernetes service portals" -j {SERVICES}'),
    ("nat", "POSTROUTING", f'-m comment --comment "kubernetes postrouting rules" -j {POSTROUTING}'),
)
LOOPBACK_JUMPS = (("filter", "INPUT", f"-j {LOCAL_FIREWALL}"), ("filter", "OUTPUT", f"-j {LOCAL_FIREWALL}"))
ALL_JUMPS = (*JUMPS, *LOOPBACK_JUMPS)


@functools.lru_cache(maxsize=1 << 17)
def chain_hash(text: str) -> str:
    """Sixteen characters that stand for a name too long for a chain (PROXY-109)."""
    return base64.b32encode(hashlib.sha256(text.encode()).digest())[:16].decode()


def port_text(name: ServicePortName) -> str:
    """`ns/name:port`, as comments and hashes spell a service port; an unnamed port is left out."""
    return f"{name.namespace}/{name.name}" + (f":{name.port}" if name.port else "")


def port_hash(name: ServicePortName) -> str:
    return chain_hash(port_text(name) + name.protocol.lower())


def endpoint_chain(name: ServicePortName, target: Target) -> str:
    """KUBE-SEP-…, one per service port and endpoint."""
    return f"KUBE-SEP-{chain_hash(f'{port_text(name)}{name.protocol.lower()}{target}')}"


def quoted(text: str) -> str:
    """A comment as the text of a restore spells it."""
    return '"' + text[:LONGEST_COMMENT].replace("\\", "").replace('"', "'") + '"'


def comment(text: str) -> str:
    return f"-m comment --comment {quoted(text)}"


def probability(count: int) -> str:
    """1/count, with ten decimals (PROXY-110)."""
    return f"{1 / count:.10f}"


@dataclass(slots=True)
class Share:
    """What one Service contributes.

    chains: nat chains of its own, with their rules after `-A NAME`
    lines:  rules for shared chains, by (table, chain): (rank, rule)
    """

    chains: dict[str, list[str]] = field(default_factory=dict)
    lines: dict[tuple[str, str], list[tuple[int, str]]] = field(default_factory=dict)
    endpoints: int = 0

    def add(self, table: str, chain: str, rank: int, rule: str) -> None:
        self.lines.setdefault((table, chain), []).append((rank, rule))


@dataclass(slots=True)
class Change:
    """What a change of Services does to the rules.

    chains: chains of single Services that have other rules, with these
    gone:   those that exist no more
    shared: whether the rules in shared chains differ
    """

    chains: dict[str, list[str]] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    shared: bool = False


def nat_text(change: Change) -> str:
    """The text for chains of single Services alone."""
    out = ["*nat", *(f":{name} - [0:0]" for name in (*change.chains, *change.gone))]
    out += [f"-A {name} {rule}" for name, rules in change.chains.items() for rule in rules]
    out += [f"-X {name}" for name in change.gone]
    return "\n".join((*out, "COMMIT")) + "\n"


class IptablesRuleset:
    """The rules of one family, kept up Service by Service.

    options:            what rules depend on besides Services
    node_addresses:     where node ports are reached; None: at every local address (PROXY-68, 69)
    loopback_ports:     whether node ports are reached at 127.0.0.1 too; IPv4 only (PROXY-70)
    drop_invalid:       whether forwarded packets that no connection knows are dropped (PROXY-79)
    """

    def __init__(
        self,
        options: FrameOptions,
        node_addresses: Sequence[str] | None = (),
        *,
        loopback_ports: bool = True,
        drop_invalid: bool = True,
    ) -> None:
        self.options = options
        self.node_addresses = None if node_addresses is None else tuple(node_addresses)
        self.ip6 = options.family == "IPv6"
        self.loopback_ports = loopback_ports and not self.ip6 and node_addresses is None
        self.drop_invalid = drop_invalid
        # All node ports are in one chain, whatever the addresses: the port alone is the front.
        self.fronts = Fronts(("::" if self.ip6 else "0.0.0.0",))
        self.ports: dict[ServiceKey, tuple[PortTraffic, ...]] = {}
        self.shares: dict[ServiceKey, Share] = {}
        self.endpoints = 0

    # Changing.

    def change(self, changes: Mapping[ServiceKey, Sequence[PortTraffic]]) -> Change:
        """Take in the service ports of these Services (none: the Service is gone), and say what that changes."""
        many = self.endpoints > MANY_ENDPOINTS
        change = Change()
        for key in move_all(self.fronts, self.ports, changes):
            old = self.shares.pop(key, EMPTY)
            new = self._share(key, brief=many)
            if new.lines:
                self.shares[key] = new
            self.endpoints += new.endpoints - old.endpoints
            for name, rules in new.chains.items():
                if old.chains.get(name) != rules:
                    change.chains[name] = rules
            change.gone += [name for name in old.chains if name not in new.chains]
            change.shared |= old.lines != new.lines
        return change

    def conflicts(self) -> list[tuple[ServicePortName, ServicePortName]]:
        return self.fronts.conflicts()

    def counts(self) -> dict[str, int]:
        """How many rules there are in our chains, by table (PROXY-134)."""
        found = {table: sum(map(len, chains.values())) for table, chains in self._shared().items() if chains}
        found["nat"] += sum(len(rules) for _, rules in self.chains())
        return found

    @staticmethod
    def counted(text: str) -> dict[str, int]:
        """How many rules a restore text writes, by table."""
        found: dict[str, int] = {}
        table = ""
        for line in text.splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith("-A "):
                found[table] = found.get(table, 0) + 1
        return found

    def chains(self) -> Iterator[tuple[str, list[str]]]:
        """All chains of single Services, in order of the Services."""
        for key in sorted(self.shares):
            yield from self.shares[key].chains.items()

    def owner_of(self, line: str) -> tuple[ServiceKey, ...]:
        """The Services that a line of a restore text belongs to; () if it is one of the shared rules."""
        words = line.split(None, 2)
        chain = words[1] if len(words) > 1 and words[0] == "-A" else line[1:].split(" ")[0]
        rule = words[2] if len(words) > 2 else ""
        found = []
        for key in sorted(self.shares):
            share = self.shares[key]
            if chain in share.chains or any(rule == r for lines in share.lines.values() for _, r in lines):
                found.append(key)
        return tuple(found)

    # Writing out.

    def whole(self, existing: Iterable[tuple[str, str]] = (), jumps: Collection[int] = ()) -> str:
        """The text that makes everything as it should be.

        existing: (table, chain) of all there is; chains of Services that nobody wants are removed
        jumps:    which of `self.jumps()` are there already, by number
        """
        missing = [jump for number, jump in enumerate(self.jumps()) if number not in jumps]
        return self._text(dict(self.chains()), self.stale(existing), missing, canaries=True)

    def stale(self, existing: Iterable[tuple[str, str]]) -> list[str]:
        """Which of these (table, chain) are chains of Services that nobody wants."""
        wanted = {name for name, _ in self.chains()}
        return sorted(
            chain
            for table, chain in existing
            if table == "nat" and chain.startswith(OWN_CHAINS) and chain not in wanted
        )

    def partly(self, change: Change) -> str:
        """The text for a change: its chains, and the shared ones if they differ; "" for nothing (PROXY-113, 114)."""
        if not change.shared:
            return nat_text(change) if change.chains or change.gone else ""
        return self._text(change.chains, change.gone, (), canaries=False)

    def jumps(self) -> tuple[Jump, ...]:
        """(table, built-in chain, rule) of all jumps into our chains (PROXY-108)."""
        return ALL_JUMPS if self.loopback_ports else JUMPS

    def _text(
        self,
        chains: Mapping[str, list[str]],
        gone: Sequence[str],
        jumps: Sequence[Jump],
        *,
        canaries: bool,
    ) -> str:
        out: list[str] = []
        shared = self._shared()
        for table in TABLES if canaries else TABLES[:2]:
            out.append(f"*{table}")
            for name in shared[table]:
                out.append(f":{name} - [0:0]")
            if canaries:
                out += [f":{CANARY} - [0:0]", f":{MARKER} - [0:0]"]
            if table == "nat":
                out += [f":{name} - [0:0]" for name in chains]
                out += [f":{name} - [0:0]" for name in gone]
            out += [f"-I {chain} {rule}" for t, chain, rule in jumps if t == table]
            for name, rules in shared[table].items():
                out += [f"-A {name} {rule}" for rule in rules]
            if table == "nat":
                for name, rules in chains.items():
                    out += [f"-A {name} {rule}" for rule in rules]
                out += [f"-X {name}" for name in gone]
            out.append("COMMIT")
        return "\n".join(out) + "\n"

    def _shared(self) -> dict[str, dict[str, list[str]]]:
        """The shared chains of each table, with all rules."""
        collected: dict[tuple[str, str], list[tuple[int, ServiceKey, str]]] = {}
        for key, share in self.shares.items():
            for place, lines in share.lines.items():
                collected.setdefault(place, []).extend((rank, key, rule) for rank, rule in lines)

        def rules(table: str, chain: str) -> list[str]:
            # Stable: the rules of one Service keep their order; those of several follow rank, then name.
            return [rule for *_, rule in sorted(collected.get((table, chain), ()), key=lambda r: r[:2])]

        bit = f"{1 << self.options.masquerade_bit:#x}"
        invalid = ["-m conntrack --ctstate INVALID -j DROP"] if self.drop_invalid else []
        found: dict[str, dict[str, list[str]]] = {
            "nat": {
                SERVICES: rules("nat", SERVICES) + self._node_port_jumps(),
                NODE_PORTS: rules("nat", NODE_PORTS),
                POSTROUTING: [  # PROXY-57
                    f"-m mark ! --mark {bit}/{bit} -j RETURN",
                    f"-j MARK --xor-mark {bit}",
                    f"{comment('kubernetes service traffic requiring SNAT')} -j MASQUERADE --random-fully",
                ],
                MARK_MASQ: [f"-j MARK --or-mark {bit}"],
            },
            "filter": {
                SERVICES: rules("filter", SERVICES),
                EXTERNAL: rules("filter", EXTERNAL),
                FIREWALL: rules("filter", FIREWALL),
                NODE_PORTS: rules("filter", NODE_PORTS),
                FORWARD: [  # PROXY-79, 112
                    *invalid,
                    f"{comment('kubernetes forwarding rules')} -m mark --mark {bit}/{bit} -j ACCEPT",
                    f"{comment('kubernetes forwarding conntrack rule')}"
                    " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                ],
            },
            "mangle": {},
        }
        if self.loopback_ports:  # PROXY-70
            found["filter"][LOCAL_FIREWALL] = [
                f"{comment('block incoming localnet connections')} -d 127.0.0.0/8 ! -s 127.0.0.0/8"
                " -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
            ]
        return found

    def _node_port_jumps(self) -> list[str]:
        """The last rules of KUBE-SERVICES (PROXY-69, 112)."""
        said = comment("kubernetes service nodeports; NOTE: this must be the last rule in this chain")
        if self.node_addresses is not None:
            return [f"{said} -d {address} -j {NODE_PORTS}" for address in self.node_addresses]
        loopback = "" if self.loopback_ports else "! -d ::1/128 " if self.ip6 else "! -d 127.0.0.0/8 "
        return [f"{said} {loopback}-m addrtype --dst-type LOCAL -j {NODE_PORTS}"]

    # Rendering one Service.

    def _share(self, key: ServiceKey, *, brief: bool) -> Share:
        share = Share()
        for port in self.ports.get(key, ()):
            self._render(share, port, brief=brief)
        return share

    def _render(self, share: Share, port: PortTraffic, *, brief: bool) -> None:
        name, hash = port_text(port.name), port_hash(port.name)
        svc, svl, ext, fw = (f"KUBE-{kind}-{hash}" for kind in ("SVC", "SVL", "EXT", "FW"))
        internal = svl if port.internal_local else svc
        has_internal = bool(port.internal_targets)
        has_external = bool(port.cluster) and bool(port.local or not port.external_local)
        filtered = bool(port.cluster and port.load_balancer_ips) and port.source_ranges is not None
        protocol = port.name.protocol.lower()
        claims = list(self.fronts.owned(port))
        for claim in claims:
            to = f"-m {protocol} -p {protocol}" + ("" if claim.rank > EXTERNAL_IP else f" -d {claim.address}")
            to += f" --dport {claim.port}"
            if claim.rank == CLUSTER_IP:
                if has_internal:
                    share.add("nat", SERVICES, claim.rank, f"{comment(f'{name} cluster IP')} {to} -j {internal}")
                else:
                    share.add("filter", SERVICES, claim.rank, f"{self._without(port, name)} {to} {self._verdict(port)}")
            else:
                self._render_external(share, port, claim, to, fw if filtered else ext, has_external)
        if port.health_port:
            said = comment(f"{name} health check node port")
            share.add("filter", NODE_PORTS, CLUSTER_IP, f"{said} -m tcp -p tcp --dport {port.health_port} -j ACCEPT")
        if any(c.rank == CLUSTER_IP for c in claims) and has_internal:
            share.chains[internal] = self._masquerade_internal(port, name, protocol)
        if port.cluster and any(c.rank != CLUSTER_IP for c in claims):
            share.chains[ext] = self._external(port, name, svc, svl)
            if filtered:
                share.chains[fw] = self._ranges(port, name, ext)
        # A list that no front leads to has no chain: another Service may have got all of them.
        wanted = {chain for chain in (svc, svl) if chain in share.chains}
        if ext in share.chains:
            wanted |= {svc, svl} if port.external_local else {svc}
        lists = ((svc, port.cluster), (svl, port.local))
        spread = {chain: targets for chain, targets in lists if targets and chain in wanted}
        for chain, targets in spread.items():
            share.chains.setdefault(chain, []).extend(self._spread(port, name, targets, brief=brief))
        for target in {t: None for targets in spread.values() for t in targets}:
            share.endpoints += 1
            share.chains[endpoint_chain(port.name, target)] = self._endpoint(port, name, target, brief=brief)

    def _without(self, port: PortTraffic, name: str) -> str:
        return comment(f"{name} has no local endpoints" if port.usable else f"{name} has no endpoints")

    def _verdict(self, port: PortTraffic) -> str:
        """PROXY-38, 39. A TCP client is sent a reset: Linux takes word of an ICMPv6 error a second late."""
        if port.usable:
            return "-j DROP"
        return "-j REJECT" + (" --reject-with tcp-reset" if port.name.protocol == "TCP" else "")

    def _render_external(
        self, share: Share, port: PortTraffic, claim: Claim, to: str, chain: str, has_external: bool
    ) -> None:
        """One external address, or the node port (PROXY-44 to 51)."""
        name = port_text(port.name)
        node_port = claim.rank > EXTERNAL_IP
        if port.cluster:
            ext = f"KUBE-EXT-{port_hash(port.name)}"
            if node_port:
                share.add("nat", NODE_PORTS, claim.rank, f"{comment(name)} {to} -j {ext}")
            elif claim.rank == BALANCER_IP:
                share.add("nat", SERVICES, claim.rank, f"{comment(f'{name} loadbalancer IP')} {to} -j {chain}")
                if chain != ext:
                    said = comment(f"{name} traffic not accepted by {chain}")
                    share.add("filter", FIREWALL, claim.rank, f"{said} {to} -j DROP")
            else:
                share.add("nat", SERVICES, claim.rank, f"{comment(f'{name} external IP')} {to} -j {ext}")
        if not has_external:
            local = "-m addrtype --dst-type LOCAL " if node_port else ""
            rule = f"{self._without(port, name)} {local}{to} {self._verdict(port)}"
            share.add("filter", EXTERNAL, claim.rank, rule)

    def _masquerade_internal(self, port: PortTraffic, name: str, protocol: str) -> list[str]:
        """PROXY-53, 54."""
        test = "" if self.options.masquerade_all else self._pod(negated=True)
        if test is None:
            return []
        to = f"-m {protocol} -p {protocol} -d {port.cluster_ip} --dport {port.port}"
        return [f"{comment(f'{name} cluster IP')} {to} {test}-j {MARK_MASQ}"]

    def _pod(self, *, negated: bool) -> str | None:
        """A match for packets of pods, or of none; None if nobody can tell (PROXY-52)."""
        no = "! " if negated else ""
        if self.options.pod_interface:
            name = self.options.pod_interface
            return f"{no}-i {name[:-1]}+ " if name.endswith("*") else f"{no}-i {name} "
        return f"{no}-s {self.options.pod_cidr} " if self.options.pod_cidr else None

    def _external(self, port: PortTraffic, name: str, svc: str, svl: str) -> list[str]:
        """KUBE-EXT-x (PROXY-46, 47)."""
        if not port.external_local:
            return [f"{comment(f'masquerade traffic for {name} external destinations')} -j {MARK_MASQ}", f"-j {svc}"]
        rules = []
        if (pod := self._pod(negated=False)) is not None:
            rules.append(f"{comment(f'pod traffic for {name} external destinations')} {pod}-j {svc}")
        own = "-m addrtype --src-type LOCAL"
        rules.append(f"{comment(f'masquerade LOCAL traffic for {name} external destinations')} {own} -j {MARK_MASQ}")
        rules.append(f"{comment(f'route LOCAL traffic for {name} external destinations')} {own} -j {svc}")
        return rules + ([f"-j {svl}"] if port.local else [])

    def _ranges(self, port: PortTraffic, name: str, ext: str) -> list[str]:
        """KUBE-FW-x: who returns from it without a jump is dropped in KUBE-PROXY-FIREWALL (PROXY-50, 51)."""
        said = comment(f"{name} loadbalancer IP")
        rules = [f"{said} -s {source} -j {ext}" for source in port.source_ranges or ()]
        return [*rules, comment(f"other traffic to {name} will be dropped by {FIREWALL}")]

    def _spread(self, port: PortTraffic, name: str, targets: Sequence[Target], *, brief: bool) -> list[str]:
        """One rule per endpoint: first who is remembered, then by chance (PROXY-64, 110, 111)."""
        rules = []
        chains = [(endpoint_chain(port.name, t), "" if brief else f"{comment(f'{name} -> {t}')} ") for t in targets]
        if port.affinity_seconds is not None:
            for chain, said in chains:
                check = f"-m recent --name {chain} --rcheck --seconds {port.affinity_seconds} --reap"
                rules.append(f"{said}{check} -j {chain}")
        for number, (chain, said) in enumerate(chains):
            left = len(chains) - number
            chance = f"-m statistic --mode random --probability {probability(left)} " if left > 1 else ""
            rules.append(f"{said}{chance}-j {chain}")
        return rules

    def _endpoint(self, port: PortTraffic, name: str, target: Target, *, brief: bool) -> list[str]:
        """KUBE-SEP-y: an endpoint that reaches itself is masqueraded; then the translation (PROXY-56, 112)."""
        said = "" if brief else f"{comment(name)} "
        protocol = port.name.protocol.lower()
        remember = f"-m recent --name {endpoint_chain(port.name, target)} --set " if port.affinity_seconds else ""
        return [
            f"{said}-s {target.address} -j {MARK_MASQ}",
            f"{said}{remember}-m {protocol} -p {protocol} -j DNAT --to-destination {target}",
        ]


EMPTY = Share()
