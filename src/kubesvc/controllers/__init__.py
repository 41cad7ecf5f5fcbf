"""Controllers: each makes one kind of object what others ask for. See `runner` for how they are written and run."""

from .runner import Controller, ControllerContext, ExpectedFailure, StaleCache, key_of, run_controllers
from .settings import ControllerSettings

__all__ = [
    "Controller", "ControllerContext", "ControllerSettings", "ExpectedFailure", "StaleCache", "key_of",
    "run_controllers",
]  # fmt: skip
