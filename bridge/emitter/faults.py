"""Faults on demand: what a simulated node does wrong, decided by a seed or at a chosen height.

    drop=PERCENT          that share of the events is not sent
    reject=PERCENT        beside that share of the writes another comes in, and is rejected
    cut=PERCENT           half a frame, then the connection breaks; the sender sends it again, whole
    stall=SECONDS@PERCENT half a frame, then nothing for a while, then the other half
    lose=HEIGHT           the block of that height is not sent
    dark=HEIGHT+BLOCKS    nothing is sent while so many blocks grow, theirs included
    fork=HEIGHT           the height again, with another key Merkle root
    forge=HEIGHT          after the block one more, of a height that is far away
    network=HEIGHT        the block again, as one of another network

Any number of them, joined by commas. `cut` and `stall` concern the connection, so the sender's own
patience follows: after a cut it waits 10 s.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from bridge.core.binary.commits import ChainCommit
from bridge.core.binary.entries import Entry
from bridge.core.hashing import chain_id, chain_id_hash, sha256, weld
from bridge.emitter.block import Block, Written
from bridge.emitter.config import LiveFeedConfig
from bridge.emitter.inputs import DirectoryBlockState, Entity, EntryReveal
from bridge.emitter.line import Line, dial
from bridge.errors import UsageError

__all__ = ["Dialler", "Faults"]

_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)"
_FORMS = {
    **dict.fromkeys(("drop", "reject", "cut"), re.compile(rf"{_NUMBER}%?")),
    "stall": re.compile(rf"{_NUMBER}s?@{_NUMBER}%?"),
    "dark": re.compile(r"(\d{1,10})\+(\d{1,10})"),
    **dict.fromkeys(("lose", "fork", "forge", "network"), re.compile(r"(\d{1,10})")),
}
_FAR = 2**30
_HIGHEST = 2**32 - 1
_OTHER_NETWORK = 0xFA92E5A2
_MINUTE = 1
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong: shares in percent, and heights."""

    drop: float = 0
    reject: float = 0
    cut: float = 0
    stall: float = 0
    stall_seconds: float = 0
    lose: frozenset[int] = frozenset()
    dark: frozenset[int] = frozenset()
    fork: frozenset[int] = frozenset()
    forge: frozenset[int] = frozenset()
    network: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, *texts: str) -> Faults:
        """Return what `texts` ask for together.

        Raises:
            UsageError: one is not understood, or the shares are more than 100 %.
        """
        faults = cls()
        for part in ",".join(texts).split(","):
            name, _, value = part.strip().partition("=")
            found = _FORMS[name].fullmatch(value) if name in _FORMS else None
            if found:
                faults = faults._with(name, *found.groups())
            elif part.strip():
                raise UsageError(f"fault {part!r} is none of {', '.join(_FORMS)}, or has no value")
        if max(faults.drop, faults.reject, faults.cut + faults.stall) > 100:
            raise UsageError("faults strike more than 100 % of what they strike")
        return faults

    def _with(self, name: str, first: str, second: str = "0") -> Faults:
        match name:
            case "drop":
                return replace(self, drop=float(first))
            case "reject":
                return replace(self, reject=float(first))
            case "cut":
                return replace(self, cut=float(first))
            case "stall":
                return replace(self, stall_seconds=float(first), stall=float(second))
            case "dark":
                heights = range(int(first), int(first) + min(int(second), 100_000))
                return replace(self, dark=self.dark.union(heights))
            case _:
                chosen: dict[str, Any] = {name: getattr(self, name) | {int(first)}}
                return replace(self, **chosen)

    def states(self, block: Block) -> Iterator[DirectoryBlockState]:
        """Yield what is sent when `block` is saved: the block, unless it is lost, and worse."""
        height, directory = block.height, block.directory
        if height not in self.lose:
            yield block.live()
        if height in self.fork:
            later = replace(directory, minutes=directory.minutes + _MINUTE)
            yield replace(block, directory=later).live()
        if height in self.forge:
            far = replace(directory, height=min(height + _FAR, _HIGHEST))
            yield replace(block, directory=far).live()
        if height in self.network:
            foreign = replace(directory, network_id=_OTHER_NETWORK)
            yield replace(block, directory=foreign).live()

    def rejected(self, written: Written) -> Iterator[Entity]:
        """Yield what comes in beside `written` and is rejected: commit and reveal, not paid for.

        What was written decides by its hash, so that the chain stays the same.
        """
        beside = written.reveal.entry.hash()
        if int.from_bytes(beside[:4], "big") / 2**32 * 100 >= self.reject:
            return
        names = (b"not paid for", beside)
        payer = sha256(b"without credits" + beside)
        if isinstance(written.commit, ChainCommit):
            entry = Entry(chain_id(names), names)
            yield written.commit._replace(
                chain_id_hash=chain_id_hash(entry.chain_id),
                weld=weld(entry.hash(), entry.chain_id),
                entry_hash=entry.hash(),
                public_key=payer,
            )
        else:
            entry = Entry(written.reveal.entry.chain_id, names)
            yield written.commit._replace(entry_hash=entry.hash(), public_key=payer)
        yield EntryReveal(entry, written.reveal.milliseconds)


class Dialler:
    """Connects as a sender does, over lines that have the faults; knows whether anyone answered."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self._faults = faults
        self._random = random.Random(seed)  # noqa: S311  (it must be repeatable)
        self.answered = False

    async def __call__(self, config: LiveFeedConfig) -> Line:
        """Connect. Raises: as `dial`."""
        line = await dial(config)
        self.answered = True
        return _Faulty(line, self._faults, self._random) if self._is_faulty else line

    @property
    def _is_faulty(self) -> bool:
        return bool(self._faults.cut or self._faults.stall)


class _Faulty:
    """A line on which some frames are halved: in the write after that of the version byte."""

    def __init__(self, line: Line, faults: Faults, chance: random.Random) -> None:
        self._line, self._faults, self._random = line, faults, chance
        self._begun = False
        self._left = 0
        """Bytes of the frame that are still to be written."""

    async def write(self, data: bytes, /) -> None:
        drawn = 100.0
        if self._begun:
            self._left = int.from_bytes(data[:_LENGTH_BYTES], "little") + _LENGTH_BYTES - len(data)
            drawn = self._random.random() * 100
            self._begun = False
        elif self._left:
            self._left -= len(data)
        else:
            self._begun = True
        half = len(data) // 2
        if drawn < self._faults.cut:
            await self._line.write(data[:half])
            raise ConnectionResetError("cut on demand")
        if drawn < self._faults.cut + self._faults.stall:
            await self._line.write(data[:half])
            await asyncio.sleep(self._faults.stall_seconds)
            data = data[half:]
        await self._line.write(data)

    def close(self) -> None:
        self._line.close()
