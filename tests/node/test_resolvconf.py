"""The resolver file of a Pod: who asks whom, in which order, and what is cut."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.pod import PodDNSConfig, PodDNSConfigOption
from kubesvc.node.resolvconf import ResolverFile, parse_resolver_file, render_resolv_conf, render_resolver_file

NODE = """# by hand
nameserver 192.0.2.1
nameserver 192.0.2.2
search corp.example. . shop.svc.cluster.local
options edns0
"""
ARGUMENTS: dict[str, Any] = {
    "policy": "ClusterFirst",
    "host_network": False,
    "config": None,
    "namespace": "shop",
    "pod": "web_shop(u-1)",
    "node_file": NODE,
    "cluster_dns": ("10.96.0.10",),
    "zone": "cluster.local",
}
CLUSTER = (
    "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\n"
    "nameserver 10.96.0.10\noptions ndots:5\n"
)
DEFAULT = "search corp.example shop.svc.cluster.local\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions edns0\n"


class Case(NamedTuple):
    name: str
    change: dict[str, Any]
    text: str
    reasons: tuple[str, ...] = ()


def config(
    nameservers: list[str] | None = None, searches: list[str] | None = None, **options: str | None
) -> dict[str, Any]:
    listed = [PodDNSConfigOption(name=n, value=v) for n, v in options.items()]
    return {"config": PodDNSConfig(nameservers=nameservers, searches=searches, options=listed or None)}


CASES = (
    Case("DNS-58 ClusterFirst: the cluster's, then the node's search list, each once", {}, CLUSTER),
    Case("DNS-58 no policy is ClusterFirst", {"policy": ""}, CLUSTER),
    Case("DNS-59 ClusterFirst on the host's network is Default", {"host_network": True}, DEFAULT),
    Case(
        "DNS-59 ClusterFirstWithHostNet on the host's network is ClusterFirst",
        {"policy": "ClusterFirstWithHostNet", "host_network": True},
        CLUSTER,
    ),
    Case("DNS-59 ClusterFirstWithHostNet elsewhere too", {"policy": "ClusterFirstWithHostNet"}, CLUSTER),
    Case("DNS-60 Default: a copy of the node's", {"policy": "Default"}, DEFAULT),
    Case(
        "DNS-60 Default, node without a file: loopback",
        {"policy": "Default", "node_file": None},
        "search .\nnameserver 127.0.0.1\n",
    ),
    Case(
        "DNS-60 the same on an IPv6 node",
        {"policy": "Default", "node_file": None, "ipv6": True},
        "search .\nnameserver ::1\n",
    ),
    Case(
        "ClusterFirst, node without a file: nothing inherited",
        {"node_file": None},
        "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n",
    ),
    Case(
        "DNS-61 None: the Pod's own and nothing else",
        {"policy": "None"} | config(["9.9.9.9"], ["a.example"], ndots="2"),
        "search a.example\nnameserver 9.9.9.9\noptions ndots:2\n",
    ),
    Case("DNS-61 None with nothing given", {"policy": "None"}, ""),
    Case(
        "DNS-62 dnsConfig is appended, doubles are not",
        config(["10.96.0.10", "9.9.9.9"], ["cluster.local.", "a.example."]),
        "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example a.example\n"
        "nameserver 10.96.0.10\nnameserver 9.9.9.9\noptions ndots:5\n",
    ),
    Case(
        "DNS-62 options replace those of the same name, new ones are added",
        config(ndots="1", rotate=None) | {"node_file": ""},
        "search shop.svc.cluster.local svc.cluster.local cluster.local\n"
        "nameserver 10.96.0.10\noptions ndots:1 rotate\n",
    ),
    Case(
        "DNS-63 a fourth nameserver is cut",
        {"policy": "None"} | config(["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"]),
        "nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\n",
        ("DNSConfigForming",),
    ),
    Case(
        "DNS-63 a search entry over 253 characters is dropped, the next stays",
        {"policy": "None"} | config(["1.1.1.1"], ["a" * 254, "b" * 253]),
        f"search {'b' * 253}\nnameserver 1.1.1.1\n",
        ("DNSConfigForming",),
    ),
    Case(
        "DNS-63 a 33rd search entry is cut",
        {"policy": "None"} | config(["1.1.1.1"], [f"s{i}" for i in range(33)]),
        f"search {' '.join(f's{i}' for i in range(32))}\nnameserver 1.1.1.1\n",
        ("DNSConfigForming",),
    ),
    Case(
        "DNS-63 a search line over 2048 characters is cut at an entry",
        {"policy": "None"} | config(["1.1.1.1"], [str(i) + "x" * 202 for i in range(9)] + ["y" * 220, "z"]),
        f"search {' '.join(str(i) + 'x' * 202 for i in range(9))}\nnameserver 1.1.1.1\n",
        ("DNSConfigForming",),
    ),
    Case("DNS-64 entries may have underscores", {"policy": "Default", "node_file": "search _a.b\n"}, "search _a.b\n"),
    Case("DNS-65 no cluster DNS: Default, and a warning", {"cluster_dns": ()}, DEFAULT, ("MissingClusterDNS",)),
    Case("DNS-65 no cluster DNS, policy Default: no warning", {"cluster_dns": (), "policy": "Default"}, DEFAULT),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_resolver_file(case: Case) -> None:
    """To the letter: search, nameserver and options lines in this order (DNS-66)."""
    text, warnings = render_resolv_conf(**(ARGUMENTS | case.change))
    assert text == case.text
    assert tuple(w.reason for w in warnings) == case.reasons


def test_the_warnings_say_what_was_applied_and_where_they_belong() -> None:
    _, (cut,) = render_resolv_conf(
        **(ARGUMENTS | {"policy": "None"} | config(["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"]))
    )
    assert cut.message.endswith("the applied nameserver line is: 1.1.1.1 2.2.2.2 3.3.3.3")
    assert not cut.on_node
    _, (missing,) = render_resolv_conf(**(ARGUMENTS | {"cluster_dns": ()}))
    assert missing.message.startswith('pod: "web_shop(u-1)". kubelet does not have ClusterDNS IP configured')
    assert missing.message.endswith(missing.on_node) and missing.on_node


def test_the_last_search_line_wins_and_options_add_up() -> None:
    text = (
        "domain a\nsearch b c\n; no\nnameserver\nsortlist x\n"
        "options ndots:1 rotate\noptions ndots:2\nnameserver ::1 x\n"
    )
    assert parse_resolver_file(text) == ResolverFile(("::1",), ("b", "c"), ("ndots:2", "rotate"))


WORD = st.text("abc.:-0", min_size=1, max_size=6).filter(lambda w: w.strip(".") == w and not w.startswith(":"))


@given(st.lists(WORD, unique=True), st.lists(WORD, unique=True), st.lists(st.sampled_from("abc"), unique=True))
def test_what_is_rendered_reads_back_the_same(servers: list[str], searches: list[str], options: list[str]) -> None:
    file = ResolverFile(tuple(servers), tuple(searches), tuple(options))
    assert parse_resolver_file(render_resolver_file(file)) == file


@given(st.text())
def test_no_node_file_is_too_strange_to_read(text: str) -> None:
    parse_resolver_file(text)
