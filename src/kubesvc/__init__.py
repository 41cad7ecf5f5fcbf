"""kubesvc: Kubernetes Services, whole and real, from pip."""

__version__ = "0.1.0"
