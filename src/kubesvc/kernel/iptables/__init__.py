"""iptables: the text that `iptables-restore` reads, as values."""


class IptablesError(Exception):
    """iptables refused what it was given; nothing of the table in question was applied."""


__all__ = ["IptablesError"]
