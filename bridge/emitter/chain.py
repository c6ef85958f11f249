"""A chain that grows from a seed: blocks that hash and link, and what was written into each.

Pure: time is an argument, and the same seed and times give the same bytes. Everything is as on a
network but for three things: keys and signatures are random bytes, which nothing on the feed's way
checks; grants are paid after 25 blocks, not after 1,000; and only the newest chains are written to.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.core.binary.admin import ADD_FEDERATED_SERVER, AdminBlock, AdminEntry
from bridge.core.binary.commits import ChainCommit, EntryCommit
from bridge.core.binary.credits import BalanceIncrease, CreditBlock, Item, Minute
from bridge.core.binary.directory import (
    ADMIN_CHAIN,
    CREDIT_CHAIN,
    FACTOID_CHAIN,
    DirectoryBlock,
    Listed,
)
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.binary.factoid import MINUTES, FactoidBlock
from bridge.core.binary.transactions import Output, Proof, Transaction
from bridge.core.hashing import HASH_BYTES, ZERO_HASH, chain_id, chain_id_hash, sha256, weld
from bridge.emitter.block import Block, Growth, Load, Written
from bridge.emitter.inputs import EntryReveal

__all__ = ["LOCAL_NETWORK", "Chain"]

LOCAL_NETWORK = 0xFA92E5A4
_MINUTE_MS = 60_000
_CHAINS_WRITTEN_TO = 256
_GRANT_BLOCKS = 25
_GRANT, _FEE, _RATE = 640_000_000, 12_000, 1_000
_SIGNATURE = 64
_DIRECTORY_SIGNATURE, _COINBASE_DESCRIPTOR = 0x01, 0x0B
_ENTRY_HEAD = 35
_CREDIT_BYTES, _CHAIN_CREDITS = 1024, 10


class _Head(NamedTuple):
    """The last block of a chain."""

    key: bytes
    full: bytes
    sequence: int


@dataclass(slots=True)
class _Tip:
    """What the next block must name."""

    directory_key: bytes = ZERO_HASH
    directory_full: bytes = ZERO_HASH
    admin: bytes = ZERO_HASH
    factoid_key: bytes = ZERO_HASH
    factoid_ledger: bytes = ZERO_HASH
    credit_header: bytes = ZERO_HASH
    credit_full: bytes = ZERO_HASH


@dataclass(slots=True)
class _Draft:
    """A block in the making: what goes into each minute."""

    transactions: defaultdict[int, list[Transaction]] = field(
        default_factory=lambda: defaultdict(list)
    )
    items: defaultdict[int, list[Item]] = field(default_factory=lambda: defaultdict(list))
    written: defaultdict[int, list[Written]] = field(default_factory=lambda: defaultdict(list))


class Chain:
    """The chain of directory blocks; it keeps the tips, and no block."""

    def __init__(
        self,
        seed: int,
        *,
        first: int = 0,
        load: Load | None = None,
        network_id: int = LOCAL_NETWORK,
    ) -> None:
        """Begin at height `first`: with the genesis block, or after blocks that nobody knows."""
        self._random = random.Random(seed)  # noqa: S311  (it must be repeatable)
        self._load = load or Load()
        self._network_id = network_id
        self.next = first
        """The height that grows next."""
        self.identity = self._hash()
        """Chain id of the server that signs."""
        self._server_key, self._payer = self._hash(), self._hash()
        self._tip = _Tip(*(self._hash() for _ in range(7))) if first else _Tip()
        self._heads: dict[bytes, _Head] = {}
        self._granted: tuple[Output, ...] = ()

    def grow(self, start: int, length: int = MINUTES * _MINUTE_MS) -> Growth:
        """Return the next block; it begins at `start` and takes `length`, in milliseconds."""
        height, draft = self.next, _Draft()
        admin = self._admin()
        draft.transactions[1].append(Transaction(start, outputs=self._grants(admin)))
        if height:
            self._pay(draft, start, length)
            self._write(draft, start, length)
        entry_blocks, entries = self._entry_blocks(draft.written)
        factoid = FactoidBlock(
            self._tip.factoid_key,
            self._tip.factoid_ledger,
            _RATE,
            height,
            tuple(tuple(draft.transactions[minute]) for minute in range(1, MINUTES + 1)),
        )
        credit = CreditBlock(
            self._tip.credit_header, self._tip.credit_full, height, self._items(draft)
        )
        directory = self._close(start // _MINUTE_MS, admin, factoid, credit, entry_blocks)
        self.next += 1
        return Growth(
            Block(directory, admin, factoid, credit, entry_blocks, entries),
            tuple(tuple(draft.written[minute]) for minute in range(1, MINUTES + 1)),
        )

    def _hash(self) -> bytes:
        return self._random.randbytes(HASH_BYTES)

    def _signature(self) -> bytes:
        return self._random.randbytes(_SIGNATURE)

    def _moments(self, count: int, length: int) -> list[tuple[int, int]]:
        """Return so many moments in order: milliseconds from the start, and the minute."""
        moments = sorted(self._random.randrange(length) for _ in range(count))
        return [(moment, moment * MINUTES // length + 1) for moment in moments]

    def _admin(self) -> AdminBlock:
        height = self.next
        if height:
            values = (self.identity, self._server_key, self._signature())
            entries = [AdminEntry(_DIRECTORY_SIGNATURE, values)]
        else:
            entries = [AdminEntry(ADD_FEDERATED_SERVER, (self.identity, 1))]
        if height and height % _GRANT_BLOCKS == 0:
            granted = (Output(_GRANT, self._hash()), Output(_GRANT // 2, self._hash()))
            entries.append(AdminEntry(_COINBASE_DESCRIPTOR, (granted,)))
        return AdminBlock(self._tip.admin, height, tuple(entries))

    def _grants(self, admin: AdminBlock) -> tuple[Output, ...]:
        """Return what the coinbase pays: what the descriptor before the one of `admin` granted."""
        for entry in admin.entries:
            if entry.kind == _COINBASE_DESCRIPTOR:
                granted = entry.values[0]
                assert isinstance(granted, tuple)
                due, self._granted = self._granted, granted
                return due
        return ()

    def _pay(self, draft: _Draft, start: int, length: int) -> None:
        """Add transactions; each moves factoids and buys entry credits."""
        for moment, minute in self._moments(self._load.transactions, length):
            moved, bought = self._random.randrange(1, 10**9), self._random.randrange(1, 10**4)
            cost = bought * _RATE
            transaction = Transaction(
                start + moment,
                inputs=(Output(moved + cost + _FEE, self._hash()),),
                outputs=(Output(moved, self._hash()),),
                credit_outputs=(Output(cost, self._payer),),
                proofs=(Proof(self._hash(), self._signature()),),
            )
            draft.transactions[minute].append(transaction)
            paid = sha256(transaction.ledger)
            draft.items[minute].append(BalanceIncrease(self._payer, paid, 0, bought))

    def _write(self, draft: _Draft, start: int, length: int) -> None:
        """Add chains and entries, paid for and revealed."""
        chains = list(self._heads)
        opening = [True] * self._load.chains + [False] * self._load.entries
        self._random.shuffle(opening)
        moments = self._moments(len(opening), length)
        for opens, (moment, minute) in zip(opening, moments, strict=True):
            opens_chain = opens or not chains
            entry = self._entry(None if opens_chain else self._random.choice(chains))
            if opens_chain:
                chains.append(entry.chain_id)
            commit = self._commit(entry, start + moment, opens_chain=opens_chain)
            reveal = EntryReveal(entry, start + moment + self._random.randrange(1, 50))
            draft.items[minute].append(commit)
            draft.written[minute].append(Written(commit, reveal))

    def _entry(self, chain: bytes | None) -> Entry:
        """Return an entry of `chain`, or the first one of a new chain."""
        size = self._random.randint(self._load.smallest, self._load.largest)
        names = (b"simulated", self._random.randbytes(8))
        return Entry(chain or chain_id(names), names, self._random.randbytes(size))

    def _commit(self, entry: Entry, at: int, *, opens_chain: bool) -> ChainCommit | EntryCommit:
        hash_, price = entry.hash(), -(-(len(entry.raw) - _ENTRY_HEAD) // _CREDIT_BYTES)
        if not opens_chain:
            return EntryCommit(at, hash_, price, self._payer, self._signature())
        return ChainCommit(
            at,
            chain_id_hash(entry.chain_id),
            weld(hash_, entry.chain_id),
            hash_,
            price + _CHAIN_CREDITS,
            self._payer,
            self._signature(),
        )

    def _entry_blocks(
        self, written: defaultdict[int, list[Written]]
    ) -> tuple[tuple[EntryBlock, ...], tuple[Entry, ...]]:
        bodies: defaultdict[bytes, list[bytes]] = defaultdict(list)
        entries: defaultdict[bytes, list[Entry]] = defaultdict(list)
        for minute in range(1, MINUTES + 1):
            for _, reveal in written[minute]:
                bodies[reveal.entry.chain_id].append(reveal.entry.hash())
                entries[reveal.entry.chain_id].append(reveal.entry)
            for chain in {reveal.entry.chain_id for _, reveal in written[minute]}:
                bodies[chain].append(bytes(31) + bytes([minute]))
        blocks = []
        for chain in sorted(bodies):
            head = self._heads.pop(chain, _Head(ZERO_HASH, ZERO_HASH, -1))
            sequence = head.sequence + 1
            block = EntryBlock(
                chain, head.key, head.full, sequence, self.next, tuple(bodies[chain])
            )
            hashes = block.hashes()
            self._heads[chain] = _Head(hashes.key_merkle_root, hashes.full_hash, sequence)
            blocks.append(block)
        while len(self._heads) > _CHAINS_WRITTEN_TO:
            del self._heads[next(iter(self._heads))]
        return tuple(blocks), tuple(entry for block in blocks for entry in entries[block.chain_id])

    def _items(self, draft: _Draft) -> tuple[Item, ...]:
        if not self.next:
            return ()
        minutes = range(1, MINUTES + 1)
        return tuple(item for at in minutes for item in (*draft.items[at], Minute(at)))

    def _close(
        self,
        minutes: int,
        admin: AdminBlock,
        factoid: FactoidBlock,
        credit: CreditBlock,
        entry_blocks: tuple[EntryBlock, ...],
    ) -> DirectoryBlock:
        """Return the directory of the parts, which is the tip from now on."""
        lookup, back = admin.hashes()
        factoids, credits_ = factoid.hashes(), credit.hashes()
        directory = DirectoryBlock(
            self._network_id,
            self._tip.directory_key,
            self._tip.directory_full,
            minutes,
            self.next,
            (
                Listed(ADMIN_CHAIN, lookup),
                Listed(CREDIT_CHAIN, credits_.header_hash),
                Listed(FACTOID_CHAIN, factoids.key_merkle_root),
                *(Listed(each.chain_id, each.hashes().key_merkle_root) for each in entry_blocks),
            ),
        )
        hashes = directory.hashes()
        self._tip = _Tip(
            hashes.key_merkle_root,
            hashes.full_hash,
            back,
            factoids.key_merkle_root,
            factoids.ledger_key_merkle_root,
            credits_.header_hash,
            credits_.full_hash,
        )
        return directory
