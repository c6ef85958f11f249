"""What is known of a subject, put together: as JSON, and as a timeline for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bridge.asking.gaps import ranges
from bridge.asking.published import Places
from bridge.asking.sightings import Sighting, Sightings
from bridge.asking.subject import Subject
from bridge.model import Kind
from bridge.pb.bridge.v1.block_receipt_pb2 import BlockReceipt

__all__ = ["Answer"]

_NODE_DIGITS = 12
_OF_ENTRIES = ("entryHash", "entryHashes", "entry.hash", "entryBlockEntries.hash")
"""How the paths of fields end that hold the hash of an entry."""

_LEFT_OUT = {
    "switched-off": "not published: the kind is switched off (BRIDGE_OFF)",
    "other-chain": "not published: not of the chosen chains (BRIDGE_CHAINS)",
}


class Answer:
    """Filled by `explain`, step by step."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.sightings = Sightings()
        self.places: dict[str, Places] = {}
        """By broker, of those that could be read."""
        self.positions: Mapping[str, int] = {}
        """Up to which number each broker was sent the journal."""
        self.receipts: dict[int, BlockReceipt] = {}
        self.gaps: list[dict[str, Any]] = []
        """As the table of gaps has them."""
        self.notes: list[str] = []
        """How far it was looked, and what could not be."""

    @property
    def known(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.sightings.counts or self.receipts or self.gaps)

    def seen_in(self, broker: str, found: Sightings) -> None:
        """Take what reading `broker` whole has found: what is known by its id is the same event."""
        places = self.places.setdefault(broker, {})
        for sighting in found:
            places.setdefault(sighting.id, []).append(sighting.where)
        if not self.sightings.counts:
            self.sightings = found
            return
        ids = {sighting.id for sighting in self.sightings}
        # Of these not all ids are kept, but all are counted.
        counted = self.sightings.not_kept()
        for sighting in found:
            if sighting.id not in ids and sighting.kind not in counted:
                ids.add(sighting.id)
                self.sightings.add(sighting)

    @property
    def told(self) -> dict[str, Any]:
        """Everything, as JSON."""
        subject = self.subject
        return {
            "height" if subject.hash is None else "hash": (
                subject.height if subject.hash is None else subject.hash.hex()
            ),
            "events": [
                {**sighting.told, "published": self._published(sighting)}
                for sighting in self.sightings
            ],
            "counts": {kind.value: count for kind, count in self.sightings.counts.items()},
            "not_seen": self.not_seen,
            "receipts": [
                MessageToDict(receipt, always_print_fields_with_no_presence=True)
                | {"keyMerkleRoot": receipt.key_merkle_root.hex()}
                for receipt in self.receipts.values()
            ],
            "gaps": self.gaps,
            "notes": self.notes,
        }

    def _published(self, sighting: Sighting) -> list[dict[str, Any]]:
        return [
            {"broker": broker, **where}
            for broker, places in self.places.items()
            for where in places.get(sighting.id, ())
        ]

    @property
    def not_seen(self) -> list[str]:
        """What there must be of an entry, and is not among the events."""
        sightings = self.sightings
        roles = (role for sighting in sightings for role in sighting.roles)
        if not any(role.endswith(_OF_ENTRIES) for role in roles):
            return []
        wanted = {"commit": (Kind.CHAIN_COMMIT, Kind.ENTRY_COMMIT), "reveal": (Kind.ENTRY_REVEAL,)}
        return [
            name
            for name, kinds in wanted.items()
            if not any(sightings.counts[kind] for kind in kinds)
        ]

    def show(self, out: Console) -> None:
        """Print it for a terminal."""
        out.print(f"[bold]{self.subject}[/]")
        if self.sightings.not_kept():
            out.print(self._summary())
        for sighting in self.sightings:
            self._show(sighting, out)
        for name in self.not_seen:
            out.print(f"[bold red]its {name} is not among them[/]")
        for receipt in self.receipts.values():
            out.print(_receipt(receipt))
        for gap in self.gaps:
            out.print(_gap(gap, self.subject.height), markup=False)
        if not self.known:
            out.print("nothing is known of it")
        for note in self.notes:
            out.print(f"[dim]{escape(note)}[/]")

    def _summary(self) -> Table:
        """Return a line for each kind: of some there are more than are shown."""
        table = Table("kind", "events", "first", "last", box=None, pad_edge=False)
        for kind, (first, last) in self.sightings.ends().items():
            count = str(self.sightings.counts[kind])
            table.add_row(kind.value, count, first.received, last.received)
        return table

    def _show(self, sighting: Sighting, out: Console) -> None:
        """Print a line for the event, one for how it names the subject, one for each place."""
        height = "" if sighting.height is None else f" {sighting.height}"
        what = f"{sighting.kind}{height} {sighting.state}".rstrip()
        way = ", ".join(part for part in (sighting.way, *_source(sighting)) if part)
        out.print(f"{sighting.received}  {sighting.seq}  [bold]{escape(what)}[/]  {escape(way)}")
        if self.subject.hash is not None:
            out.print(f"    [dim]as {escape(', '.join(sighting.roles))}[/]")
        for line in self._whereabouts(sighting):
            out.print(f"    {line}", markup=False)

    def _whereabouts(self, sighting: Sighting) -> list[str]:
        """Return a line for each place of the message, or why there is none."""
        if sighting.left_out:
            return [_LEFT_OUT.get(sighting.left_out, f"not published: {sighting.left_out}")]
        lines = []
        for broker, places in self.places.items():
            found = places.get(sighting.id)
            if found:
                lines += [_place(broker, where) for where in found]
            elif sighting.seq > self.positions.get(broker, sighting.seq):
                lines.append(f"{broker}: not sent yet")
            else:
                lines.append(f"{broker}: not there (any more)")
        return lines


