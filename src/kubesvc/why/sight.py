"""What was seen on the nodes themselves, where they can be looked into: values only.

Objects tell what should be. On an instance of our own somebody can also look: is the node's process running, what do
the kernel's rules make of a packet, who answers at an address, what does the node's DNS say. `cli.insight` looks,
`witness` concludes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Reply = Literal["open", "refused", "silent"]
"""What became of a TCP connection: accepted, refused by the other side, no answer within the time."""
NodeState = Literal["running", "stopped", "gone"]


@dataclass(frozen=True, slots=True)
class Sight:
    """One look into one node.

    state:   of the process that is the node's agent, proxy and DNS; stopped: it exists and is not run (SIGSTOP)
    pid:     of that process, 0 if there is none
    failure: what `kubesvc nodes` did to the node: off (stop), cut off (partition); "" for neither
    answers: `ADDRESS:PORT` to what a TCP connection met
    rules:   front `ADDRESS:PORT/PROTOCOL` to the targets that the kernel's rules lead to, () for none; None if the
             rules were not read (only nftables' are)
    dns:     "" not asked, "silent" no answer within the time, "answers" otherwise, with `records` such as `A 10.96.0.7`
    refused: what the kernel said when it did not take the Service's rules, "" if it did
    stale:   UDP flows that the kernel still sends to an endpoint that is none any more, in words
    unseen:  why nothing was seen inside the node, "" if somebody looked
    """

    node: str
    state: NodeState = "running"
    pid: int = 0
    answers: Mapping[str, Reply] = field(default_factory=dict)
    rules: Mapping[str, tuple[str, ...]] | None = None
    dns: Literal["", "silent", "answers"] = ""
    records: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    refused: str = ""
    failure: Literal["", "off", "cut off"] = ""
    unseen: str = ""
