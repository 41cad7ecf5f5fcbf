"""What may be said to `kubesvc proxy`, and what is said of what may not."""

from __future__ import annotations

import argparse

import pytest

from kubesvc.cli import Failure
from kubesvc.cli.proxy import add_arguments, bind_address, check_detector, node_port_addresses, settings_of


def told(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0.0.0.0:10256", ("0.0.0.0", 10256)),
        ("[::1]:10249", ("::1", 10249)),
        ("", ("", 0)),
    ],
)
def test_where_to_answer(text: str, wanted: tuple[str, int]) -> None:
    assert bind_address(text) == wanted


@pytest.mark.parametrize("text", ["nowhere", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "x:1", ":1"])
def test_what_is_no_place_to_answer(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no ADDRESS:PORT, such as"):
        bind_address(text)


def test_where_node_ports_are() -> None:
    """PROXY-67, 68."""
    assert node_port_addresses(None) == "default"
    assert node_port_addresses(("primary",)) == "primary"
    assert node_port_addresses(("192.0.2.0/24", "fd00::/8")) == ("192.0.2.0/24", "fd00::/8")
    for words in (("eth0",), ("192.0.2.0/24", "primary"), ("192.0.2.7/24",)):
        with pytest.raises(Failure, match="allowed are ranges such as"):
            node_port_addresses(words)


def test_what_is_told_is_what_is_done() -> None:
    """PROXY-52, 54, 90: and what is not told is as with kube-proxy."""
    usual = settings_of(told(), ())
    assert (usual.health_address, usual.health_port) == ("0.0.0.0", 10256)
    assert (usual.metrics_address, usual.metrics_port) == ("127.0.0.1", 10249)
    assert (usual.cluster_cidrs, usual.pod_interface, usual.masquerade_all, usual.cleanup) == ((), "", False, False)
    other = settings_of(
        told("--metrics-bind-address", "", "--healthz-bind-address", "[::]:1", "--remove-at-end", "--masquerade-all"),
        (),
    )
    assert (other.metrics_port, other.health_address, other.health_port) == (0, "::", 1)
    assert other.cleanup and other.masquerade_all
    assert settings_of(told("--detect-local-mode", "NodeCIDR"), ("10.1.0.0/24",)).cluster_cidrs == ("10.1.0.0/24",)
    prefix = told("--detect-local-mode", "InterfaceNamePrefix", "--pod-interface", "veth")
    check_detector(prefix)
    assert settings_of(prefix, ()).pod_interface == "veth*"


@pytest.mark.parametrize("words", [("--detect-local-mode", "BridgeInterface"), ("--pod-interface", "cni0")])
def test_an_interface_needs_its_detector(words: tuple[str, ...]) -> None:
    with pytest.raises(Failure, match="--pod-interface names the interface"):
        check_detector(told(*words))
