"""Proves from what was published that heights are complete, or says what is missing.

Every block is verified and linked to the one before; each commit that a block lists must have been
published by itself, and each entry where the entry blocks are known. Live blocks carry no entry
blocks: for those heights nothing is said of reveals, which is not the same as missing.

Blocks come first, so that what is kept is an index of the heights in question and of what was not
yet found of them, never what was published beside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from bridge.core.binary.commits import ChainCommit, EntryCommit
from bridge.core.binary.entries import Entry
from bridge.core.hashing import HASH_BYTES, sha256
from bridge.core.rebuild import commits
from bridge.core.routing import ChainFilter
from bridge.core.verify import Failure, Links, verify
from bridge.errors import DecodeError
from bridge.model import Kind
from bridge.pb.eventmessages.entryBlock_pb2 import EntryBlockEntry
from bridge.pb.eventmessages.factomEvents_pb2 import (
    ChainCommit as ChainCommitMessage,
    DirectoryBlockCommit,
)

__all__ = ["MAX_NAMED", "Checked", "Completeness", "Result"]

MAX_NAMED = 50
"""Problems of one sort that are named; of more there is the count."""

_PREVIOUS = "previous-key-merkle-root"
_LINKS = frozenset({_PREVIOUS, "previous-full-hash", "network"})
"""Checks that say something of two blocks: the later one stands, and does not follow."""

_BLOCKS = ("admin-block", "factoid-block", "entry-credit-block")


class Checked(NamedTuple):
    """One line of the proof."""

    what: str
    checked: int
    wrong: int
    """How many of them are missing or do not hold."""
    note: str = ""
    """What could not be proven, and why."""


@dataclass(frozen=True, slots=True)
class Result:
    """What is proven of the heights from `first` to `last`."""

    first: int
    last: int
    checked: tuple[Checked, ...]
    problems: tuple[str, ...]
    """At most `MAX_NAMED` of each sort."""
    unnamed: int
    """How many problems there are beyond those."""

    @property
    def complete(self) -> bool:
        """Whether everything that can be proven holds."""
        return not self.problems


class _Problems:
    """Named once each, as far as there is room, and counted."""

    def __init__(self) -> None:
        self.named: dict[str, None] = {}
        self.count = self.unnamed = 0

    def add(self, sentence: str, count: int = 1) -> None:
        if sentence in self.named:
            return
        self.count += count
        if len(self.named) < MAX_NAMED:
            self.named[sentence] = None
        else:
            self.unnamed += count


@dataclass(slots=True)
class _Height:
    """A height of which a block is there whose own hashes hold."""

    unproven: frozenset[str]
    """What no copy of the block could prove."""
    follows: bool


class Completeness:
    """Takes what was published about heights `first` to `last`; None for as far as blocks go.

    Of kinds that are `off`, and of other chains than `chains` where these are limited, nothing is
    expected. `links` are those found before, for a second look: see `early`.
    """

    def __init__(
        self,
        first: int | None = None,
        last: int | None = None,
        *,
        off: Collection[Kind] = (),
        chains: ChainFilter | None = None,
        links: dict[int, Links] | None = None,
    ) -> None:
        self._first, self._last = first, last
        self._off, self._chains = off, chains or ChainFilter()
        self.links = links if links is not None else {}
        """What is known of each height for the next one."""
        self._heights: dict[int, _Height] = {}
        self._read = self._examined = self._failed = 0
        self._commits: dict[bytes, int] = {}
        """Height of each commit not found yet: the entry's hash and 16 bytes that tell it apart."""
        self._reveals: dict[bytes, int] = {}
        """Height of each entry not found yet."""
        self._listed_commits = self._listed_reveals = 0
        self._blocks, self._messages = _Problems(), _Problems()

    def wants(self, height: int) -> bool:
        """Whether a block of `height` says something; the one before links the first."""
        return (self._first or 0) - 1 <= height and (self._last is None or height <= self._last)

    @property
    def early(self) -> bool:
        """Whether a block came before the one that it follows.

        More is then proven by a second look: give the blocks again to another one with these
        `links`.
        """
        return any(
            _PREVIOUS in known.unproven and height - 1 in self.links
            for height, known in self._heights.items()
        )

    def add(self, kind: Kind, member: Any) -> None:
        """Take a message; first all directory blocks, then commits and reveals in any order."""
        self._read += 1
        try:
            if kind is Kind.DIRECTORY_BLOCK_COMMIT:
                self._block(member)
            elif kind is Kind.CHAIN_COMMIT or kind is Kind.ENTRY_COMMIT:
                self._commits.pop(_identity(member), None)
            elif kind is Kind.ENTRY_REVEAL:
                self._reveal(member.entry)
        except DecodeError as error:
            self.wrong(f"{kind}: {error}")

    def wrong(self, sentence: str) -> None:
        """Note a message that is not what it should be."""
        self._messages.add(sentence)

    def _block(self, message: DirectoryBlockCommit) -> None:
        height = message.directoryBlock.header.blockHeight
        if not self.wants(height):
            return
        found = verify(message, self.links.get(height - 1))
        failures = list(found.failures)
        stands = found.links is not None and all(each.check in _LINKS for each in failures)
        if found.links is not None and stands:
            links = self.links.setdefault(height, found.links)
            if links.key_merkle_root != found.links.key_merkle_root:
                stands = False
                keys = f"{links.key_merkle_root.hex()} and {found.links.key_merkle_root.hex()}"
                failures.append(Failure("two-blocks", f"they have the keyMerkleRoot {keys}"))
            elif links.credit_full_hash is None:
                self.links[height] = found.links
        if height < (self._first or 0):
            return
        self._examined += 1
        self._failed += not stands
        for each in failures:
            self._blocks.add(f"height {height}: {each.check}: {each.detail}")
        if stands:
            self._stands(height, message, frozenset(found.unproven), follows=not failures)

    def _stands(
        self, height: int, message: DirectoryBlockCommit, unproven: frozenset[str], *, follows: bool
    ) -> None:
        known = self._heights.get(height)
        if known is None:
            known = self._heights[height] = _Height(unproven, follows)
            self._expect_commits(height, message)
            self._expect_reveals(height, message)
        elif "entry-block" in known.unproven:
            self._expect_reveals(height, message)
        known.unproven &= unproven
        known.follows &= follows

    def _expect_commits(self, height: int, message: DirectoryBlockCommit) -> None:
        for commit in commits(message.entryCreditBlock):
            chain = isinstance(commit, ChainCommitMessage)
            kind = Kind.CHAIN_COMMIT if chain else Kind.ENTRY_COMMIT
            if kind not in self._off and self._chains.passes(kind, commit):
                self._commits.setdefault(_identity(commit), height)
        self._listed_commits = len(self._commits)

    def _expect_reveals(self, height: int, message: DirectoryBlockCommit) -> None:
        if Kind.ENTRY_REVEAL in self._off:
            return
        chains = self._chains.chains
        for entry in message.entryBlockEntries:
            if not chains or entry.chainID in chains:
                self._reveals.setdefault(entry.hash, height)
        self._listed_reveals = len(self._reveals)

    def _reveal(self, entry: EntryBlockEntry) -> None:
        # A node that is told to send no content sends an entry of which nothing can be proven.
        told = entry.content or entry.externalIDs
        if told and Entry.of_message(entry).hash() != entry.hash:
            self.wrong(f"entry-reveal: {_shown(entry.hash)} is not the hash of the entry")
        else:
            self._reveals.pop(entry.hash, None)

    def result(self) -> Result:
        """Return what is proven."""
        found = sorted(self._heights)
        ends = found or [self._last or 0]
        first = ends[0] if self._first is None else self._first
        last = max(first, ends[-1] if self._last is None else self._last)
        missing = _missing_heights(first, last, found)
        sorts = (
            missing,
            self._blocks,
            _missing("commit", self._commits),
            _missing("reveal", self._reveals),
            self._messages,
        )
        return Result(
            first,
            last,
            tuple(self._checked(last - first + 1, missing.count)),
            tuple(sentence for sort in sorts for sentence in sort.named),
            sum(sort.unnamed for sort in sorts),
        )

    def _checked(self, expected: int, missing: int) -> Iterator[Checked]:
        heights = self._heights.values()
        unproven = Counter(check for each in heights for check in each.unproven)
        yield Checked("messages read", self._read, self._messages.count)
        yield Checked("heights", expected, missing)
        parts = ", ".join(f"{check} {unproven[check]}" for check in _BLOCKS if unproven[check])
        note = f"not provable from here: {parts}" if parts else ""
        yield Checked("hashes of blocks", self._examined, self._failed, note)
        alone = unproven[_PREVIOUS]
        note = f"not provable without the block before: {alone}" if alone else ""
        wrong = sum(not each.follows for each in heights)
        yield Checked("links of blocks", len(heights) - alone, wrong, note)
        note = self._switched_off(Kind.CHAIN_COMMIT, Kind.ENTRY_COMMIT)
        yield Checked("commits", self._listed_commits, len(self._commits), note)
        blind = unproven["entry-block"]
        note = f"not provable without entry blocks for {blind} heights" if blind else ""
        note = self._switched_off(Kind.ENTRY_REVEAL) or note
        yield Checked("reveals", self._listed_reveals, len(self._reveals), note)

    def _switched_off(self, *kinds: Kind) -> str:
        off = [kind for kind in kinds if kind in self._off]
        return f"switched off: {', '.join(off)}" if off else ""


def _identity(commit: Any) -> bytes:
    """Return what tells a commit from every other, whatever its state."""
    form = ChainCommit if isinstance(commit, ChainCommitMessage) else EntryCommit
    return bytes(commit.entryHash) + sha256(form.of_message(commit).raw)[:16]


def _shown(hash_: bytes) -> str:
    return hash_[:HASH_BYTES].hex()


def _missing(noun: str, outstanding: dict[bytes, int]) -> _Problems:
    found = _Problems()
    for key, height in outstanding.items():
        found.add(f"height {height}: the {noun} of the entry {_shown(key)} is missing")
    return found


def _missing_heights(first: int, last: int, found: list[int]) -> _Problems:
    """Name, as ranges, what is missing among the sorted heights of `found`."""
    missing = _Problems()
    if not found:
        missing.add(f"there is no directory block from height {first} on", last - first + 1)
        return missing
    expected = first
    for height in (*found, last + 1):
        count = height - expected
        if count > 0:
            which = f"s {expected} to {height - 1} are" if count > 1 else f" {expected} is"
            missing.add(f"height{which} missing", count)
        expected = height + 1
    return missing
