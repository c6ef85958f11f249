"""Binary forms: what is written is read again, and noise gives a value or a `DecodeError`."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from bridge.core.binary.admin import AdminBlock, AdminEntry
from bridge.core.binary.commits import ChainCommit, EntryCommit
from bridge.core.binary.credits import BalanceIncrease, CreditBlock, Minute, ServerIndex
from bridge.core.binary.directory import DirectoryBlock, Listed
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.binary.factoid import FactoidBlock
from bridge.core.binary.transactions import Output, Proof, Transaction
from bridge.core.binary.wire import Reader, varint
from bridge.core.hashing import merkle_root, sha256
from bridge.core.verify import verify
from bridge.errors import DecodeError
from bridge.pb.eventmessages.factomEvents_pb2 import DirectoryBlockCommit
from tests.support.heights import extract

MIB = 2**20
HEIGHTS = extract()
RAW = [
    raw
    for height in HEIGHTS
    for raw in (
        height.raw.directory,
        height.raw.admin,
        height.raw.credit,
        height.raw.factoid,
        *height.raw.entry_blocks,
        *list(height.contents.values())[:3],
    )
    if len(raw) < 20_000
]
MESSAGES = [
    height.events[0].directoryBlockCommit.SerializeToString()
    for height in HEIGHTS
    if len(height.payloads[0]) < 20_000
]
FORMS: list[Any] = [
    DirectoryBlock,
    AdminBlock,
    FactoidBlock,
    CreditBlock,
    EntryBlock,
    Entry,
    EntryCommit,
    ChainCommit,
    Transaction,
]

hashes = st.binary(min_size=32, max_size=32)
signatures = st.binary(min_size=64, max_size=64)


def numbers(size: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2 ** (8 * size) - 1)


outputs = st.builds(Output, numbers(8), hashes)
entry_commits = st.builds(
    EntryCommit, numbers(6), hashes, numbers(1), hashes, signatures, numbers(1)
)
chain_commits = st.builds(
    ChainCommit, numbers(6), hashes, hashes, hashes, numbers(1), hashes, signatures, numbers(1)
)
items = st.one_of(
    entry_commits,
    chain_commits,
    st.builds(BalanceIncrease, hashes, hashes, numbers(8), numbers(8)),
    st.builds(Minute, numbers(1)),
    st.builds(ServerIndex, numbers(1)),
)
credit_blocks = st.builds(
    CreditBlock,
    hashes,
    hashes,
    numbers(4),
    st.lists(items, max_size=12).map(tuple),
    st.binary(max_size=200),
)
directories = st.builds(
    DirectoryBlock,
    numbers(4),
    hashes,
    hashes,
    numbers(4),
    numbers(4),
    st.lists(st.builds(Listed, hashes, hashes), max_size=9).map(tuple),
    numbers(1),
)
entries = st.builds(
    Entry, hashes, st.lists(st.binary(max_size=300), max_size=5).map(tuple), st.binary(), numbers(1)
)
entry_blocks = st.builds(
    EntryBlock,
    hashes,
    hashes,
    hashes,
    numbers(4),
    numbers(4),
    st.lists(hashes | st.integers(1, 10).map(lambda at: at.to_bytes(32, "big"))).map(tuple),
)


@st.composite
def made_transactions(draw: st.DrawFn) -> Transaction:
    inputs = draw(st.lists(outputs, max_size=3))
    return Transaction(
        draw(numbers(6)),
        tuple(inputs),
        tuple(draw(st.lists(outputs, max_size=3))),
        tuple(draw(st.lists(outputs, max_size=3))),
        tuple(Proof(draw(hashes), draw(signatures)) for _ in inputs),
    )


transactions = made_transactions()
factoid_blocks = st.builds(
    FactoidBlock,
    hashes,
    hashes,
    numbers(8),
    numbers(4),
    st.lists(st.lists(transactions, max_size=2).map(tuple), min_size=10, max_size=10).map(tuple),
    st.binary(max_size=150),
)
admin_entries = st.one_of(
    st.builds(AdminEntry, st.just(0), st.tuples(numbers(1))),
    st.builds(AdminEntry, st.just(1), st.tuples(hashes, hashes, signatures)),
    st.builds(AdminEntry, st.sampled_from([2, 3, 0x0D]), st.tuples(hashes, hashes)),
    st.builds(AdminEntry, st.sampled_from([5, 6, 7]), st.tuples(hashes, numbers(4))),
    st.builds(AdminEntry, st.just(8), st.tuples(hashes, numbers(1), hashes, numbers(4))),
    st.builds(
        AdminEntry,
        st.just(0x0B),
        st.tuples(st.lists(outputs, max_size=4).map(tuple)),
    ),
    st.builds(AdminEntry, st.just(0x0C), st.tuples(numbers(4), numbers(4))),
    st.builds(AdminEntry, st.integers(0x0F, 0xFF), st.tuples(st.binary(max_size=200))),
)
admin_blocks = st.builds(
    AdminBlock, hashes, numbers(4), st.lists(admin_entries, max_size=6).map(tuple), st.binary()
)
values = st.one_of(
    directories, admin_blocks, factoid_blocks, credit_blocks, entry_blocks, entries,
    entry_commits, chain_commits, transactions,
)  # fmt: skip


@given(value=values)
def test_what_is_written_is_read_again(value: Any) -> None:
    raw = value.raw
    again = type(value).parse(raw)
    assert again == value
    assert again.raw == raw
    for wrong in (raw + b"\x00", raw[:-1]):
        if isinstance(value, Entry):
            continue  # content ends where the entry ends
        with pytest.raises(DecodeError):
            type(value).parse(wrong)


@given(block=directories)
def test_a_directory_comes_back_from_its_message(block: DirectoryBlock) -> None:
    assert DirectoryBlock.of_message(block.message()) == block


@given(block=credit_blocks)
def test_a_credit_block_comes_back_from_its_message(block: CreditBlock) -> None:
    again = CreditBlock.of_message(block.message(), block.previous_full_hash)
    assert again.items == block.items
    if not block.expansion:  # the feed does not send it
        assert again == block


@given(block=factoid_blocks)
def test_a_factoid_block_comes_back_from_its_message(block: FactoidBlock) -> None:
    if not block.minutes[0]:
        return  # there is always a coinbase transaction
    again = FactoidBlock.of_message(block.message(), block.previous_ledger_key_merkle_root)
    assert again.minutes == block.minutes


@given(block=entry_blocks)
def test_an_entry_block_comes_back_from_its_message(block: EntryBlock) -> None:
    assert EntryBlock.of_message(block.message()) == block
    assert [each for each, _ in block.times(0)] == list(block.entry_hashes())


@given(value=numbers(8))
def test_integers_come_back(value: int) -> None:
    read = Reader(varint(value))
    assert read.varint() == value
    read.end()


@st.composite
def damaged(draw: st.DrawFn, sources: list[bytes]) -> bytes:
    """Recorded bytes of which some are changed, lost, doubled or put in."""
    raw = draw(st.sampled_from(sources))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        until = min(len(raw), at + draw(st.integers(0, 40)))
        new = draw(st.one_of(st.binary(max_size=8), st.just(b"\xff" * 4), st.just(raw[at:until])))
        raw = raw[:at] + new + raw[until:]
    return raw


def hold_to_the_promise(raw: bytes) -> None:
    for form in FORMS:
        try:
            value = form.parse(raw)
        except DecodeError as error:
            assert error.reason == "invalid-binary"
            assert len(str(error)) < 300
        else:
            assert value.raw == raw


@given(noise=st.binary(max_size=600))
def test_noise_gives_a_value_that_comes_back_or_the_one_error(noise: bytes) -> None:
    hold_to_the_promise(noise)


@given(raw=damaged(RAW))
@settings(max_examples=300)
def test_damaged_blocks_give_a_value_that_comes_back_or_the_one_error(raw: bytes) -> None:
    hold_to_the_promise(raw)


@given(data=damaged(MESSAGES))
@settings(max_examples=300)
def test_a_made_up_block_is_verified_without_an_exception(data: bytes) -> None:
    message = DirectoryBlockCommit()
    try:
        message.ParseFromString(data)
    except Exception:
        return
    found = verify(message)
    if found.links is not None:
        assert verify(message, found.links).height == found.height


@pytest.mark.parametrize("count", [2**31, 2**32 - 1])
@pytest.mark.parametrize("form", [DirectoryBlock, AdminBlock, FactoidBlock, EntryBlock])
def test_a_count_or_length_that_is_not_there_takes_no_memory(form: Any, count: int) -> None:
    filler = {DirectoryBlock: 109, AdminBlock: 69, FactoidBlock: 141, EntryBlock: 136}[form]
    raw = next(each.raw for each in HEIGHTS if each.height == 3)
    true = {
        DirectoryBlock: raw.directory,
        AdminBlock: raw.admin,
        FactoidBlock: raw.factoid,
        EntryBlock: raw.entry_blocks[0],
    }[form]
    forged = true[:filler] + count.to_bytes(4, "big") + true[filler + 4 :]
    tracemalloc.start()
    with pytest.raises(DecodeError):
        form.parse(forged)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MIB


def test_very_many_tiny_parts_are_refused_before_they_get_memory() -> None:
    body = b"\x0f\x00" * (2 * MIB)
    admin = AdminBlock(bytes(32), 1, ()).raw[:-8]
    forged = admin + (2 * MIB).to_bytes(4, "big") + len(body).to_bytes(4, "big") + body
    body = b"\x01\x01" * (2 * MIB)
    credit = CreditBlock(bytes(32), bytes(32), 1, ()).raw
    tiny = (
        credit[:32] + sha256(body) + credit[64:-16]
        + (2 * MIB).to_bytes(8, "big") + len(body).to_bytes(8, "big") + body
    )  # fmt: skip
    tracemalloc.start()
    for form, raw in ((AdminBlock, forged), (CreditBlock, tiny)):
        with pytest.raises(DecodeError, match="parts should follow"):
            form.parse(raw)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * MIB


def test_a_large_block_is_read_in_bounded_memory() -> None:
    body = tuple(sha256(at.to_bytes(4, "big")) for at in range(100_000))
    block = EntryBlock(bytes(32), bytes(32), bytes(32), 0, 1, body)
    assert EntryBlock.parse(block.raw) == block
    assert merkle_root(body) == block.hashes().body_merkle_root
