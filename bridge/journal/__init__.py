"""The durable journal: the only meeting point of the stages."""

from bridge.journal.sqlite import Journal, open_journal

__all__ = ["Journal", "open_journal"]
