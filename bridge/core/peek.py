"""Tells a directory block's height without decoding the events that are none.

Nearly all events are no blocks: their first bytes say so. What looks like a block is decoded whole,
so that a payload which a sink would refuse never counts as a height.
"""

from __future__ import annotations

from bridge.core.decode import decode
from bridge.errors import DecodeError
from bridge.model import Kind

__all__ = ["block_height"]

_JSON_MEMBER = b'"directoryBlockCommit"'
_MEMBER_TAG = 0x42
"""Field 8 of FactomEvent, length-delimited."""


def block_height(payload: bytes) -> tuple[int, bool] | None:
    """Return the height and whether the block was replayed, or None if it is no block."""
    if payload[:1] == b"{":
        if _JSON_MEMBER not in payload:
            return None
    elif _first_member(payload) not in {_MEMBER_TAG, None}:
        return None
    try:
        event = decode(payload)
    except DecodeError:
        return None
    if event is None or event.kind is not Kind.DIRECTORY_BLOCK_COMMIT:
        return None
    return event.member.directoryBlock.header.blockHeight, event.source == 1


def _first_member(payload: bytes) -> int | None:
    """Return the tag of the member where the envelope is written as the nodes write it."""
    at = 0
    try:
        if payload[at] == 0x08:  # eventSource
            at += 1
            while payload[at] >= 0x80:
                at += 1
            at += 1
        if payload[at] == 0x12:  # factomNodeName, of less than 128 bytes
            if payload[at + 1] >= 0x80:
                return None
            at += 2 + payload[at + 1]
        if payload[at] == 0x1A:  # identityChainID, of 32 bytes
            if payload[at + 1] >= 0x80:
                return None
            at += 2 + payload[at + 1]
        return payload[at]
    except IndexError:
        return None
