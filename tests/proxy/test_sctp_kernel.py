"""SCTP rows of the packet table against the real kernel, by each backend, where it tracks SCTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.service import Service
from kubesvc.kernel.iptables import KernelIptables, probe
from kubesvc.kernel.nft import KernelNft
from kubesvc.proxy.backend import Backend, Plans, Standpoint
from kubesvc.proxy.iptablesbackend import IptablesBackend
from kubesvc.proxy.nftbackend import NftBackend
from kubesvc.proxy.traffic import Family

from .lab import Lab
from .objects import ADDRESSES, HERE, OUTSIDE, A, C, ready, service, slice_of
from .packets import CASES, DROPPED, Case, M, Make, fates, node, sctp, web
from .packets import planned as plans_of
from .sctp import ask_sctp
from .test_packets import options

pytestmark = pytest.mark.e2e


TRACKED = Path("/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established")


def sctp_node_port(*who: str, **spec: Any) -> Make:
    """A node port for SCTP."""
    ports = ({"name": "x", "port": 80, "protocol": "SCTP", "nodePort": 30080},)

    def make(family: Family) -> tuple[Sequence[Service], Sequence[EndpointSlice]]:
        made = service(family=family, type="NodePort", ports=ports, **spec)
        in_slice = [{"name": "x", "port": 8080, "protocol": "SCTP"}]
        return [made], [slice_of(endpoints=ready(*who), family=family, ports=in_slice)]

    return make


ROWS = (
    *(case for case in CASES if case.protocol == "SCTP"),
    Case("PROXY-53: SCTP from outside is masqueraded", sctp(ready(C)), OUTSIDE, web, 80, fates(C + M), "SCTP"),
    Case("PROXY-58: SCTP by a node port", sctp_node_port(C), OUTSIDE, node, 30080, fates(C + M), "SCTP"),
    Case("PROXY-46: SCTP by a Local node port", sctp_node_port(A, C, externalTrafficPolicy="Local"), OUTSIDE, node,
         30080, fates(A), "SCTP"),
    Case("PROXY-39: SCTP by a Local node port without an endpoint here",
         sctp_node_port(C, externalTrafficPolicy="Local"), OUTSIDE, node, 30080, fates(DROPPED), "SCTP"),
)  # fmt: skip


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
@pytest.mark.parametrize("mode", ["nftables", "iptables"])
def test_packets(lab: Lab, mode: str, family: Family) -> None:
    nft = lab.inside(HERE, KernelNft)
    if not lab.inside(HERE, TRACKED.exists):
        pytest.skip("this kernel does not track SCTP")
    backend: Backend
    if mode == "nftables":
        backend = NftBackend(family, nft, "kubesvc")
    else:
        door = KernelIptables(("ip", "netns", "exec", f"{lab.prefix}{HERE}"))
        if not (found := asyncio.run(probe(door))).enough:
            pytest.skip(found.sentence())
        backend = IptablesBackend(family, door, loopback_ports=False)
    own = ADDRESSES[family]
    backend.stand(Standpoint(options(family), (own[HERE],)))
    try:
        for case in ROWS:
            gone: Plans = dict.fromkeys(backend.ports, ())
            asyncio.run(backend.load(gone | plans_of(case, family)))
            found_fates = set()
            for _ in range(40 if len(case.fate) > 1 else 1):
                seconds = 0.1 if case.fate <= {DROPPED} else 10.0
                who, _, seen = ask_sctp(
                    lab, case.sender, family, case.to(family), case.port, seconds=seconds
                ).partition(" ")
                found_fates.add(who + (M if seen and seen != own[case.sender] else ""))
                if found_fates == case.fate:
                    break
            assert found_fates == case.fate, case.name
    finally:
        asyncio.run(backend.clean_up())
        nft.close()
