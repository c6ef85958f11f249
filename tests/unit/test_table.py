"""`core.table`: small records by height, kept in chunks."""

from hypothesis import given, strategies as st

from bridge.core.table import Table

heights = st.integers(0, 2**32 - 1)
records = st.binary(min_size=3, max_size=3)


@given(st.lists(st.tuples(heights, records)))
def test_it_holds_what_a_dict_holds_and_its_items_give_it_back(
    puts: list[tuple[int, bytes]],
) -> None:
    table, items = Table("t", 3), {}
    for number, (height, record) in enumerate(puts):
        table.put(height, record)
        if number % 3 == 0:
            items.update(table.take())
    items.update(table.take())
    expected = sorted((h, r) for h, r in dict(puts).items() if r != bytes(3))
    assert list(table) == expected
    assert list(Table("t", 3, items.items())) == expected
    assert all(table.get(height) == record for height, record in dict(puts).items())


def test_only_chunks_that_changed_are_written_again() -> None:
    table = Table("t", 1)
    for height in range(10_000):
        table.put(height, b"x")
    assert sum(map(len, table.take().values())) == 10_240
    assert table.take() == {}
    table.put(300, b"y")
    assert list(table.take()) == ["t/000001"]


def test_items_of_others_are_passed_over() -> None:
    assert list(Table("t", 1, [("table/000000", b"x" * 256), ("t2/000000", b"")])) == []


def test_an_unknown_height_has_a_record_of_zeros() -> None:
    assert Table("t", 4).get(7) == bytes(4)
