"""Makes distinct, realistic events of the feed, as frames: sizes and proportions of the recordings.

From a seed. They tell of no chain: a tracker would have much to say of them.
"""

from __future__ import annotations

import random
import struct

from google.protobuf.timestamp_pb2 import Timestamp

from bridge.pb.eventmessages.directoryBlock_pb2 import (
    DirectoryBlock,
    DirectoryBlockEntry,
    DirectoryBlockHeader,
)
from bridge.pb.eventmessages.entryBlock_pb2 import EntryBlockEntry
from bridge.pb.eventmessages.factomEvents_pb2 import (
    ChainCommit,
    DirectoryBlockCommit,
    EntityState,
    EntryCommit,
    EntryReveal,
    FactomEvent,
    NewMinuteEvent,
    ProcessListEvent,
)

__all__ = ["Maker"]

_IDENTITY = bytes.fromhex("38bab1455b7bd7e5efd15c53c777c79d0c988c9210f1da49a99d95b3a6417be9")
_START = 1_700_000_000


class Maker:
    """Makes events one after the other, each another."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._number = 0
        self._height = 0
        self._chains = [self._hash() for _ in range(50)]

    def commit(self) -> bytes:
        """An entry commit: about 190 bytes."""
        return _frame(
            entryCommit=EntryCommit(
                entityState=self._random.choice((EntityState.REQUESTED, EntityState.ACCEPTED)),
                entryHash=self._hash(),
                timestamp=self._at(),
                credits=1,
                entryCreditPublicKey=self._hash(),
                signature=self._random.randbytes(64),
            )
        )

    def chain_commit(self) -> bytes:
        """A chain commit: about 255 bytes."""
        return _frame(
            chainCommit=ChainCommit(
                chainIDHash=self._hash(),
                entryHash=self._hash(),
                weld=self._hash(),
                timestamp=self._at(),
                credits=11,
                entryCreditPublicKey=self._hash(),
                signature=self._random.randbytes(64),
            )
        )

    def reveal(self, size: int = 10_000) -> bytes:
        """An entry reveal with `size` bytes of content."""
        at = self._at()
        return _frame(
            entryReveal=EntryReveal(
                entry=EntryBlockEntry(
                    hash=self._hash(),
                    externalIDs=[self._random.randbytes(12)],
                    content=self._random.randbytes(size),
                    chainID=self._random.choice(self._chains),
                ),
                # The node's own quirk: 1,000 times too small.
                timestamp=Timestamp(seconds=at.seconds, nanos=at.nanos // 1000),
            )
        )

    def minute(self) -> bytes:
        """A minute: about 42 bytes."""
        self._number += 1
        minute = NewMinuteEvent(newMinute=2 + self._number % 9, blockHeight=self._number // 9)
        return _frame(processListEvent=ProcessListEvent(newMinuteEvent=minute))

    def block(self, size: int | None = None) -> bytes:
        """A directory block of the next height, of 100 KB to 1.5 MB, or of about `size` bytes."""
        if size is None:
            size = self._random.choice((100_000, 200_000, 400_000, 1_500_000))
        self._height += 1
        header = DirectoryBlockHeader(
            bodyMerkleRoot=self._hash(),
            previousKeyMerkleRoot=self._hash(),
            previousFullHash=self._hash(),
            timestamp=self._at(),
            blockHeight=self._height,
            blockCount=size // 500,
            networkID=4_203_931_042,
        )
        listed = [
            DirectoryBlockEntry(chainID=self._hash(), keyMerkleRoot=self._hash())
            for _ in range(size // 500)
        ]
        entries = [
            EntryBlockEntry(
                hash=self._hash(), content=self._random.randbytes(600), chainID=self._hash()
            )
            for _ in range(size * 85 // 100 // 680)
        ]
        block = DirectoryBlock(header=header, entries=listed, keyMerkleRoot=self._hash())
        return _frame(
            directoryBlockCommit=DirectoryBlockCommit(
                directoryBlock=block, entryBlockEntries=entries
            )
        )

    def mix(self) -> bytes:
        """An event of a mix of about 1 KB mean: commits and reveals, now and then a block."""
        draw = self._random.random()
        if draw < 0.48:
            return self.commit()
        if draw < 0.5:
            return self.chain_commit()
        if draw < 0.995:
            return self.reveal(int(min(10_000, self._random.expovariate(1 / 1400))))
        if draw < 0.998:
            return self.minute()
        return self.block(30_000)

    def _hash(self) -> bytes:
        return self._random.randbytes(32)

    def _at(self) -> Timestamp:
        self._number += 1
        seconds, milliseconds = divmod(self._number, 1000)
        return Timestamp(seconds=_START + seconds, nanos=milliseconds * 1_000_000)


def _frame(**member: object) -> bytes:
    payload = FactomEvent(identityChainID=_IDENTITY, **member).SerializeToString()  # type: ignore[arg-type]
    return struct.pack("<Bi", 1, len(payload)) + payload
