"""Show what an instance runs and where it answers."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from kubesvc.instance.paths import InstancePaths, all_instances
from kubesvc.instance.proxyreport import read_ports, read_report
from kubesvc.instance.record import InstanceRecord, read_outside

from .target import add_instance, instance_paths, load_record, meant

LEAST_ROOM_BYTES = 1 << 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_instance(parser)
    parser.add_argument("--all", action="store_true", help="every instance of this user")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    chosen = all_instances() if args.all else [instance_paths(args.name, args.kubeconfig)]
    reports = [describe(paths, load_record(paths)) for paths in chosen]
    if args.json:
        print(json.dumps(reports if args.all else reports[0], indent=2))
    else:
        for report in reports:
            print(render(report))
    return 0 if all(r["state"] == "ready" for r in reports) else 1


def describe(paths: InstancePaths, record: InstanceRecord | None) -> dict[str, Any]:
    """The facts, as --json prints them."""
    report: dict[str, Any] = {"name": paths.name, "state": "stopped", "directory": str(paths.root)}
    if record is None or record.control is None or not record.control.alive():
        if record is not None and any(p.alive() for p in record.processes()):
            report["state"] = "broken"
        return report
    report["state"] = "ready" if record.ready else "starting"
    report["pid"] = record.control.pid
    report["server"] = record.server
    report["kubeconfig"] = str(paths.kubeconfig)
    report["nodePortsAt"] = record.loopback
    report["page"] = record.page
    report["nodes"] = [
        {
            "name": n.name,
            "address": n.address,
            "zone": n.zone,
            "simulated": n.simulated,
            "running": n.agent is not None and n.agent.alive(),
            "state": n.state,
            **proxy_of(paths.node(n.name)),
        }
        for n in record.nodes
    ]
    report["outside"] = [{"name": o.name, "address": ",".join(o.addresses)} for o in read_outside(paths.outside)]
    report["loadBalancers"] = [
        {"service": b.service, "address": b.address, "host": b.host, "ports": b.ports} for b in record.balancers
    ]
    report["problems"] = [*record.problems, *disk_trouble(paths.root)]
    return report


def disk_trouble(root: Path) -> list[str]:
    """What is wrong with the disk that an instance's files are on."""
    found = os.statvfs(root)
    if found.f_bavail * found.f_frsize >= LEAST_ROOM_BYTES:
        return []
    return [f"the disk of {root} is full: what is written there fails until there is room; free some space there"]


def proxy_of(node: Path) -> dict[str, Any]:
    """How a node steers packets; in userspace mode also which loopback port stands for what."""
    if (report := read_report(node)) is None:
        return {}
    ports = read_ports(node) if report.mode == "userspace" else []
    return {"proxy": {"mode": report.mode, "why": report.why}, **({"ports": ports} if ports else {})}


def render(report: dict[str, Any]) -> str:
    name, state = report["name"], report["state"]
    flag = "" if name == "default" else f" --name {name}"
    if state == "stopped":
        return f"{name}: not running{meant(InstancePaths(Path(report['directory'])))}\nnext: kubesvc up{flag}"
    if state == "broken":
        return f"{name}: its control process is gone, but parts of it still run\nnext: kubesvc down{flag}"
    lines = [f"{name}: {state}, pid {report['pid']}", f"  API         {report['server']}"]
    lines.append(f"  KUBECONFIG  {report['kubeconfig']}")
    if report["page"]:
        lines.append(f"  picture     {report['page']}")
    if report["nodes"]:
        lines.append(f"  node ports  on {report['nodePortsAt']}")
    for node in report["nodes"]:
        more = (f", zone {node['zone']}" if node["zone"] else "") + (", simulated" if node["simulated"] else "")
        lines.append(f"  node {node['name']:<6} {node['address']}{more}{trouble(node)}")
        if proxy := node.get("proxy"):
            lines.append(f"    proxy     {proxy['mode'] or 'NONE'}: {proxy['why']}")
        lines += [f"    {p['service']} {p['front']}/{p['protocol']} at {p['at'] or '-'}" for p in node.get("ports", ())]
    for outside in report["outside"]:
        lines.append(f"  outside     {outside['name']} {outside['address']}")
    for b in report["loadBalancers"]:
        lines.append(f"  balancer    {b['service']} {b['address']} {','.join(b['ports'])}, from this host {b['host']}")
    lines += [f"  problem     {p}" for p in report["problems"]]
    return "\n".join(lines)


def trouble(node: dict[str, Any]) -> str:
    """What is wrong with a node, or was done to it."""
    if node["state"] != "running":
        return f", {node['state'].upper()}"
    return "" if node["running"] else ", NOT RUNNING"
