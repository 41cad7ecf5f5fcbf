"""Bytes that were messages once: seeds changed in the ways that find bugs in decoders. For fuzz tests."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

QUICK, SOAK = 4_000, 1_000_000
"""Inputs in the default tier, and in the soak tier."""
EDGES = (0, 1, 3, 4, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFE, 0xFF)


def mutated(seeds: Sequence[bytes], count: int, seed: int = 1) -> Iterator[bytes]:
    """`count` inputs, the same for the same seed."""
    r = random.Random(seed)
    for _ in range(count):
        data = bytearray(r.choice(seeds))
        for _ in range(r.randint(1, 6)):
            at = r.randrange(len(data)) if data else 0
            match r.randrange(8):
                case 0 if data:
                    data[at] ^= 1 << r.randrange(8)
                case 1 if data:
                    data[at] = r.choice(EDGES)
                case 2 if data:
                    del data[at : at + r.randint(1, 8)]
                case 3:
                    data[at:at] = r.randbytes(r.randint(1, 8))
                case 4 if data:
                    data[at:at] = data[at : at + r.randint(1, 16)]
                case 5 if data:
                    del data[at:]
                case 6:
                    other = r.choice(seeds)
                    cut = r.randrange(len(other) + 1)
                    data[at:] = other[cut:]
                case 7 if len(data) >= at + 2:
                    data[at : at + 2] = r.choice((0, 1, 2, 0x0C, 0xC00C, 0xFFFF)).to_bytes(2, "big")
        yield bytes(data[:70_000])
