"""`core.binary`: every recorded instance comes back unchanged and has the hash that is said."""

from collections import Counter
from typing import Any

import pytest

from bridge.core.binary.admin import AdminBlock, AdminEntry
from bridge.core.binary.commits import ChainCommit, EntryCommit
from bridge.core.binary.credits import CreditBlock
from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.binary.factoid import FactoidBlock
from bridge.core.binary.transactions import Output, Transaction
from bridge.core.binary.wire import Reader, varint
from bridge.errors import DecodeError
from tests.support.captures import not_here
from tests.support.heights import API_CAPTURES, Answers, answers, extract

FORMS: tuple[Any, ...] = (
    DirectoryBlock,
    AdminBlock,
    FactoidBlock,
    CreditBlock,
    EntryBlock,
    Entry,
)


def check(known: Answers) -> Counter[str]:
    """Hold every instance against its hashes, and return how many there were of each kind."""
    seen: Counter[str] = Counter()
    for (method, asked), result in known.items():
        if method == "dblock-by-height":
            directory = DirectoryBlock.parse(same(DirectoryBlock, result["rawdata"])).hashes()
            told = result["dblock"]
            assert directory.key_merkle_root.hex() == told["keymr"]
            assert directory.full_hash.hex() == told["dbhash"]
            assert directory.body_merkle_root.hex() == told["header"]["bodymr"]
        elif method == "ablock-by-height":
            admin = AdminBlock.parse(same(AdminBlock, result["rawdata"])).hashes()
            assert admin.lookup_hash.hex() == result["ablock"]["lookuphash"]
            assert admin.back_reference_hash.hex() == result["ablock"]["backreferencehash"]
        elif method == "ecblock-by-height":
            credit = CreditBlock.parse(same(CreditBlock, result["rawdata"])).hashes()
            told = result["ecblock"]
            assert credit.header_hash.hex() == told["headerhash"]
            assert credit.full_hash.hex() == told["fullhash"]
            assert credit.body_hash.hex() == told["header"]["bodyhash"]
        elif method == "fblock-by-height":
            block = FactoidBlock.parse(same(FactoidBlock, result["rawdata"]))
            factoid, told = block.hashes(), result["fblock"]
            assert factoid.body_merkle_root.hex() == told["bodymr"]
            assert factoid.key_merkle_root.hex() == told["keymr"]
            assert factoid.ledger_key_merkle_root.hex() == told["ledgerkeymr"]
            ids = [each.transactionID.hex() for each in block.message().transactions]
            assert ids == [each["txid"] for each in told["transactions"]]
        elif method == "raw-data":
            matches = [name for form in FORMS if (name := named(form, result["data"], str(asked)))]
            assert len(matches) == 1, (asked, matches)
            seen[f"raw {matches[0]}"] += 1
        elif method == "entry":
            entry = Entry(
                bytes.fromhex(result["chainid"]),
                tuple(map(bytes.fromhex, result["extids"] or ())),
                bytes.fromhex(result["content"] or ""),
            )
            assert entry.hash().hex() == asked
            assert Entry.parse(entry.raw) == entry
        else:
            continue
        seen[method] += 1
    return seen


def same(form: Any, text: str) -> bytes:
    raw = bytes.fromhex(text)
    assert form.parse(raw).raw == raw
    return raw


def named(form: Any, text: str, asked: str) -> str | None:
    """Return the form's name if these bytes are of it and have the hash asked for."""
    try:
        value = form.parse(bytes.fromhex(text))
    except DecodeError:
        return None
    assert value.raw.hex() == text
    hashes = [value.hash()] if form is Entry else value.hashes()
    return form.__name__ if asked in [each.hex() for each in hashes] else None


def test_every_instance_of_the_extract_has_the_hash_that_the_node_says() -> None:
    known: Answers = {}
    for height in extract():
        known |= {(method, asked): value for (method, asked), value in height.answers.items()}
    assert {
        "dblock-by-height",
        "ablock-by-height",
        "ecblock-by-height",
        "fblock-by-height",
        "raw EntryBlock",
        "entry",
    } <= set(check(known))


@pytest.mark.parametrize("name", API_CAPTURES)
def test_every_instance_of_the_recordings_has_the_hash_that_the_node_says(name: str) -> None:
    known = answers(name)
    if not known:
        not_here(name)
    seen = check(known)
    assert min(seen[f"{part}-by-height"] for part in ("dblock", "ablock", "ecblock", "fblock")) > 30
    assert seen["entry"] > 50
    assert seen["raw EntryBlock"] > 10


def test_commits_come_back_unchanged_alone_too() -> None:
    seen: set[type] = set()
    for height in extract():
        for item in CreditBlock.parse(height.raw.credit).items:
            if isinstance(item, ChainCommit):
                assert len(item.raw) == 200
                assert ChainCommit.parse(item.raw) == item
                assert ChainCommit.of_message(item.message()) == item
            elif isinstance(item, EntryCommit):
                assert len(item.raw) == 136
                assert EntryCommit.parse(item.raw) == item
                assert EntryCommit.of_message(item.message()) == item
            seen.add(type(item))
    assert {ChainCommit, EntryCommit} <= seen


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (0, "00"),
        (3, "03"),
        (127, "7f"),
        (128, "8100"),
        (130, "8102"),
        (2**16 - 1, "83ff7f"),
        (2**16, "848000"),
        (2**32 - 1, "8fffffff7f"),
        (2**63 - 1, "ffffffffffffffff7f"),
        (2**64 - 1, "81ffffffffffffffff7f"),
    ],
)
def test_integers_are_those_of_the_networks_document(value: int, raw: str) -> None:
    assert varint(value).hex() == raw
    assert Reader(bytes.fromhex(raw)).varint() == value


