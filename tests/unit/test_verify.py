"""`core.verify`: true blocks hold, and each thing that can be wrong is named."""

from collections.abc import Callable

import pytest

from bridge.core.rebuild import rebuild
from bridge.core.verify import MAX_FAILURES, Links, verify
from bridge.pb.eventmessages.factomEvents_pb2 import DirectoryBlockCommit, FactomEvent
from tests.support.captures import CAPTURES, find_capture, not_here
from tests.support.heights import extract

FULL = "backfill-api"
REAL = [name for name in CAPTURES if not name.startswith("allfields") and "json" not in name]


def blocks(name: str) -> list[tuple[int, DirectoryBlockCommit]]:
    capture = find_capture(name)
    if capture is None:
        not_here(name)
    return [
        (int(event.eventSource), event.directoryBlockCommit)
        for event in map(FactomEvent.FromString, capture.payloads())
        if event.HasField("directoryBlockCommit")
    ]


@pytest.mark.parametrize("name", REAL)
def test_every_recorded_block_holds_and_follows_the_one_before(name: str) -> None:
    links: dict[int, Links] = {}
    linked = 0
    for source, message in blocks(name):
        height = message.directoryBlock.header.blockHeight
        found = verify(message, links.get(height - 1))
        assert found.failures == ()
        assert found.height == height
        assert found.links is not None
        linked += "previous-key-merkle-root" not in found.unproven
        assert ("previous-key-merkle-root" in found.unproven) == bool(
            height and height - 1 not in links
        )
        if source == 1:
            assert "entry-block" not in found.unproven
        known = links.setdefault(height, found.links)
        assert known.full_hash == found.links.full_hash
    assert linked


def test_all_is_proven_of_a_chain_that_is_known_from_its_start() -> None:
    links = None
    for height in (each for each in extract() if each.capture == FULL and each.height < 7):
        found = verify(height.events[0].directoryBlockCommit, links)
        assert found.holds
        assert found.unproven == (("admin-block",) if height.height == 0 else ())
        links = found.links


def chain() -> tuple[DirectoryBlockCommit, Links]:
    """A full block and what is known of the one before."""
    by_height = {each.height: each for each in extract() if each.capture == FULL}
    return (
        by_height[3].events[0].directoryBlockCommit,
        rebuild(by_height[2].raw).links,
    )


def flip(value: bytes) -> bytes:
    return bytes([value[0] ^ 1]) + value[1:]


def forge_both(message: DirectoryBlockCommit) -> None:
    """Move a byte from one field of the header to the next: the header's bytes stay the same."""
    header = message.directoryBlock.header
    moved = header.previousKeyMerkleRoot + header.previousFullHash
    header.previousKeyMerkleRoot, header.previousFullHash = moved[:31], moved[31:]


def change(path: str) -> Callable[[DirectoryBlockCommit], None]:
    *steps, last = path.split(".")

    def apply(message: DirectoryBlockCommit) -> None:
        target: object = message
        for step in steps:
            target = target[int(step)] if step.isdigit() else getattr(target, step)  # type: ignore[index]
        value = getattr(target, last)
        setattr(target, last, flip(value) if isinstance(value, bytes) else value + 1)

    return apply


