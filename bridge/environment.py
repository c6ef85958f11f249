"""Reads the settings from environment variables, and lists them.

pydantic-settings refuses a misspelt field of a section, but passes over a misspelt section without
a word: so every `BRIDGE_*` name that is not known is refused here, with the nearest one named.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from bridge.errors import SettingsInvalid
from bridge.setting_types import Section
from bridge.settings import DELIMITER, PREFIX, Settings

__all__ = ["Setting", "effective", "load", "settings_list", "shown"]


class Setting(NamedTuple):
    """One environment variable."""

    name: str
    description: str
    default: str
    secret: bool


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo, Any]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _fields(kind, f"{prefix}{name.upper()}{DELIMITER}")
        else:
            yield prefix + name.upper(), field, kind


def settings_list() -> list[Setting]:
    """Return every setting, in the order of this file."""
    return [
        Setting(name, field.description or "", shown(field.default), _is_secret(kind))
        for name, field, kind in _fields(Settings, PREFIX)
    ]


def effective(settings: Settings) -> dict[str, str]:
    """Return the value in force of every setting, secrets masked."""
    values = {}
    for setting in settings_list():
        value: Any = settings
        for part in setting.name.removeprefix(PREFIX).lower().split(DELIMITER):
            value = getattr(value, part)
        values[setting.name] = shown(value)
    return values


def shown(value: Any) -> str:
    """Return `value` as a person reads it, and as the environment takes it. Secrets are masked."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, tuple):
        return ",".join(_without_password(str(part)) for part in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return _without_password(str(value))


def _without_password(text: str) -> str:
    login, found, host = text.rpartition("@")
    if not found:
        return text
    scheme, slashes, _ = login.rpartition("://")
    return f"{scheme}{slashes}********@{host}"


def _is_secret(kind: Any) -> bool:
    return kind is SecretStr or SecretStr in getattr(kind, "__args__", ())


def load(environ: Mapping[str, str]) -> Settings:
    """Return the settings that `environ` holds.

    Raises:
        SettingsInvalid: with one sentence for each variable that is unknown or wrong.
    """
    known = {setting.name: setting for setting in settings_list()}
    secrets = {name + "_FILE": name for name, setting in known.items() if setting.secret}
    given: dict[str, str] = {}
    problems: list[str] = []
    for name, value in environ.items():
        if not name.upper().startswith(PREFIX):
            continue
        if name in secrets:
            plain = secrets[name]
            if plain in environ:
                problems.append(f"{plain} and {name} are both set: set one of them")
                continue
            try:
                given[plain] = Path(value).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is no text"
                # The value may be the secret itself, set by mistake: it is not repeated.
                problems.append(f"{name}: cannot read the file that it names: {reason}")
        elif name in known:
            given[name] = value
        else:
            nearest = difflib.get_close_matches(name.upper(), [*known, *secrets], 1, 0.0)[0]
            problems.append(f"{name} is not a setting: the nearest is {nearest}")
    if problems:
        raise SettingsInvalid("; ".join(problems))
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): value for name, value in given.items()}
    try:
        return Settings(**source())
    except ValidationError as error:
        raise SettingsInvalid(
            "; ".join(_sentence(problem) for problem in error.errors(include_input=False))
        ) from None


def _sentence(problem: Any) -> str:
    place = [str(part) for part in problem["loc"] if not isinstance(part, int)]
    text = str(problem["msg"]).removeprefix("Value error, ")
    if not place:
        return text
    return f"{PREFIX}{DELIMITER.join(place).upper()}: {text}"
