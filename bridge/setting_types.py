"""What the values of settings may be: the types that several sections share."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

__all__ = [
    "GIB",
    "MIB",
    "List",
    "Name",
    "Port",
    "Positive",
    "Seconds",
    "Section",
    "chain_id",
    "commas",
    "is_file",
    "nats_servers",
    "networks",
    "web_address",
]

_COMMA_IN_LOGIN = re.compile("//[^/@]*,[^/@]*@")

MIB = 1024 * 1024
GIB = 1024 * MIB


def commas(value: object) -> object:
    """Take text with commas apart."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _name(value: str) -> str:
    # Prefix and name together are a Kafka topic, of 249 characters at most.
    if not value or len(value) > 100 or value.strip(".") != value or not _is_plain(value):
        raise ValueError("use letters, digits, dots, hyphens and underscores, no dot at an end")
    return value


def _is_plain(value: str) -> bool:
    return value.isascii() and all(c.isalnum() or c in "._-" for c in value) and ".." not in value


def chain_id(value: str) -> str:
    """Return a chain's id as it is written."""
    try:
        if len(bytes.fromhex(value)) == 32:
            return value.lower()
    except ValueError:
        pass
    raise ValueError("a chain id has 64 hexadecimal digits")


def networks(value: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is no network."""
    for part in value:
        if part not in {"loopback", "any"}:
            ipaddress.ip_network(part)
    return value


def nats_servers(value: object) -> object:
    """Take servers apart, and refuse what is none: it may hold a password, and is not repeated."""
    servers = commas(value)
    cut = isinstance(value, str) and _COMMA_IN_LOGIN.search(value)
    if cut or not isinstance(servers, tuple) or not all(map(_is_server, servers)):
        raise ValueError(
            "servers are written like nats://nats:4222; a password with commas or other signs"
            " belongs into BRIDGE_NATS__PASSWORD"
        )
    return servers


def _is_server(value: str) -> bool:
    return _is_address(value if "://" in value else f"nats://{value}")


def web_address(value: str) -> str:
    """Refuse what is no address of HTTP. As `nats_servers`."""
    if not value.startswith(("http://", "https://")) or not _is_address(value):
        raise ValueError("it is written like http://127.0.0.1:8088/v2")
    return value


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # Of a password that is not quoted, the rest stands behind the host.
        rest = parts.path + parts.query + parts.fragment
        labels = (parts.hostname or "").removesuffix(".").split(".")
        known = url.isascii() and url.isprintable() and parts.port != 0
        return known and "@" not in rest and all(0 < len(label) < 64 for label in labels)
    except ValueError:
        return False


def is_file(path: Path) -> bool:
    """Say whether `path` is a file, also of what is no path at all, but a secret in its place."""
    try:
        return path.is_file()
    except OSError:
        return False


Name = Annotated[str, AfterValidator(_name)]
List = Annotated[tuple[str, ...], NoDecode, BeforeValidator(commas)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """Settings whose names share a first part."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True
    )
