"""What the receipts of a feed must say, told from its bytes in a way of its own.

`Ledger` drives `core.receipts` as the tracker does. `accounts_of` computes the same numbers with
sets and the protobuf classes alone: it shares no code with the identities, the bounded memory, the
binary forms and the hashing of the bridge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bridge.core import gojson
from bridge.core.peek import Block, peek
from bridge.core.receipts import Receipts
from bridge.core.verify import Links, verify
from bridge.model import Way
from bridge.pb.bridge.v1.block_receipt_pb2 import BlockReceipt
from bridge.pb.eventmessages.factomEvents_pb2 import DirectoryBlockCommit, FactomEvent

__all__ = [
    "GRACE",
    "GRACE_PASSES",
    "RESTART",
    "Account",
    "Ledger",
    "Step",
    "accounts_of",
    "book",
    "commit_key",
    "event_of",
]

GRACE = 30


class Step(NamedTuple):
    """One payload of a feed, or of what was fetched for a height."""

    payload: bytes
    fetched_for: int | None = None


RESTART, GRACE_PASSES = Step(b"restart"), Step(b"grace")
"""Steps that are none of a feed."""


def book(
    receipts: Receipts,
    message: DirectoryBlockCommit,
    *,
    way: Way,
    now: float = 0,
    key: bytes = b"k" * 32,
) -> None:
    """Take a block whose links are proven too."""
    receipts.block(message, key, way=way, now=now)
    receipts.linked(message.directoryBlock.header.blockHeight)


class Ledger:
    """The receipts that come of steps, and the items that the journal would hold."""

    def __init__(self) -> None:
        self.items: dict[str, bytes] = {}
        self.now = 0.0
        self.told: list[BlockReceipt] = []
        self.recovered: list[tuple[Way, int, bytes]] = []
        self._links: dict[int, Links] = {}
        self._proven: set[int] = set()
        self._seq = 0
        self.receipts = Receipts([], 0, fetch=self.items.get, grace=GRACE)

    def step(self, step: Step) -> None:
        """Take one step."""
        if step is RESTART:
            self.take()
            self.restart()
            return
        if step is GRACE_PASSES:
            self._pass_grace()
            return
        self._seq += 1
        found = peek(step.payload)
        if step.fetched_for is not None and not isinstance(found, Block):
            reveal = FactomEvent.FromString(step.payload).entryReveal
            self.receipts.recovered(step.fetched_for, [reveal])
        elif isinstance(found, int):
            self.receipts.saw(self._seq, [found])
        elif isinstance(found, Block):
            way = Way.REPLAY if found.source == 1 else Way.LIVE
            self.block(found.message, way if step.fetched_for is None else Way.API)

    def block(self, message: DirectoryBlockCommit, way: Way) -> None:
        """Take a block, if its own hashes hold."""
        height = message.directoryBlock.header.blockHeight
        found = verify(message, self._links.get(height - 1))
        if found.links is None or found.failures:
            return
        self._links[height] = found.links
        if "previous-key-merkle-root" not in found.unproven:
            self._proven.add(height)
        key = message.directoryBlock.keyMerkleRoot
        self.receipts.block(message, key, way=way, now=self.now)
        if height + 1 in self._links:
            self._proven.add(height + 1)
        for each in self._proven & {height, height + 1}:
            self.receipts.linked(each)

    def take(self) -> list[BlockReceipt]:
        """Commit, as the tracker does; return the receipts."""
        derived = self.receipts.take()
        for name, row in derived.items.items():
            if row is None:
                self.items.pop(name, None)
            else:
                self.items[name] = row
        self.told += derived.receipts
        self.recovered += derived.recovered
        return derived.receipts

    def restart(self) -> None:
        """Begin again from what was committed; what was not is lost."""
        self.receipts = Receipts(
            list(self.items.items()), self.now, fetch=self.items.get, grace=GRACE
        )

    def finish(self) -> dict[int, BlockReceipt]:
        """Let the grace pass, and return the last receipt of each height."""
        self._pass_grace()
        self.take()
        return {each.height: each for each in self.told}

    def _pass_grace(self) -> None:
        self.now += GRACE
        self.receipts.tick(self.now)

    def run(self, steps: Iterable[Step]) -> dict[int, BlockReceipt]:
        """Take all steps and finish."""
        for step in steps:
            self.step(step)
            self.take()
        return self.finish()


@dataclass
class Account:
    """One height."""

    key: bytes
    linked: bool = False
    commits: set[bytes] = field(default_factory=set)
    commits_recovered: set[bytes] = field(default_factory=set)
    owed: set[bytes] = field(default_factory=set)
    reveals: set[bytes] | None = None
    reveals_recovered: set[bytes] = field(default_factory=set)
    reveals_missing: set[bytes] = field(default_factory=set)

    def give_up(self) -> None:
        """Recover what is owed."""
        self.commits_recovered |= self.owed
        self.owed = set()

    def receipt(self, height: int) -> BlockReceipt:
        """Return what must have been told in the end."""
        told = BlockReceipt(
            height=height,
            key_merkle_root=self.key,
            hashes_verified=True,
            links_verified=self.linked,
            commits_expected=len(self.commits),
            commits_seen=len(self.commits - self.commits_recovered),
            commits_recovered=len(self.commits_recovered),
            complete=self.linked and not self.reveals_missing,
        )
        if self.reveals is not None:
            told.reveals_expected = len(self.reveals)
            told.reveals_seen = len(self.reveals - self.reveals_recovered - self.reveals_missing)
            told.reveals_recovered = len(self.reveals_recovered)
            told.reveals_missing = len(self.reveals_missing)
        return told


def accounts_of(steps: Iterable[Step]) -> dict[int, Account]:
    """Return the accounts after `steps` and the grace, of blocks whose own key holds."""
    accounts: dict[int, Account] = {}
    previous: dict[int, bytes] = {}
    commits: set[bytes] = set()
    reveals: set[bytes] = set()
    for step in steps:
        if step is GRACE_PASSES:
            for account in accounts.values():
                account.give_up()
        event = event_of(step.payload)
        name = event.WhichOneof("event") if event else None
        member: Any = getattr(event, name) if name else None
        if name in {"chainCommit", "entryCommit"}:
            commits.add(commit_key(member))
            for account in accounts.values():
                account.owed.discard(commit_key(member))
        elif name == "entryReveal" and step.fetched_for is None:
            reveals.add(member.entry.hash)
            for account in accounts.values():
                account.reveals_missing.discard(member.entry.hash)
        elif name == "entryReveal":
            _fetched(accounts.get(step.fetched_for or 0), member.entry.hash)
        elif name == "directoryBlockCommit" and member.directoryBlock.keyMerkleRoot == _key(member):
            header = member.directoryBlock.header
            known = header.blockHeight in accounts
            account = accounts.setdefault(header.blockHeight, Account(_key(member)))
            previous[header.blockHeight] = header.previousKeyMerkleRoot
            if not known:
                account.commits = {commit_key(each) for each in _commits(member)}
                live = event is not None and event.eventSource != 1 and step.fetched_for is None
                target = account.owed if live else account.commits_recovered
                target |= account.commits - commits
            _reveals(account, member, reveals)
    for height, account in accounts.items():
        account.give_up()
        below = accounts.get(height - 1)
        account.linked = height == 0 or (below is not None and below.key == previous[height])
    return accounts


def event_of(payload: bytes) -> FactomEvent | None:
    """Return the event in a payload of either format, or None if it is none."""
    try:
        return gojson.parse(payload) if payload[:1] == b"{" else FactomEvent.FromString(payload)
    except Exception:
        return None


def commit_key(member: Any) -> bytes:
    """Return a commit without its state."""
    stateless = type(member)()
    stateless.CopyFrom(member)
    stateless.ClearField("entityState")
    kind: str = type(member).__name__
    return kind.encode() + bytes(stateless.SerializeToString())


def _commits(message: DirectoryBlockCommit) -> Iterator[Any]:
    for entry in message.entryCreditBlock.entries:
        name = entry.WhichOneof("entryCreditBlockEntry")
        if name in {"chainCommit", "entryCommit"}:
            yield getattr(entry, name)


def _fetched(account: Account | None, hash_: bytes) -> None:
    if account is not None and hash_ in account.reveals_missing:
        account.reveals_missing.discard(hash_)
        account.reveals_recovered.add(hash_)


def _reveals(account: Account, message: DirectoryBlockCommit, seen: set[bytes]) -> None:
    users = [each for each in message.directoryBlock.entries if any(each.chainID[:31])]
    if users and not message.entryBlocks:
        return
    listed = {each for block in message.entryBlocks for each in block.entryHashes if any(each[:31])}
    whole = {each.hash for each in message.entryBlockEntries if _hash(each) == each.hash}
    if account.reveals is None:
        account.reveals = listed
        account.reveals_missing = listed - seen
    account.reveals_recovered |= account.reveals_missing & whole
    account.reveals_missing -= whole


def _hash(entry: Any) -> bytes:
    names = b"".join(len(each).to_bytes(2, "big") + each for each in entry.externalIDs)
    raw = b"".join(
        (bytes([entry.version]), entry.chainID, len(names).to_bytes(2, "big"), names, entry.content)
    )
    return hashlib.sha256(hashlib.sha512(raw).digest() + raw).digest()


def _key(message: DirectoryBlockCommit) -> bytes:
    header = message.directoryBlock.header
    level = [part for each in message.directoryBlock.entries for part in _pair(each)]
    while len(level) > 1:
        level += level[-1:] if len(level) % 2 else []
        level = [
            hashlib.sha256(left + right).digest()
            for left, right in zip(level[::2], level[1::2], strict=True)
        ]
    root = level[0] if level else b""
    numbers = (header.timestamp.seconds // 60, header.blockHeight, header.blockCount)
    raw = b"".join(
        (
            bytes([header.version & 0xFF]),
            header.networkID.to_bytes(4, "big"),
            root,
            header.previousKeyMerkleRoot,
            header.previousFullHash,
            *((number & 0xFFFFFFFF).to_bytes(4, "big") for number in numbers),
        )
    )
    return hashlib.sha256(hashlib.sha256(raw).digest() + root).digest()


def _pair(listed: Any) -> tuple[bytes, bytes]:
    return listed.chainID, listed.keyMerkleRoot
