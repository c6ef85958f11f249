"""`core.routing`: topics, subjects, and the filter of chains."""

import hashlib
from typing import Any

import pytest

from bridge.core.routing import ChainFilter, Routes
from bridge.model import Kind, Layout, Message
from bridge.pb.eventmessages.factomEvents_pb2 import ChainCommit, EntryCommit, EntryReveal

CHAIN, OTHER = b"c" * 32, b"o" * 32


def twice(data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def message(kind: Kind, token: str) -> Message:
    return Message(1, "id", None, token, Layout(kind, (), ()), (), b"")


def test_topics_have_the_prefix_and_the_name_of_the_kind_unless_renamed() -> None:
    routes = Routes("test.net", {Kind.ENTRY_REVEAL: "reveals"}, [Kind.NODE_MESSAGE])
    assert routes.topics[Kind.CHAIN_COMMIT] == "test.net.chain-commit"
    assert routes.topics[Kind.ENTRY_REVEAL] == "test.net.reveals"
    assert routes.topics.keys() == set(Kind)
    assert routes.off == {Kind.NODE_MESSAGE}


@pytest.mark.parametrize(
    ("kind", "token", "subject"),
    [
        (Kind.ENTRY_REVEAL, "ab" * 32, "factom.reveals." + "ab" * 32),
        (Kind.GAP_ALERT, "opened", "factom.gap-alert.opened"),
        (Kind.STATE_CHANGE, "", "factom.state-change"),
    ],
)
def test_a_subject_is_the_topic_and_the_messages_token(
    kind: Kind, token: str, subject: str
) -> None:
    routes = Routes("factom", {Kind.ENTRY_REVEAL: "reveals"}, ())
    assert routes.subject(message(kind, token)) == subject


@pytest.mark.parametrize(
    ("kind", "member", "passes"),
    [
        (Kind.ENTRY_REVEAL, EntryReveal(entry={"chainID": CHAIN}), True),
        (Kind.ENTRY_REVEAL, EntryReveal(entry={"chainID": OTHER}), False),
        (Kind.ENTRY_REVEAL, EntryReveal(), False),
        (Kind.CHAIN_COMMIT, ChainCommit(chainIDHash=twice(CHAIN)), True),
        (Kind.CHAIN_COMMIT, ChainCommit(chainIDHash=twice(OTHER)), False),
        (Kind.CHAIN_COMMIT, ChainCommit(chainIDHash=CHAIN), False),
        (Kind.ENTRY_COMMIT, EntryCommit(), True),
    ],
)
def test_chosen_chains_limit_reveals_and_chain_commits(
    kind: Kind, member: Any, passes: bool
) -> None:
    assert ChainFilter.of([CHAIN]).passes(kind, member) is passes
    assert ChainFilter.of([]).passes(kind, member)
