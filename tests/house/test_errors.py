"""Every error has a code of its own, a remedy, and an exit code of the contract."""

import importlib
import pkgutil
import re

import pytest

import bridge
from bridge import errors
from bridge.errors import BridgeError

CONTRACT = {64, 69, 70, 74, 75, 78}


def every_error(base: type[BridgeError] = BridgeError) -> list[type[BridgeError]]:
    return [base, *(error for child in base.__subclasses__() for error in every_error(child))]


@pytest.fixture(scope="module", autouse=True)
def _all_modules() -> None:
    # A subclass is known only once its module was imported.
    for module in pkgutil.walk_packages(bridge.__path__, "bridge."):
        if module.name != "bridge.__main__":
            importlib.import_module(module.name)


def test_errors_stand_in_one_module_and_in_its_all() -> None:
    own = [error for error in every_error() if error.__module__.startswith("bridge")]
    assert {error.__module__ for error in own} == {"bridge.errors"}
    assert sorted(error.__name__ for error in own) == sorted(errors.__all__)


def test_codes_are_unique_and_fit_for_a_label() -> None:
    codes = [error.code for error in every_error()]
    assert sorted(set(codes)) == sorted(codes)
    assert all(re.fullmatch(r"[a-z][a-z_]{1,40}", code) for code in codes)


@pytest.mark.parametrize("name", errors.__all__)
def test_each_error_says_what_to_do_and_what_happened(name: str) -> None:
    error: type[BridgeError] = getattr(errors, name)
    assert re.fullmatch(r"[A-Z][^\n]{8,100}\.", error.remedy)
    assert error.__doc__
    # Said anew by each, not inherited: the base's remedy is to report a bug.
    assert {"code", "remedy"} <= set(vars(error))


@pytest.mark.parametrize("name", errors.__all__)
def test_exit_codes_are_those_of_the_contract(name: str) -> None:
    assert getattr(errors, name).exit_code in CONTRACT


def test_what_supervisors_must_know_has_its_own_code() -> None:
    assert errors.UsageError.exit_code == 64
    assert errors.SettingsInvalid.exit_code == 78
    assert errors.AlreadyRunning.exit_code == 75
    assert {e.exit_code for e in every_error() if e.code.startswith("storage")} == {74}
