"""What the values of settings may be: the types that several sections share."""

from __future__ import annotations

import ipaddress
from typing import Annotated

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
    "networks",
]

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
