"""The library of broken scenarios: one for each cause that can be planted, each with a short text for learners.

`kubesvc scenario` starts and repairs them; continuous integration does so with all of them and expects `why` to name
the planted cause first.
"""

from __future__ import annotations

from .addresses import HANDS, PORTS
from .pods import PODS
from .scenario import Object, Scenario
from .selectors import SELECTORS, WORKLOADS
from .ways import NAMES, QUESTIONS, WAYS

SCENARIOS: tuple[Scenario, ...] = (*SELECTORS, *WORKLOADS, *PODS, *PORTS, *HANDS, *WAYS, *NAMES, *QUESTIONS)
BY_NAME = {s.name: s for s in SCENARIOS}

NOT_PLANTED = {
    "EP405": "every API server refuses such a Service; it is found in manifests that are not applied yet",
    "EP615": "kubesvc's proxy forgets stale flows itself, as soon as an endpoint leaves",
    "EP616": "the API server lets nothing pass that a kernel refuses; it would take a fault in the proxy",
    "EP706": "a node's DNS server ends only with the node's process (see stopped-node)",
    "EP807": "it takes a user who may read less; `kubesvc why --print-role` prints what suffices",
}
"""Causes without a scenario, and why."""

__all__ = ["BY_NAME", "NOT_PLANTED", "SCENARIOS", "Object", "Scenario"]
