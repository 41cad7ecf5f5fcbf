"""The public load program for proxies, beside what Kubernetes 1.36 gave: `python -m bench proxy [--full]`; and side by
side with a kube-proxy of yours: `python -m bench.bench_proxy --kube-proxy PATH`.

The program, `shared/bench/bench_proxy.py` beside the checkout, opens real connections through ClusterIPs and changes
endpoints under them. Here it runs against `kubesvc proxy` and `kubesvc up --nodes 0`, all in a network and a mount
namespace that end with it; it needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .bench_load import TOKEN, Upstream, token_file
from .figures import head, say

PROGRAM = Path(__file__).resolve().parents[2] / "shared" / "bench" / "bench_proxy.py"
PATIENCE_SECONDS = 200.0
NODE = "bench-node-0"
"""The Node that the program makes."""

UPSTREAM = {
    1_000: (
        Upstream("first full sync, from process start", r"first full sync.*?: ([\d.]+) s", "s", 1.1),
        Upstream("endpoint added, median", r"added.*?p50 ([\d.]+)", "ms", 206),
        Upstream("endpoint removed, median", r"removed.*?p50 ([\d.]+)", "ms", 188),
    ),
    10_000: (
        Upstream("first full sync, from process start", r"first full sync.*?: ([\d.]+) s", "s", 15.9),
        Upstream("endpoint added, median", r"added.*?p50 ([\d.]+)", "ms", 5400),
        Upstream("endpoint removed, median", r"removed.*?p50 ([\d.]+)", "ms", 5700),
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--full", action="store_true", help="10,000 Services too")
    parser.add_argument("--kube-proxy", type=Path, metavar="PATH", help="then the same with this kube-proxy")
    parser.add_argument("--inside", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.inside:
        inside(args.inside, args.kube_proxy)
    elif not PROGRAM.exists():
        head(f"   not run: the load program is not at {PROGRAM}")
    elif os.geteuid() != 0:
        head("   not run: it needs root")
    else:
        for services in (1_000, 10_000)[: 2 if args.full else 1]:
            for program in (None, args.kube_proxy) if args.kube_proxy else (None,):
                measure(services, program)


def measure(services: int, kube_proxy: Path | None) -> None:
    """One proxy, in namespaces of its own."""
    # Process 1 stays in the outer network namespace: by it the program knows that it is in one of its own.
    apart = ["unshare", "--pid", "--fork", "--mount-proc", "--mount", "--propagation", "private"]
    apart += ["sh", "-c", 'unshare --net "$@"; exit $?', "sh"]
    command = [*apart, sys.executable, "-m", "bench.bench_proxy", "--inside", str(services)]
    if kube_proxy:
        head(f"   {kube_proxy}:")
        command += ["--kube-proxy", str(kube_proxy.absolute())]
    subprocess.run(command, check=True, timeout=PATIENCE_SECONDS)


def kube_proxy_config(kubeconfig: Path) -> str:
    """As eager as kube-proxy can be told to be, and without touching what namespaces share."""
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": NODE,
        "clusterCIDR": "10.200.0.0/14",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
    }
    return json.dumps(config)  # which is YAML


def inside(services: int, kube_proxy: Path | None = None) -> None:
    """In namespaces of our own: the API, the load program, and the proxy that it starts, ours or kube-proxy."""
    from tests.e2e.harness import Instance

    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="ks-", dir="/tmp") as home, token_file() as tokens:
        instance = Instance(Path(home))
        options = ("--nodes", "0", "--store", "memory", "--token-auth-file", str(tokens))
        instance.up(*options)
        try:
            url = f"https://{instance.record.loopback}:{instance.record.port}"
            kubeconfig = instance.root / "kubeconfig"
            proxy = " ".join(instance.command("proxy", "--kubeconfig", str(kubeconfig), "--node", NODE))
            if kube_proxy:
                config = Path(home) / "kube-proxy.yaml"
                config.write_text(kube_proxy_config(kubeconfig))
                proxy = f"{kube_proxy} --config={config}"
            command = [sys.executable, str(PROGRAM), "--server", url, "--token", TOKEN, "--services", str(services)]
            command += ["--proxy", proxy]
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        finally:
            instance.interrupt()
    if done.returncode:
        raise SystemExit(f"the load program ended with {done.returncode}: {done.stdout}{done.stderr[-2000:]}")
    for figure in UPSTREAM[services]:
        found = re.search(figure.pattern, done.stdout)
        if found is None:
            raise SystemExit(f"the load program did not print {figure.what!r}:\n{done.stdout}")
        what = f"{services:,} Services x 10: {figure.what}"
        say(what, float(found[1]), figure.unit, goal=figure.gave, against="1.36")
    for line in done.stdout.splitlines():
        sys.stdout.write(f"   {line}\n")


if __name__ == "__main__":
    main()
