"""Says which hashes of a directory block hold, and whether it follows the block before it.

A `DirectoryBlockCommit` is taken as it came over the feed: nothing in it is believed. Each part is
turned back into its binary form and hashed, and must have the hash under which the directory lists
it. Whatever the message, `verify` returns; what does not hold is a `Failure`, fit for an alert.

Not everything can be proven from one message, because the node leaves out what some hashes cover:
the previous ledger key of the factoid block, the previous full hash of the entry-credit block (both
known from the block before: `Links`), the height in an admin entry `addFederatedServer`, and the
entry blocks of live events. What could not be proven is named in `unproven`, and is no failure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bridge.core.binary.admin import ADD_FEDERATED_SERVER, AdminBlock
from bridge.core.binary.credits import CreditBlock
from bridge.core.binary.directory import (
    ADMIN_CHAIN,
    CREDIT_CHAIN,
    FACTOID_CHAIN,
    DirectoryBlock,
    Listed,
    lists_entry_blocks,
)
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.binary.factoid import FactoidBlock
from bridge.core.hashing import HASH_BYTES, ZERO_HASH, sha256
from bridge.errors import DecodeError
from bridge.pb.eventmessages.factomEvents_pb2 import DirectoryBlockCommit

__all__ = ["MAX_FAILURES", "Failure", "Links", "Verification", "verify"]

MAX_FAILURES = 16
"""Failures that are named; a made-up block can have any number."""


@dataclass(frozen=True, slots=True)
class Links:
    """What the next block must name, and what of this one is needed to prove it."""

    height: int
    network_id: int
    key_merkle_root: bytes
    full_hash: bytes
    ledger_key: bytes | None = None
    """Ledger key of this height's factoid block; None where it is not known."""
    credit_full_hash: bytes | None = None
    """Full hash of this height's entry-credit block; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A check that did not hold."""

    check: str
    """A word of a small fixed set, such as `key-merkle-root`, `previous-full-hash`, `entry`."""
    detail: str
    """What was found, in a sentence of bounded length."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What is known of a block after all its hashes were computed."""

    height: int
    failures: tuple[Failure, ...]
    """At most `MAX_FAILURES`; empty when all that could be checked holds."""
    unproven: tuple[str, ...]
    """Checks for which the message, or what is known of the block before, lacks something."""
    links: Links | None
    """For the next block; None if the directory itself does not hold."""

    @property
    def holds(self) -> bool:
        """Whether nothing failed."""
        return not self.failures


def verify(message: DirectoryBlockCommit, previous: Links | None = None) -> Verification:
    """Return what holds of `message`, taken as the successor of `previous` where that is known."""
    height = message.directoryBlock.header.blockHeight
    examination = _Examination(message)
    links = None
    try:
        directory = DirectoryBlock.of_message(message.directoryBlock)
    except DecodeError as error:
        examination.failed("directory-block", str(error))
    else:
        if not height:
            previous = Links(-1, directory.network_id, ZERO_HASH, ZERO_HASH, ZERO_HASH, ZERO_HASH)
        links = examination.run(directory, previous)
    return Verification(height, tuple(examination.failures), tuple(examination.unproven), links)