SIGNED = "adminBlock.entries.0.directoryBlockSignatureEntry"
FORGERIES: list[tuple[str, str | Callable[[DirectoryBlockCommit], object]]] = [
    ("directory-block", forge_both),
    ("directory-block", "directoryBlock.chainID"),
    ("directory-block", "directoryBlock.header.blockCount"),
    ("directory-block", "directoryBlock.header.timestamp.seconds"),
    ("directory-block", "directoryBlock.header.timestamp.nanos"),
    ("body-merkle-root", "directoryBlock.header.bodyMerkleRoot"),
    ("key-merkle-root", "directoryBlock.keyMerkleRoot"),
    ("key-merkle-root", "directoryBlock.header.version"),
    ("hash", "directoryBlock.hash"),
    ("network", "directoryBlock.header.networkID"),
    ("previous-key-merkle-root", "directoryBlock.header.previousKeyMerkleRoot"),
    ("previous-full-hash", "directoryBlock.header.previousFullHash"),
    ("body-merkle-root", "directoryBlock.entries.0.keyMerkleRoot"),
    ("admin-block", "adminBlock.header.previousBackRefHash"),
    ("admin-block", "adminBlock.header.messageCount"),
    ("admin-block", "adminBlock.keyMerkleRoot"),
    ("admin-block", "adminBlock.entries.0.adminIdType"),
    (
        "admin-block",
        f"{SIGNED}.previousDirectoryBlockSignature.signature",
    ),
    ("admin-block", lambda message: message.ClearField("adminBlock")),
    ("factoid-block", "factoidBlock.bodyMerkleRoot"),
    ("factoid-block", "factoidBlock.keyMerkleRoot"),
    ("factoid-block", "factoidBlock.previousKeyMerkleRoot"),
    ("factoid-block", "factoidBlock.previousLedgerKeyMerkleRoot"),
    ("factoid-block", "factoidBlock.exchangeRate"),
    ("factoid-block", "factoidBlock.blockHeight"),
    ("factoid-block", "factoidBlock.transactionCount"),
    ("factoid-block", "factoidBlock.transactions.0.transactionID"),
    ("factoid-block", "factoidBlock.transactions.0.timestamp.seconds"),
    ("factoid-block", lambda message: message.ClearField("factoidBlock")),
    ("entry-credit-block", "entryCreditBlock.header.bodyHash"),
    ("entry-credit-block", "entryCreditBlock.header.previousHeaderHash"),
    ("entry-credit-block", "entryCreditBlock.header.blockHeight"),
    ("entry-credit-block", "entryCreditBlock.header.objectCount"),
    ("entry-credit-block", lambda message: message.ClearField("entryCreditBlock")),
    ("entry-credit-block", lambda message: message.entryCreditBlock.entries[0].Clear()),
    ("entry-block", "entryBlocks.0.header.bodyMerkleRoot"),
    ("entry-block", "entryBlocks.0.header.chainID"),
    ("entry-block", "entryBlocks.0.header.previousFullHash"),
    ("entry-block", "entryBlocks.0.header.blockSequence"),
    ("entry-block", "entryBlocks.0.header.entryCount"),
    ("entry-block", lambda message: message.entryBlocks.pop()),
    ("entry-block", lambda message: message.entryBlocks.append(message.entryBlocks[0])),
    ("entry", "entryBlockEntries.0.hash"),
    ("entry", "entryBlockEntries.0.content"),
    ("entry", "entryBlockEntries.0.version"),
    ("entry", "entryBlockEntries.0.chainID"),
    ("entry", lambda message: message.entryBlockEntries.pop()),
]


@pytest.mark.parametrize(("check", "forgery"), FORGERIES)
def test_what_does_not_hold_is_named(
    check: str, forgery: str | Callable[[DirectoryBlockCommit], object]
) -> None:
    message, previous = chain()
    assert verify(message, previous).holds
    if isinstance(forgery, str):
        if forgery == "entryBlockEntries.0.content":
            message.entryBlockEntries[0].content += b"?"
        else:
            change(forgery)(message)
    else:
        forgery(message)
    found = verify(message, previous)
    assert not found.holds
    assert check in {failure.check for failure in found.failures}
    assert all(len(failure.detail) < 250 for failure in found.failures)
    directory = {"directory-block", "body-merkle-root", "key-merkle-root", "hash"}
    failed = {failure.check for failure in found.failures}
    assert (found.links is None) == bool(failed & directory)


def test_entries_without_content_are_no_failure_and_not_proven() -> None:
    message, previous = chain()
    for entry in message.entryBlockEntries:
        entry.content = b""
        del entry.externalIDs[:]
    found = verify(message, previous)
    assert found.holds
    assert found.unproven == ("entry",)


def test_a_block_of_another_chain_does_not_link() -> None:
    message, previous = chain()
    other = next(
        each for each in extract() if each.capture == "gap-api-replay" and each.height == 2
    )
    found = verify(message, rebuild(other.raw).links)
    assert [failure.check for failure in found.failures] == [
        "previous-key-merkle-root",
        "previous-full-hash",
    ]
    assert found.links is not None
    assert verify(message, previous).holds


def test_the_number_of_failures_is_bounded() -> None:
    message, previous = chain()
    for _ in range(100):
        message.entryBlockEntries.append(message.entryBlockEntries[0])
        message.entryBlockEntries[-1].hash = b"\xff" * 10_000
    found = verify(message, previous)
    assert len(found.failures) == MAX_FAILURES


def test_an_empty_message_is_a_failure() -> None:
    found = verify(DirectoryBlockCommit())
    assert [failure.check for failure in found.failures] == ["directory-block"]
    assert found.links is None
