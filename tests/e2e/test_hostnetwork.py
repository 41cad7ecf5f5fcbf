"""What counts as a trace on the host: what its own namespace holds, and nothing of others'."""

from __future__ import annotations

import os
import subprocess

import pytest

from .hostnetwork import differences, host_network, lasting

pytestmark = [pytest.mark.e2e]


def test_what_is_a_difference() -> None:
    before = {"ip link: a": "", "nft list ruleset": "", "/proc/sys/net/ipv4/ip_forward": "0", "/proc/sys/net/b": "1"}
    after = {"ip link: c": "", "nft list ruleset": "x", "/proc/sys/net/ipv4/ip_forward": "1", "/proc/sys/net/new": "1"}
    assert differences(before, before) == []
    assert differences(before, after) == [
        "gone: /proc/sys/net/b",
        "/proc/sys/net/ipv4/ip_forward: was '0', is '1'",
        "gone: ip link: a",
        "new: ip link: c",
        "nft list ruleset: was '', is 'x'",
    ]


def test_lifetimes_and_names_of_namespaces_pass() -> None:
    found = {"ifname": "eth0", "link_netns": "x", "addr_info": [{"local": "10.0.0.1", "valid_life_time": 77}]}
    assert lasting(found) == {"ifname": "eth0", "addr_info": [{"local": "10.0.0.1"}]}


def test_namespaces_of_others_are_none_of_the_hosts_network(machine: None) -> None:
    name = f"kt-others-{os.getpid()}"
    before = host_network()
    assert any(where.startswith("ip link") for where in before)
    assert any(where.endswith("ip_forward") for where in before)
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        assert differences(before, host_network()) == []
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
