"""Keeps the accounts of all heights, most of them in a few bytes.

Of every height there are eight bytes in a table. Only a height that is not complete has rows, which
stand in the journal and are fetched when they are needed:

    receipt/heights/..          the table: flags, how many commits were recovered, begin of the key
    receipt/open/{height}       the last receipt
    receipt/missing/{height}/.. hashes of the entries that are missing, spread over parts
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from bridge.core.hashing import HASH_BYTES
from bridge.core.peek import reveal_identity
from bridge.core.table import Table
from bridge.pb.bridge.v1.block_receipt_pb2 import BlockReceipt

__all__ = ["Accounts", "Rows", "Standing"]

_KNOWN, _COMPLETE, _BLIND, _WANTING = 1, 2, 4, 8
_RECORD = struct.Struct("<I4s")
"""Flags in the low byte, above them the number of commits recovered; first bytes of the key."""
_PART = 1024
"""Entries of a block for each part over which the hashes of missing ones are spread."""


class Rows:
    """Items of the journal, read one by one, with those that changed and are not taken yet."""

    def __init__(self, fetch: Callable[[str], bytes | None]) -> None:
        self._fetch = fetch
        self._changed: dict[str, bytes | None] = {}

    def get(self, name: str) -> bytes:
        """Return one item; empty where there is none."""
        found = self._changed[name] if name in self._changed else self._fetch(name)
        return found or b""

    def put(self, name: str, row: bytes) -> None:
        """Change one item; empty takes it away."""
        self._changed[name] = row or None

    def take(self) -> dict[str, bytes | None]:
        """Return the items that changed since the last time."""
        changed, self._changed = self._changed, {}
        return changed


class Standing(NamedTuple):
    """What is kept of every height."""

    known: bool
    complete: bool
    blind: bool
    """Its directory lists entry blocks that are not known."""
    wanting: bool
    """Entries of it are missing whose hashes are known."""
    recovered: int
    """Commits that were recovered."""
    begin: bytes
    """First bytes of the key Merkle root."""


class Accounts:
    """Receipts by height; changed ones must be given to `note`."""

    def __init__(self, items: Iterable[tuple[str, bytes]], rows: Rows) -> None:
        self._rows = rows
        self._table = Table("receipt/heights", _RECORD.size, items)
        self._looked_at: dict[int, BlockReceipt] = {}
        """Those that were looked at since the last time."""
        self._told: dict[int, bytes] = {}
        """What the last receipt of each of them said."""
        self._counts: dict[int, Counter[int]] = {_BLIND: Counter(), _WANTING: Counter()}
        """How many of each 256 heights have that flag."""
        for height, record in self._table:
            self._count(height, 0, record[0])

    def standing(self, height: int) -> Standing:
        """Return what is kept of `height`."""
        number, begin = _RECORD.unpack(self._table.get(height))
        return Standing(
            known=bool(number & _KNOWN),
            complete=bool(number & _COMPLETE),
            blind=bool(number & _BLIND),
            wanting=bool(number & _WANTING),
            recovered=number >> 8,
            begin=begin,
        )

    def get(self, height: int) -> BlockReceipt:
        """Return the account of a height that is known, and not complete."""
        account = self._looked_at.get(height)
        if account is None:
            row = self._rows.get(_open(height))
            account = self._looked_at[height] = BlockReceipt.FromString(row)
            self._told[height] = row
        return account

    def begin(self, account: BlockReceipt) -> None:
        """Take the account of a height that is not known, or complete."""
        self._looked_at[account.height] = account

    def note(self, account: BlockReceipt) -> None:
        """Make the sums and the flags of an account that changed."""
        account.commits_seen = (
            account.commits_expected - account.commits_recovered - account.commits_missing
        )
        lacks = account.commits_missing + account.reveals_missing
        account.complete = account.links_verified and not lacks
        flags = _KNOWN | (_COMPLETE if account.complete else 0)
        if not account.HasField("reveals_expected"):
            flags |= _BLIND
        else:
            account.reveals_seen = (
                account.reveals_expected - account.reveals_recovered - account.reveals_missing
            )
            flags |= _WANTING if account.reveals_missing else 0
        self._put(account.height, flags, account.commits_recovered, account.key_merkle_root)

    def forget(self, height: int) -> None:
        """Forget the account of `height`."""
        if not self.standing(height).complete:
            for part in range(_parts(self.get(height))):
                self._rows.put(_part(height, part), b"")
            self._rows.put(_open(height), b"")
        self._looked_at.pop(height, None)
        self._told.pop(height, None)
        self._put(height, 0, 0, b"")

    def take(self) -> tuple[list[BlockReceipt], dict[str, bytes | None]]:
        """Return the receipts that changed since the last time, and the items of the table."""
        changed = []
        for height, account in self._looked_at.items():
            row, told = account.SerializeToString(), self._told.get(height, b"")
            if row == told:
                continue
            changed.append(account)
            if not account.complete:
                self._rows.put(_open(height), row)
            elif told:
                self._rows.put(_open(height), b"")
        self._looked_at, self._told = {}, {}
        return changed, {**self._table.take()}

    # Which heights there are

    def heights(self) -> list[int]:
        """Return the heights that are known, ascending."""
        return [height for height, _ in self._table]

    def blind(self, most: int) -> list[int]:
        """Return the lowest heights whose entry blocks are not known."""
        return list(islice(self._with(_BLIND), most))

    def wanting(self, most: int | None = None) -> list[int]:
        """Return the lowest heights of which entries are missing; without `most`, all."""
        return list(islice(self._with(_WANTING), most))

    def _with(self, bit: int) -> Iterator[int]:
        for chunk in sorted(chunk for chunk, count in self._counts[bit].items() if count):
            for height in range(chunk << 8, (chunk + 1) << 8):
                if self._table.get(height)[0] & bit:
                    yield height

    # The entries that are missing

    def missing(self, account: BlockReceipt) -> Iterator[bytes]:
        """Yield the hashes of the entries that are missing."""
        for part in range(_parts(account)):
            yield from _hashes(self._rows.get(_part(account.height, part)))

    def miss(self, account: BlockReceipt, hashes: Iterable[bytes]) -> None:
        """Let `hashes`, and no others, be missing."""
        parts: list[list[bytes]] = [[] for _ in range(_parts(account))]
        for each in hashes:
            parts[_part_of(reveal_identity(each), len(parts))].append(each)
        for part, row in enumerate(parts):
            self._rows.put(_part(account.height, part), b"".join(row))

    def found(self, account: BlockReceipt, ids: set[int]) -> int:
        """Take those with the identities `ids` off the missing, and return how many they were."""
        parts = _parts(account)
        count = 0
        for part in {_part_of(each, parts) for each in ids}:
            name = _part(account.height, part)
            before = _hashes(self._rows.get(name))
            after = [each for each in before if reveal_identity(each) not in ids]
            if len(after) < len(before):
                self._rows.put(name, b"".join(after))
                count += len(before) - len(after)
        return count

    # The table

    def _put(self, height: int, flags: int, recovered: int, key: bytes) -> None:
        before = self._table.get(height)
        record = _RECORD.pack(flags | recovered << 8, key)
        if record != before:
            self._count(height, before[0], flags)
            self._table.put(height, record)

    def _count(self, height: int, before: int, flags: int) -> None:
        for bit, counts in self._counts.items():
            counts[height >> 8] += bool(flags & bit) - bool(before & bit)


def _open(height: int) -> str:
    return f"receipt/open/{height:08x}"


def _part(height: int, part: int) -> str:
    return f"receipt/missing/{height:08x}/{part:04x}"


def _parts(account: BlockReceipt) -> int:
    return 1 + account.reveals_expected // _PART


def _part_of(identity: int, parts: int) -> int:
    return identity * parts >> 64


def _hashes(row: bytes) -> list[bytes]:
    return [row[at : at + HASH_BYTES] for at in range(0, len(row), HASH_BYTES)]
