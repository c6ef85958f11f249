"""The node's settings of the feed: section `[LiveFeedAPI]` of a `factomd.conf`, and its flags.

The rules are the node's (factomd v6.5.2, `events/eventservices`, and gcfg, which reads the file):
names of sections, properties and values are case-insensitive; a value that is not understood means
the default, not the value of the next source; host and port count only when one source has both.
A flag wins over the file. One rule is wider here: the node cannot tell a flag of false from one
that is absent, so that false never wins there; here False does, and None is absent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, Self

__all__ = ["Broadcast", "LiveFeedConfig"]

_HIGHEST_PORT = 65_535
_SECTION = re.compile(r"\[\s*([\w.-]+)\s*(\"(?:[^\"\\]|\\.)*\")?\s*\]")
_PROPERTY = re.compile(r"([A-Za-z][\w-]*)\s*(=?)\s*(.*)")
_VALUE = re.compile(r'((?:[^;#"\\]|"(?:[^"\\]|\\.)*"|\\.)*)')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_BOOLEANS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "0"), False
)

Flag = str | int | bool | None
Read = Callable[[str], Any]


class Broadcast(IntEnum):
    """Whether external ids and content travel."""

    NEVER = 0
    ONCE = 1
    """At registration only."""
    ALWAYS = 2


@dataclass(frozen=True, slots=True)
class LiveFeedConfig:
    """The settings in force."""

    enabled: bool = False
    protocol: Literal["tcp", "udp"] = "tcp"
    host: str = "127.0.0.1"
    port: int = 8040
    sender_port: int = 0
    """The sender's own port; 0 takes a free one. (Sample files of newer nodes set 8040.)"""
    format: Literal["protobuf", "json"] = "protobuf"
    send_state_change: bool = False
    broadcast_content: Broadcast = Broadcast.ONCE
    replay_during_startup: bool = False
    persistent_reconnect: bool = False

    @classmethod
    def parse(cls, conf: str = "", **flags: Flag) -> Self:
        """Return what `conf`, the text of a `factomd.conf`, and the node's flags say together.

        A flag is a property's name in lower case: `parse(text, eventformat="json")`.

        Raises:
            TypeError: there is no such flag.
        """
        unknown = flags.keys() - _READERS.keys() - {_HOST, _PORT}
        if unknown:
            raise TypeError(f"no flag of the feed: {', '.join(sorted(unknown))}")
        given = {name: str(flag).strip() for name, flag in flags.items() if flag is not None}
        sources = (given, _section(conf, "livefeedapi"))
        found: dict[str, Any] = {}
        for name, (field, read) in _READERS.items():
            value = next((source[name] for source in sources if source.get(name)), "")
            understood = read(value)
            if understood is not None:
                found[field] = understood
        for source in sources:
            host, port = source.get(_HOST), _port(source.get(_PORT, ""))
            if host and port:
                found |= {"host": host, "port": port}
                break
        return cls(**found)


def _boolean(value: str) -> bool | None:
    return _BOOLEANS.get(value.lower())


def _port(value: str) -> int | None:
    if value.isascii() and value.isdigit() and 0 < int(value[:9]) <= _HIGHEST_PORT:
        return int(value)
    return None


def _one_of(**values: Any) -> Read:
    return lambda value: values.get(value.lower())


_HOST, _PORT = "eventreceiverhost", "eventreceiverport"
_READERS: dict[str, tuple[str, Read]] = {
    "enablelivefeedapi": ("enabled", _boolean),
    "eventreceiverprotocol": ("protocol", _one_of(tcp="tcp", udp="udp")),
    "eventsenderport": ("sender_port", _port),
    "eventformat": ("format", _one_of(protobuf="protobuf", json="json")),
    "eventsendstatechange": ("send_state_change", _boolean),
    "eventbroadcastcontent": (
        "broadcast_content",
        _one_of(
            always=Broadcast.ALWAYS,
            once=Broadcast.ONCE,
            onregistration=Broadcast.ONCE,
            never=Broadcast.NEVER,
        ),
    ),
    "eventreplayduringstartup": ("replay_during_startup", _boolean),
    "persistentreconnect": ("persistent_reconnect", _boolean),
}
"""Flag, the field that it sets, and how its value is read; host and port go together."""


def _section(conf: str, wanted: str) -> dict[str, str]:
    """Return the properties of one section by lower-case name; the last of a name counts."""
    found: dict[str, str] = {}
    within = False
    for line in conf.splitlines():
        text = line.strip().removeprefix("\ufeff")
        header = _SECTION.match(text)
        if header:
            # A subsection of that name is another section.
            within = header[1].lower() == wanted and header[2] is None
            text = text[header.end() :].strip()
        declared = _PROPERTY.match(text) if within else None
        if declared:
            name, assigned, rest = declared.groups()
            value = _VALUE.match(rest)
            plain = value[1].strip() if value else ""
            # A name alone is true, as in git's configuration.
            found[name.lower()] = _unquoted(plain) if assigned else "true"
    return found


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", _QUOTED.sub(r"\1", value))
