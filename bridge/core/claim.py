"""What is published in place of a message that the broker is too small for.

A claim check has the same id and attributes as the message it stands for, no data, and says where
the data is: `dataref`, with its size and SHA-256.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from bridge.model import Layout, Message

__all__ = ["ATTRIBUTE_BYTES", "claim_check", "size"]

ATTRIBUTE_BYTES = 2_048
"""More than the attributes of any message take: hashes, heights and names are bounded."""

_NAMES = ("dataref", "datasize", "datasha256")


@lru_cache(maxsize=1_000)
def _with_reference(layout: Layout) -> Layout:
    """One for each layout: sinks keep what they encoded by the layout's identity."""
    return Layout(layout.kind, layout.constants, layout.names + _NAMES)


def size(message: Message) -> int:
    """Return how many bytes the broker must take for `message`, attributes included."""
    return message.data_size + ATTRIBUTE_BYTES


def claim_check(message: Message, reference: str) -> Message:
    """Return what is published in place of `message`, whose data is stored at `reference`."""
    found = (reference, str(len(message.data)), hashlib.sha256(message.data).hexdigest())
    return message._replace(
        layout=_with_reference(message.layout),
        values=message.values + found,
        data=b"",
    )
