"""`emitter.config`: what the node makes of its file and its flags (feed.md, section 1)."""

from typing import Any

import pytest

from bridge.emitter.config import Broadcast, LiveFeedConfig

SAMPLE = """
; ------- a node's file
[app]
EventFormat = json
[LiveFeedAPI]
EnableLiveFeedAPI        = true
EventReceiverProtocol    = udp          ; or tcp
EventReceiverHost        = "feed.example"
EventReceiverPort        = 9040
EventSenderPort          = 9041
EventFormat              = json         # or protobuf
EventSendStateChange     = true
EventBroadcastContent    = always
EventReplayDuringStartup = true
PersistentReconnect      = true
[Walletd]
EventFormat = protobuf
"""
ALL = LiveFeedConfig(
    enabled=True,
    protocol="udp",
    host="feed.example",
    port=9040,
    sender_port=9041,
    format="json",
    send_state_change=True,
    broadcast_content=Broadcast.ALWAYS,
    replay_during_startup=True,
    persistent_reconnect=True,
)


def test_defaults_are_the_nodes() -> None:
    config = LiveFeedConfig.parse()
    assert config == LiveFeedConfig()
    assert (config.enabled, config.protocol, config.host, config.port, config.format) == (
        False,
        "tcp",
        "127.0.0.1",
        8040,
        "protobuf",
    )
    assert config.broadcast_content is Broadcast.ONCE
    assert not (config.send_state_change or config.replay_during_startup)
    assert not (config.persistent_reconnect or config.sender_port)


def test_every_property_is_read_from_its_section_only() -> None:
    assert LiveFeedConfig.parse(SAMPLE) == ALL


@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_case_does_not_matter(change: Any) -> None:
    config = LiveFeedConfig.parse(change(SAMPLE))
    assert config.host.lower() == ALL.host
    assert config.format == "json"
    assert config.broadcast_content is Broadcast.ALWAYS


def test_the_same_names_as_flags_give_the_same_and_win_over_the_file() -> None:
    flags: dict[str, str | int | bool] = {
        "enablelivefeedapi": True,
        "eventreceiverprotocol": "udp",
        "eventreceiverhost": "feed.example",
        "eventreceiverport": 9040,
        "eventsenderport": 9041,
        "eventformat": "json",
        "eventsendstatechange": True,
        "eventbroadcastcontent": "always",
        "eventreplayduringstartup": True,
        "persistentreconnect": True,
    }
    contrary = """[LiveFeedAPI]
    EnableLiveFeedAPI=false\nEventReceiverProtocol=tcp\nEventReceiverHost=a\nEventReceiverPort=1
    EventSenderPort=2\nEventFormat=protobuf\nEventSendStateChange=false
    EventBroadcastContent=never\nEventReplayDuringStartup=false\nPersistentReconnect=false"""
    assert LiveFeedConfig.parse("", **flags) == ALL
    assert LiveFeedConfig.parse(contrary, **flags) == ALL


@pytest.mark.parametrize(
    ("line", "flags", "expected"),
    [
        ("EventFormat = xml", {}, {"format": "protobuf"}),
        ("EventFormat = json", {"eventformat": "xml"}, {"format": "protobuf"}),
        ("EventFormat = json", {"eventformat": ""}, {"format": "json"}),
        ("EventFormat = json", {"eventformat": None}, {"format": "json"}),
        ("EventReceiverProtocol = sctp", {}, {"protocol": "tcp"}),
        ("EventBroadcastContent = OnRegistration", {}, {"broadcast_content": Broadcast.ONCE}),
        ("EventBroadcastContent = anything", {}, {"broadcast_content": Broadcast.ONCE}),
        ("EventBroadcastContent = NeVeR", {}, {"broadcast_content": Broadcast.NEVER}),
        (
            "EventBroadcastContent = never",
            {"eventbroadcastcontent": "x"},
            {"broadcast_content": Broadcast.ONCE},
        ),
        ("EnableLiveFeedAPI", {}, {"enabled": True}),
        ("EnableLiveFeedAPI = YES", {}, {"enabled": True}),
        ("EnableLiveFeedAPI = perhaps", {}, {"enabled": False}),
        ("EnableLiveFeedAPI = true", {"enablelivefeedapi": False}, {"enabled": False}),
        ("EnableLiveFeedAPI = false\nEnableLiveFeedAPI = true", {}, {"enabled": True}),
        ("EventSenderPort = 0", {}, {"sender_port": 0}),
        ("EventSenderPort = 8040", {"eventsenderport": 0}, {"sender_port": 0}),
        ("EventSenderPort = 99999", {}, {"sender_port": 0}),
        ("EventReceiverHost = a", {}, {"host": "127.0.0.1", "port": 8040}),
        ("EventReceiverPort = 1", {}, {"host": "127.0.0.1", "port": 8040}),
        ("EventReceiverHost = a\nEventReceiverPort = 0", {}, {"host": "127.0.0.1"}),
        ("EventReceiverHost = a\nEventReceiverPort = x", {}, {"host": "127.0.0.1"}),
        ("EventReceiverHost = a\nEventReceiverPort = 1", {}, {"host": "a", "port": 1}),
        (
            "EventReceiverHost = a\nEventReceiverPort = 1",
            {"eventreceiverhost": "b"},
            {"host": "a", "port": 1},
        ),
        (
            "EventReceiverHost = a\nEventReceiverPort = 1",
            {"eventreceiverhost": "b", "eventreceiverport": "2"},
            {"host": "b", "port": 2},
        ),
        ("EventReceiverHost = a", {"eventreceiverport": 2}, {"host": "127.0.0.1", "port": 8040}),
    ],
)
def test_a_value_means(line: str, flags: dict[str, Any], expected: dict[str, Any]) -> None:
    config = LiveFeedConfig.parse("[LiveFeedAPI]\n" + line, **flags)
    assert {name: getattr(config, name) for name in expected} == expected


def test_a_flag_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="eventfromat"):
        LiveFeedConfig.parse("", eventfromat="json")


def test_a_subsection_of_the_name_is_another_section() -> None:
    """Source: gcfg: `[section "subsection"]`."""
    conf = '[LiveFeedAPI]\nEnableLiveFeedAPI = true\n[LiveFeedAPI "other"]\nEventFormat = json\n'
    assert LiveFeedConfig.parse(conf) == LiveFeedConfig(enabled=True)
    assert LiveFeedConfig.parse(conf + '[Peer "x"]\nEventFormat = json').format == "protobuf"
