"""`receivers.gate`: who is let in, and how many."""

import pytest

from bridge.receivers.gate import AllowList, ConnectionGate, Pace, Rank


@pytest.mark.parametrize(
    ("allowed", "host", "in_it"),
    [
        (["loopback"], "127.0.0.1", True),
        (["loopback"], "127.9.9.9", True),
        (["loopback"], "::1", True),
        (["loopback"], "::ffff:127.0.0.1", True),
        (["loopback"], "10.0.0.1", False),
        (["loopback"], "::ffff:10.0.0.1", False),
        (["10.1.0.0/16"], "10.1.2.3", True),
        (["10.1.0.0/16"], "::ffff:10.1.2.3", True),
        (["10.1.0.0/16"], "10.2.0.1", False),
        (["10.1.0.0/16"], "127.0.0.1", False),
        (["10.1.0.0/16", "192.0.2.7"], "192.0.2.7", True),
        (["192.0.2.7"], "192.0.2.8", False),
        (["fd00::/8"], "fd12::1", True),
        (["fd00::/8"], "fe80::1%eth0", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["fd00::/8"], "10.0.0.1", False),
        (["any"], "203.0.113.1", True),
        (["10.0.0.0/8", "any"], "2001:db8::1", True),
        ([], "127.0.0.1", False),
    ],
)
def test_peers_are_let_in_by_their_network(allowed: list[str], host: str, in_it: bool) -> None:
    assert (host in AllowList(allowed)) is in_it


class Door(ConnectionGate):
    """A gate whose clock stands still until it is moved."""

    def __init__(self, total: int = 100, per_address: int = 100, per_second: int = 100) -> None:
        self.now = 1000.0
        super().__init__(
            AllowList(["10.0.0.0/8"]),
            total=total,
            per_address=per_address,
            per_second=per_second,
            clock=lambda: self.now,
        )
        self.asked: list[str | None] = []

    def comes(self, host: str, *, room: bool = False) -> str | None:
        """Let `host` enter; whether room is made is given."""

        def make_room(full: str | None) -> bool:
            self.asked.append(full)
            return room

        return self.enter(host, make_room)


def test_connections_are_refused_in_all_and_let_in_again_when_one_left() -> None:
    door = Door(total=2)
    answers = [door.comes(host) for host in ("10.0.0.1", "10.0.0.2", "10.0.0.3")]
    assert answers == [None, None, "too-many-connections"]
    assert door.open == 2
    door.leave("10.0.0.1")
    assert door.comes("10.0.0.3") is None


def test_connections_are_refused_per_address_and_others_are_not() -> None:
    door = Door(per_address=2)
    hosts = ("10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2")
    assert [door.comes(host) for host in hosts] == [None, None, "too-many-from-address", None]
    door.leave("10.0.0.1")
    assert door.comes("10.0.0.1") is None


def test_connections_are_refused_per_second_though_others_left() -> None:
    door = Door(per_second=2)
    for host in ("10.0.0.1", "10.0.0.3"):
        assert door.comes(host) is None
        door.leave(host)
    door.now += 0.9
    assert door.comes("10.0.0.2") == "too-many-per-second"
    door.now += 0.2
    assert door.comes("10.0.0.2") is None


def test_each_rank_has_a_pace_of_its_own() -> None:
    door = Door(per_second=1)
    door.heard("10.0.0.1")
    door.silent("10.0.0.2")
    for host in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        assert [door.comes(host) for _ in range(2)] == [None, "too-many-per-second"]


def test_an_address_is_what_it_showed_itself_to_be() -> None:
    door = Door()
    assert door.rank("10.0.0.1") is Rank.STRANGER
    door.silent("10.0.0.1")
    assert door.rank("10.0.0.1") is Rank.SILENT
    door.heard("10.0.0.1")
    door.silent("10.0.0.1")
    assert door.rank("10.0.0.1") is Rank.NODE


def test_room_is_made_where_it_lacks() -> None:
    door = Door(total=2, per_address=1)
    assert [door.comes(host, room=True) for host in ("10.0.0.1", "10.0.0.1")] == [None, None]
    assert door.asked == ["10.0.0.1"]
    assert door.comes("10.0.0.2", room=True) is None
    assert door.asked == ["10.0.0.1", None]


def test_only_the_latest_addresses_are_remembered() -> None:
    door = Door()
    for number in range(1_025):
        door.silent(f"10.0.0.{number}")
    for number in range(64):
        door.heard(f"10.1.0.{number}")
    door.heard("10.1.0.0")
    door.heard("10.1.1.0")
    ranks = [door.rank(host) for host in ("10.0.0.0", "10.0.0.1", "10.1.0.0", "10.1.0.1")]
    assert ranks == [Rank.STRANGER, Rank.SILENT, Rank.NODE, Rank.STRANGER]


def test_who_is_not_allowed_counts_for_nothing() -> None:
    door = Door(total=1, per_second=1)
    assert door.comes("192.0.2.1") == "not-allowed"
    assert (door.open, door.comes("10.0.0.1")) == (0, None)


def test_a_gate_forgets_addresses_that_left() -> None:
    door = Door()
    for number in range(50):
        assert door.comes(f"10.0.0.{number}") is None
        door.leave(f"10.0.0.{number}")
    assert (door.open, len(door._open)) == (0, 0)


def test_a_pace_lets_a_number_through_in_any_such_time() -> None:
    now = [50.0]
    pace = Pace(2, 10, lambda: now[0])
    assert [pace.passes() for _ in range(3)] == [True, True, False]
    now[0] += 9
    assert not pace.passes()
    now[0] += 1
    assert [pace.passes() for _ in range(3)] == [True, True, False]