class _Examination:
    """Gathers what is found; a part that is no block at all is a failure of that part."""

    def __init__(self, message: DirectoryBlockCommit) -> None:
        self._message = message
        self.failures: list[Failure] = []
        self.unproven: list[str] = []

    def run(self, directory: DirectoryBlock, previous: Links | None) -> Links | None:
        """Check everything, and return the links if the directory itself holds."""
        claimed = self._message.directoryBlock
        hashes = directory.hashes()
        self._equal("body-merkle-root", claimed.header.bodyMerkleRoot, hashes.body_merkle_root)
        self._equal("key-merkle-root", claimed.keyMerkleRoot, hashes.key_merkle_root)
        self._equal("hash", claimed.hash, hashes.key_merkle_root)
        holds = not self.failures
        linked = self._check_links(directory, previous)
        self._part("admin-block", lambda: self._check_admin(directory))
        self._part("factoid-block", lambda: self._check_factoid(directory, linked))
        full = self._part("entry-credit-block", lambda: self._check_credit(directory, linked))
        self._part("entry-block", lambda: self._check_entry_blocks(directory))
        if not holds:
            return None
        # Quirk: the field that is called the previous one's ledger key is the block's own.
        ledger = self._message.factoidBlock.previousLedgerKeyMerkleRoot
        return Links(
            directory.height,
            directory.network_id,
            hashes.key_merkle_root,
            hashes.full_hash,
            ledger if len(ledger) == HASH_BYTES else None,
            full,
        )

    def failed(self, check: str, detail: str) -> None:
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(Failure(check, detail))

    def _unprovable(self, check: str) -> None:
        if check not in self.unproven:
            self.unproven.append(check)

    def _equal(self, check: str, found: bytes | None, expected: bytes) -> None:
        if found != expected:
            shown = "missing" if not found else found[:HASH_BYTES].hex()
            self.failed(check, f"found {shown}, expected {expected.hex()}")

    def _part(self, check: str, examine: Callable[[], bytes | None]) -> bytes | None:
        try:
            return examine()
        except DecodeError as error:
            self.failed(check, str(error))
            return None

    def _height(self, check: str, height: int, directory: DirectoryBlock) -> None:
        if height != directory.height:
            self.failed(check, f"its height is {height}, the directory's {directory.height}")

    def _check_links(self, directory: DirectoryBlock, previous: Links | None) -> Links | None:
        if previous is None or previous.height + 1 != directory.height:
            self._unprovable("previous-key-merkle-root")
            return None
        if directory.network_id != previous.network_id:
            self.failed(
                "network", f"its network is {directory.network_id}, not {previous.network_id}"
            )
        named = (directory.previous_key_merkle_root, directory.previous_full_hash)
        self._equal("previous-key-merkle-root", named[0], previous.key_merkle_root)
        self._equal("previous-full-hash", named[1], previous.full_hash)
        return previous if named == (previous.key_merkle_root, previous.full_hash) else None

    def _check_admin(self, directory: DirectoryBlock) -> None:
        claimed = self._message.adminBlock
        block = AdminBlock.of_message(claimed)
        self._height("admin-block", block.height, directory)
        lookup, back = block.hashes()
        if lookup != directory.key_of(ADMIN_CHAIN) and any(
            entry.kind == ADD_FEDERATED_SERVER for entry in block.entries
        ):
            self._unprovable("admin-block")
            return
        self._equal("admin-block", directory.key_of(ADMIN_CHAIN), lookup)
        self._equal("admin-block", claimed.keyMerkleRoot, back)

    def _check_factoid(self, directory: DirectoryBlock, linked: Links | None) -> None:
        claimed = self._message.factoidBlock
        known = linked.ledger_key if linked else None
        block = FactoidBlock.of_message(claimed, known or ZERO_HASH)
        self._height("factoid-block", block.height, directory)
        hashes = block.hashes()
        self._equal("factoid-block", claimed.bodyMerkleRoot, hashes.body_merkle_root)
        self._equal("factoid-block", claimed.keyMerkleRoot, directory.key_of(FACTOID_CHAIN) or b"")
        for index, (transaction, told) in enumerate(
            zip(
                (each for minute in block.minutes for each in minute),
                claimed.transactions,
                strict=True,
            )
        ):
            if sha256(transaction.ledger) != told.transactionID:
                self.failed("factoid-block", f"the id of transaction {index} does not hold")
        if known is None:
            self._unprovable("factoid-block")
            return
        self._equal("factoid-block", claimed.keyMerkleRoot, hashes.key_merkle_root)
        self._equal(
            "factoid-block", claimed.previousLedgerKeyMerkleRoot, hashes.ledger_key_merkle_root
        )

    def _check_credit(self, directory: DirectoryBlock, linked: Links | None) -> bytes | None:
        claimed = self._message.entryCreditBlock
        known = linked.credit_full_hash if linked else None
        self._height("entry-credit-block", claimed.header.blockHeight, directory)
        hashes = CreditBlock.hashes_of_message(claimed, known or ZERO_HASH)
        self._equal("entry-credit-block", claimed.header.bodyHash, hashes.body_hash)
        if known is None:
            self._unprovable("entry-credit-block")
            return None
        self._equal("entry-credit-block", directory.key_of(CREDIT_CHAIN), hashes.header_hash)
        return hashes.full_hash if hashes.header_hash == directory.key_of(CREDIT_CHAIN) else None

    def _check_entry_blocks(self, directory: DirectoryBlock) -> None:
        if not self._message.entryBlocks and not self._message.entryBlockEntries:
            if lists_entry_blocks(self._message.directoryBlock):
                self._unprovable("entry-block")
            return
        listed = set(directory.entry_blocks)
        wanted: dict[bytes, bytes] = {}
        for claimed in self._message.entryBlocks:
            block = EntryBlock.of_message(claimed)
            hashes = block.hashes()
            self._height("entry-block", block.height, directory)
            self._equal("entry-block", claimed.header.bodyMerkleRoot, hashes.body_merkle_root)
            found = Listed(block.chain_id, hashes.key_merkle_root)
            if found not in listed:
                self.failed("entry-block", f"{found.key.hex()} is not listed, or comes twice")
            listed.discard(found)
            wanted.update(dict.fromkeys(block.entry_hashes(), block.chain_id))
        for missing in listed:
            self.failed("entry-block", f"{missing.key.hex()} is listed and missing")
        self._check_entries(wanted)

    def _check_entries(self, wanted: dict[bytes, bytes]) -> None:
        """Check the entries against their chains by hash."""
        missing = set(wanted)
        for claimed in self._message.entryBlockEntries:
            hash_ = claimed.hash
            missing.discard(hash_)
            if wanted.get(hash_) != claimed.chainID:
                self.failed("entry", f"{hash_[:HASH_BYTES].hex()} is not listed for its chain")
            elif Entry.hash_of_message(claimed) == hash_:
                continue
            elif claimed.content or claimed.externalIDs or claimed.version:
                self.failed("entry", f"{hash_[:HASH_BYTES].hex()} is not the hash of the entry")
            else:
                self._unprovable("entry")
        for each in missing:
            self.failed("entry", f"{each.hex()} is listed and missing")
