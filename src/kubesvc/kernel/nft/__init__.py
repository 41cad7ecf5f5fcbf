"""nftables: tables as values, transactions on them, the kernel's door and a fake as strict.

`table` what there is · `commands` what changes it · `expressions` and `fields` what rules and sets are made of ·
`kernel` the real door · `fake` the imitation · `walk` what becomes of a packet.

NftError
├── NoSuchObject   a table, chain, set or element that is named does not exist
├── AlreadyExists  something of that name exists and is different
└── StillUsed      to be deleted, but a rule or element names it
"""

from .commands import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    AlreadyExists,
    Command,
    DeleteChain,
    DeleteElements,
    DeleteSet,
    DeleteTable,
    FlushChain,
    NftError,
    NoSuchObject,
    StillUsed,
    Transaction,
)
from .fake import FakeNft
from .kernel import KernelNft, Nft
from .table import Base, ChainSpec, SetSpec, Table, Value, static_part

__all__ = [
    "AddChain",
    "AddElements",
    "AddRule",
    "AddSet",
    "AddTable",
    "AlreadyExists",
    "Base",
    "ChainSpec",
    "Command",
    "DeleteChain",
    "DeleteElements",
    "DeleteSet",
    "DeleteTable",
    "FakeNft",
    "FlushChain",
    "KernelNft",
    "Nft",
    "NftError",
    "NoSuchObject",
    "SetSpec",
    "StillUsed",
    "Table",
    "Transaction",
    "Value",
    "static_part",
]
