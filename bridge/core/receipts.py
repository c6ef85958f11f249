"""Accounts for every height: which commits and reveals came, and recovers those that did not.

Expected are the commits of the entry-credit block, which every block has, and the entries of the
entry blocks, which only a replay or the node's API brings. What the feed brought lately is known by
identities (`core.seen`); what did not come is recovered out of the block itself, or named as
missing until it is fetched. No block is kept, and all that waits in memory is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from math import inf
from typing import NamedTuple

from bridge.core.accounts import Accounts, Rows
from bridge.core.binary.directory import lists_entry_blocks
from bridge.core.binary.entries import Entry, EntryBlock, is_marker, reveal
from bridge.core.framing import frame, split_frames
from bridge.core.peek import commit_identities, peek, reveal_identity
from bridge.core.rebuild import commits
from bridge.core.seen import Seen
from bridge.core.waiting import Waiting
from bridge.model import Way
from bridge.pb.bridge.v1.block_receipt_pb2 import BlockReceipt
from bridge.pb.eventmessages.entryBlock_pb2 import EntryBlockEntry
from bridge.pb.eventmessages.factomEvents_pb2 import (
    ChainCommit,
    DirectoryBlockCommit,
    EntryCommit,
    EntryCreditBlock,
    EntryReveal,
    EventSource,
    FactomEvent,
)

__all__ = ["MOST_NAMED", "Derived", "Receipts"]

MOST_NAMED = 10_000
"""Missing entries of one height that are named at a time."""

_OWED = "receipt/owed/"
"""Rows by height: the commits that are waited for, framed, as they will be published."""
_REPLAYED = EventSource.REPLAY_BOOT


class Derived(NamedTuple):
    """What came of it all since the last time."""

    receipts: list[BlockReceipt]
    recovered: list[tuple[Way, int, bytes]]
    """Payloads in place of events that did not come, and the height that lists them.

    REPLAY: out of a block of the feed; API: out of one that was fetched.
    """
    items: dict[str, bytes | None]


class Receipts:
    """The accounts of all heights, kept by `core.accounts`."""

    def __init__(
        self,
        items: Sequence[tuple[str, bytes]],
        now: float,
        *,
        fetch: Callable[[str], bytes | None],
        grace: float = 30,
    ) -> None:
        """Take up what was stored.

        Args:
            items: the whole state at the start; those of others are passed over.
            now: seconds of a monotonic clock, here and everywhere.
            fetch: reads one item back, as it was last taken.
            grace: seconds for which another node may still bring the commits of a live block.
        """
        self._grace = grace
        self._seen = Seen(items)
        self._rows = Rows(fetch)
        self._accounts = Accounts(items, self._rows)
        self._owed = Waiting()
        """Commits, for the grace."""
        self._awaited = Waiting()
        """Missing reveals of the latest heights, for as long as there is room."""
        self._recovered: list[tuple[Way, int, bytes]] = []
        for height in self._accounts.wanting()[-self._awaited.most_heights :]:
            self._await(self._accounts.get(height))
        for name, row in items:
            if name.startswith(_OWED):
                ids = self._seen.lacking(identity for identity, _ in _identified(row))
                self._owe(self._accounts.get(int(name.removeprefix(_OWED), 16)), ids, now)

    # What comes

    def saw(self, seq: int, ids: Sequence[int]) -> None:
        """Take the identities of commits and reveals that came; `seq` as in `Seen.saw`."""
        self._seen.saw(seq, ids)
        for height, found in self._owed.came(ids):
            account = self._accounts.get(height)
            account.commits_missing -= len(found)
            self._accounts.note(account)
            if height not in self._owed:
                self._rows.put(_owed(height), b"")
        for height, found in self._awaited.came(ids):
            account = self._accounts.get(height)
            account.reveals_missing -= self._accounts.found(account, found)
            self._note(account)

    def block(self, message: DirectoryBlockCommit, key: bytes, *, way: Way, now: float) -> None:
        """Take a block whose own hashes hold; one that came before may bring its entries now.

        A block with another key takes the place of the one before. Its links: `linked`.
        """
        height = message.directoryBlock.header.blockHeight
        standing = self._accounts.standing(height)
        if standing.known and not key.startswith(standing.begin):
            self._forget(height)
            standing = self._accounts.standing(height)
        if not standing.known:
            account = self._new(message, key, way, now)
        elif not standing.complete:
            account = self._accounts.get(height)
        elif standing.blind and message.entryBlocks:
            account = self._again(message, key, standing.recovered)
        else:
            return
        if account.reveals_missing or not account.HasField("reveals_expected"):
            self._reveals(account, message, way)
        self._accounts.note(account)

    def linked(self, height: int) -> None:
        """Take that the links of the block of `height` are proven."""
        standing = self._accounts.standing(height)
        if standing.known and not standing.complete:
            account = self._accounts.get(height)
            account.links_verified = True
            self._accounts.note(account)

    def recovered(self, height: int, reveals: Iterable[EntryReveal]) -> None:
        """Take reveals that were fetched and published; one whose hash does not hold is none."""
        if not self._accounts.standing(height).wanting:
            return
        account = self._accounts.get(height)
        ids = {
            reveal_identity(each.entry.hash)
            for each in reveals
            if _entry(each.entry, each.entry.hash) is not None
        }
        found = self._accounts.found(account, ids)
        account.reveals_missing -= found
        account.reveals_recovered += found
        self._note(account)

    def tick(self, now: float) -> None:
        """Recover the commits whose grace is over."""
        for height, ids in self._owed.over(now):
            self._give_up(height, ids)

    def forget(self, first: int = 0) -> None:
        """Forget the accounts of `first` and all above it: another chain was adopted."""
        for height in self._accounts.heights():
            if height >= first:
                self._forget(height)

    # What comes of it

    def take(self) -> Derived:
        """Return what happened since the last time."""
        receipts, table = self._accounts.take()
        recovered, self._recovered = self._recovered, []
        return Derived(receipts, recovered, self._seen.take() | table | self._rows.take())

    def blind(self, most: int) -> list[int]:
        """Return heights, ascending, whose directory lists entry blocks that are not known."""
        return self._accounts.blind(most)

    def wanting(self, most: int) -> list[int]:
        """Return heights, ascending, of which entries are missing whose hashes are known."""
        return self._accounts.wanting(most)

    def missing_entries(self, height: int) -> tuple[bytes, ...]:
        """Return hashes of missing entries of `height`: at most `MOST_NAMED`, then the others."""
        if not self._accounts.standing(height).wanting:
            return ()
        return tuple(islice(self._accounts.missing(self._accounts.get(height)), MOST_NAMED))

    # Commits

    def _new(self, message: DirectoryBlockCommit, key: bytes, way: Way, now: float) -> BlockReceipt:
        """Open the account, and recover the commits that did not come, or wait for them."""
        account = _account(message, key)
        self._accounts.begin(account)
        identities = commit_identities(message.entryCreditBlock)
        account.commits_expected = len(set(identities))
        lacking = self._seen.lacking(identities)
        payloads = _payloads(message.entryCreditBlock, identities, lacking)
        if payloads and way is Way.LIVE:
            self._rows.put(_owed(account.height), b"".join(map(frame, payloads.values())))
            self._owe(account, set(payloads), now)
        else:
            self._recover(way, account.height, payloads.values())
            account.commits_recovered = len(payloads)
        return account

    def _again(self, message: DirectoryBlockCommit, key: bytes, recovered: int) -> BlockReceipt:
        """Return the account as it was when the height was complete without its entries."""
        account = _account(message, key)
        account.links_verified = True
        account.commits_expected = len(set(commit_identities(message.entryCreditBlock)))
        account.commits_recovered = recovered
        self._accounts.begin(account)
        return account

    def _owe(self, account: BlockReceipt, ids: set[int], now: float) -> None:
        account.commits_missing = len(ids)
        self._accounts.note(account)
        for height, gave_way in self._owed.add(account.height, ids, now + self._grace):
            self._give_up(height, gave_way)

    def _give_up(self, height: int, ids: set[int]) -> None:
        """Wait no more for these commits: recover them."""
        owed = _identified(self._rows.get(_owed(height)))
        payloads = [payload for identity, payload in owed if identity in ids]
        self._recover(Way.REPLAY, height, payloads)
        self._rows.put(_owed(height), b"")
        account = self._accounts.get(height)
        account.commits_recovered += len(payloads)
        account.commits_missing = 0
        self._accounts.note(account)

    def _recover(self, way: Way, height: int, payloads: Iterable[bytes]) -> None:
        out_of = Way.API if way is Way.API else Way.REPLAY
        self._recovered += [(out_of, height, payload) for payload in payloads]

    # Reveals

    def _reveals(self, account: BlockReceipt, message: DirectoryBlockCommit, way: Way) -> None:
        """Account for the entries, and recover those that did not come and that the block has."""
        listed = _listed(message)
        if listed is None:
            return
        if not account.HasField("reveals_expected"):
            account.reveals_expected = len(listed)
            account.reveals_recovered = 0
            lacking = [each for each in listed if reveal_identity(each) not in self._seen]
        else:
            known = set(self._accounts.missing(account))
            lacking = [each for each in listed if each in known]
        told = {each.hash: each for each in message.entryBlockEntries} if lacking else {}
        times = _times(message) if lacking else {}
        missing = []
        for hash_ in lacking:
            entry = _entry(told.get(hash_), hash_)
            if entry is None:
                missing.append(hash_)
            else:
                event = FactomEvent(eventSource=_REPLAYED, entryReveal=reveal(entry, times[hash_]))
                self._recover(way, account.height, (event.SerializeToString(),))
        account.reveals_recovered += len(lacking) - len(missing)
        account.reveals_missing = len(missing)
        if lacking:
            self._accounts.miss(account, missing)
            self._await(account)

    def _await(self, account: BlockReceipt) -> None:
        """Look out for the reveals that are missing: another node may bring them."""
        self._awaited.drop(account.height)
        if 0 < account.reveals_missing <= self._awaited.most_ids:
            ids = set(map(reveal_identity, self._accounts.missing(account)))
            self._awaited.add(account.height, ids, inf)

    def _note(self, account: BlockReceipt) -> None:
        """Note that reveals were found."""
        self._accounts.note(account)
        if not account.reveals_missing:
            self._awaited.drop(account.height)

    def _forget(self, height: int) -> None:
        self._accounts.forget(height)
        if height in self._owed:
            self._owed.drop(height)
            self._rows.put(_owed(height), b"")
        self._awaited.drop(height)


def _owed(height: int) -> str:
    return f"{_OWED}{height:08x}"


def _identified(owed: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the commits of a row with their identities."""
    for _, payload in split_frames(owed):
        identity = peek(payload)
        assert isinstance(identity, int), "only commits are owed"
        yield identity, payload