@pytest.mark.parametrize("raw", ["8000", "80", "ff", "82ffffffffffffffff7f", "ff" * 100])
def test_integers_that_could_not_come_back_are_refused(raw: str) -> None:
    with pytest.raises(DecodeError):
        Reader(bytes.fromhex(raw)).varint()


ID = b"\x11" * 32
ENTRIES = [
    (AdminEntry(0x00, (7,)), "endOfMinuteEntry"),
    (AdminEntry(0x01, (ID, ID, b"\x22" * 64)), "directoryBlockSignatureEntry"),
    (AdminEntry(0x02, (ID, ID)), "revealMatryoshkaHash"),
    (AdminEntry(0x03, (ID, ID)), "addReplaceMatryoshkaHash"),
    (AdminEntry(0x04, (200,)), "increaseServerCount"),
    (AdminEntry(0x06, (ID, 2**32 - 1)), "addAuditServer"),
    (AdminEntry(0x07, (ID, 9)), "removeFederatedServer"),
    (AdminEntry(0x08, (ID, 1, ID, 9)), "addFederatedServerSigningKey"),
    (AdminEntry(0x09, (ID, 1, 0, b"\x33" * 20)), "addFederatedServerBitcoinAnchorKey"),
    (AdminEntry(0x0B, ((),)), "coinbaseDescriptor"),
    (AdminEntry(0x0B, ((Output(2**64 - 1, ID), Output(0, ID)),)), "coinbaseDescriptor"),
    (AdminEntry(0x0C, (2**32 - 1, 300)), "cancelCoinbaseDescriptor"),
    (AdminEntry(0x0D, (ID, ID)), "addFactoidAddress"),
    (AdminEntry(0x0E, (ID, 10_000)), "addEfficiency"),
    (AdminEntry(0x0F, (b"new",)), "forwardCompatibleEntry"),
    (AdminEntry(0xFF, (b"",)), "forwardCompatibleEntry"),
]


@pytest.mark.parametrize(("entry", "member"), ENTRIES)
def test_every_admin_entry_comes_back_from_bytes_and_from_the_message(
    entry: AdminEntry, member: str
) -> None:
    block = AdminBlock(ID, 5, (entry, entry))
    assert AdminBlock.parse(block.raw) == block
    message = block.message()
    assert message.entries[0].WhichOneof("adminBlockEntry") == member
    assert AdminBlock.of_message(message) == block
    assert message.keyMerkleRoot == block.hashes().back_reference_hash


def test_the_message_of_a_new_federated_server_lacks_the_height_as_the_nodes_does() -> None:
    entry = AdminEntry(0x05, (ID, 77))
    assert entry.message().addFederatedServer.blockHeight == 0
    assert AdminEntry.of_message(entry.message()) == AdminEntry(0x05, (ID, 0))


MINUTES = [
    # Minute of each transaction in the block; minutes that the node tells. The first four were
    # recorded, the others follow from factomd v6.5.2, `mapTransactions`.
    ((1,), (1,)),
    ((1, 2), (1, 1)),
    ((1, 3), (1, 1)),
    ((1, 2, 2), (1, 1, 2)),
    ((1, 3, 3, 9), (1, 1, 3, 3)),
    ((1, 1, 4, 10, 10), (1, 1, 1, 4, 10)),
]


@pytest.mark.parametrize(("minutes", "told"), MINUTES)
def test_the_minutes_of_transactions_are_told_as_the_node_tells_them(
    minutes: tuple[int, ...], told: tuple[int, ...]
) -> None:
    groups: list[list[Transaction]] = [[] for _ in range(10)]
    for at, minute in enumerate(minutes):
        groups[minute - 1].append(Transaction(1_700_000_000_000 + at))
    block = FactoidBlock(ID, ID, 1000, 8, tuple(map(tuple, groups)))
    message = block.message()
    assert tuple(each.minuteNumber for each in message.transactions) == told
    assert FactoidBlock.of_message(message, ID) == block


def test_times_of_entries_are_those_of_the_nodes_answers() -> None:
    height = next(each for each in extract() if each.height == 3)
    start = DirectoryBlock.parse(height.raw.directory).seconds
    known = answers(height.capture)
    if not known:
        not_here(height.capture)
    for raw in height.raw.entry_blocks:
        block = EntryBlock.parse(raw)
        told = known["entry-block", block.hashes().key_merkle_root.hex()]["entrylist"]
        assert [(hash_.hex(), at) for hash_, at in block.times(start)] == [
            (each["entryhash"], each["timestamp"]) for each in told
        ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("raw", [b"", b"\x00", b"\xff" * 31, b"\xff" * 400, bytes(400)])
def test_what_is_no_block_is_refused_with_the_one_error(form: Any, raw: bytes) -> None:
    if form is Entry and raw == bytes(400):
        assert Entry.parse(raw).content == bytes(365)
        return
    with pytest.raises(DecodeError) as caught:
        form.parse(raw)
    assert caught.value.reason == "invalid-binary"
