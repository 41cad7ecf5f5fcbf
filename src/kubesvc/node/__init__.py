"""The node agent: Pods as processes in namespaces, their probes, their status, their end."""

from .agent import NodeAgent
from .settings import NodeSettings

__all__ = ["NodeAgent", "NodeSettings"]
