"""`core.chain`: the blocks that are there, and how they link."""

from dataclasses import replace

from bridge.core.chain import MAX_EDGES, Block, Chain, pack_block, unpack_block
from tests.support.chains import MadeChain

MAIN = MadeChain()


def block(height: int, chain: MadeChain = MAIN) -> Block:
    made = chain.block(height)
    return Block(made.links, made.previous_key)


def chain_of(*heights: int) -> Chain:
    chain = Chain()
    for height in heights:
        chain.add(block(height))
    return chain


def stored(chain: Chain) -> list[tuple[str, bytes]]:
    return [(name, value) for name, value in chain.take().items() if value is not None]


def test_a_block_proves_its_own_link_and_that_of_the_block_above() -> None:
    chain = chain_of(5, 7)
    assert chain.add(block(6)) == [6, 7]
    assert chain.add(block(0)) == [0]


def test_a_block_fits_if_it_contradicts_neither_neighbour() -> None:
    chain = chain_of(5, 7)
    other = MadeChain("other")
    fork = MAIN.forked(6, "fork")
    assert chain.fits(block(6))
    assert not chain.fits(block(6, other))
    # It names the one below, and the one above does not name it.
    assert not chain.fits(block(6, fork))
    assert chain.fits(block(3, other))
    assert not chain.fits(Block(MAIN.block(0).links, b"k" * 32))


def test_only_the_edges_of_runs_are_kept_whole() -> None:
    chain = chain_of(*range(5, 300), 310)
    assert [height for height in range(320) if chain.links(height)] == [299, 310]
    assert [height for height in range(320) if chain.named_below(height)] == [5, 310]
    assert all(chain.holds(MAIN.block(height).links) for height in range(5, 300))
    assert not chain.holds(MadeChain("other").block(7).links)


def test_the_chain_comes_back_from_its_items() -> None:
    chain = chain_of(5, 6, 9)
    again = Chain(stored(chain))
    assert list(again.present) == list(chain.present)
    assert again.links(6) == MAIN.block(6).links
    assert again.named_below(9) == MAIN.block(9).previous_key
    assert again.add(block(7)) == [7]
    assert again.take().keys() == {
        "heights/key/000000",
        "heights/upper/00000006",
        "heights/upper/00000007",
    }


def test_a_cleared_chain_has_nothing_and_nothing_comes_back() -> None:
    chain = chain_of(5, 6, 9)
    before = dict(stored(chain))
    chain.clear()
    for name, value in chain.take().items():
        before.pop(name)
        if value is not None:
            before[name] = value
    assert list(Chain(before.items()).present) == []
    assert set(before) == {"heights/key/000000"}


def test_edges_are_bounded_and_the_oldest_are_forgotten() -> None:
    chain = chain_of(*range(1, 2 * MAX_EDGES + 5, 2))
    assert chain.links(1) is chain.links(3) is None
    assert chain.links(5) is not None
    # A link that cannot be checked any more is not proven, and no contradiction.
    assert chain.fits(block(2, MadeChain("other")))
    assert chain.add(block(2)) == []
    assert len(stored(chain)) <= 2 * MAX_EDGES + 2 * MAX_EDGES // 256 + 2


def test_blocks_come_back_from_their_bytes() -> None:
    plain = block(7)
    known = plain._replace(
        links=replace(plain.links, ledger_key=b"l" * 32, credit_full_hash=b"c" * 32)
    )
    for each in (plain, known):
        assert unpack_block(pack_block(each)) == each
