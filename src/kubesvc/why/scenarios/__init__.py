"""The library of broken scenarios: one or more for each cause, each with a short text for learners.

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

__all__ = ["BY_NAME", "SCENARIOS", "Object", "Scenario"]
