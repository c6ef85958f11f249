"""Where each kind goes: its topic, its subject, and whether it is published at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bridge.model import Kind, Message

__all__ = ["SINGLE_PARTITION", "ChainFilter", "Routes"]

SINGLE_PARTITION = frozenset({Kind.DIRECTORY_BLOCK_COMMIT, Kind.PROCESS_LIST_EVENT})
"""Kinds whose order is that of the chain itself: they have no key and one partition."""


class Routes:
    """Names of topics and subjects. `names` renames kinds, `off` leaves kinds out."""

    def __init__(self, prefix: str, names: Mapping[Kind, str], off: Iterable[Kind]) -> None:
        self.prefix = prefix
        self.off = frozenset(off)
        self.topics = {kind: f"{prefix}.{names.get(kind, kind.value)}" for kind in Kind}
        """Kafka topic of each kind; the NATS subject begins with the same name."""

    def subject(self, message: Message) -> str:
        """Return the NATS subject of `message`."""
        name = self.topics[message.layout.kind]
        return f"{name}.{message.token}" if message.token else name


class ChainFilter(NamedTuple):
    """Limits reveals and chain commits to chosen chains; empty lets all pass.

    Entry commits and state changes name an entry hash and no chain: they always pass.
    """

    chains: frozenset[bytes] = frozenset()
    hashes: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, chains: Iterable[bytes]) -> ChainFilter:
        """Return the filter for `chains`, by their 32-byte ids.

        A chain commit carries not the id but its hash: SHA-256 twice (Factom data structures).
        """
        ids = frozenset(chains)
        twice = (hashlib.sha256(hashlib.sha256(chain).digest()).digest() for chain in ids)
        return cls(ids, frozenset(twice))

    def looks_at(self, kind: Kind) -> bool:
        """Say whether one event of `kind` may pass and another not."""
        return bool(self.chains) and kind in {Kind.ENTRY_REVEAL, Kind.CHAIN_COMMIT}

    def passes(self, kind: Kind, member: Any) -> bool:
        """Say whether an event of `kind` is wanted."""
        if not self.chains:
            return True
        if kind is Kind.ENTRY_REVEAL:
            return member.entry.chainID in self.chains
        if kind is Kind.CHAIN_COMMIT:
            return member.chainIDHash in self.hashes
        return True