def _account(message: DirectoryBlockCommit, key: bytes) -> BlockReceipt:
    height = message.directoryBlock.header.blockHeight
    return BlockReceipt(height=height, key_merkle_root=key, hashes_verified=True)


def _payloads(
    block: EntryCreditBlock, identities: Sequence[int], lacking: set[int]
) -> dict[int, bytes]:
    """Return the commits of `block` that are lacking, as events; `identities` are those of all."""
    if not lacking:
        return {}
    return {
        identity: _commit_event(commit).SerializeToString()
        for identity, commit in zip(identities, commits(block), strict=True)
        if identity in lacking
    }


def _commit_event(commit: ChainCommit | EntryCommit) -> FactomEvent:
    if isinstance(commit, ChainCommit):
        return FactomEvent(eventSource=_REPLAYED, chainCommit=commit)
    return FactomEvent(eventSource=_REPLAYED, entryCommit=commit)


def _listed(message: DirectoryBlockCommit) -> list[bytes] | None:
    """Return the hashes of the entries, in order; None if they are not known."""
    if not message.entryBlocks and lists_entry_blocks(message.directoryBlock):
        return None
    bodies = chain.from_iterable([block.entryHashes for block in message.entryBlocks])
    return list(dict.fromkeys([each for each in bodies if not is_marker(each)]))


def _times(message: DirectoryBlockCommit) -> dict[bytes, int]:
    """Return the second of each entry, by its hash."""
    start = message.directoryBlock.header.timestamp.seconds
    times: dict[bytes, int] = {}
    for block in message.entryBlocks:
        for hash_, at in EntryBlock.of_message(block).times(start):
            times.setdefault(hash_, at)
    return times


def _entry(told: EntryBlockEntry | None, hash_: bytes) -> Entry | None:
    """Return the entry that is told, if it is told whole."""
    if told is None:
        return None
    entry = Entry.of_message(told)
    return entry if entry.hash() == hash_ else None
