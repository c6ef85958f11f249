"""`settings` and `environment`: what the variables say, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from bridge.environment import effective, load, settings_list
from bridge.errors import SettingsInvalid
from bridge.model import Kind
from bridge.settings import DELIMITER, PREFIX

ALL = {setting.name: setting for setting in settings_list()}
SECRETS = [name for name, setting in ALL.items() if setting.secret]
CHAIN = "ab" * 32


def refused(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsInvalid) as caught:
        load(environ)
    return str(caught.value)


def without_a_letter(word: str) -> str:
    middle = len(word) // 2
    return word[:middle] + word[middle + 1 :]


def misspelt(name: str) -> list[str]:
    """`name` with a letter missing in each of its parts in turn."""
    parts = name.removeprefix(PREFIX).split(DELIMITER)
    return [
        PREFIX + DELIMITER.join([*parts[:at], without_a_letter(parts[at]), *parts[at + 1 :]])
        for at in range(len(parts))
    ]


# Names


def test_there_are_all_the_names_that_users_rely_on() -> None:
    assert ALL.keys() >= {
        "BRIDGE_NETWORK",
        "BRIDGE_PREFIX",
        "BRIDGE_FORMAT",
        "BRIDGE_JSON_BYTES",
        "BRIDGE_FEED__HOST",
        "BRIDGE_FEED__PORT",
        "BRIDGE_FEED__PROTOCOLS",
        "BRIDGE_FEED__ALLOW",
        "BRIDGE_JOURNAL__DIR",
        "BRIDGE_NATS__SERVERS",
        "BRIDGE_NATS__STREAM",
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS",
        "BRIDGE_NODE__URL",
        "BRIDGE_STATUS__HOST",
        "BRIDGE_STATUS__PORT",
        "BRIDGE_LOG__LEVEL",
        "BRIDGE_LOG__FORMAT",
    }


@pytest.mark.parametrize("name", ALL)
def test_a_misspelt_name_is_refused_and_the_right_one_named(name: str) -> None:
    for wrong in misspelt(name):
        assert refused({wrong: "1"}) == f"{wrong} is not a setting: the nearest is {name}"


@pytest.mark.parametrize(
    "name",
    [
        "BRIDGE_",
        "BRIDGE_FEED",
        "BRIDGE_FEED__",
        "BRIDGE_FEED_PORT",
        "BRIDGE_FEED__PORT__X",
        "BRIDGE_NETWORK_FILE",
        "BRIDGE_NATS__TOKEN_FILE_FILE",
        "bridge_network",
        "Bridge_Feed__Port",
        "BRIDGE_TOPICS__GAP-ALERT",
    ],
)
def test_any_other_name_of_the_bridge_is_refused(name: str) -> None:
    assert f"{name} is not a setting: the nearest is BRIDGE_" in refused({name: "1"})


def test_all_that_is_wrong_is_told_at_once() -> None:
    told = refused({"BRIDGE_NETWROK": "x", "BRIDGE_FEED__PROT": "1", "PATH": "/bin"})
    assert "BRIDGE_NETWROK" in told
    assert "BRIDGE_FEED__PROT" in told
    told = refused({"BRIDGE_FORMAT": "xml", "BRIDGE_FEED__PORT": "99999"})
    assert "BRIDGE_FORMAT: " in told
    assert "BRIDGE_FEED__PORT: " in told


def test_names_of_others_are_none_of_our_business() -> None:
    assert load({"PATH": "/bin", "BRIDGET_X": "1", "FEED__PORT": "1"}) == load({})


# Values


def test_every_default_given_as_a_variable_gives_the_default() -> None:
    for name, value in effective(load({})).items():
        if value:
            assert effective(load({name: value})) == effective(load({})), name
    assert {s.name: s.default for s in settings_list()} == effective(load({}))


@pytest.mark.parametrize(
    ("name", "value", "place", "expected"),
    [
        ("BRIDGE_NETWORK", "test-net.1", "network", "test-net.1"),
        ("BRIDGE_FEED__PORT", "0", "feed.port", 0),
        ("BRIDGE_FEED__PROTOCOLS", "udp", "feed.protocols", ("udp",)),
        ("BRIDGE_FEED__PROTOCOLS", " tcp , udp ,", "feed.protocols", ("tcp", "udp")),
        ("BRIDGE_FEED__ALLOW", "10.0.0.0/8,any", "feed.allow", ("10.0.0.0/8", "any")),
        ("BRIDGE_FEED__ALLOW", "", "feed.allow", ()),
        ("BRIDGE_NATS__SERVERS", "nats://a:1,nats://b:2", "nats.servers", ("nats://a:1", "nats://b:2")),
        ("BRIDGE_KAFKA__BOOTSTRAP_SERVERS", "a:9092", "kafka.bootstrap_servers", ("a:9092",)),
        ("BRIDGE_OFF", "state-change,node-message", "off", (Kind.STATE_CHANGE, Kind.NODE_MESSAGE)),
        ("BRIDGE_CHAINS", f"{CHAIN.upper()},{CHAIN}", "chains", (CHAIN, CHAIN)),
        ("BRIDGE_JOURNAL__DIR", "/data", "journal.dir", Path("/data")),
        ("BRIDGE_JOURNAL__COMMIT_DELAY_MS", "0.5", "journal.commit_delay_ms", 0.5),
        ("BRIDGE_TOPICS__ENTRY_REVEAL", "reveals", "topics.entry_reveal", "reveals"),
    ],
)  # fmt: skip
def test_values_are_read(name: str, value: str, place: str, expected: Any) -> None:
    found: Any = load({name: value})
    for part in place.split("."):
        found = getattr(found, part)
    assert found == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BRIDGE_NETWORK", ""),
        ("BRIDGE_NETWORK", "a b"),
        ("BRIDGE_NETWORK", "é"),
        ("BRIDGE_PREFIX", ".factom"),
        ("BRIDGE_PREFIX", "a..b"),
        ("BRIDGE_PREFIX", "a>b"),
        ("BRIDGE_PREFIX", "x" * 201),
        ("BRIDGE_FORMAT", "JSON"),
        ("BRIDGE_JSON_BYTES", "hexadecimal"),
        ("BRIDGE_FEED__PORT", "65536"),
        ("BRIDGE_FEED__PORT", "-1"),
        ("BRIDGE_FEED__PORT", "eight"),
        ("BRIDGE_FEED__PROTOCOLS", ""),
        ("BRIDGE_FEED__PROTOCOLS", "tcp,sctp"),
        ("BRIDGE_FEED__ALLOW", "10.0.0.1/8"),
        ("BRIDGE_FEED__ALLOW", "localhost"),
        ("BRIDGE_FEED__MAX_PAYLOAD_BYTES", "0"),
        ("BRIDGE_FEED__PARTIAL_FRAME_SECONDS", "0"),
        ("BRIDGE_JOURNAL__MAX_BYTES", "1000"),
        ("BRIDGE_JOURNAL__COMMIT_DELAY_MS", "21"),
        ("BRIDGE_NATS__STREAM", "a b"),
        ("BRIDGE_NATS__SERVERS", "nats://:4222"),
        ("BRIDGE_NATS__SERVERS", "nats://a:4222,nats://b:x"),
        ("BRIDGE_NODE__URL", "node:8088"),
        ("BRIDGE_NODE__URL", "ftp://node:8088/v2"),
        ("BRIDGE_NODE__URL", "http://a..b:8088/v2"),
        ("BRIDGE_NATS__DUPLICATE_WINDOW_SECONDS", "120"),
        ("BRIDGE_KAFKA__COMPRESSION", "snappy"),
        ("BRIDGE_TOPICS__GAP_ALERT", "a/b"),
        ("BRIDGE_OFF", "reveals"),
        ("BRIDGE_CHAINS", "ab"),
        ("BRIDGE_CHAINS", "zz" * 32),
        ("BRIDGE_LOG__LEVEL", "loud"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_name(name: str, value: str) -> None:
    assert refused({name: value}).startswith(f"{name}: ")


def test_two_kinds_with_one_name_are_refused() -> None:
    told = refused({"BRIDGE_TOPICS__ENTRY_REVEAL": "x", "BRIDGE_TOPICS__ENTRY_COMMIT": "x"})
    assert told == "BRIDGE_TOPICS: two kinds have the same name"


def test_dead_letters_cannot_be_switched_off() -> None:
    assert "dead-letter cannot be switched off" in refused({"BRIDGE_OFF": "dead-letter"})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "feed.example"])
def test_a_feed_beyond_loopback_needs_an_allow_list(host: str) -> None:
    assert "set BRIDGE_FEED__ALLOW" in refused({"BRIDGE_FEED__HOST": host})
    load({"BRIDGE_FEED__HOST": host, "BRIDGE_FEED__ALLOW": "10.0.0.0/8"})
    load({"BRIDGE_FEED__HOST": host, "BRIDGE_FEED__ALLOW": "any"})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "status.example"])
def test_a_status_page_beyond_loopback_needs_a_token(host: str) -> None:
    assert "set BRIDGE_STATUS__TOKEN" in refused({"BRIDGE_STATUS__HOST": host})
    load({"BRIDGE_STATUS__HOST": host, "BRIDGE_STATUS__TOKEN": "secret"})


def test_an_empty_token_protects_nothing() -> None:
    environ = {"BRIDGE_STATUS__HOST": "0.0.0.0", "BRIDGE_STATUS__TOKEN": ""}
    assert "set BRIDGE_STATUS__TOKEN" in refused(environ)


@pytest.mark.parametrize("token", ["two\nlines", "vogel\u00e9"])
def test_a_token_that_no_header_can_hold_is_refused(token: str) -> None:
    assert "BRIDGE_STATUS__TOKEN must be" in refused({"BRIDGE_STATUS__TOKEN": token})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BRIDGE_NATS__SERVERS", "a"),
        ("BRIDGE_NATS__SERVERS", "a:4222,u:p@[::1]:4222,tls://t@b.example.:4222"),
        ("BRIDGE_NATS__SERVERS", "wss://u:p@a:443/nats"),
        ("BRIDGE_NODE__URL", "https://u:p%40@[::1]:8088/v2?a=b"),
    ],
)
def test_addresses_of_any_usual_form_are_taken(name: str, value: str) -> None:
    load({name: value})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_neither(host: str) -> None:
    load({"BRIDGE_FEED__HOST": host, "BRIDGE_STATUS__HOST": host})


@pytest.mark.parametrize(
    ("environ", "embeds"),
    [
        ({}, True),
        ({"BRIDGE_NATS__SERVERS": ""}, True),
        ({"BRIDGE_NATS__SERVERS": "nats://a:4222"}, False),
        ({"BRIDGE_KAFKA__BOOTSTRAP_SERVERS": "a:9092"}, False),
    ],
)
def test_without_a_sink_nats_is_embedded(environ: dict[str, str], embeds: bool) -> None:
    assert load(environ).embeds_nats is embeds


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load({}).feed.port = 1


# Secrets


def value_of(name: str, environ: dict[str, str]) -> str:
    value: Any = load(environ)
    for part in name.removeprefix(PREFIX).lower().split(DELIMITER):
        value = getattr(value, part)
    secret: str = value.get_secret_value()
    return secret


def test_secrets_are_what_they_ought_to_be() -> None:
    assert SECRETS == [
        "BRIDGE_NATS__PASSWORD",
        "BRIDGE_NATS__TOKEN",
        "BRIDGE_NATS__NKEY_SEED",
        "BRIDGE_KAFKA__SASL_PASSWORD",
        "BRIDGE_KAFKA__TLS_KEY_PASSWORD",
        "BRIDGE_STATUS__TOKEN",
    ]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_comes_from_a_variable_or_a_file_but_not_from_both(
    name: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text(" s3cret with space \n")
    assert value_of(name, {name: "plain"}) == "plain"
    assert value_of(name, {f"{name}_FILE": str(file)}) == " s3cret with space "
    told = refused({name: "plain", f"{name}_FILE": str(file)})
    assert told == f"{name} and {name}_FILE are both set: set one of them"
    wrong = misspelt(f"{name}_FILE")[-1]
    assert f"{wrong} is not a setting" in refused({wrong: str(file)})


def test_a_secrets_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for place, reason in [("none", "No such file"), ("", "Is a directory"), ("binary", "no text")]:
        told = refused({"BRIDGE_NATS__TOKEN_FILE": str(tmp_path / place)})
        assert told.startswith("BRIDGE_NATS__TOKEN_FILE: cannot read ")
        assert reason in told


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_masked(name: str) -> None:
    settings = load({name: "s3cret"})
    assert effective(settings)[name] == "********"
    assert "s3cret" not in repr(settings) + str(effective(settings))


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("BRIDGE_NATS__SERVERS", "nats://u:s3cret@a:1,nats://b", "nats://********@a:1,nats://b"),
        ("BRIDGE_NATS__SERVERS", "tls://s3cret@a:1", "tls://********@a:1"),
        ("BRIDGE_NATS__SERVERS", "nats://u:s3@cret@a:1", "nats://********@a:1"),
        ("BRIDGE_NATS__SERVERS", "u:s3cret@a:1", "********@a:1"),
        ("BRIDGE_NODE__URL", "http://u:s3cret@node:8088/v2", "http://********@node:8088/v2"),
    ],
)
def test_passwords_within_addresses_are_masked(name: str, value: str, shown: str) -> None:
    assert effective(load({name: value}))[name] == shown


@pytest.mark.parametrize("name", ["BRIDGE_FEED__PORT", "BRIDGE_CHAINS", "BRIDGE_NATS__STREAM"])
def test_a_refused_value_is_not_repeated(name: str) -> None:
    assert "s3 cret" not in refused({name: "s3 cret"})


def test_every_setting_has_a_description() -> None:
    assert [name for name, setting in ALL.items() if not setting.description.endswith(".")] == []
