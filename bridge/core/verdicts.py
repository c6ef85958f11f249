"""What a block is, beside those that came before it."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Verdict"]


class Verdict(StrEnum):
    """What a block is, beside those that came before."""

    NEW = "new"
    LATE = "late"
    """It fills a missing height."""
    REPEATED = "repeated"
    UNVERIFIED = "unverified"
    """Its own hashes do not hold."""
    UNLINKED = "unlinked"
    """It contradicts the block below or above, which is believed."""
    OTHER_CHAIN = "other-chain"
    """Its height is there with another key, or it continues such a block."""
    ADOPTED = "adopted"
    """As OTHER_CHAIN, and that chain takes the place of the one so far: all begins anew there."""
    OTHER_NETWORK = "other-network"
    DOUBTED = "doubted"
    """Nothing speaks for it yet. It counts as soon as something does."""
