"""`core.repeats`: the same block goes out once."""

from collections import Counter

from bridge.core.render import Rendered
from bridge.core.repeats import Repeats
from bridge.model import Kind, Layout, Message

BLOCK = Layout(Kind.DIRECTORY_BLOCK_COMMIT, (), ())
COMMIT = Layout(Kind.ENTRY_COMMIT, (), ())


def rendered(*messages: tuple[int, str, Layout]) -> Rendered:
    made = [Message(seq, id_, None, "", layout, (), b"") for seq, id_, layout in messages]
    blocks = any(message.layout is BLOCK for message in made)
    return Rendered(made[0].seq, made[-1].seq, made, Counter(), blocks)


def ids(found: Rendered) -> list[tuple[int, str]]:
    return [(message.seq, message.id) for message in found.messages]


def test_a_block_that_went_out_is_left_out_and_counted() -> None:
    repeats = Repeats()
    assert ids(repeats.without(rendered((1, "a", BLOCK), (2, "b", BLOCK)))) == [(1, "a"), (2, "b")]
    again = repeats.without(rendered((3, "a", BLOCK), (4, "c", BLOCK), (5, "c", BLOCK)))
    assert ids(again) == [(4, "c")]
    assert again.left_out == {"repeated": 2}
    assert (again.first, again.last) == (3, 5)


def test_what_is_sent_again_after_an_error_is_no_repeat() -> None:
    repeats = Repeats()
    one = rendered((1, "a", BLOCK), (2, "a", BLOCK))
    assert ids(repeats.without(one)) == ids(repeats.without(one)) == [(1, "a")]


def test_other_kinds_come_as_often_as_the_node_sends_them() -> None:
    repeats = Repeats()
    one = rendered((1, "a", COMMIT), (2, "a", COMMIT))
    assert repeats.without(one) is one


def test_only_the_latest_are_known_and_none_after_a_loss() -> None:
    repeats = Repeats(known=2)
    repeats.without(rendered((1, "a", BLOCK), (2, "b", BLOCK), (3, "c", BLOCK)))
    assert ids(repeats.without(rendered((4, "a", BLOCK), (5, "c", BLOCK)))) == [(4, "a")]
    repeats.forget()
    assert ids(repeats.without(rendered((6, "c", BLOCK)))) == [(6, "c")]