def _place(broker: str, where: Mapping[str, str | int]) -> str:
    if "topic" in where:
        return f"{broker}: {where['topic']} at {where['partition']}/{where['offset']}"
    return f"{broker}: {where['stream']} {where['sequence']}, {where['subject']}"


def _source(sighting: Sighting) -> list[str]:
    kind, _, number = sighting.peer.partition("/")
    words = {"tcp": f"TCP connection {number}", "udp": f"UDP peer {number}"}
    if sighting.way != "bridge":
        words["bridge"] = "recovered out of a block"
    node = sighting.attributes.get("nodeidentity", "")
    return [words.get(kind, ""), f"node {node[:_NODE_DIGITS]}" if node else ""]


def _receipt(receipt: BlockReceipt) -> str:
    checked = {"hashes": receipt.hashes_verified, "links": receipt.links_verified}
    proven = [name for name, holds in checked.items() if holds]
    reveals = (
        f"{receipt.reveals_seen} seen, {receipt.reveals_recovered} recovered,"
        f" {receipt.reveals_missing} missing of {receipt.reveals_expected}"
        if receipt.HasField("reveals_expected")
        else "not known"
    )
    state = "[green]complete[/]" if receipt.complete else "[bold red]not complete[/]"
    return (
        f"height {receipt.height}: {state}; verified: {' and '.join(proven) or 'nothing'};"
        f" commits: {receipt.commits_seen} seen, {receipt.commits_recovered} recovered,"
        f" {receipt.commits_missing} missing of {receipt.commits_expected}; reveals: {reveals}"
    )


def _gap(gap: Mapping[str, Any], height: int | None) -> str:
    lacking = height is not None and any(a <= height <= b for a, b in gap["missing"])
    parts = [f"gap {gap['id']}, heights {gap['first']} to {gap['last']}: {gap['status']}"]
    if gap["cause"]:
        parts.append(f"cause {gap['cause']}")
    if gap["how"]:
        parts.append(f"filled by {gap['how']}")
    if gap["missing_count"]:
        parts.append(f"missing {gap['missing_count']}: {ranges(gap['missing'])}")
    if lacking:
        parts.append(f"height {height} is one of them")
    parts.append(f"since {gap['opened_at']}, {gap['attempts']} attempts")
    if gap["detail"]:
        parts.append(gap["detail"])
    return "; ".join(parts)
