"""Heights of real chains, twice: what the node's API answered, and what its feed replayed.

A small extract of `backfill-api` and `gap-api-replay` stands in `tests/data/api`; the whole
recordings are read from `shared/captures` where that is present.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.rebuild import RawHeight
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.support.captures import find_capture

__all__ = ["API_CAPTURES", "RecordedHeight", "answers", "extract", "recording"]

API_CAPTURES = ("backfill-api", "gap-api", "gap-api-replay")
"""Recordings that hold the API's answers beside the feed."""

_EXTRACT = Path(__file__).resolve().parents[1] / "data" / "api" / "heights.jsonl.gz"
_BY_HEIGHT = ("dblock", "ablock", "ecblock", "fblock")

Answers = dict[tuple[str, int | str], Any]


@dataclass(frozen=True)
class RecordedHeight:
    """One height of one chain."""

    capture: str
    height: int
    payloads: tuple[bytes, ...]
    """Payloads of the feed with this height's block."""
    answers: Answers
    """Results by method and by height or hash."""

    @property
    def raw(self) -> RawHeight:
        """The binary parts, as the API gives them."""
        parts = [
            bytes.fromhex(self.answers[f"{name}-by-height", self.height]["rawdata"])
            for name in _BY_HEIGHT
        ]
        listed = DirectoryBlock.parse(parts[0]).entry_blocks
        blocks = (self.answers["raw-data", each.key.hex()]["data"] for each in listed)
        directory, admin, credit, factoid = parts
        return RawHeight(directory, admin, credit, factoid, tuple(map(bytes.fromhex, blocks)))

    @property
    def contents(self) -> dict[bytes, bytes]:
        """The binary form of each entry that the API was asked for, by its hash."""
        found = {}
        for raw in self.raw.entry_blocks:
            for hash_ in EntryBlock.parse(raw).entry_hashes():
                answer = self.answers.get(("entry", hash_.hex()))
                if answer is not None:
                    found[hash_] = Entry(
                        bytes.fromhex(answer["chainid"]),
                        tuple(map(bytes.fromhex, answer["extids"] or ())),
                        bytes.fromhex(answer["content"] or ""),
                    ).raw
        return found

    @property
    def events(self) -> list[FactomEvent]:
        """The payloads, decoded."""
        return [FactomEvent.FromString(payload) for payload in self.payloads]


def extract() -> list[RecordedHeight]:
    """Return the heights that stand in the repository."""
    found = []
    for line in gzip.decompress(_EXTRACT.read_bytes()).splitlines():
        told = json.loads(line)
        payloads = tuple(map(base64.b64decode, told["payloads"]))
        calls = (call | {"http": 200} for call in told["calls"])
        found.append(RecordedHeight(told["capture"], told["height"], payloads, _by_call(calls)))
    return found


def recording(name: str) -> list[RecordedHeight]:
    """Return every height of a recording of which feed and API both have the block."""
    capture = find_capture(name)
    known = answers(name)
    if capture is None or not known:
        return []
    payloads: dict[int, list[bytes]] = {}
    for payload in capture.payloads():
        event = FactomEvent.FromString(payload)
        if event.HasField("directoryBlockCommit"):
            height = event.directoryBlockCommit.directoryBlock.header.blockHeight
            payloads.setdefault(height, []).append(payload)
    return [
        RecordedHeight(name, height, tuple(payloads[height]), known)
        for height in sorted(payloads)
        if all((f"{part}-by-height", height) in known for part in _BY_HEIGHT)
    ]


def answers(name: str) -> Answers:
    """Return every result of a recording's API; nothing where this machine has it not."""
    capture = find_capture(name)
    if capture is None:
        return {}
    with (capture.folder / "api.jsonl").open(encoding="utf-8") as lines:
        return _by_call(map(json.loads, lines))


def _by_call(calls: Iterator[Any]) -> Answers:
    found: Answers = {}
    for call in calls:
        if call["http"] == 200:
            params = call["params"]
            asked = params.get("height", params.get("hash", params.get("keymr", "")))
            found[call["method"], asked] = call["answer"]["result"]
    return found
