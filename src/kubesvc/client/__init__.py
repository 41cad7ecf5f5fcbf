"""The one way to objects: the `Client` protocol, the HTTP client, informers, the work queue, events."""

from .events import EventRecorder
from .informer import Index, Informer, InformerFactory
from .interface import Answer, Client, EventType, PatchType, RawList, Unreachable, WatchEvent, loudness
from .workqueue import Key, RetryPolicy, WorkQueue, key_text

__all__ = [
    "Answer", "Client", "EventRecorder", "EventType", "Index", "Informer", "InformerFactory", "Key", "PatchType",
    "RawList", "RetryPolicy", "Unreachable", "WatchEvent", "WorkQueue", "key_text", "loudness",
]  # fmt: skip
