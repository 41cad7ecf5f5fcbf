"""What happened in one simulated history: acts and troubles as told, and every change of the store, in order."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import msgspec

from kubesvc.store import Change

QUIET_KINDS = ("events", "leases", "serviceaccounts")
"""Resources whose changes nobody reads about."""


class Story:
    """Told in virtual seconds. `digest` covers every byte that was stored and every word that was told."""

    def __init__(self, seed: int, *, aloud: bool = False) -> None:
        self.seed = seed
        self.aloud = aloud
        self.lines: list[tuple[float, str]] = []
        self._changes: list[tuple[int, float, Change]] = []
        self._hash = hashlib.sha256()

    def tell(self, who: str, text: str) -> None:
        """Someone did something, or something befell someone."""
        now = asyncio.get_running_loop().time()
        line = f"{who:<12} {text}"
        self._hash.update(f"{now:.6f} {line}\n".encode())
        self.lines.append((now, line))
        if self.aloud:
            print(f"{now:10.3f}  {line}", flush=True)

    def changed(self, changes: list[Change]) -> None:
        """The store moved on."""
        now = asyncio.get_running_loop().time()
        for change in changes:
            self._hash.update(f"{now:.6f} {change.revision} {change.key}\n".encode())
            self._hash.update(change.value or b"gone")
            if change.key.split("/", 4)[3] not in QUIET_KINDS:
                self._changes.append((len(self.lines), now, change))
                if self.aloud and (text := change_text(change)):
                    print(f"{now:10.3f}  {text}", flush=True)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def text(self, last: int = 0) -> str:
        """The whole story as lines, or its last so many."""
        told = [(position, 0, at, line) for position, (at, line) in enumerate(self.lines)]
        seen = [
            (position - 1, number, at, text)
            for number, (position, at, change) in enumerate(self._changes, 1)
            if (text := change_text(change))
        ]
        lines = [f"{at:10.3f}  {line}" for _, _, at, line in sorted(told + seen)]
        return "\n".join(lines[-last:] if last else lines)


def change_text(change: Change) -> str:
    """One change of the store in a line; "" when only what nobody reads changed, such as a heartbeat."""
    plural, name = change.key.split("/", 4)[3:]
    where = f"  r{change.revision:<6} {plural} {name}"
    if change.value is None:
        return f"{where} is gone"
    new = msgspec.json.decode(change.value)
    old = msgspec.json.decode(change.previous.value) if change.previous else {}
    if plural == "nodes" and old and without_beats(old) == without_beats(new):
        return ""
    if plural == "pods":
        return f"{where}: {pod_text(new)}"
    if plural == "endpointslices":
        return f"{where}: {slice_text(new)}"
    if plural == "endpoints":
        return f"{where}: {endpoints_text(new)}"
    if plural == "services":
        spec = new.get("spec") or {}
        return f"{where}: {spec.get('type')} {spec.get('clusterIP')} selects {spec.get('selector')}"
    if plural in ("deployments", "replicasets", "statefulsets"):
        spec, status = new.get("spec") or {}, new.get("status") or {}
        return f"{where}: wants {spec.get('replicas')}, has {status.get('replicas', 0)}, {ready_text(status)}"
    if plural == "nodes":
        return f"{where}: {node_text(new)}"
    if plural == "daemonsets":
        status = new.get("status") or {}
        wanted, there = status.get("desiredNumberScheduled", 0), status.get("currentNumberScheduled", 0)
        return f"{where}: on {there} of {wanted} nodes, {status.get('numberReady', 0)} ready"
    if plural == "jobs":
        return f"{where}: {job_text(new)}"
    return f"{where} is {'changed' if old else 'new'}"


def job_text(job: dict[str, Any]) -> str:
    status = job.get("status") or {}
    words = [f"{status[field]} {field}" for field in ("active", "succeeded", "failed") if status.get(field)]
    words += [c["type"] for c in status.get("conditions") or () if c.get("status") == "True"]
    return ", ".join(words) or "nothing yet"


def ready_text(status: dict[str, Any]) -> str:
    return f"{status.get('readyReplicas', 0)} ready"


def without_beats(node: dict[str, Any]) -> object:
    conditions = [(c.get("type"), c.get("status")) for c in (node.get("status") or {}).get("conditions") or ()]
    meta = {k: v for k, v in node["metadata"].items() if k != "managedFields"}
    return conditions, meta, node.get("spec")


def node_text(node: dict[str, Any]) -> str:
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = next((c["status"] for c in conditions if c.get("type") == "Ready"), "not said")
    taints = [t["key"].rpartition("/")[2] for t in (node.get("spec") or {}).get("taints") or ()]
    return f"ready: {ready}" + (f", tainted {', '.join(taints)}" if taints else "")


def pod_text(pod: dict[str, Any]) -> str:
    status = pod.get("status") or {}
    ready = next((c["status"] for c in status.get("conditions") or () if c.get("type") == "Ready"), "-")
    words = [status.get("phase", "?"), f"ready {ready}", status.get("podIP", "no address")]
    if node := (pod.get("spec") or {}).get("nodeName"):
        words.append(f"on {node}")
    if pod["metadata"].get("deletionTimestamp"):
        words.append(f"terminating ({pod['metadata'].get('deletionGracePeriodSeconds')} s)")
    return ", ".join(words)


def slice_text(s: dict[str, Any]) -> str:
    ports = [p.get("port") for p in s.get("ports") or ()]
    return f"{' '.join(endpoint_text(e) for e in s.get('endpoints') or ()) or 'nobody'} at {ports}"


def endpoint_text(e: dict[str, Any]) -> str:
    c = e.get("conditions") or {}
    mark = ("" if c.get("ready") is not False else "!") + ("~" if c.get("terminating") else "")
    return f"{(e.get('addresses') or ['?'])[0]}{mark}"


def endpoints_text(endpoints: dict[str, Any]) -> str:
    words = []
    for subset in endpoints.get("subsets") or ():
        words += [a["ip"] for a in subset.get("addresses") or ()]
        words += [a["ip"] + "!" for a in subset.get("notReadyAddresses") or ()]
    return " ".join(words) or "nobody"
